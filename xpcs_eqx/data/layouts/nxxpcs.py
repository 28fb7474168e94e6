"""NXxpcs, the NeXus application definition: attributes say how the maps are stored."""

import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ...errors import DataError
from ...files import replacing
from ..checks import distinct, numbers
from .hdf5 import (
    Remarks,
    around,
    dataset,
    enclosing,
    groups_with,
    joined,
    maps_in,
    read_frame_time,
    read_list,
    read_time,
    trailing_number,
    unit_words,
)
from .maps import (
    DataSets,
    Description,
    RawMaps,
    SlicedMap,
    StoredMap,
    Triangle,
    frame_time_of,
    layers,
    maps_of,
)
from .opened import Array, Group
from .scattering import Optics, q_ranges
from .units import unit_of

NAME = "nxxpcs"
MAPS, ONE_TIME = "twotime/two_time_corr_func", "data/g2"
ROI_MAP = "instrument/masks/dynamic_roi_map"
Q_LIST = "instrument/masks/dynamic_q_list"
PHI_LIST = "instrument/masks/dynamic_phi_list"
INSTRUMENT, DETECTOR = "instrument", "detector"
TIMES = ("frame_time", "count_time")
# What is done about an attribute that is not there.
_ASKED = "the maps themselves were asked"
StorageMode = Literal["one_array_q_first", "one_array_q_last", "data_exchange_keys"]
Populated = Literal["all", "upper_half", "lower_half"]
Origin = Literal["upper_left", "lower_left"]


ABOUT = Description(
    required=(
        "`ENTRY/twotime/two_time_corr_func`: the maps, one dataset (map, frame, frame) or "
        "(frame, frame, map), or a group with one for each region",
        "`ENTRY/instrument/masks/dynamic_q_list` (region,): q [1/Å]",
    ),
    optional=(
        "`ENTRY/instrument/masks/dynamic_phi_list` (region,): azimuth [deg]; else `phi` as given, "
        "or 0 with a note, which static models do not need",
        "`ENTRY/instrument/DETECTOR/frame_time`: frame time [s]; else `count_time` with a note, or "
        "give `dt`",
        "the attributes `storage_mode`, `populated_elements`, `time_origin_location` and "
        "`baseline_reference` of the maps",
        "`ENTRY/instrument/masks/dynamic_roi_map`: compared with the number of maps",
        "`ENTRY/instrument/incident_beam/incident_energy`, `ENTRY/instrument/DETECTOR/distance`, "
        "`x_pixel_size`, `y_pixel_size`, `beam_center_x`, `beam_center_y`: with the region map, "
        "compared with q",
    ),
    guessed=(
        "ENTRY is the group that holds the maps, in other groups or not; say which with "
        "`analysis` where several do",
        "what an entry within another has not is that of the group around it, with a note",
        "DETECTOR is the group of the instrument that has a frame time, whatever its name",
        "without attributes, what the maps themselves show; keys of regions are labels from 1",
        "azimuths in 1/length, the unit that the definition gives them, are degrees",
    ),
    refused=(
        "unknown values of the attributes, `storage_mode` = `other` among them",
        "detectors whose frame times differ, without `dt`",
    ),
)


def analyses(file: Group) -> dict[str, str]:
    """Every entry that holds two-time maps, at the top of the file or in a group of it."""
    return {path: path for path in groups_with(file, MAPS)}


