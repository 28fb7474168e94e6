"""Terms in contrast and offset beside the data in the sum of squares."""

from abc import abstractmethod

import equinox as eqx
from jaxtyping import Array, Float

from ..scaling import AbstractScaling
from .normal_equations import NormalEquations
from .penalties import residual_equations


class AbstractScalingPenalty(eqx.Module):
    """½‖residuals‖² as a function of contrast and offset by angle, added to the cost.

    Whatever the scaling mode, it sees the values at each angle.
    """

    @abstractmethod
    def residuals(self, per_angle: Float[Array, "angle 2"]) -> Float[Array, "residual"]:
        """Residuals from (contrast, offset) by angle."""


class AbstractLinearScalingPenalty(AbstractScalingPenalty):
    """One whose residuals are linear: contrast and offset can still be eliminated exactly."""


def scaling_penalty_equations(
    penalties: tuple[AbstractScalingPenalty, ...],
    scaling: AbstractScaling,
    coefficients: Float[Array, "coefficient"],
) -> NormalEquations:
    """Normal equations of the penalties in the scaling coefficients."""
    total = NormalEquations.zero(coefficients.shape[0], dtype=coefficients.dtype)
    for penalty in penalties:

        def residuals(coefficients, penalty=penalty):
            return penalty.residuals(scaling.per_angle(coefficients))

        total = total + residual_equations(residuals, coefficients)
    return total
