"""Files in any of the known layouts to checked data, and their size before that."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ..errors import DataError
from .checks import agreeing
from .chosen import Chosen, Sigma, choose, choose_maps
from .layouts import LAYOUTS, READERS, recognise
from .layouts.arrays import read_npy, read_npz
from .layouts.hdf5 import open_hdf5
from .layouts.maps import RawMaps, Window
from .selection import Selection
from .survey import MapSurvey, root_weights_of, survey_map, surveyed, whole_map
from .two_time import TwoTimeData


def assemble(chosen: Chosen) -> TwoTimeData:
    """The chosen maps in memory, both triangles filled; a caller's array is copied before a change.

    **Raises:** `DataError` for everything that makes the maps unusable.
    """
    n, n_maps, rows = chosen.n_frames, chosen.n_maps, slice(0, chosen.n_frames)
    all_pairs, pairs = ~np.eye(n, dtype=bool), n * (n - 1) // 2
    held = chosen.stack()
    c2 = np.empty((n_maps, n, n), chosen.dtype) if held is None else held
    if held is None:
        # A map is read once, to where it is kept; there it is checked and completed.
        for position in range(n_maps):
            c2[position] = chosen.map(position).held().whole

    def window(position: int) -> Window:
        return replace(chosen.map(position), whole=c2[position], low=0)

    def survey(chosen: Chosen, position: int) -> MapSurvey:
        sigma = chosen.sigma_map(position)
        sigma = None if sigma is None else sigma.held()
        return survey_map(chosen, position, window(position), sigma, enough=1)

    chosen, found = surveyed(chosen, survey)
    keep = None
    weights = np.zeros((n_maps, n, n), chosen.dtype) if chosen.stored_sigma else None
    for position, one in enumerate(found):
        used, masked = all_pairs, one.pairs < pairs
        if masked or one.halved or chosen.raw.baseline or not np.all(np.isfinite(one.diagonal)):
            if c2 is held and not chosen.raw.owned:
                c2 = c2.copy()
            c2[position], used = whole_map(
                window(position).band(one.half, rows), chosen.rule, chosen.mask_of(position)
            )
        if masked:
            keep = np.broadcast_to(all_pairs, c2.shape).copy() if keep is None else keep
            keep[position] = used
        sigma = chosen.sigma_map(position)
        if weights is not None and sigma is not None and one.sigma_half is not None:
            weights[position] = root_weights_of(
                used, sigma.held().band(one.sigma_half, rows), chosen.dtype
            )
    constant = chosen.constant_root_weights(lambda: np.array([one.noise for one in found]))
    if constant is not None:
        by_map = constant[:, None, None]
        # a view without memory of its own where every pair counts
        weights = np.broadcast_to(by_map, c2.shape) if keep is None else keep * by_map
    elif weights is None and keep is not None:
        weights = keep.astype(c2.dtype)
    return TwoTimeData(
        c2=c2,
        t=chosen.t,
        geometry=chosen.geometry,
        root_weights=weights,
        diagonal=chosen.diagonals(np.stack([one.diagonal for one in found])),
        absolute_sigma=chosen.absolute_sigma,
        provenance=chosen.provenance(
            sum(one.halved for one in found), sum(one.pairs for one in found)
        ),
    )


def checksum_of(path: str) -> str:
    """SHA-256 of a file, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def format_of(path: str, layout: str | None) -> str:
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
    if layout is not None:
        # As an identifier or as the files of the configuration have it: one name.
        layout = layout.replace("_", "-")
        if layout not in LAYOUTS:
            known = ", ".join(LAYOUTS)
            raise DataError(f"{path}: layout {layout!r} is unknown; known are {known}.")
        return layout
    formats = {b"\x93NUMPY": "npy", b"PK": "npz"}
    return next((name for mark, name in formats.items() if start.startswith(mark)), "hdf5")


@contextmanager
def open_maps(
    path: str | os.PathLike[str],
    selection: Selection,
    *,
    layout: str | None = None,
    dt: float | None = None,
    q: float | None = None,
    phi: Any = None,
    time_origin: float | None = None,
    checksum: bool = True,
) -> Iterator[tuple[RawMaps, Selection]]:
    """The lists of a file, with maps that are read while the context is open, and what to take.

    Arguments as in `load`; q and time origin go into the selection.

    **Raises:** `DataError` for a file that is missing, damaged, foreign or incomplete.
    """
    path = os.fspath(path)
    form = format_of(path, layout)
    sha256 = checksum_of(path) if checksum else ""
    if time_origin is not None:
        selection = replace(selection, time_origin=time_origin)
    if form == "npy":
        if dt is None and selection.time_origin is None:
            # without a frame time, time is the number of the frame
            selection = replace(selection, time_origin=1.0)
        yield read_npy(path, sha256, q, phi, counted=dt is None), selection
        return
    if q is not None and selection.q is None:
        selection = replace(selection, q=q)
    if form == "npz":
        yield _agreeing(read_npz(path, sha256), q, phi), selection
        return
    with open_hdf5(path) as file:
        reader = READERS[recognise(file) if form == "hdf5" else form]
        yield _agreeing(replace(reader(file), sha256=sha256), q, phi), selection


