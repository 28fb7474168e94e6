"""The layouts of files with two-time maps, each read and written in one file of its own.

A new layout is a file here, with `NAME` and `read`, and a line in `READERS` and in `recognise`.
"""

from typing import TYPE_CHECKING

from ...errors import DataError
from . import aps_old, aps_u, nxxpcs, own

if TYPE_CHECKING:
    import h5py

READERS = {layout.NAME: layout.read for layout in (own, aps_u, aps_old, nxxpcs)}
LAYOUTS = (*READERS, "npz", "npy")


def recognise(file: "h5py.File") -> str:
    """Name of the layout of an open HDF5 file.

    **Raises:** `DataError` naming the layout that comes closest and what it misses.
    """
    if own.is_own(file):
        return own.NAME
    marks = {
        aps_u.NAME: aps_u.MARKS,
        aps_old.NAME: aps_old.MARKS,
    }
    partial = []
    for name, paths in marks.items():
        present = [path for path in paths if path in file]
        if len(present) == len(paths):
            return name
        if present:
            missing = ", ".join(path for path in paths if path not in file)
            partial.append(f"{name} ({', '.join(present)} is there, {missing} is missing)")
    if nxxpcs.entry_of(file) is not None:
        return nxxpcs.NAME
    closest = f" It comes closest to {' and '.join(partial)}." if partial else ""
    raise DataError(
        f"{file.filename}: no known layout of two-time maps.{closest} Top level: "
        f"{', '.join(sorted(file)[:8]) or 'empty'}. Known layouts: {', '.join(LAYOUTS)}."
    )
