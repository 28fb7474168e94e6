"""What residuals can tell of the noise, and when they tell nothing."""

import numpy as np
from jaxtyping import Bool, Float

NO_DEGREES_OF_FREEDOM = (
    "there are no more points than free parameters, so that nothing is left to tell the errors "
    "from, and they are infinite; give more points, fix a parameter, or give the absolute sigma"
)


def residual_variance(sum_of_squares: float, degrees: float) -> float:
    """s² = Σ w r² per degree of freedom; infinite where none is left."""
    return sum_of_squares / degrees if degrees > 0 else np.inf


def scaled_inverse(
    inverse: Float[np.ndarray, "entry entry"],
    variance: float,
    free: Bool[np.ndarray, "entry"],
    unknown: Bool[np.ndarray, "entry"],
) -> Float[np.ndarray, "entry entry"]:
    """The covariance `variance`·`inverse`: zero where not free, infinite variances where unknown.

    With an infinite `variance` it is infinite for all free entries, as SciPy has it.
    """
    if not np.isfinite(variance):
        return np.where(free & free[:, None], np.inf, 0.0)
    covariance = variance * inverse
    covariance[unknown, unknown] = np.inf
    return covariance
