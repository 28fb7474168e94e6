"""The trust region run to its end: in one compiled loop, from Python, or by Optimistix."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float, PyTree, Scalar

from ..compiled import Later
from ..compiling import plain_jit, quick_jit
from ..objective import AbstractObjective, NormalEquations
from ..parameters import AbstractVariables, unbounded
from .convergence import Status
from .matrix_free import ConjugateGradient, GradientEquations, check_plain, gradient_equations
from .trust_region import TrustRegion, TrustRegionState


# Without the data: those in another file compile nothing anew.
@plain_jit
def _begin(solver, variables, memo, x):
    y = variables.to_coordinates(x)
    # Shapes alone: one column for each variable, whatever the driver.
    columns = NormalEquations.zero(y.shape[0], dtype=y.dtype)
    if isinstance(solver.descent, ConjugateGradient):
        columns = GradientEquations.zero(y.shape[0])
    return solver.start(variables, x, columns, memo)


def initial_state(
    solver: TrustRegion, objective: AbstractObjective, x: Float[Array, "p"]
) -> TrustRegionState:
    """The state before the first evaluation of an objective, at physical start values `x`."""
    return _begin.function(solver, objective.variables, objective.memo, x)


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
    compiled = _evaluate_compiled
    return (compiled.function if objective.in_parts else compiled)(objective, y, memo)


@quick_jit
def _cost_and_gradient_compiled(objective, y):
    return objective.cost_and_gradient(y, objective.memo)


def cost_and_gradient(
    objective: AbstractObjective, y: Float[Array, "variable"]
) -> tuple[Float[Array, ""], Float[Array, "variable"]]:
    """`objective.cost_and_gradient`, compiled where it may be."""
    compiled = _cost_and_gradient_compiled
    return (compiled.function if objective.in_parts else compiled)(objective, y)


@plain_jit
def advance(
    solver: TrustRegion,
    variables: AbstractVariables,
    state: TrustRegionState,
    equations: NormalEquations,
    memo: PyTree,
) -> TrustRegionState:
    """The state after the equations at its trial point, with the next trial point."""
    state = solver.update(variables, state, equations, memo)
    return solver.propose(variables, state)


def iterate_host(
    solver: TrustRegion,
    objective: AbstractObjective,
    x: Float[Array, "p"],
    *,
    callback: Callable[[TrustRegionState], Any] | None = None,
    state: TrustRegionState | None = None,
    allowed: int | None = None,
) -> TrustRegionState:
    """Run to the end from Python: can be interrupted and watched, same iterates.

    `callback` sees the state after every evaluation; a true return value stops the iteration.
    Given such a `state`, which holds all there is to know, the iteration goes on from it instead
    of beginning at `x`. `allowed` is the number of evaluations at most for one that begins, by
    default that of the solver.
    """
    now: TrustRegionState = (
        _begin(solver, objective.variables, objective.memo, jax.device_put(x))
        if state is None
        else state
    )
    if state is None and allowed is not None:
        # Whole numbers of Python, which know no end, until the smaller one is found.
        most = np.asarray(min(int(allowed), int(now.allowed)), now.allowed.dtype)
        now = eqx.tree_at(lambda s: s.allowed, now, jax.device_put(most))
    by_products = isinstance(solver.descent, ConjugateGradient)
    if by_products:
        check_plain(objective.variables)
    while int(now.status) == Status.running:
        if by_products:
            found = gradient_equations(objective, now.trial, float(now.equations.cost))
            now = solver.update(objective.variables, now, found, now.memo, objective.product)
            now = solver.propose(objective.variables, now)
        else:
            equations, memo = evaluated(objective, now.trial, now.memo)
            now = advance(solver, objective.variables, now, equations, memo)
        if callback is not None and callback(now) and int(now.status) == Status.running:
            now = eqx.tree_at(lambda s: s.status, now, jnp.asarray(int(Status.interrupted)))
    return now


def lower_evaluation(
    solver: TrustRegion,
    objective: AbstractObjective,
    x: Float[Array, "p"],
    later: Later,
) -> None:
    """Compile the sums of `iterate_host` without running them; `later` is given what takes long."""
    if isinstance(solver.descent, ConjugateGradient):
        return
    if objective.in_parts:
        objective.lower_parts(later)
    else:
        # As they are there, on one device or several.
        state = _begin(solver, objective.variables, objective.memo, x)
        _evaluate_compiled.prepare(objective, state.trial, state.memo, later=later)


def lower_iteration(
    solver: TrustRegion,
    objective: AbstractObjective,
    x: Float[Array, "p"],
    later: Later,
) -> None:
    """Compile the step of `iterate_host` without running it; `later` is given what takes long."""
    if isinstance(solver.descent, ConjugateGradient):
        return
    state = _begin(solver, objective.variables, objective.memo, x)
    # Equations and memo of a state have the shapes of those an evaluation returns.
    known = state.equations, state.memo
    advance.prepare(solver, objective.variables, state, *known, later=later)


class TrustRegionMinimiser(optx.AbstractMinimiser[Array, Any, TrustRegionState]):
    """`TrustRegion` behind `optimistix.minimise`.

    The function returns the cost and, as its auxiliary output, the `NormalEquations` at the same
    point: `fn = lambda y, objective: value_and_equations(objective, y)` with `has_aux=True`. The
    variables' box and coordinates come in as `options={"variables": ...}`; without, there are no
    bounds. It is successful at a minimum only: evaluations that are used up end in
    `nonlinear_max_steps_reached`, everything else in `nonlinear_divergence`. Being an ordinary
    minimiser it is differentiable by Optimistix' implicit adjoint, through `args` and everything
    the function closes over.
    """

    rtol: float = 1e-9
    atol: float = 1e-9
    norm: Callable[[PyTree], Scalar] = optx.max_norm
    solver: TrustRegion = eqx.field(default_factory=TrustRegion)

    def _variables(self, y, options):
        return options.get("variables", None) or unbounded(jax.lax.stop_gradient(y))

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        variables = self._variables(y, options)
        state = self.solver.start(variables, variables.to_physical(y), aux_struct, ())
        return eqx.tree_at(lambda s: (s.y, s.trial), state, (y, y))

    def step(self, fn, y, args, options, state, tags):
        variables = self._variables(y, options)
        _, equations = fn(state.trial, args)
        state = self.solver.update(variables, state, equations, ())
        state = self.solver.propose(variables, state)
        return state.y, state, state.equations

    def terminate(self, fn, y, args, options, state, tags) -> tuple[Bool[Array, ""], optx.RESULTS]:
        results = optx.RESULTS
        result = results.where(
            state.status == int(Status.max_evaluations),
            results.nonlinear_max_steps_reached,
            results.where(state.status < 0, results.nonlinear_divergence, results.successful),
        )
        return state.status != int(Status.running), result

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, aux, {}


def value_and_equations(
    objective: Any, y: Float[Array, "variable"]
) -> tuple[Float[Array, ""], Any]:
    """Cost and normal equations of an objective, in the form `optimistix.minimise` takes."""
    equations, _ = objective.evaluate(y, objective.memo)
    return equations.cost, jax.lax.stop_gradient(equations)
