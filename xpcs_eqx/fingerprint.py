"""Recognising a problem again: a checksum over everything that it consists of."""

import dataclasses
import dis
import enum
import functools
import hashlib
import os
import sys
import types
from collections.abc import Iterable, Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import CheckpointError

# Their classes and functions count by name; those of a user by what they do as well, since a model
# that was edited is another model.
_BY_NAME = frozenset(
    {"beartype", "equinox", "jax", "jaxlib", "jaxtyping", "lineax", "numpy", "optax"}
    | {"optimistix", "scipy", "xpcs_eqx"}
    | sys.stdlib_module_names
)
# What a code object does: its instructions and everything that they refer to by number, but not
# where it stands in a file.
_CODE = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_flags")
_COUNTS = ("co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_exceptiontable")
# What Python notes of a class beside what it does; some of it differs between two processes.
_NOTES = frozenset(
    {"__abstractmethods__", "__annotate__", "__annotate_func__", "__doc__", "__firstlineno__"}
    | {"__match_args__", "__module__", "__static_attributes__"}
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

    Equal in every process. Modules count by class and fields, static ones included. Functions and
    classes from outside this library, JAX, NumPy and the like count by their compiled code: its
    instructions, constants and names, with defaults, closure, and the functions, classes and plain
    values that they use of their own module or package. Compiled code differs from one version of
    Python to the next, and with it the fingerprint of a model of one's own.

    **Raises:** `CheckpointError` for a value that nothing says how to recognise.
    """
    return _Digest().of(things)


def fingerprint_by_name(*things: Any) -> str:
    """SHA-256 as of `fingerprint`, of what consists of this library and those it stands on alone.

    Nothing is replaced by its `identity`, classes count with the modules they are of, and their
    functions by their code besides, which tells two of one name apart.

    **Raises:** `CheckpointError` for anything of a user, whose code may depend on what is not seen.
    """
    return _DigestByName().of(things)


class _Digest:
    """A checksum under way.

    - `seen`: what it went into, which ends recursion.
    - `lenient`: whether what cannot be recognised counts by its type: it was not given, but is
        only reached from something that was.
    """

    def __init__(self, seen: Mapping[int, Any] | None = None, lenient: bool = False):
        self.sum, self.lenient = hashlib.sha256(), lenient
        # The objects themselves, since the number of one that is gone is given to another.
        self.seen = {} if seen is None else dict(seen)

    def of(self, value: Any) -> str:
        """The checksum with `value` added to it."""
        self.add(value)
        return self.sum.hexdigest()

    def token(self, *parts: Any) -> None:
        for part in parts:
            raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
            self.sum.update(b"%d:" % len(raw))
            self.sum.update(raw)

    def each(self, tag: str, items: Iterable[Any], size: int) -> None:
        self.token(tag, size)
        for item in items:
            self.add(item)

    def unordered(self, tag: str, items: Iterable[Any]) -> None:
        """Items in the order of their own checksums, the same wherever they lie in memory."""
        marks = sorted(type(self)(self.seen, self.lenient).of(item) for item in items)
        self.token(tag, len(marks), *marks)

    def first(self, thing: Any) -> bool:
        """Whether it is met for the first time."""
        new = id(thing) not in self.seen
        self.seen[id(thing)] = thing
        return new

    def add(self, value: Any) -> None:
        self.plainly(identity(value))

    def plainly(self, value: Any) -> None:
        """Add what stands for a value."""
        if isinstance(value, enum.Enum):
            self.token("enum", type(value).__qualname__, value.name)
        elif isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            self.token("key", jax.random.key_impl(value))
            self.add(jax.random.key_data(value))
        elif isinstance(value, jax.Array | np.ndarray | np.generic):
            self.array(np.asarray(value))
        elif value is None or value is Ellipsis or isinstance(value, _PLAIN):
            self.token(type(value).__name__, value)
        elif isinstance(value, float):
            self.token("float", value.hex())
        elif isinstance(value, jax.ShapeDtypeStruct):
            self.token("shape", value.shape, value.dtype)
        elif isinstance(value, jax.tree_util.PyTreeDef):
            self.each("tree", [value.unflatten(range(value.num_leaves))], value.num_leaves)
        elif isinstance(value, os.PathLike):
            self.token("path", os.fspath(value))
        elif isinstance(value, type):
            self.class_(value)
        elif dataclasses.is_dataclass(value):
            self.class_(type(value))
            fields = dataclasses.fields(value)
            names = [field.name for field in fields if hasattr(value, field.name)]
            # A wrapper such as `equinox.filter_jit` keeps notes beside what it wraps.
            wrapped = getattr(value, "__wrapped__", None) if _ours(type(value)) else None
            wraps = wrapped is not None
            if wraps:
                self.add(wrapped)
            self.token("fields", len(names))
            for name in names:
                self.token(name)
                (self.add_leniently if wraps else self.add)(getattr(value, name))
        elif isinstance(value, Mapping):
            self.unordered("mapping", value.items())
        elif isinstance(value, tuple | list):
            self.each(type(value).__name__, value, len(value))
        elif isinstance(value, Set):
            self.unordered("set", value)
        elif isinstance(value, functools.partial):
            self.each("partial", (value.func, value.args, value.keywords), 3)
        elif isinstance(value, types.MethodType):
            self.each("method", (value.__func__, value.__self__), 2)
        elif isinstance(value, types.CodeType):
            self.code(value)
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.ModuleType):
            self.token("module", value.__name__)
        elif callable(value):
            self.callable_(value)
        elif self.lenient:
            self.token("type", type(value).__qualname__)
        else:
            raise CheckpointError(
                f"nothing says how to recognise a {type(value).__qualname__} again; register one "
                "for it with xpcs_eqx.checkpoint.identity"
            )

    def add_leniently(self, value: Any) -> None:
        before, self.lenient = self.lenient, True
        self.add(value)
        self.lenient = before

    def array(self, array: np.ndarray) -> None:
        if array.dtype.hasobject:
            raise CheckpointError("an array of objects cannot be recognised again; use numbers")
        # Arrays of one content are one, whatever the byte order and layout in memory.
        self.token("array", array.dtype.name, array.shape, array.nbytes)
        flat = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
        self.sum.update(flat.reshape(-1).view(np.uint8).data)  # pyright: ignore[reportArgumentType]

    def class_(self, cls: type) -> None:
        self.token("class", cls.__qualname__)
        for base in cls.__mro__:
            if _ours(base):
                self.token(base.__module__, base.__qualname__)
            elif self.first(base):
                own = vars(base)
                names = sorted(name for name in own.keys() - _NOTES if _counts(own[name]))
                self.token(base.__qualname__, len(names))
                for name in names:
                    self.token(name)
                    self.add_leniently(_parts(own[name]))

    def code(self, code: types.CodeType) -> None:
        self.token("code", code.co_name, *(getattr(code, name) for name in (*_CODE, *_COUNTS)))
        # Constants are what instructions do not show: numbers, texts, functions inside.
        self.add(code.co_consts)

    def function(self, function: types.FunctionType) -> None:
        self.token("function", function.__qualname__)
        if not self.first(function):
            return
        ours = _ours(function)
        if ours:
            # A wrapper of JAX bears the name of what it wraps, which is in its closure.
            self.token(function.__globals__["__name__"], function.__code__.co_qualname)
        else:
            self.code(function.__code__)
            for name, value in _used(function).items():
                self.token(name)
                self.add_leniently(value)
        held = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        for part in (function.__defaults__, function.__kwdefaults__, *held):
            if ours:
                self.add_leniently(part)
            else:
                self.add(part)

    def callable_(self, value: Any) -> None:
        kind, wrapped = type(value), getattr(value, "__wrapped__", None)
        if not self.first(value):
            self.token("callable", kind.__qualname__)
        elif wrapped is not None:
            # As what `jax.jit`, `jax.custom_jvp` and `functools.cache` return.
            self.each(f"wrapped {kind.__qualname__}", (wrapped,), 1)
        elif isinstance(value, _BUILTIN) or (_ours(kind) and not hasattr(value, "__dict__")):
            owner = getattr(value, "__self__", None)
            name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
            module = getattr(value, "__module__", None)
            self.token("builtin", kind.__qualname__, module, name)
            self.add(None if isinstance(owner, types.ModuleType) else owner)
        elif hasattr(value, "__dict__"):
            self.class_(kind)
            self.add(vars(value))
        else:
            raise CheckpointError(
                f"nothing says how to recognise the callable {kind.__qualname__} again; "
                "register it with xpcs_eqx.checkpoint.identity"
            )


class _DigestByName(_Digest):
    def add(self, value: Any) -> None:
        kind = type(value)
        if kind not in _NAMELESS:
            self.known(kind)
            self.token(kind.__module__, kind.__qualname__)
        self.plainly(value)

    def add_leniently(self, value: Any) -> None:
        self.add(value)

    def known(self, thing: type | types.FunctionType) -> None:
        if not _ours(thing):
            name = f"{thing.__module__}.{thing.__qualname__}"
            raise CheckpointError(f"{name} is of no library that is known by name")

    def class_(self, cls: type) -> None:
        self.known(cls)
        super().class_(cls)

    def function(self, function: types.FunctionType) -> None:
        self.known(function)
        self.code(function.__code__)
        super().function(function)


_PLAIN = (bool, int, str, bytes, complex, range, slice, np.dtype)
# Functions without code of Python.
_BUILTIN = (
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    np.ufunc,
)
# Classes of Python itself that no module has by their name.
_NAMELESS = frozenset(
    {*_BUILTIN, types.CodeType, types.EllipsisType, types.FunctionType, types.MethodType}
    | {types.ModuleType, types.NoneType}
)
_DESCRIPTORS = (property, staticmethod, classmethod, functools.cached_property)


def _parts(member: Any) -> Any:
    """What a member of a class consists of."""
    if isinstance(member, property):
        return ("property", member.fget, member.fset, member.fdel)
    if isinstance(member, staticmethod | classmethod):
        return (type(member).__name__, member.__func__)
    if isinstance(member, functools.cached_property):
        return ("cached", member.func)
    return member


def _root(module: Any) -> str:
    return str(module).partition(".")[0]


def _ours(thing: Any) -> bool:
    """Whether a function or class is of a library that is known by name."""
    if isinstance(thing, types.FunctionType):
        # Not `__module__`, which a wrapper has from what it wraps.
        return _root(thing.__globals__.get("__name__")) in _BY_NAME
    module = getattr(thing, "__module__", None)
    if _root(module) not in _BY_NAME:
        return False
    # A class that was typed in without a module says that it is of `builtins`.
    found: Any = sys.modules.get(str(module))
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return module != "builtins" or found is thing


def _counts(value: Any) -> bool:
    """Whether something that a function or class uses is a part of what it does.

    Only what does not change while a program runs: counters and caches tell nothing of a model.
    """
    if isinstance(value, tuple | frozenset):
        return all(map(_counts, value))
    if isinstance(value, types.FunctionType):
        # Those that `dataclasses` writes follow from the fields.
        return not value.__code__.co_qualname.startswith("__create_fn__.")
    if isinstance(value, np.ndarray | jax.Array | np.generic):
        return value.dtype != object
    plain = (bool, int, float, complex, str, bytes, enum.Enum, np.dtype, *_DESCRIPTORS)
    return value is None or isinstance(value, plain) or callable(value)


def _used(function: types.FunctionType) -> dict[str, Any]:
    """Global values that a function uses and does not set: those of its own module or package.

    Functions and classes from elsewhere count by their names.
    """
    values, names, stored = function.__globals__, set(), set()
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        for step in dis.get_instructions(code):
            if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                stored.add(step.argval)
            elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                names.add(step.argval)
        waiting += [one for one in code.co_consts if isinstance(one, types.CodeType)]
    home, out = _root(values.get("__name__")), dict[str, Any]()
    for name in sorted(names - stored):
        value = values.get(name)
        # Not where a module lies, or what it is called when it is the program itself.
        if name.startswith("__") or not _counts(value):
            continue
        module = _module(value)
        far = module is not None and _root(module) != home
        out[name] = f"{module}.{getattr(value, '__qualname__', name)}" if far else value
    return out


def _module(value: Any) -> str | None:
    """Where a function or class was written; None for anything else and where nothing says so."""
    if isinstance(value, types.FunctionType):
        return value.__globals__.get("__name__")
    if isinstance(value, type):
        # One that was typed in without a module says that it is of `builtins`.
        return value.__module__ if value.__module__ != "builtins" or _ours(value) else None
    # As what `jax.jit` returns, which has it from what it wraps.
    return getattr(value, "__module__", None) if hasattr(value, "__wrapped__") else None


def _filled(cell: types.CellType) -> bool:
    # A cell is empty when its variable is assigned later.
    return cell != types.CellType()
