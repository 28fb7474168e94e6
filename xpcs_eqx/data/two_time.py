"""Two-time data in memory, as maps or as points, with their geometry and where they came from."""

import dataclasses
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Float, Int

from ..errors import DataError
from ..showing import counted, few, known, per_frame, with_numbers

DEFAULT_GAP = 2_000_000.0
"""Gap of the shear cell [Å] when nothing is given (200 µm)."""

Doubt = Literal["times", "q", "baseline"]
DOUBTS: dict[Doubt, str] = {
    "times": "the file contradicts itself about the times of its frames, which all rates follow "
    "(see the notes of the data): give dt [s], or correct the file",
    "q": "the file contradicts itself about q, which all coefficients follow (see the notes of the "
    "data): give q, or correct the file",
    "baseline": "it is open whether the maps have their baseline (see the notes of the data): say "
    "it with baseline = 0 or 1",
}
"""Why numbers that were read may be wrong, in the words of a verdict."""


def _as_array(value: Any) -> Any:
    """Python numbers and lists become float64 arrays; arrays and tracers stay what they are.

    So does what is no numbers, which `_check_numbers` refuses by its name.
    """
    if value is None or isinstance(value, jax.Array | jax.ShapeDtypeStruct):
        return value
    try:
        # Arrays in a file stay what they are.
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except ValueError:
        # Rows of different lengths.
        return value
    return array.astype(np.float64) if array.dtype.kind in "iub" else array


def _check_numbers(**values: Any) -> None:
    """**Raises:** `DataError` for the first value that is no array of real numbers."""
    for name, value in values.items():
        dtype = getattr(value, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, np.floating):
            what = f"of {dtype}" if dtype is not None else f"a {type(value).__name__}"
            raise DataError(f"{name} is {what}; give an array of real numbers.")


class Geometry(eqx.Module):
    """Where the maps were measured: q, the azimuth of each map, the gap of the shear cell.

    Every field is an array, so that gradients reach them.

    - `q`: magnitude of the scattering vector [1/Å], scalar.
    - `phi`: azimuth of q of each map [degrees], `(angle,)`; duplicates are legal.
    - `gap`: gap of the shear cell [Å], scalar.

    Values are not checked here, so that the class can be built under `jax.jit`; the readers and
    `from_dict` check them.

    >>> import xpcs_eqx as xe
    >>> geometry = xe.Geometry(q=0.0054, phi=[0, 45, 90])
    >>> geometry
    Geometry(q=0.0054, phi=[0, 45, 90], gap=2e+06)
    >>> geometry.n_angles, float(geometry.gap)
    (3, 2000000.0)
    """

    q: Float[np.ndarray | jax.Array, ""] = eqx.field(converter=_as_array)
    phi: Float[np.ndarray | jax.Array, " angle"] = eqx.field(converter=_as_array)
    gap: Float[np.ndarray | jax.Array, ""] = eqx.field(converter=_as_array, default=DEFAULT_GAP)

    def __check_init__(self) -> None:
        _check_numbers(q=self.q, phi=self.phi, gap=self.gap)
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

    def __repr__(self) -> str:
        return with_numbers(self)

    @property
    def n_angles(self) -> int:
        """Number of azimuths."""
        return self.phi.shape[0]

    def angle(self, a: int) -> "Geometry":
        """That of one angle."""
        return eqx.tree_at(lambda g: g.phi, self, self.phi[a : a + 1 or None])


# A note of data whose q nobody has said.
NO_Q = "No q was given; it is 1, so fitted coefficients carry its powers."
# And of data whose frame time nobody has said.
NO_TIMES = "No frame time was given; time is counted in frames."


