"""Maps of any HDF5 or NPZ file, where the user says what is where."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import equinox as eqx
import numpy as np

from ...errors import DataError
from ..checks import near_misses, numbers, scalar
from .hdf5 import Remarks, dataset, maps_in, read_list, read_scalar, unit_words
from .maps import Description, RawMaps, SlicedMap, layers, worked_in_place
from .opened import Group

NAME = "generic"
AXES = ("t1_t2", "age_lag", "lag_age")
# What is done about a path where nothing is.
_REMEDY = "Correct the path that was given (GenericLayout, data.generic in a configuration)."
ABOUT = Description(
    required=(
        "`maps`: path of one map, of a stack of maps or of a group of maps, which stand in the "
        "order of the numbers at the ends of their names; a name in an NPZ",
    ),
    optional=(
        "`axis`: `first` or `last`, where the maps of a stack are counted",
        "`q`, `phi`: one number, one for each map, or the path of a list; else the `q` and `phi` "
        "given beside, or 1 and 0 with a note",
        "`frame_time`, `t`: path of the frame time or of all times [s]; else give `dt`",
        "`axes`: `t1_t2`; `age_lag` or `lag_age` for means over bins, with `ages` and `lags`: "
        "numbers or paths of their edges or centres [s]",
        "`sigma`: of bins, path of their standard deviations",
    ),
    guessed=("a half that is empty is completed, as in every layout",),
    refused=(
        "maps that are not square, unless they are bins",
        "lists of another length than the maps",
    ),
)


def _listed(value: Any) -> Any:
    """A path or one number as it is, several as a tuple."""
    if value is None or isinstance(value, str):
        return value
    array = numbers("GenericLayout", "q and phi", value)
    return float(array) if array.ndim == 0 else tuple(array.reshape(-1).tolist())


class GenericLayout(eqx.Module):
    """What is where in a file of no known layout; for `layout=` of `load` and its like.

    - `maps`: HDF5 path of a map `(frame, frame)`, of a stack of maps or of a group that holds one
      dataset for each map; the name of an array in an NPZ file.
    - `axis`: along which axis of a stack maps are counted, `"first"` or `"last"`.
    - `q` [1/Å], `phi` [degrees]: one number, one for each map, or the path of a list in the file.
    - `frame_time`, `t`: paths of the time between two frames [s] and of the times of all of them.
    - `axes`: of a map, `"t1_t2"`; or `"age_lag"` and `"lag_age"` for means over bins, which
      `load_bins` reads.
    - `ages`, `lags`: edges of the bins of (t1 + t2)/2 and t2 − t1 [s], or their centres: numbers,
      or a path. Ages count from the first frame where there is no `t`.
    - `sigma`: path of the standard deviations of bins.

    **Raises:** `DataError` when `axis` or `axes` is another word or numbers are none.

    >>> import tempfile
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> c2 = 1 + 0.2 * np.exp(-np.abs(np.arange(3)[:, None] - np.arange(3)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/maps.npz", c2=np.stack([c2, c2], axis=-1))
    ...     layout = xe.data.GenericLayout("c2", axis="last", q=0.005, phi=[0.0, 90.0])
    ...     data = xe.load(f"{folder}/maps.npz", layout=layout, dt=0.1)
    >>> data.n_angles, data.n_frames, float(data.geometry.q)
    (2, 3, 0.005)
    """

    maps: str = eqx.field(static=True)
    axis: Literal["first", "last"] = eqx.field(static=True, default="first")
    q: float | tuple[float, ...] | str | None = eqx.field(
        static=True, default=None, converter=_listed
    )
    phi: float | tuple[float, ...] | str | None = eqx.field(
        static=True, default=None, converter=_listed
    )
    frame_time: str | None = eqx.field(static=True, default=None)
    t: str | None = eqx.field(static=True, default=None)
    axes: Literal["t1_t2", "age_lag", "lag_age"] = eqx.field(static=True, default="t1_t2")
    ages: float | tuple[float, ...] | str | None = eqx.field(
        static=True, default=None, converter=_listed
    )
    lags: float | tuple[float, ...] | str | None = eqx.field(
        static=True, default=None, converter=_listed
    )
    sigma: str | None = eqx.field(static=True, default=None)

    @property
    def binned(self) -> bool:
        """Whether maps are means over bins of age and lag."""
        return self.axes != "t1_t2"

    def __check_init__(self) -> None:
        for name in ("maps", "frame_time", "t", "sigma"):
            path = getattr(self, name)
            if not (isinstance(path, str) or (path is None and name != "maps")):
                raise DataError(f"GenericLayout: {name} is {path!r}; give a path as text.")
        if self.axis not in ("first", "last"):
            raise DataError(f"axis is {self.axis!r}; maps are counted along 'first' or 'last'.")
        if self.axes not in AXES:
            raise DataError(f"axes is {self.axes!r}; known are {', '.join(map(repr, AXES))}.")
        told = [name for name in ("ages", "lags") if getattr(self, name) is not None]
        if self.binned and len(told) < 2:
            raise DataError(
                f"GenericLayout: axes = {self.axes!r} needs ages and lags, the edges or the "
                "centres of the bins [s]; give both."
            )
        told += ["sigma"] * (self.sigma is not None)
        if told and not self.binned:
            raise DataError(
                f"GenericLayout: {', '.join(told)} is for bins; give axes = 'age_lag' or 'lag_age'."
            )


def read(file: Group, layout: GenericLayout, units_known: bool = False) -> RawMaps:
    """The maps of an HDF5 file as the user described it.

    - `units_known`: numbers without a unit are in those of the library; else that is remarked.

    **Raises:** `DataError` naming what is not there or does not fit.
    """
    notes = Remarks()

    def remark(path: str, unit: str) -> None:
        if not (unit_words(dataset(file, path, _REMEDY)) or units_known):
            notes.append(_taken_as(path, unit))

    def maps(path: str) -> tuple[tuple[str, ...], tuple[SlicedMap, ...]]:
        if isinstance(file.get(path), Group):
            return maps_in(file, path, notes)
        return _stack(file.filename, layout, path, dataset(file, path, _REMEDY))

    def flat(path: str, unit: str) -> np.ndarray:
        remark(path, unit)
        return read_list(file, path, unit, notes)

    def one(path: str, unit: str) -> float:
        remark(path, unit)
        return read_scalar(file, path, unit, notes)

    return _raw(file.filename, layout, maps, flat, one, notes, NAME)


def _taken_as(path: str, unit: str) -> str:
    return f"{path} has no unit and was taken as {unit}; give numbers where that is wrong."


def read_arrays(
    path: str, layout: GenericLayout, arrays: Mapping[str, Any], name: str = NAME
) -> RawMaps:
    """The same of the arrays of an NPZ or NPY file, which nobody else holds; `name` is that of the
    layout, and only the user's own leaves open in which units these are.

    **Raises:** `DataError` as `read`.
    """

    def array(key: str) -> Any:
        if key not in arrays:
            raise DataError(f"{path}: there is no array {key!r}.{near_misses(key, arrays)}")
        return arrays[key]

    read: list[np.ndarray] = []

    def maps(key: str) -> tuple[tuple[str, ...], tuple[SlicedMap, ...]]:
        found = np.asarray(array(key))
        found = worked_in_place(found) if found.ndim > 1 else found
        read.append(found)
        return _stack(path, layout, key, found)

    notes = Remarks()

    def remark(key: str, unit: str) -> None:
        if name == NAME:
            notes.append(_taken_as(key, unit))

    def flat(key: str, unit: str) -> np.ndarray:
        remark(key, unit)
        return numbers(path, key, array(key)).reshape(-1)

    def one(key: str, unit: str) -> float:
        remark(key, unit)
        return scalar(path, key, array(key))

    raw = _raw(path, layout, maps, flat, one, notes, name)
    if layout.binned:
        return raw
    (found,) = read
    if found.ndim == 2:
        found = found[None]
    elif layout.axis == "last":
        found = np.moveaxis(found, -1, 0)
    return replace(raw, stack=found, owned=True)


def _stack(
    where: str, layout: GenericLayout, key: str, found: Any
) -> tuple[tuple[str, ...], tuple[SlicedMap, ...]]:
    if len(found.shape) == 2:
        return (key,), (found,)
    return layers(where, key, found, last=layout.axis == "last", square=not layout.binned)


def _raw(
    where: str,
    layout: GenericLayout,
    maps: Callable[[str], tuple[tuple[str, ...], tuple[SlicedMap, ...]]],
    flat: Callable[[str, str], np.ndarray],
    one: Callable[[str, str], float],
    notes: Remarks,
    name: str,
) -> RawMaps:
    """What is described; `maps`, `flat` and `one` read maps, a list and a number of a unit."""
    names, found = maps(layout.maps)
    spacing = None if layout.frame_time is None else one(layout.frame_time, "s")
    t = None if layout.t is None else flat(layout.t, "s")
    sigma, edges = None, {}
    if layout.binned:
        if layout.sigma is not None:
            sigma = maps(layout.sigma)[1]
            if len(sigma) != len(found):
                raise DataError(
                    f"{where}: {layout.sigma} holds {len(sigma)} maps, but {layout.maps} "
                    f"{len(found)}; give one sigma for each bin."
                )
        if layout.axes == "lag_age":
            found = tuple(map(_Turned, found))
            sigma = None if sigma is None else tuple(map(_Turned, sigma))
        for key, given in (("ages", layout.ages), ("lags", layout.lags)):
            told = flat(given, "s") if isinstance(given, str) else given
            if given in notes.refused:
                raise DataError(f"{notes.refused[given]} Give the {key} as numbers [s].")
            edges[key] = np.array(told, float, ndmin=1)

    def each(key: Any, unit: str, absent: float) -> np.ndarray:
        values = flat(key, unit) if isinstance(key, str) else absent if key is None else key
        values = np.atleast_1d(values)
        return np.full(len(found), values[0]) if values.size == 1 else values

    paths = (layout.q, layout.phi, layout.frame_time, layout.t, layout.ages, layout.lags)
    stored = (layout.maps, *paths, layout.sigma)
    return RawMaps(
        path=where,
        layout=name,
        names=names,
        maps=found,
        q=each(layout.q, "1/Å", 1.0),
        phi=each(layout.phi, "deg", 0.0),
        q_name=layout.q if isinstance(layout.q, str) else "q",
        phi_name=layout.phi if isinstance(layout.phi, str) else "phi",
        time_name=layout.t or layout.frame_time or "dt",
        frame_time=spacing,
        t=t,
        **edges,
        sigma=sigma,
        keys=tuple(dict.fromkeys(key for key in stored if isinstance(key, str))),
        notes=tuple(notes),
        q_given=layout.q is None,
        azimuths=layout.phi is not None,
        refused=notes.refused,
        doubts=notes.doubts,
    )


@dataclass(frozen=True)
class _Turned:
    """Bins `(lag, age)` as `(age, lag)`, read when they are asked for."""

    stored: SlicedMap

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape[::-1]

    @property
    def dtype(self) -> np.dtype:
        return self.stored.dtype

    def __getitem__(self, block: tuple[slice, slice], /) -> Any:
        return np.asarray(self.stored[block[1], block[0]]).T
