"""Contrast and offset inside the normal equations: moved, assembled, eliminated exactly.

Per angle the columns are (coordinates for contrast 1, contrast, offset). Contrast and offset are
linear, so the equations at one scaling give those at any other without touching the data
(variable projection: Golub & Pereyra 1973; with Kaufman's 1975 simplification of the derivative).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..scaling import AbstractScaling
from .box import minimise_in_box, regularised
from .normal_equations import NormalEquations


def move_scaling(
    equations: NormalEquations,
    reference: Float[Array, "angle 2"],
    scaling: Float[Array, "angle 2"],
) -> NormalEquations:
    """Equations at another (contrast, offset) for a linear loss, columns still for contrast 1."""
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


def eliminate(
    equations: NormalEquations, columns: int, held: Bool[Array, "coefficient"]
) -> NormalEquations:
    """Schur complement on the first `columns` columns; entries `held` on a bound do not move."""
    gradient, hessian = equations.gradient, equations.hessian
    if gradient.shape[0] == columns:
        return equations
    free = ~held
    block = hessian[columns:, columns:]
    block = jnp.where(free[:, None] & free[None, :], block, 0.0)
    block = regularised(block + jnp.diag(jnp.where(free, 0.0, 1.0)))
    cross = jnp.where(free[None, :], hessian[:columns, columns:], 0.0)
    rest = jnp.where(free, gradient[columns:], 0.0)
    scale = jnp.sqrt(jnp.diagonal(block))
    factor = jax.scipy.linalg.cho_factor(block / jnp.outer(scale, scale))
    solved = jax.scipy.linalg.cho_solve(
        factor, jnp.concatenate([cross.T, rest[:, None]], axis=1) / scale[:, None]
    )
    left = cross / scale
    return NormalEquations(
        equations.cost - 0.5 * rest / scale @ solved[:, -1],
        gradient[:columns] - left @ solved[:, -1],
        hessian[:columns, :columns] - left @ solved[:, :-1],
        equations.count,
    )
