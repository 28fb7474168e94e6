"""A two-time map from a model, with independent Gaussian noise."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..data import Geometry, Provenance, TwoTimeData
from ..errors import ModelError
from ..physics import AbstractCorrelation, correlation_map


def by_angle(name: str, value, n_angles: int) -> Float[Array, "angle"]:
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


def check_times(t) -> Float[Array, "frame"]:
    """Frame times as an array.

    **Raises:** `ModelError` when there are fewer than two.
    """
    if np.ndim(t) != 1 or np.shape(t)[0] < 2:
        raise ModelError(
            f"t has shape {np.shape(t)}; a two-time map needs the times [s] of at least two frames."
        )
    return jnp.asarray(t, dtype=float)


def simulated(
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
    """offset + contrast · |c1|² with independent Gaussian noise, one draw for each unordered pair.

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
    t = check_times(t)
    n = geometry.n_angles
    contrast, offset, noise = (
        by_angle(name, value, n)[:, None, None]
        for name, value in (("contrast", contrast), ("offset", offset), ("noise", noise))
    )
    surface = offset + contrast * correlation_map(model, t, geometry)
    draw = jax.random.normal(key, surface.shape, surface.dtype)
    draw = jnp.triu(draw) + jnp.swapaxes(jnp.triu(draw, 1), 1, 2)
    c2 = surface + noise * draw
    return simulated(
        c2, t, geometry, f"Simulated from {type(model).__name__}, independent Gaussian noise."
    )
