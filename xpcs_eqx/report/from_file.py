"""Maps that stay in their file, as results show them: a band of rows at a time."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ..errors import FitError
from ..fitting import Fit
from ..objective import StoredTiles
from .maps import FittedMaps, chosen_angles, fitted_rows, kept_precision, rows_of_a_band

# Frames along the side of a map that is shown, and of the part whose neighbours are compared.
FRAMES = 1000
MIDDLE = 400


class FittedBand(NamedTuple):
    """Some rows of the map of one angle: pairs i ≤ j only, the rest is 0 and not `used`.

    - `used`: whether a pair counted; `root_weights`: weight of its residual in the fit, or None.
    """

    rows: slice
    c2: Float[np.ndarray, "row frame"]
    fitted: Float[np.ndarray, "row frame"]
    used: Bool[np.ndarray, "row frame"]
    root_weights: Float[np.ndarray, "row frame"] | None


def is_stored(fit: Fit) -> bool:
    """Whether the maps of a fit stay in their file."""
    return isinstance(fit.objective.term.tiles, StoredTiles)


def stored_tiles_of(fit: Fit) -> StoredTiles:
    """The maps of a fit, which must be in a file.

    **Raises:** `FitError` when they are not.
    """
    tiles = fit.objective.term.tiles
    if not isinstance(tiles, StoredTiles):
        raise FitError("the data are not maps in a file; for maps in memory use fitted_maps")
    return tiles


def fitted_bands(fit: Fit, angle: int, frames: slice | None = None) -> Iterator[FittedBand]:
    """Data and fit of one angle in bands of rows, those of `frames` or all.

    **Raises:** `FitError` for data that are not maps in a file; `DataError` when a band cannot be
    read.
    """
    tiles = stored_tiles_of(fit)
    source, n = tiles.source, tiles.source.n_frames
    wanted = slice(0, n) if frames is None else frames
    mask, columns = source.mask_of(angle), np.arange(n)[None, :]
    plain = source.sigma_halves is None and tiles.largest_root_weight == 1
    constant = float(tiles.root_angle_weights[angle])
    height = min(rows_of_a_band(n), wanted.stop - wanted.start)
    with source.reader() as reader:
        for low in range(wanted.start, wanted.stop, height):
            rows = slice(low, min(low + height, wanted.stop))
            index = np.arange(rows.start, rows.stop)
            c2 = np.zeros((index.size, n), source.dtype)
            c2[:, low:] = reader.band(angle, rows)
            used = np.isfinite(c2) & (index[:, None] < columns)
            if tiles.rule is not None:
                used &= tiles.rule(index[:, None], columns)
            if mask is not None:
                used &= mask[rows]
            root = None
            if not plain:
                root = np.where(used, constant, 0.0)
            if root is not None and source.sigma_halves is not None:
                sigma = np.zeros(used.shape)
                sigma[:, low:] = reader.sigma_band(angle, rows)
                root = np.divide(root, sigma, out=np.zeros_like(root), where=used & (sigma > 0))
            fitted = fitted_rows(fit, angle, rows, height)
            c2 = np.where(used | (index[:, None] == columns), c2, 0)
            fitted = np.where(index[:, None] <= columns, fitted, 0)
            yield FittedBand(rows, c2, fitted, used & (constant > 0), root)


def _mirrored(upper: np.ndarray) -> np.ndarray:
    return upper + np.triu(upper, 1).T


def stored_maps(fit: Fit, angles: Sequence[int], frames: slice) -> FittedMaps:
    """Some angles and frames of maps that stay in their file; `frames` may have a step.

    Memory is that of what is returned and of a band.

    **Raises:** `FitError` for data that are not maps in a file; `DataError` when they cannot be
    read.
    """
    tiles, term = stored_tiles_of(fit), fit.objective.term
    chosen = np.arange(tiles.source.n_frames)[frames]
    shape = (len(angles), chosen.size, chosen.size)
    dtype = kept_precision(np.dtype(tiles.source.dtype), int(np.prod(shape)))
    c2, fitted, used = np.zeros(shape, dtype), np.zeros(shape, dtype), np.zeros(shape, bool)
    root = None
    for k, angle in enumerate(angles):
        for band in fitted_bands(fit, angle, slice(int(chosen[0]), int(chosen[-1]) + 1)):
            inside = (chosen >= band.rows.start) & (chosen < band.rows.stop)
            here = np.ix_(chosen[inside] - band.rows.start, chosen)
            c2[k, inside], fitted[k, inside] = band.c2[here], band.fitted[here]
            used[k, inside] = band.used[here]
            if band.root_weights is not None:
                root = np.zeros(shape, dtype) if root is None else root
                root[k, inside] = band.root_weights[here]
        c2[k], fitted[k] = _mirrored(c2[k]), _mirrored(fitted[k])
        used[k] |= used[k].T
        if root is not None:
            root[k] = _mirrored(root[k])
    return FittedMaps(
        c2=c2,
        fitted=fitted,
        residual=np.where(used, c2 - fitted, np.asarray(np.nan, dtype)),
        used=used,
        root_weights=root,
        t=np.asarray(term.t)[chosen],
        phi=np.asarray(term.geometry.phi)[list(angles)],
        q=float(term.geometry.q),
        gap=float(term.geometry.gap),
        n_angles=tiles.n_angles,
        step=1 if frames.step is None else frames.step,
    )


def shown_maps(fit: Fit) -> tuple[FittedMaps, FittedMaps]:
    """What plots show of maps in a file, whatever their size.

    At most six angles, of at most 1000 frames every so many; and the middle 400 frames of the same
    angles one after the other.

    **Raises:** as `stored_maps`.
    """
    tiles = stored_tiles_of(fit)
    n, angles = tiles.source.n_frames, chosen_angles(tiles.n_angles)
    low = max(0, (n - MIDDLE) // 2)
    thin = stored_maps(fit, angles, slice(0, n, -(-n // FRAMES)))
    return thin, stored_maps(fit, angles, slice(low, min(low + MIDDLE, n)))


def write_fitted_data(path: str, fit: Fit) -> None:
    """Data, fit and residuals of maps in a file as chunked HDF5, one band in memory at a time.

    Datasets as in `fitted_arrays`; the maps are (angle, frame, frame).

    **Raises:** `FitError` for data that are not maps in a file; `DataError` when they cannot be
    read; `OSError` when there is no room.
    """
    import h5py

    tiles, term = stored_tiles_of(fit), fit.objective.term
    n = tiles.source.n_frames
    shape, side = (tiles.n_angles, n, n), min(n, 256)
    dtype = kept_precision(np.dtype(tiles.source.dtype), int(np.prod(shape)))
    with h5py.File(path, "w") as file:
        for name in ("t", "phi", "q", "gap"):
            value = term.t if name == "t" else getattr(term.geometry, name)
            file[name] = np.asarray(value)

        def dataset(name: str, kind: np.dtype) -> "h5py.Dataset":
            return file.create_dataset(name, shape, kind, chunks=(1, side, side))

        maps = {name: dataset(name, dtype) for name in ("c2", "fitted", "residual")}
        maps["used"] = dataset("used", np.dtype(bool))
        for angle in range(tiles.n_angles):
            for band in fitted_bands(fit, angle):
                residual = np.where(band.used, band.c2 - band.fitted, np.nan)
                values = {
                    "c2": band.c2,
                    "fitted": band.fitted,
                    "residual": residual,
                    "used": band.used,
                }
                if band.root_weights is not None:
                    values["root_weights"] = band.root_weights
                    if "root_weights" not in maps:
                        maps["root_weights"] = dataset("root_weights", dtype)
                for name, value in values.items():
                    _write_band(maps[name], angle, band.rows, value)


def _write_band(target, angle: int, rows: slice, values: np.ndarray) -> None:
    """Rows i with all j ≥ i, and the columns that mirror them."""
    height = rows.stop - rows.start
    corner = values[:, rows]
    below = np.tril(np.ones((height, height), bool), -1)
    target[angle, rows, rows] = np.where(below, corner.T, corner)
    if rows.stop < values.shape[1]:
        right = values[:, rows.stop :]
        target[angle, rows, rows.stop :] = right
        target[angle, rows.stop :, rows] = right.T
