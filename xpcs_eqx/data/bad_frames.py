"""Frames that were not measured, found from what their pairs hold: dark, dropped, filled, glitched.

A correlator writes the same number for every pair of a frame whose mean intensity is zero, fills
what it could not compute, and goes far astray at a glitch. Such a frame is *damaged* when

- all its pairs hold one value, which is not a value that other frames have as well (a frame that is
  uncorrelated with all others in maps without noise), or
- the mean of its pairs lies outside what c2 can be there: more than a quarter of the baseline, and
  ten standard deviations, below the baseline or above what neighbouring frames have, or
- it lies at zero, as far below the other frames, which are more and lie where c2 does, or
- all its pairs hold what those of the frame before hold, in a map with noise: it was read twice.

A frame that only departs from its neighbours is *unusual*.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .fills import ROUGH, SMALL, Fill
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
# Frames on either side of one by which it is judged, at least and at most; frames below which none
# is; how often the curve through them is fitted, and how often without those that were found; by
# how much an unusual frame at an end stands out of the next.
_REACH, _ENOUGH, _STEPS, _ROUNDS, _STEEP = (6, 12), 12, 15, 5, 10
# Rows that are looked at together.
_BLOCK = 32
# Part of the pairs of other frames that may hold what those of the frame before do.
_ALIKE = 0.02
# Intensity of a frame over the median of all, below which it is dark; difference that is remarked.
_DARK, _ODD = 0.01, 0.5
# Part of the pairs of other frames that hold a value which is common.
_COMMON = 0.2


class FrameSums(NamedTuple):
    """What the pairs of each frame of a map hold: number, sum of clipped values, extremes; with how
    many other frames both it and the one before it make a pair, and how many of these are equal.
    """

    pairs: Int[np.ndarray, "frame"]
    total: Float[np.ndarray, "frame"]
    low: Float[np.ndarray, "frame"]
    high: Float[np.ndarray, "frame"]
    beside: Int[np.ndarray, "frame"]
    equal: Int[np.ndarray, "frame"]

    @classmethod
    def zero(cls, n: int) -> "FrameSums":
        """Those of no pairs of `n` frames."""
        none = (np.zeros(n, int) for _ in range(3))
        pairs, beside, equal = none
        return cls(pairs, np.zeros(n), np.full(n, np.inf), np.full(n, -np.inf), beside, equal)

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
            # A column and the one before it, and a row and the one before it.
            for one, other, axis in ((np.s_[:, :-1], np.s_[:, 1:], 0), (np.s_[:-1], np.s_[1:], 1)):
                both = used[one] & used[other]
                same = both & (block[one] == block[other])
                for counts, kept in ((self.beside, both), (self.equal, same)):
                    found = np.count_nonzero(kept, axis=axis)
                    counts[first + 1 : first + 1 + found.size] += found

    def repeats(self, side: Float[np.ndarray, "neighbours"]) -> Bool[np.ndarray, "frame"]:
        """Frames all of whose pairs hold what those of the frame before do, and what is not all of
        one value; none in a map without noise, which `side`, c2 of neighbouring frames, tells, and
        none where other frames have pairs in common with the one before, as few digits make it.
        """
        steps = (np.abs(np.diff(side, order)) for order in (2, 3))
        bend, more = (float(np.median(one[one > 0])) if one.any() else 0.0 for one in steps)
        found = (self.beside >= _FEW) & (self.equal == self.beside) & (self.low < self.high)
        others = int(self.beside[~found].sum())
        differ = self.equal[~found].sum() < _ALIKE * others
        return found & (differ and bend > SMALL and more > ROUGH * bend)


class Damage(NamedTuple):
    """Frames of a map, from 0, that are damaged, by what is wrong with them; those only unusual.

    - `constant`: the value that all pairs of a frame hold; `astray`: the mean of those that vary;
      `repeated`: those that are the frame before them once more.
    - `unusual`: by how much the mean of a frame differs from that of its neighbours [c2].
    - `fills`: numbers that stand where no whole frame but some pairs were not measured.
    - `throughout`: the one value that all pairs of the map hold; then no frame is damaged.
    """

    constant: dict[int, float]
    astray: dict[int, float]
    unusual: dict[int, float]
    throughout: float | None = None
    fills: tuple[Fill, ...] = ()
    repeated: frozenset[int] = frozenset()

    @property
    def frames(self) -> set[int]:
        """All damaged frames."""
        return {*self.constant, *self.astray, *self.repeated}

    def after(self, earlier: "Damage") -> "Damage":
        """What was found once more, without the frames found earlier, together with these."""
        return Damage(
            earlier.constant | self.constant,
            earlier.astray | self.astray,
            self.unusual,
            earlier.throughout,
            tuple(dict.fromkeys(earlier.fills + self.fills)),
            earlier.repeated | self.repeated,
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
    fills: Callable[[], tuple[Fill, ...]],
) -> Damage:
    """The damage of one map; frames of one value hide what else there is until they are left out,
    and so do other pairs that hold one.

    - `side`: c2 of neighbouring frames, 0 where masked.
    - `common`: part of the pairs of some frames that hold a value.
    - `fills`: finds numbers that were not measured.
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
    repeated = frozenset(np.flatnonzero(sums.repeats(side)).tolist())
    filled = fills()
    # Of a frame that holds one number but for what another has done to a pair, nothing is kept.
    hollow = sorted(frozenset().union(*(fill.frames for fill in filled)))
    if hollow:
        left = {int(k): float(sums.total[k] / sums.pairs[k]) for k in hollow}
        return Damage({}, left, {}, None, (), repeated)
    if filled or repeated:
        return Damage({}, {}, {}, None, filled, repeated)
    places = np.flatnonzero(varied)
    level = sums.total[places] / sums.pairs[places]
    scatter = _scatter(_bend(level))
    margin = max(_MARGIN, _SIGMAS * scatter)
    near = side[varied[:-1] & varied[1:] & (side != 0)]
    tenth, median, most = np.quantile(level, [0.1, 0.5, 0.9])
    top = max(most, np.quantile(near, 0.9)) if near.size else most
    # Maps may be stored without their baseline.
    bottom = min(1.0, median if median > 1 - _MARGIN else tenth)
    out = uncorrelated(level)
    if not out.any():
        # Those at zero would hide what the others are: they are judged without them.
        out = (level < bottom - margin) | (level > top + margin)
    if 2 * np.count_nonzero(out) >= out.size:
        out[:] = False
    astray = {int(k): float(value) for k, value in zip(places[out], level[out], strict=True)}
    return Damage({}, astray, _unusual(places[~out], level[~out]))


