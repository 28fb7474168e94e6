"""The matrix that says how far a minimum moves: second derivative of the cost, or JᵀJ."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .minimum import AbstractMinimum


class AbstractCurvature(eqx.Module):
    """Which matrix stands for the second derivative of the cost at an optimum."""

    @abstractmethod
    def matrix(
        self, minimum: AbstractMinimum, u: Float[Array, "entry"]
    ) -> Float[Array, "entry entry"]:
        """The matrix at u = (scaling coefficients, physical parameters)."""


class FullCurvature(AbstractCurvature):
    """The second derivative itself: derivatives of a fit are exact, however large its residuals."""

    def matrix(self, minimum, u):
        return minimum.hessian(u)


class GaussNewtonCurvature(AbstractCurvature):
    """JᵀJ: cheaper and never indefinite; off by what residuals times model curvature add up to."""

    def matrix(self, minimum, u):
        equations, _ = minimum.equations(u)
        return equations.hessian


def solve_free(
    matrix: Float[Array, "entry entry"],
    right: Float[Array, "entry column"],
    free: Bool[Array, "entry"],
) -> Float[Array, "entry column"]:
    """matrix⁻¹ · right within the `free` entries and zero elsewhere.

    NaN when the matrix is not positive definite there: the point is no isolated minimum.
    """
    diagonal = jnp.diagonal(matrix)
    # An entry nothing depends on stays where it is.
    free = free & (diagonal != 0)
    unit = jnp.sqrt(jnp.where(free, diagonal, 1.0))
    inside = free[:, None] & free[None, :]
    scaled = jnp.where(inside, matrix / jnp.outer(unit, unit), jnp.eye(matrix.shape[0]))
    scaled_right = jnp.where(free[:, None], right / unit[:, None], 0.0)
    solution = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(scaled), scaled_right)
    return jnp.where(free[:, None], solution / unit[:, None], 0.0)
