"""Terms beside the data in the sum of squares."""

from abc import abstractmethod
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..parameters import ParameterMap, parameter_values
from .normal_equations import NormalEquations


class AbstractPenalty(eqx.Module):
    """½‖residuals‖² as a function of the physical parameters, added to the cost."""

    @abstractmethod
    def residuals(self, values: Mapping[str, Array]) -> Float[Array, "residual"]:
        """Residuals from the values of all parameters by name."""


class Pull(AbstractPenalty):
    """(h(parameters) − target)/width for a scalar function h: a prior, or a soft constraint."""

    function: Callable[[Mapping[str, Array]], Array]
    target: Float[Array, ""]
    width: Float[Array, ""]

    def residuals(self, values):
        return jnp.atleast_1d((self.function(values) - self.target) / self.width)


def penalty_equations(
    penalties: tuple[AbstractPenalty, ...], parameters: ParameterMap, y: Float[Array, "free"]
) -> NormalEquations:
    """Normal equations of the penalties in the coordinates of `parameters`."""
    total = NormalEquations.zero(y.shape[0], dtype=y.dtype)
    for penalty in penalties:

        def residuals(y, penalty=penalty):
            return penalty.residuals(parameter_values(parameters.build_from_coordinates(y)))

        r = residuals(y)
        jacobian = jax.jacfwd(residuals)(y)
        total = total + NormalEquations(
            0.5 * r @ r, jacobian.T @ r, jacobian.T @ jacobian, jnp.zeros_like(total.count)
        )
    return total
