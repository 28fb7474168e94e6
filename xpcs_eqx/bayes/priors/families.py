"""Prior densities of one parameter."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, ndtr

from ...errors import ModelError
from .base import (
    HALF_LOG_2PI,
    AbstractPrior,
    Number,
    check_order,
    check_positive,
    check_widths,
    inside,
    known,
    no_volume,
    number,
)


class Uniform(AbstractPrior):
    """Constant between `lower` and `upper`."""

    lower: Number = number()
    upper: Number = number()

    def __check_init__(self):
        check_order(self)
        if known(self.lower, self.upper) and not np.isfinite(self.upper - self.lower):
            raise ModelError(
                f"a Uniform prior between {float(self.lower):g} and {float(self.upper):g} cannot "
                "be normalised; give finite bounds or another prior"
            )

    @property
    def support(self):
        return self.lower, self.upper

    @property
    def moments(self):
        width = jnp.asarray(self.upper - self.lower)
        return self.lower + 0.5 * width, width / math.sqrt(12.0)

    def log_density(self, x):
        return inside(self, x, -jnp.log(self.upper - self.lower) + 0 * x)

    def sample(self, key, shape=()):
        return jax.random.uniform(key, shape, float, self.lower, self.upper)

    def powered(self, power):
        return self


class Normal(AbstractPrior):
    """Gaussian with `mean` and standard deviation `sd`."""

    mean: Number = number()
    sd: Number = number()

    def __check_init__(self):
        check_widths(self, "sd")

    @property
    def support(self):
        return -math.inf, math.inf

    @property
    def moments(self):
        return jnp.asarray(self.mean), jnp.asarray(self.sd)

    def log_density(self, x):
        return -0.5 * ((x - self.mean) / self.sd) ** 2 - jnp.log(self.sd) - HALF_LOG_2PI

    def sample(self, key, shape=()):
        return self.mean + self.sd * jax.random.normal(key, shape, float)

    def powered(self, power):
        return Normal(self.mean, self.sd / power**0.5)


class HalfNormal(AbstractPrior):
    """A Gaussian of standard deviation `scale` about zero, on x > 0."""

    scale: Number = number()

    def __check_init__(self):
        check_widths(self, "scale")

    @property
    def support(self):
        return 0.0, math.inf

    @property
    def moments(self):
        scale = jnp.asarray(self.scale)
        return scale * math.sqrt(2 / math.pi), scale * math.sqrt(1 - 2 / math.pi)

    def log_density(self, x):
        value = -0.5 * (x / self.scale) ** 2 - jnp.log(self.scale) - HALF_LOG_2PI + math.log(2)
        return inside(self, x, value)

    def sample(self, key, shape=()):
        return self.scale * jnp.abs(jax.random.normal(key, shape, float))

    def powered(self, power):
        return HalfNormal(self.scale / power**0.5)


class Beta(AbstractPrior):
    """A beta density with exponents `a` and `b`, stretched from 0 … 1 to `lower` … `upper`."""

    a: Number = number()
    b: Number = number()
    lower: Number = number(0.0)
    upper: Number = number(1.0)

    def __check_init__(self):
        check_widths(self, "a", "b")
        check_order(self)
        if known(self.lower, self.upper) and not np.isfinite(self.upper - self.lower):
            raise ModelError("a Beta prior needs finite ends")

    @property
    def support(self):
        return self.lower, self.upper

    @property
    def moments(self):
        total, width = self.a + self.b, self.upper - self.lower
        mean = self.lower + width * jnp.asarray(self.a / total)
        return mean, width * jnp.sqrt(self.a * self.b / (total + 1)) / total

    def log_density(self, x):
        width = self.upper - self.lower
        share = jnp.clip((x - self.lower) / width, 0.0, 1.0)

        def times_log(exponent, value):
            safe = jnp.where(value > 0, value, 1.0)
            edge = jnp.where(exponent == 0, 0.0, -jnp.sign(exponent) * jnp.inf)
            return jnp.where(value > 0, exponent * jnp.log(safe), edge)

        value = times_log(self.a - 1, share) + times_log(self.b - 1, 1 - share)
        return inside(self, x, value - betaln(self.a, self.b) - jnp.log(width))

    def sample(self, key, shape=()):
        draw = jax.random.beta(key, self.a, self.b, shape, float)
        return self.lower + (self.upper - self.lower) * draw

    def powered(self, power):
        return Beta(1 + power * (self.a - 1), 1 + power * (self.b - 1), self.lower, self.upper)


class Tempered(AbstractPrior):
    """p(x)^power without a new normalisation: K of them with power 1/K multiply to p(x) itself."""

    prior: AbstractPrior
    power: Number = number()

    def __check_init__(self):
        check_widths(self, "power")

    @property
    def support(self):
        return self.prior.support

    @property
    def moments(self):
        return self.prior.powered(self.power).moments

    def log_density(self, x):
        return self.power * self.prior.log_density(x)

    def sample(self, key, shape=()):
        return self.prior.powered(self.power).sample(key, shape)

    def powered(self, power):
        return self.prior.powered(self.power * power)


def _log_mass(low: Any, high: Any) -> Any:
    """ln(Φ(high) − Φ(low)), in the tail that is not close to one.

    By erfc, which the compiler knows: the logarithm of Φ takes longer to compile than a model.
    """
    low, high = jnp.where(low > 0, -high, low), jnp.where(low > 0, -low, high)
    upper, lower = (0.5 * jax.lax.erfc(-end / math.sqrt(2.0)) for end in (high, low))
    return jnp.log(upper - lower)


def _known_log_mass(low: float, high: float) -> float:
    low, high = (-high, -low) if low > 0 else (low, high)
    upper, lower = (0.5 * math.erfc(-end / math.sqrt(2)) for end in (high, low))
    return math.log(upper - lower) if upper > lower else -math.inf


def _check_mass(name: str, centre: Any, width: Any, lower: Any, upper: Any) -> None:
    """Refuse a Gaussian that has no mass between two ends, where all of them are known."""
    if not known(centre, width, lower, upper):
        return
    check_positive(name, "width", width)
    if not float(lower) < float(upper):
        raise ModelError(no_volume(name, lower, upper))
    centre, width, lower, upper = (float(v) for v in (centre, width, lower, upper))
    if not math.isfinite(_known_log_mass((lower - centre) / width, (upper - centre) / width)):
        raise ModelError(
            f"a {name} prior centred at {centre:g} with width {width:g} has no weight left "
            f"between {lower:g} and {upper:g}; move or widen one of them"
        )


def _in_widths(end: Any, centre: Any, width: Any) -> Any:
    """(end − centre)/width, whose derivatives are 0 and not NaN where the end is infinite."""
    finite = jnp.isfinite(end)
    inside = (jnp.where(finite, end, centre) - centre) / width
    return jnp.where(finite, inside, jnp.where(end > 0, jnp.inf, -jnp.inf))


def _log(end: Any) -> Any:
    """ln of an end that may be 0, whose derivative is then 0."""
    end = jnp.asarray(end)
    return jnp.where(end > 0, jnp.log(jnp.where(end > 0, end, 1.0)), -jnp.inf)


class TruncatedNormal(AbstractPrior):
    """Gaussian with `mean` and `sd` before it is cut at `lower` and `upper`."""

    mean: Number = number()
    sd: Number = number()
    lower: Number = number(-math.inf)
    upper: Number = number(math.inf)

    def __check_init__(self):
        _check_mass("TruncatedNormal", self.mean, self.sd, self.lower, self.upper)

    @property
    def support(self):
        return self.lower, self.upper

    def _ends(self):
        ends = (self.lower, self.upper)
        low, high = (_in_widths(jnp.asarray(end), self.mean, self.sd) for end in ends)
        return low, high

    @property
    def moments(self):
        low, high = self._ends()
        mass = jnp.exp(_log_mass(low, high))

        def weighted(z, power):
            finite = jnp.isfinite(z)
            safe = jnp.where(finite, z, 0.0)
            return jnp.where(finite, safe**power * jnp.exp(-0.5 * safe**2 - HALF_LOG_2PI), 0.0)

        shift = (weighted(low, 0) - weighted(high, 0)) / mass
        second = 1 + (weighted(low, 1) - weighted(high, 1)) / mass
        return self.mean + self.sd * shift, self.sd * jnp.sqrt(second - shift**2)

    def log_density(self, x):
        value = -0.5 * ((x - self.mean) / self.sd) ** 2 - jnp.log(self.sd) - HALF_LOG_2PI
        return inside(self, x, value - _log_mass(*self._ends()))

    def sample(self, key, shape=()):
        low, high = self._ends()
        return self.mean + self.sd * jax.random.truncated_normal(key, low, high, shape, float)

    def powered(self, power):
        return TruncatedNormal(self.mean, self.sd / power**0.5, self.lower, self.upper)


class LogNormal(AbstractPrior):
    """ln x is Gaussian with mean `location` and standard deviation `scale`, cut at two bounds.

    `lower` ≥ 0 and `upper` bound x itself.
    """

    location: Number = number()
    scale: Number = number()
    lower: Number = number(0.0)
    upper: Number = number(math.inf)

    def __check_init__(self):
        if known(self.lower) and float(self.lower) < 0:
            raise ModelError(f"lower end {float(self.lower):g} of a LogNormal prior is below 0")
        if known(self.lower, self.upper):
            ends = (
                math.log(v) if 0 < v < math.inf else (-math.inf if v <= 0 else v)
                for v in (float(self.lower), float(self.upper))
            )
            _check_mass("LogNormal", self.location, self.scale, *ends)

    def _ends(self):
        low, high = (_in_widths(_log(end), self.location, self.scale) for end in self.support)
        return low, high

    @property
    def support(self):
        return self.lower, self.upper

    @property
    def moments(self):
        low, high = self._ends()
        mass = _log_mass(low, high)

        def raw(order):
            shift = order * self.scale
            # ∫ exp(k u) of a Gaussian is that of a Gaussian moved by k·scale.
            part = ndtr(high - shift) - ndtr(low - shift)
            return jnp.exp(order * self.location + 0.5 * shift**2 - mass) * part

        return raw(1), jnp.sqrt(raw(2) - raw(1) ** 2)

    def log_density(self, x):
        inside = (x > 0) & (x >= self.lower) & (x <= self.upper)
        log_x = jnp.log(jnp.where(inside, x, 1.0))
        value = -0.5 * ((log_x - self.location) / self.scale) ** 2 - log_x
        value -= jnp.log(self.scale) + HALF_LOG_2PI + _log_mass(*self._ends())
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
