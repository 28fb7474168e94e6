"""What `[bayes]` asks for, made and checked before the fit; and messages in words of the file."""

import logging
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import cache
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

from .. import bayes
from ..bayes.density.likelihood import AbstractNoise
from ..bayes.nuts.sample import rescaled
from ..bayes.priors.families import AbstractPrior
from ..bayes.priors.prior_set import Samplable, entries_of, scaling_groups
from ..bayes.shards.division import pairs_of_all, split_pairs
from ..bayes.shards.work import stand_in
from ..data import weighted
from ..errors import ConfigError, ModelError, how_to_install
from ..fitting import Comparison, Fit, compare_likelihood
from ..objective.combined import is_likelihood, parts_of, with_terms
from ..parameters import saved_values
from ..scaling import AbstractScaling, Averaged, Fixed
from .build import Problem
from .read import Configuration
from .section import Choice, keys_of
from .source import Source, nearest
from .tables.bayes import (
    BATCH,
    NOISES,
    SCALINGS,
    STARTS,
    Bayes,
    changed_shards,
    method_of,
    sampler_of,
)
from .tables.priors import KINDS, prior_lines, prior_of
from .tables.scaling import bounds_of

log = logging.getLogger(__name__)

NEEDED = ("blackjax", "arviz_base", "arviz_stats", "arviz_plots", "h5netcdf")
DASK = ("distributed",)
JOBQUEUE = (*DASK, "dask_jobqueue")
# Width of a prior from the fit of the same data, in its quoted errors.
_WIDTH = 2.0


@dataclass(frozen=True)
class Inference:
    """Everything sampling needs beside the fit.

    - `how`: method, sampler, start, treatment of the scaling and noise, as `infer` takes them.
    - `n_pairs`: of the data, by which `method` decides; `n_shards`: 0 for one run; `frames`: that
        the likelihood of speckle takes at once.
    - `priors`: of all entries; `from_fit`: names whose prior is made of the fit → its width;
        `chosen`: names whose prior is no default.
    - `scaling`: those of each data set to sample with instead of those of the fit, None for the
        same; `Fixed` ones stand for those of the fit, held.
    - `decisions`: what will be done, in sentences; `lines`: these and the priors as far as they are
        known before the fit.
    """

    settings: Bayes
    how: Mapping[str, Any]
    n_pairs: int
    n_shards: int
    frames: int
    priors: bayes.PriorSet
    from_fit: Mapping[str, float]
    chosen: frozenset[str]
    scaling: Sequence[AbstractScaling] | None
    decisions: tuple[str, ...]
    lines: tuple[str, ...]

    def lines_after(self, density: bayes.LogPosterior) -> tuple[str, ...]:
        """What was done: the decisions and the priors that were sampled with."""
        return (*self.decisions, *prior_lines(density, self.chosen, self.from_fit, True))

    def fit_for(self, fit: Fit, compared: Comparison | None = None) -> tuple[Fit, tuple[str, ...]]:
        """The fit with the scaling and the likelihood that are sampled, and why with that one.

        It begins where the other ended. `compared` is what the likelihood made of that one, where
        it was fitted in the way that is asked for here.
        """
        if self.scaling is not None:
            held = [Fixed(one.contrast, one.offset) for one in fit.parts.values()]
            given = held if isinstance(self.scaling[0], Fixed) else self.scaling
            fit, compared = bayes.with_scaling(fit, given), None
        wanted = self.settings.likelihood
        if wanted == "least_squares":
            return fit, ()
        if compared is None:
            compared = compare_likelihood(fit, asked=wanted == "speckle", frames=self.frames)
        what = "least squares" if compared.likelihood is None else "the likelihood of speckle"
        return compared.likelihood or fit, (f"sampled under {what}: {compared.reason}",)

    def priors_for(self, fit: Fit) -> bayes.PriorSet:
        """All priors, those from the fit among them.

        **Raises:** `ModelError` for a parameter without a finite error.
        """
        merged, notes = self.priors, self.priors.notes
        if is_likelihood(fit.objective):
            # Levels of shot noise come to the others.
            further = bayes.default_priors(fit.objective)
            known = dict(zip(merged.names, merged.priors, strict=True))
            merged = further.replaced({n: known[n] for n in further.names if n in known})
        for width in sorted(set(self.from_fit.values())):
            names = [name for name, own in self.from_fit.items() if own == width]
            found = bayes.fit_priors(fit, width, names)
            merged = merged.replaced(dict(zip(found.names, found.priors, strict=True)))
            # They are of a fit of these very data.
            notes += (
                f"the priors of {', '.join(found.names)} are centred on the fit of the same data, "
                f"{width:g} times its errors wide: the data are used twice, and the posterior of "
                "these is too narrow",
            )
        return replaced(merged, notes=notes)


