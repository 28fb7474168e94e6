"""Shards on a cluster by Dask; the only file that uses dask-jobqueue."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import equinox as eqx

from ...errors import ModelError
from .base import AbstractWorkers, Session
from .executor import executor_session
from .limits import Limits, Work

_MISSING = (
    "sampling on a cluster needs Dask and dask-jobqueue; install them with: "
    "pip install 'xpcs-eqx[cluster]'"
)


class AbstractCluster(eqx.Module):
    """Where Dask gets its workers from."""

    @abstractmethod
    def open(self) -> AbstractContextManager[Any]:
        """A running cluster.

        **Raises:** `ModelError` with what to install when Dask is missing.
        """

    @property
    @abstractmethod
    def slots(self) -> int:
        """Number of shards that run at once."""


class LocalCluster(AbstractCluster):
    """Worker processes on this machine, to try out what shall run on a cluster."""

    processes: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        _at_least_one(self, "processes")

    @property
    def slots(self):
        return self.processes

    def open(self):
        distributed = _distributed()
        return distributed.LocalCluster(
            n_workers=self.processes, threads_per_worker=1, dashboard_address=None
        )


class JobSettings(eqx.Module):
    """What a batch job asks for.

    - `jobs`: number of jobs; `cores`, `memory` ("64GB") and `processes` of each. A process samples
        one shard at a time.
    - `queue`: queue or partition; `account`: what is charged; `walltime`: "HH:MM:SS".
    - `interface`: network interface that scheduler and workers have in common ("ib0").
    - `directives`: further lines for the batch system; `prologue`: shell lines before the worker
        starts, such as `module load` or activating an environment.
    - `scratch`: folder on each node for what Dask spills.
    """

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

    def __check_init__(self):
        _at_least_one(self, "jobs", "cores", "processes")
        if self.processes > self.cores:
            raise ModelError(
                f"{self.processes} processes on {self.cores} cores of a job; give a core to each"
            )

    def keywords(self) -> dict[str, Any]:
        """Of dask-jobqueue."""
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
        }


def _at_least_one(settings: Any, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise ModelError(f"{name} = {getattr(settings, name)}; it must be at least 1")


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise ModelError(_MISSING) from error
    return distributed


def _jobqueue() -> Any:
    try:
        import dask_jobqueue
    except ImportError as error:
        raise ModelError(_MISSING) from error
    return dask_jobqueue


@contextmanager
def _jobs(make: Any, settings: JobSettings) -> Iterator[Any]:
    with make(**settings.keywords(), scheduler_options={"dashboard_address": None}) as cluster:
        cluster.scale(jobs=settings.jobs)
        yield cluster


def _script(kind: Any, settings: JobSettings) -> str:
    """The script of one job, with a stand-in for the address of the scheduler."""
    return kind(
        scheduler="tcp://scheduler:8786", name="xpcs-eqx", **settings.keywords()
    ).job_script()


class PbsCluster(AbstractCluster):
    """Jobs of PBS. `resources` is its `-l select=…`, by default made of cores and memory."""

    settings: JobSettings = JobSettings()
    resources: str | None = eqx.field(static=True, default=None)

    def _keywords(self) -> dict[str, Any]:
        return {} if self.resources is None else {"resource_spec": self.resources}

    @property
    def slots(self):
        return self.settings.jobs * self.settings.processes

    def open(self):
        make = _jobqueue().PBSCluster
        return _jobs(lambda **k: make(**k, **self._keywords()), self.settings)

    def job_script(self) -> str:
        """The script that would be submitted; nothing is.

        **Raises:** `ModelError` with what to install when dask-jobqueue is missing.
        """
        kind = _jobqueue().PBSCluster.job_cls
        return _script(lambda **k: kind(**k, **self._keywords()), self.settings)


class SlurmCluster(AbstractCluster):
    """Jobs of Slurm; `queue` is the partition."""

    settings: JobSettings = JobSettings()

    @property
    def slots(self):
        return self.settings.jobs * self.settings.processes

    def open(self):
        return _jobs(_jobqueue().SLURMCluster, self.settings)

    def job_script(self) -> str:
        """The script that would be submitted; nothing is.

        **Raises:** `ModelError` with what to install when dask-jobqueue is missing.
        """
        return _script(_jobqueue().SLURMCluster.job_cls, self.settings)


class DaskWorkers(AbstractWorkers):
    """Shards sampled by the workers of a Dask cluster, which ends with the session.

    - `folder`: where data and signs of progress are put; every node must see it.

    A worker that is lost is replaced by Dask and its shard begun again. For a cluster that runs
    already, give `ExecutorWorkers(client.get_executor(), folder=…)`.
    """

    cluster: AbstractCluster
    folder: str | None = eqx.field(static=True, default=None)

    def open(self, work, limits, tasks):
        return self._session(work, limits)

    @contextmanager
    def _session(self, work: Work, limits: Limits) -> Iterator[Session]:
        distributed = _distributed()
        with (
            self.cluster.open() as cluster,
            distributed.Client(cluster) as client,
            client.get_executor(pure=False) as executor,
            executor_session(executor, self.cluster.slots, self.folder, work, limits) as session,
        ):
            yield session
