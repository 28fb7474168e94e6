"""The values of the scalar parameters of a model by name, and ties; those of earlier results."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..arguments import numbers
from ..errors import DataError, ModelError, nearest_name
from ..physics import AbstractCorrelation, as_inexact
from ..physics.leaves import below, parameter_leaves, value_of

Tie = Callable[[Mapping[str, Array]], Array]


class Proportional(eqx.Module):
    """A parameter that is `factor` times another: a tie for `parameter_map`.

    >>> import xpcs_eqx as xe
    >>> from xpcs_eqx.parameters import Proportional
    >>> model = xe.Static(xe.PowerLawRate(1e4, -0.2, 0.0))
    >>> ties = {"D_offset": Proportional("D0", 0.1)}
    >>> parameters = xe.parameter_map(model, ties=ties, fixed=("alpha",), bounds={"D0": (1, 1e5)})
    >>> parameters.names, parameters.free_names
    (('D0', 'alpha', 'D_offset'), ('D0',))
    >>> round(float(parameters.build(parameters.start).transport.offset), 6)
    1000.0
    """

    name: str = eqx.field(static=True)
    factor: float = eqx.field(static=True, default=1.0)

    def __call__(self, values: Mapping[str, Array]) -> Array:
        """The value from the values of all parameters by name."""
        return self.factor * values[self.name]


def tied(name: str, tie: Tie, values: Mapping[str, Array]) -> Array:
    """The value of the parameter `name` by its tie.

    **Raises:** `ModelError` for a tie that asks for a parameter that is not there.
    """
    try:
        return tie(values)
    except KeyError as error:
        raise ModelError(
            f"the tie of {name} asks for {error}; what it may use is {', '.join(values)}"
        ) from error


def _replaced(old: Any, entries: Mapping[int, Any]) -> Any:
    """An array with some of its entries, counted along its rows, replaced."""
    shape, size = np.shape(old), int(np.prod(np.shape(old)))
    if len(entries) < size:
        flat = jnp.ravel(old) if isinstance(old, jax.core.Tracer) else np.ravel(np.asarray(old))
        entries = {**{i: flat[i] for i in range(size)}, **entries}
    return stack([entries[i] for i in range(size)]).reshape(shape)


def parameter_values(model: AbstractCorrelation) -> dict[str, Array]:
    """The values of all scalar parameters by public name."""
    return {leaf.name: value_of(model, leaf) for leaf in parameter_leaves(model)}


def with_parameters(model: AbstractCorrelation, values: Mapping[str, Any]) -> AbstractCorrelation:
    """The model with the named parameters replaced.

    **Raises:** `ModelError` naming the nearest known parameter for an unknown name.
    """
    leaves = {leaf.name: leaf for leaf in parameter_leaves(model)}
    check_names(values, leaves, type(model).__name__)
    by_path: dict[tuple[str, ...], Any] = {}
    entries: dict[tuple[str, ...], dict[int, Any]] = {}
    for name, value in values.items():
        leaf = leaves[name]
        if leaf.index is None:
            by_path[leaf.path] = value
        else:
            entries.setdefault(leaf.path, {})[leaf.index] = value
            by_path[leaf.path] = value_of(model, dataclasses.replace(leaf, index=None))
    for path, given in entries.items():
        by_path[path] = _replaced(by_path[path], given)

    new = [numbers(as_inexact(value)) for value in by_path.values()]
    return eqx.tree_at(lambda m: [reduce(below, path, m) for path in by_path], model, new)


def check_names(given, known, owner: str) -> None:
    """Raise `ModelError` for the first name that is not known, with the nearest known one."""
    for name in given:
        if name not in known:
            # Short names such as D0 need a lower cutoff than the default to be recognised.
            near = nearest_name(name, known, 0.5)
            hint = f"; did you mean {near!r}?" if near else "."
            raise ModelError(f"{owner} has no parameter {name!r}{hint} It has: {', '.join(known)}.")


def stack(scalars) -> Array:
    """Scalars as one array."""
    # Concrete numbers are put together by NumPy: an eager JAX operation is a compilation.
    if any(isinstance(value, jax.core.Tracer) for value in scalars):
        return jnp.stack(scalars)
    return np.asarray([float(value) for value in scalars])  # pyright: ignore[reportReturnType]


class SavedValue(NamedTuple):
    """A parameter in a `parameters.json`: of a fit its value and quoted error, of a posterior mean
    and standard deviation. The error is NaN where there is none; bounds may be infinite.

    `role` is free, shared, separate, fixed, tied, scaling, or sampled.
    """

    value: float
    error: float
    lower: float
    upper: float
    role: str


def _number(value: Any, missing: float) -> float:
    # Numbers that are not finite are null in these files.
    return missing if value is None else float(value)


def saved_values(path: str) -> dict[str, SavedValue]:
    """All parameters by name from the `parameters.json` of a fit or of a posterior.

    To begin another fit there: `with_parameters(model, {name: one.value for name, one in
    saved_values(path).items() if …})`.

    **Raises:** `DataError` for what is no such file.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            rows = json.load(stream)["parameters"]
        found = {}
        for name, row in rows.items():
            low, high = row.get("bounds", (None, None))
            found[name] = SavedValue(
                _number(row["value"] if "value" in row else row["mean"], math.nan),
                _number(row["error"] if "value" in row else row["sd"], math.nan),
                _number(low, -math.inf),
                _number(high, math.inf),
                row.get("role", "sampled"),
            )
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not the parameters.json of a fit or a posterior ({error!r})"
        ) from error
    return found
