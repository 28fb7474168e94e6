"""Declaring a parameter of a model as a field with a unit, bounds and a start value."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp


class ParameterInfo(NamedTuple):
    """What a field says about its parameter, in the units of the public interface."""

    unit: str = ""
    start: float = 1.0
    lower: float = -float("inf")
    upper: float = float("inf")
    scale: float | None = None


_KEY = "xpcs_eqx.parameter"


def _as_inexact(value: Any) -> Any:
    # Arrays, tracers and the placeholders of tree transformations pass through unchanged.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return jnp.asarray(float(value))
    if isinstance(value, jax.Array) and not jnp.issubdtype(value.dtype, jnp.inexact):
        return value.astype(float)
    return value


def parameter(
    *,
    unit: str = "",
    start: float = 1.0,
    bounds: tuple[float, float] = (-float("inf"), float("inf")),
    scale: float | None = None,
) -> Any:
    """A Module field that is a parameter of a model.

    **Arguments:**

    - `unit`: shown in reports.
    - `start`, `bounds`: used when the user gives none.
    - `scale`: a natural step of the parameter; by default its start value, or one.

    **Raises:** `ValueError` when the bounds are not in order or the start lies outside them.
    """
    lower, upper = bounds
    if not lower < upper:
        raise ValueError(f"bounds ({lower}, {upper}) must satisfy lower < upper")
    if not lower <= start <= upper:
        raise ValueError(f"start {start} lies outside its bounds ({lower}, {upper})")
    info = ParameterInfo(unit, float(start), float(lower), float(upper), scale)
    return eqx.field(default=info.start, converter=_as_inexact, metadata={_KEY: info})


def parameter_info(field: dataclasses.Field) -> ParameterInfo | None:
    """The declaration of a field made with `parameter`, else None."""
    return field.metadata.get(_KEY)
