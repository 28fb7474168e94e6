"""One pass over a map, in a file or in memory: what it holds, and whether it can be used.

Of a large map in a file only a strip of rows is in memory at a time.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from .bad_frames import Damage, FrameSums, damage_of
from .checks import positive_sigma
from .chosen import Chosen
from .layouts.maps import Half, Triangle, Window
from .noise import noise_lags, sigma_of_lines
from .selection import PairRule
from .two_time import row_step

# A map in a file below this is read in one go [bytes].
_WHOLE = 64 * 2**20
# Entries of a strip of rows.
_STRIP = 2**20
# Rows of a block in which the triangles of a map are compared.
_BLOCK = 128
# Frames that were not measured can hide behind others as often as this.
_ROUNDS = 4
# c2 is of order one. Correlators work in float32, so the two triangles of a full map may differ by
# some hundred float32 roundings; anything beyond is not rounding.
TOLERANCE = 2e-5


def _strips(n: int, height: int) -> Iterator[slice]:
    for low in range(0, n, height):
        yield slice(low, min(low + height, n))


def stored_triangle(where: str, window: Window, declared: Triangle | None) -> Triangle | None:
    """Which triangle of a square map holds the numbers; `None` when both do.

    A triangle counts as empty when all its entries are zero or NaN. A full map may differ between
    its triangles by rounding (2e-5 of 1 + |c2|); an entry that is NaN in one triangle only is no
    asymmetry.

    **Raises:** `DataError` when both triangles hold numbers and they disagree, with the largest
    difference and the frames where it sits; or when the `declared` triangle is the empty one.
    """
    name, n = window.name, window.n_frames
    filled = {"upper": False, "lower": False}
    worst, place, pair = 0.0, (0, 0), (0.0, 0.0)
    for rows in _strips(n, _BLOCK):
        columns = slice(rows.start, n)
        above = ~np.tri(rows.stop - rows.start, n - rows.start, dtype=bool)
        upper, lower = window[rows, columns], window[columns, rows].T
        filled["upper"] |= bool(np.any((upper != 0) & ~np.isnan(upper) & above))
        filled["lower"] |= bool(np.any((lower != 0) & ~np.isnan(lower) & above))
        # inf - inf and comparisons with NaN: such pairs get masked, they show no asymmetry
        usable = above & np.isfinite(upper) & np.isfinite(lower)
        with np.errstate(invalid="ignore", over="ignore"):
            excess = np.abs(upper - lower) / (1 + np.maximum(np.abs(upper), np.abs(lower)))
        excess = np.where(usable, excess, 0)
        if excess.size and excess.max() > worst:
            worst = float(excess.max())
            row, column = (int(k) for k in np.unravel_index(np.argmax(excess), excess.shape))
            place = (rows.start + row + 1, rows.start + column + 1)
            pair = (float(upper[row, column]), float(lower[row, column]))
    if declared is not None:
        other = "lower" if declared == "upper" else "upper"
        if filled[other] and not filled[declared]:
            raise DataError(
                f"{where}: {name} is declared to populate the {declared} half but numbers are only "
                f"in the {other} half; correct the attribute populated_elements."
            )
        return declared
    if filled["upper"] != filled["lower"]:
        return "upper" if filled["upper"] else "lower"
    if worst > TOLERANCE:
        raise DataError(
            f"{where}: {name} is neither symmetric nor stored as one half: the asymmetry is "
            f"{abs(pair[0] - pair[1]):.3g} at frames {place}, where the two triangles hold "
            f"{pair[0]:.6g} and {pair[1]:.6g}. Symmetrise the map, or store only its upper "
            "triangle with zeros below."
        )
    return None


class MapSurvey(NamedTuple):
    """What one pass found in one map.

    - `half`: where the pairs are; `sigma_half`: the same for a stored sigma.
    - `halved`: whether only one triangle is stored.
    - `pairs`: number of pairs that count.
    - `diagonal`: main diagonal as it is stored; `side`: first side diagonal, 0 where masked.
    - `values`, `lags`: a sample of pairs that count.
    - `noise`: robust standard deviation when it was asked for; `smallest_sigma`: of the stored one.
    - `damage`: frames that were not measured, of those whose pairs count.
    """

    half: Half
    sigma_half: Half | None
    halved: bool
    pairs: int
    diagonal: np.ndarray
    side: np.ndarray
    values: np.ndarray
    lags: np.ndarray
    noise: float | None
    smallest_sigma: float
    damage: Damage


def at_hand(window: Window) -> Window:
    """A map in memory when it is small, else as it is in its file."""
    size = window.n_frames**2 * window.whole.dtype.itemsize
    return window.held() if size <= _WHOLE else window


def survey_map(
    chosen: Chosen, position: int, window: Window, sigma: Window | None, enough: float
) -> MapSurvey:
    """Check one of the chosen maps and keep what is small, with about `enough` pairs of it.

    `window` and `sigma` are its c2 and its stored sigma where that is used.

    **Raises:** `DataError` for a map that is asymmetric, without a usable pair or with a sigma that
    is not positive.
    """
    where, raw, rule, n = chosen.where, chosen.raw, chosen.rule, chosen.n_frames
    triangle = stored_triangle(where, window, raw.triangle)
    full, half = triangle is None, triangle or "both"
    sigma_half: Half | None = None
    if sigma is not None:
        sigma_half = stored_triangle(where, sigma, raw.triangle) or "upper"
    user = chosen.mask_of(position)
    step = row_step(n, enough)
    diagonal, side = np.empty(n), np.zeros(n - 1)
    chosen_lags = noise_lags(n) if chosen.sigma == "mad" else np.empty(0, int)
    lines = [np.full(n - lag, np.nan) for lag in chosen_lags]
    sampled, lags = [], []
    pairs, differs, smallest, sums = 0, False, np.inf, FrameSums.zero(n)

    def band(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of some rows with all later frames, and which of them count."""
        i, j = np.arange(rows.start, rows.stop)[:, None], np.arange(rows.start, n)[None, :]
        values = window.band(half, rows)
        usable = np.isfinite(values) & (i < j)
        if rule is not None:
            usable &= rule(i, j)
        if user is not None:
            usable &= user[rows, rows.start :]
        return values, usable

    def common(value: float, frames: np.ndarray) -> float:
        """Part of the pairs of some frames that hold a value."""
        held = of = 0
        for rows in _strips(n, max(1, _STRIP // n)):
            values, usable = band(rows)
            usable &= frames[rows, None] & frames[rows.start :]
            of += int(np.count_nonzero(usable))
            held += int(np.count_nonzero(usable & (values == value)))
        return held / max(of, 1)

    for rows in _strips(n, max(1, _STRIP // n)):
        values, usable = band(rows)
        diagonal[rows] = np.diagonal(window[rows, rows])
        if full:
            above = ~np.tri(*values.shape, dtype=bool)
            upper = np.isfinite(window[rows, slice(rows.start, n)])
            differs = differs or bool(np.any((upper != np.isfinite(values)) & above))
        sums.add(rows, values, usable)
        pairs += int(np.count_nonzero(usable))
        near = np.where(np.diagonal(usable, 1), np.diagonal(values, 1), 0.0)
        side[rows.start : rows.start + near.size] = near
        for k in range(-rows.start % step, rows.stop - rows.start, step):
            sampled.append(values[k][usable[k]])
            lags.append(np.flatnonzero(usable[k]) - k)
        for line, lag in zip(lines, chosen_lags, strict=True):
            along = np.where(np.diagonal(usable, lag), np.diagonal(values, lag), np.nan)
            line[rows.start : rows.start + along.size] = along
        if sigma is not None and sigma_half is not None:
            spread = sigma.band(sigma_half, rows)[usable]
            positive_sigma(where, sigma.name, spread)
            smallest = min(smallest, float(np.min(spread, initial=np.inf)))
    if pairs == 0:
        raise DataError(
            f"{where}: {window.name} (phi = {chosen.geometry.phi[position]:g}) has no finite pair "
            "left after masks and NaN; leave this map out or widen the selection."
        )
    return MapSurvey(
        half="upper" if full and not differs else half,
        sigma_half=sigma_half,
        halved=not full,
        pairs=pairs,
        diagonal=diagonal,
        side=side,
        values=np.concatenate(sampled),
        lags=np.concatenate(lags),
        noise=sigma_of_lines(lines, n) if chosen.sigma == "mad" else None,
        smallest_sigma=smallest,
        damage=damage_of(sums, side, common),
    )


def surveyed(
    chosen: Chosen, survey: Callable[[Chosen, int], MapSurvey]
) -> tuple[Chosen, list[MapSurvey]]:
    """What `survey` finds of each map, again while frames are found that were not measured.

    Where that is asked for they are masked, and what is found is remarked in any case.

    **Raises:** `DataError` as `survey`, and when no pair is left.
    """
    asked, damaged, damages = chosen.selection.bad_frames == "auto", set[int](), None
    for _ in range(_ROUNDS):
        found = [survey(chosen, position) for position in range(chosen.n_maps)]
        new = [one.damage for one in found]
        damages = [a.after(b) for a, b in zip(new, damages or new, strict=True)]
        more = set[int]().union(*(one.frames for one in damages)) - damaged
        if not (asked and more):
            break
        damaged |= more
        chosen = chosen.without(damaged)
    else:
        found = [survey(chosen, position) for position in range(chosen.n_maps)]
    return chosen.remarked(damages), found


def whole_map(
    band: np.ndarray, rule: PairRule | None, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """A map from its pairs i ≤ j with masked entries at 0, and which pairs count; symmetric both.

    - `band`: all rows of the map, of which nothing below the diagonal is looked at.
    - `rule`, `mask`: pairs that count, as in `Chosen`.
    """
    first, second = np.ogrid[: len(band), : len(band)]
    finite = np.isfinite(band)
    keep = finite & (first < second)
    if rule is not None:
        keep &= rule(first, second)
    if mask is not None:
        keep &= mask
    upper = np.where(keep, band, 0)
    whole = upper + upper.T
    # The diagonal is no pair; for display it stays unless it is no number.
    np.fill_diagonal(whole, np.where(finite, band, 0).diagonal())
    return whole, keep | keep.T


def root_weights_of(keep: np.ndarray, sigma: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """1/sigma of the pairs that count, 0 elsewhere, from the rows of `sigma` above the diagonal."""
    pairs, weights = np.triu(keep), np.zeros(keep.shape, dtype)
    weights[pairs] = 1.0 / sigma[pairs].astype(float)
    return weights + weights.T
