"""The noise of maps, from differences of neighbouring entries."""

from collections.abc import Sequence

import numpy as np

from ..errors import DataError

# median(|x|) of a normal variable is 0.6745 sigma
_MAD_TO_SIGMA = 1.482602218505602
# variance of a second difference x0 - 2 x1 + x2 of independent entries: 1 + 4 + 1
_SECOND_DIFFERENCE = np.sqrt(6.0)
_ENOUGH = 400_000


def mad_sigma(
    c2: np.ndarray, usable: np.ndarray | None = None, root_weights: np.ndarray | None = None
) -> float:
    """Robust noise of one map `(frame, frame)`, as one standard deviation.

    Second differences are taken between neighbours of one lag, c2(i−1, j−1) − 2 c2(i, j) +
    c2(i+1, j+1): along a lag the signal changes only by aging, so it drops out, the steep decay
    next to the diagonal included. Their median absolute value, 1.4826/√6 of it, is sigma for
    independent normal entries; outliers do not matter. Entries that share speckles are correlated
    (slow dynamics at high count rate); there this estimate is too small, which is why it never
    counts as absolute. Lags are thinned out evenly when a map has more pairs than needed.

    - `c2`: the map; only i < j is looked at.
    - `usable`: `(frame, frame)`, false for entries to leave out. NaN is left out anyway.
    - `root_weights`: `(frame, frame)`, one over the relative sigma of each entry, 0 for those to
        leave out; the result is the factor by which these sigma are too small.

    **Raises:** `DataError` when no three usable entries of one lag exist.
    """
    n = c2.shape[0]
    lines, spreads = [], []
    for lag in noise_lags(n):
        line = np.asarray(np.diagonal(c2, lag), np.float64)
        if usable is not None:
            line = np.where(np.diagonal(usable, lag), line, np.nan)
        lines.append(line)
        if root_weights is not None:
            root = np.asarray(np.diagonal(root_weights, lag), np.float64)
            blank = np.full(root.shape, np.nan)
            spreads.append(np.divide(1.0, root, out=blank, where=root > 0))
    return sigma_of_lines(lines, n, spreads or None)


def noise_lags(n: int) -> np.ndarray:
    """The lags whose entries `mad_sigma` looks at in a map of `n` frames."""
    return np.arange(1, max(n - 2, 1))[:: max(1, (n * n // 2) // _ENOUGH)]


def sigma_of_lines(
    lines: Sequence[np.ndarray], n: int, spreads: Sequence[np.ndarray] | None = None
) -> float:
    """As `mad_sigma`, from the entries along each lag, NaN where one does not count.

    With `spreads`, the relative sigma of each entry, it is the factor by which these are too small.

    **Raises:** `DataError` when no three usable entries of one lag exist.
    """
    values = _second_differences(lines, spreads)
    if values.size == 0:
        # Where no three are next to each other, as with every other frame, those that count are.
        known = [np.isfinite(line) for line in lines]
        kept = [line[used] for line, used in zip(lines, known, strict=True)]
        beside = spreads and [one[used] for one, used in zip(spreads, known, strict=True)]
        values = _second_differences(kept, beside)
    if values.size == 0:
        raise DataError(
            f"The noise of a map of {n} frames cannot be estimated: no three entries of one lag "
            "are usable. Give sigma."
        )
    return float(np.median(values) * _MAD_TO_SIGMA / _SECOND_DIFFERENCE)


def _second_differences(
    lines: Sequence[np.ndarray], spreads: Sequence[np.ndarray] | None
) -> np.ndarray:
    """Sizes of those of neighbouring entries that count, of variance 6 in units of the spreads."""
    differences = [np.empty(0)]
    for k, line in enumerate(lines):
        second = line[:-2] - 2 * line[1:-1] + line[2:]
        if spreads is not None:
            variance = spreads[k] ** 2
            # That of the difference, in units of what equal entries of variance 1 would have.
            variance = (variance[:-2] + 4 * variance[1:-1] + variance[2:]) / 6
            second = second / np.sqrt(variance)
        differences.append(np.abs(second[np.isfinite(second)]))
    return np.concatenate(differences)
