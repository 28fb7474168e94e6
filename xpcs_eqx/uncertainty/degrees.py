"""What residuals can tell of the noise, and when they tell nothing."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from .uncertainty import Uncertainty

NO_DEGREES_OF_FREEDOM = (
    "there are no more points than free parameters, so that nothing is left to tell the errors "
    "from, and they are infinite; give more points, fix a parameter, or give the absolute sigma"
)
NOTHING_HOLDS = (
    "so many residuals are outliers to the robust loss that it does not hold the parameters, and "
    "their errors are infinite; give the loss a larger scale"
)


def residual_variance(sum_of_squares: float, degrees: float) -> float:
    """s² = Σ w r² per degree of freedom; infinite where none is left."""
    return sum_of_squares / degrees if degrees > 0 else np.inf


def reduced_chi2(chi2: float, degrees: float) -> float:
    """χ² per degree of freedom; NaN where none is left, since it says nothing then.

    >>> from xpcs_eqx.uncertainty import reduced_chi2
    >>> reduced_chi2(12.0, 10), reduced_chi2(0.0, 0)
    (1.2, nan)
    """
    return chi2 / degrees if degrees > 0 else np.nan


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


def without_degrees(found: Uncertainty, free: Bool[np.ndarray, "entry"]) -> Uncertainty:
    """Error bars of a fit with no more pairs than free entries: sandwiches rest on residuals.

    What is left are classical ones from a sigma that is known, infinite without it.
    """
    nothing = np.where(free & free[:, None], np.inf, 0.0)
    known = (
        "there are no more pairs than free parameters, so that only the sigma that was given tells "
        "of the errors"
    )
    finite = bool(np.isfinite(found.residual_variance))
    return dataclasses.replace(
        found,
        speckle=nothing,
        dyadic=nothing.copy(),
        chosen="classical",
        reason=known if finite else NO_DEGREES_OF_FREEDOM,
    )
