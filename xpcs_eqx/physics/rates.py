"""Rates of growth J(t), γ̇(t) and their time integrals: power law, ageing, any function."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ..arguments import Count, check_fields
from ..errors import ModelError
from ..showing import with_numbers
from .leaves import as_inexact, parameter


class AbstractRate(eqx.Module):
    """A rate that changes with age, as J(t) or γ̇(t), and its integral between frames.

    `positive` says of a class that its rates are positive whatever the parameters.
    """

    positive: ClassVar[bool] = False

    __check_init__ = check_fields

    def __repr__(self) -> str:
        return with_numbers(self)

    @abstractmethod
    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        """The rate at times `t` [s]."""

    @abstractmethod
    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        """The integral of the rate from a reference frame to each of the increasing times `t` [s].

        Only increments have a meaning, so the reference is the implementation's choice.
        """


def time_floor(t: Float[Array | np.ndarray, "frame"]) -> Float[Array, ""]:
    """Half the first frame spacing [s]: below it `Trapezoid` holds a rate, and so does its plot."""
    return 0.5 * (t[1] - t[0])


def _largest(dtype):
    """A number whose fifth power is finite: stands for infinity where derivatives are taken."""
    return float(jnp.finfo(dtype).max) ** 0.2


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


def rates_in(model: eqx.Module) -> dict[str, AbstractRate]:
    """The rates of a model by the names of their fields."""
    fields = {one.name: getattr(model, one.name) for one in dataclasses.fields(model)}
    return {name: value for name, value in fields.items() if isinstance(value, AbstractRate)}


class PowerLawRate(AbstractRate):
    """A rate amplitude · t^exponent + offset of the age t, as J(t) and γ̇(t) are.

    It is integrated in closed form from t = 0 on, without a floor.

    With t_r a reference time inside the window and s = exponent + 1, the integral from t_r to t is
    t_r^s · expm1(s ln(t/t_r)) / s, which passes smoothly through s = 0; at t = 0 it is −t_r^s / s.
    For s <= 0 the integral from t = 0 diverges: the frame at t = 0 has left all others behind.
    There 1/s is held at a huge finite number, so that decays and sin(x)/x vanish with all their
    derivatives, as they do in the limit s → 0 from above. Pairs of later frames are exact for
    every exponent. Ages are not negative: a frame before t = 0 counts as one at 0.

    >>> import jax.numpy as jnp
    >>> import xpcs_eqx as xe
    >>> rate = xe.PowerLawRate(amplitude=3.0, exponent=-1.0, offset=0.5)
    >>> rate
    PowerLawRate(amplitude=3, exponent=-1, offset=0.5)
    >>> rate(jnp.array([1.0, 2.0])).tolist()
    [3.5, 2.0]
    """

    amplitude: ScalarLike = parameter(start=1.0)
    exponent: ScalarLike = parameter(start=0.0, bounds=(-2.0, 2.0))
    offset: ScalarLike = parameter(start=0.0)

    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        dtype = jnp.result_type(t, float)
        # The smallest positive number for zero: t^0 stays 1 and the gradient finite.
        log_t = jnp.log(jnp.maximum(t, jnp.finfo(dtype).tiny))
        power = jnp.exp(jnp.minimum(self.exponent * log_t, jnp.log(_largest(dtype))))
        return jnp.asarray(self.amplitude * power + self.offset)

    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        t = jnp.maximum(t, 0.0)
        begun = t > 0
        middle = t[t.shape[0] // 2]
        reference = jnp.where(middle > 0, middle, 1.0)
        # Where a frame is at zero, the closed form sees a time that is safe under derivatives.
        u = _log_ratio(jnp.where(begun, t, reference), reference)
        s = jnp.asarray(self.exponent) + 1
        to_zero = -1 / jnp.maximum(s, 1 / _largest(t.dtype))
        since_reference = jnp.where(begun, u * _expm1_ratio(s * u), to_zero)
        power = jnp.exp(s * jnp.log(reference)) * since_reference
        return jnp.asarray(self.amplitude * power + self.offset * (t - reference))


class Trapezoid(AbstractRate):
    """Any rate, integrated by the cumulative trapezoid on the frame grid.

    The rate is held below half a frame spacing (`time_floor`), as homodyne 2.x does: with frames
    from t = 0 on and a power law this is another function of the parameters than its integral.
    """

    rate: AbstractRate

    def __call__(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        return self.rate(t)

    def integral(self, t: Float[Array, "frame"]) -> Float[Array, "frame"]:
        values = self.rate(jnp.maximum(t, time_floor(t)))
        steps = 0.5 * (values[1:] + values[:-1]) * jnp.diff(t)
        return jnp.concatenate([jnp.zeros_like(t, shape=(1,)), jnp.cumsum(steps)])


def cumulative_gauss(
    function: Callable[[Float[Array, "point"]], Float[Array, "point"]],
    t: Float[Array, "frame"],
    points: int = 3,
    panels: int = 1,
) -> Float[Array, "frame"]:
    """∫ function dt from t[0] to each frame, by Gauss–Legendre quadrature between frames.

    Each gap between frames is cut into `panels` equal parts with `points` nodes each: exact for
    polynomials of degree 2·points − 1. The function is never evaluated at a frame itself.
    """
    nodes, weights = np.polynomial.legendre.leggauss(points)
    # Nodes and weights of all panels on the unit interval.
    places = ((np.arange(panels)[:, None] + 0.5 * (nodes + 1)) / panels).ravel()
    shares = np.tile(0.5 * weights / panels, panels)
    gaps = jnp.diff(t)
    inside = t[:-1, None] + gaps[:, None] * places
    values = function(inside.ravel()).reshape(inside.shape)
    steps = gaps * (values @ jnp.asarray(shares, dtype=values.dtype))
    return jnp.concatenate([jnp.zeros_like(t, shape=(1,)), jnp.cumsum(steps)])


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


def _numbers(parameters: Any) -> Any:
    if not isinstance(parameters, Mapping):
        # For the check of the field.
        return parameters
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
    panels: Count = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_fields(self)
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
