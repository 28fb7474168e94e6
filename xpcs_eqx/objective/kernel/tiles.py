"""Where blocks of pairs come from: maps and points in memory."""

import dataclasses
import itertools
from abc import abstractmethod
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...data import PooledData, TwoTimeData
from ...data.memory import frozen_copy, is_frozen
from ...errors import DataError, ModelError
from .blocks import Block, Means

# Large enough for vector instructions and matrix products, small enough for the second-level cache.
BLOCK = 128
CHUNK = 16384

Data = TypeVar("Data")


class AbstractTiles(eqx.Module):
    """Data cut into blocks; `table` lists them and `block` makes one, under `jit` as well."""

    @property
    @abstractmethod
    def table(self) -> Int[np.ndarray, "block index"]:
        """One row of integers per block."""

    @abstractmethod
    def block(self, row: Int[Array, "index"]) -> Block:
        """The block described by a row of `table`."""


def tile_frames(
    i: Int[Array, ""], j: Int[Array, ""], n: int, size: int
) -> tuple[
    Int[Array, ""], Int[Array, ""], Int[Array, "row 1"], Int[Array, "1 column"], Bool[Array, "..."]
]:
    """Frames of tile (i, j) of a map of n frames: first row, first column, all, and which count.

    Tiles at the border are shifted inside the map and leave to their neighbours what they share.
    """
    low_i, low_j = i * size, j * size
    start_i, start_j = jnp.minimum(low_i, n - size), jnp.minimum(low_j, n - size)
    first = (start_i + jnp.arange(size))[:, None]
    second = (start_j + jnp.arange(size))[None, :]
    valid = (first < second) & (first >= low_i) & (second >= low_j)
    return start_i, start_j, first, second, valid


def tile_table(maps: int, blocks: int) -> Int[np.ndarray, "tile 3"]:
    """Map, tile row and tile column of all tiles of upper triangles of `blocks` tiles a side."""
    rows, columns = np.triu_indices(blocks)
    numbers = np.tile(np.arange(maps), rows.size)
    return np.stack([numbers, np.repeat(rows, maps), np.repeat(columns, maps)], 1).astype(np.int32)


