"""The local fit: solver, recovery, error bars, verdict."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from ..checkpoint import Checkpoints
from ..objective import JointObjective, ProjectedObjective
from ..optimize import Recovery, Status, TrustRegion, TrustRegionState
from .fit import Fit
from .one_data_set import check_one_data_set
from .result import Found, fit_of
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

    **Raises:** `ModelError` for an objective of several data sets, a start of the wrong shape or
    outside the bounds; `FitError` when the model is not finite at the start and at every recovery
    of it; `CheckpointError` for a checkpoint that is damaged, newer or of another problem, and
    without `resume` for any.

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
    check_one_data_set(objective, "least_squares")
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
    return fit_of(found_of(found))


def found_of(finished: Finished) -> Found:
    """The optimum of a solver that ran with recovery, as what a fit is made from."""
    state, ledger = finished.state, finished.ledger
    # Recovery may have gone on with another way to sum: the objective is the one it ended with.
    assert isinstance(finished.objective, ProjectedObjective | JointObjective)
    return Found(
        objective=finished.objective,
        y=state.y,
        memo=state.memo,
        cost=state.equations.cost,
        start=finished.start,
        status=Status(int(state.status)),
        history=ledger.as_history(),
        evaluations=ledger.evaluations,
        iterations=ledger.iterations,
        recovery=tuple(ledger.actions),
        timings=(("solver", finished.seconds),),
        solver_name=finished.solver_name,
    )