def _times_of(file: Group, entry: str, notes: Remarks) -> tuple[str, str]:
    """Paths of the frame time and of what stands in for it, of the detector that has them.

    **Raises:** `DataError` when detectors have different ones.
    """
    for owner in enclosing(entry):
        place = joined(owner, INSTRUMENT)
        instrument = file.get(place)
        names = sorted(instrument) if isinstance(instrument, Group) else []
        names.sort(key=lambda name: name != DETECTOR)
        for time in TIMES:
            keys = [f"{place}/{name}/{time}" for name in names]
            keys = [key for key in keys if isinstance(file.reach(key), Array)]
            if not keys:
                continue
            found = {read_time(file, key, Remarks()): key for key in keys}
            if len(found) > 1:
                said = ", ".join(f"{key} {value:g}" for value, key in found.items())
                notes.refused[keys[0]] = (
                    f"{file.filename}: the detectors have different frame times ({said} s), and "
                    "nothing says which of them was correlated."
                )
            if owner != entry:
                notes.append(f"{entry} has no {time}; {keys[0]}, around it, was taken.")
            first = keys[0].rpartition("/")[0]
            return f"{first}/{TIMES[0]}", f"{first}/{TIMES[1]}"
    first = f"{entry}/{INSTRUMENT}/{DETECTOR}"
    return f"{first}/{TIMES[0]}", f"{first}/{TIMES[1]}"


def read(file: Group, analysis: str = "entry") -> RawMaps:
    """Lists and maps of one entry of an NXxpcs file.

    **Raises:** `DataError` naming what is missing or an attribute with an unknown value.
    """
    where, entry = file.filename, analysis
    if file.get(f"{entry}/{MAPS}") is None:
        raise DataError(f"{where}: no entry holds {MAPS}; it is no NXxpcs file with two-time maps.")
    notes = Remarks()
    key = f"{entry}/{MAPS}"
    found = file[key]
    mode = _storage_mode(found, key, notes)
    populated = _attribute(found, key, "populated_elements", get_args(Populated), _ASKED, notes)
    origin = _attribute(found, key, "time_origin_location", get_args(Origin), _ASKED, notes)
    triangle: Triangle | None = None
    # Which half is meant once the rows are turned round is left open by the definition.
    if populated in ("upper_half", "lower_half") and origin != "lower_left":
        triangle = "upper" if populated == "upper_half" else "lower"
    # Full decorrelation, which is one here.
    references = ("1", "0", "1.0", "0.0")
    reference = _attribute(found, key, "baseline_reference", references, _ASKED, notes)
    labels: np.ndarray | None = None
    if isinstance(found, Group):
        names, maps = maps_in(file, key, notes)
        labels = np.array([trailing_number(name) for name in names])
        # Without a number at the end the labels say nothing.
        distinct(where, key, labels[labels > 0])
    else:
        names, maps = _one_array(where, key, found, mode)
    if origin == "lower_left":
        maps = tuple(_Flipped(one) for one in maps)
    # An entry within another one may leave to that what holds for both.
    owner = around(file, entry, (Q_LIST,), notes)
    q_name, phi_name, roi_map = (joined(owner, key) for key in (Q_LIST, PHI_LIST, ROI_MAP))
    q = _list(file, q_name, "1/Å", len(names), labels, notes)
    azimuths = phi_name in file
    phi = np.zeros(len(names))
    if azimuths:
        phi = _list(file, phi_name, "deg", len(names), labels, notes)
        _forgive_unit(file, phi_name, notes)
    _compare_regions(file, roi_map, len(names), labels, notes)
    times = _times_of(file, entry, notes)
    time = read_frame_time(file, times, notes)
    detector = times[0].rpartition("/")[0]
    optics = Optics(
        f"{detector.rpartition('/')[0]}/incident_beam/incident_energy",
        f"{detector}/distance",
        (f"{detector}/x_pixel_size", f"{detector}/y_pixel_size"),
        (f"{detector}/beam_center_x", f"{detector}/beam_center_y"),
        roi_map,
    )
    regions = np.arange(len(names)) + 1
    if labels is not None and np.all(labels > 0):
        regions = labels
    ranges = q_ranges(file, optics, regions)
    return RawMaps(
        path=where,
        layout=NAME,
        names=names,
        maps=maps,
        q=q,
        phi=phi,
        q_name=q_name,
        phi_name=phi_name,
        azimuths=azimuths,
        time_name=time.name,
        frame_time=time.value,
        other_time=time.other,
        triangle=triangle,
        baseline=None if reference is None else 1.0 - float(reference),
        keys=(key, q_name, *((phi_name,) if azimuths else ()), time.name),
        notes=tuple(notes),
        refused=notes.refused,
        doubts=notes.doubts,
        q_ranges=ranges,
    )


