"""Contrast and offset of every angle: how they follow from few numbers, and where to begin."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .arguments import Whole, check_fields, number_pair, numbers, plain
from .data import ChunkedTwoTime, PooledData, StoredTwoTime, TwoTimeData, row_step
from .errors import DataError, ModelError
from .showing import with_numbers

CONTRAST_BOUNDS = (0.0, 1.0)
OFFSET_BOUNDS = (0.5, 1.5)


def _check_order(contrast_bounds, offset_bounds, equal: bool = True) -> None:
    for what, (low, high) in (("contrast", contrast_bounds), ("offset", offset_bounds)):
        if not (low < high or (equal and low == high)):
            raise ModelError(
                f"{what} bounds [{low}, {high}] are inside out; lower must be below upper"
            )


class AbstractScaling(eqx.Module):
    """(contrast, offset) of every angle as `constant + basis · coefficients`.

    `basis` has shape (angle, 2, coefficient), `constant` (angle, 2); index 0 of the middle axis is
    contrast, 1 offset. Being linear, coefficients can be eliminated exactly from a fit.
    """

    def __repr__(self) -> str:
        return with_numbers(self)

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


class _AbstractPairs(AbstractScaling):
    """Free contrasts, then free offsets; equal bounds of either fix it, at every angle."""

    n_angles: int = eqx.field(static=True, converter=plain)
    contrast_bounds: tuple[float, float] = eqx.field(
        static=True, default=CONTRAST_BOUNDS, converter=number_pair
    )
    offset_bounds: tuple[float, float] = eqx.field(
        static=True, default=OFFSET_BOUNDS, converter=number_pair
    )

    def __check_init__(self):
        check_fields(self)
        _check_order(self.contrast_bounds, self.offset_bounds)

    @property
    @abstractmethod
    def _places(self) -> tuple[str, ...]:
        """What follows `contrast` and `offset` in the names of their coefficients."""

    @property
    @abstractmethod
    def _by_angle(self) -> Float[np.ndarray, "angle place"]:
        """Derivative of the contrasts, and of the offsets, by their coefficients."""

    @property
    def _limits(self) -> Float[np.ndarray, "2 2"]:
        return np.array([self.contrast_bounds, self.offset_bounds], dtype=float)

    @property
    def _free(self) -> list[int]:
        """Which of contrast and offset are not fixed."""
        return np.flatnonzero(self._limits[:, 0] < self._limits[:, 1]).tolist()

    @property
    def basis(self):
        own = self._by_angle
        blank = np.zeros_like(own)
        parts = [np.stack([own, blank], axis=1), np.stack([blank, own], axis=1)]
        nothing = np.zeros((own.shape[0], 2, 0))
        return jax.device_put(np.concatenate([nothing, *(parts[s] for s in self._free)], axis=2))

    @property
    def constant(self):
        value = self._limits[:, 0].copy()
        value[self._free] = 0.0
        return jax.device_put(np.tile(value, (self._by_angle.shape[0], 1)))

    @property
    def bounds(self):
        lower, upper = (np.repeat(one, len(self._places)) for one in self._limits[self._free].T)
        return jax.device_put(lower), jax.device_put(upper)

    @property
    def names(self):
        kinds = ("contrast", "offset")
        return tuple(f"{kinds[s]}{place}" for s in self._free for place in self._places)


class Individual(_AbstractPairs):
    """Every angle its own contrast and offset; equal bounds of either fix it at all angles.

    >>> import xpcs_eqx as xe
    >>> xe.Individual(2).names
    ('contrast[0]', 'contrast[1]', 'offset[0]', 'offset[1]')
    >>> xe.Individual(2, offset_bounds=(1.0, 1.0)).names
    ('contrast[0]', 'contrast[1]')
    """

    @property
    def _places(self):
        return tuple(f"[{i}]" for i in range(self.n_angles))

    @property
    def _by_angle(self):
        return np.eye(self.n_angles)


class Averaged(_AbstractPairs):
    """One contrast and one offset for all angles, both fitted; equal bounds of either fix it.

    Where the contrast really varies with angle this biases J(t) and γ̇(t).
    """

    @property
    def _places(self):
        return ("",)

    @property
    def _by_angle(self):
        return np.ones((self.n_angles, 1))


class Fixed(AbstractScaling):
    """Given contrast and offset for each angle; nothing is fitted.

    >>> import xpcs_eqx as xe
    >>> xe.Fixed(contrast=[0.2, 0.25], offset=[1.0, 1.01]).size
    0
    """

    contrast: Float[Array, "angle"] = eqx.field(converter=numbers)
    offset: Float[Array, "angle"] = eqx.field(converter=numbers)

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
    """Contrast and offset that change smoothly with azimuth.

    contrast(φ) = c0 + Σ_k [c_k cos kφ + s_k sin kφ], the same for the offset.

    `phi` in degrees. Needs at least 1 + 2·order angles.

    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> scaling = xe.Fourier(np.array([0.0, 60.0, 120.0]), order=1)
    >>> scaling.names
    ('contrast_c0', 'contrast_c1', 'contrast_s1', 'offset_c0', 'offset_c1', 'offset_s1')
    """

    phi: Float[Array, "angle"] = eqx.field(converter=numbers)
    order: Whole = eqx.field(static=True, default=2, converter=plain)
    contrast_bounds: tuple[float, float] = eqx.field(
        static=True, default=CONTRAST_BOUNDS, converter=number_pair
    )
    offset_bounds: tuple[float, float] = eqx.field(
        static=True, default=OFFSET_BOUNDS, converter=number_pair
    )
    contrast_harmonic: float = eqx.field(static=True, default=0.2)
    offset_harmonic: float = eqx.field(static=True, default=0.3)

    def __check_init__(self):
        check_fields(self)
        _check_order(self.contrast_bounds, self.offset_bounds, equal=False)
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
        return jax.vmap(lambda row: jnp.kron(jnp.eye(2), row))(self.harmonics)

    @property
    def constant(self):
        return jnp.zeros((self.phi.shape[0], 2))

    @property
    def bounds(self):
        c, o, number = self.contrast_harmonic, self.offset_harmonic, 2 * self.order
        contrast = [self.contrast_bounds, *[(-c, c)] * number]
        stacked = jnp.asarray([*contrast, self.offset_bounds, *[(-o, o)] * number])
        return stacked[:, 0], stacked[:, 1]

    @property
    def names(self):
        def series(kind):
            out = [f"{kind}_c0"]
            for k in range(1, self.order + 1):
                out += [f"{kind}_c{k}", f"{kind}_s{k}"]
            return out

        return tuple(series("contrast") + series("offset"))


Data = TwoTimeData | PooledData | StoredTwoTime | ChunkedTwoTime

_FEWEST = 10


def _sampled_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs i < j of frames: all of them, or every k-th row of a large map (all lags stay)."""
    rows = np.arange(0, n, row_step(n))
    first = np.repeat(rows, n - 1 - rows)
    second = np.concatenate([np.arange(i + 1, n) for i in rows])
    return first, second


