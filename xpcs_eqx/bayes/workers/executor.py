"""Shards sampled by anything like `concurrent.futures.Executor`, a Dask cluster included."""

import importlib
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import equinox as eqx
import jax

from ...errors import ModelError
from ...objective import HeldExecutor
from .base import (
    AbstractWorkers,
    Event,
    Limits,
    Session,
    ShardFailure,
    Task,
    Work,
    attempt,
    failed,
)
from .store import dump_shared, load_shared

# How often futures are looked at, and how often a sign of progress is given at most [s].
_POLL = 0.05
BEAT = 1.0


def enable_double_precision() -> None:
    """Double precision in a process that samples shards and has a configuration of its own."""
    jax.config.update("jax_enable_x64", True)


def _beat_path(folder: str, task: Task) -> str:
    return os.path.join(folder, f"beat-{task.number}-{task.attempt}")


def call(folder: str, task: Task) -> Event:
    """One attempt in whichever process an executor runs it in; progress is a file that changes."""
    last = -float("inf")

    def beat() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= BEAT:
            last = now
            with open(_beat_path(folder, task), "ab") as stream:
                stream.write(b".")

    # Only here: a thread of the executor may belong to a program that wants it otherwise. The
    # shared files are read anew for each shard: kept, their memory maps would outlive them.
    with jax.enable_x64(True):
        return attempt(lambda task, beat: load_shared(folder)(task, beat), task, beat)


class _Running:
    """A future, and when it was first and last seen to move."""

    def __init__(self, task: Task, future: Future):
        self.task, self.future = task, future
        self.begun = self.moved = float("inf")
        self.beats = 0

    def look(self, folder: str, now: float) -> None:
        try:
            beats = os.path.getsize(_beat_path(folder, self.task))
        except FileNotFoundError:
            return
        if beats != self.beats:
            self.begun, self.moved, self.beats = min(self.begun, now), now, beats


class _ExecutorSession:
    def __init__(self, executor: Executor, slots: int, folder: str, limits: Limits):
        self.executor, self.slots = executor, slots
        self.folder, self.limits = folder, limits
        self.running: list[_Running] = []
        self.events: list[Event] = []

    def free(self) -> bool:
        return len(self.running) < self.slots

    def submit(self, task: Task) -> None:
        try:
            self.running.append(_Running(task, self.executor.submit(call, self.folder, task)))
        except RuntimeError as error:
            # A broken pool, or one that was shut down, takes nothing more.
            reason = f"the executor takes no more work: {error}"
            self.events.append(failed(task, ShardFailure("crashed", reason), 0.0))

    def wait(self) -> list[Event]:
        end = time.monotonic() + 1.0
        while True:
            now = time.monotonic()
            for one in list(self.running):
                event = self._seen(one, now)
                if event is not None:
                    self.running.remove(one)
                    self.events.append(event)
            if self.events or now > end:
                events, self.events = self.events, []
                return events
            time.sleep(_POLL)

    def _seen(self, one: _Running, now: float) -> Event | None:
        if one.future.done():
            error = one.future.exception()
            if error is None:
                return one.future.result()
            reason = f"the executor lost it: {type(error).__name__}: {error}"
            return failed(one.task, ShardFailure("crashed", reason), 0.0)
        one.look(self.folder, now)
        failure = self.limits.overdue(now, one.begun, one.moved)
        if failure is None:
            return None
        one.future.cancel()
        return failed(one.task, failure, now - one.begun)

    def close(self) -> None:
        for one in self.running:
            one.future.cancel()


@contextmanager
def executor_session(
    executor: Executor, slots: int, folder: str | None, work: Work, limits: Limits
) -> Iterator[Session]:
    """A session on an executor, with the data in a temporary folder inside `folder`."""
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as shared:
        dump_shared(shared, work)
        session = _ExecutorSession(executor, slots, shared, limits)
        try:
            yield session
        finally:
            session.close()


def _held(executor: Any) -> HeldExecutor:
    if isinstance(executor, HeldExecutor):
        return executor
    if not callable(getattr(executor, "submit", None)):
        raise ModelError(
            f"{type(executor).__name__} is no executor; give one with the interface of "
            "concurrent.futures.Executor"
        )
    return HeldExecutor(executor)


class ExecutorWorkers(AbstractWorkers):
    """Any `concurrent.futures.Executor`, which stays open and the caller's.

    - `slots`: shards handed over at once.
    - `folder`: where data and signs of progress are put; all workers must see it. By default the
        folder for temporary files of this machine.

    An attempt that is overdue is given up, but an executor cannot be made to end it: its place is
    lost until it ends by itself. When a process of a `ProcessPoolExecutor` dies, its pool is broken
    and all that was left fails; `SpawnedProcesses` loses one attempt in both cases.
    """

    executor: HeldExecutor = eqx.field(static=True, converter=_held)
    slots: int = eqx.field(static=True, default=1000)
    folder: str | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.slots < 1:
            raise ModelError(f"slots = {self.slots}; there must be at least 1")

    def open(self, work, limits, tasks):
        if self.executor.executor is None:
            raise ModelError(
                "ExecutorWorkers come without their executor out of a pickle; make them anew"
            )
        return executor_session(self.executor.executor, self.slots, self.folder, work, limits)


