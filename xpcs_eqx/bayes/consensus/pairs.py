"""The pairs of a data set as a numbered list, of which shards are index sets."""

import itertools
from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import numpy as np
from equinox import AbstractVar
from jaxtyping import Float, Int

from ...data import MapSource, PairRule, PooledData, StoredTwoTime, TwoTimeData
from ...errors import ModelError
from ...objective import (
    AbstractPieces,
    AbstractTiles,
    MapTiles,
    PointTiles,
    StoredTiles,
    source_of,
    tiles_of,
)


class Points(NamedTuple):
    """Some pairs with all that a likelihood needs of them."""

    values: Float[np.ndarray, "point"]
    first: Int[np.ndarray, "point"]
    second: Int[np.ndarray, "point"]
    angle: Int[np.ndarray, "point"]
    root_weights: Float[np.ndarray, "point"]


class AbstractPairs(eqx.Module):
    """All pairs with a weight, numbered by angle, then first frame, then second.

    A pair is known by its place in the stored arrays, which are shared and never copied: some
    bytes a pair, whatever the number of shards.
    """

    places: AbstractVar[Int[np.ndarray, "pair"]]
    n_angles: AbstractVar[int]

    @property
    def n_pairs(self) -> int:
        """Number of pairs with a weight other than zero."""
        return self.places.size

    @abstractmethod
    def angle(self) -> Int[np.ndarray, "pair"]:
        """Index of the angle of each pair, ascending."""

    @abstractmethod
    def first(self) -> Int[np.ndarray, "pair"]:
        """Earlier frame of each pair."""

    @abstractmethod
    def points(self, numbers: Int[np.ndarray, "point"]) -> Points:
        """The pairs with these numbers."""


def _smallest(places: np.ndarray, size: int) -> np.ndarray:
    """Places in four bytes where they fit."""
    return places.astype(np.int32 if size < 2**31 else np.int64)


class MapPairs(AbstractPairs):
    """Pairs of square maps in memory."""

    c2: Float[np.ndarray, "angle frame frame"]
    root_weights: Float[np.ndarray, "angle frame frame"] | None
    root_angle_weights: Float[np.ndarray, "angle"]
    places: Int[np.ndarray, "pair"]  # pyright: ignore[reportIncompatibleVariableOverride]
    n_angles: int = eqx.field(static=True)  # pyright: ignore[reportIncompatibleVariableOverride]

    def angle(self):
        return self.places // np.prod(self.c2.shape[1:], dtype=int)

    def first(self):
        n = self.c2.shape[1]
        return self.places // n % n

    def points(self, numbers):
        places = self.places[numbers]
        angle, first, second = np.unravel_index(places, self.c2.shape)
        weights = self.root_angle_weights[angle]
        if self.root_weights is not None:
            weights = weights * self.root_weights.reshape(-1)[places]
        values = np.asarray(self.c2.reshape(-1)[places], float)
        return Points(values, first, second, angle, np.asarray(weights, float))


