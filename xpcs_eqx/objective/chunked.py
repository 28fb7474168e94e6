"""Chunks from a factory as pieces of points, all of one shape."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..data import ChunkedTwoTime, chunks_of, points_of
from ..errors import DataError
from .pieces import AbstractPieces, Piece
from .tiles import PointTiles, point_runs


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
