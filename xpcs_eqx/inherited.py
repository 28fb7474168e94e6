"""Work for other threads and processes under the settings of JAX of whoever hands it over."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np

T = TypeVar("T")

_AWAY: ContextVar[bool] = ContextVar("away", default=False)


def is_sent() -> bool:
    """Whether this is done for another process, which sent it here."""
    return _AWAY.get()


class _Settings(NamedTuple):
    """What JAX keeps for each thread and what is computed depends on."""

    double: bool
    matmul_precision: str | None
    device: Any

    @contextmanager
    def hold(self) -> Iterator[None]:
        """A context in which these settings hold."""
        with (
            jax.enable_x64(self.double),
            jax.default_matmul_precision(self.matmul_precision),
            jax.default_device(self.device),
        ):
            yield


def _settings() -> _Settings:
    config: Any = jax.config
    return _Settings(
        bool(config.jax_enable_x64),
        config.jax_default_matmul_precision,
        config.jax_default_device,
    )


class _Packed(NamedTuple):
    """Stands for an array of JAX on its way to another process."""

    array: np.ndarray


class Inherited(Generic[T]):
    """A call that is carried out under the settings of the thread that asks for it.

    Settings made by a context manager, as in `with jax.enable_x64(True):`, belong to a thread: on
    another one the same work would be done in single precision, without a word. It can be pickled
    when function and arguments can. On its way arrays are those of NumPy, which another process
    does not cut to its own precision; it keeps its own device. What it returns there is packed in
    the same way, for `received`.
    """

    sent = False

    def __init__(self, function: Callable[..., T], *arguments: Any, **keywords: Any):
        self.function, self.arguments, self.keywords = function, arguments, keywords
        self.settings = _settings()

    def __call__(self, *more: Any) -> T:
        with self.settings.hold():
            token = _AWAY.set(self.sent or _AWAY.get())
            try:
                arguments, keywords = received((self.arguments, self.keywords))
                result = self.function(*arguments, *more, **keywords)
                return jax.tree.map(_packed, result) if self.sent else result
            finally:
                _AWAY.reset(token)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "sent": True,
            "function": self.function,
            "settings": self.settings._replace(device=None),
            "arguments": jax.tree.map(_packed, self.arguments),
            "keywords": jax.tree.map(_packed, self.keywords),
        }


def _packed(leaf: Any) -> Any:
    return _Packed(np.asarray(leaf)) if isinstance(leaf, jax.Array) else leaf


def received(result: T) -> T:
    """What an `Inherited` call returned, from wherever it was carried out."""

    def back(leaf):
        return jax.numpy.asarray(leaf.array) if isinstance(leaf, _Packed) else leaf

    return jax.tree.map(back, result, is_leaf=lambda leaf: isinstance(leaf, _Packed))
