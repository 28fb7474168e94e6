"""The joint fit: solver, recovery, error bars and verdict over several data sets."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ..checkpoint import Checkpoints
from ..compiling import quick_jit
from ..objective import CombinedObjective
from ..objective.penalties import penalty_equations
from ..optimize import Recovery, Status, TrustRegion, TrustRegionState
from ..parameters import parameter_values, snap
from ..scaling import index_map
from ..uncertainty import reduced_chi2, sandwiches, variance_of_residual, without_degrees
from .fit import Fit, ParameterRow, Quality
from .joint import JointFit
from .joint_part import Part, parts_of, together
from .quality import Remarks, conditions_of, judge, remarks_on
from .rows import Entries, held_row
from .sharing import Sharing, sharing_test
from .solved import Finished, solved


def joint_least_squares(
    objective: CombinedObjective,
    start: Float[Array, "free"] | None = None,
    *,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    callback: Callable[[TrustRegionState], Any] | None = None,
    checkpoints: Checkpoints | None = None,
    every: int = 1,
    resume: bool = False,
) -> JointFit:
    """Fit several data sets together.

    Arguments and errors as in `least_squares`, for an objective from `combined_objective`.
    """
    clock = time.perf_counter()
    found = solved(
        objective,
        start,
        solver=solver,
        recovery=recovery,
        callback=callback,
        checkpoints=checkpoints,
        every=every,
        resume=resume,
    )
    return _result(found, time.perf_counter() - clock)


@quick_jit
def _derivatives(objective, y):
    """Physical parameters x, dx/dy, the parameters of each data set by x, and penalties in y."""
    parameters, whole = objective.parameters, objective.parameters.whole
    y = y[: whole.n_free]
    x = snap(whole, whole.to_physical(y))

    def local(x):
        return tuple(parameters.local(k, x) for k in range(len(parameters.maps)))

    penalty = penalty_equations(objective.penalties, whole, y, objective.noise)
    return x, jax.jacfwd(whole.to_physical)(y), jax.jacfwd(local)(x), penalty.hessian


def _result(found: Finished, seconds: float) -> JointFit:
    clock = time.perf_counter()
    objective, state = found.objective, found.state
    assert isinstance(objective, CombinedObjective)
    whole = objective.parameters.whole
    x, forward, derivatives, penalty = _derivatives(objective, state.y)
    parts = parts_of(objective, state, derivatives)
    count = sum(part.size for part in parts)
    on_whole = np.zeros((count + whole.n_free,) * 2)
    if whole.n_free:
        back = np.linalg.inv(np.asarray(forward))
        on_whole[count:, count:] = back.T @ np.asarray(penalty) @ back
    scores = together(parts, on_whole)

    def joined(name, physical):
        own = [np.asarray(getattr(part.at, name))[: part.size] for part in parts]
        return np.concatenate([*own, np.asarray(physical)])

    values, lower, upper = (
        joined(name, physical)
        for name, physical in (("values", x), ("lower", whole.lower), ("upper", whole.upper))
    )
    bound = (values <= lower) | (values >= upper)
    start = joined("start", np.asarray(found.start)[: whole.n_free])
    absolute = all(part.term.absolute_sigma for part in objective.parts)
    n_pairs = sum(int(part.at.joint.count) for part in parts)
    degrees = n_pairs - int(np.count_nonzero(~bound))
    chi2 = sum(float(part.at.residual_sum) for part in parts)
    data_cost = sum(float(part.at.data_cost) for part in parts)
    variance = variance_of_residual(scores, absolute, data_cost, n_pairs, n_pairs - degrees)
    names = tuple(
        f"{name}[{part.label}]"
        for part, one in zip(parts, objective.parts, strict=True)
        for name in one.term.scaling.names
    )
    names = (*names, *whole.free_names)
    uncertainty = sandwiches(scores, variance, ~bound, names)
    if degrees <= 0:
        uncertainty = without_degrees(uncertainty, ~bound)
    entries = Entries(names, values, lower, upper, start, bound, uncertainty)
    rows = _rows(objective, entries, count)
    sharing = sharing_test(tuple(part.estimate(bound) for part in parts if part.judged(bound)))
    status = Status(int(state.status))
    reduced = reduced_chi2(chi2, degrees)
    fits, remarks = _fits(found, entries, parts)
    every_row = (*rows, *(entries.row(i, "", "scaling") for i in range(count)))
    quality = judge(
        status,
        every_row,
        uncertainty,
        names,
        reduced if absolute else float("nan"),
        *_said_once(remarks),
        conditions=conditions_of(objective.penalties),
    )
    return JointFit(
        objective=objective,
        fits=fits,
        values=values,
        uncertainty=uncertainty,
        cost=state.equations.cost,
        chi2=np.asarray(chi2),
        history=found.ledger.as_history(),
        names=names,
        labels=objective.parameters.labels,
        rows=rows,
        sharing=sharing,
        status=status,
        message=status.message,
        n_pairs=n_pairs,
        degrees_of_freedom=degrees,
        reduced_chi2=reduced if absolute else float("nan"),
        residual_sd=float(np.sqrt(reduced)),
        evaluations=found.ledger.evaluations,
        iterations=found.ledger.iterations,
        timings=(("solver", seconds), ("uncertainty", time.perf_counter() - clock)),
        recovery=tuple(found.ledger.actions),
        quality=_with_sharing(quality, sharing),
        solver_name=found.solver_name,
    )


def _box(objective: CombinedObjective, k: int) -> dict[str, tuple[float, float]]:
    """Bounds of the varying parameters of data set `k` by its own names."""
    whole = objective.parameters.whole
    bounds = zip(np.asarray(whole.lower), np.asarray(whole.upper), strict=True)
    known = dict(zip(whole.free_names, bounds, strict=True))
    carriers = dict(objective.parameters.repeated)
    return {
        name: known[carriers.get(public, public)]
        for name, public in objective.parameters.public[k]
        if carriers.get(public, public) in known
    }


def _said_once(found: list[Remarks]) -> Remarks:
    """Negative rates and degeneracies of all data sets."""
    return (
        tuple(dict.fromkeys(name for negative, _ in found for name in negative)),
        tuple(dict.fromkeys(one for _, degenerate in found for one in degenerate)),
    )


def _with_sharing(quality: Quality, sharing: Sharing) -> Quality:
    if sharing.agree:
        return quality
    flag = "marginal" if quality.flag == "good" else quality.flag
    return Quality(flag, (sharing.finding(), *quality.findings))


def _rows(objective: CombinedObjective, entries: Entries, count: int) -> tuple[ParameterRow, ...]:
    """Every parameter once: those that only repeat a shared one are left out."""
    parameters = objective.parameters
    whole = parameters.whole
    x = entries.values[count:]
    fitted = parameter_values(whole.build(x))
    begin = parameter_values(whole.model)
    tied, repeated = dict(whole.ties), dict(parameters.repeated)
    rows = []
    for name, unit in zip(whole.names, whole.units, strict=True):
        if name in repeated:
            continue
        if name in whole.free_names:
            role = "shared" if name in parameters.shared else "separate"
            rows.append(entries.row(count + whole.free_names.index(name), unit, role))
        else:
            role = "tied" if name in tied else "fixed"
            rows.append(held_row(name, float(fitted[name]), unit, float(begin[name]), role))
    return tuple(rows)


def _fits(
    found: Finished, entries: Entries, parts: list[Part]
) -> tuple[tuple[Fit, ...], list[Remarks]]:
    """The joint fit as each data set sees it, and what `remarks_on` it."""
    objective = found.objective
    assert isinstance(objective, CombinedObjective)
    whole, status = objective.parameters.whole, Status(int(found.state.status))
    models = objective.parameters.models(entries.values[sum(part.size for part in parts) :])
    fits, remarks = [], []
    for k, (part, one) in enumerate(zip(parts, objective.parts, strict=True)):
        local, at = objective.parameters.maps[k], part.at
        index = index_map(one.term.scaling, local.free_names)
        uncertainty = part.carried(entries.uncertainty)
        values, lower, upper = (np.asarray(a) for a in (at.values, at.lower, at.upper))
        begin = np.asarray(objective.parameters.local(k, whole.start))
        start = np.concatenate([np.asarray(at.start), begin])
        bound = part.on_bound(entries.bound)
        own = Entries(index.names, values, lower, upper, start, bound, uncertainty)
        roles = objective.parameters.roles(k)
        fitted = parameter_values(models[k])
        rows = []
        for name, unit in zip(local.names, local.units, strict=True):
            if name in local.free_names:
                rows.append(own.row(index.names.index(name), unit, roles[name]))
            else:
                value = float(fitted[name])
                rows.append(held_row(name, value, unit, value, "fixed"))
        rows += [own.row(i, "", "scaling") for i in range(part.size)]
        n_pairs = int(at.joint.count)
        reduced = reduced_chi2(float(at.residual_sum), n_pairs - part.size)
        shown = reduced if one.term.absolute_sigma else float("nan")
        box = _box(objective, k)
        remarks.append(remarks_on(models[k], one.term.t, one.term.geometry, box))
        fits.append(
            Fit(
                objective=one,
                model=models[k],
                contrast=np.asarray(at.per_angle)[:, 0],
                offset=np.asarray(at.per_angle)[:, 1],
                values=values,
                uncertainty=uncertainty,
                cost=at.data_cost,
                chi2=np.asarray(at.residual_sum),
                history=found.ledger.as_history(),
                joint_hessian=np.asarray(at.joint.hessian),
                index=index,
                rows=tuple(rows),
                status=status,
                message=status.message,
                n_pairs=n_pairs,
                degrees_of_freedom=n_pairs - part.size,
                reduced_chi2=shown,
                residual_sd=float(np.sqrt(reduced)),
                evaluations=found.ledger.evaluations,
                iterations=found.ledger.iterations,
                timings=(),
                recovery=(),
                quality=judge(status, tuple(rows), uncertainty, index.names, shown, *remarks[k]),
                solver_name=found.solver_name,
            )
        )
    return tuple(fits), remarks
