"""NXxpcs, the NeXus application definition: attributes say how the maps are stored."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from ...errors import DataError
from ...files import replacing
from ..checks import numbers
from .aps_u import sorted_keys, trailing_number
from .hdf5 import dataset, read_list, read_scalar, text_attribute
from .raw import RawMaps, Storage
from .writing import DataSets, StoredMap, frame_time_of, maps_of

if TYPE_CHECKING:
    import h5py

NAME = "nxxpcs"
MAPS = "twotime/two_time_corr_func"
ROI_MAP = "instrument/masks/dynamic_roi_map"
Q_LIST = "instrument/masks/dynamic_q_list"
PHI_LIST = "instrument/masks/dynamic_phi_list"
FRAME_TIME = "instrument/detector/frame_time"
COUNT_TIME = "instrument/detector/count_time"
STORAGE_MODES = ("one_array_q_first", "one_array_q_last", "data_exchange_keys")


def entry_of(file: "h5py.File") -> str | None:
    """Name of the first entry that holds two-time maps, `None` without one."""
    import h5py

    for name in file:
        if isinstance(file.get(name), h5py.Group) and f"{name}/{MAPS}" in file:
            return name
    return None


def read(file: "h5py.File") -> RawMaps:
    """Lists and maps of an NXxpcs file.

    **Raises:** `DataError` naming what is missing or an attribute with an unknown value.
    """
    import h5py

    where = file.filename
    entry = entry_of(file)
    if entry is None:
        raise DataError(f"{where}: no entry holds {MAPS}; it is no NXxpcs file with two-time maps.")
    notes: list[str] = []
    key = f"{entry}/{MAPS}"
    found = file[key]
    mode = _choice(found, key, "storage_mode", STORAGE_MODES, notes)
    storage = _choice(found, key, "populated_elements", ("all", "upper_half", "lower_half"), notes)
    origin = _choice(found, key, "time_origin_location", ("upper_left", "lower_left"), notes)
    if origin == "lower_left" and storage != "all":
        # which half is meant once the rows are turned round is left open by the definition
        storage = None
    baseline = _baseline(found, key, notes)
    labels: np.ndarray | None = None
    if isinstance(found, h5py.Group):
        keys = sorted_keys(list(found.keys()))
        names = tuple(f"{key}/{one}" for one in keys)
        maps = [dataset(file, name) for name in names]
        shapes = tuple(one.shape for one in maps)
        dtype = maps[0].dtype if maps else np.dtype(np.float64)
        labels = np.array([trailing_number(one) for one in keys])
        fetch = _keyed(maps)
    else:
        stack = dataset(file, key)
        names, shapes, fetch = _one_array(where, key, stack, mode)
        dtype = stack.dtype
    q, phi = _lists(file, entry, len(names), labels, notes)
    time_name = next(
        (name for name in (f"{entry}/{FRAME_TIME}", f"{entry}/{COUNT_TIME}") if name in file),
        f"{entry}/{FRAME_TIME}",
    )
    if time_name.endswith(COUNT_TIME):
        notes.append(f"{entry}/{FRAME_TIME} is absent; {time_name} was taken for it.")
    return RawMaps(
        path=where,
        layout=NAME,
        names=names,
        shapes=shapes,
        read=_reader(fetch, shapes, origin == "lower_left"),
        dtype=dtype,
        q=q,
        phi=phi,
        q_name=f"{entry}/{Q_LIST}",
        phi_name=f"{entry}/{PHI_LIST}",
        time_name=time_name,
        frame_time=read_scalar(file, time_name, "s", notes) if time_name in file else None,
        storage=cast(Storage, storage or "unknown"),
        baseline=1.0 - baseline,
        keys=(key, f"{entry}/{Q_LIST}", f"{entry}/{PHI_LIST}", time_name),
        notes=tuple(notes),
    )


def _choice(
    found: Any, key: str, name: str, allowed: tuple[str, ...], notes: list[str]
) -> str | None:
    value = text_attribute(found, name)
    if value is None:
        notes.append(f"The attribute {name} of {key} is absent; the maps themselves were asked.")
        return None
    if value not in allowed:
        raise DataError(
            f"{found.file.filename}: the attribute {name} of {key} is {value!r}; this reader knows "
            f"{', '.join(allowed)}. Store the maps in one of these ways."
        )
    return value


def _baseline(found: Any, key: str, notes: list[str]) -> int:
    value = text_attribute(found, "baseline_reference")
    if value is None:
        notes.append(f"The attribute baseline_reference of {key} is absent; 1 was assumed.")
        return 1
    if value not in ("0", "1", "0.0", "1.0"):
        raise DataError(
            f"{found.file.filename}: the attribute baseline_reference of {key} is {value!r}; full "
            "decorrelation means 0 or 1."
        )
    return int(float(value))


def _keyed(maps: list["h5py.Dataset"]) -> Callable[..., Any]:
    return lambda index, rows, columns: maps[index][rows, columns]


def _one_array(
    where: str, key: str, stack: "h5py.Dataset", mode: str | None
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...], Callable[..., Any]]:
    shape = stack.shape
    if len(shape) == 2:
        return (key,), (shape,), lambda index, rows, columns: stack[rows, columns]
    if len(shape) != 3:
        raise DataError(f"{where}: {key} has shape {shape}; maps are two- or three-dimensional.")
    first = mode == "one_array_q_first" or (mode is None and shape[1] == shape[2])
    count, one = (shape[0], shape[1:]) if first else (shape[2], shape[:2])
    names = tuple(f"{key}[{i}]" if first else f"{key}[:, :, {i}]" for i in range(count))
    if first:
        return names, (one,) * count, lambda index, rows, columns: stack[index, rows, columns]
    return names, (one,) * count, lambda index, rows, columns: stack[rows, columns, index]


def _reader(
    fetch: Callable[..., Any], shapes: tuple[tuple[int, ...], ...], flipped: bool
) -> Callable[[int, slice, slice], np.ndarray]:
    """With the origin at the lower left, rows run from the last frame to the first."""

    def read(index: int, rows: slice, columns: slice) -> np.ndarray:
        if not flipped:
            return fetch(index, rows, columns)
        n = shapes[index][0]
        return fetch(index, slice(n - rows.stop, n - rows.start), columns)[::-1]

    return read


def _lists(
    file: "h5py.File", entry: str, n_maps: int, labels: np.ndarray | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """q and φ of each map; keys that cover only some regions are matched by their label."""
    lists = []
    for key, unit in ((f"{entry}/{Q_LIST}", "1/Å"), (f"{entry}/{PHI_LIST}", "deg")):
        values = read_list(file, key, unit, notes)
        if labels is not None and values.size > n_maps:
            if np.any((labels < 1) | (labels > values.size)):
                raise DataError(
                    f"{file.filename}: {key} lists {values.size} regions but the keys of the maps "
                    f"name {labels.tolist()[:8]}; keys must be region labels counted from 1."
                )
            values = values[labels - 1]
        lists.append(values)
    if f"{entry}/{ROI_MAP}" in file:
        regions = np.unique(
            numbers(file.filename, ROI_MAP, dataset(file, f"{entry}/{ROI_MAP}")[()])
        )
        used = int(np.count_nonzero(regions > 0))
        if used != n_maps and labels is None:
            notes.append(f"{entry}/{ROI_MAP} has {used} regions for {n_maps} maps.")
    return lists[0], lists[1]


def write_nxxpcs(
    path: str | os.PathLike[str],
    data: DataSets,
    *,
    storage_mode: Literal[
        "one_array_q_first", "one_array_q_last", "data_exchange_keys"
    ] = "one_array_q_first",
    populated_elements: Literal["all", "upper_half", "lower_half"] = "all",
    baseline_reference: Literal[0, 1] = 1,
    time_origin_location: Literal["upper_left", "lower_left"] = "upper_left",
) -> None:
    """Write an NXxpcs file with one region for each map; sigma and gap have no place in it.

    The four options are attributes of that definition and change how the maps are stored.

    **Raises:** `DataError` for frames that are not equidistant or a missing folder.
    """
    import h5py

    maps = maps_of(data)
    frame_time = frame_time_of(maps, 1)

    def stored(one: StoredMap) -> np.ndarray:
        c2 = one.values(half=False) - (1 - baseline_reference)
        if populated_elements != "all":
            c2 = np.triu(c2) if populated_elements == "upper_half" else np.tril(c2)
        return c2[::-1] if time_origin_location == "lower_left" else c2

    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = "NXxpcs"
        if storage_mode == "data_exchange_keys":
            found = entry.create_group(MAPS)
            for number, one in enumerate(maps):
                found[f"{number + 1:05d}"] = stored(one)
        else:
            axis = 0 if storage_mode == "one_array_q_first" else -1
            entry[MAPS] = np.stack([stored(one) for one in maps], axis=axis)
            found = entry[MAPS]
        found.attrs["storage_mode"] = storage_mode
        found.attrs["baseline_reference"] = baseline_reference
        found.attrs["time_origin_location"] = time_origin_location
        found.attrs["populated_elements"] = populated_elements
        entry[ROI_MAP] = np.arange(len(maps) + 1)[None]
        entry[Q_LIST] = np.array([one.q for one in maps])
        entry[Q_LIST].attrs["units"] = "1/angstrom"
        entry[PHI_LIST] = np.array([one.phi for one in maps])
        entry[PHI_LIST].attrs["units"] = "deg"
        entry[FRAME_TIME] = frame_time
        entry[FRAME_TIME].attrs["units"] = "s"
