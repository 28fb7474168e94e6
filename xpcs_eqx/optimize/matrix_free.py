"""The trust region for thousands of variables: products JᵀJ v, never the matrix."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..arguments import check_fields
from ..errors import ModelError
from ..objective import AbstractObjective
from ..parameters import AbstractVariables, PlainVariables
from .bounded_step import held_on_bound
from .convergence import LARGE, Closeness


class GradientEquations(eqx.Module):
    """What is known of a point without JᵀJ: cost, Jᵀr and the diagonal of JᵀJ."""

    cost: Float[Array, ""]
    gradient: Float[Array, "p"]
    diagonal: Float[Array, "p"]

    @property
    def hessian(self) -> None:
        """JᵀJ is not formed."""
        return None

    @classmethod
    def zero(cls, columns: int) -> "GradientEquations":
        """Nothing known yet, in the right shapes."""
        line = jnp.zeros(columns)
        return cls(jnp.zeros(()), line, line)


def gradient_equations(
    objective: AbstractObjective, y: Float[Array, "p"], below: float
) -> GradientEquations:
    """The equations of a point; the diagonal is left at zero unless cost < `below`."""
    cost, gradient = objective.cost_and_gradient(y, objective.memo)
    # A point that will be rejected needs no curvature.
    diagonal = objective.diagonal(y) if float(cost) < below else jnp.zeros_like(gradient)
    return GradientEquations(jnp.asarray(cost), jnp.asarray(gradient), jnp.asarray(diagonal))


class Step(eqx.Module):
    """A step z in scaled coordinates, JᵀJ z, and how near its start is to a minimum."""

    z: Float[Array, "p"]
    curved: Float[Array, "p"]
    closeness: Closeness


class ConjugateGradient(eqx.Module):
    """Conjugate gradients with a Jacobi preconditioner, ended where they leave the trust region.

    Steihaug, SIAM Journal on Numerical Analysis 20, 626 (1983). Damping λ limits a step of
    Levenberg and Marquardt to ‖g‖/λ; that is the radius of the ball here. Every iteration is one
    pass over the data. As `descent` of a `TrustRegion` it runs from Python, for variables that are
    their own coordinates.

    - `forcing`: residual of the linear system relative to the gradient, at most; smaller close to
        the minimum, as the cosine of the gradient falls (Eisenstat & Walker 1996).
    - `iterations`: products for one step, at most.
    """

    forcing: float = 0.1
    iterations: int = eqx.field(static=True, default=200)

    __check_init__ = check_fields

    def step(
        self,
        variables: AbstractVariables,
        y: Float[Array, "p"],
        scale: Float[Array, "p"],
        equations: GradientEquations,
        largest: Float[Array, "p"],
        radius: Float[Array, ""],
        product: Callable[[Float[Array, "p"], Float[Array, "p"]], Float[Array, "p"]],
    ) -> Step:
        """The step from `y` for y + scale·z inside the box; `radius` is 1/λ."""
        place = (y, equations.gradient, variables.lower, variables.upper)
        free = ~np.asarray(held_on_bound(*map(np.asarray, place)))
        gradient = np.where(free, np.asarray(scale * equations.gradient), 0.0)
        diagonal = np.asarray(scale**2 * equations.diagonal)

        def scaled(v):
            return np.asarray(scale * product(y, scale * jnp.asarray(v)))

        length = np.sqrt(max(2 * float(equations.cost), np.finfo(float).tiny))
        column = np.sqrt(np.maximum(diagonal, np.finfo(float).tiny))
        cosine = float(np.max(np.abs(gradient) / column, initial=0.0)) / length
        z, reached = conjugate_gradients(
            scaled,
            -gradient,
            diagonal,
            free,
            reduction=min(self.forcing, cosine),
            iterations=self.iterations,
            limit=float(radius) * float(np.linalg.norm(gradient)),
        )
        moved = np.sqrt(max(-float(gradient @ z), 0.0))
        natural = np.asarray(variables.coordinate_scale / scale)
        here = np.asarray(y / scale)
        size = max(float(np.sum(column * np.abs(here))), np.finfo(float).tiny)
        # A step that ended at the boundary says only that the minimum is further away.
        offset = np.inf if reached else max(moved / length, cosine)
        near = (
            cosine,
            offset,
            moved / size,
            moved > LARGE * (size + float(np.sum(column * natural))),
            np.max(np.abs(z) / (natural + np.abs(here)), initial=0.0),
            np.any((diagonal == 0) & (np.asarray(largest) > 0) & free),
        )
        trial = np.clip(y + scale * z, variables.lower, variables.upper)
        z = np.asarray((trial - y) / scale)
        near = Closeness(*map(jnp.asarray, near))
        return Step(jnp.asarray(z), jnp.asarray(scaled(z)), near)


def check_plain(variables: AbstractVariables) -> None:
    """Raise `ModelError` for variables that have coordinates of their own."""
    if not isinstance(variables, PlainVariables):
        raise ModelError(
            "ConjugateGradient moves variables that are their own coordinates, those of a curve; "
            f"for a {type(variables).__name__} use another descent, damped_newton() for example"
        )


def conjugate_gradients(
    product: Callable[[Float[np.ndarray, "p"]], Float[np.ndarray, "p"]],
    right: Float[np.ndarray, "p"],
    diagonal: Float[np.ndarray, "p"],
    free: Bool[np.ndarray, "p"],
    *,
    reduction: float,
    iterations: int,
    limit: float = np.inf,
) -> tuple[Float[np.ndarray, "p"], bool]:
    """Solve JᵀJ s = right in the free variables, by products.

    **Returns:** s, and whether it was ended at the length `limit`.
    """
    # A variable without curvature is left where it is.
    moving = free & (diagonal > 0)
    inverse = np.where(moving, 1.0 / np.where(moving, diagonal, 1.0), 0.0)
    residual = np.where(moving, right, 0.0)
    step = np.zeros_like(residual)
    direction = inverse * residual
    size = float(residual @ direction)
    target = reduction**2 * size
    for _ in range(iterations):
        if size <= target:
            break
        curved = np.where(moving, product(direction), 0.0)
        curvature = float(direction @ curved)
        if not curvature > 0:
            break
        amount = size / curvature
        longer = step + amount * direction
        if np.linalg.norm(longer) >= limit:
            return step + _to_sphere(step, direction, limit) * direction, True
        step = longer
        residual = residual - amount * curved
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


def covariance_columns(
    objective: AbstractObjective,
    x: Float[np.ndarray, "p"],
    which: Sequence[int],
    variance: float = 1.0,
    *,
    reduction: float = 1e-8,
    iterations: int = 1000,
) -> Float[np.ndarray, "p chosen"]:
    """Columns of variance·(JᵀJ)⁻¹ for a few of thousands of parameters; at most one pass a product.

    - `objective`: that of the fit; for a robust loss the same data under `Linear`, since the errors
        rest on JᵀJ without the factors of the loss.
    - `x`: the optimum; parameters on a bound have no variance.
    - `which`: places of the parameters whose columns are wanted.
    - `variance`: `fit.residual_sd**2`, or 1 where sigma is absolute.
    - `reduction`: of the residual of each linear system; `iterations`: at most, for each.

    Unlike the covariance from a matrix it cannot tell a direction that the data leave open: there
    the columns depend on `reduction`.

    **Raises:** `ModelError` for an objective whose variables have coordinates of their own.
    """
    variables, y = objective.variables, jnp.asarray(x)
    check_plain(variables)
    free = np.asarray((x > np.asarray(variables.lower)) & (x < np.asarray(variables.upper)))
    diagonal = np.asarray(objective.diagonal(y))

    def product(v):
        return np.asarray(objective.product(y, jnp.asarray(v)))

    columns = []
    for place in which:
        unit = np.zeros(y.shape)
        unit[place] = 1.0
        column, _ = conjugate_gradients(
            product, unit, diagonal, free, reduction=reduction, iterations=iterations
        )
        columns.append(variance * column)
    return np.stack(columns, axis=1)
