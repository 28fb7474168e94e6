"""Normal equations of one block of pairs: the second stage of the derivative.

For a block, the kernel is differentiated with respect to its few features, pair by pair; each
column of the Jacobian is then a short sum of (point weight) × (feature derivative at one time).
Only the block's columns exist at any moment.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..equations import NormalEquations
from ..losses import AbstractLoss
from .frame_table import FrameTable, call_kernel


class Means(eqx.Module):
    """Points that are means over the pairs of bins of age and lag.

    - `point`: the point of each pair, and `share`: its part in the mean.
    - `age`, `lag`: numbers of the bins of each point.
    """

    point: Int[Array, "*chunk pair"]
    share: Float[Array, "*chunk pair"]
    age: Int[Array, "*chunk point"]
    lag: Int[Array, "*chunk point"]


class Block(eqx.Module):
    """Pairs of frames of one angle.

    `first` and `second` are frame indices of shapes that broadcast to that of `values`: (B, 1) and
    (1, B) for a tile of a map, (m,) and (m,) for points. `root_weights` is 0 where no pair is.
    With `means` values are points, each the mean of some of the pairs.
    """

    first: Int[Array, "..."]
    second: Int[Array, "..."]
    angle: Int[Array, ""]
    values: Float[Array, "..."]
    root_weights: Float[Array, "..."]
    means: Means | None = None

    def mean(self, of_pairs: Float[Array, "..."]) -> Float[Array, "..."]:
        """What the pairs have, for each value: their mean where there are several."""
        if self.means is None:
            return of_pairs
        point, count = self.means.point, self.values.shape[0]
        # The point of a pair never decreases along a block.
        return jax.ops.segment_sum(
            self.means.share * of_pairs, point, count, indices_are_sorted=True
        )

    def at_pairs(self, of_values: Float[Array, "..."]) -> Float[Array, "..."]:
        """What the values have, for each pair."""
        return of_values if self.means is None else of_values[self.means.point]


def pair_features(table: FrameTable, block: Block) -> tuple[list[Array], ...]:
    """The features of the model at every pair of a block, as its kernel takes them.

    Increments between the two frames, endpoints at the first and at the second, scalars.
    """
    shape = jnp.broadcast_shapes(block.first.shape, block.second.shape)
    # Where there is no pair (second <= first) the kernel sees the widest delay instead of a zero
    # or negative one, at which a user's kernel may have no finite derivative.
    valid = block.first < block.second

    def increment(row):
        difference = row[block.second] - row[block.first]
        return jnp.where(valid, difference, row[-1] - row[0])

    def spread(value):
        return jnp.broadcast_to(value, shape)

    return (
        [increment(row) for row in table.increments.values],
        [spread(row[block.first]) for row in table.endpoints.values],
        [spread(row[block.second]) for row in table.endpoints.values],
        [spread(row[block.angle]) for row in table.scalars.values],
    )


def block_correlation(table: FrameTable, block: Block) -> Float[Array, "..."]:
    """|c1|² of every value of the block."""
    return block.mean(call_kernel(table, *pair_features(table, block)))


def block_columns(
    table: FrameTable, block: Block, weight: Float[Array, "..."]
) -> tuple[Float[Array, "..."], list[Float[Array, "..."]]]:
    """|c1|² and `weight` times its derivative with respect to each coordinate."""
    features = pair_features(table, block)
    correlation, pull = jax.vjp(lambda *parts: call_kernel(table, *parts), *features)
    increments, first, second, scalars = pull(jnp.ones_like(correlation))
    columns: list = [None] * table.columns
    weight = block.at_pairs(weight)

    def collect(point_weights, part, take):
        for k, point_weight in enumerate(point_weights):
            weighted = weight * point_weight
            for a, used in enumerate(part.used[k]):
                if used:
                    term = weighted * take(part.derivatives[k, a])
                    columns[a] = term if columns[a] is None else columns[a] + term

    collect(increments, table.increments, lambda d: d[block.second] - d[block.first])
    collect(first, table.endpoints, lambda d: d[block.first])
    collect(second, table.endpoints, lambda d: d[block.second])
    collect(scalars, table.scalars, lambda d: d[block.angle])
    correlation = block.mean(correlation)
    nothing = jnp.zeros_like(correlation)
    return correlation, [nothing if c is None else block.mean(c) for c in columns]


def block_equations(
    table: FrameTable,
    block: Block,
    contrast: Float[Array, ""],
    offset: Float[Array, ""],
    loss: AbstractLoss,
) -> NormalEquations:
    """Normal equations of a block at the given contrast and offset.

    Columns: the coordinates (derivatives of |c1|², that is for contrast 1), contrast, offset.
    """
    lone = _lone_increment(table)
    if lone is not None and block.first.ndim == 2:  # a tile of a map, not points
        return _increment_equations(table, lone, block, contrast, offset, loss)
    root = block.root_weights
    correlation, columns = block_columns(table, block, root)
    residual = root * (offset + contrast * correlation - block.values)
    rescaled, row_factor = loss.rescale(residual)
    rows = [*columns, root * correlation, root]
    if row_factor is not None:
        rows = [row_factor * row for row in rows]
    stacked = jnp.stack([*rows, rescaled]).reshape(len(rows) + 1, -1)
    return _of_gram(stacked @ stacked.T, residual, root, loss)


def _of_gram(gram, residual, root, loss) -> NormalEquations:
    """The equations from the products of all columns and, as the last one, the residuals."""
    return NormalEquations(
        cost=jnp.sum(loss.density(residual)),
        gradient=gram[:-1, -1],
        hessian=gram[:-1, :-1],
        count=jnp.sum((root > 0).astype(gram.dtype)),
    )


def _lone_increment(table: FrameTable) -> int | None:
    """The one increment through which all coordinates act, where there is just one feature."""
    others = (*table.endpoints.used, *table.scalars.used)
    acting = [k for k, used in enumerate(table.increments.used) if any(used)]
    return acting[0] if len(acting) == 1 and not any(map(any, others)) else None


def _increment_equations(table, lone, block, contrast, offset, loss) -> NormalEquations:
    """Normal equations of a tile of a map whose model acts through one increment f alone.

    Every column is w(t1,t2)·(f_a(t2) − f_a(t1)). With M = w², the sum over pairs of two columns is
    f_aᵀ diag(Σ₁M) f_b + f_aᵀ diag(Σ₂M) f_b − f_aᵀ M f_b − f_bᵀ M f_a: one matrix product for all
    columns instead of one pass over the pairs for each of them and their products.
    """
    root = block.root_weights
    features = pair_features(table, block)

    def kernel(increment):
        increments = [*features[0][:lone], increment, *features[0][lone + 1 :]]
        return call_kernel(table, increments, *features[1:])

    correlation, pull = jax.vjp(kernel, features[0][lone])
    residual = root * (offset + contrast * correlation - block.values)
    rescaled, row_factor = loss.rescale(residual)
    factor = root if row_factor is None else row_factor * root
    weight = factor * pull(jnp.ones_like(correlation))[0]
    derivatives = table.increments.derivatives[lone]
    # Relative to a frame of the tile: only differences count, and the digits are theirs.
    origin = derivatives[:, block.first[-1, :1]]
    at_first = derivatives[:, block.first[:, 0]] - origin
    at_second = derivatives[:, block.second[0, :]] - origin
    square = weight * weight
    cross = at_first @ square @ at_second.T
    inner = (
        (at_first * jnp.sum(square, axis=1)) @ at_first.T
        + (at_second * jnp.sum(square, axis=0)) @ at_second.T
        - (cross + cross.T)
    )
    rest = [factor * correlation, factor, rescaled]

    def across(row):
        product = weight * row
        return at_second @ jnp.sum(product, axis=0) - at_first @ jnp.sum(product, axis=1)

    outer = jnp.stack([across(row) for row in rest])
    stacked = jnp.stack(rest).reshape(3, -1)
    gram = jnp.block([[inner, outer.T], [outer, stacked @ stacked.T]])
    return _of_gram(gram, residual, root, loss)


def block_cost(
    table: FrameTable,
    block: Block,
    contrast: Float[Array, ""],
    offset: Float[Array, ""],
    loss: AbstractLoss,
) -> NormalEquations:
    """As `block_equations` for contrast and offset only: no derivative of the model is made."""
    root = block.root_weights
    correlation = block_correlation(table, block)
    residual = root * (offset + contrast * correlation - block.values)
    rescaled, row_factor = loss.rescale(residual)
    slope, level = root * correlation, root
    if row_factor is not None:
        slope, level = row_factor * slope, row_factor * level
    cross = jnp.sum(slope * level)
    hessian = jnp.stack([jnp.sum(slope * slope), cross, cross, jnp.sum(level * level)])
    return NormalEquations(
        cost=jnp.sum(loss.density(residual)),
        gradient=jnp.stack([jnp.sum(slope * rescaled), jnp.sum(level * rescaled)]),
        hessian=hessian.reshape(2, 2),
        count=jnp.sum((root > 0).astype(slope.dtype)),
    )
