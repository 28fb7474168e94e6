"""`jit` for what is compiled more often than it is run long; compiled functions kept on disk."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.core
import numpy as np

from . import compiled
from .errors import ConfigError

# On our loops, whose time goes into a few vectorised kernels, both halve the time of compilation;
# an evaluation of 3 × 1001² takes 37 ms with them and 47 with what XLA does by itself.
_WANTED = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}


# Code that is made without being made better, which takes a third of the time: for functions of a
# few numbers, or such as run once in a fit.
_PLAIN = {"xla_backend_optimization_level": 0}


def _accepted(options: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(np.float32(0)).compile()
    except jax.errors.JaxRuntimeError:
        # A release of XLA without the option: it only saves time, so it is left out.
        return False
    return True


@cache
def quick_options() -> dict[str, Any]:
    """Compiler options for quick compilation that this version of XLA knows."""
    if _accepted(_WANTED):
        return dict(_WANTED)
    return {name: value for name, value in _WANTED.items() if _accepted({name: value})}


@cache
def plain_options() -> dict[str, Any]:
    """Those for code that is not made better, which only processors take long to make."""
    quick = quick_options()
    plain = jax.default_backend() == "cpu" and _accepted(_PLAIN)
    return quick | _PLAIN if plain else quick


@cache
def _compiled(function: Callable[..., Any], options: Callable[[], dict[str, Any]]) -> Any:
    # Keywords for `jax.jit` are passed on, which the type stub does not say.
    return eqx.filter_jit(function, compiler_options=options())  # pyright: ignore[reportCallIssue]


@cache
def _inner(function: Callable[..., Any]) -> Any:
    """The function inside another compiled one, which has its options."""
    return eqx.filter_jit(function)


class quick_jit:
    """`equinox.filter_jit` with options for quick compilation.

    What `compilation_cache` has on disk is not compiled.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        # Shapes of what comes out by kinds of arguments, kept as JAX keeps what is compiled.
        self._prepared: dict[_Rest, Any] = {}
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", "function")

    # Looked up at the first call.
    options = staticmethod(quick_options)

    def traced(self) -> Any:
        """The function as JAX compiles it."""
        return _compiled(self.function, self.options)

    def lower(self, *args: Any, **keywords: Any) -> Any:
        """Lower without running; `.compile()` fills the cache that a call uses."""
        return self.traced().lower(*args, **keywords)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        leaves, structure = jax.tree.flatten((args, keywords))
        if is_traced(leaves):
            return _inner(self.function)(*args, **keywords)
        setting = compiled.settings()
        if setting is not None:
            kind = _kind_of(leaves, structure)
            kept = compiled.of_disk(self.function, kind, (args, keywords), setting, self.options)
            if kept is not None:
                return kept([leaf for leaf in leaves if eqx.is_array(leaf)])
        return self.traced()(*args, **keywords)

    def prepare(self, *args: Any, later: compiled.Later = compiled.at_once) -> Any:
        """Compile for arguments like these, without running it; again it costs nothing.

        Returns something like what would come of them, its arrays made of zeros. `later` is given
        what takes long; who calls the function before that is done waits for it.
        """
        setting, call = compiled.settings(), (args, {})
        if setting is not None and not is_traced(args):
            kind = _kind_of(*jax.tree.flatten(call))
            out = compiled.prepare(self.function, kind, call, setting, self.options, later)
            if out is not None:
                return zeros_like(out)
        kind = _kind_of(*jax.tree.flatten(args))
        if kind not in self._prepared:
            lowered = self.lower(*args)
            later(lowered.compile)
            # It was traced for its shapes already.
            self._prepared[kind] = lowered.postprocess(lowered.lowered.out_info)
        return zeros_like(self._prepared[kind])

    def bound(self, *args: Any) -> "Bound":
        """The function of what follows `args`, arrays alone: many calls of it cost little."""
        return Bound(self, args)


class Bound:
    """A compiled function of which the first arguments are given, of some more arrays."""

    def __init__(self, function: quick_jit, args: tuple):
        self.function, self.args = function, args
        leaves, self.structure = jax.tree.flatten(args)
        self.arrays = [leaf for leaf in leaves if eqx.is_array(leaf)]
        self.rest = tuple(None if eqx.is_array(leaf) else leaf for leaf in leaves)
        self.setting, self.kept = compiled.settings(), dict[tuple, Any]()

    def _traced(self) -> tuple:
        """The function as JAX compiles it, and its first arguments."""
        rest = _same(_Rest(self.rest, self.structure))
        return _flat(self.function.function), rest, self.arrays

    def __call__(self, *more: Any) -> Any:
        if any(isinstance(one, jax.core.Tracer) for one in more):
            return self._by_jax(more)
        more = tuple(one if eqx.is_array(one) else np.asarray(one) for one in more)
        kind = tuple(map(jax.typeof, more))
        if kind not in self.kept:
            self.kept[kind] = None if self.setting is None else compiled.of_disk(*self._told(more))
        found = self.kept[kind]
        return self._by_jax(more) if found is None else found([*self.arrays, *more])

    def _by_jax(self, more: tuple) -> Any:
        function, *first = self._traced()
        return function(*first, *more)

    def _told(self, more: tuple) -> tuple[Any, Any, Any, tuple, Any]:
        """What the function is looked for by on disk."""
        assert self.setting is not None
        every = (*self.args, *more), {}
        kind = _kind_of(*jax.tree.flatten(every))
        return self.function.function, kind, every, self.setting, self.function.options

    def prepare(self, *more: Any, later: compiled.Later) -> None:
        """Compile for arrays like these, without running it; `later` is given what takes long."""
        more = tuple(map(np.asarray, more))
        if self.setting is not None and compiled.prepare(*self._told(more), later) is not None:
            return
        function, *first = self._traced()
        later(function.lower(*first, *more).compile)


