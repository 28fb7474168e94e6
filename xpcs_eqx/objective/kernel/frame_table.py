"""Features of a model at every frame, and their derivatives: the first stage of the derivative."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jaxtyping import Array, Float

from ...data import Geometry
from ...errors import ModelError
from ...parameters import ParameterMap
from ...physics import AbstractCorrelation, Features, Pair


class Part(eqx.Module):
    """Rows of features of one kind and their derivatives with respect to the coordinates.

    `used[k][a]` is False where feature k cannot depend on coordinate a; its product is left out.
    """

    values: Float[Array, "feature position"]
    derivatives: Float[Array, "feature column position"]
    used: tuple[tuple[bool, ...], ...] = eqx.field(static=True)


class FrameTable(eqx.Module):
    """All a tile needs of the model: features by frame and by angle, with derivatives."""

    increments: Part
    endpoints: Part
    scalars: Part
    kernel: Any
    structures: tuple = eqx.field(static=True)

    @property
    def columns(self) -> int:
        """Number of coordinates differentiated with respect to."""
        return self.increments.derivatives.shape[1]


def _flat(features: Features, n_frames: int, n_angles: int):
    kinds = (features.increments, features.endpoints, features.scalars)
    rows, structures = [], []
    for name, kind in zip(("increments", "endpoints", "scalars"), kinds, strict=True):
        leaves, structure = jax.tree.flatten(kind)
        structures.append(structure)
        length = n_angles if name == "scalars" else n_frames
        for leaf in leaves:
            shape = jnp.shape(leaf)
            if shape != (length,) and not (name == "scalars" and shape == ()):
                raise ModelError(
                    f"a feature in `{name}` has shape {shape}; it must be ({length},)"
                    + (" or ()" if name == "scalars" else ", one value a frame")
                )
        rows.append([jnp.broadcast_to(jnp.asarray(leaf), (length,)) for leaf in leaves])
    return rows, tuple(structures)


def frame_table(
    parameters: ParameterMap,
    y: Float[Array, "free"],
    t: Float[Array, "frame"],
    geometry: Geometry,
    differentiate: bool = True,
) -> FrameTable:
    """Evaluate the features of the model at coordinates `y`, with derivatives if asked.

    **Raises:** `ModelError` when a feature has the wrong shape.
    """
    n_frames, n_angles = t.shape[0], geometry.phi.shape[0]
    structures: list = []

    def rows(*scalars):
        features = parameters.build_from_coordinates(scalars).features(t, geometry)
        flat, structure = _flat(features, n_frames, n_angles)
        structures.append(structure)
        return flat

    scalars = tuple(y)
    if differentiate and scalars:
        used = dependence(rows, *scalars)
        values, push = jax.linearize(rows, *scalars)
        basis = jnp.eye(len(scalars), dtype=y.dtype)
        tangents = jax.vmap(lambda row: push(*row), out_axes=0)(basis)
    else:
        values, scalars = rows(*scalars), ()
        tangents = [[jnp.zeros((0, row.shape[0])) for row in kind] for kind in values]
        used = np.zeros((sum(map(len, values)), 0), bool)

    def stacked(arrays, *shape):
        return jnp.stack(arrays) if arrays else jnp.zeros((0, *shape))

    parts, masks = [], iter(used.tolist())
    for kind, length in enumerate((n_frames, n_frames, n_angles)):
        derivatives = stacked(tangents[kind], len(scalars), length)
        mask = tuple(tuple(next(masks)) for _ in values[kind])
        parts.append(Part(stacked(values[kind], length), derivatives, mask))
    increments, endpoints, fixed = parts
    return FrameTable(increments, endpoints, fixed, parameters.model, structures[-1])


def call_kernel(table: FrameTable, increments, first, second, scalars) -> Array:
    """|c1|² from flat lists of features of pairs."""
    increment_tree, endpoint_tree, scalar_tree = table.structures
    return table.kernel.kernel(
        Pair(
            jax.tree.unflatten(increment_tree, increments),
            jax.tree.unflatten(endpoint_tree, first),
            jax.tree.unflatten(endpoint_tree, second),
            jax.tree.unflatten(scalar_tree, scalars),
        )
    )


class _Forbidden:
    """Stands for a parameter inside `kernel`, where its derivative would be lost."""

    def __init__(self, name: str):
        self.name = name

    def complain(self, *_):
        raise ModelError(
            f"`kernel` uses the parameter {self.name!r}; its derivative would be lost. "
            "Return it from `features` as a scalar and take it from `pair.scalars`"
        )

    __jax_array__ = __array__ = complain
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = complain
    __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __neg__ = __abs__ = __float__ = complain
    __lt__ = __gt__ = __le__ = __ge__ = complain


def check_model(model: AbstractCorrelation, t: Any, geometry: Geometry) -> None:
    """Refuse a model whose kernel uses parameters directly or is not elementwise.

    **Raises:** `ModelError` with what to change.
    """
    times = jax.ShapeDtypeStruct(np.shape(t), jnp.result_type(float))
    # Shapes are enough for every check, and cost no computation.
    place = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), times.dtype), geometry)
    shape = jax.tree.map(
        lambda leaf: (
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if eqx.is_inexact_array(leaf) else leaf
        ),
        model,
    )
    leaves, structure = jax.tree.flatten((shape, times, place))
    try:
        _check_shapes(tuple(leaves), structure)
    except TypeError:
        # Something in the model cannot be compared.
        _check_shapes.__wrapped__(tuple(leaves), structure)


@lru_cache(maxsize=64)
def _check_shapes(leaves: tuple, structure: Any) -> None:
    """The check of a model, times and a geometry of which arrays are but shapes, done once."""
    model, times, place = jax.tree.unflatten(structure, leaves)
    n_frames, n_angles = times.shape[0], place.phi.shape[0]
    features = eqx.filter_eval_shape(lambda m, t, g: m.features(t, g), model, times, place)
    eqx.filter_eval_shape(lambda f: _flat(f, n_frames, n_angles)[0], features)
    poisoned = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            _Forbidden(jax.tree_util.keystr(path).lstrip("."))
            if isinstance(leaf, jax.ShapeDtypeStruct)
            else leaf
        ),
        model,
    )

    def pairs(length):
        def spread(tree):
            return jax.tree.map(lambda leaf: jnp.ones((length,)), tree)

        ends = spread(features.endpoints)
        return Pair(spread(features.increments), ends, ends, spread(features.scalars))

    shape = jax.eval_shape(lambda: poisoned.kernel(pairs(5))).shape
    if shape != (5,):
        raise ModelError(f"`kernel` of 5 pairs returned shape {shape}; it must be elementwise")
    if not jax.tree.leaves(features):
        raise ModelError(f"{type(model).__name__}.features returned no features at all")


def has_direction(model: AbstractCorrelation, t: Any, geometry: Geometry) -> bool:
    """Whether a model depends on the azimuths."""

    def features(phi):
        return jax.tree.leaves(model.features(jnp.asarray(t), replace(geometry, phi=phi)))

    return bool(np.any(dependence(features, jnp.asarray(geometry.phi))))


def dependence(function: Callable[..., list], *args: Any) -> np.ndarray:
    """Boolean table (output, input): False only where an output cannot depend on an input.

    Inner calls are taken as a whole: every output of a call depends on all its inputs.
    """
    closed = jax.make_jaxpr(function)(*args)
    jaxpr = closed.jaxpr
    none = frozenset()
    reached: dict[Any, frozenset[int]] = {v: frozenset({i}) for i, v in enumerate(jaxpr.invars)}

    def inputs_of(variable):
        # Literals are not hashable keys of the table and depend on nothing.
        return none if isinstance(variable, Literal) else reached.get(variable, none)

    for equation in jaxpr.eqns:
        union = none.union(*(inputs_of(v) for v in equation.invars))
        for out in equation.outvars:
            reached[out] = union
    table = np.zeros((len(jaxpr.outvars), len(jaxpr.invars)), dtype=bool)
    for row, out in enumerate(jaxpr.outvars):
        table[row, sorted(inputs_of(out))] = True
    return table
