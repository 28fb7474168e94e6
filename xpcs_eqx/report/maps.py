"""The maps of a fit, data, fitted surface and residuals: a band of rows at a time.

Maps in memory and maps in a file are gone through in the same way, so that results take little
memory whatever the size of the data.
"""

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float

from ..compiling import quick_jit
from ..data import is_mask
from ..errors import FitError
from ..fitting import Fit
from ..objective import MapTiles, StoredTiles, forms_maps, on_one_device
from ..physics import correlation_rows

# Above this many entries float32 halves what a result takes on disk and in memory.
_SINGLE = 4_000_000
# Entries of a band of rows: enough that a loop over bands costs nothing.
_BAND = 2**20
# Frames along the side of a map that is shown, and of the part whose neighbours are compared.
FRAMES = 1000
MIDDLE = 400


class FittedBand(NamedTuple):
    """Some rows of the map of one angle.

    Of maps in a file only pairs i ≤ j are there, the rest is 0 and not `used`.

    - `fitted`: surface as the solver saw it, offset + contrast on the diagonal.
    - `used`: whether a pair counted; never true on the diagonal.
    - `root_weights`: weight of its residual in the fit, or None when every pair weighed the same.
    """

    rows: slice
    c2: Float[np.ndarray, "row frame"]
    fitted: Float[np.ndarray, "row frame"]
    used: Bool[np.ndarray, "row frame"]
    root_weights: Float[np.ndarray, "row frame"] | None

    @property
    def residual(self) -> Float[np.ndarray, "row frame"]:
        """c2 − fitted where `used`, else NaN."""
        return np.where(self.used, self.c2 - self.fitted, np.nan)


@dataclass(frozen=True, repr=False)
class FittedMaps:
    """What was fitted and what came out, of some angles and frames.

    - `c2`, `fitted`, `used`, `root_weights`: as of `FittedBand`.
    - `residual`: c2 − fitted, NaN where not `used`.
    - `t` [s], `phi` [deg], `q` [1/Å], `gap` [Å].
    - `n_angles`: angles of the fit, of which these may be some; `step`: of every how many frames.
    """

    c2: Float[np.ndarray, "angle frame frame"]
    fitted: Float[np.ndarray, "angle frame frame"]
    residual: Float[np.ndarray, "angle frame frame"]
    used: Bool[np.ndarray, "angle frame frame"]
    root_weights: Float[np.ndarray, "angle frame frame"] | None
    t: Float[np.ndarray, "frame"]
    phi: Float[np.ndarray, "angle"]
    q: float
    gap: float
    n_angles: int
    step: int = 1

    def __repr__(self) -> str:
        return eqx.tree_pformat(self)


def has_maps(fit: Fit) -> bool:
    """Whether the data of a fit are maps, in memory or in a file; pooled points are not."""
    return forms_maps(fit.objective.term.tiles)


def is_stored(fit: Fit) -> bool:
    """Whether the maps of a fit stay in their file."""
    return isinstance(fit.objective.term.tiles, StoredTiles)


def has_weights(tiles: Any) -> bool:
    """Whether pairs weigh differently: by their own sigma, or by estimated noise of whole maps."""
    if isinstance(tiles, StoredTiles):
        return tiles.source.sigma_halves is not None or tiles.largest_root_weight != 1
    weights = getattr(tiles, "root_weights", None)
    return weights is not None and not is_mask(weights)


