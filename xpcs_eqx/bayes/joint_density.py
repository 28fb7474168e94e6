"""The log density of several data sets with parameters in common."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..objective import AbstractPenalty, CombinedObjective
from ..objective.penalties import penalty_squares
from ..parameters import SharedParameters, parameter_values
from .abstract_prior import AbstractPrior, stacked
from .coordinates import Coordinates, coordinates_for
from .likelihood import AbstractNoise, GivenSigma, SampledSigma
from .log_posterior import LogPosterior, log_posterior
from .prior_set import (
    PriorSet,
    default_prior,
    default_priors,
    offset_sizes,
    parameter_entries,
    scaling_entries,
    with_sizes,
)


class JointLogPosterior(eqx.Module):
    """ln p(θ | all data sets) + const as a function of unconstrained coordinates z.

    θ = (free parameters of the whole, scaling coefficients of each data set, sigma if sampled).
    The likelihood is the product of those of `parts`, each a function of its own parameters.
    """

    parameters: SharedParameters
    parts: tuple[LogPosterior, ...]
    penalties: tuple[AbstractPenalty, ...]
    priors: tuple[AbstractPrior, ...]
    coordinates: Coordinates
    names: tuple[str, ...] = eqx.field(static=True)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return self.parameters.labels

    def local(self, theta: Float[Array, "entry"]) -> tuple[Float[Array, "local"], ...]:
        """The entries of each data set."""
        low = self.parameters.whole.n_free
        x, found = theta[:low], []
        last = low + sum(part.term.scaling.size for part in self.parts)
        for k, part in enumerate(self.parts):
            size = part.term.scaling.size
            own = (self.parameters.local(k, x), theta[low : low + size], theta[last:])
            found.append(jnp.concatenate(own))
            low += size
        return tuple(found)

    def log_likelihood(self, theta: Float[Array, "entry"]) -> Float[Array, ""]:
        """ln p(all data | θ)."""
        each = zip(self.parts, self.local(theta), strict=True)
        return sum((part.log_likelihood(own) for part, own in each), start=jnp.zeros(()))

    def log_prior(self, theta: Float[Array, "entry"]) -> Float[Array, ""]:
        """ln p(θ), every parameter once; penalties as −½‖residuals‖²."""
        total = jnp.zeros(())
        for where, prior in stacked(self.priors):
            total += jnp.sum(prior.log_density(theta[np.asarray(where)]))
        if self.penalties:
            whole = self.parameters.whole
            values = parameter_values(whole.build(theta[: whole.n_free]))
            total -= 0.5 * penalty_squares(self.penalties, values)
        return total

    def __call__(self, z: Float[Array, "entry"]) -> Float[Array, ""]:
        """The log density of z; −∞ where the model has no value."""
        theta = self.coordinates.to_physical(z)
        value = self.log_likelihood(theta) + self.log_prior(theta) + self.coordinates.log_det(z)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)


def joint_priors(objective: CombinedObjective) -> PriorSet:
    """Default priors by public name, from start and bounds that the joint fit gives a parameter.

    Coefficients of contrast and offset are called `name[label]`. Offsets of rates that data sets
    share are as wide as the first of these rates is large.
    """
    parameters, whole = objective.parameters, objective.parameters.whole
    models = parameters.models(whole.start)
    sizes: dict[str, float] = {}
    for k, part in enumerate(objective.parts):
        own = offset_sizes(models[k], part.term.t)
        found = {public: own[name] for name, public in parameters.public[k] if name in own}
        sizes = found | sizes
    entries = with_sizes(parameter_entries(whole), sizes)
    for part, label in zip(objective.parts, parameters.labels, strict=True):
        entries += [one._replace(name=f"{one.name}[{label}]") for one in scaling_entries(part)]
    return PriorSet(tuple(map(default_prior, entries)), tuple(one.name for one in entries))


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


def joint_log_posterior(
    objective: CombinedObjective,
    priors: Mapping[str, AbstractPrior] | None = None,
    *,
    start: Float[np.ndarray, "entry"] | None = None,
    noise: AbstractNoise | None = None,
) -> tuple[JointLogPosterior, Float[np.ndarray, "entry"]]:
    """The log posterior of a joint objective and a physical start of all its entries.

    **Arguments:**

    - `priors`: by public name, instead of `joint_priors(objective)`.
    - `start`: scaling coefficients of all data sets, then free parameters, as in a `Fit`.
    - `noise`: `GivenSigma(1)` for data with absolute sigma, else `SampledSigma()`; one for all.

    **Raises:** `ModelError` as `log_posterior`, for each of the data sets.
    """
    parameters, parts = objective.parameters, objective.parts
    whole = parameters.whole
    if noise is None:
        absolute = all(part.term.absolute_sigma for part in parts)
        noise = GivenSigma() if absolute else SampledSigma()
    sizes = [part.term.scaling.size for part in parts]
    if start is None:
        x = np.asarray(whole.start, float)
        references = [np.asarray(part.term.reference) for part in parts]
    else:
        edges = np.cumsum([0, *sizes])
        x = np.asarray(start, float)[edges[-1] :]
        references = [
            np.asarray(part.term.scaling.per_angle(jnp.asarray(start[low:high])))
            for part, low, high in zip(parts, edges, edges[1:], strict=False)
        ]
    given = joint_priors(objective).replaced(priors or {})
    made = [
        log_posterior(
            part,
            _own_priors(objective, k, given),
            start=np.asarray(parameters.local(k, jnp.asarray(x))),
            scaling_start=reference,
            noise=noise,
        )
        for k, (part, reference) in enumerate(zip(parts, references, strict=True))
    ]
    names = (*whole.free_names, *given.names[whole.n_free : whole.n_free + sum(sizes)])
    theta = [x]
    for (_, own), size, local in zip(made, sizes, parameters.maps, strict=True):
        theta.append(own[local.n_free : local.n_free + size])
    chosen = [given[name] for name in names]
    scale = float(np.sqrt(np.mean([own[-1] ** 2 for _, own in made])))
    prior = noise.prior(scale)
    if prior is not None:
        names, theta = (*names, "sigma"), [*theta, np.array([scale])]
        chosen.append(given.get("sigma", prior))
    priors_of_all = tuple(chosen)
    coordinates, begin = coordinates_for(whole, priors_of_all, np.concatenate(theta))
    density = JointLogPosterior(
        parameters=parameters,
        parts=tuple(part for part, _ in made),
        penalties=objective.penalties,
        priors=priors_of_all,
        coordinates=coordinates,
        names=names,
    )
    return density, begin
