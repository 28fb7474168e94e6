"""Prior densities of one parameter."""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, log_ndtr, ndtr
from jaxtyping import Array, Float, Key, ScalarLike

from ..errors import ModelError

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _number(value: Any) -> Any:
    """Numbers as NumPy arrays, so that another value is another argument of compiled code."""
    return np.asarray(value, float) if isinstance(value, int | float | np.generic) else value


def number(default: float | None = None) -> Any:
    """A field that holds one number."""
    if default is None:
        return eqx.field(converter=_number)
    return eqx.field(default=default, converter=_number)


def _known(*values: Any) -> bool:
    return not any(isinstance(value, jax.core.Tracer) for value in values)


def _in_order(prior: Any) -> None:
    low, high = prior.lower, prior.upper
    if _known(low, high) and not float(low) < float(high):
        raise ModelError(
            f"a {type(prior).__name__} prior between {float(low):g} and {float(high):g} has no "
            "volume; the lower end must be below the upper one (fix a parameter by its bounds)"
        )


def _positive(prior: Any, *names: str) -> None:
    for name in names:
        value = getattr(prior, name)
        if _known(value) and not (float(value) > 0 and math.isfinite(float(value))):
            raise ModelError(
                f"{name} {float(value):g} of a {type(prior).__name__} prior; it must be a finite "
                "number above 0"
            )


