"""One pass over a map, in a file or in memory: what it holds, and whether it can be used.

Of a large map in a file only a strip of rows is in memory at a time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from ..cores import in_order
from ..errors import DataError
from .bad_frames import Damage, FrameSums, damage_of
from .checks import positive_sigma
from .chosen import Chosen
from .fills import Fill, Strip, candidates, find_fills, repeated
from .layouts.maps import Half, Window
from .noise import noise_lags, sigma_of_lines
from .selection import PairRule
from .symmetry import halves_of, strips
from .two_time import row_step

# A map in a file below this is read in one go [bytes].
_WHOLE = 64 * 2**20
# Maps that are read or looked at beside each other. More would gain nothing, as half of it waits
# for the lock of Python, and each takes memory.
AT_A_TIME = 2
# Entries of a strip of rows: few, for what is made of them to stay in the cache of the processor.
_STRIP = 2**18
# Frames that were not measured can hide behind others as often as this.
_ROUNDS = 6


class MapSurvey(NamedTuple):
    """What one pass found in one map.

    - `half`: where the pairs are; `sigma_half`: the same for a stored sigma.
    - `halved`: whether only one triangle is stored; `asymmetry`: by how much both differ.
    - `pairs`: number of pairs that count.
    - `frames`: which have a pair that counts.
    - `diagonal`: main diagonal as it is stored; `side`: first side diagonal, 0 where masked.
    - `values`, `lags`: a sample of pairs that count.
    - `noise`: robust standard deviation when it was asked for; `smallest_sigma`: of the stored one.
    - `damage`: frames that were not measured, of those whose pairs count.
    """

    half: Half
    sigma_half: Half | None
    halved: bool
    asymmetry: float
    pairs: int
    frames: np.ndarray
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
    half, halved, asymmetry = halves_of(where, window, raw.triangle, chosen.symmetrise)
    full = half == "both"
    sigma_half: Half | None = None
    if sigma is not None:
        sigma_half = halves_of(where, sigma, raw.triangle, chosen.symmetrise).half
        sigma_half = "upper" if sigma_half == "both" else sigma_half
    user = chosen.mask_of(position)
    step = row_step(n, enough)
    diagonal, side = np.empty(n), np.zeros(n - 1)
    chosen_lags = noise_lags(n) if chosen.sigma == "mad" else np.empty(0, int)
    lines = [np.full(n - lag, np.nan) for lag in chosen_lags]
    sampled, lags = [], []
    pairs, differs, smallest, sums = 0, False, np.inf, FrameSums.zero(n)
    beside: Counter[float] = Counter()

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
        for rows in strips(n, max(1, _STRIP // n)):
            values, usable = band(rows)
            usable &= frames[rows, None] & frames[rows.start :]
            of += int(np.count_nonzero(usable))
            held += int(np.count_nonzero(usable & (values == value)))
        return held / max(of, 1)

    def fills() -> tuple[Fill, ...]:
        """Numbers that were not measured, in some pairs of frames that were."""
        found = candidates(beside, sums.low, sums.high)
        return find_fills(all_strips, found, chosen.baseline.added, sums.pairs)

    def all_strips() -> Iterator[Strip]:
        for rows in strips(n, max(1, _STRIP // n)):
            yield Strip(rows.start, rows.start, *band(rows))

    for rows in strips(n, max(1, _STRIP // n)):
        values, usable = band(rows)
        diagonal[rows] = np.diagonal(window[rows, rows])
        if full:
            above = ~np.tri(*values.shape, dtype=bool)
            upper = np.isfinite(window[rows, slice(rows.start, n)])
            differs = differs or bool(np.any((upper != np.isfinite(values)) & above))
        sums.add(rows, values, usable)
        beside += repeated(Strip(rows.start, rows.start, values, usable), chosen.baseline.added)
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
        halved=halved,
        asymmetry=asymmetry,
        pairs=pairs,
        frames=sums.pairs > 0,
        diagonal=diagonal,
        side=side,
        values=np.concatenate(sampled),
        lags=np.concatenate(lags),
        noise=sigma_of_lines(lines, n) if chosen.sigma == "mad" else None,
        smallest_sigma=smallest,
        damage=damage_of(sums, side, common, fills),
    )


def surveyed(
    chosen: Chosen, survey: Callable[[Chosen, int], MapSurvey]
) -> tuple[Chosen, list[MapSurvey]]:
    """What `survey` finds of each map, again while frames are found that were not measured.

    Where that is asked for they are masked, and what is found is remarked in any case.

    **Raises:** `DataError` as `survey`, and when no pair is left.
    """

    def all_maps(looked: Chosen) -> list[MapSurvey]:
        return list(in_order(partial(survey, looked), range(looked.n_maps), most=AT_A_TIME))

    masked, damages = chosen.selection.bad_frames == "auto", list[Damage]()
    looked, damaged = chosen, set(chosen.intensities.dark)
    # What counts where nothing is masked, whatever is found behind what is.
    kept = None if masked else all_maps(chosen)
    found = None if damaged else kept
    try:
        if damaged:
            looked = looked.without(damaged)
        for _ in range(_ROUNDS):
            found = all_maps(looked) if found is None else found
            new = [one.damage for one in found]
            damages = [a.after(b) for a, b in zip(new, damages or new, strict=True)]
            more = set[int]().union(*(one.frames for one in damages)) - damaged
            if not (more or any(one.fills for one in new)):
                break
            damaged |= more
            fills = [tuple(fill.value for fill in one.fills) for one in damages]
            looked, found = looked.without(damaged, fills), None
    except DataError:
        # Of maps without what was found nothing may be left to look at, which is no matter here.
        if masked:
            raise
    if kept is not None:
        return chosen.remarked(damages), kept
    return looked.remarked(damages), all_maps(looked) if found is None else found


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
