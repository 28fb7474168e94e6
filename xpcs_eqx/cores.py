"""Work in equal parts on all cores: threads, of which XLA lets any number run at a time."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TypeVar

import jax

from .errors import ConfigError
from .inherited import Inherited, is_sent

S = TypeVar("S")
T = TypeVar("T")

VARIABLE = "XPCS_EQX_THREADS"


# Threads of work beside which other processes work as well; None where it is alone.
_SHARED: ContextVar[int | None] = ContextVar("shared", default=None)


@contextmanager
def beside(processes: int) -> Iterator[None]:
    """A context in which the cores are shared with other processes, so many in all."""
    token = _SHARED.set(_share(processes))
    try:
        yield
    finally:
        _SHARED.reset(token)


def start_beside(processes: int) -> None:
    """Start JAX in one of so many processes of this machine, with threads for its share of cores.

    By itself it makes as many threads as the process may use cores, and hands its sums over to them
    where these are not free, which takes as much processor time again as a fit of small maps. What
    has been started stays as it is; where the system does not tell cores apart nothing is done.
    """
    share = _share(processes)
    if not hasattr(os, "sched_setaffinity") or share == _cores():
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:share])
    try:
        jax.devices()
    finally:
        # They may run on any core all the same: which ones are free changes.
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), allowed)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _share(processes: int) -> int:
    """Cores for each of so many processes."""
    return max(1, _cores() // processes)


def threads() -> int:
    """How many parts of a sum are worked on at a time: as many as this process may use cores.

    XPCS_EQX_THREADS in the environment says otherwise. Work that was sent to another process has
    one thread: whoever sent it has as many processes as are wanted. Inside `beside` it is this
    process' share of the cores.

    **Raises:** `ConfigError` when the variable is no whole number above 0.
    """
    text = os.environ.get(VARIABLE)
    if text is not None:
        if not (text.isdigit() and int(text) > 0):
            raise ConfigError(
                f"the environment variable {VARIABLE} is {text!r}; give a number of threads, or "
                "unset it for all cores"
            )
        return int(text)
    if is_sent():
        return 1
    return _SHARED.get() or _cores()


# Which threads are those of a pool: what they wait for may never have one to run on.
_working = threading.local()


def _begin_work() -> None:
    _working.here = True


@cache
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay; a process that was forked off has none of them and needs its own."""
    del process
    return ThreadPoolExecutor(count, "xpcs-eqx", _begin_work)


def in_order(work: Callable[[S], T], items: Iterable[S], most: int | None = None) -> Iterator[T]:
    """`work` of each item, on `threads()` threads, or at `most` so many, in the order of the items.

    No more items are taken than there are threads, and one. What is raised is raised where its
    result would have been handed over. Inside such work it is done by the thread that asks.
    """
    count = threads() if most is None else min(most, threads())
    if count == 1 or getattr(_working, "here", False):
        yield from map(work, items)
        return
    pool, call = _pool(count, os.getpid()), Inherited(work)
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            # What holds for whoever asks, as settings of NumPy do, holds there.
            waiting.append(pool.submit(copy_context().run, call, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
