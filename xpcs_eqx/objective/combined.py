"""One sum of squares over several data sets with parameters in common."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..data import PooledData, TwoTimeData, noise_by_angle, weighted
from ..errors import DataError, ModelError
from ..parameters import ParameterMap, SharedParameters
from ..scaling import AbstractScaling
from .losses import AbstractLoss
from .noise import known_noise
from .penalties import AbstractPenalty, penalty_equations
from .two_time import (
    AbstractObjective,
    JointObjective,
    JointVariables,
    ProjectedObjective,
    two_time_objective,
)


def _local_variables(parameters: SharedParameters, sizes: tuple[int, ...], y):
    """The variables of the objective of each data set, from those of the whole."""
    n = parameters.whole.n_free
    places = np.cumsum([n, *sizes])
    return tuple(
        jnp.concatenate([parameters.local_coordinates(k, y[:n]), y[places[k] : places[k + 1]]])
        for k in range(len(sizes))
    )


# Compiled apart from the data sets: what is expensive is the evaluation of one of them, and those
# of one shape and model share it.
@quick_jit
def _link(parameters, sizes, y):
    def local(y):
        return _local_variables(parameters, sizes, y)

    return local(y), jax.jacfwd(local)(y)


@quick_jit
def _add(total, equations, derivative):
    return total + equations.transform(derivative)


@quick_jit
def _penalties(penalties, parameters, y, noise):
    p = parameters.n_free
    return penalty_equations(penalties, parameters, y[:p], noise).transform(jnp.eye(p, y.shape[0]))


def _plain(part, y, memo):
    return part.evaluate(y, memo)


_evaluate = quick_jit(_plain)


@quick_jit
def _cost(part, y, memo):
    return part.cost(y, memo)


class CombinedObjective(AbstractObjective):
    """Data sets, each with a model, scaling and driver of its own, fitted together.

    The variables are the free parameters of `parameters.whole`, followed, for a robust loss, by
    the scaling coefficients of each data set. The equations of a data set are formed in its own
    coordinates and carried over by the derivative of these.

    - `variables`: what the solver sees; `parameters`: how they belong to the data sets.
    - `parts`: the objective of each data set.
    - `penalties`: functions of all parameters by public name; `noise`: standard deviation of the
        weighted residuals, by which they are weighed.
    """

    variables: ParameterMap | JointVariables  # pyright: ignore[reportIncompatibleVariableOverride]
    parameters: SharedParameters
    parts: tuple[ProjectedObjective | JointObjective, ...]
    penalties: tuple[AbstractPenalty, ...]
    noise: Float[Array, ""]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of scaling coefficients of each data set among the variables."""
        return tuple(
            part.term.scaling.size if isinstance(part, JointObjective) else 0 for part in self.parts
        )

    @property
    def physical(self) -> ParameterMap:
        """The map of the free physical parameters, which come first among the variables."""
        return self.parameters.whole

    @property
    def traceable(self):
        # One compiled function over all data sets would compile the same evaluation many times.
        return False

    @property
    def start(self):
        own = [
            part.start[part.term.parameters.n_free :]
            for part in self.parts
            if isinstance(part, JointObjective)
        ]
        return jnp.concatenate([jnp.asarray(self.parameters.whole.start), *own])

    @property
    def names(self):
        own = [
            f"{name}[{label}]"
            for part, label in zip(self.parts, self.parameters.labels, strict=True)
            if isinstance(part, JointObjective)
            for name in part.term.scaling.names
        ]
        return (*self.parameters.whole.free_names, *own)

    @property
    def memo(self):
        return tuple(part.memo for part in self.parts)

    def local(
        self, y: Float[Array, "variable"]
    ) -> tuple[tuple[Float[Array, "local"], ...], tuple[Float[Array, "local variable"], ...]]:
        """The variables of the objective of each data set, and their derivatives."""
        return _link(self.parameters, self.sizes, y)

    def evaluate(self, y, memo):
        traced = isinstance(y, jax.core.Tracer)
        total = _penalties(self.penalties, self.parameters.whole, y, self.noise)
        memos = []
        for part, own, derivative, known in zip(self.parts, *self.local(y), memo, strict=True):
            compiled = part.traceable and not traced
            equations, new = (_evaluate if compiled else _plain)(part, own, known)
            total = _add(total, equations, derivative)
            memos.append(new)
        return total, tuple(memos)

    def cost(self, y, memo):
        traced = isinstance(y, jax.core.Tracer)
        total = _penalties(self.penalties, self.parameters.whole, y, self.noise).cost
        for part, own, known in zip(self.parts, self.local(y)[0], memo, strict=True):
            compiled = part.traceable and not traced
            total = total + (_cost(part, own, known) if compiled else part.cost(own, known))
        return total

    def spread(self):
        return sum(part.spread() for part in self.parts)


def _noise(data: TwoTimeData | PooledData) -> float:
    """Standard deviation of the data where they carry no sigma, from neighbouring entries."""
    if not isinstance(data, TwoTimeData):
        return float("nan")
    if weighted(data):
        return 1.0
    return float(np.sqrt(np.mean(np.square(noise_by_angle(data)))))