class Provenance(eqx.Module):
    """Origin of a data set; hashable, every field static.

    - `path`: file as it was given, or `"memory"`.
    - `layout`: name of the layout (`"aps-u"`, `"aps-old"`, `"nxxpcs"`, `"own"`, `"npz"`, `"npy"`,
      `"generic"`, `"dictionary"`, `"direct"`, `"pooled"`).
    - `sha256`: checksum of the file, empty for data from memory.
    - `keys`: HDF5 paths or dictionary keys that were read.
    - `frames`: first and last frame that were used, 1-based and inclusive; `(0, 0)` when unknown.
    - `dt`: time between two frames of the map [s], stride and averaging included; `None` when the
      times were handed over as they are.
    - `azimuths`: whether they are known; where they are not, zeros stand for them.
    - `baseline_guessed`: whether 1 was added because the maps look like c2 − 1.
    - `doubts`: about what the data contradict themselves, `"times"`, `"q"`, or leave open,
      `"baseline"`; a fit of them is doubtful.
    - `notes`: what a reader should know, in sentences (masked entries, completed triangles, …).
    """

    path: str = eqx.field(static=True, default="memory")
    layout: str = eqx.field(static=True, default="dictionary")
    sha256: str = eqx.field(static=True, default="")
    keys: tuple[str, ...] = eqx.field(static=True, default=())
    frames: tuple[int, int] = eqx.field(static=True, default=(0, 0))
    dt: float | None = eqx.field(static=True, default=None)
    azimuths: bool = eqx.field(static=True, default=True)
    baseline_guessed: bool = eqx.field(static=True, default=False)
    doubts: tuple[Doubt, ...] = eqx.field(static=True, default=())
    notes: tuple[str, ...] = eqx.field(static=True, default=())

    @property
    def has_q(self) -> bool:
        """Whether q is known; where it is not, 1 stands for it."""
        return NO_Q not in self.notes

    @property
    def has_times(self) -> bool:
        """Whether times are in seconds; where they are not, they are numbers of frames."""
        return NO_TIMES not in self.notes

    def where(self) -> str:
        """File and layout in a form that starts an error message."""
        return self.path if self.layout in self.path else f"{self.path} ({self.layout})"


def place_text(t: Any, geometry: Geometry, frames: bool = False) -> str:
    """Angles, frames, times and q of data in a line or two; `frames`: times count these."""
    t, phi = np.asarray(t), np.asarray(geometry.phi)
    angles = f"{counted(phi.size, 'angle')} (φ = {few(phi)}°)"
    step = (t[-1] - t[0]) / max(t.size - 1, 1)
    said = (
        f"{angles} × {t.size} frames, t = {t[0]:.6g} … {t[-1]:.6g} s, dt = {step:.4g} s, "
        f"q = {float(geometry.q):.6g} 1/Å"
    )
    return per_frame(said) if frames else said


class AbstractTwoTime(eqx.Module):
    """What two-time data of any kind have: in memory or in a file, as maps, points or chunks."""

    t: AbstractVar[Float[np.ndarray | jax.Array, " frame"]]
    geometry: AbstractVar[Geometry]
    absolute_sigma: AbstractVar[bool]
    provenance: AbstractVar[Provenance]

    @property
    def n_angles(self) -> int:
        """Number of azimuths, one for each map."""
        return self.geometry.phi.shape[0]

    @property
    def n_frames(self) -> int:
        """Number of frame times, which is that of frames along one axis of a map."""
        return self.t.shape[0]

    @property
    def dt(self) -> Float[np.ndarray | jax.Array, ""] | np.floating:
        """Mean time between two frames [s]."""
        return (self.t[-1] - self.t[0]) / (self.n_frames - 1)

    def __repr__(self) -> str:
        """Where they came from, angles, frames, times and q, and what a reader should know."""
        # What is traced, or several stacked, has no numbers of its own.
        if not known(self) or [np.ndim(self.geometry.q), np.ndim(self.t)] != [0, 1]:
            return eqx.tree_pformat(self)
        sigma = "known" if self.absolute_sigma else "not known, so that errors follow the residuals"
        lines = [
            f"{type(self).__name__} from {self.provenance.where()}",
            place_text(self.t, self.geometry, not self.provenance.has_times),
            # A property of some kinds and a field of others.
            f"{self.n_pairs} entries that count, sigma {sigma}",  # pyright: ignore[reportAttributeAccessIssue]
            *(f"note: {one}" for one in self.provenance.notes),
        ]
        return "\n  ".join(lines)


