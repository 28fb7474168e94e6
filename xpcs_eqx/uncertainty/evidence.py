"""What residuals say of a model, beside what the noise alone would: collected in one pass."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from .dyadic import ResidualSums
from .local_noise import INDEPENDENT, ExpectedNoise, LocalSums, beside, neighbours
from .structure import MapInBlocks, Structure, pair_powers

# A shot noise is believed while the noise of neighbours that follows from it is that of the map to
# within this many of its errors, and this part of itself.
_ERRORS, _SLACK = 4.0, 0.1
# Squared errors by which white noise has to be nearer than a shot noise that is told.
_DOUBT = 4.0
# Variance of a second difference of white noise over its own: 1 + 4 + 1.
_WHITE = 6.0


class Evidence(eqx.Module):
    """What the residuals of one angle say of the model, and the noise it is to be measured by.

    - `structure`: sums over cells of lag and age.
    - `local_pixels`: number of pixels N from differences of neighbours.
    - `near`, `alike`, `counts`: of which `scatter_of` has the scatter of these and of residuals.
    - `powers`: Σ λᵐ over (Σ λ)ᵐ for m = 2, 3, 4, λ being eigenvalues of the covariance of
        residuals, for Gaussian intensities.
    - `common`: part of the scatter of residuals that white noise has; `unknown`: what N may be off
        by, as a part of it, where no raw diagonal tells the shot noise.
    - `by_frame`: sum of the residuals of each frame, and the pairs in it; `steps`: variance of a
        second difference of the sums of frames, up to a factor.
    - `nearest`: largest |c1|² of neighbouring frames; `farthest`: of the first and the last.
    - `decay`: |c1|² of the block of frames with most pairs and all others; `decay_columns`,
        `decay_weight`: Σ w ∂c2 by the coordinates, and Σ w, over their pairs.
    - `variance`: mean of N Var(c2) over the pairs; `square`: Σ of squared residuals of c2.
    """

    structure: Structure
    local_pixels: Float[Array, "*angle"]
    near: Float[Array, "*angle step"]
    alike: Float[Array, "*angle 4"]
    counts: Float[Array, "*angle 2"]
    powers: Float[Array, "*angle 3"]
    common: Float[Array, "*angle"]
    unknown: Float[Array, "*angle"]
    by_frame: Float[Array, "*angle 2 frame"]
    steps: Float[Array, "*angle step"]
    nearest: Float[Array, "*angle"]
    farthest: Float[Array, "*angle"]
    decay: Float[Array, "*angle block"]
    decay_columns: Float[Array, "*angle column block"]
    decay_weight: Float[Array, "*angle block"]
    variance: Float[Array, "*angle"]
    square: Float[Array, "*angle"]


def alike_of(n: int, signal: Float[Array, ""], k: Float[Array, ""]) -> Float[Array, ""]:
    """How many residuals are worth one, for those that share one of n frames are alike.

    `signal`: mean of K² over the pairs; `k`: that of a frame with itself.
    """
    return 1 + n * signal / k**2


def agree(
    local: LocalSums,
    expected: ExpectedNoise,
    shot: Float[Array, ""],
    alike: Float[Array, ""],
) -> Bool[Array, ""]:
    """Whether differences of neighbours show the noise of a shot noise, no less than white noise.

    `alike`: how many residuals that share a frame are worth one.
    """
    ratio, m_two = local.ratio, local.two[1]
    first, second = expected.at(shot)
    # Less than no noise, of a level far below none, agrees with nothing.
    away = jnp.abs(jnp.log(second) - jnp.log(first) - jnp.log(ratio))
    from_white = jnp.abs(jnp.log(_WHITE / ratio))
    scatter = jnp.sqrt(2 * alike / (INDEPENDENT * m_two))
    return (away < _ERRORS * scatter + _SLACK) & (away < from_white + _SLACK)


def rather_white(
    local: LocalSums,
    expected: ExpectedNoise,
    shot: Float[Array, ""],
    alike: Float[Array, ""],
    found: Float[Array, ""],
    mean: Float[Array, ""],
) -> Bool[Array, ""]:
    """Whether differences and residuals show white noise, and not that of a shot noise.

    Neighbours of a map that decays within a few frames have so little in common that differences
    alone do not tell; but residuals scatter no less than the noise does.

    - `found`: variance of residuals; `mean`: N Var(c2) of the shot noise; `alike` as in `agree`.
    """
    (one, m), (_, m_two) = local.one, local.two
    ratio = jnp.log(local.ratio)
    first, second = expected.at(shot)

    def distance(expected_ratio, near, alike):
        """Squared, in errors; a misfit makes residuals larger."""
        scatter = 2 * alike / INDEPENDENT
        less = jnp.minimum(jnp.log(found / near), 0.0)
        return (expected_ratio - ratio) ** 2 / (scatter / m_two) + less**2 / (scatter / m)

    speckle = distance(jnp.log(second / first), one / m * mean / first, alike)
    white = distance(jnp.log(_WHITE), one / m / _WHITE, 1.0)
    return speckle > white + _DOUBT


def tested_shot(
    local: LocalSums,
    expected: ExpectedNoise,
    n: int,
    contrast: Float[Array, ""],
    signal: Float[Array, ""],
    shots: tuple[Float[Array, ""], Float[Array, ""]],
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Shot noise by which a model of n frames is tested, and whether it is that of the diagonal.

    That of the raw diagonal, else that of residuals which share a frame, unless differences of
    neighbours say that the noise is of another kind: then it is theirs.

    `shots` are those from the raw diagonal (NaN without) and from residuals; `signal` is the mean
    of K².
    """

    def fits(shot):
        return agree(local, expected, shot, alike_of(n, signal, contrast + shot))

    from_diagonal, from_residuals = shots
    elsewhere = expected.shot_of(local.ratio, contrast)
    shot = jnp.where(fits(from_residuals), from_residuals, elsewhere)
    told = fits(from_diagonal)
    shot = jnp.where(told, from_diagonal, shot)
    # White noise without signal has any size.
    return jnp.where(contrast + shot == 0, 1.0 - contrast, shot), told


