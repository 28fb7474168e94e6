"""Leaves of a pytree as arrays and plain values, and back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..errors import CheckpointError


class Stored(NamedTuple):
    """One leaf: its key path, what it is, and its content as an array or a plain value.

    `what` is array, numpy, key NAME (of a random generator), function NAME, or a type of Python.
    """

    path: str
    what: str
    dtype: str
    shape: tuple[int, ...]
    value: Any
    array: np.ndarray | None

    @property
    def described(self) -> list[Any]:
        """Everything but the array, as JSON."""
        return [self.path, self.what, self.dtype, list(self.shape), self.value]

    @classmethod
    def of(cls, described: list[Any], array: np.ndarray | None) -> "Stored":
        """The inverse of `described`."""
        path, what, dtype, shape, value = described
        return cls(path, what, dtype, tuple(shape), value, array)

    @property
    def structure(self) -> str:
        """What must agree with the leaf that it is to replace, in words."""
        size = f"{self.dtype} {self.shape}" if self.dtype or self.shape else ""
        return f"{self.path or 'the state'}, {self.what} {size}".rstrip()


def _stored(path: str, leaf: Any) -> Stored:
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            what = f"key {leaf.dtype}"
            if isinstance(leaf, jax.ShapeDtypeStruct):
                return Stored(path, what, "", leaf.shape, None, None)
            data = _plain(jax.random.key_data(leaf))
            return Stored(path, what, "", leaf.shape, str(jax.random.key_impl(leaf)), data)
        return Stored(path, "array", leaf.dtype.name, leaf.shape, None, _plain(leaf))
    if isinstance(leaf, np.ndarray | np.generic):
        if leaf.dtype.kind not in "biufcV" or leaf.dtype.names is not None:
            raise CheckpointError(f"{path}: an array of {leaf.dtype} cannot be stored")
        what = "numpy" if isinstance(leaf, np.ndarray) else "numpy scalar"
        return Stored(path, what, leaf.dtype.name, leaf.shape, None, _plain(leaf))
    if isinstance(leaf, complex):
        return Stored(path, "complex", "", (), [leaf.real, leaf.imag], None)
    if isinstance(leaf, bytes):
        return Stored(path, "bytes", "", (), leaf.hex(), None)
    if isinstance(leaf, bool | int | float | str) and type(leaf).__module__ == "builtins":
        return Stored(path, type(leaf).__name__, "", (), leaf, None)
    if callable(leaf):
        name = getattr(leaf, "__qualname__", type(leaf).__qualname__)
        return Stored(path, f"function {name}", "", (), None, None)
    raise CheckpointError(f"{path}: a {type(leaf).__qualname__} cannot be stored")


def _plain(leaf: Any) -> np.ndarray | None:
    """An array that HDF5 knows; types it does not, such as bfloat16, as their bytes."""
    if leaf is None or isinstance(leaf, jax.ShapeDtypeStruct):
        return None
    array = np.ascontiguousarray(leaf).reshape(np.shape(leaf))
    return array.reshape(-1).view(np.uint8) if array.dtype.kind == "V" else array


def stored(state: PyTree) -> list[Stored]:
    """The leaves of a state. **Raises:** `CheckpointError` for one that cannot be stored."""
    flat, _ = jax.tree_util.tree_flatten_with_path(state)
    return [_stored(jax.tree_util.keystr(path), leaf) for path, leaf in flat]


def restored(file: str, leaves: tuple[Stored, ...], like: PyTree) -> PyTree:
    """The state structured as `like` from its leaves.

    **Raises:** `CheckpointError` naming the first leaf that does not fit.
    """
    flat, structure = jax.tree_util.tree_flatten(like)
    wanted = stored(like)
    for i in range(max(len(leaves), len(wanted))):
        there = leaves[i].structure if i < len(leaves) else "nothing"
        here = wanted[i].structure if i < len(wanted) else "nothing"
        if there != here:
            raise CheckpointError(
                f"{file}: a checkpoint of another structure: it holds {there} where {here} is "
                "needed; continue with the settings it was written with, or remove it to start "
                "from the beginning"
            )
    values = [_value(leaf, old) for leaf, old in zip(leaves, flat, strict=True)]
    return jax.tree_util.tree_unflatten(structure, values)


def _value(leaf: Stored, like: Any) -> Any:
    if leaf.array is not None:
        if leaf.what.startswith("key "):
            return jax.random.wrap_key_data(jnp.asarray(leaf.array), impl=leaf.value)
        dtype = np.dtype(like.dtype)
        array = leaf.array
        if dtype.kind == "V":
            array = array.view(dtype).reshape(leaf.shape)
        array = array.astype(dtype, copy=False)
        if leaf.what == "array":
            return jnp.asarray(array)
        return array if leaf.what == "numpy" else array[()]
    if leaf.what == "complex":
        return complex(*leaf.value)
    if leaf.what == "bytes":
        return bytes.fromhex(leaf.value)
    return like if leaf.what.startswith("function ") else leaf.value