def _check_installed(source: Source, executor: str) -> None:
    cluster = {"dask": DASK, **dict.fromkeys(BATCH, JOBQUEUE)}.get(executor, ())
    wanted = (("bayes", NEEDED, "bayes"), ("bayes.shards.executor", cluster, "cluster"))
    for key, needed, extra in wanted:
        if missing := [name for name in needed if not find_spec(name)]:
            raise ConfigError(
                f"{source.where(key)}: [bayes] needs {', '.join(missing)}; install it with "
                + how_to_install(extra)
            )


def _check_stored(source: Source, given: Bayes, in_shards: bool, reason: str) -> None:
    """Refuse what maps in a file do not allow. **Raises:** `ConfigError`."""
    if not in_shards:
        raise ConfigError(
            f"{source.where('bayes')}: [bayes] needs the maps in memory for one run ({reason}), "
            "where these do not fit or are not wanted (streaming.strategy); choose fewer frames or "
            'angles in [data], set streaming.strategy = "in_memory", or bayes.method = '
            '"consensus", which reads each shard from the file'
        )
    if given.shards.correction != "none":
        raise ConfigError(
            f"{source.where('bayes.shards.correction')}: bayes.shards.correction = "
            f'"{given.shards.correction}" would read the maps in their file thousands of times; '
            'set it to "none", or streaming.strategy = "in_memory"'
        )


def _noise(source: Source, problem: Problem, given: Bayes) -> AbstractNoise | None:
    if given.sigma == "given" and not all(map(weighted, problem.data)):
        raise ConfigError(
            f'{source.where("bayes.sigma")}: bayes.sigma = "given", but the data have no sigma; '
            'give data.sigma, or set bayes.sigma = "sampled"'
        )
    absolute = all(one.absolute_sigma for one in problem.data)
    known = given.sigma == "given" or (given.sigma == "auto" and absolute)
    if known and "sigma" in given.priors:
        raise ConfigError(
            f"{source.where(('bayes', 'priors', 'sigma'))}: sigma is known and has no prior; leave "
            'it out, or set bayes.sigma = "sampled"'
        )
    noise = NOISES[given.sigma]
    return None if noise is None else noise()


def _scaling(problem: Problem, given: Bayes) -> Sequence[AbstractScaling] | None:
    """The scaling of each data set to sample with where it is not that of the fit."""
    if given.scaling == "fixed":
        # Stand-ins for what the fit will find.
        return [Fixed(*part.term.reference.T) for part in parts_of(problem.objective)]
    if given.scaling == "averaged" and any(one.mode != "averaged" for one in problem.scalings):
        bounds = bounds_of(problem.settings.scaling)
        return [Averaged(one.n_angles, **bounds) for one in problem.data]
    return None


def _earlier_priors(source: Source, given: Bayes, known: Collection[str]) -> bayes.PriorSet:
    """Priors centred on an earlier result, as far as it is of parameters `known` here."""
    if given.priors_from is None:
        return bayes.PriorSet((), ())
    path = source.absolute(given.priors_from)
    with source.placed("bayes.priors_from", "bayes.priors_from"):
        names = [n for n, one in saved_values(path).items() if n in known and one.error > 0]
        if not names:
            raise ModelError(f"{path} has no value with an error of a parameter sampled here")
        return bayes.saved_priors(path, given.priors_width, names)