class MapTiles(AbstractTiles):
    """Square maps in memory, read as tiles of the upper triangle without being copied.

    Tiles at the border are shifted inside the map; what they share with a neighbour has weight 0.
    Values are converted to the precision of `t` tile by tile, so single-precision maps stay so.
    """

    c2: Float[Array, "angle frame frame"]
    root_weights: Float[Array, "angle frame frame"] | None
    root_angle_weights: Float[Array, "angle"]
    size: int = eqx.field(static=True)

    @property
    def table(self):
        return tile_table(self.c2.shape[0], -(-self.c2.shape[1] // self.size))

    def block(self, row):
        n, size, angle = self.c2.shape[1], self.size, row[0]
        start_i, start_j, first, second, valid = tile_frames(row[1], row[2], n, size)
        dtype = self.root_angle_weights.dtype

        def cut(stack):
            tile = jax.lax.dynamic_slice(stack, (angle, start_i, start_j), (1, size, size))
            return tile[0].astype(dtype)

        weight = self.root_angle_weights[angle]
        if self.root_weights is not None:
            weight = weight * cut(self.root_weights)
        return Block(first, second, angle, cut(self.c2), jnp.where(valid, weight, 0.0))


class PointTiles(AbstractTiles):
    """Unstructured points, sorted by angle and cut into chunks of one length (padding weighs 0).

    - `means`: of bins, which pairs a point is the mean of.
    """

    values: Float[Array, "chunk point"]
    first: Int[Array, "chunk pair"]
    second: Int[Array, "chunk pair"]
    angle: Int[Array, "chunk"]
    root_weights: Float[Array, "chunk point"]
    means: Means | None = eqx.field(kw_only=True, default=None)

    @property
    def table(self):
        return np.arange(self.values.shape[0], dtype=np.int32)[:, None]

    def block(self, row):
        k = row[0]
        return Block(
            self.first[k],
            self.second[k],
            self.angle[k],
            self.values[k],
            self.root_weights[k],
            jax.tree.map(lambda of_chunks: of_chunks[k], self.means),
        )


def tiles_of(
    data: TwoTimeData | PooledData,
    *,
    size: int | None = None,
    angle_weights: Float[np.ndarray, "angle"] | None = None,
) -> AbstractTiles:
    """Cut data in memory into blocks.

    **Arguments:**

    - `size`: frames along the side of a tile, or points in a chunk.
    - `angle_weights`: weight of the squared residuals of each angle.

    **Raises:** `DataError` for angle weights that are negative or of the wrong length.
    """
    root = root_of_angles(data.n_angles, angle_weights)
    if isinstance(data, TwoTimeData):
        n = data.n_frames
        roots = None if data.root_weights is None else _put(data.root_weights)
        return MapTiles(_put(data.c2), roots, _put(root), tile_side(n, size))
    return _point_tiles(data, root, size or CHUNK)


def has_bins(tiles: Any) -> bool:
    """Whether values are means over bins of age and lag."""
    return isinstance(tiles, PointTiles) and tiles.means is not None


def refuse_bins(tiles: Any, what: str) -> None:
    """Refuse what cannot be had of bins of age and lag; `what` was asked for.

    **Raises:** `ModelError`.
    """
    if has_bins(tiles):
        raise ModelError(
            f"the data are means over bins of age and lag, for which {what} is not available; fit "
            "them by least squares, or give maps of two times"
        )


def _put(maps):
    """Maps as an array of JAX with at most one copy; `jnp.asarray` holds a third one meanwhile."""
    if isinstance(maps, np.ndarray):
        # Memory of a good place is taken over whatever `may_alias` says, and somebody may write
        # into that of a caller.
        return jax.device_put(maps if is_frozen(maps) else frozen_copy(maps))
    return jnp.asarray(maps)


def held_once(data: Data, tiles: Any) -> Data:
    """The data with the maps that `tiles` of them hold, which on a processor takes no memory."""
    if not (isinstance(data, TwoTimeData) and isinstance(tiles, MapTiles)):
        return data
    weights = None if tiles.root_weights is None else np.asarray(tiles.root_weights)
    return dataclasses.replace(data, c2=np.asarray(tiles.c2), root_weights=weights)


def root_of_angles(
    n_angles: int, angle_weights: Float[np.ndarray, "angle"] | None
) -> Float[np.ndarray, "angle"]:
    """Square roots of the weights of the angles.

    **Raises:** `DataError` for weights that are negative or of the wrong length.
    """
    try:
        weights = np.ones(n_angles) if angle_weights is None else np.asarray(angle_weights, float)
    except (TypeError, ValueError):
        raise DataError(f"angle weights {angle_weights!r:.60} are no numbers") from None
    if weights.shape != (n_angles,) or not np.all(np.isfinite(weights) & (weights >= 0)):
        raise DataError(
            f"angle weights {weights!r} must be {n_angles} finite numbers, none negative"
        )
    return np.sqrt(weights)


def tile_side(n: int, size: int | None) -> int:
    """Frames along the side of a tile of a map of n frames."""
    # The number of tiles along a side is kept and the size adapted: less padding.
    return min(size or -(-n // max(1, round(n / BLOCK))), n)


def _point_tiles(data: PooledData, root: np.ndarray, size: int) -> PointTiles:
    values, first, second, angle = (
        np.asarray(a) for a in (data.values, data.first, data.second, data.angle)
    )
    weights = np.ones(values.shape) if data.root_weights is None else np.asarray(data.root_weights)
    if data.bins is not None:
        return _bin_tiles(data, weights * root[angle], size)
    size = min(size, max(int(np.max(np.bincount(angle))), 1))
    runs, _ = point_runs(values, first, second, angle, weights * root[angle], data.n_angles, size)
    return PointTiles(*(jnp.asarray(one) for one in runs))


def _bin_tiles(data: PooledData, weights: np.ndarray, size: int) -> PointTiles:
    """Bins in chunks of about `size` pairs; a bin is never divided."""
    bins = data.bins
    assert bins is not None
    angle, point = np.asarray(data.angle), np.asarray(bins.point)
    end = np.searchsorted(point, np.arange(angle.size), side="right")
    # Each chunk ends where the angle does, or before the bin that would make it too long.
    starts = [0]
    for k in range(1, angle.size):
        begin = end[starts[-1] - 1] if starts[-1] else 0
        if angle[k] != angle[k - 1] or end[k] - begin > size:
            starts.append(k)
    chunks = list(itertools.pairwise([*starts, angle.size]))
    spans = [(end[low - 1] if low else 0, end[high - 1]) for low, high in chunks]
    points, pairs = (max(high - low for low, high in one) for one in (chunks, spans))

    def cut(values, parts, length, fill=0):
        values = np.asarray(values)
        out = np.full((len(parts), length), fill, values.dtype)
        for row, (low, high) in zip(out, parts, strict=True):
            row[: high - low] = values[low:high]
        return jnp.asarray(out)

    local = point - np.repeat([low for low, _ in chunks], [high - low for low, high in spans])
    return PointTiles(
        cut(np.asarray(data.values, float), chunks, points),
        cut(data.first, spans, pairs),
        cut(data.second, spans, pairs),
        jnp.asarray(angle[[low for low, _ in chunks]]),
        cut(weights, chunks, points),
        # Pairs that fill a chunk up belong to its last point, with no part in it.
        means=Means(
            cut(local, spans, pairs, points - 1),
            cut(bins.share, spans, pairs),
            cut(bins.age, chunks, points),
            cut(bins.lag, chunks, points),
        ),
    )


def point_runs(
    values: Float[np.ndarray, "point"],
    first: Int[np.ndarray, "point"],
    second: Int[np.ndarray, "point"],
    angle: Int[np.ndarray, "point"],
    root_weights: Float[np.ndarray, "point"],
    n_angles: int,
    size: int,
    rows: int = 0,
) -> tuple[tuple[np.ndarray, ...], int]:
    """The fields of `PointTiles` with runs of `size` points of one angle, and how many runs.

    Filled up with points of weight zero, and with empty runs to at least `rows`.
    """
    pieces = []
    for a in range(n_angles):
        mine = np.flatnonzero(angle == a)
        pieces.extend((a, mine[low : low + size]) for low in range(0, mine.size, size))
    shape = (max(len(pieces), rows), size)
    runs = (
        np.zeros(shape),
        np.zeros(shape, first.dtype),
        np.zeros(shape, second.dtype),
        np.zeros(shape[0], int),
        np.zeros(shape),
    )
    for k, (a, part) in enumerate(pieces):
        place = (k, slice(part.size))
        runs[0][place], runs[1][place], runs[2][place] = values[part], first[part], second[part]
        runs[3][k], runs[4][place] = a, root_weights[part]
    return runs, len(pieces)
