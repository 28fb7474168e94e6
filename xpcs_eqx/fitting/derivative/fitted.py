"""Fits as differentiable functions: the implicit function theorem at the optimum."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...errors import ModelError
from ...objective import AbstractPieces, Linear, TwoTimeObjective, check_one_data_set
from ...optimize import TrustRegion, iterate_compiled
from ...parameters import snap
from ...physics import AbstractCorrelation
from ...scaling import IndexMap, index_map
from .curvature import (
    AbstractCurvature,
    FullCurvature,
    equations_at,
    last_equations,
    mean_curvature_at,
    solve_free,
)
from .stationarity import Problem, physical_problem, stationarity, total_cost
from .tile_sum import filled


class FittedValues(eqx.Module):
    """What a fit found, as arrays that carry derivatives.

    - `values`: the flat vector, laid out by `index` (scaling coefficients, free parameters), in
        the units of the parameters.
    - `model`: the model at the optimum, fixed and tied parameters included.
    - `contrast`, `offset`: scaling by angle.
    - `cost`: the minimised cost, penalties and robust loss included.
    - `status`: a `Status` as an integer, positive when converged.
    - `at_bound`: which entries of `values` lie on a bound.
    """

    values: Float[Array, "entry"]
    model: AbstractCorrelation
    contrast: Float[Array, "angle"]
    offset: Float[Array, "angle"]
    cost: Float[Array, ""]
    status: Int[Array, ""]
    at_bound: Bool[Array, "entry"]
    index: IndexMap

    def __getitem__(self, name: str) -> Float[Array, ""]:
        """A free parameter or a scaling coefficient by name.

        **Raises:** `ModelError` listing the names there are.
        """
        return self.values[..., self.index.index(name)]


def _on_bound(problem: Problem, u):
    return (u <= problem.lower) | (u >= problem.upper)


@eqx.filter_custom_jvp
def _minimum(objective, *, start, solver, curvature):
    """The optimum in the layout of `IndexMap` and the status of the solver."""
    del curvature
    # Nobody sees the history, which would be carried through every step of a batch.
    state = iterate_compiled(dataclasses.replace(solver, recorded=1), objective, start)
    problem = physical_problem(objective)
    memo, p = state.memo, objective.term.parameters.n_free
    x = snap(objective.variables, objective.variables.to_physical(state.y))[:p]
    u = jnp.concatenate([jnp.clip(memo.coefficients, *objective.term.scaling.bounds), x])
    # Solvers stop where the cost no longer tells two points apart; the gradient still does. The
    # equations at the last point are there, so a last step costs no pass over the data.
    equations = last_equations(problem, objective.term.parameters, state.y[:p], memo)
    step = solve_free(equations.hessian, equations.gradient[:, None], ~_on_bound(problem, u))
    better = u - step[:, 0]
    inside = (better > problem.lower) & (better < problem.upper)
    sound = (state.status > 0) & jnp.all(jnp.isfinite(step)) & jnp.all(inside | (better == u))
    return jnp.where(sound, better, u), state.status


@_minimum.def_jvp
def _minimum_jvp(primals, tangents, *, start, solver, curvature):
    (objective,), (moving,) = primals, tangents
    u, status = _minimum(objective, start=start, solver=solver, curvature=curvature)

    def condition(objective):
        problem = physical_problem(objective)
        # Where an entry is held, it moves with its bound.
        bound = jnp.where(
            u <= problem.lower, problem.lower, jnp.where(u >= problem.upper, problem.upper, 0.0)
        )
        return stationarity(problem, u), bound

    _, tangent = eqx.filter_jvp(condition, (objective,), (moving,))
    slope, bound = filled((jnp.zeros_like(u), jnp.zeros_like(u)), tangent)
    problem = physical_problem(objective)
    free = ~_on_bound(problem, u)
    matrix = curvature.matrix(problem, u)
    slope = slope + matrix @ bound
    change = bound - solve_free(matrix, slope[:, None], free)[:, 0]
    # What is no minimum has no derivative: a factor, since `where` would transpose to zeros.
    change = change * jnp.where(status > 0, 1.0, jnp.nan)
    return (u, status), (change, None)


def _fitted(objective, start, solver, curvature):
    u, status = _minimum(objective, start=start, solver=solver, curvature=curvature)
    problem = physical_problem(objective)
    term = objective.term
    c, x = problem.split(u)
    per_angle = term.scaling.per_angle(c)
    return FittedValues(
        values=u,
        model=term.parameters.build(x),
        contrast=per_angle[:, 0],
        offset=per_angle[:, 1],
        cost=total_cost(problem, u),
        status=status,
        at_bound=_on_bound(problem, u),
        index=index_map(term.scaling, term.parameters.free_names),
    )


_fitted_compiled = eqx.filter_jit(_fitted)


def fitted(
    objective: TwoTimeObjective,
    start: Float[Array, "variable"] | None = None,
    *,
    solver: TrustRegion | None = None,
    curvature: AbstractCurvature | None = None,
) -> FittedValues:
    """Fit an objective, as a differentiable function of everything in it.

    Every floating array of `objective` may be differentiated by: maps, weights, frame times,
    geometry, fixed parameters, penalties, the scale of a loss, a fixed scaling. `with_values`
    replaces them by name. Works under `jax.jit` and `jax.vmap`, in forward and in reverse mode;
    derivatives come from the implicit function theorem at the optimum and cost a few passes over
    the data, however many iterations the fit took. No recovery from failures is attempted.

    An entry on a bound does not move, except with the bound. A fit that did not converge returns
    its `status` and has derivatives NaN.

    **Arguments:**

    - `objective`: from `projected_objective` or `two_time_objective`.
    - `start`: physical start values of the variables; by default the objective's own.
    - `solver`: a `TrustRegion`.
    - `curvature`: `FullCurvature` (default) or `GaussNewtonCurvature`.

    **Raises:** `ModelError` for an objective of several data sets or whose sum is a loop in
    Python, or a start of the wrong shape.
    """
    check_one_data_set(objective, "a differentiable fit")
    if not objective.traceable:
        stored = isinstance(objective.term.tiles, AbstractPieces)
        raise ModelError(
            f"a differentiable fit is compiled as a whole, which the driver "
            f"{type(objective.term.driver).__name__} does not allow; "
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
    solver = TrustRegion() if solver is None else solver
    curvature = FullCurvature() if curvature is None else curvature
    begin, solver = _constant(begin), _constant(solver)
    return _fitted_compiled(objective, begin, solver, curvature)


def _constant(tree: Any) -> Any:
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


def classical_covariance(
    objective: TwoTimeObjective, values: Float[Array, "entry"]
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
    problem = physical_problem(objective)
    free = ~_on_bound(problem, u)
    if not isinstance(problem.loss, Linear):
        curvature, variance = mean_curvature_at(problem, u, jnp.sum(free))
        return variance * solve_free(curvature, jnp.eye(u.shape[0]), free)
    equations, data_cost = equations_at(problem, u)
    inverse = solve_free(equations.hessian, jnp.eye(u.shape[0]), free)
    if objective.term.absolute_sigma:
        return inverse
    degrees = equations.count - jnp.sum(free)
    left = degrees > 0
    scaled = 2 * data_cost / jnp.where(left, degrees, 1.0) * inverse
    return jnp.where(left, scaled, jnp.where(jnp.outer(free, free), jnp.inf, 0.0))
