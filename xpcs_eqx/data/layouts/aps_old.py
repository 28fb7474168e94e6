"""Older APS layout: one column of q and φ for each map in `exchange/C2T_all`."""

import os
from typing import TYPE_CHECKING

import numpy as np

from ...files import replacing
from .aps_u import sorted_keys
from .hdf5 import dataset, group, read_list, read_scalar, read_steps
from .raw import RawMaps
from .writing import DataSets, frame_time_of, maps_of

if TYPE_CHECKING:
    import h5py

NAME = "aps-old"
Q_LIST = "xpcs/dqlist"
PHI_LIST = "xpcs/dphilist"
MAPS = "exchange/C2T_all"
STEPS = ("xpcs/stride_frames", "xpcs/avg_frames")
FRAME_TIME = "measurement/instrument/detector/exposure_period"
MARKS = (Q_LIST, PHI_LIST, MAPS)


def read(file: "h5py.File") -> RawMaps:
    """Lists and maps of an older APS file; the i-th key (sorted) belongs to the i-th column.

    **Raises:** `DataError` naming what is missing or does not fit.
    """
    notes: list[str] = []
    q = read_list(file, Q_LIST, "1/Å", notes)
    phi = read_list(file, PHI_LIST, "deg", notes)
    names = tuple(f"{MAPS}/{key}" for key in sorted_keys(list(group(file, MAPS).keys())))
    found = [dataset(file, name) for name in names]
    step, steps = read_steps(file, STEPS)
    return RawMaps(
        path=file.filename,
        layout=NAME,
        names=names,
        shapes=tuple(one.shape for one in found),
        read=lambda index, rows, columns: found[index][rows, columns],
        dtype=found[0].dtype if found else np.dtype(np.float64),
        q=q,
        phi=phi,
        q_name=Q_LIST,
        phi_name=PHI_LIST,
        time_name=FRAME_TIME,
        frame_time=read_scalar(file, FRAME_TIME, "s", notes) if FRAME_TIME in file else None,
        step=step,
        keys=(Q_LIST, PHI_LIST, *steps, FRAME_TIME),
        notes=tuple(notes),
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
