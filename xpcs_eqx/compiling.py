"""`jit` for functions that are compiled more often than they are run long."""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

# Both only change how fast code is generated: on our loops, whose time goes into a few vectorised
# kernels, they halve the time of compilation and leave that of a run alone.
_WANTED = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}


def _accepted(options: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(jnp.float32(0)).compile()
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
def _compiled(function: Callable[..., Any]) -> Any:
    # Keywords for `jax.jit` are passed on, which the type stub does not say.
    return eqx.filter_jit(function, compiler_options=quick_options())  # pyright: ignore[reportCallIssue]


class quick_jit:
    """`equinox.filter_jit` with options for quick compilation, looked up at the first call."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", "function")

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return _compiled(self.function)(*args, **keywords)

    def lower(self, *args: Any, **keywords: Any) -> Any:
        """Lower without running; `.compile()` fills the cache that a call uses."""
        return _compiled(self.function).lower(*args, **keywords)

    def bound(self, *args: Any) -> Callable[..., Any]:
        """The function of what follows `args`, arrays alone: many calls of it cost little."""
        leaves, structure = jax.tree.flatten(args)
        arrays = [leaf for leaf in leaves if eqx.is_array(leaf)]
        rest = tuple(None if eqx.is_array(leaf) else leaf for leaf in leaves)
        return partial(_flat(self.function), _same(_Rest(rest, structure)), arrays)


class _Rest:
    """What is no array of the arguments of a call, with their structure; compared but once."""

    def __init__(self, leaves: tuple, structure: Any):
        self.parts = leaves, structure
        self.hash = hash(self.parts)

    def __hash__(self):
        return self.hash

    def __eq__(self, other: Any):
        return self is other or (isinstance(other, _Rest) and self.parts == other.parts)


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
