"""Compiled functions on disk that are found by what they are called with, without being traced.

JAX keeps what XLA has made of a function and finds it by the function's text, for which it traces
and lowers it once more: with everything on disk that is most of the time of a first fit. A function
of this library called with objects of this library is known by less: its name and code, the files
of the library, versions of what it stands on, settings of JAX, kinds of the arrays, and all else of
the arguments. Anything of a user in them, and the function is traced as ever.
"""

import hashlib
import os
import pickle
import platform
import re
import secrets
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.experimental.serialize_executable import deserialize_and_load, serialize
from jaxlib import lapack

from .errors import CheckpointError
from .files import replacing
from .fingerprint import fingerprint_by_name

# What is given work that takes long, to be done now or beside other work.
Later = Callable[[Callable[[], Any]], Any]

ENTRY = "-cache"
# What traced code comes from beside this library.
_PACKAGES = ("blackjax", "equinox", "jax", "jaxlib", "jaxtyping", "lineax", "numpy", "optax")
_PACKAGES += ("optimistix", "scipy")
# With any of these JAX does not merely compile and run.
_LOOKING = ("jax_debug_nans", "jax_debug_infs", "jax_disable_jit", "jax_check_tracer_leaks")
_LOOKING += ("jax_enable_checks", "jax_no_tracing", "jax_no_execution")
# Settings that may differ from one thread, or one `with` block, to the next.
_SCOPED = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion")
_SCOPED += ("jax_numpy_rank_promotion", "jax_default_prng_impl", "jax_threefry_partitionable")
_SCOPED += ("jax_default_device",)
# Functions outside a program that it calls: an executable of these finds them in any process.
_CALLED = re.compile(r'custom_call_target="([^"]+)"')
_LAPACK = "lapack_"

_folder: Path | None = None
# What was found or compiled, by function and kind of arguments, as JAX keeps what it compiles; None
# for what is traced as ever.
_ready: dict[Any, "Compiled | None"] = {}
# What is put off until it is asked for, with what it returns; and what keeps two threads from
# looking for the same.
_put_off: dict[Any, "tuple[_Once, Any]"] = {}
_looking: dict[Any, threading.Lock] = {}


def keep_in(folder: Path | None) -> None:
    """From now on functions are looked for and kept in a folder; in none with `None`."""
    global _folder
    if folder != _folder:
        _ready.clear()
        _put_off.clear()
    _folder = folder
    # Before the library may be replaced by another version while it runs.
    _library()


def machine() -> str:
    """Version of JAX, and kind of the processor: code for one may not run on another."""
    told = platform.machine() + platform.processor()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        told += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"jax-{jax.__version__}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def settings() -> tuple | None:
    """What a function's text depends on beside its arguments; None where none is to be looked for.

    On one processor alone: what several devices share depends on more.
    """
    config = jax.config
    if _folder is None or any(getattr(config, name, False) for name in _LOOKING) or not _alone():
        return None
    return tuple(str(getattr(config, name, None)) for name in _SCOPED)


@cache
def _alone() -> bool:
    return jax.default_backend() == "cpu" and jax.device_count() == 1


class Compiled(NamedTuple):
    """A function for arguments of one kind, of which it takes the arrays.

    - `out`: what it returns, with shapes in place of arrays.
    """

    run: Callable[[list], list]
    out: Any

    def __call__(self, arrays: list) -> Any:
        return self.filled(self.run(arrays))

    def filled(self, arrays: Iterable[Any]) -> Any:
        """What it returns with these arrays."""
        found = iter(arrays)
        return jax.tree.map(lambda leaf: next(found) if _is_shape(leaf) else leaf, self.out)


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def at_once(work: Callable[[], Any]) -> None:
    """What is given a compilation that is not put off."""
    work()


