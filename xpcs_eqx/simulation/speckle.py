"""Speckle patterns pixel by pixel, correlated as an instrument does: the true noise of a map."""

from math import ceil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, Key

from ..data import Geometry, TwoTimeData
from ..errors import ModelError
from ..physics import AbstractCorrelation, field_correlation, field_factor
from ..physics.field import FIELD_TOLERANCE
from .surface import by_angle, check_times, simulated

_NO_FIELD = (
    "no Gaussian field has the field correlation of this model: |c1|² would be off by more than "
    f"{FIELD_TOLERANCE}. Where the field changes sign or is complex, register it with "
    "`xpcs_eqx.physics.field_correlation.register`."
)
# With a mean of 50 counts in a frame, one frame in 1e21 stays dark and has no mean to divide by.
_COUNTS_PER_FRAME = 50


def mode_weights(contrast: float) -> Float[np.ndarray, "mode"]:
    """Weights w of independent coherent modes with Σ w = 1 and Σ w² = contrast.

    As few modes as can be, ⌈1/contrast⌉, all equal but the last, which is weaker unless 1/contrast
    is an integer.

    **Raises:** `ModelError` when the contrast is not above 0 and at most 1.
    """
    if not 0 < contrast <= 1:
        raise ModelError(
            f"contrast is {contrast:g}; speckle has a contrast above 0 and at most 1, the inverse "
            "of the number of coherent modes."
        )
    # rounding of 1/contrast must not add a mode of weight zero
    n = max(ceil(1 / contrast - 1e-9) - 1, 0)
    if n == 0:
        return np.ones(1)
    root = np.sqrt(max(1 - (n + 1) * (1 - contrast) / n, 0.0))
    equal = (1 + root) / (n + 1)
    return np.array([equal] * n + [max(1 - n * equal, 0.0)])


def _correlate(intensity: Float[Array, "frame pixel"]) -> Float[Array, "frame frame"]:
    """⟨I1 I2⟩ / (⟨I1⟩⟨I2⟩), averages over pixels, exactly symmetric."""
    n_pixels = intensity.shape[1]
    # fluctuations first: the products then need no more digits than the noise has
    fluctuation = intensity / jnp.mean(intensity, axis=1, keepdims=True) - 1
    product = jnp.matmul(fluctuation, fluctuation.T, precision=jax.lax.Precision.HIGHEST)
    product = product.astype(float) / n_pixels
    return 1 + 0.5 * (product + product.T)


def _normal(key, shape, dtype):
    """Standard circular Gaussian numbers, real and imaginary part, each of variance one half."""
    return jax.random.normal(key, (2, *shape), dtype) * jnp.asarray(0.5**0.5, dtype)


def _intensity(factor, weights, n_pixels, key) -> Float[Array, "frame pixel"]:
    """Intensity of mean one of `n_pixels` pixels from modes that all have the field F z."""
    n_frames = factor.shape[0]

    def add(total, mode):
        weight, mode_key = mode
        real, imaginary = _normal(mode_key, (n_frames, n_pixels), factor.real.dtype)
        if jnp.iscomplexobj(factor):
            field = factor @ (real + 1j * imaginary)
            size = field.real**2 + field.imag**2
        else:
            size = (factor @ real) ** 2 + (factor @ imaginary) ** 2
        return total + weight * size, None

    start = jnp.zeros((n_frames, n_pixels), factor.real.dtype)
    keys = jax.random.split(key, weights.shape[0])
    return jax.lax.scan(add, start, (weights.astype(start.dtype), keys))[0]


