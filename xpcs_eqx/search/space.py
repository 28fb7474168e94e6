"""Physical variables and the unit cube over their bounds."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..errors import ModelError
from ..objective import AbstractObjective, CombinedObjective, TwoTimeObjective
from ..physics.leaves import parameter_leaves


class Axis(eqx.Module):
    """A monotone map of an interval onto [0, 1], even in asinh(x/scale).

    So evenly drawn points spread over a variable: evenly in x within ± `scale`, and evenly in its
    logarithm beyond that, on both sides of zero. The limits are an axis that is even in x itself,
    `scale` ∞, and one that is even in ln x, `scale` 0, which gives each decade of a positive
    variable the same share. A point of the unit cube never leaves the bounds by rounding.

    >>> from xpcs_eqx.search import Axis
    >>> float(Axis(-2.0, 2.0).to_unit(1.0)), round(float(Axis(1.0, 1e6, scale=0).to_unit(1e3)), 12)
    (0.75, 0.5)
    >>> axis = Axis(-1e5, 1e5, scale=1e3)
    >>> float(axis.to_unit(0.0)), round(float(axis.from_unit(0.75)))
    (0.5, 7036)
    """

    lower: float = eqx.field(converter=float)
    upper: float = eqx.field(converter=float)
    scale: float = eqx.field(converter=float, default=np.inf)

    def _warp(self, x):
        if np.isinf(self.scale):
            return x
        return np.log(x) if self.scale == 0 else np.arcsinh(x / self.scale)

    def _unwarp(self, w):
        if np.isinf(self.scale):
            return w
        return np.exp(w) if self.scale == 0 else self.scale * np.sinh(w)

    def to_unit(self, x: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        """Position between the bounds, from 0 to 1."""
        low, high = self._warp(self.lower), self._warp(self.upper)
        return (self._warp(np.asarray(x, float)) - low) / (high - low)

    def from_unit(self, u: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        """The physical value at a position; positions outside 0 … 1 give the bound."""
        low, high = self._warp(self.lower), self._warp(self.upper)
        value = self._unwarp(low + np.asarray(u, float) * (high - low))
        return np.clip(value, self.lower, self.upper)


# Bounds of one sign whose ratio is above this span orders of magnitude, all of them alike likely.
# The same rule says for recovery where the middle of such bounds is.
SPAN = 100.0


class NormalisedSpace(eqx.Module):
    """Physical variables between finite bounds as points of the unit cube, axis by axis.

    Numbers in, numbers out: NumPy on the host, any leading axes.

    - `axes`: one for each variable; `names`: of the variables.

    >>> from xpcs_eqx.search import Axis, NormalisedSpace
    >>> space = NormalisedSpace((Axis(1.0, 1e6, scale=0), Axis(-2.0, 2.0)), ("D0", "alpha"))
    >>> space.to_unit([1e3, 0.0]).round(12).tolist()
    [0.5, 0.5]
    """

    axes: tuple[Axis, ...]
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


def axis_for(lower: float, upper: float, step: float | None = None) -> Axis:
    """The axis that suits bounds: by the orders of magnitude that they span.

    Positive bounds with a ratio above 100 get one that is even in the logarithm. Bounds of both
    signs more than 100 natural steps apart get one that is linear within a `step`: an offset of
    ±1e5 Å²/s with a step of 1e3 is nearly always far smaller than its bounds, and a linear axis
    would put 98 % of the points beyond ten steps from zero. Without a natural step, and in all
    other cases, the axis is linear, which takes the bounds at their word.

    >>> from xpcs_eqx.search import axis_for
    >>> [axis_for(*given).scale for given in ((1.0, 1e6), (-1e5, 1e5, 1e3), (-2.0, 2.0))]
    [0.0, 1000.0, inf]
    """
    if lower > 0 and upper / lower > SPAN:
        return Axis(lower, upper, scale=0)
    if step is not None and lower < 0 < upper and (upper - lower) / step > SPAN:
        return Axis(lower, upper, scale=step)
    return Axis(lower, upper)


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
    if not isinstance(objective, TwoTimeObjective | CombinedObjective):
        return {}
    leaves = parameter_leaves(objective.physical.model)
    return {leaf.name: leaf.info.scale for leaf in leaves if leaf.info.scale is not None}
