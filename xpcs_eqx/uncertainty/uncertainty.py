"""Error bars of a fit as one value."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class Uncertainty(eqx.Module):
    """Three covariances of the flat vector (see `IndexMap`), and which of them is quoted.

    - `classical`: s²(JᵀJ)⁻¹ as if the pairs were independent; absolute when sigma was given.
    - `speckle`: sandwich with the covariance of intensity correlations (default).
    - `dyadic`: sandwich with scores summed by shared frame, model-free.
    - `chosen`: name of the quoted one, `reason` says why.

    Entries held on a bound have zero variance; directions the data do not determine have infinite
    variance.
    """

    classical: Float[Array, "entry entry"]
    speckle: Float[Array, "entry entry"]
    dyadic: Float[Array, "entry entry"]
    residual_variance: Float[Array, ""]
    condition_number: Float[Array, ""]
    n_pixels: Float[Array, "angle"]
    shot_noise: Float[Array, "angle"]
    chosen: str = eqx.field(static=True)
    reason: str = eqx.field(static=True)
    weak_directions: tuple[str, ...] = eqx.field(static=True)

    @property
    def covariance(self) -> Float[Array, "entry entry"]:
        """The quoted covariance."""
        return getattr(self, self.chosen)

    def errors(self, kind: str | None = None) -> Float[Array, "entry"]:
        """Standard errors of the quoted covariance, or of `kind`."""
        return jnp.sqrt(jnp.diagonal(getattr(self, kind or self.chosen)))

    def correlation(self, kind: str | None = None) -> Float[Array, "entry entry"]:
        """Correlation matrix; zero where an entry has no finite, positive variance."""
        matrix = getattr(self, kind or self.chosen)
        errors = self.errors(kind)
        known = jnp.isfinite(errors) & (errors > 0)
        safe = jnp.where(known, errors, 1.0)
        both = known[:, None] & known[None, :]
        return jnp.where(both, jnp.where(both, matrix, 0.0) / jnp.outer(safe, safe), 0.0)
