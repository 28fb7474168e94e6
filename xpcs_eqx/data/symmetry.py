"""Which triangle of a square map holds its pairs, and what is done where both do and disagree."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ..errors import DataError
from .checks import shown
from .layouts.maps import Half, Triangle, Window

Symmetrise = Literal["mean", "upper", "lower"]
# Rows of a block in which the triangles of a map are compared.
_BLOCK = 128
# c2 is of order one. Correlators work in float32, so the two triangles of a full map may differ by
# some hundred float32 roundings; anything beyond is not rounding.
TOLERANCE = 2e-5


def strips(n: int, height: int) -> Iterator[slice]:
    """Rows of a map from the first to the last, so many at a time."""
    for low in range(0, n, height):
        yield slice(low, min(low + height, n))


def checked_symmetrise(where: str, symmetrise: Any) -> Symmetrise | None:
    """The word for what is done with maps that are not symmetric.

    **Raises:** `DataError` when it is none.
    """
    if symmetrise is None:
        return None
    for word in get_args(Symmetrise):
        if isinstance(symmetrise, str) and symmetrise == word:
            return word
    raise DataError(
        f'{where}: symmetrise is {shown(symmetrise)}; give "mean", "upper", "lower" or nothing.'
    )


class Halves(NamedTuple):
    """Where the pairs of a map are.

    - `half`: the triangle that holds them, or how they come from both.
    - `halved`: whether only one triangle is stored.
    - `asymmetry`: the largest difference of the triangles, 0 up to rounding.
    """

    half: Half
    halved: bool
    asymmetry: float = 0.0


def halves_of(
    where: str, window: Window, declared: Triangle | None, symmetrise: Symmetrise | None = None
) -> Halves:
    """Where a square map holds the numbers.

    A triangle counts as empty when all its entries are zero or NaN, or another number where those
    of the other differ from it and from each other. A full map may differ between
    its triangles by rounding (2e-5 of 1 + |c2|); an entry that is NaN in one triangle only is no
    asymmetry. Of a map that differs by more, `symmetrise` says which triangle counts, or their
    mean.

    **Raises:** `DataError` when both triangles hold numbers, they disagree and nothing is said of
    that, with the largest difference and the frames where it sits; or when the `declared` triangle
    is the empty one.
    """
    name, n = window.name, window.n_frames
    filled = {"upper": False, "lower": False}
    ends = {"upper": (np.inf, -np.inf), "lower": (np.inf, -np.inf)}
    worst, place, pair = 0.0, (0, 0), (0.0, 0.0)
    for rows in strips(n, _BLOCK):
        columns = slice(rows.start, n)
        above = ~np.tri(rows.stop - rows.start, n - rows.start, dtype=bool)
        upper, lower = window[rows, columns], window[columns, rows].T
        # Most maps are the same on both sides, without a NaN: such need no second look.
        same = np.array_equal(upper, lower)
        apart = {("upper",): upper, ("lower",): lower}
        for sides, values in ({("upper", "lower"): upper} if same else apart).items():
            held = values[above & ~np.isnan(values)]
            some = bool(np.any(held != 0))
            low, high = (held.min(), held.max()) if held.size else (np.inf, -np.inf)
            for side in sides:
                filled[side] |= some
                ends[side] = min(ends[side][0], low), max(ends[side][1], high)
        if same:
            continue
        # inf - inf and comparisons with NaN: such pairs get masked, they show no asymmetry
        usable = above & np.isfinite(upper) & np.isfinite(lower)
        with np.errstate(invalid="ignore", over="ignore"):
            excess = np.abs(upper - lower) / (1 + np.maximum(np.abs(upper), np.abs(lower)))
        excess = np.where(usable, excess, 0)
        if excess.size and excess.max() > worst:
            worst = float(excess.max())
            row, column = (int(k) for k in np.unravel_index(np.argmax(excess), excess.shape))
            place = (rows.start + row + 1, rows.start + column + 1)
            pair = (float(upper[row, column]), float(lower[row, column]))
    if declared is not None:
        other = "lower" if declared == "upper" else "upper"
        if filled[other] and not filled[declared]:
            raise DataError(
                f"{where}: {name} is declared to populate the {declared} half but numbers are only "
                f"in the {other} half; correct the attribute populated_elements."
            )
        return Halves(declared, True)
    if filled["upper"] != filled["lower"]:
        return Halves("upper" if filled["upper"] else "lower", True)
    if worst <= TOLERANCE:
        return Halves("both", False)
    varied = [side for side, (low, high) in ends.items() if low < high]
    if len(varied) == 1 and n > 3:
        return Halves("upper" if varied[0] == "upper" else "lower", True)
    if symmetrise is None:
        raise DataError(
            f"{where}: {name} is neither symmetric nor stored as one half: the asymmetry is "
            f"{abs(pair[0] - pair[1]):.3g} at frames {place}, where the two triangles hold "
            f"{pair[0]:.6g} and {pair[1]:.6g}. If both were measured, say with symmetrise = "
            '"mean", "upper" or "lower" (data.symmetrise in a configuration) what counts; or store '
            "only its upper triangle with zeros below."
        )
    return Halves(symmetrise, False, abs(pair[0] - pair[1]))
