"""A result for whatever kind of objective was searched, and what all kinds of results have."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from ..errors import ModelError
from ..fitting import CurveFit, Fit, JointFit, joint_least_squares, least_squares
from ..fitting.curve_fit import default_curve_solver, fit_curve
from ..objective import (
    AbstractObjective,
    CombinedObjective,
    CurveObjective,
    JointObjective,
    ProjectedObjective,
)
from ..optimize import Recovery, TrustRegion, at_bound

AnyFit: TypeAlias = Fit | JointFit | CurveFit


def check_fittable(objective: AbstractObjective, what: str) -> None:
    """Raise `ModelError` for an objective from which no result can be made."""
    known = ProjectedObjective | JointObjective | CombinedObjective | CurveObjective
    if not isinstance(objective, known):
        raise ModelError(
            f"{what} ends with a result that has error bars, and knows of none for an objective "
            f"of type {type(objective).__name__}: give one of projected_objective, "
            "joint_objective, combined_objective or curve_objective; for any other, "
            "search.cma_search finds the lowest point"
        )


def solver_for(
    objective: AbstractObjective, solver: TrustRegion | None, **changes: Any
) -> TrustRegion:
    """The solver that was given, else that of such fits with some `changes`."""
    if solver is not None:
        return solver
    if isinstance(objective, CurveObjective):
        return default_curve_solver()
    return TrustRegion(**changes)


def best_fit(
    objective: AbstractObjective,
    start: Float[np.ndarray, "variable"] | None,
    *,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    callback: Callable[[Any], Any] | None = None,
    **further: Any,
) -> AnyFit:
    """The local fit of an objective with the result that belongs to it.

    **Raises:** as `least_squares`; `ModelError` for `further` arguments that fits of a curve do not
    have.
    """
    how = {"solver": solver, "recovery": recovery, "callback": callback, **further}
    if isinstance(objective, CombinedObjective):
        return joint_least_squares(objective, start, **how)  # pyright: ignore[reportArgumentType]
    if isinstance(objective, CurveObjective):
        if further:
            raise ModelError(f"fits of a curve have no {', '.join(further)}; leave it out")
        return fit_curve(objective, start, **how)
    check_fittable(objective, "a search")
    return least_squares(objective, start, **how)  # pyright: ignore[reportArgumentType]


def doubted(fit: AnyFit, reasons: tuple[str, ...]) -> AnyFit:
    """The fit with its verdict lowered for `reasons`; a fit of a curve has no verdict."""
    if isinstance(fit, CurveFit):
        return fit
    return dataclasses.replace(fit, quality=fit.quality.doubted(reasons))


def is_poor(fit: AnyFit) -> str:
    """The first finding of a poor fit; empty where it is not, or cannot be judged."""
    if isinstance(fit, CurveFit) or fit.quality.flag != "poor":
        return ""
    return fit.quality.findings[0]


def on_bound(fit: AnyFit, objective: AbstractObjective) -> bool:
    """Whether a free parameter of the model ended on a bound."""
    if isinstance(fit, CurveFit):
        return bool(np.any(np.asarray(at_bound(objective.variables, fit.x))))
    held = ("fixed", "tied", "scaling")
    return any(row.at_bound and row.role not in held for row in fit.rows)


def residual_variance(fit: AnyFit) -> float:
    """Variance of the weighted residuals; NaN where the result does not say."""
    return float("nan") if isinstance(fit, CurveFit) else fit.residual_sd**2


def variables_at(fit: AnyFit, objective: AbstractObjective) -> Float[np.ndarray, "variable"]:
    """Physical variables of an objective at its fit."""
    if isinstance(fit, CurveFit):
        x = np.asarray(fit.x)
    else:
        # Results begin with the scaling, objectives with the physics; some objectives end with it.
        values = np.asarray(fit.values)
        joint = isinstance(fit, JointFit)
        free = fit.objective.parameters.whole.n_free if joint else len(fit.index.physical_names)
        scaling, physics = np.split(values, [values.size - free])
        x = physics if free == len(objective.names) else np.concatenate([physics, scaling])
    return np.clip(x, objective.variables.lower, objective.variables.upper)
