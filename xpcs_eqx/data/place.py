"""Which maps and frames of a file are taken, and everything that stands beside the maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .checks import agreeing, finite_angles, increasing_times, positive
from .layouts.raw import RawMaps
from .selection import Selection, choose_phi, choose_q
from .two_time import DEFAULT_GAP, Geometry, Provenance


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
            + "or fit them together: the data sets of load_joint, or a table [joint] there."
        )
    return float(q[0])


@dataclass(frozen=True)
class Place:
    """Which maps and frames of a file were chosen, and where they are in time and space."""

    chosen: np.ndarray
    frames: slice
    t: np.ndarray
    spacing: float | None
    geometry: Geometry

    def provenance(self, raw: RawMaps, notes: Sequence[str]) -> Provenance:
        """Where the chosen maps came from."""
        return Provenance(
            path=raw.path,
            layout=raw.layout,
            sha256=raw.sha256,
            keys=(
                *raw.keys,
                *(raw.names[index] for index in self.chosen if raw.names[index] not in raw.keys),
            ),
            frames=(self.frames.start + 1, self.frames.stop),
            dt=self.spacing,
            notes=(*raw.notes, *notes),
        )


def placed(
    raw: RawMaps,
    selection: Selection,
    dt: float | None,
    gap: float | None,
    chosen: np.ndarray | None = None,
) -> Place:
    """Choose maps and frames and check everything that stands beside the maps.

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
    return Place(chosen, frames, t, spacing, Geometry(q=q, phi=raw.phi[chosen], gap=gap_used))


def kept_dtype(raw: RawMaps) -> np.dtype:
    """Precision in which the numbers of maps are kept: single and double stay as they are.

    **Raises:** `DataError` when they are not real numbers.
    """
    dtype = raw.dtype
    if dtype.kind not in "fiub":
        raise DataError(f"{raw.where}: {raw.names[0]} holds {dtype} values; give real numbers.")
    # half precision and integers have no place in arithmetic
    return np.dtype(np.float64) if dtype.kind != "f" or dtype.itemsize > 4 else np.dtype(np.float32)
