"""From an objective or a fit to a posterior, in one run."""

import dataclasses
import operator
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ...arguments import checked
from ...checkpoint import fingerprint, understood
from ...errors import FitError, ModelError, how_to_install
from ...fitting import Fit, least_squares
from ...objective import AbstractTiles, ProjectedObjective
from ...objective.combined import is_likelihood, parts_of, with_terms
from ...scaling import AbstractScaling
from ..density.likelihood import AbstractNoise, AbstractScalingTreatment, SpecklePixels
from ..density.log_posterior import (
    Adjustment,
    LogPosterior,
    checked_objective,
    log_posterior,
    per_angle_draws,
    physical_draws,
)
from ..diagnostics import Diagnostics, diagnose_chains, why_unusable
from ..marginalised import beyond_ends, check_ends
from ..posterior import Posterior, posterior_of
from ..priors.families import AbstractPrior
from ..priors.prior_set import PriorSet, Samplable, default_priors
from ..progress import in_bars
from ..workers.base import ResultStore
from .chains import ChainSettings, Draws, Nuts, SamplingProgress
from .starts import AbstractStart, Beginning, LaplaceStart, recentred
from .widened import widened


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
    notes: tuple[str, ...] = ()


def prepare(
    problem: Samplable | Fit,
    priors: PriorSet | Mapping[str, AbstractPrior] | None,
    start: AbstractStart,
    scaling: AbstractScalingTreatment | None,
    noise: AbstractNoise | None,
    tiles: Sequence[AbstractTiles] | None = None,
    stretched: bool | None = None,
) -> Prepared:
    """The log posterior of a problem, fitted first where the start asks for it.

    `tiles`, of each data set, take the place of the data in the density, not in the fit;
    `stretched`: as in `sample`.

    **Raises:** `ModelError` for priors or data that cannot be sampled, or without BlackJAX; for
    marginalised scaling also when the fit is near an end of a prior of contrast or offset.
    """
    require_blackjax()
    fit = problem if isinstance(problem, Fit) else None
    objective = checked_objective(problem)
    if not isinstance(priors, PriorSet):
        priors = default_priors(objective).replaced(priors or {})
    whole = objective
    if tiles is not None:
        objective = with_terms(objective, tiles=tiles)
    # Before a fit, which takes longer: the same checks.
    here: dict[str, Any] = {"scaling": scaling, "noise": noise}
    if fit is None and start.wants_fit:
        log_posterior(objective, priors, **here)
        fit = least_squares(whole)
    if fit is None or not start.wants_fit:
        density, theta = log_posterior(objective, priors, **here)
        density, notes = widened(density, theta, fit, stretched)
        return Prepared(density, theta, fit, priors, notes)
    # Scaling coefficients of all data sets come first.
    parts = tuple(fit.parts.values())
    here["start"] = np.asarray(fit.values)[sum(one.index.scaling.stop for one in parts) :]
    columns = [[one.contrast, one.offset] for one in parts]
    if is_likelihood(whole):
        columns = [
            [*own, one.uncertainty.shot_noise] for own, one in zip(columns, parts, strict=True)
        ]
    here["scaling_start"] = [np.stack(own, axis=1) for own in columns]
    density, theta = log_posterior(objective, priors, **here)
    for one, own, found in zip(
        density.parts, density.local(jnp.asarray(theta)), parts, strict=True
    ):
        check_ends(one, np.asarray(own), found)
    density, notes = widened(density, theta, fit, stretched)
    return Prepared(density, theta, fit, priors, notes)


def with_scaling(fit: Fit, scaling: AbstractScaling | Sequence[AbstractScaling]) -> Fit:
    """The same data fitted again with another scaling, from where the fit ended.

    A posterior of one contrast and offset for all angles begins at
    `with_scaling(fit, Averaged(n_angles))`, one with both held at the fit at
    `with_scaling(fit, Fixed(fit.contrast, fit.offset))`; of several data sets a list has one for
    each. The start of the objective, on which default priors are centred, stays.

    **Raises:** `ModelError` for a fit with a robust loss, and what `least_squares` raises.
    """
    objective = rescaled(fit.objective, scaling)
    # Scaling coefficients come first.
    x = np.asarray(fit.values)[len(fit.names) - objective.physical.n_free :]
    return least_squares(objective, jnp.asarray(x))


