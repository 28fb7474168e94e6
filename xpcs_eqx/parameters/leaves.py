"""The scalar parameters of a model: where they sit, their names and values, ties between them."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..arguments import numbers
from ..errors import ModelError
from ..physics import AbstractCorrelation, ParameterInfo, as_inexact, is_constant, parameter_info

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


# Of an array that no field declares: it has no start but its value.
_UNDECLARED = ParameterInfo(start=math.nan)


class Leaf(eqx.Module):
    """One scalar parameter of a model: where it sits and what is known of it."""

    name: str
    path: tuple[str, ...]
    index: int | None
    info: ParameterInfo


def parts(node: Any):
    """Name, value and field of all that is directly below a Module, a tuple of such, or a dict."""
    if isinstance(node, tuple):
        return [(str(i), value, None) for i, value in enumerate(node)]
    if isinstance(node, dict):
        return [(name, value, None) for name, value in node.items()]
    fields = [f for f in dataclasses.fields(node) if not is_constant(f)]
    return [(f.name, getattr(node, f.name), f) for f in fields]


def _below(node: Any, step: str) -> Any:
    if isinstance(node, dict):
        return node[step]
    return node[int(step)] if isinstance(node, tuple) else getattr(node, step)


def is_inner(value: Any) -> bool:
    """Whether parameters may lie below it."""
    return isinstance(value, dict) or (
        dataclasses.is_dataclass(value)
        or (isinstance(value, tuple) and any(dataclasses.is_dataclass(part) for part in value))
    )


def _walk(node: Any, path: tuple[str, ...]):
    """Yield (path, field value, declaration) of every inexact array field below `node`."""
    for name, value, field in parts(node):
        here = (*path, name)
        if is_inner(value):
            yield from _walk(value, here)
        elif eqx.is_inexact_array(value) or isinstance(value, float):
            yield here, value, None if field is None else parameter_info(field)


def parameter_leaves(model: AbstractCorrelation) -> tuple[Leaf, ...]:
    """The scalar parameters of a model in the order of its fields."""
    leaves = []
    # Once: a model that stands for several works them out each time.
    names, infos = model.names, model.infos
    for path, value, declared in _walk(model, ()):
        joined = ".".join(path)
        name = names.get(joined, joined)
        named = infos.get(name)
        info = (declared or _UNDECLARED) if named is None else named.within(declared)
        if np.ndim(value) == 0:
            leaves.append(Leaf(name, path, None, info))
        else:
            leaves += [
                Leaf(f"{name}[{i}]", path, i, info) for i in range(int(np.prod(np.shape(value))))
            ]
    names = [leaf.name for leaf in leaves]
    if len(set(names)) != len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise ModelError(
            f"{type(model).__name__} has several parameters named {twice}; "
            "give them different public names in its `names` mapping"
        )
    return tuple(leaves)


def _get(model: Any, leaf: Leaf) -> Any:
    model = reduce(_below, leaf.path, model)
    if leaf.index is None:
        return model
    # Concrete entries are taken by NumPy: an eager JAX operation is a compilation.
    traced = isinstance(model, jax.core.Tracer)
    return jnp.ravel(model)[leaf.index] if traced else np.ravel(np.asarray(model))[leaf.index]


def _replaced(old: Any, entries: Mapping[int, Any]) -> Any:
    """An array with some of its entries, counted along its rows, replaced."""
    shape, size = np.shape(old), int(np.prod(np.shape(old)))
    if len(entries) < size:
        flat = jnp.ravel(old) if isinstance(old, jax.core.Tracer) else np.ravel(np.asarray(old))
        entries = {**{i: flat[i] for i in range(size)}, **entries}
    return stack([entries[i] for i in range(size)]).reshape(shape)


def parameter_values(model: AbstractCorrelation) -> dict[str, Array]:
    """The values of all scalar parameters by public name."""
    return {leaf.name: _get(model, leaf) for leaf in parameter_leaves(model)}


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
            by_path[leaf.path] = _get(model, dataclasses.replace(leaf, index=None))
    for path, given in entries.items():
        by_path[path] = _replaced(by_path[path], given)

    new = [numbers(as_inexact(value)) for value in by_path.values()]
    return eqx.tree_at(lambda m: [reduce(_below, path, m) for path in by_path], model, new)


def check_names(given, known, owner: str) -> None:
    """Raise `ModelError` for the first name that is not known, with the nearest known one."""
    for name in given:
        if name not in known:
            # Short names such as D0 need a lower cutoff than the default to be recognised.
            near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ModelError(f"{owner} has no parameter {name!r}{hint} It has: {', '.join(known)}.")


def stack(scalars) -> Array:
    """Scalars as one array."""
    # Concrete numbers are put together by NumPy: an eager JAX operation is a compilation.
    if any(isinstance(value, jax.core.Tracer) for value in scalars):
        return jnp.stack(scalars)
    return np.asarray([float(value) for value in scalars])  # pyright: ignore[reportReturnType]
