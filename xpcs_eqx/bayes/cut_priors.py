"""Gaussian and log-normal priors inside bounds."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtr

from ..errors import ModelError
from .abstract_prior import (
    HALF_LOG_2PI,
    AbstractPrior,
    Number,
    as_number,
    check_positive,
    inside,
    known,
    no_volume,
)


def _log_mass(low: Any, high: Any) -> Any:
    """ln(Φ(high) − Φ(low)), in the tail that is not close to one."""
    low, high = jnp.where(low > 0, -high, low), jnp.where(low > 0, -low, high)
    return log_ndtr(high) + jnp.log1p(-jnp.exp(log_ndtr(low) - log_ndtr(high)))


def _known_log_mass(low: float, high: float) -> float:
    low, high = (-high, -low) if low > 0 else (low, high)
    upper, lower = (0.5 * math.erfc(-end / math.sqrt(2)) for end in (high, low))
    return math.log(upper - lower) if upper > lower else -math.inf


def _mass_between(name: str, centre: Any, width: Any, lower: Any, upper: Any) -> Any:
    """ln of the Gaussian mass between two ends, by the standard library where all is known.

    Inside a sampler it would be evaluated at every step, and take longer to compile than a model.
    """
    if not known(centre, width, lower, upper):
        return _log_mass((lower - centre) / width, (upper - centre) / width)
    check_positive(name, "width", width)
    if not float(lower) < float(upper):
        raise ModelError(no_volume(name, lower, upper))
    centre, width, lower, upper = (float(v) for v in (centre, width, lower, upper))
    mass = _known_log_mass((lower - centre) / width, (upper - centre) / width)
    if not math.isfinite(mass):
        raise ModelError(
            f"a {name} prior centred at {centre:g} with width {width:g} has no weight left "
            f"between {lower:g} and {upper:g}; move or widen one of them"
        )
    return np.asarray(mass)


class TruncatedNormal(AbstractPrior):
    """Gaussian with `mean` and `sd` before it is cut at `lower` and `upper`."""

    mean: Number
    sd: Number
    lower: Number
    upper: Number
    log_mass: Number

    def __init__(
        self,
        mean: Number,
        sd: Number,
        lower: Number = -math.inf,
        upper: Number = math.inf,
    ):
        self.mean, self.sd, self.lower, self.upper = (
            as_number(v) for v in (mean, sd, lower, upper)
        )
        self.log_mass = _mass_between("TruncatedNormal", mean, sd, lower, upper)

    @property
    def support(self):
        return self.lower, self.upper

    def _ends(self):
        return (self.lower - self.mean) / self.sd, (self.upper - self.mean) / self.sd

    @property
    def moments(self):
        low, high = self._ends()
        mass = jnp.exp(self.log_mass)

        def weighted(z, power):
            finite = jnp.isfinite(z)
            safe = jnp.where(finite, z, 0.0)
            return jnp.where(finite, safe**power * jnp.exp(-0.5 * safe**2 - HALF_LOG_2PI), 0.0)

        shift = (weighted(low, 0) - weighted(high, 0)) / mass
        second = 1 + (weighted(low, 1) - weighted(high, 1)) / mass
        return self.mean + self.sd * shift, self.sd * jnp.sqrt(second - shift**2)

    def log_density(self, x):
        value = -0.5 * ((x - self.mean) / self.sd) ** 2 - jnp.log(self.sd) - HALF_LOG_2PI
        return inside(self, x, value - self.log_mass)

    def sample(self, key, shape=()):
        low, high = self._ends()
        return self.mean + self.sd * jax.random.truncated_normal(key, low, high, shape, float)

    def powered(self, power):
        return TruncatedNormal(self.mean, self.sd / power**0.5, self.lower, self.upper)


class LogNormal(AbstractPrior):
    """ln x is Gaussian with mean `location` and standard deviation `scale`, cut at two bounds.

    `lower` ≥ 0 and `upper` bound x itself.
    """

    location: Number
    scale: Number
    lower: Number
    upper: Number
    log_mass: Number

    def __init__(
        self,
        location: Number,
        scale: Number,
        lower: Number = 0.0,
        upper: Number = math.inf,
    ):
        self.location, self.scale = as_number(location), as_number(scale)
        self.lower, self.upper = as_number(lower), as_number(upper)
        if known(lower) and float(lower) < 0:
            raise ModelError(f"lower end {float(lower):g} of a LogNormal prior is below 0")
        if not known(lower, upper):
            ends = jnp.log(jnp.asarray(lower)), jnp.log(jnp.asarray(upper))
        else:
            ends = tuple(
                math.log(v) if 0 < v < math.inf else (-math.inf if v <= 0 else v)
                for v in (float(lower), float(upper))
            )
        self.log_mass = _mass_between("LogNormal", location, scale, *ends)

    def _ends(self):
        with np.errstate(divide="ignore"):
            logs = (jnp.log(jnp.asarray(end)) for end in (self.lower, self.upper))
            low, high = ((end - self.location) / self.scale for end in logs)
        return low, high

    @property
    def support(self):
        return self.lower, self.upper

    @property
    def moments(self):
        low, high = self._ends()

        def raw(order):
            shift = order * self.scale
            # ∫ exp(k u) of a Gaussian is that of a Gaussian moved by k·scale.
            part = ndtr(high - shift) - ndtr(low - shift)
            return jnp.exp(order * self.location + 0.5 * shift**2 - self.log_mass) * part

        return raw(1), jnp.sqrt(raw(2) - raw(1) ** 2)

    def log_density(self, x):
        inside = (x > 0) & (x >= self.lower) & (x <= self.upper)
        log_x = jnp.log(jnp.where(inside, x, 1.0))
        value = -0.5 * ((log_x - self.location) / self.scale) ** 2 - log_x
        value -= jnp.log(self.scale) + HALF_LOG_2PI + self.log_mass
        return jnp.where(inside, value, -jnp.inf)

    def sample(self, key, shape=()):
        low, high = self._ends()
        draw = jax.random.truncated_normal(key, low, high, shape, float)
        return jnp.exp(self.location + self.scale * draw)

    def powered(self, power):
        # x^(−power) from the density and 1/x from the measure: what is left moves the centre.
        variance = self.scale**2 / power
        centre = self.location + variance * (1 - power)
        return LogNormal(centre, variance**0.5, self.lower, self.upper)
