"""The length of a step: how coordinates are scaled before damping acts on all of them alike."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

# Gradient along a natural step, relative to that along the best determined one.
_OPEN = 1e-9


class AbstractMetric(eqx.Module):
    """Units for the coordinates of a trust region."""

    @abstractmethod
    def scale(self, natural: Float[Array, "p"], largest: Float[Array, "p"]) -> Float[Array, "p"]:
        """Unit of each coordinate, such that the largest scaled curvature is one.

        - `natural`: natural step of each coordinate.
        - `largest`: largest diagonal of the normal matrix seen so far.
        """

    @abstractmethod
    def negligible(
        self, natural: Float[Array, "p"], curvature: Float[Array, "p"]
    ) -> Float[Array, "p"]:
        """Gradient of each coordinate, relative to ‖r‖, that counts as none.

        - `curvature`: diagonal of the normal matrix.
        """


class NaturalMetric(AbstractMetric):
    """The natural steps of the coordinates, whatever the data say.

    Right for logarithms, slopes and ratios: a direction that the data leave open is not taken far.
    """

    def scale(self, natural, largest):
        top = jnp.max(largest * natural**2, initial=0.0)
        return natural / jnp.sqrt(jnp.maximum(top, jnp.finfo(largest.dtype).tiny))

    def negligible(self, natural, curvature):
        # A natural step along such a coordinate changes next to nothing: it is left open.
        return _OPEN * jnp.sqrt(jnp.max(curvature * natural**2, initial=0.0)) / natural


class JacobianMetric(AbstractMetric):
    """Column norms of the Jacobian, as in MINPACK: invariant under the units of the variables."""

    def scale(self, natural, largest):
        # A coordinate without curvature so far gets a step comparable with its natural one
        # instead of an infinite one.
        floor = 1e-16 * jnp.max(largest * natural**2, initial=0.0) / natural**2
        return 1.0 / jnp.sqrt(jnp.maximum(largest, jnp.maximum(floor, 1e-300)))

    def negligible(self, natural, curvature):
        return jnp.zeros_like(natural)
