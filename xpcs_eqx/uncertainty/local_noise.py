"""The noise of a map from differences of neighbouring entries, which no smooth misfit enters.

Second differences of residuals along one frame, D1 = r(i−1, j) − 2 r(i, j) + r(i+1, j), and along
both, D2, take out whatever varies slowly over the map: what a wrong model leaves, and the part of
the noise of speckle that neighbours share. What remains of that noise follows from its covariance
(`speckle_noise`), so that the two mean squares tell its size.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int

from .speckle_noise import beyond_gaussian

_SECOND = np.array([1.0, -2.0, 1.0])
# Differences beyond this many standard deviations are outliers; what is left of a normal variable
# within it has the variance _KEPT.
_CUT = 4.0
_KEPT = 0.99893
# Standard deviation of a normal variable over its mean size.
_MEAN_TO_SIGMA = 1.2533141373155003
# The size is taken from all differences first, and then from those that are no outliers to that.
_ROUNDS = 3
# Frames of which the expected noise is looked at: all of a short map, else runs of neighbours.
_FRAMES, _RUN = 96, 4
# Pairs of places at which the expected noise is averaged.
_PLACES = 400
# Shot noise in units of the contrast that is tried; beyond the last it is white noise.
_SHOT = np.concatenate([[0.0], np.geomspace(1e-3, 1e4, 281)])
# Effective number of independent values in a mean square over m differences of white noise; the
# variance of the mean square of second differences along one frame is 1.94 times that of as many
# independent values.
INDEPENDENT = 0.51
# Frames around a difference in which the noise of another has a part in common with its own.
_WIDE = 9


class LocalSums(eqx.Module):
    """Sums of squared second differences that are no outliers, and how many there were.

    - `one`, `two`: along one frame and along both; `weighted`: as `one`, of weighted residuals.
    """

    one: Float[Array, "*angle 2"]
    two: Float[Array, "*angle 2"]
    weighted: Float[Array, "*angle 2"]

    @classmethod
    def zero(cls, dtype) -> "LocalSums":
        """Those of no differences."""
        return cls(*(jnp.zeros(2, dtype),) * 3)

    @property
    def ratio(self) -> Float[Array, "*angle"]:
        """Mean square along both over that along one, by which noise tells what kind it is."""
        (one, m), (two, m_two) = self.one, self.two
        return (two / m_two) / (one / m)


def _second(x, axis):
    n = x.shape[axis]
    before, here, after = (jax.lax.slice_in_dim(x, k, n - 2 + k, axis=axis) for k in range(3))
    return before - 2 * here + after


def _inside(used, axis):
    n = used.shape[axis]
    before, here, after = (jax.lax.slice_in_dim(used, k, n - 2 + k, axis=axis) for k in range(3))
    return before & here & after


def _trimmed(differences, used):
    """Sum of squares without outliers, and their number."""
    size, kept = jnp.abs(differences), used

    def narrower(_, kept):
        mean = jnp.sum(jnp.where(kept, size, 0.0)) / jnp.maximum(jnp.sum(kept), 1)
        return used & (size <= _CUT * _MEAN_TO_SIGMA * mean)

    kept = jax.lax.fori_loop(0, _ROUNDS, narrower, kept)
    square = jnp.sum(jnp.where(kept, size**2, 0.0)) / _KEPT
    return jnp.stack([square, jnp.sum(kept).astype(square.dtype)])


def local_sums(
    raw: Float[Array, "row column"],
    used: Bool[Array, "row column"],
    root_weights: Float[Array, "row column"] | Float[Array, ""],
) -> LocalSums:
    """Differences within a tile of residuals; pairs that are not `used` have no part in them."""
    if min(raw.shape) < 3:
        return LocalSums.zero(raw.dtype)
    # Else XLA makes the residuals again for each of the shifted copies.
    raw = jax.lax.optimization_barrier(raw)
    inside = _inside(used, 0)
    along = _second(raw, 0)
    one = _trimmed(along, inside)
    both = _trimmed(_second(along, 1), _inside(inside, 1))
    if root_weights.ndim == 0:
        return LocalSums(one, both, one * jnp.stack([root_weights**2, jnp.ones_like(one[1])]))
    return LocalSums(one, both, _trimmed(_second(root_weights * raw, 0), inside))


def near_frames(n: int) -> Int[np.ndarray, "near"]:
    """Frames at which the expected noise is looked at: all, or runs of neighbours."""
    if n <= _FRAMES:
        return np.arange(n)
    starts = np.linspace(0, n - _RUN, _FRAMES // _RUN).astype(int)
    return (starts[:, None] + np.arange(_RUN)).ravel()


def neighbours(
    field: Inexact[Array, "near near"], n: int
) -> tuple[Float[Array, "next"], Float[Array, "after"]]:
    """|c1|² of frames one and two apart, from the field correlation of `near_frames`."""
    frames = near_frames(n)

    def apart(step):
        size = jnp.abs(jnp.diagonal(field, step)) ** 2
        real = frames[step:] - frames[:-step] == step
        return jnp.interp(jnp.arange(n - step), jnp.asarray(frames[:-step][real]), size[real])

    return apart(1), apart(2)


def beside(field: Inexact[Array, "near near"], n: int) -> Float[Array, "step"]:
    """Mean |c1|² of frames 0, 1, 2, … apart, continued beyond what `near_frames` have."""
    frames, size, lags = near_frames(n), jnp.abs(field) ** 2, []
    for step in range(_WIDE):
        real = frames[step:] - frames[: max(frames.size - step, 0)] == step
        if real.any():
            lags.append(jnp.mean(jnp.diagonal(size, step)[real]))
        else:
            lags.append(2 * lags[-1] - lags[-2])
    return jnp.stack(lags)


class Scatter(NamedTuple):
    """Cumulants of d, a mean square of differences, and r, that of residuals, each over its mean.

    - `own`: Var d; `shared`: Cov(d, r); `third`: those of ddd, ddr and drr; `fourth`: those of
        dddd, dddr, ddrr and drrr.
    - `along`: correlation of a difference with those one, two and three frames on.
    """

    own: Float[np.ndarray, "angle"]
    shared: Float[np.ndarray, "angle"]
    third: Float[np.ndarray, "3 angle"]
    fourth: Float[np.ndarray, "4 angle"]
    along: Float[np.ndarray, "angle 3"]


def scatter_of(
    near: Float[np.ndarray, "angle step"],
    alike: Float[np.ndarray, "angle 4"],
    counts: Float[np.ndarray, "angle 2"],
    n: int,
) -> Scatter:
    """Scatter of mean squares of differences along one frame, for Gaussian intensities.

    With K the covariance of frames, second differences D, C = DK and A = CDᵀ, differences at (i, j)
    and (k, l) have the covariance A_ik K_jl/N, and C_ik K_jl/N with an entry. A cumulant of m
    quadratic forms of Gaussian values is 2ᵐ⁻¹ (m − 1)! times the trace of the product of their
    matrices (Mathai & Provost, Quadratic Forms in Random Variables, 1992, ch. 3.2), here that of
    what is near i times that of K.

    - `near`: K at a distance, over K of a frame with itself, averaged over the map.
    - `alike`: nᵐ⁻¹ tr Kᵐ/(tr K)ᵐ for m = 2, 3, 4, and the first of these over pairs of frames
        later than another, which is that of two differences; `counts`: of these and of residuals.
    """
    apart = np.abs(np.subtract.outer(np.arange(_WIDE), np.arange(_WIDE)))
    signal, differ, middle = near[:, apart], np.diff(np.eye(_WIDE), 2, axis=0), _WIDE // 2 - 1
    mixed = differ @ signal
    both = mixed @ differ.T
    size = np.maximum(both[:, middle, middle], 1e-12)[:, None, None]
    # A covariance is no larger, which lags that are not known may make it.
    both, mixed = np.clip(both / size, -1.0, 1.0), mixed / np.sqrt(size)
    back = np.swapaxes(mixed, 1, 2)
    square, through = mixed @ back, mixed @ signal @ back
    cubes = both @ both @ both, square @ both, through
    # Of two and two there are more ways around with both beside their like.
    middling = (2 * through @ both + square @ square) / 3
    fourths = both @ cubes[0], square @ both @ both, middling, mixed @ signal @ signal @ back
    third, fourth = (np.stack([m[:, middle, middle] for m in one]) for one in (cubes, fourths))
    # An angle without weight has none, and tells nothing.
    m, count = np.maximum(counts, 1.0).T
    pairs = np.stack([m, count, count, count])
    # A triangle has fewer neighbours than a square.
    there = np.maximum(1 - 2 * apart[middle, : differ.shape[0]] / n, 0.0)
    return Scatter(
        own=2 * both[:, middle] ** 2 @ there * alike[:, 3] / m,
        shared=2 * square[:, middle, middle] * alike[:, 0] / count,
        third=8 * third * alike[:, 1] / pairs[:3] ** 2,
        fourth=48 * fourth * alike[:, 2] / pairs**3,
        along=both[:, middle, middle + 1 :],
    )


def _places(n: int):
    """Centres (i, j) of differences among `near_frames`."""
    if n <= _FRAMES:
        middle, block = np.arange(1, n - 1), 1
        apart = 3
    else:
        middle, block = np.arange(_FRAMES).reshape(-1, _RUN)[:, 1:-1].ravel(), _RUN
        apart = 1
    i, j = np.meshgrid(middle, middle, indexing="ij")
    fits = j // block - i // block >= apart
    step = max(1, np.count_nonzero(fits) // _PLACES)
    return i[fits][::step], j[fits][::step]


def _symmetric(pattern):
    rows, columns = pattern.shape
    whole = np.zeros((rows + columns, rows + columns))
    whole[:rows, rows:] = pattern
    return whole + whole.T


# The two differences as patterns over the frames (i − 1, i, i + 1, j − 1, j, j + 1).
_PATTERNS = np.stack(
    [_symmetric(np.outer(_SECOND, other)) for other in (np.array([0.0, 1.0, 0.0]), _SECOND)]
)


class ExpectedNoise(eqx.Module):
    """N times the mean squares of the two differences, as coefficients of 1, s and s²."""

    one: Float[Array, "*angle 3"]
    two: Float[Array, "*angle 3"]

    def at(self, shot: Float[Array, "..."]) -> tuple[Array, Array]:
        """The two mean squares, times N, at a shot noise s."""
        powers = jnp.asarray(shot)[..., None] ** jnp.arange(3)
        return powers @ self.one, powers @ self.two

    def shot_of(self, ratio: Float[Array, ""], contrast: Float[Array, ""]) -> Float[Array, ""]:
        """The shot noise at which the second mean square over the first is `ratio`."""
        tried = jnp.maximum(contrast, 1e-6) * _SHOT
        one, two = self.at(tried)
        return tried[jnp.argmin(jnp.abs(two / one - ratio))]


def expected_noise(
    field: Inexact[Array, "near near"],
    n: int,
    contrast: Float[Array, ""],
    exists: Bool[Array, ""] | bool,
) -> ExpectedNoise:
    """What speckle with the field correlation of `near_frames` leaves of a difference.

    Without a field (`exists` false) only the part of Gaussian intensities is counted.
    """
    patterns = jnp.asarray(_PATTERNS, contrast.dtype)
    ones = jnp.ones(6, contrast.dtype)
    around = jnp.arange(-1, 2)

    def variance(local, shot):
        """N Var of both differences."""
        signal = contrast * jnp.abs(local) ** 2 + shot * jnp.eye(6)
        turned = signal @ patterns
        gaussian = 0.5 * jnp.sum(turned * jnp.swapaxes(turned, 1, 2), axis=(1, 2))
        rest = jnp.diagonal(beyond_gaussian(patterns, local, ones, contrast, shot))
        return gaussian + jnp.where(exists, rest, 0.0)

    def at(i, j):
        frames = jnp.concatenate([i + around, j + around])
        local = field[frames][:, frames]
        return jax.vmap(lambda shot: variance(local, shot))(jnp.arange(3.0))

    f0, f1, f2 = jnp.mean(jax.vmap(at)(*(jnp.asarray(k) for k in _places(n))), axis=0)
    square = 0.5 * (f2 - 2 * f1 + f0)
    one, two = jnp.stack([f0, f1 - f0 - square, square], axis=1)
    return ExpectedNoise(one, two)
