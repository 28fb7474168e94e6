"""What shards say about each other, and about the convergence of their chains."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..diagnostics import BFMI, DIVERGENCES, ESS, RHAT, Diagnostics
from ..modes import Bimodality, bimodality
from ..workers.limits import Attempt, Outcome
from .combiners import may_be_bimodal


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
    name: str, draws: Float[np.ndarray, "shard draw"], limit: float
) -> Heterogeneity:
    means, sd = draws.mean(axis=1), draws.std(axis=1)
    if means.size < 2:
        return Heterogeneity(name, 0.0, 0.0)
    scatter = float(means.std(ddof=1))
    excess = float(np.sqrt(np.sum(((means - means.mean()) / sd) ** 2) / (means.size - 1)))
    cv = scatter / max(abs(float(means.mean())), 1e-300)
    return Heterogeneity(name, cv, excess, limit)


def _contradiction(one: Heterogeneity, means: Float[np.ndarray, "shard"], numbers) -> str:
    """Which shards differ, the outermost first."""
    order = np.argsort(-np.abs(means - np.median(means)), kind="stable")
    shown = ", ".join(f"shard {numbers[k]}: {means[k]:.4g}" for k in order[:_NAMED])
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
    return _contradiction(found.heterogeneity[worst], draws[..., worst].mean(axis=1), numbers)


def _summary(
    name: str, found: dict[int, Bimodality], means: Float[np.ndarray, "shard"], numbers
) -> BimodalSummary:
    modes = np.array([one.means for one in found.values()])
    (low, high), (low_sd, high_sd) = modes.mean(axis=0), modes.std(axis=0)
    others = np.array([m for k, m in enumerate(means) if k not in found])
    near_low = int(np.sum(np.abs(others - low) < np.abs(others - high)))
    return BimodalSummary(
        name,
        tuple(numbers[k] for k in found),
        float(low),
        float(high),
        float(low_sd),
        float(high_sd),
        near_low,
        others.size - near_low,
    )


def compare_shards(
    draws: Float[np.ndarray, "shard draw entry"],
    names: tuple[str, ...],
    numbers: Sequence[int] | None = None,
) -> CrossShard:
    """Heterogeneity, two modes and their co-occurrence over shards, in any coordinates."""
    numbers = tuple(range(len(draws))) if numbers is None else tuple(numbers)
    limit = chance_limit(len(draws), len(names))
    varied = tuple(_heterogeneity(n, draws[..., i], limit) for i, n in enumerate(names))
    possible = may_be_bimodal(draws)
    modes: dict[str, dict[int, Bimodality]] = {}
    for i, name in enumerate(names):
        each = {int(k): bimodality(name, draws[k, :, i]) for k in np.flatnonzero(possible[:, i])}
        found = {k: one for k, one in each.items() if one.bimodal}
        if found:
            modes[name] = found
    summaries = tuple(
        _summary(name, found, draws[..., names.index(name)].mean(axis=1), numbers)
        for name, found in modes.items()
    )
    there = list(modes)
    together = tuple(
        CoOccurrence(a, b, len(modes[a].keys() & modes[b].keys()), len({**modes[a], **modes[b]}))
        for i, a in enumerate(there)
        for b in there[i + 1 :]
    )
    contradictions = tuple(
        _contradiction(one, draws[..., i].mean(axis=1), numbers)
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


def shard_diagnostics(
    results: Sequence[dict[str, np.ndarray]], names: tuple[str, ...], max_depth: int
) -> Diagnostics:
    """Convergence of the chains of all shards: for each parameter that of the worst shard.

    Nothing is computed from combined draws, which would always look converged.
    """

    def every(name: str) -> np.ndarray:
        return np.stack([np.asarray(result[name]) for result in results])

    rhat, bulk = every("rhat").max(axis=0), every("ess_bulk").min(axis=0)
    rates = every("divergent").mean(axis=(1, 2))
    worst = float(rates.max())
    findings, advice = [], []
    if not np.all(rhat <= RHAT):
        findings.append(f"R-hat above {RHAT} in a shard: {names[int(np.argmax(rhat))]}")
        advice.append("MultimodalConsensus for shards with several modes, else a longer warm-up")
    few = not np.all(bulk >= ESS / 4)
    if few:
        findings.append(
            f"fewer than {ESS / 4:g} effective samples in a shard: {names[int(np.argmin(bulk))]}"
        )
        advice.append("take more draws for each shard")
    if worst > DIVERGENCES[0]:
        findings.append(f"divergences in up to {100 * worst:.2g} % of the transitions of a shard")
        advice.append("raise target_acceptance, or take larger shards")
    fraction = every("bfmi").min(axis=0)
    if not np.all(fraction >= BFMI):
        findings.append(f"BFMI {np.min(fraction):.2g} below {BFMI} in a shard")
        advice.append("a longer warm-up, or larger shards")
    status = (
        "not_converged"
        if few or not np.all(rhat <= RHAT)
        else "divergences"
        if np.median(rates) > DIVERGENCES[0]
        else "converged"
    )
    return Diagnostics(
        names,
        rhat,
        bulk,
        every("ess_tail").min(axis=0),
        fraction,
        float(rates.mean()),
        float(np.mean(every("depth") >= max_depth)),
        float(every("acceptance").mean()),
        status,
        tuple(findings),
        tuple(advice),
    )


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
        found = (float("nan"),) * 3
        if one.result is not None:
            found = (
                float(np.max(one.result["rhat"])),
                float(np.min(one.result["ess_bulk"])),
                float(np.mean(one.result["divergent"])),
            )
        status = "dropped" if one.result is None else "done"
        rows.append(
            ShardRow(
                one.number,
                int(sizes[one.number]),
                status,
                one.failures,
                one.seconds,
                one.resumed,
                *found,
            )
        )
    return tuple(rows)
