"""Prior densities of one parameter."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln

from ...errors import ModelError
from .base import (
    HALF_LOG_2PI,
    AbstractPrior,
    Number,
    check_order,
    check_widths,
    inside,
    known,
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
