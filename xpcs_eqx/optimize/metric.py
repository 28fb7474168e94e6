"""The length of a step: how coordinates are scaled before damping acts on all of them alike."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class AbstractMetric(eqx.Module):
    """Units for the coordinates of a trust region."""

    @abstractmethod
    def scale(self, natural: Float[Array, "p"], largest: Float[Array, "p"]) -> Float[Array, "p"]:
        """Unit of each coordinate, such that the largest scaled curvature is one.

        - `natural`: natural step of each coordinate.
        - `largest`: largest diagonal of the normal matrix seen so far.
        """


class NaturalMetric(AbstractMetric):
    """The natural steps of the coordinates, whatever the data say.

    Right for logarithms, slopes and ratios: a direction that the data leave open is not taken far.
    """

    def scale(self, natural, largest):
        top = jnp.max(largest * natural**2, initial=0.0)
        return natural / jnp.sqrt(jnp.maximum(top, jnp.finfo(largest.dtype).tiny))


class JacobianMetric(AbstractMetric):
    """Column norms of the Jacobian, as in MINPACK: invariant under the units of the variables."""

    def scale(self, natural, largest):
        # A coordinate without curvature so far gets a step comparable with its natural one
        # instead of an infinite one.
        floor = 1e-16 * jnp.max(largest * natural**2, initial=0.0) / natural**2
        return 1.0 / jnp.sqrt(jnp.maximum(largest, jnp.maximum(floor, 1e-300)))
