"""What every prior is, and the checks they share."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ...errors import ModelError

_T = TypeVar("_T")
# A Python number or an array of shape (), traced or not.
Number: TypeAlias = Any
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def as_number(value: Any) -> Any:
    """Numbers as NumPy arrays, so that another value is another argument of compiled code."""
    return np.asarray(value, float) if isinstance(value, int | float | np.generic) else value


def number(default: float | None = None) -> Any:
    """A field that holds one number."""
    if default is None:
        return eqx.field(converter=as_number)
    return eqx.field(default=default, converter=as_number)


def known(*values: Any) -> bool:
    return not any(isinstance(value, jax.core.Tracer) for value in values)


def no_volume(name: str, low: Any, high: Any) -> str:
    return (
        f"a {name} prior between {float(low):g} and {float(high):g} has no volume; the lower end "
        "must be below the upper one (to fix a parameter, give it equal bounds in the map)"
    )


def check_order(prior: Any) -> None:
    low, high = prior.lower, prior.upper
    if known(low, high) and not float(low) < float(high):
        raise ModelError(no_volume(type(prior).__name__, low, high))


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

    @abstractmethod
    def powered(self, power: Number) -> "AbstractPrior":
        """The density proportional to p(x)^power, normalised: of the same family."""


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
