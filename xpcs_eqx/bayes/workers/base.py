"""What samples shards, and all shards of a run: with retries, and kept on disk."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import equinox as eqx

from .limits import (
    Attempt,
    Event,
    Limits,
    Outcome,
    ShardRun,
    Task,
    Work,
    attempt,
    early_stop,
)
from .store import ShardStore


class Session(Protocol):
    """Shards being sampled; it sees to the limits of time by itself."""

    def free(self) -> bool:
        """Whether another task can begin."""
        ...

    def submit(self, task: Task) -> None:
        """Begin a task."""
        ...

    def wait(self) -> list[Event]:
        """Ends of attempts; returns after a while without any as well."""
        ...


class AbstractWorkers(eqx.Module):
    """Something that samples shards."""

    @abstractmethod
    def open(self, work: Work, limits: Limits, tasks: int) -> AbstractContextManager[Session]:
        """A session for one function of (task, beat); leaving it ends what still runs.

        There will be `tasks` of them, so that more places would stay empty.
        """


class _SerialSession:
    def __init__(self, work: Work, limits: Limits):
        self.work, self.limits = work, limits
        self.tasks: list[Task] = []

    def free(self) -> bool:
        return not self.tasks

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def wait(self) -> list[Event]:
        begun = time.monotonic()

        def beat() -> None:
            # What gives a sign of progress has not stalled, however long that took.
            now = time.monotonic()
            failure = self.limits.overdue(now, begun, now)
            if failure is not None:
                raise failure

        return [attempt(self.work, self.tasks.pop(), beat)]


class Serial(AbstractWorkers):
    """One shard after the other in this process.

    `Limits.timeout` is looked at whenever a shard reports progress. One that stalls cannot be
    ended: `Limits.heartbeat` takes `SpawnedProcesses`.
    """

    def open(self, work, limits, tasks):
        @contextmanager
        def session() -> Iterator[Session]:
            yield _SerialSession(work, limits)

        return session()


def run_shards(
    work: Work,
    sizes: Sequence[int],
    workers: AbstractWorkers,
    limits: Limits | None = None,
    store: ShardStore | None = None,
    callback: Callable[[Outcome], Any] | None = None,
) -> ShardRun:
    """Sample all shards, the largest first.

    **Arguments:**

    - `work`: a picklable function of (task, beat) that returns arrays by name; it calls `beat`
        every so often, and raises `ShardFailure` for a result that cannot be used.
    - `sizes`: number of pairs of each shard.
    - `store`: finished shards are written to it, and those it has are not sampled.
    - `callback`: called with each `Outcome` as it comes.

    **Returns:** results, failures and reasons; nothing is raised for shards that fail.

    **Raises:** `CheckpointError` for stored results that belong to another problem.
    """
    limits = Limits() if limits is None else limits
    tasks = [Task(k, 0, int(size)) for k, size in enumerate(sizes)]
    ended: list[Outcome] = []

    def end(outcome: Outcome) -> None:
        ended.append(outcome)
        if callback is not None:
            callback(outcome)

    left = []
    for task in sorted(tasks, key=lambda task: -task.size):
        found = None if store is None else store.load(task.number)
        if found is None:
            left.append(task)
        else:
            end(Outcome(task.number, found, (), 0.0, True))
    failures: dict[int, list[Attempt]] = {task.number: [] for task in tasks}
    seconds = dict.fromkeys(failures, 0.0)
    resumed, running, stopped = len(ended), 0, ""
    if left:
        with workers.open(work, limits, len(left)) as session:
            while (left or running) and not stopped:
                while left and session.free():
                    session.submit(left.pop(0))
                    running += 1
                for event in session.wait():
                    running -= 1
                    number = event.task.number
                    seconds[number] += event.seconds
                    if event.result is not None:
                        if store is not None:
                            store.save(number, event.result)
                    else:
                        failures[number].append(
                            Attempt(event.category, event.reason, event.seconds)
                        )
                        if event.task.attempt < limits.retries:
                            left.append(event.task._replace(attempt=event.task.attempt + 1))
                            continue
                    tries = tuple(failures[number])
                    end(Outcome(number, event.result, tries, seconds[number], False))
                stopped = early_stop(ended[resumed:], limits) if left or running else ""
    return ShardRun(tuple(sorted(ended, key=lambda one: one.number)), len(tasks), stopped)
