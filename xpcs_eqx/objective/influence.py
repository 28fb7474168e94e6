"""What the residuals say about the errors of a fit with any loss."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .losses import AbstractLoss


class InfluenceSums(eqx.Module):
    """n, Σ ψ², Σ ψ', Σ ψ'² over residuals, ψ being the influence of a loss; a monoid.

    `inliers` is the number of residuals with ψ' > 0: those that resist being moved.

    A fit with Σ ψ(r) J = 0 has, for independent residuals of one distribution, the covariance
    A⁻¹ B A⁻¹ with A = E[ψ'] JᵀJ and B = E[ψ²] JᵀJ, J being the weighted Jacobian without any factor
    of the loss: it is `variance` · (JᵀJ)⁻¹. For least squares that is the usual residual variance.
    """

    count: Float[Array, ""]
    square: Float[Array, ""]
    slope: Float[Array, ""]
    square_slope: Float[Array, ""]
    inliers: Float[Array, ""]

    @classmethod
    def zero(cls, dtype=None) -> "InfluenceSums":
        """The neutral element."""
        nothing = jnp.zeros((), dtype)
        return cls(nothing, nothing, nothing, nothing, nothing)

    def __add__(self, other: "InfluenceSums") -> "InfluenceSums":
        return InfluenceSums(
            self.count + other.count,
            self.square + other.square,
            self.slope + other.slope,
            self.square_slope + other.square_slope,
            self.inliers + other.inliers,
        )

    @property
    def mean_slope(self) -> Float[Array, ""]:
        """E[ψ']: the curvature of the cost in units of that of least squares."""
        return self.slope / self.count

    def holds(self, parameters: Float[Array, ""] | float) -> Bool[Array, ""]:
        """Whether the loss holds `parameters` parameters: more residuals than that are inliers.

        A fit that runs away from the data, where a redescending loss is flat, may go through some
        of them, but through no more than it has parameters.
        """
        return (self.slope > 0) & (self.inliers > parameters)

    def mean_square(self, parameters: Float[Array, ""] | float) -> Float[Array, ""]:
        """E[ψ²] of the errors from the residuals after `parameters` were fitted to them.

        Infinite without degrees of freedom. Residuals are smaller than errors: Σ ψ²/(n − p) takes
        the part of it that least squares has, and K² with K = 1 + (p/n) Var[ψ']/E[ψ']² the rest
        (P. J. Huber, "Robust Statistics" (1981), section 7.6).
        """
        left = self.count - parameters
        mean = self.mean_slope
        spread = self.square_slope / self.count - mean**2
        factor = 1 + parameters / self.count * spread / jnp.where(mean == 0, 1.0, mean) ** 2
        return jnp.where(left > 0, factor**2 * self.square / jnp.where(left > 0, left, 1), jnp.inf)

    def variance(self, parameters: Float[Array, ""] | float) -> Float[Array, ""]:
        """v = E[ψ²]/E[ψ']², the factor of (JᵀJ)⁻¹ in the covariance of `parameters` parameters.

        Infinite without degrees of freedom, and where so many residuals are outliers that the cost
        does not hold the parameters.
        """
        mean = self.mean_slope
        held = self.holds(parameters)
        return jnp.where(
            held, self.mean_square(parameters) / jnp.where(held, mean, 1.0) ** 2, jnp.inf
        )


def influence_sums(
    loss: AbstractLoss, residuals: Float[Array, "..."], root_weights: Float[Array, "..."]
) -> InfluenceSums:
    """Sums over weighted residuals; those whose root weight is zero are no data."""
    counts = (root_weights > 0).astype(residuals.dtype)
    influence, slope = loss.influence(residuals), counts * loss.influence_slope(residuals)
    # Where the weight is zero so are residual and influence.
    return InfluenceSums(
        jnp.sum(counts),
        jnp.sum(counts * influence * influence),
        jnp.sum(slope),
        jnp.sum(slope * slope),
        jnp.sum((slope > 0).astype(residuals.dtype)),
    )
