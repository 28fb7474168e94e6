"""The scalar parameters of a model: how a field declares one, where they sit, and their values."""

import dataclasses
import math
import textwrap
from functools import reduce
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ..errors import ModelError
from ..showing import known


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
    # Arrays, tracers and the placeholders of tree transformations pass through unchanged. Not
    # `jnp.asarray`, which compiles something for every shape.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return jax.device_put(np.asarray(float(value)))
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        return jax.device_put(value.astype(float))
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


def parameter_leaves(model: Any) -> tuple[Leaf, ...]:
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


def below(node: Any, step: str) -> Any:
    """What a step of a path leads to."""
    if isinstance(node, dict):
        return node[step]
    return node[int(step)] if isinstance(node, tuple) else getattr(node, step)


def value_of(model: Any, leaf: Leaf) -> Any:
    """The value of a parameter in a model."""
    model = reduce(below, leaf.path, model)
    if leaf.index is None:
        return model
    # Concrete entries are taken by NumPy: an eager JAX operation is a compilation.
    traced = isinstance(model, jax.core.Tracer)
    return jnp.ravel(model)[leaf.index] if traced else np.ravel(np.asarray(model))[leaf.index]


# More are not read.
_MOST = 30


def model_text(model: Any) -> str:
    """A model with what it is made of, and its parameters with their units."""
    try:
        leaves = parameter_leaves(model) if known(model) else ()
    except ModelError:
        # What is wrong with it is said where it is used.
        leaves = ()
    if not leaves:
        return eqx.tree_pformat(model)
    inside = {one.name: getattr(model, one.name) for one in dataclasses.fields(model)}
    made = [f"{n}: {type(part).__name__}" for n, part in inside.items() if is_inner(part)]
    values = [f"{one.name} = {float(value_of(model, one)):.6g} {one.info.unit}" for one in leaves]
    shown = values if len(values) <= _MOST else [*values[: _MOST - 1], "…", values[-1]]
    text = ", ".join(one.strip() for one in shown)
    head = f"{type(model).__name__}({', '.join(made)})"
    lines = textwrap.wrap(text, 98, break_long_words=False)
    return "\n  ".join([head, *lines])