_MISSING = (
    "sampling on a cluster needs Dask and dask-jobqueue; install them with: "
    "pip install 'xpcs-eqx[cluster]'"
)
# Class of dask-jobqueue by batch system.
_SYSTEMS = {"pbs": "PBSCluster", "slurm": "SLURMCluster"}


def _dask(name: str) -> Any:
    """`distributed` or `dask_jobqueue`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(_MISSING) from error


def _at_least_one(settings: Any, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise ModelError(f"{name} = {getattr(settings, name)}; it must be at least 1")


class JobSettings(eqx.Module):
    """What a batch job asks for.

    - `system`: `"pbs"` or `"slurm"`.
    - `jobs`: number of jobs; `cores`, `memory` ("64GB") and `processes` of each. A process samples
        one shard at a time.
    - `queue`: queue or partition; `account`: what is charged; `walltime`: "HH:MM:SS".
    - `interface`: network interface that scheduler and workers have in common ("ib0").
    - `directives`: further lines for the batch system; `prologue`: shell lines before the worker
        starts, such as `module load` or activating an environment.
    - `scratch`: folder on each node for what Dask spills.
    - `resources`: `-l select=…` of PBS, by default made of cores and memory.

    **Raises:** `ModelError` for settings that cannot be.
    """

    system: str = eqx.field(static=True, default="slurm")
    jobs: int = eqx.field(static=True, default=1)
    cores: int = eqx.field(static=True, default=8)
    processes: int = eqx.field(static=True, default=4)
    memory: str = eqx.field(static=True, default="16GB")
    queue: str | None = eqx.field(static=True, default=None)
    account: str | None = eqx.field(static=True, default=None)
    walltime: str = eqx.field(static=True, default="04:00:00")
    interface: str | None = eqx.field(static=True, default=None)
    directives: tuple[str, ...] = eqx.field(static=True, default=())
    prologue: tuple[str, ...] = eqx.field(static=True, default=())
    scratch: str | None = eqx.field(static=True, default=None)
    resources: str | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.system not in _SYSTEMS:
            raise ModelError(f"no batch system {self.system!r}; there are {', '.join(_SYSTEMS)}")
        _at_least_one(self, "jobs", "cores", "processes")
        if self.processes > self.cores:
            raise ModelError(
                f"{self.processes} processes on {self.cores} cores of a job; give a core to each"
            )
        if self.resources is not None and self.system != "pbs":
            raise ModelError("resources belong to PBS; use directives for Slurm")

    def _keywords(self) -> dict[str, Any]:
        """Of dask-jobqueue."""
        resources = {} if self.resources is None else {"resource_spec": self.resources}
        return {
            "queue": self.queue,
            "account": self.account,
            "walltime": self.walltime,
            "cores": self.cores,
            "processes": self.processes,
            "memory": self.memory,
            "interface": self.interface,
            "job_extra_directives": list(self.directives),
            "job_script_prologue": list(self.prologue),
            "local_directory": self.scratch,
            **resources,
        }

    @contextmanager
    def open(self) -> Iterator[Any]:
        """A running cluster of these jobs.

        **Raises:** `ModelError` with what to install when dask-jobqueue is missing.
        """
        make = getattr(_dask("dask_jobqueue"), _SYSTEMS[self.system])
        options = {"dashboard_address": None}
        with make(**self._keywords(), scheduler_options=options) as cluster:
            cluster.scale(jobs=self.jobs)
            yield cluster

    def job_script(self) -> str:
        """The script of one job, with a stand-in for the address of the scheduler.

        Nothing is submitted.

        **Raises:** `ModelError` with what to install when dask-jobqueue is missing.
        """
        kind = getattr(_dask("dask_jobqueue"), _SYSTEMS[self.system]).job_cls
        place = {"scheduler": "tcp://scheduler:8786", "name": "xpcs-eqx"}
        return kind(**place, **self._keywords()).job_script()


class DaskWorkers(AbstractWorkers):
    """Shards sampled by the workers of a Dask cluster, which ends with the session.

    - `job`: what jobs of a batch system ask for; without it there are worker processes on this
        machine, `processes` of them, to try out what shall run on a cluster.
    - `folder`: where data and signs of progress are put; every node must see it.

    A worker that is lost is replaced by Dask and its shard begun again. For a cluster that runs
    already, give `ExecutorWorkers(client.get_executor(), folder=…)`.
    """

    job: JobSettings | None = None
    processes: int = eqx.field(static=True, default=2)
    folder: str | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        _at_least_one(self, "processes")

    @property
    def slots(self) -> int:
        """Number of shards that run at once."""
        return self.processes if self.job is None else self.job.jobs * self.job.processes

    def open(self, work, limits, tasks):
        return self._session(work, limits)

    @contextmanager
    def _session(self, work: Work, limits: Limits) -> Iterator[Session]:
        distributed = _dask("distributed")
        with (
            self._cluster(distributed) as cluster,
            distributed.Client(cluster) as client,
            client.get_executor(pure=False) as executor,
            executor_session(executor, self.slots, self.folder, work, limits) as session,
        ):
            yield session

    def _cluster(self, distributed: Any) -> AbstractContextManager[Any]:
        if self.job is not None:
            return self.job.open()
        return distributed.LocalCluster(
            n_workers=self.processes, threads_per_worker=1, dashboard_address=None
        )
