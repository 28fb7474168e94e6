"""From what a reader hands over to a checked `TwoTimeData`: choose, complete, mask, weigh."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from .checks import (
    agreeing,
    finite_angles,
    increasing_times,
    positive,
    positive_sigma,
)
from .geometry import DEFAULT_GAP, Geometry
from .half import Triangle, complete, stored_triangle
from .noise import mad_sigma
from .provenance import Provenance
from .raw import RawMaps
from .selection import Selection, choose_phi, choose_q, mask_of_map, usable_pairs
from .two_time import TwoTimeData

Sigma = float | Literal["mad"] | None


def check_lists(raw: RawMaps) -> int:
    """Make sure that lists and maps belong together; returns the number of frames.

    **Raises:** `DataError` for lengths that differ, maps that are not square or not of one size,
    and times that do not match.
    """
    where = raw.where
    if not raw.names:
        raise DataError(f"{where}: there is no two-time map in it; nothing to fit.")
    for name, values in ((raw.q_name, raw.q), (raw.phi_name, raw.phi)):
        if values.shape != (len(raw.names),):
            raise DataError(
                f"{where}: {name} lists {values.size} values but there are {len(raw.names)} maps "
                f"({raw.names[0]}, …); each map needs exactly one."
            )
    for name, shape in zip(raw.names, raw.shapes, strict=True):
        if len(shape) != 2 or shape[0] != shape[1]:
            raise DataError(f"{where}: {name} has shape {shape}; a map must be square.")
        if shape != raw.shapes[0]:
            raise DataError(
                f"{where}: {name} has shape {shape} but {raw.names[0]} has {raw.shapes[0]}; all "
                "maps must be of one size."
            )
    n_frames = raw.shapes[0][0]
    if raw.t is not None and raw.t.shape != (n_frames,):
        raise DataError(
            f"{where}: {raw.time_name} has shape {raw.t.shape} but the maps have {n_frames} frames;"
            " one time for each frame is needed."
        )
    if n_frames < 2:
        raise DataError(f"{where}: {raw.names[0]} has {n_frames} frame(s); a pair needs two.")
    return n_frames


def frame_times(
    raw: RawMaps, selection: Selection, frames: slice, dt: float | None
) -> tuple[np.ndarray, float | None]:
    """Times of the selected frames [s] and the time between two rows of the map when it is known.

    **Raises:** `DataError` when no frame time is known, values disagree or times do not increase.
    """
    where = raw.where
    if dt is not None:
        positive(where, "dt", dt, "s")
    if raw.t is not None:
        if selection.time_origin not in (None, 0.0):
            raise DataError(
                f"{where}: time_origin is {selection.time_origin} s, but {raw.time_name} gives the "
                "times explicitly and they are used as they are. Leave time_origin out."
            )
        increasing_times(where, raw.time_name, raw.t)
        spacing = float((raw.t[-1] - raw.t[0]) / (raw.t.size - 1))
        for given in (dt, raw.frame_time):
            if given is not None:
                agreeing(where, f"the mean spacing of {raw.time_name}", spacing, given, "s")
        return raw.t[frames], None
    frame_time = raw.frame_time
    if frame_time is None:
        if dt is None:
            raise DataError(f"{where}: no frame time in {raw.time_name}; give dt [s].")
        frame_time = dt
    positive(where, raw.time_name, frame_time, "s")
    if dt is not None:
        agreeing(where, f"the frame time {raw.time_name}", frame_time, dt, "s")
    spacing = frame_time * raw.step
    origin = 0.0 if selection.time_origin is None else selection.time_origin
    return origin + np.arange(frames.start, frames.stop) * spacing, spacing


def choose_maps(raw: RawMaps, selection: Selection) -> np.ndarray:
    """Indices of the selected maps in file order; they may still be at several q.

    **Raises:** `DataError` when q or phi are impossible or the selection is empty.
    """
    if not np.all(np.isfinite(raw.q) & (raw.q > 0)):
        bad = raw.q[~(np.isfinite(raw.q) & (raw.q > 0))][0]
        raise DataError(f"{raw.where}: {raw.q_name} holds q = {bad:g} [1/Å]; q must be above zero.")
    chosen = choose_q(raw.where, raw.q_name, raw.q, selection)
    finite_angles(raw.where, raw.phi_name, raw.phi[chosen])
    return choose_phi(raw.where, raw.phi_name, raw.phi, chosen, selection)


def single_q(raw: RawMaps, chosen: np.ndarray) -> float:
    """The one q [1/Å] of the chosen maps.

    **Raises:** `DataError` when they are at several.
    """
    q = raw.q[chosen]
    if not np.allclose(q, q[0], rtol=1e-6, atol=0):
        raise DataError(
            f"{raw.where}: the selected maps are at several q in {raw.q_name}: "
            + ", ".join(f"{value:.6g}" for value in np.unique(q))
            + " [1/Å]. One data set has one q: select one with q (data.q in a configuration), "
            + "or fit each data set of load_joint by itself."
        )
    return float(q[0])


def _read_maps(raw: RawMaps, chosen: np.ndarray, frames: slice) -> tuple[np.ndarray, bool]:
    """The chosen maps as one array, and whether it may be changed in place."""
    dtype = raw.dtype
    if dtype.kind not in "fiub":
        raise DataError(f"{raw.where}: {raw.names[0]} holds {dtype} values; give real numbers.")
    # half precision and integers have no place in arithmetic; single and double stay
    kept = np.dtype(np.float64) if dtype.kind != "f" or dtype.itemsize > 4 else np.dtype(np.float32)
    if raw.stack is not None and dtype == kept and np.array_equal(chosen, np.arange(raw.q.size)):
        return raw.stack[:, frames, frames], raw.owned
    n = frames.stop - frames.start
    c2 = np.empty((chosen.size, n, n), kept)
    for position, index in enumerate(chosen):
        c2[position] = raw.read(int(index), frames)
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
    n_frames = check_lists(raw)
    where = raw.where
    if chosen is None:
        chosen = choose_maps(raw, selection)
    q = single_q(raw, chosen)
    frames = selection.frame_slice(where, n_frames)
    t, spacing = frame_times(raw, selection, frames, dt)
    gap_used = DEFAULT_GAP if raw.gap is None else positive(where, raw.gap_name, raw.gap, "Å")
    if gap is not None:
        positive(where, "gap", gap, "Å")
        gap_used = gap if raw.gap is None else agreeing(where, raw.gap_name, raw.gap, gap, "Å")
    c2, owned = _read_maps(raw, chosen, frames)
    diagonal = _diagonals(raw, c2, chosen, frames)
    diagonal += raw.baseline
    c2, owned, notes = _complete(raw, c2, owned, chosen)
    c2, keep = _masks(raw, selection, c2, owned, t, chosen, frames)
    weights, absolute = _weights(raw, c2, keep, sigma, chosen, frames)
    provenance = Provenance(
        path=raw.path,
        layout=raw.layout,
        sha256=raw.sha256,
        keys=(
            *raw.keys,
            *(raw.names[index] for index in chosen if raw.names[index] not in raw.keys),
        ),
        frames=(frames.start + 1, frames.stop),
        dt=spacing,
        notes=(*raw.notes, *notes),
    )
    data = TwoTimeData(
        c2=c2,
        t=t,
        geometry=Geometry(q=q, phi=raw.phi[chosen], gap=gap_used),
        root_weights=weights,
        diagonal=diagonal,
        absolute_sigma=absolute,
        provenance=provenance,
    )
    return _noted(data)


def _noted(data: TwoTimeData) -> TwoTimeData:
    """The same data, with the number of masked pairs in its provenance."""
    masked = data.masked_pairs
    if masked == 0:
        return data
    note = f"{masked} of {masked + data.n_pairs} pairs are masked and count for nothing."
    provenance = replace(data.provenance, notes=(*data.provenance.notes, note))
    return replace(data, provenance=provenance)


def _diagonals(raw: RawMaps, c2: np.ndarray, chosen: np.ndarray, frames: slice) -> np.ndarray:
    """Raw diagonals as float64; NaN where nothing sensible is stored."""
    if raw.read_diagonal is not None:
        read = raw.read_diagonal
        return np.stack([np.asarray(read(int(i), frames), np.float64) for i in chosen])
    diagonal = np.diagonal(c2, axis1=1, axis2=2).astype(np.float64)
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
            raise DataError(
                f"{where}: {raw.names[index]} (phi = {raw.phi[index]:g}) has no finite pair left "
                "after masks and NaN; leave this map out or widen the selection."
            )
        if blank.any():
            if not owned:
                c2, owned = c2.copy(), True
            c2[position][blank] = 0
        if not np.array_equal(usable, off_diagonal):
            if keep is None:
                keep = np.broadcast_to(off_diagonal, c2.shape).copy()
            keep[position] = usable
    return c2, keep


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
        if sigma != "mad":
            raise DataError(f"{where}: sigma is {sigma!r}; give a number, 'mad' or nothing.")
        values = np.array(
            [mad_sigma(c2[k], None if keep is None else keep[k]) for k in range(chosen.size)]
        )
        if not np.all(values > 0):
            raise DataError(
                f"{where}: the noise estimate is {values.min():g}: the maps are too smooth for "
                "sigma = 'mad'. Give sigma as a number or leave it out."
            )
    else:
        values = np.full(chosen.size, positive(where, "sigma", float(sigma), "c2"))
    inverse = (1.0 / values).astype(c2.dtype)[:, None, None]
    if keep is None:
        # a view without memory of its own
        return np.broadcast_to(inverse, c2.shape), not isinstance(sigma, str)
    return keep * inverse, not isinstance(sigma, str)


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
        sigma = np.array(read_sigma(int(index), frames), np.float64)
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
