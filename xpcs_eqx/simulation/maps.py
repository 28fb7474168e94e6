"""Simulated maps: a surface with independent noise, or speckle patterns with the true one."""

from math import ceil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, Key

from ..arguments import checked
from ..data import Geometry, Provenance, TwoTimeData
from ..errors import ModelError
from ..physics import AbstractCorrelation, correlation_map, field_correlation, field_factor
from ..physics.field import FIELD_TOLERANCE

_NO_FIELD = (
    "no Gaussian field has the field correlation of this model: |c1|² would be off by more than "
    f"{FIELD_TOLERANCE}. Where the field changes sign or is complex, register it with "
    "`xpcs_eqx.physics.field_correlation.register`."
)
# With a mean of 50 counts in a frame, one frame in 1e21 stays dark and has no mean to divide by.
_COUNTS_PER_FRAME = 50


def _by_angle(name: str, value, n_angles: int) -> Float[Array, "angle"]:
    """A number or one value for each angle, as an array `(angle,)`.

    **Raises:** `ModelError` when the length is another one.
    """
    value = jnp.asarray(value, dtype=float)
    if value.shape not in ((), (1,), (n_angles,)):
        raise ModelError(
            f"{name} has shape {value.shape} but there are {n_angles} angles; give one number or "
            "one for each angle."
        )
    return jnp.broadcast_to(value, (n_angles,))


def _check_times(t) -> Float[Array, "frame"]:
    """Frame times as an array.

    **Raises:** `ModelError` when there are fewer than two.
    """
    if np.ndim(t) != 1 or np.shape(t)[0] < 2:
        raise ModelError(
            f"t has shape {np.shape(t)}; a two-time map needs the times [s] of at least two frames."
        )
    return jnp.asarray(t, dtype=float)


def _simulated(
    c2: Float[Array, "angle frame frame"], t: Float[Array, "frame"], geometry: Geometry, note: str
) -> TwoTimeData:
    """Maps with their raw diagonal as data without weights, `note` being their provenance."""
    return TwoTimeData(
        c2=c2,
        t=t,
        geometry=jax.tree.map(jnp.asarray, geometry),
        root_weights=None,
        diagonal=jnp.diagonal(c2, axis1=1, axis2=2),
        provenance=Provenance(layout="simulation", frames=(1, t.shape[0]), notes=(note,)),
    )


@checked()
def simulate(
    model: AbstractCorrelation,
    t: Float[Array | np.ndarray, "frame"],
    geometry: Geometry,
    contrast: Float[Array, "*angle"] | float,
    offset: Float[Array, "*angle"] | float = 1.0,
    *,
    noise: Float[Array, "*angle"] | float,
    key: Key[Array, ""],
) -> TwoTimeData:
    """Simulate the maps of a model, with independent Gaussian noise.

    c2 is offset + contrast · |c1|², with one draw of noise for each unordered pair.

    The maps are symmetric. Their diagonal is offset + contrast with noise: what a detector without
    shot noise records. No weights are attached, so that a fit has to estimate the noise as it does
    for a measurement. Can be transformed by `jax.jit`, `jax.vmap` (over keys, parameters, noise)
    and differentiated.

    **Arguments:**

    - `model`: |c1|².
    - `t`: frame times [s].
    - `geometry`: q [1/Å], azimuths [degrees], gap [Å].
    - `contrast`, `offset`: one number or one for each angle.
    - `noise`: standard deviation of c2, one number or one for each angle; 0 gives the bare surface.
    - `key`: key of `jax.random`.

    **Raises:** `ModelError` when contrast, offset or noise do not fit the number of angles.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> model = xe.Static(xe.PowerLawRate(1e4, -0.2, 0.0))
    >>> geometry = xe.Geometry(0.0054, np.array([0.0]))
    >>> key = jax.random.key(0)
    >>> data = xe.simulate(model, 0.1 * np.arange(5), geometry, 0.2, noise=0.01, key=key)
    >>> data.c2.shape, data.n_pairs
    ((1, 5, 5), 10)
    """
    t = _check_times(t)
    n = geometry.n_angles
    contrast, offset, noise = (
        _by_angle(name, value, n)[:, None, None]
        for name, value in (("contrast", contrast), ("offset", offset), ("noise", noise))
    )
    surface = offset + contrast * correlation_map(model, t, geometry)
    draw = jax.random.normal(key, surface.shape, surface.dtype)
    draw = jnp.triu(draw) + jnp.swapaxes(jnp.triu(draw, 1), 1, 2)
    c2 = surface + noise * draw
    return _simulated(
        c2, t, geometry, f"Simulated from {type(model).__name__}, independent Gaussian noise."
    )


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


