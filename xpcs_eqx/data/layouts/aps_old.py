"""Older APS layout: one column of q and φ for each map in `exchange/C2T_all`."""

import os
from typing import TYPE_CHECKING

import numpy as np

from ...files import replacing
from .hdf5 import Remarks, maps_in, read_frame_time, read_list, read_steps
from .maps import DataSets, RawMaps, frame_time_of, maps_of, rows_of
from .series import read_intensities, read_series

if TYPE_CHECKING:
    import h5py

NAME = "aps-old"
Q_LIST = "xpcs/dqlist"
PHI_LIST = "xpcs/dphilist"
MAPS = "exchange/C2T_all"
STEPS = ("xpcs/stride_frames", "xpcs/avg_frames")
FRAME_TIME = "measurement/instrument/detector/exposure_period"
EXPOSURE = "measurement/instrument/detector/exposure_time"
# First and last frame that were correlated, counted from one, and the first of the series.
BEGIN, END, FIRST = "xpcs/data_begin_todo", "xpcs/data_end_todo", "xpcs/data_begin"
# Frame numbers and mean intensities.
INTENSITIES = "exchange/frameSum"
MARKS = (Q_LIST, MAPS)


def read(file: "h5py.File") -> RawMaps:
    """Lists and maps of an older APS file; the i-th key (sorted) belongs to the i-th column.

    Azimuths may be absent.

    **Raises:** `DataError` naming what is missing or does not fit.
    """
    notes = Remarks()
    q = read_list(file, Q_LIST, "1/Å", notes)
    azimuths = PHI_LIST in file
    phi = read_list(file, PHI_LIST, "deg", notes) if azimuths else np.zeros(q.size)
    names, maps = maps_in(file, MAPS)
    step, steps = read_steps(file, STEPS)
    time = read_frame_time(file, (FRAME_TIME, EXPOSURE), notes)
    series = read_series(
        file, BEGIN, END, zero=FIRST, inclusive=True, rows=rows_of(maps), step=step, notes=notes
    )
    intensity = read_intensities(
        file, INTENSITIES, begin=series.begin, step=step, rows=rows_of(maps), notes=notes
    )
    return RawMaps(
        path=file.filename,
        layout=NAME,
        names=names,
        maps=maps,
        q=q,
        phi=phi,
        q_name=Q_LIST,
        phi_name=PHI_LIST,
        azimuths=azimuths,
        time_name=time.name,
        frame_time=time.value,
        exposure=time.exposure,
        step=step,
        begin=series.begin,
        begin_name=series.name,
        intensity=intensity,
        intensity_name=INTENSITIES,
        keys=(Q_LIST, *([PHI_LIST] if azimuths else []), *steps, time.name, *series.keys),
        notes=tuple(notes),
        refused=notes.refused,
    )


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
        file[Q_LIST] = np.array([[one.q for one in maps]])
        file[PHI_LIST] = np.array([[one.phi for one in maps]])
        for number, one in enumerate(maps):
            file[f"{MAPS}/g2_{number + 1:05d}"] = one.values(half)
        for key, value in zip(STEPS, (stride, average), strict=True):
            file[key] = np.full((1, 1), value)
        file[FRAME_TIME] = np.full((1, 1), frame_time)
