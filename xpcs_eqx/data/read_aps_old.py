"""Older APS layout: one column of q and φ for each map in `exchange/C2T_all`."""

from typing import TYPE_CHECKING

import numpy as np

from .hdf5 import dataset, group, read_list, read_scalar, read_steps
from .raw import RawMaps
from .read_aps_u import sorted_keys

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
