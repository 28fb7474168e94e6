"""Bands of rows of maps in an HDF5 file, read one at a time and again when reading fails."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool

from ..errors import DataError
from ..files import Retry
from .layouts import read_maps
from .layouts.maps import Half, Layer, Place, RawMaps, SlicedMap, Window
from .layouts.opened import open_hdf5

RETRIES = 3
PAUSE = 0.2  # s before the first repetition, twice as long before the next
# What a file that is truncated, gone or replaced leads to, or a disk that is.
_UNREADABLE = (DataError, OSError)


class MapSource(eqx.Module):
    """Where the chosen maps of a file are; a plain value that other processes can be sent.

    - `path`: the file; `place`: what is meant of it, and how it is opened.
    - `names`, `maps`: HDF5 path and number of each chosen map in it.
    - `shape`: shape of a map in the file; `frames`: first and one past the last frame taken.
    - `halves`, `sigma_halves`: which triangle holds the pairs; no stored sigma without the latter.
    - `dtype`: precision in which bands come; `baseline` is added to them.
    - `pair_mask`: true where the pair i < j counts.
    - `fills`: of each map the numbers that stand for no number, in `dtype` and with `baseline`.
    - `sha256`: of the file, empty where it was not read for that.
    """

    path: str = eqx.field(static=True)
    place: Place = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    maps: tuple[int, ...] = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)
    frames: tuple[int, int] = eqx.field(static=True)
    halves: tuple[Half, ...] = eqx.field(static=True)
    sigma_halves: tuple[Half, ...] | None = eqx.field(static=True)
    dtype: str = eqx.field(static=True)
    baseline: float = eqx.field(static=True)
    pair_mask: Bool[np.ndarray, "*angle frame frame"] | None
    sha256: str = eqx.field(static=True, default="")
    fills: tuple[tuple[float, ...], ...] = eqx.field(static=True, default=())

    @property
    def n_frames(self) -> int:
        """Number of frames taken."""
        return self.frames[1] - self.frames[0]

    def mask_of(self, angle: int) -> Bool[np.ndarray, "frame frame"] | None:
        """The stored pair mask of one angle."""
        mask = self.pair_mask
        return mask if mask is None or mask.ndim == 2 else mask[angle]

    def reader(self) -> "BandReader":
        """A reader of bands; a context manager that holds the file open."""
        return BandReader(self)


class BandReader:
    """Reads bands of a `MapSource`; what cannot be read is tried again with the file reopened.

    Nothing is opened before the first band. For one thread at a time.
    """

    def __init__(self, source: MapSource):
        self.source = source
        self._open = ExitStack()
        self._raw: RawMaps | None = None

    def __enter__(self) -> "BandReader":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next band opens it again."""
        self._raw = None
        self._open.close()

    def band(self, angle: int, rows: slice) -> np.ndarray:
        """c2 of the pairs i ≤ j with i in `rows`, `(row, n − rows.start)`.

        **Raises:** `DataError` with file, HDF5 path and rows when it cannot be read.
        """
        source, number = self.source, self.source.maps[angle]
        fills = source.fills[angle] if source.fills else ()
        kept = (np.dtype(source.dtype), source.baseline, fills)
        return self._band(angle, rows, source.halves, lambda raw: raw.maps[number], *kept)

    def sigma_band(self, angle: int, rows: slice) -> np.ndarray:
        """The stored standard deviation of the same pairs.

        **Raises:** `DataError` as `band`.
        """
        halves, number = self.source.sigma_halves, self.source.maps[angle]
        assert halves is not None
        return self._band(angle, rows, halves, lambda raw: Layer(raw.sigma, number))

    def _band(
        self,
        angle: int,
        rows: slice,
        halves: tuple[Half, ...],
        whole_of: Callable[[RawMaps], SlicedMap],
        *kept: Any,
    ) -> np.ndarray:
        source, retry = self.source, Retry(RETRIES, PAUSE)
        place = (source.frames[0], source.n_frames, source.names[angle])

        def read() -> np.ndarray:
            return Window(whole_of(self._maps()), *place, *kept).band(halves[angle], rows)

        try:
            return retry.run(read, lambda _: self.close(), _UNREADABLE)
        except _UNREADABLE as failure:
            first = source.frames[0]
            raise DataError(
                f"{source.path}: rows {rows.start + first + 1} … {rows.stop + first} of "
                f"{source.names[angle]} could not be read, also not in {RETRIES} more attempts "
                f"({failure}). Make the file readable again, then resume or start again."
            ) from failure

    def _maps(self) -> RawMaps:
        if self._raw is not None:
            return self._raw
        source = self.source
        file = self._open.enter_context(open_hdf5(source.path, source.place.access))
        raw = read_maps(file, source.place)
        for name, number in zip(source.names, source.maps, strict=True):
            found = raw.maps[number].shape if number < len(raw.maps) else None
            if found != source.shape or raw.names[number] != name:
                raise DataError(
                    f"{source.path}: {name} had shape {source.shape} and is now "
                    f"{'missing' if found is None else found}; the file was replaced. Open it anew."
                )
        self._raw = raw
        return raw
