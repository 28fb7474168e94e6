"""The log density a sampler sees, of one data set or of several."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ...compiling import quick_jit
from ...errors import FitError, ModelError
from ...objective import (
    AbstractPenalty,
    AbstractTiles,
    CombinedObjective,
    JointObjective,
    Linear,
    ProjectedObjective,
    SpeckleLikelihood,
    TwoTimeTerm,
    refuse_bins,
)
from ...objective.combined import is_likelihood, parts_of
from ...objective.kernel.frame_table import frame_table
from ...objective.penalties import penalty_squares
from ...objective.two_time import loss_of
from ...parameters import ParameterMap, SharedParameters, parameter_values
from ...parameters.parameter_map import plain_parameters
from ...physics import LaminarFlow
from ...search.pairs import count_pairs
from ..priors.families import AbstractPrior, Number, stacked
from ..priors.prior_set import OneDataSet, PriorSet, Samplable, default_priors
from .coordinates import Coordinates, coordinates_for
from .likelihood import (
    AbstractNoise,
    AbstractScalingTreatment,
    DataLikelihood,
    GivenSigma,
    MarginalisedScaling,
    SampledScaling,
    SampledSigma,
    SpecklePixels,
    residual_scale,
)


class Adjustment(eqx.Module):
    """Where a likelihood is asked for: at û + C (u − û) instead of the coordinates u.

    With CᵀHC the inverse of the covariance of an estimate and H the curvature of −ln likelihood at
    û, both in u, a likelihood that takes as independent what is not becomes as wide as it should
    be, with the shape that it has (Chandler and Bate, Biometrika 94, 167 (2007)).

    - `centre`: û; `matrix`: C.
    """

    centre: Float[Array | np.ndarray, "entry"]
    matrix: Float[Array | np.ndarray, "entry entry"]

    def __call__(self, u: Float[Array, "entry"]) -> Float[Array, "entry"]:
        """û + C (u − û)."""
        centre = jnp.asarray(self.centre)
        return centre + self.matrix @ (u - centre)


class JointLikelihood(eqx.Module):
    """ln p(all data | θ), the sum over data sets of ln p(data | entries of theirs).

    θ = (free parameters of the whole, sampled coefficients of each data set, sigma if sampled).

    - `shared`: which parameters belong to which data set; `parts`: each data set by itself.
    """

    shared: SharedParameters
    parts: tuple["LogPosterior", ...]

    @property
    def parameters(self) -> ParameterMap:
        """The free physical parameters of all data sets."""
        return self.shared.whole

    @property
    def noise(self) -> AbstractNoise:
        """What sigma is: the same for all data sets."""
        return self.parts[0].noise

    @property
    def n_pairs(self) -> Number:
        """Pairs of all data sets."""
        return sum(part.n_pairs for part in self.parts)

    def local(self, theta: Float[Array, "entry"]) -> tuple[Float[Array, "local"], ...]:
        """The entries of each data set."""
        sizes = [len(part.data.coefficients) for part in self.parts]
        x, *own, sigma = jnp.split(theta, np.cumsum([self.parameters.n_free, *sizes]))
        return tuple(
            jnp.concatenate([self.shared.local(k, x), mine, sigma]) for k, mine in enumerate(own)
        )

    def __call__(self, theta: Float[Array, "entry"]) -> Float[Array, ""]:
        """The log likelihood of all data."""
        each = zip(self.parts, self.local(theta), strict=True)
        return sum((part.log_likelihood(own) for part, own in each), start=jnp.zeros(()))


class LogPosterior(eqx.Module):
    """ln p(θ | data) + const as a function of unconstrained coordinates z.

    θ = (free parameters, sampled scaling coefficients, sigma if sampled), named by `names`; of
    several data sets the free parameters of all of them, then the coefficients of each in turn.
    Works under `jit`, `vmap` and `grad`; a gradient costs about what the value does. Derivatives
    are by z and by the numbers of priors; by the data they raise `ModelError`.

    - `adjustment`: how the likelihood is widened, in u = centre + scale·z; None where it is not.
    """

    likelihood: DataLikelihood | JointLikelihood
    penalties: tuple[AbstractPenalty, ...]
    priors: tuple[AbstractPrior, ...]
    coordinates: Coordinates
    names: tuple[str, ...] = eqx.field(static=True)
    adjustment: Adjustment | None = None

    @property
    def parameters(self) -> ParameterMap:
        """The free physical parameters."""
        return self.likelihood.parameters

    @property
    def noise(self) -> AbstractNoise:
        """What sigma is."""
        return self.likelihood.noise

    @property
    def n_pairs(self) -> Number:
        """Number of pairs with a weight."""
        return self.likelihood.n_pairs

    @property
    def parts(self) -> tuple["LogPosterior", ...]:
        """The density of each data set by itself, with its own names; of one data set, this."""
        if isinstance(self.likelihood, JointLikelihood):
            return self.likelihood.parts
        return (self,)

    @property
    def laminar(self) -> bool:
        """Whether the model of a data set has flow."""
        return any(isinstance(part.parameters.model, LaminarFlow) for part in self.parts)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the data sets, where there are several."""
        if isinstance(self.likelihood, JointLikelihood):
            return self.likelihood.shared.labels
        return ()

    @property
    def data(self) -> DataLikelihood:
        """The likelihood of the only data set.

        **Raises:** `ModelError` where there are several.
        """
        if isinstance(self.likelihood, JointLikelihood):
            raise ModelError(
                f"this density is of several data sets ({', '.join(self.labels)}), each with maps, "
                "contrast and offset of its own; take one of its parts"
            )
        return self.likelihood

    @property
    def term(self) -> TwoTimeTerm:
        """The data and what belongs to them."""
        return self.data.term

    @property
    def treatment(self) -> AbstractScalingTreatment:
        """What becomes of contrast and offset."""
        return self.data.treatment

    def local(self, theta: Float[Array, "entry"]) -> tuple[Float[Array, "local"], ...]:
        """The entries of each data set."""
        if isinstance(self.likelihood, JointLikelihood):
            return self.likelihood.local(theta)
        return (theta,)

    def with_data(self, tiles: Sequence[AbstractTiles], n_pairs: Sequence[float]) -> "LogPosterior":
        """The same density of other data of the same angles and frames, of each data set."""
        likelihood = self.likelihood
        if isinstance(likelihood, JointLikelihood):
            each = zip(likelihood.parts, tiles, n_pairs, strict=True)
            parts = tuple(part.with_data([own], [count]) for part, own, count in each)
            return dataclasses.replace(
                self, likelihood=dataclasses.replace(likelihood, parts=parts)
            )
        term = dataclasses.replace(self.term, tiles=tiles[0])
        data = dataclasses.replace(likelihood, term=term, n_pairs=np.asarray(float(n_pairs[0])))
        return dataclasses.replace(self, likelihood=data)

    def log_likelihood(self, theta: Float[Array, "entry"]) -> Float[Array, ""]:
        """ln p(data | θ), adjusted where it is, the marginalised coefficients integrated out."""
        if self.adjustment is None:
            return self.likelihood(theta)
        return self.likelihood_at(self.coordinates.from_physical(theta))

    def likelihood_at(self, z: Float[Array, "entry"]) -> Float[Array, ""]:
        """`log_likelihood` of the θ that has the coordinates z."""
        coordinates = self.coordinates
        if self.adjustment is not None:
            z = coordinates.standardised(self.adjustment(coordinates.unconstrained(z)))
        return self.likelihood(coordinates.to_physical(z))

    def log_prior(self, theta: Float[Array, "entry"]) -> Float[Array, ""]:
        """ln p(θ), every entry once, the penalties of the objective included as −½‖residuals‖²."""
        total = jnp.zeros(())
        for where, prior in stacked(self.priors):
            total += jnp.sum(prior.log_density(theta[np.asarray(where)]))
        if self.penalties:
            values = parameter_values(self.parameters.build(theta[: self.parameters.n_free]))
            total -= 0.5 * penalty_squares(self.penalties, values)
        return total

    def __call__(self, z: Float[Array, "entry"]) -> Float[Array, ""]:
        """The log density of z, whose gradient is exact; −∞ where the model has no value."""
        theta = self.coordinates.to_physical(z)
        value = self.likelihood_at(z) + self.log_prior(theta) + self.coordinates.log_det(z)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)


