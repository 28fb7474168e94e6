"""Where in a series of frames a correlator began, and whether rows and frames belong together."""

from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ..checks import numbers
from .hdf5 import Remarks, dataset, read_scalar
from .opened import Group

# More frames than any detector has taken.
_MOST = 10**12


class Series(NamedTuple):
    """The frames that were correlated.

    - `name`: HDF5 path of the first of them; `begin`: frames of the series before it.
    - `keys`: HDF5 paths that were read.
    """

    name: str
    begin: int
    keys: tuple[str, ...]


def read_whole(file: Group, key: str) -> int:
    """A whole number.

    **Raises:** `DataError` when it is missing or no whole number.
    """
    value = read_scalar(file, key, "", Remarks())
    if not (value.is_integer() and abs(value) <= 2**64):
        raise DataError(f"{file.filename}: {key} is {value:g}; it is the number of a frame.")
    return int(value)


def read_series(
    file: Group,
    first: str,
    end: str,
    *,
    zero: int | str,
    inclusive: bool,
    rows: int | None,
    step: int,
    notes: Remarks,
) -> Series:
    """The frames that a correlator took, from the HDF5 paths of the first and the end of them.

    - `zero`: number of the first frame of the series, or the HDF5 path of it, 1 where that is
      absent.
    - `inclusive`: whether the end is the last frame or one after it; below one it is that of the
      series.
    - `rows`, `step`: rows of the maps and frames of each, which are compared with both.

    A first frame before the series, such as one counted from its end, is refused in `notes`.

    **Raises:** `DataError` when something is no whole number.
    """
    if first not in file:
        return Series(first, 0, ())
    keys = (first, *(key for key in (end, zero) if isinstance(key, str) and key in file))
    if isinstance(zero, str):
        zero = read_whole(file, zero) if zero in file else 1
    number = read_whole(file, first)
    begin = number - zero
    if not 0 <= begin <= _MOST:
        notes.refused[first] = (
            f"{file.filename}: {first} is {number}, which leaves open how many frames of the "
            "series are before the maps."
        )
        return Series(first, 0, keys)
    if begin:
        notes.append(
            f"{first} is {number}: the maps begin {begin} frames after the start of the series, "
            "from which time is counted unless time_origin is given."
        )
    last = read_whole(file, end) if end in file else 0
    if last > 0 and rows is not None:
        frames = last - number + inclusive
        if frames // step != rows:
            notes.append(
                f"{first} and {end} say that {frames} frames were correlated, {frames // step} "
                f"rows of {step} frames, but the maps have {rows} rows: the time between rows may "
                "be wrong."
            )
    return Series(first, begin, keys)


def read_intensities(
    file: Group, key: str, *, begin: int, step: int, rows: int | None, notes: Remarks
) -> np.ndarray | None:
    """Mean intensity of the frames of each row of the maps, `None` where that cannot be told.

    They are stored as a list, or as times and a list, of the rows or of the frames of the series.

    **Raises:** `DataError` when they are no numbers.
    """
    if key not in file or rows is None:
        return None
    found = numbers(file.filename, key, dataset(file, key)[()])
    values = found[1] if found.ndim == 2 and len(found) == 2 else found.reshape(-1)
    if values.size == rows:
        return values
    if (values.size - begin) // step == rows:
        return values[begin : begin + rows * step].reshape(rows, step).mean(axis=1)
    notes.append(
        f"{key} has {values.size} frames but the maps have {rows} rows; one of them is not of this "
        "series, or the time between rows is wrong."
    )
    return None
