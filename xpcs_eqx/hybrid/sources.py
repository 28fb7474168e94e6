"""Where points of a curve come from: arrays, HDF5 files, anything that can be iterated again."""

import dataclasses
import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from os import PathLike, fspath
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from ..checkpoint import identity
from ..data.layouts.hdf5 import dataset
from ..data.layouts.opened import Access, UnreadableError, open_hdf5
from ..errors import DataError
from ..files import Retry
from ..objective import Chunk, read_ahead
from ..objective.curve import CHUNK
from ..objective.points import check_points, chunked, points_with_weight

# Points read from a file at once: enough that opening it does not count, little memory.
BLOCK = 2**18


class AbstractSource(eqx.Module):
    """Points in chunks of one shape; may be iterated as often as wanted."""

    @abstractmethod
    def chunks(self) -> Iterator[Chunk]:
        """All points from the first, in chunks of the same shape."""


def source_fingerprint(source: AbstractSource) -> str:
    """SHA-256 of all points of a source, by one pass over it."""
    digest = hashlib.sha256()
    for chunk in source.chunks():
        for part in (chunk.x, chunk.y, chunk.root_weights, chunk.group):
            array = np.ascontiguousarray(part)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()


@identity.register
def _(source: AbstractSource) -> str:
    # The points in their chunks, wherever they lie: a file may be moved, or restored.
    return source_fingerprint(source)


def _checked_size(chunk: int) -> int:
    if chunk < 1:
        raise DataError(f"chunks of {chunk} points; give a chunk of at least 1.")
    return chunk


class ArraySource(AbstractSource):
    """Points in memory, in the precision they are given in."""

    points: Chunk
    chunk: int = eqx.field(static=True)

    def __init__(
        self,
        x: Float[np.ndarray, "point *coordinate"],
        y: Float[np.ndarray, "point"],
        sigma: Float[np.ndarray, "point"] | float | None = None,
        groups: Int[np.ndarray, "point"] | None = None,
        chunk: int = CHUNK,
    ):
        size = _checked_size(chunk)
        self.points = check_points(x, y, sigma, groups, where="arrays")
        if not self.points.y.size:
            raise DataError("arrays: there is no point; give at least one.")
        # Fewer points than a chunk holds need no filling up.
        self.chunk = min(size, self.points.y.size)

    def chunks(self):
        return chunked([self.points], self.chunk, "arrays")


class HDF5Source(AbstractSource):
    """Points in datasets of an HDF5 file, the next ones read on a thread while these are used.

    - `x`: path of a dataset (n,) or (n, k), or of several (n,), which become columns.
    - `y`, `sigma`, `group`: paths of datasets (n,); `sigma` may be a number [unit of y].
    - `block`: points read at once; `depth`: blocks read in advance.
    - `retry`: how often a read that failed is tried again, with the file opened anew.
    - `linked_files`: whether files outside its folder may be read where it links to them.
    """

    path: str = eqx.field(static=True, converter=fspath)
    x: str | tuple[str, ...] = eqx.field(static=True, default="x")
    y: str = eqx.field(static=True, default="y")
    sigma: str | float | None = eqx.field(static=True, default=None)
    group: str | None = eqx.field(static=True, default=None)
    chunk: int = eqx.field(static=True, default=CHUNK, converter=_checked_size)
    block: int = eqx.field(static=True, default=BLOCK)
    depth: int = eqx.field(static=True, default=2)
    retry: Retry = Retry(pause=0.05)
    linked_files: bool = eqx.field(static=True, default=False)

    def chunks(self):
        # Whole chunks, so that nothing is copied where two blocks meet.
        block = max(self.block - self.block % self.chunk, self.chunk)
        length = self._length()

        def pieces():
            for start in range(0, length, block):
                yield self._block(start, min(start + block, length))

        return chunked(read_ahead(pieces(), self.depth), self.chunk, self.path)

    def _length(self) -> int:
        remedy = "Name the datasets of the points: (path, x, y[, sigma[, group]])."

        def look(file):
            return {name: dataset(file, name, remedy).shape for name in self._names()}

        shapes = self._retried(look, "the lengths of its datasets")
        for name, shape in shapes.items():
            if len(shape) not in (1, 2):
                raise DataError(f"{self.path}: {name} has shape {shape}; (n,) or (n, k) is needed.")
        if len({shape[0] for shape in shapes.values()}) != 1:
            found = ", ".join(f"{name} {shape[0]}" for name, shape in shapes.items())
            raise DataError(f"{self.path}: datasets differ in length: {found}.")
        return shapes[self.y][0]

    def _names(self) -> tuple[str, ...]:
        x = (self.x,) if isinstance(self.x, str) else self.x
        others = (self.y, self.sigma, self.group)
        return (*x, *(name for name in others if isinstance(name, str)))

    def _block(self, start: int, stop: int) -> Chunk:
        def read(file):
            # That they exist was seen at the start of the pass.
            return {name: dataset(file, name)[start:stop] for name in self._names()}

        found = self._retried(read, f"points {start} to {stop - 1}")
        x = found[self.x] if isinstance(self.x, str) else np.stack([found[n] for n in self.x], 1)
        sigma = found[self.sigma] if isinstance(self.sigma, str) else self.sigma
        group = None if self.group is None else found[self.group]
        where = f"{self.path}, chunk from point {start}"
        return check_points(x, found[self.y], sigma, group, where=where, first=start)

    def _retried(self, read: Callable[[Any], Any], what: str) -> Any:
        def attempt():
            # Opened for each block: what happens to the file is seen, and a retry is fresh.
            with open_hdf5(self.path, Access(self.linked_files)) as file:
                return read(file)

        try:
            return self.retry.run(attempt, errors=(UnreadableError,))
        except UnreadableError as error:
            raise DataError(
                f"{self.path}: {what} could not be read in {self.retry.attempts + 1} attempts "
                f"({error}). The file is missing, truncated or damaged: restore it and start "
                "again, from the last checkpoint if there is one."
            ) from error


