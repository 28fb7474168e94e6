"""Normal equations of one block of pairs: the second stage of the derivative.

For a block, the kernel is differentiated with respect to its few features, pair by pair; each
column of the Jacobian is then a short sum of (point weight) × (feature derivative at one time).
Only the block's columns exist at any moment.
"""

from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int

from ..equations import NormalEquations
from ..losses import AbstractLoss
from .frame_table import FrameTable, Part, call_kernel

# More of them than a processor has registers for take longer than by themselves.
_TOGETHER = 8
# Products of matrices grow with the square of the number of increments, those of columns do not.
_FEW = 2
_RUN = 16

# `lax.reduce` takes several arrays, but JAX's derivative of it asks for the tangent of each of
# them, even of those that do not change. Sums are linear, and a primitive can say so.
_sums_together = Primitive("sums_together")
_sums_together.multiple_results = True


def sums(
    parts: Sequence[Float[Array, "*shape"]], axes: tuple[int, ...]
) -> list[Float[Array, "..."]]:
    """The sum of each of several arrays of one shape and type over the same axes.

    Their loops are one: on a CPU quicker than `jnp.sum` of each where the arrays are made on the
    way of few others, which are then read once.
    """
    out = []
    for low in range(0, len(parts), _TOGETHER):
        out.extend(_sums_together.bind(*parts[low : low + _TOGETHER], axes=axes))
    return out


def _reduced(*parts, axes):
    zero = jnp.zeros((), parts[0].dtype)

    def add(a, b):
        return tuple(map(jnp.add, a, b))

    return jax.lax.reduce(parts, (zero,) * len(parts), add, axes)


def _spread(cotangents, *parts, axes):
    def over(cotangent, part):
        if type(cotangent) is ad.Zero:
            return ad.Zero(part.aval)
        return jnp.broadcast_to(jnp.expand_dims(cotangent, axes), part.aval.shape)

    return list(map(over, cotangents, parts))


def _of_a_batch(parts, batched, *, axes):
    size = next(p.shape[b] for p, b in zip(parts, batched, strict=True) if b is not None)
    front = [batching.bdim_at_front(p, b, size) for p, b in zip(parts, batched, strict=True)]
    found = _sums_together.bind(*front, axes=tuple(axis + 1 for axis in axes))
    return found, [0] * len(found)


@_sums_together.def_abstract_eval
def _shapes(*parts, axes):
    left = [size for axis, size in enumerate(parts[0].shape) if axis not in axes]
    return [part.update(shape=tuple(left)) for part in parts]


_sums_together.def_impl(jax.jit(_reduced, static_argnames="axes"))
mlir.register_lowering(_sums_together, mlir.lower_fun(_reduced, multiple_results=True))
ad.deflinear2(_sums_together, _spread)
batching.primitive_batchers[_sums_together] = _of_a_batch


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

    def at_frames(
        self, rows: Float[Array, "*row frame"], frames: Int[Array, "..."]
    ) -> Float[Array, "..."]:
        """Rows at frames of the block, relative to one of its frames, in the type of the values.

        Where only differences count these are their digits, in single precision as well.
        """
        origin = self.first.reshape(-1)[-1]
        return (rows[..., frames] - rows[..., origin][(..., *[None] * frames.ndim)]).astype(
            self.values.dtype
        )

    def difference(self, row: Float[Array, "frame"]) -> Float[Array, "..."]:
        """A row between the two frames of each pair."""
        if row.dtype == self.values.dtype:
            return row[self.second] - row[self.first]
        return self.at_frames(row, self.second) - self.at_frames(row, self.first)

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
    dtype = block.values.dtype
    # Where there is no pair (second <= first) the kernel sees the widest delay instead of a zero
    # or negative one, at which a user's kernel may have no finite derivative.
    valid = block.first < block.second

    def increment(row):
        return jnp.where(valid, block.difference(row), (row[-1] - row[0]).astype(dtype))

    def spread(value):
        return jnp.broadcast_to(value.astype(dtype), shape)

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
                    term = weighted * take(part.derivatives[k, a]).astype(weighted.dtype)
                    columns[a] = term if columns[a] is None else columns[a] + term

    collect(increments, table.increments, block.difference)
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
    contrast, offset, loss = _in_type_of(block.values, (contrast, offset, loss))
    acting = _acting_increments(table)
    if acting and block.first.ndim == 2:  # a tile of a map, not points
        return _increment_equations(table, acting, block, contrast, offset, loss)
    root = block.root_weights
    correlation, columns = block_columns(table, block, root)
    residual = root * (offset + contrast * correlation - block.values)
    rescaled, row_factor = loss.rescale(residual)
    rows = [*columns, root * correlation, root]
    if row_factor is not None:
        rows = [row_factor * row for row in rows]
    # Added up in the type of the table, however pairs are worked on.
    wide = table.increments.values.dtype
    stacked = jnp.stack([*rows, rescaled]).reshape(len(rows) + 1, -1).astype(wide)
    gram = stacked @ stacked.T
    cost = jnp.sum(loss.density(residual).astype(wide))
    count = jnp.sum((root > 0).astype(wide))
    return NormalEquations(cost, gram[:-1, -1], gram[:-1, :-1], count)


