"""Files in any of the known layouts to checked data, and their size before that."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
from jaxtyping import Float, Int

from ..arguments import named
from ..cores import in_order
from ..errors import DataError
from .baseline import Baseline, checked_baseline
from .bins import bins_from
from .checks import agreeing, given_scalar, numbers, shown
from .checksum import checksum_beside, checksum_of, checksum_of_all, no_checksum
from .chosen import Chosen, Sigma, choose, choose_maps, choose_places
from .layouts import LAYOUTS, GenericLayout, age_lag, generic, read_maps
from .layouts.arrays import (
    DIRECT,
    LOADER,
    array_size,
    bare_array,
    has_array,
    lone_array,
    open_npz,
    read_npy,
    read_npz,
)
from .layouts.maps import Place, RawMaps, Window
from .layouts.opened import Access, open_hdf5
from .memory import aligned, frozen
from .selection import Selection
from .survey import AT_A_TIME, MapSurvey, root_weights_of, survey_map, surveyed, whole_map
from .symmetry import Symmetrise, checked_symmetrise
from .two_time import NO_Q, PooledData, TwoTimeData


def assemble(chosen: Chosen) -> TwoTimeData:
    """The chosen maps in memory, both triangles filled; a caller's array is copied before a change.

    Maps that are not the caller's cannot be written into.

    **Raises:** `DataError` for everything that makes the maps unusable.
    """
    n, n_maps, rows = chosen.n_frames, chosen.n_maps, slice(0, chosen.n_frames)
    all_pairs, pairs = ~np.eye(n, dtype=bool), n * (n - 1) // 2
    held = chosen.stack()
    c2 = aligned((n_maps, n, n), np.dtype(chosen.dtype)) if held is None else held

    def read(position: int) -> None:
        c2[position] = chosen.map(position).held().whole

    if held is None:
        # A map is read once, to where it is kept; there it is checked and completed.
        deque(in_order(read, range(n_maps), most=AT_A_TIME), maxlen=0)

    # And so is a stored sigma, to where 1/sigma takes its place.
    weights = np.empty((n_maps, n, n), chosen.dtype) if chosen.stored_sigma else None
    spread: list[Window | None] = [None] * n_maps
    for position in range(n_maps):
        sigma = chosen.sigma_map(position)
        if weights is not None and sigma is not None:
            weights[position] = sigma.held().whole
            spread[position] = replace(sigma, whole=weights[position], low=0)

    def window(chosen: Chosen, position: int) -> Window:
        return replace(chosen.map(position), whole=c2[position], low=0)

    def survey(chosen: Chosen, position: int) -> MapSurvey:
        return survey_map(chosen, position, window(chosen, position), spread[position], enough=1)

    chosen, found = surveyed(chosen, survey)
    keep = None
    for position, one in enumerate(found):
        used, masked = all_pairs, one.pairs < pairs
        as_stored = not (one.halved or one.asymmetry or chosen.baseline.added)
        if masked or not as_stored or not np.all(np.isfinite(one.diagonal)):
            if c2 is held and not chosen.raw.owned:
                c2 = c2.copy()
            c2[position], used = whole_map(
                window(chosen, position).band(one.half, rows), chosen.rule, chosen.mask_of(position)
            )
        if masked:
            keep = np.broadcast_to(all_pairs, c2.shape).copy() if keep is None else keep
            keep[position] = used
        sigma = spread[position]
        if weights is not None and sigma is not None and one.sigma_half is not None:
            here = sigma.band(one.sigma_half, rows)
            weights[position] = root_weights_of(used, here, chosen.dtype)
    constant = chosen.constant_root_weights(lambda: np.array([one.noise for one in found]))
    if constant is not None:
        by_map = constant[:, None, None]
        # a view without memory of its own where every pair counts
        weights = np.broadcast_to(by_map, c2.shape) if keep is None else keep * by_map
    elif weights is None and keep is not None:
        weights = keep.astype(c2.dtype)
    if c2 is not held or chosen.raw.owned:
        # What a fit would not notice shall not be possible; and maps are in memory once.
        c2 = frozen(c2)
    return TwoTimeData(
        c2=c2,
        t=chosen.t,
        geometry=chosen.geometry,
        root_weights=weights,
        diagonal=chosen.diagonals([(one.diagonal, one.frames) for one in found]),
        absolute_sigma=chosen.absolute_sigma,
        provenance=chosen.provenance(
            sum(one.halved for one in found),
            sum(one.pairs for one in found),
            [one.asymmetry for one in found],
        ),
    )


def format_of(path: str, layout: str | GenericLayout | None) -> str:
    """The layout asked for, `"npy"`, `"npz"`, or `"hdf5"` for one that the file itself tells.

    **Raises:** `DataError` for an unknown layout and a file that is missing or cannot be read.
    """
    if not os.path.exists(path):
        raise DataError(f"{path}: there is no such file; check the path.")
    if not os.path.isfile(path):
        raise DataError(f"{path}: not a file; give the path of a data file.")
    try:
        with open(path, "rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check the permissions.") from error
    formats = {b"\x93NUMPY": "npy", b"PK": "npz"}
    told = next((name for mark, name in formats.items() if start.startswith(mark)), "hdf5")
    if isinstance(layout, GenericLayout):
        return told
    if layout is not None:
        if not isinstance(layout, str):
            raise DataError(f"{path}: layout is {shown(layout)}; give one of {', '.join(LAYOUTS)}.")
        # As an identifier or as the files of the configuration have it: one name.
        layout = layout.replace("_", "-")
        if layout not in LAYOUTS:
            known = ", ".join(LAYOUTS)
            raise DataError(f"{path}: layout {layout!r} is unknown; known are {known}.")
        if layout == generic.NAME:
            raise DataError(
                f"{path}: the layout {layout!r} has to be described: give a GenericLayout, in a "
                "configuration the table [data.generic]."
            )
        return layout
    return told


class Reading(TypedDict, total=False):
    """Keywords of `load`, by which every other way to read a file is told the same."""

    layout: str | GenericLayout | None
    analysis: str | None
    selection: Selection
    dt: float | None
    gap: float | None
    sigma: Sigma
    q: float | None
    phi: Any
    time_origin: float | None
    baseline: Baseline
    symmetrise: Symmetrise | None
    checksum: bool
    linked_files: bool
    locking: bool


class Opened(NamedTuple):
    """The lists of a file, with maps that are read while it is open, and what is to be taken.

    - `asked`: what else was said of the maps, as keywords of `choose`.
    """

    raw: RawMaps
    selection: Selection
    asked: dict[str, Any]

    def chosen(self, **more: Any) -> Chosen:
        """The maps that are to be taken; `more` goes before what was asked for."""
        return choose(self.raw, self.selection, **{**self.asked, **more})


@contextmanager
def open_maps(
    path: str | os.PathLike[str],
    *,
    layout: str | GenericLayout | None = None,
    analysis: str | None = None,
    selection: Selection = Selection(),  # noqa: B008
    dt: float | None = None,
    gap: float | None = None,
    sigma: Sigma = None,
    q: float | None = None,
    phi: Any = None,
    time_origin: float | None = None,
    baseline: Baseline = "auto",
    symmetrise: Symmetrise | None = None,
    checksum: bool = True,
    linked_files: bool = False,
    locking: bool = True,
) -> Iterator[Opened]:
    """A file while it is read; arguments as in `load`.

    Q and time origin go into the selection.

    **Raises:** `DataError` for a file that is missing, damaged, foreign or incomplete.
    """
    path = path_of(path)
    form = format_of(path, layout)
    dt, q = given_scalar(path, "dt", dt), given_scalar(path, "q", q)
    time_origin = given_scalar(path, "time_origin", time_origin)
    asked = {"dt": dt, "gap": gap, "sigma": sigma, "baseline": baseline, "symmetrise": symmetrise}
    if not isinstance(selection, Selection):
        raise DataError(f"{path}: selection is {shown(selection)}; give a Selection.")
    if not isinstance(analysis, str | None):
        raise DataError(f"{path}: analysis is {shown(analysis)}; give the name of a group as text.")
    asked_for = {"checksum": checksum, "linked_files": linked_files, "locking": locking}
    for name, value in asked_for.items():
        if not isinstance(value, bool | np.bool_):
            raise DataError(f"{path}: {name} is {shown(value)}; give True or False.")
    if time_origin is not None:
        selection = replace(selection, time_origin=time_origin)
    described = isinstance(layout, GenericLayout)
    lone = lone_array(path) if form == "npz" and not described else None
    bare = lone is not None or (form == "npy" and not described)
    if bare and dt is None and selection.time_origin is None:
        # without a frame time, time is the number of the frame
        selection = replace(selection, time_origin=1.0)
    elif not bare and q is not None and selection.q is None:
        selection = replace(selection, q=q)
    if bare or form in ("npz", "npy", age_lag.NAME):
        raw = read_npy(path, q, phi, dt is None, lone) if bare else _of_arrays(path, form, layout)
        raw = replace(raw, checksum=cache(partial(checksum_of, path)) if checksum else no_checksum)
        yield Opened(raw if bare else _agreeing(raw, q, phi), selection, asked)
        return
    told = form if form != "hdf5" else layout if isinstance(layout, GenericLayout) else None
    place = Place(told, analysis, Access(linked_files, locking))
    with (
        checksum_beside(path) if checksum else nullcontext(no_checksum) as sum_of_file,
        open_hdf5(path, place.access) as file,
    ):
        raw = replace(read_maps(file, place), checksum=sum_of_file)
        if checksum and file.linked:
            together, remarks = checksum_of_all(path, sum_of_file(), file.linked)
            raw = replace(raw, checksum=lambda: together, notes=(*raw.notes, *remarks))
        yield Opened(_agreeing(raw, q, phi), selection, asked)


def _of_arrays(path: str, form: str, layout: str | GenericLayout | None) -> RawMaps:
    """Maps of an NPZ or NPY file, but for those that are bare arrays."""
    if isinstance(layout, GenericLayout):
        return _described(path, form, layout)
    if form == age_lag.NAME or has_array(path, age_lag.MAPS):
        with open_npz(path) as arrays:
            return age_lag.raw_bins(arrays, path)
    return read_npz(path)


def _described(path: str, form: str, layout: GenericLayout) -> RawMaps:
    """Maps of an NPZ or NPY file as the user described them."""
    if form == "npy":
        # Its array has no name but the one that it is given here.
        return generic.read_arrays(path, layout, {layout.maps: bare_array(path)})
    with open_npz(path) as arrays:
        return generic.read_arrays(path, layout, arrays)


def path_of(path: Any) -> str:
    """The path of a file as text.

    **Raises:** `DataError` when it is none.
    """
    try:
        return os.fsdecode(path)
    except TypeError as error:
        raise DataError(f"path is {shown(path)}; give the path of a file.") from error


def _agreeing(raw: RawMaps, q: float | None, phi: Any) -> RawMaps:
    """The same with what was given, after making sure that it does not contradict what is stored.

    It takes the place of what is not known: q where maps at one q have a unit that says nothing,
    azimuths where there are none.
    """
    where, n_maps = raw.where, len(raw.names)
    if phi is not None:
        if not np.all(np.isfinite(raw.phi)):
            raw = raw.refusing(raw.phi_name, "lists an azimuth that is no number.")
        if raw.azimuths and raw.phi_name not in raw.refused:
            raise DataError(
                f"{where}: azimuths are stored in {raw.phi_name}, but phi was given as well; leave "
                "it out (phi=, data.phi in a configuration)."
            )
        azimuths = numbers(where, "phi", phi)
        if azimuths.shape not in ((), (n_maps,)):
            raise DataError(
                f"{where}: phi has shape {azimuths.shape} but there are {n_maps} maps; give one "
                "azimuth [degrees] for each, or one for all."
            )
        raw = replace(raw, phi=np.broadcast_to(azimuths, n_maps)).given(raw.phi_name)
        raw = replace(raw, azimuths=True)
    if raw.q_given:
        notes = (*raw.notes, NO_Q) if q is None else raw.notes
        return replace(raw, q=np.full(n_maps, 1.0 if q is None else float(q)), notes=notes)
    if q is None:
        return raw
    raw = replace(raw, q_ranges=None)
    if raw.q.size and not np.any(np.isfinite(raw.q) & (raw.q > 0)):
        raw = raw.refusing(raw.q_name, f"holds q = {raw.q[0]:g} [1/Å]; q must be above zero.")
    if raw.q_name in raw.refused and np.unique(raw.q).size == 1:
        return replace(raw, q=np.full(raw.q.shape, q)).given(raw.q_name)
    known = raw.q[np.isfinite(raw.q)]
    nearest = known[np.argmin(np.abs(known - q))] if known.size else np.nan
    if raw.q_name not in raw.refused:
        agreeing(where, raw.q_name, float(nearest), q, "1/Å")
    return raw


@named
def load(
    path: str | os.PathLike[str],
    *,
    layout: str | GenericLayout | None = None,
    analysis: str | None = None,
    selection: Selection = Selection(),  # noqa: B008
    dt: float | None = None,
    gap: float | None = None,
    sigma: Sigma = None,
    q: float | None = None,
    phi: Any = None,
    time_origin: float | None = None,
    baseline: Baseline = "auto",
    symmetrise: Symmetrise | None = None,
    checksum: bool = True,
    linked_files: bool = False,
    locking: bool = True,
) -> TwoTimeData:
    """Two-time maps at one q from a file.

    Nobody can write into them: a fit would not notice. What comes from HDF5 it takes over as it is,
    without a copy.

    - `path`: HDF5 (APS-U, APS-old, NXxpcs, own), NPZ (loader or direct form) or NPY (bare maps).
    - `layout`: name of the layout when it shall not be recognised, one of `LAYOUTS`; a
      `GenericLayout` for a file that has none of them.
    - `analysis`: name of the group or entry of one of several analyses in the file.
    - `selection`: frames, q, azimuths and pairs to take.
    - `dt`: time between two frames [s], before stride and averaging. A stored one wins, and a given
      one that differs by more than 1 % is an error.
    - `gap`: gap [Å], in the same way; 2 000 000 Å when neither the file nor the caller knows.
    - `sigma`: standard deviation of c2 as a number (absolute), or `"mad"` for a robust estimate of
      each map (not absolute, as entries of a map are correlated). It replaces a stored sigma.
    - `q`: scattering vector [1/Å]: of bare maps, or the bin to take like `Selection(q=…)`, which
      then must exist to 1 %.
    - `phi`: azimuths [degrees] of bare maps and of files without: one, or one for each map.
    - `time_origin`: time of frame 1 [s], instead of the one in `selection`. A bare map without `dt`
      counts time in frames, 1 … n.
    - `baseline`: what full decorrelation is in the maps, 1 in c2 and 0 in c2 − 1, to which 1 is
      added. `"auto"` takes what the layout says, else what the largest lags look like, and adds
      nothing where that is not certain.
    - `symmetrise`: what counts of maps whose triangles differ beyond rounding: their `"mean"`, the
      `"upper"` or the `"lower"` one. Without it such maps are refused.
    - `checksum`: whether to put the SHA-256 of the file into the provenance, together with that of
      files it links to.
    - `linked_files`: whether files outside its folder may be read where it links to them.
    - `locking`: whether the file is locked meanwhile; without, it can be read beside its writer.

    **Raises:** `DataError` with the file, the HDF5 path or key, what was found and what to do.
    """
    with open_maps(
        path,
        layout=layout,
        analysis=analysis,
        selection=selection,
        dt=dt,
        gap=gap,
        sigma=sigma,
        q=q,
        phi=phi,
        time_origin=time_origin,
        baseline=baseline,
        symmetrise=symmetrise,
        checksum=checksum,
        linked_files=linked_files,
        locking=locking,
    ) as file:
        return assemble(file.chosen())


def load_bins(path: str | os.PathLike[str], **how: Unpack[Reading]) -> PooledData:
    """Means over bins of age (t1 + t2)/2 and lag t2 − t1 at one q from a file.

    A model is averaged over the pairs of frames of each bin, so that bins may be wide. Frames must
    be equally spaced.

    - `path`: a file of `data.write_bins`, of the beamline ID02 of the ESRF, or any HDF5 or NPZ that
      a `layout` describes: `GenericLayout(…, axes="age_lag", ages=…, lags=…)`.
    - `selection`: q and azimuths as in `load`; age and lag limits take bins by their centres.
    - `dt`: time between two frames [s].
    - `sigma`: standard deviation of every bin, instead of a stored one. Without any, bins weigh by
      the pairs of frames in them.
    - `time_origin`: time of the first frame [s], from which ages count unless times are stored.
    - `baseline`: as in `load`.
    - further arguments as in `load`.

    **Raises:** `DataError` as `load`, and for maps of two times.
    """
    with open_maps(path, **how) as file:
        if file.raw.ages is None:
            raise DataError(
                f"{file.raw.where}: the file holds maps of two times, no bins of age and lag; load "
                "them with load, and make bins of them with data.binned."
            )
        return bins_from(file.raw, file.selection, **file.asked)


def load_any(path: str | os.PathLike[str], **how: Unpack[Reading]) -> TwoTimeData | PooledData:
    """Maps at one q, or bins of age and lag, whichever a file holds; arguments as in `load`.

    **Raises:** `DataError` as `load` and `load_bins`.
    """
    with open_maps(path, **how) as file:
        if file.raw.ages is not None:
            return bins_from(file.raw, file.selection, **file.asked)
        return assemble(file.chosen())


def load_joint(path: str | os.PathLike[str], **how: Unpack[Reading]) -> tuple[TwoTimeData, ...]:
    """One data set for each selected q of a file, in increasing q, for a joint fit.

    Arguments and errors as in `load`.
    """
    with open_maps(path, **how) as file:
        return _every_q(file)


def load_each(
    path: str | os.PathLike[str], **how: Unpack[Reading]
) -> tuple[TwoTimeData | PooledData, ...]:
    """One data set for each q as of `load_joint`, or the bins of age and lag that a file holds.

    Arguments and errors as in `load_any`.
    """
    with open_maps(path, **how) as file:
        if file.raw.ages is not None:
            return (bins_from(file.raw, file.selection, **file.asked),)
        return _every_q(file)


def q_values(path: str | os.PathLike[str], **how: Unpack[Reading]) -> tuple[float, ...]:
    """The selected q of a file [1/Å], ascending, from its lists alone.

    Arguments and errors as in `load`.
    """
    with open_maps(path, **{**how, "checksum": False}) as file:
        maps = np.arange(1) if file.raw.ages is not None else choose_maps(file.raw, file.selection)
        return tuple(map(float, _different(file.raw.q[maps])))


class FrameIntensities(NamedTuple):
    """Mean intensity of each frame that is taken, in the unit of the file, and its time.

    - `t` [s], `values`; `name`: where in the file they are.
    """

    t: Float[np.ndarray, "frame"]
    values: Float[np.ndarray, "frame"]
    name: str


def frame_intensities(
    path: str | os.PathLike[str], **how: Unpack[Reading]
) -> FrameIntensities | None:
    """The intensity of the frames behind the maps of a file, None where it has none.

    APS-U files have it in `xpcs/spatial_mean/intensity_vs_time`, older ones in `exchange/frameSum`.
    Arguments and errors as in `load`; the maps are not read.
    """
    with open_maps(path, **{**how, "checksum": False}) as file:
        raw = file.raw
        if raw.intensity is None or raw.ages is not None:
            return None
        # Frames are those of all maps, and the maps are not looked at.
        chosen = file.chosen(maps=choose_maps(raw, file.selection)[:1], baseline=1)
        return FrameIntensities(chosen.t, raw.intensity[chosen.frames], raw.intensity_name)


def _different(q: np.ndarray) -> np.ndarray:
    """The values of q, bins equal to rounding being one."""
    order = np.sort(q)
    return order[np.diff(order, prepend=-np.inf) > 1e-6 * order]


def _every_q(file: Opened) -> tuple[TwoTimeData, ...]:
    return tuple(assemble(file.chosen(maps=maps)) for maps in maps_by_q(file))


def maps_by_q(file: Opened) -> list[Int[np.ndarray, "map"]]:
    """Indices of the selected maps of each q, ascending; of all together where q are merged.

    **Raises:** `DataError` as `choose_maps`.
    """
    maps = choose_maps(file.raw, file.selection)
    if file.selection.merge_q:
        return [maps]
    q = file.raw.q[maps]
    return [maps[np.isclose(q, value, rtol=1e-6, atol=0)] for value in _different(q)]


class MapSize(NamedTuple):
    """What maps will take in memory, and whether they may stay in their file.

    - `n_entries`: of all maps, both triangles; `itemsize`: bytes of one with the weights that
        stand beside it in memory.
    - `n_angles`; `t`: frame times [s], which a file that must be read to be known does not tell.
    - `in_parts`: whether the file can be read in parts.
    - `binned`: whether the maps are means over bins of age and lag.
    """

    n_entries: int
    itemsize: int
    n_angles: int
    t: Float[np.ndarray, "frame"] | None
    in_parts: bool
    binned: bool = False


def map_size(path: str | os.PathLike[str], **how: Unpack[Reading]) -> MapSize:
    """The size of what `load` would make of a file, from its lists alone.

    Arguments as in `load`. Of NPZ and NPY files only the header of the maps is read.

    **Raises:** `DataError` for everything that is wrong beside the maps.
    """
    return _sizes(path, how, lambda file: [choose_maps(file.raw, file.selection)])[0]


def joint_sizes(path: str | os.PathLike[str], **how: Unpack[Reading]) -> tuple[MapSize, ...]:
    """The size of each data set of `load_joint`, as `map_size` tells it.

    Of NPZ and NPY files, which are read as a whole, it is one for all.
    """
    return _sizes(path, how, maps_by_q)


def _sizes(
    path: str | os.PathLike[str], how: Reading, parts: Callable[[Opened], list[np.ndarray]]
) -> tuple[MapSize, ...]:
    """The sizes of the data sets that the `parts` of the maps of an HDF5 file make."""
    path, layout = path_of(path), how.get("layout")
    form = format_of(path, layout)
    if form in ("npz", "npy", age_lag.NAME):
        return (_array_size(path, form, layout, how),)
    checked_baseline(path, how.get("baseline", "auto"))
    checked_symmetrise(path, how.get("symmetrise"))
    with open_maps(path, **{**how, "checksum": False}) as file:
        raw = file.raw
        if raw.ages is not None:
            # What is computed of a bin takes more than its number, and little all the same.
            maps = choose_places(raw, file.selection)
            entries = sum(int(np.prod(raw.maps[k].shape)) for k in maps)
            return (MapSize(entries, 8, maps.size, None, False, True),)
        return tuple(_size_of(file, maps) for maps in parts(file))


def _size_of(file: Opened, maps: np.ndarray) -> MapSize:
    # The maps are not looked at: what they take does not depend on their baseline.
    chosen = file.chosen(maps=maps, baseline=1)
    weighed = (chosen.sigma, chosen.rule, chosen.pair_mask, file.raw.sigma)
    copies = 1 if all(one is None for one in weighed) else 2
    n, n_angles = chosen.n_frames, chosen.n_maps
    return MapSize(n_angles * n * n, chosen.dtype.itemsize * copies, n_angles, chosen.t, True)


def _array_size(path: str, form: str, layout: str | GenericLayout | None, how: Reading) -> MapSize:
    """The size of the maps of an NPZ or NPY file, or of its bins, as its header has it."""
    forms = (LOADER[0], DIRECT[0])
    named, binned = forms, False
    if isinstance(layout, GenericLayout):
        named, binned = (layout.maps,), layout.binned
    elif form == age_lag.NAME or (form == "npz" and has_array(path, age_lag.MAPS)):
        named, binned = (age_lag.MAPS,), True
    elif form == "npz" and (lone := lone_array(path)) is not None:
        named = (lone,)
    entries, itemsize = array_size(path, named)
    selection = how.get("selection", Selection())
    weighed = (
        how.get("sigma") is not None
        or (isinstance(selection, Selection) and selection.leaves_out)
        or (form == "npz" and named == forms and has_array(path, "sigma"))
    )
    return MapSize(entries, itemsize * (2 if weighed else 1), 0, None, False, binned)
