"""The two stages of an outer iteration: physical parameters, then contrast and offset."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..compiling import quick_jit
from ..errors import ModelError
from ..objective import (
    AbstractLinearScalingPenalty,
    Linear,
    TwoTimeObjective,
    scaling_penalty_equations,
    solve_scaling,
)
from ..optimize import TrustRegion, WarmUp, WarmUpState, evaluated, iterate_host, no_defences
from ..parameters.variables import coordinates_of, physical_of
from ..uncertainty import loss_of
from .frozen import angle_cost, scaling_objective, with_frozen_scaling


class Reached(NamedTuple):
    """Where a stage ended: parameters or coefficients, the cost, and passes over the data."""

    x: Float[np.ndarray, "variable"]
    cost: float
    passes: int


class AbstractPhysicalStage(eqx.Module):
    """How physical parameters are fitted while contrast and offset are held."""

    @abstractmethod
    def run(
        self,
        objective: TwoTimeObjective,
        x: Float[np.ndarray, "free"],
        per_angle: Float[np.ndarray, "angle 2"],
    ) -> Reached:
        """From physical parameters `x`, at (contrast, offset) `per_angle`."""


class AbstractScalingStage(eqx.Module):
    """How contrast and offset are fitted while the physical parameters are held."""

    @abstractmethod
    def run(
        self,
        objective: TwoTimeObjective,
        x: Float[np.ndarray, "free"],
        coefficients: Float[np.ndarray, "coefficient"],
    ) -> Reached:
        """From scaling coefficients, at physical parameters `x`."""


def _positive(owner: str, **numbers: float) -> None:
    for name, value in numbers.items():
        if not (np.isfinite(value) and value > 0):
            raise ModelError(f"{name} = {value} of {owner}; give a number above zero")


@quick_jit
def _curvature(variables, y, hessian):
    """The diagonal of JᵀJ by physical variables."""
    turn = jnp.linalg.inv(jax.jacfwd(variables.to_physical)(y))
    return jnp.diagonal(turn.T @ hessian @ turn)


class LBFGSStage(AbstractPhysicalStage):
    """L-BFGS in the physical parameters, inside their bounds: a `WarmUp` without defences.

    Each is measured in units of its own curvature where the stage begins.

    - `iterations`: at most; `tolerance`: relative fall of the cost in an iteration.

    **Raises:** `ModelError` for numbers that are not positive.
    """

    iterations: int = 100
    tolerance: float = 1e-8

    def __check_init__(self):
        _positive("LBFGSStage", iterations=self.iterations, tolerance=self.tolerance)

    def run(self, objective, x, per_angle):
        frozen = with_frozen_scaling(objective, per_angle)
        x = np.asarray(x, float)
        y = coordinates_of(objective.term.parameters, jnp.asarray(x))
        here, _ = evaluated(frozen, y, frozen.memo)
        cost = float(here.cost)
        if not (cost > 0 and np.isfinite(cost)):
            return Reached(x, cost, 1)
        curvature = np.asarray(_curvature(frozen.variables, y, here.hessian))

        def units(lower, upper, start, names):
            own = np.sqrt(2 * cost / np.where(curvature > 0, curvature, np.inf))
            return np.where(own > 0, own, np.maximum(np.abs(start), 1.0))

        warm_up = no_defences(
            WarmUp(
                plateau=self.tolerance,
                plateau_close=self.tolerance,
                gradient=float(np.finfo(float).eps),
                max_iterations=int(self.iterations),
                minimum=1,
                units=units,
            )
        )
        state, advance = warm_up.begin(frozen, x), warm_up.machine(frozen)
        while state.running:
            state = advance(state)
        assert isinstance(state, WarmUpState)
        lowest = float(state.best_loss) / float(state.scale)
        passes = 1 + int(state.evaluations)
        return Reached(state.best, lowest, passes) if lowest < cost else Reached(x, cost, passes)


class TrustRegionStage(AbstractPhysicalStage):
    """The trust region on the normal equations of the physical parameters."""

    solver: TrustRegion = TrustRegion(max_evaluations=100)

    def run(self, objective, x, per_angle):
        state = iterate_host(self.solver, with_frozen_scaling(objective, per_angle), jnp.asarray(x))
        found = np.asarray(physical_of(objective.term.parameters, state.y))
        return Reached(found, float(state.equations.cost), int(state.evaluations))


@quick_jit
def _solved(equations, reference, scaling, penalties):
    def penalty(coefficients):
        return scaling_penalty_equations(penalties, scaling, coefficients)

    best, _ = solve_scaling(equations, reference, scaling, penalty)
    step = scaling.per_angle(best) - reference
    slope = equations.gradient + 0.5 * jnp.einsum("ast,at->as", equations.hessian, step)
    return best, jnp.sum(equations.cost) + jnp.sum(step * slope) + penalty(best).cost


class ScalingStage(AbstractScalingStage):
    """Contrast and offset: solved exactly where they are linear, by the trust region elsewhere.

    They are linear for the linear loss with penalties that are linear as well; one pass over the
    data then does.

    - `evaluations`: at most, where they are not; `tolerance`: relative step.

    **Raises:** `ModelError` for numbers that are not positive.
    """

    evaluations: int = eqx.field(static=True, default=50)
    tolerance: float = 1e-6

    def __check_init__(self):
        _positive("ScalingStage", evaluations=self.evaluations, tolerance=self.tolerance)

    def run(self, objective, x, coefficients):
        term, penalties = objective.term, objective.scaling_penalties
        y = coordinates_of(term.parameters, jnp.asarray(x))
        loss = loss_of(objective)
        exact = all(isinstance(one, AbstractLinearScalingPenalty) for one in penalties)
        if isinstance(loss, Linear) and exact:
            equations = angle_cost(term, y, term.reference, loss)
            best, cost = _solved(equations, term.reference, term.scaling, penalties)
            return Reached(np.asarray(best), float(cost), 1)
        # The cost is flat to second order: its fall is the square of what the step is.
        solver = TrustRegion(
            max_evaluations=self.evaluations,
            step_tol=self.tolerance,
            cost_tol=float(self.tolerance) ** 2,
        )
        alone = scaling_objective(objective, y, coefficients)
        state = iterate_host(solver, alone, alone.begin)
        lower, upper = (np.asarray(bound) for bound in term.scaling.bounds)
        best = np.clip(np.asarray(state.y), lower, upper)
        return Reached(best, float(state.equations.cost), int(state.evaluations))