class TwoTimeData(AbstractTwoTime):
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

    c2: Float[np.ndarray | jax.Array, "angle frame frame"] = eqx.field(converter=_as_array)
    t: Float[np.ndarray | jax.Array, " frame"] = eqx.field(converter=_as_array)
    geometry: Geometry
    root_weights: Float[np.ndarray | jax.Array, "angle frame frame"] | None = eqx.field(
        converter=_as_array
    )
    diagonal: Float[np.ndarray | jax.Array, "angle frame"] = eqx.field(converter=_as_array)
    absolute_sigma: bool = eqx.field(static=True, default=False)
    provenance: Provenance = eqx.field(static=True, default=Provenance())

    def __check_init__(self) -> None:
        if not isinstance(self.geometry, Geometry):
            what = type(self.geometry).__name__
            raise DataError(f"geometry is a {what}; give Geometry(q, phi, gap).")
        _check_numbers(c2=self.c2, t=self.t, diagonal=self.diagonal)
        if self.root_weights is not None:
            _check_numbers(root_weights=self.root_weights)
        shape = np.shape(self.c2)
        if len(shape) != 3 or shape[1] != shape[2]:
            raise DataError(f"c2 has shape {shape}; give square maps as (angle, frame, frame).")
        n_angles, n_frames, _ = shape
        for name, value, wanted in (
            ("t", self.t, (n_frames,)),
            ("geometry.phi", self.geometry.phi, (n_angles,)),
            ("diagonal", self.diagonal, (n_angles, n_frames)),
            ("root_weights", self.root_weights, shape),
        ):
            # Only weights may be None.
            if value is not None and np.shape(value) != wanted:
                raise DataError(
                    f"{name} has shape {np.shape(value)} but c2 {shape} needs {wanted}; cut or "
                    f"extend {name} to match the maps."
                )

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

    def angle(self, a: int) -> "TwoTimeData":
        """The map of one angle."""
        one, weights = slice(a, a + 1 or None), self.root_weights
        return dataclasses.replace(
            self,
            c2=self.c2[one],
            geometry=self.geometry.angle(a),
            diagonal=self.diagonal[one],
            root_weights=None if weights is None else weights[one],
        )


class Bins(eqx.Module):
    """Bins of age (t1 + t2)/2 and lag t2 − t1: points that are means over pairs of frames.

    Pairs of a point follow each other, and points their angle. Of a bin of very many pairs some
    stand for their neighbours.

    - `point`: the point that a pair belongs to `(pair,)`; `share`: its part in the mean, which sum
      to one for each point.
    - `age`, `lag`: numbers of the bins of each point `(point,)`.
    - `ages`, `lags`: edges of the bins [s].
    """

    point: Int[np.ndarray | jax.Array, " pair"]
    share: Float[np.ndarray | jax.Array, " pair"]
    age: Int[np.ndarray | jax.Array, " point"]
    lag: Int[np.ndarray | jax.Array, " point"]
    ages: Float[np.ndarray | jax.Array, " age_edge"]
    lags: Float[np.ndarray | jax.Array, " lag_edge"]


