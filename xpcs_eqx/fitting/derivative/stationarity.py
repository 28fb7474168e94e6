"""The condition that a fit fulfils, as a differentiable function of its point and of all inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...objective import (
    AbstractLoss,
    AbstractPenalty,
    AbstractScalingPenalty,
    Block,
    JointObjective,
    TwoTimeObjective,
    TwoTimeTerm,
    block_correlation,
    check_one_data_set,
)
from ...objective.penalties import penalty_squares
from ...parameters import Identity, ParameterMap, parameter_values
from ...parameters.parameter_map import Group
from ...uncertainty.covariance import loss_of
from .tile_sum import tile_sum


class Problem(eqx.Module):
    """An objective in the free physical parameters x and the scaling coefficients c, u = (c, x).

    This is the layout of `IndexMap`, whatever an objective eliminates and in whatever coordinates
    its solver works. Every array the minimum depends on is a leaf.
    """

    term: TwoTimeTerm
    penalties: tuple[AbstractPenalty, ...]
    scaling_penalties: tuple[AbstractScalingPenalty, ...]
    loss: AbstractLoss
    lower: Float[Array | np.ndarray, "entry"]
    upper: Float[Array | np.ndarray, "entry"]

    @property
    def parameters(self) -> ParameterMap:
        """The parameters, with x as their own coordinates."""
        return self.term.parameters

    def split(self, u: Float[Array, "entry"]):
        """Scaling coefficients and physical parameters."""
        k = self.term.scaling.size
        return u[:k], u[k:]


def physical_problem(objective: TwoTimeObjective) -> Problem:
    """The problem an objective poses, without the coordinates of its solver."""
    check_one_data_set(objective, "a differentiable fit")
    term = objective.term
    parameters = term.parameters
    plain = tuple(Group((i,), Identity()) for i in range(parameters.n_free))
    parameters = eqx.tree_at(lambda m: m.groups, parameters, plain)
    variables = objective.variables
    lower, upper = (jnp.asarray(bound) for bound in (variables.lower, variables.upper))
    if isinstance(objective, JointObjective):
        lower, upper = (jnp.roll(bound, term.scaling.size) for bound in (lower, upper))
    else:
        low, high = term.scaling.bounds
        lower, upper = jnp.concatenate([low, lower]), jnp.concatenate([high, upper])
    return Problem(
        term=eqx.tree_at(lambda t: t.parameters, term, parameters),
        penalties=objective.penalties,
        scaling_penalties=objective.scaling_penalties,
        loss=loss_of(objective),
        lower=lower,
        upper=upper,
    )


def _density(args, block: Block):
    table, scaling, loss = args
    contrast, offset = scaling[block.angle, 0], scaling[block.angle, 1]
    model = offset + contrast * block_correlation(table, block)
    return jnp.sum(loss.density(block.root_weights * (model - block.values)))


def _slope(args, block: Block):
    """Derivative of the cost of a block with respect to features and scaling."""
    (rows, scaling), table, loss = args
    return jax.grad(
        lambda rows, s: _density((with_feature_rows(table, rows), s, loss), block), (0, 1)
    )(rows, scaling)


def feature_rows(table):
    return table.increments.values, table.endpoints.values, table.scalars.values


def with_feature_rows(table, rows):
    return eqx.tree_at(feature_rows, table, rows)


def _table(problem, x):
    term = problem.term
    return term.table(x, False)


def total_cost(problem: Problem, u: Float[Array, "entry"]) -> Float[Array, ""]:
    """The cost of data and penalties at `u`."""
    c, x = problem.split(u)
    args = (_table(problem, x), problem.term.scaling.per_angle(c), problem.loss)
    data = tile_sum(_density, args, problem.term.tiles)
    return data + penalty_cost(problem, x) + scaling_penalty_cost(problem, c)


def penalty_cost(problem, x):
    values = parameter_values(problem.parameters.build(x))
    return 0.5 * penalty_squares(problem.penalties, values, problem.term.noise)


def scaling_penalty_cost(problem, c):
    per_angle = problem.term.scaling.per_angle(c)
    rows = [penalty.residuals(per_angle) for penalty in problem.scaling_penalties]
    return sum((0.5 * jnp.sum(row**2) for row in rows), jnp.zeros(()))


def stationarity(problem: Problem, u: Float[Array, "entry"]) -> Float[Array, "entry"]:
    """Gradient of `total_cost` at `u`: zero along every free direction of a minimum.

    Derivatives of the model reach the pairs by the features at each frame, as in the normal
    equations, and only those of one tile exist at any moment.
    """
    scaling = problem.term.scaling

    def features(u):
        c, x = problem.split(u)
        return feature_rows(_table(problem, x)), scaling.per_angle(c)

    here, pull = jax.vjp(features, u)
    table = _table(problem, problem.split(u)[1])
    slope = tile_sum(_slope, (here, table, problem.loss), problem.term.tiles)
    c, x = problem.split(u)
    penalty = jax.grad(lambda x: penalty_cost(problem, x))(x)
    on_scaling = jax.grad(lambda c: scaling_penalty_cost(problem, c))(c)
    return pull(slope)[0] + jnp.concatenate([on_scaling, penalty])
