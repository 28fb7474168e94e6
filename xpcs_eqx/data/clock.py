"""Times that are those of a clock, counted from the first frame instead."""

from dataclasses import replace

import numpy as np

from ..errors import DataError
from .checks import increasing_times
from .layouts.maps import RawMaps
from .selection import Selection

# Seconds after zero at which times that begin as many times their length after it are remarked, and
# between which a clock has them that counts since 1970.
_HOURS, _LATE, _CLOCK = 1e4, 100, (1e8, 1e10)


def clock_before(where: str, name: str, t: np.ndarray, selection: Selection) -> tuple[float, str]:
    """What is to be taken off times [s] that are those of a clock, such as seconds since 1970, so
    that the first of them is at the time origin of the selection, and a remark.

    Other times stay, and are remarked where they begin long after zero.

    **Raises:** `DataError` for times that no clock shows in seconds.
    """
    if t.size < 2 or not np.all(np.isfinite(t)):
        return 0.0, ""
    first, span = float(np.min(t)), float(np.ptp(t))
    if abs(first) < max(_LATE * span, _HOURS):
        return 0.0, ""
    if abs(first) < _CLOCK[0]:
        return 0.0, f"By {name} the first frame was {first:.6g} s after the start."
    if not _CLOCK[0] <= first < _CLOCK[1]:
        raise DataError(
            f"{where}: {name} begins at {first:.6g} s, over {span:.6g} s; that is no time of a "
            "frame in seconds, nor that of a clock. Give times since the start [s]."
        )
    origin = selection.time_origin or 0.0
    return first - origin, (
        f"{name} begins at {first:.6g} s, the time of a clock: times were counted from its first "
        f"frame, which is at {origin:g} s, as time_origin says, or 0 without."
    )


def counted_from_start(raw: RawMaps, selection: Selection) -> tuple[RawMaps, Selection]:
    """Maps with times since the start where theirs are of a clock, as `clock_before` finds.

    The selection is without the time origin that was used.

    **Raises:** `DataError` as `clock_before`.
    """
    if raw.t is None:
        return raw, selection
    before, remark = clock_before(raw.where, raw.time_name, raw.t, selection)
    if not remark:
        return raw, selection
    ages, t = raw.ages, raw.t - before
    if before:
        # Before they are moved, after which it cannot be said why they do not.
        increasing_times(raw.where, raw.time_name, raw.t)
        selection = replace(selection, time_origin=None)
        # What is left of equal steps is rounded as times so large are.
        if np.ptp(np.diff(t)) <= 4 * np.spacing(before):
            t = t[0] + (t[-1] - t[0]) / (t.size - 1) * np.arange(t.size)
        # Edges of ages that are counted by the same clock.
        if ages is not None and np.min(ages, initial=np.inf) >= _CLOCK[0]:
            ages = ages - before
    raw = replace(raw, t=t, ages=ages, notes=(*raw.notes, remark))
    return raw, selection