def evidence_of(
    blocks: MapInBlocks,
    structure: Structure,
    local: LocalSums,
    residuals: ResidualSums,
    near: Inexact[Array, "near near"],
    expected: ExpectedNoise,
    contrast: Float[Array, ""],
    tested: tuple[Float[Array, ""], Bool[Array, ""]],
    variance: Float[Array, ""],
    signal: Float[Array, ""],
    by_frame: Float[Array, "2 frame"],
    square: Float[Array, ""],
) -> Evidence:
    """What a test of the model needs, with a noise that no misfit has made larger.

    **Arguments:**

    - `near`: field correlation of `near_frames`; `expected`: what follows from it.
    - `tested`: of `tested_shot`; `variance`: mean of N Var(c2) with it; `signal`: mean of K².
    - `structure`, `by_frame`, `square`: as in `Evidence`.
    """
    n, count, (shot, told) = by_frame.shape[1], residuals.influence.count, tested
    one, m = local.one
    k = contrast + shot
    alike = alike_of(n, signal, k)
    noise, mu, later = pair_powers(blocks, contrast, shot)
    step = beside(near, n)
    power = np.array([2, 3, 4])
    # Of all pairs; fewer have as much in common.
    fewer = jnp.maximum(0.5 * n * (n - 1) / count, 1.0) ** (power - 1)
    one_on, two_on = neighbours(near, n)
    first, _ = expected.at(shot)
    # White noise, which a shot noise from residuals never reaches, is the farthest it can be from.
    white = jnp.abs(jnp.log(_WHITE * variance / first))
    weights = blocks.columns[-1] + blocks.columns[-1].T
    row = jnp.argmax(jnp.sum(weights, axis=1))
    columns = blocks.columns[:-2, row] + blocks.columns[:-2, :, row]
    correlation = jnp.abs(blocks.field) ** 2
    return Evidence(
        structure=structure,
        local_pixels=first / (one / m),
        near=jnp.where(np.arange(step.size) == 0, 1.0, contrast / k * step),
        alike=jnp.append(mu[1:] / mu[0] ** power * n ** (power - 1), later),
        counts=jnp.stack([m, count]),
        powers=noise[1:] / noise[0] ** power * fewer,
        common=shot / k / alike,
        unknown=jnp.where(told, 0.0, white),
        by_frame=by_frame,
        steps=6 * k - contrast * (4 * (one_on[:-1] + one_on[1:]) - 2 * two_on),
        nearest=jnp.max(one_on),
        farthest=correlation[0, -1],
        decay=correlation[row],
        decay_columns=columns,
        decay_weight=weights[row],
        variance=variance,
        square=square,
    )
