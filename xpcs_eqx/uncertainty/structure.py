"""Sums of residuals over cells of lag and age, and what the noise alone would make of them.

A right model leaves residuals whose sum over any group of pairs is zero within its error. The
groups are cells of a map, in steps of the lag that grow with it and in equal steps of the age.
Their sums are scores of a model with one more level for each cell, so that their covariance is
found as that of the scores of the fit, and with it, jointly.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int

from .speckle_noise import beyond_gaussian, coarser, traces

# Steps of lag and of age.
_LAGS, _AGES = 8, 6
# Frames along a map of which none are taken together for the products of matrices; blocks along a
# longer one, whose steps of lag are many frames.
_ALL, _SIDE = 128, 86
# Blocks in the smoothest sum over four frames, which costs their number to the fourth.
_CYCLE_SIDE = 24


class Cells(NamedTuple):
    """Cells of the pairs of blocks of a map.

    - `lag`, `age`: of each cell, counted from zero; `edges`: lags [blocks] at which steps begin.
    - `place`: number of the cell of a pair of blocks (first ≤ second), −1 where it is in none.
    """

    lag: Int[np.ndarray, "cell"]
    age: Int[np.ndarray, "cell"]
    edges: Int[np.ndarray, "edge"]
    place: Int[np.ndarray, "block block"]


def _side(blocks: int) -> int:
    """Blocks along a map of so many that products of matrices are made of at most."""
    return blocks if blocks <= _ALL else _SIDE


def cells_of(blocks: int, length: int) -> Cells:
    """The cells of a map of blocks of `length` frames; pairs within a block have the lag zero."""
    least = 0 if length > 1 else 1
    edges = np.unique(np.round(np.geomspace(1, blocks, _LAGS + 1)).astype(int))
    edges[0] = least
    first, second = np.indices((blocks, blocks))
    lag = np.searchsorted(edges, second - first, side="right") - 1
    lag = np.minimum(lag, edges.size - 2)
    age = (first + second) * _AGES // (2 * blocks - 1)
    counts = second - first >= least
    kinds, place = np.unique((lag * _AGES + age)[counts], return_inverse=True)
    of_pair = np.full((blocks, blocks), -1)
    of_pair[counts] = place
    return Cells(kinds // _AGES, kinds % _AGES, edges, of_pair)


def limits_of(
    t: Float[np.ndarray, "frame"], step: int
) -> tuple[Cells, Float[np.ndarray, "lag 2"], Float[np.ndarray, "age 2"]]:
    """The cells of a map in blocks of `step` frames, and the limits [s] of its lags and ages.

    `t` are the frame times [s].
    """
    n = t.size
    cells = cells_of(-(-n // step), step)
    mean = (t[-1] - t[0]) / max(n - 1, 1)
    lag = np.stack([cells.edges[:-1] * step, cells.edges[1:] * step - 1], axis=1)
    lag[:, 0] = np.where(lag[:, 0] == 0, 1, lag[:, 0])
    share = np.arange(_AGES + 1) / _AGES
    age = t[0] + (t[-1] - t[0]) * np.stack([share[:-1], share[1:]], axis=1)
    return cells, np.minimum(lag, n - 1) * mean, age


class Structure(eqx.Module):
    """What the residuals of one angle leave in its cells.

    Columns are those of the fit (coordinates, contrast, offset), then one for each cell.

    - `sums`: Σ of √w ψ(√w r) in each cell, r being fitted minus measured c2; `weight`: Σ w there.
    - `scores`: Σ of √w ψ(√w r) J of the columns of the fit.
    - `gram`: Σ w J Jᵀ of all columns.
    - `shared`: N times the covariance of Σ w r J but for what each pair has by itself, which is
        `own` times `gram`; `gaussian`: of all, of Gaussian intensities of the same mean variance.
    - `step`: frames in the blocks that cells are made of.
    """

    sums: Float[Array, "*angle cell"]
    weight: Float[Array, "*angle cell"]
    scores: Float[Array, "*angle column"]
    gram: Float[Array, "*angle column column"]
    shared: Float[Array, "*angle column column"]
    gaussian: Float[Array, "*angle column column"]
    own: Float[Array, "*angle"]
    step: int = eqx.field(static=True)


class MapInBlocks(eqx.Module):
    """Sums of one map over the pairs of two blocks of frames, upper triangle.

    - `columns`: Σ w ∂c2, the last being Σ w; `residual`: Σ √w ψ(√w r).
    - `field`: correlation of the field of blocks; `length`: frames in a block, `pool` in most.
    """

    columns: Float[Array, "column block block"]
    residual: Float[Array, "block block"]
    field: Inexact[Array, "block block"]
    length: Float[Array, "block"]
    pool: int = eqx.field(static=True)


def structure_of(
    blocks: MapInBlocks,
    scores: Float[Array, "column"],
    gram: Float[Array, "column column"],
    contrast: Float[Array, ""],
    shot: Float[Array, ""],
    ratio: Float[Array, ""],
    exists: Bool[Array, ""],
    beyond: Float[Array, ""],
) -> Structure:
    """Sums over cells with their covariance.

    **Arguments:**

    - `scores`, `gram`: of the columns, as in `Structure`.
    - `ratio`: variance of a weighted residual over that of a residual.
    - `exists`: whether there is a field, without which only Gaussian intensities are counted.
    - `beyond`: mean variance of c2 over that of Gaussian intensities.
    """
    planes = jnp.concatenate([blocks.columns, blocks.residual[None]])
    side = _side(blocks.length.shape[0])
    planes, field, length = coarser(planes, blocks.field, blocks.length, side)
    step = blocks.pool * -(-blocks.length.shape[0] // side)
    cells = cells_of(length.shape[0], step)
    count = jnp.arange(cells.lag.size)[:, None, None]
    member = (jnp.asarray(cells.place) == count).astype(planes.dtype)
    flat = member.reshape(member.shape[0], -1)
    in_cells = flat @ planes.reshape(planes.shape[0], -1).T
    columns, sums, weight = planes[:-1], in_cells[:, -1], in_cells[:, -2]
    cross = in_cells[:, :-1]
    whole_gram = jnp.block([[gram, cross.T], [cross, jnp.diag(weight)]])
    size = jnp.sqrt(jnp.diagonal(whole_gram))
    size = jnp.where(size > 0, size, 1.0)
    whole = jnp.concatenate([columns, member * columns[-1]]) / size[:, None, None]
    shared = _shared(whole.astype(jnp.float32), field, length, contrast, shot, exists)
    shared, gaussian = (one.astype(size.dtype) * jnp.outer(size, size) for one in shared)
    own = (contrast + shot) ** 2 * ratio
    gaussian = beyond * (gaussian + own * whole_gram)
    return Structure(sums, weight, scores, whole_gram, shared, gaussian, own, step)


def pair_powers(
    blocks: MapInBlocks, contrast: Float[Array, ""], shot: Float[Array, ""]
) -> tuple[Float[Array, "4"], Float[Array, "4"], Float[Array, ""]]:
    """Σ λᵐ and Σ μᵐ for m = 1 to 4: eigenvalues of the noise of all pairs, and of K.

    And Σ K² over pairs of frames of which both are later than a third, over that of equal frames.

    λ is of the covariance of Gaussian intensities, K_ik K_jl + K_il K_jk, in units of what a frame
    has with itself: K = (contrast·|c1|² + s·1)/(contrast + s). Of all pairs (i ≤ j) they are
    μ_a μ_b, a ≤ b; leaving out those of a frame with itself takes from Σ tᵐ Σ λᵐ/m the terms of
    tr log(1 + Σ tᵐ hᵐ), hᵐ = Kᵐ∘Kᵐ.
    """
    root, frames = jnp.sqrt(blocks.length), jnp.sum(blocks.length)
    size = jnp.outer(root, root)
    share = contrast / (contrast + shot)
    one = share * jnp.abs(blocks.field) ** 2 * size + (1 - share) * jnp.eye(root.size)
    two = one @ one
    powers = (one, two, two @ one, two @ two)
    # What varies within blocks is alike in every direction.
    rest = frames - root.size
    within = (frames - jnp.trace(one)) / jnp.maximum(rest, 1.0)
    mu = jnp.stack([jnp.trace(m) + rest * within ** (k + 1) for k, m in enumerate(powers)])
    first, second, third, fourth = (m * m / size for m in powers)
    squared = first @ first
    twice = jnp.stack([jnp.sum(m * m) + rest * within ** (2 * k + 2) for k, m in enumerate(powers)])
    alone = (
        jnp.trace(first),
        2 * jnp.trace(second) - jnp.sum(first**2),
        3 * (jnp.trace(third) - jnp.sum(first * second)) + jnp.sum(squared * first),
        4 * (jnp.trace(fourth) - jnp.sum(first * third) + jnp.sum(squared * second))
        - 2 * jnp.sum(second**2)
        - jnp.sum(squared**2),
    )
    place = jnp.cumsum(blocks.length) - 0.5 * blocks.length
    later = jnp.sum(one**2 * jnp.minimum(place[:, None], place)) + 0.5 * rest * frames * within**2
    later = later / jnp.sum(blocks.length * place)
    return 0.5 * (mu**2 + twice) - jnp.stack(alone), mu, later


def _shared(columns, field, length, contrast, shot, exists):
    """N times the covariance of Σ_i≤j J_ij c2_ij of the columns J, but for each pair with itself.

    The whole, and that of Gaussian intensities; in single precision, which is ample for a test.
    """
    columns = columns + jnp.swapaxes(columns, 1, 2)
    single = jnp.complex64 if jnp.iscomplexobj(field) else jnp.float32
    field = field.astype(single)
    length, contrast, shot = (one.astype(jnp.float32) for one in (length, contrast, shot))
    # The mean of |c1|² over a block has each frame with itself in it already.
    signal = contrast * jnp.abs(field) ** 2 + jnp.diag(shot / length)
    turned = columns @ signal
    inverse = 1 / jnp.sqrt(length)
    own = (contrast + shot) * (inverse[:, None] * columns * inverse)
    gaussian = 0.5 * (traces(turned, turned) - traces(own, own))
    beyond = beyond_gaussian(columns, field, length, contrast, shot, _CYCLE_SIDE)
    whole = gaussian + jnp.where(exists, beyond, 0.0)
    return 0.5 * (whole + whole.T), 0.5 * (gaussian + gaussian.T)
