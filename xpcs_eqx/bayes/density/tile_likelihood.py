"""The sum of squares of all pairs with its gradient, in one pass over the tiles.

The kernel is differentiated pair by pair with the weighted residual as cotangent. That leaves one
number for each pair and feature, and these are added up by frame at once: no column of a Jacobian
is formed, and what remains is one product with the features' derivatives at the frames.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import ModelError
from ...fitting.derivative.second_order import feature_rows, with_feature_rows
from ...objective import AbstractTiles, Block, Linear, NormalEquations
from ...objective.drivers.loops import Scan
from ...objective.kernel.blocks import block_cost, pair_features
from ...objective.kernel.frame_table import FrameTable, call_kernel


@jax.custom_jvp
def _constant(leaf):
    return leaf


@_constant.defjvp
def _no_derivative(primals, tangents):
    raise ModelError(
        "the data are constants of a log posterior, which has no derivatives by them; "
        "differentiate by its coordinates z, or a fit by its data (`fitted` and `with_values`)"
    )


def _constants(tiles):
    """The tiles, of which no derivative can be asked for."""
    return jax.tree.map(lambda a: _constant(a) if eqx.is_inexact_array(a) else a, tiles)


Rows = tuple[
    Float[Array, "increment frame"], Float[Array, "endpoint frame"], Float[Array, "scalar angle"]
]


def _without_rows(table: FrameTable) -> FrameTable:
    # What is handed over besides the rows must not depend on what is differentiated.
    nothing = jnp.zeros((0, 0))
    return with_feature_rows(table, (nothing, nothing, nothing))


def _pull_to_frames(block: Block, parts, rows: Rows) -> Rows:
    """Adds up cotangents of pairs (feature by feature) by frame and by angle."""
    by_increment, by_first, by_second, by_scalar = parts
    increments, endpoints, scalars = (jnp.zeros_like(row) for row in rows)
    if block.first.ndim == 2:  # a tile of a map: consecutive frames on both sides
        start_first, start_second = block.first[0, 0], block.second[0, 0]

        def add(total, k, at_first, at_second):
            for start, part in ((start_first, at_first), (start_second, at_second)):
                here = jax.lax.dynamic_slice(total, (k, start), (1, part.shape[0]))
                total = jax.lax.dynamic_update_slice(total, here + part[None], (k, start))
            return total

        for k, part in enumerate(by_increment):
            increments = add(increments, k, -jnp.sum(part, axis=1), jnp.sum(part, axis=0))
        for k, (first, second) in enumerate(zip(by_first, by_second, strict=True)):
            endpoints = add(endpoints, k, jnp.sum(first, axis=1), jnp.sum(second, axis=0))
    else:
        for k, part in enumerate(by_increment):
            increments = increments.at[k, block.second].add(part).at[k, block.first].add(-part)
        for k, (first, second) in enumerate(zip(by_first, by_second, strict=True)):
            endpoints = endpoints.at[k, block.first].add(first).at[k, block.second].add(second)
    for k, part in enumerate(by_scalar):
        scalars = scalars.at[k, block.angle].add(jnp.sum(part))
    return increments, endpoints, scalars


def _cost_and_gradient(table: FrameTable, scaling: Float[Array, "angle 2"], block: Block):
    """½Σ(w r)² of a block, and its derivatives by feature row and by (contrast, offset)."""
    features = pair_features(table, block)
    correlation, pull = jax.vjp(lambda *parts: call_kernel(table, *parts), *features)
    contrast, offset = scaling[block.angle, 0], scaling[block.angle, 1]
    residual = block.root_weights * (offset + contrast * correlation - block.values)
    weight = block.root_weights * residual
    rows = _pull_to_frames(block, pull(contrast * weight), feature_rows(table))
    slope = jnp.stack([jnp.sum(weight * correlation), jnp.sum(weight)])
    return (
        0.5 * jnp.sum(residual * residual),
        (rows, jnp.zeros_like(scaling).at[block.angle].add(slope)),
    )


def _scan(function, zero, tiles: AbstractTiles):
    def body(total, row):
        return jax.tree.map(jnp.add, total, function(tiles.block(row))), None

    return jax.lax.scan(body, zero, jnp.asarray(tiles.table))[0]


@eqx.filter_custom_vjp
def _cost(moving, table, tiles):
    rows, scaling = moving
    table = with_feature_rows(table, rows)

    def one(block):
        here = scaling[block.angle]
        return block_cost(table, block, here[0], here[1], Linear()).cost

    return _scan(one, jnp.zeros((), scaling.dtype), tiles)


@_cost.def_fwd
def _cost_forward(perturbed, moving, table, tiles):
    del perturbed
    rows, scaling = moving
    table = with_feature_rows(table, rows)
    zero = (jnp.zeros((), scaling.dtype), jax.tree.map(jnp.zeros_like, moving))
    return _scan(lambda block: _cost_and_gradient(table, scaling, block), zero, tiles)


@_cost.def_bwd
def _cost_backward(gradient, cotangent, perturbed, moving, table, tiles):
    del perturbed, moving, table, tiles
    return jax.tree.map(lambda leaf: cotangent * leaf, gradient)


def data_cost(
    table: FrameTable, scaling: Float[Array, "angle 2"], tiles: AbstractTiles
) -> Float[Array, ""]:
    """½Σ(w r)² over all pairs, with a gradient that costs about as much as the value.

    Differentiable in the features of `table` and in `scaling`; the data are constants. Works under
    `jit`, `vmap` and in derivatives of the gradient.

    **Raises:** `ModelError` when it is differentiated by the data.
    """
    return _cost((feature_rows(table), scaling), _without_rows(table), _constants(tiles))


@eqx.filter_custom_vjp
def _statistics(rows, table, reference, tiles):
    table = with_feature_rows(table, rows)

    def one(_, block):
        here = reference[block.angle]
        return block_cost(table, block, here[0], here[1], Linear())

    zero = NormalEquations.zero(2, (reference.shape[0],), reference.dtype)
    return Scan().sum(one, None, tiles, zero)


@_statistics.def_fwd
def _statistics_forward(perturbed, rows, table, reference, tiles):
    del perturbed
    return _statistics(rows, table, reference, tiles), None


@_statistics.def_bwd
def _statistics_backward(kept, cotangent, perturbed, rows, table, reference, tiles):
    del kept, perturbed
    table = with_feature_rows(table, rows)

    def one(block):
        """What the sums of a block make of a change of |c1|², pulled back to the features."""
        features = pair_features(table, block)
        correlation, pull = jax.vjp(lambda *parts: call_kernel(table, *parts), *features)
        here, mine = reference[block.angle], jax.tree.map(lambda leaf: leaf[block.angle], cotangent)
        contrast, root = here[0], block.root_weights
        difference = here[1] + contrast * correlation - block.values
        hessian = mine.hessian
        weight = mine.cost * contrast * difference
        weight += mine.gradient[0] * (difference + contrast * correlation)
        weight += mine.gradient[1] * contrast
        weight += 2 * hessian[0, 0] * correlation + hessian[0, 1] + hessian[1, 0]
        return _pull_to_frames(block, pull(root * root * weight), rows)

    return _scan(one, jax.tree.map(jnp.zeros_like, rows), tiles)


def scaling_statistics(
    table: FrameTable, reference: Float[Array, "angle 2"], tiles: AbstractTiles
) -> NormalEquations:
    """Cost, gradient and curvature in (contrast, offset) of each angle at `reference`.

    They hold all the data say about the scaling at given features. The gradient takes a second
    pass over the tiles, since its weights follow from the sums of the first. Differentiable in the
    features of `table` alone.
    """
    return _statistics(feature_rows(table), _without_rows(table), reference, _constants(tiles))