def _points(data: Data, angle: int, pairs):
    """Values and lags [frames] of the pairs of one angle that count."""
    if isinstance(data, StoredTwoTime | ChunkedTwoTime):
        mine = data.sample.angles == angle
        return data.sample.values[mine], data.sample.lags[mine]
    if isinstance(data, PooledData):
        mine = np.asarray(data.angle) == angle
        if data.root_weights is not None:
            mine &= np.asarray(data.root_weights) > 0
        return np.asarray(data.values)[mine], data.lag_frames[mine]
    first, second = pairs
    values = np.asarray(data.c2[angle])[first, second]
    if data.root_weights is not None:
        used = np.asarray(data.root_weights[angle])[first, second] > 0
        values, first, second = values[used], first[used], second[used]
    return values, second - first


def quantile_scaling(
    data: Data,
    *,
    contrast_bounds: tuple[float, float] = CONTRAST_BOUNDS,
    offset_bounds: tuple[float, float] = OFFSET_BOUNDS,
    noise: Float[np.ndarray, "angle"] | None = None,
) -> Float[np.ndarray, "angle 2"]:
    """(contrast, offset) of each angle from the floor and the ceiling of c2 over lag.

    Offset is the 10th percentile of c2 at lags above their 80th percentile, the ceiling the 90th
    percentile at lags below their 20th; a region with fewer than 10 points falls back to all
    points. The rule is biased by noise and by fast or slow decays: good as a start and, for want
    of better, for the fixed modes.

    **Arguments:**

    - `noise`: standard deviation of c2 at each angle; when given, the bias of the two percentiles
        by Gaussian noise (±1.2816 sd) is taken off.

    **Raises:** `DataError` for an angle without pairs.
    """
    out = np.empty((data.n_angles, 2))
    pairs = _sampled_pairs(data.n_frames) if isinstance(data, TwoTimeData) else None
    for a in range(data.n_angles):
        values, lag = _points(data, a, pairs)
        if values.size == 0:
            raise DataError(
                f"angle {a} has no pair that counts, so that its contrast and offset cannot be "
                "found; leave the angle out, or mask less"
            )
        far = values[lag >= np.percentile(lag, 80)]
        near = values[lag <= np.percentile(lag, 20)]
        far = far if far.size >= _FEWEST else values
        near = near if near.size >= _FEWEST else values
        offset, ceiling = np.percentile(far, 10), np.percentile(near, 90)
        if noise is not None:
            offset += 1.2815515655446004 * noise[a]
            ceiling -= 1.2815515655446004 * noise[a]
        offset = np.clip(offset, *offset_bounds)
        out[a] = np.clip(ceiling - offset, *contrast_bounds), offset
    return out