def rescaled(
    objective: Samplable, scaling: AbstractScaling | Sequence[AbstractScaling]
) -> Samplable:
    """The objective with another scaling of its data set, or of each of several.

    **Raises:** `ModelError` for one with a robust loss, and for another number of scalings than
    there are data sets.
    """
    parts, given = parts_of(objective), [scaling] if isinstance(scaling, eqx.Module) else scaling
    for part in parts:
        if not isinstance(part, ProjectedObjective):
            raise ModelError(
                f"the scaling of a {type(part).__name__} cannot be replaced; make an objective "
                "with the linear loss and the scaling that is wanted"
            )
    if len(given) != len(parts):
        raise ModelError(
            f"there are {len(parts)} data sets and {len(given)} scalings; give one for each"
        )
    return with_terms(objective, scaling=given)


def problem_mark(density: LogPosterior, priors: PriorSet, noise: AbstractNoise | None) -> str:
    """What makes a problem the same again: not the start, which a fit finds anew to rounding."""
    parts = []
    for one in density.parts:
        treatment, scaling = one.treatment, one.term.scaling
        if isinstance(treatment, SpecklePixels):
            # Number of pixels and shot noise are of the fit.
            treatment, scaling = type(treatment).__name__, getattr(scaling, "inner")  # noqa: B009
        place = (one.term.t, one.term.geometry)
        parts.append((one.parameters, treatment, one.names, scaling, *place))
    how = (priors, noise, density.adjustment is not None)
    return fingerprint("a posterior", (density.penalties, density.names), parts, how)


class ChainRun(NamedTuple):
    """Draws of all chains, what the warm-up found, and the time both took [s]."""

    draws: Draws
    step_size: float
    metric: Float[np.ndarray, "entry entry"]
    warm_up: float
    sampling: float


def run_chains(
    density: Callable[..., Any],
    settings: ChainSettings,
    callback: Callable[[SamplingProgress], Any] | None = None,
    store: ResultStore | None = None,
) -> ChainRun:
    """Warm-up and draws of a log density, which is a Module.

    Pieces of the run that are in `store` are not made again, the others are written to it.

    **Raises:** `FitError` when the log density is not finite at a start.
    """
    nuts = require_blackjax()
    begun, sampler = time.perf_counter(), settings.sampler
    runner = nuts.Runner(density, settings, callback, store)
    chains = runner.begin(settings.positions)
    chains, step_size, metric = nuts.warm_up(
        runner, chains, sampler.warmup, settings.step_size, settings.metric
    )
    warmed = time.perf_counter()
    _, draws = runner.run(chains, 0, sampler.draws, sampler.draws, step_size, metric, False)
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
            f"sampling needs BlackJAX; install it with: {how_to_install('bayes')}"
        ) from error
    return nuts


# What is kept of a beginning besides the coordinates.
_BEGINNING = ("positions", "metric", "step_size")


def _kept(begun: Beginning, folder: str, mark: str) -> Beginning:
    """The beginning that an earlier run wrote into a folder, else this one, which is written there.

    A fit that is made again ends elsewhere by rounding, and the kept draws have the coordinates of
    the fit that they came from.
    """
    store = ResultStore(folder, mark, "start")
    here = {name: np.asarray(getattr(begun, name)) for name in _BEGINNING}
    coordinates, adjustment = begun.density.coordinates, begun.density.adjustment
    here |= {name: np.asarray(getattr(coordinates, name)) for name in ("centre", "scale")}
    if adjustment is not None:
        here |= {f"adjustment_{k}": np.asarray(v) for k, v in vars(adjustment).items()}
    found = store.load(0)
    if found is None:
        found = here
        store.save(0, found)
    with understood(store.path(0)):
        if any(found[name].shape != one.shape for name, one in here.items()):
            raise ValueError("it is the beginning of other chains")
    density = recentred(begun.density, found["centre"], found["scale"])
    if adjustment is not None:
        kept = Adjustment(found["adjustment_centre"], found["adjustment_matrix"])
        density = dataclasses.replace(density, adjustment=kept)
    return begun._replace(density=density, **{name: found[name] for name in _BEGINNING})


def _attempted(
    density: LogPosterior,
    first: ChainSettings,
    callback: Callable[[SamplingProgress], Any] | None,
    folder: str | None,
    mark: str,
) -> tuple[ChainRun, Float[np.ndarray, "chain draw entry"], Diagnostics, tuple[str, ...]]:
    """Run chains until they can be used, or there are no further attempts.

    The last run, its physical draws, their diagnostics, and what was said of those before.
    """
    notes: tuple[str, ...] = ()
    for attempt in range(first.sampler.retries + 1):
        now, last = first.eased(attempt), attempt == first.sampler.retries
        if attempt:
            now = now._replace(key=jax.random.fold_in(first.key, attempt))
        store = None
        if folder is not None:
            store = ResultStore(os.path.join(folder, f"attempt-{attempt}"), mark, "piece")
        try:
            run = run_chains(density, now, callback, store)
        except FitError as error:
            if last:
                raise
            notes += (f"attempt {attempt + 1} failed: {error}",)
            continue
        theta = np.asarray(physical_draws(density, run.draws.position))
        found = diagnose_chains(density.names, theta, run.draws, now.sampler.max_depth)
        reason = "" if last else why_unusable(found, theta)
        if not reason:
            return run, theta, found, notes
        notes += (f"attempt {attempt + 1} was set aside: {reason}",)
    raise AssertionError("the last attempt returns or raises")


