"""The tables `[bayes]`, `[bayes.shards]` and `[bayes.shards.job]`: draws from the posterior."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ... import bayes
from ...bayes import Consensus, DaskWorkers, JobSettings, Limits, Nuts
from ...bayes.nuts.starts import AbstractStart
from ...bayes.shards.combiners import SimpleAverage, WeightedAverage
from ...bayes.shards.division import AbstractShardSize, AutomaticSize
from ...bayes.workers.base import AbstractWorkers, Serial
from ..section import (
    SET,
    UNSET,
    Choice,
    Line,
    Path,
    Positive,
    Section,
    When,
    Word,
    choice_of,
    key,
    made,
)
from ..source import Source
from .priors import Prior

if TYPE_CHECKING:
    from . import Settings

STARTS = choice_of(bayes, AbstractStart, "Start")
SCALINGS = Choice(
    sampled=bayes.SampledScaling,
    averaged=bayes.SampledScaling,
    fixed=bayes.SampledScaling,
    marginalised=bayes.MarginalisedScaling,
)
NOISES = Choice(auto=None, sampled=bayes.SampledSigma, given=bayes.GivenSigma)
SHARDINGS = Choice(
    angle_balanced=bayes.AngleBalanced,
    random=bayes.RandomShards,
    contiguous=bayes.ContiguousShards,
    stratified=bayes.StratifiedByAngle,
)
ANCHORS = Choice(auto=None, laplace=bayes.LaplaceAnchor, none=bayes.NoAnchor)
COMBINERS = Choice(
    robust=bayes.RobustConsensus,
    consensus=bayes.ConsensusAverage,
    gaussian_product=bayes.GaussianProduct,
    multimodal=bayes.MultimodalConsensus,
    weighted=WeightedAverage,
    simple=SimpleAverage,
)
CORRECTIONS = Choice(none=None, importance=bayes.ImportanceCorrection)
# Executors that ask a batch system for processes.
BATCH = ("pbs", "slurm")

_MOST_DRAWS = 10_000_000

# What ends up in one line of a job script.
# Below a megabyte a batch system would be asked for nothing.
_Memory = Annotated[str, Field(pattern=r"^[1-9][0-9]*(\.[0-9]+)? ?[MGTmgt]([Ii]?[Bb])?$")]
_Walltime = Annotated[str, Field(pattern=r"^([0-9]+-)?[0-9]+:[0-5][0-9]:[0-5][0-9]$")]


class Job(Section):
    """What a job of PBS or Slurm asks for."""

    jobs: int = key(JobSettings.jobs, "number of jobs", ge=1, le=10_000)
    cores: int = key(JobSettings.cores, "cores of a job", ge=1, le=10_000)
    processes: int = key(
        JobSettings.processes, "processes of a job, each with a shard at a time", ge=1, le=10_000
    )
    memory: _Memory = key(
        JobSettings.memory,
        "memory of a job",
        expected='a number from 1 with MB, GB, TB, MiB, GiB or TiB, like "16GB"',
    )
    queue: Word | None = key(None, "queue, or partition of Slurm", example="short")
    account: Word | None = key(None, "account that is charged", example="beamline")
    walltime: _Walltime = key(
        JobSettings.walltime,
        "longest time of a job",
        expected='hours:minutes:seconds like "04:00:00"',
    )
    interface: Word | None = key(
        None, "network that scheduler and workers have in common", example="ib0"
    )
    directives: list[Line] = key([], "further lines for the batch system")
    prologue: list[Line] = key([], "shell lines before a worker starts")
    scratch: Line | None = key(
        None,
        "folder on each node for what Dask spills",
        expected="a path on the nodes",
        example="/scratch",
    )
    resources: Line | None = key(
        None,
        "resources asked of PBS with -l; by default from cores and memory",
        example="select=1:ncpus=8:mem=16GB",
    )

    @model_validator(mode="after")
    def _check(self) -> "Job":
        if self.processes > self.cores:
            raise ValueError(
                f"{self.processes} processes on {self.cores} cores; give a core to each"
            )
        if not self.walltime.strip("0:-"):
            raise ValueError(f'walltime = "{self.walltime}" is no time at all')
        return self


class Shards(Section):
    """How data are divided, sampled and put together again where there are too many for one run."""

    sharding: Annotated[str, SHARDINGS] = key(
        "angle_balanced",
        "which pairs go where; angle_balanced: the same mix of angles in every shard",
    )
    pairs: int | None = key(None, "pairs in a shard, by default from the data", example=10000, ge=1)
    count: int | None = key(
        None, "number of shards, instead", example=50, when=(When("pairs", UNSET),), ge=1
    )
    transitions: Literal["by_size", "as_given"] = key(
        "by_size", "fewer for small shards, or those of a full run"
    )
    anchor: Annotated[str, ANCHORS] = key(
        "auto",
        "what keeps chains of shards near the fit until it is divided out; auto: the covariance of "
        "the fit, where there is one and no modes are looked for",
    )
    combiner: Annotated[str, COMBINERS] = key(
        "robust", "robust: precision-weighted, of the shards that agree"
    )
    correction: Annotated[str, CORRECTIONS] = key(
        "none", "importance: weigh by the posterior of all data"
    )
    executor: Literal["serial", "processes", "dask", "pbs", "slurm"] = key(
        "serial", "who samples shards; dask: workers of this machine"
    )
    workers: int | None = key(
        None,
        "number of processes (by default one a core) or of dask (2)",
        example=4,
        when=(When("executor", ("processes", "dask")),),
        ge=1,
        le=1000,
    )
    folder: Path | None = key(
        None,
        "for what workers share, relative to this file; seen by all",
        example="scratch",
        when=(When("executor", ("processes", "dask", *BATCH)),),
    )
    retries: int = key(Limits.retries, "further attempts of a shard that failed", ge=0)
    timeout: Positive = key(Limits.timeout, "longest time of an attempt [s]")
    heartbeat: Positive = key(Limits.heartbeat, "longest time without a sign of progress [s]")
    success: Annotated[float, Field(ge=0, le=1)] = key(
        Limits.success, "least share of shards that must succeed"
    )
    job: Job | None = None

    @model_validator(mode="after")
    def _check(self) -> "Shards":
        if self.job is not None and self.executor not in BATCH:
            raise ValueError(
                f'job belongs to the executors "pbs" and "slurm", not to "{self.executor}"'
            )
        if self.job is not None and self.executor == "slurm" and self.job.resources is not None:
            raise ValueError("job.resources belongs to PBS; use directives for Slurm")
        if self.job is not None and self.executor == "pbs" and "-" in self.job.walltime:
            raise ValueError(
                f'job.walltime = "{self.job.walltime}" has days, which PBS does not know; give '
                'hours:minutes:seconds like "100:00:00"'
            )
        if self.folder is None and self.executor in BATCH:
            raise ValueError(
                f'the executor "{self.executor}" needs folder, which all nodes see, for the data'
            )
        return self


class Bayes(Section):
    """Draws from the posterior after the fit; without this table there is none."""

    method: Literal["auto", "single", "consensus"] = key(
        "auto", "auto: one run up to 500 000 pairs, else consensus of shards"
    )
    chains: int = key(Nuts.chains, "independent chains", ge=2, le=1000)
    warm_up: int = key(Nuts.warmup, "transitions to adapt, of a chain", ge=20, le=1_000_000)
    draws: int = key(Nuts.draws, "draws that are kept, of a chain", ge=4, le=1_000_000)
    target_acceptance: Annotated[float, Field(gt=0, lt=1)] | None = key(
        Nuts.target_acceptance,
        "acceptance that the step size aims at; by default 0.85, of laminar_flow 0.9",
        example=0.9,
    )
    depth: int = key(Nuts.max_depth, "doublings of a trajectory", ge=1, le=20)
    retries: int = key(Nuts.retries, "further attempts of one run that cannot be used", ge=0)
    seed: int = key(0, "the same seed gives the same draws", ge=0)
    start: Annotated[str, STARTS] = key(
        "laplace", "laplace: from the fit and its covariance; the others know nothing of it"
    )
    scaling: Annotated[str, SCALINGS] = key(
        "sampled",
        "contrast and offset: sampled as fitted, one pair for all angles, kept at the fit, or "
        "integrated out exactly (one run only)",
    )
    likelihood: Literal["least_squares", "speckle", "auto"] = key(
        "least_squares",
        "what is sampled, as solver.likelihood; least_squares is widened to the quoted errors",
    )
    sigma: Annotated[str, NOISES] = key("auto", "auto: given where data.sigma is absolute")
    plots: bool = key(True, "whether to write plots of the draws")
    predictive: int = key(200, "draws that make fitted_data.npz; 0 writes none", ge=0, le=100_000)
    priors_from: Path | None = key(
        None,
        "parameters.json of an earlier fit or posterior, on which the priors of its parameters are "
        "centred",
        example="earlier/fit/parameters.json",
    )
    priors_width: Positive = key(
        2.0, "width of these priors, in the errors there", when=(When("priors_from", SET),)
    )
    priors: dict[str, Prior] = Field(default={}, description="one table a parameter")
    shards: Shards = Shards()

    @model_validator(mode="after")
    def _check(self) -> "Bayes":
        if self.method == "consensus" and self.scaling == "marginalised":
            raise ValueError(
                'in shards contrast and offset cannot be marginalised; use scaling = "sampled", '
                'or method = "single"'
            )
        for name, wrong in (
            ("method", "consensus"),
            ("scaling", "marginalised"),
            ("sigma", "sampled"),
            ("sigma", "given"),
        ):
            if self.likelihood != "least_squares" and getattr(self, name) == wrong:
                raise ValueError(
                    f'{name} = "{wrong}" does not go together with likelihood = '
                    f'"{self.likelihood}": that of speckle knows its noise, is not Gaussian in '
                    "contrast and offset, and takes maps whole"
                )
        if self.chains * self.draws > _MOST_DRAWS:
            raise ValueError(
                f"draws = {self.draws} of chains = {self.chains} are more than the {_MOST_DRAWS} "
                "that are kept in memory; lower one of them"
            )
        return self

    def excluded(self, settings: "Settings") -> Iterator[tuple[str, str]]:
        """What a posterior does not go together with."""
        if settings.solver.loss != "linear":
            yield (
                "solver.loss",
                f'solver.loss = "{settings.solver.loss}", but the likelihood of [bayes] is '
                'Gaussian; set solver.loss = "linear", or leave [bayes] out',
            )
        changed = changed_shards(self.shards)
        if self.method == "single" and changed:
            first = f"bayes.shards.{changed[0]}"
            yield (
                first,
                f'{first} is not used: bayes.method = "single" is one run, which has no shards; '
                f"leave out [bayes.shards] ({', '.join(changed)}), or set "
                'bayes.method = "consensus"',
            )


def _size(given: Shards) -> AbstractShardSize:
    if given.pairs is not None:
        return bayes.PairsPerShard(given.pairs)
    return AutomaticSize() if given.count is None else bayes.NumberOfShards(given.count)


def _workers(given: Shards, folder: str | None) -> AbstractWorkers:
    if given.executor == "serial":
        return Serial()
    if given.executor == "processes":
        return bayes.SpawnedProcesses(given.workers or 0, folder)
    if given.executor not in BATCH:
        return DaskWorkers(processes=given.workers or DaskWorkers.processes, folder=folder)
    return DaskWorkers(made(JobSettings, given.job or Job(), system=given.executor), folder=folder)


def method_of(source: Source, given: Bayes) -> Consensus:
    """When and how data are sampled in shards."""
    shards = given.shards
    folder = None if shards.folder is None else source.absolute(shards.folder)
    anchor, correction = ANCHORS[shards.anchor], CORRECTIONS[shards.correction]
    # Chains in different modes are what the multimodal combiner is there for.
    rhat = float("inf") if shards.combiner == "multimodal" else Limits.rhat
    thresholds = {"auto": Consensus.threshold, "single": None, "consensus": 0}
    # The likelihood of speckle has no shards.
    method = given.method if given.likelihood == "least_squares" else "single"
    return Consensus(
        threshold=thresholds[method],
        sharding=SHARDINGS[shards.sharding](),
        size=_size(shards),
        by_size=shards.transitions == "by_size",
        anchor=None if anchor is None else anchor(),
        combiner=COMBINERS[shards.combiner](),
        correction=None if correction is None else correction(),
        workers=_workers(shards, folder),
        limits=made(Limits, shards, rhat=rhat),
    )


def sampler_of(given: Bayes) -> Nuts:
    """The sampler of one run, or of each shard."""
    return made(Nuts, given, warmup=given.warm_up, max_depth=given.depth)


def changed_shards(given: Shards) -> list[str]:
    """Keys with another value than the default, which a configuration as it ran is full of."""
    fields = Shards.model_fields.items()
    return [name for name, info in fields if getattr(given, name) != info.default]
