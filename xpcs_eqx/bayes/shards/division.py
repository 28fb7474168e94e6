"""The pairs of data sets as a numbered list, and its division into shards."""

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ...arguments import Count, check_fields
from ...data import MapSource
from ...errors import ModelError
from ...objective import (
    AbstractPieces,
    AbstractTiles,
    CombinedObjective,
    MapTiles,
    PointTiles,
    StoredTiles,
    refuse_bins,
)
from ...objective.combined import parts_of
from .combiners import generator_of


class Points(NamedTuple):
    """Some pairs with all that a likelihood needs of them."""

    values: Float[np.ndarray, "point"]
    first: Int[np.ndarray, "point"]
    second: Int[np.ndarray, "point"]
    angle: Int[np.ndarray, "point"]
    root_weights: Float[np.ndarray, "point"]


def _n_frames(tiles: MapTiles | StoredTiles) -> int:
    return tiles.c2.shape[1] if isinstance(tiles, MapTiles) else tiles.source.n_frames


class Pairs(eqx.Module):
    """All pairs with a weight, numbered by angle, then first frame, then second.

    A pair is known by its place in the stored arrays, which are shared and never copied: some
    bytes a pair, whatever the number of shards. Of maps in a file a shard reads its own part, in
    whichever process samples it: the rows of consecutive ages (`ContiguousShards`) alone, for
    random pairs all maps once, a band of rows at a time.
    """

    tiles: MapTiles | PointTiles | StoredTiles
    places: Int[np.ndarray, "pair"]
    n_angles: int = eqx.field(static=True)

    @property
    def parts(self) -> tuple["Pairs"]:
        """Those of each data set: of the only one."""
        return (self,)

    @property
    def n_pairs(self) -> int:
        """Number of pairs with a weight other than zero."""
        return self.places.size

    def angle(self) -> Int[np.ndarray, "pair"]:
        """Index of the angle of each pair, ascending."""
        if isinstance(self.tiles, PointTiles):
            return np.asarray(self.tiles.angle)[self.places // self.tiles.values.shape[1]]
        return self.places // _n_frames(self.tiles) ** 2

    def first(self) -> Int[np.ndarray, "pair"]:
        """Earlier frame of each pair."""
        if isinstance(self.tiles, PointTiles):
            return np.asarray(self.tiles.first).reshape(-1)[self.places]
        n = _n_frames(self.tiles)
        return self.places // n % n

    def points(self, numbers: Int[np.ndarray, "point"]) -> Points:
        """The pairs with these numbers."""
        tiles, places = self.tiles, np.asarray(self.places[numbers], np.int64)

        def of(stack) -> np.ndarray:
            return np.asarray(stack).reshape(-1)[places]

        if isinstance(tiles, PointTiles):
            angle = np.asarray(tiles.angle)[places // tiles.values.shape[1]]
            values, weights = of(tiles.values).astype(float), of(tiles.root_weights).astype(float)
            return Points(values, of(tiles.first), of(tiles.second), angle, weights)
        n = _n_frames(tiles)
        angle, first, second = np.unravel_index(places, (self.n_angles, n, n))
        weights = np.asarray(tiles.root_angle_weights)[angle].astype(float)
        if isinstance(tiles, StoredTiles):
            values, sigma = _read(tiles.source, angle, first, second)
            return Points(values, first, second, angle, weights / sigma)
        if tiles.root_weights is not None:
            weights = weights * of(tiles.root_weights)
        return Points(of(tiles.c2).astype(float), first, second, angle, weights)


class JoinedPairs(eqx.Module):
    """The pairs of several data sets, numbered one set after the other, as are their angles."""

    parts: tuple[Pairs, ...]

    @property
    def n_pairs(self) -> int:
        """Pairs of all data sets."""
        return sum(part.n_pairs for part in self.parts)

    @property
    def n_angles(self) -> int:
        """Angles of all data sets."""
        return sum(part.n_angles for part in self.parts)

    def angle(self) -> Int[np.ndarray, "pair"]:
        """Index of the angle of each pair, ascending."""
        before = _before([part.n_angles for part in self.parts])
        return np.concatenate([low + p.angle() for low, p in zip(before, self.parts, strict=True)])

    def first(self) -> Int[np.ndarray, "pair"]:
        """Earlier frame of each pair."""
        return np.concatenate([part.first() for part in self.parts])

    def points(self, numbers: Int[np.ndarray, "point"]) -> Points:
        """The pairs with these numbers, those of one data set after those of another."""
        angles = _before([part.n_angles for part in self.parts])
        ends = _before([part.n_pairs for part in self.parts])
        found = []
        for part, angle, low in zip(self.parts, angles, ends, strict=True):
            own = numbers[(numbers >= low) & (numbers < low + part.n_pairs)] - low
            points = part.points(own)
            found.append(points._replace(angle=points.angle + angle))
        return Points(*map(np.concatenate, zip(*found, strict=True)))


def _before(counts: list[int]) -> np.ndarray:
    return np.cumsum([0, *counts[:-1]])


AnyPairs = Pairs | JoinedPairs


def pairs_of_all(objective: Any) -> AnyPairs:
    """The pairs of an objective, of one data set or of several.

    **Raises:** `ModelError` as `pairs_of`.
    """
    parts = parts_of(objective)
    if not isinstance(objective, CombinedObjective):
        return pairs_of(parts[0].term.tiles)
    # Angles without a pair count where angles of others come after them.
    each = [(pairs_of(part.term.tiles), part.term.reference.shape[0]) for part in parts]
    return JoinedPairs(tuple(Pairs(one.tiles, one.places, n) for one, n in each))


# Rows of a map in a file that are read at once.
_BAND = 256


def _read(source: MapSource, angle: np.ndarray, first: np.ndarray, second: np.ndarray):
    """Values of pairs of maps in a file, and their sigma, one where there is none."""
    values, sigma = np.empty(first.size), np.ones(first.size)
    band = angle * source.n_frames + first // _BAND
    order = np.argsort(band, kind="stable")
    edges = np.flatnonzero(np.diff(band[order], prepend=-1, append=-1))
    with source.reader() as reader:
        for low, high in itertools.pairwise(edges):
            here = order[low:high]
            a, rows = int(angle[here[0]]), first[here]
            taken = slice(int(rows.min()), int(rows.max()) + 1)
            at = rows - taken.start, second[here] - taken.start
            values[here] = reader.band(a, taken)[at]
            if source.sigma_halves is not None:
                sigma[here] = reader.sigma_band(a, taken)[at]
    return values, sigma


def _counting(tiles: MapTiles | StoredTiles, angle: int) -> Iterator[np.ndarray]:
    """Places within a map of the pairs that count, ascending."""
    n = _n_frames(tiles)
    if isinstance(tiles, MapTiles):
        used = np.triu(np.ones((n, n), bool), 1)
        if tiles.root_weights is not None:
            used &= np.asarray(tiles.root_weights[angle]) != 0
        yield np.flatnonzero(used)
        return
    source, rule, columns = tiles.source, tiles.rule, np.arange(n)
    mask = source.mask_of(angle)
    with source.reader() as reader:
        for start in range(0, n, _BAND):
            rows = slice(start, min(start + _BAND, n))
            first, second = np.arange(rows.start, rows.stop)[:, None], columns[None, start:]
            keep = np.isfinite(reader.band(angle, rows)) & (first < second)
            if rule is not None:
                keep &= np.asarray(rule(first, second))
            if mask is not None:
                keep &= mask[rows, start:]
            if source.sigma_halves is not None:
                keep &= reader.sigma_band(angle, rows) > 0
            yield (first * n + second)[keep]


def _smallest(places: np.ndarray, size: int) -> np.ndarray:
    """Places in four bytes where they fit."""
    return places.astype(np.int32 if size < 2**31 else np.int64)


def pairs_of(tiles: AbstractTiles | AbstractPieces) -> Pairs:
    """The pairs that the tiles of an objective give a weight other than zero.

    Maps in a file are read once, to know which of their pairs count.

    **Raises:** `ModelError` for tiles that are neither in memory nor of maps in a file, and bins.
    """
    refuse_bins(tiles, "a posterior")
    # Maps of JAX in memory are seen as NumPy arrays, not copied.
    here: Any = tiles if isinstance(tiles, StoredTiles) else jax.tree.map(np.asarray, tiles)
    if isinstance(tiles, PointTiles):
        places = np.flatnonzero(here.root_weights)
        first, second = (one.reshape(-1)[places] for one in (here.first, here.second))
        order = np.lexsort((second, first, here.angle[places // here.values.shape[1]]))
        n_angles = int(np.max(here.angle, initial=-1)) + 1
        return Pairs(here, _smallest(places[order], here.values.size), n_angles)
    if not isinstance(tiles, MapTiles | StoredTiles):
        raise ModelError(
            f"shards are made of data in memory or of maps in a file, which {type(tiles).__name__} "
            "is not; load the data, or a selection of them"
        )
    roots, n = np.asarray(here.root_angle_weights), _n_frames(here)
    size = roots.size * n * n
    found = [
        _smallest(part + angle * n * n, size)
        for angle in np.flatnonzero(roots).tolist()
        for part in _counting(here, angle)
    ]
    return Pairs(here, np.concatenate(found) if found else np.zeros(0, int), roots.size)


COVERAGE = 0.8
# Pairs each sampled parameter needs for a shard's posterior to be nearly Gaussian.
PER_PARAMETER = 1500


class Shards(eqx.Module):
    """A partition of pairs: `order` lists their numbers shard after shard, `edges` cuts the list.

    - `by_angle`: pairs of each angle in each shard.
    - `kind`: how they were made.
    """

    order: Int[np.ndarray, "pair"]
    edges: Int[np.ndarray, "edge"]
    by_angle: Int[np.ndarray, "shard angle"]
    kind: str = eqx.field(static=True)

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return self.edges.size - 1

    @property
    def sizes(self) -> Int[np.ndarray, "shard"]:
        """Pairs in each shard."""
        return np.diff(self.edges)

    @property
    def coverage(self) -> Float[np.ndarray, "shard"]:
        """Share of the angles with data that each shard has pairs of."""
        there = self.by_angle.sum(axis=0) > 0
        return np.count_nonzero(self.by_angle[:, there], axis=1) / max(there.sum(), 1)

    def members(self, shard: int) -> Int[np.ndarray, "point"]:
        """Numbers of the pairs of a shard."""
        return self.order[self.edges[shard] : self.edges[shard + 1]]

    def report(self) -> str:
        """Kind, number, sizes and coverage in a sentence."""
        sizes = " to ".join(map(str, sorted({self.sizes.min(), self.sizes.max()})))
        least = self.coverage.min()
        angles = "all angles" if least == 1 else f"at least {100 * least:.0f} % of the angles"
        return f"{self.n_shards} shards ({self.kind}) of {sizes} pairs, each with {angles}"

    def __check_init__(self):
        check_fields(self)
        if np.any(self.sizes < 1):
            raise ModelError(
                f"{self.n_shards} shards of {self.order.size} pairs leave a shard empty; take fewer"
            )


class AbstractSharding(eqx.Module):
    """A rule by which every pair gets into exactly one shard."""

    __check_init__ = check_fields

    @abstractmethod
    def split(self, pairs: AnyPairs, n_shards: int, key: Key[Array, ""]) -> Shards:
        """A partition into `n_shards`.

        **Raises:** `ModelError` when it cannot be.
        """


def _shards(pairs: AnyPairs, order: np.ndarray, sizes: np.ndarray, kind: str) -> Shards:
    edges = np.concatenate([[0], np.cumsum(sizes)])
    label = np.repeat(np.arange(sizes.size), sizes)
    flat = label * pairs.n_angles + pairs.angle()[order]
    counts = np.bincount(flat, minlength=sizes.size * pairs.n_angles)
    return Shards(order, edges, counts.reshape(sizes.size, pairs.n_angles), kind)


def _even(total: int, parts: int) -> np.ndarray:
    """Sizes that differ by one at most."""
    return np.full(parts, total // parts) + (np.arange(parts) < total % parts)


class RandomShards(AbstractSharding):
    """Pairs dealt out at random; angles with few pairs may be missing from a shard."""

    def split(self, pairs, n_shards, key):
        order = generator_of(key).permutation(pairs.n_pairs)
        return _shards(pairs, order, _even(pairs.n_pairs, n_shards), "random")


class ContiguousShards(AbstractSharding):
    """Consecutive ages: a shard has the pairs whose first frames are neighbours, of all angles.

    Shards then differ in what they say about a rate that changes with time.
    """

    def split(self, pairs, n_shards, key):
        order = np.argsort(pairs.first(), kind="stable")
        return _shards(pairs, order, _even(pairs.n_pairs, n_shards), "contiguous")


def _shuffled(pairs: AnyPairs, key: Key[Array, ""]) -> tuple[np.ndarray, np.ndarray]:
    """How many pairs each angle has, and all their numbers, shuffled angle after angle."""
    generator = generator_of(key)
    counts = np.bincount(pairs.angle(), minlength=pairs.n_angles)
    starts = np.cumsum(counts) - counts
    parts = zip(starts, counts, strict=True)
    return counts, np.concatenate([s + generator.permutation(int(c)) for s, c in parts])


class StratifiedByAngle(AbstractSharding):
    """Every shard has random pairs of one angle alone; angles get shards by their pairs.

    What only differences between angles tell (shear, flow direction) is weak in such shards.
    """

    def split(self, pairs, n_shards, key):
        counts, order = _shuffled(pairs, key)
        there = np.flatnonzero(counts)
        if n_shards < there.size:
            raise ModelError(
                f"{n_shards} shards of one angle each cannot hold {there.size} angles; take at "
                "least as many shards, or AngleBalanced()"
            )
        # One for every angle, and the rest to whichever has most pairs for each shard.
        number = np.ones(there.size, int)
        for _ in range(n_shards - there.size):
            number[np.argmax(counts[there] / number)] += 1
        sizes = np.concatenate([_even(counts[a], k) for a, k in zip(there, number, strict=True)])
        return _shards(pairs, order, sizes, "stratified by angle")


class AngleBalanced(AbstractSharding):
    """Random pairs, with the same mix of angles in every shard to within one pair.

    **Raises:** `ModelError` when a shard would have less than `coverage` of the angles.
    """

    coverage: float = eqx.field(static=True, default=COVERAGE)

    def split(self, pairs, n_shards, key):
        counts, shuffled = _shuffled(pairs, key)
        # Dealt like cards, angle after angle.
        order = np.concatenate([shuffled[k::n_shards] for k in range(n_shards)])
        shards = _shards(pairs, order, _even(pairs.n_pairs, n_shards), "angle-balanced")
        least = float(shards.coverage.min())
        if least < self.coverage:
            raise ModelError(
                f"a shard would have pairs of {100 * least:.0f} % of the angles, less than "
                f"{100 * self.coverage:.0f} %: some angles have fewer pairs than there are shards "
                f"(fewest: {counts[counts > 0].min()}, shards: {n_shards}); take larger shards, "
                "leave those angles out, or use RandomShards()"
            )
        return shards


class Plan(NamedTuple):
    """Transitions of each chain of a shard; `fraction` is the share of those of a full run."""

    warmup: int
    draws: int
    fraction: float


class AbstractShardSize(eqx.Module):
    """How many shards there are."""

    __check_init__ = check_fields

    @abstractmethod
    def count(self, n_pairs: int, n_parameters: int, n_angles: int, laminar: bool) -> int:
        """Number of shards for this many pairs, sampled parameters and angles."""


# Pairs in a shard, of few data and of many, between which the logarithm decides.
_STATIC, _LAMINAR = (10_000, 20_000), (5_000, 10_000)
_FEW, _MANY = 1e6, 1e8


class AutomaticSize(AbstractShardSize):
    """10 000 to 20 000 pairs, with flow 5000 to 10 000, more the more data there are.

    Fewer angles are less varied: × 0.6 for 3 at most, 0.7 for 5, 0.85 for 10. Never fewer than
    1500 for each sampled parameter, which decides wherever there are more than a few of them: with
    laminar flow from seven on, contrast, offset and sigma included.
    """

    def points(self, n_pairs: int, n_parameters: int, n_angles: int, laminar: bool) -> int:
        """Pairs in a shard."""
        low, high = _LAMINAR if laminar else _STATIC
        place = math.log(max(n_pairs, 1) / _FEW) / math.log(_MANY / _FEW)
        size = low * (high / low) ** min(max(place, 0.0), 1.0)
        factor = 0.6 if n_angles <= 3 else 0.7 if n_angles <= 5 else 0.85 if n_angles <= 10 else 1.0
        return max(round(size * factor), PER_PARAMETER * n_parameters)

    def count(self, n_pairs, n_parameters, n_angles, laminar):
        return max(n_pairs // self.points(n_pairs, n_parameters, n_angles, laminar), 1)


class PairsPerShard(AbstractShardSize):
    """About this many pairs in each shard."""

    pairs: Count = eqx.field(static=True)

    def count(self, n_pairs, n_parameters, n_angles, laminar):
        return max(round(n_pairs / self.pairs), 1)


class NumberOfShards(AbstractShardSize):
    """A given number of shards."""

    shards: Count = eqx.field(static=True)

    def count(self, n_pairs, n_parameters, n_angles, laminar):
        return self.shards


def split_pairs(
    pairs: AnyPairs,
    n_parameters: int,
    laminar: bool,
    key: Key[Array, ""],
    sharding: AbstractSharding | None = None,
    size: AbstractShardSize | None = None,
) -> tuple[Shards, tuple[str, ...]]:
    """Shards of pairs, and what has to be known of them.

    **Arguments:**

    - `n_parameters`: sampled ones, scaling and sigma included; `laminar`: of a model with flow.
    - `sharding`: by default `AngleBalanced()`; `size`: by default `AutomaticSize()`.

    **Raises:** `ModelError` when a shard has fewer pairs than parameters.
    """
    sharding = AngleBalanced() if sharding is None else sharding
    size = AutomaticSize() if size is None else size
    count = size.count(pairs.n_pairs, n_parameters, pairs.n_angles, laminar)
    smallest = pairs.n_pairs // count
    most = pairs.n_pairs // (PER_PARAMETER * n_parameters)
    remedy = f"take at most {most} shards" if most > 1 else "sample all data in one run"

    def check(size: int) -> None:
        if size < n_parameters:
            raise ModelError(
                f"{pairs.n_pairs} pairs in {count} shards make {size} in the smallest, fewer than "
                f"the {n_parameters} sampled parameters; {remedy}"
            )

    check(smallest)
    shards = sharding.split(pairs, count, key)
    check(int(shards.sizes.min()))
    notes = [shards.report()]
    if smallest < PER_PARAMETER * n_parameters:
        notes.append(
            f"shards have {smallest / n_parameters:.0f} pairs for each sampled parameter, fewer "
            f"than {PER_PARAMETER}: alone, their posteriors may be far from Gaussian. Anchor them "
            f"by a fit (the default where there is one), or {remedy}"
        )
    if float(shards.coverage.min()) < COVERAGE:
        notes.append(
            f"a shard has only {100 * shards.coverage.min():.0f} % of the angles; contrast and "
            "offset of the others come from the prior there"
        )
    return shards, tuple(notes)
