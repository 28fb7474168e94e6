"""Leaves of a pytree as arrays and plain values, and back."""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..errors import CheckpointError
from ..files import replacing


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


FORMAT = "xpcs-eqx-checkpoint"
VERSION = 1

# HDF5 leaves room for a block of a user at the start of a file. The checksum stands there, over
# everything that follows, so that not one byte of a damaged file is given to the HDF5 library.
_BLOCK = 512


class DamagedCheckpoint(CheckpointError):
    """The file is not a checkpoint, or not a whole one: an older one may be."""


class StoredCheckpoint(NamedTuple):
    """A checkpoint as read, before its arrays take the structure of a state.

    `extra` is what was written beside it; the structure may depend on what that says.
    """

    path: str
    step: int
    extra: dict[str, Any]
    leaves: tuple[Stored, ...]

    def restore(self, like: PyTree) -> PyTree:
        """The state, structured as `like`.

        Functions come from `like`; where it has `jax.ShapeDtypeStruct` there will be arrays.

        **Raises:** `CheckpointError` naming the first leaf whose structure, shape or type is not
        that of `like`.
        """
        flat, structure = jax.tree_util.tree_flatten(like)
        wanted = stored(like)
        for i in range(max(len(self.leaves), len(wanted))):
            there = self.leaves[i].structure if i < len(self.leaves) else "nothing"
            here = wanted[i].structure if i < len(wanted) else "nothing"
            if there != here:
                raise CheckpointError(
                    f"{self.path}: a checkpoint of another structure: it holds {there} where "
                    f"{here} is needed; continue with the settings it was written with, or remove "
                    "it to start from the beginning"
                )
        values = [_value(leaf, old) for leaf, old in zip(self.leaves, flat, strict=True)]
        return jax.tree_util.tree_unflatten(structure, values)


def _header(body: bytes, version: int = VERSION) -> bytes:
    digest = hashlib.sha256(b"%d\n" % version + body).hexdigest()
    text = f"{FORMAT}\nversion {version}\nbytes {len(body)}\nsha256 {digest}\n"
    return text.encode().ljust(_BLOCK - 1) + b"\n"


def write_stored(
    path: str, kind: str, fingerprint: str, step: int, state: PyTree, extra: Mapping[str, Any]
) -> None:
    """Write one checkpoint, replacing what is there only when it is whole.

    **Raises:** `CheckpointError` for a leaf that cannot be stored, `TypeError` for an `extra` that
    is not JSON, `OSError` when the file cannot be written.
    """
    import h5py

    leaves = stored(state)
    # In memory: the checksum is known before the first byte is written.
    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        file.attrs.update(
            format=FORMAT,
            version=VERSION,
            kind=kind,
            fingerprint=fingerprint,
            step=step,
            written=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        group = file.create_group("state")
        for i, leaf in enumerate(leaves):
            if leaf.array is not None:
                # The index of chunks takes more room than packing of little saves.
                packed = (
                    {"compression": "gzip", "shuffle": True} if leaf.array.nbytes > 8192 else {}
                )
                # Key paths may hold anything, the separator of HDF5 included.
                name = f"{i:04d} {leaf.path.replace('/', '|')}"
                group.create_dataset(name, data=leaf.array, track_times=False, **packed)
        document = {"leaves": [leaf[:-1] for leaf in leaves], "extra": dict(extra)}
        file["document"] = json.dumps(document, ensure_ascii=True)
        file.flush()
        body: bytes = file.id.get_file_image()
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        stream.write(_header(body))
        stream.write(body)


def read_stored(path: str, kind: str, fingerprint: str) -> StoredCheckpoint:
    """Read a checkpoint and make sure that it is whole, of this kind and of this problem.

    **Raises:** `CheckpointError` naming file, finding and remedy.
    """
    import h5py

    body = _body(path)
    with h5py.File(h5py.h5f.open_file_image(body)) as file:
        found = {name: str(file.attrs[name]) for name in ("kind", "fingerprint")}
        if found["kind"] != kind:
            raise CheckpointError(
                f"{path}: a checkpoint of the {found['kind']}, not of the {kind}; continue with "
                "the settings it was written with, or remove it to start from the beginning"
            )
        if found["fingerprint"] != fingerprint:
            raise CheckpointError(
                f"{path}: a checkpoint of another problem: data, model, start values or solver "
                "are not those it was written with; restore them to continue, or remove the "
                "checkpoint to start from the beginning"
            )
        document = json.loads(file["document"][()])  # pyright: ignore
        group = file["state"]
        arrays = {int(name[:4]): np.asarray(group[name]) for name in group}  # pyright: ignore
        leaves = tuple(
            Stored(path_of_leaf, what, dtype, tuple(shape), value, arrays.get(i))
            for i, (path_of_leaf, what, dtype, shape, value) in enumerate(document["leaves"])
        )
        return StoredCheckpoint(path, int(file.attrs["step"]), document["extra"], leaves)  # pyright: ignore


def _body(path: str) -> bytes:
    """The HDF5 part of a file whose checksum is right."""
    remedy = "remove it; an older one, or the beginning, is where to continue from"
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except OSError as error:
        raise DamagedCheckpoint(f"{path}: cannot be read: {error.strerror}; {remedy}") from None
    header, body = content[:_BLOCK], content[_BLOCK:]
    lines = header.split(b"\n")
    if lines[0] != FORMAT.encode() or len(lines) < 4:
        import h5py

        what = "an HDF5 file, but no" if h5py.is_hdf5(os.fspath(path)) else "no"
        raise DamagedCheckpoint(f"{path}: {what} checkpoint of this library; {remedy}")
    version = lines[1].removeprefix(b"version ")
    if version.isdigit() and int(version) > VERSION:
        raise CheckpointError(
            f"{path}: a checkpoint of version {int(version)}; this library reads version "
            f"{VERSION}: use the newer library it was written with, or remove it"
        )
    length = lines[2].removeprefix(b"bytes ")
    if length.isdigit() and len(body) < int(length):
        raise DamagedCheckpoint(
            f"{path}: truncated: {len(body)} of {int(length)} bytes are there; {remedy}"
        )
    if header != _header(body):
        raise DamagedCheckpoint(f"{path}: damaged: the checksum is wrong; {remedy}")
    return body
