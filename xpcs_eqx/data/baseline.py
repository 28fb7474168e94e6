"""Whether maps hold c2 or c2 − 1, told by the level of their largest lags.

c2 decays to 1 and c2 − 1 to 0, or stays above that where something never decays. What lies at 0 at
the largest lags, or near it and visibly above it somewhere, is c2 − 1. Nothing is done to maps that
lie elsewhere, that rise with the lag, or of which one says this and one that: c2 that was never
normalised may have any level.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..errors import DataError
from .checks import given_scalar, shown
from .layouts.maps import RawMaps

Baseline = Literal["auto", 0, 1]
# Levels of the largest lags of c2 − 1, and of c2.
_WITHOUT, _WITH = (-0.3, 0.3), (0.9, 2.3)
# Above this no c2 − 1 lies at short lags.
_HIGHEST = 1.1
# Nearer to zero than this nothing else can be.
_AT_ZERO = 0.1
# What is as small is none of c2 − 1, whose contrast and noise are larger.
_LEAST = 1e-4
# What differs by as many standard errors of a median differs.
_SIGMAS = 5.0
# Maps, strips of a map and rows of a strip that are looked at, and pairs below which nothing is
# concluded.
_MAPS, _STRIPS, _ROWS, _FEW = 4, 3, 4, 8


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
    """What is to be added to maps, a remark on that, and whether it was guessed."""

    added: float
    remark: str
    guessed: bool


def _median(values: np.ndarray) -> tuple[float, float]:
    """The median of some values and its standard error."""
    middle = float(np.median(values))
    return middle, float(1.9 * np.median(np.abs(values - middle)) / np.sqrt(values.size))


def holds_baseline(
    values: Float[np.ndarray, "pair"], lags: Int[np.ndarray, "pair"]
) -> tuple[bool | None, float]:
    """Whether pairs of a map are c2 (true) or c2 − 1 (false), `None` where that is open; the level.

    The level is the median of the pairs in the upper half of the lags that there are. Exact zeros
    are what was not measured and count for nothing.
    """
    usable = np.isfinite(values) & (values != 0)
    values, lags = np.asarray(values, np.float64)[usable], np.asarray(lags)[usable]
    reach = int(np.max(lags, initial=0))
    far, near = values[lags > reach // 2], values[lags <= max(1, reach // 16)]
    if min(far.size, near.size) < _FEW:
        return None, np.nan
    (level, error), (start, start_error) = _median(far), _median(near)
    if _WITH[0] <= level <= _WITH[1]:
        return True, level
    # No c2 lies at zero, even if nothing but noise is left; further away a signal has to be seen.
    at_zero = abs(level) <= _AT_ZERO and error <= _AT_ZERO / 2
    seen = max(level - _SIGMAS * error, start - _SIGMAS * start_error) > 0
    falls = start - level > -_SIGMAS * np.hypot(error, start_error)
    near_zero = _WITHOUT[0] <= level <= _WITHOUT[1] and start <= _HIGHEST
    large = np.quantile(np.abs(values), 0.99) >= _LEAST
    if near_zero and falls and large and (at_zero or seen):
        return False, level
    return None, level


def _pairs(raw: RawMaps, index: int, frames: slice) -> tuple[np.ndarray, np.ndarray]:
    """c2 and lags of all pairs of a few frames in the first half of a map with later ones."""
    stored, n = raw.maps[index], frames.stop - frames.start
    values, lags = [], []
    for low in np.unique(np.linspace(0, max(n // 2 - _ROWS, 0), _STRIPS).astype(int)).tolist():
        rows = slice(frames.start + low, frames.start + min(low + _ROWS, n))
        later = slice(rows.start, frames.stop)
        strip = np.asarray(stored[rows, later])
        lag = np.arange(strip.shape[1]) - np.arange(strip.shape[0])[:, None]
        if raw.triangle == "lower" or not np.any(np.nan_to_num(strip[lag > 0])):
            strip = np.asarray(stored[later, rows]).T
        values.append(strip[lag > 0])
        lags.append(lag[lag > 0])
    return np.concatenate(values), np.concatenate(lags)


def find_baseline(raw: RawMaps, maps: np.ndarray, frames: slice, baseline: Baseline) -> Found:
    """What is to be added to the chosen maps and frames so that full decorrelation is 1.

    What is asked for wins over what the layout declares, and that over what the maps look like.
    """
    if baseline != "auto":
        added = 1.0 - baseline
        against = raw.baseline is not None and raw.baseline != added
        remark = _said(added) if added or against else ""
        return Found(added, f"{remark} The file says otherwise." if against else remark, False)
    some = maps[np.unique(np.linspace(0, maps.size - 1, _MAPS).astype(int))]
    seen = judged([holds_baseline(*_pairs(raw, int(k), frames)) for k in some])
    if raw.baseline is None:
        return seen
    remark = _said(raw.baseline) if raw.baseline else ""
    if raw.baseline == 0 and seen.guessed:
        remark = (
            "The file says that the maps have their baseline, but at large lags they lie near 0, "
            "as c2 − 1 does; nothing was added. If the file is wrong, give baseline = 0."
        )
    return Found(raw.baseline, remark, False)


def judged(found: list[tuple[bool | None, float]]) -> Found:
    """What several maps say together: nothing unless all say the same."""
    told = [(answer, level) for answer, level in found if np.isfinite(level)]
    answers, levels = {answer for answer, _ in told}, [level for _, level in told]
    # Maps of which nothing is left but noise about zero are like those beside them.
    if False in answers and all(_WITHOUT[0] <= level <= _WITHOUT[1] for level in levels):
        return Found(
            1.0,
            f"{_said(1.0)} That is what their level at large lags says, {np.median(levels):.3g}; "
            "baseline = 1 leaves them as they are.",
            True,
        )
    if answers == {True} or not levels:
        return Found(0.0, "", False)
    return Found(
        0.0,
        f"The maps lie at {min(levels):.3g} … {max(levels):.3g} at large lags, where c2 is near 1 "
        "and c2 − 1 near 0: it is not certain whether they have their baseline, and nothing was "
        "added. Say it with baseline = 0 or 1.",
        False,
    )


def _said(added: float) -> str:
    if added:
        return f"{added:g} was added: the maps are stored without their baseline."
    return "Nothing was added: the maps are stored with their baseline."
