"""A configuration as work to do: check, fit, report, write; for one data set and for several."""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..checkpoint import Checkpoints
from ..config.build import Problem, build
from ..config.inference import Inference, inference_of, refuse_stored
from ..config.read import Configuration
from ..config.resolved import resolved_settings
from ..config.tables import Settings
from ..data import StoredTwoTime, TwoTimeData
from ..defences import DefenceReport
from ..errors import FitError
from ..fitting import Fit, ProfileInterval, least_squares
from ..report import joint_report, text_report, write_joint_results, write_results
from ..report.defences import defence_document, defence_lines
from ..report.search import search_document, search_lines
from ..search import GlobalFit
from .defending import defence_line, defended
from .examining import Examined, examined
from .sampling import Sampled, sampled
from .sampling_progress import sampling_progress

log = logging.getLogger("xpcs_eqx.fit")


class Outcome(Protocol):
    """A finished fit."""

    @property
    def fit(self) -> Fit:
        """The fit."""
        ...

    @property
    def sampled(self) -> Sampled | None:
        """What became of the posterior; None when none was asked for."""
        ...

    def report(self, timings: Mapping[str, float]) -> str:
        """The text report, with seconds by phase beside those of the fit."""
        ...

    def write(self, folder: str, report: str, target: str, started: float) -> None:
        """Write the results into an empty folder that will become `target`."""
        ...


class Task(Protocol):
    """Data and problem of a configuration."""

    def check_report(self) -> str:
        """What --check prints: data and problem in a few lines."""
        ...

    def run(self, **how: Any) -> Outcome:
        """Fit; `how` are callback and checkpoints, as in `least_squares`."""
        ...


def task_of(configuration: Configuration) -> Task:
    """Load the data of a configuration and make its problem.

    **Raises:** `DataError`, `ConfigError`, `ModelError` with the place of the mistake.
    """
    problem = build(configuration)
    if configuration.settings.several:
        return SeveralDataSets(configuration, problem)
    if problem.plan is not None and problem.plan.stored:
        refuse_stored(configuration)
    return OneDataSet(configuration, problem, inference_of(configuration, problem))


def _output(settings: Settings) -> dict[str, Any]:
    return {"plots": settings.output.plots, "fitted_data": settings.output.fitted_data}


def _usable(configuration: Configuration) -> str:
    return f"{configuration.source.path}: the configuration and the data are usable\n"


def _data_line(data: TwoTimeData | StoredTwoTime) -> str:
    return (
        f"{data.provenance.where()}: {data.n_angles} angles, {data.n_frames} frames, "
        f"{float(data.t[0]):.6g} … {float(data.t[-1]):.6g} s, q = {float(data.geometry.q):.6g} 1/Å"
    )


@dataclass(frozen=True)
class OneDataSet:
    """The fit of one data set."""

    configuration: Configuration
    problem: Problem
    inference: Inference | None = None

    def check_report(self) -> str:
        """What --check prints."""
        (data,), (scaling,) = self.problem.data, self.problem.scalings
        term, plan = self.problem.objective.term, self.problem.plan
        assert plan is not None
        free = term.parameters.free_names
        return (
            f"{_usable(self.configuration)}"
            f"  {_data_line(data)}\n"
            f"  {data.n_pairs} pairs, {data.masked_pairs} masked\n"
            f"  {len(free)} free parameters ({', '.join(free)}), "
            f"{term.scaling.size} scaling coefficients\n"
            f"  scaling {scaling}\n"
            f"  {plan.strategy.report()}"
            f"{_search_line(self.problem)}"
            f"{defence_line(self.problem.layers)}"
            f"{_sampling_lines(self.inference)}"
        )

    def run(self, **how: Any) -> "OneFit":
        """Fit, with profile-likelihood intervals."""
        # Looked up when it is called, so that a caller may put another in its place.
        from ..fitting import least_squares
        from ..search import global_least_squares

        problem, plan = self.problem, self.problem.plan
        optimiser = None if plan is None else plan.optimiser
        searched = report = None
        if optimiser is not None:
            fit = optimiser.minimise(problem.objective, **how)
        elif problem.search is not None:
            searched = global_least_squares(
                problem.objective,
                strategy=problem.search,
                solver=problem.solver,
                recovery=problem.recovery,
                **how,
            )
            fit = searched.fit
            assert isinstance(fit, Fit)  # of the objective of one data set
        elif problem.layers is not None:
            fit, report = defended(problem, problem.layers, **how)
        else:
            fit = least_squares(
                problem.objective, solver=problem.solver, recovery=problem.recovery, **how
            )
        fit = quote_errors(fit, problem.settings.solver.errors)
        profiles = _profiles(fit, problem)
        return OneFit(
            self.configuration,
            problem,
            fit,
            *profiles,
            searched=searched,
            defences=report,
            examined=examined(fit, problem, searched),
        )


def quote_errors(fit: Fit, kind: str) -> Fit:
    """The fit, and each data set in it, with another of its covariances as the quoted one."""
    fit = dataclasses.replace(
        fit, data_sets=tuple(quote_errors(one, kind) for one in fit.data_sets)
    )
    uncertainty = fit.uncertainty
    if kind == uncertainty.chosen:
        return fit
    if not np.all(np.isfinite(np.diagonal(getattr(uncertainty, kind)))):
        reason = f"solver.errors = {kind!r} is not finite here; {uncertainty.reason}"
        return dataclasses.replace(fit, uncertainty=dataclasses.replace(uncertainty, reason=reason))
    reason = f"solver.errors = {kind!r} was asked for"
    rows = tuple(row._replace(error=getattr(row, f"error_{kind}")) for row in fit.rows)
    chosen = dataclasses.replace(uncertainty, chosen=kind, reason=reason)
    return dataclasses.replace(fit, rows=rows, uncertainty=chosen)


