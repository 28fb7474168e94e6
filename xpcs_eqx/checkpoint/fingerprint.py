"""Recognising a problem again: a checksum over everything that it consists of."""

import dataclasses
import enum
import functools
import hashlib
import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import CheckpointError

# Their classes and functions count by name; those of a user by their source as well, since a model
# that was edited is another model.
_BY_NAME = frozenset(
    {"builtins", "equinox", "functools", "jax", "jaxlib", "lineax", "math", "numpy", "optax"}
    | {"optimistix", "xpcs_eqx"}
)


@functools.singledispatch
def identity(value: Any) -> Any:
    """What stands for `value` in a fingerprint; by default the value itself.

    Register a function for a class that holds what is no part of a problem (an open file, a thread)
    or what is too large to read: `@identity.register(MyTiles)`, returning arrays, containers and
    plain values, for example with `file_identity`.
    """
    return value


def file_identity(path: str | os.PathLike[str], **attributes: Any) -> dict[str, Any]:
    """Name, size and time of change of a file, for data too large to be read for a checksum.

    `attributes` are added: HDF5 paths, shapes, what was selected. A file that is rewritten within
    the resolution of the clock, or has its time reset, is taken for the same.

    **Raises:** `CheckpointError` when the file cannot be looked at.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise CheckpointError(f"{os.fspath(path)}: cannot be looked at: {error.strerror}") from None
    name = os.path.basename(os.fspath(path))
    return {"name": name, "size": found.st_size, "changed": found.st_mtime_ns, **attributes}


def fingerprint(*things: Any) -> str:
    """SHA-256 over arrays (type, shape, content), plain values, containers, Modules and functions.

    Equal in every process and version of Python. Modules count by class and fields, static ones
    included; functions and classes from outside this library by their source, defaults and closure,
    but not by the global names they use.

    **Raises:** `CheckpointError` for a value that nothing says how to recognise.
    """
    digest = hashlib.sha256()
    _feed(things, digest.update, set())
    return digest.hexdigest()


def _feed(value: Any, add: Callable[[bytes], None], seen: set[int]) -> None:
    value = identity(value)

    def token(*parts: Any) -> None:
        for part in parts:
            raw = part if isinstance(part, bytes) else str(part).encode()
            add(b"%d:" % len(raw))
            add(raw)

    def each(tag: str, items: Iterable[Any], size: int) -> None:
        token(tag, size)
        for item in items:
            _feed(item, add, seen)

    if isinstance(value, enum.Enum):
        token("enum", type(value).__qualname__, value.name)
    elif isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        token("key", jax.random.key_impl(value))
        _feed(jax.random.key_data(value), add, seen)
    elif isinstance(value, jax.Array | np.ndarray | np.generic):
        _feed_array(np.asarray(value), token, add)
    elif value is None or isinstance(value, bool | int | str | bytes | complex):
        token(type(value).__name__, value)
    elif isinstance(value, float):
        token("float", value.hex())
    elif isinstance(value, jax.ShapeDtypeStruct):
        token("shape", value.shape, value.dtype)
    elif isinstance(value, np.dtype):
        token("dtype", value)
    elif isinstance(value, os.PathLike):
        token("path", os.fspath(value))
    elif isinstance(value, type):
        _feed_class(value, token, seen)
    elif dataclasses.is_dataclass(value):
        _feed_class(type(value), token, seen)
        names = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
        each("fields", ((name, getattr(value, name)) for name in names), len(names))
    elif isinstance(value, Mapping):
        each("mapping", sorted(value.items(), key=lambda item: repr(item[0])), len(value))
    elif isinstance(value, tuple | list):
        each(type(value).__name__, value, len(value))
    elif isinstance(value, Set):
        each("set", sorted(value, key=repr), len(value))
    elif isinstance(value, functools.partial):
        each("partial", (value.func, value.args, value.keywords), 3)
    elif isinstance(value, types.MethodType):
        each("method", (value.__func__, value.__self__), 2)
    elif callable(value):
        _feed_function(inspect.unwrap(value), token, add, seen)
    else:
        raise CheckpointError(
            f"nothing says how to recognise a {type(value).__qualname__} again; register one for "
            "it with xpcs_eqx.checkpoint.identity"
        )


def _feed_array(array: np.ndarray, token: Callable, add: Callable[[bytes], None]) -> None:
    if array.dtype.hasobject:
        raise CheckpointError("an array of objects cannot be recognised again; use numbers")
    # Arrays of one content are one, whatever the byte order and layout in memory.
    token("array", array.dtype.name, array.shape, array.nbytes)
    flat = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    add(flat.reshape(-1).view(np.uint8).data)  # pyright: ignore[reportArgumentType]


def _ours(thing: Any) -> bool:
    return str(getattr(thing, "__module__", None)).partition(".")[0] in _BY_NAME


def _source(thing: Any) -> str | None:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        # Typed in, or compiled: there is no text to be had.
        return None


def _feed_class(cls: type, token: Callable, seen: set[int]) -> None:
    token("class", cls.__qualname__)
    for base in cls.__mro__:
        if base is object or _ours(base) or id(base) in seen:
            continue
        seen.add(id(base))
        token(base.__qualname__, _source(base) or "")


def _feed_function(
    function: Any, token: Callable, add: Callable[[bytes], None], seen: set[int]
) -> None:
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    if name is None:
        raise CheckpointError(
            f"nothing says how to recognise the callable {type(function).__qualname__} again; "
            "register it with xpcs_eqx.checkpoint.identity"
        )
    token("function", name)
    if not isinstance(function, types.FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    if not _ours(function):
        code = function.__code__
        token(_source(function) or code.co_code)
    for part in (function.__defaults__, function.__kwdefaults__):
        _feed(part, add, seen)
    for cell in function.__closure__ or ():
        # A cell is empty when its variable is assigned later.
        if cell != types.CellType():
            _feed(cell.cell_contents, add, seen)
