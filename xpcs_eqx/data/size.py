"""How large the selected maps of a file are, before any of them is read."""

import os
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .load import READERS, counted, open_maps, prepared
from .place import kept_dtype, placed
from .selection import Selection, pair_rule


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