@checked()
def sample(
    problem: Samplable | Fit,
    priors: PriorSet | Mapping[str, AbstractPrior] | None = None,
    *,
    sampler: Nuts | None = None,
    start: AbstractStart | None = None,
    scaling: AbstractScalingTreatment | None = None,
    noise: AbstractNoise | None = None,
    stretched: bool | None = None,
    folder: str | None = None,
    key: Key[Array, ""] | int = 0,
    callback: Callable[[SamplingProgress], Any] | None = None,
    progress: bool = False,
) -> Posterior:
    """Sample the posterior of a fit, of one data set or of several together, by NUTS.

    **Arguments:**

    - `problem`: an objective, which is fitted first where the start asks for it, or a fit; that of
        `maximum_likelihood` is sampled under the likelihood of speckle.
    - `priors`: a `PriorSet`, or single priors by name that replace the default ones; `contrast`
        and `offset` stand for those of every angle, `sigma` for that of the residuals. Of several
        data sets the names are those of the joint fit: `D0`, `alpha[hot]`, `contrast[0][hot]`.
    - `sampler`: number of chains and draws, target acceptance and the like.
    - `start`: `LaplaceStart()` (default), `PlainStart()` or `PathfinderStart()`.
    - `scaling`: `SampledScaling()` (default; all modes of scaling) or `MarginalisedScaling()`.
    - `noise`: `SampledSigma()` (default), or `GivenSigma()` (default for absolute sigma); one
        sigma for all data sets.
    - `stretched`: whether the likelihood is stretched about the fit until it is as wide as the
        quoted errors of that are large, the prior being left alone. By default where the noise is
        that of speckle: of a likelihood of speckle, and of least squares without a sigma whose
        quoted errors are larger than those of independent pairs.
    - `folder`: the draws are kept there as they come, a hundred at a time; when the same run is
        made again, for instance after an interrupt, it goes on where it was, with the same result.
    - `key`: key of `jax.random`, or a seed; the same key gives the same draws.
    - `callback`: sees the `SamplingProgress` every hundred draws.
    - `progress`: show bars of warm-up and draws.

    **Returns:** a `Posterior` with its diagnostics. Chains that have not converged are returned
    with that status, after `Nuts.retries` further attempts; nothing is raised for it.

    **Raises:** `ModelError` for priors, settings or data that cannot be sampled; `FitError` when
    the log density is not finite at the start; `CheckpointError` for a folder of another problem.
    """
    clock = time.perf_counter()
    sampler = Nuts() if sampler is None else sampler
    start = LaplaceStart() if start is None else start
    key = key_of(key)
    density, theta, fit, priors, stretching = prepare(
        problem, priors, start, scaling, noise, stretched=stretched
    )
    for_start, for_chains, for_scaling = jax.random.split(key, 3)
    begun = start.begin(density, theta, fit, sampler.chains, for_start)
    target = sampler.target(density.laminar)
    mark = ""
    if folder is not None:
        tiles = [part.term.tiles for part in density.parts]
        numbers = (tiles, sampler, target, start, np.asarray(jax.random.key_data(key)))
        mark = fingerprint("a run of all chains", numbers, problem_mark(density, priors, noise))
        begun = _kept(begun, folder, mark)
    density = begun.density
    prepared = time.perf_counter()
    places = (begun.positions, begun.step_size, begun.metric)
    first = ChainSettings(*places, target, sampler, for_chains)
    with in_bars(progress, callback) as seen:
        run, theta, found, attempts = _attempted(density, first, seen, folder, mark)
    per_angle = per_angle_draws(density, theta, for_scaling)
    each = zip(density.parts, per_angle, strict=True)
    remarks = [text for part, own in each for text in beyond_ends(part, own)]
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
        notes=(begun.note, *stretching, *priors.notes, *attempts, *remarks),
        timings=(
            ("preparation", prepared - clock),
            ("warm-up", run.warm_up),
            ("sampling", run.sampling),
        ),
    )
