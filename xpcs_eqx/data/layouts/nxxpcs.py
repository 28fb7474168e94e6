"""NXxpcs, the NeXus application definition: attributes say how the maps are stored."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ...errors import DataError
from ...files import replacing
from ..checks import distinct, numbers
from .hdf5 import (
    Remarks,
    dataset,
    maps_in,
    read_frame_time,
    read_list,
    text_attribute,
    trailing_number,
)
from .maps import (
    DataSets,
    Layer,
    RawMaps,
    SlicedMap,
    StoredMap,
    Triangle,
    frame_time_of,
    maps_of,
)

if TYPE_CHECKING:
    import h5py

NAME = "nxxpcs"
MAPS = "twotime/two_time_corr_func"
ROI_MAP = "instrument/masks/dynamic_roi_map"
Q_LIST = "instrument/masks/dynamic_q_list"
PHI_LIST = "instrument/masks/dynamic_phi_list"
FRAME_TIME = "instrument/detector/frame_time"
COUNT_TIME = "instrument/detector/count_time"
StorageMode = Literal["one_array_q_first", "one_array_q_last", "data_exchange_keys"]
Populated = Literal["all", "upper_half", "lower_half"]
Origin = Literal["upper_left", "lower_left"]


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
    notes = Remarks()
    key = f"{entry}/{MAPS}"
    found = file[key]
    asked = "the maps themselves were asked"
    mode = _attribute(found, key, "storage_mode", get_args(StorageMode), asked, notes)
    populated = _attribute(found, key, "populated_elements", get_args(Populated), asked, notes)
    origin = _attribute(found, key, "time_origin_location", get_args(Origin), asked, notes)
    triangle: Triangle | None = None
    # Which half is meant once the rows are turned round is left open by the definition.
    if populated in ("upper_half", "lower_half") and origin != "lower_left":
        triangle = "upper" if populated == "upper_half" else "lower"
    # Full decorrelation, which is one here.
    references = ("1", "0", "1.0", "0.0")
    reference = _attribute(found, key, "baseline_reference", references, asked, notes)
    labels: np.ndarray | None = None
    if isinstance(found, h5py.Group):
        names, maps = maps_in(file, key)
        labels = np.array([trailing_number(name) for name in names])
    else:
        names, maps = _one_array(where, key, found, mode)
    if origin == "lower_left":
        maps = tuple(_Flipped(one) for one in maps)
    q, phi = _lists(file, entry, len(names), labels, notes)
    azimuths = f"{entry}/{PHI_LIST}" in file
    time = read_frame_time(file, (f"{entry}/{FRAME_TIME}", f"{entry}/{COUNT_TIME}"), notes)
    return RawMaps(
        path=where,
        layout=NAME,
        names=names,
        maps=maps,
        q=q,
        phi=phi,
        q_name=f"{entry}/{Q_LIST}",
        phi_name=f"{entry}/{PHI_LIST}",
        azimuths=azimuths,
        time_name=time.name,
        frame_time=time.value,
        exposure=time.exposure,
        triangle=triangle,
        baseline=None if reference is None else 1.0 - float(reference),
        keys=(
            key,
            f"{entry}/{Q_LIST}",
            *([f"{entry}/{PHI_LIST}"] if azimuths else []),
            time.name,
        ),
        notes=tuple(notes),
        refused=notes.refused,
    )


def _attribute(
    found: Any, key: str, name: str, allowed: tuple[str, ...], absent: str, notes: Remarks
) -> str | None:
    """An attribute with one of the `allowed` values; where it is absent, `absent` is remarked."""
    value = text_attribute(found, name)
    if value is None:
        notes.append(f"The attribute {name} of {key} is absent; {absent}.")
    elif value not in allowed:
        raise DataError(
            f"{found.file.filename}: the attribute {name} of {key} is {value!r}; this reader knows "
            f"{', '.join(allowed)}. Store the maps in one of these ways."
        )
    return value


def _one_array(
    where: str, key: str, stack: Any, mode: str | None
) -> tuple[tuple[str, ...], tuple[SlicedMap, ...]]:
    """Names of the maps in a single dataset, and the maps."""
    shape = stack.shape
    if len(shape) == 2:
        return (key,), (stack,)
    if len(shape) != 3:
        raise DataError(f"{where}: {key} has shape {shape}; maps are two- or three-dimensional.")
    first = mode == "one_array_q_first" or (mode is None and shape[1] == shape[2])
    places = range(shape[0] if first else shape[2])
    names = tuple(f"{key}[{i}]" if first else f"{key}[:, :, {i}]" for i in places)
    return names, tuple(Layer(stack, i, last=not first) for i in places)


@dataclass(frozen=True)
class _Flipped:
    """A map with the origin at the lower left: its rows run from the last frame to the first."""

    stored: SlicedMap

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype:
        return self.stored.dtype

    def __getitem__(self, block: tuple[slice, slice], /) -> Any:
        (rows, columns), n = block, self.shape[0]
        return self.stored[slice(n - rows.stop, n - rows.start), columns][::-1]


def _lists(
    file: "h5py.File", entry: str, n_maps: int, labels: np.ndarray | None, notes: Remarks
) -> tuple[np.ndarray, np.ndarray]:
    """q and φ of each map, zero where there is none.

    Keys that cover only some regions are matched by their label.
    """
    lists = []
    for key, unit in ((f"{entry}/{Q_LIST}", "1/Å"), (f"{entry}/{PHI_LIST}", "deg")):
        if unit == "deg" and key not in file:
            lists.append(np.zeros(n_maps))
            continue
        values = read_list(file, key, unit, notes)
        if labels is not None and values.size > n_maps:
            if np.any((labels < 1) | (labels > values.size)):
                raise DataError(
                    f"{file.filename}: {key} lists {values.size} regions but the keys of the maps "
                    f"name {labels.tolist()[:8]}; keys must be region labels counted from 1."
                )
            distinct(file.filename, f"{entry}/{MAPS}", labels)
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
    storage_mode: StorageMode = "one_array_q_first",
    populated_elements: Populated = "all",
    baseline_reference: Literal[0, 1] = 1,
    time_origin_location: Origin = "upper_left",
) -> None:
    """Write an NXxpcs file with one region for each map; sigma and gap have no place in it.

    The four options are attributes of that definition and change how the maps are stored.

    **Raises:** `DataError` for frames that are not equidistant or a missing folder.
    """
    import h5py

    maps = maps_of(data)
    frame_time = frame_time_of(maps, 1)

    def stored(one: StoredMap) -> np.ndarray:
        c2 = one.values() - (1 - baseline_reference)
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
        for key, values, unit in (
            (Q_LIST, np.array([one.q for one in maps]), "1/angstrom"),
            (PHI_LIST, np.array([one.phi for one in maps]), "deg"),
            (FRAME_TIME, frame_time, "s"),
        ):
            entry[key] = values
            entry[key].attrs["units"] = unit
