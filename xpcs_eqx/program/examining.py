"""What a configuration asks to be looked at after a fit: degeneracy, diagnostics, single angles."""

import logging
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..compiling import quick_jit
from ..config.build import Problem
from ..config.tables import COMBINATIONS
from ..config.tables.scaling import bounds_of
from ..errors import XPCSError
from ..fitting import (
    Fit,
    SequentialFit,
    Thresholds,
    degeneracy_report,
    diagnose,
    sequential_least_squares,
)
from ..objective import AbstractObjective
from ..parameters.variables import coordinates_of, physical_of
from ..report.analyses import degeneracy_sections, diagnostics_section, sequential_section
from ..report.sections import Section, items
from ..search import GlobalFit
from ..uncertainty import loss_of
from ..uncertainty.uncertainty import inverse_of

log = logging.getLogger("xpcs_eqx.fit")

# Pairs up to which profiles, some hundred evaluations, are drawn without being asked for.
_PROFILED_PAIRS = 2_000_000


def suspicious(fit: Fit, condition: float = Thresholds.condition) -> bool:
    """Whether the verdict on a fit is that it is degenerate, above a condition number."""
    uncertainty = fit.uncertainty
    return (
        bool(uncertainty.weak_directions)
        or float(uncertainty.condition_number) > condition
        or any(row.error == float("inf") for row in fit.rows)
    )


def undetermined(objective: AbstractObjective) -> tuple[str, ...]:
    """Variables that data in memory do not determine where a fit begins.

    They are looked at beside the start, since special values such as an exponent of zero make
    alike what elsewhere is not; of data in a file nothing is said, as that takes a pass over it.
    """
    if not objective.traceable or not objective.names:
        return ()
    variables, start = objective.variables, jnp.asarray(objective.start)
    aside = 0.1 * jnp.cos(jnp.arange(1.0, 1.0 + start.size)) * variables.coordinate_scale
    x = physical_of(variables, coordinates_of(variables, start) + aside)
    hessian = np.asarray(_normal_matrix(objective, coordinates_of(variables, x)))
    unknown = inverse_of(hessian, np.ones(start.size, bool))[3]
    return tuple(name for name, one in zip(objective.names, unknown, strict=True) if one)


@quick_jit
def _normal_matrix(objective: AbstractObjective, y):
    return objective.evaluate(y, objective.memo)[0].hessian


def examine(fit: Fit, problem: Problem, searched: GlobalFit | None = None) -> list[Section]:
    """Look at a fit as `[output]` asks for. What fails is said in the report and ends nothing.

    A search that ended in a flat valley makes its fit suspicious as well.
    """
    output, out, failures = problem.settings.output, [], []
    if problem.settings.several:
        # What there is to look at is of one model; asking for it is refused.
        return out
    doubtful = suspicious(fit, problem.settings.verdict.condition) or (
        searched is not None and searched.flat
    )

    def attempt(what: str, make: Any) -> Any:
        try:
            return make()
        except (XPCSError, MemoryError) as error:
            failures.append(f"no {what}: {str(error) or 'the memory is used up'}")
            log.warning(failures[-1])
            return None

    if output.degeneracy is True or (output.degeneracy == "auto" and doubtful):
        few = fit.n_pairs <= _PROFILED_PAIRS or output.degeneracy is True
        report = attempt("profiles", lambda: degeneracy_report(fit, None if few else ()))
        out += degeneracy_sections(degeneracy_report(fit, ()) if report is None else report)
    if output.diagnostics:
        out.append(diagnostics_section(diagnose(fit)))
    if output.sequential is not None:
        (data,) = problem.data
        sequential = attempt("fits to single angles", lambda: _sequential(fit, problem, data))
        if sequential is not None:
            out.append(sequential_section(sequential))
    return [*out, Section("Not done", items(failures))] if failures else out


def _sequential(fit: Fit, problem: Problem, data: Any) -> SequentialFit:
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
        **bounds_of(problem.settings.scaling),
    )
