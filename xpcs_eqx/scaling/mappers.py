"""From a few coefficients to contrast and offset at each angle: linear maps, one class a mode."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import ModelError

CONTRAST_BOUNDS = (0.0, 1.0)
OFFSET_BOUNDS = (0.5, 1.5)


def _ordered(contrast_bounds, offset_bounds) -> None:
    for what, (low, high) in (("contrast", contrast_bounds), ("offset", offset_bounds)):
        if not low < high:
            raise ModelError(
                f"{what} bounds [{low}, {high}] are inside out; lower must be below upper"
            )


class AbstractScaling(eqx.Module):
    """(contrast, offset) of every angle as `constant + basis · coefficients`.

    `basis` has shape (angle, 2, coefficient), `constant` (angle, 2); index 0 of the middle axis is
    contrast, 1 offset. Being linear, coefficients can be eliminated exactly from a fit.
    """

    @property
    @abstractmethod
    def basis(self) -> Float[Array, "angle 2 coefficient"]:
        """Derivative of (contrast, offset) with respect to the coefficients."""

    @property
    @abstractmethod
    def constant(self) -> Float[Array, "angle 2"]:
        """(contrast, offset) at coefficients zero."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[Float[Array, "coefficient"], Float[Array, "coefficient"]]:
        """Lower and upper bounds of the coefficients."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients."""

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return len(self.names)

    def per_angle(self, coefficients: Float[Array, "coefficient"]) -> Float[Array, "angle 2"]:
        """(contrast, offset) of each angle."""
        return self.constant + jnp.einsum("ask,k->as", self.basis, coefficients)

    def covariance(
        self, covariance: Float[Array, "coefficient coefficient"]
    ) -> Float[Array, "two_angles two_angles"]:
        """Covariance of all contrasts, then all offsets, B C Bᵀ."""
        rows = 2 * self.basis.shape[0]
        matrix = jnp.moveaxis(self.basis, 1, 0).reshape(rows, self.size)
        return matrix @ covariance @ matrix.T

    def from_per_angle(self, values: Float[Array, "angle 2"]) -> Float[Array, "coefficient"]:
        """The coefficients closest to given (contrast, offset) in least squares, inside bounds."""
        if self.size == 0:
            return jnp.zeros((0,))
        matrix = self.basis.reshape(-1, self.size)
        rest = (jnp.asarray(values) - self.constant).reshape(-1)
        return jnp.clip(jnp.linalg.lstsq(matrix, rest)[0], *self.bounds)


class Individual(AbstractScaling):
    """Every angle its own contrast and offset.

    >>> import xpcs_eqx as xe
    >>> xe.Individual(2).names
    ('contrast[0]', 'contrast[1]', 'offset[0]', 'offset[1]')
    """

    n_angles: int = eqx.field(static=True)
    contrast_bounds: tuple[float, float] = eqx.field(static=True, default=CONTRAST_BOUNDS)
    offset_bounds: tuple[float, float] = eqx.field(static=True, default=OFFSET_BOUNDS)

    def __check_init__(self):
        _ordered(self.contrast_bounds, self.offset_bounds)

    @property
    def basis(self):
        n = self.n_angles
        return jnp.asarray(np.stack([np.eye(n, 2 * n), np.eye(n, 2 * n, n)], axis=1))

    @property
    def constant(self):
        return jnp.zeros((self.n_angles, 2))

    @property
    def bounds(self):
        stacked = np.repeat([self.contrast_bounds, self.offset_bounds], self.n_angles, axis=0)
        return jnp.asarray(stacked[:, 0]), jnp.asarray(stacked[:, 1])

    @property
    def names(self):
        return tuple(
            f"{kind}[{i}]" for kind in ("contrast", "offset") for i in range(self.n_angles)
        )


class Averaged(AbstractScaling):
    """One contrast and one offset for all angles, both fitted.

    Where the contrast really varies with angle this biases J(t) and γ̇(t).
    """

    n_angles: int = eqx.field(static=True)
    contrast_bounds: tuple[float, float] = eqx.field(static=True, default=CONTRAST_BOUNDS)
    offset_bounds: tuple[float, float] = eqx.field(static=True, default=OFFSET_BOUNDS)

    def __check_init__(self):
        _ordered(self.contrast_bounds, self.offset_bounds)

    @property
    def basis(self):
        return jnp.broadcast_to(jnp.eye(2), (self.n_angles, 2, 2))

    @property
    def constant(self):
        return jnp.zeros((self.n_angles, 2))

    @property
    def bounds(self):
        stacked = jnp.asarray([self.contrast_bounds, self.offset_bounds])
        return stacked[:, 0], stacked[:, 1]

    @property
    def names(self):
        return ("contrast", "offset")


