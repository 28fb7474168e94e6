"""Whether times, q and azimuths are what they are said to be."""

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


# Scattering vectors of X-rays [1/Å], from far below a beam stop to backscattering at 50 keV.
_REACHED = (1e-7, 50.0)


def remarks_on_places(raw: RawMaps, chosen: np.ndarray) -> tuple[str, ...]:
    """What is to be said of the azimuths and the q of some maps."""
    return (*_without_azimuths(raw), *_small_angles(raw, chosen), *_same_place(raw, chosen))


def _without_azimuths(raw: RawMaps) -> tuple[str, ...]:
    """A remark on azimuths that are not known."""
    if raw.azimuths:
        return ()
    return (
        f"No azimuths are known ({raw.phi_name} is absent); 0 stands for all of them, so that only "
        "models without a direction can be fitted. Give phi otherwise.",
    )


def _small_angles(raw: RawMaps, chosen: np.ndarray) -> tuple[str, ...]:
    """A remark on azimuths that would go round as radians and hardly differ as degrees, or that
    are whole halves of a degree as radians only.
    """
    phi = raw.phi[chosen]
    low, high = float(np.min(phi)), float(np.max(phi))
    if not (low > -3.15 and high < 6.29):
        return ()
    odd = np.unique(phi[phi != np.round(phi)])
    halves = 2 * np.degrees(odd)
    if not (high - low > 3 or (odd.size > 1 and np.all(np.abs(halves - np.round(halves)) < 0.02))):
        return ()
    return (
        f"{raw.phi_name} lists azimuths from {low:.4g} to {high:.4g}, which were taken as degrees. "
        'If they are radians, say so with the attribute units = "rad", or give phi in degrees.',
    )


def improbable_q(raw: RawMaps, q: float, selection: Selection) -> tuple[str, ...]:
    """A remark on q that X-rays do not reach, unless it was asked for."""
    if selection.q is not None or raw.q_given or _REACHED[0] <= q <= _REACHED[1]:
        return ()
    return (
        f"{raw.q_name} says q = {q:.6g} [1/Å], which no experiment reaches "
        f"({_REACHED[0]:g} … {_REACHED[1]:g}): its unit may be another. Give q to confirm it.",
    )


def outside(raw: RawMaps, chosen: np.ndarray) -> tuple[str, ...]:
    """A remark on q that cannot be that of the pixels of its map."""
    if raw.q_ranges is None:
        return ()
    q, (low, high) = raw.q[chosen], raw.q_ranges[chosen].T
    wrong = np.flatnonzero((q < low) | (q > high))
    if not wrong.size:
        return ()
    k = int(wrong[0])
    return (
        f"{raw.q_name} says q = {q[k]:.6g} [1/Å] of {raw.names[chosen[k]]}, but by the energy, the "
        f"distance and the pixels of its region it lies in {low[k]:.6g} … {high[k]:.6g}, which "
        f"holds for {wrong.size} of {q.size} maps. The first was used; give q to confirm it.",
    )


def _same_place(raw: RawMaps, chosen: np.ndarray) -> tuple[str, ...]:
    """A remark on maps that are at one q and one azimuth."""
    if not raw.azimuths:
        return ()
    places: dict[tuple[float, float], list[str]] = {}
    for index in chosen:
        place = float(f"{raw.q[index]:.6g}"), round(float(raw.phi[index]), 3) % 360
        places.setdefault(place, []).append(raw.names[index])
    several = [(place, names) for place, names in places.items() if len(names) > 1]
    if not several:
        return ()
    (q, phi), names = several[0]
    more = f" There are {len(several) - 1} more such places." if len(several) > 1 else ""
    return (
        f"{', '.join(names[:4])}{', …' if len(names) > 4 else ''} are all at q = {q:g} [1/Å] and "
        f"phi = {phi:g} [degrees]; they count as separate measurements.{more}",
    )
