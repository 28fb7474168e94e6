"""A step inside a box from any descent of Optimistix."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float

from ..parameters import AbstractVariables, snap


class StepProblem(eqx.Module):
    """The quadratic model in scaled coordinates z and what the box means for it.

    δx ≈ `push` z is the change of the physical variables; `below` and `above` are the distances
    to the bounds (`below` ≤ 0 ≤ `above`); `held` marks variables on a bound that the gradient
    keeps there.
    """

    cost: Float[Array, ""]
    gradient: Float[Array, "p"]
    hessian: Float[Array, "p p"]
    push: Float[Array, "p p"]
    below: Float[Array, "p"]
    above: Float[Array, "p"]
    held: Bool[Array, "p"]


def held_on_bound(
    x: Float[Array | np.ndarray, "p"],
    gradient: Float[Array | np.ndarray, "p"],
    lower: Float[Array | np.ndarray, "p"],
    upper: Float[Array | np.ndarray, "p"],
) -> Bool[Array | np.ndarray, "p"]:
    """Which variables are on a bound that the gradient by them keeps there."""
    return ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0))


def function_info(
    cost: Float[Array, ""], gradient: Float[Array, "p"], hessian: Float[Array, "p p"]
) -> Any:
    """A quadratic model in the words of Optimistix."""
    operator = lx.MatrixLinearOperator(hessian, lx.positive_semidefinite_tag)
    return optx.FunctionInfo.EvalGradHessian(cost, gradient, operator)


def step_problem(
    variables: AbstractVariables, y: Float[Array, "p"], scale: Float[Array, "p"], equations: Any
) -> StepProblem:
    """The model at `y` for y = y_here + scale·z."""
    x = snap(variables, variables.to_physical(y))
    jacobian = jax.jacfwd(variables.to_physical)(y)
    below = jnp.minimum(variables.lower - x, 0.0)
    above = jnp.maximum(variables.upper - x, 0.0)
    slope = jnp.linalg.solve(jacobian.T, equations.gradient)
    return StepProblem(
        equations.cost,
        scale * equations.gradient,
        equations.hessian * jnp.outer(scale, scale),
        jacobian * scale,
        below,
        above,
        jnp.asarray(held_on_bound(x, slope, variables.lower, variables.upper)),
    )


def _restrict(problem: StepProblem, fixed, target):
    """Projector on the directions that leave `fixed` variables alone, and the step to `target`."""
    norm = jnp.linalg.norm(problem.push, axis=1)
    norm = jnp.where(norm > 0, norm, 1.0)
    rows = jnp.where(fixed[:, None], problem.push / norm[:, None], 0.0)
    gram = rows @ rows.T + jnp.diag(jnp.where(fixed, 1e-14, 1.0))
    pinv = jnp.linalg.solve(gram, rows).T
    shift = pinv @ jnp.where(fixed, target / norm, 0.0)
    p = norm.shape[0]
    return jnp.eye(p) - pinv @ rows, shift


def free_directions(problem: StepProblem) -> Float[Array, "p p"]:
    """Projector in z on the directions that held variables allow."""
    return _restrict(problem, problem.held, jnp.zeros_like(problem.below))[0]


def bounded_step(
    descent: optx.AbstractDescent, problem: StepProblem, step_size: Float[Array, ""]
) -> tuple[Float[Array, "p"], Bool[Array, "p"], Float[Array, "p"]]:
    """The descent's step, with variables it would push out of the box put on their bound.

    Variables that a step would carry beyond a bound join the fixed ones and the descent is asked
    again for the rest, until none is left: at most p rounds.

    **Returns:** the step in z, which variables are fixed, and their change in x.
    """
    p = problem.gradient.shape[0]
    zero = jnp.zeros((p,), problem.gradient.dtype)

    def solve(fixed, target):
        project, shift = _restrict(problem, fixed, target)
        gradient = project @ (problem.gradient + problem.hessian @ shift)
        # Unit curvature on the excluded directions keeps the matrix definite; the gradient there
        # is zero, so nothing moves along them.
        hessian = project @ problem.hessian @ project + jnp.eye(p) - project
        hessian = 0.5 * (hessian + hessian.T)
        info = function_info(problem.cost, gradient, hessian)
        state = descent.init(zero, jax.eval_shape(lambda: info))
        state = descent.query(zero, info, state)
        step, _ = descent.step(step_size, state)
        return shift + project @ step.astype(zero.dtype)

    def violated(step, fixed):
        change = problem.push @ step
        low = ~fixed & (change < problem.below)
        high = ~fixed & (change > problem.above)
        return low, high

    def body(carry):
        step, fixed, target, _ = carry
        low, high = violated(step, fixed)
        target = jnp.where(low, problem.below, jnp.where(high, problem.above, target))
        fixed = fixed | low | high
        step = solve(fixed, target)
        low, high = violated(step, fixed)
        return step, fixed, target, jnp.any(low | high)

    # The first round has nothing violated and only solves, so the descent is compiled once.
    start = (zero, problem.held, zero, jnp.asarray(True))
    step, fixed, target, _ = jax.lax.while_loop(lambda carry: carry[3], body, start)
    return step, fixed, target


def move(
    variables: AbstractVariables,
    y: Float[Array, "p"],
    change: Float[Array, "p"],
    fixed: Bool[Array, "p"],
    target: Float[Array, "p"],
) -> Float[Array, "p"]:
    """y + change, with x clipped to the box and fixed variables exactly where they should be."""
    x = variables.to_physical(y)
    wanted = y + change
    free_x = variables.to_physical(wanted)
    bounded = jnp.clip(free_x, variables.lower, variables.upper)
    # A fixed variable that was sent to a bound lands on it without rounding.
    landed = x + target
    landed = jnp.where(target < 0, variables.lower, jnp.where(target > 0, variables.upper, landed))
    new_x = jnp.where(fixed, landed, bounded)
    return jnp.where(jnp.any(new_x != free_x), variables.to_coordinates(new_x), wanted)