def _agreeing(raw: RawMaps, q: float | None, phi: Any) -> RawMaps:
    """The same, after making sure that what was given does not contradict it."""
    if phi is not None:
        raise DataError(f"{raw.where}: azimuths are stored in {raw.phi_name}; leave phi= out.")
    if q is not None:
        nearest = raw.q[np.argmin(np.abs(raw.q - q))] if raw.q.size else np.nan
        agreeing(raw.where, raw.q_name, float(nearest), q, "1/Å")
    return raw


def load(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    selection: Selection = Selection(),  # noqa: B008
    dt: float | None = None,
    gap: float | None = None,
    sigma: Sigma = None,
    q: float | None = None,
    phi: Any = None,
    time_origin: float | None = None,
    checksum: bool = True,
) -> TwoTimeData:
    """Two-time maps at one q from a file.

    - `path`: HDF5 (APS-U, APS-old, NXxpcs, own), NPZ (loader or direct form) or NPY (bare maps).
    - `layout`: name of the layout when it shall not be recognised, one of `LAYOUTS`.
    - `selection`: frames, q, azimuths and pairs to take.
    - `dt`: time between two frames [s], before stride and averaging. A stored one wins, and a given
      one that differs by more than 1 % is an error.
    - `gap`: gap [Å], in the same way; 2 000 000 Å when neither the file nor the caller knows.
    - `sigma`: standard deviation of c2 as a number (absolute), or `"mad"` for a robust estimate of
      each map (not absolute, as entries of a map are correlated). It replaces a stored sigma.
    - `q`: scattering vector [1/Å]: of bare maps, or the bin to take like `Selection(q=…)`, which
      then must exist to 1 %.
    - `phi`: azimuths of bare maps [degrees].
    - `time_origin`: time of frame 1 [s], instead of the one in `selection`. A bare map without `dt`
      counts time in frames, 1 … n.
    - `checksum`: whether to put the SHA-256 of the file into the provenance.

    **Raises:** `DataError` with the file, the HDF5 path or key, what was found and what to do.
    """
    with open_maps(
        path,
        selection,
        layout=layout,
        dt=dt,
        q=q,
        phi=phi,
        time_origin=time_origin,
        checksum=checksum,
    ) as (raw, selection):
        return assemble(choose(raw, selection, dt=dt, gap=gap, sigma=sigma))


def load_joint(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    selection: Selection = Selection(),  # noqa: B008
    dt: float | None = None,
    gap: float | None = None,
    sigma: Sigma = None,
    time_origin: float | None = None,
    checksum: bool = True,
) -> tuple[TwoTimeData, ...]:
    """One data set for each selected q of a file, in increasing q, for a joint fit.

    Arguments and errors as in `load`.
    """
    with open_maps(
        path, selection, layout=layout, dt=dt, time_origin=time_origin, checksum=checksum
    ) as (raw, selection):
        maps = choose_maps(raw, selection)
        q = raw.q[maps]
        order = np.sort(q)
        # bins equal to rounding are one q
        starts = order[np.diff(order, prepend=-np.inf) > 1e-6 * order]
        at_one_q = [maps[np.isclose(q, value, rtol=1e-6, atol=0)] for value in starts]
        return tuple(
            assemble(choose(raw, selection, dt=dt, gap=gap, sigma=sigma, maps=one))
            for one in at_one_q
        )


class MapSize(NamedTuple):
    """What maps will take in memory, and whether they may stay in their file.

    - `n_entries`: of all maps, both triangles; `itemsize`: bytes of one with the weights that
        stand beside it in memory.
    - `n_angles`; `t`: frame times [s], which a file that must be read to be known does not tell.
    - `in_parts`: whether the file can be read in parts.
    """

    n_entries: int
    itemsize: int
    n_angles: int
    t: Float[np.ndarray, "frame"] | None
    in_parts: bool


def map_size(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    selection: Selection = Selection(),  # noqa: B008
    dt: float | None = None,
    gap: float | None = None,
    sigma: Any = None,
    q: float | None = None,
    time_origin: float | None = None,
) -> MapSize:
    """The size of what `load` would make of a file, from its lists alone.

    Arguments as in `load`. Of NPZ and NPY files only the size on disk is known.

    **Raises:** `DataError` for everything that is wrong beside the maps.
    """
    if format_of(os.fspath(path), layout) in ("npz", "npy"):
        return MapSize(os.path.getsize(path) // 8, 8, 0, None, False)
    with open_maps(
        path, selection, layout=layout, dt=dt, q=q, time_origin=time_origin, checksum=False
    ) as (raw, selection):
        chosen = choose(raw, selection, dt=dt, gap=gap, sigma=sigma)
        weighed = (chosen.sigma, chosen.rule, chosen.pair_mask, raw.sigma)
        copies = 1 if all(one is None for one in weighed) else 2
        n, n_angles = chosen.n_frames, chosen.n_maps
        return MapSize(n_angles * n * n, chosen.dtype.itemsize * copies, n_angles, chosen.t, True)
