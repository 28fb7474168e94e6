"""What a velocity profile across the gap does to |c1|²."""

from abc import abstractmethod
from math import pi

import equinox as eqx
from jaxtyping import Array, Float

from .trigonometry import sinc


class AbstractShearKernel(eqx.Module):
    """The shear factor of |c1|² as a function of the phase x = ½ q L cos(φ0−φ) ΔG [rad]."""

    @abstractmethod
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The factor by which shear lowers |c1|²; 1 at x = 0."""


class GapAveraged(AbstractShearKernel):
    """(sin x / x)²: the exact average over a linear velocity profile.

    It is |⟨exp(i q v t)⟩|² over the gap; He et al., PNAS 121, e2401162121 (2024).
    """

    def __call__(self, x):
        value = sinc(x)
        return value * value


class Homodyne(AbstractShearKernel):
    """(sin y / y)⁴ with y = x/π: the kernel of homodyne 2.x, for reproducing its results.

    Shear rates from it come out larger by about π/√2 than with `GapAveraged`.
    """

    def __call__(self, x):
        value = sinc(x / pi)
        square = value * value
        return square * square
