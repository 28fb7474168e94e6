"""All residuals of an objective as one vector."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import ModelError
from .combined import CombinedObjective
from .curve import CurveObjective
from .drivers.pieces import AbstractPieces
from .elimination import solve_scaling
from .equations import AbstractObjective
from .kernel.blocks import block_correlation
from .losses import Linear
from .penalties import scaling_penalty_equations
from .points import ArrayPoints, weighted_residuals
from .two_time import JointObjective, ProjectedObjective, TwoTimeObjective


def residual(objective: AbstractObjective, y: Float[Array, "variable"]) -> Float[Array, "point"]:
    """All weighted residuals as one vector, for small data and other solvers.

    Half the sum of their squares is the cost of a linear loss without penalties. Pairs of weight
    zero contribute zeros. Differentiable; memory grows with the data.

    **Arguments:**

    - `objective`: from `two_time_objective`, whose contrast and offset are those that suit `y` best
        where they are eliminated, or from `curve_objective`. A robust loss and penalties are left
        out.
    - `y`: solver coordinates, in the order of `objective.names` (the scaling comes last, while
        `Fit.values` begins with it). They are not physical variables x, as coordinates of a rate
        are logarithms and slopes: `objective.variables.to_coordinates(x)` gives them,
        `to_physical(y)` leads back, and `objective.start` is an x.

    **Raises:** `ModelError` for data that are not in memory, a `y` of another length, and an
    objective of another kind.
    """
    size = len(objective.names)
    if jnp.shape(y) != (size,):
        raise ModelError(
            f"y has shape {jnp.shape(y)}; give the {size} coordinates of "
            f"{', '.join(objective.names)}, as objective.variables.to_coordinates(x) makes them"
        )
    if isinstance(objective, CombinedObjective):
        own, _ = objective.local(y)
        parts = zip(objective.parts, own, strict=True)
        return jnp.concatenate([residual(part, local) for part, local in parts])
    if isinstance(objective, CurveObjective):
        points, function = objective.points, objective.model.function
        if not isinstance(points, ArrayPoints):
            raise ModelError(
                "all residuals at once need points in memory, but these come from a source; use "
                "curve_objective"
            )

        def chunk(x, data, root):
            return weighted_residuals(function, x, data, root, y)

        return jax.vmap(chunk)(points.x, points.y, points.root_weights).reshape(-1)
    if isinstance(objective, ProjectedObjective | JointObjective):
        return _of_pairs(objective, y)
    raise ModelError(
        f"the residuals of a {type(objective).__name__} are not known; give one of "
        "two_time_objective or curve_objective"
    )


def _of_pairs(objective: TwoTimeObjective, y):
    term, tiles = objective.term, objective.term.tiles
    if isinstance(tiles, AbstractPieces):
        raise ModelError(
            "all residuals at once need data in memory, but these are read piece by piece; use "
            "`Fit.residuals` of one angle, or read a part of the data with load"
        )
    p = term.parameters.n_free
    if isinstance(objective, JointObjective):
        coefficients = y[p:]
    else:
        equations = term.angle_cost(y, term.reference, Linear())

        def penalty(coefficients):
            on_scaling = objective.scaling_penalties
            return scaling_penalty_equations(on_scaling, term.scaling, coefficients)

        coefficients, _ = solve_scaling(equations, term.reference, term.scaling, penalty)
    table, per_angle = term.table(y[:p], False), term.scaling.per_angle(coefficients)

    def one(row):
        block = tiles.block(row)
        contrast, offset = per_angle[block.angle]
        difference = offset + contrast * block_correlation(table, block) - block.values
        return block.root_weights * difference

    return jax.vmap(one)(jnp.asarray(tiles.table)).reshape(-1)
