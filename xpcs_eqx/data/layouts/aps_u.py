"""APS-U layout (NeXus, beamline 8-ID): one dataset for each bin of a q-φ map."""

import os

import numpy as np

from ...errors import DataError
from ...files import replacing
from ..checks import distinct
from ..two_time import TwoTimeData
from .hdf5 import (
    Remarks,
    around,
    dataset,
    groups_with,
    joined,
    maps_in,
    owner_of,
    read_bins,
    read_frame_time,
    read_list,
    read_steps,
    trailing_number,
)
from .maps import DataSets, Description, RawMaps, frame_time_of, maps_of, rows_of
from .opened import Group
from .scattering import Optics, q_ranges
from .series import read_frames, read_series

NAME = "aps-u"
ANALYSIS = "xpcs"
# Of one analysis:
Q_LIST, PHI_LIST = "qmap/dynamic_v_list_dim0", "qmap/dynamic_v_list_dim1"
INDEX_MAPPING = "qmap/dynamic_index_mapping"
BINS, MAPS = "twotime/processed_bins", "twotime/correlation_map"
# What the dimensions of the q-φ map are, and their units, where their attributes do not say so.
NAMES, WORDS = "qmap/map_names", "qmap/map_units"
_AXES = {
    **dict.fromkeys(("q", "scattering vector", "momentum transfer", "wavevector"), "q"),
    **dict.fromkeys(("phi", "φ", "ϕ", "chi", "χ", "azimuth", "azimuthal angle"), "phi"),
}
INTENSITIES = "spatial_mean/intensity_vs_time"
# First frame that was correlated, counted from zero, and one after the last.
BEGIN, END = "twotime/config/begin_frame", "twotime/config/end_frame"
STEPS = ("twotime/config/stride_frame", "twotime/config/avg_frame")
TIMES = ("frame_time", "count_time")
# Where these are: around the analysis, or in the entry that it was moved to.
DETECTOR = "instrument/detector_1"
DETECTORS = (f"entry/{DETECTOR}", DETECTOR)
ABOUT = Description(
    required=(
        "`xpcs/qmap/dynamic_v_list_dim0` (q,): q [1/Å]",
        "`xpcs/twotime/processed_bins` (map,): bins from 1, q slowest",
        "`xpcs/twotime/correlation_map/c2_00001`, … (frame, frame): the maps",
    ),
    optional=(
        "`xpcs/qmap/dynamic_v_list_dim1` (phi,): azimuth [deg]; else `phi` as given, or 0 with a "
        "note",
        "`xpcs/qmap/map_names`, `map_units` and the attributes `name`, `units`: what the "
        "dimensions are; phi may be the first",
        "`xpcs/twotime/config/begin_frame`, `…/end_frame`: frames from 0 that were correlated, "
        "from which the time of the first row follows",
        "`xpcs/spatial_mean/intensity_vs_time`: frames without intensity are masked; times beside "
        "them are compared with the frame time, and say when the maps begin where they count from "
        "the start of the series and `begin_frame` is absent",
        "`xpcs/qmap/energy`, `detector_distance`, `pixel_size`, `beam_center_x`, `beam_center_y`, "
        "`dynamic_roi_map`: compared with q",
        "`entry/instrument/detector_1/frame_time`: frame time [s]; else `count_time` with a note, "
        "or give `dt`",
        "`xpcs/qmap/dynamic_index_mapping` (bin,): elements of the grid that bins stand for",
        "`xpcs/twotime/config/stride_frame`, `…/avg_frame`: 1 when absent",
        "`xpcs_1`, …: further analyses; say which with `analysis`",
    ),
    guessed=(
        "`xpcs` is the group that holds q and maps, in other groups or not; `entry` is looked "
        "for there and around",
        "sorted by the number in their names, maps belong to the bins one after the other",
    ),
    refused=(
        "bins outside the grid or listed twice",
        "maps named after bins that are listed in another order",
        "q-maps in pixels or other coordinates, unknown units",
    ),
)


def analyses(file: Group) -> dict[str, str]:
    """Group of each analysis of an APS-U file, which holds its results as well."""
    return {path: path for path in groups_with(file, Q_LIST, MAPS)}


