"""What is to be said of the q and the azimuths of maps."""

import numpy as np

from .layouts.maps import RawMaps
from .selection import Selection

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
        place = float(f"{raw.q[index]:.6g}"), float(f"{raw.phi[index] % 360:.6g}")
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
