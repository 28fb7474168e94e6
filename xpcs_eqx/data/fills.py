"""Numbers that stand where nothing was measured, found by their being repeated exactly.

Noise does not repeat. A number that does, while hardly any other of the map occurs twice, was
written and not measured; and so was one that lies where no other does, beyond all noise. Maps
without noise, of few counts or of few digits hold equal numbers everywhere, and theirs are kept.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

# Numbers that are judged, and pairs that must hold one; how much more often it is found than others
# where it fills no run.
_MOST, _LEAST, _OFTEN = 4, 4, 8
# Rows that are looked at together, and what stands beside what.
_BLOCK = 32
_BESIDE = (
    (np.s_[:, :-1], np.s_[:, 1:]),
    (np.s_[:-1], np.s_[1:]),
    (np.s_[:-1, :-1], np.s_[1:, 1:]),
)
# Pairs in a row, a column or a diagonal that noise does not fill with one number.
_RUN = 6
# Pairs that are compared with a number, fewer than which tell nothing, and what part of them
# occurs once where noise is.
_SAMPLE, _FEW, _UNIQUE = 4000, 20, 0.8
# Part of a step of few digits by which a number may miss one.
_EXACT = 0.01
# Part of the pairs of a frame that leaves nothing of it, and of most frames where it is one of few.
_ALL_BUT, _HALF = 0.9, 0.5
# How far away a number is that was not measured [c2, standard deviations of noise].
_MARGIN, _SIGMAS = 0.25, 10.0
# Medians of the others in maps of c2 or c2 − 1 and a contrast of some counts.
_LEVELS = (-0.5, 2.5)
# Ratio of third to second differences, 1.8 for noise and small for curves; size of noise beyond
# rounding; part of the neighbours of a fill that lies on either side of it; how far those on one
# side are away.
ROUGH, SMALL, _SIDE, _JUMP = 1.2, 1e-6, 0.05, 1e-4


class Strip(NamedTuple):
    """Some rows of a map: numbers, of which those that are `usable` count.

    - `row`, `column`: of the first number; `pairs`: whether that is on the diagonal, left of which
      nothing counts.
    """

    row: int
    column: int
    values: Float[np.ndarray, "row column"]
    usable: Bool[np.ndarray, "row column"]
    pairs: bool = True


class Fill(NamedTuple):
    """A number that was not measured: in how many pairs it stands, and where.

    - `places`: least and largest row, column and lag, as of the strips.
    - `frames`: those nearly all of whose pairs hold it, where most frames have few that do.
    """

    value: float
    held: int
    places: tuple[tuple[int, int], ...]
    frames: frozenset[int] = frozenset()


def repeated(strip: Strip, zero: float = 0.0) -> Counter[float]:
    """The numbers that most often stand beside or along the diagonal after themselves, or again and
    again among all, and `zero`.

    That is what zeros have become.
    """
    out: Counter[float] = Counter()
    # Here and there a number is beside itself by chance only.
    out += _often(_some(strip.values[strip.usable]))
    for low in range(0, len(strip.values), _BLOCK):
        # Blocks stay in the cache of the processor; nothing counts left of the diagonal.
        block = np.s_[low : low + _BLOCK, low if strip.pairs else 0 :]
        values, usable = strip.values[block], strip.usable[block]
        for one, other in _BESIDE:
            same = values[one] == values[other]
            if same.any():
                same &= usable[one] & usable[other]
                out += _often(values[one][same])
        same = values == zero
        if same.any():
            out[zero] += int(np.count_nonzero(same & usable))
    return out


def _often(values: np.ndarray) -> Counter[float]:
    """Those that occur most often."""
    found, counts = np.unique(values, return_counts=True)
    most = np.argsort(-counts)[:_MOST]
    return Counter({float(found[k]): int(counts[k]) for k in most})


def candidates(
    beside: Counter[float], low: Float[np.ndarray, "frame"], high: Float[np.ndarray, "frame"]
) -> tuple[float, ...]:
    """Numbers that may have been written: those `beside` themselves, extremes of many frames."""
    found = Counter({value: count for value, count in beside.items() if count >= _LEAST})
    for values in (low, high):
        extremes, counts = np.unique(values[np.isfinite(values)], return_counts=True)
        if extremes.size and counts.max() >= _LEAST:
            found[float(extremes[np.argmax(counts)])] += int(counts.max())
    return tuple(value for value, _ in found.most_common(_MOST))


class _Seen:
    """What is known of a number after all strips."""

    def __init__(self, value: float, n_frames: int):
        self.value, self.count, self.in_runs = value, 0, 0
        self.near: list[np.ndarray] = []
        self.along: list[np.ndarray] = []
        self.of_frames = np.zeros(n_frames, int)
        self.places = [[np.inf, -np.inf] for _ in range(3)]

    def add(self, strip: Strip, others: np.ndarray) -> None:
        """Count the number in a strip; `others` are pairs that hold none of the candidates."""
        here = strip.usable & (strip.values == self.value)
        row, column = np.nonzero(here)
        self.count += row.size
        if not row.size:
            return
        if self.of_frames.size:
            rows, columns = here.shape
            self.of_frames[strip.row : strip.row + rows] += np.count_nonzero(here, axis=1)
            self.of_frames[strip.column : strip.column + columns] += np.count_nonzero(here, axis=0)
        row, column = row + strip.row, column + strip.column
        of = (row, column, column - row)
        for ends, numbers in zip(self.places, of, strict=True):
            ends[:] = min(ends[0], numbers.min()), max(ends[1], numbers.max())
        for down, right in ((0, 1), (1, 0), (1, 1)):
            n, m = here.shape[0] - (_RUN - 1) * down, here.shape[1] - (_RUN - 1) * right
            if min(n, m) > 0:
                run = np.ones((n, m), bool)
                for k in range(_RUN):
                    run &= here[k * down : k * down + n, k * right : k * right + m]
                self.in_runs += int(np.count_nonzero(run))
        beside = np.zeros_like(here)
        beside[:, 1:] |= here[:, :-1]
        beside[:, :-1] |= here[:, 1:]
        self.near.append(_some(strip.values[beside & others]).astype(float))
        following = np.zeros_like(here)
        following[1:, 1:] |= here[:-1, :-1]
        following[:-1, :-1] |= here[1:, 1:]
        self.along.append(_some(strip.values[following & strip.usable & ~here]).astype(float))

    @property
    def coarse(self) -> bool:
        """Whether others of its lag repeat as well, as large ones of few digits do."""
        _, counts = np.unique(np.concatenate(self.along), return_counts=True)
        return counts.size > 0 and float(np.mean(counts > 1)) > 1 - _UNIQUE

    def is_of_few_digits(self, added: float) -> bool:
        """Whether others of its lag are in half precision, or have four digits, as stored."""
        stored = np.concatenate(self.along) - added
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            steps = (
                np.spacing(np.abs(stored).astype(np.float16)).astype(float),
                10.0 ** (np.floor(np.log10(np.abs(stored))) - 3),
            )
            of_step = [np.abs(stored / step - np.round(stored / step)) < _EXACT for step in steps]
        return stored.size >= _LEAST and bool(max(map(np.mean, of_step)) > _UNIQUE)

    def frames(self, pairs: Int[np.ndarray, "frame"]) -> frozenset[int]:
        """Frames nearly all of whose `pairs` hold the number, where most have few."""
        judged = pairs >= _LEAST
        if not judged.any():
            return frozenset()
        part = self.of_frames / np.maximum(pairs, 1)
        few = np.median(part[judged]) < _HALF
        return frozenset(np.flatnonzero(judged & (part > _ALL_BUT)).tolist() if few else ())

    def fill(self, pairs: Int[np.ndarray, "frame"]) -> Fill:
        """What is to be said of it, once it is known to be one."""
        places = tuple((int(low), int(high)) for low, high in self.places)
        return Fill(self.value, self.count, places, self.frames(pairs))


def _some(values: np.ndarray) -> np.ndarray:
    """Not many more than enough of these, evenly."""
    return values[:: max(1, values.size // _SAMPLE)]


def find_fills(
    strips: Callable[[], Iterable[Strip]],
    values: tuple[float, ...],
    added: float,
    pairs: Int[np.ndarray, "frame"],
) -> tuple[Fill, ...]:
    """Which of some numbers were not measured; none of none.

    - `added`: what was added to the numbers as they were stored.
    - `pairs`: how many of each frame are usable; empty where rows and columns are no frames.
    """
    if not values:
        return ()
    seen = [_Seen(value, pairs.size) for value in values]
    sample, second, third, total = [], [], [], 0
    for strip in strips():
        others = strip.usable & ~np.isin(strip.values, values)
        total += int(np.count_nonzero(others))
        for one in seen:
            one.add(strip, others)
        sample.append(_some(strip.values[others]).astype(float))
        known = np.where(others, strip.values, np.nan)
        # Of huge values differences are none.
        with np.errstate(over="ignore", invalid="ignore"):
            line = known[1:, 1:] - known[:-1, :-1]
            two = line[1:, 1:] - line[:-1, :-1]
            three = two[1:, 1:] - two[:-1, :-1]
        for kept, found in ((second, two), (third, three)):
            kept.append(_some(found[np.isfinite(found)]))
    rest = _some(np.concatenate(sample))
    if rest.size < _FEW:
        return ()
    lines = np.concatenate(second), np.concatenate(third)
    return tuple(
        one.fill(pairs)
        for one in seen
        if one.count >= _LEAST and _written(one, rest, total, lines, one.value - added)
    )


def fills_of(
    values: Float[np.ndarray, "row column"], usable: Bool[np.ndarray, "row column"], pairs: bool
) -> tuple[Fill, ...]:
    """The numbers that were not measured in a grid, of `pairs` of frames or of anything else."""
    strip = Strip(0, 0, values, usable, pairs)
    low, high = (np.where(usable, values, sign * np.inf) for sign in (1, -1))
    found = candidates(repeated(strip), low.min(axis=0), high.max(axis=0))
    fills = find_fills(lambda: (strip,), found, 0.0, np.zeros(0, int))
    # Rows that hold one number beside rows of numbers that hardly repeat.
    rows = (low.min(axis=1) == high.max(axis=1)) & (usable.sum(axis=1) >= _RUN) & (not pairs)
    others = values[~rows][usable[~rows]]
    if others.size >= _FEW and np.unique(others).size > _UNIQUE * others.size:
        known = [fill.value for fill in fills]
        for value in np.setdiff1d(values[rows][usable[rows]], known).tolist():
            one = _Seen(value, 0)
            one.add(strip, usable)
            fills += (one.fill(np.zeros(0, int)),)
    return fills


def _written(
    one: _Seen,
    rest: np.ndarray,
    total: int,
    lines: tuple[np.ndarray, np.ndarray],
    stored: float,
) -> bool:
    """Whether a number, which was `stored` as another one, was not measured.

    - `rest`: some of the `total` other numbers; `lines`: second and third differences along lags.
    """
    second, third = lines
    low, median, high = np.quantile(rest, [0.01, 0.5, 0.99])
    # From the wings: differences of a few counts are mostly none.
    noise = float(np.ptp(np.quantile(rest, [0.1, 0.9]))) / 2.56
    if second.size >= _FEW:
        noise = float(np.quantile(np.abs(second), 0.9)) / (1.645 * np.sqrt(6))
    counts = np.unique(rest, return_counts=True)[1]
    twice, most = rest.size - counts.size, int(counts.max())
    unique = twice < (1 - _UNIQUE) * rest.size
    # As often others occur by chance.
    often = one.count > _OFTEN * max(1.0, 2 * twice / rest.size**2 * total)
    # Nor as often as where most numbers are, which two that are equal do not tell.
    often = often and (most < 3 or one.count > most * total / rest.size)
    margin = max(_MARGIN, _SIGMAS * noise)
    away = one.value < low - margin or one.value > max(high, rest.max()) + margin
    usual = stored in (0.0, -1.0) or abs(stored) > 3
    if away and (unique or usual) and _LEVELS[0] <= median <= _LEVELS[1]:
        return True
    often = often and not one.is_of_few_digits(one.value - stored)
    if not ((one.in_runs or often) and unique) or one.coarse:
        return False
    near = np.concatenate(one.near) if one.near else np.empty(0)
    if near.size == 0:
        return False
    jump, above = np.abs(near - one.value), np.mean(near > one.value)
    between = _SIDE < above < 1 - _SIDE and np.median(jump) > SMALL
    noisy = False
    # What decays reaches its last value without a jump, and so does what was cut off at one; and
    # two frames of few photons have none in common now and then.
    extreme = not rest.min() < one.value < rest.max()
    if third.size >= _FEW and np.quantile(jump, _SIDE) > max(_JUMP, 3 * noise * extreme):
        two, three = (float(np.median(np.abs(found))) for found in (second, third))
        noisy = two > SMALL * (1 + abs(one.value)) and three > ROUGH * two
    return bool(between or noisy)
