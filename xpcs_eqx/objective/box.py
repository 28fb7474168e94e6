"""Strictly convex quadratics under bounds, small enough to solve exactly."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def regularised(hessian: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """A matrix with a ridge at rounding level, so that a column of zeros is no division by zero."""
    k = hessian.shape[-1]
    ridge = 1e-14 * jnp.max(jnp.diagonal(hessian), initial=0.0) + jnp.finfo(hessian.dtype).tiny
    return hessian + ridge * jnp.eye(k, dtype=hessian.dtype)


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
        factor = jax.scipy.linalg.cho_factor(matrix / jnp.outer(scale, scale))
        x = jax.scipy.linalg.cho_solve(factor, right / scale) / scale
        return jnp.where(free, x, held)

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
