"""Rates of growth J(t), γ̇(t) and their time integrals."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from .parameter import parameter


class AbstractRate(eqx.Module):
    """A rate as a function of absolute time and its integral on the frame grid.

    `positive` says of a class that its rates are positive whatever the parameters.
    """

    positive: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        """The rate at times `t` [s]."""

    @abstractmethod
    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        """The integral of the rate from a reference frame to each of the increasing times `t` [s].

        Only increments have a meaning, so the reference is the implementation's choice.
        """


def time_floor(t: Float[Array, "frame"]) -> Float[Array, ""]:
    """Half the first frame spacing [s]: below it a rate is held, so that t = 0 stays finite."""
    return 0.5 * (t[1] - t[0])


def _expm1_ratio(z):
    """(exp z − 1)/z, smooth through z = 0."""
    small = jnp.abs(z) < 1e-2
    inner = jnp.where(small, z, 0.0)
    outer = jnp.where(small, 1.0, z)
    series = 1 + inner / 2 * (
        1 + inner / 3 * (1 + inner / 4 * (1 + inner / 5 * (1 + inner / 6 * (1 + inner / 7))))
    )
    return jnp.where(small, series, jnp.expm1(outer) / outer)


def _log_ratio(t, reference):
    """ln(t/reference), to rounding also for frames close together at a great age."""
    relative = (t - reference) / reference
    near = jnp.abs(relative) < 0.5
    return jnp.where(near, jnp.log1p(jnp.where(near, relative, 0.0)), jnp.log(t / reference))


class PowerLawRate(AbstractRate):
    """amplitude · t^exponent + offset, integrated in closed form.

    With t_r a reference time inside the window, the integral of t^b from t_r to t is
    t_r^(b+1) · expm1((b+1) ln(t/t_r)) / (b+1), which passes smoothly through b = −1. In the
    integral the rate is held below half a frame spacing at its value there.

    >>> import jax.numpy as jnp
    >>> import xpcs_eqx as xe
    >>> rate = xe.PowerLawRate(amplitude=3.0, exponent=-1.0, offset=0.5)
    >>> rate
    PowerLawRate(amplitude=f64[], exponent=f64[], offset=f64[])
    >>> rate(jnp.array([1.0, 2.0])).tolist()
    [3.5, 2.0]
    """

    amplitude: ScalarLike = parameter(start=1.0)
    exponent: ScalarLike = parameter(start=0.0, bounds=(-2.0, 2.0))
    offset: ScalarLike = parameter(start=0.0)

    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        # The smallest positive number for zero: t^0 stays 1 and the gradient finite.
        log_t = jnp.log(jnp.maximum(t, jnp.finfo(jnp.result_type(t, float)).tiny))
        return jnp.asarray(self.amplitude * jnp.exp(self.exponent * log_t) + self.offset)

    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        floor = time_floor(t)
        reference = jnp.maximum(t[t.shape[0] // 2], floor)
        held = jnp.minimum(t - floor, 0.0)
        u = _log_ratio(jnp.maximum(t, floor), reference)
        power = (
            jnp.exp((self.exponent + 1) * jnp.log(reference))
            * u
            * _expm1_ratio((self.exponent + 1) * u)
        )
        rate_at_floor = jnp.exp(self.exponent * jnp.log(floor))
        whole = self.amplitude * (power + rate_at_floor * held) + self.offset * (t - reference)
        return jnp.asarray(whole)


class Trapezoid(AbstractRate):
    """Any rate, integrated by the cumulative trapezoid on the frame grid.

    The rate is held below half a frame spacing, as homodyne 2.x does.
    """

    rate: AbstractRate

    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        return self.rate(t)

    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        values = self.rate(jnp.maximum(t, time_floor(t)))
        steps = 0.5 * (values[1:] + values[:-1]) * jnp.diff(t)
        return jnp.concatenate([jnp.zeros_like(t, shape=(1,)), jnp.cumsum(steps)])
