"""Phase 1: L-BFGS on the mean squared residual, from far away to where Gauss–Newton is at home."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..compiling import quick_jit
from .criteria import AbstractCriterion, MaxIterations, Plateau, Progress, SmallGradient
from .defences import Defences
from .line_search import AbstractLineSearch, LineState, StrongWolfe
from .problem import AbstractProblem, Survey
from .steps import free_to_move

# Losses kept; criteria look at the last of them.
RECORDED = 500
# What was found to be not finite, by place in `WarmUpState.caught`.
CAUGHT = ("gradient", "parameters", "loss")


class WarmUpEnd(IntEnum):
    """How a warm-up ended; none of these says that the fit converged."""

    running = 0
    skipped = 1
    criterion = 2
    exhausted = 3
    guard = -1
    non_finite = -2
    interrupted = -3

    @property
    def message(self) -> str:
        """One sentence for a report."""
        return _MESSAGES[self]


_MESSAGES = {
    WarmUpEnd.running: "still running",
    WarmUpEnd.skipped: "skipped: the start explains the data already",
    WarmUpEnd.criterion: "done: a criterion is met",
    WarmUpEnd.exhausted: "done: no step along the direction of descent lowers the loss",
    WarmUpEnd.guard: "stopped: the loss grew; the best point is kept",
    WarmUpEnd.non_finite: "stopped: the model is not finite at the start",
    WarmUpEnd.interrupted: "stopped: interrupted",
}


class WarmUpState(eqx.Module):
    """Everything of a warm-up between two passes over the data, as arrays.

    - `z`, `loss`, `gradient`: the present iterate; `best`, `best_loss`: the lowest so far.
    - `memory`: of L-BFGS (Optax); `held`: variables on a bound that the gradient keeps there.
    - `direction`, `line`, `kept`: the line search, and the best point of it with loss and gradient.
    - `trial`: where the next pass takes place.
    - `caught`: how often gradient, parameters and loss were not finite; `clipped`: iterations
        whose step was limited.
    """

    z: Float[np.ndarray, "p"]
    loss: Float[np.ndarray, ""]
    gradient: Float[np.ndarray, "p"]
    best: Float[np.ndarray, "p"]
    best_loss: Float[np.ndarray, ""]
    first_loss: Float[np.ndarray, ""]
    memory: PyTree[Array | np.ndarray]
    held: Bool[np.ndarray, "p"]
    direction: Float[np.ndarray, "p"]
    line: LineState
    kept: tuple[
        Float[np.ndarray, "p"],
        Float[np.ndarray, ""],
        Float[np.ndarray, "p"],
    ]
    trial: Float[np.ndarray, "p"]
    measure: Float[np.ndarray, ""]
    losses: Float[np.ndarray, "recorded"]
    iteration: Int[np.ndarray, ""]
    evaluations: Int[np.ndarray, ""]
    resets: Int[np.ndarray, ""]
    clipped: Int[np.ndarray, ""]
    caught: Int[np.ndarray, "3"]
    status: Int[np.ndarray, ""]
    criterion: Int[np.ndarray, ""]

    @property
    def end(self) -> WarmUpEnd:
        """How it ended."""
        return WarmUpEnd(int(self.status))

    @property
    def history(self) -> Float[np.ndarray, "iteration"]:
        """The last losses, oldest first."""
        return self.losses[np.isfinite(self.losses)]


# Optax is imported where it is used: most fits never need it, and importing it takes time.
@quick_jit
def _precondition(memory_size, gradient, memory, z):
    import optax

    return optax.scale_by_lbfgs(memory_size).update(gradient, memory, z)


@quick_jit
def _fresh(memory_size, z):
    import optax

    return optax.scale_by_lbfgs(memory_size).init(z)


def _on_host(tree):
    return jax.tree.map(np.asarray, tree)


def _replace(state, **values):
    """The state with some entries replaced, each an array of the type it had."""
    names = tuple(values)
    new = tuple(
        np.asarray(values[n], getattr(state, n).dtype)
        if isinstance(getattr(state, n), np.ndarray)
        else values[n]
        for n in names
    )
    return eqx.tree_at(lambda s: tuple(getattr(s, n) for n in names), state, new)


class WarmUp(eqx.Module):
    """L-BFGS in a box, as a machine that names a point and is told loss and gradient there.

    The loss is the mean squared weighted residual, penalties included, divided by the variance of
    the data; so gradient and tolerances have no units. Liu & Nocedal, Mathematical Programming 45,
    503 (1989), directions from Optax.

    - `search`: how far along a direction; `memory`: pairs of differences kept.
    - `minimum`: iterations before a criterion may end the phase.
    - `criteria`: any subset of the reasons to end it.
    - `defences`: what keeps the phase from doing harm.
    """

    search: AbstractLineSearch = StrongWolfe()
    criteria: tuple[AbstractCriterion, ...] = (Plateau(), SmallGradient(), MaxIterations())
    defences: Defences = Defences()
    memory: int = eqx.field(static=True, default=10)
    minimum: int = eqx.field(static=True, default=200)

    def start(self, z: Float[np.ndarray, "p"]) -> WarmUpState:
        """The state before the first pass, which takes place at `z`."""
        z = np.array(z, dtype=float)
        zero, infinite = np.zeros_like(z), np.asarray(np.inf)
        integer = np.asarray(0)
        return WarmUpState(
            z=z,
            loss=infinite,
            gradient=zero,
            best=z,
            best_loss=infinite,
            first_loss=infinite,
            memory=_on_host(_fresh(self.memory, z)),
            held=np.zeros(z.shape, dtype=bool),
            direction=zero,
            line=self.search.start(0.0, 0.0, 0.0, 0.0),
            kept=(z, infinite, zero),
            trial=z,
            measure=infinite,
            losses=np.full(RECORDED, np.nan),
            iteration=integer,
            evaluations=integer,
            resets=integer,
            clipped=integer,
            caught=np.zeros(3, dtype=np.int64),
            status=integer,
            criterion=np.asarray(-1),
        )

    def update(
        self, problem: AbstractProblem, state: WarmUpState, loss: float, gradient: np.ndarray
    ) -> WarmUpState:
        """Take loss and gradient at the trial point and choose the next one.

        Of the problem only the box is used.
        """
        gradient = np.asarray(gradient, dtype=float)
        caught = state.caught + np.array([not np.all(np.isfinite(gradient)), False, False])
        caught = caught + np.array([False, False, not np.isfinite(loss)])
        finite = bool(np.isfinite(loss) and np.all(np.isfinite(gradient)))
        state = _replace(state, caught=caught, evaluations=state.evaluations + 1)
        if int(state.evaluations) == 1:
            if not finite:
                return _replace(state, status=WarmUpEnd.non_finite)
            state = _replace(state, first_loss=loss)
            state = self._accept(problem, state, state.trial, loss, gradient)
            if self.defences.warm_start.skip(loss):
                return _replace(state, status=WarmUpEnd.skipped)
            return self._search(problem, state, self.defences.first_step.size(loss))
        step = float(state.line.step)
        inside = (state.trial > problem.lower) & (state.trial < problem.upper)
        slope = float(gradient[inside] @ state.direction[inside]) if finite else np.inf
        line = self.search.update(state.line, loss if finite else np.inf, slope)
        if finite and (line.low[0] == step or (line.accepted and line.step == step)):
            here = (state.trial, np.asarray(float(loss)), gradient)
            state = eqx.tree_at(lambda s: s.kept, state, here)
        state = eqx.tree_at(lambda s: s.line, state, line)
        if not line.done:
            return self._try(problem, state)
        if not line.accepted:
            return self._reset(problem, state, 1)
        state = _replace(state, iteration=state.iteration + 1)
        state = self._accept(problem, state, *state.kept)
        if self.defences.guard.exceeded(float(state.loss), float(state.first_loss)):
            return _replace(state, status=WarmUpEnd.guard)
        if int(state.iteration) >= self.minimum:
            progress = Progress(int(state.iteration), state.history, float(state.measure))
            for place, criterion in enumerate(self.criteria):
                if criterion.met(progress):
                    return _replace(state, status=WarmUpEnd.criterion, criterion=place)
        return self._search(problem, state, 1.0)

    def reason(self, state: WarmUpState) -> str:
        """How a warm-up ended, as a sentence."""
        if state.end is WarmUpEnd.criterion:
            return f"done: {self.criteria[int(state.criterion)].reason}"
        return state.end.message

    def _accept(self, problem, state, z, loss, gradient):
        held = ~free_to_move(problem, z, gradient)
        if np.any(held != state.held):
            # Differences of gradients along other directions say nothing about these.
            state = _replace(state, memory=_on_host(_fresh(self.memory, z)))
        better = loss < state.best_loss
        filled = int(np.isfinite(state.losses).sum())
        losses = np.roll(state.losses, -1) if filled == RECORDED else state.losses.copy()
        losses[min(filled, RECORDED - 1)] = loss
        return _replace(
            state,
            z=z,
            loss=loss,
            gradient=gradient,
            held=held,
            best=z if better else state.best,
            best_loss=loss if better else state.best_loss,
            losses=losses,
            measure=np.linalg.norm(np.where(held, 0.0, gradient)),
        )

    def _search(self, problem, state, first):
        """A new direction and the first step along it."""
        free = np.where(state.held, 0.0, state.gradient)
        update, memory = _on_host(_precondition(self.memory, free, state.memory, state.z))
        direction = np.where(state.held, 0.0, -update)
        slope = float(free @ direction)
        if not np.all(np.isfinite(direction)):
            caught = state.caught + np.array([False, True, False])
            return self._reset(problem, _replace(state, caught=caught), 0)
        if not slope < 0:
            return self._reset(problem, state, 0)
        norm = float(np.linalg.norm(direction))
        longest = self.defences.clip.longest(norm)
        line = self.search.start(float(state.loss), slope, first, longest)
        state = _replace(
            state,
            memory=memory,
            direction=direction,
            line=line,
            clipped=state.clipped + (first > longest),
        )
        return self._try(problem, state)

    def _try(self, problem, state):
        trial = state.z + float(state.line.step) * state.direction
        return _replace(state, trial=np.clip(trial, problem.lower, problem.upper))

    def _reset(self, problem, state, tried):
        """Forget the curvature and go downhill; where that was tried already, this is the end.

        `tried`: what the memory counts when the direction that failed was straight down: one once
        the direction is taken up, none before.
        """
        if int(state.memory.count) <= tried or float(state.measure) == 0:
            return _replace(state, status=WarmUpEnd.exhausted)
        fresh = _on_host(_fresh(self.memory, state.z))
        state = _replace(state, memory=fresh, resets=state.resets + 1)
        return self._search(problem, state, 1.0)

    # Far away a model may overflow: what is not finite is caught and needs no warning.
    @np.errstate(over="ignore", invalid="ignore")
    def run(
        self,
        problem: AbstractProblem,
        survey: Survey,
        start: Float[np.ndarray, "p"] | WarmUpState,
        callback: Callable[[WarmUpState], Any] | None = None,
    ) -> WarmUpState:
        """Run to the end, from a point or from a state of an earlier run.

        `callback` sees the state after every pass; a true return value stops the phase.
        """
        state = start if isinstance(start, WarmUpState) else self.start(start)
        unit = loss_unit(survey)
        while state.end is WarmUpEnd.running:
            cost, gradient = problem.cost_and_gradient(state.trial)
            state = self.update(problem, state, unit * cost, unit * gradient)
            if callback is not None and callback(state) and state.end is WarmUpEnd.running:
                state = _replace(state, status=WarmUpEnd.interrupted)
        return state


def loss_unit(survey: Survey) -> float:
    """The loss of a cost of one: mean squares, in units of the variance of the data."""
    return 2.0 / survey.count / (survey.variance if survey.variance > 0 else 1.0)