def _attribute(
    found: Array | Group,
    key: str,
    name: str,
    allowed: tuple[str, ...],
    absent: str,
    notes: Remarks,
) -> str | None:
    """An attribute with one of the `allowed` values; where it is absent, `absent` is remarked."""
    value = found.text(name)
    if value is None:
        notes.append(f"The attribute {name} of {key} is absent; {absent}.")
        return None
    value = value.strip().casefold()
    if value not in allowed:
        shape = "a group of them" if isinstance(found, Group) else f"of shape {found.shape}"
        raise DataError(
            f"{found.filename}: the attribute {name} of {key} is {value!r}; this reader knows "
            f"{', '.join(allowed)}. The maps are {shape}: store them in one of these ways, or say "
            'what is where with layout = "generic" (data.generic; data.GenericLayout in Python).'
        )
    return value


def _storage_mode(found: Array | Group, key: str, notes: Remarks) -> str | None:
    """How the maps are stored; `None` where the attribute says nothing, or what they are not."""
    mode = _attribute(found, key, "storage_mode", get_args(StorageMode), _ASKED, notes)
    in_group = isinstance(found, Group)
    if mode is not None and in_group != (mode == "data_exchange_keys"):
        what = "a group of maps" if in_group else f"one array, of shape {found.shape}"
        notes.append(
            f"The attribute storage_mode of {key} is {mode!r}, but it is {what}; {_ASKED}."
        )
        mode = None
    if not in_group and mode is None and len(found.shape) == 3 and len(set(found.shape)) == 1:
        notes.append(
            f"{key} has shape {found.shape} and may count the maps along either end; they were "
            "taken to lie along the first axis. If it is the last, correct the attribute "
            "storage_mode to 'one_array_q_last'."
        )
    return mode


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
    return layers(where, key, stack, last=not first)


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


def _list(
    file: Group,
    key: str,
    unit: str,
    n_maps: int,
    labels: np.ndarray | None,
    notes: Remarks,
) -> np.ndarray:
    """One value for each map; keys that cover only some regions are matched by their label.

    In which unit they are, the definition leaves to the file.
    """
    values = read_list(file, key, unit, notes)
    if not unit_words(dataset(file, key)):
        notes.append(f"{key} has no unit and was taken as {unit}.")
    if labels is None or values.size <= n_maps:
        return values
    if np.any((labels < 1) | (labels > values.size)):
        raise DataError(
            f"{file.filename}: {key} lists {values.size} regions but the keys of the maps name "
            f"{labels.tolist()[:8]}; keys must be region labels counted from 1."
        )
    return values[labels - 1]


def _forgive_unit(file: Group, key: str, notes: Remarks) -> None:
    """Take azimuths in the unit that the definition demands of them, that of q, as degrees."""
    words = unit_words(dataset(file, key))
    kinds = {"" if unit is None else unit.kind for unit in map(unit_of, words)}
    if key in notes.refused and kinds == {"inverse length"}:
        del notes.refused[key]
        notes.append(
            f"The unit of {key}, {words[0]!r}, is the one that NXxpcs demands and none of an "
            "angle; the azimuths were taken as degrees."
        )


def _compare_regions(
    file: Group, key: str, n_maps: int, labels: np.ndarray | None, notes: Remarks
) -> None:
    """Remarks where the map of regions has another number of them."""
    if key in file and labels is None:
        found = dataset(file, key)
        if found.dtype.kind in "fiub":
            used = int(np.count_nonzero(np.unique(numbers(file.filename, key, found[()])) > 0))
            if used != n_maps:
                notes.append(f"{key} has {used} regions for {n_maps} maps.")


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
            (f"{INSTRUMENT}/{DETECTOR}/{TIMES[0]}", frame_time, "s"),
        ):
            entry[key] = values
            entry[key].attrs["units"] = unit
