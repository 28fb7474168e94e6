"""Fits as differentiable functions: the implicit function theorem at the optimum."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ...errors import ModelError
from ...objective import (
    AbstractObjective,
    AbstractPieces,
    CombinedObjective,
    CurveObjective,
    Linear,
    NormalEquations,
)
from ...optimize import TrustRegion, iterate_compiled
from ...scaling import IndexMap, index_map
from ...uncertainty import loss_of
from ..solve import default_solver
from .curvature import AbstractCurvature, FullCurvature, solve_free
from .minimum import AbstractMinimum, minimum_of
from .tile_sum import filled


class FittedValues(eqx.Module):
    """What a fit found, as arrays that carry derivatives.

    - `values`: the fitted numbers, laid out by `index` (scaling coefficients, of every data set in
        turn, then free parameters), in the units of the parameters.
    - `model`: the model at the optimum, fixed and tied parameters included; of several data sets a
        tuple with that of each, of a curve None. `contrast`, `offset`: scaling by angle, likewise.
    - `cost`: the minimised cost, penalties and robust loss included.
    - `status`: a `Status` as an integer, positive when converged.
    - `at_bound`: which entries of `values` lie on a bound.
    """

    values: Float[Array, "entry"]
    model: PyTree
    contrast: PyTree[Float[Array, "angle"]]
    offset: PyTree[Float[Array, "angle"]]
    cost: Float[Array, ""]
    status: Int[Array, ""]
    at_bound: Bool[Array, "entry"]
    index: IndexMap

    def __getitem__(self, name: str) -> Float[Array, ""]:
        """A free parameter or a scaling coefficient by name.

        **Raises:** `ModelError` listing the names there are.
        """
        return self.values[..., self.index.index(name)]


def _on_bound(minimum: AbstractMinimum, u):
    return (u <= minimum.lower) | (u >= minimum.upper)


@eqx.filter_custom_jvp
def _minimum(objective, *, start, solver, curvature):
    """The optimum in the layout of `IndexMap` and the status of the solver."""
    del curvature
    # Nobody sees the history, which would be carried through every step of a batch.
    state = iterate_compiled(dataclasses.replace(solver, recorded=1), objective, start)
    minimum = minimum_of(objective)
    # Solvers stop where the cost no longer tells two points apart; the gradient still does. The
    # equations at the last point are there, so a last step costs no pass over the data.
    assert isinstance(state.equations, NormalEquations)  # no descent by products is compiled
    u, equations = minimum.last(state.y, state.memo, state.equations)
    step = solve_free(equations.hessian, equations.gradient[:, None], ~_on_bound(minimum, u))
    better = u - step[:, 0]
    inside = (better > minimum.lower) & (better < minimum.upper)
    sound = (state.status > 0) & jnp.all(jnp.isfinite(step)) & jnp.all(inside | (better == u))
    return jnp.where(sound, better, u), state.status


@_minimum.def_jvp
def _minimum_jvp(primals, tangents, *, start, solver, curvature):
    (objective,), (moving,) = primals, tangents
    u, status = _minimum(objective, start=start, solver=solver, curvature=curvature)

    def condition(objective):
        minimum = minimum_of(objective)
        # Where an entry is held, it moves with its bound.
        bound = jnp.where(
            u <= minimum.lower, minimum.lower, jnp.where(u >= minimum.upper, minimum.upper, 0.0)
        )
        return minimum.gradient(u), bound

    _, tangent = eqx.filter_jvp(condition, (objective,), (moving,))
    slope, bound = filled((jnp.zeros_like(u), jnp.zeros_like(u)), tangent)
    minimum = minimum_of(objective)
    free = ~_on_bound(minimum, u)
    matrix = curvature.matrix(minimum, u)
    slope = slope + matrix @ bound
    change = bound - solve_free(matrix, slope[:, None], free)[:, 0]
    # What is no minimum has no derivative: a factor, since `where` would transpose to zeros.
    change = change * jnp.where(status > 0, 1.0, jnp.nan)
    return (u, status), (change, None)


def _described(objective, u):
    """Model, scaling by angle, and layout at the fitted numbers."""
    if isinstance(objective, CurveObjective):
        return None, None, None, IndexMap((), tuple(objective.names))
    if isinstance(objective, CombinedObjective):
        names, per_angle, begin = [], [], 0
        for part, label in zip(objective.parts, objective.parameters.labels, strict=True):
            scaling = part.term.scaling
            names += [f"{name}[{label}]" for name in scaling.names]
            per_angle.append(scaling.per_angle(u[begin : begin + scaling.size]))
            begin += scaling.size
        contrast, offset = (tuple(one[:, s] for one in per_angle) for s in (0, 1))
        index = IndexMap(tuple(names), objective.parameters.whole.free_names)
        return objective.parameters.models(u[begin:]), contrast, offset, index
    term = objective.term
    per_angle = term.scaling.per_angle(u[: term.scaling.size])
    model = term.parameters.build(u[term.scaling.size :])
    index = index_map(term.scaling, term.parameters.free_names)
    return model, per_angle[:, 0], per_angle[:, 1], index


def _fitted(objective, start, solver, curvature):
    u, status = _minimum(objective, start=start, solver=solver, curvature=curvature)
    minimum = minimum_of(objective)
    model, contrast, offset, index = _described(objective, u)
    return FittedValues(
        values=u,
        model=model,
        contrast=contrast,
        offset=offset,
        cost=minimum.cost(u),
        status=status,
        at_bound=_on_bound(minimum, u),
        index=index,
    )


_fitted_compiled = eqx.filter_jit(_fitted)


def fitted(
    objective: AbstractObjective,
    start: Float[Array, "variable"] | None = None,
    *,
    solver: TrustRegion | None = None,
    curvature: AbstractCurvature | None = None,
) -> FittedValues:
    """Fit an objective, as a differentiable function of everything in it.

    Whatever `least_squares` fits in memory: one data set, several together, a curve. Every floating
    array of `objective` may be differentiated by: maps, weights, frame times, geometry, fixed
    parameters, penalties, the scale of a loss, a fixed scaling. `with_values` replaces those of one
    data set by name. Works under `jax.jit` and `jax.vmap`, in forward and in reverse mode;
    derivatives come from the implicit function theorem at the optimum and cost a few passes over
    the data, however many iterations the fit took. No recovery from failures is attempted.

    An entry on a bound does not move, except with the bound. A fit that did not converge returns
    its `status` and has derivatives NaN.

    **Arguments:**

    - `objective`: from `projected_objective`, `two_time_objective` or `curve_objective`. Several
        data sets are compiled as a whole, which takes as long as all of them one by one.
    - `start`: physical start values of the variables; by default the objective's own.
    - `solver`: a `TrustRegion`.
    - `curvature`: `FullCurvature` (default) or `GaussNewtonCurvature`.

    **Raises:** `ModelError` for an objective whose sum is a loop in Python or of which no error
    bars are known, or a start of the wrong shape.
    """
    minimum_of(objective)
    for part in _parts(objective):
        if isinstance(part, CurveObjective):
            if not part.traceable:
                raise ModelError(
                    "a differentiable fit is compiled as a whole, which the points of a source do "
                    "not allow; give them as arrays to curve_objective"
                )
        elif not part.traceable:
            stored = isinstance(part.term.tiles, AbstractPieces)
            raise ModelError(
                f"a differentiable fit is compiled as a whole, which the driver "
                f"{type(part.term.driver).__name__} does not allow; "
                + (
                    "load the data, or a selection of them"
                    if stored
                    else "build the objective with Scan"
                )
            )
    begin = objective.start if start is None else start
    if jnp.shape(begin) != objective.variables.lower.shape:
        raise ModelError(
            f"the start has shape {jnp.shape(begin)}, the fit {objective.variables.lower.shape}"
        )
    solver = default_solver(objective) if solver is None else solver
    curvature = FullCurvature() if curvature is None else curvature
    begin, solver = _constant(begin), _constant(solver)
    return _fitted_compiled(objective, begin, solver, curvature)


def _parts(objective: AbstractObjective) -> tuple[Any, ...]:
    """The data sets, or the one objective there is."""
    return objective.parts if isinstance(objective, CombinedObjective) else (objective,)


def _constant(tree: Any) -> Any:
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


def classical_covariance(
    objective: AbstractObjective, values: Float[Array, "entry"]
) -> Float[Array, "entry entry"]:
    """s²(JᵀJ)⁻¹ at the fitted `values`, zero for entries on a bound; differentiable.

    Under a robust loss it is E[ψ²]/E[ψ′]² (JᵀJ)⁻¹, the means being those over the residuals.

    The covariance of `Fit.uncertainty.classical` as a function of what was fitted and of every
    array of the objective. s² is one when the data carry an absolute sigma; without one it is
    infinite where there are no more pairs than free entries.
    """
    return _covariance_compiled(objective, values)


@eqx.filter_jit
def _covariance_compiled(objective, u):
    parts = _parts(objective)
    known = [o if isinstance(o, CurveObjective) else o.term for o in parts]
    absolute = all(one.absolute_sigma for one in known)
    # One loss serves for all data sets.
    loss = parts[0].loss if isinstance(parts[0], CurveObjective) else loss_of(parts[0])
    minimum = minimum_of(objective)
    free = ~_on_bound(minimum, u)
    if not isinstance(loss, Linear):
        curvature, sums = minimum.mean_curvature(u)
        variance = sums.mean_square(jnp.sum(free)) / sums.mean_slope
        return variance * solve_free(curvature, jnp.eye(u.shape[0]), free)
    equations, data_cost = minimum.equations(u)
    inverse = solve_free(equations.hessian, jnp.eye(u.shape[0]), free)
    if absolute:
        return inverse
    degrees = equations.count - jnp.sum(free)
    left = degrees > 0
    scaled = 2 * data_cost / jnp.where(left, degrees, 1.0) * inverse
    return jnp.where(left, scaled, jnp.where(jnp.outer(free, free), jnp.inf, 0.0))
