"""Which maps and frames of a file are taken, and everything that stands beside the maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from .bad_frames import Damage, remarks
from .checks import agreeing, finite_angles, increasing_times, positive
from .layouts.maps import Layer, RawMaps, Window
from .selection import (
    PairRule,
    Selection,
    choose_q,
    chosen_mask,
    in_ranges,
    listed,
    pair_rule,
)
from .two_time import DEFAULT_GAP, Geometry, Provenance

Sigma = float | Literal["mad"] | None


def check_lists(raw: RawMaps) -> None:
    """Make sure that lists and maps belong together.

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
    shapes = [one.shape for one in raw.maps]
    for name, shape in zip(raw.names, shapes, strict=True):
        if len(shape) != 2 or shape[0] != shape[1]:
            raise DataError(f"{where}: {name} has shape {shape}; a map must be square.")
        if shape != shapes[0]:
            raise DataError(
                f"{where}: {name} has shape {shape} but {raw.names[0]} has {shapes[0]}; all maps "
                "must be of one size."
            )
    whole = (len(shapes), *shapes[0])
    for name, beside, wanted in (
        ("sigma", raw.sigma, whole),
        ("diagonal", raw.diagonal, whole[:2]),
    ):
        if beside is not None and beside.shape != wanted:
            raise DataError(
                f"{where}: {name} has shape {beside.shape} but maps of {whole} need {wanted}; give "
                "one number for each entry."
            )
    n_frames = whole[1]
    if raw.t is not None and raw.t.shape != (n_frames,):
        raise DataError(
            f"{where}: {raw.time_name} has shape {raw.t.shape} but the maps have {n_frames} frames;"
            " one time for each frame is needed."
        )
    if n_frames < 2:
        raise DataError(f"{where}: {raw.names[0]} has {n_frames} frame(s); a pair needs two.")


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

    **Raises:** `DataError` when lists and maps do not belong together, q or phi are impossible or
    the selection is empty.
    """
    check_lists(raw)
    impossible = raw.q[~(np.isfinite(raw.q) & (raw.q > 0))]
    if impossible.size:
        raise DataError(
            f"{raw.where}: {raw.q_name} holds q = {impossible[0]:g} [1/Å]; q must be above zero."
        )
    at_q = choose_q(raw.where, raw.q_name, raw.q, selection)
    phi = raw.phi[at_q]
    finite_angles(raw.where, raw.phi_name, phi)
    kept = at_q[in_ranges(phi, selection.phi_ranges)]
    if kept.size == 0:
        ranges = ", ".join(f"{low:g} … {high:g}" for low, high in selection.phi_ranges)
        raise DataError(
            f"{raw.where}: no map lies in the phi ranges {ranges} [degrees]; the selection is "
            f"empty. Angles in {raw.phi_name}: {listed(phi)}."
        )
    return kept


def single_q(raw: RawMaps, chosen: np.ndarray) -> float:
    """The one q [1/Å] of the chosen maps.

    **Raises:** `DataError` when they are at several.
    """
    q = raw.q[chosen]
    if not np.allclose(q, q[0], rtol=1e-6, atol=0):
        raise DataError(
            f"{raw.where}: the selected maps are at several q in {raw.q_name}: {listed(q)} [1/Å]. "
            "One data set has one q: select one with q (data.q in a configuration), or fit them "
            "together: the data sets of load_joint, or a table [joint] there."
        )
    return float(q[0])


@dataclass(frozen=True)
class Chosen:
    """The maps and frames that were chosen of a file, and everything that stands beside them.

    - `raw`: the file; `maps`: numbers of the maps in it; `frames`: those taken, from 0.
    - `t`: frame times [s]; `spacing`: time between two rows of the map [s] when it is known.
    - `geometry`: q, azimuths and gap.
    - `rule`: pairs that bad frames, lags and ages leave; `pair_mask`: those that the user leaves,
      for each map or for all, where i < j. `None` for all pairs.
    - `sigma`: what was given for it; `dtype`: precision in which c2 is kept.
    - `selection`: what was asked for; `remarks`: what was found on the maps, in sentences.
    """

    raw: RawMaps
    maps: np.ndarray
    frames: slice
    t: np.ndarray
    spacing: float | None
    geometry: Geometry
    rule: PairRule | None
    pair_mask: np.ndarray | None
    sigma: Sigma
    dtype: np.dtype
    selection: Selection
    remarks: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Start of an error message."""
        return self.raw.where

    @property
    def n_frames(self) -> int:
        """Number of frames taken."""
        return self.t.size

    @property
    def n_maps(self) -> int:
        """Number of maps taken."""
        return self.maps.size

    @property
    def stored_sigma(self) -> bool:
        """Whether the sigma that the file holds for each entry is used."""
        return self.sigma is None and self.raw.sigma is not None

    @property
    def absolute_sigma(self) -> bool:
        """Whether sigma is known absolutely: given as a number, or stored and said to be so."""
        return self.raw.absolute_sigma if self.stored_sigma else isinstance(self.sigma, float)

    def name(self, position: int) -> str:
        """HDF5 path or dictionary key of a map."""
        return self.raw.names[self.maps[position]]

    def map(self, position: int) -> Window:
        """The chosen frames of a map."""
        place = (self.frames.start, self.n_frames, self.name(position))
        whole = self.raw.maps[self.maps[position]]
        return Window(whole, *place, self.dtype, self.raw.baseline)

    def sigma_map(self, position: int) -> Window | None:
        """The same of its stored sigma, `None` where that is not used."""
        if not self.stored_sigma:
            return None
        name = f"sigma of {self.name(position)}"
        whole = Layer(self.raw.sigma, int(self.maps[position]))
        return Window(whole, self.frames.start, self.n_frames, name)

    def stack(self) -> np.ndarray | None:
        """All maps as one array where they lie in memory as they are needed."""
        stack = self.raw.stack
        if stack is None or stack.dtype != self.dtype or self.n_maps != len(stack):
            return None
        return stack[:, self.frames, self.frames]

    def mask_of(self, position: int) -> np.ndarray | None:
        """The user's mask of the pairs i < j of a map, symmetric `(frame, frame)`."""
        mask = self.pair_mask
        if mask is None:
            return None
        upper = np.triu(mask if mask.ndim == 2 else mask[position], 1)
        return upper | upper.T

    def diagonals(self, found: np.ndarray) -> np.ndarray:
        """Raw diagonals `(angle, frame)`, stored ones or those `found` on maps; NaN if unknown."""
        if self.raw.diagonal is not None:
            stored = [self.raw.diagonal[int(index), self.frames] for index in self.maps]
            return np.asarray(stored, np.float64) + self.raw.baseline
        found = np.where(np.isfinite(found), found, np.nan)
        # correlators that leave the diagonal out write zeros
        found[np.all(np.nan_to_num(found) == 0, axis=1)] = np.nan
        return found + self.raw.baseline

    def constant_root_weights(self, noise: Callable[[], np.ndarray]) -> np.ndarray | None:
        """1/sigma of each map in the precision of c2, where one number stands for a whole map.

        `noise` estimates sigma when that is asked for.

        **Raises:** `DataError` when an estimate is zero.
        """
        if self.sigma is None:
            return None
        values = noise() if isinstance(self.sigma, str) else np.full(self.n_maps, self.sigma)
        if not np.all(values > 0):
            raise DataError(
                f"{self.where}: the noise estimate is {values.min():g}: the maps are too smooth "
                "for sigma = 'mad'. Give sigma as a number or leave it out."
            )
        return (1.0 / values).astype(self.dtype)

    def without(self, damaged: set[int]) -> "Chosen":
        """The same with these frames, counted from the first that is taken, masked as well.

        **Raises:** `DataError` when no pair is left.
        """
        first, n_frames = self.frames.start, self.raw.maps[0].shape[0]
        numbers = [frame + first + 1 for frame in damaged]
        rule = pair_rule(self.where, self.selection, self.t, self.frames, n_frames, numbers)
        return replace(self, rule=rule)

    def remarked(self, damages: Sequence[Damage]) -> "Chosen":
        """The same with what was found on its maps."""
        names = [self.name(position) for position in range(self.n_maps)]
        masked = self.selection.bad_frames == "auto"
        return replace(self, remarks=remarks(damages, names, self.frames.start, masked))

    def provenance(self, halved: int, used: int) -> Provenance:
        """Where the maps came from; `halved` of them hold one half, `used` pairs count."""
        raw, n = self.raw, self.n_frames
        notes = [*raw.notes, *self.remarks]
        if halved:
            notes.append(f"{halved} of {self.n_maps} maps were stored as one half.")
        if raw.baseline:
            notes.append(f"{raw.baseline:g} was added: the maps are stored without their baseline.")
        pairs = self.n_maps * (n * (n - 1) // 2)
        if used < pairs:
            notes.append(f"{pairs - used} of {pairs} pairs are masked and count for nothing.")
        names = [self.name(position) for position in range(self.n_maps)]
        return Provenance(
            path=raw.path,
            layout=raw.layout,
            sha256=raw.sha256,
            keys=(*raw.keys, *(name for name in names if name not in raw.keys)),
            frames=(self.frames.start + 1, self.frames.stop),
            dt=self.spacing,
            notes=tuple(notes),
        )


def choose(
    raw: RawMaps,
    selection: Selection,
    *,
    dt: float | None = None,
    gap: float | None = None,
    sigma: Sigma = None,
    maps: np.ndarray | None = None,
) -> Chosen:
    """Choose maps and frames and check everything that stands beside the maps.

    Arguments as in `load`; `maps` are numbers of maps, from `choose_maps` when they are not given.

    **Raises:** `DataError` for everything that makes the data unusable.
    """
    where = raw.where
    if maps is None:
        maps = choose_maps(raw, selection)
    q = single_q(raw, maps)
    n_frames = raw.maps[0].shape[0]
    frames = selection.frame_slice(where, n_frames)
    t, spacing = frame_times(raw, selection, frames, dt)
    gap_used = DEFAULT_GAP if raw.gap is None else positive(where, raw.gap_name, raw.gap, "Å")
    if gap is not None:
        positive(where, "gap", gap, "Å")
        gap_used = gap if raw.gap is None else agreeing(where, raw.gap_name, raw.gap, gap, "Å")
    dtype = raw.maps[0].dtype
    if dtype.kind not in "fiub":
        raise DataError(f"{where}: {raw.names[0]} holds {dtype} values; give real numbers.")
    # half precision and integers have no place in arithmetic
    single = dtype.kind == "f" and dtype.itemsize <= 4
    return Chosen(
        raw=raw,
        maps=maps,
        frames=frames,
        t=t,
        spacing=spacing,
        geometry=Geometry(q=q, phi=raw.phi[maps], gap=gap_used),
        rule=pair_rule(where, selection, t, frames, n_frames),
        pair_mask=chosen_mask(where, selection, maps, raw.phi.size, n_frames, frames),
        sigma=checked_sigma(where, sigma),
        dtype=np.dtype(np.float32 if single else np.float64),
        selection=selection,
    )


def checked_sigma(where: str, sigma: Any) -> Sigma:
    """A standard deviation as it was given for all entries, or the word for an estimate of it.

    **Raises:** `DataError` when it is neither.
    """
    if sigma is None or sigma == "mad":
        return sigma
    if isinstance(sigma, str):
        raise DataError(f"{where}: sigma is {sigma!r}; give a number, 'mad' or nothing.")
    return positive(where, "sigma", float(sigma), "c2")
