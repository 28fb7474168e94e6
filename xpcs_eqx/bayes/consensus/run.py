"""Consensus Monte Carlo: from shards of the data to a posterior of all of them."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ...checkpoint import fingerprint
from ...errors import ModelError
from ...fitting import Fit
from ...objective import CombinedObjective, StoredTiles
from ...physics import LaminarFlow
from ..density.likelihood import AbstractNoise, AbstractScalingTreatment, MarginalisedScaling
from ..density.log_posterior import LogPosterior, physical_draws, scaling_draws
from ..diagnostics import diagnose_shards
from ..nuts.chains import Draws
from ..nuts.sample import Nuts, key_of, prepare, problem_mark
from ..nuts.starts import AbstractStart, Beginning, LaplaceStart
from ..posterior import Posterior, posterior_of
from ..priors.families import AbstractPrior
from ..priors.prior_set import OneDataSet, PriorSet
from ..workers.base import Outcome, accepted, run_shards
from ..workers.store import ResultStore
from .anchors import AbstractAnchor, LaplaceAnchor, NoAnchor, NoCommonMaximum, Site, between
from .combiners import AbstractCombiner, Combined, ShardDraws, shard_draws
from .compare import ShardResults, compare_shards, shard_table, widest
from .correction import NoCorrection
from .pairs import pairs_of
from .settings import Consensus
from .shards import split_pairs
from .work import (
    ShardWork,
    layout_of,
    layout_of_points,
    stand_in,
    standing_for,
    tiles_of_points,
    without_data,
)


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


def side_by_side(shards: ShardDraws) -> Combined:
    """Draws of all shards next to each other, as many as one of them has: nothing is combined."""
    n_shards, n_draws, size = shards.draws.shape
    mixed = np.swapaxes(shards.draws, 0, 1).reshape(-1, size)
    kept = np.linspace(0, n_shards * n_draws - 1, n_draws).round().astype(int)
    log = ("the draws are those of all shards side by side, held at the fit: no posterior",)
    return Combined(mixed[kept], shards.numbers, (), log)


def _chains_of(density: LogPosterior, results: list[dict[str, np.ndarray]]) -> Draws:
    """Those of all shards, in the coordinates z of the density, as after `sample`."""
    every = {name: np.concatenate([one[name] for one in results]) for name in Draws._fields[1:]}
    u = np.concatenate([one["draws"] for one in results])
    every["gradient"] = every["gradient"] * np.asarray(density.coordinates.scale)
    return Draws(density.coordinates.from_unconstrained(u), **every)


def _prepared(problem, priors, start, scaling, noise, correction):
    """The pairs, and what `prepare` makes of them: of data in a file, of some that stand in."""
    objective = getattr(problem, "objective", problem)
    if isinstance(objective, CombinedObjective):
        raise ModelError(
            f"shards are of one data set, and these are {len(objective.parts)}: sample() takes "
            "them together in one run; or give one of the parts"
        )
    tiles = getattr(getattr(objective, "term", None), "tiles", None)
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
    problem: OneDataSet | Fit,
    priors: PriorSet | Mapping[str, AbstractPrior] | None = None,
    method: Consensus | None = None,
    *,
    sampler: Nuts | None = None,
    start: AbstractStart | None = None,
    noise: AbstractNoise | None = None,
    scaling: AbstractScalingTreatment | None = None,
    folder: str | None = None,
    key: Key[Array, ""] | int = 0,
    callback: Callable[[Outcome], Any] | None = None,
) -> Posterior:
    """Draws from the posterior of an objective, sampled in shards and combined.

    Shards begin at the fit of all data and are held near it by its covariance, which is divided out
    afterwards (`LaplaceAnchor`). They share unconstrained coordinates, in which each has the 1/K-th
    power of the prior and of the volume.

    **Arguments:**

    - `problem`, `priors`, `start`, `noise`, `key`: as in `sample`, of one data set. Maps may stay
        in their file (`open_stored`): each shard then reads its own pairs, and the density of the
        result is an estimate from some of them.
    - `method`: all about the shards, `Consensus()` by default.
    - `sampler`: of a full run; `method` says what a shard makes of it.
    - `scaling`: `SampledScaling()` alone; shards would each marginalise a scaling of their own.
    - `folder`: finished shards are kept there, and read when the same run is made again.
    - `callback`: called with the `Outcome` of each shard.

    **Returns:** a `Posterior` whose `shards` tell what became of each. Shards that differ by more
    than chance allows, and draws more than 5 standard deviations from the fit, have the status
    `contradictory`, and the findings name them; nothing is raised for it.

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
    method = Consensus() if method is None else method
    sampler = Nuts() if sampler is None else sampler
    start = LaplaceStart() if start is None else start
    correction, limits = method.correction, method.limits
    anchor = _anchor(method.anchor, start, method.combiner)
    key = key_of(key)
    pairs, density, theta, fit, priors = _prepared(
        problem, priors, start, scaling, noise, correction
    )
    laminar = isinstance(density.parameters.model, LaminarFlow)
    for_start, for_shards, for_chains, for_end = jax.random.split(key, 4)
    p = len(density.names)
    shards, notes = split_pairs(pairs, p, laminar, for_shards, method.sharding, method.size)
    k = shards.n_shards
    power = method.prior_power(k)
    # One plan for all: shards are of one size, or their draws could not be combined one by one.
    plan = method.plan(int(np.median(shards.sizes)), p, sampler.warmup, sampler.draws)
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
        sampler=dataclasses.replace(sampler, warmup=plan.warmup, draws=plan.draws),
        target=sampler.target(density.parameters.model),
        key=np.asarray(jax.random.key_data(for_chains)),
        rhat=limits.rhat,
    )
    store = None
    if folder is not None:
        mark = fingerprint(
            "shards of a posterior",
            (work.pairs, work.shards, work.power, work.sampler, work.target, work.key, anchor),
            problem_mark(work.density, priors, noise),
        )
        store = ResultStore(folder, mark)
    prepared = time.perf_counter()
    run = run_shards(work, shards.sizes.tolist(), method.workers, limits, store, callback)
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
        combined = method.combiner(draws, for_combiner)
    corrected = correction(
        whole.coordinates.from_unconstrained(combined.draws), whole, for_correction
    )
    theta = np.asarray(physical_draws(whole, jnp.asarray(corrected.draws)[None]))
    physical = np.asarray(physical_draws(whole, whole.coordinates.from_unconstrained(draws.draws)))
    comparison = compare_shards(physical, density.names, draws.numbers)
    contradictions = comparison.contradictions
    if no_maximum:
        named = contradictions or (widest(comparison, physical, draws.numbers),)
        contradictions = (*named, no_maximum)
    dropped = (*((one.number, one.reason) for one in run.dropped), *combined.dropped)
    how = (
        f"{plan.warmup} transitions of warm-up and {plan.draws} draws for each of "
        f"{sampler.chains} chains of a shard; prior to the power {power:.3g} in each"
    )
    notes = (begun.note, *priors.notes, *notes, how, *failures, *anchored, *combined.log)
    others = [text for text in comparison.findings if text not in comparison.contradictions]
    return posterior_of(
        whole,
        theta,
        np.asarray(scaling_draws(whole, jnp.asarray(theta), for_scaling)),
        _chains_of(whole, each),
        step_size=float(np.median([result["step_size"] for result in each])),
        metric=np.atleast_2d(np.cov(corrected.draws.T)),
        fit=fit,
        diagnostics=diagnose_shards(each, density.names, sampler.max_depth),
        notes=(*notes, *corrected.notes, *others),
        timings=(
            ("preparation", prepared - clock),
            ("sampling", sampled - prepared),
            ("combination", time.perf_counter() - sampled),
        ),
        shards=ShardResults(
            division=shards,
            draws=draws,
            combined=combined,
            comparison=comparison,
            plan=plan,
            dropped=tuple(sorted(dropped)),
            table=shard_table(run.outcomes, shards.sizes.tolist()),
            pareto_k=corrected.pareto_k,
        ),
        contradictions=contradictions,
    )
