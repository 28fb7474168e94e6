"""What every layout shares: maps as a reader hands them over and as a writer stores them."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ...errors import DataError
from ..checksum import no_checksum
from ..two_time import Doubt, TwoTimeData, is_mask
from .opened import Access

if TYPE_CHECKING:
    from .generic import GenericLayout


@dataclass(frozen=True)
class Description:
    """The HDF5 paths of a layout or the names of its arrays, in sentences.

    - `required`, `optional`: what is read.
    - `guessed`: what is concluded where the file does not say it.
    - `refused`: what is an error.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def need(self) -> str:
        """What is required, in half a line, without shapes and meanings."""
        named = (one.partition(":")[0] for one in self.required)
        return ", ".join(name for one in named for name in one.split("`")[1::2])


Triangle = Literal["upper", "lower"]
Half = Triangle | Literal["both", "mean"]


@dataclass(frozen=True)
class Place:
    """Which maps of a file are meant, and how it is opened; a plain value.

    - `layout`: name of the layout, or the description of one; `None` for what the file itself says.
    - `analysis`: name of one of several analyses in the file.
    - `access`: what opening it may do.
    """

    layout: "str | GenericLayout | None" = None
    analysis: str | None = None
    access: Access = Access()  # noqa: RUF009


class SlicedMap(Protocol):
    """A map `(frame, frame)` of which blocks are read: an HDF5 dataset, an array, or like them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, block: tuple[slice, slice], /) -> Any: ...


@dataclass(frozen=True)
class Unreached:
    """A map that cannot be reached, such as one that a broken link leads to; taking it raises."""

    error: DataError

    @property
    def shape(self) -> tuple[int, ...]:
        """**Raises:** `DataError` saying why there is none."""
        raise self.error

    @property
    def dtype(self) -> np.dtype:
        """**Raises:** `DataError` as `shape`."""
        raise self.error

    def __getitem__(self, block: tuple[slice, slice], /) -> Any:
        raise self.error


def worked_dtype(stored: np.dtype) -> np.dtype:
    """The precision in which stored numbers are kept and worked on.

    Half precision and integers have no place in arithmetic.
    """
    single = stored.kind == "f" and stored.itemsize <= 4
    return np.dtype(np.float32 if single else np.float64)


def worked_in_place(stack: np.ndarray) -> np.ndarray:
    """Numbers of an array that nobody else holds in the precision in which they are worked on.

    They take the place of what they were made of where they need no more; else they stay as they
    are, to be turned map by map.
    """
    dtype = worked_dtype(stack.dtype)
    fits = stack.dtype.kind in "fiu" and stack.dtype.itemsize == dtype.itemsize
    if stack.dtype == dtype or not fits:
        return stack
    worked = stack.view(dtype)
    for one, stored in zip(worked, stack, strict=True):
        one[...] = stored.copy()
    return worked


@dataclass(frozen=True)
class Layer:
    """One map of a three-dimensional dataset, along its first axis or along its last."""

    stack: Any
    index: int
    last: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the map."""
        return self.stack.shape[:2] if self.last else self.stack.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored numbers."""
        return self.stack.dtype

    def __getitem__(self, block: tuple[slice, slice], /) -> Any:
        return self.stack[*block, self.index] if self.last else self.stack[self.index, *block]


def layers(
    where: str, key: str, stack: Any, last: bool = False, square: bool = True
) -> tuple[tuple[str, ...], tuple[Layer, ...]]:
    """Names of the maps of a three-dimensional dataset or array, and the maps.

    **Raises:** `DataError` when it has another shape, or maps are not `square` and must be.
    """
    shape = stack.shape
    frames = shape[:-1] if last else shape[1:]
    if len(shape) != 3 or (square and (frames[0] != frames[1] or frames[0] < 2)):
        axes = "frame, frame" if square else "age, lag"
        wanted = f"({axes}, map)" if last else f"(map, {axes})"
        why = ": a map must be square, with two frames or more" if square else ""
        other = shape[1:] if last else shape[:-1]
        if square and len(shape) == 3 and other[0] == other[1]:
            turn = "first" if last else "last"
            why += f'. If these are along the {turn} axis, say axis = "{turn}", in NXxpcs '
            why += f"storage_mode = one_array_q_{turn}"
        raise DataError(f"{where}: {key} has shape {shape}; {wanted} is needed{why}.")
    places = range(shape[-1] if last else shape[0])
    names = tuple(f"{key}[:, :, {i}]" if last else f"{key}[{i}]" for i in places)
    return names, tuple(Layer(stack, i, last) for i in places)


@dataclass(frozen=True)
class Window:
    """`n_frames` frames of a map from `low` on, along both axes, in which pairs are looked for.

    - `name`: that of the map in messages.
    - `dtype`, `baseline`: precision in which pairs are given, and what is added to them; `None` and
      0 for pairs as they are stored, in the precision for these.
    - `fills`: numbers, in that precision and with the baseline, that stand for no number.
    """

    whole: SlicedMap
    low: int
    n_frames: int
    name: str
    dtype: np.dtype | None = None
    baseline: float = 0.0
    fills: tuple[float, ...] = ()

    def held(self) -> "Window":
        """The same with these frames in memory."""
        frames = slice(self.low, self.low + self.n_frames)
        return replace(self, whole=np.asarray(self.whole[frames, frames]), low=0)

    def __getitem__(self, block: tuple[slice, slice], /) -> np.ndarray:
        rows, columns = (slice(one.start + self.low, one.stop + self.low) for one in block)
        # Not as they are stored: the difference of two small integers need not be one.
        return np.asarray(self.whole[rows, columns], self.dtype or worked_dtype(self.whole.dtype))

    def band(self, half: Half, rows: slice) -> np.ndarray:
        """Pairs i ≤ j with i in `rows`, `(row, n_frames − rows.start)`.

        `half` says which triangle holds the pairs, or their mean; with both, a pair is NaN when
        either says so.
        What stands below the diagonal means nothing.
        """
        right = slice(rows.start, self.n_frames)
        found = self[right, rows].T if half == "lower" else self[rows, right]
        if half == "both":
            found = np.where(np.isfinite(self[right, rows].T), found, np.nan)
        if half == "mean":
            other = self[right, rows].T
            # What only one of them has is no mean of both.
            found = np.where((found == 0) != (other == 0), np.nan, 0.5 * (found + other))
        found = found + found.dtype.type(self.baseline) if self.baseline else found
        return np.where(np.isin(found, self.fills), np.nan, found) if self.fills else found


@dataclass(frozen=True, kw_only=True)
class RawMaps:
    """Maps as a file or a dictionary holds them, before anything is chosen, checked or read.

    - `path`, `layout`: where this is from; `checksum` finds its SHA-256.
    - `names`: HDF5 path or dictionary key of each map; `maps`: the maps, read by blocks.
    - `q` [1/Å], `phi` [degrees]: one for each map; `q_name`, `phi_name`: where they were found.
    - `azimuths`: whether phi is known; where it is not, zeros stand there.
    - `frame_time`: time between two frames [s] before stride and averaging; `None` if not stored.
    - `other_time`: what the file leaves open whether it is in place of `frame_time` [s].
    - `begin`: frames of the series before the first row of the maps; `begin_name`: where that is.
    - `origin`: time of the first row [s] by stored times, which counts in place of `begin`.
    - `step`: stride times average, so that maps have one row every `step` frames.
    - `intensity`, `intensity_name`: mean intensity of the frames of each row, where it is stored.
    - `t`: explicit frame times [s]; they win over `frame_time`.
    - `ages`, `lags`: edges or centres of bins [s] where maps are means over bins `(age, lag)`.
    - `gap`: gap [Å] when stored.
    - `sigma`: the standard deviations `(map, frame, frame)`; `absolute_sigma` says whether they
      are known absolutely.
    - `diagonal`: raw diagonals `(map, frame)` when they are stored apart from the maps.
    - `triangle`: which one holds numbers, when the layout says that only one does.
    - `baseline`: number to add so that full decorrelation means one; `None` where it is not said.
    - `stack`: the maps as one array when they already lie in memory; `owned` allows to change it.
    - `keys`: everything that was read, for the provenance; `notes`: remarks in sentences.
    - `refused`: why what was found under a name means nothing, unless it is given.
    - `doubts`: about what the file contradicts itself; `q_ranges`: least and largest q [1/Å] that
      energy, distance and pixels allow for each map, NaN or `None` where they do not tell.
    - `q_given`: q is not stored, it is as given, or 1 stands for it.
    - `place`: where in the file this is and how the file is opened, to read it again.
    """

    path: str
    layout: str
    names: tuple[str, ...]
    maps: Sequence[SlicedMap]
    q: np.ndarray
    phi: np.ndarray
    q_name: str
    phi_name: str
    time_name: str
    checksum: Callable[[], str] = no_checksum
    azimuths: bool = True
    frame_time: float | None = None
    other_time: float | None = None
    step: int = 1
    begin: int = 0
    begin_name: str = ""
    origin: float | None = None
    intensity: np.ndarray | None = None
    intensity_name: str = ""
    t: np.ndarray | None = None
    ages: np.ndarray | None = None
    lags: np.ndarray | None = None
    gap: float | None = None
    gap_name: str = "gap"
    sigma: Any = None
    absolute_sigma: bool = True
    diagonal: Any = None
    triangle: Triangle | None = None
    baseline: float | None = None
    stack: np.ndarray | None = None
    owned: bool = False
    keys: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    doubts: Set[Doubt] = frozenset()
    q_ranges: np.ndarray | None = None
    q_given: bool = False
    place: Place = Place()

    @property
    def where(self) -> str:
        """Start of an error message: the file, or the kind of dictionary."""
        return self.path if self.path != "memory" else f"dictionary ({self.layout} form)"

    @property
    def remarks(self) -> tuple[str, ...]:
        """All that was remarked, with what means nothing and was not used."""
        return (*self.notes, *(f"{why} It was not used." for why in self.refused.values()))

    def refusing(self, name: str, why: str) -> "RawMaps":
        """The same where what was found under a name means nothing; a reason found before stays."""
        return replace(self, refused={name: f"{self.where}: {name} {why}", **self.refused})

    def given(self, name: str) -> "RawMaps":
        """The same once what was found under a name, if it means nothing, has been replaced."""
        notes = (f"{self.refused[name]} It was not used.",) if name in self.refused else ()
        refused = {key: why for key, why in self.refused.items() if key != name}
        return replace(self, refused=refused, notes=(*self.notes, *notes))


def rows_of(maps: Sequence[SlicedMap]) -> int | None:
    """Rows of the first map that can be reached, `None` without any."""
    shapes = (one.shape for one in maps if not isinstance(one, Unreached))
    return next((shape[0] for shape in shapes if shape), None)


DataSets = TwoTimeData | Sequence[TwoTimeData]


@dataclass(frozen=True)
class StoredMap:
    """One map with its place: what every layout stores."""

    data: TwoTimeData
    angle: int

    @property
    def q(self) -> float:
        return float(self.data.geometry.q)

    @property
    def phi(self) -> float:
        return float(self.data.geometry.phi[self.angle])

    def values(self, half: bool = False) -> np.ndarray:
        """c2 with NaN where masked, the raw diagonal, and zeros below it for half storage."""
        c2 = np.array(self.data.c2[self.angle])
        if self.data.root_weights is not None:
            c2[np.asarray(self.data.root_weights[self.angle]) == 0] = np.nan
        np.fill_diagonal(c2, np.asarray(self.data.diagonal[self.angle]))
        return np.triu(c2) if half else c2

    def sigma(self) -> np.ndarray:
        """1/weights, NaN where the weight is zero."""
        weights = np.asarray(self.data.root_weights)[self.angle]
        return np.divide(1.0, weights, out=np.full_like(weights, np.nan), where=weights != 0)


def maps_of(data: DataSets) -> list[StoredMap]:
    """Every map of all data sets, in their order.

    **Raises:** `DataError` without any, or when their frame times differ.
    """
    sets = [data] if isinstance(data, TwoTimeData) else list(data)
    maps = [StoredMap(one, angle) for one in sets for angle in range(one.n_angles)]
    if not maps:
        raise DataError("There is no data set to write.")
    times = np.asarray(maps[0].data.t)
    for one in sets:
        if np.shape(one.t) != times.shape or not np.allclose(one.t, times, rtol=1e-9, atol=0):
            raise DataError("Data sets of one file must have the same frame times.")
    return maps


def frame_time_of(maps: list[StoredMap], step: int) -> float:
    """Time of one detector frame [s].

    **Raises:** `DataError` for frames that are not equidistant, which only own and NPZ can hold.
    """
    t = np.asarray(maps[0].data.t, np.float64)
    steps = np.diff(t)
    if not np.allclose(steps, steps.mean(), rtol=1e-6, atol=0):
        raise DataError(
            f"Frames are {steps.min():.6g} to {steps.max():.6g} s apart; this layout stores one "
            "frame time only. Use write_own or write_npz."
        )
    return float((t[-1] - t[0]) / (t.size - 1)) / step


def needs_sigma(data: TwoTimeData) -> bool:
    """Weights that are only zero or one are a mask, which NaN in c2 expresses."""
    if data.root_weights is None:
        return False
    return data.absolute_sigma or not is_mask(data.root_weights)
