"""The trust region run to its end: inside one compiled loop, or from Python."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..compiling import quick_jit
from ..objective import AbstractObjective, NormalEquations
from .matrix_free import ConjugateGradient, GradientEquations, check_plain, gradient_equations
from .status import Status
from .trust_region import TrustRegion, TrustRegionState


def initial_state(
    solver: TrustRegion, objective: AbstractObjective, x: Float[Array, "p"]
) -> TrustRegionState:
    """The state before the first evaluation of an objective, at physical start values `x`."""
    return _initial(solver, objective.variables, objective.memo, x)


def _initial(solver, variables, memo, x):
    y = variables.to_coordinates(x)
    # Shapes alone: one column for each variable, whatever the driver.
    columns = NormalEquations.zero(y.shape[0], dtype=y.dtype)
    if isinstance(solver.descent, ConjugateGradient):
        columns = GradientEquations.zero(y.shape[0])
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
def _cost_and_gradient_compiled(objective, y):
    return objective.cost_and_gradient(y, objective.memo)


def cost_and_gradient(
    objective: AbstractObjective, y: Float[Array, "variable"]
) -> tuple[Float[Array, ""], Float[Array, "variable"]]:
    """`objective.cost_and_gradient`, compiled where it may be."""
    if objective.traceable:
        return _cost_and_gradient_compiled(objective, y)
    return objective.cost_and_gradient(y, objective.memo)


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
    allowed: int | None = None,
) -> TrustRegionState:
    """Run to the end from Python: can be interrupted and watched, same iterates.

    `callback` sees the state after every evaluation; a true return value stops the iteration.
    Given such a `state`, which holds all there is to know, the iteration goes on from it instead
    of beginning at `x`. `allowed` is the number of evaluations at most for one that begins, by
    default that of the solver.
    """
    now: TrustRegionState = _begin(solver, objective, x) if state is None else state
    if state is None and allowed is not None:
        # Whole numbers of Python, which know no end, until the smaller one is found.
        most = np.asarray(min(int(allowed), int(now.allowed)), now.allowed.dtype)
        now = eqx.tree_at(lambda s: s.allowed, now, jnp.asarray(most))
    by_products = isinstance(solver.descent, ConjugateGradient)
    if by_products:
        check_plain(objective.variables)
    while int(now.status) == Status.running:
        if by_products:
            found = gradient_equations(objective, now.trial, float(now.equations.cost))
            now = solver.update(objective.variables, now, found, now.memo, objective.product)
            now = solver.propose(objective.variables, now)
        else:
            equations, memo = evaluate(objective, now.trial, now.memo)
            now = _advance(solver, objective.variables, now, equations, memo)
        if callback is not None and callback(now) and int(now.status) == Status.running:
            now = eqx.tree_at(lambda s: s.status, now, jnp.asarray(int(Status.interrupted)))
    return now


def lower_iteration(
    solver: TrustRegion, objective: AbstractObjective, x: Float[Array, "p"]
) -> None:
    """Compile the step of `iterate_host` without running it."""
    if isinstance(solver.descent, ConjugateGradient):
        return
    state = _begin(solver, objective, x)
    # Equations and memo of a state have the shapes of those an evaluation returns.
    _advance.lower(solver, objective.variables, state, state.equations, state.memo).compile()
