"""Covariance of the score Jᵀr: what the noise of a two-time map really does to a fit.

Columns everywhere: coordinates, contrast, offset of one angle, with residual weights and the
weights of a robust loss multiplied in.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..objective import AbstractLoss, Block, MapTiles, TwoTimeTerm, block_columns


def _score_columns(term, table, block: Block, scaling, loss: AbstractLoss):
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

    def body(carry, row):
        by_frame, own = carry
        block = term.tiles.block(row)
        _, raw, stack = _score_columns(term, table, block, scaling, loss)
        scores = stack * raw
        if scores.ndim == 3:
            first, second = jnp.sum(scores, axis=2), jnp.sum(scores, axis=1)
        else:
            first = second = scores
        by_frame = by_frame.at[block.angle, jnp.ravel(block.first)].add(first.T)
        by_frame = by_frame.at[block.angle, jnp.ravel(block.second)].add(second.T)
        flat = scores.reshape(columns, -1)
        return (by_frame, own.at[block.angle].add(flat @ flat.T)), None

    start = (jnp.zeros((n_angles, n_frames, columns)), jnp.zeros((n_angles, columns, columns)))
    (by_frame, own), _ = jax.lax.scan(body, start, jnp.asarray(term.tiles.table))
    return jnp.einsum("anc,and->acd", by_frame, by_frame) - own


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


def speckle_scores(
    term: TwoTimeTerm,
    y: Float[Array, "free"],
    scaling: Float[Array, "angle 2"],
    loss: AbstractLoss,
    shot_from_diagonal: Float[Array, "angle"],
) -> SpeckleScores:
    """Σ tr(K J_a K J_b)/(2N) by angle, with K = contrast·|c1|² + s·1.

    It follows from Cov[c2(1,2), c2(3,4)] = (K13 K24 + K14 K23)/N for Gaussian speckle. `N` comes
    from the residual variance, N = (K_tt² + mean K²)/s_r². `shot_from_diagonal` is NaN where the
    raw diagonal is unknown or was overwritten. Needs maps; memory is that of a map per column.
    """
    tiles = term.tiles
    assert isinstance(tiles, MapTiles)
    n = term.t.shape[0]
    whole = MapTiles(tiles.c2, tiles.root_weights, tiles.root_angle_weights, n)
    table = term.table(y)

    def at(angle):
        block = whole.block(jnp.stack([angle, 0 * angle, 0 * angle]))
        correlation, raw, stack = _score_columns(term, table, block, scaling, loss)
        contrast = scaling[angle, 0]
        upper = jnp.triu(jnp.ones((n, n), bool), 1)
        signal = jnp.where(upper, contrast * correlation, 0.0)
        signal = signal + signal.T
        scores = stack * raw
        by_frame = jnp.sum(scores, axis=2) + jnp.sum(scores, axis=1)
        flat = scores.reshape(scores.shape[0], -1)
        dyadic = by_frame @ by_frame.T - flat @ flat.T
        used = (block.root_weights > 0).astype(raw.dtype)
        pairs = jnp.sum(used)
        used, raw = used + used.T, raw + raw.T
        variance = 0.5 * jnp.sum(raw * raw) / jnp.maximum(pairs, 1.0)
        # Mean product of two residuals that share one frame, over their variance.
        neighbours = jnp.sum(used, axis=1)
        triples = jnp.sum(neighbours * (neighbours - 1))
        shared = jnp.sum(jnp.sum(raw, axis=1) ** 2) - jnp.sum(raw * raw)
        observed = shared / jnp.maximum(triples, 1.0) / jnp.maximum(variance, 1e-300)
        # The same for speckle: (k·a + b)/(k² + d) with k = contrast + s.
        rows = jnp.sum(signal, axis=1)
        square = jnp.sum(signal * signal)
        a = jnp.sum(rows) / (n * (n - 1))
        b = (jnp.sum(rows * rows) - square) / (n * (n - 1) * max(n - 2, 1))
        d = square / (n * (n - 1))

        def implied(k):
            return (k * a + b) / (k * k + d)

        bounded = jnp.clip(observed, 1e-6, None)
        root = jnp.sqrt(jnp.maximum(a * a - 4 * bounded * (bounded * d - b), 0.0))
        k_residual = jnp.maximum((a + root) / (2 * bounded), contrast)
        known = jnp.isfinite(shot_from_diagonal[angle])
        k_diagonal = contrast + jnp.where(known, jnp.maximum(shot_from_diagonal[angle], 0.0), 0.0)
        expected = implied(k_diagonal)
        believed = known & (observed > expected / _DISBELIEF)
        k = jnp.where(believed, k_diagonal, k_residual)
        n_pixels = (k * k + d) / jnp.maximum(variance, 1e-300)
        # Single precision is ample for an error bar and halves the n³ work; columns are brought
        # to order one first.
        matrix = (signal + k * jnp.eye(n)).astype(jnp.float32)

        def product(column):
            half = (column / jnp.max(jnp.abs(column), initial=1e-300)).astype(jnp.float32)
            return matrix @ (half + half.T)

        peaks = jnp.maximum(jnp.max(jnp.abs(stack), axis=(1, 2)), 1e-300)
        products = jax.lax.map(product, stack)
        flat = products.reshape(stack.shape[0], -1)
        turned = jnp.swapaxes(products, 1, 2).reshape(stack.shape[0], -1)
        traces = (flat @ turned.T).astype(raw.dtype) * jnp.outer(peaks, peaks)
        covariance = 0.5 * (traces + traces.T) / (2 * n_pixels)
        return SpeckleScores(
            covariance, dyadic, k - contrast, n_pixels, ~believed, observed, expected
        )

    return jax.lax.map(at, jnp.arange(scaling.shape[0]))
