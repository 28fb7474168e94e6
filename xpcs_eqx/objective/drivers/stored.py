"""Any data as something a driver can sum; maps in a file as pieces of one shape.

A piece of a file is a band of rows, or several small maps.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...data import (
    BandReader,
    ChunkedTwoTime,
    MapSource,
    PairRule,
    PooledData,
    StoredTwoTime,
    TwoTimeData,
    chunks_of,
    points_of,
)
from ...errors import DataError
from ..kernel.blocks import Block
from ..kernel.tiles import (
    AbstractTiles,
    PointTiles,
    point_runs,
    root_of_angles,
    tile_frames,
    tile_side,
    tile_table,
    tiles_of,
)
from .loops import AbstractPieces, Piece

# Large enough that starting a loop costs nothing, small enough to have several of them.
PIECE = 8 * 2**20  # bytes


class BandTiles(AbstractTiles):
    """A band of rows of some maps in memory, read as tiles of the upper triangle.

    Rows of `table` are (slot, tile row, tile column), the latter counted over the whole map. Values
    that are not finite weigh nothing. Where nothing was read there may be anything.

    - `values`: the rows from `start` on; `root_weights`: 1/sigma when it is stored pair by pair.
    - `angles`: angle of each slot; `root_angle_weights`: by angle, a constant 1/sigma included.
    - `mask`: true where a pair counts; `rule`: pairs that frames, lags and ages leave.
    """

    values: Float[Array, "slot row frame"]
    root_weights: Float[Array, "slot row frame"] | None
    mask: Bool[Array, "slot row frame"] | None
    angles: Int[Array, "slot"]
    start: Int[Array, ""]
    root_angle_weights: Float[Array, "angle"]
    rule: PairRule | None
    size: int = eqx.field(static=True)

    @property
    def table(self):
        return tile_table(self.values.shape[0], -(-self.values.shape[2] // self.size))

    def block(self, row):
        n, size = self.values.shape[2], self.size
        slot = row[0]
        start_i, start_j, first, second, valid = tile_frames(row[1], row[2], n, size)
        dtype = self.root_angle_weights.dtype

        def cut(stack):
            place = (slot, start_i - self.start, start_j)
            return jax.lax.dynamic_slice(stack, place, (1, size, size))[0]

        values = cut(self.values)
        valid &= jnp.isfinite(values)
        if self.rule is not None:
            valid &= self.rule(first, second)
        if self.mask is not None:
            valid &= cut(self.mask)
        weight = self.root_angle_weights[self.angles[slot]]
        if self.root_weights is not None:
            weight = weight * cut(self.root_weights).astype(dtype)
        return Block(
            first,
            second,
            self.angles[slot],
            jnp.where(valid, values, 0).astype(dtype),
            jnp.where(valid, weight, 0.0),
        )


class StoredTiles(AbstractPieces):
    """Maps in a file, cut into pieces.

    A piece is a band of `band` tile rows of one map, or `group` whole maps where they are small.

    - `side_diagonal`: c2 of neighbouring frames; `largest_root_weight`: of any pair.
    - `size`: frames along the side of a tile.
    """

    waits: ClassVar[bool] = True

    source: MapSource
    rule: PairRule | None
    root_angle_weights: Float[np.ndarray, "angle"]
    side_diagonal: Float[np.ndarray, "angle neighbours"]
    largest_root_weight: float
    size: int = eqx.field(static=True)
    band: int = eqx.field(static=True)
    group: int = eqx.field(static=True)

    @property
    def n_angles(self) -> int:
        """Number of maps."""
        return len(self.source.maps)

    @property
    def blocks(self) -> int:
        """Number of tiles along the side of a map."""
        return -(-self.source.n_frames // self.size)

    @property
    def bands(self) -> int:
        """Number of bands of a map."""
        return -(-self.blocks // self.band)

    @property
    def n_pieces(self):
        return -(-self.n_angles // self.group) * self.bands

    def angles_of(self, k: int) -> range:
        """Angles of which piece k holds rows; pieces of the same angles follow each other."""
        low = k // self.bands * self.group
        return range(low, min(low + self.group, self.n_angles))

    def stream(self, pieces: Sequence[int] | None = None):
        rule = jax.tree.map(jnp.asarray, self.rule)
        weights = jnp.asarray(self.root_angle_weights)
        with self.source.reader() as reader:
            for k in range(self.n_pieces) if pieces is None else pieces:
                yield self._piece(k, reader, rule, weights)

    def _piece(self, k: int, reader: BandReader, rule, weights) -> Piece:
        n, size = self.source.n_frames, self.size
        height = min(self.band * size, n)
        rows = self._table(k)
        first_block = k % self.bands * self.band
        low = first_block * size
        # The last band is shifted inside the map: all have one shape.
        start = min(low, n - height)
        taken = slice(low, min(low + height, n))
        inside = (slice(low - start, taken.stop - start), slice(low, n))
        shape = (self.group, height, n)
        values = _aligned(shape, self.source.dtype)
        roots = None if self.source.sigma_halves is None else _aligned(shape, values.dtype)
        mask = None if self.source.pair_mask is None else np.zeros(shape, bool)
        angles = np.zeros(self.group, np.int32)
        for slot, angle in enumerate(self.angles_of(k)):
            angles[slot] = angle
            values[slot][inside] = reader.band(angle, taken)
            if roots is not None:
                sigma = reader.sigma_band(angle, taken)
                target = roots[slot][inside]
                good = sigma > 0
                np.divide(1.0, sigma.astype(float), out=target, where=good, casting="same_kind")
                # A sigma that is no number belongs to a pair that counts for nothing.
                target[~good] = 0
            allowed = self.source.mask_of(angle)
            if mask is not None and allowed is not None:
                mask[slot][inside] = allowed[taken, low:]
        count = np.asarray(np.count_nonzero(rows[:, 0] >= 0))
        tiles = BandTiles(
            values=jnp.asarray(values),
            root_weights=None if roots is None else jnp.asarray(roots),
            mask=None if mask is None else jnp.asarray(mask),
            angles=jnp.asarray(angles),
            start=jnp.asarray(start),
            root_angle_weights=weights,
            rule=rule,
            size=size,
        )
        return Piece(tiles, jnp.asarray(rows), jnp.asarray(count))

    def _table(self, k: int) -> np.ndarray:
        """Tiles of piece k as (slot, row, column), filled up with −1 to the longest table."""
        first, slots = k % self.bands * self.band, len(self.angles_of(k))
        table, whole = tile_table(slots, self.blocks), tile_table(self.group, self.blocks)
        table = table[(table[:, 1] >= first) & (table[:, 1] < first + self.band)]
        longest = int(np.count_nonzero(whole[:, 1] < self.band))
        return np.pad(table, ((0, longest - len(table)), (0, 0)), constant_values=-1)


def _aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array with anything in it, which JAX on a processor takes over without a copy."""
    boundary = 64
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + boundary, np.uint8)
    low = -raw.ctypes.data % boundary
    return raw[low : low + size].view(dtype).reshape(shape)


