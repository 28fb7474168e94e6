"""Units in which the warm-up measures variables, from their bounds and start values."""

import numpy as np
from jaxtyping import Float

from ..errors import ModelError

Vector = Float[np.ndarray, "variable"]


def by_bounds(lower: Vector, upper: Vector, start: Vector, names: tuple[str, ...]) -> Vector:
    """The width of the bounds.

    **Raises:** `ModelError` for a variable without two finite bounds.
    """
    width = _width(lower, upper)
    missing = np.flatnonzero(~np.isfinite(width))
    if missing.size:
        raise ModelError(
            f"{names[missing[0]]} has no finite bounds to be measured by; give both or use "
            "by_start or automatic"
        )
    return width


def by_start(lower: Vector, upper: Vector, start: Vector, names: tuple[str, ...]) -> Vector:
    """|start|; one for a variable that starts at zero, which says nothing about its size."""
    return np.where(start == 0, 1.0, np.abs(start))


def as_given(lower: Vector, upper: Vector, start: Vector, names: tuple[str, ...]) -> Vector:
    """One: variables are measured in the unit that they have."""
    return np.ones_like(start)


def automatic(lower: Vector, upper: Vector, start: Vector, names: tuple[str, ...]) -> Vector:
    """The smaller of |start| and the width of the bounds: a box may be there for its own sake.

    One for a variable that starts at zero and has no finite bounds.
    """
    size = np.where(start == 0, np.inf, np.abs(start))
    found = np.minimum(size, _width(lower, upper))
    return np.where(np.isfinite(found), found, 1.0)


def _width(lower, upper):
    with np.errstate(invalid="ignore"):
        return upper - lower
