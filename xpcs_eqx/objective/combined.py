"""One sum of squares over several data sets with parameters in common."""

import dataclasses
import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import is_traced, quick_jit
from ..data import StoredTwoTime, TwoTimeData, weighted
from ..errors import DataError, ModelError
from ..parameters import ParameterMap, SharedParameters
from ..showing import Table
from .drivers.stored import AnyData, source_of
from .equations import AbstractObjective
from .likelihood import SpeckleLikelihood
from .noise import known_noise, noise_of
from .penalties import AbstractPenalty, penalty_equations
from .two_time import (
    JointObjective,
    JointVariables,
    ProjectedObjective,
    TwoTimeObjective,
)

# Objectives of one data set; those whose contrast and offset are variables.
OneObjective = TwoTimeObjective | SpeckleLikelihood
_WithScaling = JointObjective | SpeckleLikelihood


# Compiled apart from the data sets: what is expensive is the evaluation of one of them, and those
# of one shape and model share it.
@quick_jit
def _link(parameters, sizes, y):
    """The variables of the objective of each data set, from those of the whole, and derivatives."""
    n = parameters.whole.n_free
    places = np.cumsum([n, *sizes])

    def local(y):
        own = [y[low:high] for low, high in itertools.pairwise(places)]
        shared = [parameters.local_coordinates(k, y[:n]) for k in range(len(sizes))]
        return tuple(jnp.concatenate(both) for both in zip(shared, own, strict=True))

    return local(y), jax.jacfwd(local)(y)


@quick_jit
def _add(total, equations, derivative):
    return total + equations.transform(derivative)


@quick_jit
def _penalties(penalties, parameters, y, noise):
    p = parameters.n_free
    return penalty_equations(penalties, parameters, y[:p], noise).transform(jnp.eye(p, y.shape[0]))


@quick_jit
def _evaluate(part, y, memo):
    return part.evaluate(y, memo)


@quick_jit
def _cost(part, y, memo):
    return part.cost(y, memo)


def _compiled(function, y, part=None):
    """The function as it is inside a larger compiled function, and for data read piece by piece."""
    alone = is_traced(y) or (part is not None and part.in_parts)
    return function.function if alone else function


