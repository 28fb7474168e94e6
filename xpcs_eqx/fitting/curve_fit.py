"""Fit any curve, with the interface that SciPy made familiar."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..objective import AbstractLoss, CurveObjective, curve_objective
from ..optimize import (
    JacobianMetric,
    Recovery,
    Status,
    TrustRegion,
    TrustRegionState,
    at_bound,
)
from ..uncertainty import inverse_of
from .attempts import RecoveryAction, solve
from .solved import checked_start


class CurveFit(eqx.Module):
    """Result of `curve_fit`.

    - `x`: parameters; `pcov`, `perr`: covariance and standard errors, zero for a parameter on a
        bound and infinite along directions the data do not determine.
    - `fun`: the cost ½ Σ ρ; `success` only when the solver converged.
    - `evaluations`: of all attempts; `recovery`: what was done about failures, in order.
    """

    x: Float[np.ndarray, "variable"]
    pcov: Float[np.ndarray, "variable variable"]
    perr: Float[np.ndarray, "variable"]
    fun: float = eqx.field(static=True)
    status: Status = eqx.field(static=True)
    message: str = eqx.field(static=True)
    evaluations: int = eqx.field(static=True)
    recovery: tuple[RecoveryAction, ...] = eqx.field(static=True, default=())

    @property
    def success(self) -> bool:
        """Whether the solver converged."""
        return self.status.converged

    @property
    def cost(self) -> float:
        """The minimised cost, as other results call it."""
        return self.fun


def default_curve_solver() -> TrustRegion:
    """Tight tolerances, and steps measured by the Jacobian: a curve's parameters have any units."""
    return TrustRegion(
        cost_tol=1e-15,
        step_tol=1e-12,
        gradient_tol=1e-12,
        damping=1e-2,
        metric=JacobianMetric(),
        max_evaluations=1000,
    )


def curve_fit(
    function: Callable[..., Array],
    x: Float[np.ndarray, "point *coordinate"],
    y: Float[np.ndarray, "point"],
    start: Float[np.ndarray, "variable"],
    *,
    sigma: Float[np.ndarray, "point"] | None = None,
    absolute_sigma: bool = False,
    bounds: Any = None,
    loss: AbstractLoss | None = None,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
) -> CurveFit:
    """Least squares for `function(x, *parameters)` written in `jax.numpy`.

    Arguments as in `curve_objective`; with `absolute_sigma` the covariance is not scaled by the
    residual variance.

    **Raises:** as `curve_objective`.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> def decay(x, rate, amplitude):
    ...     return amplitude * jnp.exp(-rate * x)
    >>> x = np.linspace(0.0, 2.0, 9)
    >>> fit = xe.curve_fit(decay, x, 3.0 * np.exp(-1.5 * x), np.array([1.0, 1.0]))
    >>> fit.success, np.round(fit.x, 6).tolist()
    (True, [1.5, 3.0])
    """
    objective = curve_objective(function, x, y, start, sigma=sigma, bounds=bounds, loss=loss)
    return fit_curve(objective, absolute_sigma=absolute_sigma, solver=solver, recovery=recovery)


def fit_curve(
    objective: CurveObjective,
    start: Float[Array, "variable"] | Float[np.ndarray, "variable"] | None = None,
    *,
    absolute_sigma: bool = False,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    callback: Callable[[TrustRegionState], Any] | None = None,
) -> CurveFit:
    """As `curve_fit`, for an objective that is there already.

    `callback` as in `least_squares`.
    """
    solver = default_curve_solver() if solver is None else solver
    recovery = Recovery() if recovery is None else recovery
    first = checked_start(objective, start)  # pyright: ignore[reportArgumentType]
    points = int(np.count_nonzero(np.asarray(objective.root_weights)))
    watch = (lambda underway: False) if callback is None else callback
    _, best, ledger = solve(objective, first, solver, recovery, watch)
    status = Status(int(best.status))
    values = np.asarray(objective.variables.to_physical(best.y))
    free = ~at_bound(objective.variables, values)
    degrees = max(points - int(free.sum()), 1)
    variance = 1.0 if absolute_sigma else 2 * float(best.equations.cost) / degrees
    inverse, *_, unknown = inverse_of(np.asarray(best.equations.hessian), free)
    covariance = inverse * variance
    covariance[unknown, unknown] = np.inf
    return CurveFit(
        values,
        covariance,
        np.sqrt(np.diagonal(covariance)),
        float(best.equations.cost),
        status,
        status.message,
        ledger.evaluations,
        tuple(ledger.actions),
    )
