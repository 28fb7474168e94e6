"""Fit any curve, with the interface that SciPy made familiar."""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..errors import CovarianceWarning
from ..objective import AbstractLoss, CurveObjective, Linear, curve_objective, not_finite
from ..optimize import (
    JacobianMetric,
    Recovery,
    Status,
    TrustRegion,
    TrustRegionState,
    at_bound,
)
from ..uncertainty import curve_errors
from .attempts import RecoveryAction, solve
from .solved import checked_start


class CurveFit(eqx.Module):
    """Result of `curve_fit`.

    - `x`: parameters; `pcov`, `perr`: covariance and standard errors, zero for a parameter on a
        bound, infinite along directions the data do not determine and without degrees of freedom.
    - `fun`: the cost ½ Σ ρ; `success` only when the solver converged.
    - `message`: how it ended, where the model is not finite when that is why, and why errors are
        infinite where they are.
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


@quick_jit
def _influence(objective, y):
    return objective.influence(y)


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
    residual variance. With a robust loss the covariance is E[ψ²]/E[ψ']² (JᵀJ)⁻¹ in either case, ψ
    being the derivative of the loss by a residual and the means those over the residuals. With as
    many free parameters as points it is infinite unless sigma is absolute.

    **Raises:** as `curve_objective`. A `CovarianceWarning` says why errors are infinite.

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

    def watch(underway):
        return callback is not None and callback(underway.state)

    _, best, ledger = solve(objective, first, solver, recovery, watch)
    status = Status(int(best.status))
    values = np.asarray(objective.variables.to_physical(best.y))
    hessian, sums = np.asarray(best.equations.hessian), None
    if not isinstance(objective.loss, Linear):
        # The factors of a robust loss are made for good steps; errors need JᵀJ itself.
        hessian, sums = jax.tree.map(np.asarray, _influence(objective, best.y))
    errors = curve_errors(
        hessian,
        ~at_bound(objective.variables, values),
        objective.names,
        cost=float(best.equations.cost),
        count=points,
        absolute_sigma=absolute_sigma,
        sums=sums,
    )
    lets_go = (
        sums is not None and not objective.loss.convex and not sums.holds(int(np.shape(values)[0]))
    )
    if lets_go and status.converged:
        # It has run away from the data, to where the loss is flat.
        status = Status.stalled
    message = status.message
    if not status.converged and int(best.non_finite):
        message += not_finite(objective, best.refused)
    # A fit that could not begin has not succeeded, and needs no warning beside.
    if errors.remark and status is not Status.non_finite:
        warnings.warn(errors.remark, CovarianceWarning, stacklevel=2)
    return CurveFit(
        values,
        errors.covariance,
        np.sqrt(np.diagonal(errors.covariance)),
        float(best.equations.cost),
        status,
        "; ".join(filter(None, (message, errors.remark))),
        ledger.evaluations,
        tuple(ledger.actions),
    )
