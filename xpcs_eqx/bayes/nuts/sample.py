"""From an objective or a fit to a posterior."""

import dataclasses
import operator
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ...compiling import quick_jit
from ...errors import ModelError
from ...fitting import Fit, least_squares
from ...objective import AbstractTiles
from ...physics import LaminarFlow
from ..density.likelihood import AbstractNoise, AbstractScalingTreatment
from ..density.log_posterior import AnyObjective, LogPosterior, check_kind, log_posterior
from ..density.marginalised import beyond_ends, check_ends
from ..posterior import Posterior, posterior_of
from ..priors.base import AbstractPrior
from ..priors.prior_set import PriorSet, default_priors
from .chains import AbstractParallelChains, Draws, Progress, ThreadedChains
from .starts import AbstractStart, LaplaceStart


class Nuts(eqx.Module):
    """Settings of the No-U-Turn sampler.

    - `chains`, `warmup`, `draws`: number of chains, two or more, and of transitions of each.
    - `target_acceptance`: of the step size adaptation; by default 0.9 for laminar flow, else 0.85.
    - `max_depth`: doublings of a trajectory at most.
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

    def __check_init__(self):
        for name, least in (("chains", 2), ("warmup", 0), ("draws", 4), ("max_depth", 1)):
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


@quick_jit
def physical_draws(density: LogPosterior, positions):
    """Physical entries of positions (chain, draw, entry)."""
    return jax.vmap(jax.vmap(density.coordinates.to_physical))(positions)


@quick_jit
def scaling_draws(density: LogPosterior, theta, key):
    """(contrast, offset) of each angle for every draw, one after the other."""
    flat = theta.reshape(-1, theta.shape[-1])

    def one(entry):
        row, number = entry
        x, coefficients, sigma = density.split(row)
        table = density.table(x)
        return density.treatment.per_angle(
            density.term, table, coefficients, sigma, jax.random.fold_in(key, number)
        )

    found = jax.lax.map(one, (flat, np.arange(flat.shape[0])))
    return found.reshape(*theta.shape[:-1], *found.shape[1:])


class Prepared(NamedTuple):
    """A problem ready to be sampled: its density, a physical start, and what they came from."""

    density: LogPosterior
    theta: Float[np.ndarray, "entry"]
    fit: Fit | None
    priors: PriorSet


def prepare(
    problem: AnyObjective | Fit,
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
    if tiles is not None:
        objective = dataclasses.replace(
            objective, term=dataclasses.replace(objective.term, tiles=tiles)
        )
    # Before a fit, which takes longer: the same checks.
    here: dict[str, Any] = {"scaling": scaling, "noise": noise}
    if fit is None and start.wants_fit:
        log_posterior(objective, priors, **here)
        fit = least_squares(whole)
    if fit is not None and start.wants_fit:
        here["start"] = np.asarray(fit.values)[fit.index.physical]
        here["scaling_start"] = np.stack([fit.contrast, fit.offset], axis=1)
    density, theta = log_posterior(objective, priors, **here)
    if fit is not None and start.wants_fit:
        check_ends(density, theta, fit)
    return Prepared(density, theta, fit, priors)


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
    callback: Callable[[Progress], Any] | None = None,
) -> ChainRun:
    """Warm-up and draws of a log density, which is a Module.

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
        from . import nuts as nuts
    except ImportError as error:
        raise ModelError(
            "sampling needs BlackJAX; install it with: pip install 'xpcs-eqx[bayes]'"
        ) from error
    return nuts


def sample(
    problem: AnyObjective | Fit,
    priors: PriorSet | Mapping[str, AbstractPrior] | None = None,
    *,
    sampler: Nuts | None = None,
    start: AbstractStart | None = None,
    scaling: AbstractScalingTreatment | None = None,
    noise: AbstractNoise | None = None,
    key: Key[Array, ""] | int = 0,
    callback: Callable[[Progress], Any] | None = None,
) -> Posterior:
    """Draws from the posterior of an objective by NUTS.

    **Arguments:**

    - `problem`: an objective, which is fitted first where the start asks for it, or a `Fit`.
    - `priors`: a `PriorSet`, or single priors by name that replace the default ones; `contrast`
        and `offset` stand for those of every angle, `sigma` for that of the residuals.
    - `sampler`: number of chains and draws, target acceptance and the like.
    - `start`: `LaplaceStart()` (default), `PlainStart()` or `PathfinderStart()`.
    - `scaling`: `SampledScaling()` (default; all modes of scaling) or `MarginalisedScaling()`.
    - `noise`: `SampledSigma()` (default), or `GivenSigma()` (default for absolute sigma).
    - `key`: key of `jax.random`, or a seed; the same key gives the same draws.
    - `callback`: sees the `Progress` every hundred draws.

    **Returns:** a `Posterior` with its diagnostics. Chains that have not converged are returned
    with that status; nothing is raised for it.

    **Raises:** `ModelError` for priors, settings or data that cannot be sampled; `FitError` when
    the log density is not finite at the start.
    """
    clock = time.perf_counter()
    sampler = Nuts() if sampler is None else sampler
    start = LaplaceStart() if start is None else start
    key = key_of(key)
    density, theta, fit, priors = prepare(problem, priors, start, scaling, noise)
    for_start, for_chains, for_scaling = jax.random.split(key, 3)
    begun = start.begin(density, theta, fit, sampler.chains, for_start)
    prepared = time.perf_counter()
    run = run_chains(
        begun.density,
        begun.positions,
        begun.step_size,
        begun.metric,
        sampler.target(density.parameters.model),
        sampler,
        for_chains,
        callback,
    )
    theta = physical_draws(begun.density, run.draws.position)
    per_angle = scaling_draws(begun.density, theta, for_scaling)
    timings = (
        ("preparation", prepared - clock),
        ("warm-up", run.warm_up),
        ("sampling", run.sampling),
    )
    return posterior_of(
        begun.density,
        np.asarray(theta),
        np.asarray(per_angle),
        run.draws,
        step_size=run.step_size,
        metric=run.metric,
        fit=fit,
        max_depth=sampler.max_depth,
        notes=(begun.note, *priors.notes, *beyond_ends(begun.density, np.asarray(per_angle))),
        timings=timings,
    )
