"""What the pixels of a map add to the gradient of its likelihood, and how these scatter."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .kernel.frame_table import FrameTable
from .likelihood import (
    AtPoint,
    SampleCovariances,
    SpeckleLikelihood,
    at_point,
    traces_of_products,
    turned_derivatives,
)


class PixelScores(NamedTuple):
    """What the pixels of an angle add to the gradient, from a sample of them.

    - `covariance`: of the gradient by (coordinates, contrast, offset, shot noise).
    - `slope`: its expected derivative by the same; Fisher's information where all entries of the
        map are known.
    - `deviance`: its expectation, ½ E‖L⁻¹ψL⁻ᵀ‖² with LLᵀ = K and ψ the scatter that a pixel
        gives to the map: T (T + 1)/2 for Gaussian intensities of T frames, and more for speckle.
    """

    covariance: Float[Array, "column column"]
    slope: Float[Array, "column column"]
    deviance: Float[Array, ""]


def pixel_scores(
    likelihood: SpeckleLikelihood,
    y: Float[Array, "variable"],
    number: Int[Array, ""],
    fluctuations: Float[Array, "frame pixel"],
) -> PixelScores:
    """The scatter of the gradient of an angle, from pixels whose noise is that of the data.

    With A = ½ K⁻¹∂K K⁻¹, where the diagonal is not known less K⁻¹eK⁻¹ with the diagonal e that
    makes that of A zero, a pixel whose intensities are 1 + δ times their mean adds
    δᵀAδ − 2 Σ_ij A_ij K_ij δ_i and a constant: the second part is what dividing every frame by its
    mean over the pixels takes out. No A is needed for it: with x = K⁻¹δ the first part is
    ½ xᵀ∂K x − Σ_i e_i x_i², and Σ_j A_ij K_ij is half the diagonal of K⁻¹∂K less (K⁻¹)_ii e_i.

    - `fluctuations`: δ of pixels with the correlation, contrast and counts of the model.
    """
    table = likelihood.term.table(y[: likelihood.physical.n_free])
    level, count = likelihood.levels(y)[number], likelihood.n_blocks

    def of_angle(leaf):
        return leaf.reshape(-1, count, *leaf.shape[1:])[number]

    blocks = jax.tree.map(of_angle, likelihood.blocks)

    def add(total, block):
        own = _of_block(table, level, block, fluctuations[block.frames])
        return jax.tree.map(jnp.add, total, own), None

    width, sample = likelihood.physical.n_free + 3, fluctuations.shape[1]
    nothing = (
        jnp.zeros((width, sample), y.dtype),
        jnp.zeros((width, width), y.dtype),
        jnp.zeros(sample, fluctuations.dtype),
    )
    # All blocks are of the same pixels.
    (scores, slope, scatter), _ = jax.lax.scan(add, nothing, blocks)
    n_pixels = blocks.n_pixels[0]
    return PixelScores(
        n_pixels * jnp.atleast_2d(jnp.cov(scores)), n_pixels * slope, 0.5 * jnp.mean(scatter)
    )


def _of_block(
    table: FrameTable,
    level: Float[Array, "3"],
    block: SampleCovariances,
    fluctuations: Float[Array, "frame pixel"],
) -> tuple[Float[Array, "column pixel"], Float[Array, "column column"], Float[Array, "pixel"]]:
    """Scores of each pixel, their expected derivative, and `_scatter`, of a block of frames."""
    at = at_point(table, level, block)
    turned = turned_derivatives(at, block.kept)
    levels = jnp.diagonal(at.inverse)
    # The diagonal of 2A by each column.
    own = jax.lax.map(lambda one: jnp.sum(one * at.inverse, axis=1), turned)
    overlap = at.inverse**2

    def solved(right):
        """(K⁻¹∘K⁻¹)⁻¹ times columns, of which nothing is used where the diagonal is known."""
        return jax.lax.cond(
            block.known > 0, jnp.zeros_like, lambda r: jnp.linalg.solve(overlap, r), right
        )

    diagonal = 0.5 * solved(own.T).T
    slope = 0.5 * traces_of_products(turned) - diagonal @ own.T
    mean = 0.5 * jnp.diagonal(turned, axis1=1, axis2=2) - levels * diagonal
    single = fluctuations.dtype
    back = at.inverse.astype(single) @ fluctuations

    def one(column):
        derivative, diagonal, mean = column
        quadratic = jnp.sum(back * (0.5 * derivative.astype(single) @ back), axis=0)
        quadratic = quadratic - diagonal.astype(single) @ back**2
        return quadratic.astype(level.dtype) - 2 * mean @ fluctuations.astype(level.dtype)

    scores = jax.lax.map(one, (at.derivatives, diagonal, mean))
    kept = block.kept[:, None].astype(single)
    return scores, slope, _scatter(at, kept * fluctuations, jnp.sum(block.kept), solved)


def _scatter(
    at: AtPoint,
    fluctuations: Float[Array, "frame pixel"],
    frames: Float[Array, ""],
    solved: Callable[[Array], Array],
) -> Float[Array, "pixel"]:
    """‖L⁻¹ψL⁻ᵀ‖² of each pixel, ψ = δδᵀ − K − DK − KD with D = diag δ and K = LLᵀ.

    L⁻¹ψL⁻ᵀ = wwᵀ − 1 − B − Bᵀ with w = L⁻¹δ and B = L⁻¹DL, so that the square is
    |w|⁴ − 2 (|w|² + 2 wᵀBw) + T + 4 tr B + 2 ‖B‖² + 2 tr B², in which wᵀBw = (L⁻ᵀw)ᵀD(Lw),
    ‖B‖² = δᵀ(K⁻¹∘K)δ and tr B² = δᵀδ. Where the diagonal of the map is not of the data that of ψ is
    the one that makes it least: hᵀ(K⁻¹∘K⁻¹)⁻¹h less, h_i = (K⁻¹ψK⁻¹)_ii = (K⁻¹δ)_i² −
    (K⁻¹)_ii (1 + 2δ_i). `solved` multiplies by that inverse, and by zero elsewhere.
    """
    lower = at.factor.astype(fluctuations.dtype)
    white = jax.scipy.linalg.solve_triangular(lower, fluctuations, lower=True)
    back = jax.scipy.linalg.solve_triangular(lower, white, lower=True, trans=1)
    product = (at.inverse * at.matrix).astype(fluctuations.dtype)

    def over(columns):
        return jnp.sum(columns, axis=0)

    length = over(white**2)
    turned = over(back * fluctuations * (lower @ white))
    squares = over(fluctuations * (product @ fluctuations)) + over(fluctuations**2)
    whole = frames.astype(fluctuations.dtype) + 4 * over(fluctuations) + 2 * squares
    whole = length**2 - 2 * (length + 2 * turned) + whole
    levels = jnp.diagonal(at.inverse).astype(fluctuations.dtype)[:, None]
    own = back**2 - levels * (1 + 2 * fluctuations)
    return whole - over(own * solved(own.astype(at.matrix.dtype)).astype(own.dtype))
