"""The local fit: solver, recovery, error bars, verdict."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from ..checkpoint import Checkpoints
from ..objective import JointObjective, ProjectedObjective
from ..optimize import Recovery, Status, TrustRegion, TrustRegionState
from ..parameters import ParameterMap, parameter_values
from ..scaling import index_map
from ..uncertainty import optimum, uncertainty_at
from .fit import Fit, ParameterRow
from .quality import judge, remarks_on
from .rows import Entries, held_row
from .solved import Finished, solved


def least_squares(
    objective: ProjectedObjective | JointObjective,
    start: Float[Array, "free"] | None = None,
    *,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    callback: Callable[[TrustRegionState], Any] | None = None,
    checkpoints: Checkpoints | None = None,
    every: int = 1,
    resume: bool = False,
) -> Fit:
    """Fit an objective to its data.

    **Arguments:**

    - `objective`: from `projected_objective`, `joint_objective` or `two_time_objective`.
    - `start`: physical start values of the variables; by default the objective's own.
    - `solver`: a `TrustRegion`; its fields are tolerances, descent and search.
    - `recovery`: what to do about a fit that fails or is stuck; every action is in the result.
    - `callback`: sees the solver state after each evaluation; a true value stops the fit.
    - `checkpoints`: `Checkpoints(folder)`: the fit is written there at most every `interval`
        seconds, after each `every`-th evaluation, and when it is stopped by an interrupt, an error
        or the callback. The folder is left to the caller, who may `clear` it at the end.
    - `resume`: go on from the newest checkpoint, or begin when there is none. The fit ends where
        one that was never stopped does, with the same evaluations.

    **Returns:** a `Fit`. A fit that does not converge is returned with its status and its best
    parameters; nothing is raised for it.

    **Raises:** `ModelError` for a start of the wrong shape or outside the bounds; `FitError` when
    the model is not finite at the start and at every recovery of it; `CheckpointError` for a
    checkpoint that is damaged, newer or of another problem, and without `resume` for any.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> truth = xe.Static(xe.PowerLawRate(1.5e4, -0.3, 0.0))
    >>> t, geometry = 0.2 * np.arange(20), xe.Geometry(0.0054, np.array([0.0]))
    >>> data = xe.simulate(truth, t, geometry, 0.2, noise=0.002, key=jax.random.key(0))
    >>> start = xe.Static(xe.PowerLawRate(1e4, 0.0, 0.0))
    >>> parameters = xe.parameter_map(start, data.t, fixed=("D_offset",))
    >>> fit = xe.least_squares(xe.projected_objective(parameters, data))
    >>> fit.success, fit.quality.flag
    (True, 'good')
    >>> abs(fit["alpha"].value + 0.3) < 4 * fit["alpha"].error
    True
    >>> interval = xe.profile_interval(fit, "alpha")
    >>> interval.low < fit["alpha"].value < interval.high
    True
    """
    return _result(
        solved(
            objective,
            start,
            solver=solver,
            recovery=recovery,
            callback=callback,
            checkpoints=checkpoints,
            every=every,
            resume=resume,
        )
    )


def _result(found: Finished) -> Fit:
    clock = time.perf_counter()
    objective, state, ledger = found.objective, found.state, found.ledger
    assert isinstance(objective, ProjectedObjective | JointObjective)
    term = objective.term
    parameters, scaling = term.parameters, term.scaling
    index = index_map(scaling, parameters.free_names)
    at = optimum(objective, state.y, state.memo)
    values, lower, upper = (np.asarray(a) for a in (at.values, at.lower, at.upper))
    bound = (values <= lower) | (values >= upper)
    uncertainty = uncertainty_at(objective, at, ~bound, index.names)
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
    status = Status(int(state.status))
    reduced = chi2 / max(degrees, 1)
    quality = judge(
        status,
        rows,
        uncertainty,
        index.names,
        reduced if term.absolute_sigma else float("nan"),
        *remarks_on(model, term.t, term.geometry, _box(parameters)),
    )
    return Fit(
        objective=objective,
        model=model,
        contrast=np.asarray(at.per_angle)[:, 0],
        offset=np.asarray(at.per_angle)[:, 1],
        values=values,
        uncertainty=uncertainty,
        cost=state.equations.cost,
        chi2=np.asarray(chi2),
        history=ledger.as_history(),
        joint_hessian=np.asarray(at.joint.hessian),
        index=index,
        rows=rows,
        status=status,
        message=status.message,
        n_pairs=n_pairs,
        degrees_of_freedom=degrees,
        reduced_chi2=reduced if term.absolute_sigma else float("nan"),
        residual_sd=float(np.sqrt(reduced)),
        evaluations=ledger.evaluations,
        iterations=ledger.iterations,
        timings=(("solver", found.seconds), ("uncertainty", time.perf_counter() - clock)),
        recovery=tuple(ledger.actions),
        quality=quality,
        solver_name=found.solver_name,
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
