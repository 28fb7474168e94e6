"""Data as a sequence of pieces, and the sum of what a function makes of each block in them."""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from ...arguments import check_fields
from ...compiled import Later
from ...compiling import Bound, is_traced, quick_jit, zeros_like
from ...cores import in_order
from ...errors import ModelError
from ...inherited import Inherited
from ..equations import NormalEquations
from ..kernel.blocks import Block
from ..kernel.tiles import AbstractTiles

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
    made, over = iter(items), object()
    following = Inherited(lambda: next(made, over))
    thread = ThreadPoolExecutor(1, "read-ahead")
    try:
        waiting = deque(thread.submit(following) for _ in range(ahead))
        while (item := waiting.popleft().result()) is not over:
            waiting.append(thread.submit(following))
            yield item  # pyright: ignore[reportReturnType]
    finally:
        thread.shutdown(cancel_futures=True)
        if isinstance(made, Generator):
            made.close()


def each_piece(
    source: AbstractPieces, pieces: Sequence[int] | None = None, ahead: int = 1
) -> Iterator[Piece]:
    """Pieces in order, the next one read while the present one is worked on."""
    stream = source.stream(pieces)
    several = (source.n_pieces if pieces is None else len(pieces)) > 1
    return read_ahead(stream, ahead) if source.waits and several and ahead > 0 else stream


@quick_jit
def fold_piece(function: Callable, args: PyTree, carry: PyTree, piece: Piece) -> PyTree:
    """`function(args, carry, block)` over the tiles of a piece in turn."""

    def body(k, carry):
        return function(args, carry, piece.tiles.block(piece.rows[k]))

    return jax.lax.fori_loop(0, piece.count, body, carry)


def fold_pieces(
    function: Callable,
    args: PyTree,
    source: AbstractPieces,
    carry: PyTree,
    pieces: Sequence[int] | None = None,
    ahead: int = 1,
) -> PyTree:
    """`function(args, carry, block)` over the tiles of some pieces of a source, or all, in turn."""
    for piece in each_piece(source, pieces, ahead):
        # A queue of unfinished sums would keep their pieces in memory.
        carry = jax.block_until_ready(fold_piece(function, args, carry, piece))
    return carry


def add_block(asked: tuple[Callable, PyTree], total: PyTree, block: Block) -> PyTree:
    """`total`, whose leading axis is that of angles, plus function(args, block) at its angle."""
    function, args = asked
    part = function(args, block)
    return jax.tree.map(lambda whole, piece: whole.at[block.angle].add(piece), total, part)


def add_piece(function: Callable, args: PyTree, total: PyTree, piece: Piece) -> PyTree:
    """`total` plus Σ function(args, block) over a piece, apart by angle."""
    return fold_piece(add_block, (function, args), total, piece)


def add_parts(total: PyTree, parts: Iterable[PyTree]) -> PyTree:
    """`total` plus some parts one after the other, by NumPy: in whatever process, the same bits."""
    total = jax.tree.map(np.asarray, total)
    for part in parts:
        total = jax.tree.map(np.add, total, part)
    # Other than `jnp.asarray` it compiles nothing.
    return jax.device_put(total)


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
    return fold_pieces(add_block, (function, args), source, zero, pieces, ahead)


def scan_tiles(function: Callable, args: PyTree, tiles: AbstractTiles, zero: PyTree) -> PyTree:
    """`zero` plus Σ function(args, block) over tiles in memory; part of a compiled function."""

    def body(total, row):
        return add_block((function, args), total, tiles.block(row)), None

    return jax.lax.scan(body, zero, jnp.asarray(tiles.table))[0]


# Tiles in a share of a sum at least, for handing it over to cost nothing, and shares at most, for a
# node of many cores. Neither depends on the cores there are: sums are the same everywhere.
_SHARE, _SHARES = 8, 64


