"""From a solution to a fit: error bars, table of parameters, verdict."""

import dataclasses
import time
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..errors import CovarianceWarning, DataError, ModelError
from ..objective import (
    CombinedObjective,
    CurveObjective,
    Linear,
    SpeckleLikelihood,
    TwoTimeObjective,
    TwoTimeTerm,
    forms_maps,
    has_bins,
    noise_of,
    not_finite,
)
from ..optimize import Status, at_bound
from ..parameters import ParameterMap, parameter_values
from ..physics import AbstractCorrelation
from ..scaling import index_map
from ..uncertainty import (
    Misfit,
    Optimum,
    curve_errors,
    inverse_of,
    misfit_of,
    reduced_chi2,
    signal_of,
)
from .fit import Fit, FittedModel, ParameterRow, Quality
from .joint import Entries, Errors, Part, Whole, sharing_test, whole_at
from .quality import (
    UNTESTED_BINS,
    UNTESTED_CURVE,
    UNTESTED_POINTS,
    Remarks,
    conditions_of,
    judge,
    remarks_on,
)
from .scaling_check import scaling_check
from .solution import Run, Solution
from .solve import require_finite

_NAN = float("nan")
# Up to this factor from what is expected, or so many times what chance does to its logarithm, the
# deviance of a likelihood says nothing against it: it is held against the number of pixels that
# least squares has found, which short maps and slow decays leave uncertain. That scatter is the one
# of Gaussian intensities; the tails of speckle are longer.
_DEVIANCE, _CHANCES = 2.0, 5.0


def check_fittable(objective: Any, what: str) -> None:
    """Refuse an objective from which no result can be made; `what` was asked for it.

    **Raises:** `ModelError` naming those that can be fitted.
    """
    known = TwoTimeObjective | CombinedObjective | CurveObjective | SpeckleLikelihood
    if not isinstance(objective, known):
        raise ModelError(
            f"{what} ends with a result that has error bars, and knows of none for an objective "
            f"of type {type(objective).__name__}: give one of projected_objective, "
            "two_time_objective or curve_objective; for any other, "
            "search.cma_search finds the lowest point, and fitting.solve the next"
        )


_UNTESTED = (
    "neither the residuals nor the decay were tested, which errors of independent pairs leave out: "
    'errors="all" does'
)


def fit_of(solution: Solution, whole: Whole | None = None, errors: Errors = "all") -> Fit:
    """Parameters, error bars and verdict at a solution; `whole`: what is known of maps there.

    The fit of a curve says in its message where the model is not finite, as SciPy's does.

    **Raises:** `ModelError` for an objective of which no error bars are known; `FitError` as
    `require_finite` for anything but a curve.
    """
    clock = time.perf_counter()
    objective = solution.objective
    check_fittable(objective, "a fit")
    if isinstance(objective, CurveObjective):
        fit = _of_curve(objective, solution)
    else:
        whole = whole_at(require_finite(solution), errors) if whole is None else whole
        fit = _of_maps(objective, solution, whole)
        fit = fit.doubted((_UNTESTED,)) if errors == "classical" else fit
    timings = (*fit.run.timings, ("uncertainty", time.perf_counter() - clock))
    return dataclasses.replace(fit, run=dataclasses.replace(fit.run, timings=timings))


def _row(entries: Entries, i: int, unit: str, role: str) -> ParameterRow:
    """The line of entry `i`; an entry on its bound has no error."""
    uncertainty, at_bound = entries.uncertainty, bool(entries.bound[i])

    def error(kind: str) -> float:
        return _NAN if at_bound else float(uncertainty.errors(kind)[i])

    return ParameterRow(
        name=entries.names[i],
        value=float(entries.values[i]),
        error=error(uncertainty.chosen),
        error_classical=error("classical"),
        error_speckle=error("speckle"),
        error_dyadic=error("dyadic"),
        unit=unit,
        lower=float(entries.lower[i]),
        upper=float(entries.upper[i]),
        start=float(entries.start[i]),
        role=role,
        at_bound=at_bound,
    )


