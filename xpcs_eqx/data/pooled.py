"""Two-time correlation given as unstructured points instead of maps."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from ..errors import DataError
from .geometry import Geometry
from .provenance import Provenance


class PooledData(eqx.Module):
    """Points of two-time maps in any order and any number for each angle.

    - `values`: c2 of each point `(point,)`.
    - `first`, `second`: frame indices into `t`, `(point,)`, with first < second.
    - `angle`: index into `geometry.phi`, `(point,)`.
    - `t`: frame times [s], `(frame,)`, strictly increasing.
    - `geometry`: q, azimuths and gap.
    - `root_weights`: 1/sigma `(point,)`, 0 where masked; `None` when all points weigh one.
    - `absolute_sigma`: whether sigma was given by the user.
    - `provenance`: where all of this came from.

    **Raises:** `DataError` when shapes do not belong together.
    """

    values: Float[np.ndarray | jax.Array, " point"]
    first: Int[np.ndarray | jax.Array, " point"]
    second: Int[np.ndarray | jax.Array, " point"]
    angle: Int[np.ndarray | jax.Array, " point"]
    t: Float[np.ndarray | jax.Array, " frame"]
    geometry: Geometry
    root_weights: Float[np.ndarray | jax.Array, " point"] | None = None
    absolute_sigma: bool = eqx.field(static=True, default=False)
    provenance: Provenance = eqx.field(static=True, default=Provenance(layout="pooled"))

    def __check_init__(self) -> None:
        shapes = {
            "values": np.shape(self.values),
            "first": np.shape(self.first),
            "second": np.shape(self.second),
            "angle": np.shape(self.angle),
        }
        if self.root_weights is not None:
            shapes["root_weights"] = np.shape(self.root_weights)
        if len(set(shapes.values())) != 1 or len(shapes["values"]) != 1:
            raise DataError(f"Pooled points need flat arrays of one length, found {shapes}.")
        if np.ndim(self.t) != 1:
            raise DataError(f"t has shape {np.shape(self.t)}; give a flat list of frame times.")

    @property
    def n_angles(self) -> int:
        """Number of distinct azimuths."""
        return self.geometry.phi.shape[0]

    @property
    def n_frames(self) -> int:
        """Number of distinct frame times."""
        return self.t.shape[0]

    @property
    def n_pairs(self) -> int:
        """Number of points with a weight other than zero."""
        if self.root_weights is None:
            return self.values.shape[0]
        return int(np.count_nonzero(np.asarray(self.root_weights)))

    @property
    def masked_pairs(self) -> int:
        """Number of points that count for nothing."""
        return self.values.shape[0] - self.n_pairs

    @property
    def dt(self) -> Float[np.ndarray | jax.Array, ""] | np.floating:
        """Mean time between two frames [s]."""
        return (self.t[-1] - self.t[0]) / (self.n_frames - 1)
