"""Declaring a parameter of a model as a field with a unit, bounds and a start value."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ModelError


class ParameterInfo(NamedTuple):
    """What a field says about its parameter, in the units of the public interface.

    `logarithmic`: solvers step in its logarithm where its bounds keep it positive.
    """

    unit: str = ""
    start: float = 1.0
    lower: float = -float("inf")
    upper: float = float("inf")
    scale: float | None = None
    logarithmic: bool = False

    def within(self, declared: "ParameterInfo | None") -> "ParameterInfo":
        """This, inside the bounds that the field of the parameter asks for itself."""
        if declared is None:
            return self
        return self._replace(
            lower=max(self.lower, declared.lower),
            upper=min(self.upper, declared.upper),
            logarithmic=self.logarithmic or declared.logarithmic,
        )


_KEY = "xpcs_eqx.parameter"
_CONSTANT = "xpcs_eqx.constant"


def as_inexact(value: Any) -> Any:
    """Numbers and NumPy arrays as floating-point arrays of JAX.

    Their type is a stated one: a weakly typed number would compile anew once a fit has replaced it.
    """
    # Arrays, tracers and the placeholders of tree transformations pass through unchanged.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return jnp.asarray(float(value), dtype=float)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        return jnp.asarray(value, dtype=float)
    if isinstance(value, jax.Array) and not jnp.issubdtype(value.dtype, jnp.inexact):
        return value.astype(float)
    if isinstance(value, jax.Array) and value.weak_type:
        return jnp.asarray(value, dtype=value.dtype)
    return value


def parameter(
    *,
    unit: str = "",
    start: float = 1.0,
    bounds: tuple[float, float] = (-float("inf"), float("inf")),
    scale: float | None = None,
    logarithmic: bool = False,
) -> Any:
    """Declare a parameter of a model of your own: unit, start value and bounds.

    **Arguments:**

    - `unit`: shown in reports.
    - `logarithmic`: step in its logarithm; its bounds must keep it positive.
    - `start`, `bounds`: used when the user gives none.
    - `scale`: a natural step of the parameter; by default its start value, or one.

    **Raises:** `ModelError` when the bounds are not in order or the start lies outside them.
    """
    lower, upper = bounds
    if not lower < upper:
        raise ModelError(f"bounds ({lower}, {upper}) of a parameter; lower must be below upper")
    if not lower <= start <= upper:
        raise ModelError(f"start {start} of a parameter lies outside its bounds ({lower}, {upper})")
    info = ParameterInfo(unit, float(start), float(lower), float(upper), scale, logarithmic)
    return eqx.field(default=info.start, converter=as_inexact, metadata={_KEY: info})


def constant() -> Any:
    """A Module field with numbers that are no parameters of a model: knots, say.

    They are traced as all arrays are, so that other numbers compile nothing anew.
    """
    return eqx.field(converter=as_inexact, metadata={_CONSTANT: True})


def is_constant(field: dataclasses.Field) -> bool:
    """Whether a field was made with `constant`."""
    return field.metadata.get(_CONSTANT, False)


def parameter_info(field: dataclasses.Field) -> ParameterInfo | None:
    """The declaration of a field made with `parameter`, else None."""
    return field.metadata.get(_KEY)