def relative_weights(data: Sequence[TwoTimeData | PooledData]) -> Float[np.ndarray, "set"]:
    """Weight of the squared residuals of each data set, so that all count by their precision.

    One where sigma is given; else the inverse of the noise variance, relative to the mean.

    **Raises:** `DataError` when sigma is known for some data sets only, or the noise cannot be
    estimated.
    """
    absolute = [one.absolute_sigma for one in data]
    if all(absolute):
        return np.ones(len(data))
    if any(absolute):
        known = [k + 1 for k, yes in enumerate(absolute) if yes]
        raise DataError(
            f"sigma is known for data sets {known} of {len(data)} only, so that they cannot be "
            "weighed against the others; give it for all or for none, or give `weights`"
        )
    noise = np.array([_noise(one) for one in data])
    if not np.all(np.isfinite(noise) & (noise > 0)):
        bad = int(np.flatnonzero(~(np.isfinite(noise) & (noise > 0)))[0])
        raise DataError(
            f"the noise of data set {bad + 1} cannot be estimated ({noise[bad]:g}), so that it "
            "cannot be weighed against the others; give sigma for all data sets, or `weights`"
        )
    return np.mean(noise**2) / noise**2


def combined_objective(
    parameters: SharedParameters,
    data: Sequence[TwoTimeData | PooledData],
    scaling: Sequence[AbstractScaling | None] | None = None,
    *,
    weights: Sequence[float] | None = None,
    loss: AbstractLoss | None = None,
    penalties: tuple[AbstractPenalty, ...] = (),
    noise: float | None = None,
    **keywords: Any,
) -> CombinedObjective:
    """The objective of a joint fit.

    **Arguments:**

    - `parameters`: from `shared_parameters`, for as many data sets.
    - `scaling`: one for each data set; by default `Individual`.
    - `weights`: weight of the squared residuals of each data set; by default `relative_weights`.
    - `penalties`: see all parameters by public name. `noise`: standard deviation of the weighted
        residuals, by which they are weighed; by default one where sigma is absolute in all data
        sets, else the root mean square of `noise_of` each.
    - `loss`, `keywords`: as in `two_time_objective`, the same for all data sets.

    **Raises:** `ModelError` for numbers of data sets that differ; `DataError` as
    `relative_weights`; and as `two_time_objective`.
    """
    data, count = tuple(data), len(parameters.maps)
    chosen = (None,) * count if scaling is None else tuple(scaling)
    given = relative_weights(data) if weights is None else np.asarray(weights, dtype=float)
    if not len(data) == len(chosen) == count or given.shape != (count,):
        raise ModelError(
            f"the parameters are for {count} data sets, but there are {len(data)} data sets, "
            f"{len(chosen)} scalings and {given.size} weights"
        )
    if not np.all(np.isfinite(given) & (given > 0)):
        raise ModelError(f"the weights {given.tolist()} of data sets must be above zero")
    parts = tuple(
        two_time_objective(
            local, one, mapper, loss=loss, angle_weights=np.full(one.n_angles, w), **keywords
        )
        for local, one, mapper, w in zip(parameters.maps, data, chosen, given, strict=True)
    )
    whole = parameters.whole
    variables: ParameterMap | JointVariables = whole
    if any(isinstance(part, JointObjective) for part in parts):
        bounds = [part.term.scaling.bounds for part in parts]
        lower, upper = (np.concatenate([np.asarray(b[i]) for b in bounds]) for i in (0, 1))
        variables = JointVariables(
            parameters=whole,
            lower=np.concatenate([whole.lower, lower]),
            upper=np.concatenate([whole.upper, upper]),
            coordinate_scale=np.concatenate([whole.coordinate_scale, np.full(lower.shape, 0.1)]),
        )
    sd = np.asarray(_noise_of_all(parts, noise) if penalties else np.nan)
    return CombinedObjective(variables, parameters, parts, penalties, sd)  # pyright: ignore[reportArgumentType]


def _noise_of_all(parts: Sequence[ProjectedObjective | JointObjective], given: float | None):
    terms = [part.term for part in parts]
    absolute = all(term.absolute_sigma for term in terms)
    each = [known_noise(term.tiles, absolute, given) for term in terms]
    return each[0] if len(each) == 1 else np.sqrt(np.mean(np.square(each)))


def check_one_data_set(objective: AbstractObjective, what: str) -> None:
    """Raise `ModelError` for a joint fit of several data sets, a curve or anything else."""
    if isinstance(objective, CombinedObjective):
        raise ModelError(
            f"{what} takes the objective of one data set, and this one combines "
            f"{len(objective.parts)}: fit them together with least_squares, or each by itself as "
            "an element of `objective.parts`"
        )
    if not isinstance(objective, ProjectedObjective | JointObjective):
        raise ModelError(
            f"{what} takes the objective of a two-time data set, from projected_objective, "
            f"joint_objective or two_time_objective, and this is a {type(objective).__name__}: a "
            "curve is fitted with curve_fit (with a global search by search.multi_start or "
            "search.cma_es), any other objective with fitting.solve"
        )


def with_penalties(
    objective: ProjectedObjective | JointObjective | CombinedObjective,
    penalties: tuple[AbstractPenalty, ...],
    noise: float | Float[Array, ""] | None = None,
) -> Any:
    """The objective with these penalties on its parameters instead of those it has.

    `noise`: as in `projected_objective`; by default that of the objective, estimated where nothing
    has asked for it so far.

    **Raises:** `ModelError` for penalties without a noise to be weighed by.
    """
    parts = objective.parts if isinstance(objective, CombinedObjective) else (objective,)
    if noise is None:
        noise = objective.noise
        traced = isinstance(noise, jax.core.Tracer)
        if penalties and not traced and np.isnan(noise):
            noise = _noise_of_all(parts, None)
    elif not isinstance(noise, jax.core.Tracer):
        noise = _noise_of_all(parts, float(noise))
    sd = noise if isinstance(noise, jax.Array) else np.asarray(noise)
    if isinstance(objective, CombinedObjective):
        return dataclasses.replace(objective, noise=sd, penalties=tuple(penalties))
    term = dataclasses.replace(objective.term, noise=sd)
    return dataclasses.replace(objective, term=term, penalties=tuple(penalties))
