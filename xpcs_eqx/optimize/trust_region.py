"""Bounded trust region on normal equations: one pure state machine for every loop."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..compiling import quick_jit
from ..objective import AbstractObjective, NormalEquations
from ..parameters import AbstractVariables
from .bounded_step import StepProblem, bounded_step, move, projected_gradient, step_problem
from .descent import ShortenedNewtonDescent
from .metric import AbstractMetric, NaturalMetric
from .status import Status


class History(eqx.Module):
    """Cost, projected gradient (a cosine), step size and acceptance of every evaluation."""

    cost: Float[Array, "evaluation"]
    gradient: Float[Array, "evaluation"]
    step_size: Float[Array, "evaluation"]
    accepted: Bool[Array, "evaluation"]


class TrustRegionState(eqx.Module):
    """The best accepted point with its own equations, the trial point, and the search."""

    y: Float[Array, "p"]
    equations: NormalEquations
    memo: PyTree
    trial: Float[Array, "p"]
    step: Float[Array, "p"]
    scale: Float[Array, "p"]
    largest: Float[Array, "p"]
    search: PyTree
    step_size: Float[Array, ""]
    evaluations: Int[Array, ""]
    accepted: Int[Array, ""]
    rejected: Int[Array, ""]
    non_finite: Int[Array, ""]
    gradient_measure: Float[Array, ""]
    status: Int[Array, ""]
    history: History


def damped_newton() -> optx.AbstractDescent:
    """Levenberg–Marquardt steps: (H + λI) z = −g with λ the inverse step size."""
    return optx.DampedNewtonDescent(lx.Cholesky())


def dogleg() -> optx.AbstractDescent:
    """Powell's dogleg between the steepest-descent and the Gauss–Newton step."""
    return optx.DoglegDescent(linear_solver=lx.SVD())


def gauss_newton() -> optx.AbstractDescent:
    """Gauss–Newton steps shortened along their direction."""
    return ShortenedNewtonDescent()


def default_search() -> optx.AbstractSearch:
    """The classical trust region, opening faster than Optimistix does by default.

    Normal equations predict well; their steps are often right although the ratio of true to
    predicted reduction is a few percent from one.
    """
    return optx.ClassicalTrustRegion(
        high_cutoff=0.5, low_cutoff=1e-3, high_constant=10.0, low_constant=0.2
    )


def _as_value(number: Any) -> Any:
    # A number of NumPy is data to a compiled function, so that another one compiles nothing anew,
    # and can still be hashed.
    return np.float64(number) if isinstance(number, float | int) else number