def _in_type_of(values, numbers):
    """Numbers in the type that a block is worked on in."""
    return jax.tree.map(
        lambda one: one.astype(values.dtype) if eqx.is_inexact_array(one) else one, numbers
    )


def _acting(part: Part) -> list[int]:
    """The features of one kind through which coordinates act."""
    return [k for k, used in enumerate(part.used) if any(used)]


def _acting_increments(table: FrameTable) -> list[int]:
    """The increments through which coordinates act, where they are few and act with no endpoint."""
    found = _acting(table.increments)
    return found if len(found) <= _FEW and not _acting(table.endpoints) else []


def _increment_equations(table, acting, block, contrast, offset, loss) -> NormalEquations:
    """Normal equations of a tile of a map whose model acts through few increments f, and scalars.

    The column of a coordinate a is Σₖ wₖ(t1,t2)·(fₖₐ(t2) − fₖₐ(t1)) and, of scalars s, numbers
    times their weights. With M = wₖwₗ, the sum over pairs of two columns of increments is
    fₖₐᵀ diag(Σ₁M) fₗᵦ + fₖₐᵀ diag(Σ₂M) fₗᵦ − fₖₐᵀ M fₗᵦ − fₗᵦᵀ M fₖₐ, the first of each frames t1
    and the second t2: few products of matrices for all columns, instead of a pass over the pairs
    for each of them and their products.
    """
    root, turning = block.root_weights, _acting(table.scalars)

    def by_pair():
        """Weights of the increments, then the other columns and the residual."""
        features = pair_features(table, block)

        def kernel(increments, scalars):
            every = [list(kind) for kind in features]
            for k, one in zip(acting, increments, strict=True):
                every[0][k] = one
            for k, one in zip(turning, scalars, strict=True):
                every[3][k] = one
            return call_kernel(table, *every)

        correlation, pull = jax.vjp(
            kernel, [features[0][k] for k in acting], [features[3][k] for k in turning]
        )
        residual = root * (offset + contrast * correlation - block.values)
        rescaled, row_factor = loss.rescale(residual)
        factor = root if row_factor is None else row_factor * root
        weights, scalars = pull(factor)
        return weights, [*scalars, factor * correlation, factor, rescaled], loss.density(residual)

    # Nothing is made where no pair counts, and else made once: what XLA can trace further back it
    # makes again for each of the sums below.
    weights, rest, density = jax.lax.cond(
        jnp.any(root > 0),
        by_pair,
        lambda: jax.tree.map(jnp.zeros_like, jax.eval_shape(by_pair)),
    )
    places = [np.flatnonzero(table.increments.used[k]) for k in acting]
    at_first, at_second = [], []
    for k, place in zip(acting, places, strict=True):
        slopes = table.increments.derivatives[k, place]
        at_first.append(block.at_frames(slopes, block.first[:, 0]))
        at_second.append(block.at_frames(slopes, block.second[0]))
    each, n = range(len(acting)), len(rest)
    pairs = [(k, m) for k in each for m in range(k + 1)]
    products = [weights[k] * weights[m] for k, m in pairs]
    # What is one for each frame is added up in the type of the table, however pairs are.
    wide = partial(jax.tree.map, lambda one: one.astype(table.increments.values.dtype))
    by_first, by_second = wide(
        _line_sums([*products, *(weight * row for weight in weights for row in rest)])
    )
    first_rows, second_rows = wide((at_first, at_second))
    inner, outer = {}, []
    for (k, m), product, first, second in zip(pairs, products, by_first, by_second, strict=False):
        cross = first_rows[k] @ wide(product @ at_second[m].T)
        back = cross if k == m else first_rows[m] @ wide(product @ at_second[k].T)
        both = (first_rows[k] * first) @ first_rows[m].T
        both += (second_rows[k] * second) @ second_rows[m].T
        inner[k, m] = both - cross - back.T
        inner[m, k] = inner[k, m].T
    for k in each:
        own = slice(len(pairs) + k * n, len(pairs) + (k + 1) * n)
        first, second = jnp.stack(by_first[own]), jnp.stack(by_second[own])
        outer.append(second @ second_rows[k].T - first @ first_rows[k].T)
    corner = [(i, j) for i in range(n) for j in range(i + 1)]
    counted = [density, (root > 0).astype(root.dtype)]
    by_line = wide(sums([*(rest[i] * rest[j] for i, j in corner), *counted], (1,)))
    *found, cost, count = map(jnp.sum, by_line)
    found = dict(zip(corner, found, strict=True))
    square = jnp.stack([found[max(i, j), min(i, j)] for i in range(n) for j in range(n)])
    lines = [[inner[k, m] for m in each] + [outer[k].T] for k in each]
    gram = jnp.block([*lines, [*outer, square.reshape(n, n)]])
    # The column of a coordinate is the sum of those of its increments and of its scalars.
    below = np.concatenate([*places, np.full(len(turning), -1), table.columns + np.arange(3)])
    turn = jnp.asarray(below == np.arange(table.columns + 3)[:, None], gram.dtype)
    if turning:
        low = gram.shape[0] - n
        slopes = table.scalars.derivatives[jnp.asarray(turning), :, block.angle].T
        turn = turn.at[: table.columns, low : low + len(turning)].set(slopes)
    gram = turn @ gram @ turn.T
    return NormalEquations(cost, gram[:-1, -1], gram[:-1, :-1], count)


