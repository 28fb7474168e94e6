"""Rates given by values at knots: natural cubic splines, straight lines, steps."""

from typing import Any, ClassVar

import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import ModelError
from .leaves import constant, parameter
from .rates import AbstractRate, cumulative_gauss


def uniform_knots(t: Float[np.ndarray, "frame"], n: int) -> Float[np.ndarray, "knot"]:
    """`n` knots at equal distances from the first to the last of the times `t` [s].

    **Raises:** `ModelError` for fewer than two knots or times that do not increase.

    >>> import numpy as np
    >>> from xpcs_eqx.physics import SplineRate, uniform_knots
    >>> knots = uniform_knots(np.linspace(0.0, 6.0, 61), 4)
    >>> knots.tolist()
    [0.0, 2.0, 4.0, 6.0]
    >>> SplineRate(knots, 1e4)
    SplineRate(knots=[0, 2, 4, 6], values=[10000, 10000, 10000, 10000])
    """
    first, last = _window(t, n)
    return np.linspace(first, last, n)


def log_knots(t: Float[np.ndarray, "frame"], n: int) -> Float[np.ndarray, "knot"]:
    """`n` knots at equal ratios over the times `t` [s], for rates that change fast at first.

    The first is at the first time, or at half a frame spacing where that is larger.

    **Raises:** `ModelError` for fewer than two knots or times that do not increase.
    """
    first, last = _window(t, n)
    times = np.asarray(t, dtype=float)
    return np.geomspace(max(first, 0.5 * float(times[1] - times[0])), last, n)


def _window(t, n):
    times = np.asarray(t, dtype=float)
    if n < 2:
        raise ModelError(f"a rate with {n} knots cannot change; give at least 2")
    if times.size < 2 or not times[-1] > times[0]:
        raise ModelError("knots need times that increase from the first frame to the last")
    return float(times[0]), float(times[-1])


def _given(owner: str, what: str, value: Any) -> Any:
    if isinstance(value, jax.core.Tracer):
        return value
    try:
        # Nothing would become NaN.
        return np.asarray([] if value is None else value, dtype=float)
    except (TypeError, ValueError):
        raise ModelError(f"{owner}: {what} are {value!r:.60}; give numbers") from None


def at_knots(owner: str, knots: Any, values: Any, extra: int = 0) -> tuple[Any, Any]:
    """Knots and one value for each (plus `extra`), from arrays or one number for all.

    **Raises:** `ModelError` for what is no numbers, when they do not match or the knots do not
    increase.
    """
    knots, values = _given(owner, "knots", knots), _given(owner, "values", values)
    if not isinstance(knots, jax.core.Tracer) and (
        knots.ndim != 1 or knots.size < 2 - extra or np.any(np.diff(knots) <= 0)
    ):
        raise ModelError(f"the knots of {owner} must be increasing times; found {knots}")
    shape = (knots.shape[0] + extra,)
    if np.ndim(values) and np.shape(values) != shape:
        raise ModelError(
            f"{owner} needs {shape[0]} values for {knots.shape[0]} knots; found shape "
            f"{np.shape(values)}"
        )
    traced = isinstance(values, jax.core.Tracer)
    values = jnp.broadcast_to(values, shape) if traced else np.broadcast_to(values, shape)
    return knots, values


def cubic_coefficients(
    knots: Float[Array, "knot"], values: Float[Array, "knot"]
) -> tuple[Float[Array, "interval"], ...]:
    """Coefficients of 1, s, s², s³ in each interval of the natural cubic spline, s = t − knot."""
    h = jnp.diff(knots)
    slopes = jnp.diff(values) / h
    n = knots.shape[0]
    inner = jnp.zeros((n,), values.dtype)
    if n > 2:
        matrix = jnp.diag(2 * (h[:-1] + h[1:])) + jnp.diag(h[1:-1], 1) + jnp.diag(h[1:-1], -1)
        # The matrix knows no parameter: it is inverted once, not for each derivative.
        inner = inner.at[1:-1].set(jnp.linalg.inv(matrix) @ (6 * jnp.diff(slopes)))
    return (
        values[:-1],
        slopes - h * (2 * inner[:-1] + inner[1:]) / 6,
        inner[:-1] / 2,
        jnp.diff(inner) / (6 * h),
    )


def _spline(knots, values, t):
    """The spline at times `t`, a straight line beyond the first and the last knot."""
    c0, c1, c2, c3 = cubic_coefficients(knots, values)
    last = knots.shape[0] - 2
    j = jnp.clip(jnp.searchsorted(knots, t, side="right") - 1, 0, last)
    inside = jnp.clip(t, knots[0], knots[-1])
    s = inside - knots[j]
    h = knots[-1] - knots[-2]
    slope = jnp.where(t < knots[0], c1[0], c1[last] + h * (2 * c2[last] + 3 * h * c3[last]))
    return c0[j] + s * (c1[j] + s * (c2[j] + s * c3[j])) + slope * (t - inside)


class _AbstractAtKnots(AbstractRate):
    """A rate that goes through `values` at `knots` [s]."""

    knots: Float[Array, "knot"] = constant()
    values: Float[Array, "knot"] = parameter()

    def __init__(self, knots: Any, values: Any):
        """`values`: one for each knot, or one number for all."""
        self.knots, self.values = at_knots(type(self).__name__, knots, values)


class SplineRate(_AbstractAtKnots):
    """A positive rate of any smooth shape, given by its values at some ages.

    It is the exponential of a natural cubic spline through ln of `values`.

    `values` are the rates at `knots` [s], and what is fitted, stepped in their logarithms. Beyond
    the knots the logarithm goes on as a straight line.

    The integral is by three Gauss points between frames. Its relative error is below 1e-9 as long
    as the rate changes by less than half between two frames; a knot between two frames, where the
    third derivative jumps, adds up to about 1e-6 of that one step.
    """

    values: Float[Array, "knot"] = parameter(bounds=(1e-30, float("inf")), logarithmic=True)

    positive: ClassVar[bool] = True

    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        return jnp.exp(_spline(self.knots, jnp.log(self.values), t))

    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        # The logarithms and their spline once, not at every point of the quadrature.
        return cumulative_gauss(self, t)


class SignedSplineRate(_AbstractAtKnots):
    """A rate that may change sign: a natural cubic spline through `values` at `knots` [s].

    Integrated in closed form. Beyond the knots it goes on as a straight line.
    """

    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        return _spline(self.knots, self.values, t)

    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        knots = self.knots
        c0, c1, c2, c3 = cubic_coefficients(knots, self.values)
        s = jnp.clip(t[:, None], knots[:-1], knots[1:]) - knots[:-1]
        whole = jnp.sum(s * (c0 + s * (c1 / 2 + s * (c2 / 3 + s * c3 / 4))), axis=1)
        before, after = jnp.minimum(t - knots[0], 0.0), jnp.maximum(t - knots[-1], 0.0)
        h = knots[-1] - knots[-2]
        last = c1[-1] + h * (2 * c2[-1] + 3 * h * c3[-1])
        return (
            whole
            + before * (self.values[0] + before * c1[0] / 2)
            + after * (self.values[-1] + after * last / 2)
        )


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


class PiecewiseLinearRate(_AbstractAtKnots):
    """A rate of straight lines between `values` at `knots` [s], constant beyond them.

    Integrated exactly.
    """

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
