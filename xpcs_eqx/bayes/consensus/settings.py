"""How data are sampled in shards: all settings in one place."""

from typing import NamedTuple

import equinox as eqx

from ...errors import ModelError
from ..workers.base import AbstractWorkers, Limits, Serial
from .anchors import AbstractAnchor
from .combiners import AbstractCombiner, RobustConsensus
from .correction import AbstractCorrection, NoCorrection
from .shards import AbstractSharding, AbstractShardSize, AngleBalanced, AutomaticSize

THRESHOLD = 500_000
# Pairs of a shard that gets the transitions of a full run.
_FULL_SIZE = 10_000


class Plan(NamedTuple):
    """Transitions of each chain of a shard; `fraction` is the share of those of a full run."""

    warmup: int
    draws: int
    fraction: float


class Consensus(eqx.Module):
    """Settings of consensus Monte Carlo.

    - `threshold`: `infer` samples in shards above so many pairs; 0: always, None: never.
    - `sharding`: which pairs go where; `size`: how many shards there are.
    - `by_size`: fewer transitions for shards under 10 000 pairs, in proportion, but at least
        max(100, 20 p) of warm-up and max(200, 50 p) draws for p parameters; else those of a full
        run for every shard.
    - `power`: that of the prior in each of K shards; by default 1/K, so that all shards together
        have it once.
    - `anchor`: keeps the chains of shards near the fit; by default `LaplaceAnchor()` where the
        start has a fit and the combiner looks for no modes, else `NoAnchor()`.
    - `combiner`: from draws of shards to those of all data; `correction`: what is done to them.
    - `workers`: who samples the shards: `Serial()`, `SpawnedProcesses()`, `DaskWorkers(…)` or
        `ExecutorWorkers(executor)`; `limits`: times, retries, and how many shards may fail.

    **Raises:** `ModelError` for settings that cannot be.
    """

    threshold: int | None = eqx.field(static=True, default=THRESHOLD)
    sharding: AbstractSharding = AngleBalanced()
    size: AbstractShardSize = AutomaticSize()
    by_size: bool = eqx.field(static=True, default=True)
    power: float | None = eqx.field(static=True, default=None)
    anchor: AbstractAnchor | None = None
    combiner: AbstractCombiner = RobustConsensus()
    correction: AbstractCorrection = NoCorrection()
    workers: AbstractWorkers = Serial()
    limits: Limits = Limits()

    def __check_init__(self):
        if self.threshold is not None and self.threshold < 0:
            raise ModelError(
                f"threshold = {self.threshold} pairs; it must be at least 0 (always shards), or "
                "None (never)"
            )
        if self.power is not None and not 0 < self.power <= 1:
            raise ModelError(f"power {self.power} of the prior; it must be above 0 and at most 1")

    def in_shards(self, n_pairs: int) -> bool:
        """Whether `infer` samples so many pairs in shards."""
        return self.threshold is not None and n_pairs > self.threshold

    def reason(self, n_pairs: int) -> str:
        """Why `infer` samples so many pairs as it does."""
        if self.threshold is None:
            return f"one run on all {n_pairs} pairs was asked for"
        if self.threshold == 0:
            return f"consensus of {n_pairs} pairs was asked for"
        if n_pairs > self.threshold:
            return f"{n_pairs} pairs are more than {self.threshold}: consensus"
        return f"{n_pairs} pairs are no more than {self.threshold}: one run"

    def plan(self, n_pairs: int, n_parameters: int, warmup: int, draws: int) -> Plan:
        """Transitions for a shard of so many pairs, from those of a full run."""
        if not self.by_size:
            return Plan(warmup, draws, 1.0)
        fraction = min(1.0, n_pairs / _FULL_SIZE)
        return Plan(
            max(100, 20 * n_parameters, round(fraction * warmup)),
            max(200, 50 * n_parameters, round(fraction * draws)),
            fraction,
        )

    def prior_power(self, n_shards: int) -> float:
        """The power to which each of so many shards has the prior."""
        return 1.0 / n_shards if self.power is None else self.power
