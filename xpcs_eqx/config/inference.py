"""What `[bayes]` asks for, made and checked before the fit; and messages in words of the file."""

import logging
import os
import re
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import cache
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

from ..bayes import (
    Consensus,
    LogPosterior,
    Nuts,
    PriorSet,
    default_priors,
    fit_priors,
    log_posterior,
    saved_priors,
    with_scaling,
)
from ..bayes.density.likelihood import AbstractNoise, AbstractScalingTreatment
from ..bayes.nuts.sample import rescaled
from ..bayes.nuts.starts import AbstractStart
from ..bayes.shards.division import pairs_of, split_pairs
from ..bayes.shards.work import stand_in
from ..data import weighted
from ..errors import ConfigError, DataError, ModelError
from ..fitting import Fit
from ..parameters import saved_values
from ..physics import LaminarFlow
from ..scaling import CONTRAST_BOUNDS, OFFSET_BOUNDS, AbstractScaling, Averaged, Fixed
from .build import Problem
from .read import Configuration
from .section import Choice, Section, tables_of
from .tables.bayes import (
    BATCH,
    NOISES,
    SCALINGS,
    STARTS,
    Bayes,
    changed_shards,
    job_script,
    method_of,
)
from .tables.priors import KINDS, given_priors, prior_lines

log = logging.getLogger(__name__)

NEEDED = ("blackjax", "arviz_base", "arviz_stats", "arviz_plots", "h5netcdf")
DASK = ("distributed",)
JOBQUEUE = (*DASK, "dask_jobqueue")


@dataclass(frozen=True)
class Inference:
    """Everything sampling needs beside the fit.

    - `n_pairs`: of the data, by which `method` decides.
    - `priors`: of all entries; `from_fit`: names whose prior is made of the fit → its width;
        `chosen`: names whose prior is no default.
    - `scaling`: the one to sample with instead of that of the fit, None for the same; `fixed` tells
        that it is that of the fit, held.
    - `n_shards`: 0 for one run; `decisions`: what will be done, in sentences; `lines`: these and
        the priors as far as they are known before the fit.
    """

    settings: Bayes
    n_pairs: int
    method: Consensus
    sampler: Nuts
    start: AbstractStart
    treatment: AbstractScalingTreatment
    noise: AbstractNoise | None
    priors: PriorSet
    from_fit: Mapping[str, float]
    chosen: frozenset[str]
    scaling: AbstractScaling | None
    fixed: bool
    n_shards: int
    decisions: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def consensus(self) -> bool:
        """Whether the data are sampled in shards."""
        return self.n_shards > 0

    def lines_after(self, density: LogPosterior) -> tuple[str, ...]:
        """What was done: the decisions and the priors that were sampled with."""
        return (*self.decisions, *prior_lines(density, self.chosen, self.from_fit, True))

    def fit_for(self, fit: Fit) -> Fit:
        """The fit with the scaling that is sampled, begun where the other ended."""
        if self.fixed:
            return with_scaling(fit, Fixed(fit.contrast, fit.offset))
        return fit if self.scaling is None else with_scaling(fit, self.scaling)

    def priors_for(self, fit: Fit) -> PriorSet:
        """All priors, those from the fit among them.

        **Raises:** `ModelError` for a parameter without a finite error.
        """
        merged, notes = self.priors, self.priors.notes
        for width in sorted(set(self.from_fit.values())):
            names = [name for name, own in self.from_fit.items() if own == width]
            found = fit_priors(fit, width, names)
            merged = merged.replaced(dict(zip(found.names, found.priors, strict=True)))
            # They are of a fit of these very data.
            notes += (
                f"the priors of {', '.join(found.names)} are centred on the fit of the same data, "
                f"{width:g} times its errors wide: the data are used twice, and the posterior of "
                "these is too narrow",
            )
        return replaced(merged, notes=notes)


