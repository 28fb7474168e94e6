"""Any data as something a driver can sum; maps in a file as pieces of one shape.

A piece of a file is a band of rows, or several small maps.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...data import (
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


# A piece and some of its tiles, as (slot, tile row, tile column).
NumberedTiles = tuple[int, np.ndarray]


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
        asked = range(self.n_pieces) if pieces is None else pieces
        with self.source.reader() as reader:
            yield from self.made_of(((k, self._table(k)) for k in asked), reader)

    def made_of(self, asked: Iterable[NumberedTiles], reader: Any) -> Iterator[Piece]:
        """Pieces with some of their tiles, of rows that a reader has."""
        rule = jax.tree.map(jnp.asarray, self.rule)
        weights = jnp.asarray(self.root_angle_weights)
        for k, rows in asked:
            yield self._piece(k, rows, reader, rule, weights)

    def held(self, tiles: Int[np.ndarray, "tile 3"]) -> "HeldTiles":
        """Some tiles, as (angle, tile row, tile column), with the rows that they lie in."""
        angle, row, column = tiles.T
        place = angle // self.group * self.bands + row // self.band
        rows = np.stack([angle % self.group, row, column], axis=1).astype(np.int32)
        asked = tuple((int(k), rows[place == k]) for k in np.unique(place))
        bands, sigmas = {}, {}
        with self.source.reader() as reader:
            for k, some in asked:
                for angle, taken in self._bands_of(k, some):
                    bands[angle, taken.start] = reader.band(angle, taken)
                    if self.source.sigma_halves is not None:
                        sigmas[angle, taken.start] = reader.sigma_band(angle, taken)
        return HeldTiles(self, asked, HeldRows(bands, sigmas))

    def _bands_of(self, k: int, rows: np.ndarray) -> Iterator[tuple[int, slice]]:
        """Angle and frames of runs of rows of tiles of piece k that follow each other."""
        places = np.unique(rows[:, :2], axis=0)
        ends = np.flatnonzero(np.any(np.diff(places, axis=0) != (0, 1), axis=1)) + 1
        first, n = k // self.bands * self.group, self.source.n_frames
        for run in np.split(places, ends):
            low, high = int(run[0, 1]) * self.size, (int(run[-1, 1]) + 1) * self.size
            yield first + int(run[0, 0]), slice(low, min(high, n))

    def _piece(self, k: int, rows: np.ndarray, reader: Any, rule, weights) -> Piece:
        """Piece k with the tiles of `rows` alone, as (slot, row, column)."""
        n, size = self.source.n_frames, self.size
        height, first = min(self.band * size, n), k // self.bands * self.group
        # The last band is shifted inside the map: all have one shape.
        start = min(k % self.bands * self.band * size, n - height)
        shape = (self.group, height, n)
        values = _aligned(shape, self.source.dtype)
        roots = None if self.source.sigma_halves is None else _aligned(shape, values.dtype)
        mask = None if self.source.pair_mask is None else np.zeros(shape, bool)
        angles = np.zeros(self.group, np.int32)
        for slot in range(len(self.angles_of(k))):
            angles[slot] = first + slot
        for angle, taken in self._bands_of(k, rows):
            slot = angle - first
            inside = (slice(taken.start - start, taken.stop - start), slice(taken.start, n))
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
                mask[slot][inside] = allowed[taken, taken.start :]
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
        filled = np.pad(rows, ((0, self._longest - len(rows)), (0, 0)), constant_values=-1)
        return Piece(tiles, jnp.asarray(filled), jnp.asarray(np.asarray(len(rows))))

    @property
    def _longest(self) -> int:
        """Tiles of the piece that has most."""
        whole = tile_table(self.group, self.blocks)
        return int(np.count_nonzero(whole[:, 1] < self.band))

    def _table(self, k: int) -> np.ndarray:
        """Tiles of piece k as (slot, row, column)."""
        first = k % self.bands * self.band
        table = tile_table(len(self.angles_of(k)), self.blocks)
        return table[(table[:, 1] >= first) & (table[:, 1] < first + self.band)]


class HeldRows(NamedTuple):
    """Rows of maps in a file by angle and first frame, handed out as a reader of it does."""

    bands: dict[tuple[int, int], np.ndarray]
    sigmas: dict[tuple[int, int], np.ndarray]

    def band(self, angle: int, rows: slice) -> np.ndarray:
        """The rows of the map of an angle."""
        return self.bands[angle, rows.start]

    def sigma_band(self, angle: int, rows: slice) -> np.ndarray:
        """Their standard deviations."""
        return self.sigmas[angle, rows.start]


class HeldTiles(AbstractPieces):
    """Some tiles of maps in a file, with their rows in memory; pieces are as large as of all."""

    waits: ClassVar[bool] = True

    whole: StoredTiles
    asked: tuple[NumberedTiles, ...]
    rows: HeldRows

    @property
    def n_pieces(self):
        return len(self.asked)

    def stream(self, pieces: Sequence[int] | None = None):
        asked = self.asked if pieces is None else [self.asked[k] for k in pieces]
        return self.whole.made_of(asked, self.rows)


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
