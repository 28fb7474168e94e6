"""Consensus Monte Carlo: from shards of the data to a posterior of all of them."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ...checkpoint import fingerprint
from ...errors import ModelError
from ...fitting import Fit
from ...objective import StoredTiles
from ...physics import LaminarFlow
from ..density.likelihood import AbstractNoise, AbstractScalingTreatment, MarginalisedScaling
from ..density.log_posterior import AnyObjective, LogPosterior
from ..diagnostics import about_independence, against_fit, contradicted, quoted_errors
from ..nuts.chains import Draws
from ..nuts.sample import Nuts, key_of, physical_draws, prepare, scaling_draws
from ..nuts.starts import AbstractStart, Beginning, LaplaceStart
from ..posterior import Posterior, draws_in_lines
from ..priors.base import AbstractPrior
from ..priors.prior_set import PriorSet
from ..workers.base import AbstractWorkers, Serial, run_shards
from ..workers.limits import Limits, Outcome, accepted
from ..workers.store import ShardStore
from .anchors import AbstractAnchor, LaplaceAnchor, NoAnchor, NoCommonMaximum, Site, between
from .combiners import AbstractCombiner, Combined, RobustConsensus, ShardDraws, shard_draws
from .compare import (
    CrossShard,
    ShardRow,
    compare_shards,
    shard_diagnostics,
    shard_table,
    widest,
)
from .correction import AbstractCorrection, Corrected, NoCorrection
from .pairs import pairs_of
from .plan import AbstractPlan, AbstractTempering, Plan, PlanBySize, SharedPrior
from .shards import AbstractSharding, AbstractShardSize, Shards, split_pairs
from .work import (
    ShardWork,
    layout_of,
    layout_of_points,
    stand_in,
    standing_for,
    tiles_of_points,
    without_data,
)


class ConsensusPosterior(eqx.Module):
    """A posterior put together from shards, and what became of each of them.

    - `posterior`: combined draws, as one chain. Its `draws` and diagnostics are those of the chains
        of all shards (shard after shard), never of combined draws.
    - `shards`: which pairs went where; `plan`: transitions of each chain.
    - `subposteriors`: draws of the shards in unconstrained coordinates, for another combiner.
    - `combined`: shards used and set aside, with reasons; `dropped`: (shard, reason) of all that
        are not in the result, failed ones included.
    - `comparison`: heterogeneity and modes over the shards; `table`: one row for each shard.
    - `pareto_k`: of the importance correction, NaN without.
    """

    posterior: Posterior
    shards: Shards
    subposteriors: ShardDraws
    combined: Combined
    comparison: CrossShard = eqx.field(static=True)
    plan: Plan = eqx.field(static=True)
    dropped: tuple[tuple[int, str], ...] = eqx.field(static=True)
    table: tuple[ShardRow, ...] = eqx.field(static=True)
    pareto_k: float

    def __repr__(self) -> str:
        """Status and findings, one line for each entry, and the notes."""
        found = self.posterior
        head = f"{type(self).__name__} of {self.shards.n_shards} shards,"
        return draws_in_lines(head, self.names, found.theta, found.diagnostics, found.notes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sampled entries."""
        return self.posterior.names

    @property
    def status(self) -> str:
        """That of the chains of the shards; `contradictory` where these do not agree."""
        return self.posterior.status

    def __getitem__(self, name: str) -> Float[np.ndarray, "chain draw ..."]:
        """Combined draws of a parameter, or of `contrast` or `offset` of all angles.

        **Raises:** `KeyError` listing the names there are.
        """
        return self.posterior[name]


def _shard_beginning(begun: Beginning, n_shards: int, anchor: np.ndarray) -> Beginning:
    """Metric and positions for a shard, whose data know 1/K of what all of them do, anchored.

    The rest of the precision, that of the coordinates themselves (width 2), stays.
    """
    scale = np.asarray(begun.density.coordinates.scale)
    precision = np.linalg.inv(np.asarray(begun.metric))
    own = np.diag(scale**2) / 4.0
    metric = np.linalg.inv(precision / n_shards + (1 - 1 / n_shards) * own + anchor)
    factor = between(np.asarray(begun.metric), metric)
    return begun._replace(metric=metric, positions=np.asarray(begun.positions) @ factor.T)


