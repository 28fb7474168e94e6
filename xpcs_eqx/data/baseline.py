"""Whether maps hold c2 or c2 − 1, told by their levels at short and at the largest lags.

c2 decays to 1 and c2 − 1 to 0, or stays above that where something never decays, and the contrast
is not above 1. What lies at 0 at the largest lags, near it and visibly above it somewhere, or still
falls from below 1 towards it, is c2 − 1. Nothing is done to maps that lie elsewhere, that rise with
the lag, or of which one says this and one that: c2 that was never normalised may have any level.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..errors import DataError
from .bad_frames import uncorrelated
from .checks import given_scalar, shown
from .layouts.maps import RawMaps

Baseline = Literal["auto", 0, 1]
# Levels of the largest lags of c2 − 1, and of c2.
_WITHOUT, _WITH = (-0.3, 0.3), (0.9, 2.3)
# Level of c2 − 1 of a high contrast that has begun to decay; c2 that still falls is not as low.
_SURE = 0.97
# Above this no c2 − 1 lies at short lags; below this none does beside maps that look like c2.
_HIGHEST, _ALIKE = 1.1, 0.5
# Above this lies no c2 of a contrast up to one.
_TOP = 2.1
# Nearer to zero than this nothing else can be.
_AT_ZERO = 0.1
# What is as small is none of c2 − 1, whose contrast and noise are larger.
_LEAST = 1e-4
# What differs by as many standard errors of a median differs.
_SIGMAS = 5.0
# What is as near in them is no other.
_NEAR = 3.0
# Maps, strips of a map and rows of a strip that are looked at, and pairs below which nothing is
# concluded.
_MAPS, _STRIPS, _ROWS, _FEW = 8, 5, 4, 8
# Part of the values that one stands for which was written, where this part of the others is found
# once.
_OFTEN, _UNIQUE = 0.02, 0.8
# Part of the pairs of a frame that is left aside as those with frames that were not measured.
_OTHERS = 0.8
# Pairs of a frame that are one number where it was not measured, unless half of the frames are so.
_ALIKE_IN_COLUMN, _HALF = 4, 0.5


def checked_baseline(where: str, baseline: Any) -> Baseline:
    """The word or number of a baseline.

    **Raises:** `DataError` when it is neither `"auto"`, 0 nor 1.
    """
    if isinstance(baseline, str) and baseline == "auto":
        return "auto"
    number = None if isinstance(baseline, str) else given_scalar(where, "baseline", baseline)
    if number in (0, 1):
        return 1 if number == 1 else 0
    raise DataError(
        f'{where}: baseline is {shown(baseline)}; give "auto", or what full decorrelation is in '
        "the maps: 1 for c2, 0 for c2 − 1."
    )


class Found(NamedTuple):
    """What is to be added to maps, a remark on that; whether it was guessed, and is left open."""

    added: float
    remark: str = ""
    guessed: bool = False
    open: bool = False


class Levels(NamedTuple):
    """Medians of a map, and their standard errors: at the upper half of its lags and at the least.

    - `thirds`: the same in each third of the lags, NaN where that has too few pairs.
    - `size`: of its largest values.
    """

    far: float
    far_error: float
    near: float
    near_error: float
    thirds: Float[np.ndarray, "third 2"]
    size: float

    @property
    def below(self) -> float:
        """What it can be at most at large lags."""
        return self.far + _SIGMAS * self.far_error

    @property
    def above(self) -> float:
        """What it is at least at large lags."""
        return self.far - _SIGMAS * self.far_error

    @property
    def rises(self) -> bool:
        """Whether it is higher at large lags, which nothing that decays is."""
        return self.far - self.near > _SIGMAS * np.hypot(self.far_error, self.near_error)

    @property
    def least(self) -> float:
        """What it is at least at the shortest lags."""
        return self.near - _SIGMAS * self.near_error

    @property
    def seen(self) -> bool:
        """Whether anything of it is above zero."""
        return max(self.above, self.least) > 0


def _median(values: np.ndarray) -> tuple[float, float]:
    """The median of some values and its standard error."""
    middle = float(np.median(values))
    return middle, float(1.9 * np.median(np.abs(values - middle)) / np.sqrt(values.size))


def levels_of(values: Float[np.ndarray, "pair"], lags: Int[np.ndarray, "pair"]) -> Levels | None:
    """The levels of some pairs of a map, `None` where there are too few.

    Where few are at the largest or at the least lags, those next to them count as well.
    """
    kept = _varied(values)
    values, lags = values[kept], lags[kept]
    if lags.size < 2 * _FEW:
        return None
    reach, order = int(np.max(lags)), np.sort(lags)
    far = values[lags >= min(reach // 2 + 1, order[-_FEW])]
    near = values[lags <= max(1, reach // 16, order[_FEW - 1])]
    thirds = [values[(lags > k * reach // 3) & (lags <= (k + 1) * reach // 3)] for k in range(3)]
    falls = [_median(one) if one.size >= _FEW else (np.nan, np.nan) for one in thirds]
    size = float(np.quantile(np.abs(values), 0.99))
    return Levels(*_median(far), *_median(near), np.array(falls), size)


def _varied(values: np.ndarray) -> np.ndarray:
    """Which values are none that stands again and again among others that hardly repeat.

    Such a one was not measured, and tells nothing of the baseline.
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    rare = counts <= max(_FEW, _OFTEN * values.size)
    kept = rare[place]
    alone = np.count_nonzero(rare) > _UNIQUE * np.count_nonzero(kept)
    return kept if alone and np.count_nonzero(kept) >= 2 * _FEW else np.ones(values.shape, bool)