def _unusual(places: np.ndarray, level: np.ndarray) -> dict[int, float]:
    """Frames whose level lies off a curve through the levels around them, and by how much.

    Among several neighbours, and at either end, the curve is that of the others.
    """
    bend = np.abs(_bend(level))
    limit = max(_NOTICED, _SIGMAS * _scatter(bend))
    if level.size < _ENOUGH or not np.any(bend > 0.5 * limit):
        return {}
    half = int(np.clip(level.size // 4, *_REACH))
    near = np.arange(min(2 * half + 1, level.size))
    window = near + np.clip(np.arange(level.size) - half, 0, level.size - near.size)[:, None]
    odd, away = np.zeros(level.size, bool), level
    # Those that are found are left out once more, as a good frame beside them may seem odd.
    for _ in range(_ROUNDS):
        others = (window != np.arange(level.size)[:, None]) & ~odd[window]
        away = level - _curve((places[window] - places[:, None]) / half, level[window], others)
        size = np.abs(away)
        usual = 1.4826 * np.maximum(np.median(size[window], axis=1), np.median(size))
        found = size > np.maximum(_NOTICED, _SIGMAS * usual)
        if np.array_equal(found, odd):
            break
        odd = found
    for ordered in (slice(None), slice(None, None, -1)):
        # A curve that is steep at an end bends less further in, but bends.
        run = int(np.argmin(odd[ordered]))
        if run and _STEEP * np.abs(away[ordered][run]) > np.min(np.abs(away[ordered][:run])):
            odd[ordered][:run] = False
    return {int(places[k]): float(away[k]) for k in np.flatnonzero(odd)}


def _curve(
    x: Float[np.ndarray, "frame near"],
    y: Float[np.ndarray, "frame near"],
    others: Bool[np.ndarray, "frame near"],
) -> Float[np.ndarray, "frame"]:
    """What parabolas through others have at 0, with the least absolute distances from these.

    Squares weighted again and again; a few frames do not move them.
    """
    powers, weights = np.stack([np.ones(x.shape), x, x**2], axis=-1), others.astype(float)
    coefficients = np.zeros(0)
    for _ in range(_STEPS):
        weighted = powers * weights[..., None]
        normal = np.swapaxes(weighted, 1, 2) @ powers + 1e-12 * np.eye(3)
        coefficients = np.linalg.solve(normal, np.swapaxes(weighted, 1, 2) @ y[..., None])
        off = np.abs(y - (powers @ coefficients)[..., 0])
        weights = others / np.maximum(off, 1e-3 * np.median(off, axis=1, keepdims=True) + 1e-12)
        weights /= np.maximum(weights.max(axis=1, keepdims=True), 1e-300)
    return coefficients[:, 0, 0]


class Intensities(NamedTuple):
    """Frames, from 0, without intensity (`dark`), and those of an unusual one (`odd`).

    `without`: how many have none where these are most but not all, which tells nothing of any.
    """

    dark: frozenset[int] = frozenset()
    odd: frozenset[int] = frozenset()
    without: int = 0

    @classmethod
    def of(cls, values: Float[np.ndarray, "frame"]) -> "Intensities":
        """Those that the intensity of each frame tells; none where most of them are dark."""
        lit = values[np.isfinite(values) & (values > 0)]
        if 2 * lit.size < values.size:
            return cls(without=values.size - lit.size if lit.size else 0)
        part = values / np.median(lit)
        dark = ~(part > _DARK)
        odd = ~dark & (np.abs(part - 1) > _ODD)
        dark, odd = (frozenset(np.flatnonzero(found).tolist()) for found in (dark, odd))
        return cls(dark, odd)


def runs(frames: Iterable[int]) -> str:
    """Numbers of frames from 1 in a message: 4, 7–9."""
    ordered = np.array(sorted(frames)) + 1
    parts = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
    words = [f"{part[0]}" if part.size == 1 else f"{part[0]}–{part[-1]}" for part in parts]
    return ", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else "")


def left_out(masked: bool) -> str:
    """What is done about what was not measured, in words."""
    return "masked" if masked else "kept, as bad_frames says what to mask"


def _all(names: Sequence[str]) -> str:
    """The first of some maps and how many more hold what follows."""
    more = len(names) - 1
    return f"{names[0]} and {more} more hold each" if more else f"{names[0]} holds"


def _where(fill: Fill, first: int) -> str:
    """Where a number stands, in frames from 1."""
    rows, columns, lags = fill.places
    (a, b), (c, d) = ([one + first + 1 for one in ends] for ends in (rows, columns))
    return f"of frames {a}–{b} with {c}–{d}, {lags[0]} to {lags[1]} apart"


def remarks(
    damages: Sequence[Damage],
    names: Sequence[str],
    intensities: Intensities,
    intensity_name: str,
    first: int,
    masked: bool,
    added: float = 0.0,
) -> tuple[str, ...]:
    """What was found on some maps, in sentences; their first row is frame `first` (from 0).

    `added` is what was added to c2, and not to what is said of it.
    """
    constant: dict[float, set[int]] = {}
    astray: dict[int, float] = {}
    unusual: dict[int, float] = {}
    for one in damages:
        for frame, value in one.constant.items():
            constant.setdefault(value, set()).add(frame + first)
        astray |= {frame + first: value for frame, value in one.astray.items()}
        unusual |= {frame + first: value for frame, value in one.unusual.items()}
    done = left_out(masked)
    notes = [
        f"{name} holds {one.throughout - added:.6g} throughout and tells nothing; leave it out."
        for name, one in zip(names, damages, strict=True)
        if one.throughout is not None
    ]
    notes += [
        f"All pairs of frame {runs(frames)} hold {value - added:.6g}: not measured, {done}."
        for value, frames in constant.items()
    ]
    repeated = {frame + first for one in damages for frame in one.repeated}
    if repeated:
        notes.append(
            f"All pairs of frame {runs(repeated)} hold what those of the frame before do, which "
            f"was read once more: {done}."
        )
    filled: dict[Fill, list[str]] = {}
    for name, one in zip(names, damages, strict=True):
        for fill in one.fills:
            filled.setdefault(fill, []).append(name)
    notes += [
        f"{_all(of)} {fill.value - added:.6g} in {fill.held} pairs, {_where(fill, first)}, and no "
        f"noise: not measured, {done}."
        for fill, of in filled.items()
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
    if intensities.without:
        notes.append(
            f"{intensities.without} frames, most of all, have no intensity in {intensity_name}: "
            "nothing was concluded from it. Look at the others."
        )
    damaged = set(astray).union(repeated, *constant.values())
    only = {frame: value for frame, value in unusual.items() if frame not in damaged}
    if only:
        worst = max(only.values(), key=abs)
        notes.append(
            f"Frame {runs(only)} differs from its neighbours by up to {worst:.3g} in the mean of "
            "its pairs and was kept; name it in bad_frames if it shall not count."
        )
    return tuple(notes)
