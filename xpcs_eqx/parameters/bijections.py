"""Coordinates in which power laws with an offset are well behaved.

A rate a·t^b + c is nearly degenerate in (a, b, c). Each bijection maps solver coordinates y to the
physical parameters x and back, exactly, with the log-determinant of dx/dy.
"""

from abc import abstractmethod
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from ..physics import as_inexact

Scalars: TypeAlias = tuple[Float[Array, ""], ...]


class AbstractBijection(eqx.Module):
    """A smooth one-to-one map of a few scalars; tuples in, tuples out.

    Tuples rather than arrays keep visible which physical parameter depends on which coordinate.
    """

    @abstractmethod
    def forward(self, y: Scalars) -> Scalars:
        """Physical parameters from coordinates."""

    @abstractmethod
    def inverse(self, x: Scalars) -> Scalars:
        """Coordinates from physical parameters; NaN where they have none."""

    def log_det(self, y: Scalars) -> Float[Array, ""]:
        """ln |det dx/dy| at the coordinates `y`."""
        jacobian = jnp.asarray(jax.jacfwd(self.forward)(y))
        return jnp.log(jnp.abs(_determinant(jacobian)))


def _determinant(matrix):
    # Samplers take millions of these: a library call for a matrix of three rows is far slower.
    if matrix.shape[0] > 3:
        return jnp.linalg.det(matrix)
    if matrix.shape[0] == 3:
        return matrix[0] @ jnp.cross(matrix[1], matrix[2])
    if matrix.shape[0] == 2:
        return matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    return matrix[0, 0]


class Identity(AbstractBijection):
    """Coordinates are the physical parameters."""

    def forward(self, y: Scalars) -> Scalars:
        return y

    def inverse(self, x: Scalars) -> Scalars:
        return x


class Affine(AbstractBijection):
    """One parameter by its distance from `centre` in units of `unit`: a centred exponent, say."""

    centre: ScalarLike = eqx.field(converter=as_inexact)
    unit: ScalarLike = eqx.field(converter=as_inexact)

    def forward(self, y: Scalars) -> Scalars:
        return (jnp.asarray(self.centre + self.unit * y[0]),)

    def inverse(self, x: Scalars) -> Scalars:
        return ((x[0] - self.centre) / self.unit,)


class Log(AbstractBijection):
    """One positive parameter by its logarithm."""

    def forward(self, y: Scalars) -> Scalars:
        return (jnp.exp(y[0]),)

    def inverse(self, x: Scalars) -> Scalars:
        return (jnp.log(x[0]),)


class ReferenceAmplitude(AbstractBijection):
    """(a, b) of a·t^b by (ln(a t_ref^b), b): amplitude where the data are, not at t = 1.

    `t_ref` in s; ln(a t_ref^b) is ln D_ref or ln γ_ref.
    """

    t_ref: ScalarLike = eqx.field(converter=as_inexact)

    def forward(self, y: Scalars) -> Scalars:
        return jnp.exp(y[0] - y[1] * jnp.log(self.t_ref)), y[1]

    def inverse(self, x: Scalars) -> Scalars:
        return jnp.log(x[0]) + x[1] * jnp.log(self.t_ref), x[1]


class ReferenceTime(AbstractBijection):
    """(a, b, c) by ln(a t_ref^b), b and the ratio c/(a t_ref^b)."""

    t_ref: ScalarLike = eqx.field(converter=as_inexact)

    def forward(self, y: Scalars) -> Scalars:
        amplitude = jnp.exp(y[0])
        return amplitude * jnp.exp(-y[1] * jnp.log(self.t_ref)), y[1], y[2] * amplitude

    def inverse(self, x: Scalars) -> Scalars:
        amplitude = x[0] * jnp.exp(x[1] * jnp.log(self.t_ref))
        return jnp.log(amplitude), x[1], x[2] / amplitude


class Slope(AbstractBijection):
    """(a, b, c) by ln ρ, s and w.

    ρ is the whole rate at t_ref [s], s = d ln rate / d ln t there, w = c/ρ < 1. Data determine ρ
    and s well; w is the weak direction alone. Needs a positive rate at t_ref and a > 0.

    >>> from xpcs_eqx.parameters import Slope
    >>> log_rho, s, w = Slope(t_ref=1.0).inverse((3.0, -0.5, 1.0))
    >>> float(s), float(w)
    (-0.375, 0.25)
    """

    t_ref: ScalarLike = eqx.field(converter=as_inexact)

    def forward(self, y: Scalars) -> Scalars:
        log_rho, s, w = y
        rho = jnp.exp(log_rho)
        b = s / (1 - w)
        return rho * (1 - w) * jnp.exp(-b * jnp.log(self.t_ref)), b, w * rho

    def inverse(self, x: Scalars) -> Scalars:
        a, b, c = x
        power = a * jnp.exp(b * jnp.log(self.t_ref))
        rho = power + c
        return jnp.log(rho), b * power / rho, c / rho


class SignedSlope(AbstractBijection):
    """(a, b, c) by ρ, m = d rate / d ln t at t_ref and c, for a rate that may change sign.

    ρ is the whole rate at t_ref [s]. Regular where ρ passes zero; needs a ≠ 0.
    """

    t_ref: ScalarLike = eqx.field(converter=as_inexact)

    def forward(self, y: Scalars) -> Scalars:
        rho, m, c = y
        power = rho - c
        b = m / power
        return power * jnp.exp(-b * jnp.log(self.t_ref)), b, c

    def inverse(self, x: Scalars) -> Scalars:
        a, b, c = x
        power = a * jnp.exp(b * jnp.log(self.t_ref))
        return power + c, b * power, c
