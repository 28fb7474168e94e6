"""Maps of any HDF5 or NPZ file, where the user says what is where."""

from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import numpy as np

from ...errors import DataError
from ..checks import near_misses, numbers, scalar
from .described import Description
from .hdf5 import Remarks, dataset, maps_in, read_list, read_scalar
from .maps import RawMaps, SlicedMap, layers
from .opened import Group

NAME = "generic"
ABOUT = Description(
    required=(
        "`maps`: path of one map, of a stack of maps or of a group of maps; a name in an NPZ",
    ),
    optional=(
        "`axis`: `first` or `last`, where the maps of a stack are counted",
        "`q`, `phi`: one number, one for each map, or the path of a list; else the `q` and `phi` "
        "given beside, or 1 and 0 with a note",
        "`frame_time`, `t`: path of the frame time or of all times [s]; else give `dt`",
    ),
    guessed=("a half that is empty is completed, as in every layout",),
    refused=("maps that are not square", "lists of another length than the maps"),
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

    **Raises:** `DataError` when `axis` is another word or numbers are none.

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

    def __check_init__(self) -> None:
        for name in ("maps", "frame_time", "t"):
            path = getattr(self, name)
            if not (isinstance(path, str) or (path is None and name != "maps")):
                raise DataError(f"GenericLayout: {name} is {path!r}; give a path as text.")
        if self.axis not in ("first", "last"):
            raise DataError(f"axis is {self.axis!r}; maps are counted along 'first' or 'last'.")


def read(file: Group, layout: GenericLayout) -> RawMaps:
    """The maps of an HDF5 file as the user described it.

    **Raises:** `DataError` naming what is not there or does not fit.
    """
    found = file.get(layout.maps)
    if isinstance(found, Group):
        names, maps = maps_in(file, layout.maps)
    else:
        names, maps = _stack(file.filename, layout, dataset(file, layout.maps))
    notes = Remarks()
    time_name, frame_time = layout.frame_time or layout.t or "dt", None
    if layout.frame_time is not None:
        frame_time = read_scalar(file, layout.frame_time, "s", notes)
    t = None if layout.t is None else read_list(file, layout.t, "s", notes)
    lists = {
        key: read_list(file, key, unit, notes)
        for key, unit in ((layout.q, "1/Å"), (layout.phi, "deg"))
        if isinstance(key, str)
    }
    return _raw(file.filename, layout, names, maps, lists, time_name, frame_time, t, notes)


def read_arrays(path: str, layout: GenericLayout, arrays: Mapping[str, Any]) -> RawMaps:
    """The same of the arrays of an NPZ file.

    **Raises:** `DataError` as `read`.
    """
    wanted = (layout.maps, layout.q, layout.phi, layout.frame_time, layout.t)
    for name in wanted:
        if isinstance(name, str) and name not in arrays:
            raise DataError(f"{path}: there is no array {name!r}.{near_misses(name, arrays)}")
    names, maps = _stack(path, layout, np.asarray(arrays[layout.maps]))
    times = (layout.frame_time, layout.t)
    time_name = layout.t if layout.frame_time is None else layout.frame_time
    frame_time, t = (None if name is None else numbers(path, name, arrays[name]) for name in times)
    lists = {
        key: numbers(path, key, arrays[key]).reshape(-1)
        for key in (layout.q, layout.phi)
        if isinstance(key, str)
    }
    spacing = None if frame_time is None else scalar(path, str(time_name), frame_time)
    flat = None if t is None else t.reshape(-1)
    return _raw(path, layout, names, maps, lists, time_name or "dt", spacing, flat, Remarks())


def _stack(
    where: str, layout: GenericLayout, found: Any
) -> tuple[tuple[str, ...], tuple[SlicedMap, ...]]:
    if len(found.shape) == 2:
        return (layout.maps,), (found,)
    return layers(where, layout.maps, found, last=layout.axis == "last")


def _raw(
    where: str,
    layout: GenericLayout,
    names: tuple[str, ...],
    maps: tuple[SlicedMap, ...],
    lists: Mapping[Any, np.ndarray],
    time_name: str,
    frame_time: float | None,
    t: np.ndarray | None,
    notes: Remarks,
) -> RawMaps:
    def each(key: Any, absent: float) -> np.ndarray:
        values = (
            lists[key] if isinstance(key, str) else np.atleast_1d(absent if key is None else key)
        )
        return np.full(len(maps), values[0]) if values.size == 1 else values

    return RawMaps(
        path=where,
        layout=NAME,
        names=names,
        maps=maps,
        q=each(layout.q, 1.0),
        phi=each(layout.phi, 0.0),
        q_name=layout.q if isinstance(layout.q, str) else "q",
        phi_name=layout.phi if isinstance(layout.phi, str) else "phi",
        time_name=time_name,
        frame_time=frame_time,
        t=t,
        keys=(layout.maps, *lists, *(() if time_name == "dt" else (time_name,))),
        notes=tuple(notes),
        q_given=layout.q is None,
        azimuths=layout.phi is not None,
        refused=notes.refused,
        doubts=notes.doubts,
    )
