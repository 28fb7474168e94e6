"""From what a reader hands over to a checked `TwoTimeData`: choose, complete, mask, weigh."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from .checks import positive, positive_sigma
from .half import Triangle, complete, stored_triangle
from .layouts.raw import RawMaps
from .noise import maps_sigma
from .place import kept_dtype, placed
from .selection import Selection, mask_of_map, usable_pairs
from .two_time import TwoTimeData

Sigma = float | Literal["mad"] | None


def _read_maps(raw: RawMaps, chosen: np.ndarray, frames: slice) -> tuple[np.ndarray, bool]:
    """The chosen maps as one array, and whether it may be changed in place."""
    kept = kept_dtype(raw)
    if (
        raw.stack is not None
        and raw.dtype == kept
        and np.array_equal(chosen, np.arange(raw.q.size))
    ):
        return raw.stack[:, frames, frames], raw.owned
    n = frames.stop - frames.start
    c2 = np.empty((chosen.size, n, n), kept)
    for position, index in enumerate(chosen):
        c2[position] = raw.read(int(index), frames, frames)
    return c2, True


def assemble(
    raw: RawMaps,
    selection: Selection,
    *,
    dt: float | None = None,
    gap: float | None = None,
    sigma: Sigma = None,
    chosen: np.ndarray | None = None,
) -> TwoTimeData:
    """Check, choose, complete and weigh. `chosen` overrides the choice of maps by `selection`.

    **Raises:** `DataError` for everything that makes the data unusable.
    """
    place = placed(raw, selection, dt, gap, chosen)
    chosen, frames, t = place.chosen, place.frames, place.t
    c2, owned = _read_maps(raw, chosen, frames)
    diagonal = _diagonals(raw, c2, chosen, frames)
    diagonal += raw.baseline
    c2, owned, notes = _complete(raw, c2, owned, chosen)
    c2, keep = _masks(raw, selection, c2, owned, t, chosen, frames)
    weights, absolute = _weights(raw, c2, keep, sigma, chosen, frames)
    data = TwoTimeData(
        c2=c2,
        t=t,
        geometry=place.geometry,
        root_weights=weights,
        diagonal=diagonal,
        absolute_sigma=absolute,
        provenance=place.provenance(raw, notes),
    )
    return _noted(data)


def _noted(data: TwoTimeData) -> TwoTimeData:
    """The same data, with the number of masked pairs in its provenance."""
    notes = masked_note(data.masked_pairs, data.n_pairs)
    provenance = replace(data.provenance, notes=(*data.provenance.notes, *notes))
    return replace(data, provenance=provenance) if notes else data


def masked_note(masked: int, used: int) -> tuple[str, ...]:
    """A remark when pairs are masked."""
    if masked == 0:
        return ()
    return (f"{masked} of {masked + used} pairs are masked and count for nothing.",)


def _diagonals(raw: RawMaps, c2: np.ndarray, chosen: np.ndarray, frames: slice) -> np.ndarray:
    """Raw diagonals as float64; NaN where nothing sensible is stored."""
    if raw.read_diagonal is not None:
        read = raw.read_diagonal
        return np.stack([np.asarray(read(int(i), frames), np.float64) for i in chosen])
    return sensible_diagonal(np.diagonal(c2, axis1=1, axis2=2).astype(np.float64))


def sensible_diagonal(diagonal: np.ndarray) -> np.ndarray:
    """Diagonals `(angle, frame)` in place, NaN where a map holds no number there."""
    diagonal[~np.isfinite(diagonal)] = np.nan
    # correlators that leave the diagonal out write zeros
    diagonal[np.all(np.nan_to_num(diagonal) == 0, axis=1)] = np.nan
    return diagonal


def _complete(
    raw: RawMaps, c2: np.ndarray, owned: bool, chosen: np.ndarray
) -> tuple[np.ndarray, bool, list[str]]:
    """Maps with both triangles filled; the caller's array is copied before it would change."""
    triangles: list[Triangle] = [
        stored_triangle(raw.where, raw.names[index], c2[position], raw.storage)
        for position, index in enumerate(chosen)
    ]
    halves = sum(triangle != "full" for triangle in triangles)
    if not owned and (halves or raw.baseline):
        c2, owned = c2.copy(), True
    for position, triangle in enumerate(triangles):
        complete(c2[position], triangle)
    notes = [f"{halves} of {len(triangles)} maps were stored as one half."] if halves else []
    if raw.baseline:
        c2 += c2.dtype.type(raw.baseline)
        notes.append(f"{raw.baseline:g} was added: the maps are stored without their baseline.")
    return c2, owned, notes


