"""All shards of a run: in order, with retries, kept on disk."""

from collections.abc import Callable, Sequence
from typing import Any

from .executor import AbstractWorkers
from .limits import Attempt, Limits, Outcome, ShardRun, Task, Work, early_stop
from .store import ShardStore


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