def _rows(
    parameters: ParameterMap,
    model: Any,
    entries: Entries,
    roles: Mapping[str, str],
    ties: Float[np.ndarray, "parameter free"],
) -> tuple[ParameterRow, ...]:
    """The parameters of a model that have a role, then the scaling coefficients.

    `ties`: derivative of all parameters by the free ones, for the errors of tied ones.
    """
    fitted, template = parameter_values(model), parameter_values(parameters.model)
    count = len(entries.names) - parameters.n_free
    rows = []
    for k, (name, unit) in enumerate(zip(parameters.names, parameters.units, strict=True)):
        if name in parameters.free_names:
            rows.append(_row(entries, entries.names.index(name), unit, roles[name]))
        elif name in roles:
            # Not fitted by itself, and without bounds of its own.
            slopes = np.zeros((1, len(entries.names)))
            slopes[0, count:] = ties[k] if roles[name] == "tied" else 0.0
            known = roles[name] == "tied" and not np.any(slopes[0, entries.bound] != 0)
            value, start = (np.array([float(of[name])]) for of in (fitted, template))
            carried, none = entries.uncertainty.carried(slopes), np.array([_NAN])
            one = Entries((name,), value, none, none, start, np.array([not known]), carried)
            rows.append(_row(one, 0, unit, roles[name])._replace(at_bound=False))
    return (*rows, *(_row(entries, i, "", "scaling") for i in range(count)))


def _roles(parameters: ParameterMap, free: Mapping[str, str]) -> dict[str, str]:
    """Roles of all parameters; `free` has those of the free ones."""
    tied = dict(parameters.ties)
    return {name: free.get(name, "tied" if name in tied else "fixed") for name in parameters.names}


