"""From an objective or a fit to a posterior, in one run."""

import dataclasses
import operator
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ...checkpoint import fingerprint
from ...errors import FitError, ModelError
from ...fitting import Fit, least_squares
from ...objective import AbstractTiles, CombinedObjective
from ...physics import LaminarFlow
from ..density.likelihood import AbstractNoise, AbstractScalingTreatment
from ..density.log_posterior import (
    LogPosterior,
    check_kind,
    local_draws,
    log_posterior,
    physical_draws,
    scaling_draws,
)
from ..diagnostics import Diagnostics, diagnose_chains, why_unusable
from ..marginalised import beyond_ends, check_ends
from ..posterior import Posterior, posterior_of
from ..priors.families import AbstractPrior
from ..priors.prior_set import PriorSet, Samplable, default_priors
from ..workers.store import ResultStore
from .chains import AbstractParallelChains, Draws, SamplingProgress, ThreadedChains
from .starts import AbstractStart, Beginning, LaplaceStart, recentred


class Nuts(eqx.Module):
    """Settings of the No-U-Turn sampler.

    - `chains`, `warmup`, `draws`: number of chains, two or more, and of transitions of each.
    - `target_acceptance`: of the step size adaptation; by default 0.9 for laminar flow, else 0.85.
    - `max_depth`: doublings of a trajectory at most.
    - `retries`: further attempts of a run whose chains disagree, diverge or find no finite density:
        each with another key, half the step size and distance from the start, and a longer warm-up.
        What a shard is given in its place are `Limits.retries`.
    - `parallel`: how chains go side by side: `ThreadedChains()` (default), `LockStepChains()` or
        `ChainsOnDevices()`. The draws are the same but for rounding, which long runs amplify.

    **Raises:** `ModelError` for settings that cannot be.
    """

    chains: int = eqx.field(static=True, default=4)
    warmup: int = eqx.field(static=True, default=500)
    draws: int = eqx.field(static=True, default=1500)
    target_acceptance: float | None = eqx.field(static=True, default=None)
    max_depth: int = eqx.field(static=True, default=10)
    divergence_threshold: float = eqx.field(static=True, default=1000.0)
    parallel: AbstractParallelChains = ThreadedChains()
    retries: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        for name, least in (
            ("chains", 2),
            ("warmup", 0),
            ("draws", 4),
            ("max_depth", 1),
            ("retries", 0),
        ):
            value = getattr(self, name)
            if value < least:
                why = ": R-hat compares chains" if name == "chains" else ""
                raise ModelError(f"{name} = {value}; it must be at least {least}{why}")
        if self.target_acceptance is not None and not 0 < self.target_acceptance < 1:
            raise ModelError(
                f"target_acceptance = {self.target_acceptance}; it must be between 0 and 1"
            )
        self.parallel.check(self.chains)

    def target(self, model: Any) -> float:
        """The acceptance to aim at for a model."""
        if self.target_acceptance is not None:
            return self.target_acceptance
        return 0.9 if isinstance(model, LaminarFlow) else 0.85


def key_of(key: Key[Array, ""] | SupportsIndex) -> Key[Array, ""]:
    """A key of `jax.random` from itself or from a seed, an integer of any kind.

    **Raises:** `ModelError` for anything else.
    """
    if isinstance(key, jax.Array) and (key.ndim or not jnp.issubdtype(key.dtype, jnp.integer)):
        return key
    try:
        return jax.random.key(operator.index(key))  # pyright: ignore[reportArgumentType]
    except TypeError as error:
        raise ModelError(
            f"key = {key!r}; give a seed, which is an integer, or a key from jax.random.key(seed)"
        ) from error


class Prepared(NamedTuple):
    """A problem ready to be sampled: its density, a physical start, and what they came from."""

    density: LogPosterior
    theta: Float[np.ndarray, "entry"]
    fit: Fit | None
    priors: PriorSet


