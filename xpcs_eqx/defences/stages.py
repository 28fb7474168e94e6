"""An objective in two halves, physical parameters and scaling, and the stage that fits each."""

import dataclasses
from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arguments import Count, Positive, check_fields
from ..compiling import quick_jit
from ..objective import (
    AbstractLinearScalingPenalty,
    AbstractLoss,
    AbstractObjective,
    AbstractScalingPenalty,
    Linear,
    ProjectedObjective,
    TwoTimeObjective,
    TwoTimeTerm,
    joint_of,
    scaling_penalty_equations,
    solve_scaling,
)
from ..objective.combined import AnyObjective, parts_of, with_parts
from ..objective.elimination import joint_equations
from ..objective.two_time import angle_cost, loss_of
from ..optimize import TrustRegion, WarmUp, WarmUpState, evaluated, iterate_host, no_defences
from ..parameters import PlainVariables
from ..parameters.variables import coordinates_of, physical_of
from ..scaling import Fixed
from .several import Scalings, local_coordinates, split


def with_frozen_scaling(objective: AnyObjective, per_angle: Scalings) -> AnyObjective:
    """The objective with (contrast, offset) held at `per_angle`: its physical parameters alone.

    Other values compile nothing anew.
    """
    parts = []
    for part, held in zip(parts_of(objective), per_angle, strict=True):
        fixed = Fixed(jnp.asarray(held[:, 0]), jnp.asarray(held[:, 1]))
        term = dataclasses.replace(part.term, scaling=fixed, reference=jnp.asarray(held))
        frozen, loss = ProjectedObjective(term.parameters, term, part.penalties), loss_of(part)
        if not isinstance(loss, Linear):
            frozen = dataclasses.replace(joint_of(frozen), loss=loss)
        parts.append(frozen)
    return with_parts(objective, parts)


class Reached(NamedTuple):
    """Where a stage ended: parameters or coefficients, the cost, and passes over the data."""

    x: Float[np.ndarray, "variable"]
    cost: float
    passes: int


class AbstractPhysicalStage(eqx.Module):
    """How physical parameters are fitted while contrast and offset are held."""

    __check_init__ = check_fields

    @abstractmethod
    def run(
        self,
        objective: AnyObjective,
        x: Float[np.ndarray, "free"],
        per_angle: Scalings,
    ) -> Reached:
        """From physical parameters `x`, at (contrast, offset) `per_angle` of each data set."""


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

    iterations: Count = 100
    tolerance: Positive = 1e-8

    def run(self, objective, x, per_angle):
        frozen = with_frozen_scaling(objective, per_angle)
        x = np.asarray(x, float)
        y = coordinates_of(objective.physical, jnp.asarray(x))
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
        found = np.asarray(physical_of(objective.physical, state.y))
        return Reached(found, float(state.equations.cost), int(state.evaluations))


# Compiled apart, so that a driver that loops in Python need not trace its loop.
@eqx.filter_jit
def _scaling_equations(scaling, penalties, equations, coefficients):
    data = joint_equations(equations, scaling.per_angle(coefficients)[:, 0], scaling)
    return data + scaling_penalty_equations(penalties, scaling, coefficients)


class ScalingObjective(AbstractObjective):
    """Contrast and offset by any loss, with the physical parameters held at coordinates `physics`.

    The variables are the scaling coefficients.
    """

    variables: PlainVariables  # pyright: ignore[reportIncompatibleVariableOverride]
    term: TwoTimeTerm
    loss: AbstractLoss
    penalties: tuple[AbstractScalingPenalty, ...]
    physics: Float[Array, "free"]
    begin: Float[Array, "coefficient"]

    @property
    def traceable(self):
        return self.term.driver.traceable

    @property
    def start(self):
        return self.begin

    @property
    def names(self):
        return self.term.scaling.names

    @property
    def memo(self):
        return ()

    def evaluate(self, y, memo):
        scaling = self.term.scaling
        equations = self.term.angle_cost(self.physics, scaling.per_angle(y), self.loss)
        return _scaling_equations(scaling, self.penalties, equations, y), memo

    def cost(self, y, memo):
        return self.evaluate(y, memo)[0].cost


@quick_jit
def _solved(equations, reference, scaling, penalties):
    def penalty(coefficients):
        return scaling_penalty_equations(penalties, scaling, coefficients)

    best, _ = solve_scaling(equations, reference, scaling, penalty)
    step = scaling.per_angle(best) - reference
    slope = equations.gradient + 0.5 * jnp.einsum("ast,at->as", equations.hessian, step)
    return best, jnp.sum(equations.cost) + jnp.sum(step * slope) + penalty(best).cost


class ScalingStage(eqx.Module):
    """Contrast and offset: solved exactly where they are linear, by the trust region elsewhere.

    They are linear for the linear loss with penalties that are linear as well; one pass over the
    data then does.

    - `evaluations`: at most, where they are not; `tolerance`: relative step.

    **Raises:** `ModelError` for numbers that are not positive.
    """

    evaluations: Count = eqx.field(static=True, default=50)
    tolerance: Positive = 1e-6

    __check_init__ = check_fields

    def run(
        self,
        objective: AnyObjective,
        x: Float[np.ndarray, "free"],
        coefficients: Float[np.ndarray, "coefficient"],
    ) -> Reached:
        """From the scaling coefficients of all data sets, at physical parameters `x`."""
        parts, own = parts_of(objective), local_coordinates(objective, x)
        found = [
            self._of_one(*one)
            for one in zip(parts, own, split(objective, coefficients), strict=True)
        ]
        best = np.concatenate([one.x for one in found])
        # In a pass over all data each data set is passed over once.
        return Reached(best, sum(one.cost for one in found), max(one.passes for one in found))

    def _of_one(
        self,
        objective: TwoTimeObjective,
        y: Float[Array, "free"],
        coefficients: Float[np.ndarray, "coefficient"],
    ) -> Reached:
        """Of one data set, at the coordinates `y` of its physical parameters."""
        term, penalties = objective.term, objective.scaling_penalties
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
        lower, upper = (np.asarray(bound) for bound in term.scaling.bounds)
        alone = ScalingObjective(
            variables=PlainVariables(lower, upper, np.full(lower.shape, 0.1)),
            term=term,
            loss=loss,
            penalties=penalties,
            physics=y,
            begin=jnp.asarray(coefficients),
        )
        state = iterate_host(solver, alone, alone.begin)
        best = np.asarray(physical_of(alone.variables, state.y))
        return Reached(best, float(state.equations.cost), int(state.evaluations))
