"""From a solution to a fit: error bars, table of parameters, verdict."""

import dataclasses
import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..compiling import quick_jit
from ..errors import CovarianceWarning, ModelError
from ..objective import (
    CombinedObjective,
    CurveObjective,
    Linear,
    TwoTimeObjective,
    not_finite,
)
from ..objective.penalties import penalty_equations
from ..optimize import Status, at_bound
from ..parameters import ParameterMap, parameter_values, snap
from ..physics import AbstractCorrelation
from ..scaling import index_map
from ..uncertainty import (
    CurveErrors,
    Uncertainty,
    curve_errors,
    optimum,
    reduced_chi2,
    uncertainty_at,
    uncertainty_from,
)
from ..uncertainty.covariance import Optimum
from .fit import Fit, FittedModel, ParameterRow
from .parts import parts_of, together
from .quality import Remarks, conditions_of, judge, remarks_on
from .scaling_check import ScalingCheck, scaling_check
from .sharing import sharing_test
from .solution import Run, Solution

_NAN = float("nan")


def check_fittable(objective: Any, what: str) -> None:
    """Refuse an objective from which no result can be made; `what` was asked for it.

    **Raises:** `ModelError` naming those that can be fitted.
    """
    known = TwoTimeObjective | CombinedObjective | CurveObjective
    if not isinstance(objective, known):
        raise ModelError(
            f"{what} ends with a result that has error bars, and knows of none for an objective "
            f"of type {type(objective).__name__}: give one of projected_objective, "
            "two_time_objective or curve_objective; for any other, "
            "search.cma_search finds the lowest point, and fitting.solve the next"
        )


def fit_of(solution: Solution) -> Fit:
    """Parameters, error bars and verdict at a solution.

    **Raises:** `ModelError` for an objective of which no error bars are known.
    """
    clock = time.perf_counter()
    objective = solution.objective
    check_fittable(objective, "a fit")
    if isinstance(objective, CombinedObjective):
        fit = _of_several(objective, solution)
    elif isinstance(objective, CurveObjective):
        fit = _of_curve(objective, solution)
    else:
        fit = _of_one(objective, solution)  # pyright: ignore[reportArgumentType]
    timings = (*fit.run.timings, ("uncertainty", time.perf_counter() - clock))
    return dataclasses.replace(fit, run=dataclasses.replace(fit.run, timings=timings))


class _Entries(NamedTuple):
    """The fitted entries of a flat vector with all that a table says of them."""

    names: tuple[str, ...]
    values: Float[np.ndarray, "entry"]
    lower: Float[np.ndarray, "entry"]
    upper: Float[np.ndarray, "entry"]
    start: Float[np.ndarray, "entry"]
    bound: Bool[np.ndarray, "entry"]
    uncertainty: Uncertainty

    def row(self, i: int, unit: str, role: str) -> ParameterRow:
        """The line of entry `i`; an entry on its bound has no error."""

        def error(kind: str) -> float:
            return _NAN if self.bound[i] else float(self.uncertainty.errors(kind)[i])

        return ParameterRow(
            name=self.names[i],
            value=float(self.values[i]),
            error=error(self.uncertainty.chosen),
            error_classical=error("classical"),
            error_speckle=error("speckle"),
            error_dyadic=error("dyadic"),
            unit=unit,
            lower=float(self.lower[i]),
            upper=float(self.upper[i]),
            start=float(self.start[i]),
            role=role,
            at_bound=bool(self.bound[i]),
        )


def _rows(
    parameters: ParameterMap, model: Any, entries: _Entries, roles: Mapping[str, str]
) -> tuple[ParameterRow, ...]:
    """The parameters of a model that have a role, then the scaling coefficients."""
    fitted, template = parameter_values(model), parameter_values(parameters.model)
    rows = []
    for name, unit in zip(parameters.names, parameters.units, strict=True):
        if name in parameters.free_names:
            rows.append(entries.row(entries.names.index(name), unit, roles[name]))
        elif name in roles:
            # Not fitted by itself: without error, and without bounds of its own.
            held, begun = float(fitted[name]), float(template[name])
            four = (_NAN, _NAN, _NAN, _NAN)
            rows.append(
                ParameterRow(name, held, *four, unit, _NAN, _NAN, begun, roles[name], False)
            )
    scaling = range(len(entries.names) - parameters.n_free)
    return (*rows, *(entries.row(i, "", "scaling") for i in scaling))


