"""Robust losses ρ(z) of squared scaled residuals, as in SciPy's `least_squares`.

And their influence ψ on residuals, which the errors of a fit with any loss are made of.
"""

import operator
from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..arguments import check_fields
from ..physics import as_inexact
from ..showing import with_numbers

# Share of the weight ψ(r)/r that the curvature of an outlier keeps.
_LEAST_CURVATURE = 0.1


class AbstractLoss(eqx.Module):
    """A loss ρ̃(r) = ½ f² ρ((r/f)²) with soft margin f = `scale` between inliers and outliers.

    Its derivative ψ(r) = dρ̃/dr is the influence of a residual on a fit: r itself for least squares,
    bounded for a robust loss. A fit solves Σ ψ(r) ∂r/∂x = 0.

    `convex` says of a class that ψ never falls. One that falls lets go of outliers: far from the
    data, where all are, its cost is flat without being at a minimum.
    """

    convex: ClassVar[bool] = False

    __check_init__ = check_fields

    def __repr__(self) -> str:
        return with_numbers(self)

    @abstractmethod
    def density(self, r: Float[Array, "..."]) -> Float[Array, "..."]:
        """ρ̃(r), the contribution of each residual to the cost."""

    @abstractmethod
    def weight(self, r: Float[Array, "..."]) -> Float[Array, "..."]:
        """ψ(r)/r = ρ'((r/f)²), at most 1: the weight of a residual in reweighted least squares."""

    @abstractmethod
    def influence_slope(self, r: Float[Array, "..."]) -> Float[Array, "..."]:
        """ψ'(r) = d²ρ̃/dr²; zero or negative for the outliers of most losses."""

    @abstractmethod
    def rescale(
        self, r: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."] | None]:
        """Residual and row factor of J such that Jᵀr becomes the gradient of the loss, exactly, and
        JᵀJ a positive matrix near its second derivative.

        The square of the factor is the curvature of the loss, which for outliers is not below a
        share of their `weight`; `None` stands for a factor of 1. For numbers of an error bar use
        `influence` and `influence_slope` instead.
        """

    def influence(self, r: Float[Array, "..."]) -> Float[Array, "..."]:
        """ψ(r) = dρ̃/dr."""
        return self.weight(r) * r


class Linear(AbstractLoss):
    """ρ(z) = z: ordinary least squares."""

    convex: ClassVar[bool] = True

    def density(self, r):
        return 0.5 * r * r

    def weight(self, r):
        return jnp.ones_like(r)

    def influence_slope(self, r):
        return jnp.ones_like(r)

    def rescale(self, r):
        return r, None


class AbstractRobustLoss(AbstractLoss):
    """A loss with a soft margin `scale`, in units of the (weighted) residual."""

    scale: Float[Array, ""] = eqx.field(default=1.0, converter=as_inexact)

    def rescale(self, r):
        """As `AbstractLoss.rescale`.

        Triggs' correction takes ψ' for the curvature (B. Triggs et al., "Bundle Adjustment - A
        Modern Synthesis", LNCS 1883 (1999), section 4), which makes the last steps those of Newton.
        ψ' is zero or negative for outliers: where all residuals are, nothing of the matrix would be
        left and no step be possible. Reweighted least squares takes the weight ψ/r, which is always
        positive but too large near the minimum, so that its last steps are slow. A share of it is
        enough to go on from anywhere, and where only some residuals are outliers their weight is
        small.
        """
        weight = self.weight(r)
        root = jnp.sqrt(jnp.maximum(self.influence_slope(r), _LEAST_CURVATURE * weight))
        # The factor of a residual so large that its weight underflows.
        safe = jnp.where(root > 0, root, 1.0)
        return weight * r / safe, root


class SoftL1(AbstractRobustLoss):
    """For data with some outliers, which pull less: a smooth loss, squares only of small residuals.

    ρ(z) = 2(√(1+z) − 1); `scale` in units of the (weighted) residual.

    >>> import jax.numpy as jnp
    >>> import xpcs_eqx as xe
    >>> loss = xe.SoftL1(scale=0.5)
    >>> float(loss.density(jnp.asarray(0.0)))
    0.0
    """

    convex: ClassVar[bool] = True

    def density(self, r):
        z = (r / self.scale) ** 2
        # √(1+z) − 1 without the cancellation that would hide small residuals.
        return self.scale**2 * z / (1 + jnp.sqrt(1 + z))

    def weight(self, r):
        return (1 + (r / self.scale) ** 2) ** -0.5

    def influence_slope(self, r):
        return (1 + (r / self.scale) ** 2) ** -1.5


class Huber(AbstractRobustLoss):
    """For data with outliers: small residuals count by their squares, large ones by their size.

    The loss ρ(z) = z for z ≤ 1, else 2√z − 1.
    """

    convex: ClassVar[bool] = True

    def density(self, r):
        z = (r / self.scale) ** 2
        safe = jnp.maximum(z, 1.0)
        return 0.5 * self.scale**2 * jnp.where(z <= 1, z, 2 * jnp.sqrt(safe) - 1)

    def weight(self, r):
        return jnp.maximum(jnp.abs(r) / self.scale, 1.0) ** -1.0

    def influence_slope(self, r):
        return jnp.where(jnp.abs(r) <= self.scale, 1.0, 0.0)


class Cauchy(AbstractRobustLoss):
    """For data with strong outliers, which hardly count any more: the loss ρ(z) = ln(1 + z)."""

    def density(self, r):
        return 0.5 * self.scale**2 * jnp.log1p((r / self.scale) ** 2)

    def weight(self, r):
        return 1 / (1 + (r / self.scale) ** 2)

    def influence_slope(self, r):
        z = (r / self.scale) ** 2
        return (1 - z) / (1 + z) ** 2


class Arctan(AbstractRobustLoss):
    """For data with gross outliers, which count like any other misfit: the loss ρ(z) = arctan z."""

    def density(self, r):
        return 0.5 * self.scale**2 * jnp.arctan((r / self.scale) ** 2)

    def weight(self, r):
        return 1 / (1 + (r / self.scale) ** 4)

    def influence_slope(self, r):
        z = (r / self.scale) ** 2
        return (1 - 3 * z * z) / (1 + z * z) ** 2


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
        return jax.tree.map(operator.add, self, other)

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
