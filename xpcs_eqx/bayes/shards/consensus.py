"""Consensus Monte Carlo: from shards of the data to a posterior of all of them; and when."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ...arguments import Share, Whole, check_fields, checked
from ...checkpoint import fingerprint
from ...errors import ModelError
from ...fitting import Fit
from ...objective import StoredTiles
from ...objective.combined import is_likelihood, parts_of
from ...search.pairs import count_pairs
from ..density.likelihood import AbstractNoise, AbstractScalingTreatment, MarginalisedScaling
from ..density.log_posterior import (
    LogPosterior,
    checked_objective,
    local_draws,
    per_angle_draws,
    physical_draws,
)
from ..diagnostics import Diagnostics, contradicted, diagnose_chains, diagnose_shards
from ..nuts.chains import ChainSettings, Draws, Nuts
from ..nuts.sample import key_of, prepare, problem_mark, sample
from ..nuts.starts import AbstractStart, Beginning, LaplaceStart
from ..posterior import Posterior, draws_of_shards, posterior_of
from ..priors.families import AbstractPrior
from ..priors.prior_set import PriorSet, Samplable
from ..progress import in_bars
from ..workers.base import (
    AbstractWorkers,
    Limits,
    Outcome,
    ResultStore,
    Serial,
    accepted,
    run_shards,
)
from .anchors import AbstractAnchor, LaplaceAnchor, NoAnchor, NoCommonMaximum, Site, between
from .combiners import AbstractCombiner, Combined, RobustConsensus, ShardDraws, shard_draws
from .compare import ShardResults, compare_shards, shard_table, too_narrow, widest
from .correction import ImportanceCorrection
from .division import (
    AbstractSharding,
    AbstractShardSize,
    AngleBalanced,
    AutomaticSize,
    Plan,
    pairs_of_all,
    split_pairs,
)
from .work import ShardWork, layout_of, stand_in, standing_for, without_data

THRESHOLD = 500_000
# Pairs of a shard that gets the transitions of a full run.
_FULL_SIZE = 10_000
_SHARPENED = (
    "the posterior is bent by more than its own width, and shards held at the fit combine to one "
    'that is too narrow: sample all data in one run, or take correction = "importance"',
)


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
    - `combiner`: from draws of shards to those of all data; `correction`: what is done to these.
    - `workers`: who samples the shards: `Serial()`, `SpawnedProcesses()`, `DaskWorkers(…)` or
        `ExecutorWorkers(executor)`; `limits`: times, retries, and how many shards may fail.

    **Raises:** `ModelError` for settings that cannot be.
    """

    threshold: Whole | None = eqx.field(static=True, default=THRESHOLD)
    sharding: AbstractSharding = AngleBalanced()
    size: AbstractShardSize = AutomaticSize()
    by_size: bool = eqx.field(static=True, default=True)
    power: Share | None = eqx.field(static=True, default=None)
    anchor: AbstractAnchor | None = None
    combiner: AbstractCombiner = RobustConsensus()
    correction: ImportanceCorrection | None = None
    workers: AbstractWorkers = Serial()
    limits: Limits = Limits()

    __check_init__ = check_fields

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


def _of_parts(
    density: LogPosterior, results: list[dict[str, np.ndarray]], max_depth: int
) -> list[Diagnostics]:
    """Convergence of the chains of all shards by the entries of each of several data sets."""
    found: list[list[dict[str, Any]]] = [[] for _ in density.labels]
    for one in results if found else ():
        draws = _chains_of(density, [one])
        own = local_draws(density, physical_draws(density, draws.position))
        for part, theta, every in zip(density.parts, own, found, strict=True):
            of_part = diagnose_chains(part.names, np.asarray(theta), draws, max_depth)
            every.append({**one, **of_part._asdict()})
    each = zip(found, density.parts, strict=False)
    return [diagnose_shards(every, part.names, max_depth) for every, part in each]


