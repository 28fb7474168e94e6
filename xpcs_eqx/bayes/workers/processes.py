"""Shards in spawned processes of our own, each of which can be lost without the others."""

import multiprocessing
import os
import signal
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Annotated, Any

import equinox as eqx
import jax

from ...arguments import Within
from ...cores import beside, start_beside
from ...errors import FitError
from .base import (
    AbstractWorkers,
    Event,
    Limits,
    ShardFailure,
    Task,
    Work,
    attempt,
    dump_shared,
    failed,
    load_shared,
)
from .executor import BEAT

# Longest time for a process to start and import [s], and how many may die in doing so.
_START = 600.0
_STILLBORN = 3
_READY, _BEAT = "ready", "beat"


def serve(connection: Connection, folder: str, processes: int) -> None:
    """The life of one of some processes: read the work, then do tasks until told to end."""
    # An interrupt goes to the whole group; the process that began all ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A process of our own has a configuration of its own.
    jax.config.update("jax_enable_x64", True)
    start_beside(processes)
    try:
        work: Work = load_shared(folder)
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    connection.send(_READY)
    last = -float("inf")

    def beat() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= BEAT:
            last = now
            connection.send(_BEAT)

    with beside(processes), suppress(EOFError):
        while (task := connection.recv()) is not None:
            connection.send(attempt(work, task, beat))


class _Process:
    """A process, and another one in its place when it is lost."""

    def __init__(self, context: Any, folder: str, processes: int, limits: Limits):
        self.context, self.limits = context, limits
        self.arguments = folder, processes
        self.stillborn = 0
        self._start()

    def _start(self) -> None:
        self.connection, other = self.context.Pipe()
        process = self.context.Process(target=serve, args=(other, *self.arguments), daemon=True)
        process.start()
        self.process = process
        other.close()
        self.ready = False
        self.task: Task | None = None
        self.begun = self.moved = time.monotonic()

    def free(self) -> bool:
        return self.ready and self.task is None

    def begin(self, task: Task) -> None:
        self.task = task
        self.begun = self.moved = time.monotonic()
        # A process that died meanwhile is found by the end of its connection.
        with suppress(OSError):
            self.connection.send(task)

    def ended(self) -> Event | None:
        while self.connection.poll():
            try:
                message = self.connection.recv()
            except (EOFError, OSError):
                return self._lost()
            if isinstance(message, Event):
                self.task = None
                return message
            if message == _BEAT:
                self.moved = time.monotonic()
            elif message == _READY:
                self.ready, self.stillborn = True, 0
            else:
                raise FitError(
                    f"a process cannot read what it is to sample: {message}. Models and priors "
                    "must be classes of a module that can be imported, not of an interactive "
                    "session"
                )
        now = time.monotonic()
        if self.task is None:
            if not self.ready and now - self.begun > _START:
                raise FitError(f"a process has not started within {_START:g} s")
            return None
        failure = self.limits.overdue(now, self.begun, self.moved)
        return None if failure is None else self._replaced(failure)

    def _lost(self) -> Event | None:
        self.process.join()
        code = self.process.exitcode or 0
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        if self.task is None:
            self.stillborn += 1
            if self.stillborn > _STILLBORN:
                raise FitError(
                    f"processes end {how} as soon as they start; a script that samples in "
                    'processes needs its body under `if __name__ == "__main__":`'
                )
        return self._replaced(ShardFailure("crashed", f"its process ended {how}{hint}"))

    def _replaced(self, failure: ShardFailure) -> Event | None:
        """The failure of what the process did, and another process in its place."""
        task, seconds = self.task, time.monotonic() - self.begun
        self.end()
        self._start()
        return None if task is None else failed(task, failure, seconds)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class SpawnedProcesses(AbstractWorkers):
    """Processes of this machine, started afresh, which share the data in memory.

    - `count`: how many; by default one for each core.
    - `folder`: where the shared arrays are put and mapped from; by default the folder for temporary
        files. A folder in memory (/dev/shm) avoids the disk.

    A process whose shard is overdue, or that dies, is replaced; the others go on. All of them see
    the accelerators of this machine: with `JAX_PLATFORMS=cpu` in the environment none is used.
    """

    count: Annotated[int, Within(ge=0, why="; 0 for one a core")] = eqx.field(
        static=True, default=0
    )
    folder: str | None = eqx.field(static=True, default=None)

    @contextmanager
    def open(self, work, limits, tasks):
        count = min(self.count or os.cpu_count() or 1, tasks)
        context = multiprocessing.get_context("spawn")
        with (
            tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as shared,
            ExitStack() as started,
        ):
            dump_shared(shared, work)
            places = []
            for _ in range(count):
                # One that cannot be started leaves none behind.
                places.append(_Process(context, shared, count, limits))
                started.callback(places[-1].end)
            yield places
