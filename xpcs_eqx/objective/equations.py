"""The one sum behind every fit."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class NormalEquations(eqx.Module):
    """½ Σ ρ, Jᵀr, JᵀJ and the number of pairs of a part of the data.

    A monoid: `zero` and `+`. Sums over tiles, files, devices and machines are the same sum.
    Leading axes (an angle axis, say) are carried along.

    >>> import xpcs_eqx as xe
    >>> nothing = xe.NormalEquations.zero(columns=2)
    >>> (nothing + nothing).hessian.shape
    (2, 2)
    """

    cost: Float[Array, "*batch"]
    gradient: Float[Array, "*batch column"]
    hessian: Float[Array, "*batch column column"]
    count: Float[Array, "*batch"]

    @classmethod
    def zero(cls, columns: int, batch: tuple[int, ...] = (), dtype=None) -> "NormalEquations":
        """The neutral element for `columns` columns and the given leading axes."""
        return cls(
            jnp.zeros(batch, dtype),
            jnp.zeros((*batch, columns), dtype),
            jnp.zeros((*batch, columns, columns), dtype),
            jnp.zeros(batch, dtype),
        )

    def __add__(self, other: "NormalEquations") -> "NormalEquations":
        return NormalEquations(
            self.cost + other.cost,
            self.gradient + other.gradient,
            self.hessian + other.hessian,
            self.count + other.count,
        )

    @property
    def diagonal(self) -> Float[Array, "*batch column"]:
        """The diagonal of JᵀJ."""
        return jnp.diagonal(self.hessian, axis1=-2, axis2=-1)

    def total(self) -> "NormalEquations":
        """The sum over the leading axis."""
        return NormalEquations(*(jnp.sum(a, axis=0) for a in self._parts()))

    def transform(self, matrix: Float[Array, "column new"]) -> "NormalEquations":
        """The same for columns J·matrix, that is for variables v with u = matrix·v."""
        return NormalEquations(
            self.cost,
            jnp.einsum("...c,...cn->...n", self.gradient, matrix),
            jnp.einsum("...cn,...cd,...dm->...nm", matrix, self.hessian, matrix),
            self.count,
        )

    def _parts(self):
        return self.cost, self.gradient, self.hessian, self.count