def _roles(parameters: ParameterMap, free: Mapping[str, str]) -> dict[str, str]:
    """Roles of all parameters; `free` has those of the free ones."""
    tied = dict(parameters.ties)
    return {name: free.get(name, "tied" if name in tied else "fixed") for name in parameters.names}


def _fit(
    objective: Any,
    run: Run,
    entries: _Entries,
    rows: tuple[ParameterRow, ...],
    *,
    cost: Float[Array, ""],
    chi2: float,
    n_pairs: int,
    unknowns: int,
    absolute: bool,
    remarks: Remarks = ((), ()),
    conditions: tuple[str, ...] = (),
    **parts: Any,
) -> Fit:
    """Figures of merit and verdict; `unknowns` is the number of degrees of freedom used up."""
    degrees = n_pairs - unknowns
    reduced = reduced_chi2(chi2, degrees)
    shown = reduced if absolute else _NAN
    fitted = parts.get("fitted")
    quality = judge(
        run.status,
        rows,
        entries.uncertainty,
        entries.names,
        shown,
        *remarks,
        conditions=conditions,
        scaling=None if fitted is None else fitted.scaling_check,
        sharing=parts.get("sharing"),
    )
    return Fit(
        objective=objective,
        values=entries.values,
        uncertainty=entries.uncertainty,
        cost=cost,
        chi2=np.asarray(chi2),
        run=run,
        names=entries.names,
        rows=rows,
        n_pairs=n_pairs,
        degrees_of_freedom=degrees,
        reduced_chi2=shown,
        residual_sd=float(np.sqrt(reduced)),
        quality=quality,
        **parts,
    )


def _of_data_set(
    objective: TwoTimeObjective,
    at: Optimum,
    run: Run,
    model: AbstractCorrelation,
    bound: Bool[np.ndarray, "entry"],
    uncertainty: Uncertainty,
    *,
    begin: Float[np.ndarray, "free"],
    roles: Mapping[str, str],
    box: Mapping[str, tuple[float, float]],
    check: ScalingCheck | None = None,
    **figures: Any,
) -> Fit:
    """The fit of a data set, by itself or as a part of a joint one.

    - `bound`, `uncertainty`: of its entries; `begin`: start of its free parameters; `box`: bounds
        of those that vary, which a part of a joint fit has from the whole.
    """
    term = objective.term
    parameters = term.parameters
    index = index_map(term.scaling, parameters.free_names)
    values = np.asarray(at.values)
    free = [box.get(name, (_NAN, _NAN)) for name in parameters.free_names]
    lower, upper = (
        np.concatenate(
            [np.asarray(of_scaling)[: at.coefficients.shape[0]], [one[side] for one in free]]
        )
        for side, of_scaling in enumerate((at.lower, at.upper))
    )
    start = np.concatenate([np.asarray(at.start), begin])
    entries = _Entries(index.names, values, lower, upper, start, bound, uncertainty)
    contrast, offset = np.asarray(at.per_angle).T
    return _fit(
        objective,
        run,
        entries,
        _rows(parameters, model, entries, roles),
        chi2=float(at.residual_sum),
        n_pairs=int(at.joint.count),
        absolute=term.absolute_sigma,
        fitted=FittedModel(model, contrast, offset, np.asarray(at.joint.hessian), index, check),
        **figures,
    )


