"""Whether to sample in shards, how many draws each gets, and how its prior is tempered."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx

from ...errors import ModelError

THRESHOLD = 500_000
_FULL_SIZE = 10_000


class Route(NamedTuple):
    """Whether to sample in shards, and why."""

    consensus: bool
    reason: str


class AbstractRoute(eqx.Module):
    """When to sample in shards."""

    @abstractmethod
    def decide(self, n_pairs: int) -> Route:
        """The route for this many pairs."""


class AutomaticRoute(AbstractRoute):
    """One run up to `threshold` pairs, consensus above."""

    threshold: int = eqx.field(static=True, default=THRESHOLD)

    def decide(self, n_pairs):
        if n_pairs > self.threshold:
            return Route(True, f"{n_pairs} pairs are more than {self.threshold}: consensus")
        return Route(False, f"{n_pairs} pairs are no more than {self.threshold}: one run")


class AlwaysConsensus(AbstractRoute):
    """Shards whatever the size."""

    def decide(self, n_pairs):
        return Route(True, f"consensus of {n_pairs} pairs was asked for")


class AlwaysWhole(AbstractRoute):
    """One run on all data whatever the size."""

    def decide(self, n_pairs):
        return Route(False, f"one run on all {n_pairs} pairs was asked for")


class Plan(NamedTuple):
    """Transitions of each chain of a shard; `fraction` is the share of those of a full run."""

    warmup: int
    draws: int
    fraction: float


class AbstractPlan(eqx.Module):
    """How many transitions the chains of a shard make."""

    @abstractmethod
    def of(self, n_pairs: int, n_parameters: int, warmup: int, draws: int) -> Plan:
        """The plan for a shard; `warmup` and `draws` are those of a full run."""


class PlanBySize(AbstractPlan):
    """Fewer for shards under 10 000 pairs, in proportion.

    At least max(100, 20 p) of warm-up and max(200, 50 p) draws for p parameters.
    """

    def of(self, n_pairs, n_parameters, warmup, draws):
        fraction = min(1.0, n_pairs / _FULL_SIZE)
        return Plan(
            max(100, 20 * n_parameters, round(fraction * warmup)),
            max(200, 50 * n_parameters, round(fraction * draws)),
            fraction,
        )


class PlanAsGiven(AbstractPlan):
    """The numbers of a full run for every shard."""

    def of(self, n_pairs, n_parameters, warmup, draws):
        return Plan(warmup, draws, 1.0)


class AbstractTempering(eqx.Module):
    """The power to which each of K shards has the prior."""

    @abstractmethod
    def power(self, n_shards: int) -> float:
        """The power for this many shards."""


class SharedPrior(AbstractTempering):
    """1/K: all shards together have the prior once."""

    def power(self, n_shards):
        return 1.0 / n_shards


class WholePrior(AbstractTempering):
    """1: every shard has the whole prior, which then counts K times. Wrong, and here to show it."""

    def power(self, n_shards):
        return 1.0


class GivenPower(AbstractTempering):
    """A power of one's own."""

    value: float = eqx.field(static=True)

    def __check_init__(self):
        if not 0 < self.value <= 1:
            raise ModelError(f"power {self.value} of the prior; it must be above 0 and at most 1")

    def power(self, n_shards):
        return self.value
