"""Covariance of the score Jᵀr: what the noise of a two-time map really does to a fit.

Columns everywhere: coordinates, contrast, offset of one angle, with residual weights and the
weights of a robust loss multiplied in.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..compiling import quick_jit
from ..objective import (
    AbstractLoss,
    AbstractPieces,
    BandTiles,
    Block,
    FrameTable,
    MapTiles,
    StoredTiles,
    TwoTimeTerm,
    block_columns,
    each_piece,
    fold_pieces,
)


def _score_columns(table, block: Block, scaling, loss: AbstractLoss):
    """|c1|², raw residual (0 where no pair is), and the columns w ρ' J as a stack."""
    contrast, offset = scaling[block.angle]
    root = block.root_weights
    correlation, columns = block_columns(table, block, contrast * root)
    raw = jnp.where(root > 0, offset + contrast * correlation - block.values, 0.0)
    weighted = root * raw
    rescaled, row_factor = loss.rescale(weighted)
    outer = root
    if row_factor is not None:
        ratio = jnp.where(weighted == 0, 1.0, rescaled / jnp.where(weighted == 0, 1.0, weighted))
        outer = root * row_factor * ratio
    stack = jnp.stack([*columns, root * correlation, root]) * outer
    return correlation, raw, stack


def dyadic_scores(
    term: TwoTimeTerm,
    y: Float[Array, "free"],
    scaling: Float[Array, "angle 2"],
    loss: AbstractLoss,
) -> Float[Array, "angle column column"]:
    """Score covariance by angle from scores summed by shared frame, without a noise model.

    With s_ij the score of a pair and S_i the sum over the pairs of frame i, it is
    Σ_i S_i S_iᵀ − Σ_ij s_ij s_ijᵀ: all products of pairs that share a frame, each pair with itself
    once (dyadic clustering, as for network data; Aronow, Samii & Assenova 2015).
    """
    table = term.table(y)
    n_angles, n_frames, columns = scaling.shape[0], term.t.shape[0], y.shape[0] + 2
    start = (jnp.zeros((n_angles, n_frames, columns)), jnp.zeros((n_angles, columns, columns)))
    args, tiles = (table, scaling, loss), term.tiles
    if isinstance(tiles, AbstractPieces):
        by_frame, own = fold_pieces(_add_scores, args, tiles, start)
    else:

        def body(carry, row):
            return _add_scores(args, carry, tiles.block(row)), None

        (by_frame, own), _ = jax.lax.scan(body, start, jnp.asarray(tiles.table))
    return jnp.einsum("anc,and->acd", by_frame, by_frame) - own


def _add_scores(args, carry, block: Block):
    """Scores of a block added to those of its frames, and their products to those of its angle."""
    by_frame, own = carry
    table, scaling, loss = args
    _, raw, stack = _score_columns(table, block, scaling, loss)
    scores = stack * raw
    if scores.ndim == 3:
        first, second = jnp.sum(scores, axis=2), jnp.sum(scores, axis=1)
    else:
        first = second = scores
    by_frame = by_frame.at[block.angle, jnp.ravel(block.first)].add(first.T)
    by_frame = by_frame.at[block.angle, jnp.ravel(block.second)].add(second.T)
    flat = scores.reshape(scores.shape[0], -1)
    return by_frame, own.at[block.angle].add(flat @ flat.T)


class SpeckleScores(eqx.Module):
    """Score covariance by angle from the noise of intensity correlations, and how it was found.

    - `dyadic`: as `dyadic_scores`, which costs nothing here.
    - `shot`: shot-noise term 1/(mean count); `from_residuals` tells where it had to be taken from
        the correlation of residuals that share a frame instead of the raw diagonal.
    - `n_pixels`: effective number of pixels N.
    - `observed`, `expected`: that correlation, measured and as the raw diagonal implies.
    """

    covariance: Float[Array, "angle column column"]
    dyadic: Float[Array, "angle column column"]
    shot: Float[Array, "angle"]
    n_pixels: Float[Array, "angle"]
    from_residuals: Bool[Array, "angle"]
    observed: Float[Array, "angle"]
    expected: Float[Array, "angle"]


