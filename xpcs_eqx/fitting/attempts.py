"""The trust region with preparations and recovery: one run, which can be left and gone on with."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..objective import AbstractDriver, AbstractObjective, HostLoop
from ..objective.single import replaced
from ..optimize import (
    AbstractPreparation,
    AbstractPreparationState,
    History,
    Recovery,
    Status,
    TrustRegion,
    TrustRegionState,
    closer_start,
    iterate_host,
)
from ..optimize.trust_region import LEAST_DAMPING
from .solution import RecoveryAction

# What the way of a fit on a sample of large maps is called.
SAMPLE = "sample of tiles"

Preparations = tuple[AbstractPreparation, ...]
Prepared = tuple[AbstractPreparationState, ...]


def prepare(
    objective: AbstractObjective,
    start: Float[np.ndarray, "variable"],
    preparations: Preparations,
    watch: Callable[[Prepared], Any],
    prepared: Prepared = (),
) -> tuple[Float[np.ndarray, "variable"], Prepared, dict[str, float], bool]:
    """Run the preparations to their end, each from where the one before it has got to.

    - `watch`: sees the states of all so far after every step; a true value stops.
    - `prepared`: states of an earlier run to go on from.

    **Returns:** the start that they found, their last states, seconds by phase, and whether they
    were stopped.
    """
    states, seconds = list(prepared), {}
    for place, preparation in enumerate(preparations):
        clock = time.perf_counter()
        if place == len(states):
            states.append(preparation.begin(objective, start))
        advance = preparation.machine(objective) if states[place].running else None
        while advance is not None and states[place].running:
            states[place] = advance(states[place])
            seconds[states[place].phase] = time.perf_counter() - clock
            if watch(tuple(states)):
                return states[place].best, tuple(states), seconds, True
        start = states[place].best
    return start, tuple(states), seconds, False


class Ledger(NamedTuple):
    """What the finished attempts came to, in plain values.

    - `tried`: recoveries; `evaluations`, `iterations`: of all attempts.
    - `history`: columns of `History` over all attempts.
    - `tile_by_tile`: whether memory ran short, so that tiles are summed in Python.
    - `seconds`: by phase of what came before the attempts.
    """

    tried: int = 0
    evaluations: int = 0
    iterations: int = 0
    history: Sequence[Sequence[float]] = ((), (), (), ())
    actions: Sequence[RecoveryAction] = ()
    tile_by_tile: bool = False
    seconds: Sequence[Sequence[Any]] = ()

    @staticmethod
    def of(plain: Mapping[str, Any]) -> "Ledger":
        """A ledger as it comes back from JSON.

        **Raises:** `ValueError` and others when it is none.
        """
        found = Ledger(**plain)
        counts = (found.tried, found.evaluations, found.iterations)
        if not all(type(one) is int and one >= 0 for one in counts):
            raise ValueError("evaluations are counted by whole numbers")
        history = [[float(value) for value in column] for column in found.history]
        if [len(column) for column in history] != [len(history[0])] * 4:
            raise ValueError("a history has four columns of one length")
        return found._replace(
            actions=tuple(RecoveryAction(*map(str, action)) for action in found.actions),
            seconds=tuple((str(phase), float(spent)) for phase, spent in found.seconds),
            tile_by_tile=bool(found.tile_by_tile),
        )

    def finished(self, state: TrustRegionState) -> "Ledger":
        """With one attempt more."""
        n, h = int(state.evaluations), state.history
        columns = (h.cost, h.gradient, h.step_size, h.accepted)
        return self._replace(
            evaluations=self.evaluations + n,
            iterations=self.iterations + int(state.accepted),
            history=tuple(
                (*old, *np.asarray(new)[:n].tolist())
                for old, new in zip(self.history, columns, strict=True)
            ),
        )

    def recovered(self, action: RecoveryAction) -> "Ledger":
        """With one recovery more."""
        return self._replace(tried=self.tried + 1, actions=(*self.actions, action))

    def as_history(self) -> History:
        """All evaluations of all attempts."""
        cost, gradient, step_size, accepted = map(np.asarray, self.history)
        # The same fields hold arrays of NumPy here.
        columns: list[Any] = [cost, gradient, step_size, accepted.astype(bool)]
        return History(*columns)


class Underway(NamedTuple):
    """A fit between two evaluations: everything needed to go on with it.

    - `state`: of the attempt that is running; `best`: of the attempts before, None in the first.
    - `prepared`: states of the preparations so far.
    """

    state: TrustRegionState | None = None
    best: TrustRegionState | None = None
    ledger: Ledger = Ledger()
    prepared: Prepared = ()

    @property
    def latest(self) -> Any:
        """The state of what is going on."""
        return self.state if self.state is not None or not self.prepared else self.prepared[-1]

    @property
    def evaluations(self) -> int:
        """All of them so far, of preparations and attempts."""
        own = 0 if self.state is None else int(self.state.evaluations)
        before = sum(int(state.evaluations) for state in self.prepared)
        return before + self.ledger.evaluations + own


def _tile_by_tile(objective: AbstractObjective) -> AbstractObjective | None:
    """The objective with its sums over tiles carried out in Python; None when they are already."""

    def compiled(node):
        return isinstance(node, AbstractDriver) and node.traceable

    return replaced(objective, compiled, lambda node: HostLoop())


def _better(new: TrustRegionState, old: TrustRegionState) -> bool:
    new_cost, old_cost = float(new.equations.cost), float(old.equations.cost)
    if not np.isfinite(new_cost):
        return False
    if not np.isfinite(old_cost) or int(old.status) == Status.non_finite:
        return True
    # Of two equal minima the converged one counts.
    tie = abs(new_cost - old_cost) <= 1e-10 * abs(old_cost)
    if tie:
        return int(new.status) > 0 >= int(old.status)
    return new_cost < old_cost


def _enough(underway):
    return True


def _attempt(objective, solver, x, underway, watch):
    """Run the solver to its end; when memory is short, go on with tiles summed one by one."""
    allowed = solver.max_evaluations - underway.ledger.evaluations

    def seen(state):
        nonlocal underway
        underway = underway._replace(state=state)
        return watch(underway)

    def run(objective):
        return iterate_host(
            solver, objective, x, callback=seen, state=underway.state, allowed=allowed
        )

    try:
        return objective, run(objective), underway.ledger
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        short = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
        smaller = _tile_by_tile(objective) if short else None
        if smaller is None:
            raise
    action = RecoveryAction("out of memory", "tiles summed one by one", "retried")
    ledger = underway.ledger
    ledger = ledger._replace(actions=(*ledger.actions, action), tile_by_tile=True)
    underway = underway._replace(ledger=ledger)
    return smaller, run(smaller), ledger


def attempt_all(
    objective: AbstractObjective,
    start: Float[np.ndarray, "variable"],
    solver: TrustRegion,
    recovery: Recovery,
    watch: Callable[[Underway], Any],
    underway: Underway,
    preparations: Preparations = (),
) -> tuple[AbstractObjective, TrustRegionState, Underway]:
    """Prepare, run the solver, and again from elsewhere as long as `recovery` finds fault.

    All attempts share the evaluations that the solver allows. Returns the objective, the best state
    of all, and what the attempts and preparations came to.

    **Arguments:**

    - `start`: physical start values.
    - `watch`: sees the fit after every evaluation; a true value ends it.
    - `underway`: where to go on. The attempts ahead are those of an uninterrupted fit, since each
        follows from the best state before it.
    """
    variables = objective.variables
    state, best, ledger, prepared = underway
    if ledger.tile_by_tile:
        objective = _tile_by_tile(objective) or objective

    def seen(states):
        return watch(Underway(None, None, ledger, states))

    def cause_of(state):
        # Whoever interrupts it wants no more of it.
        interrupted = int(state.status) == Status.interrupted
        return None if interrupted else recovery.diagnose(variables, start, state)

    start, prepared, seconds, stopped = prepare(objective, start, preparations, seen, prepared)
    ledger = ledger._replace(seconds=(*ledger.seconds, *seconds.items()))
    if stopped:
        # One evaluation gives the equations that belong to the point.
        watch = _enough
    if best is None:
        x, damping = start, prepared[-1].damping if prepared else None
        if state is None and not prepared:
            clock = time.perf_counter()
            closer = closer_start(solver, objective, start)
            if closer is not None:
                x, spent = closer, (SAMPLE, time.perf_counter() - clock)
                ledger = ledger._replace(seconds=(*ledger.seconds, spent))
        if any(phase == SAMPLE for phase, _ in ledger.seconds):
            damping = LEAST_DAMPING
        first, begun = Underway(state, None, ledger, prepared), solver
        if damping is not None:
            begun = dataclasses.replace(solver, damping=damping)
        objective, best, ledger = _attempt(objective, begun, jax.device_put(x), first, watch)
        ledger, state = ledger.finished(best), None
    if stopped:
        best = _with_status(best, Status.interrupted)
    cause = cause_of(best)
    while cause is not None and ledger.tried < recovery.attempts:
        if ledger.evaluations >= solver.max_evaluations:
            break
        plan = recovery.plan(cause, ledger.tried, variables, start, best, solver)
        again = Underway(state, best, ledger, prepared)
        objective, found, ledger = _attempt(objective, plan.solver, plan.x, again, watch)
        state = None
        won = _better(found, best)
        outcome = "kept" if won else "no better than before"
        outcome = f"cost {float(found.equations.cost):.8g}, {outcome}"
        action = RecoveryAction(cause, plan.action, outcome)
        ledger = ledger.finished(found).recovered(action)
        best = found if won else best
        if int(found.status) == Status.interrupted:
            best = _with_status(best, Status.interrupted)
        elif cause == "at bounds" and not won:
            # The bound is where the minimum is; asking again would only cost time.
            break
        cause = cause_of(best)
    unsolved = cause is not None and int(best.status) < 0
    if unsolved and int(best.status) != Status.non_finite:
        if ledger.evaluations >= solver.max_evaluations:
            best = _with_status(best, Status.max_evaluations)
        elif ledger.tried >= recovery.attempts > 0:
            best = _with_status(best, Status.failed)
    return objective, best, Underway(None, best, ledger, prepared)


def _with_status(state: TrustRegionState, status: Status) -> TrustRegionState:
    return eqx.tree_at(lambda s: s.status, state, jnp.asarray(int(status), state.status.dtype))