def _limit(levels: Sequence[Levels]) -> float:
    """To what maps fall together over equal steps of the lag, NaN where they do not in the last.

    Exact for an exponential, whose falls have one ratio; too high for what slows down.
    """
    medians, errors = np.stack([one.thirds for one in levels]).T.swapaxes(1, 2)
    first, middle, last = medians.mean(axis=0)
    # Squares of huge ones are no numbers.
    error = np.hypot.reduce(errors[:, 1:], axis=None) / len(levels)
    early, late = first - middle, middle - last
    if not late > _SIGMAS * error:
        return np.nan
    return float(last - late * (late / (early - late))) if early > late else -np.inf


def _pairs(raw: RawMaps, index: int, frames: slice) -> tuple[np.ndarray, np.ndarray]:
    """c2 and lags of pairs of a few frames, spread over a map, with later ones.

    Those that were not measured are left out: exact zeros, and all of frames that correlate with
    none while the others do.
    """
    stored, n = raw.maps[index], frames.stop - frames.start
    strips, places = [], []
    for low in np.unique(np.linspace(0, max(n - 2 * _ROWS, 0), _STRIPS).astype(int)).tolist():
        rows = slice(frames.start + low, frames.start + min(low + _ROWS, n))
        later = slice(rows.start, frames.stop)
        strip = np.asarray(stored[rows, later], np.float64)
        above = ~np.tri(*strip.shape, dtype=bool)
        if raw.triangle == "lower" or not np.any(np.nan_to_num(strip[above])):
            strip = np.asarray(stored[later, rows], np.float64).T
        strip = np.where(above & np.isfinite(strip) & (strip != 0), strip, np.nan)
        strips.append(np.pad(strip, ((0, 0), (low, 0)), constant_values=np.nan))
        places.append(np.arange(low, low + len(strip)))
    c2, first = np.concatenate(strips), np.concatenate(places)
    filled = _filled(c2) | np.isin(np.arange(n), first[_filled(c2.T)])
    if np.count_nonzero(filled) < _HALF * n:
        c2[:, filled] = c2[filled[first]] = np.nan
    level = _top(c2)
    level[first] = _top(c2.T)
    known = np.flatnonzero(np.isfinite(level))
    dark = np.zeros(n, bool)
    dark[known] = uncorrelated(level[known])
    c2[dark[first]] = np.nan
    c2[:, dark] = np.nan
    row, second = np.nonzero(np.isfinite(c2))
    return c2[row, second], second - first[row]


def _filled(columns: np.ndarray) -> np.ndarray:
    """Which columns hold one number only, as frames do that were not measured."""
    known = np.isfinite(columns)
    low, high = (np.where(known, columns, end) for end in (np.inf, -np.inf))
    return (known.sum(axis=0) >= _ALIKE_IN_COLUMN) & (low.min(axis=0) == high.max(axis=0))


def _top(columns: np.ndarray) -> np.ndarray:
    """What the upper part of each column begins with, NaN for one without numbers."""
    # As np.nanquantile, which goes through the columns one by one; NaN is sorted to the end.
    ordered, count = np.sort(columns, axis=0), np.isfinite(columns).sum(axis=0)
    some = np.flatnonzero(count)
    place = _OTHERS * (count[some] - 1)
    low = place.astype(int)
    below, above = ordered[low, some], ordered[np.minimum(low + 1, count[some] - 1), some]
    out = np.full(count.size, np.nan)
    out[some] = below + (place - low) * (above - below)
    return out


