"""What became of shards, and what they say about each other."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ...showing import with_error
from ..modes import Bimodality, modes_of_shards
from ..workers.base import Attempt, Outcome
from .combiners import Combined, ShardDraws
from .division import Plan, Shards


class Heterogeneity(NamedTuple):
    """How much shards differ in one parameter.

    - `cv`: standard deviation of the means of the shards over their mean.
    - `excess`: root mean square distance of the means from their average, in standard deviations of
        the shards: about 1 when they differ by chance alone, more when they contradict each other.
    - `limit`: above which the excess is no chance: less than 1 in 10 000 runs of independent pairs
        have one in any of their parameters.
    """

    name: str
    cv: float
    excess: float
    limit: float = math.inf

    @property
    def contradictory(self) -> bool:
        """Whether the shards differ by more than chance allows."""
        return self.excess > self.limit


class BimodalSummary(NamedTuple):
    """Two modes of one parameter over all shards.

    - `shards`: those that have two; `low`, `high`: mean of their lower and upper modes.
    - `low_sd`, `high_sd`: scatter of these modes over the shards: small when they are the same.
    - `near_low`, `near_high`: number of the other shards that lie closer to either.
    """

    name: str
    shards: tuple[int, ...]
    low: float
    high: float
    low_sd: float
    high_sd: float
    near_low: int
    near_high: int


class CoOccurrence(NamedTuple):
    """How often two parameters have two modes in the same shard.

    `both` and `either` are numbers of shards. Amplitude and exponent of a rate (D0 and alpha) with
    two modes together are two solutions of one degeneracy.
    """

    first: str
    second: str
    both: int
    either: int


class CrossShard(NamedTuple):
    """Comparison of the shards; `contradictions` name those that differ by more than chance."""

    heterogeneity: tuple[Heterogeneity, ...]
    bimodal: tuple[BimodalSummary, ...]
    together: tuple[CoOccurrence, ...]
    findings: tuple[str, ...]
    contradictions: tuple[str, ...] = ()


# Part of the spread of its anchor below which a combination is no longer near to it, and by how
# much shards that are held alike may differ in spread.
_NARROW, _UNEVEN = 0.5, 1.5


def _spread(draws: Float[np.ndarray, "... draw entry"]) -> Float[np.ndarray, "... entry"]:
    low, high = np.quantile(draws, (0.16, 0.84), axis=-2)
    return 0.5 * (high - low)


def too_narrow(
    combined: Float[np.ndarray, "draw entry"],
    held: Float[np.ndarray, "shard draw entry"],
    anchor: Float[np.ndarray, "draw entry"],
    names: tuple[str, ...],
) -> tuple[str, ...]:
    """Parameters that combine to far less than the spread of the anchor, by shards that are bent.

    Shards of one size, held at the fit alike, are equally wide where they are Gaussian. Where the
    posterior is bent by more than its own width some are far sharper than others, and these decide
    once the anchor is divided out, although every chain has converged.

    **Arguments:**

    - `combined`, `held`: draws of all, and of each shard with its anchor.
    - `anchor`: draws of the Gaussian about the fit that the anchor is a part of.
    """
    each, found, wanted = _spread(held), _spread(combined), _spread(anchor)
    bent = (found < _NARROW * wanted) & (each.max(axis=0) > _UNEVEN * each.min(axis=0))
    return tuple(
        f"{names[i]} spreads by {found[i]:.2g} in the combined draws and by {wanted[i]:.2g} about "
        f"the fit, and the shards held there by {each[:, i].min():.2g} to {each[:, i].max():.2g}"
        for i in np.flatnonzero(bent)
    )


# Chance that shards which agree are called contradictory in any parameter of a run.
_WRONGLY = 1e-4
# Shards named one by one in a contradiction.
_NAMED = 8


def chance_limit(n_shards: int, n_entries: int) -> float:
    """The excess that shards of independent pairs pass by chance in 1 of 10 000 runs.

    Squared and times K − 1 it has for one entry the χ² distribution with K − 1 degrees of freedom.
    """
    # Not at the top: `import xpcs_eqx` does without SciPy.
    from scipy.special import chdtri

    if n_shards < 2:
        return math.inf
    return float(np.sqrt(chdtri(n_shards - 1, _WRONGLY / n_entries) / (n_shards - 1)))


def _heterogeneity(
    names: tuple[str, ...],
    means: Float[np.ndarray, "shard entry"],
    sds: Float[np.ndarray, "shard entry"],
    limit: float,
) -> tuple[Heterogeneity, ...]:
    if len(means) < 2:
        return tuple(Heterogeneity(name, 0.0, 0.0) for name in names)
    middle = means.mean(axis=0)
    cv = means.std(axis=0, ddof=1) / np.maximum(np.abs(middle), 1e-300)
    excess = np.sqrt(np.sum(((means - middle) / sds) ** 2, axis=0) / (len(means) - 1))
    each = zip(names, cv.tolist(), excess.tolist(), strict=True)
    return tuple(Heterogeneity(*one, limit) for one in each)


def _contradiction(
    one: Heterogeneity, draws: Float[np.ndarray, "shard draw"], numbers: Sequence[int]
) -> str:
    """Which shards differ, the outermost first."""
    means, sds = draws.mean(axis=1), draws.std(axis=1)
    order = np.argsort(-np.abs(means - np.median(means)), kind="stable")
    shown = ", ".join(f"shard {numbers[k]}: {with_error(means[k], sds[k])}" for k in order[:_NAMED])
    more = f", and {len(order) - _NAMED} more" if len(order) > _NAMED else ""
    beyond = f"more than chance ({one.limit:.1f})" if one.contradictory else "held at the fit"
    return (
        f"shards differ in {one.name} by {one.excess:.1f} of their standard deviations, {beyond}: "
        f"{shown}{more}; look for data that one model does not describe"
    )


def widest(
    found: CrossShard, draws: Float[np.ndarray, "shard draw entry"], numbers: Sequence[int]
) -> str:
    """Where the shards are in the parameter in which they differ the most."""
    worst = max(range(len(found.heterogeneity)), key=lambda i: found.heterogeneity[i].excess)
    return _contradiction(found.heterogeneity[worst], draws[..., worst], numbers)


def _summary(
    name: str, found: dict[int, Bimodality], means: Float[np.ndarray, "shard"], numbers
) -> BimodalSummary:
    modes = np.array([one.means for one in found.values()])
    (low, high), (low_sd, high_sd) = modes.mean(axis=0).tolist(), modes.std(axis=0).tolist()
    others = np.array([m for k, m in enumerate(means) if k not in found])
    near_low = int(np.sum(np.abs(others - low) < np.abs(others - high)))
    having = tuple(numbers[k] for k in found)
    near_high = others.size - near_low
    return BimodalSummary(name, having, low, high, low_sd, high_sd, near_low, near_high)


def compare_shards(
    draws: Float[np.ndarray, "shard draw entry"],
    names: tuple[str, ...],
    numbers: Sequence[int] | None = None,
) -> CrossShard:
    """Heterogeneity, two modes and their co-occurrence over shards, in any coordinates."""
    numbers = tuple(range(len(draws))) if numbers is None else tuple(numbers)
    limit = chance_limit(len(draws), len(names))
    means = draws.mean(axis=1)
    varied = _heterogeneity(names, means, draws.std(axis=1), limit)
    modes: dict[str, dict[int, Bimodality]] = {}
    for k, found in modes_of_shards(draws, names).items():
        for name, one in found.items():
            modes.setdefault(name, {})[k] = one
    modes = {name: modes[name] for name in names if name in modes}
    summaries = tuple(
        _summary(name, found, means[:, names.index(name)], numbers) for name, found in modes.items()
    )
    together = tuple(
        CoOccurrence(a, b, len(modes[a].keys() & modes[b].keys()), len({**modes[a], **modes[b]}))
        for a, b in itertools.combinations(modes, 2)
    )
    contradictions = tuple(
        _contradiction(one, draws[..., i], numbers)
        for i, one in enumerate(varied)
        if one.contradictory
    )
    findings = [*contradictions]
    findings += [
        f"{one.name} has two modes in {len(one.shards)} of {len(draws)} shards, at {one.low:.4g} "
        f"and {one.high:.4g}; MultimodalConsensus combines modes one by one"
        for one in summaries
    ]
    findings += [
        f"{one.first} and {one.second} have two modes together in {one.both} of {one.either} shards"
        for one in together
        if one.both
    ]
    return CrossShard(varied, summaries, together, tuple(findings), contradictions)


class ShardRow(NamedTuple):
    """What became of one shard: its worst R-hat and effective samples, NaN when it was dropped.

    `failures` are its failed attempts; `resumed` tells that it was read from an earlier run.
    """

    number: int
    pairs: int
    status: str
    failures: tuple[Attempt, ...]
    seconds: float
    resumed: bool
    rhat: float
    ess_bulk: float
    divergence_rate: float


def shard_table(outcomes: Sequence[Outcome], sizes: Sequence[int]) -> tuple[ShardRow, ...]:
    """One row for each shard; `status` is done or dropped."""
    rows = []
    for one in outcomes:
        status, found = "dropped", [math.nan] * 3
        if one.result is not None:
            rhat, ess, divergent = (one.result[n] for n in ("rhat", "ess_bulk", "divergent"))
            status, found = "done", [rhat.max(), ess.min(), divergent.mean()]
        size, seen = int(sizes[one.number]), (one.failures, one.seconds, one.resumed)
        rows.append(ShardRow(one.number, size, status, *seen, *map(float, found)))
    return tuple(rows)


class ShardResults(eqx.Module):
    """What became of the shards that a posterior was put together from.

    - `division`: which pairs went where; `plan`: transitions of each chain.
    - `draws`: those of the shards in unconstrained coordinates, for another combiner.
    - `combined`: shards used and set aside, with reasons; `dropped`: (shard, reason) of all that
        are not in the result, failed ones included.
    - `comparison`: heterogeneity and modes over the shards; `table`: one row for each shard.
    - `pareto_k`: of the importance correction, NaN without.
    """

    division: Shards
    draws: ShardDraws
    combined: Combined
    comparison: CrossShard = eqx.field(static=True)
    plan: Plan = eqx.field(static=True)
    dropped: tuple[tuple[int, str], ...] = eqx.field(static=True)
    table: tuple[ShardRow, ...] = eqx.field(static=True)
    pareto_k: float

    @property
    def least_converged(self) -> int:
        """Number of the shard in the result whose chains agree the least."""
        rhat = {one.number: one.rhat for one in self.table}
        return max(self.draws.numbers, key=lambda number: rhat[number])
