"""From an objective to its minimum: what every local fit does before its result is made."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..checkpoint import Checkpoints
from ..errors import DataError, FitError, ModelError
from ..inherited import Inherited
from ..objective import (
    AbstractObjective,
    CurveObjective,
    MapTiles,
    TwoTimeObjective,
)
from ..optimize import (
    Event,
    JacobianMetric,
    Recovery,
    Status,
    Telemetry,
    TrustRegion,
    TrustRegionState,
    lower_iteration,
)
from ..uncertainty import lower_uncertainty
from .attempts import Ledger, Underway, attempt_all
from .prepare import Preparations, Prepared
from .recording import earlier, recorded
from .solution import Run, Solution


def curve_solver() -> TrustRegion:
    """Tight tolerances, and steps measured by the Jacobian: a curve's parameters have any units."""
    return TrustRegion(
        cost_tol=1e-15,
        step_tol=1e-12,
        gradient_tol=1e-12,
        damping=1e-2,
        metric=JacobianMetric(),
        max_evaluations=1000,
    )


def default_solver(objective: AbstractObjective) -> TrustRegion:
    """The solver of an objective when none is given."""
    return curve_solver() if isinstance(objective, CurveObjective) else TrustRegion()


def checked_start(
    objective: AbstractObjective, start: Float[Array | np.ndarray, "variable"] | None
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


def solution_at(
    objective: AbstractObjective,
    state: TrustRegionState,
    start: Float[np.ndarray, "variable"],
    ledger: Ledger,
    solver: TrustRegion,
    seconds: float,
    prepared: Prepared = (),
) -> Solution:
    """The solution in the best state of a trust region; `ledger` counts all its attempts.

    `prepared` are the last states of what came before it.
    """
    status = Status(int(state.status))
    before = tuple((str(phase), float(spent)) for phase, spent in ledger.seconds)
    history = ledger.as_history()
    bad = np.flatnonzero(~np.isfinite(np.asarray(history.cost)))
    telemetry = Telemetry.of(
        "finite equations",
        ledger.evaluations,
        [Event("finite equations", int(k) + 1, ()) for k in bad],
    )
    descent = type(solver.descent).__name__
    run = Run(
        start=start,
        history=history,
        status=status,
        message=status.message,
        evaluations=ledger.evaluations + sum(int(one.evaluations) for one in prepared),
        iterations=ledger.iterations,
        recovery=tuple(ledger.actions),
        timings=(*before, ("solver", seconds - sum(spent for _, spent in before))),
        solver_name=", ".join([*(one.phase for one in prepared), "trust region", descent]),
        prepared=prepared,
        telemetry=sum((one.telemetry for one in prepared), telemetry),
    )
    refused = state.refused if int(state.non_finite) else None
    return Solution(objective, state.y, state.memo, state.equations, run, refused)


def solve(
    objective: AbstractObjective,
    start: Float[Array | np.ndarray, "variable"] | None = None,
    *,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    callback: Callable[[TrustRegionState], Any] | None = None,
    checkpoints: Checkpoints | None = None,
    every: int = 1,
    resume: bool = False,
    first: TrustRegionState | None = None,
    preparations: Preparations = (),
) -> Solution:
    """Run the trust region with recovery and checkpoints, on any objective.

    Arguments as in `least_squares`; `first` is the end of the first attempt, where that has been
    made already; `preparations` improve the start, one after another. A model that is finite
    nowhere is a status of the solution, which `require_finite` makes an error.

    **Raises:** `ModelError` and `CheckpointError` as `least_squares`; `DataError` for data that
    cannot be read any more, which says how far the fit had got.
    """
    clock = time.perf_counter()
    solver = default_solver(objective) if solver is None else solver
    recovery = Recovery() if recovery is None else recovery
    begin = checked_start(objective, start)
    if checkpoints is not None:
        kind = "hybrid optimiser" if preparations else "trust region"
        problem = (objective, begin, solver, recovery, *preparations)
        checkpoints = checkpoints.belonging_to(kind, *problem)
    underway = earlier(checkpoints, resume, solver, objective, begin, preparations)
    if first is not None:
        underway = Underway(None, first, Ledger().finished(first))
    with (
        recorded(checkpoints, every, callback) as watch,
        _compiled_ahead(solver, objective, begin),
        _best_in_errors(objective, watch) as seen,
    ):
        objective, best, ledger, prepared = attempt_all(
            objective, begin, solver, recovery, seen, underway, preparations
        )
    seconds = time.perf_counter() - clock
    return solution_at(objective, best, begin, ledger, solver, seconds, prepared)


@contextmanager
def _best_in_errors(
    objective: AbstractObjective, watch: Callable[[Underway], Any]
) -> Iterator[Callable[[Underway], Any]]:
    """A `watch` that keeps what it saw, so that an error of the data does not take it along."""
    last: list[Underway] = []

    def seen(underway):
        last[:] = [underway]
        return watch(underway)

    try:
        yield seen
    except DataError as error:
        if not last:
            raise
        x = best_of(objective, last[0])
        values = dict(zip(objective.names, x.tolist(), strict=True))
        raise DataError(f"{error} The best parameters so far: {values}") from error


def best_of(objective: AbstractObjective, underway: Underway) -> Float[np.ndarray, "variable"]:
    """Physical variables of the lowest cost that a fit under way has seen."""
    states = [one for one in (underway.state, underway.best) if one is not None]
    if not states:
        return underway.prepared[-1].best
    lowest = min(states, key=lambda state: float(state.equations.cost))
    return np.asarray(objective.variables.to_physical(lowest.y))


def require_finite(solution: Solution) -> Solution:
    """The same solution.

    **Raises:** `FitError` when the model was finite neither at the start nor at its recoveries.
    """
    if solution.status != Status.non_finite:
        return solution
    names, run = solution.objective.names, solution.run
    tried = len(run.recovery)
    near = f", nor at {tried} starts near it" if tried else ""
    raise FitError(
        "the model gives no finite cost at the start "
        f"{dict(zip(names, run.start.tolist(), strict=True))}{near}; check the start values and "
        "the data"
    )


@contextmanager
def _compiled_ahead(
    solver: TrustRegion,
    objective: AbstractObjective,
    x: Float[np.ndarray, "variable"],
) -> Iterator[None]:
    """Compile the solver's step and the error bars on a second thread during the `with` block.

    On a first fit compilation takes longer than the arithmetic; with two cores this takes a third
    off it. JAX keeps what is compiled, so nothing is compiled twice and later fits find it ready.
    """
    with ThreadPoolExecutor(1) as pool:
        # For another precision than that of the fit it would be compiled in vain.
        step = Inherited(lower_iteration, solver, objective, jnp.asarray(x))
        futures = [pool.submit(step)]
        maps = isinstance(objective, TwoTimeObjective)
        if maps and isinstance(objective.term.tiles, MapTiles):
            futures.append(pool.submit(Inherited(lower_uncertainty, objective)))
        yield
        for future in futures:
            future.result()
