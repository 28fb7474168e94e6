"""The local fit of two-time data and of curves: solver, recovery, error bars, verdict."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import numpy as np
from jaxtyping import Array, Float

from ..arguments import checked, quiet_arithmetic
from ..checkpoint import Checkpoints
from ..errors import ModelError
from ..objective import AbstractLoss, AbstractObjective, curve_objective
from ..optimize import AbstractPreparation, Recovery, TrustRegion
from ..progress import in_one_line
from .fit import Fit
from .joint import Errors
from .result import check_fittable, fit_of
from .solve import solve


@checked()
@quiet_arithmetic
def least_squares(
    objective: AbstractObjective,
    start: Float[Array | np.ndarray, "variable"] | None = None,
    *,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    warm_up: AbstractPreparation | None = None,
    errors: Errors = "all",
    callback: Callable[[Any], Any] | None = None,
    checkpoints: Checkpoints | None = None,
    every: int = 1,
    resume: bool = False,
    progress: bool = False,
) -> Fit:
    """Fit a model to data, put together as an objective, from one start.

    **Arguments:**

    - `objective`: from `projected_objective`, `two_time_objective` or `curve_objective`.
    - `start`: physical start values of the variables; by default the objective's own.
    - `solver`: a `TrustRegion`; its fields are tolerances, descent and search.
    - `recovery`: what to do about a fit that fails or is stuck; every action is in the result.
    - `warm_up`: what comes before the solver. `WarmUp()` goes by L-BFGS from far away to where it
        begins; `optimize.SinglePrecision()` makes the first evaluations of large maps in single
        precision.
    - `errors`: `"classical"` makes only those of independent pairs, from the curvature that the
        solver ends with: for thousands of small fits, of which about half the time are the others.
        Nothing is then tested either, and no such fit of maps is called good.
    - `callback`: sees the solver state after each evaluation, or that of the warm-up after each of
        its iterations; a true value stops the fit. `best` of either are physical variables, and
        `values` of the former gives them by name.
    - `checkpoints`: `Checkpoints(folder)`: the fit is written there at most every `interval`
        seconds, after each `every`-th evaluation, and when it is stopped by an interrupt, an error
        or the callback. The folder is left to the caller, who may `clear` it at the end.
    - `resume`: go on from the newest checkpoint, or begin when there is none. The fit ends where
        one that was never stopped does, with the same evaluations.
    - `progress`: show where it is, in one line.

    **Returns:** a `Fit`. A fit that does not converge is returned with its status and its best
    parameters; nothing is raised for it.

    **Raises:** `ModelError` for a start of the wrong shape or outside the bounds, an objective of
    which no error bars are known, or inside `jax.jit` and its like; `FitError` when the model is
    not finite at the start and at every recovery of it, which the `Fit` of a curve only says;
    `CheckpointError` for a checkpoint that is damaged, newer or of another problem, and without
    `resume` for any.

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
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((objective, start))):
        raise ModelError(
            "least_squares runs from Python, with recovery and error bars, and cannot be traced by "
            "jax.jit, jax.grad or jax.vmap: use `fitted`, the same minimum as a differentiable "
            "function of everything in the objective"
        )
    check_fittable(objective, "least_squares")
    with in_one_line(progress, callback) as seen:
        solution = solve(
            objective,
            start,
            solver=solver,
            recovery=recovery,
            callback=seen,
            checkpoints=checkpoints,
            every=every,
            resume=resume,
            preparations=() if warm_up is None else (warm_up,),
            errors=errors,
        )
        return fit_of(solution, errors=errors)


@checked()
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
    warm_up: AbstractPreparation | None = None,
) -> Fit:
    """Fit any curve y = function(x, *parameters), written in `jax.numpy`, to points.

    The fit that `least_squares` makes of a `curve_objective`, in whose words the arguments are:
    `fit.x`, `fit.pcov`, `fit.perr` are those of SciPy's `curve_fit`, covariance and standard errors
    zero for a parameter on a bound, infinite along directions that the data do not determine and
    without degrees of freedom. `fit.message` says why errors are infinite where they are.

    With `absolute_sigma` the covariance is not scaled by the residual variance. With a robust loss
    it is E[ψ²]/E[ψ']² (JᵀJ)⁻¹ in either case, ψ being the derivative of the loss by a residual and
    the means those over the residuals. With as many free parameters as points it is infinite unless
    sigma is absolute.

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
    objective = curve_objective(
        function,
        x,
        y,
        start,
        sigma=sigma,
        bounds=bounds,
        loss=loss,
        absolute_sigma=absolute_sigma,
    )
    return least_squares(objective, solver=solver, recovery=recovery, warm_up=warm_up)
