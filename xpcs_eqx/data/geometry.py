"""Where a two-time map was measured: scattering vector, azimuths, gap of the shear cell."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from ..errors import DataError

DEFAULT_GAP = 2_000_000.0
"""Gap of the shear cell [Å] when nothing is given (200 µm)."""


def _as_array(value: Any) -> Any:
    """Python numbers and lists become float64 arrays; arrays and tracers stay what they are."""
    if isinstance(value, jax.Array):
        return value
    array = np.asarray(value)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


class Geometry(eqx.Module):
    """Scattering geometry of one map stack; every field is an array, so gradients reach them.

    - `q`: magnitude of the scattering vector [1/Å], scalar.
    - `phi`: azimuth of q of each map [degrees], `(angle,)`; duplicates are legal.
    - `gap`: gap of the shear cell [Å], scalar.

    Values are not checked here, so that the class can be built under `jax.jit`; the readers and
    `from_dict` check them.

    >>> import xpcs_eqx as xe
    >>> geometry = xe.Geometry(q=0.0054, phi=[0, 45, 90])
    >>> geometry
    Geometry(q=f64[](numpy), phi=f64[3](numpy), gap=f64[](numpy))
    >>> geometry.n_angles, float(geometry.gap)
    (3, 2000000.0)
    """

    q: Float[np.ndarray | jax.Array, ""] = eqx.field(converter=_as_array)
    phi: Float[np.ndarray | jax.Array, " angle"] = eqx.field(converter=_as_array)
    gap: Float[np.ndarray | jax.Array, ""] = eqx.field(converter=_as_array, default=DEFAULT_GAP)

    def __check_init__(self) -> None:
        if np.ndim(self.phi) != 1:
            raise DataError(
                f"phi has shape {np.shape(self.phi)}; give one azimuth [degrees] per map, "
                "a one-dimensional array."
            )
        if np.ndim(self.q) != 0 or np.ndim(self.gap) != 0:
            raise DataError(
                f"q has shape {np.shape(self.q)} and gap {np.shape(self.gap)}; both are single "
                "numbers. Fit several q jointly with one data set for each."
            )

    @property
    def n_angles(self) -> int:
        """Number of azimuths."""
        return self.phi.shape[0]