def _anchor(
    given: AbstractAnchor | None, start: AbstractStart, combiner: AbstractCombiner
) -> AbstractAnchor:
    """The anchor asked for, or the one for this start and combiner."""
    if given is None:
        return LaplaceAnchor() if start.wants_fit and combiner.of_moments else NoAnchor()
    if isinstance(given, NoAnchor):
        return given
    if not start.wants_fit:
        raise ModelError(
            f"{type(given).__name__} is the covariance of a fit, which {type(start).__name__} has "
            "none of; use LaplaceStart(), or NoAnchor()"
        )
    if not combiner.of_moments:
        raise ModelError(
            f"{type(combiner).__name__} takes more of the draws than means and covariances, which "
            f"are all that is known after {type(given).__name__} is divided out; use NoAnchor()"
        )
    return given


def from_unconstrained(density: LogPosterior, u: Float[np.ndarray, "*draw entry"]):
    """Coordinates z of a density from u = centre + scale·z, which all shards share."""
    c = density.coordinates
    return (u - np.asarray(c.centre)) / np.asarray(c.scale)


_SHARDS_DIFFER = (
    "the shards contradict each other, and the result describes none of them: fit parts of the "
    "data by themselves (frames, angles), or a model that changes where they do",
)


def side_by_side(shards: ShardDraws) -> Combined:
    """Draws of all shards next to each other, as many as one of them has: nothing is combined."""
    n_shards, n_draws, size = shards.draws.shape
    mixed = np.swapaxes(shards.draws, 0, 1).reshape(-1, size)
    kept = np.linspace(0, n_shards * n_draws - 1, n_draws).round().astype(int)
    log = ("the draws are those of all shards side by side, held at the fit: no posterior",)
    return Combined(mixed[kept], shards.numbers, (), log)


def _stacked(done: tuple[Outcome, ...], name: str) -> np.ndarray:
    """(shard · chain, draw, …) of a statistic."""
    return np.concatenate([np.asarray(one.result[name]) for one in done if one.result is not None])


def _posterior(
    density: LogPosterior,
    corrected: Corrected,
    done: tuple[Outcome, ...],
    fit: Fit | None,
    max_depth: int,
    notes: tuple[str, ...],
    timings: tuple[tuple[str, float], ...],
    key: Key[Array, ""],
    contradictions: tuple[str, ...],
) -> Posterior:
    theta = np.asarray(physical_draws(density, jnp.asarray(corrected.draws)[None]))
    per_angle = np.asarray(scaling_draws(density, jnp.asarray(theta), key))
    # Of the chains of the shards, in the coordinates z of the density, as after `sample`.
    stacked = {name: _stacked(done, name) for name in Draws._fields[1:]}
    position = from_unconstrained(density, _stacked(done, "draws"))
    stacked["gradient"] = stacked["gradient"] * np.asarray(density.coordinates.scale)
    results = [one.result for one in done if one.result is not None]
    rows = () if fit is None else fit.rows
    fitted = tuple((row.name, row.value, row.error_classical) for row in rows)
    found = shard_diagnostics(results, density.names, max_depth)
    return Posterior(
        theta=theta,
        per_angle=per_angle,
        draws=Draws(position, **stacked),
        density=density,
        metric=np.atleast_2d(np.cov(corrected.draws.T)),
        step_size=float(np.median([result["step_size"] for result in results])),
        diagnostics=contradicted(against_fit(found, theta, fitted), contradictions, _SHARDS_DIFFER),
        fitted=fitted,
        notes=(*notes, *about_independence(fit)),
        timings=timings,
        quoted=quoted_errors(fit),
    )


def _prepared(problem, priors, start, scaling, noise, correction):
    """The pairs, and what `prepare` makes of them: of data in a file, of some that stand in."""
    tiles = getattr(getattr(getattr(problem, "objective", problem), "term", None), "tiles", None)
    if not isinstance(tiles, StoredTiles):
        density, theta, fit, priors = prepare(problem, priors, start, scaling, noise)
        return pairs_of(density.term.tiles), density, theta, fit, priors
    if not isinstance(correction, NoCorrection):
        raise ModelError(
            f"{type(correction).__name__} evaluates the posterior of all data thousands of times, "
            "which would read their file as often; use NoCorrection(), or load the data"
        )
    pairs = pairs_of(tiles)
    points = stand_in(pairs)
    here = tiles_of_points(points, pairs.n_angles, layout_of_points(points, pairs.n_angles))
    density, theta, fit, priors = prepare(problem, priors, start, scaling, noise, here)
    return pairs, standing_for(density, pairs.n_pairs), theta, fit, priors


