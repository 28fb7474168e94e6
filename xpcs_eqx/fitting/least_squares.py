"""The local fit: solver, recovery, error bars, verdict."""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..errors import FitError, ModelError
from ..objective import HostLoop, JointObjective, ProjectedObjective
from ..optimize import (
    History,
    Recovery,
    Status,
    TrustRegion,
    TrustRegionState,
    iterate_host,
)
from ..parameters import parameter_values
from ..physics import time_floor
from ..scaling import index_map
from ..uncertainty import optimum, uncertainty_at
from .compile_ahead import compiled_ahead
from .fit import Fit, ParameterRow, RecoveryAction
from .quality import judge


def _attempt(solver, objective, x, callback):
    """One run of the solver; falls back to the host loop when memory is short."""
    try:
        return objective, iterate_host(solver, objective, x, callback=callback), None
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        short = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
        if not short or isinstance(objective.term.driver, HostLoop):
            raise
    objective = eqx.tree_at(lambda o: o.term.driver, objective, HostLoop())
    action = RecoveryAction("out of memory", "tiles summed one by one", "retried")
    return objective, iterate_host(solver, objective, x, callback=callback), action


def _better(new: TrustRegionState, old: TrustRegionState) -> bool:
    new_cost, old_cost = float(new.equations.cost), float(old.equations.cost)
    if not np.isfinite(new_cost):
        return False
    if not np.isfinite(old_cost) or int(old.status) == Status.non_finite:
        return True
    # Of two equal minima the converged one counts.
    tie = abs(new_cost - old_cost) <= 1e-10 * abs(old_cost)
    if tie:
        return int(new.status) > 0 >= int(old.status)
    return new_cost < old_cost


def least_squares(
    objective: ProjectedObjective | JointObjective,
    start: Float[Array, "free"] | None = None,
    *,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    callback: Callable[[TrustRegionState], Any] | None = None,
) -> Fit:
    """Fit an objective to its data.

    **Arguments:**

    - `objective`: from `projected_objective`, `joint_objective` or `two_time_objective`.
    - `start`: physical start values of the variables; by default the objective's own.
    - `solver`: a `TrustRegion`; its fields are tolerances, descent and search.
    - `recovery`: what to do about a fit that fails or is stuck; every action is in the result.
    - `callback`: sees the solver state after each evaluation; a true value stops the fit.

    **Returns:** a `Fit`. A fit that does not converge is returned with its status and its best
    parameters; nothing is raised for it.

    **Raises:** `ModelError` for a start of the wrong shape or outside the bounds; `FitError` when
    the model is not finite at the start and at every recovery of it.
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
    with compiled_ahead(solver, objective, first):
        objective, best, memory_action = _attempt(solver, objective, first, callback)
    actions = [memory_action] if memory_action else []
    evaluations, histories = int(best.evaluations), [_trim(best)]
    iterations = int(best.accepted)
    cause = _cause(recovery, variables, first, best)
    tried = 0
    while cause is not None and tried < recovery.attempts:
        plan = recovery.plan(cause, tried, variables, first, best, solver)
        objective, state, memory_action = _attempt(plan.solver, objective, plan.x, callback)
        evaluations += int(state.evaluations)
        iterations += int(state.accepted)
        histories.append(_trim(state))
        won = _better(state, best)
        new_cost = float(state.equations.cost)
        outcome = f"cost {new_cost:.8g}, {'kept' if won else 'no better than before'}"
        actions.append(RecoveryAction(cause, plan.action, outcome))
        best = state if won else best
        tried += 1
        if cause == "at bounds" and not won:
            # The bound is where the minimum is; asking again would only cost time.
            break
        cause = _cause(recovery, variables, first, best)
    if int(best.status) == Status.non_finite:
        raise FitError(
            "the model gives no finite cost at the start "
            f"{dict(zip(objective.names, np.asarray(first).tolist(), strict=True))}, nor at "
            f"{tried} starts near it; check the start values and the data"
        )
    if cause is not None and cause != "at bounds" and tried >= recovery.attempts > 0:
        best = eqx.tree_at(lambda s: s.status, best, jnp.asarray(int(Status.failed)))
    solved = time.perf_counter()
    joined: list[Any] = [np.concatenate(parts) for parts in zip(*histories, strict=True)]
    history = History(*joined)
    return _result(
        objective,
        best,
        first,
        history,
        solver,
        tuple(actions),
        evaluations,
        iterations,
        (("solver", solved - clock),),
    )


def _cause(recovery, variables, start, state):
    if int(state.status) == Status.interrupted:
        return None
    return recovery.diagnose(variables, start, state)


def _trim(state):
    n = int(state.evaluations)
    h = state.history
    return tuple(np.asarray(a)[:n] for a in (h.cost, h.gradient, h.step_size, h.accepted))


def _result(
    objective, state, start, history, solver, actions, evaluations, iterations, timings
) -> Fit:
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
        history=history,
        joint_hessian=np.asarray(at.joint.hessian),
        index=index,
        rows=rows,
        status=status,
        message=status.message,
        n_pairs=n_pairs,
        degrees_of_freedom=degrees,
        reduced_chi2=reduced if term.absolute_sigma else float("nan"),
        residual_sd=float(np.sqrt(reduced)),
        evaluations=evaluations,
        iterations=iterations,
        timings=(*timings, ("uncertainty", time.perf_counter() - clock)),
        recovery=actions,
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