def of_disk(
    function: Callable[..., Any],
    kind: Any,
    args: tuple[tuple, dict[str, Any]],
    setting: tuple,
    options: Callable[[], dict[str, Any]],
) -> Compiled | None:
    """A function for arguments and keywords like `args`: of the disk, or compiled and kept there.

    - `kind`: what tells apart what is compiled apart; `setting`: `settings()`.
    - `options`: of the compiler, for one that is not on the disk.

    None for one that is not to be kept: there is something of a user in it.
    """
    place = function, kind, setting
    if place not in _ready:
        prepare(function, kind, args, setting, options, at_once)
    return _ready[place]


def prepare(
    function: Callable[..., Any],
    kind: Any,
    args: tuple[tuple, dict[str, Any]],
    setting: tuple,
    options: Callable[[], dict[str, Any]],
    later: Later,
) -> Any:
    """What a function of `of_disk` returns, with shapes in place of arrays; None as there.

    `later` is given to do what takes long: to compile it, or to make what was kept run again. Who
    calls the function before does it himself, or waits for who has begun it.
    """
    place = function, kind, setting
    with _looking.setdefault(place, threading.Lock()):
        # In this order: what is put off is ready before it is put off no longer.
        if place not in _put_off and place not in _ready:
            found = _looked_for(function, args, setting, options)
            if found is None:
                _ready[place] = None
            else:
                make, out = found
                _put_off[place] = _Once(place, make), out
        waiting = _put_off.get(place)
    # What waits no longer is ready.
    if waiting is None:
        kept = _ready[place]
        return None if kept is None else kept.out
    work, out = waiting
    later(work)
    return out


def _looked_for(function, args, setting, options) -> tuple[Callable[[], Compiled], Any] | None:
    """How to make a function, and what it returns; None for one that is not to be kept."""
    leaves, structure = jax.tree.flatten(args)
    path = _path_of(function, args, leaves, setting)
    if path is None:
        return None

    # The arrays themselves would be kept as long as this is put off.
    leaves = [_kind(leaf) for leaf in leaves]

    def lower() -> _Lowered:
        return _lower(function, leaves, structure, options)

    kept = _read(path)
    if kept is None:
        lowered = lower()
        return partial(_compile, path, lowered), lowered.out
    return lambda: kept.made() or _compile(path, lower()), kept.out


class _Once:
    """Something to do that several may ask for, of which the first does it and others wait."""

    def __init__(self, place: Any, make: Callable[[], Compiled]):
        self.place, self.lock = place, threading.Lock()
        self.make: Callable[[], Compiled] | None = make

    def __call__(self) -> None:
        with self.lock:
            if self.make is not None:
                _ready[self.place] = self.make()
                self.make = None
            _put_off.pop(self.place, None)


def _path_of(function, args, leaves, setting) -> Path | None:
    """Where a function is kept; None for one that is not."""
    arrays = [leaf for leaf in leaves if eqx.is_array(leaf)]
    # Keys of random numbers are no plain arrays.
    if _folder is None or not all(isinstance(array.dtype, np.dtype) for array in arrays):
        return None
    weak = [bool(getattr(array, "weak_type", False)) for array in arrays]
    try:
        told = jax.tree.map(_shape, args), weak, setting, _library(), _surroundings()
        return _folder / f"{fingerprint_by_name(function, *told)}{ENTRY}"
    except CheckpointError:
        return None


def _shape(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf


def _kind(leaf: Any) -> Any:
    """What a function is compiled for in place of an array."""
    if not eqx.is_array(leaf):
        return leaf
    kind = jax.typeof(leaf)
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, weak_type=kind.weak_type)


def _surroundings() -> str:
    """What a function's text may follow from beside the library and its arguments."""
    chosen = (f"{name}={one}" for name, one in jax.config.values.items() if "cache" not in name)
    told = (f"{k}={v}" for k, v in os.environ.items() if k.startswith(("XPCS_EQX_", "XLA_")))
    return "\n".join([*sorted(chosen), *sorted(told)])


@cache
def _library() -> str:
    return _installed()