class AbstractPrior(eqx.Module):
    """A density p(x) of one number in its physical unit."""

    @property
    @abstractmethod
    def support(self) -> tuple[ScalarLike, ScalarLike]:
        """Lower and upper end of where the density is not zero; infinite where it never ends."""

    @property
    @abstractmethod
    def moments(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Mean and standard deviation."""

    @abstractmethod
    def log_density(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """ln p(x), normalised; −∞ outside the support."""

    @abstractmethod
    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        """Independent draws."""

    @abstractmethod
    def powered(self, power: ScalarLike) -> "AbstractPrior":
        """The density proportional to p(x)^power, normalised: of the same family."""


def _inside(prior: AbstractPrior, x, value):
    low, high = prior.support
    return jnp.where((x >= low) & (x <= high), value, -jnp.inf)


class Uniform(AbstractPrior):
    """Constant between `lower` and `upper`."""

    lower: ScalarLike = number()
    upper: ScalarLike = number()

    def __check_init__(self):
        _in_order(self)
        if _known(self.lower, self.upper) and not np.isfinite(self.upper - self.lower):
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
        return _inside(self, x, -jnp.log(self.upper - self.lower) + 0 * x)

    def sample(self, key, shape=()):
        return jax.random.uniform(key, shape, float, self.lower, self.upper)

    def powered(self, power):
        return self


class Normal(AbstractPrior):
    """Gaussian with `mean` and standard deviation `sd`."""

    mean: ScalarLike = number()
    sd: ScalarLike = number()

    def __check_init__(self):
        _positive(self, "sd")

    @property
    def support(self):
        return -math.inf, math.inf

    @property
    def moments(self):
        return jnp.asarray(self.mean), jnp.asarray(self.sd)

    def log_density(self, x):
        return -0.5 * ((x - self.mean) / self.sd) ** 2 - jnp.log(self.sd) - _HALF_LOG_2PI

    def sample(self, key, shape=()):
        return self.mean + self.sd * jax.random.normal(key, shape, float)

    def powered(self, power):
        return Normal(self.mean, self.sd / jnp.sqrt(power))


class TruncatedNormal(AbstractPrior):
    """Gaussian with `mean` and `sd` before it is cut at `lower` and `upper`."""

    mean: ScalarLike = number()
    sd: ScalarLike = number()
    lower: ScalarLike = number(-math.inf)
    upper: ScalarLike = number(math.inf)

    def __check_init__(self):
        _positive(self, "sd")
        _in_order(self)

    @property
    def support(self):
        return self.lower, self.upper

    def _ends(self):
        return (self.lower - self.mean) / self.sd, (self.upper - self.mean) / self.sd

    def _log_mass(self):
        low, high = self._ends()
        # In the tail that is not close to one.
        low, high = jnp.where(low > 0, -high, low), jnp.where(low > 0, -low, high)
        return log_ndtr(high) + jnp.log1p(-jnp.exp(log_ndtr(low) - log_ndtr(high)))

    @property
    def moments(self):
        low, high = self._ends()
        mass = jnp.exp(self._log_mass())

        def weighted(z, power):
            finite = jnp.isfinite(z)
            safe = jnp.where(finite, z, 0.0)
            return jnp.where(finite, safe**power * jnp.exp(-0.5 * safe**2 - _HALF_LOG_2PI), 0.0)

        shift = (weighted(low, 0) - weighted(high, 0)) / mass
        second = 1 + (weighted(low, 1) - weighted(high, 1)) / mass
        return self.mean + self.sd * shift, self.sd * jnp.sqrt(second - shift**2)

    def log_density(self, x):
        value = -0.5 * ((x - self.mean) / self.sd) ** 2 - jnp.log(self.sd) - _HALF_LOG_2PI
        return _inside(self, x, value - self._log_mass())

    def sample(self, key, shape=()):
        low, high = self._ends()
        return self.mean + self.sd * jax.random.truncated_normal(key, low, high, shape, float)

    def powered(self, power):
        return TruncatedNormal(self.mean, self.sd / jnp.sqrt(power), self.lower, self.upper)


class LogNormal(AbstractPrior):
    """ln x is Gaussian with mean `location` and standard deviation `scale`, cut at two bounds.

    `lower` ≥ 0 and `upper` bound x itself.
    """

    location: ScalarLike = number()
    scale: ScalarLike = number()
    lower: ScalarLike = number(0.0)
    upper: ScalarLike = number(math.inf)

    def __check_init__(self):
        _positive(self, "scale")
        _in_order(self)
        if _known(self.lower) and self.lower < 0:
            raise ModelError(f"lower end {float(self.lower):g} of a LogNormal prior is below 0")

    def _of_log(self) -> TruncatedNormal:
        low = jnp.where(self.lower > 0, jnp.log(jnp.where(self.lower > 0, self.lower, 1)), -jnp.inf)
        return TruncatedNormal(self.location, self.scale, low, jnp.log(self.upper))

    @property
    def support(self):
        return self.lower, self.upper

    @property
    def moments(self):
        inner = self._of_log()
        low, high = inner._ends()
        mass = jnp.exp(inner._log_mass())

        def raw(order):
            shift = order * self.scale
            # ∫ exp(k u) of a Gaussian is a Gaussian moved by k·scale.
            part = ndtr(high - shift) - ndtr(low - shift)
            return jnp.exp(order * self.location + 0.5 * shift**2) * part / mass

        return raw(1), jnp.sqrt(raw(2) - raw(1) ** 2)

    def log_density(self, x):
        inside = (x > 0) & (x >= self.lower) & (x <= self.upper)
        log_x = jnp.log(jnp.where(inside, x, 1.0))
        value = -0.5 * ((log_x - self.location) / self.scale) ** 2 - log_x
        value -= jnp.log(self.scale) + _HALF_LOG_2PI + self._of_log()._log_mass()
        return jnp.where(inside, value, -jnp.inf)

    def sample(self, key, shape=()):
        return jnp.exp(self._of_log().sample(key, shape))

    def powered(self, power):
        # x^(−power) from the density and 1/x from the measure: what is left moves the centre.
        variance = self.scale**2 / power
        centre = self.location + variance * (1 - power)
        return LogNormal(centre, jnp.sqrt(variance), self.lower, self.upper)


class HalfNormal(AbstractPrior):
    """A Gaussian of standard deviation `scale` about zero, on x > 0."""

    scale: ScalarLike = number()

    def __check_init__(self):
        _positive(self, "scale")

    @property
    def support(self):
        return 0.0, math.inf

    @property
    def moments(self):
        scale = jnp.asarray(self.scale)
        return scale * math.sqrt(2 / math.pi), scale * math.sqrt(1 - 2 / math.pi)

    def log_density(self, x):
        value = -0.5 * (x / self.scale) ** 2 - jnp.log(self.scale) - _HALF_LOG_2PI + math.log(2)
        return _inside(self, x, value)

    def sample(self, key, shape=()):
        return self.scale * jnp.abs(jax.random.normal(key, shape, float))

    def powered(self, power):
        return HalfNormal(self.scale / jnp.sqrt(power))


class Beta(AbstractPrior):
    """A beta density with exponents `a` and `b`, stretched from 0 … 1 to `lower` … `upper`."""

    a: ScalarLike = number()
    b: ScalarLike = number()
    lower: ScalarLike = number(0.0)
    upper: ScalarLike = number(1.0)

    def __check_init__(self):
        _positive(self, "a", "b")
        _in_order(self)
        if _known(self.lower, self.upper) and not np.isfinite(self.upper - self.lower):
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
        return _inside(self, x, value - betaln(self.a, self.b) - jnp.log(width))

    def sample(self, key, shape=()):
        draw = jax.random.beta(key, self.a, self.b, shape, float)
        return self.lower + (self.upper - self.lower) * draw

    def powered(self, power):
        return Beta(1 + power * (self.a - 1), 1 + power * (self.b - 1), self.lower, self.upper)


class Tempered(AbstractPrior):
    """p(x)^power without a new normalisation: K of them with power 1/K multiply to p(x) itself."""

    prior: AbstractPrior
    power: ScalarLike = number()

    def __check_init__(self):
        _positive(self, "power")

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
