"""Which entry of the flat vector of all fitted numbers is what."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import ModelError
from .mappers import AbstractScaling


class IndexMap(eqx.Module):
    """Layout (scaling coefficients, then free physical parameters) of the flat vector.

    Contrast coefficients come first, then offset coefficients, then the physical parameters.
    """

    scaling_names: tuple[str, ...] = eqx.field(static=True)
    physical_names: tuple[str, ...] = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        return self.scaling_names + self.physical_names

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return len(self.names)

    @property
    def scaling(self) -> slice:
        """Where the scaling coefficients are."""
        return slice(0, len(self.scaling_names))

    @property
    def physical(self) -> slice:
        """Where the physical parameters are."""
        return slice(len(self.scaling_names), self.size)

    def group(self, kind: str) -> slice:
        """Where the coefficients of `"contrast"` or `"offset"` are.

        **Raises:** `ModelError` for another kind.
        """
        if kind not in ("contrast", "offset"):
            raise ModelError(f"no group {kind!r}; there are 'contrast' and 'offset'")
        mine = [i for i, name in enumerate(self.scaling_names) if name.startswith(kind)]
        return slice(mine[0], mine[-1] + 1) if mine else slice(0, 0)

    def index(self, name: str) -> int:
        """Position of a name.

        **Raises:** `ModelError` when there is none.
        """
        if name not in self.names:
            raise ModelError(
                f"no entry {name!r} in the flat vector; it has {', '.join(self.names)}"
            )
        return self.names.index(name)

    def validate(self, vector: Float[Array, "entry"]) -> None:
        """Check length and finiteness.

        **Raises:** `ModelError` naming the offending entry.
        """
        if vector.shape != (self.size,):
            raise ModelError(f"the flat vector has shape {vector.shape}, expected ({self.size},)")
        finite = jnp.isfinite(vector)
        if not bool(jnp.all(finite)):
            i = int(jnp.argmin(finite))
            raise ModelError(f"entry {i} ({self.names[i]}) of the flat vector is {vector[i]}")

    def physical_block(
        self, matrix: Float[Array | np.ndarray, "entry entry"]
    ) -> Float[Array | np.ndarray, "free free"]:
        """The part of a covariance that belongs to the physical parameters."""
        return matrix[self.physical, self.physical]

    def scaling_block(
        self, matrix: Float[Array | np.ndarray, "entry entry"]
    ) -> Float[Array | np.ndarray, "k k"]:
        """The part of a covariance that belongs to the scaling coefficients."""
        return matrix[self.scaling, self.scaling]


def index_map(scaling: AbstractScaling, physical_names: tuple[str, ...]) -> IndexMap:
    """The layout of a fit with the given scaling and free physical parameters."""
    return IndexMap(tuple(scaling.names), tuple(physical_names))