class TrustRegion(eqx.Module):
    """Least squares by normal equations in a box, from Optimistix' descents and searches.

    Steps are taken in coordinates scaled by `metric`, since damping acts alike on all of them;
    bounds are those of the physical variables. `propose` names a point and
    `update` takes the normal equations found there; a compiled loop and a loop in Python over
    streamed data run the same machine.

    - `cost_tol`: relative reduction of the cost, true and predicted, at which to stop.
    - `step_tol`: step relative to the coordinates and their natural scale.
    - `gradient_tol`: largest cosine between the residuals and a column of the Jacobian.
    - `unmoved_gradient_tol`: the same for a start that no step improves, which counts as converged
        below it and as stalled above.
    - `damping`: initial damping relative to the largest curvature in the scaled coordinates.
    - `recorded`: how many evaluations the history keeps, at least one; by default all. A long
        history costs time in batches of small fits.
    """

    cost_tol: float = eqx.field(default=1e-12, converter=_as_value)
    step_tol: float = eqx.field(default=1e-9, converter=_as_value)
    gradient_tol: float = eqx.field(default=1e-10, converter=_as_value)
    unmoved_gradient_tol: float = eqx.field(default=1e-6, converter=_as_value)
    damping: float = eqx.field(default=0.1, converter=_as_value)
    metric: AbstractMetric = NaturalMetric()
    max_evaluations: int = eqx.field(static=True, default=200)
    recorded: int | None = eqx.field(static=True, default=None)
    descent: optx.AbstractDescent = eqx.field(default_factory=damped_newton)
    search: optx.AbstractSearch = eqx.field(default_factory=default_search)

    def start(
        self,
        variables: AbstractVariables,
        x: Float[Array, "p"],
        columns: NormalEquations,
        memo: PyTree,
    ) -> TrustRegionState:
        """The state before the first evaluation, at physical variables `x` inside the box.

        `columns` only gives the shapes of the equations.
        """
        y = variables.to_coordinates(jnp.clip(x, variables.lower, variables.upper))
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), columns)
        # Nothing is known yet: any finite cost is lower.
        empty = eqx.tree_at(lambda e: e.cost, empty, jnp.full_like(empty.cost, jnp.inf))
        ones = jnp.ones_like(y)
        problem = _zero_problem(y)
        length = self.max_evaluations if self.recorded is None else self.recorded
        blank = jnp.full((length,), jnp.nan, y.dtype)
        integer = jnp.asarray(0)
        state = TrustRegionState(
            y=y,
            equations=empty,
            memo=memo,
            trial=y,
            step=jnp.zeros_like(y),
            scale=ones,
            largest=jnp.zeros_like(y),
            search=self.search.init(y, jax.eval_shape(lambda: problem.function_info)),
            step_size=jnp.ones((), y.dtype),
            evaluations=integer,
            accepted=integer,
            rejected=integer,
            non_finite=integer,
            gradient_measure=jnp.asarray(jnp.inf, y.dtype),
            status=jnp.asarray(int(Status.running)),
            history=History(blank, blank, blank, jnp.zeros((length,), bool)),
        )
        # Without weak types, which a later state does not have: one compilation serves all steps.
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)

    def propose(self, variables: AbstractVariables, state: TrustRegionState) -> TrustRegionState:
        """Choose the next trial point from the accepted one."""
        problem = step_problem(variables, state.y, state.scale, state.equations)
        step, fixed, target = bounded_step(self.descent, problem, state.step_size)
        trial = move(variables, state.y, state.scale * step, fixed, target)
        return eqx.tree_at(lambda s: (s.trial, s.step), state, (trial, step))

    def update(
        self,
        variables: AbstractVariables,
        state: TrustRegionState,
        equations: NormalEquations,
        memo: PyTree,
    ) -> TrustRegionState:
        """Take the equations found at the trial point: accept or reject, and test for the end."""
        first = state.evaluations == 0
        finite = jnp.isfinite(equations.cost)
        finite &= jnp.all(jnp.isfinite(equations.gradient))
        finite &= jnp.all(jnp.isfinite(equations.hessian))
        cost = jnp.where(finite, equations.cost, jnp.inf)
        here = eqx.tree_at(
            lambda p: (p.cost, p.gradient, p.hessian),
            _zero_problem(state.y),
            (
                state.equations.cost,
                state.scale * state.equations.gradient,
                state.equations.hessian * jnp.outer(state.scale, state.scale),
            ),
        )
        origin = jnp.zeros_like(state.step)
        step_size, accept, _, search = self.search.step(
            first,
            origin,
            state.step,
            here.function_info,
            optx.FunctionInfo.Eval(cost),
            state.search,
        )
        # A step that rounding swallows is none, whatever the search makes of it.
        accept = ((accept & jnp.any(state.trial != state.y)) | first) & finite
        predicted = -(here.gradient @ state.step + 0.5 * state.step @ here.hessian @ state.step)
        actual = state.equations.cost - cost

        def chosen(new, old):
            return jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)

        moved = state.trial - state.y
        y = chosen(state.trial, state.y)
        kept = chosen(equations, state.equations)
        largest = jnp.maximum(state.largest, jnp.where(finite, jnp.diagonal(kept.hessian), 0.0))
        scale = self.metric.scale(jnp.asarray(variables.coordinate_scale), largest) / jnp.sqrt(
            self.damping
        )
        problem = step_problem(variables, y, scale, kept)
        measure = _gradient_measure(problem)
        size = jnp.max(
            jnp.abs(moved) / (variables.coordinate_scale + jnp.abs(state.y)), initial=0.0
        )
        tiny = self.cost_tol * state.equations.cost
        flat = ~first & (jnp.abs(actual) <= tiny) & (jnp.abs(predicted) <= tiny)
        # A step that only rounding could reject means the same as one that no longer pays.
        rounding = 16 * jnp.finfo(y.dtype).eps * state.equations.cost
        flat |= ~first & finite & (jnp.abs(predicted) <= rounding)
        short = ~first & accept & (size <= self.step_tol)
        # Rejections shrink any step until it promises nothing: before the first move that is no
        # convergence unless the gradient vanishes.
        settled = (state.accepted > 1) | (state.gradient_measure <= self.unmoved_gradient_tol)
        flat, short = flat & settled, short & settled
        # Steps below rounding that are still rejected: the cost is as low as arithmetic allows,
        # but without a vanishing gradient this is no minimum.
        stuck = ~first & ~accept & (size <= 4 * jnp.finfo(y.dtype).eps)
        used = state.evaluations + 1
        status = jnp.select(
            [
                first & ~finite,
                measure <= self.gradient_tol,
                flat,
                short,
                stuck,
                used >= self.max_evaluations,
            ],
            [
                int(Status.non_finite),
                int(Status.gradient),
                int(Status.cost),
                int(Status.step),
                int(Status.stalled),
                int(Status.max_evaluations),
            ],
            int(Status.running),
        )
        slot, old = state.evaluations, state.history
        history = History(
            old.cost.at[slot].set(cost, mode="drop"),
            old.gradient.at[slot].set(measure, mode="drop"),
            old.step_size.at[slot].set(step_size.astype(y.dtype), mode="drop"),
            old.accepted.at[slot].set(accept, mode="drop"),
        )
        new = TrustRegionState(
            y=y,
            equations=kept,
            memo=chosen(memo, state.memo),
            trial=y,
            step=jnp.zeros_like(y),
            scale=scale,
            largest=largest,
            search=search,
            step_size=step_size,
            evaluations=used,
            accepted=state.accepted + accept,
            rejected=state.rejected + ~accept,
            non_finite=state.non_finite + ~finite,
            gradient_measure=measure,
            status=status,
            history=history,
        )
        # The same types going in and out: the loop and its compiled body rely on it.
        return jax.tree.map(lambda leaf, old: jnp.asarray(leaf, old.dtype), new, state)


