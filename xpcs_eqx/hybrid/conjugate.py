"""Gauss–Newton steps for thousands of parameters: products JᵀJ v, never the matrix."""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from .problem import AbstractProblem
from .steps import AbstractStep, Local, Step


class ConjugateStep(AbstractStep):
    """Conjugate gradients with a Jacobi preconditioner, ended where they leave the radius of trust.

    Steihaug, SIAM Journal on Numerical Analysis 20, 626 (1983). The radius is one of the root mean
    square change of the variables. Every iteration is one pass over the data.

    - `forcing`: residual of the linear system relative to the gradient, at most; smaller close to
        the minimum, as the cosine of the gradient falls (Eisenstat & Walker 1996).
    - `iterations`: products for one step, at most.
    """

    forcing: float = 0.1
    iterations: int = eqx.field(static=True, default=200)

    def empty(self, size):
        zero = np.zeros(size)
        return Local(np.asarray(np.inf), zero, zero, None)

    def evaluate(self, problem, z, below):
        cost, gradient = problem.cost_and_gradient(z)
        # A point that will be rejected needs no curvature.
        diagonal = problem.diagonal(z) if cost < below else np.zeros_like(gradient)
        return Local(np.asarray(cost), gradient, diagonal, None)

    def solve(self, problem, z, local, ridge, radius):
        gradient = local.gradient
        free = ~(((z <= problem.lower) & (gradient > 0)) | ((z >= problem.upper) & (gradient < 0)))
        change, reached = self._conjugate(problem, z, local, ridge, radius, free)
        clipped = np.clip(z + change, problem.lower, problem.upper) - z
        product = problem.hessian_vector(z, clipped)
        predicted = -float(gradient @ clipped + 0.5 * clipped @ product)
        length = float(np.sqrt(np.mean(clipped**2)))
        return Step(clipped, predicted, length, reached)

    def _conjugate(
        self,
        problem: AbstractProblem,
        z: Float[np.ndarray, "p"],
        local: Local,
        ridge: float,
        radius: float,
        free: Bool[np.ndarray, "p"],
    ) -> tuple[Float[np.ndarray, "p"], bool]:
        """The step in the free variables, and whether the radius ended it."""
        diagonal = (1 + ridge) * local.diagonal
        # A variable without curvature is left where it is.
        moving = free & (diagonal > 0)
        inverse = np.where(moving, 1.0 / np.where(moving, diagonal, 1.0), 0.0)
        residual = np.where(moving, -local.gradient, 0.0)
        step = np.zeros_like(residual)
        preconditioned = inverse * residual
        direction = preconditioned
        size = float(residual @ preconditioned)
        first = size
        limit = radius * np.sqrt(max(int(moving.sum()), 1))
        closeness = np.sqrt(size / max(2 * float(local.cost), np.finfo(float).tiny))
        target = min(self.forcing, closeness) ** 2 * first
        for _ in range(self.iterations):
            if size <= target:
                break
            product = problem.hessian_vector(z, np.where(moving, direction, 0.0))
            product = np.where(moving, product + ridge * local.diagonal * direction, 0.0)
            curvature = float(direction @ product)
            if not curvature > 0:
                break
            amount = size / curvature
            longer = step + amount * direction
            if np.linalg.norm(longer) >= limit:
                return step + _to_sphere(step, direction, limit) * direction, True
            step = longer
            residual = residual - amount * product
            preconditioned = inverse * residual
            new = float(residual @ preconditioned)
            direction = preconditioned + (new / size) * direction
            size = new
        return step, False


def _to_sphere(
    step: Float[np.ndarray, "p"], direction: Float[np.ndarray, "p"], limit: float
) -> float:
    """The positive multiple of `direction` that takes `step` onto the sphere of radius `limit`."""
    a, b = float(direction @ direction), float(step @ direction)
    c = limit**2 - float(step @ step)
    return c / (b + np.sqrt(b * b + a * c))
