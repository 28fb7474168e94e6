"""Which pairs go into which shard, and how large shards are."""

import math
from abc import abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ...data import PooledData, TwoTimeData
from ...errors import ModelError
from .combiners import generator_of
from .pairs import AbstractPairs, pairs_of

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
        sizes = self.sizes
        return (
            f"{self.n_shards} shards ({self.kind}) of {sizes.min()} to {sizes.max()} pairs, each "
            f"with at least {100 * self.coverage.min():.0f} % of the angles"
        )

    def __check_init__(self):
        if np.any(self.sizes < 1):
            raise ModelError(
                f"{self.n_shards} shards of {self.order.size} pairs leave a shard empty; take fewer"
            )


class AbstractSharding(eqx.Module):
    """A rule by which every pair gets into exactly one shard."""

    @abstractmethod
    def split(self, pairs: AbstractPairs, n_shards: int, key: Key[Array, ""]) -> Shards:
        """A partition into `n_shards`.

        **Raises:** `ModelError` when it cannot be.
        """


def _shards(pairs: AbstractPairs, order: np.ndarray, sizes: np.ndarray, kind: str) -> Shards:
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


class StratifiedByAngle(AbstractSharding):
    """Every shard has random pairs of one angle alone; angles get shards by their pairs.

    What only differences between angles tell (shear, flow direction) is weak in such shards.
    """

    def split(self, pairs, n_shards, key):
        generator, angle = generator_of(key), pairs.angle()
        counts = np.bincount(angle, minlength=pairs.n_angles)
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
        starts = np.concatenate([[0], np.cumsum(counts)])
        order = np.concatenate(
            [starts[a] + generator.permutation(int(counts[a])) for a in range(pairs.n_angles)]
        )
        sizes = np.concatenate([_even(counts[a], k) for a, k in zip(there, number, strict=True)])
        return _shards(pairs, order, sizes, "stratified by angle")


class AngleBalanced(AbstractSharding):
    """Random pairs, with the same mix of angles in every shard to within one pair.

    **Raises:** `ModelError` when a shard would have less than `coverage` of the angles.
    """

    coverage: float = eqx.field(static=True, default=COVERAGE)

    def split(self, pairs, n_shards, key):
        generator, angle = generator_of(key), pairs.angle()
        counts = np.bincount(angle, minlength=pairs.n_angles)
        starts = np.cumsum(counts) - counts
        shuffled = np.concatenate(
            [s + generator.permutation(int(c)) for s, c in zip(starts, counts, strict=True)]
        )
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


class AbstractShardSize(eqx.Module):
    """How many shards there are."""

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

    pairs: int = eqx.field(static=True)

    def __check_init__(self):
        if self.pairs < 1:
            raise ModelError(f"{self.pairs} pairs in a shard; there must be at least 1")

    def count(self, n_pairs, n_parameters, n_angles, laminar):
        return max(round(n_pairs / self.pairs), 1)


class NumberOfShards(AbstractShardSize):
    """A given number of shards."""

    shards: int = eqx.field(static=True)

    def __check_init__(self):
        if self.shards < 1:
            raise ModelError(f"{self.shards} shards; there must be at least 1")

    def count(self, n_pairs, n_parameters, n_angles, laminar):
        return self.shards


def split_pairs(
    pairs: AbstractPairs,
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
    if smallest < n_parameters:
        raise ModelError(
            f"{pairs.n_pairs} pairs in {count} shards make {smallest} in the smallest, fewer than "
            f"the {n_parameters} sampled parameters; {remedy}"
        )
    shards = sharding.split(pairs, count, key)
    if int(shards.sizes.min()) < n_parameters:
        raise ModelError(
            f"the smallest of {count} shards ({shards.kind}) has {shards.sizes.min()} pairs, fewer "
            f"than the {n_parameters} sampled parameters; {remedy}"
        )
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


def shard_data(data: TwoTimeData | PooledData, shards: Shards, shard: int) -> PooledData:
    """One shard as pooled data."""
    found = pairs_of(data).points(shards.members(shard))
    weighted = data.root_weights is not None
    return PooledData(
        values=found.values,
        first=found.first,
        second=found.second,
        angle=found.angle,
        t=data.t,
        geometry=data.geometry,
        root_weights=found.root_weights if weighted else None,
        absolute_sigma=data.absolute_sigma,
        provenance=data.provenance,
    )