def find_baseline(raw: RawMaps, maps: np.ndarray, frames: slice, baseline: Baseline) -> Found:
    """What is to be added to the chosen maps and frames so that full decorrelation is 1.

    Of the maps nothing is read unless their look is asked for.
    """
    some = maps[np.unique(np.linspace(0, maps.size - 1, _MAPS).astype(int))]

    def levels() -> list[Levels | None]:
        return [levels_of(*_pairs(raw, int(k), frames)) for k in some]

    return baseline_of(raw.baseline, baseline, levels)


def baseline_of(
    declared: float | None, baseline: Baseline, look: Callable[[], Sequence[Levels | None]]
) -> Found:
    """What is to be added so that full decorrelation is 1.

    What is asked for wins over what is `declared` to be added, and that over the levels of the
    maps, which `look` finds.
    """
    if baseline != "auto":
        added = 1.0 - baseline
        against = declared is not None and declared != added
        remark = _said(added) if added or against else ""
        return Found(added, f"{remark} The file says otherwise." if against else remark)
    levels = look()
    seen = judged(levels)
    if declared is None:
        return seen
    remark = _said(declared) if declared else ""
    wrong = ""
    if declared == 0 and seen.guessed:
        wrong = (
            "The file says that the maps have their baseline, but at large lags they lie near 0, "
            "as c2 − 1 does; nothing was added. If the file is wrong, give baseline = 0."
        )
    elif declared and any(one is not None and one.least > _HIGHEST for one in levels):
        wrong = (
            f"The file says that the maps lack their baseline, but they lie above {_HIGHEST:g}, "
            "where c2 − 1 does not. If the file is wrong, give baseline = 1."
        )
    return Found(declared, " ".join(filter(None, (remark, wrong))), open=bool(wrong))


def judged(found: Sequence[Levels | None]) -> Found:
    """What the levels of several maps say together: whatever the baseline is, all have it."""
    levels = [one for one in found if one is not None]
    if not levels:
        return Found(0.0)
    # Relative to the least, whose square is a number however large or small they are.
    errors = np.maximum([one.far_error for one in levels], 1e-12)
    weights = (errors.min() / errors) ** 2
    mean = float(np.average([one.far for one in levels], weights=weights))
    error = float(errors.min() * weights.sum() ** -0.5)
    lowest = min(levels, key=lambda one: one.below)
    low, high = _WITH
    falls_to = _limit(levels)
    # What is below 1 and falls on is no c2, whose level at large lags it happens to have.
    falls_on = mean + _SIGMAS * error < _SURE and falls_to < low
    # In noise, what cannot be told from 1 and can from 0.
    at_one = abs(mean - 1) < _NEAR * error and mean - _SIGMAS * error > _WITHOUT[1]
    like_c2 = (low <= mean <= high or at_one) and all(
        one.below >= low and one.above <= high and one.least <= _TOP for one in levels
    )
    if like_c2 and not falls_on:
        return Found(0.0)
    possible = (
        any(one.size >= _LEAST for one in levels)
        and all(one.below >= _WITHOUT[0] and one.near <= _HIGHEST for one in levels)
        and not any(one.rises for one in levels)
    )
    # Contrasts of one file are alike: some maps at 1 and some at 0 contradict each other.
    possible &= lowest.near > _ALIKE or all(one.above < low for one in levels)
    at_zero = any(
        abs(far) <= _AT_ZERO and of_it <= _AT_ZERO / 2
        for far, of_it in ((mean, error), *((one.far, one.far_error) for one in levels))
    )
    if lowest.far > _WITHOUT[1]:
        likely = lowest.below < low and falls_to <= _WITHOUT[1]
    else:
        likely = at_zero or any(one.seen for one in levels)
    if possible and likely:
        return Found(
            1.0,
            f"{_said(1.0)} That is what their level at large lags says, {mean:.3g}; baseline = 1 "
            "leaves them as they are.",
            guessed=True,
        )
    scaled = " No c2 lies there: what multiplied or moved them has to be undone first."
    return Found(
        0.0,
        f"The maps lie at {min(one.far for one in levels):.3g} … "
        f"{max(one.far for one in levels):.3g} at large lags, where c2 is near 1 and c2 − 1 near "
        "0: it is not certain whether they have their baseline, and nothing was added. Say it with "
        f"baseline = 0 or 1.{scaled if not _WITHOUT[0] < mean < _WITH[1] else ''}",
        open=True,
    )


def _said(added: float) -> str:
    if added:
        return f"{added:g} was added: the maps are stored without their baseline."
    return "Nothing was added: the maps are stored with their baseline."
