"""Older APS layout: one column of q and φ for each map in `exchange/C2T_all`."""

import os
import re

import numpy as np

from ...errors import DataError
from ...files import replacing
from ..checks import distinct
from .hdf5 import (
    Remarks,
    around,
    enclosing,
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
from .opened import Array, Group
from .scattering import Optics, q_ranges
from .series import read_frames, read_series

NAME = "aps-old"
# Where one analysis is; others of the same file are numbered or named by its `output_data`.
ANALYSIS, RESULTS = "xpcs", "exchange"
Q_LIST, PHI_LIST, BINS, OUTPUT = "dqlist", "dphilist", "qphi_bin_to_process", "output_data"
MAPS = "C2T_all"
# Numbers and mean intensities of frames, beside the maps.
INTENSITIES = "frameSum"
STEPS = ("stride_frames", "avg_frames")
_DETECTOR, _TAKEN = "measurement/instrument/detector", "measurement/instrument/acquisition"
TIMES = (f"{_DETECTOR}/exposure_period", f"{_DETECTOR}/exposure_time")
# First and last frame that were correlated, counted from one, and the first of the series.
BEGIN, END, FIRST = "data_begin_todo", "data_end_todo", "data_begin"
# Regions of pixels, and what q follows from where the detector stands where it did at the time that
# its centre was found.
REGIONS = "dqmap"
ENERGY = "measurement/instrument/source_begin/energy"
PIXEL = (f"{_DETECTOR}/x_pixel_size", f"{_DETECTOR}/y_pixel_size")
CENTRE = (f"{_TAKEN}/beam_center_x", f"{_TAKEN}/beam_center_y")
STAGES = (
    (f"{_TAKEN}/stage_x", f"{_TAKEN}/stage_zero_x"),
    (f"{_TAKEN}/stage_y", f"{_TAKEN}/stage_zero_y"),
)
ABOUT = Description(
    required=(
        "`xpcs/dqlist` (1, bin): q [1/Å]",
        "`exchange/C2T_all/g2_00001`, … (frame, frame): the maps",
    ),
    optional=(
        "`xpcs/dphilist` (1, bin): azimuth [deg]; else `phi` as given, or 0 with a note",
        "`measurement/instrument/detector/exposure_period`: frame time [s]; else `exposure_time` "
        "with a note, or give `dt`",
        "`xpcs/data_begin_todo`, `xpcs/data_end_todo`, `xpcs/data_begin`: frames from 1 that were "
        "correlated, from which the time of the first row follows",
        "`xpcs/qphi_bin_to_process` (map, 1): bins from 1, where only some were correlated",
        "`xpcs/stride_frames`, `xpcs/avg_frames`: 1 when absent",
        "`exchange/frameSum`: frames without intensity are masked; times beside them are compared "
        "with the frame time, and say when the maps begin where they count from the start of the "
        "series and `data_begin_todo` is absent",
        "energy, distance, pixels and beam centre below `measurement/instrument`, `xpcs/dqmap`: "
        "compared with q",
        "`xpcs/output_data`: the group of the results, such as `/exchange`",
        "`xpcs_1`, `exchange_1`, …: further analyses; say which with `analysis`",
    ),
    guessed=(
        "a map is that of the bin in its name where the names are those of the processed bins, "
        "else maps and bins go together in order",
        "without `qphi_bin_to_process`, numbers above the number of maps are bins as well",
        "without `exchange` beside `xpcs`, the only group with `C2T_all` holds the results",
        "`xpcs` is the group that holds `dqlist`, in other groups or not; `measurement` is looked "
        "for there and around",
    ),
    refused=(
        "lists and maps of different lengths, unless the bins are known",
        "maps named after their bins while the bins are listed in another order",
    ),
)


def analyses(file: Group) -> dict[str, str]:
    """Group of each analysis of an older APS file, with the group of its results."""
    out = {}
    for path in groups_with(file, Q_LIST):
        if isinstance(file.reach(f"{path}/{Q_LIST}"), Array):
            results = _results_of(file, path)
            if isinstance(file.reach(f"{results}/{MAPS}"), Group):
                out[path] = results
    return out


def _results_of(file: Group, analysis: str) -> str:
    """The group of the results: the one that an entry names, or the one of the same number."""
    base, there = owner_of(analysis), _with_maps(file)
    said = file.get(f"{analysis}/{OUTPUT}")
    if isinstance(said, Array):
        # In a group of its own, a file still says where they were when it was no group.
        named = "".join(said.words()[:1]).strip().strip("/")
        places = [joined(group, named) for group in enclosing(base)] if named else []
        for place in places:
            if f"{place}/{MAPS}" in file:
                return place
    number = re.search(r"(_\d+)?$", analysis)
    own = joined(base, f"{RESULTS}{number.group() if number else ''}")
    usual = joined(base, RESULTS)
    beside = [one for one in there if owner_of(one) == base]
    # Where neither is there the only results must be those of the only analysis.
    only = next((one for one in (beside, there) if len(one) == 1), [])
    found = [one for one in (own, usual) if one in there] or only
    return found[0] if found else usual


def _with_maps(file: Group) -> list[str]:
    """Groups of results."""
    there = groups_with(file, MAPS)
    return [path for path in there if isinstance(file.reach(f"{path}/{MAPS}"), Group)]


def read(file: Group, analysis: str = ANALYSIS) -> RawMaps:
    """Lists and maps of one analysis in an older APS file.

    Azimuths may be absent.

    **Raises:** `DataError` naming what is missing or does not fit.
    """
    notes = Remarks()
    q_name, phi_name, begin, end, first = (
        f"{analysis}/{key}" for key in (Q_LIST, PHI_LIST, BEGIN, END, FIRST)
    )
    q = read_list(file, q_name, "1/Å", notes)
    azimuths = phi_name in file
    phi = read_list(file, phi_name, "deg", notes) if azimuths else np.zeros(q.size)
    results = _results_of(file, analysis)
    names, maps = maps_in(file, f"{results}/{MAPS}", notes)
    others = [one for one in _with_maps(file) if one not in {results, *analyses(file).values()}]
    if others:
        notes.append(
            f"There are maps in {', '.join(others)} as well, which no analysis names; those of "
            f"{results} were taken."
        )
    column, keys = _columns(file, analysis, names, q.size, notes)
    if column is not None and phi.size == q.size:
        q, phi = q[column], phi[column]
    step, steps = read_steps(file, tuple(f"{analysis}/{key}" for key in STEPS))
    owner = around(file, owner_of(analysis), TIMES, notes)
    period, exposure = (joined(owner, key) for key in TIMES)
    time = read_frame_time(file, (period, exposure), notes)
    rows = rows_of(maps)
    series = read_series(
        file, begin, end, zero=first, inclusive=True, rows=rows, step=step, notes=notes
    )
    intensities = f"{results}/{INTENSITIES}"
    frames = read_frames(file, intensities, series, time, step, rows, notes)
    bins = np.arange(len(names)) + 1 if column is None else column + 1
    optics = _optics(owner, f"{analysis}/{REGIONS}")
    ranges = None if _moved(file, owner) else q_ranges(file, optics, bins)
    return RawMaps(
        path=file.filename,
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
        step=step,
        begin=series.begin,
        begin_name=series.name,
        origin=frames.origin,
        intensity=frames.intensity,
        intensity_name=intensities,
        keys=(
            q_name,
            *((phi_name,) if azimuths else ()),
            *keys,
            *steps,
            time.name,
            *series.keys,
        ),
        notes=tuple(notes),
        refused=notes.refused,
        doubts=notes.doubts,
        q_ranges=ranges,
    )


def _optics(owner: str, regions: str) -> Optics:
    """What q follows from, in the group that the instrument is in."""
    (x, y), (right, down) = ((joined(owner, one) for one in two) for two in (PIXEL, CENTRE))
    energy, distance = joined(owner, ENERGY), joined(owner, f"{_DETECTOR}/distance")
    return Optics(energy, distance, (x, y), (right, down), regions)


def _moved(file: Group, owner: str) -> bool:
    """Whether the detector was moved after its centre was found."""
    found = [[file.reach(joined(owner, path)) for path in pair] for pair in STAGES]
    return any(
        not (isinstance(one, Array) and isinstance(two, Array))
        or not np.array_equal(one[()], two[()])
        for one, two in found
        if one is not None or two is not None
    )


def _columns(
    file: Group, analysis: str, names: tuple[str, ...], n_bins: int, notes: Remarks
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The column of the lists that each map belongs to; `None` for one after the other.

    **Raises:** `DataError` when that is not clear.
    """
    where, key = file.filename, f"{analysis}/{BINS}"
    numbers = np.array([trailing_number(name) for name in names])
    if key in file:
        bins = read_bins(file, key)
        inside = bins.size == numbers.size and np.all((bins >= 1) & (bins <= n_bins))
        if inside:
            if np.array_equal(np.sort(bins), numbers) and not np.array_equal(bins, numbers):
                if np.array_equal(numbers, np.arange(1, numbers.size + 1)):
                    raise DataError(
                        f"{where}: {key} lists {bins.tolist()[:8]}, and the maps are numbered from "
                        "1 on, so it is not clear whether by bin or by place. Sort the bins."
                    )
                bins = numbers
            distinct(where, key, bins)
            return bins - 1, (key,)
        if numbers.size != n_bins:
            raise DataError(
                f"{where}: {key} lists {bins.size} bins ({bins.tolist()[:8]}, …) for "
                f"{numbers.size} maps and {n_bins} columns of {analysis}/{Q_LIST}; each map needs "
                "its bin, from 1."
            )
    elif (
        numbers.size < numbers.max() <= n_bins
        and numbers.min() >= 1
        and np.all(np.diff(numbers) > 0)
    ):
        notes.append(f"The maps were taken as those of the bins in their names, {key} is absent.")
        return numbers - 1, ()
    return None, ()


def write_aps_old(
    path: str | os.PathLike[str],
    data: DataSets,
    *,
    half: bool = False,
    stride: int = 1,
    average: int = 1,
) -> None:
    """Write the older APS layout; arguments and errors as in `write_aps_u`."""
    import h5py

    maps = maps_of(data)
    frame_time = frame_time_of(maps, stride * average)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file[f"{ANALYSIS}/{Q_LIST}"] = np.array([[one.q for one in maps]])
        file[f"{ANALYSIS}/{PHI_LIST}"] = np.array([[one.phi for one in maps]])
        for number, one in enumerate(maps):
            file[f"{RESULTS}/{MAPS}/g2_{number + 1:05d}"] = one.values(half)
        for key, value in zip(STEPS, (stride, average), strict=True):
            file[f"{ANALYSIS}/{key}"] = np.full((1, 1), value)
        file[TIMES[0]] = np.full((1, 1), frame_time)
