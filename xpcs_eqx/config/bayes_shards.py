"""The table [bayes.shards] to objects."""

from ..bayes import (
    AbstractCluster,
    AbstractCombiner,
    AbstractShardSize,
    AbstractWorkers,
    AngleBalanced,
    AutomaticSize,
    ConsensusAverage,
    ContiguousShards,
    DaskWorkers,
    GaussianProduct,
    ImportanceCorrection,
    InShards,
    JobSettings,
    Limits,
    LocalCluster,
    MultimodalConsensus,
    NoCorrection,
    NumberOfShards,
    PairsPerShard,
    PbsCluster,
    PlanAsGiven,
    PlanBySize,
    RandomShards,
    RobustConsensus,
    Serial,
    SimpleAverage,
    SlurmCluster,
    SpawnedProcesses,
    StratifiedByAngle,
    WeightedAverage,
)
from .schema_bayes import Bayes, Job, Shards
from .source import Source

SHARDINGS = {
    "angle_balanced": AngleBalanced,
    "random": RandomShards,
    "contiguous": ContiguousShards,
    "stratified": StratifiedByAngle,
}
COMBINERS: dict[str, type[AbstractCombiner]] = {
    "robust": RobustConsensus,
    "consensus": ConsensusAverage,
    "gaussian_product": GaussianProduct,
    "multimodal": MultimodalConsensus,
    "weighted": WeightedAverage,
    "simple": SimpleAverage,
}
CORRECTIONS = {"none": NoCorrection, "importance": ImportanceCorrection}
TRANSITIONS = {"by_size": PlanBySize, "as_given": PlanAsGiven}


def _size(given: Shards) -> AbstractShardSize:
    if given.pairs is not None:
        return PairsPerShard(given.pairs)
    return AutomaticSize() if given.count is None else NumberOfShards(given.count)


def _cluster(given: Shards) -> AbstractCluster:
    if given.executor == "dask":
        return LocalCluster() if given.workers is None else LocalCluster(given.workers)
    job = Job() if given.job is None else given.job
    named = job.model_dump(exclude={"resources"})
    settings = JobSettings(
        **{**named, "directives": tuple(job.directives), "prologue": tuple(job.prologue)}
    )
    if given.executor == "pbs":
        return PbsCluster(settings, job.resources)
    return SlurmCluster(settings)


def _workers(given: Shards, folder: str | None) -> AbstractWorkers:
    if given.executor == "serial":
        return Serial()
    if given.executor == "processes":
        return SpawnedProcesses(given.workers or 0, folder)
    return DaskWorkers(_cluster(given), folder)


def in_shards_of(source: Source, given: Bayes) -> InShards:
    """What `consensus` is given; where finished shards are kept is added by the program."""
    shards = given.shards
    folder = None if shards.folder is None else source.absolute(shards.folder)
    # Chains in different modes are what the multimodal combiner is there for.
    rhat = float("inf") if shards.combiner == "multimodal" else Limits().rhat
    return InShards(
        sharding=SHARDINGS[shards.sharding](),
        size=_size(shards),
        plan=TRANSITIONS[shards.transitions](),
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


def job_script(given: InShards) -> str:
    """The script of one job of a batch system, of which nothing is submitted; empty without one.

    **Raises:** `ModelError` when dask-jobqueue is missing.
    """
    workers = given.workers
    if isinstance(workers, DaskWorkers) and isinstance(workers.cluster, PbsCluster | SlurmCluster):
        return workers.cluster.job_script()
    return ""
