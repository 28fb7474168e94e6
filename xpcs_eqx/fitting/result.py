"""From an optimum, however it was found, to a fit: error bars, table of parameters, verdict."""

import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ..hybrid import HybridResult
from ..objective import JointObjective, Memo, ProjectedObjective
from ..optimize import History, Status
from ..parameters import ParameterMap, parameter_values
from ..scaling import index_map
from ..uncertainty import optimum, reduced_chi2, uncertainty_at
from .attempts import RecoveryAction
from .fit import Fit, ParameterRow
from .outer import OuterHistory
from .quality import conditions_of, judge, remarks_on
from .rows import Entries, held_row
from .scaling_check import scaling_check


class Found(NamedTuple):
    """The point where a solver ended, and how it got there.

    - `y`, `memo`, `cost`: coordinates with what the evaluation there gave; `start`: physical.
    - `timings`: seconds by phase of the solver; the other fields as in `Fit`.
    """

    objective: ProjectedObjective | JointObjective
    y: Float[Array, "variable"]
    memo: Memo
    cost: Float[Array, ""]
    start: Float[np.ndarray, "variable"]
    status: Status
    history: History
    evaluations: int
    iterations: int
    recovery: tuple[RecoveryAction, ...]
    timings: tuple[tuple[str, float], ...]
    solver_name: str
    hybrid: HybridResult | None = None
    outer: OuterHistory | None = None


def fit_of(found: Found) -> Fit:
    """Parameters, error bars and verdict at an optimum."""
    clock = time.perf_counter()
    objective, status = found.objective, found.status
    term = objective.term
    parameters, scaling = term.parameters, term.scaling
    index = index_map(scaling, parameters.free_names)
    at = optimum(objective, found.y, found.memo)
    values, lower, upper = (np.asarray(a) for a in (at.values, at.lower, at.upper))
    bound = (values <= lower) | (values >= upper)
    uncertainty = uncertainty_at(objective, at, ~bound, index.names)
    check = scaling_check(objective, at, found.memo, uncertainty, ~bound)
    x = values[index.physical]
    model = parameters.build(x)
    n_pairs = int(at.joint.count)
    degrees = n_pairs - int(np.count_nonzero(~bound))
    chi2 = float(at.residual_sum)
    start = np.concatenate([found.start[: parameters.n_free], np.asarray(at.start)])
    start = start[np.r_[parameters.n_free : start.size, 0 : parameters.n_free]]
    rows = _rows(
        parameters, model, Entries(index.names, values, lower, upper, start, bound, uncertainty)
    )
    reduced = reduced_chi2(chi2, degrees)
    quality = judge(
        status,
        rows,
        uncertainty,
        index.names,
        reduced if term.absolute_sigma else float("nan"),
        *remarks_on(model, term.t, term.geometry, _box(parameters)),
        conditions=conditions_of(objective.penalties, objective.scaling_penalties),
        scaling=check,
    )
    return Fit(
        objective=objective,
        model=model,
        contrast=np.asarray(at.per_angle)[:, 0],
        offset=np.asarray(at.per_angle)[:, 1],
        values=values,
        uncertainty=uncertainty,
        cost=found.cost,
        chi2=np.asarray(chi2),
        history=found.history,
        joint_hessian=np.asarray(at.joint.hessian),
        index=index,
        rows=rows,
        status=status,
        message=status.message,
        n_pairs=n_pairs,
        degrees_of_freedom=degrees,
        reduced_chi2=reduced if term.absolute_sigma else float("nan"),
        residual_sd=float(np.sqrt(reduced)),
        evaluations=found.evaluations,
        iterations=found.iterations,
        timings=(*found.timings, ("uncertainty", time.perf_counter() - clock)),
        recovery=found.recovery,
        quality=quality,
        solver_name=found.solver_name,
        hybrid=found.hybrid,
        outer=found.outer,
        scaling_check=check,
    )


def _box(parameters: ParameterMap) -> dict[str, tuple[float, float]]:
    """Bounds of the free parameters by name."""
    bounds = zip(np.asarray(parameters.lower), np.asarray(parameters.upper), strict=True)
    return dict(zip(parameters.free_names, bounds, strict=True))


def _rows(parameters: ParameterMap, model, entries: Entries) -> tuple[ParameterRow, ...]:
    """Every parameter of the model, then the scaling coefficients."""
    fitted, template = parameter_values(model), parameter_values(parameters.model)
    tied = dict(parameters.ties)
    rows = []
    for name, unit in zip(parameters.names, parameters.units, strict=True):
        if name in parameters.free_names:
            rows.append(entries.row(entries.names.index(name), unit, "free"))
        else:
            role = "tied" if name in tied else "fixed"
            rows.append(held_row(name, float(fitted[name]), unit, float(template[name]), role))
    scaling = range(len(entries.names) - parameters.n_free)
    return (*rows, *(entries.row(i, "", "scaling") for i in scaling))