def prepare(
    problem: Samplable | Fit,
    priors: PriorSet | Mapping[str, AbstractPrior] | None,
    start: AbstractStart,
    scaling: AbstractScalingTreatment | None,
    noise: AbstractNoise | None,
    tiles: AbstractTiles | None = None,
) -> Prepared:
    """The log posterior of a problem, fitted first where the start asks for it.

    `tiles` take the place of the data in the density, not in the fit.

    **Raises:** `ModelError` for priors or data that cannot be sampled, or without BlackJAX; for
    marginalised scaling also when the fit is near an end of a prior of contrast or offset.
    """
    require_blackjax()
    fit = problem if isinstance(problem, Fit) else None
    objective = problem.objective if isinstance(problem, Fit) else problem
    check_kind(objective)
    if not isinstance(priors, PriorSet):
        priors = default_priors(objective).replaced(priors or {})
    whole = objective
    if tiles is not None and not isinstance(objective, CombinedObjective):
        objective = dataclasses.replace(
            objective, term=dataclasses.replace(objective.term, tiles=tiles)
        )
    # Before a fit, which takes longer: the same checks.
    here: dict[str, Any] = {"scaling": scaling, "noise": noise}
    if fit is None and start.wants_fit:
        log_posterior(objective, priors, **here)
        fit = least_squares(whole)
    if fit is None or not start.wants_fit:
        return Prepared(*log_posterior(objective, priors, **here), fit, priors)
    # Scaling coefficients of all data sets come first.
    parts = tuple(fit.parts.values())
    here["start"] = np.asarray(fit.values)[sum(one.index.scaling.stop for one in parts) :]
    here["scaling_start"] = [np.stack([one.contrast, one.offset], axis=1) for one in parts]
    density, theta = log_posterior(objective, priors, **here)
    for one, own, found in zip(
        density.parts, density.local(jnp.asarray(theta)), parts, strict=True
    ):
        check_ends(one, np.asarray(own), found)
    return Prepared(density, theta, fit, priors)


def problem_mark(density: LogPosterior, priors: PriorSet, noise: AbstractNoise | None) -> str:
    """What makes a problem the same again: not the start, which a fit finds anew to rounding."""
    parts = [
        (one.parameters, one.treatment, one.names, one.term.scaling, one.term.t, one.term.geometry)
        for one in density.parts
    ]
    return fingerprint("a posterior", (density.penalties, density.names), parts, (priors, noise))


class ChainSettings(NamedTuple):
    """What the chains of an attempt are given."""

    positions: Float[np.ndarray, "chain entry"]
    step_size: float
    target: float
    sampler: Nuts
    key: Key[Array, ""]

    def eased(self, attempt: int) -> "ChainSettings":
        """The settings of a further attempt (1, 2, …), from those of the first; the key stays.

        Each time the step size, the distance of the chains from the start and that of the target
        acceptance from one are halved, and the warm-up is longer by as much as the first had.
        """
        easier = 2.0**-attempt
        warmup = self.sampler.warmup * (1 + attempt)
        return ChainSettings(
            self.positions * easier,
            self.step_size * easier,
            1 - (1 - self.target) * easier,
            dataclasses.replace(self.sampler, warmup=warmup),
            self.key,
        )


class ChainRun(NamedTuple):
    """Draws of all chains, what the warm-up found, and the time both took [s]."""

    draws: Draws
    step_size: float
    metric: Float[np.ndarray, "entry entry"]
    warm_up: float
    sampling: float