def _zero_problem(y):
    p = y.shape[0]
    square, line = jnp.zeros((p, p), y.dtype), jnp.zeros((p,), y.dtype)
    return StepProblem(
        jnp.zeros((), y.dtype), line, square, square, line, line, jnp.zeros((p,), bool)
    )


def _gradient_measure(problem: StepProblem) -> Float[Array, ""]:
    """Largest cosine between the residuals and a column of the Jacobian, along free directions."""
    gradient = projected_gradient(problem)
    column = jnp.sqrt(jnp.maximum(jnp.diagonal(problem.hessian), jnp.finfo(gradient.dtype).tiny))
    length = jnp.sqrt(jnp.maximum(2 * problem.cost, jnp.finfo(gradient.dtype).tiny))
    return jnp.max(jnp.abs(gradient) / (column * length), initial=0.0)


def initial_state(
    solver: TrustRegion, objective: AbstractObjective, x: Float[Array, "p"]
) -> TrustRegionState:
    """The state before the first evaluation of an objective, at physical start values `x`."""
    return _initial(solver, objective.variables, objective.memo, x)


def _initial(solver, variables, memo, x):
    y = variables.to_coordinates(x)
    # Shapes alone: one column for each variable, whatever the driver.
    columns = NormalEquations.zero(y.shape[0], dtype=y.dtype)
    return solver.start(variables, x, columns, memo)


_initial_compiled = quick_jit(_initial)


def _begin(solver, objective, x):
    # Without the data: those in another file compile nothing anew.
    return _initial_compiled(solver, objective.variables, objective.memo, jnp.asarray(x))


def iterate_compiled(
    solver: TrustRegion, objective: AbstractObjective, x: Float[Array, "p"]
) -> TrustRegionState:
    """Run to the end inside one compiled loop; safe under `jit` and `vmap`.

    `x` are the physical start values.
    """

    def body(state):
        equations, memo = objective.evaluate(state.trial, state.memo)
        state = solver.update(objective.variables, state, equations, memo)
        return solver.propose(objective.variables, state)

    start = initial_state(solver, objective, x)
    return jax.lax.while_loop(lambda s: s.status == int(Status.running), body, start)


@quick_jit
def _evaluate_compiled(objective, y, memo):
    return objective.evaluate(y, memo)


def evaluated(
    objective: AbstractObjective, y: Float[Array, "variable"], memo: PyTree
) -> tuple[NormalEquations, PyTree]:
    """`objective.evaluate`, compiled where it may be; every caller shares what was compiled."""
    if objective.traceable:
        return _evaluate_compiled(objective, y, memo)
    return objective.evaluate(y, memo)


@quick_jit
def _advance(solver, variables, state, equations, memo):
    state = solver.update(variables, state, equations, memo)
    return solver.propose(variables, state)


def iterate_host(
    solver: TrustRegion,
    objective: AbstractObjective,
    x: Float[Array, "p"],
    *,
    callback: Callable[[TrustRegionState], Any] | None = None,
    evaluate: Callable[..., Any] = evaluated,
    state: TrustRegionState | None = None,
) -> TrustRegionState:
    """Run to the end from Python: can be interrupted and watched, same iterates.

    `callback` sees the state after every evaluation; a true return value stops the iteration.
    Given such a `state`, which holds all there is to know, the iteration goes on from it instead
    of beginning at `x`.
    """
    now: TrustRegionState = _begin(solver, objective, x) if state is None else state
    while int(now.status) == Status.running:
        equations, memo = evaluate(objective, now.trial, now.memo)
        now = _advance(solver, objective.variables, now, equations, memo)
        if callback is not None and callback(now) and int(now.status) == Status.running:
            now = eqx.tree_at(lambda s: s.status, now, jnp.asarray(int(Status.interrupted)))
    return now


def lower_iteration(
    solver: TrustRegion, objective: AbstractObjective, x: Float[Array, "p"]
) -> None:
    """Compile the step of `iterate_host` without running it."""
    state = _begin(solver, objective, x)
    # Equations and memo of a state have the shapes of those an evaluation returns.
    _advance.lower(solver, objective.variables, state, state.equations, state.memo).compile()
