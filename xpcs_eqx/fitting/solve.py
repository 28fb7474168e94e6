"""From an objective to its minimum: what every local fit does before its result is made."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ..checkpoint import Checkpoints
from ..cores import threads
from ..errors import FitError, ModelError
from ..inherited import Inherited
from ..objective import (
    AbstractObjective,
    CombinedObjective,
    CurveObjective,
    MapTiles,
    SpeckleLikelihood,
    TwoTimeObjective,
)
from ..objective.combined import is_likelihood, parts_of
from ..optimize import (
    Event,
    JacobianMetric,
    Recovery,
    Status,
    Telemetry,
    TrustRegion,
    TrustRegionState,
    lower_evaluation,
    lower_iteration,
)
from ..uncertainty import lower_optimum, lower_scores
from .attempts import SAMPLE, Preparations, Underway, attempt_all
from .joint import Errors
from .recording import earlier, watched
from .solution import Run, Solution

# Reduction of −log L that no longer counts, a thousandth of an error of a parameter. A part of
# −log L means nothing, as its zero does not.
_DECREASE = 1e-6
# Threads that compile ahead, on a machine of many cores.
_COMPILERS = 4
# The likelihood of speckle begins where a fit has ended, so that whole steps are made at once.
_DAMPING = 1e-4


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


def likelihood_solver(likelihood: SpeckleLikelihood | CombinedObjective) -> TrustRegion:
    """It ends where −log L no longer falls, and begins with whole steps, at the end of a fit.

    Half the deviance comes to about half the number of entries, whose part the reduction is.
    """
    shapes = [part.blocks.kept.shape for part in parts_of(likelihood)]
    entries = sum(count * frames * (frames + 1) / 2 for count, frames in shapes)
    return TrustRegion(cost_tol=2 * _DECREASE / entries, damping=_DAMPING)


def default_solver(objective: AbstractObjective) -> TrustRegion:
    """The solver of an objective when none is given."""
    if isinstance(objective, CurveObjective):
        return curve_solver()
    return likelihood_solver(objective) if is_likelihood(objective) else TrustRegion()  # pyright: ignore[reportArgumentType]


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
    preparations: Preparations = (),
    errors: Errors = "all",
) -> Solution:
    """Run the trust region with recovery and checkpoints, on any objective.

    Arguments as in `least_squares`; `preparations` improve the start, one after another, `errors`
    are those that will be made of it. A model
    that is finite nowhere is a status of the solution, which `require_finite` makes an error.

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
    with (
        watched(objective, callback, checkpoints, every) as watch,
        _compiled_ahead(solver, objective, begin, errors, underway),
    ):
        objective, best, underway = attempt_all(
            objective, begin, solver, recovery, watch, underway, preparations
        )
    seconds = time.perf_counter() - clock
    status, ledger, prepared = Status(int(best.status)), underway.ledger, underway.prepared
    history = ledger.as_history()
    bad = np.flatnonzero(~np.isfinite(np.asarray(history.cost)))
    events = [Event("finite equations", int(k) + 1, ()) for k in bad]
    telemetry = Telemetry.of("finite equations", ledger.evaluations, events)
    before = tuple((str(phase), float(spent)) for phase, spent in ledger.seconds)
    descent = type(solver.descent).__name__
    phases = [one.phase for one in prepared] + [SAMPLE for phase, _ in before if phase == SAMPLE]
    run = Run(
        start=begin,
        history=history,
        status=status,
        message=status.message,
        evaluations=underway.evaluations,
        iterations=ledger.iterations,
        recovery=tuple(ledger.actions),
        timings=(*before, ("solver", seconds - sum(spent for _, spent in before))),
        solver_name=", ".join([*phases, "trust region", descent]),
        prepared=prepared,
        telemetry=sum((one.telemetry for one in prepared), telemetry),
    )
    refused = best.refused if int(best.non_finite) else None
    return Solution(objective, best.y, best.memo, best.equations, run, refused)


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
    errors: Errors,
    underway: Underway,
) -> Iterator[None]:
    """Compile the sums, then the solver's step and the error bars during the `with` block.

    On a first fit compilation takes longer than the arithmetic. Python traces one function at a
    time, on a thread of its own; others compile what it has traced. JAX keeps what is compiled, so
    nothing is compiled twice and later fits find it ready.
    """
    start, futures = jax.device_put(x), list[Future[Any]]()
    most = max(2, min(threads() - 1, _COMPILERS))
    with ThreadPoolExecutor(most) as compilers, ThreadPoolExecutor(1) as tracer:

        def beside(work: Callable[[], Any], pool: ThreadPoolExecutor = compilers) -> None:
            futures.append(pool.submit(Inherited(work)))

        # Traced before anything else, since everything waits for it.
        sums = _traced_sums(solver, objective, start, underway)
        # For another precision than that of the fit they would be compiled in vain.
        ahead = [partial(lower_iteration, solver, objective, start, beside)]
        maps = objective if isinstance(objective, TwoTimeObjective) else None
        if maps is not None and errors == "all" and isinstance(maps.term.tiles, MapTiles):
            ahead.append(partial(lower_scores, maps, beside))
            ahead.append(partial(lower_optimum, maps, beside))
            # The tests of the residuals need it, and it takes long to be imported: last of all.
            ahead.append(partial(beside, partial(import_module, "scipy.special")))
        for work in ahead:
            beside(work, tracer)
        try:
            while sums:
                # The last takes longest, and what is after it waits for no thread.
                _done_ahead(sums.pop())
            yield
        except BaseException:
            # Whoever interrupts it does not wait for what is not begun.
            for pool in (tracer, compilers):
                pool.shutdown(wait=False, cancel_futures=True)
            raise
        # The list grows while the first of them are waited for.
        for future in futures:
            future.result()


def _traced_sums(
    solver: TrustRegion, objective: AbstractObjective, x: Float[Array, "p"], underway: Underway
) -> list[Callable[[], Any]]:
    """What compiles the sums of a fit; nothing where it goes on with others, or is at its end."""
    sums: list[Callable[[], Any]] = []
    over = underway.state is not None and int(underway.state.status) != Status.running
    if not (over or underway.ledger.tile_by_tile):
        _done_ahead(partial(lower_evaluation, solver, objective, x, sums.append))
    return sums


def _done_ahead(work: Callable[[], Any]) -> None:
    """Do what is done again where it is needed, if it fails: a fit knows what to do about that."""
    with suppress(MemoryError, jax.errors.JaxRuntimeError):
        work()