class FactorySource(AbstractSource):
    """Pieces from an iterator that `factory` makes anew for every pass.

    A piece is (x, y), (x, y, sigma), (x, y, sigma, group) or a `Chunk`, of any length. `sigma` is
    that of pieces without one.
    """

    factory: Callable[[], Iterable[Any]] = eqx.field(static=True)
    sigma: float | None = eqx.field(static=True, default=None)
    chunk: int = eqx.field(static=True, default=CHUNK, converter=_checked_size)

    def chunks(self):
        return chunked(self._pieces(), self.chunk, "iterable source")

    def _pieces(self):
        for number, piece in enumerate(self.factory()):
            where = f"iterable source, chunk {number}"
            if isinstance(piece, Chunk):
                yield points_with_weight(piece, where)
            elif isinstance(piece, tuple) and 2 <= len(piece) <= 4:
                x, y, sigma, group = (*piece, None, None)[:4]
                yield check_points(x, y, self.sigma if sigma is None else sigma, group, where=where)
            else:
                raise DataError(
                    f"{where}: found {type(piece).__name__}; give tuples (x, y), (x, y, sigma), "
                    "(x, y, sigma, group) or Chunk."
                )


class _Rounded(AbstractSource):
    """Another source with x and y in another type."""

    source: AbstractSource
    dtype: str = eqx.field(static=True)

    def chunks(self):
        for number, chunk in enumerate(self.source.chunks()):
            yield _rounded(chunk, self.dtype, f"chunk {number}")


def _rounded(points: Chunk, dtype: str, where: str) -> Chunk:
    with np.errstate(over="ignore"):
        x, y = (np.asarray(values).astype(dtype, copy=False) for values in (points.x, points.y))
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise DataError(f"{where}: values too large for {dtype}; keep the points in float64.")
    return dataclasses.replace(points, x=x, y=y)


def source_stored_as(source: AbstractSource, dtype: str) -> AbstractSource:
    """A source with x and y in another type: arrays are kept in it, chunks are rounded to it.

    Weights stay what they are.

    **Raises:** `DataError` for values that the type does not reach.
    """
    if not isinstance(source, ArraySource):
        return _Rounded(source, dtype)
    return eqx.tree_at(lambda s: s.points, source, _rounded(source.points, dtype, "arrays"))


def as_source(
    source: Any, sigma: Any = None, groups: Any = None, chunk: int = CHUNK
) -> AbstractSource:
    """A source from what a user has.

    **Arguments:**

    - `source`: a tuple of arrays (x, y) or (x, y, sigma); an HDF5 path (datasets `x`, `y`), or a
        tuple (path, x, y[, sigma[, group]]) with the paths of datasets; a callable returning a
        fresh iterator of chunks, or anything that can be iterated again; an `AbstractSource`.
    - `sigma`: standard deviations [unit of y]: an array or a number for arrays, the path of a
        dataset or a number for a file, a number for an iterable.
    - `groups`: the group of each point: an array, or the path of a dataset.
    - `chunk`: points per chunk.

    **Raises:** `DataError` for an iterator that can be consumed only once and what is none of
    these, naming the remedy.
    """
    if isinstance(source, AbstractSource):
        if sigma is not None or groups is not None:
            raise DataError(
                f"{type(source).__name__} brings its own sigma and groups; give them there."
            )
        return source
    if isinstance(source, str | PathLike):
        source = (source,)
    if isinstance(source, tuple) and source and isinstance(source[0], str | PathLike):
        return _file_source(source, sigma, groups, chunk)
    of_arrays = isinstance(source, tuple) and len(source) in (2, 3)
    if of_arrays and not isinstance(source[0], tuple | Chunk):
        own = source[2] if len(source) == 3 else None
        return ArraySource(source[0], source[1], _either(own, sigma), groups, chunk)
    if groups is not None or not (sigma is None or np.ndim(sigma) == 0):
        raise DataError(
            "chunks bring their own sigma and groups: yield (x, y, sigma, group) from the source."
        )
    if hasattr(source, "__next__"):
        raise DataError(
            f"a {type(source).__name__} can be consumed only once, and a fit passes over the data "
            "many times. Give a callable that returns a fresh one (the generator function itself, "
            "not its result), or a list of chunks."
        )
    if callable(source):
        factory: Callable[[], Any] = source
        return FactorySource(factory, sigma, chunk)
    if isinstance(source, Iterable) and not isinstance(source, np.ndarray | Mapping):
        return FactorySource(partial(iter, source), sigma, chunk)
    raise DataError(
        f"a source of type {type(source).__name__}; give (x, y[, sigma]), an HDF5 path, a callable "
        "that returns a fresh iterator of chunks, or a list of chunks."
    )


def _either(own: Any, given: Any) -> Any:
    if own is not None and given is not None:
        raise DataError("sigma is given twice, in the source and beside it; leave one out.")
    return given if own is None else own


def _file_source(source: tuple[Any, ...], sigma: Any, groups: Any, chunk: int) -> HDF5Source:
    if len(source) not in (1, 3, 4, 5):
        raise DataError(
            f"{source[0]}: {len(source) - 1} names of datasets; "
            "give (path, x, y[, sigma[, group]])."
        )
    names: tuple[Any, ...] = (*source, *("", "x", "y", None, None)[len(source) :])
    path, x, y, own, group = names
    return HDF5Source(path, x, y, _either(own, sigma), group if groups is None else groups, chunk)