# The raw diagonal is not believed when it implies residuals this many times more correlated than
# they are: the map then carries other noise than speckle.
_DISBELIEF = 4.0
# Frames along a map up to which the n³ products are done frame by frame. Longer maps are pooled,
# which changes the variance along any direction by a few percent at most, even for a decay
# within one frame.
_POOLED_SIDE = 256


class _MapSums(eqx.Module):
    """What one pass over the tiles of one map adds up.

    - `pooled`: upper triangle of the columns and of contrast·|c1|², summed over blocks of frames,
      in single precision.
    - `by_frame`: scores, residual, pairs and signal summed by frame.
    - `gram`: Σ J_a J_b over pairs; `own`: the same for scores; `squares`: Σ r² and Σ signal².
    """

    pooled: Float[Array, "column_and_signal block block"]
    by_frame: Float[Array, "column_and_three frame"]
    gram: Float[Array, "column column"]
    own: Float[Array, "column column"]
    squares: Float[Array, "2"]


class _Pass(eqx.Module):
    """What a pass over tiles needs to know: the point looked at, and the length of a block."""

    table: FrameTable
    scaling: Float[Array, "angle 2"]
    loss: AbstractLoss
    scale: Float[Array, "column"]
    pool: int = eqx.field(static=True)


def _no_sums(look: _Pass, n: int, size: int) -> _MapSums:
    columns, dtype = look.scale.shape[0], look.scaling.dtype
    # A window of blocks may reach over the end of the map.
    side = -(-n // look.pool) + _window(size, look.pool)
    square = jnp.zeros((columns, columns), dtype)
    return _MapSums(
        jnp.zeros((columns + 1, side, side), jnp.float32),
        jnp.zeros((columns + 3, n), dtype),
        square,
        square,
        jnp.zeros((2,), dtype),
    )


def _window(size: int, pool: int) -> int:
    return -(-size // pool) + 1


def _add_tile(look: _Pass, sums: _MapSums, tiles: MapTiles | BandTiles, row) -> _MapSums:
    """The sums of a map with those of one of its tiles, a row of the table of `tiles`."""
    size, pool = tiles.size, look.pool
    window = _window(size, pool)

    def pooling(frames):
        """Where the blocks of a tile's frames begin, and the 0/1 matrix from frames to them."""
        begin = frames[0] // pool
        place = frames // pool - begin
        return begin, (place[:, None] == jnp.arange(window)).astype(jnp.float32)

    block = tiles.block(row)
    correlation, raw, stack = _score_columns(look.table, block, look.scaling, look.loss)
    # Pairs without weight have a signal as well; what a tile shares with a neighbour has not.
    low_i, low_j = row[1] * size, row[2] * size
    pairs = (block.first < block.second) & (block.first >= low_i) & (block.second >= low_j)
    signal = jnp.where(pairs, look.scaling[block.angle, 0] * correlation, 0.0)[None]
    scores = stack * raw
    used = (block.root_weights > 0).astype(raw.dtype)
    first, second = jnp.ravel(block.first), jnp.ravel(block.second)
    (begin_i, left), (begin_j, right) = pooling(first), pooling(second)
    start = (jnp.zeros_like(begin_i), begin_i, begin_j)
    part = jnp.concatenate([stack / look.scale[:, None, None], signal]).astype(jnp.float32)
    part = left.T @ part @ right
    here = jax.lax.dynamic_slice(sums.pooled, start, part.shape)
    lines = jnp.concatenate([scores, raw[None], used[None], signal])
    by_frame = sums.by_frame.at[:, first].add(jnp.sum(lines, 2))
    columns = stack.shape[0]
    flat, flat_scores = stack.reshape(columns, -1), scores.reshape(columns, -1)
    return _MapSums(
        jax.lax.dynamic_update_slice(sums.pooled, here + part, start),
        by_frame.at[:, second].add(jnp.sum(lines, 1)),
        sums.gram + flat @ flat.T,
        sums.own + flat_scores @ flat_scores.T,
        sums.squares + jnp.stack([jnp.sum(raw * raw), jnp.sum(signal * signal)]),
    )


def _map_sums(look: _Pass, tiles: MapTiles, angle, n: int) -> _MapSums:
    rows = tiles.table[tiles.table[:, 0] == 0, 1:]

    def body(sums, row):
        return _add_tile(look, sums, tiles, jnp.concatenate([angle[None], row])), None

    return jax.lax.scan(body, _no_sums(look, n, tiles.size), jnp.asarray(rows))[0]


def _traces(sums: _MapSums, k, scale, pool: int):
    """tr(K J_a K J_b) with K = signal + k·1.

    Columns vary slowly between neighbouring frames, so on long maps they are taken as constant
    over blocks of frames: with E the 0/1 matrix of blocks, J ≈ E Ĵ Eᵀ turns the traces into those
    of EᵀKE and Ĵ. The part in k², where the variation inside blocks would matter, is exact. The
    result stays positive semi-definite.
    """
    n = sums.by_frame.shape[1]
    blocks = -(-n // pool)
    pooled = sums.pooled[:, :blocks, :blocks]
    signal = pooled[-1]
    # The last block may be shorter.
    length = jnp.asarray(np.minimum(pool, n - pool * np.arange(blocks)), jnp.float32)
    matrix = signal + signal.T + jnp.diag(k.astype(jnp.float32) * length)

    def product(column):
        mean = (column + column.T) / (length[:, None] * length)
        return matrix @ mean, jnp.sqrt(length)[:, None] * mean * jnp.sqrt(length)

    products, means = jax.lax.map(product, pooled[:-1])
    flat, mean = (a.reshape(a.shape[0], -1) for a in (products, means))
    turned = jnp.swapaxes(products, 1, 2).reshape(flat.shape)
    outer = jnp.outer(scale, scale)
    traces = (flat @ turned.T).astype(scale.dtype) * outer
    white = 2 * sums.gram - (mean @ mean.T).astype(scale.dtype) * outer
    return 0.5 * (traces + traces.T) + (k * k * white if pool > 1 else 0.0)


def _look_at(table, scaling, loss, largest_root_weight, pooled_side: int, n: int) -> _Pass:
    # Single precision is ample for an error bar and halves the work of the products; columns are
    # brought to a common order of magnitude first, whatever the units.
    size = jnp.full((table.columns,), 1e-300)
    for part in (table.increments, table.endpoints, table.scalars):
        size = jnp.maximum(size, jnp.max(jnp.abs(part.derivatives), axis=(0, 2), initial=0.0))
    scale = jnp.concatenate([size, jnp.ones((2,), size.dtype)])
    scale = scale * jnp.maximum(jnp.asarray(largest_root_weight, scale.dtype) ** 2, 1e-300)
    return _Pass(table, scaling, loss, scale, -(-n // pooled_side))


def speckle_scores(
    term: TwoTimeTerm,
    y: Float[Array, "free"],
    scaling: Float[Array, "angle 2"],
    loss: AbstractLoss,
    shot_from_diagonal: Float[Array, "angle"],
    pooled_side: int = _POOLED_SIDE,
) -> SpeckleScores:
    """Σ tr(K J_a K J_b)/(2N) by angle, with K = contrast·|c1|² + s·1.

    It follows from Cov[c2(1,2), c2(3,4)] = (K13 K24 + K14 K23)/N for Gaussian speckle. `N` comes
    from the residual variance, N = (K_tt² + mean K²)/s_r². `shot_from_diagonal` is NaN where the
    raw diagonal is unknown or was overwritten. Needs maps.

    Maps of more than `pooled_side` frames are pooled to that many blocks of frames for the
    products of matrices, which bounds their memory and makes their time that of an evaluation.
    """
    tiles = term.tiles
    assert isinstance(tiles, MapTiles)
    largest = 1.0 if tiles.root_weights is None else jnp.max(tiles.root_weights)
    n = term.t.shape[0]
    look = _look_at(term.table(y), scaling, loss, largest, pooled_side, n)

    def at(angle):
        sums = _map_sums(look, tiles, angle, n)
        return _angle_scores(look, sums, scaling[angle, 0], shot_from_diagonal[angle])

    return jax.lax.map(at, jnp.arange(scaling.shape[0]))


def stored_speckle_scores(
    term: TwoTimeTerm,
    y: Float[Array, "free"],
    scaling: Float[Array, "angle 2"],
    loss: AbstractLoss,
    shot_from_diagonal: Float[Array, "angle"],
    pooled_side: int = _POOLED_SIDE,
) -> SpeckleScores:
    """As `speckle_scores` for maps in a file, in one pass over its pieces."""
    tiles = term.tiles
    assert isinstance(tiles, StoredTiles)
    n, largest = term.t.shape[0], jnp.asarray(tiles.largest_root_weight)
    look, zero = _begin(term.table(y), scaling, loss, largest, pooled_side, n, tiles.size)
    sums: list[_MapSums] = []
    found: list[SpeckleScores] = []
    for k, piece in enumerate(each_piece(tiles)):
        angles = tiles.angles_of(k)
        # The pieces of a map follow each other, and only maps that are not complete have sums.
        if k % tiles.bands == 0:
            sums = [zero] * len(angles)
        for slot in range(len(angles)):
            sums[slot] = _add_piece(look, sums[slot], piece, slot, len(angles))
        jax.block_until_ready(sums)
        if k % tiles.bands == tiles.bands - 1:
            for angle, complete in zip(angles, sums, strict=True):
                shot = shot_from_diagonal[angle]
                found.append(_finish(look, complete, scaling[angle, 0], shot))
    return jax.tree.map(lambda *one: np.stack(one), *found)


@quick_jit
def _begin(table, scaling, loss, largest, pooled_side, n, size):
    look = _look_at(table, scaling, loss, largest, pooled_side, n)
    return look, _no_sums(look, n, size)


@quick_jit
def _add_piece(look, sums, piece, slot, slots):
    """Tiles of one of the maps of a piece, whose tables take the maps in turn."""

    def body(k, sums):
        return _add_tile(look, sums, piece.tiles, piece.rows[k * slots + slot])

    return jax.lax.fori_loop(0, piece.count // slots, body, sums)


def _angle_scores(look: _Pass, sums: _MapSums, contrast, shot) -> SpeckleScores:
    """What follows from the sums of one map."""
    n = sums.by_frame.shape[1]
    scores, (residual, partners, level) = sums.by_frame[:-3], sums.by_frame[-3:]
    dyadic = scores @ scores.T - sums.own
    variance = sums.squares[0] / jnp.maximum(0.5 * jnp.sum(partners), 1.0)
    # Mean product of two residuals that share one frame, over their variance.
    triples = jnp.sum(partners * (partners - 1))
    shared = jnp.sum(residual**2) - 2 * sums.squares[0]
    observed = shared / jnp.maximum(triples, 1.0) / jnp.maximum(variance, 1e-300)
    # The same for speckle: (k·a + b)/(k² + d) with k = contrast + s.
    square = 2 * sums.squares[1]
    a = jnp.sum(level) / (n * (n - 1))
    b = (jnp.sum(level**2) - square) / (n * (n - 1) * max(n - 2, 1))
    d = square / (n * (n - 1))

    def implied(k):
        return (k * a + b) / (k * k + d)

    bounded = jnp.clip(observed, 1e-6, None)
    root = jnp.sqrt(jnp.maximum(a * a - 4 * bounded * (bounded * d - b), 0.0))
    k_residual = jnp.maximum((a + root) / (2 * bounded), contrast)
    known = jnp.isfinite(shot)
    k_diagonal = contrast + jnp.where(known, jnp.maximum(shot, 0.0), 0.0)
    expected = implied(k_diagonal)
    believed = known & (observed > expected / _DISBELIEF)
    k = jnp.where(believed, k_diagonal, k_residual)
    # A map that decays within a frame has no contrast, and only white noise: K ∝ 1 of any size.
    k = jnp.where((k > 0) | (d > 0), k, 1.0)
    n_pixels = (k * k + d) / jnp.maximum(variance, 1e-300)
    covariance = _traces(sums, k, look.scale, look.pool) / (2 * n_pixels)
    return SpeckleScores(covariance, dyadic, k - contrast, n_pixels, ~believed, observed, expected)


_finish = quick_jit(_angle_scores)
