"""Gauss–Newton steps for thousands of parameters: products JᵀJ v, never the matrix."""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from .problem import AbstractProblem
from .steps import AbstractStep, Local, Step, free_to_move, gradient_cosine


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
        free = free_to_move(problem, z, gradient)
        cosine = gradient_cosine(local, free)
        change, reached = conjugate_gradients(
            problem,
            z,
            -gradient,
            local.diagonal,
            free,
            reduction=min(self.forcing, cosine),
            iterations=self.iterations,
            ridge=ridge,
            limit=radius * np.sqrt(max(int(free.sum()), 1)),
        )
        clipped = np.clip(z + change, problem.lower, problem.upper) - z
        product = problem.hessian_vector(z, clipped)
        predicted = -float(gradient @ clipped + 0.5 * clipped @ product)
        length = float(np.sqrt(np.mean(clipped**2)))
        return Step(clipped, predicted, length, reached)


def conjugate_gradients(
    problem: AbstractProblem,
    z: Float[np.ndarray, "p"],
    right: Float[np.ndarray, "p"],
    diagonal: Float[np.ndarray, "p"],
    free: Bool[np.ndarray, "p"],
    *,
    reduction: float,
    iterations: int,
    ridge: float = 0.0,
    limit: float = np.inf,
) -> tuple[Float[np.ndarray, "p"], bool]:
    """Solve (JᵀJ + ridge·diag) s = right in the free variables, by products.

    **Returns:** s, and whether it was ended at the length `limit`.
    """
    # A variable without curvature is left where it is.
    moving = free & (diagonal > 0)
    inverse = np.where(moving, 1.0 / np.where(moving, (1 + ridge) * diagonal, 1.0), 0.0)
    residual = np.where(moving, right, 0.0)
    step = np.zeros_like(residual)
    direction = inverse * residual
    size = float(residual @ direction)
    target = reduction**2 * size
    for _ in range(iterations):
        if size <= target:
            break
        product = problem.hessian_vector(z, direction)
        product = np.where(moving, product + ridge * diagonal * direction, 0.0)
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


def covariance_columns(
    problem: AbstractProblem,
    y: Float[np.ndarray, "p"],
    which: Sequence[int],
    variance: float = 1.0,
    *,
    reduction: float = 1e-8,
    iterations: int = 1000,
) -> Float[np.ndarray, "p chosen"]:
    """Columns of variance·(JᵀJ)⁻¹ for a few of thousands of parameters; at most one pass a product.

    - `y`: the optimum, in the variables of `problem`; those on a bound have no variance.
    - `which`: places of the parameters whose columns are wanted.
    - `variance`: `HybridResult.residual_variance`, or 1 where sigma is absolute.
    - `problem`: that of the fit; for a robust loss the same data under `Linear`, since the errors
        rest on JᵀJ without the factors of the loss.
    - `reduction`: of the residual of each linear system; `iterations`: at most, for each.

    Unlike the covariance from a matrix it cannot tell a direction that the data leave open: there
    the columns depend on `reduction`.
    """
    free = (y > problem.lower) & (y < problem.upper)
    diagonal = problem.diagonal(y)
    columns = []
    for place in which:
        unit = np.zeros_like(y)
        unit[place] = 1.0
        column, _ = conjugate_gradients(
            problem, y, unit, diagonal, free, reduction=reduction, iterations=iterations
        )
        columns.append(variance * column)
    return np.stack(columns, axis=1)


def _to_sphere(
    step: Float[np.ndarray, "p"], direction: Float[np.ndarray, "p"], limit: float
) -> float:
    """The positive multiple of `direction` that takes `step` onto the sphere of radius `limit`."""
    a, b = float(direction @ direction), float(step @ direction)
    c = limit**2 - float(step @ step)
    return c / (b + np.sqrt(b * b + a * c))
