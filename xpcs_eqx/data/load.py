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
from .assemble import Sigma, assemble
from .checks import agreeing
from .layouts import LAYOUTS, READERS, recognise
from .layouts.arrays import read_npy, read_npz
from .layouts.hdf5 import open_hdf5
from .layouts.raw import RawMaps
from .place import check_lists, choose_maps, kept_dtype, placed
from .selection import Selection, pair_rule
from .two_time import TwoTimeData


def checksum_of(path: str) -> str:
    """SHA-256 of a file, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def open_maps(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    q: float | None = None,
    phi: Any = None,
    counted: bool = False,
    checksum: bool = True,
) -> Iterator[RawMaps]:
    """The lists of a file, with maps that are read while the context is open.

    Arguments as in `load`; `counted` says that a bare map without a frame time counts in frames.

    **Raises:** `DataError` for a file that is missing, damaged, foreign or incomplete.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise DataError(f"{path}: there is no such file; check the path.")
    if not os.path.isfile(path):
        raise DataError(f"{path}: not a file; give the path of a data file.")
    # As an identifier or as the files of the configuration have it: one name.
    layout = None if layout is None else layout.replace("_", "-")
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"{path}: layout {layout!r} is unknown; known are {', '.join(LAYOUTS)}.")
    try:
        with open(path, "rb") as stream:
            start = stream.read(8)
        sha256 = checksum_of(path) if checksum else ""
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check the permissions.") from error
    if layout == "npy" or (layout is None and start.startswith(b"\x93NUMPY")):
        yield read_npy(path, sha256, q, phi, counted)
        return
    if layout == "npz" or (layout is None and start.startswith(b"PK")):
        raw = read_npz(path, sha256)
        yield _checked_q(raw, q, phi)
        return
    with open_hdf5(path) as file:
        reader = READERS[recognise(file) if layout is None else layout]
        yield _checked_q(replace(reader(file), sha256=sha256), q, phi)


def _checked_q(raw: RawMaps, q: float | None, phi: Any) -> RawMaps:
    if phi is not None:
        raise DataError(f"{raw.where}: azimuths are stored in {raw.phi_name}; leave phi= out.")
    if q is not None:
        nearest = raw.q[np.argmin(np.abs(raw.q - q))] if raw.q.size else np.nan
        agreeing(raw.where, raw.q_name, float(nearest), q, "1/Å")
    return raw


def prepared(selection: Selection, time_origin: float | None, q: float | None) -> Selection:
    """The selection with a time origin and a q given beside it."""
    if time_origin is not None:
        selection = replace(selection, time_origin=time_origin)
    if q is not None and selection.q is None:
        selection = replace(selection, q=q)
    return selection


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
    selection = prepared(selection, time_origin, q)
    with open_maps(path, layout=layout, q=q, phi=phi, counted=dt is None, checksum=checksum) as raw:
        return assemble(raw, counted(raw, selection), dt=dt, gap=gap, sigma=sigma)


def counted(raw: RawMaps, selection: Selection) -> Selection:
    """Bare maps without a frame time start at t = 1, so that time is the number of the frame."""
    if raw.layout == "npy" and raw.frame_time is not None and selection.time_origin is None:
        return replace(selection, time_origin=1.0)
    return selection


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
    selection = prepared(selection, time_origin, None)
    with open_maps(path, layout=layout, counted=dt is None, checksum=checksum) as raw:
        selection = counted(raw, selection)
        check_lists(raw)
        chosen = choose_maps(raw, selection)
        q = raw.q[chosen]
        order = np.sort(q)
        # bins equal to rounding are one q
        starts = order[np.diff(order, prepend=-np.inf) > 1e-6 * order]
        return tuple(
            assemble(
                raw,
                selection,
                dt=dt,
                gap=gap,
                sigma=sigma,
                chosen=chosen[np.isclose(q, value, rtol=1e-6, atol=0)],
            )
            for value in starts
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
    selection = prepared(selection, time_origin, q)
    if _numpy(path, layout):
        return MapSize(os.path.getsize(path) // 8, 8, 0, None, False)
    with open_maps(path, layout=layout, q=q, counted=dt is None, checksum=False) as raw:
        selection = counted(raw, selection)
        place = placed(raw, selection, dt, gap)
        rule = pair_rule(raw.where, selection, place.t, place.frames)
        weighed = (sigma, rule, selection.pair_mask, raw.read_sigma)
        copies = 1 if all(one is None for one in weighed) else 2
        n, n_angles = place.t.size, place.chosen.size
        item = kept_dtype(raw).itemsize * copies
        return MapSize(n_angles * n * n, item, n_angles, place.t, raw.layout in READERS)


def _numpy(path: str | os.PathLike[str], layout: str | None) -> bool:
    """Whether a file is one of NumPy's, all of which would have to be read."""
    if not os.path.isfile(path):
        # Said by whoever opens it.
        return False
    if layout is not None:
        return layout in ("npz", "npy")
    with open(path, "rb") as stream:
        return stream.read(6).startswith((b"\x93NUMPY", b"PK"))
