"""Who samples shards, all shards of a run, what can happen to them, and what is kept of them."""

import itertools
import logging
import os
import pickle
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any, NamedTuple, Protocol

import equinox as eqx
import numpy as np

from ...arguments import Count, Whole, Within, check_fields
from ...checkpoint import read_stored, understood
from ...checkpoint.stored import write_stored
from ...errors import FitError
from ..diagnostics import RHAT

log = logging.getLogger(__name__)

CATEGORIES = ("timeout", "stalled", "crashed", "non_finite", "not_converged")
# Below this share of successes a result that was allowed nevertheless carries a warning.
WARNING = 0.8

Result = dict[str, np.ndarray]


class ShardFailure(FitError):
    """A shard that cannot be used: `category` of `CATEGORIES`, and the reason in words."""

    def __init__(self, category: str, reason: str):
        super().__init__(category, reason)
        self.category, self.reason = category, reason

    def __str__(self) -> str:
        return f"{self.category}: {self.reason}"


_Seconds = Annotated[
    float,
    Within(gt=0, finite=False, why=", or no shard could ever end, and float('inf') for none"),
]


class Limits(eqx.Module):
    """How long a shard may take, how often it is tried, and how many may fail.

    - `timeout`: longest time of an attempt [s]; `heartbeat`: longest time without a sign of
        progress [s].
    - `retries`: further attempts, with another key, a higher target acceptance and a longer
        warm-up, before a shard is dropped.
    - `success`: least share of shards that must succeed.
    - `rhat`: largest R-hat of a shard that counts as converged; infinite accepts chains that stay
        in different modes, for `MultimodalConsensus`.
    - `first`: the run stops when more than half of the first so many shards have been dropped.

    **Raises:** `ModelError` for limits that cannot be.
    """

    timeout: _Seconds = eqx.field(static=True, default=3600.0)
    heartbeat: _Seconds = eqx.field(static=True, default=600.0)
    retries: Whole = eqx.field(static=True, default=3)
    success: Annotated[float, Within(ge=0, le=1)] = eqx.field(static=True, default=0.9)
    first: Count = eqx.field(static=True, default=10)
    rhat: Annotated[float, Within(gt=1, finite=False)] = eqx.field(static=True, default=RHAT)

    __check_init__ = check_fields

    def overdue(self, now: float, begun: float, beat: float) -> ShardFailure | None:
        """The failure of an attempt by now, from the times it began and last moved [s]."""
        if now - begun > self.timeout:
            return ShardFailure("timeout", f"not done after {self.timeout:g} s")
        if now - beat > self.heartbeat:
            return ShardFailure("stalled", f"no progress for {self.heartbeat:g} s")
        return None


class Task(NamedTuple):
    """A shard to sample: its number, the attempt (0, 1, …) and its number of pairs."""

    number: int
    attempt: int
    size: int


Work = Callable[[Task, Callable[[], None]], Result]


class Attempt(NamedTuple):
    """A failed attempt."""

    category: str
    reason: str
    seconds: float


class Event(NamedTuple):
    """The end of an attempt: a result, or how it failed."""

    task: Task
    result: Result | None
    failure: Attempt | None
    seconds: float


def failed(task: Task, failure: ShardFailure, seconds: float) -> Event:
    """The event of a failure."""
    return Event(task, None, Attempt(failure.category, failure.reason, seconds), seconds)


def attempt(work: Work, task: Task, beat: Callable[[], None]) -> Event:
    """One attempt, whatever happens in it, as a value.

    `work` returns arrays by name and calls `beat` now and then. `draws` or a `log_density` that are
    not finite make it a failure.
    """
    begun = time.monotonic()
    try:
        beat()
        result = work(task, beat)
        for name in ("draws", "log_density"):
            if name in result and not np.all(np.isfinite(result[name])):
                raise ShardFailure("non_finite", f"{name} is not finite")
        return Event(task, result, None, time.monotonic() - begun)
    except ShardFailure as error:
        failure = error
    except Exception as error:
        failure = ShardFailure("crashed", f"{type(error).__name__}: {error}")
    return failed(task, failure, time.monotonic() - begun)


class Outcome(NamedTuple):
    """What became of a shard: its result, or None when it was dropped.

    `failures` are its failed attempts, the last of which is why it was dropped; `resumed` tells
    that the result was read from an earlier run.
    """

    number: int
    result: Result | None
    failures: tuple[Attempt, ...]
    seconds: float
    resumed: bool

    @property
    def reason(self) -> str:
        """Category and reason of the last failure; empty when there was none."""
        if not self.failures:
            return ""
        last = self.failures[-1]
        return f"{last.category}: {last.reason}"

    @property
    def summary(self) -> str:
        """What became of it, in one line."""
        tries = len(self.failures)
        if self.result is None:
            return f"shard {self.number} dropped after {tries} attempts: {self.reason}"
        how = "read from an earlier run" if self.resumed else f"done in {self.seconds:.1f} s"
        again = f", at attempt {tries + 1} ({self.reason})" if tries else ""
        return f"shard {self.number} {how}{again}"