def rows_of_a_band(n_frames: int) -> int:
    """Rows of a map that are worked on at a time."""
    return min(max(1, _BAND // n_frames), n_frames)


def kept_precision(stored: np.dtype, entries: int) -> np.dtype:
    """Single precision for more than four million entries, else that of the data."""
    return np.dtype(np.float32) if entries > _SINGLE else np.dtype(stored)


def chosen_angles(n_angles: int, most: int = 6) -> list[int]:
    """At most `most` angles, evenly spread over all of them."""
    if n_angles <= most:
        return list(range(n_angles))
    return sorted({round(i) for i in np.linspace(0, n_angles - 1, most)})


@quick_jit
def _fitted_rows(model, t, geometry, contrast, offset, rows):
    return offset + contrast * correlation_rows(model, t, geometry, rows)[0]


class _Source(NamedTuple):
    """The maps behind a fit."""

    fit: Fit
    tiles: MapTiles | StoredTiles
    n_angles: int
    n_frames: int
    dtype: np.dtype

    def bands(self, angle: int, frames: slice) -> Iterator[FittedBand]:
        height = min(rows_of_a_band(self.n_frames), frames.stop - frames.start)
        starts = range(frames.start, frames.stop, height)
        bands = [slice(low, min(low + height, frames.stop)) for low in starts]
        make = self._stored if isinstance(self.tiles, StoredTiles) else self._held
        yield from make(angle, bands, height)

    def _fitted(self, angle: int, rows: slice, height: int) -> Float[np.ndarray, "row frame"]:
        """Some rows, at most `height`, of the fitted surface of one angle."""
        fit, term = self.fit, self.fit.objective.term
        # All bands have one shape, so that one compilation serves them.
        index = np.minimum(rows.start + np.arange(height), self.n_frames - 1)
        scaling = (fit.contrast[angle], fit.offset[angle])
        place = jax.device_get(term.geometry).angle(angle)
        found = _fitted_rows(fit.model, term.t, place, *scaling, index)
        return np.asarray(found)[: rows.stop - rows.start]

    def _held(self, angle: int, bands: list[slice], height: int) -> Iterator[FittedBand]:
        tiles, columns = self.tiles, np.arange(self.n_frames)[None, :]
        assert isinstance(tiles, MapTiles)
        counts = float(np.asarray(tiles.root_angle_weights)[angle]) > 0
        weights = None if tiles.root_weights is None else np.asarray(tiles.root_weights)[angle]
        weighted = has_weights(tiles)
        c2 = np.asarray(tiles.c2)[angle]
        for rows in bands:
            index = np.arange(rows.start, rows.stop)[:, None]
            used = np.broadcast_to(counts & (index != columns), c2[rows].shape)
            if weights is not None:
                # What counts is the pair i < j.
                pair = np.where(index < columns, weights[rows], weights[:, rows].T)
                used = used & (pair > 0)
            root = weights[rows] if weights is not None and weighted else None
            yield FittedBand(rows, c2[rows], self._fitted(angle, rows, height), used, root)

    def _stored(self, angle: int, bands: list[slice], height: int) -> Iterator[FittedBand]:
        tiles, n = self.tiles, self.n_frames
        assert isinstance(tiles, StoredTiles)
        source, columns = tiles.source, np.arange(n)[None, :]
        mask = source.mask_of(angle)
        weighted = has_weights(tiles)
        constant = float(tiles.root_angle_weights[angle])
        with source.reader() as reader:
            for rows in bands:
                low, index = rows.start, np.arange(rows.start, rows.stop)[:, None]
                c2 = np.zeros((index.size, n), source.dtype)
                c2[:, low:] = reader.band(angle, rows)
                used = np.isfinite(c2) & (index < columns)
                if tiles.rule is not None:
                    used &= tiles.rule(index, columns)
                if mask is not None:
                    used &= mask[rows]
                root = np.where(used, constant, 0.0) if weighted else None
                if root is not None and source.sigma_halves is not None:
                    sigma = np.zeros(used.shape)
                    sigma[:, low:] = reader.sigma_band(angle, rows)
                    where = used & (sigma > 0)
                    root = np.divide(root, sigma, out=np.zeros_like(root), where=where)
                c2 = np.where(used | (index == columns), c2, 0)
                fitted = np.where(index <= columns, self._fitted(angle, rows, height), 0)
                yield FittedBand(rows, c2, fitted, used & (constant > 0), root)


def _source_of(fit: Fit) -> _Source:
    """The maps of a fit. **Raises:** `FitError` for pooled points."""
    tiles = fit.objective.term.tiles
    if isinstance(tiles, StoredTiles):
        shape = (tiles.n_angles, tiles.source.n_frames)
        return _Source(fit, tiles, *shape, np.dtype(tiles.source.dtype))
    tiles = on_one_device(tiles)
    if not isinstance(tiles, MapTiles):
        raise FitError(
            "the data are not maps; for pooled points use the residuals of the objective"
        )
    n_angles, n, _ = tiles.c2.shape
    return _Source(fit, tiles, n_angles, n, np.dtype(tiles.c2.dtype))


def fitted_bands(fit: Fit, angle: int, frames: slice | None = None) -> Iterator[FittedBand]:
    """Data and fit of one angle in bands of rows, those of `frames` or all.

    **Raises:** `FitError` for pooled points; `DataError` when a band cannot be read.
    """
    source = _source_of(fit)
    yield from source.bands(angle, slice(0, source.n_frames) if frames is None else frames)


def fitted_maps(
    fit: Fit, angles: Sequence[int] | None = None, frames: slice = slice(None)
) -> FittedMaps:
    """The maps of some angles and frames, or of all; `frames` may have a step.

    Memory is that of what is returned and of a band; float32 for more than four million entries.

    **Raises:** as `fitted_bands`.
    """
    source, term = _source_of(fit), fit.objective.term
    wanted = range(source.n_angles) if angles is None else angles
    chosen = np.arange(source.n_frames)[frames]
    shape = (len(wanted), chosen.size, chosen.size)
    dtype = kept_precision(source.dtype, int(np.prod(shape)))
    c2, fitted, used = np.zeros(shape, dtype), np.zeros(shape, dtype), np.zeros(shape, bool)
    root = None
    for k, angle in enumerate(wanted):
        for band in source.bands(angle, slice(int(chosen[0]), int(chosen[-1]) + 1)):
            inside = (chosen >= band.rows.start) & (chosen < band.rows.stop)
            here = np.ix_(chosen[inside] - band.rows.start, chosen)
            c2[k, inside], fitted[k, inside] = band.c2[here], band.fitted[here]
            used[k, inside] = band.used[here]
            if band.root_weights is not None:
                root = np.zeros(shape, dtype) if root is None else root
                root[k, inside] = band.root_weights[here]
        if isinstance(source.tiles, StoredTiles):
            for stack in (c2, fitted, used, *(() if root is None else (root,))):
                stack[k] += np.triu(stack[k], 1).T
    return FittedMaps(
        c2=c2,
        fitted=fitted,
        residual=np.where(used, c2 - fitted, np.asarray(np.nan, dtype)),
        used=used,
        root_weights=root,
        t=np.asarray(term.t)[chosen],
        phi=np.asarray(term.geometry.phi)[list(wanted)],
        q=float(term.geometry.q),
        gap=float(term.geometry.gap),
        n_angles=source.n_angles,
        step=1 if frames.step is None else frames.step,
    )


def shown_maps(fit: Fit) -> tuple[FittedMaps, FittedMaps]:
    """What plots show of maps, whatever their size.

    At most six angles, of at most 1000 frames every so many; and the middle 400 frames of the same
    angles one after the other.

    **Raises:** as `fitted_bands`.
    """
    source = _source_of(fit)
    n, angles = source.n_frames, chosen_angles(source.n_angles)
    low = max(0, (n - MIDDLE) // 2)
    thin = fitted_maps(fit, angles, slice(0, n, -(-n // FRAMES)))
    return thin, fitted_maps(fit, angles, slice(low, min(low + MIDDLE, n)))


def sheet_maps(fit: Fit, most: int = 36) -> Iterator[FittedMaps]:
    """One angle after the other for a contact sheet, at most some of them, of every so many frames.

    **Raises:** as `fitted_bands`.
    """
    source = _source_of(fit)
    step = -(-source.n_frames // MIDDLE)
    for angle in chosen_angles(source.n_angles, most):
        yield fitted_maps(fit, [angle], slice(0, source.n_frames, step))


def write_fitted_data(path: str, fit: Fit) -> None:
    """Data, fit and residuals of all maps, one band in memory at a time.

    `path` ends in `.npz` for maps in memory, else it becomes chunked HDF5. Both hold c2, fitted,
    residual and used (angle, frame, frame), root_weights where pairs weighed differently, t, phi, q
    and gap. Pairs that did not count, and the diagonal, are NaN in the residual and not `used`.

    **Raises:** `FitError` for pooled points; `DataError` when maps cannot be read; `OSError` when
    there is no room.
    """
    source, term = _source_of(fit), fit.objective.term
    shape = (source.n_angles, source.n_frames, source.n_frames)
    dtype = kept_precision(source.dtype, int(np.prod(shape)))
    values = {"t": term.t, **{name: getattr(term.geometry, name) for name in ("phi", "q", "gap")}}
    small = {name: np.asarray(value) for name, value in values.items()}
    kinds = {"c2": dtype, "fitted": dtype, "residual": dtype, "used": np.dtype(bool)}
    if has_weights(source.tiles):
        kinds["root_weights"] = dtype
    write = _write_npz if path.endswith(".npz") else _write_hdf5
    write(path, source, small, shape, kinds)


def _write_npz(path: str, source: _Source, small, shape, kinds: dict[str, np.dtype]) -> None:
    def bands(angle: int) -> Iterable[FittedBand]:
        return source.bands(angle, slice(0, source.n_frames))

    # Of small maps the surface is formed once, of others for each array, as the format wants them
    # one after the other.
    few = np.prod(shape) <= _SINGLE
    held = {a: list(bands(a)) for a in range(source.n_angles)} if few else None
    with zipfile.ZipFile(path, "w") as file:
        for name, value in small.items():
            with file.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, value, allow_pickle=False)
        for name, kind in kinds.items():
            header = {
                "descr": np.lib.format.dtype_to_descr(kind),
                "fortran_order": False,
                "shape": shape,
            }
            with file.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                for angle in range(source.n_angles):
                    for band in bands(angle) if held is None else held[angle]:
                        stream.write(np.ascontiguousarray(getattr(band, name), kind).tobytes())


def _write_hdf5(path: str, source: _Source, small, shape, kinds: dict[str, np.dtype]) -> None:
    import h5py

    side = min(source.n_frames, 256)
    with h5py.File(path, "w") as file:
        for name, value in small.items():
            file[name] = value
        for name, kind in kinds.items():
            file.create_dataset(name, shape, kind, chunks=(1, side, side))
        for angle in range(source.n_angles):
            for band in source.bands(angle, slice(0, source.n_frames)):
                for name in kinds:
                    _write_band(file[name], angle, band.rows, getattr(band, name))


def _write_band(target: Any, angle: int, rows: slice, values: np.ndarray) -> None:
    """Rows i with all j ≥ i, and the columns that mirror them."""
    height = rows.stop - rows.start
    corner = values[:, rows]
    below = np.tril(np.ones((height, height), bool), -1)
    target[angle, rows, rows] = np.where(below, corner.T, corner)
    if rows.stop < values.shape[1]:
        right = values[:, rows.stop :]
        target[angle, rows, rows.stop :] = right
        target[angle, rows.stop :, rows] = right.T