class plain_jit(quick_jit):
    """`quick_jit` for a function of a few numbers, or one that runs once in a fit.

    Its code is made in a third of the time, and takes up to three times as long.
    """

    options = staticmethod(plain_options)


_NOTHING = np.zeros(())


def is_traced(args: Any) -> bool:
    """Whether arguments are those of a function that is being traced, or one is traced meanwhile.

    Of that numbers tell nothing, which are the same whatever the function is given.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args)):
        return True
    # Whatever is made while a function is compiled is a part of it.
    return isinstance(jax.device_put(_NOTHING), jax.core.Tracer)


class _Rest:
    """What is no array of the arguments of a call, with their structure; compared but once."""

    def __init__(self, leaves: tuple, structure: Any):
        self.parts = leaves, structure
        self.hash = hash(self.parts)

    def __hash__(self):
        return self.hash

    def __eq__(self, other: Any):
        return self is other or (isinstance(other, _Rest) and self.parts == other.parts)


def _kind_of(leaves: list, structure: Any) -> _Rest:
    """What a function is compiled for: arguments with the shapes of arrays in place of these."""
    return _Rest(
        tuple(jax.typeof(leaf) if eqx.is_array(leaf) else leaf for leaf in leaves), structure
    )


def zeros_like(tree: Any) -> Any:
    """The same with zeros of NumPy in place of arrays, or of what only tells their shapes."""

    def blank(leaf):
        has_shape = eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
        return np.zeros(leaf.shape, leaf.dtype) if has_shape else leaf

    return jax.tree.map(blank, tree)


@lru_cache(maxsize=64)
def _same(rest: _Rest) -> _Rest:
    """The first of those that are equal."""
    return rest


@cache
def _flat(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(rest, arrays, *more):
        taken, (leaves, structure) = iter(arrays), rest.parts
        leaves = [next(taken) if leaf is None else leaf for leaf in leaves]
        return function(*jax.tree.unflatten(structure, leaves), *more)

    return jax.jit(call, static_argnums=0, compiler_options=quick_options())


LIMIT = 500_000_000  # bytes
_LAST_USED = "-atime"


def cache_folder() -> Path:
    """The folder of the user's caches, where the system wants it."""
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "xpcs_eqx"


def compilation_cache(folder: str | Path | None = None, limit: int = LIMIT) -> Path | None:
    """Keep compiled functions on disk, so that the next fits begin at once.

    Most of the time of a first fit is compilation. With this at the top of a program, before
    anything is fitted, only the first process on a machine compiles. The program
    `python -m xpcs_eqx.fit` calls it unless its configuration says otherwise.

    A folder within serves one version of JAX on processors of one kind, which may share a home.
    What was used least recently goes when all of it is larger than `limit`. A folder that cannot be
    made or read, and a disk that is full, cost time and are no error. A folder that JAX was given
    already, as by JAX_COMPILATION_CACHE_DIR, is kept. It holds code that runs in this process: use
    none that others can write into, of which this library reads nothing by itself.

    Functions of this library called with its own objects are found without being traced; a model of
    a user is traced in every process, and only what XLA makes of it is found.

    **Arguments:**

    - `folder`: by default `xpcs_eqx` among the caches of the user.
    - `limit`: size of all that is kept [bytes], looked at when this is called.

    **Returns:** the folder that JAX uses, or None where there can be none.

    **Raises:** `ConfigError` for a limit below 0.
    """
    if limit < 0:
        raise ConfigError(f"limit is {limit} bytes; give 0 or more")
    config = jax.config
    given = getattr(config, "jax_compilation_cache_dir", None)
    if given:
        compiled.keep_in(Path(given))
        return Path(given)
    try:
        top = cache_folder() if folder is None else Path(folder)
        own = top / compiled.machine()
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        _shrink(top, limit)
    except (OSError, RuntimeError):
        # RuntimeError: there is no home.
        return None
    if not os.access(own, os.R_OK | os.W_OK | os.X_OK):
        return None
    config.update("jax_compilation_cache_dir", str(own))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    from jax.experimental.compilation_cache import compilation_cache as of_jax

    # Whoever has compiled before has made JAX decide that there is no cache.
    of_jax.reset_cache()
    compiled.keep_in(own)
    message = "Error (reading|writing) persistent compilation cache"
    warnings.filterwarnings("ignore", message=message)
    return own


def _shrink(top: Path, limit: int) -> None:
    """Remove the entries used least recently until those left are below `limit`."""
    found = []
    for path in top.glob(f"*/*{compiled.ENTRY}"):
        # Another process may have removed it meanwhile.
        with contextlib.suppress(OSError):
            about = path.stat()
            found.append((max(about.st_atime, about.st_mtime), about.st_size, path))
    size = sum(one for _, one, _ in found)
    for _, one, path in sorted(found):
        if size <= limit:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            path.with_name(path.name.removesuffix(compiled.ENTRY) + _LAST_USED).unlink(
                missing_ok=True
            )
        size -= one
