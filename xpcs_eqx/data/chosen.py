"""Which maps and frames of a file are taken, and everything that stands beside the maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from .bad_frames import Damage, Intensities, remarks
from .baseline import Baseline, Found, checked_baseline, find_baseline
from .checks import (
    agreeing,
    finite_angles,
    given_scalar,
    increasing_times,
    plausible_spacing,
    positive,
)
from .layouts.maps import Layer, RawMaps, Window, worked_dtype
from .meaning import counted_from_start, improbable_q, outside, remarks_on_places
from .selection import (
    PairRule,
    Selection,
    choose_q,
    chosen_mask,
    in_ranges,
    listed,
    pair_rule,
)
from .symmetry import Symmetrise, checked_symmetrise
from .two_time import DEFAULT_GAP, Doubt, Geometry, Provenance

Sigma = float | Literal["mad"] | None


def check_lists(raw: RawMaps) -> None:
    """Make sure that there is a q and an azimuth for each map.

    **Raises:** `DataError` for lengths that differ, and for lists that mean nothing.
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
    refuse(raw, raw.q_name, "q [1/Å], where all maps are at one (data.q in a configuration)")
    refuse(raw, raw.phi_name, "phi [degrees] of each map (data.phi in a configuration)")


def refuse(raw: RawMaps, name: str, instead: str) -> None:
    """Make sure that what was found under a name means something.

    **Raises:** `DataError` saying why it does not, and what to give instead.
    """
    if name in raw.refused:
        raise DataError(f"{raw.refused[name]} Correct the file, or give {instead}.")


def check_maps(raw: RawMaps, chosen: np.ndarray) -> None:
    """Make sure that the chosen maps belong together, and what stands beside them to all maps.

    **Raises:** `DataError` for maps that are not square or not of one size, and times that do not
    match.
    """
    where, first = raw.where, raw.names[chosen[0]]
    shapes = [raw.maps[index].shape for index in chosen]
    for index, shape in zip(chosen, shapes, strict=True):
        name = raw.names[index]
        if len(shape) != 2 or shape[0] != shape[1]:
            raise DataError(f"{where}: {name} has shape {shape}; a map must be square.")
        if shape != shapes[0]:
            raise DataError(
                f"{where}: {name} has shape {shape} but {first} has {shapes[0]}; all maps "
                "must be of one size."
            )
    whole = (len(raw.maps), *shapes[0])
    named = ((raw.names[index], raw.maps[index]) for index in chosen)
    for name, held in (*named, ("sigma", raw.sigma), ("diagonal", raw.diagonal)):
        if held is not None and held.dtype.kind not in "fiub":
            raise DataError(f"{where}: {name} holds {held.dtype} values; give real numbers.")
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
        raise DataError(f"{where}: {first} has {n_frames} frame(s); a pair needs two.")


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
        refuse(raw, raw.time_name, "times in seconds")
        if selection.time_origin not in (None, 0.0):
            raise DataError(
                f"{where}: time_origin is {selection.time_origin} s, but {raw.time_name} gives the "
                "times explicitly and they are used as they are. Leave time_origin out."
            )
        increasing_times(where, raw.time_name, raw.t)
        spacing = float((raw.t[-1] - raw.t[0]) / (raw.t.size - 1))
        plausible_spacing(where, raw.time_name, spacing)
        for given in (dt, raw.frame_time):
            if given is not None:
                agreeing(where, f"the mean spacing of {raw.time_name}", spacing, given, "s")
        return raw.t[frames], None
    frame_time = raw.frame_time
    if dt is None:
        refuse(raw, raw.time_name, "dt [s] (data.dt in a configuration)")
    if frame_time is None or raw.time_name in raw.refused:
        if dt is None:
            raise DataError(f"{where}: no frame time in {raw.time_name}; give dt [s].")
        frame_time = dt
    positive(where, raw.time_name, frame_time, "s")
    if dt is not None and raw.other_time is not None:
        # The file contradicts itself; either of the two may be right.
        frame_time = min(frame_time, raw.other_time, key=lambda stored: abs(stored - dt))
    if dt is not None:
        agreeing(where, f"the frame time {raw.time_name}", frame_time, dt, "s")
    spacing = frame_time * raw.step
    plausible_spacing(where, raw.time_name, spacing)
    origin = selection.time_origin
    if origin is None:
        origin = raw.origin
    if origin is None:
        refuse(raw, raw.begin_name, "time_origin [s] (data.time_origin in a configuration)")
        origin = raw.begin * frame_time
    t = origin + np.arange(frames.start, frames.stop) * spacing
    # Beside a large origin frames may be too near to be told apart.
    increasing_times(where, f"from {raw.time_name}", t)
    return t, spacing