class PointPairs(AbstractPairs):
    """Pairs given as runs of points of one angle."""

    values: Float[np.ndarray, "chunk point"]
    first_frames: Int[np.ndarray, "chunk point"]
    second_frames: Int[np.ndarray, "chunk point"]
    angles: Int[np.ndarray, "chunk"]
    root_weights: Float[np.ndarray, "chunk point"]
    places: Int[np.ndarray, "pair"]  # pyright: ignore[reportIncompatibleVariableOverride]
    n_angles: int = eqx.field(static=True)  # pyright: ignore[reportIncompatibleVariableOverride]

    def angle(self):
        return self.angles[self.places // self.values.shape[1]]

    def first(self):
        return self.first_frames.reshape(-1)[self.places]

    def points(self, numbers):
        places = self.places[numbers]

        def of(stack):
            return stack.reshape(-1)[places]

        return Points(
            np.asarray(of(self.values), float),
            of(self.first_frames),
            of(self.second_frames),
            self.angles[places // self.values.shape[1]],
            np.asarray(of(self.root_weights), float),
        )


# Rows of a map in a file that are read at once.
_BAND = 256


class StoredPairs(AbstractPairs):
    """Pairs of maps in a file: a shard reads its own part, in whichever process samples it.

    Shards of consecutive ages (`ContiguousShards`) read their rows alone; those of random pairs
    read all maps once, a band of rows at a time.
    """

    source: MapSource
    root_angle_weights: Float[np.ndarray, "angle"]
    places: Int[np.ndarray, "pair"]  # pyright: ignore[reportIncompatibleVariableOverride]
    n_angles: int = eqx.field(static=True)  # pyright: ignore[reportIncompatibleVariableOverride]

    def angle(self):
        return self.places // self.source.n_frames**2

    def first(self):
        n = self.source.n_frames
        return self.places // n % n

    def points(self, numbers):
        n = self.source.n_frames
        places = np.asarray(self.places[numbers], np.int64)
        angle, first, second = np.unravel_index(places, (self.n_angles, n, n))
        values, weights = np.empty(places.size), self.root_angle_weights[angle].astype(float)
        band = angle * n + first // _BAND
        order = np.argsort(band, kind="stable")
        edges = np.flatnonzero(np.diff(band[order], prepend=-1, append=-1))
        with self.source.reader() as reader:
            for low, high in itertools.pairwise(edges):
                here = order[low:high]
                a, rows = int(angle[here[0]]), first[here]
                taken = slice(int(rows.min()), int(rows.max()) + 1)
                at = rows - taken.start, second[here] - taken.start
                values[here] = reader.band(a, taken)[at]
                if self.source.sigma_halves is not None:
                    weights[here] /= reader.sigma_band(a, taken)[at]
        return Points(values, first, second, angle, weights)


def _counting(source: MapSource, rule: PairRule | None, angle: int):
    """Places within a map of the pairs that count, and so their order."""
    n, columns = source.n_frames, np.arange(source.n_frames)
    mask = source.mask_of(angle)
    with source.reader() as reader:
        for start in range(0, n, _BAND):
            rows = slice(start, min(start + _BAND, n))
            first, second = np.arange(rows.start, rows.stop)[:, None], columns[None, start:]
            keep = np.isfinite(reader.band(angle, rows)) & (first < second)
            if rule is not None:
                keep &= np.asarray(rule(first, second))
            if mask is not None:
                keep &= mask[rows, start:]
            if source.sigma_halves is not None:
                keep &= reader.sigma_band(angle, rows) > 0
            yield (first * n + second)[keep]


def _stored_pairs(tiles: StoredTiles) -> StoredPairs:
    n = tiles.source.n_frames
    found = [
        _smallest(part + angle * n * n, tiles.n_angles * n * n)
        for angle in range(tiles.n_angles)
        if tiles.root_angle_weights[angle] != 0
        for part in _counting(tiles.source, tiles.rule, angle)
    ]
    return StoredPairs(
        source=tiles.source,
        root_angle_weights=np.asarray(tiles.root_angle_weights, float),
        places=np.concatenate(found) if found else np.zeros(0, int),
        n_angles=tiles.n_angles,
    )


def _map_pairs(c2, root_weights, root_angle_weights) -> MapPairs:
    n_angles, n, _ = c2.shape
    upper = np.triu(np.ones((n, n), bool), 1)
    found = []
    for a in range(n_angles):
        used = upper if root_weights is None else upper & (root_weights[a] != 0)
        if root_angle_weights[a] != 0:
            found.append(np.flatnonzero(used) + a * n * n)
    places = np.concatenate(found) if found else np.zeros(0, int)
    return MapPairs(
        c2=c2,
        root_weights=root_weights,
        root_angle_weights=root_angle_weights,
        places=_smallest(places, c2.size),
        n_angles=n_angles,
    )


def _point_pairs(tiles: PointTiles, n_angles: int) -> PointPairs:
    values, first, second, angle, weights = (
        np.asarray(leaf)
        for leaf in (tiles.values, tiles.first, tiles.second, tiles.angle, tiles.root_weights)
    )
    places = np.flatnonzero(weights)
    flat_first, flat_second = first.reshape(-1)[places], second.reshape(-1)[places]
    order = np.lexsort((flat_second, flat_first, angle[places // values.shape[1]]))
    places = _smallest(places[order], values.size)
    return PointPairs(
        values=values,
        first_frames=first,
        second_frames=second,
        angles=angle,
        root_weights=weights,
        places=places,
        n_angles=n_angles,
    )


def pairs_of(
    data: TwoTimeData | PooledData | StoredTwoTime | AbstractTiles | AbstractPieces,
) -> AbstractPairs:
    """The pairs of data, or of the tiles of an objective, with a weight other than zero.

    Maps in a file are read once, to know which of their pairs count.

    **Raises:** `ModelError` for data that are neither in memory nor maps in a file.
    """
    if isinstance(data, TwoTimeData):
        roots = None if data.root_weights is None else np.asarray(data.root_weights)
        return _map_pairs(np.asarray(data.c2), roots, np.ones(data.n_angles))
    if isinstance(data, PooledData):
        tiles = tiles_of(data)
        assert isinstance(tiles, PointTiles)
        return _point_pairs(tiles, data.n_angles)
    if isinstance(data, StoredTwoTime):
        return pairs_of(source_of(data))
    if isinstance(data, StoredTiles):
        return _stored_pairs(data)
    if isinstance(data, MapTiles):
        roots = None if data.root_weights is None else np.asarray(data.root_weights)
        return _map_pairs(np.asarray(data.c2), roots, np.asarray(data.root_angle_weights))
    if isinstance(data, PointTiles):
        return _point_pairs(data, int(np.max(np.asarray(data.angle), initial=-1)) + 1)
    raise ModelError(
        f"shards are made of data in memory or of maps in a file, which {type(data).__name__} is "
        "not; load the data, or a selection of them"
    )
