"""The log density a sampler sees."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import FitError, ModelError
from ..objective import (
    AbstractPenalty,
    AbstractTiles,
    CombinedObjective,
    JointObjective,
    Linear,
    ProjectedObjective,
    TwoTimeTerm,
)
from ..objective.kernel.frame_table import FrameTable, frame_table
from ..objective.penalties import penalty_squares
from ..parameters import ParameterMap, parameter_values
from ..parameters.parameter_map import plain_parameters
from ..uncertainty import loss_of
from .abstract_prior import AbstractPrior, Number, stacked
from .coordinates import Coordinates, coordinates_for
from .likelihood import (
    AbstractNoise,
    AbstractScalingTreatment,
    GivenSigma,
    SampledScaling,
    SampledSigma,
    gaussian_norm,
    residual_scale,
)
from .prior_set import PriorSet, default_priors

AnyObjective = ProjectedObjective | JointObjective


class LogPosterior(eqx.Module):
    """ln p(θ | data) + const as a function of unconstrained coordinates z.

    θ = (free parameters, sampled scaling coefficients, sigma if sampled), named by `names`. Works
    under `jit`, `vmap` and `grad`; a gradient costs about what the value does. Derivatives are by z
    and by the numbers of priors; by the data they raise `ModelError`.
    """

    term: TwoTimeTerm
    penalties: tuple[AbstractPenalty, ...]
    priors: tuple[AbstractPrior, ...]
    coordinates: Coordinates
    treatment: AbstractScalingTreatment
    noise: AbstractNoise
    n_pairs: Number
    names: tuple[str, ...] = eqx.field(static=True)

    @property
    def parameters(self) -> ParameterMap:
        """The free physical parameters, which are their own coordinates here."""
        return self.term.parameters

    def split(self, theta: Float[Array, "entry"]):
        """Physical parameters, scaling coefficients, sigma."""
        p = self.parameters.n_free
        k = len(self.treatment.sampled_names(self.term.scaling))
        return theta[:p], theta[p : p + k], self.noise.sigma(theta[p + k :])

    def table(self, x: Float[Array, "free"]) -> FrameTable:
        """Features of the model at physical parameters."""
        return frame_table(self.parameters, x, self.term.t, self.term.geometry, False)

    def log_likelihood(self, theta: Float[Array, "entry"]) -> Float[Array, ""]:
        """ln p(data | θ), the marginalised coefficients integrated out."""
        x, coefficients, sigma = self.split(theta)
        chi2 = self.treatment.chi2(self.term, self.table(x), coefficients, sigma)
        return gaussian_norm(self.n_pairs, sigma) - 0.5 * chi2

    def log_prior(self, theta: Float[Array, "entry"]) -> Float[Array, ""]:
        """ln p(θ), the penalties of the objective included as −½‖residuals‖²."""
        total = jnp.zeros(())
        for where, prior in stacked(self.priors):
            total += jnp.sum(prior.log_density(theta[np.asarray(where)]))
        if self.penalties:
            values = parameter_values(self.parameters.build(self.split(theta)[0]))
            total -= 0.5 * penalty_squares(self.penalties, values)
        return total

    def __call__(self, z: Float[Array, "entry"]) -> Float[Array, ""]:
        """The log density of z, whose gradient is exact; −∞ where the model has no value."""
        theta = self.coordinates.to_physical(z)
        value = self.log_likelihood(theta) + self.log_prior(theta) + self.coordinates.log_det(z)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)


def check_kind(objective: object) -> None:
    """Refuse what is no objective of one data set.

    **Raises:** `ModelError` with what can be sampled instead.
    """
    if isinstance(objective, ProjectedObjective | JointObjective):
        return
    kind = type(objective).__name__
    if isinstance(objective, CombinedObjective):
        raise ModelError(
            f"{kind} has several data sets; use joint_sample(), or give one of its `parts` "
            "(shards are of one data set)"
        )
    raise ModelError(
        f"{kind} cannot be sampled; give an objective of one data set from projected_objective or "
        "two_time_objective, or its fit"
    )


def _checked(objective: AnyObjective) -> TwoTimeTerm:
    check_kind(objective)
    if not isinstance(objective.term.tiles, AbstractTiles):
        raise ModelError(
            "these data are read from their file piece by piece, which a sampler would do "
            "thousands of times; load them into memory, sample a selection of them, or use "
            "consensus(), whose shards read their own part of maps in a file"
        )
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


def count_pairs(tiles: AbstractTiles) -> float:
    """Number of pairs with a weight."""
    return float(_count(tiles))


@eqx.filter_jit
def _count(tiles):
    from jax.lax import scan

    def body(total, row):
        return total + jnp.sum(tiles.block(row).root_weights > 0), None

    return scan(body, jnp.zeros(()), jnp.asarray(tiles.table))[0]


def log_posterior(
    objective: AnyObjective,
    priors: PriorSet | None = None,
    *,
    start: Float[np.ndarray, "free"] | None = None,
    scaling_start: Float[np.ndarray, "angle 2"] | None = None,
    scaling: AbstractScalingTreatment | None = None,
    noise: AbstractNoise | None = None,
) -> tuple[LogPosterior, Float[np.ndarray, "entry"]]:
    """The log posterior of an objective and a physical start of all its entries.

    **Arguments:**

    - `priors`: by default `default_priors(objective)`.
    - `start`: free parameters; by default those of the objective. `scaling_start`: (contrast,
        offset) by angle; by default those the objective was made with.
    - `scaling`: `SampledScaling()` (default) or `MarginalisedScaling()`.
    - `noise`: `GivenSigma(1)` for data with absolute sigma, else `SampledSigma()`.

    **Raises:** `ModelError` for an objective with robust loss, penalties on the scaling or data in
    a file, for a start without a finite log density, and for a parameter without prior.
    """
    term = _checked(objective)
    scaling = SampledScaling() if scaling is None else scaling
    if noise is None:
        noise = GivenSigma() if term.absolute_sigma else SampledSigma()
    parameters = term.parameters
    reference = np.asarray(term.reference if scaling_start is None else scaling_start, float)
    term = dataclasses.replace(
        term, parameters=plain_parameters(parameters), reference=jnp.asarray(reference)
    )
    x = np.asarray(parameters.start if start is None else start, float)
    coefficients = np.asarray(term.scaling.from_per_angle(jnp.asarray(reference)))
    table = frame_table(term.parameters, jnp.asarray(x), term.t, term.geometry, False)
    found = residual_scale(term, table, term.scaling.per_angle(jnp.asarray(coefficients)))
    if not np.isfinite(found):
        raise FitError("the model is not finite at the start; give other start values")
    sigma_prior = noise.prior(max(found, 1e-12))
    priors = default_priors(objective) if priors is None else priors
    names, sampled = parameters.free_names, scaling.sampled_names(term.scaling)
    entries = [(name, priors[name]) for name in (*names, *sampled)]
    theta = np.concatenate([x, coefficients[: len(sampled)]])
    if sigma_prior is not None:
        entries.append(("sigma", priors.get("sigma", sigma_prior)))
        theta = np.append(theta, found)
    chosen = tuple(prior for _, prior in entries)
    coordinates, theta = coordinates_for(parameters, chosen, theta)
    density = LogPosterior(
        term=term,
        penalties=objective.penalties,
        priors=chosen,
        coordinates=coordinates,
        treatment=scaling.prepare(term.scaling, tuple(priors[name] for name in term.scaling.names)),
        noise=noise,
        n_pairs=np.asarray(count_pairs(term.tiles)),  # pyright: ignore[reportArgumentType]
        names=tuple(name for name, _ in entries),
    )
    return density, theta
