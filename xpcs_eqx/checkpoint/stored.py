"""Leaves of a pytree as arrays and plain values, and back."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    """A leaf as it was stored; `like` is of the same structure, as far as that is written.

    **Raises:** `ValueError` and others when its content is of another.
    """
    if leaf.what.startswith("key "):
        key = jax.random.wrap_key_data(jnp.asarray(leaf.array), impl=leaf.value)
        if key.shape != leaf.shape or key.dtype != like.dtype:
            raise ValueError(f"{leaf.path} holds other keys than it says")
        return key
    if leaf.what in ("array", "numpy", "numpy scalar"):
        dtype = np.dtype(like.dtype)
        array = np.asarray(leaf.array)
        if dtype.kind == "V":
            array = array.view(dtype).reshape(leaf.shape)
        if array.shape != leaf.shape or array.dtype.newbyteorder("=") != dtype.newbyteorder("="):
            raise ValueError(f"{leaf.path} holds {array.dtype} {array.shape}, not what it says")
        array = array.astype(dtype, copy=False)
        if leaf.what == "array":
            return jnp.asarray(array)
        return array if leaf.what == "numpy" else array[()]
    if leaf.what == "complex":
        return complex(*leaf.value)
    if leaf.what == "bytes":
        return bytes.fromhex(leaf.value)
    if leaf.what.startswith("function "):
        return like
    if type(leaf.value).__name__ != leaf.what:
        raise ValueError(f"{leaf.path} holds a {type(leaf.value).__name__}, not a {leaf.what}")
    return leaf.value


FORMAT = "xpcs-eqx-checkpoint"
VERSION = 1

# HDF5 leaves room for a block of a user at the start of a file. The checksum stands there, over
# everything that follows, so that not one byte of a damaged file is given to the HDF5 library.
_BLOCK = 512


class DamagedCheckpoint(CheckpointError):
    """The file is not a checkpoint, or not a whole one: an older one may be."""


@contextmanager
def understood(path: str) -> Iterator[None]:
    """What cannot be made of the content of a checkpoint is the fault of the checkpoint.

    A checksum tells of accidents; whoever writes one anew can put anything behind it.

    **Raises:** `DamagedCheckpoint` in place of whatever comes of wrong content.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError,
            RuntimeError, RecursionError) as error:  # fmt: skip
        raise DamagedCheckpoint(
            f"{path}: what is in it was not written by this library: {error!s:.200}; remove it; an "
            "older one, or the beginning, is where to continue from"
        ) from error


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
        that of `like`, or not the one it is said to be.
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
        with understood(self.path):
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
    with understood(path), h5py.File(h5py.h5f.open_file_image(body)) as file:
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
        document = json.loads(_content(file, "document").item())
        group: Any = file["state"]
        arrays = {int(name[:4]): _content(group, name) for name in group}
        leaves = tuple(
            Stored(str(path_of_leaf), str(what), str(dtype), tuple(shape), value, arrays.get(i))
            for i, (path_of_leaf, what, dtype, shape, value) in enumerate(document["leaves"])
        )
        extra = dict(document["extra"])
        return StoredCheckpoint(path, int(file.attrs["step"]), extra, leaves)  # pyright: ignore


# Packing makes no array smaller than this.
_PACKED = 1100


def _content(group: Any, name: str) -> np.ndarray:
    """A dataset that lies in the file itself, as large as it says. **Raises:** `ValueError`."""
    import h5py

    found = group[name]
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink) or found.external or found.is_virtual:
        raise ValueError(f"{name} lies in another file")
    text = h5py.check_string_dtype(found.dtype) is not None
    size = math.prod(found.shape) * found.dtype.itemsize
    if not text and size > _PACKED * found.id.get_storage_size():
        raise ValueError(f"{name} is said to have {size} bytes, which it has not")
    if found.dtype.kind not in "biufc" and not (text and found.shape == ()):
        raise ValueError(f"{name} holds {found.dtype}")
    return np.asarray(found[()])


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
