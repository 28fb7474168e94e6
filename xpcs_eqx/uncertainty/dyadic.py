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
    TwoTimeTerm,
    block_columns,
    fold_pieces,
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


def mean_slopes(residuals: ResidualSums) -> np.ndarray:
    """E[ψ′] of each angle; above zero, for a minimum has a curvature there."""
    influence = residuals.influence
    count = np.maximum(np.asarray(influence.count), 1.0)
    return np.maximum(np.asarray(influence.slope) / count, 1e-8)


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
    by_frame = by_frame.at[block.angle, jnp.ravel(block.first)].add(first.T)
    by_frame = by_frame.at[block.angle, jnp.ravel(block.second)].add(second.T)
    residuals = jax.tree.map(
        lambda total, part: total.at[block.angle].add(part),
        residuals,
        ResidualSums.of(found, block, loss),
    )
    return by_frame, own.at[block.angle].add(products_of(scores)), residuals