def read(file: Group, analysis: str = ANALYSIS) -> RawMaps:
    """Lists and maps of one analysis in an APS-U file.

    Bin b (1-based) is element b − 1 of the q-φ map, through `dynamic_index_mapping` when the file
    has one; q varies slowest: iq = bin // n_phi, iphi = bin % n_phi, unless the names of the
    dimensions say that φ is the first.

    **Raises:** `DataError` naming what is missing or does not fit.
    """
    where = file.filename
    notes = Remarks()
    map_name, bin_name, mapping_name, begin, end = (
        f"{analysis}/{key}" for key in (MAPS, BINS, INDEX_MAPPING, BEGIN, END)
    )
    dimensions = (f"{analysis}/{Q_LIST}", f"{analysis}/{PHI_LIST}")
    names, maps = maps_in(file, map_name, notes)
    axes, is_q_first = _axes(file, analysis, dimensions, notes)
    bins = _bins(file, bin_name, map_name, names)
    element, key, lists = bins - 1, bin_name, (bin_name,)
    distinct(where, bin_name, bins)
    if mapping_name in file:
        mapping = read_bins(file, mapping_name)
        _check_inside(where, f"{bin_name} into {mapping_name}", element, mapping.size)
        element, key, lists = mapping[element], mapping_name, (*lists, mapping_name)
        distinct(where, mapping_name, element + 1)
    sizes = axes[0].size, axes[1].size
    first, second = ("q", "phi") if is_q_first else ("phi", "q")
    grid = f" ({sizes[0]} {first} × {sizes[1]} {second})"
    _check_inside(where, key, element, sizes[0] * sizes[1], grid)
    along = axes[0][element // sizes[1]], axes[1][element % sizes[1]]
    (q, phi), (q_name, phi_name) = (
        (along, dimensions) if is_q_first else (along[::-1], dimensions[::-1])
    )
    step, steps = read_steps(file, tuple(f"{analysis}/{one}" for one in STEPS))
    time = read_frame_time(file, _times_of(file, analysis, notes), notes)
    rows = rows_of(maps)
    series = read_series(
        file, begin, end, zero=0, inclusive=False, rows=rows, step=step, notes=notes
    )
    intensities = f"{analysis}/{INTENSITIES}"
    frames = read_frames(file, intensities, series, time, step, rows, notes)
    qmap = f"{analysis}/qmap"
    pixel, centre = f"{qmap}/pixel_size", (f"{qmap}/beam_center_x", f"{qmap}/beam_center_y")
    optics = Optics(
        f"{qmap}/energy", f"{qmap}/detector_distance", (pixel, pixel), centre,
        f"{qmap}/dynamic_roi_map",
    )  # fmt: skip
    ranges = q_ranges(file, optics, bins)
    there = [name for name in (q_name, phi_name) if name in file]
    return RawMaps(
        path=where,
        layout=NAME,
        names=names,
        maps=maps,
        q=q,
        phi=phi,
        q_name=q_name,
        phi_name=phi_name,
        azimuths=phi_name in file,
        time_name=time.name,
        frame_time=time.value,
        other_time=time.other,
        step=step,
        begin=series.begin,
        begin_name=series.name,
        origin=frames.origin,
        intensity=frames.intensity,
        intensity_name=intensities,
        keys=(*there, *lists, *steps, time.name, *series.keys),
        notes=tuple(notes),
        refused=notes.refused,
        doubts=notes.doubts,
        q_ranges=ranges,
    )


def _times_of(file: Group, analysis: str, notes: Remarks) -> tuple[str, str]:
    """Paths of the frame time and of what stands in for it."""
    base = owner_of(analysis)
    keys = tuple(f"{place}/{time}" for place in DETECTORS for time in TIMES)
    owner = around(file, base, keys, notes)
    key = next((one for one in keys if file.reach(joined(owner, one)) is not None), keys[0])
    place = joined(owner, owner_of(key))
    return f"{place}/{TIMES[0]}", f"{place}/{TIMES[1]}"


def _axes(
    file: Group, analysis: str, dimensions: tuple[str, str], notes: Remarks
) -> tuple[tuple[np.ndarray, np.ndarray], bool]:
    """The lists along both dimensions of the q-φ map, and whether the first is that of q.

    What a dimension is stands in `map_names` or its attribute `name`; nothing is q and φ. Without
    the second list the map has no azimuths, and one bin along it.
    """
    both_names = (f"{analysis}/{NAMES}", f"{analysis}/{WORDS}")
    listed = [dataset(file, key).words() if key in file else () for key in both_names]
    said: list[str] = []
    for k, key in enumerate(dimensions):
        own = file[key].text("name") if key in file else None
        both = {name for name in (own, *listed[0][k : k + 1]) if name and name.strip()}
        known = {_AXES.get(name.strip().strip("|").casefold(), name.strip()) for name in both}
        if len(known) > 1:
            raise DataError(
                f"{file.filename}: {key} is called {' and '.join(sorted(both))}, in its attribute "
                f"name and in {both_names[0]}, which contradict each other. Correct the wrong one."
            )
        said.append(known.pop() if known else "")
    is_q_first = said[0] != "phi" and said[1] != "q"
    wanted = ("q", "phi") if is_q_first else ("phi", "q")
    for name, found, key in zip(wanted, said, dimensions, strict=True):
        if found not in ("", name):
            called = " and ".join(repr(one) for one in said if one)
            notes.refused[key] = (
                f"{file.filename}: the dimensions of {dimensions[0].rpartition('/')[0]} are called "
                f"{called}; maps of q and phi are needed, so {key} cannot be taken for {name}."
            )
    axes = []
    for k, (key, name) in enumerate(zip(dimensions, wanted, strict=True)):
        if name == "phi" and key not in file:
            axes.append(np.zeros(1))
        elif key in notes.refused:
            axes.append(read_list(file, key, "", notes))
        else:
            unit = "1/Å" if name == "q" else "deg"
            axes.append(read_list(file, key, unit, notes, listed[1][k : k + 1]))
    return (axes[0], axes[1]), is_q_first


def _bins(file: Group, key: str, folder: str, names: tuple[str, ...]) -> np.ndarray:
    """processed_bins, after checking that they belong to the sorted names of the maps."""
    bins = read_bins(file, key)
    if bins.size != len(names):
        raise DataError(
            f"{file.filename}: {key} lists {bins.size} values but {folder} holds {len(names)} maps;"
            " each map needs its bin."
        )
    suffixes = [trailing_number(name) for name in names]
    if sorted(bins.tolist()) == suffixes and bins.tolist() != suffixes:
        raise DataError(
            f"{file.filename}: the maps in {folder} are named after their bins but {key} lists "
            f"{bins.tolist()[:8]} in another order than the sorted keys, so it is not clear which "
            "map is at which q and phi. Sort the bins."
        )
    return bins


def _check_inside(where: str, key: str, index: np.ndarray, size: int, what: str = "") -> None:
    bad = index[(index < 0) | (index >= size)]
    if bad.size:
        raise DataError(
            f"{where}: {key} points at bin {int(bad[0]) + 1} but there are {size} bins{what}."
        )


def write_aps_u(
    path: str | os.PathLike[str],
    data: DataSets,
    *,
    half: bool = False,
    index_mapping: bool = False,
    stride: int = 1,
    average: int = 1,
) -> None:
    """Write the APS-U layout; sigma and gap have no place in it.

    - `data`: one data set, or one for each q.
    - `half`: store the upper triangle only.
    - `index_mapping`: number the bins through `dynamic_index_mapping`, which lists the elements of
      the q-φ grid that are populated.
    - `stride`, `average`: written to the file; the frame time shrinks accordingly.

    The time of the first frame has no place either: give `time_origin` when reading.

    **Raises:** `DataError` for frames that are not equidistant or a missing folder.
    """
    import h5py

    maps = maps_of(data)
    frame_time = frame_time_of(maps, stride * average)
    sets = [data] if isinstance(data, TwoTimeData) else list(data)
    phi_list, columns = _columns(sets)
    elements = [iq * len(phi_list) + column for iq, one in enumerate(columns) for column in one]
    order = np.argsort(elements)
    bins = np.arange(len(elements)) if index_mapping else np.sort(elements)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file[f"{ANALYSIS}/{Q_LIST}"] = np.array([float(one.geometry.q) for one in sets])
        file[f"{ANALYSIS}/{PHI_LIST}"] = np.array(phi_list)
        if index_mapping:
            file[f"{ANALYSIS}/{INDEX_MAPPING}"] = np.sort(elements)
        file[f"{ANALYSIS}/{BINS}"] = bins + 1
        for number, index in zip(bins + 1, order, strict=True):
            file[f"{ANALYSIS}/{MAPS}/c2_{number:05d}"] = maps[index].values(half)
        for key, value in zip(STEPS, (stride, average), strict=True):
            file[f"{ANALYSIS}/{key}"] = value
        for name in TIMES:
            file[f"{DETECTORS[0]}/{name}"] = np.full((1, 1), frame_time)


def _columns(sets: list[TwoTimeData]) -> tuple[list[float], list[list[int]]]:
    """φ list of the grid and the columns of each data set; equal angles may occur several times."""
    phi_list: list[float] = []
    columns = []
    for one in sets:
        used: list[int] = []
        for phi in np.asarray(one.geometry.phi, np.float64).tolist():
            free = [i for i, other in enumerate(phi_list) if other == phi and i not in used]
            if not free:
                phi_list.append(phi)
                free = [len(phi_list) - 1]
            used.append(free[0])
        columns.append(used)
    return phi_list, columns