class PooledData(AbstractTwoTime):
    """Points of two-time maps in any order and any number for each angle, or means over bins.

    - `values`: c2 of each point `(point,)`.
    - `first`, `second`: frame indices into `t`, `(point,)`, with first < second; of bins `(pair,)`.
    - `angle`: index into `geometry.phi`, `(point,)`.
    - `t`: frame times [s], `(frame,)`, strictly increasing.
    - `geometry`: q, azimuths and gap.
    - `root_weights`: 1/sigma `(point,)`, 0 where masked; `None` when all points weigh one.
    - `absolute_sigma`: whether sigma was given by the user.
    - `provenance`: where all of this came from.
    - `bins`: which pairs are behind each point; `None` where each is one pair.

    **Raises:** `DataError` when shapes do not belong together.
    """

    values: Float[np.ndarray | jax.Array, " point"]
    first: Int[np.ndarray | jax.Array, " pair"]
    second: Int[np.ndarray | jax.Array, " pair"]
    angle: Int[np.ndarray | jax.Array, " point"]
    t: Float[np.ndarray | jax.Array, " frame"]
    geometry: Geometry
    root_weights: Float[np.ndarray | jax.Array, " point"] | None = None
    absolute_sigma: bool = eqx.field(static=True, default=False)
    provenance: Provenance = eqx.field(static=True, default=Provenance(layout="pooled"))
    bins: Bins | None = None

    def __check_init__(self) -> None:
        points = {"values": self.values, "angle": self.angle}
        pairs = {"first": self.first, "second": self.second}
        if self.root_weights is not None:
            points["root_weights"] = self.root_weights
        if self.bins is None:
            groups = ({**points, **pairs},)
        else:
            points |= {"age": self.bins.age, "lag": self.bins.lag}
            groups = (points, {**pairs, "point": self.bins.point, "share": self.bins.share})
        for group in groups:
            shapes = {name: np.shape(value) for name, value in group.items()}
            if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
                raise DataError(f"Pooled points need flat arrays of one length, found {shapes}.")
        if np.ndim(self.t) != 1:
            raise DataError(f"t has shape {np.shape(self.t)}; give a flat list of frame times.")

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
    def lag_frames(self) -> Float[np.ndarray, " point"]:
        """Lag of each point, the mean one of a bin [frames]."""
        return self.mean(np.asarray(self.second) - np.asarray(self.first))

    def mean(self, of_pairs: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " point"]:
        """What pairs have, for each point: of a bin their mean."""
        if self.bins is None:
            return of_pairs
        point, share = np.asarray(self.bins.point), np.asarray(self.bins.share)
        return np.bincount(point, share * of_pairs, self.values.shape[0])


# Quantiles of more pairs than this are no better, only slower.
ENOUGH = 100_000


class Sample(NamedTuple):
    """Pairs of all angles in flat arrays: c2, lag [frames], and the angle each belongs to."""

    values: Float[np.ndarray, "pair"]
    lags: Int[np.ndarray, "pair"]
    angles: Int[np.ndarray, "pair"]


def row_step(n: int, enough: float = ENOUGH) -> int:
    """Every how many rows of a map of n frames give about `enough` pairs; all lags stay."""
    return max(1, round(n * (n - 1) / 2 / enough))


def is_mask(weights: Float[np.ndarray | jax.Array, "angle frame frame"]) -> bool:
    """Whether root weights are all zero or one, so that they carry no sigma."""
    # Map by map, so that what is made on the way has the size of one.
    return all(bool(np.all((one == 0) | (one == 1))) for one in map(np.asarray, weights))


def with_sigma(data: Any, sigma: Any) -> Any:
    """Data in memory with a standard deviation of c2 in place of what was known of it.

    - `data`: maps, points or bins; what is masked stays so.
    - `sigma`: one number, or an array like the maps or points.

    **Raises:** `DataError` for a sigma that is not above zero or of another shape, and for data
    that stay in their file or come in chunks.
    """
    if not isinstance(data, TwoTimeData | PooledData):
        raise DataError(
            f"sigma of a {type(data).__name__} is given where it is made, as open_stored(path, "
            "sigma=…)"
        )
    like = np.asarray(data.c2 if isinstance(data, TwoTimeData) else data.values)
    try:
        spread = np.broadcast_to(np.asarray(sigma, dtype=like.dtype), like.shape)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"sigma is {sigma!r}; give a number, or an array of shape {like.shape}"
        ) from error
    if not np.all(np.isfinite(spread) & (spread > 0)):
        raise DataError("sigma holds values that are not above zero; give those of c2")
    root = 1.0 / spread
    if data.root_weights is not None:
        root = np.where(np.asarray(data.root_weights) > 0, root, 0).astype(like.dtype)
    return dataclasses.replace(data, root_weights=root, absolute_sigma=True)