def _refuse_stored(configuration: Configuration, reason: str) -> None:
    """Refuse what maps in a file do not allow. **Raises:** `ConfigError`."""
    given, source = configuration.settings.bayes, configuration.source
    assert given is not None
    if configuration.settings.several or given.scaling == "marginalised" or reason:
        raise ConfigError(
            f"{source.where('bayes')}: [bayes] needs the maps in memory for one run"
            f"{f' ({reason})' if reason else ''}, where these do not fit or are not wanted "
            "(streaming.strategy); choose fewer frames or angles in [data], set streaming.strategy "
            '= "in_memory", or, for one data set, bayes.method = "consensus", which reads each '
            "shard from the file"
        )
    if given.shards.correction != "none":
        raise ConfigError(
            f"{source.where('bayes.shards.correction')}: bayes.shards.correction = "
            f'"{given.shards.correction}" would read the maps in their file thousands of times; '
            'set it to "none", or streaming.strategy = "in_memory"'
        )


def _standing_in(objective: Any) -> tuple[Any, int]:
    """The objective with some pairs instead of maps in a file, and the number of all pairs."""
    pairs = pairs_of(objective.term.tiles)
    term = replaced(objective.term, tiles=stand_in(pairs))
    return replaced(objective, term=term), pairs.n_pairs


@contextmanager
def _placed(where: str, what: str):
    try:
        yield
    except ModelError as error:
        raise ConfigError(f"{where}: {what}: {in_toml(str(error))}") from error


def _installed(where: str, needed: tuple[str, ...], extra: str) -> None:
    if missing := [name for name in needed if not find_spec(name)]:
        raise ConfigError(
            f"{where}: [bayes] needs {', '.join(missing)}; install it with "
            f"pip install 'xpcs-eqx[{extra}]'"
        )


def _noise(configuration: Configuration, problem: Problem, given: Bayes) -> AbstractNoise | None:
    if given.sigma == "given" and not all(map(weighted, problem.data)):
        raise ConfigError(
            f'{configuration.source.where("bayes.sigma")}: bayes.sigma = "given", but the data '
            'have no sigma; give data.sigma, or set bayes.sigma = "sampled"'
        )
    if given.sigma != "sampled" and "sigma" in given.priors:
        absolute = all(one.absolute_sigma for one in problem.data)
        if given.sigma == "given" or absolute:
            raise ConfigError(
                f"{configuration.source.where(('bayes', 'priors', 'sigma'))}: sigma is known and "
                'has no prior; leave it out, or set bayes.sigma = "sampled"'
            )
    noise = NOISES[given.sigma]
    return None if noise is None else noise()


def _scaling(configuration: Configuration, problem: Problem) -> AbstractScaling | None:
    """The scaling to sample with where it is not that of the fit."""
    settings = configuration.settings
    assert settings.bayes is not None
    if settings.bayes.scaling == "fixed":
        # A stand-in for what the fit will find.
        reference = problem.of_one.term.reference
        return Fixed(reference[:, 0], reference[:, 1])
    if settings.bayes.scaling == "averaged" and problem.scalings[0].mode != "averaged":
        own = settings.scaling
        contrast = tuple(own.contrast_bounds or CONTRAST_BOUNDS)
        offset = tuple(own.offset_bounds or OFFSET_BOUNDS)
        return Averaged(problem.data[0].n_angles, contrast, offset)  # pyright: ignore[reportArgumentType]
    return None


def _earlier_priors(configuration: Configuration, known: Collection[str]) -> PriorSet:
    """Priors centred on an earlier result, as far as it is of parameters `known` here."""
    given, source = configuration.settings.bayes, configuration.source
    if given is None or given.priors_from is None:
        return PriorSet((), ())
    path, where = source.absolute(given.priors_from), source.where("bayes.priors_from")
    try:
        names = [n for n, one in saved_values(path).items() if n in known and one.error > 0]
        if not names:
            raise ModelError(f"{path} has no value with an error of a parameter sampled here")
        return saved_priors(path, given.priors_width, names)
    except (DataError, ModelError) as error:
        raise ConfigError(f"{where}: bayes.priors_from: {error}") from error