def checked_objective(problem: object) -> Any:
    """The objective of a fit, or what is one, after refusing what is none of two-time maps.

    **Raises:** `ModelError` with what can be sampled instead.
    """
    objective = getattr(problem, "objective", problem)
    known = ProjectedObjective | JointObjective | SpeckleLikelihood | CombinedObjective
    if not isinstance(objective, known):
        raise ModelError(
            f"{type(objective).__name__} cannot be sampled; give an objective from "
            "two_time_objective or projected_objective, or its fit"
        )
    return objective


def _checked(objective: OneDataSet) -> TwoTimeTerm:
    checked_objective(objective)
    if not isinstance(objective.term.tiles, AbstractTiles):
        raise ModelError(
            "these data are read from their file piece by piece, which a sampler would do "
            "thousands of times; load them into memory, sample a selection of them, or use "
            "consensus(), whose shards read their own part of maps in a file"
        )
    refuse_bins(objective.term.tiles, "a posterior")
    if not isinstance(loss_of(objective), Linear):
        raise ModelError(
            f"the likelihood is Gaussian, which the loss {type(loss_of(objective)).__name__} of "
            "this objective is not; make the objective with the linear loss"
        )
    if objective.scaling_penalties:
        raise ModelError(
            "penalties on contrast and offset are no part of a posterior; give priors for the "
            "scaling coefficients instead, and an objective without scaling_penalties"
        )
    return objective.term


