"""The second derivative of the cost of a tile, by matrix products instead of pair by pair."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...objective import Block
from ...objective.kernel.blocks import pair_features
from ...objective.kernel.frame_table import FrameTable, Part, call_kernel


def feature_rows(table: FrameTable) -> tuple[Array, Array, Array]:
    """The values of the features of a model by frame, without their derivatives."""
    return table.increments.values, table.endpoints.values, table.scalars.values


def with_feature_rows(table: FrameTable, rows: tuple[Array, ...]) -> FrameTable:
    """The table with other values of its features."""
    return eqx.tree_at(feature_rows, table, rows)


class _Columns(eqx.Module):
    """Derivatives of one local quantity of a pair along the columns that move it.

    Each is a function of the first frame plus a function of the second, None for zero.
    """

    indices: tuple[int, ...] = eqx.field(static=True)
    at_first: Float[Array, "column first"] | None
    at_second: Float[Array, "column second"] | None


def _columns(table: FrameTable, block: Block) -> list[_Columns]:
    """Of increments, features at the first and at the second frame, scalars, contrast, offset."""
    out: list[_Columns] = []
    # Points have no two sides: all they are is a function of the "first".
    points = block.first.ndim == 1
    first = block.first if points else block.first[:, 0]
    second = block.second if points else block.second[0, :]

    def collect(part: Part, take):
        for k, used in enumerate(part.used):
            moving = tuple(a for a, u in enumerate(used) if u)
            out.append(_Columns(moving, *take(part.derivatives[k, jnp.array(moving, int)])))

    def increment(d):
        if points:
            return d[:, second] - d[:, first], None
        # Only differences count, so the digits shall be theirs.
        origin = d[:, first[-1:]]
        return origin - d[:, first], d[:, second] - origin

    def constant(d):
        return jnp.broadcast_to(d, (d.shape[0], first.shape[0])), None

    collect(table.increments, increment)
    collect(table.endpoints, lambda d: (d[:, first], None))
    collect(table.endpoints, lambda d: (d[:, second], None) if points else (None, d[:, second]))
    collect(table.scalars, lambda d: constant(d[:, block.angle][:, None]))
    for k in range(2):
        out.append(_Columns((table.columns + k,), *constant(jnp.ones((1, 1)))))
    return out


def _sum_of_products(weight, left: _Columns, right: _Columns):
    """Σ over pairs of weight · left · right: matrix products instead of columns pair by pair."""
    weight = weight.reshape(weight.shape[0], -1)
    total = jnp.zeros((len(left.indices), len(right.indices)), weight.dtype)
    if left.at_first is not None and right.at_first is not None:
        total += (left.at_first * jnp.sum(weight, axis=1)) @ right.at_first.T
    if left.at_second is not None and right.at_second is not None:
        total += (left.at_second * jnp.sum(weight, axis=0)) @ right.at_second.T
    if left.at_first is not None and right.at_second is not None:
        total += left.at_first @ (weight @ right.at_second.T)
    if left.at_second is not None and right.at_first is not None:
        total += (left.at_second @ weight.T) @ right.at_first.T
    return total


def second_order(args: PyTree, block: Block) -> tuple[Array, tuple[Array, ...]]:
    """Second derivative of a block's cost along (x, contrast, offset) with straight features.

    Returns it by angle, and the slope of the cost by feature, shaped as the rows of the table.
    """
    table, scaling, loss = args
    contrast, offset = scaling[block.angle, 0], scaling[block.angle, 1]
    structure = jax.tree.structure(pair_features(table, block))

    def features(rows):
        return jax.tree.leaves(pair_features(with_feature_rows(table, rows), block))

    def kernel(*flat):
        return call_kernel(table, *jax.tree.unflatten(structure, flat))

    def slopes(*flat):
        value, pull = jax.vjp(kernel, *flat)
        return value, pull(jnp.ones_like(value))

    flat, back = jax.vjp(features, feature_rows(table))
    (value, first), push = jax.linearize(slopes, *flat)
    one, nothing = jnp.ones_like(value), jnp.zeros_like(value)
    n = len(flat)
    bent = [push(*(one if k == other else nothing for other in range(n)))[1] for k in range(n)]

    root = block.root_weights
    residual = root * (offset + contrast * value - block.values)

    def pull_of_density(r):
        return jax.vjp(loss.density, r)[1](one)[0]

    force, stiffness = jax.jvp(pull_of_density, (residual,), (one,))
    force, stiffness = root * force, root * root * stiffness
    # Derivatives of offset + contrast·|c1|² by each local quantity.
    model = [*(contrast * part for part in first), value, one]
    columns = _columns(table, block)
    size = table.columns + 2
    hessian = jnp.zeros((size, size), value.dtype)
    for k, left in enumerate(columns):
        for other, right in enumerate(columns[: k + 1]):
            if not (left.indices and right.indices):
                continue
            weight = stiffness * model[k] * model[other]
            if k < n:
                weight += force * contrast * bent[k][other]
            elif k == n and other < n:
                weight += force * first[other]
            part = _sum_of_products(weight, left, right)
            rows, places = jnp.array(left.indices), jnp.array(right.indices)
            hessian = hessian.at[rows[:, None], places].add(part)
            if other < k:
                hessian = hessian.at[places[:, None], rows].add(part.T)
    by_angle = jnp.zeros((scaling.shape[0], size, size), value.dtype)
    slope = back([force * part for part in model[:n]])[0]
    return by_angle.at[block.angle].set(hessian), slope