def inference_of(configuration: Configuration, problem: Problem) -> Inference | None:
    """What [bayes] asks for, checked as far as it can be before the fit; None without the table.

    **Raises:** `ConfigError` with file, line and key.
    """
    given = configuration.settings.bayes
    if given is None:
        return None
    source = configuration.source
    where = source.where("bayes")
    _installed(where, NEEDED, "bayes")
    executor = given.shards.executor
    if executor in (*BATCH, "dask"):
        place = source.where("bayes.shards.executor")
        _installed(place, JOBQUEUE if executor in BATCH else DASK, "cluster")
    scaling, fixed = _scaling(configuration, problem), given.scaling == "fixed"
    with _placed(where, "[bayes]"):
        objective = problem.objective if scaling is None else rescaled(problem.objective, scaling)
        priors = default_priors(objective)
    own, from_fit = given_priors(source, given, objective)
    earlier = _earlier_priors(configuration, priors.names)
    notes = (*priors.notes, *earlier.notes)
    earlier = dict(zip(earlier.names, earlier.priors, strict=True))
    priors = replaced(priors.replaced({**earlier, **own}), notes=notes)
    chosen = frozenset((*earlier, *own, *from_fit))
    treatment = SCALINGS[given.scaling]()
    noise = _noise(configuration, problem, given)
    stored, n_pairs, read = problem.plan.stored, None, objective
    if stored:
        _refuse_stored(configuration, "")
        read, n_pairs = _standing_in(objective)
    with _placed(where, "[bayes]"):
        density, _ = log_posterior(read, priors, scaling=treatment, noise=noise)
    method = method_of(source, given)
    n_pairs = int(density.n_pairs) if n_pairs is None else n_pairs
    in_shards, reason = method.in_shards(n_pairs), method.reason(n_pairs)
    if configuration.settings.several:
        in_shards, reason = False, f"{n_pairs} pairs of several data sets: one run"
    sampler = Nuts(
        chains=given.chains,
        warmup=given.warm_up,
        draws=given.draws,
        target_acceptance=given.target_acceptance,
        max_depth=given.depth,
        retries=given.retries,
    )
    if in_shards and given.scaling == "marginalised":
        raise ConfigError(
            f"{source.where('bayes.scaling')}: {reason}; in shards contrast and offset "
            'cannot be marginalised: set bayes.scaling = "sampled", or bayes.method = "single"'
        )
    if stored and not in_shards:
        _refuse_stored(configuration, reason)
    lines = [reason, *_run_lines(given, sampler, density)]
    n_shards = 0
    if in_shards:
        n_shards, about = _shard_plan(configuration, problem, density, method, sampler)
        lines += about
    elif changed := changed_shards(given.shards):
        unused = (
            f"[bayes.shards] ({', '.join(changed)}) is not used: {reason}; for shards set "
            'bayes.method = "consensus"'
        )
        log.warning("%s: %s", source.where("bayes.shards"), unused)
        lines.append(unused)
    before = prior_lines(density, chosen, from_fit, False)
    return Inference(
        settings=given,
        n_pairs=n_pairs,
        method=method,
        sampler=sampler,
        start=STARTS[given.start](),
        treatment=treatment,
        noise=noise,
        priors=priors,
        from_fit=from_fit,
        chosen=chosen,
        scaling=scaling,
        fixed=fixed,
        n_shards=n_shards,
        decisions=tuple(lines),
        lines=(*lines, *before),
    )


def _run_lines(given: Bayes, sampler: Nuts, density: LogPosterior) -> list[str]:
    target = sampler.target(density.parameters.model)
    return [
        f"{given.chains} chains of {given.warm_up} transitions of warm-up and {given.draws} draws; "
        f"target acceptance {target:g}, depth {given.depth}, seed {given.seed}, start "
        f"{given.start}, scaling {given.scaling}",
        f"{len(density.names)} sampled entries: {', '.join(density.names)}",
    ]


