"""A configuration as work to do: check, fit, report, write; one data set is a list of one."""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..checkpoint import Checkpoints
from ..config.build import Problem, build
from ..config.inference import Inference, inference_of
from ..config.read import Configuration
from ..config.resolved import resolved_settings
from ..config.tables.data import Given
from ..config.tables.verdict import thresholds_of
from ..data import PooledData, place_text
from ..defences import defended_least_squares
from ..errors import ConfigError, FitError, ModelError
from ..files import to_json
from ..fitting import (
    Bootstrap,
    Comparison,
    Fit,
    ProfileInterval,
    bootstrap,
    compare_likelihood,
    judged,
    maximum_likelihood,
    profile_interval,
)
from ..objective import has_bins
from ..objective.combined import is_likelihood
from ..report import (
    Origin,
    Report,
    Section,
    derived_sections,
    fit_sections,
    origins,
    surface_section,
    time_section,
    write_results,
)
from ..report.analyses import (
    bootstrap_section,
    defence_section,
    likelihood_section,
    search_section,
)
from ..report.fit import folders_of
from ..report.sections import by_frame
from .examining import examine, undetermined
from .sampling import Sampled, sample_posterior

log = logging.getLogger("xpcs_eqx.fit")

# Keys of [output] that change neither a number nor a word of the results.
_FORM = ("directory", "plots", "plot_format", "compilation_cache")


def task_of(configuration: Configuration) -> "Task":
    """Load the data of a configuration and make its problem.

    **Raises:** `DataError`, `ConfigError`, `ModelError` with the place of the mistake.
    """
    problem = build(configuration)
    return Task(configuration, problem, inference_of(configuration, problem))


def _data_line(data: Given) -> str:
    place = place_text(data.t, data.geometry, not data.provenance.has_times)
    return f"{data.provenance.where()}: {place}"


@dataclass(frozen=True)
class Task:
    """Data and problem of a configuration."""

    configuration: Configuration
    problem: Problem
    inference: Inference | None = None

    def undetermined(self) -> tuple[str, ...]:
        """Parameters of which a fit would say that the data do not determine them."""
        return undetermined(self.problem.objective)

    def check_report(self, undetermined: tuple[str, ...] = ()) -> str:
        """What --check prints: data and problem in a few lines, with all that a fit says of them.

        `undetermined` are parameters for which the data are not enough.
        """
        problem, lines = self.problem, []
        for label, data, scaling in zip(
            problem.labels, problem.data, problem.scalings, strict=True
        ):
            lines.append(f"{label}: {_data_line(data)}" if label else _data_line(data))
            pairs = f"{data.n_pairs} pairs, {data.masked_pairs} masked"
            if isinstance(data, PooledData):
                pairs = f"{data.n_pairs} bins of age and lag"
            lines.append(f"{pairs}; scaling {scaling}")
            lines += [f"note: {one}" for one in data.provenance.notes]
        free = problem.parameters.free_names
        coefficients = sum(one.scaling.size for one in problem.scalings)
        lines.append(
            f"{len(free)} free parameters ({', '.join(free)}), {coefficients} scaling coefficients"
        )
        if not problem.names.alone:
            lines.append(f"shared: {', '.join(problem.names.shared) or 'nothing'}")
        lines += problem.decisions
        if problem.search is not None:
            lines.append(f"search: {problem.search.plan(problem.objective)}")
        if problem.layers is not None:
            lines.append(problem.layers.plan())
        if self.inference is not None:
            lines += [f"posterior: {line}" for line in self.inference.lines]
        path = self.configuration.source.path
        verdict = f"{path}: the configuration and the data are usable"
        if undetermined:
            verdict = (
                f"{path}: not to be used like this: near the start values the data do not "
                f"determine {', '.join(undetermined)}; fix some of them (free = false), give other "
                "start values, or take another model or more angles"
            )
        return "\n".join([verdict, *(f"  {line}" for line in lines)])

    def run(self, **how: Any) -> "Outcome":
        """Fit, with profile-likelihood intervals; `how` are callback and checkpoints.

        **Raises:** `ConfigError` when a fit with defences is to be resumed.
        """
        # Looked up when it is called, so that a caller may put another in its place.
        from ..fitting import least_squares
        from ..search import global_least_squares

        problem, objective = self.problem, self.problem.objective
        if problem.preparations and problem.layers is None:
            how["warm_up"] = problem.preparations[0]
        solving: dict[str, Any] = {"solver": problem.solver, "recovery": problem.recovery}
        analyses, searched, optimiser = [], None, problem.plan.optimiser
        if problem.layers is not None:
            if how.get("resume"):
                raise ConfigError(
                    "a fit with [defences] runs in several rounds and leaves no checkpoint; run it "
                    "again without --resume"
                )
            solving["preparations"] = problem.preparations
            if optimiser is not None:
                solving = {
                    "solver": optimiser.solver_for(objective),
                    "recovery": optimiser.recovery,
                    "preparations": optimiser.preparations,
                }
            fit, report = defended_least_squares(
                objective, problem.layers, **solving, callback=how.get("callback")
            )
            analyses.append(defence_section(report, fit))
        elif optimiser is not None:
            fit = optimiser.minimise(objective, **how)
        elif problem.search is not None:
            searched = global_least_squares(objective, strategy=problem.search, **solving, **how)
            fit = searched.fit
            analyses.append(search_section(searched))
        else:
            fit = least_squares(objective, **solving, **how)
        given, thresholds = problem.settings.solver, thresholds_of(problem.settings.verdict)
        found, fit = fit, judged(quote_errors(fit, given.errors), thresholds)
        analyses += examine(fit, problem, searched)
        quoted, compared, wanted = fit, None, given.likelihood
        if wanted != "least_squares":
            frames = given.likelihood_frames
            # Beside its errors, which are those of speckle, stand those of least squares.
            compared = compare_likelihood(found, asked=wanted == "speckle", frames=frames)
            quoted = compared.quoted
            if compared.likelihood is None:
                quoted = quote_errors(quoted, given.errors)
            quoted = judged(quoted, thresholds)
            analyses.append(likelihood_section(compared))
        profiles, failures = _profiles(quoted, problem)
        simulated = _simulated(fit, quoted, problem, failures)
        if simulated is not None:
            quoted = judged(quoted.doubted(simulated.doubts(quoted)), thresholds)
            analyses.append(bootstrap_section(simulated, quoted))
        return Outcome(self, quoted, profiles, failures, analyses, fit, compared)


