"""Contrast and offset inside the normal equations: moved, assembled, eliminated exactly.

Per angle the columns are (coordinates for contrast 1, contrast, offset). Contrast and offset are
linear, so the equations at one scaling give those at any other without touching the data
(variable projection: Golub & Pereyra 1973; with Kaufman's 1975 simplification of the derivative).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..parameters import ParameterMap
from ..scaling import AbstractScaling
from .equations import NormalEquations
from .penalties import (
    AbstractPenalty,
    AbstractScalingPenalty,
    penalty_equations,
    scaling_penalty_equations,
)


def move_scaling(
    equations: NormalEquations,
    reference: Float[Array, "angle 2"],
    scaling: Float[Array, "angle 2"],
) -> NormalEquations:
    """Equations at another (contrast, offset) for a linear loss, columns still for contrast 1.

    With the step s, the gradient g and JᵀJ = H, of which S are the two columns of the scaling:
    g(s) = g + S s and cost(s) = cost + sᵀg + ½ sᵀH s, exactly, for residuals are linear in s.
    """
    step = scaling - reference
    curvature = jnp.einsum("ast,at->as", equations.hessian[:, -2:, -2:], step)
    slope = equations.gradient[:, -2:]
    cost = equations.cost + jnp.sum(step * (slope + 0.5 * curvature), axis=1)
    gradient = equations.gradient + jnp.einsum("acs,as->ac", equations.hessian[:, :, -2:], step)
    # Rounding must not turn a vanishing cost negative.
    return NormalEquations(jnp.maximum(cost, 0.0), gradient, equations.hessian, equations.count)


def joint_equations(
    equations: NormalEquations, contrast: Float[Array, "angle"], scaling: AbstractScaling
) -> NormalEquations:
    """Equations summed over angles for (coordinates, scaling coefficients)."""
    basis, gradient, hessian = scaling.basis, equations.gradient, equations.hessian
    # Block by block: with a scaling of its own for each of many angles, the equations of all angles
    # in all columns would be the largest array of a fit.
    physical = jnp.einsum("a,ac->c", contrast, gradient[:, :-2])
    linear = jnp.einsum("ask,as->k", basis, gradient[:, -2:])
    square = jnp.einsum("a,acd->cd", contrast**2, hessian[:, :-2, :-2])
    cross = jnp.einsum("acs,ask->ck", contrast[:, None, None] * hessian[:, :-2, -2:], basis)
    scaled = jnp.einsum("ast,atl->asl", hessian[:, -2:, -2:], basis)
    block = jnp.einsum("ask,asl->kl", basis, scaled)
    return NormalEquations(
        jnp.sum(equations.cost),
        jnp.concatenate([physical, linear]),
        jnp.block([[square, cross], [cross.T, block]]),
        jnp.sum(equations.count),
    )


def solve_scaling(
    equations: NormalEquations,
    reference: Float[Array, "angle 2"],
    scaling: AbstractScaling,
    penalty: Callable[[Float[Array, "coefficient"]], NormalEquations] | None = None,
) -> tuple[Float[Array, "coefficient"], Bool[Array, "coefficient"]]:
    """Best coefficients inside their bounds at fixed physics, and which are on a bound.

    The minimum over k of Σ_a (½ v_aᵀH_a v_a + g_aᵀv_a), v_a = constant_a + basis_a k − reference_a
    being the change of (contrast, offset) at angle a.

    `penalty` gives the equations of a further quadratic term at given coefficients.
    """
    basis = scaling.basis
    start = scaling.constant - reference
    block = equations.hessian[:, -2:, -2:]
    hessian = jnp.einsum("ask,ast,atl->kl", basis, block, basis)
    slope = equations.gradient[:, -2:] + jnp.einsum("ast,at->as", block, start)
    gradient = jnp.einsum("ask,as->k", basis, slope)
    # Solved for the change from where the reference is, which keeps a direction without
    # information at its reference value.
    origin = scaling.from_per_angle(reference)
    gradient = gradient + hessian @ origin
    if penalty is not None:
        more = penalty(origin)
        hessian, gradient = hessian + more.hessian, gradient + more.gradient
    lower, upper = scaling.bounds
    change, held = minimise_in_box(hessian, gradient, lower - origin, upper - origin)
    return jnp.clip(origin + change, lower, upper), held


def assemble(
    equations: NormalEquations,
    y: Float[Array, "free"],
    coefficients: Float[Array, "coefficient"],
    parameters: ParameterMap,
    scaling: AbstractScaling,
    penalties: tuple[AbstractPenalty, ...],
    scaling_penalties: tuple[AbstractScalingPenalty, ...],
    noise: Float[Array, ""],
) -> tuple[NormalEquations, NormalEquations]:
    """Equations of (coordinates, scaling coefficients): of the data, and of the penalties.

    **Arguments:**

    - `equations`: of each angle for (coordinates at contrast 1, contrast, offset), at `y` and at
        the scaling that the coefficients make.
    - `parameters`: the map whose coordinates `y` are.
    """
    p, k = y.shape[0], coefficients.shape[0]
    joint = joint_equations(equations, scaling.per_angle(coefficients)[:, 0], scaling)
    added = NormalEquations.zero(p + k, dtype=joint.cost.dtype)
    if penalties:
        own = penalty_equations(penalties, parameters, y, noise)
        added = added + own.transform(jnp.eye(p, p + k))
    if scaling_penalties:
        own = scaling_penalty_equations(scaling_penalties, scaling, coefficients)
        added = added + own.transform(jnp.eye(k, p + k, p))
    return joint, added


def index_layout(
    parameters: ParameterMap, y: Float[Array, "free"], size: int
) -> Float[Array, "entry entry"]:
    """d(y, coefficients)/d(coefficients, x): from the columns of `assemble` to an `IndexMap`.

    `size` is the number of scaling coefficients.
    """
    p = y.shape[0]
    turn = jnp.zeros((p + size, p + size), y.dtype)
    if p:
        turn = turn.at[:p, size:].set(jnp.linalg.inv(jax.jacfwd(parameters.to_physical)(y)))
    return turn.at[p:, :size].set(jnp.eye(size))


def eliminate(
    equations: NormalEquations, columns: int, held: Bool[Array, "coefficient"]
) -> NormalEquations:
    """Schur complement on the first `columns` columns; entries `held` on a bound do not move.

    With y the columns kept and c the others: H = H_yy − H_yc H_cc⁻¹ H_cy and
    g = g_y − H_yc H_cc⁻¹ g_c, the equations of the cost minimised over c.
    """
    gradient, hessian = equations.gradient, equations.hessian
    if gradient.shape[0] == columns:
        return equations
    free = ~held
    block = hessian[columns:, columns:]
    block = jnp.where(free[:, None] & free[None, :], block, 0.0)
    block = regularised(block + jnp.diag(jnp.where(free, 0.0, 1.0)))
    cross = jnp.where(free[None, :], hessian[:columns, columns:], 0.0)
    rest = jnp.where(free, gradient[columns:], 0.0)
    solved = _solve_definite(block, jnp.concatenate([cross.T, rest[:, None]], axis=1))
    return NormalEquations(
        equations.cost - 0.5 * rest @ solved[:, -1],
        gradient[:columns] - cross @ solved[:, -1],
        hessian[:columns, :columns] - cross @ solved[:, :-1],
        equations.count,
    )


def _solve_definite(matrix, right):
    """By Cholesky's method, in units in which the diagonal is one."""
    scale = jnp.sqrt(jnp.diagonal(matrix))
    factor = jax.scipy.linalg.cho_factor(matrix / jnp.outer(scale, scale))
    return (jax.scipy.linalg.cho_solve(factor, (right.T / scale).T).T / scale).T