def _masks(
    raw: RawMaps,
    selection: Selection,
    c2: np.ndarray,
    owned: bool,
    t: np.ndarray,
    chosen: np.ndarray,
    frames: slice,
) -> tuple[np.ndarray, np.ndarray | None]:
    """c2 with masked entries at 0, and the boolean mask of usable pairs (`None`: all)."""
    where = raw.where
    shared = usable_pairs(where, selection, t, frames)
    n_maps = (chosen.size, raw.q.size)
    off_diagonal = ~np.eye(t.size, dtype=bool)
    keep: np.ndarray | None = None
    for position, index in enumerate(chosen):
        finite = np.isfinite(c2[position])
        finite &= finite.T
        user = mask_of_map(where, selection, position, int(index), n_maps, raw.shapes[0][0], frames)
        usable = finite & off_diagonal
        for part in (shared, user):
            usable = usable if part is None else usable & part
        blank = ~usable
        # the diagonal is no pair; for display it stays unless it is no number
        np.fill_diagonal(blank, ~finite.diagonal())
        if not usable.any():
            raise nothing_left(raw, int(index))
        if blank.any():
            if not owned:
                c2, owned = c2.copy(), True
            c2[position][blank] = 0
        if not np.array_equal(usable, off_diagonal):
            if keep is None:
                keep = np.broadcast_to(off_diagonal, c2.shape).copy()
            keep[position] = usable
    return c2, keep


def nothing_left(raw: RawMaps, index: int) -> DataError:
    """The error for a map of which masks and NaN leave no pair."""
    return DataError(
        f"{raw.where}: {raw.names[index]} (phi = {raw.phi[index]:g}) has no finite pair left "
        "after masks and NaN; leave this map out or widen the selection."
    )


def _weights(
    raw: RawMaps,
    c2: np.ndarray,
    keep: np.ndarray | None,
    sigma: Sigma | Any,
    chosen: np.ndarray,
    frames: slice,
) -> tuple[np.ndarray | None, bool]:
    """Root weights 1/sigma and whether sigma is absolute."""
    where = raw.where
    if sigma is None and raw.read_sigma is not None:
        return _stored_sigma(raw, raw.read_sigma, c2, keep, chosen, frames), raw.absolute_sigma
    if sigma is None:
        return (None if keep is None else keep.astype(c2.dtype)), False
    if isinstance(sigma, str):
        known_estimate(where, sigma)
        values = maps_sigma(c2, keep)
        noise_of_maps(where, values)
    else:
        values = np.full(chosen.size, positive(where, "sigma", float(sigma), "c2"))
    inverse = (1.0 / values).astype(c2.dtype)[:, None, None]
    if keep is None:
        # a view without memory of its own
        return np.broadcast_to(inverse, c2.shape), not isinstance(sigma, str)
    return keep * inverse, not isinstance(sigma, str)


def known_estimate(where: str, sigma: str) -> None:
    """**Raises:** `DataError` when `sigma` is not the name of an estimate of the noise."""
    if sigma != "mad":
        raise DataError(f"{where}: sigma is {sigma!r}; give a number, 'mad' or nothing.")


def noise_of_maps(where: str, values: np.ndarray) -> None:
    """**Raises:** `DataError` when an estimated noise is zero."""
    if not np.all(values > 0):
        raise DataError(
            f"{where}: the noise estimate is {values.min():g}: the maps are too smooth for "
            "sigma = 'mad'. Give sigma as a number or leave it out."
        )


def _stored_sigma(
    raw: RawMaps,
    read_sigma: Any,
    c2: np.ndarray,
    keep: np.ndarray | None,
    chosen: np.ndarray,
    frames: slice,
) -> np.ndarray:
    """1/sigma from a stored sigma, completed like the maps and checked on usable pairs."""
    weights = np.zeros_like(c2)
    off_diagonal = ~np.eye(c2.shape[1], dtype=bool)
    for position, index in enumerate(chosen):
        sigma = np.array(read_sigma(int(index), frames, frames), np.float64)
        if sigma.shape != c2.shape[1:]:
            raise DataError(
                f"{raw.where}: {raw.sigma_name} has shape {sigma.shape} for one map of "
                f"{c2.shape[1:]}; sigma and c2 must be of one shape."
            )
        name = f"{raw.sigma_name} of {raw.names[index]}"
        complete(sigma, stored_triangle(raw.where, name, sigma, raw.storage))
        usable = off_diagonal if keep is None else keep[position] & off_diagonal
        positive_sigma(raw.where, name, sigma[usable])
        np.divide(1.0, sigma, out=weights[position], where=usable, casting="same_kind")
    return weights