def log_posterior(
    objective: Samplable,
    priors: PriorSet | Mapping[str, AbstractPrior] | None = None,
    *,
    start: Float[np.ndarray, "free"] | None = None,
    scaling_start: Sequence[Float[np.ndarray, "angle 2"]] | None = None,
    scaling: AbstractScalingTreatment | None = None,
    noise: AbstractNoise | None = None,
) -> tuple[LogPosterior, Float[np.ndarray, "entry"]]:
    """The log posterior of an objective and a physical start of all its entries.

    **Arguments:**

    - `priors`: all of them, or single ones by name instead of those of `default_priors(objective)`.
    - `start`: free parameters; by default those of the objective. `scaling_start`: (contrast,
        offset), and shot noise for a likelihood of speckle, by angle of each data set; by default
        those the objective was made with.
    - `scaling`: `SampledScaling()` (default) or `MarginalisedScaling()`.
    - `noise`: `GivenSigma(1)` for data with absolute sigma, else `SampledSigma()`; one sigma for
        all data sets. The likelihood of speckle knows its noise.

    **Raises:** `ModelError` for an objective with robust loss, penalties on the scaling or data in
    a file, for a start without a finite log density, and for a parameter without prior.
    """
    objective = checked_objective(objective)
    if not isinstance(priors, PriorSet):
        priors = default_priors(objective).replaced(priors or {})
    scaling = SampledScaling() if scaling is None else scaling
    parts = parts_of(objective)
    terms = [_checked(part) for part in parts]
    if is_likelihood(objective):
        _check_likelihood(scaling, noise)
        noise = GivenSigma()
    if noise is None:
        noise = GivenSigma() if all(one.absolute_sigma for one in terms) else SampledSigma()
    references = [one.reference for one in terms] if scaling_start is None else scaling_start
    if not isinstance(objective, CombinedObjective):
        return _of_one(objective, priors, start, references[0], scaling, noise)
    shared = objective.parameters
    x = np.asarray(shared.whole.start if start is None else start, float)
    made = []
    for k, part in enumerate(parts):
        local = np.asarray(shared.local(k, jnp.asarray(x)))
        own = _own_priors(objective, k, priors)
        made.append(_of_one(part, own, local, references[k], scaling, noise))
    names, theta = list(shared.whole.free_names), [x]
    for (part, own), label in zip(made, shared.labels, strict=True):
        coefficients = part.data.coefficients
        names += [f"{name}[{label}]" for name in coefficients]
        theta.append(own[part.parameters.n_free :][: len(coefficients)])
    scale = float(np.sqrt(np.mean([own[-1] ** 2 for _, own in made])))
    likelihood = JointLikelihood(shared, tuple(part for part, _ in made))
    entries = (names, np.concatenate(theta), scale)
    return _assembled(shared.whole, likelihood, objective.penalties, priors, *entries)


def _check_likelihood(scaling: AbstractScalingTreatment, noise: AbstractNoise | None) -> None:
    if isinstance(scaling, MarginalisedScaling):
        raise ModelError(
            "the likelihood of speckle is not Gaussian in contrast and offset, which cannot be "
            "marginalised; use SampledScaling()"
        )
    if isinstance(noise, SampledSigma) or (noise is not None and noise != GivenSigma()):
        raise ModelError(
            f"the likelihood of speckle knows its noise, and {type(noise).__name__}() is one more; "
            "leave noise out"
        )


