"""APS-U layout (NeXus, beamline 8-ID): one dataset for each bin of a q-φ map."""

import os

import numpy as np

from ...errors import DataError
from ...files import replacing
from ..two_time import TwoTimeData
from .described import Description
from .hdf5 import maps_in, read_frame_time, read_list, read_steps, read_whole, trailing_number
from .maps import DataSets, RawMaps, frame_time_of, maps_of
from .opened import Group

NAME = "aps-u"
ANALYSIS = "xpcs"
Q_LIST, PHI_LIST = "qmap/dynamic_v_list_dim0", "qmap/dynamic_v_list_dim1"
INDEX_MAPPING = "qmap/dynamic_index_mapping"
BINS, MAPS = "twotime/processed_bins", "twotime/correlation_map"
STEPS = ("twotime/config/stride_frame", "twotime/config/avg_frame")
FRAME_TIME = "entry/instrument/detector_1/frame_time"
COUNT_TIME = "entry/instrument/detector_1/count_time"
ABOUT = Description(
    required=(
        "`xpcs/qmap/dynamic_v_list_dim0` (q,): q [1/Å]",
        "`xpcs/qmap/dynamic_v_list_dim1` (phi,): azimuth [deg]",
        "`xpcs/twotime/processed_bins` (map,): bins from 1, q slowest",
        "`xpcs/twotime/correlation_map/c2_00001`, … (frame, frame): the maps",
    ),
    optional=(
        "`entry/instrument/detector_1/frame_time`: frame time [s]; else `count_time` with a note, "
        "or give `dt`",
        "`xpcs/qmap/dynamic_index_mapping` (bin,): elements of the grid that bins stand for",
        "`xpcs/twotime/config/stride_frame`, `…/avg_frame`: 1 when absent",
        "`xpcs_1`, …: further analyses; say which with `analysis`",
    ),
    guessed=("sorted by the number in their names, maps belong to the bins one after the other",),
    refused=("bins outside the grid", "maps named after bins that are listed in another order"),
)


def analyses(file: Group) -> dict[str, str]:
    """Group of each analysis of an APS-U file, which holds its results as well."""
    marks = (Q_LIST, MAPS)
    return {
        name: name
        for name in file
        if all(file.reach(f"{name}/{mark}") is not None for mark in marks)
    }


def read(file: Group, analysis: str = ANALYSIS) -> RawMaps:
    """Lists and maps of one analysis in an APS-U file.

    Bin b (1-based) is element b − 1 of the q-φ map, through `dynamic_index_mapping` when the file
    has one; q varies slowest: iq = bin // n_phi, iphi = bin % n_phi.

    **Raises:** `DataError` naming what is missing or does not fit.
    """
    where = file.filename
    notes: list[str] = []
    q_name, phi_name, bin_name, mapping_name, map_name = (
        f"{analysis}/{key}" for key in (Q_LIST, PHI_LIST, BINS, INDEX_MAPPING, MAPS)
    )
    q_list = read_list(file, q_name, "1/Å", notes)
    phi_list = read_list(file, phi_name, "deg", notes)
    names, maps = maps_in(file, map_name)
    element, lists = _bins(file, bin_name, map_name, names) - 1, (q_name, phi_name, bin_name)
    key = bin_name
    if mapping_name in file:
        mapping = read_whole(file, mapping_name)
        _check_inside(where, f"{bin_name} into {mapping_name}", element, mapping.size)
        element, key, lists = mapping[element], mapping_name, (*lists, mapping_name)
    grid = f" ({q_list.size} q × {phi_list.size} phi)"
    _check_inside(where, key, element, q_list.size * phi_list.size, grid)
    step, steps = read_steps(file, tuple(f"{analysis}/{key}" for key in STEPS))
    time_name, frame_time = read_frame_time(file, (FRAME_TIME, COUNT_TIME), notes)
    return RawMaps(
        path=where,
        layout=NAME,
        names=names,
        maps=maps,
        q=q_list[element // phi_list.size],
        phi=phi_list[element % phi_list.size],
        q_name=q_name,
        phi_name=phi_name,
        time_name=time_name,
        frame_time=frame_time,
        step=step,
        keys=(*lists, *steps, time_name),
        notes=tuple(notes),
    )


def _bins(file: Group, key: str, folder: str, names: tuple[str, ...]) -> np.ndarray:
    """processed_bins, after checking that they belong to the sorted names of the maps."""
    bins = read_whole(file, key)
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
        file[FRAME_TIME] = np.full((1, 1), frame_time)
        file[COUNT_TIME] = np.full((1, 1), frame_time)


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