def quote_errors(fit: Fit, kind: str) -> Fit:
    """The fit, and each data set in it, with another of its covariances as the quoted one.

    Where that is not finite for the whole, all of them stay as they are, and say so. The speckle
    one is the default, which bins of age and lag do not have.
    """
    uncertainty = fit.uncertainty
    binned = any(has_bins(one.objective.term.tiles) for one in fit.parts.values())
    if kind == uncertainty.chosen or (binned and kind == "speckle"):
        return fit
    if np.all(np.isfinite(np.diagonal(getattr(uncertainty, kind)))):
        return _quoted(fit, kind, f"solver.errors = {kind!r} was asked for")
    reason = f"solver.errors = {kind!r} is not finite here; {uncertainty.reason}"
    return _quoted(fit, uncertainty.chosen, reason)


def _quoted(fit: Fit, kind: str, reason: str) -> Fit:
    rows = tuple(row._replace(error=getattr(row, f"error_{kind}")) for row in fit.rows)
    return dataclasses.replace(
        fit,
        rows=rows,
        uncertainty=dataclasses.replace(fit.uncertainty, chosen=kind, reason=reason),
        data_sets=tuple(_quoted(one, kind, reason) for one in fit.data_sets),
    )


def _profiles(fit: Fit, problem: Problem) -> tuple[list[ProfileInterval], list[str]]:
    intervals, failures = [], []
    for name in problem.settings.solver.profile:
        try:
            level, kind = problem.settings.solver.profile_level, fit.uncertainty.chosen
            intervals.append(profile_interval(fit, name, level, kind=kind))
        except FitError as error:
            failures.append(f"no profile interval of {name}: {error}")
            log.warning(failures[-1])
    return intervals, failures


def _simulated(fit: Fit, quoted: Fit, problem: Problem, failures: list[str]) -> Bootstrap | None:
    """Fits of maps simulated from the quoted fit, where `fit` is that by least squares."""
    replicas = problem.settings.solver.bootstrap
    if replicas is None:
        return None
    log.info("bootstrap: %d simulated maps are fitted", replicas)
    frames = problem.settings.solver.likelihood_frames
    with_likelihood = is_likelihood(quoted.objective)
    then = partial(maximum_likelihood, frames=frames) if with_likelihood else None
    try:
        return bootstrap(fit, replicas, then=then, solver=problem.solver)
    except (FitError, ModelError) as error:
        failures.append(f"no errors of simulated maps: {error}")
        log.warning(failures[-1])
        return None


