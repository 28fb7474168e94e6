"""Shards sampled by anything like `concurrent.futures.Executor`, a Dask cluster included."""

import importlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import equinox as eqx
import jax

from ...arguments import Count, check_fields
from ...errors import ModelError, how_to_install
from ...objective import HeldExecutor
from .base import (
    AbstractWorkers,
    Event,
    Limits,
    Place,
    ShardFailure,
    Task,
    Work,
    attempt,
    dump_shared,
    failed,
    load_shared,
)

# How often a sign of progress is given at most [s].
BEAT = 1.0


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


class _Slot:
    """One of the futures of an executor, and when its task was first and last seen to move."""

    def __init__(self, executor: Executor, folder: str, limits: Limits):
        self.executor, self.folder, self.limits = executor, folder, limits
        self.task: Task | None = None
        self.future: Future = Future()
        self.begun = self.moved = float("inf")
        self.beats = 0

    def free(self) -> bool:
        return self.task is None

    def begin(self, task: Task) -> None:
        self.task, self.beats = task, 0
        self.begun = self.moved = float("inf")
        try:
            self.future = self.executor.submit(call, self.folder, task)
        except RuntimeError as error:
            # A broken pool, or one that was shut down, takes nothing more.
            self.future = Future()
            self.future.set_exception(error)

    def ended(self) -> Event | None:
        task, now = self.task, time.monotonic()
        if task is None:
            return None
        if self.future.done():
            self.task, error = None, self.future.exception()
            if error is None:
                return self.future.result()
            reason = f"the executor lost it: {type(error).__name__}: {error}"
            return failed(task, ShardFailure("crashed", reason), 0.0)
        with suppress(FileNotFoundError):
            beats = os.path.getsize(_beat_path(self.folder, task))
            if beats != self.beats:
                self.begun, self.moved, self.beats = min(self.begun, now), now, beats
        failure = self.limits.overdue(now, self.begun, self.moved)
        if failure is None:
            return None
        self.task = None
        self.future.cancel()
        return failed(task, failure, now - self.begun)


@contextmanager
def executor_places(
    executor: Executor, slots: int, folder: str | None, work: Work, limits: Limits
) -> Iterator[Sequence[Place]]:
    """Places on an executor, with the data in a temporary folder inside `folder`."""
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as shared:
        dump_shared(shared, work)
        places = [_Slot(executor, shared, limits) for _ in range(slots)]
        try:
            yield places
        finally:
            for place in places:
                place.future.cancel()


class ExecutorWorkers(AbstractWorkers):
    """Any `concurrent.futures.Executor`, which stays open and the caller's.

    - `slots`: shards handed over at once.
    - `folder`: where data and signs of progress are put; all workers must see it. By default the
        folder for temporary files of this machine.

    An attempt that is overdue is given up, but an executor cannot be made to end it: its place is
    lost until it ends by itself. When a process of a `ProcessPoolExecutor` dies, its pool is broken
    and all that was left fails; `SpawnedProcesses` loses one attempt in both cases.
    """

    executor: HeldExecutor = eqx.field(static=True, converter=HeldExecutor.of)
    slots: Count = eqx.field(static=True, default=1000)
    folder: str | None = eqx.field(static=True, default=None)

    def open(self, work, limits, tasks):
        if self.executor.executor is None:
            raise ModelError(
                "ExecutorWorkers come without their executor out of a pickle; make them anew"
            )
        slots = min(self.slots, tasks)
        return executor_places(self.executor.executor, slots, self.folder, work, limits)


# Class of dask-jobqueue by batch system.
_SYSTEMS = {"pbs": "PBSCluster", "slurm": "SLURMCluster"}


def _dask(name: str) -> Any:
    """`distributed` or `dask_jobqueue`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            "sampling on a cluster needs Dask and dask-jobqueue; install them with: "
            + how_to_install("cluster")
        ) from error


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
    jobs: Count = eqx.field(static=True, default=1)
    cores: Count = eqx.field(static=True, default=8)
    processes: Count = eqx.field(static=True, default=4)
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
        check_fields(self)
        if self.system not in _SYSTEMS:
            raise ModelError(f"no batch system {self.system!r}; there are {', '.join(_SYSTEMS)}")
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
    processes: Count = eqx.field(static=True, default=2)
    folder: str | None = eqx.field(static=True, default=None)

    @property
    def slots(self) -> int:
        """Number of shards that run at once."""
        return self.processes if self.job is None else self.job.jobs * self.job.processes

    @contextmanager
    def open(self, work, limits, tasks):
        distributed = _dask("distributed")
        with (
            self._cluster(distributed) as cluster,
            distributed.Client(cluster) as client,
            client.get_executor(pure=False) as executor,
            executor_places(executor, self.slots, self.folder, work, limits) as places,
        ):
            yield places

    def _cluster(self, distributed: Any) -> AbstractContextManager[Any]:
        if self.job is not None:
            return self.job.open()
        return distributed.LocalCluster(
            n_workers=self.processes, threads_per_worker=1, dashboard_address=None
        )