def _installed() -> str:
    """The files of this library, versions of what it stands on, and the machine."""
    top = os.path.dirname(__file__)
    paths = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(top)
        for name in names
        if name.endswith(".py")
    ]
    of_each = ((path.removeprefix(top), os.stat(path)) for path in sorted(paths))
    files = [f"{name} {about.st_size} {about.st_mtime_ns}" for name, about in of_each]
    versions = [_version(name) for name in _PACKAGES]
    return fingerprint_by_name("\n".join(files), versions, sys.version, machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


class _Kept(NamedTuple):
    """What is on disk of a function: the arguments of `deserialize_and_load`, and what it returns.

    - `lapack`: whether it calls LAPACK.
    """

    lapack: bool
    executable: tuple
    out: Any

    def made(self) -> Compiled | None:
        """The function, ready to run; None where it is of no use to this version of XLA."""
        if self.lapack:
            _ready_lapack()
        try:
            return Compiled(deserialize_and_load(*self.executable), self.out)
        except jax.errors.JaxRuntimeError:
            return None


def _read(path: Path) -> _Kept | None:
    """One that was kept; None when there is none, or it is not whole."""
    try:
        # What is unpickled can do anything.
        raw = path.read_bytes() if _is_own(path.parent) else b""
    except OSError:
        return None
    check, body = raw[:32], raw[32:]
    if hashlib.sha256(body).digest() != check:
        return None
    lapack, payload, takes, gives, out = pickle.loads(body)
    return _Kept(lapack, (payload, takes, gives), out)


def _is_own(folder: Path) -> bool:
    """Whether nobody but the user can write into a folder; where systems do not say, it is theirs.

    **Raises:** `OSError` when there is no such folder.
    """
    about = folder.stat()
    owned = not hasattr(os, "getuid") or about.st_uid == os.getuid()
    return owned and (os.name != "posix" or not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


@cache
def _ready_lapack() -> None:
    # JAX looks up LAPACK when it lowers the first function that needs it, and nothing is lowered.
    lapack.prepare_lapack_call("potrf", np.dtype(float))


class _Lowered(NamedTuple):
    """A function before it is compiled.

    - `own`: its name; `out`: what it returns, with shapes in place of arrays.
    """

    lowered: Any
    own: str
    out: Any


def _lower(
    function: Callable[..., Any],
    leaves: list[Any],
    structure: Any,
    options: Callable[[], dict[str, Any]],
) -> _Lowered:
    told: list[Any] = []

    def of_arrays(arrays):
        taken = iter(arrays)
        filled = [next(taken) if _is_shape(leaf) else leaf for leaf in leaves]
        args, keywords = jax.tree.unflatten(structure, filled)
        out = function(*args, **keywords)
        told[:] = [jax.tree.map(_shape, out)]
        return [one for one in jax.tree.leaves(out) if eqx.is_array(one)]

    arrays = [leaf for leaf in leaves if _is_shape(leaf)]
    # An executable that JAX found on disk cannot be written once more (what is read again says that
    # functions are not found), so that it has to have a name that JAX has never kept.
    own = f"of_{secrets.token_hex(8)}"
    of_arrays.__name__ = of_arrays.__qualname__ = own
    lowered = jax.jit(of_arrays, compiler_options=options()).lower(arrays)
    return _Lowered(lowered, own, *told)


def _compile(path: Path, lowered: _Lowered) -> Compiled:
    run = lowered.lowered.compile()
    for entry in path.parent.glob(f"*{lowered.own}*{ENTRY}"):
        with suppress(OSError):
            entry.unlink()
    made = Compiled(run, lowered.out)
    text = run.as_text()
    called = set(_CALLED.findall(text or ""))
    # Code that was replaced under a running process would be kept as the new one's.
    if text and all(name.startswith(_LAPACK) for name in called) and _installed() == _library():
        _write(path, (bool(called), *serialize(run), made.out))
    return made


def _write(path: Path, content: tuple) -> None:
    try:
        body = pickle.dumps(content)
    except (pickle.PicklingError, AttributeError, TypeError):
        # What comes out has a function in it that only its own process knows.
        return
    # A full disk costs time and is no error.
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_own(path.parent):
            return
        with replacing(path) as temporary:
            Path(temporary).write_bytes(hashlib.sha256(body).digest() + body)
