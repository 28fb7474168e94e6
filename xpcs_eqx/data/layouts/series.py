"""Where in a series of frames a correlator began, and whether rows and frames belong together."""

from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ..checks import numbers
from .hdf5 import FrameTime, Remarks, dataset, read_scalar
from .opened import Group

# More frames than any detector has taken.
_MOST = 10**12
# Part by which stored times and frame times may differ.
_DRIFT = 0.01
# Rows by which times that count from the start of the series are off a whole number of them; more
# than the one that the first frame may be counted as; and more than no clock shows by chance.
_WHOLE, _BEGUN, _AFTER = 0.1, 1.5, 100


class Series(NamedTuple):
    """The frames that were correlated.

    - `name`: HDF5 path of the first of them; `begin`: frames of the series before it.
    - `ended`: whether it is known that there may be frames after them.
    - `keys`: HDF5 paths that were read.
    """

    name: str
    begin: int
    ended: bool
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

    What is no whole number, and a first frame before the series, such as one counted from its end,
    is refused in `notes`.
    """
    named = [key for key in (end, zero) if isinstance(key, str) and file.reach(key) is not None]
    keys, number, last = (first, *named), None, 0
    with notes.refusing(first):
        if first not in file:
            return Series(first, 0, False, ())
        if isinstance(zero, str):
            zero = read_whole(file, zero) if zero in file else 1
        number = read_whole(file, first)
    if number is None or isinstance(zero, str):
        return Series(first, 0, False, keys)
    with notes.refusing(end):
        last = read_whole(file, end) if end in file else 0
    begin = number - zero
    if not 0 <= begin <= _MOST:
        notes.refused[first] = (
            f"{file.filename}: {first} is {number}, which leaves open how many frames of the "
            "series are before the maps."
        )
        return Series(first, 0, False, keys)
    if begin:
        notes.append(
            f"{first} is {number}: the maps begin {begin} frames after the start of the series, "
            "from which time is counted unless time_origin is given."
        )
    if last > 0 and rows is not None:
        frames = last - number + inclusive
        if frames // step != rows:
            notes.doubt(
                "times",
                f"{first} and {end} say that {frames} frames were correlated, {frames // step} "
                f"rows of {step} frames, but the maps have {rows} rows: the time between rows may "
                "be wrong.",
            )
    return Series(first, begin, last > 0, keys)


class Frames(NamedTuple):
    """What a file tells of single frames.

    - `intensity`: mean of the frames of each row of the maps, `None` where that cannot be told.
    - `origin`: time of the first row [s] by stored times, `None` where they do not tell.
    """

    intensity: np.ndarray | None = None
    origin: float | None = None


def read_frames(
    file: Group,
    key: str,
    series: Series,
    time: FrameTime,
    step: int,
    rows: int | None,
    notes: Remarks,
) -> Frames:
    """Intensities of frames, and their times where these stand beside them.

    They are stored as a list, or as times or numbers and a list, of the rows or of the frames of
    the series. What is none of these is refused in `notes`.
    """
    found = None
    with notes.refusing(key):
        found = numbers(file.filename, key, dataset(file, key)[()]) if key in file else None
    if found is None or rows is None:
        return Frames()
    paired = found.ndim == 2 and len(found) == 2
    values, begin, used = found[1] if paired else found.reshape(-1), series.begin, rows * step
    whole = values.size - begin
    if values.size == rows:
        intensity, times = values, found[0]
    elif whole // step == rows or (series.ended and whole >= used):
        intensity = values[begin : begin + used].reshape(rows, step).mean(axis=1)
        times = found[0, begin : begin + used : step] if paired else found
    else:
        notes.doubt(
            "times",
            f"{key} has {values.size} frames but the maps have {rows} rows; one of them is not of "
            "this series, or the time between rows is wrong.",
        )
        return Frames()
    if not paired or time.value is None or time.name in notes.refused:
        return Frames(intensity)
    return Frames(intensity, _origin(key, times, series, time.value * step, notes))


def _origin(
    key: str, times: np.ndarray, series: Series, spacing: float, notes: Remarks
) -> float | None:
    """When the first row was measured, after comparing the times of rows with their spacing [s].

    Numbers of frames are no times, and times that are not counted in frames from the start of the
    series, such as those of a clock, tell nothing of it.
    """
    steps = np.diff(times)
    if np.any(steps < 0):
        row = int(np.argmax(steps < 0))
        notes.doubt(
            "times",
            f"By {key} row {row + 2} of the maps ({times[row + 1]:.9g} s) is before row {row + 1} "
            f"({times[row]:.9g} s); rows were taken {spacing:.6g} s apart, by the frame time. Give "
            "dt if they are in their order.",
        )
        return None
    if not (np.all(np.isfinite(times)) and np.all(steps > 0)):
        return None
    if np.all(times == np.round(times)) and np.ptp(steps) == 0 and spacing != steps[0]:
        return None
    away = times - times[0] - spacing * np.arange(times.size)
    if np.ptp(away) > max(spacing, _DRIFT * spacing * times.size):
        notes.doubt(
            "times",
            f"By {key} the rows of the maps are {np.median(steps):.6g} s apart ({steps.min():.4g} "
            f"to {steps.max():.4g} s), by the frame time {spacing:.6g} s, which was used. Give dt "
            "to say which is right; if frames are missing, give the times of all of them.",
        )
        return None
    before = times[0] / spacing
    whole = abs(before - np.round(before)) < _WHOLE
    if series.keys or not (whole and _BEGUN < before < _AFTER * times.size):
        return None
    notes.append(
        f"By {key} the maps begin at {times[0]:.6g} s, from which time is counted unless "
        "time_origin is given."
    )
    return float(times[0])