def _given_priors(
    source: Source, given: Bayes, objective: Samplable
) -> tuple[dict[str, AbstractPrior], dict[str, float]]:
    """Priors of the tables by name, and the names whose prior is made of the fit with its width.

    **Raises:** `ConfigError` with the place for an unknown name and for a prior that cannot be.
    """
    bounds = {one.name: (one.lower, one.upper) for one in entries_of(objective)}
    bounds["sigma"] = (0.0, math.inf)
    groups = scaling_groups(bounds)
    known = [*bounds, *groups]
    found: dict[str, AbstractPrior | float] = {}
    # Tables of single angles come after those of all, and win.
    for name, table in sorted(given.priors.items(), key=lambda item: "[" in item[0]):
        with source.placed(("bayes", "priors", name), f"bayes.priors.{name}", in_toml):
            if name not in known:
                near = nearest(name, known, "bayes.priors.")
                raise ModelError(f"no parameter {name!r} is sampled{near}")
            if table.from_fit and name == "sigma":
                raise ModelError("the fit has no error of sigma; give a kind")
            members = groups.get(name) or [name]
            own = prior_of(table, bounds[members[0]]) if table.kind else table.width or _WIDTH
        found |= dict.fromkeys(members, own)
    priors = {name: one for name, one in found.items() if isinstance(one, AbstractPrior)}
    widths = {name: one for name, one in found.items() if isinstance(one, float)}
    return priors, widths


def inference_of(configuration: Configuration, problem: Problem) -> Inference | None:
    """What [bayes] asks for, checked as far as it can be before the fit; None without the table.

    **Raises:** `ConfigError` with file, line and key.
    """
    given, source = configuration.settings.bayes, configuration.source
    if given is None:
        return None
    _check_installed(source, given.shards.executor)
    scaling = _scaling(problem, given)
    with source.placed("bayes", "[bayes]", in_toml):
        objective = problem.objective if scaling is None else rescaled(problem.objective, scaling)
        priors = bayes.default_priors(objective)
    own, from_fit = _given_priors(source, given, objective)
    earlier = _earlier_priors(source, given, priors.names)
    notes = (*priors.notes, *earlier.notes)
    own = {**dict(zip(earlier.names, earlier.priors, strict=True)), **own}
    priors = replaced(priors.replaced(own), notes=notes)
    chosen = frozenset((*own, *from_fit))
    method, sampler = method_of(source, given), sampler_of(given)
    n_pairs = sum(one.n_pairs for one in problem.data)
    in_shards, reason = method.in_shards(n_pairs), method.reason(n_pairs)
    if in_shards and given.scaling == "marginalised":
        raise ConfigError(
            f"{source.where('bayes.scaling')}: {reason}; in shards contrast and offset "
            'cannot be marginalised: set bayes.scaling = "sampled", or bayes.method = "single"'
        )
    if problem.plan.stored:
        _check_stored(source, given, in_shards, reason)
        objective = with_terms(objective, tiles=stand_in(pairs_of_all(objective)))
    treatment, noise = SCALINGS[given.scaling](), _noise(source, problem, given)
    with source.placed("bayes", "[bayes]", in_toml):
        density, _ = bayes.log_posterior(objective, priors, scaling=treatment, noise=noise)
    lines = [
        reason,
        f"{given.chains} chains of {given.warm_up} transitions of warm-up and {given.draws} draws; "
        f"target acceptance {sampler.target(density.laminar):g}, depth {given.depth}, "
        f"seed {given.seed}, start {given.start}, scaling {given.scaling}",
        f"{len(density.names)} sampled entries: {', '.join(density.names)}",
    ]
    n_shards = 0
    if in_shards:
        n_shards, about = _shard_plan(source, problem, density, given, method, sampler)
        lines += about
    elif changed := changed_shards(given.shards):
        unused = (
            f"[bayes.shards] ({', '.join(changed)}) is not used: {reason}; for shards set "
            'bayes.method = "consensus"'
        )
        log.warning("%s: %s", source.where("bayes.shards"), unused)
        lines.append(unused)
    return Inference(
        settings=given,
        how={
            "method": method,
            "sampler": sampler,
            "start": STARTS[given.start](),
            "scaling": treatment,
            "noise": noise,
        },
        n_pairs=n_pairs,
        n_shards=n_shards,
        frames=problem.settings.solver.likelihood_frames,
        priors=priors,
        from_fit=from_fit,
        chosen=chosen,
        scaling=scaling,
        decisions=tuple(lines),
        lines=(*lines, *prior_lines(density, chosen, from_fit, False)),
    )


