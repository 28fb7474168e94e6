"""One objective as two: physical parameters at given scaling, scaling at given physics."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..objective import (
    AbstractLoss,
    AbstractObjective,
    AbstractScalingPenalty,
    Linear,
    NormalEquations,
    ProjectedObjective,
    TwoTimeObjective,
    TwoTimeTerm,
    joint_of,
    scaling_penalty_equations,
)
from ..parameters import PlainVariables
from ..scaling import Fixed
from ..uncertainty import loss_of


@quick_jit
def per_angle_of(scaling, coefficients):
    """(contrast, offset) by angle of scaling coefficients."""
    return scaling.per_angle(coefficients)


def _angle_cost(term, y, per_angle, loss):
    return term.angle_cost(y, per_angle, loss)


_angle_cost_compiled = quick_jit(_angle_cost)


def angle_cost(
    term: TwoTimeTerm,
    y: Float[Array, "free"],
    per_angle: Float[Array, "angle 2"],
    loss: AbstractLoss,
) -> NormalEquations:
    """Equations of each angle for (contrast, offset), compiled where they may be."""
    function = _angle_cost_compiled if term.driver.traceable else _angle_cost
    return function(term, y, per_angle, loss)


def with_frozen_scaling(
    objective: TwoTimeObjective, per_angle: Float[np.ndarray, "angle 2"]
) -> TwoTimeObjective:
    """The objective with (contrast, offset) held at `per_angle`: its physical parameters alone.

    Other values compile nothing anew.
    """
    fixed = Fixed(jnp.asarray(per_angle[:, 0]), jnp.asarray(per_angle[:, 1]))
    term = dataclasses.replace(objective.term, scaling=fixed, reference=jnp.asarray(per_angle))
    frozen = ProjectedObjective(term.parameters, term, objective.penalties)
    loss = loss_of(objective)
    if isinstance(loss, Linear):
        return frozen
    return dataclasses.replace(joint_of(frozen), loss=loss)


# Compiled apart, so that a driver that loops in Python need not trace its loop.
@eqx.filter_jit
def _scaling_equations(scaling, penalties, equations, coefficients):
    basis = scaling.basis
    on_scaling = scaling_penalty_equations(penalties, scaling, coefficients)
    data = NormalEquations(
        jnp.sum(equations.cost),
        jnp.einsum("ask,as->k", basis, equations.gradient),
        jnp.einsum("ask,ast,atl->kl", basis, equations.hessian, basis),
        jnp.sum(equations.count),
    )
    return data + on_scaling


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


def scaling_objective(
    objective: TwoTimeObjective,
    physics: Float[Array, "free"],
    begin: Float[np.ndarray, "coefficient"],
) -> ScalingObjective:
    """The scaling of an objective at the coordinates `physics` of its physical parameters."""
    lower, upper = (np.asarray(bound) for bound in objective.term.scaling.bounds)
    return ScalingObjective(
        variables=PlainVariables(lower, upper, np.full(lower.shape, 0.1)),
        term=objective.term,
        loss=loss_of(objective),
        penalties=objective.scaling_penalties,
        physics=jnp.asarray(physics),
        begin=jnp.asarray(begin),
    )