def _line_sums(parts: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Sums over the second and over the first axis."""
    size = parts[0].shape[0]
    # Down the columns a loop would jump from row to row at each step: first over runs of rows.
    run = max(k for k in range(1, _RUN + 1) if size % k == 0)
    runs = sums([one.reshape(-1, run, one.shape[1]) for one in parts], (1,))
    return sums(parts, (1,)), [jnp.sum(one, axis=0) for one in runs]


def block_cost(
    table: FrameTable,
    block: Block,
    contrast: Float[Array, ""],
    offset: Float[Array, ""],
    loss: AbstractLoss,
) -> NormalEquations:
    """As `block_equations` for contrast and offset only: no derivative of the model is made."""
    contrast, offset, loss = _in_type_of(block.values, (contrast, offset, loss))
    root = block.root_weights
    correlation = block_correlation(table, block)
    residual = root * (offset + contrast * correlation - block.values)
    rescaled, row_factor = loss.rescale(residual)
    slope, level = root * correlation, root
    if row_factor is not None:
        slope, level = row_factor * slope, row_factor * level
    products = (slope * slope, slope * level, level * level, slope * rescaled, level * rescaled)
    counted = (loss.density(residual), (root > 0).astype(slope.dtype))
    wide = table.increments.values.dtype
    by_line = sums((*products, *counted), (root.ndim - 1,))
    square, cross, weight, *gradient, cost, count = (jnp.sum(one.astype(wide)) for one in by_line)
    return NormalEquations(
        cost,
        jnp.stack(gradient),
        jnp.stack([square, cross, cross, weight]).reshape(2, 2),
        count,
    )