def _shard_plan(
    source: Source,
    problem: Problem,
    density: bayes.LogPosterior,
    given: Bayes,
    method: bayes.Consensus,
    sampler: bayes.Nuts,
) -> tuple[int, list[str]]:
    """Number of shards, and what is decided about them."""
    p, shards = len(density.names), given.shards
    pairs = pairs_of_all(problem.objective)
    with source.placed("bayes.shards", "[bayes.shards]", in_toml):
        # The key decides which pairs are together, not how many.
        split, notes = split_pairs(
            pairs, p, density.laminar, jax.random.key(0), method.sharding, method.size
        )
        plan = method.plan(int(np.median(split.sizes)), p, sampler.warmup, sampler.draws)
        lines = [
            *notes,
            f"{plan.warmup} transitions of warm-up and {plan.draws} draws for each of "
            f"{sampler.chains} chains of a shard ({shards.transitions})",
            f"combiner {shards.combiner}, correction {shards.correction}, executor "
            f"{shards.executor}",
        ]
        if isinstance(method.workers, bayes.DaskWorkers) and method.workers.job is not None:
            script = method.workers.job.job_script().rstrip()
            lines.append(f"each of {shards.executor}'s jobs would be\n{script}")
    folder = None if shards.folder is None else source.absolute(shards.folder)
    if folder is not None and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise ConfigError(
            f"{source.where('bayes.shards.folder')}: {folder} is no folder that can be written to; "
            "make it, on a disk that all workers see"
        )
    return split.n_shards, lines


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
_PHRASES = {
    "give it equal bounds in the map": "set free = false in its table",
    "(warmup, draws)": "(bayes.warm_up, bayes.draws)",
}


@cache
def _words() -> dict[str, str]:
    """What names of the library mean in the file."""
    chosen: dict[str, str] = {}
    for key, info, _ in keys_of(Bayes, ("bayes",)):
        for one in info.metadata:
            for word, cls in one.meant.items() if isinstance(one, Choice) else ():
                if cls is not None:
                    chosen.setdefault(cls.__name__, f'{".".join(key)} = "{word}"')
    priors = {cls.__name__: word for word, cls in KINDS.meant.items()}
    return {**chosen, **priors, **_ARGUMENTS}


@cache
def _library_words() -> re.Pattern[str]:
    """What has its key already; a class with an argument; a call; the name of anything else.

    A class may stand as an argument itself, as in `anchor=NoAnchor()`: the key says the same.
    """
    return re.compile(
        r'(?P<key>\bbayes\.[\w.]+(?: = "\w+")?)|\b(?:\w+=)?(?:'
        rf"(?P<cls>{'|'.join(_SETTINGS)})\((?P<argument>\w+)=[^()]*\)"
        rf"|(?P<call>{'|'.join(_CALLS)})\(\)|(?P<name>{'|'.join(_words())})\b(?:\(\))?)"
    )


def in_toml(text: str) -> str:
    """A message of the library with the keys of the file in place of classes and arguments.

    >>> in_toml("take larger shards or use RandomShards()")
    'take larger shards or use bayes.shards.sharding = "random"'
    >>> in_toml("sample with anchor=NoAnchor(), or allow it with Limits(success=0.5)")
    'sample with bayes.shards.anchor = "none", or allow it with bayes.shards.success'
    """

    def in_file(found: re.Match[str]) -> str:
        key, cls, argument, call, name = found.groups()
        if cls:
            return _words().get(argument, f"{_SETTINGS[cls]}.{argument}")
        return key or _CALLS.get(call) or _words()[name]

    for phrase, instead in _PHRASES.items():
        text = text.replace(phrase, instead)
    return _library_words().sub(in_file, text)