class ShardRun(NamedTuple):
    """All shards of a run, by number; `stopped` says why it ended early, or is empty."""

    outcomes: tuple[Outcome, ...]
    total: int
    stopped: str

    @property
    def done(self) -> tuple[Outcome, ...]:
        """Those with a result."""
        return tuple(one for one in self.outcomes if one.result is not None)

    @property
    def dropped(self) -> tuple[Outcome, ...]:
        """Those without."""
        return tuple(one for one in self.outcomes if one.result is None)

    @property
    def success_rate(self) -> float:
        """Share of all shards that have a result."""
        return len(self.done) / self.total

    def categories(self) -> dict[str, int]:
        """Number of dropped shards by category."""
        found = Counter(one.failures[-1].category for one in self.dropped)
        return {name: found[name] for name in CATEGORIES if found[name]}

    def notes(self) -> tuple[str, ...]:
        """Retries, dropped shards and their reasons, in sentences."""
        out = []
        retried = [one for one in self.done if one.failures]
        if retried:
            shown = "; ".join(f"shard {one.number} after {one.reason}" for one in retried[:10])
            out.append(f"{len(retried)} shards succeeded at a further attempt: {shown}")
        out.extend(one.summary for one in self.dropped)
        resumed = sum(one.resumed for one in self.outcomes)
        if resumed:
            out.append(f"{resumed} shards were read from an earlier run")
        if self.success_rate < WARNING:
            out.append(
                f"only {100 * self.success_rate:.0f} % of the shards succeeded: the posterior "
                "lacks what the others know, and may be biased if they failed for a reason"
            )
        return tuple(out)


def accepted(run: ShardRun, limits: Limits) -> tuple[str, ...]:
    """The notes of a run whose result may be used.

    **Raises:** `FitError` with categories and reasons when it stopped early or too few succeeded.
    """
    counts = ", ".join(f"{name} {n}" for name, n in run.categories().items())
    reasons = "; ".join(f"shard {one.number}: {one.reason}" for one in run.dropped[:5])
    if run.stopped:
        raise FitError(f"{run.stopped} ({counts}). {reasons}")
    if not run.done or run.success_rate < limits.success:
        raise FitError(
            f"{len(run.done)} of {run.total} shards succeeded, less than the share "
            f"{limits.success:g} asked for ({counts}). {reasons}. See to the reasons, or allow it "
            "with Limits(success=…)"
        )
    notes = run.notes()
    if run.success_rate < WARNING:
        log.warning("%s", notes[-1])
    return notes


def early_stop(ended: Sequence[Outcome], limits: Limits) -> str:
    """Why a run stops by what became of its first shards; empty when it goes on."""
    first = ended[: limits.first]
    lost = sum(one.result is None for one in first)
    if 2 * lost <= limits.first:
        return ""
    return f"stopped early: {lost} of the first {len(first)} shards to end were dropped"


class ResultStore(eqx.Module):
    """Numbered results in a folder, a checkpoint each.

    - `folder`: made at the first writing.
    - `fingerprint`: of the problem; results of another one are refused.
    - `kind`: what they are of, such as a shard or a piece of a run.
    """

    folder: str = eqx.field(static=True, converter=os.fspath)
    fingerprint: str = eqx.field(static=True, default="")
    kind: str = eqx.field(static=True, default="shard")

    def path(self, number: int) -> str:
        """The file of a result."""
        return os.path.join(self.folder, f"{self.kind}-{number:05d}.h5")

    def save(self, number: int, result: Mapping[str, np.ndarray]) -> None:
        """Write a result, whole or not at all.

        **Raises:** `OSError` when the folder cannot be written to.
        """
        os.makedirs(self.folder, exist_ok=True)
        extra = {"names": list(result)}
        arrays = list(map(np.asarray, result.values()))
        write_stored(self.path(number), self.kind, self.fingerprint, number, arrays, extra)

    def load(self, number: int) -> Result | None:
        """A result, None when there is none.

        **Raises:** `CheckpointError` for a damaged file and for the result of another problem.
        """
        if not os.path.exists(self.path(number)):
            return None
        found = read_stored(self.path(number), self.kind, self.fingerprint)
        with understood(found.path):
            arrays = found.restore([np.asarray(leaf.array) for leaf in found.leaves])
            return dict(zip(map(str, found.extra["names"]), arrays, strict=True))


