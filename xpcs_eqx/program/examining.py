"""What a configuration asks to be looked at after a fit: degeneracy, diagnostics, single angles."""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any

from ..config.build import Problem
from ..config.tables import COMBINATIONS
from ..errors import XPCSError
from ..fitting import (
    DegeneracyReport,
    Diagnostics,
    Fit,
    SequentialFit,
    degeneracy_report,
    diagnose,
    sequential_least_squares,
)
from ..fitting.quality import Thresholds
from ..report.analyses import degeneracy_sections, diagnostics_section, sequential_section
from ..report.sections import Section, items
from ..search import GlobalFit
from ..uncertainty import loss_of

log = logging.getLogger("xpcs_eqx.fit")

# Pairs up to which profiles, some hundred evaluations, are drawn without being asked for.
_PROFILED_PAIRS = 2_000_000


@dataclass(frozen=True)
class Examined:
    """What was found; None where it was not asked for. `failures` say what could not be done."""

    degeneracy: DegeneracyReport | None = None
    diagnostics: Diagnostics | None = None
    sequential: SequentialFit | None = None
    failures: tuple[str, ...] = ()

    def sections(self) -> list[Section]:
        """What there is to say about it."""
        out = [] if self.degeneracy is None else degeneracy_sections(self.degeneracy)
        if self.diagnostics is not None:
            out.append(diagnostics_section(self.diagnostics))
        if self.sequential is not None:
            out.append(sequential_section(self.sequential))
        if self.failures:
            out.append(Section("Not done", items(self.failures)))
        return out


def suspicious(fit: Fit) -> bool:
    """Whether the verdict on a fit is that it is degenerate."""
    uncertainty = fit.uncertainty
    return (
        bool(uncertainty.weak_directions)
        or float(uncertainty.condition_number) > Thresholds().condition
        or any(row.error == float("inf") for row in fit.rows)
    )


def examine(fit: Fit, problem: Problem, searched: GlobalFit | None = None) -> Examined:
    """Look at a fit as `[output]` asks for. What fails is said in the report and ends nothing.

    A search that ended in a flat valley makes its fit suspicious as well.
    """
    output, found, failures = problem.settings.output, Examined(), []
    if problem.settings.several:
        # What there is to look at is of one model; asking for it is refused.
        return found
    doubtful = suspicious(fit) or (searched is not None and searched.flat)

    def attempt(what: str, make: Any) -> Any:
        try:
            return make()
        except XPCSError as error:
            failures.append(f"no {what}: {error}")
            log.warning(failures[-1])
            return None

    if output.degeneracy is True or (output.degeneracy == "auto" and doubtful):
        few = fit.n_pairs <= _PROFILED_PAIRS or output.degeneracy is True
        report = attempt("profiles", lambda: degeneracy_report(fit, None if few else ()))
        if report is None:
            report = degeneracy_report(fit, ())
        found = dataclasses.replace(found, degeneracy=report)
    if output.diagnostics:
        found = dataclasses.replace(found, diagnostics=diagnose(fit))
    if output.sequential is not None:
        (data,) = problem.data
        sequential = attempt("fits to single angles", lambda: _sequential(fit, problem, data))
        found = dataclasses.replace(found, sequential=sequential)
    return dataclasses.replace(found, failures=tuple(failures))


def _sequential(fit: Fit, problem: Problem, data: Any) -> SequentialFit:
    given = problem.settings.scaling
    bounds: dict[str, Any] = {}
    for kind in ("contrast", "offset"):
        pair = getattr(given, f"{kind}_bounds")
        if pair is not None:
            bounds[f"{kind}_bounds"] = (pair[0], pair[1])
    assert problem.settings.output.sequential is not None
    return sequential_least_squares(
        problem.of_one.term.parameters,
        data,
        combination=COMBINATIONS[problem.settings.output.sequential](),
        loss=loss_of(problem.of_one),
        solver=problem.solver,
        recovery=problem.recovery,
        # Where all angles together ended: what differs at one angle is then its own.
        start=fit.values[fit.index.physical],
        **bounds,
    )