def run_chains(
    density: Callable[..., Any],
    positions: Float[np.ndarray, "chain entry"],
    step_size: float,
    metric: Float[np.ndarray, "entry entry"],
    target: float,
    sampler: Nuts,
    key: Key[Array, ""],
    callback: Callable[[SamplingProgress], Any] | None = None,
    store: ResultStore | None = None,
) -> ChainRun:
    """Warm-up and draws of a log density, which is a Module.

    Pieces of the run that are in `store` are not made again, the others are written to it.

    **Raises:** `FitError` when the log density is not finite at a start.
    """
    nuts = require_blackjax()
    begun = time.perf_counter()
    runner = nuts.Runner(
        density,
        key,
        sampler.chains,
        target,
        sampler.max_depth,
        sampler.divergence_threshold,
        sampler.parallel,
        callback,
        store,
    )
    groups = runner.begin(positions)
    groups, step_size, metric = nuts.warm_up(runner, groups, sampler.warmup, step_size, metric)
    warmed = time.perf_counter()
    total = sampler.draws
    _, draws = runner.run(groups, total, step_size, metric, False, "sampling", 0, total)
    return ChainRun(draws, step_size, metric, warmed - begun, time.perf_counter() - warmed)


def require_blackjax() -> Any:
    """The file that samples.

    **Raises:** `ModelError` without BlackJAX.
    """
    # Not at the top: BlackJAX is an extra, and slow to import.
    try:
        from . import nuts
    except ImportError as error:
        raise ModelError(
            "sampling needs BlackJAX; install it with: pip install 'xpcs-eqx[bayes]'"
        ) from error
    return nuts


def _kept(begun: Beginning, folder: str, mark: str) -> Beginning:
    """The beginning that an earlier run wrote into a folder, else this one, which is written there.

    A fit that is made again ends elsewhere by rounding, and the kept draws have the coordinates of
    the fit that they came from.
    """
    store = ResultStore(folder, mark, "start")
    found = store.load(0)
    coordinates = begun.density.coordinates
    if found is None:
        store.save(
            0,
            {
                "centre": np.asarray(coordinates.centre),
                "scale": np.asarray(coordinates.scale),
                "positions": np.asarray(begun.positions),
                "metric": np.asarray(begun.metric),
                "step_size": np.asarray(begun.step_size),
            },
        )
        return begun
    return begun._replace(
        density=recentred(begun.density, found["centre"], found["scale"]),
        positions=found["positions"],
        metric=found["metric"],
        step_size=float(found["step_size"]),
    )


class _Attempts(NamedTuple):
    """The last attempt at a run: its chains, their physical draws, and what was said before."""

    run: ChainRun
    theta: Float[np.ndarray, "chain draw entry"]
    diagnostics: Diagnostics
    notes: tuple[str, ...]


def _attempted(
    density: LogPosterior,
    metric: Float[np.ndarray, "entry entry"],
    first: ChainSettings,
    callback: Callable[[SamplingProgress], Any] | None,
    folder: str | None,
    mark: str,
) -> _Attempts:
    """Run chains until they can be used, or there are no further attempts."""
    notes: tuple[str, ...] = ()
    for attempt in range(first.sampler.retries + 1):
        now, last = first.eased(attempt), attempt == first.sampler.retries
        if attempt:
            now = now._replace(key=jax.random.fold_in(first.key, attempt))
        store = None
        if folder is not None:
            store = ResultStore(os.path.join(folder, f"attempt-{attempt}"), mark, "piece")
        settings = (now.positions, now.step_size, metric, now.target, now.sampler, now.key)
        try:
            run = run_chains(density, *settings, callback, store)
        except FitError as error:
            if last:
                raise
            notes += (f"attempt {attempt + 1} failed: {error}",)
            continue
        theta = np.asarray(physical_draws(density, run.draws.position))
        found = diagnose_chains(
            density.names,
            theta,
            np.asarray(run.draws.divergent),
            np.asarray(run.draws.energy),
            np.asarray(run.draws.depth),
            np.asarray(run.draws.acceptance),
            now.sampler.max_depth,
        )
        reason = "" if last else why_unusable(found, theta)
        if not reason:
            return _Attempts(run, theta, found, notes)
        notes += (f"attempt {attempt + 1} was set aside: {reason}",)
    raise AssertionError("the last attempt returns or raises")