def _of_one(objective: TwoTimeObjective, solution: Solution) -> Fit:
    """The fit of one two-time data set."""
    term, run = objective.term, solution.run
    parameters = term.parameters
    at = optimum(objective, solution.y, solution.memo)
    values = np.asarray(at.values)
    bound = (values <= np.asarray(at.lower)) | (values >= np.asarray(at.upper))
    index = index_map(term.scaling, parameters.free_names)
    uncertainty = uncertainty_at(objective, at, ~bound, index.names)
    model = parameters.build(values[index.physical])
    box = _box(parameters)
    return _of_data_set(
        objective,
        at,
        run,
        model,
        bound,
        uncertainty,
        begin=run.start[: parameters.n_free],
        roles=_roles(parameters, dict.fromkeys(box, "free")),
        box=box,
        check=scaling_check(objective, at, solution.memo, uncertainty, ~bound),
        cost=solution.cost,
        unknowns=int(np.count_nonzero(~bound)),
        remarks=remarks_on(model, term.t, term.geometry, box),
        conditions=conditions_of(objective.penalties, objective.scaling_penalties),
    )


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


def _of_several(objective: CombinedObjective, solution: Solution) -> Fit:
    """The fit of several two-time data sets together."""
    run, whole = solution.run, objective.parameters.whole
    x, forward, derivatives, penalty = _derivatives(objective, solution.y)
    parts = parts_of(objective, solution, derivatives)
    count = sum(part.size for part in parts)
    on_whole = np.zeros((count + whole.n_free,) * 2)
    if whole.n_free:
        back = np.linalg.inv(np.asarray(forward))
        on_whole[count:, count:] = back.T @ np.asarray(penalty) @ back

    def joined(name, physical):
        own = [np.asarray(getattr(part.at, name))[: part.size] for part in parts]
        return np.concatenate([*own, np.asarray(physical)])

    values, lower, upper, start = (
        joined(name, physical)
        for name, physical in (
            ("values", x),
            ("lower", whole.lower),
            ("upper", whole.upper),
            ("start", run.start[: whole.n_free]),
        )
    )
    bound = (values <= lower) | (values >= upper)
    absolute = all(part.term.absolute_sigma for part in objective.parts)
    n_pairs = sum(int(part.at.joint.count) for part in parts)
    scaling = (
        f"{name}[{part.label}]"
        for part, one in zip(parts, objective.parts, strict=True)
        for name in one.term.scaling.names
    )
    names = (*scaling, *whole.free_names)
    data_cost = sum(float(part.at.data_cost) for part in parts)
    scores = together(parts, on_whole)
    uncertainty = uncertainty_from(scores, absolute, data_cost, n_pairs, ~bound, names)
    entries = _Entries(names, values, lower, upper, start, bound, uncertainty)
    shared, repeated = objective.parameters.shared, dict(objective.parameters.repeated)
    free = {name: "shared" if name in shared else "separate" for name in whole.free_names}
    roles = _roles(whole, free)
    # Every parameter once: those that only repeat a shared one are left out.
    roles = {name: role for name, role in roles.items() if name not in repeated}
    models = objective.parameters.models(values[count:])
    boxes = [_own_box(objective, k) for k in range(len(parts))]
    remarks = [
        remarks_on(model, one.term.t, one.term.geometry, box)
        for model, one, box in zip(models, objective.parts, boxes, strict=True)
    ]
    negative = tuple(dict.fromkeys(one for found, _ in remarks for one in found))
    degenerate = tuple(dict.fromkeys(one for _, found in remarks for one in found))
    data_sets = tuple(
        _of_data_set(
            one,
            part.at,
            run,
            models[k],
            part.on_bound(bound),
            part.carried(uncertainty),
            begin=np.asarray(objective.parameters.local(k, whole.start)),
            roles=objective.parameters.roles(k),
            box=boxes[k],
            cost=part.at.data_cost,
            unknowns=part.size,
            remarks=remarks[k],
            label=part.label,
            together=True,
        )
        for k, (part, one) in enumerate(zip(parts, objective.parts, strict=True))
    )
    estimates = tuple(part.estimate(bound) for part in parts if part.judged(bound))
    return _fit(
        objective,
        run,
        entries,
        _rows(whole, whole.build(values[count:]), entries, roles),
        cost=solution.cost,
        chi2=sum(float(part.at.residual_sum) for part in parts),
        n_pairs=n_pairs,
        unknowns=int(np.count_nonzero(~bound)),
        absolute=absolute,
        remarks=(negative, degenerate),
        conditions=conditions_of(objective.penalties),
        data_sets=data_sets,
        sharing=sharing_test(estimates),
    )