def shares_of(tiles: AbstractTiles) -> list[tuple[int, int]]:
    """The table of tiles in memory in runs of one length, as (first, end)."""
    n = len(tiles.table)
    # None is much shorter than another, which would leave a core waiting.
    length = -(-n // min(max(n // _SHARE, 1), _SHARES))
    return [(low, min(low + length, n)) for low in range(0, n, length)]


class SomeTiles(AbstractTiles):
    """Some of the tiles of data in memory, by their places in the table."""

    tiles: AbstractTiles
    places: tuple[int, ...] = eqx.field(static=True)

    @property
    def table(self):
        return self.tiles.table[list(self.places)]

    def block(self, row):
        return self.tiles.block(row)


@quick_jit
def _sum_share(function, args, tiles, zero, order, low, high):
    """`zero` plus the tiles whose places `order` has from `low` to before `high`."""
    rows = jnp.asarray(tiles.table)[order]

    def body(k, total):
        return add_block((function, args), total, tiles.block(rows[k]))

    return jax.lax.fori_loop(low, high, body, zero)


def _whole(tiles: AbstractTiles) -> AbstractTiles:
    """All tiles, of which these may be some."""
    return tiles.tiles if isinstance(tiles, SomeTiles) else tiles


def _shares_summed(function: Callable, args: PyTree, tiles: AbstractTiles, zero: PyTree) -> Bound:
    """`zero` plus the tiles from one number to before another, of those of data in memory.

    Some of the tiles are summed by what was compiled for the whole.
    """
    whole = _whole(tiles)
    order = np.arange(len(whole.table), dtype=np.int32)
    if isinstance(tiles, SomeTiles):
        order[: len(tiles.places)] = tiles.places
    return _sum_share.bound(function, args, whole, zeros_like(zero), order)


class TablePieces(AbstractPieces):
    """Tiles in memory as at most `parts` pieces: equal runs of their table."""

    waits: ClassVar[bool] = False
    tiles: AbstractTiles
    parts: int = eqx.field(static=True, default=1)

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
    return tiles if isinstance(tiles, AbstractPieces) else TablePieces(tiles)


BlockFunction = Callable[[PyTree, Block], NormalEquations]


def refuse_tracers(args: PyTree) -> None:
    """Refuse a sum carried out in Python inside a compiled or differentiated function.

    **Raises:** `ModelError`.
    """
    if is_traced(args):
        raise ModelError(
            "data that are read piece by piece cannot be part of a compiled or differentiated "
            "function; call the objective without jax.jit, vmap or grad, or load the data"
        )


class AbstractDriver(eqx.Module):
    """How the sum over blocks is carried out; every driver gives the same number.

    `traceable` says whether the sum may be part of a larger compiled function; a Python loop must
    not, since tracing would unroll it.
    """

    traceable: ClassVar[bool]

    __check_init__ = check_fields

    def place(
        self, tiles: AbstractTiles | AbstractPieces, small: PyTree
    ) -> tuple[AbstractTiles | AbstractPieces, PyTree]:
        """Data, and small arrays, where this driver wants to find them; by default as they are.

        Asked once, when an objective is built.
        """
        return tiles, small

    def in_parts(self, tiles: AbstractTiles | AbstractPieces) -> bool:
        """Whether a sum is best asked for outside of a compiled function, from Python."""
        return not self.traceable

    def lower(
        self,
        function: BlockFunction,
        args: PyTree,
        tiles: AbstractTiles | AbstractPieces,
        zero: NormalEquations,
        later: Later,
    ) -> None:
        """Compile what `sum` runs from Python, where it can be ahead; `later` takes what is long.

        `args` need only have the shapes of those of `sum`.
        """
        del function, args, tiles, zero, later

    @abstractmethod
    def sum(
        self,
        function: BlockFunction,
        args: PyTree,
        tiles: AbstractTiles | AbstractPieces,
        zero: NormalEquations,
    ) -> NormalEquations:
        """Σ function(args, block) with the results kept apart by angle (leading axis of `zero`)."""


class Scan(AbstractDriver):
    """Compiled loops over data in memory, on all cores; one loop under `jit`, `vmap` and `grad`.

    Asked from Python, every core sums shares of the tiles. Shares and the order in which they are
    added depend on the data alone, so that any number of cores gives the same bits.
    """

    traceable: ClassVar[bool] = True

    def sum(self, function, args, tiles, zero):
        if isinstance(tiles, AbstractPieces):
            raise ModelError(
                "Scan sums data in memory, but these are read piece by piece; leave driver out, or "
                "take HostLoop"
            )
        if not self.in_parts(tiles) or is_traced((args, tiles)):
            return scan_tiles(function, args, tiles, zero)
        one = _shares_summed(function, args, tiles, zero)

        def share(bounds):
            return jax.tree.map(np.asarray, one(*bounds))

        return add_parts(zero, in_order(share, shares_of(tiles)))

    def lower(self, function, args, tiles, zero, later):
        if isinstance(tiles, AbstractTiles) and self.in_parts(tiles):
            _shares_summed(function, args, tiles, zero).prepare(0, 0, later=later)

    def in_parts(self, tiles):
        # One device has its own ways to use all of itself.
        if not isinstance(tiles, AbstractTiles) or jax.default_backend() != "cpu":
            return False
        return len(shares_of(_whole(tiles))) > 1


class HostLoop(AbstractDriver):
    """A Python loop over pieces, for data that cannot be in memory at once.

    Every core sums a piece; they are added in their order, so that any number of cores gives the
    same bits. Memory is that of a piece for each core and of those read meanwhile.

    - `ahead`: pieces read on a thread while others are summed.
    """

    traceable: ClassVar[bool] = False
    ahead: int = eqx.field(static=True, default=1)

    def sum(self, function, args, tiles, zero):
        source = pieces_of(tiles)
        if not source.waits:
            return sum_pieces(function, args, source, zero, ahead=self.ahead)
        refuse_tracers(args)
        nothing = zeros_like(zero)

        def part(piece):
            return jax.device_get(add_piece(function, args, nothing, piece))

        return add_parts(zero, in_order(part, each_piece(source, ahead=self.ahead)))