def choose_maps(raw: RawMaps, selection: Selection) -> np.ndarray:
    """Indices of the selected maps in file order; they may still be at several q.

    **Raises:** `DataError` for means over bins of age and lag, when lists and maps do not belong
    together, q or phi are impossible or the selection is empty.
    """
    if raw.ages is not None:
        raise DataError(
            f"{raw.where}: {raw.names[0]} lies on a grid of age and lag, each entry a mean over "
            "its bin: load it with load_bins, one q at a time (in a configuration with data.q)."
        )
    kept = choose_places(raw, selection)
    check_maps(raw, kept)
    return kept


def choose_places(raw: RawMaps, selection: Selection) -> np.ndarray:
    """Indices of the maps at the q and azimuths of a selection, in file order.

    **Raises:** `DataError` as `choose_maps`, without a look at the maps.
    """
    check_lists(raw)
    at_q = choose_q(raw.where, raw.q_name, raw.q, selection)
    kept = at_q[in_ranges(raw.phi[at_q], selection.phi_ranges)]
    if kept.size == 0:
        ranges = ", ".join(f"{low:g} … {high:g}" for low, high in selection.phi_ranges)
        raise DataError(
            f"{raw.where}: no map lies in the phi ranges {ranges} [degrees]; the selection is "
            f"empty. Angles in {raw.phi_name}: {listed(raw.phi[at_q])}."
        )
    q = raw.q[kept]
    impossible = q[~(np.isfinite(q) & (q > 0))]
    if impossible.size:
        others = " Select the maps at other q."
        if impossible.size == raw.q.size:
            others = " Correct it, or give q [1/Å], where all maps are at one (data.q)."
        raise DataError(
            f"{raw.where}: {raw.q_name} holds q = {impossible[0]:g} [1/Å]; q must be above zero."
            f"{others}"
        )
    finite_angles(raw.where, raw.phi_name, raw.phi[kept])
    return kept


def one_q(raw: RawMaps, chosen: np.ndarray, selection: Selection) -> tuple[float, tuple[str, ...]]:
    """The one q [1/Å] of the chosen maps, their mean where they are merged, and a remark on that.

    **Raises:** `DataError` when they are at several and are not merged.
    """
    q = raw.q[chosen]
    if np.allclose(q, q[0], rtol=1e-6, atol=0):
        return float(q[0]), ()
    if selection.merge_q:
        bins = np.unique(q).size
        return float(np.mean(q)), (
            f"{bins} q bins from {q.min():.6g} to {q.max():.6g} [1/Å] were merged; q is the mean "
            f"of the {q.size} maps, {np.mean(q):.6g}.",
        )
    raise DataError(
        f"{raw.where}: the selected maps are at several q in {raw.q_name}: {listed(q)} [1/Å]. "
        "One data set has one q: select one with q (data.q in a configuration, Selection(q=…) in "
        "Python), merge neighbouring bins with q_tolerance and merge_q, or fit them together: the "
        "data sets of load_joint, or a table [joint] there."
    )


def gap_of(raw: RawMaps, gap: float | None) -> float:
    """The gap [Å]: that of the file, which one that is given must agree with, else that, or the
    default.

    **Raises:** `DataError` for one that is not positive, means nothing or disagrees.
    """
    where = raw.where
    if gap is None:
        refuse(raw, raw.gap_name, "gap [Å] (data.gap in a configuration)")
    stored = None if raw.gap_name in raw.refused else raw.gap
    if stored is not None:
        positive(where, raw.gap_name, stored, "Å")
    if gap is None:
        return DEFAULT_GAP if stored is None else stored
    positive(where, "gap", gap, "Å")
    return gap if stored is None else agreeing(where, raw.gap_name, stored, gap, "Å")


