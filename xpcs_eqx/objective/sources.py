"""Any data as something a driver can sum."""

import numpy as np
from jaxtyping import Float

from ..data import ChunkedTwoTime, PooledData, StoredTwoTime, TwoTimeData
from .chunked import ChunkPieces
from .pieces import AbstractPieces
from .stored import PIECE, stored_tiles
from .tiles import AbstractTiles, root_of_angles, tile_side, tiles_of

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
    return stored_tiles(
        data.source,
        data.rule,
        root * constant,
        data.side_diagonal,
        data.largest_root_weight,
        tile_side(data.n_frames, tile),
        PIECE if piece is None else piece,
    )