class CombinedObjective(AbstractObjective):
    """Data sets, each with a model, scaling and driver of its own, fitted together.

    The variables are the free parameters of `parameters.whole`, followed, for a robust loss and the
    likelihood of speckle, by the scaling coefficients of each data set. The equations of a data set
    are formed in its own coordinates and carried over by the derivative of these.

    - `variables`: what the solver sees; `parameters`: how they belong to the data sets.
    - `parts`: the objective of each data set.
    - `penalties`: functions of all parameters by public name; `noise`: standard deviation of the
        weighted residuals, by which they are weighed.
    """

    variables: ParameterMap | JointVariables  # pyright: ignore[reportIncompatibleVariableOverride]
    parameters: SharedParameters
    parts: tuple[OneObjective, ...]
    penalties: tuple[AbstractPenalty, ...]
    noise: Float[Array, ""]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of scaling coefficients of each data set among the variables."""
        return tuple(
            part.term.scaling.size if isinstance(part, _WithScaling) else 0 for part in self.parts
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
            if isinstance(part, _WithScaling)
        ]
        return jnp.concatenate([jnp.asarray(self.parameters.whole.start), *own])

    @property
    def names(self):
        own = [
            f"{name}[{label}]"
            for part, label in zip(self.parts, self.parameters.labels, strict=True)
            if isinstance(part, _WithScaling)
            for name in part.term.scaling.names
        ]
        return (*self.parameters.whole.free_names, *own)

    def about(self):
        each = zip(self.parameters.labels, self.parts, strict=True)
        return tuple(f"{label}: {line.strip()}" for label, one in each for line in one.about())

    def table(self):
        repeated = dict(self.parameters.repeated)
        rows = self.physical.table().items()
        return Table({name: row for name, row in rows if name not in repeated})

    @property
    def memo(self):
        return tuple(part.memo for part in self.parts)

    def local(
        self, y: Float[Array, "variable"]
    ) -> tuple[tuple[Float[Array, "local"], ...], tuple[Float[Array, "local variable"], ...]]:
        """The variables of the objective of each data set, and their derivatives."""
        return _compiled(_link, y)(self.parameters, self.sizes, y)

    def evaluate(self, y, memo):
        whole = self.parameters.whole
        total = _compiled(_penalties, y)(self.penalties, whole, y, self.noise)
        memos = []
        for part, own, derivative, known in zip(self.parts, *self.local(y), memo, strict=True):
            equations, new = _compiled(_evaluate, y, part)(part, own, known)
            total = _compiled(_add, y)(total, equations, derivative)
            memos.append(new)
        return total, tuple(memos)

    def cost(self, y, memo):
        whole = self.parameters.whole
        total = _compiled(_penalties, y)(self.penalties, whole, y, self.noise).cost
        for part, own, known in zip(self.parts, self.local(y)[0], memo, strict=True):
            total = total + _compiled(_cost, y, part)(part, own, known)
        return total

    def spread(self):
        return sum(part.spread() for part in self.parts)


def relative_weights(data: Sequence[AnyData]) -> Float[np.ndarray, "set"]:
    """Weight of the squared residuals of each data set, so that all count by their precision.

    One where sigma is given; else the inverse of the noise variance, relative to the mean.

    **Raises:** `DataError` when sigma is known for some data sets only, or the noise cannot be
    estimated.
    """
    absolute = [one.absolute_sigma for one in data]
    if all(absolute):
        return np.ones(len(data))
    if any(absolute):
        given = [k + 1 for k, yes in enumerate(absolute) if yes]
        raise DataError(
            f"sigma is known for data sets {given} of {len(data)} only, so that they cannot be "
            "weighed against the others; give it for all or for none, or give `weights`"
        )

    def noise_in(one):
        if isinstance(one, TwoTimeData | StoredTwoTime) and weighted(one):
            return 1.0
        with suppress(DataError):
            return noise_of(source_of(one))
        return np.nan

    noise = np.array([noise_in(one) for one in data])
    known = np.isfinite(noise) & (noise > 0)
    if not np.all(known):
        bad = int(np.argmin(known))
        raise DataError(
            f"the noise of data set {bad + 1} cannot be estimated ({noise[bad]:g}), so that it "
            "cannot be weighed against the others; give sigma for all data sets, or `weights`"
        )
    return np.mean(noise**2) / noise**2


AnyObjective = TwoTimeObjective | CombinedObjective


def parts_of(objective: Any) -> tuple[Any, ...]:
    """The objective of each data set; any other objective is its only part."""
    return objective.parts if isinstance(objective, CombinedObjective) else (objective,)


def combined_variables(
    whole: ParameterMap, parts: Sequence[OneObjective]
) -> ParameterMap | JointVariables:
    """The free parameters of all data sets, and the scaling coefficients that are variables."""
    own = [part.variables for part in parts if isinstance(part, _WithScaling)]
    if not own:
        return whole

    def joined(field: str):
        each = [np.asarray(getattr(one, field))[one.parameters.n_free :] for one in own]
        return np.concatenate([np.asarray(getattr(whole, field)), *each])

    fields = ("lower", "upper", "coordinate_scale")
    return JointVariables(parameters=whole, **{name: joined(name) for name in fields})


def with_parts(objective: Any, parts: Sequence[OneObjective]) -> Any:
    """The objective with others for its data sets, all of one kind."""
    if not isinstance(objective, CombinedObjective):
        return parts[0]
    variables = combined_variables(objective.physical, parts)
    return dataclasses.replace(objective, variables=variables, parts=tuple(parts))


def is_likelihood(objective: Any) -> bool:
    """Whether it is the likelihood of speckle, of one data set or of several."""
    return isinstance(parts_of(objective)[0], SpeckleLikelihood)


def with_terms(objective: Any, **fields: Sequence[Any]) -> Any:
    """The objective with other tiles, scaling or the like, one for each of its data sets."""
    parts = []
    for k, part in enumerate(parts_of(objective)):
        own = {name: values[k] for name, values in fields.items()}
        parts.append(dataclasses.replace(part, term=dataclasses.replace(part.term, **own)))
    return with_parts(objective, parts)


def noise_of_all(parts: Sequence[TwoTimeObjective], given: float | None) -> float:
    """Root mean square of the `known_noise` of data sets.

    **Raises:** `ModelError` as `known_noise`.
    """
    terms = [part.term for part in parts]
    absolute = all(term.absolute_sigma for term in terms)
    each = [known_noise(term.tiles, absolute, given) for term in terms]
    return each[0] if len(each) == 1 else float(np.sqrt(np.mean(np.square(each))))


def check_one_data_set(objective: AbstractObjective, what: str) -> None:
    """Refuse a joint fit of several data sets, a curve or anything else; `what` was asked for it.

    **Raises:** `ModelError` saying what to do instead.
    """
    if isinstance(objective, CombinedObjective):
        raise ModelError(
            f"{what} takes the objective of one data set, and this one combines "
            f"{len(objective.parts)}: fit them together with least_squares, or each by itself as "
            "an element of `objective.parts`"
        )
    if not isinstance(objective, ProjectedObjective | JointObjective):
        raise ModelError(
            f"{what} takes the objective of a two-time data set, from projected_objective "
            f"or two_time_objective, and this is a {type(objective).__name__}: a "
            "curve is fitted with curve_fit (with a global search by search.multi_start or "
            "search.cma_es), any other objective with fitting.solve"
        )


def with_penalties(
    objective: TwoTimeObjective | CombinedObjective,
    penalties: tuple[AbstractPenalty, ...],
    noise: float | Float[Array, ""] | None = None,
) -> Any:
    """The objective with these penalties on its parameters instead of those it has.

    `noise`: as in `projected_objective`; by default that of the objective, estimated where nothing
    has asked for it so far.

    **Raises:** `ModelError` for penalties without a noise to be weighed by.
    """
    parts = parts_of(objective)
    if noise is None:
        noise = objective.noise
        traced = isinstance(noise, jax.core.Tracer)
        if penalties and not traced and np.isnan(noise):
            noise = noise_of_all(parts, None)
    elif not isinstance(noise, jax.core.Tracer):
        noise = noise_of_all(parts, float(noise))
    sd = noise if isinstance(noise, jax.Array) else np.asarray(noise)
    if isinstance(objective, CombinedObjective):
        return dataclasses.replace(objective, noise=sd, penalties=tuple(penalties))
    term = dataclasses.replace(objective.term, noise=sd)
    return dataclasses.replace(objective, term=term, penalties=tuple(penalties))
