"""Shards in spawned processes of our own, each of which can be lost without the others."""

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import equinox as eqx

from ...errors import FitError, ModelError
from .base import AbstractWorkers, Event, Limits, Session, ShardFailure, Task, Work, attempt, failed
from .executor import BEAT, enable_double_precision
from .store import dump_shared, load_shared

# Longest time for a process to start and import [s], and how many may die in doing so.
_START = 600.0
_STILLBORN = 3
_READY, _BEAT = "ready", "beat"


def serve(connection: Connection, folder: str) -> None:
    """The life of a process: read the work, then one task after the other until told to end."""
    # An interrupt goes to the whole group; the process that began all ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    enable_double_precision()
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

    with suppress(EOFError):
        while (task := connection.recv()) is not None:
            connection.send(attempt(work, task, beat))


class _Process:
    """A process and what it does."""

    def __init__(self, context: Any, folder: str):
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, folder), daemon=True)
        self.process.start()
        other.close()
        self.ready = False
        self.task: Task | None = None
        self.begun = self.moved = time.monotonic()

    def give(self, task: Task) -> None:
        self.task = task
        self.begun = self.moved = time.monotonic()
        # A process that died meanwhile is found by the end of its connection.
        with suppress(OSError):
            self.connection.send(task)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class _ProcessSession:
    def __init__(self, start: Callable[[], _Process], count: int, limits: Limits):
        self.start, self.limits = start, limits
        self.stillborn = 0
        self.processes: list[_Process] = []
        try:
            for _ in range(count):
                self.processes.append(start())
        except BaseException:
            # One that cannot be started leaves none behind.
            self.close()
            raise

    def free(self) -> bool:
        return any(one.ready and one.task is None for one in self.processes)

    def submit(self, task: Task) -> None:
        next(one for one in self.processes if one.ready and one.task is None).give(task)

    def wait(self) -> list[Event]:
        ready = wait([one.connection for one in self.processes], self._patience())
        events = []
        for k, one in enumerate(list(self.processes)):
            event = self._heard(k) if one.connection in ready else self._silent(k)
            if event is not None:
                events.append(event)
        return events

    def _patience(self) -> float:
        """Time until the first limit can be passed, a second at most."""
        now = time.monotonic()
        left = [1.0]
        for one in self.processes:
            if one.task is not None:
                left.append(one.begun + self.limits.timeout - now)
                left.append(one.moved + self.limits.heartbeat - now)
        return max(min(left), 0.01)

    def _heard(self, k: int) -> Event | None:
        one = self.processes[k]
        try:
            message = one.connection.recv()
        except (EOFError, OSError):
            return self._lost(k)
        if isinstance(message, Event):
            one.task = None
            return message
        if message == _BEAT:
            one.moved = time.monotonic()
        elif message == _READY:
            one.ready, self.stillborn = True, 0
        else:
            raise FitError(
                f"a process cannot read what it is to sample: {message}. Models and priors must "
                "be classes of a module that can be imported, not of an interactive session"
            )
        return None

    def _silent(self, k: int) -> Event | None:
        one, now = self.processes[k], time.monotonic()
        if one.task is None:
            if not one.ready and now - one.begun > _START:
                raise FitError(f"a process has not started within {_START:g} s")
            return None
        failure = self.limits.overdue(now, one.begun, one.moved)
        return None if failure is None else self._replaced(k, failure)

    def _lost(self, k: int) -> Event | None:
        one = self.processes[k]
        one.process.join()
        code = one.process.exitcode or 0
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        if one.task is None:
            self.stillborn += 1
            if self.stillborn > _STILLBORN:
                raise FitError(
                    f"processes end {how} as soon as they start; a script that samples in "
                    'processes needs its body under `if __name__ == "__main__":`'
                )
        return self._replaced(k, ShardFailure("crashed", f"its process ended {how}{hint}"))

    def _replaced(self, k: int, failure: ShardFailure) -> Event | None:
        """The failure of what a process did, and another process in its place."""
        one = self.processes[k]
        one.end()
        self.processes[k] = self.start()
        if one.task is None:
            return None
        return failed(one.task, failure, time.monotonic() - one.begun)

    def close(self) -> None:
        for one in self.processes:
            one.end()


class SpawnedProcesses(AbstractWorkers):
    """Processes of this machine, started afresh, which share the data in memory.

    - `count`: how many; by default one for each core.
    - `folder`: where the shared arrays are put and mapped from; by default the folder for temporary
        files. A folder in memory (/dev/shm) avoids the disk.

    A process whose shard is overdue, or that dies, is replaced; the others go on. All of them see
    the accelerators of this machine: with `JAX_PLATFORMS=cpu` in the environment none is used.
    """

    count: int = eqx.field(static=True, default=0)
    folder: str | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.count < 0:
            raise ModelError(f"{self.count} processes; give 1 or more, or 0 for one a core")

    def open(self, work, limits, tasks):
        return self._session(work, limits, min(self.count or os.cpu_count() or 1, tasks))

    @contextmanager
    def _session(self, work: Work, limits: Limits, count: int) -> Iterator[Session]:
        context = multiprocessing.get_context("spawn")
        with tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as shared:
            dump_shared(shared, work)
            session = _ProcessSession(lambda: _Process(context, shared), count, limits)
            try:
                yield session
            finally:
                session.close()
