"""What a solver must know of its variables: bounds, natural steps, and coordinates."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Float

from ..compiling import plain_jit
from ..errors import ModelError


def box_of(
    bounds: Any, shape: tuple[int, ...]
) -> tuple[Float[np.ndarray, "variable"], Float[np.ndarray, "variable"]]:
    """Lower and upper bounds of every variable, infinite without bounds.

    - `bounds`: `None`, a pair of numbers or arrays, or `scipy.optimize.Bounds`; a number holds for
        all variables.

    **Raises:** `ModelError` for bounds that are neither, or of another length than the variables.
    """
    lower, upper = -np.inf, np.inf
    try:
        # Known by its attributes: SciPy need not be imported for it.
        if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
            lower, upper = bounds.lb, bounds.ub
        elif bounds is not None:
            lower, upper = bounds
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"bounds are a pair (lower, upper) or scipy.optimize.Bounds; found {bounds!r}"
        ) from error
    try:
        sides = [np.broadcast_to(np.asarray(side, dtype=float), shape) for side in (lower, upper)]
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"bounds {lower!r} … {upper!r} are not one number or one for each of {shape[0]} "
            "variables"
        ) from error
    # Copies: bounds that are changed later are not those of this fit.
    return sides[0].copy(), sides[1].copy()


class AbstractVariables(eqx.Module):
    """Variables x inside a box, and the coordinates y in which a solver takes its steps.

    `lower`, `upper` bound x; `coordinate_scale` is a natural step of each coordinate.
    """

    lower: AbstractVar[Float[Array | np.ndarray, "variable"]]
    upper: AbstractVar[Float[Array | np.ndarray, "variable"]]
    coordinate_scale: AbstractVar[Float[Array | np.ndarray, "variable"]]

    @abstractmethod
    def to_physical(self, y: Float[Array, "variable"]) -> Float[Array, "variable"]:
        """x from y."""

    @abstractmethod
    def to_coordinates(self, x: Float[Array, "variable"]) -> Float[Array, "variable"]:
        """y from x; NaN where x has no coordinates."""


class PlainVariables(AbstractVariables):
    """Variables that are their own coordinates."""

    lower: Float[Array | np.ndarray, "variable"]
    upper: Float[Array | np.ndarray, "variable"]
    coordinate_scale: Float[Array | np.ndarray, "variable"]

    def to_physical(self, y):
        return y

    def to_coordinates(self, x):
        return x


def unbounded(start: Float[Array | np.ndarray, "variable"]) -> PlainVariables:
    """Plain variables without bounds, with natural steps from the start values."""
    start = jnp.asarray(start)
    infinity = jnp.full_like(start, jnp.inf)
    return PlainVariables(-infinity, infinity, jnp.where(start == 0, 1.0, jnp.abs(start)))


def snap(
    variables: AbstractVariables, x: Float[Array | np.ndarray, "variable"]
) -> Float[Array | np.ndarray, "variable"]:
    """x clipped to the box, with values that rounding left beside a bound put on it.

    Rounding goes by the size of the numbers, |x − bound| ≤ 10⁻¹² |bound|, or by that of a natural
    step where the bound is zero, never by the distance between two bounds.
    """
    low, high = jnp.asarray(variables.lower), jnp.asarray(variables.upper)
    scale = jnp.asarray(variables.coordinate_scale)
    floor = jnp.finfo(jnp.result_type(float)).eps * scale

    def near(bound):
        # An infinite bound is near nothing, although ∞ <= ∞.
        return jnp.isfinite(bound) & (jnp.abs(x - bound) <= 1e-12 * jnp.abs(bound) + floor)

    return jnp.where(near(low), low, jnp.where(near(high), high, jnp.clip(x, low, high)))


@plain_jit
def coordinates_of(variables, x):
    """Coordinates of physical variables, compiled once for whoever asks from Python."""
    return variables.to_coordinates(x)


@plain_jit
def with_slopes(variables, y):
    """Physical variables of coordinates, on a bound where they are near it, and derivatives."""
    return snap(variables, variables.to_physical(y)), jax.jacfwd(variables.to_physical)(y)


@plain_jit
def physical_of(variables, y):
    """Physical variables of coordinates, inside their bounds."""
    return jnp.clip(variables.to_physical(y), variables.lower, variables.upper)