def correlated(intensity: Float[Array, "frame pixel"]) -> Float[Array, "frame frame"]:
    """⟨I1 I2⟩ / (⟨I1⟩⟨I2⟩), averages over pixels, exactly symmetric."""
    n_pixels = intensity.shape[1]
    # fluctuations first: the products then need no more digits than the noise has
    fluctuation = intensity / jnp.mean(intensity, axis=1, keepdims=True) - 1
    product = jnp.matmul(fluctuation, fluctuation.T, precision=jax.lax.Precision.HIGHEST)
    product = product.astype(float) / n_pixels
    return 1 + 0.5 * (product + product.T)


def _intensity(factor, weights, n_pixels, key) -> Float[Array, "frame pixel"]:
    """Intensity of mean one of `n_pixels` pixels from modes that all have the field F z."""
    n_frames, dtype = factor.shape[0], factor.real.dtype

    def add(total, mode):
        weight, mode_key = mode
        # Standard circular Gaussian numbers: both parts have a variance of one half.
        normal = jax.random.normal(mode_key, (2, n_frames, n_pixels), dtype)
        real, imaginary = normal * jnp.asarray(0.5**0.5, dtype)
        if jnp.iscomplexobj(factor):
            field = factor @ (real + 1j * imaginary)
            size = field.real**2 + field.imag**2
        else:
            size = (factor @ real) ** 2 + (factor @ imaginary) ** 2
        return total + weight * size, None

    start = jnp.zeros((n_frames, n_pixels), dtype)
    keys = jax.random.split(key, weights.shape[0])
    return jax.lax.scan(add, start, (weights.astype(dtype), keys))[0]


def speckle_pixels(
    factor: Inexact[Array, "frame mode"],
    weights: Float[Array, "coherent"],
    mean_counts: Float[Array, ""] | None,
    n_pixels: int,
    key: Key[Array, ""],
) -> Float[Array, "frame pixel"]:
    """Intensities of independent pixels, of mean one, or their photon counts.

    - `factor`: F with F F† the field correlation, from `physics.field_factor`; its precision is
        that of the intensities.
    - `weights`: of coherent modes, from `mode_weights`.
    - `mean_counts`: mean number of photons; `None` for intensities without photon noise.
    """
    field_key, count_key = jax.random.split(key)
    intensity = _intensity(factor, weights, n_pixels, field_key)
    if mean_counts is None:
        return intensity
    counted = jax.random.poisson(count_key, intensity * mean_counts.astype(intensity.dtype))
    return counted.astype(intensity.dtype)


@checked()
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
    t = _check_times(t)
    n = geometry.n_angles
    with jax.ensure_compile_time_eval():
        contrast = np.asarray(_by_angle("contrast", contrast, n))
        if mean_counts is not None:
            mean_counts = np.asarray(_by_angle("mean_counts", mean_counts, n))
    if n_pixels < 2:
        raise ModelError(f"n_pixels is {n_pixels}; an average over pixels needs at least two.")
    if mean_counts is not None and not np.all(mean_counts * n_pixels >= _COUNTS_PER_FRAME):
        raise ModelError(
            f"{n_pixels} pixels with {np.min(mean_counts):g} counts each leave frames without a "
            f"single photon; make n_pixels × mean_counts at least {_COUNTS_PER_FRAME}."
        )
    factor, error = field_factor(field_correlation(model, t, geometry))
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
        counts = None if mean_counts is None else counts
        return correlated(speckle_pixels(factor, weights, counts, n_pixels, key))

    counts = jnp.ones(n) if mean_counts is None else jnp.asarray(mean_counts)
    angles = (factor.astype(single), weights, counts, jax.random.split(key, n))
    c2 = jax.lax.map(one_angle, angles)
    shot = "no shot noise" if mean_counts is None else "Poisson counts"
    note = f"Simulated speckle of {type(model).__name__}, {n_pixels} pixels an angle, {shot}."
    return _simulated(c2, t, geometry, note)
