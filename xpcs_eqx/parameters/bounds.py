"""Bounds in the ways they are given."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import ModelError


def lower_and_upper(bounds: Any) -> tuple[Any, Any]:
    """Both sides of a pair, or of an object with `lb` and `ub` such as `scipy.optimize.Bounds`.

    **Raises:** `TypeError` or `ValueError` for anything else.
    """
    # Known by its attributes: SciPy need not be imported for it.
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        return bounds.lb, bounds.ub
    lower, upper = bounds
    return lower, upper


def box_of(
    bounds: Any, shape: tuple[int, ...]
) -> tuple[Float[np.ndarray, "variable"], Float[np.ndarray, "variable"]]:
    """Lower and upper bounds of every variable, infinite without bounds.

    - `bounds`: `None`, a pair of numbers or arrays, or `scipy.optimize.Bounds`; a number holds for
        all variables.

    **Raises:** `ModelError` for bounds that are neither, or of another length than the variables.
    """
    lower, upper = (-np.inf, np.inf) if bounds is None else _sides(bounds)
    try:
        sides = [np.broadcast_to(np.asarray(side, dtype=float), shape) for side in (lower, upper)]
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"bounds {lower!r} … {upper!r} are not one number or one for each of {shape[0]} "
            "variables"
        ) from error
    # Copies: bounds that are changed later are not those of this fit.
    return sides[0].copy(), sides[1].copy()


def _sides(bounds):
    try:
        return lower_and_upper(bounds)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"bounds are a pair (lower, upper) or scipy.optimize.Bounds; found {bounds!r}"
        ) from error
