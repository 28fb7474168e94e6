"""Error bars of a fit as one value."""

import equinox as eqx
import numpy as np
from jaxtyping import Float


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