def consensus(
    problem: AnyObjective | Fit,
    priors: PriorSet | Mapping[str, AbstractPrior] | None = None,
    *,
    sampler: Nuts | None = None,
    start: AbstractStart | None = None,
    noise: AbstractNoise | None = None,
    scaling: AbstractScalingTreatment | None = None,
    sharding: AbstractSharding | None = None,
    size: AbstractShardSize | None = None,
    plan: AbstractPlan | None = None,
    anchor: AbstractAnchor | None = None,
    temper: AbstractTempering | None = None,
    combiner: AbstractCombiner | None = None,
    correction: AbstractCorrection | None = None,
    workers: AbstractWorkers | None = None,
    limits: Limits | None = None,
    folder: str | None = None,
    key: Key[Array, ""] | int = 0,
    callback: Callable[[Outcome], Any] | None = None,
) -> ConsensusPosterior:
    """Draws from the posterior of an objective, sampled in shards and combined.

    Shards begin at the fit of all data and are held near it by its covariance, which is divided out
    afterwards (`LaplaceAnchor`). They share unconstrained coordinates, in which each has the 1/K-th
    power of the prior and of the volume.

    **Arguments:**

    - `problem`, `priors`, `start`, `noise`, `key`: as in `sample`. Maps may stay in their file
        (`open_stored`): each shard then reads its own pairs, and the density of the result is an
        estimate from some of them.
    - `sampler`: of a full run; `plan` says what a shard makes of it, `PlanBySize()` by default.
    - `scaling`: `SampledScaling()` alone; shards would each marginalise a scaling of their own.
    - `sharding`: `AngleBalanced()` by default; `size`: `AutomaticSize()`.
    - `anchor`: keeps the chains of shards near the fit; `LaplaceAnchor()` by default, `NoAnchor()`
        for a start without fit, and for a combiner of several modes.
    - `temper`: power of the prior in a shard, `SharedPrior()` by default.
    - `combiner`: `RobustConsensus()` by default; `correction`: `NoCorrection()`.
    - `workers`: `Serial()` by default, `SpawnedProcesses()`, `DaskWorkers(…)`,
        `ExecutorWorkers(executor)`.
    - `limits`: times, retries, and how many shards may fail.
    - `folder`: finished shards are kept there, and read when the same run is made again.
    - `callback`: called with the `Outcome` of each shard.

    **Returns:** a `ConsensusPosterior`. Shards that differ by more than chance allows, and draws
    more than 5 standard deviations from the fit, have the status `contradictory`, and the findings
    name them; nothing is raised for it.

    **Raises:** `ModelError` for what cannot be sampled or sharded; `CheckpointError` for a folder
    that belongs to another problem; `FitError` when too many shards failed, with the reasons.
    """
    clock = time.perf_counter()
    if isinstance(scaling, MarginalisedScaling):
        raise ModelError(
            "in shards contrast and offset cannot be marginalised: every shard would have its own, "
            "and their marginal likelihoods have another product than that of all data; use "
            "SampledScaling(), or sample() on all data"
        )
    sampler = Nuts() if sampler is None else sampler
    start = LaplaceStart() if start is None else start
    limits = Limits() if limits is None else limits
    combiner = RobustConsensus() if combiner is None else combiner
    correction = NoCorrection() if correction is None else correction
    anchor = _anchor(anchor, start, combiner)
    key = key_of(key)
    pairs, density, theta, fit, priors = _prepared(
        problem, priors, start, scaling, noise, correction
    )
    laminar = isinstance(density.parameters.model, LaminarFlow)
    for_start, for_shards, for_chains, for_end = jax.random.split(key, 4)
    p = len(density.names)
    shards, notes = split_pairs(pairs, p, laminar, for_shards, sharding, size)
    k = shards.n_shards
    power = (SharedPrior() if temper is None else temper).power(k)
    of_size = PlanBySize() if plan is None else plan
    # One plan for all: shards are of one size, or their draws could not be combined one by one.
    made = of_size.of(int(np.median(shards.sizes)), p, sampler.warmup, sampler.draws)
    begun = start.begin(density, theta, fit, sampler.chains, for_start)
    pull = anchor.precision(np.asarray(begun.metric), k)
    begun = _shard_beginning(begun, k, pull)
    whole = begun.density
    work = ShardWork(
        density=without_data(whole),
        pairs=pairs,
        shards=shards,
        layout=layout_of(shards),
        power=power,
        positions=begun.positions,
        metric=begun.metric,
        anchor=pull,
        step_size=float(begun.step_size),
        sampler=dataclasses.replace(sampler, warmup=made.warmup, draws=made.draws),
        target=sampler.target(density.parameters.model),
        key=np.asarray(jax.random.key_data(for_chains)),
        rhat=limits.rhat,
    )
    store = None
    if folder is not None:
        store = ShardStore(folder, _mark(work, priors, noise, anchor))
    prepared = time.perf_counter()
    workers = Serial() if workers is None else workers
    run = run_shards(work, shards.sizes.tolist(), workers, limits, store, callback)
    failures = accepted(run, limits)
    sampled = time.perf_counter()
    each = [one.result for one in run.done if one.result is not None]
    draws = shard_draws(
        np.stack([result["draws"].reshape(-1, p) for result in each]),
        density.names,
        np.array([np.min(result["ess_bulk"]) for result in each]),
        tuple(one.number for one in run.done),
    )
    sites = Site(*(np.stack([r[f"site_{name}"] for r in each]) for name in Site._fields))
    for_combiner, for_correction, for_scaling = jax.random.split(for_end, 3)
    no_maximum = ""
    try:
        draws, anchored = anchor.removed(draws, sites, whole.coordinates)
    except NoCommonMaximum as error:
        # The draws may have taken hours, and show where the shards are.
        no_maximum, anchored = str(error), ()
        combined, correction = side_by_side(draws), NoCorrection()
    else:
        combined = combiner(draws, for_combiner)
    z = from_unconstrained(whole, combined.draws)
    corrected = correction(z, whole, for_correction)
    physical = np.asarray(physical_draws(whole, from_unconstrained(whole, draws.draws)))
    comparison = compare_shards(physical, density.names, draws.numbers)
    contradictions = comparison.contradictions
    if no_maximum:
        named = contradictions or (widest(comparison, physical, draws.numbers),)
        contradictions = (*named, no_maximum)
    dropped = (*((one.number, one.reason) for one in run.dropped), *combined.dropped)
    how = (
        f"{made.warmup} transitions of warm-up and {made.draws} draws for each of "
        f"{sampler.chains} chains of a shard; prior to the power {power:.3g} in each"
    )
    notes = (begun.note, *priors.notes, *notes, how, *failures, *anchored, *combined.log)
    others = [text for text in comparison.findings if text not in comparison.contradictions]
    notes = (*notes, *corrected.notes, *others)
    combination = time.perf_counter() - sampled
    timings = (
        ("preparation", prepared - clock),
        ("sampling", sampled - prepared),
        ("combination", combination),
    )
    posterior = _posterior(
        whole,
        corrected,
        run.done,
        fit,
        sampler.max_depth,
        notes,
        timings,
        for_scaling,
        contradictions,
    )
    return ConsensusPosterior(
        posterior=posterior,
        shards=shards,
        subposteriors=draws,
        combined=combined,
        comparison=comparison,
        plan=made,
        dropped=tuple(sorted(dropped)),
        table=shard_table(run.outcomes, shards.sizes.tolist()),
        pareto_k=corrected.pareto_k,
    )


def _mark(
    work: ShardWork, priors: PriorSet, noise: AbstractNoise | None, anchor: AbstractAnchor
) -> str:
    """What makes a shard the same again: not the start, which a fit finds anew to rounding."""
    density = work.density
    return fingerprint(
        "shards of a posterior",
        (work.pairs, work.shards, work.power, work.sampler, work.target, work.key),
        (density.parameters, density.penalties, density.names, density.treatment),
        (density.term.scaling, density.term.t, density.term.geometry),
        (priors, noise, anchor),
    )
