"""Units in which the warm-up measures variables, from their bounds and start values."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..compiling import quick_jit
from ..errors import ModelError
from ..objective import AbstractObjective
from ..parameters import AbstractVariables
from ..parameters.variables import coordinates_of
from .bounded_step import held_on_bound
from .convergence import Ending
from .line_search import full_step, search_line, zoom
from .loops import cost_and_gradient
from .preparation import AbstractPreparation, AbstractPreparationState, Event, Telemetry

Vector = Float[np.ndarray, "variable"]


def by_bounds(lower: Vector, upper: Vector, start: Vector, names: tuple[str, ...]) -> Vector:
    """The width of the bounds.

    **Raises:** `ModelError` for a variable without two finite bounds.
    """
    width = _width(lower, upper)
    missing = np.flatnonzero(~np.isfinite(width))
    if missing.size:
        raise ModelError(
            f"{names[missing[0]]} has no finite bounds to be measured by; give both or use "
            "by_start or automatic"
        )
    return width


def by_start(lower: Vector, upper: Vector, start: Vector, names: tuple[str, ...]) -> Vector:
    """|start|; one for a variable that starts at zero, which says nothing about its size."""
    return np.where(start == 0, 1.0, np.abs(start))


def as_given(lower: Vector, upper: Vector, start: Vector, names: tuple[str, ...]) -> Vector:
    """One: variables are measured in the unit that they have."""
    return np.ones_like(start)


def automatic(lower: Vector, upper: Vector, start: Vector, names: tuple[str, ...]) -> Vector:
    """The smaller of |start| and the width of the bounds: a box may be there for its own sake.

    One for a variable that starts at zero and has no finite bounds.
    """
    size = np.where(start == 0, np.inf, np.abs(start))
    found = np.minimum(size, _width(lower, upper))
    return np.where(np.isfinite(found), found, 1.0)


def _width(lower, upper):
    with np.errstate(invalid="ignore"):
        return upper - lower


# Iterations whose numbers are kept.
RECORDED = 500


class WarmUpEnd(Ending):
    """How a warm-up ended; none of these says that the fit converged."""

    running = 0, "stopped: interrupted"
    skipped = 1, "skipped: the start explains the data already"
    plateau = 2, "done: the loss falls slowly"
    gradient = 3, "done: the gradient is small"
    iterations = 4, "done: the iterations are used up"
    no_step = 5, "done: no step along the direction of descent lowers the loss"
    guard = -1, "stopped: the loss grew; the best point is kept"
    non_finite = -2, "stopped: the model is not finite at the start"


class WarmUpHistory(eqx.Module):
    """Numbers of the first `RECORDED` iterations; NaN and False for those that were not.

    - `loss`: after the iteration; `gradient`: norm along directions that the bounds allow.
    - `direction`: norm of the direction, before it was clipped; `step`: the multiple of it taken.
    - `clipped`: whether a longer step was wanted; `reset`: whether the memory was forgotten.
    """

    loss: Float[np.ndarray, "recorded"]
    gradient: Float[np.ndarray, "recorded"]
    direction: Float[np.ndarray, "recorded"]
    step: Float[np.ndarray, "recorded"]
    clipped: Bool[np.ndarray, "recorded"]
    reset: Bool[np.ndarray, "recorded"]

    @classmethod
    def empty(cls) -> "WarmUpHistory":
        """Before the first iteration."""
        blank, no = np.full(RECORDED, np.nan), np.zeros(RECORDED, bool)
        return cls(blank, blank, blank, blank, no, no)

    def with_row(self, place: int, *row: float | bool) -> "WarmUpHistory":
        """With the numbers of an iteration, in the order of the fields."""
        here = np.arange(RECORDED) == place
        columns = zip(jax.tree.leaves(self), row, strict=True)
        return WarmUpHistory(*(np.where(here, new, old) for old, new in columns))


class WarmUpState(AbstractPreparationState):
    """A warm-up between two iterations.

    - `x`, `loss`, `gradient`: the present physical variables, the loss there and its gradient by
        z = x / `unit`; `best`, `best_loss`: the lowest so far; `first_loss`: at the start.
    - `unit`: in which a variable is measured; `scale`: the loss of a cost of one.
    - `memory`: of L-BFGS (Optax); `held`: variables on a bound that the gradient keeps there.
    - `measure`: norm of the gradient along directions that the bounds allow.
    - `caught`: how often loss and gradient were not finite; `clipped`: iterations whose step was
        limited; `resets`: how often the memory was forgotten.
    """

    x: Float[np.ndarray, "variable"]
    loss: Float[np.ndarray, ""]
    gradient: Float[np.ndarray, "variable"]
    best: Float[np.ndarray, "variable"]
    best_loss: Float[np.ndarray, ""]
    first_loss: Float[np.ndarray, ""]
    unit: Float[np.ndarray, "variable"]
    scale: Float[np.ndarray, ""]
    memory: PyTree[Array | np.ndarray]
    held: Bool[np.ndarray, "variable"]
    measure: Float[np.ndarray, ""]
    iteration: Int[np.ndarray, ""]
    evaluations: Int[np.ndarray, ""]
    resets: Int[np.ndarray, ""]
    clipped: Int[np.ndarray, ""]
    caught: Int[np.ndarray, "2"]
    status: Int[np.ndarray, ""]
    history: WarmUpHistory

    phase: ClassVar[str] = "warm-up"

    @property
    def end(self) -> WarmUpEnd:
        """How it ended."""
        return WarmUpEnd(int(self.status))

    @property
    def running(self):
        return self.end is WarmUpEnd.running

    @property
    def losses(self) -> Float[np.ndarray, "iteration"]:
        """The loss at the start and after the first iterations."""
        used = self.history.loss[: int(self.iteration)]
        return np.concatenate([np.atleast_1d(self.first_loss), used])

    @property
    def summary(self):
        return (
            f"warm-up, iteration {int(self.iteration)}, {int(self.evaluations)} passes: loss "
            f"{float(self.best_loss):.8g}, gradient {float(self.measure):.2e}"
        )

    @property
    def telemetry(self) -> Telemetry:
        """How often each defence was asked and fired, one event for each firing."""
        number, passes, first = int(self.iteration), int(self.evaluations), float(self.first_loss)
        end, loss = self.end, float(self.loss)
        start = (("relative_loss", first),)
        out = Telemetry.of(
            "warm start", 1, [Event("warm start", 0, start)] * (end is WarmUpEnd.skipped)
        )
        caught = zip(("finite loss", "finite gradient"), self.caught.tolist(), strict=True)
        for layer, count in caught:
            out += Telemetry(((layer, passes, count),))
        if end is WarmUpEnd.skipped:
            return out
        grown = (("loss", loss), ("first_loss", first))
        guard = [Event("cost guard", number, grown)] * (end is WarmUpEnd.guard)
        norms, steps = self.history.direction.tolist(), self.history.step.tolist()
        events = [
            Event("step clip", k + 1, (("norm", norms[k]), ("step", steps[k])))
            for k in np.flatnonzero(self.history.clipped).tolist()
        ]
        out += Telemetry.of("first step", 1, [Event("first step", 1, start)] * (number > 0))
        out += Telemetry.of("cost guard", number, guard)
        return out + Telemetry(
            (("step clip", number, int(self.clipped)), ("memory reset", number, int(self.resets))),
            tuple(events),
        )


@quick_jit
def _lbfgs(method, memory_size, *arguments):
    import optax

    return getattr(optax.scale_by_lbfgs(memory_size), method)(*arguments)


def _fresh(memory_size, x):
    """The memory of L-BFGS that knows nothing yet, for variables like `x`."""
    return jax.tree.map(np.asarray, _lbfgs("init", memory_size, np.zeros_like(x)))


@quick_jit
def _pulled_back(variables, x, gradient):
    """The gradient by physical variables from that by coordinates."""
    return jax.vjp(variables.to_coordinates, x)[1](gradient)[0]


class WarmUp(AbstractPreparation):
    """For a start far from the minimum: a first stage that comes near enough for the solver.

    L-BFGS on the mean squared weighted residual, in physical variables inside their bounds.

    The loss is the cost, penalties included, relative to what a constant would leave of it
    (`AbstractObjective.spread`), or to the cost at the start where nothing is known of that; so
    loss, gradient and tolerances have no units. Liu & Nocedal, Mathematical Programming 45, 503
    (1989); directions and line searches are those of Optax.

    When to end, after at least `minimum` iterations; infinite or zero numbers switch a reason off:

    - `plateau`: the loss fell by less than this part of itself over the last `window` iterations,
        or, once it is below `close`, by less than `plateau_close`: the trust region is quicker
        there. An iteration whose step was clipped says nothing.
    - `gradient`: norm of the gradient below which to end.
    - `max_iterations`: at most.

    Four defences, each switched off by a number that never applies (`no_defences`):

    - `warm_start`: a start with a loss below this needs no warm-up.
    - `refinement`, `careful`, `exploration`: first step as a part of the first direction, where the
        first loss is below `close`, below `far`, or above.
    - `guard`: a loss above this multiple of the first one ends it; the best point is kept.
    - `clip`: no step is longer than this, in units of the variables.

    How:

    - `memory`: pairs of differences that L-BFGS keeps; `tries`: steps of a line search at most.
    - `units`: `automatic`, `by_bounds`, `by_start`, `as_given`, or a function like these.
    - `search`: `zoom`, `backtracking` or `full_step`.
    """

    plateau: float = 0.05
    plateau_close: float = 0.3
    window: int = 1
    gradient: float = 1e-3
    max_iterations: int = 500
    minimum: int = 0
    warm_start: float = 0.01
    refinement: float = 1.0
    careful: float = 0.5
    exploration: float = 0.1
    close: float = 0.1
    far: float = 1.0
    guard: float = 1.05
    clip: float = 0.1
    memory: int = eqx.field(static=True, default=10)
    tries: int = eqx.field(static=True, default=20)
    units: Callable[..., Float[np.ndarray, "variable"]] = eqx.field(static=True, default=automatic)
    search: Callable[..., Any] = eqx.field(static=True, default=zoom)

    def begin(self, objective, x):
        variables = objective.variables
        lower, upper = (np.asarray(bound, float) for bound in (variables.lower, variables.upper))
        x = np.array(x, dtype=float)
        zero, infinite, integer = np.zeros_like(x), np.asarray(np.inf), np.asarray(0)
        return WarmUpState(
            x=x,
            loss=infinite,
            gradient=zero,
            best=x,
            best_loss=infinite,
            first_loss=infinite,
            unit=np.asarray(self.units(lower, upper, x, objective.names), float),
            scale=np.asarray(1.0),
            memory=_fresh(self.memory, x),
            held=np.zeros(x.shape, dtype=bool),
            measure=infinite,
            iteration=integer,
            evaluations=integer,
            resets=integer,
            clipped=integer,
            caught=np.zeros(2, dtype=np.int64),
            status=integer,
            history=WarmUpHistory.empty(),
        )

    def first_step(self, loss: float) -> float:
        """Part of the first direction that is tried first, by the loss at the start."""
        if loss < self.close:
            return self.refinement
        return self.careful if loss < self.far else self.exploration

    def machine(self, objective):
        look = _Looks(objective)

        # Far away a model may overflow: what is not finite is caught and needs no warning.
        @np.errstate(over="ignore", invalid="ignore")
        def step(state):
            assert isinstance(state, WarmUpState)
            look.passes, look.caught = 0, np.zeros(2, np.int64)
            first = int(state.evaluations) == 0
            new = self._first(objective, state, look) if first else self._iterate(state, look)
            return _replace(
                new,
                evaluations=state.evaluations + look.passes,
                caught=state.caught + look.caught,
            )

        return step

    def _first(self, objective, state, look):
        """Look at the start."""
        cost, gradient = look(state.x)
        if not look.finite(cost, gradient):
            return _replace(state, status=WarmUpEnd.non_finite)
        whole = objective.spread()
        whole = whole if np.isfinite(whole) and whole > 0 else cost
        scale = 1.0 / whole if whole > 0 else 1.0
        loss = scale * cost
        state = _replace(state, scale=scale, first_loss=loss)
        state = self._accepted(state, look, state.x, loss, scale * state.unit * gradient)
        if loss < self.warm_start:
            return _replace(state, status=WarmUpEnd.skipped)
        return state if self.max_iterations else _replace(state, status=WarmUpEnd.iterations)

    def _accepted(self, state, look, x, loss, gradient):
        held = np.asarray(held_on_bound(x, gradient, look.lower, look.upper))
        if np.any(held != state.held):
            # Differences of gradients along other directions say nothing about these.
            state = _replace(state, memory=_fresh(self.memory, state.x))
        better = loss < state.best_loss
        return _replace(
            state,
            x=x,
            loss=loss,
            gradient=gradient,
            held=held,
            best=x if better else state.best,
            best_loss=loss if better else state.best_loss,
            measure=np.linalg.norm(np.where(held, 0.0, gradient)),
        )

    def _iterate(self, state, look):
        """One direction and how far along it; straight down where L-BFGS leads nowhere."""
        if float(state.measure) == 0:
            return _replace(state, status=WarmUpEnd.gradient)
        new = self._along(state, look, False)
        if new is None:
            state = _replace(state, memory=_fresh(self.memory, state.x), resets=state.resets + 1)
            new = self._along(state, look, True)
        return _replace(state, status=WarmUpEnd.no_step) if new is None else new

    def _along(self, state, look, reset):
        """The state at the end of a line search along the direction of L-BFGS; `None` without.

        `reset`: whether the memory was forgotten for it.
        """
        free = np.where(state.held, 0.0, state.gradient)
        found = _lbfgs("update", self.memory, free, state.memory, state.x / state.unit)
        update, memory = jax.tree.map(np.asarray, found)
        direction = np.where(state.held, 0.0, -update)
        if not (np.all(np.isfinite(direction)) and float(free @ direction) < 0):
            return None
        norm, number = float(np.linalg.norm(direction)), int(state.iteration)
        longest = self.clip / norm
        first = self.first_step(float(state.loss)) if number == 0 else 1.0
        found = self._searched(state, look, direction, first, longest)
        if found is None:
            return None
        step, x, loss, gradient = found
        clipped = bool(first > longest)
        state = _replace(
            state, memory=memory, iteration=number + 1, clipped=state.clipped + clipped
        )
        state = self._accepted(state, look, x, loss, gradient)
        row = (loss, float(state.measure), norm, step, clipped, reset)
        state = _replace(state, history=state.history.with_row(number, *row))
        return _replace(state, status=self._end(state))

    def _searched(self, state, look, direction, first, longest):
        """Step, point, loss and gradient at the end of a line search; `None` where it fails."""
        scale, unit = float(state.scale), state.unit

        def at(step):
            wanted = state.x + step * unit * direction
            point = np.clip(wanted, look.lower, look.upper)
            cost, gradient = look(point)
            if not look.finite(cost, gradient):
                return np.inf, 0.0, None
            gradient = scale * unit * gradient
            # Along a variable that was stopped at its bound nothing changes.
            inside = (wanted > look.lower) & (wanted < look.upper)
            return scale * cost, float(gradient[inside] @ direction[inside]), (point, gradient)

        value, slope = float(state.loss), float(state.gradient @ direction)
        found = search_line(self.search, self.tries, at, value, slope, first, longest)
        if found is None or (found[1] >= value and self.search is not full_step):
            return None
        step, loss, there = found
        assert there is not None  # φ is finite at the step, which was looked at
        return step, there[0], loss, there[1]

    def _end(self, state) -> WarmUpEnd:
        """Whether an iteration was the last, and why."""
        number, loss = int(state.iteration), float(state.loss)
        if loss > self.guard * float(state.first_loss):
            return WarmUpEnd.guard
        if number >= self.max_iterations:
            return WarmUpEnd.iterations
        if number < self.minimum:
            return WarmUpEnd.running
        recorded = self.window <= number <= RECORDED
        if recorded and not state.history.clipped[number - 1]:
            before = float(state.losses[number - self.window])
            part = self.plateau_close if loss < self.close else self.plateau
            if before - loss <= part * before:
                return WarmUpEnd.plateau
        return WarmUpEnd.gradient if state.measure <= self.gradient else WarmUpEnd.running


class _Looks:
    """Cost and gradient of an objective by physical variables; counts how often they are asked."""

    def __init__(self, objective: AbstractObjective):
        self.objective = objective
        variables: AbstractVariables = objective.variables
        self.lower = np.asarray(variables.lower, float)
        self.upper = np.asarray(variables.upper, float)
        self.passes, self.caught = 0, np.zeros(2, np.int64)

    def __call__(self, x):
        variables = self.objective.variables
        self.passes += 1
        y = coordinates_of(variables, x)
        cost, gradient = cost_and_gradient(self.objective, y)
        gradient = _pulled_back(variables, x, jnp.asarray(gradient))
        return float(cost), np.asarray(gradient)

    def finite(self, cost, gradient) -> bool:
        """Whether both are; counts those that are not."""
        good = np.array([np.isfinite(cost), np.all(np.isfinite(gradient))])
        self.caught = self.caught + ~good
        return bool(good.all())


def _replace(state, **values):
    """The state with some entries replaced, each an array of the type it had."""
    for name, value in values.items():
        old = getattr(state, name)
        values[name] = np.asarray(value, old.dtype) if isinstance(old, np.ndarray) else value
    return dataclasses.replace(state, **values)


def strict_defences(warm_up: WarmUp | None = None) -> WarmUp:
    """Early to stop and slow to move; a warm start must be a tenth as far off to count as one."""
    return _with(warm_up, 0.001, (0.5, 0.2, 0.05), 1.01, 0.05)


def relaxed_defences(warm_up: WarmUp | None = None) -> WarmUp:
    """Room to move: steps five times as long, and a loss that may grow by half."""
    return _with(warm_up, 0.01, (1.0, 1.0, 0.5), 1.5, 0.5)


def no_defences(warm_up: WarmUp | None = None) -> WarmUp:
    """None of them ever applies."""
    return _with(warm_up, 0.0, (1.0, 1.0, 1.0), np.inf, np.inf)


def _with(warm_up, warm_start, first_steps, guard, clip):
    names = ("refinement", "careful", "exploration")
    steps = dict(zip(names, first_steps, strict=True))
    warm_up = WarmUp() if warm_up is None else warm_up
    return dataclasses.replace(warm_up, warm_start=warm_start, guard=guard, clip=clip, **steps)