class Fixed(AbstractScaling):
    """Given contrast and offset for each angle; nothing is fitted.

    >>> import xpcs_eqx as xe
    >>> xe.Fixed(contrast=[0.2, 0.25], offset=[1.0, 1.01]).size
    0
    """

    contrast: Float[Array, "angle"] = eqx.field(converter=jnp.asarray)
    offset: Float[Array, "angle"] = eqx.field(converter=jnp.asarray)

    def __check_init__(self):
        if self.contrast.shape != self.offset.shape or self.contrast.ndim != 1:
            raise ModelError(
                f"fixed contrast {self.contrast.shape} and offset {self.offset.shape} must be two "
                "lists with one value an angle"
            )

    @property
    def basis(self):
        return jnp.zeros((self.contrast.shape[0], 2, 0))

    @property
    def constant(self):
        return jnp.stack([self.contrast, self.offset], axis=1)

    @property
    def bounds(self):
        return jnp.zeros((0,)), jnp.zeros((0,))

    @property
    def names(self):
        return ()


def fixed_averaged(contrast: Float[Array, "angle"], offset: Float[Array, "angle"]) -> Fixed:
    """`Fixed` at the mean contrast and the mean offset of the angles."""
    contrast, offset = jnp.asarray(contrast), jnp.asarray(offset)
    return Fixed(
        jnp.full_like(contrast, jnp.mean(contrast)), jnp.full_like(offset, jnp.mean(offset))
    )


class Fourier(AbstractScaling):
    """contrast(φ) = c0 + Σ_k [c_k cos kφ + s_k sin kφ], the same for the offset.

    `phi` in degrees. Needs at least 1 + 2·order angles.

    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> scaling = xe.Fourier(np.array([0.0, 60.0, 120.0]), order=1)
    >>> scaling.names
    ('contrast_c0', 'contrast_c1', 'contrast_s1', 'offset_c0', 'offset_c1', 'offset_s1')
    """

    phi: Float[Array, "angle"] = eqx.field(converter=jnp.asarray)
    order: int = eqx.field(static=True, default=2)
    contrast_bounds: tuple[float, float] = eqx.field(static=True, default=CONTRAST_BOUNDS)
    offset_bounds: tuple[float, float] = eqx.field(static=True, default=OFFSET_BOUNDS)
    contrast_harmonic: float = eqx.field(static=True, default=0.2)
    offset_harmonic: float = eqx.field(static=True, default=0.3)

    def __check_init__(self):
        _ordered(self.contrast_bounds, self.offset_bounds)
        if self.order < 0:
            raise ModelError(f"Fourier order {self.order} must not be negative")
        if self.phi.shape[0] < 1 + 2 * self.order:
            raise ModelError(
                f"a Fourier scaling of order {self.order} needs at least {1 + 2 * self.order} "
                f"angles, the data have {self.phi.shape[0]}; lower the order or use Individual"
            )

    @property
    def harmonics(self) -> Float[Array, "angle harmonic"]:
        """1, cos φ, sin φ, cos 2φ, … at each angle."""
        phi = jnp.deg2rad(self.phi)
        rows = [jnp.ones_like(phi)]
        for k in range(1, self.order + 1):
            rows += [jnp.cos(k * phi), jnp.sin(k * phi)]
        return jnp.stack(rows, axis=1)

    @property
    def basis(self):
        harmonics = self.harmonics
        nothing = jnp.zeros_like(harmonics)
        return jnp.stack(
            [
                jnp.concatenate([harmonics, nothing], axis=1),
                jnp.concatenate([nothing, harmonics], axis=1),
            ],
            axis=1,
        )

    @property
    def constant(self):
        return jnp.zeros((self.phi.shape[0], 2))

    @property
    def bounds(self):
        def column(mean, harmonic):
            return [mean] + [harmonic] * (2 * self.order)

        lower = column(self.contrast_bounds[0], -self.contrast_harmonic)
        lower += column(self.offset_bounds[0], -self.offset_harmonic)
        upper = column(self.contrast_bounds[1], self.contrast_harmonic)
        upper += column(self.offset_bounds[1], self.offset_harmonic)
        return jnp.asarray(lower), jnp.asarray(upper)

    @property
    def names(self):
        def series(kind):
            out = [f"{kind}_c0"]
            for k in range(1, self.order + 1):
                out += [f"{kind}_c{k}", f"{kind}_s{k}"]
            return out

        return tuple(series("contrast") + series("offset"))
