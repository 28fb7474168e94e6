"""What a reader hands over: lists and a way to read one map, before anything is chosen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Storage = Literal["unknown", "all", "upper_half", "lower_half"]


@dataclass(frozen=True, kw_only=True)
class RawMaps:
    """Maps as a file or a dictionary holds them; maps are read only when they are asked for.

    - `path`, `layout`, `sha256`: where this is from.
    - `names`: HDF5 path or dictionary key of each map.
    - `shapes`: shape of each map as stored.
    - `read`: `read(map index, rows, columns)` gives this block of one map.
    - `dtype`: type of the stored numbers.
    - `q` [1/Å], `phi` [degrees]: one for each map; `q_name`, `phi_name`: where they were found.
    - `frame_time`: time between two frames [s] before stride and averaging; `None` if not stored.
    - `step`: stride times average, so that maps have one row every `step` frames.
    - `t`: explicit frame times [s]; they win over `frame_time`.
    - `gap`: gap [Å] when stored.
    - `read_sigma`: like `read`, for the standard deviation of each entry; `absolute_sigma` says
      whether it is known absolutely.
    - `read_diagonal`: raw diagonal when it is stored apart from the maps.
    - `storage`: which triangle holds numbers, when the layout says so.
    - `baseline`: number to add so that full decorrelation means one.
    - `stack`: the maps as one array when they already lie in memory; `owned` allows to change it.
    - `keys`: everything that was read, for the provenance; `notes`: remarks in sentences.
    """

    path: str
    layout: str
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    read: Callable[[int, slice, slice], np.ndarray]
    dtype: np.dtype
    q: np.ndarray
    phi: np.ndarray
    q_name: str
    phi_name: str
    time_name: str
    sha256: str = ""
    frame_time: float | None = None
    step: int = 1
    t: np.ndarray | None = None
    gap: float | None = None
    gap_name: str = "gap"
    read_sigma: Callable[[int, slice, slice], np.ndarray] | None = None
    sigma_name: str = "sigma"
    absolute_sigma: bool = True
    read_diagonal: Callable[[int, slice], np.ndarray] | None = None
    storage: Storage = "unknown"
    baseline: float = 0.0
    stack: np.ndarray | None = None
    owned: bool = False
    keys: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Start of an error message: the file, or the kind of dictionary."""
        return self.path if self.path != "memory" else f"dictionary ({self.layout} form)"
