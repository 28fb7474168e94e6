"""Data as a sequence of pieces: each fits in memory and is summed by one compiled loop."""

import queue
import threading
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ...compiling import quick_jit
from ...data import ChunkedTwoTime, chunks_of, points_of
from ...errors import DataError
from ...inherited import Inherited
from ..kernel.blocks import Block
from ..kernel.tiles import AbstractTiles, PointTiles, point_runs

T = TypeVar("T")


class Piece(eqx.Module):
    """Tiles in memory, and which of them to sum: the first `count` of `rows`.

    All pieces of a source have arrays of the same shapes, so that one compilation serves them.
    """

    tiles: AbstractTiles
    rows: Int[Array, "tile index"]
    count: Int[Array, ""]


class AbstractPieces(eqx.Module):
    """A source of pieces that are read when they are summed; nothing keeps them.

    A source pickles, so that other processes can read their share of its pieces themselves.
    `waits` says whether reading takes time that a second thread can use.
    """

    waits: ClassVar[bool]

    @property
    @abstractmethod
    def n_pieces(self) -> int:
        """Number of pieces."""

    @abstractmethod
    def stream(self, pieces: Sequence[int] | None = None) -> Iterator[Piece]:
        """The pieces of these numbers in increasing order, or all of them."""


def read_ahead(items: Iterable[T], ahead: int = 1) -> Iterator[T]:
    """The same items, the next `ahead` of them made on a thread while one is worked on.

    What is raised while making an item is raised where it would have been handed over. The thread
    works under the settings of JAX of the thread that asks for the first item, double precision
    among them, and ends with the iterator, however that ends.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(ahead)
    stopped = threading.Event()

    def handed_over(last: bool, item: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put((last, item), timeout=0.05)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not handed_over(False, item):
                    break
            handed_over(True, None)
        except BaseException as error:  # raised again by the consumer
            handed_over(True, error)
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=Inherited(produce), name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            last, item = ready.get()
            if not last:
                yield item
                continue
            if item is not None:
                raise item
            return
    finally:
        stopped.set()
        thread.join()


def add_block(function: Callable, args: PyTree, total: PyTree, block: Block) -> PyTree:
    """`total`, whose leading axis is that of angles, plus function(args, block) at its angle."""
    part = function(args, block)
    return jax.tree.map(lambda whole, piece: whole.at[block.angle].add(piece), total, part)


@quick_jit
def add_piece(function: Callable, args: PyTree, total: PyTree, piece: Piece) -> PyTree:
    """`total` plus Σ function(args, block) over a piece, apart by angle."""

    def body(k, total):
        return add_block(function, args, total, piece.tiles.block(piece.rows[k]))

    return jax.lax.fori_loop(0, piece.count, body, total)


def each_piece(
    source: AbstractPieces, pieces: Sequence[int] | None = None, ahead: int = 1
) -> Iterator[Piece]:
    """Pieces in order, the next one read while the present one is worked on."""
    stream = source.stream(pieces)
    several = (source.n_pieces if pieces is None else len(pieces)) > 1
    return read_ahead(stream, ahead) if source.waits and several and ahead > 0 else stream


def sum_pieces(
    function: Callable,
    args: PyTree,
    source: AbstractPieces,
    zero: PyTree,
    pieces: Sequence[int] | None = None,
    ahead: int = 1,
) -> PyTree:
    """`zero` plus Σ function(args, block) over some pieces of a source, or all.

    Everything that goes in pickles when the model does, and only sums come out, so that another
    process can be asked for its share. Sums of shares add up to the sum of the whole.
    """
    total = zero
    for piece in each_piece(source, pieces, ahead):
        total = add_piece(function, args, total, piece)
        # A queue of unfinished sums would keep their pieces in memory.
        jax.block_until_ready(total)
    return total


@quick_jit
def fold_piece(function: Callable, args: PyTree, carry: PyTree, piece: Piece) -> PyTree:
    """`function(args, carry, block)` over the tiles of a piece in turn."""

    def body(k, carry):
        return function(args, carry, piece.tiles.block(piece.rows[k]))

    return jax.lax.fori_loop(0, piece.count, body, carry)


def fold_pieces(
    function: Callable, args: PyTree, source: AbstractPieces, carry: PyTree, ahead: int = 1
) -> PyTree:
    """`function(args, carry, block)` over the tiles of all pieces in turn."""
    for piece in each_piece(source, ahead=ahead):
        carry = jax.block_until_ready(fold_piece(function, args, carry, piece))
    return carry


class InMemory(AbstractPieces):
    """Tiles in memory as a source of one piece."""

    waits: ClassVar[bool] = False
    tiles: AbstractTiles

    @property
    def n_pieces(self):
        return 1

    def stream(self, pieces=None):
        if pieces is None or 0 in pieces:
            table = self.tiles.table
            yield Piece(self.tiles, jnp.asarray(table), jnp.asarray(len(table)))


class TablePieces(AbstractPieces):
    """Tiles in memory as at most `parts` pieces: equal runs of their table."""

    waits: ClassVar[bool] = False
    tiles: AbstractTiles
    parts: int = eqx.field(static=True)

    @property
    def length(self) -> int:
        """Tiles in a piece."""
        return -(-len(self.tiles.table) // self.parts)

    @property
    def n_pieces(self):
        return -(-len(self.tiles.table) // self.length)

    def stream(self, pieces=None):
        table, length = self.tiles.table, self.length
        for k in range(self.n_pieces) if pieces is None else pieces:
            rows = table[k * length : (k + 1) * length]
            filled = np.pad(rows, ((0, length - len(rows)), (0, 0)))
            yield Piece(self.tiles, jnp.asarray(filled), jnp.asarray(len(rows)))


def pieces_of(tiles: AbstractTiles | AbstractPieces) -> AbstractPieces:
    """Any data as a source of pieces."""
    return tiles if isinstance(tiles, AbstractPieces) else InMemory(tiles)


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
