"""Costs of many points at once."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..compiling import quick_jit
from ..errors import ModelError
from ..objective import AbstractObjective
from ..parameters import ParameterMap
from ..parameters.parameter_map import plain_parameters

Objective = TypeVar("Objective", bound=AbstractObjective)

# Rows of the smallest array of points.
ROWS = 64


def padded(
    points: Float[np.ndarray, "n variable"], least: int = ROWS
) -> Float[np.ndarray, "rows variable"]:
    """The points, followed by repetitions of the last one up to `least` or a power of two.

    So that any number of points needs one of a few compilations.
    """
    n = len(points)
    rows = max(least, 1 << max(n - 1, 0).bit_length())
    filler = points[-1:] if n else np.full((1, points.shape[1]), 0.5)
    return np.concatenate([points, np.repeat(filler, rows - n, axis=0)])


def in_physical_variables(objective: Objective) -> Objective:
    """The objective with its physical variables as their own coordinates.

    Its cost exists in the whole box, also where the coordinates of the solver do not: those of a
    power law with an offset need a positive rate.
    """

    def plain(node):
        return plain_parameters(node) if isinstance(node, ParameterMap) else node

    return jax.tree.map(plain, objective, is_leaf=lambda node: isinstance(node, ParameterMap))


@quick_jit
def _costs(objective, points, n, memo):
    # One point after the other, each with its pairs as vectors: as fast as a batch of points, whose
    # tiles would not fit into the cache together, and no more memory than one of them.
    def one(i, costs):
        return costs.at[i].set(objective.cost(points[i], memo))

    return jax.lax.fori_loop(0, n, one, jnp.full(points.shape[:1], jnp.inf, points.dtype))


def population_costs(
    objective: AbstractObjective, x: Float[np.ndarray, "n variable"]
) -> Float[np.ndarray, "n"]:
    """Costs at many physical points; infinite where the model is not finite.

    What an objective eliminates is eliminated at each point. One compiled call where the objective
    may be compiled as a whole, with the memory of one evaluation; a loop over the points for data
    in a file and sums in Python. Each point is one evaluation.

    **Raises:** `ModelError` for points with another number of variables.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> from xpcs_eqx.search import population_costs
    >>> truth, t = xe.Static(xe.PowerLawRate(1.5e4, -0.3, 0.0)), 0.2 * np.arange(12)
    >>> place = xe.Geometry(0.0054, np.array([0.0]))
    >>> data = xe.simulate(truth, t, place, 0.2, 1.0, noise=0.0, key=jax.random.key(0))
    >>> objective = xe.projected_objective(xe.parameter_map(truth, t), data)
    >>> costs = population_costs(objective, np.array([[1.5e4, -0.3, 0.0], [3e4, 0.5, -10.0]]))
    >>> bool(costs[0] < 1e-12 < costs[1])
    True
    """
    points = np.asarray(x, dtype=float)
    variables = np.shape(objective.variables.lower)[0]
    if points.ndim != 2 or points.shape[1] != variables:
        raise ModelError(
            f"points of shape {points.shape} for {variables} variables; give one row for each point"
        )
    physical = in_physical_variables(objective)
    memo = physical.memo
    if physical.traceable:
        n = len(points)
        costs = np.asarray(_costs(physical, padded(points), np.asarray(n), memo))[:n]
    else:
        found = [float(physical.cost(jnp.asarray(one), memo)) for one in points]
        costs = np.asarray(found, dtype=float)
    return np.where(np.isfinite(costs), costs, np.inf)