@dataclass(frozen=True)
class Outcome:
    """A finished fit.

    - `analyses`: of the search or the defences behind it, and of what was looked at after it.
    - `squares`: the fit by least squares, from which a posterior is sampled; `fit` where no
        likelihood has taken its place. `compared`: the two, where a likelihood was asked for.
    - `sampled`: what became of the posterior; None when none was asked for.
    """

    task: Task
    fit: Fit
    profiles: Sequence[ProfileInterval]
    failures: Sequence[str]
    analyses: Sequence[Section]
    squares: Fit
    compared: Comparison | None = None
    sampled: Sampled | None = None

    def with_posterior(self, checkpoints: Checkpoints | None, on_terminal: bool) -> "Outcome":
        """The outcome with a posterior where the configuration asks for one."""
        inference = self.task.inference
        if inference is None:
            return self
        # The same likelihood is not fitted twice.
        solver = self.task.problem.settings.solver.likelihood
        compared = self.compared if inference.settings.likelihood == solver else None
        found = sample_posterior(inference, self.squares, checkpoints, on_terminal, compared)
        return dataclasses.replace(self, sampled=found)

    @property
    def good(self) -> bool:
        """Whether all of it can be used as it is: a fit without doubts, draws that converged."""
        return not self.fit.quality.doubtful and (self.sampled is None or self.sampled.good)

    def folders(self) -> dict[str, Fit]:
        """The fit of each data set by the name of its folder; none for one data set alone."""
        return {name: self.fit.parts[label] for label, name in folders_of(self.fit).items()}

    @property
    def title(self) -> str:
        """The headline of the report."""
        if self.task.problem.names.alone:
            return f"Fit of {os.path.basename(self.task.configuration.data_path)}"
        return f"Joint fit of {len(self.task.problem.labels)} data sets"

    def sections(self, timings: Mapping[str, float]) -> list[Section]:
        """The whole report; `timings` are seconds by phase beside those of the fit."""
        problem, output = self.task.problem, self.task.problem.settings.output
        known = [
            Origin(data.provenance, str(scaling), weight)
            for data, scaling, weight in zip(
                problem.data, problem.scalings, problem.weights, strict=True
            )
        ]
        strategy = dataclasses.asdict(problem.plan.strategy)
        decisions = (*problem.decisions, *self.failures)
        out = fit_sections(
            self.fit,
            known,
            decisions=decisions,
            profiles=self.profiles,
            all_errors=output.all_errors,
        )
        out += derived_sections(self.fit, output.ages)
        out.append(Section(document={"strategy": strategy, "good": self.good}))
        out += self.analyses
        if self.sampled is not None:
            out += self.sampled.sections(output.plots, output.plot_format)
            timings = {**timings, **self.sampled.timings}
        for name, part in self.folders().items():
            out.append(surface_section(part, name, output.fitted_data))
        if self.fit.counts_frames:
            out = by_frame(out)
        return [*out, time_section(self.fit, timings)]

    def write(
        self, folder: str, target: str, timings: Mapping[str, float], started: float
    ) -> Report:
        """Write the results into an empty folder that will become `target`; returns the report."""
        problem = self.task.problem
        return write_results(
            folder,
            self.title,
            self.sections(timings),
            provenance=problem.provenance,
            configuration=resolved_settings(self.task.configuration, problem, target),
            started=started,
        )


def finished(task: Task, target: str, checkpoints: Checkpoints | None) -> bool | None:
    """Whether the results in a folder are those of a task, and good; None when they are not.

    A checkpoint that is younger than they are belongs to a fit that has begun after them.
    """
    try:
        with open(os.path.join(target, "provenance.json"), encoding="utf-8") as stream:
            found = json.load(stream)
            written = os.fstat(stream.fileno()).st_mtime_ns
        with open(os.path.join(target, "fit", "parameters.json"), encoding="utf-8") as stream:
            good = json.load(stream)["good"]
        same = _compared(found["configuration"], found["data"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Nothing there, or not by this program as it is now.
        return None
    left = [] if checkpoints is None else checkpoints.paths()
    if any(os.stat(path).st_mtime_ns > written for path in left):
        return None
    settings = resolved_settings(task.configuration, task.problem, target)
    wanted = json.loads(to_json([settings, origins(task.problem.provenance)]))
    return bool(good) if _compared(*wanted) == same else None


def _compared(settings: Mapping[str, Any], data: Any) -> Any:
    """What makes two fits the same, of settings and data: all but where and how it is written."""
    output = settings.get("output", {})
    output = {name: one for name, one in output.items() if name not in _FORM}
    return {**settings, "output": output}, data