def _fit(
    objective: Any,
    run: Run,
    entries: Entries,
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
    fit = Fit(
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
        quality=Quality("good", ()),
        remarks=remarks,
        conditions=conditions,
        **parts,
    )
    return dataclasses.replace(fit, quality=judge(fit))


def _of_data_set(
    whole: Whole,
    k: int,
    run: Run,
    model: AbstractCorrelation,
    entries: Entries,
    rows: tuple[ParameterRow, ...],
    misfit: Misfit | None,
    **figures: Any,
) -> Fit:
    """The fit of data set `k`, by itself or as a part of a joint one."""
    part = whole.parts[k]
    at, term = part.at, part.objective.term
    contrast, offset = np.asarray(at.per_angle).T
    index = index_map(term.scaling, part.names)
    return _fit(
        part.objective,
        run,
        entries,
        rows,
        chi2=float(at.residual_sum),
        n_pairs=int(at.joint.count),
        absolute=term.absolute_sigma,
        joint_hessian=np.asarray(at.joint.hessian),
        fitted=FittedModel(
            model,
            contrast,
            offset,
            index,
            scaling_check(whole, k),
            misfit,
            signal_of(part.scores, contrast, entries.uncertainty),
            _scatter(part.objective, at),
        ),
        **figures,
    )


def _untested(term: TwoTimeTerm) -> tuple[str, ...]:
    """What is not tested of data that form no maps."""
    if has_bins(term.tiles):
        return (UNTESTED_BINS,)
    return () if forms_maps(term.tiles) else (UNTESTED_POINTS,)


def _scatter(objective: Any, at: Optimum) -> float:
    """As of `FittedModel`."""
    tiles = objective.term.tiles
    if not has_bins(tiles):
        return _NAN
    try:
        noise = noise_of(tiles)
    except DataError:
        return _NAN
    mean = float(at.residual_sum) / max(float(at.joint.count), 1.0)
    return float(np.sqrt(mean) / noise) if noise > 0 else _NAN


def _of_maps(
    objective: TwoTimeObjective | CombinedObjective, solution: Solution, whole: Whole
) -> Fit:
    """The fit of one two-time data set, or of several together."""
    run = solution.run
    misfits = _misfits(whole)
    parameters, entries = whole.parameters, whole.entries
    unknowns = int(np.count_nonzero(~entries.bound))
    figures: dict[str, Any] = {"cost": solution.cost, "unknowns": unknowns}
    if isinstance(objective, CombinedObjective):
        return _of_several(objective, run, whole, misfits, **figures)
    term, box = objective.term, _box(parameters)
    model, roles = parameters.build(whole.x), _roles(parameters, dict.fromkeys(box, "free"))
    fit = _of_data_set(
        whole,
        0,
        run,
        model,
        entries,
        _rows(parameters, model, entries, roles, whole.ties),
        misfits[0],
        remarks=remarks_on(model, term.t, term.geometry, box),
        conditions=conditions_of(
            objective.penalties,
            objective.scaling_penalties,
            term.baseline_guessed,
            _untested(term),
        ),
        **figures,
    )
    return fit.doubted(_doubts_of_deviance(whole))


def _doubts_of_deviance(whole: Whole) -> tuple[str, ...]:
    """Whether a likelihood finds the noise that it takes for granted in every data set."""
    found = []
    for part in whole.parts:
        ratio = float(part.at.residual_sum) / part.scores.deviance
        allowed = max(np.log(_DEVIANCE), _CHANCES * _scatter_of_pixels(part))
        if np.isfinite(ratio) and not (ratio > 0 and abs(np.log(ratio)) < allowed):
            where = f" of {part.label}" if len(whole.parts) > 1 else ""
            size = f"is {ratio:.3g} times" if ratio > 0 else "is nothing like"
            found.append(
                f"the deviance of the likelihood{where} {size} that of speckle with "
                "this model, contrast and shot noise: either the model does not fit, or the noise "
                "of the maps is another one; least squares says more"
            )
    return tuple(found)


def _scatter_of_pixels(part: Part) -> float:
    """What chance does to the log of the mean number of pixels that least squares finds."""
    remains = part.scores.remains
    if remains is None:
        return 0.0
    of_angles = 2 * remains.powers[:, 0]
    return float(np.sqrt(of_angles.sum()) / of_angles.size)


def _misfits(whole: Whole) -> tuple[Misfit | None, ...]:
    """Tests of what a fit has left of each data set."""
    inverse, *_ = inverse_of(whole.hessian, ~whole.entries.bound)
    noise = [part.gathered(part.noise) for part in whole.parts]
    total, out = sum(noise), []
    for part, own in zip(whole.parts, noise, strict=True):
        remains, term = part.scores.remains, part.objective.term
        if remains is None:
            out.append(None)
        else:
            laid_out = remains.with_columns(part.matrix)
            out.append(misfit_of(laid_out, inverse, term, total - own))
    return tuple(out)


def _of_several(
    objective: CombinedObjective,
    run: Run,
    whole: Whole,
    misfits: tuple[Misfit | None, ...],
    **figures: Any,
) -> Fit:
    """The fit of several two-time data sets, with one of each as a part."""
    sharing, parameters, entries = objective.parameters, whole.parameters, whole.entries
    known = _box(parameters)
    data_sets, remarks = [], []
    models = sharing.models(whole.x)
    for k, (part, model) in enumerate(zip(whole.parts, models, strict=True)):
        at, term, carriers = part.at, part.objective.term, sharing.carriers(k)
        box = {own: known[public] for own, public in carriers.items() if public in known}
        free = [box.get(name, (_NAN, _NAN)) for name in part.names]
        lower, upper = (
            np.concatenate([np.asarray(of_scaling)[: part.size], [one[side] for one in free]])
            for side, of_scaling in enumerate((at.lower, at.upper))
        )
        begin = np.concatenate([at.start, sharing.local(k, parameters.start)])
        uncertainty = dataclasses.replace(
            entries.uncertainty.carried(part.matrix),
            n_pixels=part.scores.n_pixels,
            shot_noise=part.scores.shot_noise,
        )
        names = index_map(term.scaling, part.names).names
        on_bound = part.on_bound(entries.bound)
        values = np.asarray(at.values)
        own = Entries(names, values, lower, upper, begin, on_bound, uncertainty)
        remarks.append(remarks_on(model, term.t, term.geometry, box))
        data_sets.append(
            _of_data_set(
                whole,
                k,
                run,
                model,
                own,
                _rows(term.parameters, model, own, sharing.roles(k), whole.ties),
                misfits[k],
                cost=at.data_cost,
                unknowns=part.size,
                remarks=remarks[-1],
                label=part.label,
                together=True,
            )
        )
    roles = _roles(
        parameters,
        {
            name: "shared" if name in sharing.shared else "separate"
            for name in parameters.free_names
        },
    )
    # Every parameter once: those that only repeat a shared one are left out.
    roles = {name: role for name, role in roles.items() if name not in dict(sharing.repeated)}
    negative, degenerate = (
        tuple(dict.fromkeys(one for found in remarks for one in found[side])) for side in (0, 1)
    )
    on_scaling = tuple(one for part in objective.parts for one in part.scaling_penalties)
    terms = [part.objective.term for part in whole.parts]
    guessed = any(term.baseline_guessed for term in terms)
    untested = tuple(dict.fromkeys(text for term in terms for text in _untested(term)))
    return _fit(
        objective,
        run,
        entries,
        _rows(parameters, parameters.build(whole.x), entries, roles, whole.ties),
        chi2=sum(float(part.at.residual_sum) for part in whole.parts),
        n_pairs=whole.n_pairs,
        absolute=whole.absolute,
        remarks=(negative, degenerate),
        conditions=conditions_of(objective.penalties, on_scaling, guessed, untested),
        joint_hessian=np.asarray(whole.curvature),
        data_sets=tuple(data_sets),
        sharing=sharing_test(whole),
        **figures,
    ).doubted(_doubts_of_deviance(whole))


def _box(parameters: ParameterMap) -> dict[str, tuple[float, float]]:
    """Bounds of the free parameters by name."""
    bounds = zip(np.asarray(parameters.lower), np.asarray(parameters.upper), strict=True)
    return dict(zip(parameters.free_names, bounds, strict=True))


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


def _of_curve(objective: CurveObjective, solution: Solution) -> Fit:
    """The fit of a curve. Warns of infinite errors by a `CovarianceWarning`."""
    variables, names, run = objective.variables, objective.names, solution.run
    values = np.asarray(variables.to_physical(jnp.asarray(solution.y)))
    bound = at_bound(variables, values)
    n_points = objective.points.survey(objective.model).count
    cost, hessian, sums, penalty = float(solution.cost), solution.equations.hessian, None, None
    if not isinstance(objective.loss, Linear) and np.isfinite(cost):
        # The factors of a robust loss are made for good steps; errors need JᵀJ itself, unless
        # that is not formed.
        if hessian is None:
            sums = objective.influence_sums(solution.y)
        else:
            hessian, sums = _of(objective, _influence)(objective, solution.y)
        if objective.penalties:
            penalty = objective.penalty_equations(jnp.asarray(solution.y)).hessian
    uncertainty, remark = curve_errors(
        None if hessian is None else np.asarray(hessian),
        ~bound,
        names,
        cost=cost,
        count=n_points,
        absolute_sigma=objective.absolute_sigma,
        sums=jax.tree.map(np.asarray, sums),
        penalty=None if penalty is None else np.asarray(penalty),
    )
    lets_go = sums is not None and not objective.loss.convex and not sums.holds(values.size)
    if lets_go and run.status.converged:
        # It has run away from the data, to where the loss is flat.
        run = dataclasses.replace(run, status=Status.stalled, message=Status.stalled.message)
    message = run.message
    if not run.status.converged and solution.refused is not None:
        message += not_finite(objective, jnp.asarray(solution.refused))
    run = dataclasses.replace(run, message="; ".join(filter(None, (message, remark))))
    # A fit that could not begin has not succeeded, and needs no warning beside.
    if remark and run.status is not Status.non_finite:
        warnings.warn(remark, CovarianceWarning, stacklevel=5)
    lower, upper = np.asarray(variables.lower), np.asarray(variables.upper)
    start = np.asarray(run.start)
    entries = Entries(names, values, lower, upper, start, bound, uncertainty)
    return _fit(
        objective,
        run,
        entries,
        tuple(_row(entries, i, "", "free") for i in range(len(names))),
        cost=solution.cost,
        chi2=_residual_sum(objective, solution),
        n_pairs=n_points,
        unknowns=int(np.count_nonzero(~bound)),
        absolute=objective.absolute_sigma,
        conditions=conditions_of(objective.penalties, untested=(UNTESTED_CURVE,)),
    )
