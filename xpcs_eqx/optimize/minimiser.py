"""The trust region as a minimiser of Optimistix."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optimistix as optx
from jaxtyping import Array, Bool, Float, PyTree, Scalar

from ..parameters import unbounded
from .status import Status
from .trust_region import TrustRegion, TrustRegionState


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
