"""What one pass over the tiles of a map adds up, of which its noise and error bars are made."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..objective import AbstractLoss, BandTiles, FrameTable, MapTiles
from .dyadic import ResidualSums, block_scores, products_of
from .local_noise import LocalSums, local_sums


class MapSums(eqx.Module):
    """What one pass over the tiles of one map adds up.

    - `pooled`: upper triangle of the columns (w ∂c2), of |c1|² and of √w ψ(√w r), summed over
        blocks of frames.
    - `by_frame`: scores, residual, pairs that count and |c1|² summed by frame.
    - `gram`: Σ of products of the columns over pairs, exact where blocks are longer than a frame;
        `own`: the same for scores.
    - `sums`: Σ of the squared residual, of |c1|², |c1|⁴ and |c1|⁶ over the pairs that count, and
        of |c1|⁴ over all; residual and number of the pairs of frames one and two apart.
    """

    pooled: Float[Array, "column_and_two block block"]
    by_frame: Float[Array, "column_and_three frame"]
    gram: Float[Array, "column column"]
    own: Float[Array, "column column"]
    sums: Float[Array, "9"]
    residuals: ResidualSums
    local: LocalSums


class Pass(eqx.Module):
    """What a pass over tiles needs to know: the point looked at, and the length of a block."""

    table: FrameTable
    scaling: Float[Array, "angle 2"]
    loss: AbstractLoss
    pool: int = eqx.field(static=True)


def no_sums(look: Pass, n: int, size: int) -> MapSums:
    """Those of no pairs of a map of n frames, whose tiles have `size` of them a side."""
    columns, dtype = look.table.columns + 2, look.scaling.dtype
    # A window of blocks may reach over the end of the map.
    side = -(-n // look.pool) + _window(size, look.pool)
    square = jnp.zeros((columns, columns), dtype)
    return MapSums(
        jnp.zeros((columns + 2, side, side), dtype),
        jnp.zeros((columns + 3, n), dtype),
        square,
        square,
        jnp.zeros((9,), dtype),
        ResidualSums.zero(columns, (), dtype),
        LocalSums.zero(dtype),
    )


def _window(size: int, pool: int) -> int:
    """Blocks that a tile can touch, wherever it begins."""
    return size if pool == 1 else -(-size // pool) + 1


def _pool(planes: Float[Array, "plane row column"], first, second, pool: int):
    """Sums over blocks of `pool` frames of a tile, whose frames begin at `first` and `second`.

    Rows are moved to where their block begins and added up as they lie, which is far less work
    than a product with a 0/1 matrix; that is left for the columns, when few rows remain.
    """
    n_planes, size, _ = planes.shape
    if pool == 1:
        return planes
    window = _window(size, pool)
    wide = jnp.zeros((n_planes, window * pool, size), planes.dtype)
    wide = jax.lax.dynamic_update_slice(wide, planes, (0, first % pool, 0))
    rows = jnp.sum(wide.reshape(n_planes, window, pool, size), axis=2)
    place = (second % pool + jnp.arange(size)) // pool
    return rows @ (place[:, None] == jnp.arange(window)).astype(planes.dtype)


def _add_tile(look: Pass, sums: MapSums, tiles: MapTiles | BandTiles, row) -> MapSums:
    """The sums of a map with those of one of its tiles, a row of the table of `tiles`."""
    size, pool, dtype = tiles.size, look.pool, look.scaling.dtype
    block = tiles.block(row)
    found = block_scores(look.table, block, look.scaling, look.loss)
    # Pairs without weight have a signal as well; what a tile shares with a neighbour has not.
    low_i, low_j = row[1] * size, row[2] * size
    pairs = (block.first < block.second) & (block.first >= low_i) & (block.second >= low_j)
    signal = jnp.where(pairs, found.correlation, 0.0)
    stack = block.root_weights * found.columns
    scores = found.columns * found.influence
    used = (block.root_weights > 0).astype(dtype)
    first, second = jnp.ravel(block.first), jnp.ravel(block.second)
    # The last column is that of the offset, √w.
    planes = jnp.concatenate([stack, signal[None], scores[-1:]])
    part = _pool(planes, first[0], second[0], pool)
    start = (jnp.zeros_like(first[0]), first[0] // pool, second[0] // pool)
    here = jax.lax.dynamic_slice(sums.pooled, start, part.shape)
    lines = jnp.concatenate([scores, jnp.stack([found.raw, used, signal])])
    by_frame = sums.by_frame.at[:, first].add(jnp.sum(lines, 2))
    residuals = ResidualSums.of(found, block, look.loss)
    if pool > 1 and tiles.root_weights is not None:
        gram = products_of(stack)
    else:
        # Pairs of an angle weigh the same; or it only tells which columns are independent.
        gram = tiles.root_angle_weights[block.angle] ** 2 * residuals.gram
    # Pairs of an angle weigh the same where there are no weights of their own.
    weight = block.root_weights if tiles.root_weights is not None else None
    even = tiles.root_angle_weights[block.angle]
    local = local_sums(found.raw, block.root_weights > 0, even if weight is None else weight)
    counted = used * signal
    powers = (found.raw**2, counted, counted * signal, counted * signal**2, signal**2)
    apart = [block.second - block.first == k for k in (1, 2)]
    near = [jnp.where(at, one, 0.0) for one in (found.raw, used) for at in apart]
    return MapSums(
        jax.lax.dynamic_update_slice(sums.pooled, here + part, start),
        by_frame.at[:, second].add(jnp.sum(lines, 1)),
        sums.gram + gram,
        sums.own + products_of(scores),
        sums.sums + jnp.stack([jnp.sum(one) for one in (*powers, *near)]),
        jax.tree.map(jnp.add, sums.residuals, residuals),
        jax.tree.map(jnp.add, sums.local, local),
    )


@quick_jit
def map_sums(look: Pass, tiles: MapTiles, angle) -> MapSums:
    """The sums of the map of a number, in memory."""
    rows = tiles.table[tiles.table[:, 0] == 0, 1:]

    def body(sums, row):
        return _add_tile(look, sums, tiles, jnp.concatenate([angle[None], row])), None

    none = no_sums(look, tiles.c2.shape[1], tiles.size)
    return jax.lax.scan(body, none, jnp.asarray(rows))[0]


@quick_jit
def piece_sums(look, zero, piece, place):
    """`zero` and the tiles of one of the maps of a piece, whose tables take the maps in turn.

    `place` is which map it is, and of how many.
    """
    slot, slots = place

    def body(k, sums):
        return _add_tile(look, sums, piece.tiles, piece.rows[k * slots + slot])

    return jax.lax.fori_loop(0, piece.count // slots, body, zero)
