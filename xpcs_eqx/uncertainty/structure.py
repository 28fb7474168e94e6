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

from .speckle_noise import beyond_gaussian

# Steps of lag and of age, and blocks of frames along a map for the products of matrices.
_LAGS, _AGES = 8, 6
_SIDE = 128
# Blocks in the smoothest sum over four frames, which costs their number to the fourth.
_CYCLE_SIDE = 24


def side_of_blocks(n: int, pooled_side: int = 256) -> int:
    """Frames in a block of a map of `n` frames whose columns come in at most `pooled_side`."""
    pool = -(-n // pooled_side)
    blocks = -(-n // pool)
    return pool * -(-blocks // _SIDE)


class Cells(NamedTuple):
    """Cells of the pairs of blocks of a map.

    - `lag`, `age`: of each cell, counted from zero; `edges`: lags [blocks] at which steps begin.
    - `place`: number of the cell of a pair of blocks (first ≤ second), −1 where it is in none.
    """

    lag: Int[np.ndarray, "cell"]
    age: Int[np.ndarray, "cell"]
    edges: Int[np.ndarray, "edge"]
    place: Int[np.ndarray, "block block"]


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


def cells_of_map(
    t: Float[np.ndarray, "frame"],
) -> tuple[Cells, Float[np.ndarray, "lag 2"], Float[np.ndarray, "age 2"]]:
    """The cells of a map with the frame times `t` [s], and the limits [s] of its lags and ages."""
    n = t.size
    step = side_of_blocks(n)
    blocks = -(-n // step)
    cells = cells_of(blocks, step)
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
    - `gram`: Σ w J Jᵀ of all columns.
    - `shared`: N times the covariance of Σ w r J but for what each pair has by itself, which is
        `own` times `gram`.
    """

    sums: Float[Array, "*angle cell"]
    weight: Float[Array, "*angle cell"]
    gram: Float[Array, "*angle column column"]
    shared: Float[Array, "*angle column column"]
    own: Float[Array, "*angle"]


def _joined(planes, field, length, step: int):
    """Planes and field with `step` blocks taken together, and the length of those."""
    if step == 1:
        return planes, field, length
    blocks = -(-length.shape[0] // step)
    place = np.arange(length.shape[0])[:, None] // step == np.arange(blocks)
    place = jnp.asarray(place, planes.dtype)
    weight = place * length[:, None]
    mean = (weight / jnp.sum(weight, axis=0)).astype(field.dtype)
    return place.T @ planes @ place, mean.T @ field @ mean, jnp.sum(weight, axis=0)


def structure_of(
    columns: Float[Array, "column block block"],
    residual: Float[Array, "block block"],
    gram: Float[Array, "column column"],
    field: Inexact[Array, "block block"],
    length: Float[Array, "block"],
    contrast: Float[Array, ""],
    shot: Float[Array, ""],
    ratio: Float[Array, ""],
    exists: Bool[Array, ""],
    pool: int,
) -> Structure:
    """Sums over cells with their covariance.

    **Arguments:**

    - `columns`: Σ w ∂c2 over the pairs of two blocks, upper triangle, the last being Σ w.
    - `residual`: Σ of √w ψ(√w r), likewise; `gram`: Σ w J Jᵀ of the columns.
    - `field`, `length`: correlation of the field of blocks, and the frames in them.
    - `ratio`: variance of a weighted residual over that of a residual.
    - `exists`: whether there is a field, without which only Gaussian intensities are counted.
    - `pool`: frames in a block.
    """
    planes = jnp.concatenate([columns, residual[None]])
    step = -(-length.shape[0] // _SIDE)
    planes, field, length = _joined(planes, field, length, step)
    n = length.shape[0]
    cells = cells_of(n, pool * step)
    count = jnp.arange(cells.lag.size)[:, None, None]
    member = (jnp.asarray(cells.place) == count).astype(planes.dtype)
    flat = member.reshape(member.shape[0], -1)
    in_cells = flat @ planes.reshape(planes.shape[0], -1).T
    columns, sums, weight = planes[:-1], in_cells[:, -1], in_cells[:, -2]
    cross = in_cells[:, :-1]
    whole_gram = jnp.block([[gram, cross.T], [cross, jnp.diag(weight)]])
    tests = member * columns[-1]
    whole = jnp.concatenate([columns, tests])
    whole = whole + jnp.swapaxes(whole, 1, 2)
    size = jnp.sqrt(jnp.diagonal(whole_gram))
    size = jnp.where(size > 0, size, 1.0)
    shared = _shared(whole / size[:, None, None], field, length, contrast, shot, exists)
    shared = shared.astype(size.dtype) * jnp.outer(size, size)
    return Structure(sums, weight, whole_gram, shared, (contrast + shot) ** 2 * ratio)


def _shared(columns, field, length, contrast, shot, exists):
    """N times the covariance of ½ Σ_ij J_ij c2_ij of the columns J, but for each pair with itself.

    In single precision, which is ample for a test.
    """
    single = jnp.complex64 if jnp.iscomplexobj(field) else jnp.float32
    field = field.astype(single)
    columns, length, contrast, shot = (
        one.astype(jnp.float32) for one in (columns, length, contrast, shot)
    )
    # The mean of |c1|² over a block has each frame with itself in it already.
    alone = shot / length
    signal = contrast * jnp.abs(field) ** 2 + jnp.diag(alone)
    turned = signal @ columns
    left = turned.reshape(turned.shape[0], -1)
    right = jnp.swapaxes(turned, 1, 2).reshape(left.shape)
    inverse = 1 / jnp.sqrt(length)
    own = (contrast + shot) * (inverse[:, None] * columns * inverse).reshape(left.shape)
    gaussian = 0.5 * (left @ right.T - own @ own.T)
    beyond = beyond_gaussian(columns, field, length, contrast, shot, _CYCLE_SIDE)
    whole = gaussian + jnp.where(exists, beyond, 0.0)
    return 0.5 * (whole + whole.T)
