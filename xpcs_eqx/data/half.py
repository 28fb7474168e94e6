"""Half-stored maps: recognised, completed in place, told apart from asymmetric ones."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from ..errors import DataError
from .layouts.raw import Storage

BLOCK = 128
# c2 is of order one. Correlators work in float32, so the two triangles of a full map may differ by
# some hundred float32 roundings; anything beyond is not rounding.
TOLERANCE = 2e-5

Triangle = Literal["full", "upper", "lower"]


def _blocks(n: int) -> Iterator[tuple[slice, slice]]:
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        yield rows, slice(start, n)


def _strictly_above(rows: slice, columns: slice) -> np.ndarray:
    """Mask of the entries with row < column in a block that starts on the diagonal."""
    height = rows.stop - rows.start
    return np.arange(height)[:, None] < np.arange(columns.stop - columns.start)[None, :]


def stored_triangle(where: str, key: str, c2: np.ndarray, storage: Storage = "unknown") -> Triangle:
    """Say which triangle of a square map `(frame, frame)` holds the numbers.

    Works through blocks of rows, so no dense copy is made. A triangle counts as empty when all
    its entries are zero or NaN. A full map may differ between its triangles by rounding
    (2e-5 of 1 + |c2|); an entry that is NaN in one triangle only is no asymmetry.

    **Raises:** `DataError` when both triangles hold numbers and they disagree, with the largest
    difference and the frames where it sits; or when `storage` names a triangle that is empty.
    """
    filled = {"upper": False, "lower": False}
    worst, place = 0.0, (0, 0)
    for rows, columns in _blocks(c2.shape[0]):
        above = _strictly_above(rows, columns)
        upper, lower = c2[rows, columns], c2[columns, rows].T
        filled["upper"] |= bool(np.any((upper != 0) & ~np.isnan(upper) & above))
        filled["lower"] |= bool(np.any((lower != 0) & ~np.isnan(lower) & above))
        # inf - inf and comparisons with NaN: such pairs get masked, they show no asymmetry
        usable = above & np.isfinite(upper) & np.isfinite(lower)
        with np.errstate(invalid="ignore", over="ignore"):
            excess = np.abs(upper - lower) / (1 + np.maximum(np.abs(upper), np.abs(lower)))
        excess = np.where(usable, excess, 0)
        if excess.size and excess.max() > worst:
            worst = float(excess.max())
            row, column = np.unravel_index(int(np.argmax(excess)), excess.shape)
            place = (rows.start + int(row), columns.start + int(column))
    if storage in ("upper_half", "lower_half"):
        half: Triangle = "upper" if storage == "upper_half" else "lower"
        other = "lower" if half == "upper" else "upper"
        if filled[other] and not filled[half]:
            raise DataError(
                f"{where}: {key} is declared to populate the {half} half but numbers are only in "
                f"the {other} half; correct the attribute populated_elements."
            )
        return half
    if filled["upper"] and not filled["lower"]:
        return "upper"
    if filled["lower"] and not filled["upper"]:
        return "lower"
    if worst > TOLERANCE:
        i, j = place
        raise DataError(
            f"{where}: {key} is neither symmetric nor stored as one half: the asymmetry is "
            f"{abs(float(c2[i, j]) - float(c2[j, i])):.3g} at frames ({i + 1}, {j + 1}), where the "
            f"two triangles hold {float(c2[i, j]):.6g} and {float(c2[j, i]):.6g}. Symmetrise the "
            "map, or store only its upper triangle with zeros below."
        )
    return "full"


def complete(c2: np.ndarray, triangle: Triangle) -> None:
    """Mirror the stored triangle of one map `(frame, frame)` onto the other, in place.

    The diagonal stays as it is. Nothing happens to a full map.
    """
    if triangle == "full":
        return
    for rows, columns in _blocks(c2.shape[0]):
        above = _strictly_above(rows, columns)
        upper, lower = c2[rows, columns], c2[columns, rows].T
        if triangle == "upper":
            # lower is a view onto the map and, in the diagonal block, overlaps with upper
            np.copyto(lower, upper.copy(), where=above)
        else:
            np.copyto(upper, lower.copy(), where=above)
