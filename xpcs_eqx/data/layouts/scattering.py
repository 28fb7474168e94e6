"""q of the pixels of a region, from energy, distance and detector where all are stored."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..checks import scalar
from .hdf5 import dataset
from .opened import Array, Group
from .units import factor_to

# h c [eV Å].
_HC = 12398.419843320026
# Part of q by which a list may miss its region, and pixels by which the centre may be off.
_SLACK, _CENTRE = 0.05, 2.0
# Pixels from which on no beam centre lies.
_FARTHEST = 1e5
# Pixels of a detector that are looked at.
_ENOUGH = 2**20
# Below the first of these a number without a unit is in the second of them, else in the third: as
# tools of the APS and NXxpcs write energies (keV or eV), distances (m or mm) and pixels (m or mm).
_UNSAID = {"energy": (1e3, "keV", "eV"), "distance": (1e2, "m", "mm"), "pixel": (5e-3, "m", "mm")}


class Optics(NamedTuple):
    """HDF5 paths of what q follows from.

    - `pixel`: along x and along y; `centre`: of the beam, x along the rows of `regions`, [pixels]
        unless a unit says otherwise; `regions`: number of the region of each pixel, 0 for none.
    """

    energy: str
    distance: str
    pixel: tuple[str, str]
    centre: tuple[str, str]
    regions: str


def q_ranges(
    file: Group, optics: Optics, regions: Int[np.ndarray, "map"]
) -> Float[np.ndarray, "map 2"] | None:
    """Least and largest q [1/Å] in the region of each map, NaN for one without pixels.

    `None` where something is not stored, or in a unit that says nothing.
    """
    paths = (optics.energy, optics.distance, *optics.pixel, *optics.centre)
    if not all(isinstance(file.reach(path), Array) for path in (*paths, optics.regions)):
        return None
    energy = _in(file, optics.energy, "energy", "eV")
    distance = _in(file, optics.distance, "distance", "Å")
    found_sides = (_in(file, path, "pixel", "Å") for path in optics.pixel)
    sides = [side for side in found_sides if side is not None]
    if energy is None or distance is None or len(sides) < 2:
        return None
    x, y = (_in_pixels(file, path, side) for path, side in zip(optics.centre, sides, strict=True))
    found = dataset(file, optics.regions)
    shape = tuple(length for length in found.shape if length != 1)
    if x is None or y is None or len(shape) != 2 or found.dtype.kind not in "fiub":
        return None
    step = max(1, int(np.ceil(np.sqrt(found.size / _ENOUGH))))
    of_pixel = np.asarray(found[()]).reshape(shape)[::step, ::step]
    rows, columns = np.nonzero(of_pixel > 0)
    radius = np.hypot((step * columns - x) * sides[0], (step * rows - y) * sides[1])
    number = of_pixel[rows, columns].astype(np.int64)
    order = np.argsort(number, kind="stable")
    number, radius = number[order], radius[order]
    first, last = (np.searchsorted(number, regions, side) for side in ("left", "right"))
    away, out = (_CENTRE + step) * max(sides), np.full((regions.size, 2), np.nan)
    for k in np.flatnonzero(last > first):
        some = radius[first[k] : last[k]]
        ends = np.array([max(some.min() - away, 0.0), some.max() + away])
        out[k] = 4 * np.pi * energy / _HC * np.sin(0.5 * np.arctan(ends / distance))
    return out * [1 - _SLACK, 1 + _SLACK]


def _scalar(file: Group, path: str) -> tuple[float | None, str]:
    """A positive number and its unit in words; `None` for anything else."""
    found = dataset(file, path)
    if found.size != 1 or found.dtype.kind not in "fiu":
        return None, ""
    value = scalar(file.filename, path, found[()])
    if not (np.isfinite(value) and value > 0):
        return None, ""
    return value, (found.text("units") or found.text("unit") or "").strip()


def _in(file: Group, path: str, kind: str, unit: str) -> float | None:
    value, word = _scalar(file, path)
    if value is None:
        return None
    limit, small, large = _UNSAID[kind]
    factor = factor_to(unit, word or (small if value < limit else large))
    return None if isinstance(factor, str) else value * factor


def _in_pixels(file: Group, path: str, side: float) -> float | None:
    """A beam centre, `None` where it is farther away than any: then its unit is wrong, as where a
    number of pixels has the unit that NXxpcs demands of it, m.
    """
    value, word = _scalar(file, path)
    factor = factor_to("Å", word) if word else "pixels"
    if value is not None and not isinstance(factor, str):
        value *= factor / side
    return None if value is None or value > _FARTHEST else value
