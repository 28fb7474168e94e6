"""Groups of points: weights that may change between fits, and what suggests them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..objective.curve import weighted_residuals
from .curve_problem import CurveProblem
from .points import check_groups, checked_group_weights


def with_group_weights(
    problem: CurveProblem, weights: Float[Array | np.ndarray, "group"] | None
) -> CurveProblem:
    """The problem with Σ_g w[g] Σ ρ instead, for the next outer iteration.

    Weights are data: as long as their number stays, nothing is compiled again.

    **Raises:** `ModelError` for weights that are not finite or below zero.
    """
    return eqx.tree_at(
        lambda p: p.kernel.group_weights,
        problem,
        None if weights is None else checked_group_weights(weights),
        is_leaf=lambda leaf: leaf is None,
    )


@quick_jit
def _add_squares(kernel, parameters, chunk, total):
    x, y, root = kernel.points(chunk, parameters.dtype)
    r = weighted_residuals(kernel.function, x, y, root, parameters)
    one = jnp.stack([r**2, (root > 0).astype(r.dtype)], axis=1)
    return total + jax.ops.segment_sum(one, chunk.group, total.shape[0])


def group_variances(
    problem: CurveProblem, y: Float[np.ndarray, "variable"], n_groups: int
) -> Float[np.ndarray, "group"]:
    """Mean square of the residuals of each group [σ²], by one pass; group weights are left out.

    Where σ is right it is one for each group; its inverse, as the weight of the group, makes it so.
    NaN for a group without points.

    **Raises:** `DataError` for a group of the source that is not below `n_groups`.
    """
    kernel = with_group_weights(problem, None).kernel
    parameters = jnp.asarray(y, dtype=float)
    total = jnp.asarray(np.zeros((n_groups, 2)))
    for chunk in problem.source.chunks():
        check_groups(chunk, n_groups)
        if np.any(np.asarray(chunk.root_weights) > 0):
            total = _add_squares(kernel, parameters, chunk, total)
    squares, counts = np.asarray(total).T
    return np.divide(squares, counts, out=np.full(n_groups, np.nan), where=counts > 0)