def regularised(hessian: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """A matrix with a ridge at rounding level, so that a column of zeros is no division by zero.

    The ridge of an entry is relative to its own diagonal: units of the variables do not matter.
    """
    diagonal = jnp.diagonal(hessian)
    size = jnp.where(diagonal > 0, diagonal, jnp.max(diagonal, initial=0.0))
    return hessian + jnp.diag(1e-14 * size + jnp.finfo(hessian.dtype).tiny)


def minimise_in_box(
    hessian: Float[Array, "k k"],
    gradient: Float[Array, "k"],
    lower: Float[Array, "k"],
    upper: Float[Array, "k"],
) -> tuple[Float[Array, "k"], Bool[Array, "k"]]:
    """Minimise gᵀx + ½xᵀHx over lower ≤ x ≤ upper; returns x and which entries are on a bound.

    Block principal pivoting with Murty's single exchange as the fallback, which ends for every
    positive definite H: Júdice & Pires, Computers & Operations Research 21, 587 (1994).
    """
    k = gradient.shape[0]
    if k == 0:
        return gradient, jnp.zeros((0,), bool)
    hessian = regularised(hessian)
    scale = jnp.sqrt(jnp.diagonal(hessian))
    index = jnp.arange(k)

    def solve(side, hessian, gradient, lower, upper):
        free = side == 0
        held = jnp.where(side < 0, lower, jnp.where(side > 0, upper, 0.0))
        matrix = jnp.where(free[:, None] & free[None, :], hessian, jnp.diag(scale**2))
        matrix = jnp.where(jnp.eye(k, dtype=bool) | (free[:, None] & free[None, :]), matrix, 0.0)
        right = jnp.where(free, -gradient - hessian @ held, held * scale**2)
        return jnp.where(free, _solve_definite(matrix, right), held)

    # Which bounds are active is found on constants; the solution for them is differentiable.
    fixed = jax.lax.stop_gradient((hessian, gradient, lower, upper))
    scale = jax.lax.stop_gradient(scale)

    def pivot(side):
        x = solve(side, *fixed)
        slope = fixed[0] @ x + fixed[1]
        free = side == 0
        low = free & (x < fixed[2])
        high = free & (x > fixed[3])
        release = ((side < 0) & (slope < 0)) | ((side > 0) & (slope > 0))
        # Equal bounds leave nothing to release.
        release = release & (fixed[2] < fixed[3])
        return jnp.where(low, -1, jnp.where(high, 1, jnp.where(release, 0, side)))

    def body(carry):
        side, fewest, patience, step, _ = carry
        target = pivot(side)
        wrong = target != side
        count = jnp.sum(wrong)
        better = count < fewest
        block = better | (patience > 0)
        patience = jnp.where(better, 3, patience - 1)
        last = jnp.max(jnp.where(wrong, index, -1))
        single = jnp.where(index == last, target, side)
        side = jnp.where(block, target, single)
        return side, jnp.minimum(count, fewest), patience, step + 1, count == 0

    def unfinished(carry):
        return ~carry[4] & (carry[3] < 20 + 10 * k)

    integers = (jnp.zeros((k,), int), jnp.asarray(k + 1), jnp.asarray(3), jnp.asarray(0))
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), integers)
    side = jax.lax.while_loop(unfinished, body, (*start, jnp.asarray(False)))[0]
    x = solve(side, hessian, gradient, lower, upper)
    return jnp.clip(x, lower, upper), side != 0
