"""The hybrid optimiser as a way to a fit."""

import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..checkpoint import Checkpoints
from ..compiling import quick_jit
from ..errors import FitError
from ..hybrid import HybridOptimiser, HybridResult, TwoTimeProblem
from ..objective import TwoTimeObjective
from ..optimize import History, Status, evaluated
from .fit import Fit
from .result import fit_of
from .solution import Run, Solution
from .solve import checked_start


def hybrid_least_squares(
    objective: TwoTimeObjective,
    start: Float[Array, "variable"] | None = None,
    *,
    optimiser: HybridOptimiser | None = None,
    callback: Callable[[Any], Any] | None = None,
    checkpoints: Checkpoints | None = None,
    every: int = 10,
    resume: bool = False,
) -> Fit:
    """Fit an objective to its data by the hybrid optimiser: L-BFGS from afar, then Gauss–Newton.

    The same minimum with the same error bars as from `least_squares`, by more passes over the data
    and from worse starts. For maps in memory and in a file.

    **Arguments:**

    - `objective`: from `projected_objective` or `two_time_objective`.
    - `start`: physical start values of the variables; by default the objective's own.
    - `optimiser`: phases and defences; `hybrid.aggressive()` and others are ready-made.
    - `callback`: sees the state of a phase after each pass; a true value stops the fit.
    - `checkpoints`, `every`, `resume`: as in `HybridOptimiser.fit`.

    **Returns:** a `Fit` whose `hybrid` tells what the phases and their defences did.

    **Raises:** `ModelError` for a start of the wrong shape or outside the bounds; `FitError` when
    the model is not finite at the start; `DataError` for data that cannot be read;
    `CheckpointError` as in `HybridOptimiser.fit`.
    """
    optimiser = HybridOptimiser() if optimiser is None else optimiser
    first = checked_start(objective, start)
    result = optimiser.minimise(
        TwoTimeProblem(objective, first),  # pyright: ignore[reportCallIssue]
        objective.term.absolute_sigma,
        callback,
        checkpoints=checkpoints,
        every=every,
        resume=resume,
    )
    if result.status == Status.non_finite:
        raise FitError(
            "the model gives no finite cost at the start "
            f"{dict(zip(objective.names, first.tolist(), strict=True))}; check the start values "
            "and the data"
        )
    clock = time.perf_counter()
    y = _coordinates(objective, jnp.asarray(result.x))
    equations, memo = evaluated(objective, y, objective.memo)
    run = Run(
        start=first,
        history=_history(result),
        status=result.status,
        message=result.status.message,
        evaluations=sum(count for _, count in result.evaluations) + 1,
        iterations=sum(count for _, count in result.iterations),
        recovery=(),
        timings=(*result.timings, ("last pass", time.perf_counter() - clock)),
        solver_name="hybrid: L-BFGS, Gauss–Newton",
        hybrid=result,
    )
    return fit_of(Solution(objective, y, memo, equations, run))


@quick_jit
def _coordinates(objective, x):
    return objective.variables.to_coordinates(x)


def _history(result: HybridResult) -> History:
    """Gauss–Newton as every solver tells of its evaluations."""
    own = result.history.gauss_newton
    # The same fields hold arrays of NumPy here.
    columns: list[Any] = [own.cost, own.gradient, own.radius, own.accepted]
    return History(*columns)
