"""Rates beyond the power law: in steps, exponential ageing, any function."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ...errors import ModelError
from ..parameter import as_inexact, constant, parameter
from .power_law import AbstractRate, cumulative_gauss
from .spline import at_knots


class PiecewiseConstantRate(AbstractRate):
    """A rate in steps: `values[i]` between `breaks[i−1]` and `breaks[i]` [s].

    One value more than breaks; the first and the last hold without end. Integrated exactly.
    """

    breaks: Float[Array, "break"] = constant()
    values: Float[Array, "part"] = parameter()

    def __init__(self, breaks: Any, values: Any):
        """`values`: one more than there are breaks, or one number for all."""
        self.breaks, self.values = at_knots("PiecewiseConstantRate", breaks, values, extra=1)

    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        return jnp.asarray(self.values)[jnp.searchsorted(self.breaks, t, side="right")]

    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        edge = jnp.full((1,), jnp.inf)
        low = jnp.concatenate([-edge, self.breaks])
        high = jnp.concatenate([self.breaks, edge])
        time_in_part = jnp.clip(t[:, None], low, high) - jnp.clip(t[0], low, high)
        return time_in_part @ self.values


class PiecewiseLinearRate(AbstractRate):
    """A rate of straight lines between `values` at `knots` [s], constant beyond them.

    Integrated exactly.
    """

    knots: Float[Array, "knot"] = constant()
    values: Float[Array, "knot"] = parameter()

    def __init__(self, knots: Any, values: Any):
        """`values`: one for each knot, or one number for all."""
        self.knots, self.values = at_knots("PiecewiseLinearRate", knots, values)

    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        return jnp.interp(t, self.knots, self.values)

    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        knots, values = self.knots, jnp.asarray(self.values)
        s = jnp.clip(t[:, None], knots[:-1], knots[1:]) - knots[:-1]
        half = 0.5 * s * s / jnp.diff(knots)
        before, after = jnp.minimum(t - knots[0], 0.0), jnp.maximum(t - knots[-1], 0.0)
        return (
            (s - half) @ values[:-1] + half @ values[1:] + before * values[0] + after * values[-1]
        )


class ExponentialRate(AbstractRate):
    """Ageing: initial · exp(−t/tau) + offset, `tau` in s, integrated in closed form."""

    initial: ScalarLike = parameter()
    tau: ScalarLike = parameter(unit="s", bounds=(1e-6, 1e9), logarithmic=True)
    offset: ScalarLike = parameter(start=0.0)

    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        return jnp.asarray(self.initial * jnp.exp(-t / self.tau) + self.offset)

    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        age = t - t[0]
        now = self.initial * jnp.exp(-t[0] / self.tau)
        return jnp.asarray(-now * self.tau * jnp.expm1(-age / self.tau) + self.offset * age)


def _numbers(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: as_inexact(value) for name, value in parameters.items()}


class FunctionRate(AbstractRate):
    """A rate given by a function of time and named parameters.

    `function(t, parameters)` takes times [s] and the dictionary of `parameters`, whose entries are
    fitted; as the field `transport` of a model the entry ``"a"`` is called ``"transport.a"``. It is
    written with `jax.numpy` and is not called at a frame time itself, so that it may diverge at
    t = 0 as far as its integral exists.

    The integral is by four Gauss points in each of `panels` equal parts between frames: exact for
    polynomials of degree 7. Raise `panels` for a function that changes much between two frames;
    an integrable t^b with b < 0 at the very first frame converges only slowly.
    """

    function: Callable[[Array, Mapping[str, Any]], Array] = eqx.field(static=True)
    parameters: dict[str, ScalarLike] = eqx.field(converter=_numbers)
    panels: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.panels < 1:
            raise ModelError(f"panels = {self.panels} is not allowed; give a whole number from 1")
        for name, value in self.parameters.items():
            if np.ndim(value) != 0:
                raise ModelError(
                    f"the parameter {name!r} of FunctionRate has shape {np.shape(value)}; give "
                    "numbers, one entry each"
                )

    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        return self.function(t, self.parameters)

    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        return cumulative_gauss(self, t, points=4, panels=self.panels)
