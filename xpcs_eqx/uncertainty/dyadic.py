"""Covariance of the score Σ ψ(r) ∂r: what the noise of a two-time map really does to a fit.

Columns everywhere: coordinates, contrast, offset of one angle. r is the weighted residual, ψ the
derivative of the loss (ψ(r) = r for the linear one).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..objective import (
    AbstractLoss,
    AbstractPieces,
    Block,
    FrameTable,
    InfluenceSums,
    Linear,
    TwoTimeTerm,
    block_columns,
    fold_pieces,
    has_bins,
    influence_sums,
)


class BlockScores(eqx.Module):
    """What the pairs of a block add to the score; 0 where no pair is.

    - `correlation`: |c1|²; `raw`: fitted c2 minus measured.
    - `columns`: ∂r, the Jacobian of the weighted residuals r.
    - `influence`: ψ(r).
    """

    correlation: Float[Array, "..."]
    raw: Float[Array, "..."]
    columns: Float[Array, "column ..."]
    influence: Float[Array, "..."]


def block_scores(
    table: FrameTable, block: Block, scaling: Float[Array, "angle 2"], loss: AbstractLoss
) -> BlockScores:
    """The scores of a block of pairs at the given contrast and offset."""
    contrast, offset = scaling[block.angle]
    root = block.root_weights
    correlation, columns = block_columns(table, block, contrast * root)
    raw = jnp.where(root > 0, offset + contrast * correlation - block.values, 0.0)
    stack = jnp.stack([*columns, root * correlation, root])
    weighted = root * raw
    return BlockScores(correlation, raw, stack, loss.influence(weighted))


def products_of(columns: Float[Array, "column ..."]) -> Float[Array, "column column"]:
    """Σ over pairs of the products of columns."""
    flat = columns.reshape(columns.shape[0], -1)
    return flat @ flat.T


class ResidualSums(eqx.Module):
    """What the residuals of one angle say about errors, and the curvature they leave.

    - `influence`: of the loss on them; `square`: Σ r²; `weight`: Σ w; `gram`: JᵀJ without the loss.
    """

    influence: InfluenceSums
    square: Float[Array, "*angle"]
    weight: Float[Array, "*angle"]
    gram: Float[Array, "*angle column column"]

    @classmethod
    def of(cls, scores: BlockScores, block: Block, loss: AbstractLoss) -> "ResidualSums":
        """Those of one block of pairs."""
        weighted = block.root_weights * scores.raw
        gram = products_of(scores.columns)
        return cls(
            influence_sums(loss, weighted, block.root_weights),
            jnp.sum(weighted**2),
            gram[-1, -1],  # the last column, of the offset, is √w
            gram,
        )

    @classmethod
    def zero(cls, columns: int, batch: tuple[int, ...], dtype) -> "ResidualSums":
        """Those of no pairs."""
        nothing = jnp.zeros(batch, dtype)
        square = jnp.zeros((*batch, columns, columns), dtype)
        return cls(InfluenceSums(*(nothing,) * 5), nothing, nothing, square)


def mean_slopes(loss: AbstractLoss, residuals: ResidualSums) -> Float[np.ndarray, "angle"]:
    """E[ψ′] of each angle, 1 for the linear loss; above zero, for a minimum is curved there."""
    influence = residuals.influence
    count = np.maximum(np.asarray(influence.count), 1.0)
    if isinstance(loss, Linear):
        return np.ones_like(count)
    return np.maximum(np.asarray(influence.slope) / count, 1e-8)


def robust_noise(
    loss: AbstractLoss,
    residuals: ResidualSums,
    covariance: Float[np.ndarray, "angle column column"],
    gram: Float[Array | np.ndarray, "angle column column"],
) -> Float[np.ndarray, "angle column column"]:
    """Covariance of the score Σ ψ(r) ∂r, from that of Σ r ∂r, by angle; `gram` is Σ ∂r ∂rᵀ.

    Noise common to pairs moves ψ(r) by E[ψ′] times as much as r: of jointly Gaussian residuals the
    covariance of ψ is E[ψ′]² times theirs, to first order in their correlation. What ψ has by
    itself, E[ψ²] − E[ψ′]² E[r²], is independent from pair to pair.
    """
    if isinstance(loss, Linear):
        return np.asarray(covariance)
    influence, slope = residuals.influence, mean_slopes(loss, residuals)
    count = np.maximum(np.asarray(influence.count), 1.0)
    own = (np.asarray(influence.square) - slope**2 * np.asarray(residuals.square)) / count
    slope, own = slope[:, None, None], own[:, None, None]
    return slope**2 * np.asarray(covariance) + own * np.asarray(gram)


def summed(
    columns: Float[np.ndarray, "angle column entry"],
    by_angle: Float[Array | np.ndarray, "angle column column"],
) -> Float[np.ndarray, "entry entry"]:
    """Σ over angles of matrices of their columns, as entries of a fit."""
    return np.einsum("ace,acd,adf->ef", columns, np.asarray(by_angle), columns, optimize=True)


class DyadicScores(eqx.Module):
    """Score covariance by angle from shared frames.

    - `covariance`: Σ_i S_i S_iᵀ − Σ_ij s_ij s_ijᵀ; `own`: the second of the two sums.
    - `residuals`: sums over the residuals of each angle.
    """

    covariance: Float[Array, "angle column column"]
    own: Float[Array, "angle column column"]
    residuals: ResidualSums


def dyadic_scores(
    term: TwoTimeTerm,
    y: Float[Array, "free"],
    scaling: Float[Array, "angle 2"],
    loss: AbstractLoss,
) -> DyadicScores:
    """Score covariance by angle from scores summed by shared frame, without a noise model.

    With s_ij the score of a pair and S_i the sum over the pairs of frame i, it is
    Σ_i S_i S_iᵀ − Σ_ij s_ij s_ijᵀ: all products of pairs that share a frame, each pair with itself
    once (dyadic clustering, as for network data; Aronow, Samii & Assenova 2015).

    Bins have many frames each. With S_i the score of the bins of an age, those of all lags, it is
    Σ_i S_i S_iᵀ and half of the products with the next age (Newey & West, Econometrica 55, 703
    (1987), with one neighbour), less the same last term.
    """
    table = term.table(y)
    n_angles, n_frames, columns = scaling.shape[0], term.t.shape[0], y.shape[0] + 2
    start = (
        jnp.zeros((n_angles, n_frames, columns)),
        jnp.zeros((n_angles, columns, columns)),
        ResidualSums.zero(columns, (n_angles,), y.dtype),
    )
    args, tiles = (table, scaling, loss), term.tiles
    if isinstance(tiles, AbstractPieces):
        by_frame, own, residuals = fold_pieces(_add_scores, args, tiles, start)
    else:

        def body(carry, row):
            return _add_scores(args, carry, tiles.block(row)), None

        (by_frame, own, residuals), _ = jax.lax.scan(body, start, jnp.asarray(tiles.table))
    if has_bins(tiles):
        edge = jnp.zeros_like(by_frame[:, :1])
        before, after = (jnp.concatenate(one, 1) for one in ((edge, by_frame), (by_frame, edge)))
        by_frame = (before + after) / np.sqrt(2)
    return DyadicScores(jnp.einsum("anc,and->acd", by_frame, by_frame) - own, own, residuals)


def _add_scores(args, carry, block: Block):
    """Scores of a block added to those of its frames, and their products to those of its angle."""
    by_frame, own, residuals = carry
    table, scaling, loss = args
    found = block_scores(table, block, scaling, loss)
    scores = found.columns * found.influence
    if scores.ndim == 3:
        first, second = jnp.sum(scores, axis=2), jnp.sum(scores, axis=1)
    else:
        first = second = scores
    if block.means is None:
        by_frame = by_frame.at[block.angle, jnp.ravel(block.first)].add(first.T)
        by_frame = by_frame.at[block.angle, jnp.ravel(block.second)].add(second.T)
    else:
        # There are hardly more ages than frames; the last ones would be added up.
        age = jnp.minimum(block.means.age, by_frame.shape[1] - 1)
        by_frame = by_frame.at[block.angle, age].add(scores.T)
    residuals = jax.tree.map(
        lambda total, part: total.at[block.angle].add(part),
        residuals,
        ResidualSums.of(found, block, loss),
    )
    return by_frame, own.at[block.angle].add(products_of(scores)), residuals
