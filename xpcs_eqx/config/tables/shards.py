"""The tables of a configuration for a posterior; sampling is asked for by their presence."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Positive, Section, key

Finite = Annotated[float, Field(allow_inf_nan=False)]
PriorKind = Literal["uniform", "normal", "truncated_normal", "log_normal", "half_normal", "beta"]

# Numbers that a kind of prior must have; ends that are not given are the bounds of the parameter.
NUMBERS: dict[str, tuple[str, ...]] = {
    "uniform": (),
    "normal": ("mean", "sd"),
    "truncated_normal": ("mean", "sd"),
    "log_normal": ("median", "scale"),
    "half_normal": ("scale",),
    "beta": ("a", "b"),
}
WITHOUT_ENDS = ("normal", "half_normal")
# Executors that hand shards to other processes, and those that ask a batch system for them.
BATCH = ("pbs", "slurm")


class Prior(Section):
    """What is known of a parameter beforehand; `contrast` and `offset` stand for all angles."""

    kind: PriorKind | None = key(
        None,
        '"uniform", "normal", "truncated_normal", "log_normal", "half_normal" or "beta"',
        "family of the density",
    )
    lower: Finite | None = key(None, "a finite number", "lower end; the bound of the parameter")
    upper: Finite | None = key(None, "a finite number", "upper end; the bound of the parameter")
    mean: Finite | None = key(None, "a finite number", "of a normal one, before it is cut")
    sd: Positive | None = key(None, "a number above zero", "of a normal one, before it is cut")
    median: Positive | None = key(None, "a number above zero", "of log_normal, before it is cut")
    scale: Positive | None = key(
        None, "a number above zero", "sd of ln x for log_normal; of half_normal, in its own unit"
    )
    a: Positive | None = key(None, "a number above zero", "first exponent of beta")
    b: Positive | None = key(None, "a number above zero", "second exponent of beta")
    from_fit: bool = key(
        False, "true or false", "centred on the fit of the same data, which uses them twice"
    )
    width: Positive | None = key(
        None, "a number above zero", "of a prior from the fit, in its quoted errors; 2"
    )

    @model_validator(mode="after")
    def _check(self) -> "Prior":
        given = {
            name
            for name in type(self).model_fields
            if name not in ("kind", "from_fit") and getattr(self, name) is not None
        }
        if self.from_fit:
            if self.kind is not None or given - {"width"}:
                raise ValueError("a prior from_fit has width alone; leave out kind and its numbers")
            return self
        if self.kind is None:
            raise ValueError(
                f"kind is missing; give one of {', '.join(NUMBERS)}, or from_fit = true"
            )
        wanted = set(NUMBERS[self.kind])
        ends = set() if self.kind in WITHOUT_ENDS else {"lower", "upper"}
        if missing := sorted(wanted - given):
            raise ValueError(f"a {self.kind} prior needs {' and '.join(missing)}")
        if strange := sorted(given - wanted - ends):
            allowed = ", ".join((*NUMBERS[self.kind], *sorted(ends)))
            raise ValueError(f"a {self.kind} prior has no {strange[0]}; it takes {allowed}")
        low, high = self.lower, self.upper
        if low is not None and high is not None and not low < high:
            raise ValueError(
                f"a {self.kind} prior between {low:g} and {high:g} has no volume; lower must be "
                "below upper (to fix a parameter, set free = false in its table)"
            )
        return self


# What ends up in one line of a job script.
_Word = Annotated[str, Field(pattern=r"^\S+$")]
_Line = Annotated[str, Field(pattern=r"^\S[^\r\n]*$")]
# Below a megabyte a batch system would be asked for nothing.
_Memory = Annotated[str, Field(pattern=r"^[1-9][0-9]*(\.[0-9]+)? ?[MGTmgt]([Ii]?[Bb])?$")]
_Walltime = Annotated[str, Field(pattern=r"^([0-9]+-)?[0-9]+:[0-5][0-9]:[0-5][0-9]$")]


class Job(Section):
    """What a job of PBS or Slurm asks for."""

    jobs: int = key(1, "a whole number from 1", "number of jobs", ge=1)
    cores: int = key(8, "a whole number from 1", "cores of a job", ge=1)
    processes: int = key(4, "a whole number from 1", "of a job, each with a shard at a time", ge=1)
    memory: _Memory = key(
        "16GB", 'a number from 1 with MB, GB, TB, MiB, GiB or TiB, like "16GB"', "memory of a job"
    )
    queue: _Word | None = key(None, "a text without spaces", "queue, or partition of Slurm")
    account: _Word | None = key(None, "a text without spaces", "what is charged")
    walltime: _Walltime = key(
        "04:00:00", 'hours:minutes:seconds like "04:00:00"', "longest time of a job"
    )
    interface: _Word | None = key(
        None, "a text without spaces", "network that scheduler and workers have in common"
    )
    directives: list[_Line] = key(
        [], "a list of texts of one line", "further lines for the batch system"
    )
    prologue: list[_Line] = key(
        [], "a list of texts of one line", "shell lines before a worker starts"
    )
    scratch: _Line | None = key(None, "a path", "folder on each node for what Dask spills")
    resources: _Line | None = key(
        None, "a text of one line", "what PBS gets after -l; by cores and memory"
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

    sharding: Literal["angle_balanced", "random", "contiguous", "stratified"] = key(
        "angle_balanced",
        '"angle_balanced", "random", "contiguous" or "stratified"',
        "which pairs go where; angle_balanced: the same mix of angles in every shard",
    )
    pairs: int | None = key(
        None, "a whole number from 1", "pairs in a shard, by default from the data", ge=1
    )
    count: int | None = key(None, "a whole number from 1", "number of shards, instead", ge=1)
    transitions: Literal["by_size", "as_given"] = key(
        "by_size", '"by_size" or "as_given"', "fewer for small shards, or those of a full run"
    )
    anchor: Literal["auto", "laplace", "none"] = key(
        "auto",
        '"auto", "laplace" or "none"',
        "what keeps chains of shards near the fit until it is divided out; auto: the covariance of "
        "the fit, where there is one and no modes are looked for",
    )
    combiner: Literal[
        "robust", "consensus", "gaussian_product", "multimodal", "weighted", "simple"
    ] = key(
        "robust",
        '"robust", "consensus", "gaussian_product", "multimodal", "weighted" or "simple"',
        "robust: precision-weighted, of the shards that agree",
    )
    correction: Literal["none", "importance"] = key(
        "none", '"none" or "importance"', "importance: weigh by the posterior of all data"
    )
    executor: Literal["serial", "processes", "dask", "pbs", "slurm"] = key(
        "serial",
        '"serial", "processes", "dask", "pbs" or "slurm"',
        "who samples shards; dask: workers of this machine",
    )
    workers: int | None = key(
        None, "a whole number from 1", "of processes (one a core) and dask (2)", ge=1
    )
    folder: str | None = key(
        None, "a path", "for what workers share, relative to this file; seen by all", min_length=1
    )
    retries: int = key(3, "a whole number from 0", "further attempts of a shard that failed", ge=0)
    timeout: Positive = key(3600.0, "a number above zero", "longest time of an attempt [s]")
    heartbeat: Positive = key(
        600.0, "a number above zero", "longest time without a sign of progress [s]"
    )
    success: Annotated[float, Field(ge=0, le=1)] = key(
        0.9, "a number from 0 to 1", "least share of shards that must succeed"
    )
    job: Job | None = None

    @model_validator(mode="after")
    def _check(self) -> "Shards":
        if self.pairs is not None and self.count is not None:
            raise ValueError("pairs and count say the same twice; leave one of them out")
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
        if self.workers is not None and self.executor not in ("processes", "dask"):
            raise ValueError(
                f'workers belong to the executors "processes" and "dask", not to "{self.executor}"'
            )
        if self.folder is not None and self.executor == "serial":
            raise ValueError('folder is where workers find the data; "serial" has none')
        if self.folder is None and self.executor in BATCH:
            raise ValueError(
                f'the executor "{self.executor}" needs folder, which all nodes see, for the data'
            )
        return self


class Bayes(Section):
    """Draws from the posterior after the fit; without this table there is none."""

    method: Literal["auto", "single", "consensus"] = key(
        "auto",
        '"auto", "single" or "consensus"',
        "auto: one run up to 500 000 pairs, else consensus of shards",
    )
    chains: int = key(4, "a whole number from 2", "independent chains", ge=2)
    warm_up: int = key(500, "a whole number from 20", "transitions to adapt, of a chain", ge=20)
    draws: int = key(1500, "a whole number from 4", "draws that are kept, of a chain", ge=4)
    target_acceptance: Annotated[float, Field(gt=0, lt=1)] | None = key(
        None, "a number between 0 and 1", "of the step size; 0.85, laminar_flow 0.9"
    )
    depth: int = key(10, "a whole number from 1 to 20", "doublings of a trajectory", ge=1, le=20)
    seed: int = key(0, "a whole number from 0", "the same seed gives the same draws", ge=0)
    start: Literal["laplace", "plain", "pathfinder"] = key(
        "laplace",
        '"laplace", "plain" or "pathfinder"',
        "laplace: from the fit and its covariance; the others know nothing of it",
    )
    scaling: Literal["sampled", "averaged", "fixed", "marginalised"] = key(
        "sampled",
        '"sampled", "averaged", "fixed" or "marginalised"',
        "contrast and offset: sampled as fitted, one pair for all angles, kept at the fit, or "
        "integrated out exactly (one run only)",
    )
    sigma: Literal["auto", "sampled", "given"] = key(
        "auto", '"auto", "sampled" or "given"', "auto: given where data.sigma is absolute"
    )
    plots: bool = key(True, "true or false", "whether to write plots of the draws")
    predictive: int = key(
        200, "a whole number from 0", "draws that make fitted_data.npz; 0 writes none", ge=0
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
        return self