def _box(parameters: ParameterMap) -> dict[str, tuple[float, float]]:
    """Bounds of the free parameters by name."""
    bounds = zip(np.asarray(parameters.lower), np.asarray(parameters.upper), strict=True)
    return dict(zip(parameters.free_names, bounds, strict=True))


def _own_box(objective: CombinedObjective, k: int) -> dict[str, tuple[float, float]]:
    """Bounds of the varying parameters of data set `k` by its own names."""
    known, carriers = _box(objective.parameters.whole), dict(objective.parameters.repeated)
    carried = {own: carriers.get(public, public) for own, public in objective.parameters.public[k]}
    return {own: known[public] for own, public in carried.items() if public in known}


@quick_jit
def _influence(objective, y):
    return objective.influence(y)


@quick_jit
def _cost(objective, y):
    return objective.cost(y, None)


def _of(objective: CurveObjective, function: Any) -> Any:
    """The function, compiled where the points may be summed in one compiled loop."""
    return function if objective.traceable else function.function


def _residual_sum(objective: CurveObjective, solution: Solution) -> float:
    """Σ w r², which is twice the cost of least squares without penalties."""
    cost, linear = float(solution.cost), isinstance(objective.loss, Linear)
    if linear and not objective.penalties:
        return 2 * cost
    if not np.isfinite(cost):
        return cost
    return 2 * float(_of(objective, _cost)(objective.of_data(), solution.y))


def _curve_errors(
    objective: CurveObjective, solution: Solution, free: Bool[np.ndarray, "variable"], count: int
) -> CurveErrors:
    """Errors of a curve; without a matrix where JᵀJ is not formed."""
    hessian, sums, penalty = solution.equations.hessian, None, None
    if not isinstance(objective.loss, Linear) and np.isfinite(float(solution.cost)):
        # The factors of a robust loss are made for good steps; errors need JᵀJ itself.
        if hessian is None:
            sums = objective.influence_sums(solution.y)
        else:
            hessian, sums = _of(objective, _influence)(objective, solution.y)
        if objective.penalties:
            penalty = objective.penalty_equations(jnp.asarray(solution.y)).hessian
    hessian, sums, penalty = jax.tree.map(np.asarray, (hessian, sums, penalty))
    return curve_errors(
        hessian,
        free,
        objective.names,
        cost=float(solution.cost),
        count=count,
        absolute_sigma=objective.absolute_sigma,
        sums=sums,
        penalty=penalty,
    )


def _of_curve(objective: CurveObjective, solution: Solution) -> Fit:
    """The fit of a curve. Warns of infinite errors by a `CovarianceWarning`."""
    variables, names, run = objective.variables, objective.names, solution.run
    values = np.asarray(variables.to_physical(jnp.asarray(solution.y)))
    bound = at_bound(variables, values)
    n_points = objective.points.survey(objective.model).count
    errors = _curve_errors(objective, solution, ~bound, n_points)
    sums = errors.sums
    lets_go = sums is not None and not objective.loss.convex and not sums.holds(values.size)
    if lets_go and run.status.converged:
        # It has run away from the data, to where the loss is flat.
        run = dataclasses.replace(run, status=Status.stalled, message=Status.stalled.message)
    message = run.message
    if not run.status.converged and solution.refused is not None:
        message += not_finite(objective, jnp.asarray(solution.refused))
    run = dataclasses.replace(run, message="; ".join(filter(None, (message, errors.remark))))
    # A fit that could not begin has not succeeded, and needs no warning beside.
    if errors.remark and run.status is not Status.non_finite:
        warnings.warn(errors.remark, CovarianceWarning, stacklevel=6)
    lower, upper = np.asarray(variables.lower), np.asarray(variables.upper)
    start = np.asarray(run.start)
    entries = _Entries(names, values, lower, upper, start, bound, errors.as_uncertainty())
    return _fit(
        objective,
        run,
        entries,
        tuple(entries.row(i, "", "free") for i in range(len(names))),
        cost=solution.cost,
        chi2=_residual_sum(objective, solution),
        n_pairs=n_points,
        unknowns=int(np.count_nonzero(~bound)),
        absolute=objective.absolute_sigma,
    )
