"""Two-time maps in memory: every unordered pair of frames once, the diagonal apart."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from ..errors import DataError
from .geometry import Geometry
from .provenance import Provenance


class TwoTimeData(eqx.Module):
    """A stack of two-time correlation maps, one for each angle.

    - `c2`: `(angle, frame, frame)`; the pair i < j is `c2[a, i, j]`. The maps are symmetric. Masked
      entries (NaN included) are 0 and have root weight 0. The diagonal of `c2` belongs to no pair.
    - `t`: frame times [s], `(frame,)`, strictly increasing.
    - `geometry`: q, azimuths and gap.
    - `root_weights`: 1/sigma `(angle, frame, frame)`, 0 where masked; `None` when every pair counts
      with weight one. What stands on its diagonal means nothing.
    - `diagonal`: raw diagonal `(angle, frame)`, 1 + contrast + 1/(mean count); NaN where unknown.
    - `absolute_sigma`: whether sigma was given by the user, so that uncertainties need no rescaling
      by the residuals. An estimated sigma is not absolute.
    - `provenance`: where all of this came from.

    Arrays keep the precision they were given in. Only shapes are checked on construction, so that
    the class can be built under `jax.jit`; the readers and `from_dict` check values.

    **Raises:** `DataError` when shapes do not belong together.
    """

    c2: Float[np.ndarray | jax.Array, "angle frame frame"]
    t: Float[np.ndarray | jax.Array, " frame"]
    geometry: Geometry
    root_weights: Float[np.ndarray | jax.Array, "angle frame frame"] | None
    diagonal: Float[np.ndarray | jax.Array, "angle frame"]
    absolute_sigma: bool = eqx.field(static=True, default=False)
    provenance: Provenance = eqx.field(static=True, default=Provenance())

    def __check_init__(self) -> None:
        shape = np.shape(self.c2)
        if len(shape) != 3 or shape[1] != shape[2]:
            raise DataError(f"c2 has shape {shape}; give square maps as (angle, frame, frame).")
        n_angles, n_frames, _ = shape
        expected = {
            "t": (n_frames,),
            "geometry.phi": (n_angles,),
            "diagonal": (n_angles, n_frames),
            "root_weights": shape,
        }
        found = {
            "t": np.shape(self.t),
            "geometry.phi": np.shape(self.geometry.phi),
            "diagonal": np.shape(self.diagonal),
            "root_weights": shape if self.root_weights is None else np.shape(self.root_weights),
        }
        for name, wanted in expected.items():
            if found[name] != wanted:
                raise DataError(
                    f"{name} has shape {found[name]} but c2 {shape} needs {wanted}; cut or extend "
                    f"{name} to match the maps."
                )

    @property
    def n_angles(self) -> int:
        """Number of maps."""
        return self.c2.shape[0]

    @property
    def n_frames(self) -> int:
        """Number of frames along one axis of a map."""
        return self.c2.shape[1]

    @property
    def n_pairs(self) -> int:
        """Number of unordered pairs i < j with a weight other than zero, over all angles."""
        n = self.n_frames
        if self.root_weights is None:
            return self.n_angles * (n * (n - 1) // 2)
        weights = np.asarray(self.root_weights)
        return sum(int(np.count_nonzero(weights[:, i, i + 1 :])) for i in range(n))

    @property
    def masked_pairs(self) -> int:
        """Number of unordered pairs that count for nothing: NaN, bad frames, lag and age limits."""
        n = self.n_frames
        return self.n_angles * (n * (n - 1) // 2) - self.n_pairs

    @property
    def dt(self) -> Float[np.ndarray | jax.Array, ""] | np.floating:
        """Mean time between two frames [s]."""
        return (self.t[-1] - self.t[0]) / (self.n_frames - 1)
