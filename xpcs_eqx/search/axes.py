"""One variable between its bounds as a number from 0 to 1."""

from abc import abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Float


class AbstractAxis(eqx.Module):
    """A monotone map of an interval onto [0, 1]: how evenly drawn points spread over a variable.

    Exact at both ends, so that a point of the unit cube never leaves the bounds by rounding.
    """

    @abstractmethod
    def to_unit(self, x: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        """Position between the bounds, from 0 to 1."""

    @abstractmethod
    def from_unit(self, u: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        """The physical value at a position; positions outside 0 … 1 give the bound."""


class LinearAxis(AbstractAxis):
    """Even in the variable itself.

    >>> from xpcs_eqx.search import LinearAxis
    >>> float(LinearAxis(-2.0, 2.0).to_unit(1.0))
    0.75
    """

    lower: float = eqx.field(converter=float)
    upper: float = eqx.field(converter=float)

    def to_unit(self, x):
        return (np.asarray(x, float) - self.lower) / (self.upper - self.lower)

    def from_unit(self, u):
        value = self.lower + np.asarray(u, float) * (self.upper - self.lower)
        return np.clip(value, self.lower, self.upper)


class LogAxis(AbstractAxis):
    """Even in the logarithm of a positive variable: each decade gets the same share.

    >>> from xpcs_eqx.search import LogAxis
    >>> round(float(LogAxis(1.0, 1e6).to_unit(1e3)), 12)
    0.5
    """

    lower: float = eqx.field(converter=float)
    upper: float = eqx.field(converter=float)

    def to_unit(self, x):
        return np.log(np.asarray(x, float) / self.lower) / np.log(self.upper / self.lower)

    def from_unit(self, u):
        value = self.lower * np.exp(np.asarray(u, float) * np.log(self.upper / self.lower))
        return np.clip(value, self.lower, self.upper)


class AsinhAxis(AbstractAxis):
    """Even in asinh(x/scale): linear within ± `scale`, logarithmic beyond it, on both sides of 0.

    >>> from xpcs_eqx.search import AsinhAxis
    >>> axis = AsinhAxis(-1e5, 1e5, scale=1e3)
    >>> float(axis.to_unit(0.0)), round(float(axis.from_unit(0.75)))
    (0.5, 7036)
    """

    lower: float = eqx.field(converter=float)
    upper: float = eqx.field(converter=float)
    scale: float = eqx.field(converter=float)

    def _ends(self):
        return np.arcsinh(self.lower / self.scale), np.arcsinh(self.upper / self.scale)

    def to_unit(self, x):
        low, high = self._ends()
        return (np.arcsinh(np.asarray(x, float) / self.scale) - low) / (high - low)

    def from_unit(self, u):
        low, high = self._ends()
        value = self.scale * np.sinh(low + np.asarray(u, float) * (high - low))
        return np.clip(value, self.lower, self.upper)