def _shard_plan(
    configuration: Configuration,
    problem: Problem,
    density: LogPosterior,
    given: Consensus,
    sampler: Nuts,
) -> tuple[int, list[str]]:
    """Number of shards, and what is decided about them."""
    source, p = configuration.source, len(density.names)
    pairs = pairs_of(problem.of_one.term.tiles)
    laminar = isinstance(density.parameters.model, LaminarFlow)
    settings = configuration.settings.bayes
    assert settings is not None
    with _placed(source.where("bayes.shards"), "[bayes.shards]"):
        # The key decides which pairs are together, not how many.
        shards, notes = split_pairs(
            pairs, p, laminar, jax.random.key(0), given.sharding, given.size
        )
        plan = given.plan(int(np.median(shards.sizes)), p, sampler.warmup, sampler.draws)
        lines = [
            *notes,
            f"{plan.warmup} transitions of warm-up and {plan.draws} draws for each of "
            f"{sampler.chains} chains of a shard ({settings.shards.transitions})",
            f"combiner {settings.shards.combiner}, correction {settings.shards.correction}, "
            f"executor {settings.shards.executor}",
        ]
        script = job_script(given)
    if script:
        lines.append(f"each of {settings.shards.executor}'s jobs would be\n{script.rstrip()}")
    folder = None if settings.shards.folder is None else source.absolute(settings.shards.folder)
    if folder is not None and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise ConfigError(
            f"{source.where('bayes.shards.folder')}: {folder} is no folder that can be written to; "
            "make it, on a disk that all workers see"
        )
    return shards.n_shards, lines


# Of these only a call is meant: the bare words are English.
_CALLS = {"sample": 'bayes.method = "single"', "consensus": 'bayes.method = "consensus"'}
# Arguments that have another name in the file.
_ARGUMENTS = {
    "warmup": "bayes.warm_up",
    "max_depth": "bayes.depth",
    "target_acceptance": "bayes.target_acceptance",
}
# Settings that are arguments of a class, as in `Limits(success=0.5)`.
_SETTINGS = {"Limits": "bayes.shards", "Nuts": "bayes"}
_GIVEN = re.compile(rf"\b(?:\w+=)?({'|'.join(_SETTINGS)})\((\w+)=[^()]*\)")
_PHRASES = {
    "give it equal bounds in the map": "set free = false in its table",
    "(warmup, draws)": "(bayes.warm_up, bayes.draws)",
}


def _chosen(table: type[Section], before: str) -> dict[str, str]:
    """Name of each class that a word of a table stands for → key and word."""
    out = {}
    for name, info in table.model_fields.items():
        for one in info.metadata:
            if isinstance(one, Choice):
                for word, path in one.paths.items():
                    if path is not None:
                        out.setdefault(path.rpartition(".")[2], f'{before}.{name} = "{word}"')
        for inner in tables_of(info.annotation):
            out |= _chosen(inner, f"{before}.{name}")
    return out


@cache
def _words() -> dict[str, str]:
    """What names of the library mean in the file."""
    priors = {path.rpartition(".")[2]: word for word, path in KINDS.paths.items() if path}
    return {**_chosen(Bayes, "bayes"), **priors, **_CALLS, **_ARGUMENTS}


def in_toml(text: str) -> str:
    """A message of the library with the keys of the file in place of classes and arguments.

    >>> in_toml("take larger shards or use RandomShards()")
    'take larger shards or use bayes.shards.sharding = "random"'
    >>> in_toml("sample with anchor=NoAnchor(), or allow it with Limits(success=0.5)")
    'sample with bayes.shards.anchor = "none", or allow it with bayes.shards.success'
    """
    words = _words()
    names = "|".join(name for name in words if name not in _CALLS)
    # A class may stand as an argument, as in `anchor=NoAnchor()`: the key says the same.
    pattern = re.compile(rf"\b(?:\w+=)?(?:({names})\b(?:\(\))?|({'|'.join(_CALLS)})\(\))")
    for phrase, instead in _PHRASES.items():
        text = text.replace(phrase, instead)
    text = _GIVEN.sub(lambda found: words.get(found[2], f"{_SETTINGS[found[1]]}.{found[2]}"), text)
    # What has its key already stays as it is.
    named = re.compile(r'\bbayes\.[\w.]+(?: = "\w+")?')
    kept = named.findall(text)
    parts = [pattern.sub(lambda found: words[found[1] or found[2]], p) for p in named.split(text)]
    return "".join(part + key for part, key in zip(parts, [*kept, ""], strict=True))
