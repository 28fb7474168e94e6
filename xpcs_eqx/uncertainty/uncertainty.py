"""Error bars of a fit as one value, and when residuals tell nothing of them."""

import dataclasses

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

NO_DEGREES_OF_FREEDOM = (
    "there are no more points than free parameters, so that nothing is left to tell the errors "
    "from, and they are infinite; give more points, fix a parameter, or give the absolute sigma"
)
NOTHING_HOLDS = (
    "so many residuals are outliers to the robust loss that it does not hold the parameters, and "
    "their errors are infinite; give the loss a larger scale"
)


class Uncertainty(eqx.Module):
    """Three covariances of the flat vector (see `IndexMap`), and which of them is quoted.

    - `classical`: s²(JᵀJ)⁻¹ as if the pairs were independent; absolute when sigma was given.
    - `speckle`: sandwich with the covariance of intensity correlations (default).
    - `dyadic`: sandwich with scores summed by shared frame, model-free.
    - `chosen`: name of the quoted one, `reason` says why.

    Entries held on a bound have zero variance; directions the data do not determine have infinite
    variance.
    """

    classical: Float[np.ndarray, "entry entry"]
    speckle: Float[np.ndarray, "entry entry"]
    dyadic: Float[np.ndarray, "entry entry"]
    residual_variance: Float[np.ndarray, ""]
    condition_number: Float[np.ndarray, ""]
    n_pixels: Float[np.ndarray, "angle"]
    shot_noise: Float[np.ndarray, "angle"]
    chosen: str = eqx.field(static=True)
    reason: str = eqx.field(static=True)
    weak_directions: tuple[str, ...] = eqx.field(static=True)

    @property
    def formed(self) -> bool:
        """Whether there is a covariance: none is formed for thousands of parameters of a curve."""
        return not np.isnan(self.covariance[:1, :1]).any()

    @property
    def covariance(self) -> Float[np.ndarray, "entry entry"]:
        """The quoted covariance."""
        return getattr(self, self.chosen)

    def errors(self, kind: str | None = None) -> Float[np.ndarray, "entry"]:
        """Standard errors of the quoted covariance, or of `kind`."""
        variance = np.diagonal(getattr(self, kind or self.chosen))
        # A sandwich of few data may leave a variance below zero: nothing is known then.
        return np.sqrt(np.where(variance < 0, np.inf, variance))

    def correlation(self, kind: str | None = None) -> Float[np.ndarray, "entry entry"]:
        """Correlation matrix; zero where an entry has no finite, positive variance."""
        matrix = getattr(self, kind or self.chosen)
        errors = self.errors(kind)
        known = np.isfinite(errors) & (errors > 0)
        safe = np.where(known, errors, 1.0)
        both = known[:, None] & known[None, :]
        return np.where(both, np.where(both, matrix, 0.0) / np.outer(safe, safe), 0.0)


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
