"""Two-time data from a factory of chunks: anything that can be iterated over again and again."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from ..errors import DataError
from .checks import finite_angles, increasing_times, positive, positive_sigma
from .two_time import ENOUGH, AbstractTwoTime, Geometry, Provenance, Sample

WHERE = "chunks"


class Tile(NamedTuple):
    """A block of rows and columns of the maps of some angles.

    - `angles`, `rows`, `columns`: 0-based indices of angles and frames.
    - `values`: c2 `(angle, row, column)`; `sigma`: standard deviations of the same shape.

    Only pairs row < column count, so that a whole map counts once. NaN counts for nothing.
    """

    angles: Int[np.ndarray, "angle"]
    rows: Int[np.ndarray, "row"]
    columns: Int[np.ndarray, "column"]
    values: Float[np.ndarray, "angle row column"]
    sigma: Float[np.ndarray, "angle row column"] | None = None


class Points(NamedTuple):
    """Pairs first < second in flat arrays, with the angle of each."""

    angle: Int[np.ndarray, "point"]
    first: Int[np.ndarray, "point"]
    second: Int[np.ndarray, "point"]
    values: Float[np.ndarray, "point"]
    root_weights: Float[np.ndarray, "point"]


Factory = Callable[[], Iterable[Tile]]


class ChunkedTwoTime(AbstractTwoTime):
    """Two-time data that a factory makes anew for every pass, chunk by chunk.

    - `factory`: called without arguments, gives an iterable of `Tile`. It pickles when it is to be
        used by other processes.
    - `t`: frame times [s]; `geometry`: q, azimuths and gap.
    - `n_chunks`, `longest`: number of chunks, and of the runs of `run` points of one angle that
        the largest chunk is cut into.
    - `n_pairs`: pairs that count; `sample`: some of them.
    - `absolute_sigma`, `provenance`: as in `TwoTimeData`.
    """

    factory: Factory = eqx.field(static=True)
    t: Float[np.ndarray | jax.Array, " frame"]
    geometry: Geometry
    n_chunks: int = eqx.field(static=True)
    run: int = eqx.field(static=True)
    longest: int = eqx.field(static=True)
    n_pairs: int = eqx.field(static=True)
    sample: Sample
    absolute_sigma: bool = eqx.field(static=True, default=False)
    provenance: Provenance = eqx.field(static=True, default=Provenance())


def chunks_of(factory: Factory) -> Iterator[Tile]:
    """A fresh iterator over the chunks.

    **Raises:** `DataError` when the factory gives none, or one that was used before.
    """
    made = factory()
    if not isinstance(made, Iterable):
        raise DataError(f"{WHERE}: the factory returned {type(made).__name__}; return an iterable.")
    return iter(made)


def points_of(number: int, tile: Tile, n_angles: int, n_frames: int) -> Points:
    """The pairs of a chunk that count, by angle.

    **Raises:** `DataError` naming the chunk for shapes and indices that do not fit.
    """
    where = f"{WHERE}: chunk {number + 1}"
    if not isinstance(tile, Tile):
        raise DataError(
            f"{where} is {type(tile).__name__}; give Tile(angles, rows, columns, values, sigma)."
        )
    angles, rows, columns = (np.asarray(a) for a in tile[:3])
    values = np.asarray(tile.values)
    shape = (angles.size, rows.size, columns.size)
    sigma = None if tile.sigma is None else np.asarray(tile.sigma, float)
    for name, found in (("values", values), ("sigma", values if sigma is None else sigma)):
        if found.shape != shape:
            raise DataError(
                f"{where}: {name} has shape {found.shape} but there are {shape[0]} angles, "
                f"{shape[1]} rows and {shape[2]} columns."
            )
    for name, index, limit in (
        ("angles", angles, n_angles),
        ("rows", rows, n_frames),
        ("columns", columns, n_frames),
    ):
        if index.dtype.kind not in "iu" or np.any((index < 0) | (index >= limit)):
            raise DataError(f"{where}: {name} must be whole numbers in 0 … {limit - 1}.")
    keep = np.isfinite(values) & (rows[:, None] < columns[None, :])
    slot, i, j = np.nonzero(keep)
    roots = np.ones(slot.size)
    if sigma is not None:
        positive_sigma(where, "sigma", sigma[keep])
        roots = 1.0 / sigma[keep]
    return Points(angles[slot], rows[i], columns[j], values[keep].astype(float), roots)


def from_chunks(
    factory: Factory,
    t: Float[np.ndarray, " frame"],
    geometry: Geometry,
    *,
    absolute_sigma: bool = True,
    run: int = 16384,
) -> ChunkedTwoTime:
    """Two-time data from a function that gives a fresh iterator of `Tile` whenever it is called.

    The chunks are gone through once at once, to check and to count them. Each unordered pair must
    come once only; that is not checked.

    - `t`: frame times [s]; `geometry`: q, azimuths and gap.
    - `absolute_sigma`: whether the sigma of the chunks, if they have any, is known absolutely.
    - `run`: points of one angle that are computed together.

    **Raises:** `DataError` for an iterator instead of a factory, for chunks that do not fit and
    when no pair counts.
    """
    if isinstance(factory, Iterator) or not callable(factory):
        raise DataError(
            f"{WHERE}: {type(factory).__name__} can be gone through only once, or cannot be "
            "called, but a fit needs the data many times. Give a function that returns a fresh "
            "iterator: the name of the generator function without calling it, or "
            "lambda: iter(list_of_chunks)."
        )
    made = factory()
    if isinstance(made, Iterator) and factory() is made:
        raise DataError(
            f"{WHERE}: the factory returned the same iterator twice, which is used up after one "
            "pass. Make a new one in every call."
        )
    t = np.asarray(t, float)
    increasing_times(WHERE, "t", t)
    positive(WHERE, "q", float(geometry.q), "1/Å")
    phi = np.asarray(geometry.phi, float)
    finite_angles(WHERE, "phi", phi)
    pairs, longest, n_chunks, weighted = 0, 0, 0, False
    parts: list[Points] = []
    by_angle = np.zeros(phi.size, int)
    for n_chunks, tile in enumerate(chunks_of(factory), 1):
        points = points_of(n_chunks - 1, tile, phi.size, t.size)
        weighted |= tile.sigma is not None
        counts = np.bincount(points.angle, minlength=phi.size)
        by_angle += counts
        pairs += points.values.size
        longest = max(longest, int(np.sum(-(-counts // run))))
        parts.append(_thinned(points, ENOUGH // 8))
        if sum(part.values.size for part in parts) > 8 * ENOUGH:
            parts = [_thinned(part, part.values.size // 2) for part in parts]
    if n_chunks == 0 or np.any(by_angle == 0):
        missing = np.flatnonzero(by_angle == 0).tolist()
        raise DataError(f"{WHERE}: {n_chunks} chunks hold no pair that counts at angles {missing}.")
    return ChunkedTwoTime(
        factory=factory,
        t=t,
        geometry=geometry,
        n_chunks=n_chunks,
        run=run,
        longest=longest,
        n_pairs=pairs,
        sample=Sample(
            np.concatenate([p.values for p in parts]),
            np.concatenate([p.second - p.first for p in parts]),
            np.concatenate([p.angle for p in parts]),
        ),
        absolute_sigma=weighted and absolute_sigma,
        provenance=Provenance(layout="chunks"),
    )


def _thinned(points: Points, most: int) -> Points:
    """At most about `most` of the points, evenly."""
    step = max(1, -(-points.values.size // max(most, 1)))
    return Points(*(array[::step] for array in points))
