"""From an objective to its optimum: what every fit does before its result is made."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ..checkpoint import Checkpoints
from ..errors import FitError, ModelError
from ..objective import AbstractObjective
from ..optimize import Recovery, Status, TrustRegion, TrustRegionState
from .attempts import Ledger, Underway, solve
from .compile_ahead import compiled_ahead
from .recording import earlier, recorded


class Finished(NamedTuple):
    """The best state of all attempts, the objective it belongs to, and how it was found."""

    objective: AbstractObjective
    state: TrustRegionState
    start: Float[np.ndarray, "variable"]
    ledger: Ledger
    solver_name: str
    seconds: float


def checked_start(
    objective: AbstractObjective, start: Float[Array, "variable"] | None
) -> Float[np.ndarray, "variable"]:
    """Physical start values inside the bounds.

    **Raises:** `ModelError` for a start of the wrong shape or outside the bounds.
    """
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
    return first


def solved(
    objective: AbstractObjective,
    start: Float[Array, "variable"] | None = None,
    *,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    callback: Callable[[TrustRegionState], Any] | None = None,
    checkpoints: Checkpoints | None = None,
    every: int = 1,
    resume: bool = False,
    first: TrustRegionState | None = None,
) -> Finished:
    """Run the solver with recovery and checkpoints. Arguments and errors as in `least_squares`.

    `first` is the end of the first attempt, where that has been made already.
    """
    clock = time.perf_counter()
    solver = TrustRegion() if solver is None else solver
    recovery = Recovery() if recovery is None else recovery
    begin = checked_start(objective, start)
    if checkpoints is not None:
        checkpoints = checkpoints.belonging_to("trust region", objective, begin, solver, recovery)
    underway = earlier(checkpoints, resume, solver, objective, begin)
    if first is not None:
        underway = Underway(None, first, Ledger().finished(first))
    with (
        recorded(checkpoints, every, callback) as watch,
        compiled_ahead(solver, objective, begin),
    ):
        objective, best, ledger = solve(objective, begin, solver, recovery, watch, underway)
    if int(best.status) == Status.non_finite:
        raise FitError(
            "the model gives no finite cost at the start "
            f"{dict(zip(objective.names, np.asarray(begin).tolist(), strict=True))}, nor at "
            f"{ledger.tried} starts near it; check the start values and the data"
        )
    name = f"trust region, {type(solver.descent).__name__}"
    return Finished(objective, best, begin, ledger, name, time.perf_counter() - clock)
