"""Prior densities of one parameter."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, log_ndtr, ndtr
from jaxtyping import Array, Float, Key, ScalarLike

from ..errors import ModelError

_T = TypeVar("_T")
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


def _no_volume(name: str, low: Any, high: Any) -> str:
    return (
        f"a {name} prior between {float(low):g} and {float(high):g} has no volume; the lower end "
        "must be below the upper one (to fix a parameter, give it equal bounds in the map)"
    )


def _in_order(prior: Any) -> None:
    low, high = prior.lower, prior.upper
    if _known(low, high) and not float(low) < float(high):
        raise ModelError(_no_volume(type(prior).__name__, low, high))


def _positive_number(name: str, what: str, value: Any) -> None:
    if not (float(value) > 0 and math.isfinite(float(value))):
        raise ModelError(
            f"{what} {float(value):g} of a {name} prior; it must be a finite number above 0"
        )


def _positive(prior: Any, *names: str) -> None:
    for name in names:
        if _known(getattr(prior, name)):
            _positive_number(type(prior).__name__, name, getattr(prior, name))


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
        return Normal(self.mean, self.sd / power**0.5)


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
    if not _known(centre, width, lower, upper):
        return _log_mass((lower - centre) / width, (upper - centre) / width)
    _positive_number(name, "width", width)
    if not float(lower) < float(upper):
        raise ModelError(_no_volume(name, lower, upper))
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

    mean: ScalarLike
    sd: ScalarLike
    lower: ScalarLike
    upper: ScalarLike
    log_mass: ScalarLike

    def __init__(
        self,
        mean: ScalarLike,
        sd: ScalarLike,
        lower: ScalarLike = -math.inf,
        upper: ScalarLike = math.inf,
    ):
        self.mean, self.sd, self.lower, self.upper = (_number(v) for v in (mean, sd, lower, upper))
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
            return jnp.where(finite, safe**power * jnp.exp(-0.5 * safe**2 - _HALF_LOG_2PI), 0.0)

        shift = (weighted(low, 0) - weighted(high, 0)) / mass
        second = 1 + (weighted(low, 1) - weighted(high, 1)) / mass
        return self.mean + self.sd * shift, self.sd * jnp.sqrt(second - shift**2)

    def log_density(self, x):
        value = -0.5 * ((x - self.mean) / self.sd) ** 2 - jnp.log(self.sd) - _HALF_LOG_2PI
        return _inside(self, x, value - self.log_mass)

    def sample(self, key, shape=()):
        low, high = self._ends()
        return self.mean + self.sd * jax.random.truncated_normal(key, low, high, shape, float)

    def powered(self, power):
        return TruncatedNormal(self.mean, self.sd / power**0.5, self.lower, self.upper)


class LogNormal(AbstractPrior):
    """ln x is Gaussian with mean `location` and standard deviation `scale`, cut at two bounds.

    `lower` ≥ 0 and `upper` bound x itself.
    """

    location: ScalarLike
    scale: ScalarLike
    lower: ScalarLike
    upper: ScalarLike
    log_mass: ScalarLike

    def __init__(
        self,
        location: ScalarLike,
        scale: ScalarLike,
        lower: ScalarLike = 0.0,
        upper: ScalarLike = math.inf,
    ):
        self.location, self.scale, self.lower, self.upper = (
            _number(v) for v in (location, scale, lower, upper)
        )
        if _known(lower) and float(lower) < 0:
            raise ModelError(f"lower end {float(lower):g} of a LogNormal prior is below 0")
        if not _known(lower, upper):
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
        value -= jnp.log(self.scale) + _HALF_LOG_2PI + self.log_mass
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
        return HalfNormal(self.scale / power**0.5)


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


def stacked(members: Sequence[_T]) -> list[tuple[tuple[int, ...], _T]]:
    """Modules of one kind put together, their numbers as arrays; with the positions of each kind.

    What is elementwise then works on all of a kind at once, which is compiled once.
    """
    kinds: dict[Any, list[int]] = {}
    for i, member in enumerate(members):
        kinds.setdefault(jax.tree.structure(member), []).append(i)
    return [
        (tuple(where), jax.tree.map(_stack, *(members[i] for i in where)))
        for where in kinds.values()
    ]


def _stack(*leaves: Any) -> Any:
    return np.stack(leaves) if _known(*leaves) else jnp.stack(leaves)
