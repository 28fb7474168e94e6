"""Frames that were not measured, found from what their pairs hold: dark, dropped, filled, glitched.

A correlator writes the same number for every pair of a frame whose mean intensity is zero, fills
what it could not compute, and goes far astray at a glitch. Such a frame is *damaged* when

- all its pairs hold one value, which is not a value that other frames have as well (a frame that is
  uncorrelated with all others in maps without noise), or
- the mean of its pairs lies outside what c2 can be there: more than a quarter of the baseline, and
  ten standard deviations, below the baseline or above what neighbouring frames have, or
- it lies at zero, as far below the other frames, which are more and lie where c2 does.

A frame that only departs from its neighbours is *unusual*.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .symmetry import strips

# c2 lies between the baseline and twice that; what is beyond counts as this much, so that a few
# huge values do not move the mean of frames that share a pair with them.
_CLIP = (-1.0, 3.0)
_MARGIN = 0.25  # of the baseline
_SIGMAS = 10.0
# Below this lies no c2, and what is left of c2 − 1 of most contrasts, where others are at zero.
_LIT = 0.93
# Below this an unusual frame is not worth a remark [c2].
_NOTICED = 0.005
# Frames of fewer pairs than this are not judged.
_FEW = 8
# Rows that are looked at together.
_BLOCK = 32
# Intensity of a frame over the median of all, below which it is dark; difference that is remarked.
_DARK, _ODD = 0.01, 0.5
# Part of the pairs of other frames that hold a value which is common.
_COMMON = 0.2


class FrameSums(NamedTuple):
    """What the pairs of each frame of a map hold: number, sum of clipped values, extremes."""

    pairs: Int[np.ndarray, "frame"]
    total: Float[np.ndarray, "frame"]
    low: Float[np.ndarray, "frame"]
    high: Float[np.ndarray, "frame"]

    @classmethod
    def zero(cls, n: int) -> "FrameSums":
        """Those of no pairs of `n` frames."""
        return cls(np.zeros(n, int), np.zeros(n), np.full(n, np.inf), np.full(n, -np.inf))

    def add(
        self, rows: slice, values: Float[np.ndarray, "row column"], usable: Bool[np.ndarray, "..."]
    ) -> None:
        """Count pairs of the frames in `rows` with all later ones, for both of their frames."""
        for some in strips(len(values), _BLOCK):
            # Nothing counts left of the diagonal; blocks stay in the cache of the processor.
            block, used = values[some, some.start :], usable[some, some.start :]
            first = rows.start + some.start
            clipped = np.where(used, np.clip(block, *_CLIP), 0)
            low, high = np.where(used, block, np.inf), np.where(used, block, -np.inf)
            for frames, axis in ((slice(first, first + len(block)), 1), (slice(first, None), 0)):
                self.pairs[frames] += np.count_nonzero(used, axis=axis)
                self.total[frames] += clipped.sum(axis=axis)
                self.low[frames] = np.minimum(self.low[frames], low.min(axis=axis))
                self.high[frames] = np.maximum(self.high[frames], high.max(axis=axis))


class Damage(NamedTuple):
    """Frames of a map, from 0, that are damaged, by what is wrong with them; those only unusual.

    - `constant`: the value that all pairs of a frame hold; `astray`: the mean of those that vary.
    - `unusual`: by how much the mean of a frame differs from that of its neighbours [c2].
    - `throughout`: the one value that all pairs of the map hold; then no frame is damaged.
    """

    constant: dict[int, float]
    astray: dict[int, float]
    unusual: dict[int, float]
    throughout: float | None = None

    @property
    def frames(self) -> set[int]:
        """All damaged frames."""
        return {*self.constant, *self.astray}

    def after(self, earlier: "Damage") -> "Damage":
        """What was found once more, without the frames found earlier, together with these."""
        return Damage(
            earlier.constant | self.constant,
            earlier.astray | self.astray,
            self.unusual,
            earlier.throughout,
        )


def _bend(level: np.ndarray) -> np.ndarray:
    """By how much each level but the first and the last departs from its neighbours."""
    return level[1:-1] - 0.5 * (level[:-2] + level[2:])


def _scatter(differences: np.ndarray) -> float:
    """Standard deviation of second differences of levels as that of one, without its outliers."""
    if differences.size == 0:
        return 0.0
    return float(1.4826 * np.median(np.abs(differences)) / np.sqrt(1.5))


def uncorrelated(level: Float[np.ndarray, "frame"]) -> Bool[np.ndarray, "frame"]:
    """Frames at zero, where c2 never is, while most lie far above.

    `level`: mean or median of the pairs of each frame, which the others lower in those above.
    """
    order = np.argsort(level)
    gaps = np.diff(level[order])
    count = int(np.argmax(gaps)) + 1 if gaps.size else 0
    low, high = level[order[:count]], level[order[count:]]
    out = np.zeros(level.size, bool)
    above = level[np.sort(order[count:])]
    apart = max(_MARGIN, _SIGMAS * _scatter(_bend(above)))
    if 0 < count < high.size and gaps[count - 1] > apart:
        left = 1 - count / level.size
        at_zero = abs(np.median(low)) < _MARGIN * left
        out[order[:count]] = at_zero and np.median(high) > _LIT * left
    return out


def damage_of(
    sums: FrameSums,
    side: Float[np.ndarray, "neighbours"],
    common: Callable[[float, Bool[np.ndarray, "frame"]], float],
) -> Damage:
    """The damage of one map; frames of one value hide what else there is until they are left out.

    - `side`: c2 of neighbouring frames, 0 where masked.
    - `common`: part of the pairs of some frames that hold a value.
    """
    judged = sums.pairs >= _FEW
    same = judged & (sums.low == sums.high)
    varied = judged & ~same
    if np.count_nonzero(varied) < 3:
        # Nothing to compare with: the map as a whole holds nothing, which is no matter of frames.
        one = judged.any() and np.ptp(sums.low[judged]) == 0 and not varied.any()
        return Damage({}, {}, {}, float(sums.low[judged][0]) if one else None)
    values, numbers = np.unique(sums.low[same], return_counts=True)
    # Most frames of a map without noise may be uncorrelated with all others, which is no damage.
    decayed = (values == 1) & (2 * numbers > np.count_nonzero(judged))
    strange = {float(value) for value in values[~decayed] if common(value, varied) < _COMMON}
    constant = {int(k): float(sums.low[k]) for k in np.flatnonzero(same) if sums.low[k] in strange}
    if constant:
        return Damage(constant, {}, {})
    places = np.flatnonzero(varied)
    level = sums.total[places] / sums.pairs[places]
    scatter = _scatter(_bend(level))
    margin = max(_MARGIN, _SIGMAS * scatter)
    near = side[varied[:-1] & varied[1:] & (side != 0)]
    tenth, median, most = np.quantile(level, [0.1, 0.5, 0.9])
    top = max(most, np.quantile(near, 0.9)) if near.size else most
    # Maps may be stored without their baseline.
    bottom = 1.0 if median > 1 - _MARGIN else min(1.0, tenth)
    out = uncorrelated(level)
    if not out.any():
        # Those at zero would hide what the others are: they are judged without them.
        out = (level < bottom - margin) | (level > top + margin)
    if 2 * np.count_nonzero(out) >= out.size:
        out[:] = False
    astray = {int(k): float(value) for k, value in zip(places[out], level[out], strict=True)}
    return Damage({}, astray, _unusual(places[~out], level[~out]))


def _unusual(places: np.ndarray, level: np.ndarray) -> dict[int, float]:
    bend = _bend(level)
    large = np.abs(bend) > max(_NOTICED, _SIGMAS * _scatter(bend))
    # One frame apart bends its neighbours the other way, half as much; a curve that is steep does
    # not.
    before, here, after = bend[:-2], bend[1:-1], bend[2:]
    alone = np.zeros(bend.shape, bool)
    alone[1:-1] = (here * before < 0) & (here * after < 0)
    alone[1:-1] &= np.abs(here) > np.maximum(np.abs(before), np.abs(after))
    found = np.flatnonzero(large & alone)
    return {int(places[k + 1]): float(bend[k]) for k in found}


class Intensities(NamedTuple):
    """Frames, from 0, without intensity (`dark`), and those of an unusual one (`odd`)."""

    dark: frozenset[int] = frozenset()
    odd: frozenset[int] = frozenset()

    @classmethod
    def of(cls, values: Float[np.ndarray, "frame"]) -> "Intensities":
        """Those that the intensity of each frame tells; none where most of them are dark."""
        lit = values[np.isfinite(values) & (values > 0)]
        if 2 * lit.size < values.size:
            return cls()
        part = values / np.median(lit)
        dark = ~(part > _DARK)
        odd = ~dark & (np.abs(part - 1) > _ODD)
        return cls(*(frozenset(np.flatnonzero(found).tolist()) for found in (dark, odd)))


def runs(frames: Iterable[int]) -> str:
    """Numbers of frames from 1 in a message: 4, 7–9."""
    ordered = np.array(sorted(frames)) + 1
    parts = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
    words = [f"{part[0]}" if part.size == 1 else f"{part[0]}–{part[-1]}" for part in parts]
    return ", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else "")


def remarks(
    damages: Sequence[Damage],
    names: Sequence[str],
    intensities: Intensities,
    intensity_name: str,
    first: int,
    masked: bool,
) -> tuple[str, ...]:
    """What was found on some maps, in sentences; their first row is frame `first` (from 0)."""
    constant: dict[float, set[int]] = {}
    astray: dict[int, float] = {}
    unusual: dict[int, float] = {}
    for one in damages:
        for frame, value in one.constant.items():
            constant.setdefault(value, set()).add(frame + first)
        astray |= {frame + first: value for frame, value in one.astray.items()}
        unusual |= {frame + first: value for frame, value in one.unusual.items()}
    done = "masked" if masked else "kept, as bad_frames says what to mask"
    notes = [
        f"{name} holds {one.throughout:.6g} throughout and tells nothing; leave it out."
        for name, one in zip(names, damages, strict=True)
        if one.throughout is not None
    ]
    notes += [
        f"All pairs of frame {runs(frames)} hold {value:.6g}: not measured, {done}."
        for value, frames in constant.items()
    ]
    if astray:
        worst = max(astray.values(), key=lambda value: abs(value - 1))
        notes.append(
            f"Pairs of frame {runs(astray)} lie where no correlation is (mean c2 up to "
            f"{worst:.3g}, values beyond {_CLIP[0]:g} … {_CLIP[1]:g} counted as these): {done}."
        )
    for frames, what in (
        (intensities.dark, f"has no intensity in {intensity_name}: not measured, {done}"),
        (intensities.odd, f"has an unusual intensity in {intensity_name} and was kept"),
    ):
        if frames:
            notes.append(f"Frame {runs({frame + first for frame in frames})} {what}.")
    damaged = set(astray).union(*constant.values())
    only = {frame: value for frame, value in unusual.items() if frame not in damaged}
    if only:
        worst = max(only.values(), key=abs)
        notes.append(
            f"Frame {runs(only)} differs from its neighbours by up to {worst:.3g} in the mean of "
            "its pairs and was kept; name it in bad_frames if it shall not count."
        )
    return tuple(notes)
