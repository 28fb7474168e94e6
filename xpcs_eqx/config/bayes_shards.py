"""The table [bayes.shards] to objects."""

from ..bayes import (
    Consensus,
    DaskWorkers,
    JobSettings,
    Limits,
    NumberOfShards,
    PairsPerShard,
    SpawnedProcesses,
)
from ..bayes.consensus.shards import AbstractShardSize, AutomaticSize
from ..bayes.workers.base import AbstractWorkers, Serial
from ..errors import ConfigError
from .bayes_words import ANCHORS, COMBINERS, CORRECTIONS, SHARDINGS, THRESHOLDS
from .schema_bayes import BATCH, Bayes, Job, Shards
from .source import Source


def _size(given: Shards) -> AbstractShardSize:
    if given.pairs is not None:
        return PairsPerShard(given.pairs)
    return AutomaticSize() if given.count is None else NumberOfShards(given.count)


def _workers(given: Shards, folder: str | None) -> AbstractWorkers:
    if given.executor == "serial":
        return Serial()
    if given.executor == "processes":
        return SpawnedProcesses(given.workers or 0, folder)
    if given.executor not in BATCH:
        return DaskWorkers(processes=given.workers or DaskWorkers().processes, folder=folder)
    named = (Job() if given.job is None else given.job).model_dump()
    lists = {name: tuple(named[name]) for name in ("directives", "prologue")}
    return DaskWorkers(JobSettings(given.executor, **{**named, **lists}), folder=folder)


def method_of(source: Source, given: Bayes) -> Consensus:
    """When and how data are sampled in shards."""
    shards = given.shards
    folder = None if shards.folder is None else source.absolute(shards.folder)
    # Chains in different modes are what the multimodal combiner is there for.
    rhat = float("inf") if shards.combiner == "multimodal" else Limits().rhat
    return Consensus(
        threshold=THRESHOLDS[given.method],
        sharding=SHARDINGS[shards.sharding](),
        size=_size(shards),
        by_size=shards.transitions == "by_size",
        anchor=None if shards.anchor == "auto" else ANCHORS[shards.anchor](),
        combiner=COMBINERS[shards.combiner](),
        correction=CORRECTIONS[shards.correction](),
        workers=_workers(shards, folder),
        limits=Limits(
            timeout=shards.timeout,
            heartbeat=shards.heartbeat,
            retries=shards.retries,
            success=shards.success,
            rhat=rhat,
        ),
    )


def job_script(given: Consensus) -> str:
    """The script of one job of a batch system, of which nothing is submitted; empty without one.

    **Raises:** `ModelError` when dask-jobqueue is missing.
    """
    workers = given.workers
    if isinstance(workers, DaskWorkers) and workers.job is not None:
        return workers.job.job_script()
    return ""


def unused_shards(source: Source, given: Bayes, reason: str) -> str:
    """What is said of a table [bayes.shards] that one run takes nothing of; empty without one.

    `reason` tells why there is one run.

    **Raises:** `ConfigError` where one run was asked for: the file contradicts itself.
    """
    shards = given.shards
    # A configuration as it ran has every default in it.
    changed = [name for name in Shards.model_fields if getattr(shards, name) != _DEFAULTS[name]]
    if not changed:
        return ""
    first = f"bayes.shards.{changed[0]}"
    named = ", ".join(changed)
    if given.method == "single":
        raise ConfigError(
            f'{source.where(first)}: {first} is not used: bayes.method = "single" is one run, '
            f"which has no shards; leave out [bayes.shards] ({named}), or set bayes.method = "
            '"consensus"'
        )
    return (
        f'[bayes.shards] ({named}) is not used: {reason}; for shards set bayes.method = "consensus"'
    )


_DEFAULTS = {name: getattr(Shards(), name) for name in Shards.model_fields}
