"""A few pairs spread over a map, for start values."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Quantiles of more pairs than this are no better, only slower.
ENOUGH = 100_000


class Sample(NamedTuple):
    """Pairs of all angles in flat arrays: c2, lag [frames], and the angle each belongs to."""

    values: Float[np.ndarray, "pair"]
    lags: Int[np.ndarray, "pair"]
    angles: Int[np.ndarray, "pair"]


def row_step(n: int, enough: float = ENOUGH) -> int:
    """Every how many rows of a map of n frames give about `enough` pairs; all lags stay."""
    return max(1, round(n * (n - 1) / 2 / enough))
