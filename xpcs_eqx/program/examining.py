"""What is looked at after a fit as a configuration asks: degeneracy, single angles, g2 at ages."""

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..config.build import Problem
from ..config.tables import COMBINATIONS
from ..config.tables.scaling import bounds_of
from ..errors import XPCSError
from ..fitting import (
    AgedG2,
    Fit,
    SequentialFit,
    Thresholds,
    degeneracy_report,
    diagnose,
    g2_at_ages,
    sequential_least_squares,
)
from ..objective import AbstractObjective
from ..objective.two_time import loss_of
from ..optimize import evaluated
from ..parameters.variables import coordinates_of, physical_of
from ..report.analyses import (
    G2_ANGLES,
    degeneracy_sections,
    diagnostics_section,
    g2_section,
    sequential_section,
)
from ..report.fit import folders_of
from ..report.maps import chosen_angles
from ..report.sections import Section, items
from ..search import GlobalFit
from ..uncertainty.uncertainty import inverse_of, touched

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
    equations, _ = evaluated(objective, coordinates_of(variables, x), objective.memo)
    steps = inverse_of(np.asarray(equations.hessian), np.ones(start.size, bool))[3]
    return tuple(name for name, one in zip(objective.names, touched(steps), strict=True) if one)


def examine(fit: Fit, problem: Problem, searched: GlobalFit | None = None) -> list[Section]:
    """Look at a fit as `[output]` asks for. What fails is said in the report and ends nothing.

    A search that ended in a flat valley makes its fit suspicious as well.
    """
    output, out, failures = problem.settings.output, [], []
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

    def of_each(what: str, find: Callable[..., Any], told: Callable[..., Section]) -> None:
        """A section of each data set, but for what fails."""
        for k, (label, name) in enumerate(folders_of(fit).items()):
            of = f" of {label}" if name else ""
            found = attempt(f"{what}{of}", lambda k=k: find(fit, problem, k))
            if found is not None:
                out.append(told(found, label, name))

    if output.sequential is not None:
        of_each("fits to single angles", _sequential, sequential_section)
    if output.g2_ages is not None:
        of_each("g2 at ages", _curves, g2_section)
    return [*out, Section("Not done", items(failures))] if failures else out


def _curves(fit: Fit, problem: Problem, k: int) -> tuple[AgedG2, ...]:
    """g2(τ) at ages of data set `k`, of at most four angles."""
    output, data = problem.settings.output, problem.data[k]
    assert output.g2_ages is not None
    return g2_at_ages(
        data,  # pyright: ignore[reportArgumentType]
        output.g2_ages,
        width=output.g2_width,
        angles=chosen_angles(data.n_angles, G2_ANGLES),
        beside=tuple(fit.parts.values())[k],
    )


def _sequential(fit: Fit, problem: Problem, k: int) -> SequentialFit:
    """Fits of the angles of data set `k` by themselves."""
    assert problem.settings.output.sequential is not None
    part, data = tuple(fit.parts.values())[k], problem.data[k]
    loss: Any = loss_of(part.objective)
    if "scale" in vars(loss):
        # Residuals of a joint fit are multiplied by the root of the weight of their data set.
        loss = dataclasses.replace(loss, scale=loss.scale / math.sqrt(problem.weights[k]))
    return sequential_least_squares(
        part.objective.term.parameters,
        data,  # pyright: ignore[reportArgumentType]
        combination=COMBINATIONS[problem.settings.output.sequential](),
        loss=loss,
        solver=problem.solver,
        recovery=problem.recovery,
        # Where all angles together ended: what differs at one angle is then its own.
        start=part.values[part.index.physical],
        **bounds_of(problem.settings.scaling),
    )
