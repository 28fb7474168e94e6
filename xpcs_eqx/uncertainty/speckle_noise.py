"""Covariance of intensity correlations of speckle with photon counts, and what it does to sums.

Symbols: g field correlation of two frames, β contrast, K = β|g|², s = 1/(mean count), N pixels,
u = intensity over its mean − 1, M modes of equal weight (β = 1/M). Dividing by the mean of each
frame makes a pixel count with ψ_ij = δ_i δ_j − K_ij − K_ij (δ_i + δ_j) in c2_ij, δ = u + photon
noise; N Cov(c2_ij, c2_kl) is the covariance of ψ_ij and ψ_kl over pixels. A symmetric J with an
empty diagonal turns it into ψ_J = ½ δᵀJδ − vᵀδ + const with v_i = Σ_j J_ij K_ij. Given the
intensities, photon noise is independent from frame to frame with variance s(1 + u_i), so that

    Cov(ψ_J, ψ_L) = Cov(½ uᵀJu − vᵀu, ½ uᵀLu − wᵀu)
                    + s Σ_i E[(1 + u_i) (Ju − v)_i (Lu − w)_i] + ½ s² Σ_ij J_ij L_ij (1 + K_ij)

and the cumulants of u, κ_ij = K_ij, κ_ijk = 2β² Re g_ij g_jk g_ki and κ_ijkl = β³ Σ over the six
cyclic orders of the product of g along the cycle, give every mean. All that is not in
½ tr(K' J K' L), K' = K + s·1, the part of Gaussian intensities, is in `beyond_gaussian`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from ..objective import MapTiles, StoredTiles, TwoTimeTerm

# Frames (or blocks of them) along a map up to which the cycle of four frames without a shortcut
# through matrix products is summed as it stands, n⁴; more are taken together. It is a smooth sum
# over all four, and the smallest part of the whole.
_CYCLE_SIDE = 64


def variance_coefficients(
    contrast: Float[Array, ""], means: Float[Array, "3"], full: bool | Array
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """N times the variance of c2 averaged over pairs, as coefficients of 1, s and s².

    For a pair it is

        (β + s)² + 4β(β + s) K + (1 − 4β − 2s) K² + 2K³ + s² K,

    and (β + s)² + K² for Gaussian intensities, which is taken unless `full`. `means` are those of
    K, K² and K³ over the pairs. Known relations follow: 2β²(1 + β) at short delays without shot
    noise, β² + 2βs + s² where nothing is left of the correlation.
    """
    first, second, third = means
    full = jnp.asarray(full, contrast.dtype)
    return (
        contrast**2 + second + full * (4 * contrast**2 * first - 4 * contrast * second + 2 * third),
        2 * contrast + full * (4 * contrast * first - 2 * second),
        1 + full * first,
    )


def cycle_sum(
    columns: Float[Array, "column block block"], field: Inexact[Array, "block block"]
) -> Float[Array, "column column"]:
    """Q_JL = Σ_ijkl J_ij L_kl g_ik g_kj g_jl g_li, for matrices J and L of `columns`.

    No chain of matrix products gives it; it costs columns · n⁴ operations.
    """
    n = field.shape[0]
    flat = columns.reshape(columns.shape[0], -1)

    def row(i):
        # For one i, all j: left_jk = g_ik g_kj, and g_li g_jl is its conjugate.
        left = field[i][None, :] * field.T
        turned = jnp.einsum("jk,bkl->bjl", left, columns)
        return jnp.sum(turned * jnp.conj(left), axis=2).real

    rows = jax.lax.map(row, jnp.arange(n))
    return flat @ jnp.swapaxes(rows, 0, 1).reshape(flat.shape).T


def coarser(
    columns: Float[Array, "column block block"],
    field: Inexact[Array, "block block"],
    length: Float[Array, "block"],
    side: int,
) -> tuple[Array, Array, Array]:
    """Sums over pairs of blocks, field and lengths of blocks in at most `side` blocks."""
    n = field.shape[0]
    step = -(-n // side)
    if step == 1:
        return columns, field, length
    rest, blocks = -n % step, -(-n // step)

    def summed(matrices):
        padded = jnp.pad(matrices, [(0, 0)] * (matrices.ndim - 2) + [(0, rest)] * 2)
        rows = jnp.sum(padded.reshape(*padded.shape[:-1], blocks, step), axis=-1)
        return jnp.sum(rows.reshape(*rows.shape[:-2], blocks, step, blocks), axis=-2)

    whole = jnp.sum(jnp.pad(length, (0, rest)).reshape(blocks, step), axis=1)
    share = length / jnp.repeat(whole, step)[:n]
    return summed(columns), summed(share[:, None] * field * share), whole


def traces(
    left: Inexact[Array, "column block block"], right: Inexact[Array, "column block block"]
) -> Float[Array, "column column"]:
    """Re tr(X Y) of each of `left` with each of `right`."""
    flat = left.reshape(left.shape[0], -1)
    other = jnp.swapaxes(right, 1, 2).reshape(right.shape[0], -1)
    return (flat @ other.T).real


def beyond_gaussian(
    columns: Float[Array, "column block block"],
    field: Inexact[Array, "block block"],
    length: Float[Array, "block"],
    contrast: Float[Array, ""],
    shot: Float[Array, ""],
    cycle_side: int = _CYCLE_SIDE,
) -> Float[Array, "column column"]:
    """N Cov of sums ½ Σ_ij J_ij c2_ij, without the part ½ tr(K' J K' L) of Gaussian intensities.

    With A = J∘g and B = L∘g (elementwise), G = g, q_J = diag(G A G) and Q of `cycle_sum`:

        β³ [tr(A G B G) + ½ Q]                        fourth cumulant
        − β² (q_J·w + q_L·v)                          third, by the normalisation of frames
        + vᵀ K w − s v·w                              normalisation twice
        + 2β² s tr(A G B) + ½ s² Σ_ij J_ij L_ij K_ij  photons

    `columns` are symmetric and summed over blocks of `length` frames, `field` is the correlation of
    blocks; blocks of one frame are exact, but that Q is summed over at most `cycle_side` blocks.
    """
    size = jnp.abs(field) ** 2
    signal = contrast * size
    turned = columns * field
    chain = turned @ field
    steady = jnp.sum(columns * signal, axis=2)  # v, summed over the frames of a block
    through = jnp.sum(chain * field.T, axis=1).real  # q of each frame

    fewer, amid, _ = coarser(columns, field, length, cycle_side)
    fourth = traces(chain, chain) + 0.5 * cycle_sum(fewer, amid)
    third = through @ steady.T
    twice = steady @ signal @ steady.T - shot * (steady / length) @ steady.T
    photons = 2 * contrast**2 * traces(chain, turned / length[:, None])
    flat = columns.reshape(columns.shape[0], -1)
    weight = (signal / (length[:, None] * length)).reshape(-1)
    both = 0.5 * shot * (flat * weight) @ flat.T
    whole = contrast**3 * fourth - contrast**2 * (third + third.T) + twice + shot * (photons + both)
    return 0.5 * (whole + whole.T)


def shared_frame_coefficients(
    contrast: Float[Array, ""],
    means: Float[Array, "2"],
    field: Inexact[Array, "sample sample"],
    full: bool | Array,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """N times the mean covariance of two c2 that share one frame, as coefficients of 1 and s.

    For c2_ij and c2_ik of three frames, with R = Re g_ij g_jk g_ki, it is

        (β + s) K_jk + (1 − β − s) K_ij K_ik + 4β³ R − 2β² R (K_ij + K_ik)
        + K_ij K_ik (K_ij + K_ik + K_jk) + 2β² s R,

    and (β + s) K_jk + K_ij K_ik for Gaussian intensities, which is taken unless `full`. `means`
    are those of K_jk and of K_ij K_ik; the mean of the others is taken over the frames of `field`,
    a sample of all.
    """
    n = field.shape[0]
    triples = n * (n - 1) * max(n - 2, 1)
    # A pair of a frame with itself has no part in sums over distinct frames.
    bare = field * (1 - jnp.eye(n))
    k = contrast * jnp.abs(bare) ** 2
    around = (bare * (bare @ bare).T).real  # Σ_j g_ij g_jk g_ki
    ring, ring_signal = jnp.sum(around) / triples, jnp.sum(around * k) / triples
    row, square = jnp.sum(k, axis=1), jnp.sum(k * k, axis=1)
    open_cubes = (jnp.sum(row * square) - jnp.sum(k**3)) / triples
    closed_cubes = jnp.sum(k * (k @ k)) / triples
    a, b = means
    beyond = 4 * contrast**3 * ring - 4 * contrast**2 * ring_signal + 2 * open_cubes + closed_cubes
    full = jnp.asarray(full, contrast.dtype)
    constant = contrast * a + b + full * (beyond - contrast * b)
    return constant, a + full * (2 * contrast**2 * ring - b)


def diagonal_above(
    term: TwoTimeTerm, per_angle: Float[np.ndarray, "angle 2"]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """By how much the raw diagonal lies above the model, which is 1/(mean count) of a right one.

    By angle; NaN where the diagonal was overwritten, with why.
    """
    n_angles = per_angle.shape[0]
    above, why = np.full(n_angles, np.nan), []
    side_diagonals = _side_diagonals(term.tiles)
    if term.diagonal is None or side_diagonals is None:
        return above, ("the data carry no diagonal",)
    diagonal = np.asarray(term.diagonal)
    for a in range(n_angles):
        line = diagonal[a]
        good = np.isfinite(line)
        if good.sum() < 2:
            why.append(f"angle {a}: no diagonal")
            continue
        side = side_diagonals[a].astype(float)
        both = 0.5 * (np.append(side, side[-1]) + np.insert(side, 0, side[0]))
        before, after = np.insert(side, 0, side[0]), np.append(side, side[-1])
        copied = [np.isclose(line, other, rtol=1e-6, atol=0) for other in (both, before, after)]
        if max(np.mean(c[good]) for c in copied) > 0.5 or np.ptp(line[good]) == 0:
            why.append(f"angle {a}: the diagonal was overwritten")
            continue
        contrast, offset = (float(v) for v in per_angle[a])
        estimate = line[good].mean() - offset - contrast
        spread = line[good].std(ddof=1) / np.sqrt(good.sum())
        if estimate < -3 * spread - 0.05 * contrast:
            why.append(f"angle {a}: the diagonal lies below offset + contrast")
            continue
        above[a] = estimate
    return above, tuple(why)


def _side_diagonals(tiles) -> np.ndarray | None:
    """c2 of neighbouring frames by angle, when the data form maps."""
    if isinstance(tiles, StoredTiles):
        return tiles.side_diagonal
    if isinstance(tiles, MapTiles):
        return np.diagonal(np.asarray(tiles.c2), offset=1, axis1=1, axis2=2)
    return None
