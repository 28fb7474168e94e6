"""Prior densities of one parameter."""

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, ndtr
from jaxtyping import Array, Float, Key

from ...errors import ModelError

_T = TypeVar("_T")
# A Python number or an array of shape (), traced or not.
Number: TypeAlias = Any
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def as_number(value: Any) -> Any:
    """Numbers as NumPy arrays, so that another value is another argument of compiled code.

    **Raises:** `ModelError` for what is neither a number nor an array of them.
    """
    if isinstance(value, int | float | np.generic):
        return np.asarray(value, float)
    if not hasattr(value, "dtype"):
        raise ModelError(f"{value!r:.60} was given where a number is needed")
    return value


def number(default: float | None = None) -> Any:
    """A field that holds one number."""
    given: dict[str, Any] = {} if default is None else {"default": default}
    return eqx.field(converter=as_number, **given)


def known(*values: Any) -> bool:
    return not any(isinstance(value, jax.core.Tracer) for value in values)


def no_volume(name: str, low: Any, high: Any) -> str:
    return (
        f"a {name} prior between {float(low):g} and {float(high):g} has no volume; the lower end "
        "must be below the upper one (to fix a parameter, give it equal bounds in the map)"
    )


def check_ends(prior: Any) -> None:
    low, high = prior.lower, prior.upper
    if not known(low, high):
        return
    name = type(prior).__name__
    if not float(low) < float(high):
        raise ModelError(no_volume(name, low, high))
    if not math.isfinite(float(high) - float(low)):
        raise ModelError(
            f"a {name} prior between {float(low):g} and {float(high):g} cannot be normalised; give "
            "finite bounds or another prior"
        )


def check_positive(name: str, what: str, value: Any) -> None:
    if not (float(value) > 0 and math.isfinite(float(value))):
        raise ModelError(
            f"{what} {float(value):g} of a {name} prior; it must be a finite number above 0"
        )


def check_widths(prior: Any, *names: str) -> None:
    for name in names:
        if known(getattr(prior, name)):
            check_positive(type(prior).__name__, name, getattr(prior, name))


class AbstractPrior(eqx.Module):
    """A density p(x) of one number in its physical unit."""

    @property
    @abstractmethod
    def support(self) -> tuple[Number, Number]:
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


def inside(prior: AbstractPrior, x, value):
    low, high = prior.support
    return jnp.where((x >= low) & (x <= high), value, -jnp.inf)


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
    return np.stack(leaves) if known(*leaves) else jnp.stack(leaves)


class Uniform(AbstractPrior):
    """Constant between `lower` and `upper`."""

    lower: Number = number()
    upper: Number = number()

    def __check_init__(self):
        check_ends(self)

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


class Beta(AbstractPrior):
    """A beta density with exponents `a` and `b`, stretched from 0 … 1 to `lower` … `upper`."""

    a: Number = number()
    b: Number = number()
    lower: Number = number(0.0)
    upper: Number = number(1.0)

    def __check_init__(self):
        check_widths(self, "a", "b")
        check_ends(self)

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


FAMILIES: dict[str, type[AbstractPrior]] = {
    kind.__name__: kind for kind in (Uniform, Normal, TruncatedNormal, LogNormal, HalfNormal, Beta)
}


def prior_numbers(prior: AbstractPrior) -> dict[str, Any]:
    """A prior as plain values: its family and its numbers, from which `prior_from` makes it."""
    kind = type(prior).__name__
    if kind not in FAMILIES:
        return {"family": f"{type(prior).__module__}.{type(prior).__qualname__}"}
    fields = (field.name for field in dataclasses.fields(prior))
    return {"family": kind, **{name: float(getattr(prior, name)) for name in fields}}


def prior_from(
    numbers: Mapping[str, Any], name: str, given: Mapping[str, AbstractPrior]
) -> AbstractPrior:
    """The prior of a parameter `name` from plain values, or the one that is given for it.

    **Raises:** `ModelError` for a family that is not of this package where none is given.
    """
    if name in given:
        return given[name]
    family, *rest = numbers.items()
    if family[1] not in FAMILIES:
        raise ModelError(
            f"the prior of {name} is a {family[1]}, which a file cannot make again; give it: "
            f"priors={{{name!r}: …}}"
        )
    return FAMILIES[family[1]](**dict(rest))