def correlate_speckle(
    c1: Inexact[Array, "angle frame frame"],
    contrast: Float[np.ndarray, "angle"],
    *,
    n_pixels: int,
    mean_counts: Float[np.ndarray, "angle"] | None,
    key: Key[Array, ""],
) -> Float[Array, "angle frame frame"]:
    """c2 with its raw diagonal, from fields with the correlation `c1`.

    Arguments and errors as in `simulate_speckle`.
    """
    factor, error = field_factor(c1)
    if isinstance(error, Tracer):
        factor = eqx.error_if(factor, ~(error < FIELD_TOLERANCE), _NO_FIELD)
    elif not error < FIELD_TOLERANCE:
        raise ModelError(_NO_FIELD)
    weights = [mode_weights(float(one)) for one in contrast]
    n_modes = max(len(one) for one in weights)
    weights = jnp.asarray([np.pad(one, (0, n_modes - len(one))) for one in weights])
    # Single precision is far below the speckle noise, and twice as fast.
    single = jnp.complex64 if jnp.iscomplexobj(factor) else jnp.float32

    def one_angle(inputs):
        factor, weights, counts, key = inputs
        field_key, count_key = jax.random.split(key)
        intensity = _intensity(factor, weights, n_pixels, field_key)
        if mean_counts is not None:
            counted = jax.random.poisson(count_key, intensity * counts.astype(intensity.dtype))
            intensity = counted.astype(intensity.dtype)
        return _correlate(intensity)

    counts = jnp.ones(c1.shape[0]) if mean_counts is None else jnp.asarray(mean_counts)
    keys = jax.random.split(key, c1.shape[0])
    return jax.lax.map(one_angle, (factor.astype(single), weights, counts, keys))


def simulate_speckle(
    model: AbstractCorrelation,
    t: Float[Array | np.ndarray, "frame"],
    geometry: Geometry,
    contrast: Float[np.ndarray, "*angle"] | float,
    *,
    n_pixels: int,
    mean_counts: Float[np.ndarray, "*angle"] | float | None = None,
    key: Key[Array, ""],
) -> TwoTimeData:
    """A two-time map from simulated speckle patterns, with the noise that correlators really give.

    Every pixel carries ⌈1/contrast⌉ coherent modes; the field of each is complex Gaussian with the
    model's temporal correlation c1 (`field_correlation`). Intensities become Poisson counts,
    counts become c2 = ⟨I1 I2⟩/(⟨I1⟩⟨I2⟩), averaged over the pixels. With N pixels, mean count k̄
    and K = contrast · |c1|² + δ/k̄ the entries have Var c2(1, 2) ≈ K11 K22/N, and entries that
    share a frame are correlated: Cov[c2(1, 2), c2(3, 4)] ≈ (K13 K24 + K14 K23)/N.

    Dividing each frame by its own mean takes the fluctuation of the total intensity out of c2.
    Frames without correlation keep a mean c2 of exactly 1; the contrast comes out smaller by a
    factor 1 − O(1/N), far below the noise of one entry, which is of order N^(−1/2).

    Can be transformed by `jax.jit` and `jax.vmap` over `key`, `t`, the model and the geometry.
    `contrast`, `n_pixels` and `mean_counts` decide what is computed and must be plain numbers.

    **Arguments:**

    - `model`: |c1|².
    - `t`: frame times [s].
    - `geometry`: q [1/Å], azimuths [degrees], gap [Å].
    - `contrast`: above 0 and at most 1, one number or one for each angle. The offset is 1.
    - `n_pixels`: number of independent pixels averaged at each angle.
    - `mean_counts`: mean count in a pixel and frame, one number or one for each angle; `None` for
        no shot noise.
    - `key`: key of `jax.random`.

    **Raises:** `ModelError` for a contrast outside (0, 1], fewer than two pixels, or so few counts
    that frames stay dark, or when no Gaussian field has the model's correlation (under `jax.jit`
    the last is the runtime error of Equinox).
    """
    t = check_times(t)
    n = geometry.n_angles
    with jax.ensure_compile_time_eval():
        contrast = np.asarray(by_angle("contrast", contrast, n))
        if mean_counts is not None:
            mean_counts = np.asarray(by_angle("mean_counts", mean_counts, n))
    if n_pixels < 2:
        raise ModelError(f"n_pixels is {n_pixels}; an average over pixels needs at least two.")
    if mean_counts is not None and not np.all(mean_counts * n_pixels >= _COUNTS_PER_FRAME):
        raise ModelError(
            f"{n_pixels} pixels with {np.min(mean_counts):g} counts each leave frames without a "
            f"single photon; make n_pixels × mean_counts at least {_COUNTS_PER_FRAME}."
        )
    c1 = field_correlation(model, t, geometry)
    c2 = correlate_speckle(c1, contrast, n_pixels=n_pixels, mean_counts=mean_counts, key=key)
    shot = "no shot noise" if mean_counts is None else "Poisson counts"
    note = f"Simulated speckle of {type(model).__name__}, {n_pixels} pixels an angle, {shot}."
    return simulated(c2, t, geometry, note)