def doubts_of(
    raw: RawMaps, doubtful_q: bool, found: Found, dt: float | None, baseline: Baseline
) -> tuple[Doubt, ...]:
    """What is to be doubted of a file, of its q and of its baseline, as it was `found`.

    `dt`, `baseline`: what was given. Whoever says what is right has no doubt.
    """
    doubts = set(raw.doubts)
    if doubtful_q:
        doubts.add("q")
    if found.open:
        doubts.add("baseline")
    if dt is not None:
        doubts.discard("times")
    if baseline != "auto":
        doubts.discard("baseline")
    return tuple(sorted(doubts))


@dataclass(frozen=True)
class Chosen:
    """The maps and frames that were chosen of a file, and everything that stands beside them.

    - `raw`: the file; `maps`: numbers of the maps in it; `frames`: those taken, from 0.
    - `t`: frame times [s]; `spacing`: time between two rows of the map [s] when it is known.
    - `geometry`: q, azimuths and gap.
    - `rule`: pairs that bad frames, lags and ages leave; `pair_mask`: those that the user leaves,
      for each map or for all, where i < j. `None` for all pairs.
    - `sigma`: what was given for it; `dtype`: precision in which c2 is kept.
    - `fills`: for each map the numbers that stand where nothing was measured; none where empty.
    - `baseline`: what is added to c2; `symmetrise`: what counts of maps that are not symmetric.
    - `selection`: what was asked for; `remarks`: what was found on the maps, in sentences.
    - `doubts`: as in `Provenance`.
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
    baseline: Found
    symmetrise: Symmetrise | None
    remarks: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    fills: tuple[tuple[float, ...], ...] = ()

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
        fills = self.fills[position] if self.fills else ()
        return Window(whole, *place, self.dtype, self.baseline.added, fills)

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

    def diagonals(self, found: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Raw diagonals `(angle, frame)`, stored ones or those `found` on maps; NaN if unknown.

        What is found of each map is its diagonal, and which frames have a pair that counts: others
        were not measured, on the diagonal neither.
        """
        out, counted = (np.stack(one) for one in zip(*found, strict=True))
        if self.raw.diagonal is not None:
            stored = [self.raw.diagonal[int(index), self.frames] for index in self.maps]
            out = np.asarray(stored, np.float64)
        else:
            # correlators that leave the diagonal out write zeros
            counted = counted & np.any(np.nan_to_num(out) != 0, axis=1, keepdims=True)
        return np.where(counted & np.isfinite(out), out, np.nan) + self.baseline.added

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

    def without(self, damaged: set[int], fills: Sequence[tuple[float, ...]] = ()) -> "Chosen":
        """The same with these frames, counted from the first that is taken, masked as well, and the
        pairs of each map that hold one of its `fills`.

        **Raises:** `DataError` when no pair is left.
        """
        first, n_frames = self.frames.start, self.raw.maps[self.maps[0]].shape[0]
        numbers = [frame + first + 1 for frame in damaged]
        rule = pair_rule(self.where, self.selection, self.t, self.frames, n_frames, numbers)
        return replace(self, rule=rule, fills=tuple(fills) if any(fills) else ())

    @property
    def intensities(self) -> Intensities:
        """What stored intensities tell of the frames that are taken."""
        stored = self.raw.intensity
        return Intensities() if stored is None else Intensities.of(stored[self.frames])

    def remarked(self, damages: Sequence[Damage]) -> "Chosen":
        """The same with what was found on its maps and in stored intensities."""
        names = [self.name(position) for position in range(self.n_maps)]
        masked = self.selection.bad_frames == "auto"
        told = self.intensities, self.raw.intensity_name
        found = remarks(damages, names, *told, self.frames.start, masked, self.baseline.added)
        return replace(self, remarks=(*self.remarks, *found))

    def provenance(self, halved: int, used: int, asymmetries: Sequence[float]) -> Provenance:
        """Where the maps came from; `halved` of them hold one half, `used` pairs count.

        `asymmetries` are the largest differences of the triangles of each map.
        """
        raw, n = self.raw, self.n_frames
        notes = [*raw.remarks, *self.remarks]
        if halved:
            notes.append(
                f"{halved} of {self.n_maps} maps were stored as one half, which was mirrored."
            )
        if any(asymmetries):
            taken = f"the {self.symmetrise}{' of both' if self.symmetrise == 'mean' else ''}"
            notes.append(
                f"{np.count_nonzero(asymmetries)} of {self.n_maps} maps are not symmetric: their "
                f"triangles differ by up to {max(asymmetries):.3g}, and {taken} was taken."
            )
        if self.baseline.remark:
            notes.append(self.baseline.remark)
        pairs = self.n_maps * (n * (n - 1) // 2)
        if used < pairs:
            notes.append(f"{pairs - used} of {pairs} pairs are masked and count for nothing.")
        names = [self.name(position) for position in range(self.n_maps)]
        return Provenance(
            path=raw.path,
            layout=raw.layout,
            sha256=raw.checksum(),
            keys=(*raw.keys, *(name for name in names if name not in raw.keys)),
            frames=(self.frames.start + 1, self.frames.stop),
            dt=self.spacing,
            azimuths=raw.azimuths,
            baseline_guessed=self.baseline.guessed,
            doubts=self.doubts,
            notes=tuple(notes),
        )


def choose(
    raw: RawMaps,
    selection: Selection,
    *,
    dt: float | None = None,
    gap: float | None = None,
    sigma: Sigma = None,
    baseline: Baseline = "auto",
    symmetrise: Symmetrise | None = None,
    maps: np.ndarray | None = None,
) -> Chosen:
    """Choose maps and frames and check everything that stands beside the maps.

    Arguments as in `load`; `maps` are numbers of maps, from `choose_maps` when they are not given.
    Of the maps themselves nothing is read unless the baseline is to be found.

    **Raises:** `DataError` for everything that makes the data unusable.
    """
    where = raw.where
    dt, gap = given_scalar(where, "dt", dt), given_scalar(where, "gap", gap)
    baseline = checked_baseline(where, baseline)
    raw, selection = counted_from_start(raw, selection)
    if maps is None:
        maps = choose_maps(raw, selection)
    q, merged = one_q(raw, maps, selection)
    n_frames = raw.maps[maps[0]].shape[0]
    frames = selection.frame_slice(where, n_frames)
    t, spacing = frame_times(raw, selection, frames, dt)
    gap = gap_of(raw, gap)
    doubtful = (*outside(raw, maps), *improbable_q(raw, q, selection))
    found = find_baseline(raw, maps, frames, baseline)
    return Chosen(
        raw=raw,
        maps=maps,
        frames=frames,
        t=t,
        spacing=spacing,
        geometry=Geometry(q=q, phi=raw.phi[maps], gap=gap),
        rule=pair_rule(where, selection, t, frames, n_frames),
        pair_mask=chosen_mask(where, selection, maps, raw.phi.size, n_frames, frames),
        sigma=checked_sigma(where, sigma),
        dtype=worked_dtype(raw.maps[maps[0]].dtype),
        selection=selection,
        baseline=found,
        symmetrise=checked_symmetrise(where, symmetrise),
        remarks=(*remarks_on_places(raw, maps), *doubtful, *merged),
        doubts=doubts_of(raw, bool(doubtful), found, dt, baseline),
    )


def checked_sigma(where: str, sigma: Any) -> Sigma:
    """A standard deviation as it was given for all entries, or the word for an estimate of it.

    **Raises:** `DataError` when it is neither.
    """
    if isinstance(sigma, str):
        if sigma != "mad":
            raise DataError(f"{where}: sigma is {sigma!r}; give a number, 'mad' or nothing.")
        return sigma
    number = given_scalar(where, "sigma", sigma)
    return None if number is None else positive(where, "sigma", number, "c2")