def half_decays(data: Data) -> Float[np.ndarray, "angle"]:
    """The lag [s] at which c2 of each angle, averaged over ages, has lost half of its contrast.

    A map that loses less is taken to decay exponentially.

    **Raises:** `DataError` for an angle without pairs.
    """
    pairs = _sampled_pairs(data.n_frames) if isinstance(data, TwoTimeData) else None
    frames = np.empty(data.n_angles)
    for a in range(data.n_angles):
        values, lag = _points(data, a, pairs)
        if values.size == 0:
            raise DataError(f"angle {a} has no pair that counts; leave it out, or mask less")
        # A floor above one is a decay that the map does not show the end of.
        floor = min(float(np.mean(values[lag >= np.percentile(lag, 80)])), 1.0)
        group = np.digitize(lag, np.unique(np.round(np.geomspace(1, lag.max() + 1, 60))))
        count = np.bincount(group)
        there = count > 0
        mean = np.bincount(group, values)[there] / count[there] - floor
        at = np.bincount(group, lag)[there] / count[there]
        below = np.flatnonzero(mean < 0.5 * mean[0])
        if mean[0] <= 0:
            frames[a] = at[-1]
        elif below.size:
            k = below[0]
            part = (mean[k - 1] - 0.5 * mean[0]) / (mean[k - 1] - mean[k])
            frames[a] = at[k - 1] * (at[k] / at[k - 1]) ** part
        else:
            frames[a] = at[-1] * np.log(2.0) / max(np.log(mean[0] / mean[-1]), 0.01)
    return frames * float(data.dt)


def auto_threshold(n_angles: int) -> AbstractScaling:
    """The rule of homodyne 2.x: individual below three angles, one common pair from there on.

    Where the contrast varies with angle the common pair biases J(t); it is not the default.
    """
    return Individual(n_angles) if n_angles < 3 else Averaged(n_angles)


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

    def physical_block(
        self, matrix: Float[Array | np.ndarray, "entry entry"]
    ) -> Float[Array | np.ndarray, "free free"]:
        """The part of a covariance that belongs to the physical parameters."""
        return matrix[self.physical, self.physical]


def index_map(scaling: AbstractScaling, physical_names: tuple[str, ...]) -> IndexMap:
    """The layout of a fit with the given scaling and free physical parameters."""
    return IndexMap(tuple(scaling.names), tuple(physical_names))
