"""Chunks of points of one fixed shape, and the checks every point passes."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..objective import Chunk


class Points(NamedTuple):
    """Checked points, any number of them."""

    x: np.ndarray
    y: np.ndarray
    root_weights: np.ndarray
    group: np.ndarray


def _real(values: Any, name: str, where: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where}: {name} holds {array.dtype} values; give real numbers.")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _first_bad(good: np.ndarray, values: np.ndarray) -> tuple[int, Any]:
    index = int(np.argmin(good))
    return index, values[index]


def check_points(
    x: Any, y: Any, sigma: Any = None, group: Any = None, *, where: str, first: int = 0
) -> Points:
    """Points from arrays, with 1/σ as root weights.

    `where` names their origin in messages, `first` the index of the first of them there.

    **Raises:** `DataError` for arrays that do not belong together, values that are not finite,
    σ ≤ 0 or groups that are not whole numbers ≥ 0.
    """
    x, y = _real(x, "x", where), _real(y, "y", where)
    if y.ndim != 1 or x.ndim not in (1, 2) or x.shape[0] != y.shape[0]:
        raise DataError(
            f"{where}: x has shape {x.shape} and y {y.shape}; give y as (n,) and x as (n,) or "
            "(n, k)."
        )
    for name, values in (("x", x), ("y", y)):
        good = np.isfinite(values)
        good = good if good.ndim == 1 else good.all(axis=1)
        if not good.all():
            index, value = _first_bad(good, values)
            raise DataError(
                f"{where}, index {first + index}: {name} is {value}; leave out the points that "
                "are not finite."
            )
    root = np.broadcast_to(1.0, y.shape)
    if sigma is not None:
        spread = _real(sigma, "sigma", where).astype(np.float64)
        if spread.shape not in ((), y.shape):
            raise DataError(
                f"{where}: sigma has shape {spread.shape} for {y.shape[0]} points; give one for "
                "each point or one for all."
            )
        spread = np.broadcast_to(spread, y.shape)
        good = np.isfinite(spread) & (spread > 0)
        if not good.all():
            index, value = _first_bad(good, spread)
            raise DataError(
                f"{where}, index {first + index}: sigma is {value}; it must be finite and above "
                "zero."
            )
        root = 1.0 / spread
    return Points(x, y, root, _groups(group, y.shape, where, first))


def _groups(group: Any, shape: tuple[int, ...], where: str, first: int) -> np.ndarray:
    if group is None:
        return np.broadcast_to(np.int32(0), shape)
    found = _real(group, "group", where)
    if found.shape != shape:
        raise DataError(
            f"{where}: group has shape {found.shape} for {shape[0]} points; give one for each."
        )
    good = (found >= 0) & (found == np.floor(found)) & (found < 2**31)
    if not good.all():
        index, value = _first_bad(good, found)
        raise DataError(
            f"{where}, index {first + index}: group is {value}; groups are whole numbers from 0."
        )
    return found.astype(np.int32)


def points_of_chunk(chunk: Chunk, where: str) -> Points:
    """The points of a chunk that have a weight.

    **Raises:** `DataError` as `check_points`, and for weights that are negative or not finite.
    """
    root = _real(chunk.root_weights, "root_weights", where).astype(np.float64)
    x, y, group = (np.asarray(a) for a in (chunk.x, chunk.y, chunk.group))
    if not root.shape == y.shape == x.shape[:1]:
        raise DataError(
            f"{where}: x {x.shape}, y {y.shape} and root_weights {root.shape} must have one entry "
            "a point."
        )
    good = np.isfinite(root) & (root >= 0)
    if not good.all():
        index, value = _first_bad(good, root)
        raise DataError(
            f"{where}, index {index}: root_weights is {value}; it must be finite and not below "
            "zero."
        )
    keep = root > 0
    found = check_points(x[keep], y[keep], None, group[keep], where=where)
    return found._replace(root_weights=root[keep])


def chunked(pieces: Iterable[Points], size: int, where: str) -> Iterator[Chunk]:
    """Chunks of `size` points from pieces of any length, the last one filled up.

    **Raises:** `DataError` when the pieces differ in the shape of x or there is no point at all.
    """
    waiting: list[Points] = []
    have, coordinates, some = 0, None, False
    for piece in pieces:
        if coordinates is None:
            coordinates = piece.x.shape[1:]
        elif coordinates != piece.x.shape[1:]:
            raise DataError(
                f"{where}: x has shape {piece.x.shape} after pieces of shape (n, "
                f"{', '.join(map(str, coordinates))}); all must have the same coordinates."
            )
        waiting.append(piece)
        have += piece.y.shape[0]
        if have < size:
            continue
        joined = _join(waiting)
        whole = have - have % size
        for start in range(0, whole, size):
            some = True
            yield Chunk(*(part[start : start + size] for part in joined))
        have -= whole
        waiting = [Points(*(part[whole:] for part in joined))]
    if have:
        yield padded(_join(waiting), size)
    elif not some:
        raise DataError(
            f"{where}: there is no point with a weight. A callable must return a fresh iterator "
            "at every call."
        )


def _join(pieces: list[Points]) -> Points:
    if len(pieces) == 1:
        return pieces[0]
    return Points(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))


def padded(points: Points, size: int) -> Chunk:
    """One chunk of `size` points; the last point is repeated at weight zero.

    There a model is defined if it is anywhere.
    """
    missing = size - points.y.shape[0]
    if not missing:
        return Chunk(*points)
    x, y, root, group = (
        np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) for part in points
    )
    root[-missing:] = 0.0
    return Chunk(x, y, root, group)