class Place(Protocol):
    """Where one shard after the other is sampled; it sees to the limits of time by itself."""

    def free(self) -> bool:
        """Whether a task can begin."""
        ...

    def begin(self, task: Task) -> None:
        """Begin a task."""
        ...

    def ended(self) -> Event | None:
        """The end of an attempt, once; None while there is none."""
        ...


class AbstractWorkers(eqx.Module):
    """Something that samples shards."""

    __check_init__ = check_fields

    @abstractmethod
    def open(
        self, work: Work, limits: Limits, tasks: int
    ) -> AbstractContextManager[Sequence[Place]]:
        """Places for one function of (task, beat); leaving them ends what still runs.

        There will be `tasks` of them, so that more places would stay empty.
        """


class _Here:
    """This process."""

    def __init__(self, work: Work, limits: Limits):
        self.work, self.limits = work, limits
        self.task: Task | None = None

    def free(self) -> bool:
        return self.task is None

    def begin(self, task: Task) -> None:
        self.task = task

    def ended(self) -> Event | None:
        task, self.task = self.task, None
        begun = time.monotonic()

        def beat() -> None:
            # What gives a sign of progress has not stalled, however long that took.
            now = time.monotonic()
            failure = self.limits.overdue(now, begun, now)
            if failure is not None:
                raise failure

        return None if task is None else attempt(self.work, task, beat)


class Serial(AbstractWorkers):
    """One shard after the other in this process.

    `Limits.timeout` is looked at whenever a shard reports progress. One that stalls cannot be
    ended: `Limits.heartbeat` takes `SpawnedProcesses`.
    """

    @contextmanager
    def open(self, work, limits, tasks):
        yield [_Here(work, limits)]


# How often places are looked at [s].
_POLL = 0.05


def run_shards(
    work: Work,
    sizes: Sequence[int],
    workers: AbstractWorkers,
    limits: Limits | None = None,
    store: ResultStore | None = None,
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
    ended: list[Outcome] = []

    def end(outcome: Outcome) -> None:
        ended.append(outcome)
        if callback is not None:
            callback(outcome)

    tasks = [Task(k, 0, int(size)) for k, size in enumerate(sizes)]
    left = []
    for task in sorted(tasks, key=lambda task: -task.size):
        found = None if store is None else store.load(task.number)
        if found is None:
            left.append(task)
        else:
            end(Outcome(task.number, found, (), 0.0, True))
    failures: dict[int, tuple[Attempt, ...]] = {task.number: () for task in tasks}
    seconds = dict.fromkeys(failures, 0.0)
    resumed, running, stopped = len(ended), 0, ""
    if left:
        with workers.open(work, limits, len(left)) as places:
            while (left or running) and not stopped:
                for place in places:
                    if left and place.free():
                        place.begin(left.pop(0))
                        running += 1
                events = [event for place in places if (event := place.ended()) is not None]
                running -= len(events)
                for event in events:
                    number = event.task.number
                    seconds[number] += event.seconds
                    if event.failure is not None:
                        failures[number] += (event.failure,)
                        if event.task.attempt < limits.retries:
                            left.append(event.task._replace(attempt=event.task.attempt + 1))
                            continue
                    elif store is not None and event.result is not None:
                        store.save(number, event.result)
                    end(Outcome(number, event.result, failures[number], seconds[number], False))
                stopped = early_stop(ended[resumed:], limits) if left or running else ""
                if not events:
                    time.sleep(_POLL)
    return ShardRun(tuple(sorted(ended, key=lambda one: one.number)), len(tasks), stopped)


# Smaller arrays travel with the rest; larger ones are mapped into memory by every process.
_LARGE = 2**16  # bytes
_WORK = "work.pickle"


def dump_shared(folder: str, value: Any) -> None:
    """Write a picklable value into an existing folder, large NumPy arrays as files of their own.

    **Raises:** whatever pickling it raises.
    """
    large: list[pickle.PickleBuffer] = []

    def in_line(buffer: pickle.PickleBuffer) -> bool:
        small = buffer.raw().nbytes < _LARGE
        if not small:
            large.append(buffer)
        return small

    with open(os.path.join(folder, _WORK), "wb") as stream:
        pickle.dump(value, stream, protocol=5, buffer_callback=in_line)
    for number, buffer in enumerate(large):
        with open(_array_path(folder, number), "wb") as stream:
            stream.write(buffer.raw())


def load_shared(folder: str) -> Any:
    """The value again; its large arrays are read-only maps of the files.

    All processes of a machine then share one copy in memory.
    """
    maps = (np.memmap(_array_path(folder, number), mode="r") for number in itertools.count())
    with open(os.path.join(folder, _WORK), "rb") as stream:
        return pickle.load(stream, buffers=maps)


def _array_path(folder: str, number: int) -> str:
    return os.path.join(folder, f"array-{number:03d}")
