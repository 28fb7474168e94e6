"""Physical variables and the unit cube over their bounds."""

from abc import abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..errors import ModelError
from ..objective import AbstractObjective, CombinedObjective
from ..parameters import ParameterMap
from ..parameters.leaves import parameter_leaves


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


# Bounds of one sign whose ratio is above this span orders of magnitude, all of them alike likely.
# The same rule says for recovery where the middle of such bounds is.
SPAN = 100.0


class NormalisedSpace(eqx.Module):
    """Physical variables between finite bounds as points of the unit cube, axis by axis.

    Numbers in, numbers out: NumPy on the host, any leading axes.

    - `axes`: one for each variable; `names`: of the variables.

    >>> from xpcs_eqx.search import LinearAxis, LogAxis, NormalisedSpace
    >>> space = NormalisedSpace((LogAxis(1.0, 1e6), LinearAxis(-2.0, 2.0)), ("D0", "alpha"))
    >>> space.to_unit([1e3, 0.0]).round(12).tolist()
    [0.5, 0.5]
    """

    axes: tuple[AbstractAxis, ...]
    names: tuple[str, ...] = eqx.field(static=True)

    @property
    def dimension(self) -> int:
        """Number of variables."""
        return len(self.axes)

    def to_unit(
        self, x: Float[np.ndarray, "*batch variable"]
    ) -> Float[np.ndarray, "*batch variable"]:
        """Positions in the unit cube; outside of it for values outside the bounds."""
        x = self._checked(x)
        return np.stack([a.to_unit(x[..., i]) for i, a in enumerate(self.axes)], axis=-1)

    def from_unit(
        self, u: Float[np.ndarray, "*batch variable"]
    ) -> Float[np.ndarray, "*batch variable"]:
        """Physical values, never outside the bounds."""
        u = self._checked(u)
        return np.stack([a.from_unit(u[..., i]) for i, a in enumerate(self.axes)], axis=-1)

    def _checked(self, points):
        points = np.asarray(points, float)
        if points.ndim == 0 or points.shape[-1] != self.dimension:
            raise ModelError(
                f"points of shape {points.shape} are none of the {self.dimension} variables "
                f"{', '.join(self.names)}; their last axis must have that length"
            )
        return points


def axis_for(lower: float, upper: float, scale: float | None = None) -> AbstractAxis:
    """The axis that suits bounds: by the orders of magnitude that they span.

    Positive bounds with a ratio above 100 get a `LogAxis`. Bounds of both signs more than 100
    natural steps `scale` apart get an `AsinhAxis`: an offset of ±1e5 Å²/s with a step of 1e3 is
    nearly always far smaller than its bounds, and a linear axis would put 98 % of the points
    beyond ten steps from zero. Without a natural step, and in all other cases, the axis is a
    `LinearAxis`, which takes the bounds at their word.

    >>> from xpcs_eqx.search import axis_for
    >>> [type(axis_for(*given)).__name__ for given in ((1.0, 1e6), (-1e5, 1e5, 1e3), (-2.0, 2.0))]
    ['LogAxis', 'AsinhAxis', 'LinearAxis']
    """
    if lower > 0 and upper / lower > SPAN:
        return LogAxis(lower, upper)
    if scale is not None and lower < 0 < upper and (upper - lower) / scale > SPAN:
        return AsinhAxis(lower, upper, scale)
    return LinearAxis(lower, upper)


def normalised_space(objective: AbstractObjective) -> NormalisedSpace:
    """The unit cube over the bounds of an objective's variables.

    **Raises:** `ModelError` naming the variables whose bounds are infinite or leave no room.
    """
    variables, names = objective.variables, objective.names
    lower = np.asarray(variables.lower, float)
    upper = np.asarray(variables.upper, float)
    endless = ~(np.isfinite(lower) & np.isfinite(upper))
    if endless.any():
        found = _with_bounds(names, lower, upper, endless)
        raise ModelError(
            f"a search over the bounds needs finite ones, not {found}; give them, for example "
            "parameter_map(model, t, bounds={...})"
        )
    # Beyond rounding: an interval of a few representable numbers cannot be searched either.
    flat = ~(upper - lower > 1e-12 * np.maximum(np.abs(lower), np.abs(upper)))
    if flat.any():
        raise ModelError(
            f"bounds without volume: {_with_bounds(names, lower, upper, flat)}; widen them, or fix "
            "the parameter"
        )
    scales = natural_steps(objective)
    axes = tuple(
        axis_for(low, high, scales.get(name))
        for name, low, high in zip(names, lower.tolist(), upper.tolist(), strict=True)
    )
    return NormalisedSpace(axes, tuple(names))


def _with_bounds(names, lower, upper, which):
    return ", ".join(f"{names[i]} in [{lower[i]:g}, {upper[i]:g}]" for i in np.flatnonzero(which))


def natural_steps(objective: AbstractObjective) -> dict[str, float]:
    """Natural steps in physical units by name, where a model declares them."""
    if isinstance(objective, CombinedObjective):
        parameters = objective.parameters.whole
    else:
        term = getattr(objective, "term", None)
        parameters = None if term is None else term.parameters
    if not isinstance(parameters, ParameterMap):
        return {}
    leaves = parameter_leaves(parameters.model)
    return {leaf.name: leaf.info.scale for leaf in leaves if leaf.info.scale is not None}