def sample(
    problem: Samplable | Fit,
    priors: PriorSet | Mapping[str, AbstractPrior] | None = None,
    *,
    sampler: Nuts | None = None,
    start: AbstractStart | None = None,
    scaling: AbstractScalingTreatment | None = None,
    noise: AbstractNoise | None = None,
    folder: str | None = None,
    key: Key[Array, ""] | int = 0,
    callback: Callable[[SamplingProgress], Any] | None = None,
) -> Posterior:
    """Draws from the posterior of an objective by NUTS, of one data set or of several together.

    **Arguments:**

    - `problem`: an objective, which is fitted first where the start asks for it, or a fit.
    - `priors`: a `PriorSet`, or single priors by name that replace the default ones; `contrast`
        and `offset` stand for those of every angle, `sigma` for that of the residuals. Of several
        data sets the names are those of the joint fit: `D0`, `alpha[hot]`, `contrast[0][hot]`.
    - `sampler`: number of chains and draws, target acceptance and the like.
    - `start`: `LaplaceStart()` (default), `PlainStart()` or `PathfinderStart()`.
    - `scaling`: `SampledScaling()` (default; all modes of scaling) or `MarginalisedScaling()`.
    - `noise`: `SampledSigma()` (default), or `GivenSigma()` (default for absolute sigma); one
        sigma for all data sets.
    - `folder`: the draws are kept there as they come, a hundred at a time; when the same run is
        made again, for instance after an interrupt, it goes on where it was, with the same result.
    - `key`: key of `jax.random`, or a seed; the same key gives the same draws.
    - `callback`: sees the `SamplingProgress` every hundred draws.

    **Returns:** a `Posterior` with its diagnostics. Chains that have not converged are returned
    with that status, after `Nuts.retries` further attempts; nothing is raised for it.

    **Raises:** `ModelError` for priors, settings or data that cannot be sampled; `FitError` when
    the log density is not finite at the start; `CheckpointError` for a folder of another problem.
    """
    clock = time.perf_counter()
    sampler = Nuts() if sampler is None else sampler
    start = LaplaceStart() if start is None else start
    key = key_of(key)
    density, theta, fit, priors = prepare(problem, priors, start, scaling, noise)
    for_start, for_chains, for_scaling = jax.random.split(key, 3)
    begun = start.begin(density, theta, fit, sampler.chains, for_start)
    target = max(sampler.target(part.parameters.model) for part in density.parts)
    mark = ""
    if folder is not None:
        tiles = [part.term.tiles for part in density.parts]
        numbers = (tiles, sampler, target, start, np.asarray(jax.random.key_data(key)))
        mark = fingerprint("a run of chains", numbers, problem_mark(density, priors, noise))
        begun = _kept(begun, folder, mark)
    density = begun.density
    prepared = time.perf_counter()
    first = ChainSettings(begun.positions, begun.step_size, target, sampler, for_chains)
    run, theta, found, attempts = _attempted(density, begun.metric, first, callback, folder, mark)
    per_angle, remarks = [], []
    for k, (part, own) in enumerate(zip(density.parts, local_draws(density, theta), strict=True)):
        of_part = jax.random.fold_in(for_scaling, k) if density.labels else for_scaling
        per_angle.append(np.asarray(scaling_draws(part, own, of_part)))
        remarks += beyond_ends(part, per_angle[-1])
    return posterior_of(
        density,
        theta,
        np.concatenate(per_angle, axis=2),
        run.draws,
        step_size=run.step_size,
        metric=run.metric,
        fit=fit,
        max_depth=sampler.max_depth,
        diagnostics=found,
        notes=(begun.note, *priors.notes, *attempts, *remarks),
        timings=(
            ("preparation", prepared - clock),
            ("warm-up", run.warm_up),
            ("sampling", run.sampling),
        ),
    )
