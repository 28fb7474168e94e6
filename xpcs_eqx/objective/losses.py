"""Robust losses ρ(z) of squared scaled residuals, as in SciPy's `least_squares`."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..physics import as_inexact


class AbstractLoss(eqx.Module):
    """A loss ½ f² ρ((r/f)²) with soft margin f = `scale` between inlier and outlier residuals.

    Follows B. Triggs et al., "Bundle Adjustment - A Modern Synthesis", LNCS 1883 (1999), section 4.
    """

    @abstractmethod
    def density(self, r: Float[Array, "..."]) -> Float[Array, "..."]:
        """The contribution of each residual to the cost."""

    @abstractmethod
    def rescale(
        self, r: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."] | None]:
        """Residual and row factor of J such that JᵀJ and Jᵀr become those of the loss."""


class Linear(AbstractLoss):
    """ρ(z) = z: ordinary least squares."""

    def density(self, r):
        return 0.5 * r * r

    def rescale(self, r):
        return r, None


def _rescale(r, first, second, scale):
    z = (r / scale) ** 2
    # The second-order term may turn the curvature negative for outliers; a tiny positive weight
    # keeps the matrix definite.
    curvature = jnp.maximum(first + 2 * second * z, jnp.finfo(r.dtype).eps)
    root = jnp.sqrt(curvature)
    return r * first / root, root


class SoftL1(AbstractLoss):
    """ρ(z) = 2(√(1+z) − 1); `scale` in units of the (weighted) residual.

    >>> import jax.numpy as jnp
    >>> import xpcs_eqx as xe
    >>> loss = xe.SoftL1(scale=0.5)
    >>> float(loss.density(jnp.asarray(0.0)))
    0.0
    """

    scale: Float[Array, ""] = eqx.field(default=1.0, converter=as_inexact)

    def density(self, r):
        return self.scale**2 * (jnp.sqrt(1 + (r / self.scale) ** 2) - 1)

    def rescale(self, r):
        base = 1 + (r / self.scale) ** 2
        return _rescale(r, base**-0.5, -0.5 * base**-1.5, self.scale)


class Huber(AbstractLoss):
    """ρ(z) = z for z ≤ 1, else 2√z − 1."""

    scale: Float[Array, ""] = eqx.field(default=1.0, converter=as_inexact)

    def density(self, r):
        z = (r / self.scale) ** 2
        safe = jnp.maximum(z, 1.0)
        return 0.5 * self.scale**2 * jnp.where(z <= 1, z, 2 * jnp.sqrt(safe) - 1)

    def rescale(self, r):
        z = (r / self.scale) ** 2
        safe = jnp.maximum(z, 1.0)
        inside = z <= 1
        first = jnp.where(inside, 1.0, safe**-0.5)
        second = jnp.where(inside, 0.0, -0.5 * safe**-1.5)
        return _rescale(r, first, second, self.scale)


class Cauchy(AbstractLoss):
    """ρ(z) = ln(1 + z)."""

    scale: Float[Array, ""] = eqx.field(default=1.0, converter=as_inexact)

    def density(self, r):
        return 0.5 * self.scale**2 * jnp.log1p((r / self.scale) ** 2)

    def rescale(self, r):
        base = 1 + (r / self.scale) ** 2
        return _rescale(r, 1 / base, -1 / base**2, self.scale)


class Arctan(AbstractLoss):
    """ρ(z) = arctan z."""

    scale: Float[Array, ""] = eqx.field(default=1.0, converter=as_inexact)

    def density(self, r):
        return 0.5 * self.scale**2 * jnp.arctan((r / self.scale) ** 2)

    def rescale(self, r):
        z = (r / self.scale) ** 2
        base = 1 + z * z
        return _rescale(r, 1 / base, -2 * z / base**2, self.scale)