def _prepared(problem, priors, start, scaling, noise, stretched, correction):
    """The pairs, and what `prepare` makes of them: of data in a file, of some that stand in."""
    objective = checked_objective(problem)
    if is_likelihood(objective):
        raise ModelError(
            "in shards pairs are apart that the likelihood of speckle needs together; sample() it, "
            "or the fit by least squares"
        )
    if not any(isinstance(one.term.tiles, StoredTiles) for one in parts_of(objective)):
        found = prepare(problem, priors, start, scaling, noise, stretched=stretched)
        return pairs_of_all(objective), found
    if correction is not None:
        raise ModelError(
            f"{type(correction).__name__} evaluates the posterior of all data thousands of times, "
            "which would read their file as often; leave correction out, or load the data"
        )
    pairs = pairs_of_all(objective)
    here = stand_in(pairs)
    found = prepare(problem, priors, start, scaling, noise, here, stretched)
    return pairs, found._replace(density=standing_for(found.density, pairs))


@checked()
def consensus(
    problem: Samplable | Fit,
    priors: PriorSet | Mapping[str, AbstractPrior] | None = None,
    method: Consensus | None = None,
    *,
    sampler: Nuts | None = None,
    start: AbstractStart | None = None,
    noise: AbstractNoise | None = None,
    scaling: AbstractScalingTreatment | None = None,
    stretched: bool | None = None,
    folder: str | None = None,
    key: Key[Array, ""] | int = 0,
    callback: Callable[[Outcome], Any] | None = None,
    progress: bool = False,
) -> Posterior:
    """Draws from the posterior of an objective, sampled in shards and combined.

    Shards begin at the fit of all data and are held near it by its covariance, which is divided out
    afterwards (`LaplaceAnchor`). They share unconstrained coordinates, in which each has the 1/K-th
    power of the prior and of the volume.

    **Arguments:**

    - `problem`, `priors`, `start`, `noise`, `stretched`, `key`: as in `sample`. A shard has pairs
        of all angles of all data sets, as `method` deals them out. Maps may stay in their file
        (`open_stored`): each shard then reads its own pairs, and the density of the result is an
        estimate from some of them.
    - `method`: all about the shards, `Consensus()` by default.
    - `sampler`: of a full run; `method` says what a shard makes of it.
    - `scaling`: `SampledScaling()` alone; shards would each marginalise a scaling of their own.
    - `folder`: finished shards are kept there, and read when the same run is made again.
    - `callback`: called with the `Outcome` of each shard.
    - `progress`: show a bar of the finished shards.

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
    limits = method.limits
    anchor = _anchor(method.anchor, start, method.combiner)
    key = key_of(key)
    pairs, (density, theta, fit, priors, stretching) = _prepared(
        problem, priors, start, scaling, noise, stretched, method.correction
    )
    for_start, for_shards, for_chains, for_end = jax.random.split(key, 4)
    p = len(density.names)
    shards, notes = split_pairs(pairs, p, density.laminar, for_shards, method.sharding, method.size)
    k = shards.n_shards
    power = method.prior_power(k)
    # One plan for all: shards are of one size, or their draws could not be combined one by one.
    plan = method.plan(int(np.median(shards.sizes)), p, sampler.warmup, sampler.draws)
    begun = start.begin(density, theta, fit, sampler.chains, for_start)
    metric = np.asarray(begun.metric)
    pull = anchor.precision(metric, k)
    begun = _shard_beginning(begun, k, pull)
    whole = begun.density
    chains = ChainSettings(
        positions=begun.positions,
        step_size=float(begun.step_size),
        metric=begun.metric,
        target=sampler.target(density.laminar),
        sampler=dataclasses.replace(sampler, warmup=plan.warmup, draws=plan.draws),
        key=np.asarray(jax.random.key_data(for_chains)),  # pyright: ignore[reportArgumentType]
    )
    layout = layout_of(shards.by_angle, [part.n_angles for part in pairs.parts])
    template = without_data(whole)
    work = ShardWork(template, pairs, shards, layout, power, pull, chains, limits.rhat)
    store = None
    if folder is not None:
        mark = fingerprint(
            "shards of a posterior",
            (pairs, shards, power, chains.sampler, chains.target, chains.key, anchor),
            problem_mark(template, priors, noise),
        )
        store = ResultStore(folder, mark)
    prepared = time.perf_counter()
    with in_bars(progress, callback, k) as seen:
        run = run_shards(work, shards.sizes.tolist(), method.workers, limits, store, seen)
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
    no_maximum, held = "", draws
    try:
        draws, anchored = anchor.removed(draws, sites, whole.coordinates)
    except NoCommonMaximum as error:
        # The draws may have taken hours, and show where the shards are.
        no_maximum, anchored = str(error), ()
        combined = side_by_side(draws)
    else:
        combined = method.combiner(draws, for_combiner)
    z = whole.coordinates.from_unconstrained(combined.draws)
    pareto_k, corrections = float("nan"), ()
    if method.correction is not None and not no_maximum:
        z, pareto_k, _, corrections = method.correction(z, whole, for_correction)
    theta = np.asarray(physical_draws(whole, jnp.asarray(z)[None]))
    physical = draws_of_shards(whole, draws)
    comparison = compare_shards(physical, density.names, draws.numbers)
    contradictions = comparison.contradictions
    if no_maximum:
        named = contradictions or (widest(comparison, physical, draws.numbers),)
        contradictions = (*named, no_maximum)
    narrow = ()
    if np.any(pull) and not no_maximum:
        about = np.random.default_rng(0).multivariate_normal(np.zeros(p), metric, size=2000)
        about = np.asarray(physical_draws(whole, jnp.asarray(about)[None]))[0]
        narrow = too_narrow(
            theta.reshape(-1, p), draws_of_shards(whole, held), about, density.names
        )
    dropped = (*((one.number, one.reason) for one in run.dropped), *combined.dropped)
    how = (
        f"{plan.warmup} transitions of warm-up and {plan.draws} draws for each of "
        f"{sampler.chains} chains of a shard; prior to the power {power:.3g} in each"
    )
    notes = (
        begun.note,
        *stretching,
        *priors.notes,
        *notes,
        how,
        *failures,
        *anchored,
        *combined.log,
    )
    others = [text for text in comparison.findings if text not in comparison.contradictions]
    return posterior_of(
        whole,
        theta,
        np.concatenate(per_angle_draws(whole, jnp.asarray(theta), for_scaling), axis=2),
        _chains_of(whole, each),
        step_size=float(np.median([result["step_size"] for result in each])),
        metric=np.atleast_2d(np.cov(z.T)),
        fit=fit,
        diagnostics=contradicted(
            diagnose_shards(each, density.names, sampler.max_depth), narrow, _SHARPENED
        ),
        of_parts=_of_parts(whole, each, sampler.max_depth),
        notes=(*notes, *corrections, *others),
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
            pareto_k=pareto_k,
        ),
        contradictions=contradictions,
    )


@checked()
def infer(
    problem: Samplable | Fit,
    priors: PriorSet | Mapping[str, AbstractPrior] | None = None,
    method: Consensus | None = None,
    **settings: Any,
) -> Posterior:
    """Draws from the posterior of an objective, by `sample` or by `consensus`.

    **Arguments:**

    - `problem`, `priors`: as in `sample`.
    - `method`: above how many pairs shards are sampled, by default 500 000, and how.
    - `settings`: the keywords of both, `sampler`, `start`, `scaling`, `noise`, `stretched`,
        `folder`, `key`, `progress` and `callback`, which sees the `SamplingProgress` of one run,
        or the `Outcome` of each shard.

    **Raises:** what `sample` and `consensus` raise.
    """
    objective = checked_objective(problem)
    method = Consensus() if method is None else method
    n_pairs = problem.n_pairs if isinstance(problem, Fit) else count_pairs(objective)
    if is_likelihood(objective) or not method.in_shards(n_pairs):
        return sample(problem, priors, **settings)
    return consensus(problem, priors, method, **settings)