class ChunkPieces(AbstractPieces):
    """One piece for each chunk. Chunks before the first one asked for are made and left out."""

    waits: ClassVar[bool] = True

    data: ChunkedTwoTime
    root_angle_weights: Float[np.ndarray, "angle"]
    longest: int = eqx.field(static=True)

    @property
    def n_pieces(self):
        return self.data.n_chunks

    def stream(self, pieces: Sequence[int] | None = None):
        data = self.data
        wanted = set(range(data.n_chunks) if pieces is None else pieces)
        last, found = max(wanted, default=-1), 0
        for number, tile in enumerate(chunks_of(data.factory)):
            found = number + 1
            if number in wanted:
                yield self._piece(number, tile)
            if number >= last and pieces is not None:
                return
        if found != data.n_chunks:
            raise DataError(
                f"chunks: the factory gave {data.n_chunks} chunks at first and {found} now; it "
                "must give the same ones in every call."
            )

    def _piece(self, number, tile) -> Piece:
        data = self.data
        points = points_of(number, tile, data.n_angles, data.n_frames)
        runs, count = point_runs(
            points.values,
            points.first,
            points.second,
            points.angle,
            points.root_weights * self.root_angle_weights[points.angle],
            data.n_angles,
            data.run,
            self.longest,
        )
        if count > self.longest:
            raise DataError(
                f"chunks: chunk {number + 1} has more pairs than at first; the factory must give "
                "the same chunks in every call."
            )
        tiles = PointTiles(*(jnp.asarray(one) for one in runs))
        return Piece(tiles, jnp.asarray(tiles.table), jnp.asarray(count))


AnyData = TwoTimeData | PooledData | StoredTwoTime | ChunkedTwoTime


def source_of(
    data: AnyData,
    *,
    tile: int | None = None,
    angle_weights: Float[np.ndarray, "angle"] | None = None,
    piece: int | None = None,
) -> AbstractTiles | AbstractPieces:
    """Tiles of data in memory, pieces of all other data.

    **Arguments:**

    - `tile`: frames along the side of a tile.
    - `angle_weights`: weight of the squared residuals of each angle.
    - `piece`: size of the pieces of data in a file [bytes].

    **Raises:** `DataError` for angle weights that are negative or of the wrong length.
    """
    if isinstance(data, TwoTimeData | PooledData):
        return tiles_of(data, size=tile, angle_weights=angle_weights)
    root = root_of_angles(data.n_angles, angle_weights)
    if isinstance(data, ChunkedTwoTime):
        return ChunkPieces(data, root, data.longest)
    constant = 1.0 if data.root_weights is None else data.root_weights
    side, row = tile_side(data.n_frames, tile), data.n_frames * np.dtype(data.source.dtype).itemsize
    blocks, piece = -(-data.n_frames // side), PIECE if piece is None else piece
    band = int(np.clip(piece // (side * row), 1, blocks))
    maps = piece // (data.n_frames * row) if band == blocks else 1
    return StoredTiles(
        data.source,
        data.rule,
        root * constant,
        data.side_diagonal,
        data.largest_root_weight,
        side,
        band,
        group=int(np.clip(maps, 1, data.n_angles)),
    )