def _of_one(
    objective: OneDataSet,
    priors: PriorSet,
    start: Float[np.ndarray, "free"] | None,
    reference: Float[Array | np.ndarray, "angle 2"],
    scaling: AbstractScalingTreatment,
    noise: AbstractNoise,
) -> tuple[LogPosterior, Float[np.ndarray, "entry"]]:
    """`log_posterior` of one data set."""
    term, parameters = objective.term, objective.term.parameters
    reference = jnp.asarray(np.asarray(reference, float))
    coefficients = np.asarray(term.scaling.from_per_angle(reference))
    reference = reference[..., :2]
    term = dataclasses.replace(term, parameters=plain_parameters(parameters), reference=reference)
    x = np.asarray(parameters.start if start is None else start, float)
    table = frame_table(term.parameters, jnp.asarray(x), term.t, term.geometry, False)
    found = residual_scale(term, table, term.scaling.per_angle(jnp.asarray(coefficients)))
    if not np.isfinite(found):
        raise FitError("the model is not finite at the start; give other start values")
    prepared = scaling.prepare(term.scaling, tuple(priors[name] for name in term.scaling.names))
    if isinstance(objective, SpeckleLikelihood):
        prepared = SpecklePixels(objective.blocks)
    n_pairs = np.asarray(float(count_pairs(objective)))
    likelihood = DataLikelihood(term, prepared, noise, n_pairs)
    sampled = likelihood.coefficients
    names, theta = [*parameters.free_names, *sampled], [*x, *coefficients[: len(sampled)]]
    return _assembled(parameters, likelihood, objective.penalties, priors, names, theta, found)


def _assembled(
    parameters: ParameterMap,
    likelihood: DataLikelihood | JointLikelihood,
    penalties: tuple[AbstractPenalty, ...],
    priors: PriorSet,
    names: list[str],
    theta: Sequence[float] | np.ndarray,
    scale: float,
) -> tuple[LogPosterior, Float[np.ndarray, "entry"]]:
    """A likelihood with priors and coordinates of its entries, to which sigma comes, if sampled.

    `scale`: of the residuals, robust; `parameters` say which coordinates power laws have.
    """
    chosen = [priors[name] for name in names]
    sigma_prior = likelihood.noise.prior(max(scale, 1e-12))
    if sigma_prior is not None:
        names, theta = [*names, "sigma"], [*theta, scale]
        chosen.append(priors.get("sigma", sigma_prior))
    coordinates, start = coordinates_for(parameters, tuple(chosen), np.asarray(theta, float))
    return LogPosterior(likelihood, penalties, tuple(chosen), coordinates, tuple(names)), start


def _own_priors(objective: CombinedObjective, k: int, given: PriorSet) -> PriorSet:
    """The priors of data set `k` by its own names.

    Of what follows from other parameters there is none: default ones stand for it.
    """
    parameters, part = objective.parameters, objective.parts[k]
    repeated, label = dict(parameters.repeated), parameters.labels[k]
    own = default_priors(part)
    names = {name: repeated.get(public, public) for name, public in parameters.public[k]}
    names |= {name: f"{name}[{label}]" for name in part.term.scaling.names}
    known = {n: given[names[n]] for n in own.names if names.get(n) in given.names}
    if "sigma" in given.names:
        known["sigma"] = given["sigma"]
    return own.replaced(known)


@quick_jit
def physical_draws(density: LogPosterior, positions):
    """Physical entries of positions (chain, draw, entry)."""
    return jax.vmap(jax.vmap(density.coordinates.to_physical))(positions)


@quick_jit
def local_draws(density: LogPosterior, theta):
    """The entries of each data set of draws (chain, draw, entry)."""
    return jax.vmap(jax.vmap(density.local))(theta)


def per_angle_draws(
    density: LogPosterior,
    theta: Float[Array | np.ndarray, "chain draw entry"],
    key: Key[Array, ""],
) -> list[Float[np.ndarray, "chain draw angle 2"]]:
    """(contrast, offset) of each angle of each data set for every draw."""
    found = []
    for k, (part, own) in enumerate(zip(density.parts, local_draws(density, theta), strict=True)):
        of_part = jax.random.fold_in(key, k) if density.labels else key
        found.append(np.asarray(scaling_draws(part, own, of_part)))
    return found


@quick_jit
def scaling_draws(density: LogPosterior, theta, key):
    """Those of one data set, one after the other."""
    flat = theta.reshape(-1, theta.shape[-1])

    def one(entry):
        row, number = entry
        x, coefficients, sigma = density.data.split(row)
        table = density.data.table(x)
        return density.treatment.per_angle(
            density.term, table, coefficients, sigma, jax.random.fold_in(key, number)
        )

    found = jax.lax.map(one, (flat, np.arange(flat.shape[0])))
    return found.reshape(*theta.shape[:-1], *found.shape[1:])