def _search_line(problem: Problem) -> str:
    search = problem.search
    return "" if search is None else f"\n  search: {search.plan(problem.objective)}"


def _sampling_lines(inference: Inference | None) -> str:
    lines = () if inference is None else inference.lines
    return "".join(f"\n  posterior: {line}" for line in lines)


def _profiles(fit: Fit, problem: Problem) -> tuple[list[ProfileInterval], list[str]]:
    from ..fitting import profile_interval

    intervals, failures = [], []
    for name in problem.settings.solver.profile:
        try:
            level, kind = problem.settings.solver.profile_level, fit.uncertainty.chosen
            intervals.append(profile_interval(fit, name, level, kind=kind))
        except FitError as error:
            failures.append(f"no profile interval of {name}: {error}")
            log.warning(failures[-1])
    return intervals, failures


@dataclass(frozen=True)
class OneFit:
    """The finished fit of one data set."""

    configuration: Configuration
    problem: Problem
    fit: Fit
    profiles: Sequence[ProfileInterval]
    failures: Sequence[str]
    sampled: Sampled | None = None
    searched: GlobalFit | None = None
    defences: DefenceReport | None = None
    examined: Examined = field(default_factory=Examined)

    def report(self, timings: Mapping[str, float]) -> str:
        """The text report."""
        problem, sampled = self.problem, self.sampled
        return text_report(
            self.fit,
            title=f"Fit of {os.path.basename(self.configuration.data_path)}",
            provenance=problem.data[0].provenance,
            scaling=str(problem.scalings[0]),
            decisions=(*problem.decisions, *self.failures),
            profiles=self.profiles,
            timings=timings if sampled is None else {**timings, **sampled.timings},
            sections=(
                *(() if self.searched is None else search_lines(self.searched)),
                *(() if self.defences is None else defence_lines(self.defences, self.fit)),
                *self.examined.lines(),
                *(() if sampled is None else sampled.lines()),
            ),
        )

    def write(self, folder: str, report: str, target: str, started: float) -> None:
        """Write the results."""
        if self.sampled is not None:
            self.sampled.write(folder, self.problem.settings.output.plots)
        write_results(
            folder,
            self.fit,
            report=report,
            provenance=self.problem.data[0].provenance,
            configuration=resolved_settings(self.configuration, self.problem, target),
            profiles=self.profiles,
            strategy=None if self.problem.plan is None else self.problem.plan.strategy,
            search=None if self.searched is None else search_document(self.searched),
            defences=None if self.defences is None else defence_document(self.defences, self.fit),
            started=started,
            **_output(self.problem.settings),
        )
        self.examined.write(folder, self.problem.settings.output.plots)


def with_posterior(
    outcome: Outcome, task: Task, checkpoints: Checkpoints | None, on_terminal: bool
) -> Outcome:
    """The outcome with a posterior where the configuration asks for one."""
    if not (isinstance(outcome, OneFit) and isinstance(task, OneDataSet)) or task.inference is None:
        return outcome
    inference = task.inference
    with sampling_progress(on_terminal, inference.n_shards) as callback:
        found = sampled(inference, outcome.fit, checkpoints, callback)
    return dataclasses.replace(outcome, sampled=found)


@dataclass(frozen=True)
class SeveralDataSets:
    """The joint fit of several data sets."""

    configuration: Configuration
    problem: Problem

    def check_report(self) -> str:
        """What --check prints."""
        problem, lines = self.problem, []
        for label, data, choice in zip(problem.labels, problem.data, problem.scalings, strict=True):
            lines.append(f"  {label}: {_data_line(data)}")
            lines.append(f"    {data.n_pairs} pairs, {data.masked_pairs} masked; ")
            lines[-1] += f"scaling {choice}"
        whole = problem.parameters
        shared = ", ".join(problem.names.shared) or "nothing"
        lines.append(f"  {whole.n_free} free parameters ({', '.join(whole.free_names)})")
        lines.append(f"  shared: {shared}")
        return _usable(self.configuration) + "\n".join(lines)

    def run(self, **how: Any) -> "SeveralFit":
        """Fit all data sets together."""
        problem = self.problem
        fit = least_squares(
            problem.objective, solver=problem.solver, recovery=problem.recovery, **how
        )
        fit = quote_errors(fit, problem.settings.solver.errors)
        return SeveralFit(self.configuration, problem, fit)


@dataclass(frozen=True)
class SeveralFit:
    """The finished joint fit of several data sets."""

    configuration: Configuration
    problem: Problem
    fit: Fit
    sampled: Sampled | None = None

    def report(self, timings: Mapping[str, float]) -> str:
        """The text report."""
        problem = self.problem
        return joint_report(
            self.fit,
            title=f"Joint fit of {len(problem.labels)} data sets",
            provenance=[one.provenance for one in problem.data],
            weights=problem.weights,
            scaling=[str(choice) for choice in problem.scalings],
            decisions=problem.decisions,
            timings=timings,
        )

    def write(self, folder: str, report: str, target: str, started: float) -> None:
        """Write the results."""
        write_joint_results(
            folder,
            self.fit,
            report=report,
            provenance=[one.provenance for one in self.problem.data],
            weights=self.problem.weights,
            configuration=resolved_settings(self.configuration, self.problem, target),
            started=started,
            **_output(self.problem.settings),
        )
