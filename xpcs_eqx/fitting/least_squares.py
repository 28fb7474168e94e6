"""The local fit: solver, recovery, error bars, verdict."""

import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..checkpoint import Checkpoints
from ..compiling import quick_jit
from ..errors import CheckpointError, FitError, ModelError
from ..objective import JointObjective, ProjectedObjective
from ..optimize import Recovery, Status, TrustRegion, TrustRegionState
from ..parameters import parameter_values
from ..physics import time_floor
from ..scaling import index_map
from ..uncertainty import optimum, uncertainty_at
from .attempts import solve
from .compile_ahead import compiled_ahead
from .fit import Fit, ParameterRow
from .quality import judge
from .recording import earlier, recorded


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
    """
    solver = TrustRegion() if solver is None else solver
    recovery = Recovery() if recovery is None else recovery
    variables = objective.variables
    first = np.asarray(objective.start if start is None else start, dtype=float)
    if first.shape != objective.start.shape:
        raise ModelError(f"the start has shape {first.shape}, the fit {objective.start.shape}")
    outside = np.flatnonzero((first < variables.lower) | (first > variables.upper))
    if outside.size:
        i = int(outside[0])
        raise ModelError(
            f"the start {float(first[i]):g} of {objective.names[i]} lies outside its bounds "
            f"[{float(variables.lower[i]):g}, {float(variables.upper[i]):g}]"
        )
    clock = time.perf_counter()
    underway = None
    if checkpoints is not None:
        checkpoints = checkpoints.belonging_to("trust region", objective, first, solver, recovery)
        underway = earlier(checkpoints, resume, solver, objective, first)
    elif resume:
        raise CheckpointError("resume needs the checkpoints to go on from; give checkpoints=")
    with (
        recorded(checkpoints, every, callback) as watch,
        compiled_ahead(solver, objective, first),
    ):
        objective, best, ledger = solve(objective, first, solver, recovery, watch, underway)
    if int(best.status) == Status.non_finite:
        raise FitError(
            "the model gives no finite cost at the start "
            f"{dict(zip(objective.names, np.asarray(first).tolist(), strict=True))}, nor at "
            f"{ledger.tried} starts near it; check the start values and the data"
        )
    solved = time.perf_counter()
    return _result(
        objective,
        best,
        first,
        solver,
        ledger,
        (("solver", solved - clock),),
    )


def _result(objective, state, start, solver, ledger, timings) -> Fit:
    clock = time.perf_counter()
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
    start = np.concatenate([np.asarray(start)[: parameters.n_free], np.asarray(at.start)])
    rows = _rows(objective, model, start, values, lower, upper, bound, uncertainty, index)
    status = Status(int(state.status))
    reduced = chi2 / max(degrees, 1)
    quality = judge(
        status,
        rows,
        uncertainty,
        index.names,
        reduced if term.absolute_sigma else float("nan"),
        _negative_rates(model, term.t),
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
        timings=(*timings, ("uncertainty", time.perf_counter() - clock)),
        recovery=tuple(ledger.actions),
        quality=quality,
        solver_name=f"trust region, {type(solver.descent).__name__}",
    )


@quick_jit
def _rate(rate, t):
    return rate(jnp.maximum(t, time_floor(t)))


def _negative_rates(model, t):
    """Fields with rates that must not be negative and are, somewhere at the frame times."""
    return tuple(
        name
        for name in model.positive_rates
        if np.any(np.asarray(_rate(getattr(model, name), t)) < 0)
    )


def _rows(objective, model, start, values, lower, upper, bound, uncertainty, index):
    term = objective.term
    parameters = term.parameters
    errors = {
        kind: np.asarray(uncertainty.errors(kind)) for kind in ("classical", "speckle", "dyadic")
    }
    position = {name: i for i, name in enumerate(index.names)}
    k = term.scaling.size
    begin = dict(zip(parameters.free_names, np.asarray(start), strict=False))
    fitted, template = parameter_values(model), parameter_values(parameters.model)
    tied = dict(parameters.ties)
    nan = float("nan")
    rows = []
    for name, unit in zip(parameters.names, parameters.units, strict=True):
        i = position.get(name)
        if i is None:
            role = "tied" if name in tied else "fixed"
            value = float(fitted[name])
            rows.append(
                ParameterRow(
                    name,
                    value,
                    nan,
                    nan,
                    nan,
                    nan,
                    unit,
                    nan,
                    nan,
                    float(template[name]),
                    role,
                    False,
                )
            )
            continue
        rows.append(
            _row(
                name, i, unit, "free", begin[name], values, lower, upper, bound, errors, uncertainty
            )
        )
    scaling_start = np.asarray(start)[len(parameters.free_names) :]
    for i in range(k):
        name = index.names[i]
        rows.append(
            _row(
                name,
                i,
                "",
                "scaling",
                scaling_start[i],
                values,
                lower,
                upper,
                bound,
                errors,
                uncertainty,
            )
        )
    return tuple(rows)


def _row(name, i, unit, role, start, values, lower, upper, bound, errors, uncertainty):
    def error(kind):
        return float("nan") if bound[i] else float(errors[kind][i])

    return ParameterRow(
        name,
        float(values[i]),
        error(uncertainty.chosen),
        error("classical"),
        error("speckle"),
        error("dyadic"),
        unit,
        float(lower[i]),
        float(upper[i]),
        float(start),
        role,
        bool(bound[i]),
    )
