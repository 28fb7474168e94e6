"""Numbers in the fields of solvers."""

from typing import Any

import numpy as np


def as_value(number: Any) -> Any:
    """A number of Python as one of NumPy; anything else as it is.

    That is data to a compiled function, so that another one compiles nothing anew, and can still be
    hashed.
    """
    return np.float64(number) if isinstance(number, float | int) else number
