"""What the writers of all layouts share: maps as they are stored, their frame time and sigma."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import DataError
from ..two_time import TwoTimeData, is_mask

DataSets = TwoTimeData | Sequence[TwoTimeData]


@dataclass(frozen=True)
class StoredMap:
    """One map with its place: what every layout stores."""

    data: TwoTimeData
    angle: int

    @property
    def q(self) -> float:
        return float(self.data.geometry.q)

    @property
    def phi(self) -> float:
        return float(self.data.geometry.phi[self.angle])

    def values(self, half: bool) -> np.ndarray:
        """c2 with NaN where masked, the raw diagonal, and zeros below it for half storage."""
        c2 = np.array(self.data.c2[self.angle])
        if self.data.root_weights is not None:
            c2[np.asarray(self.data.root_weights[self.angle]) == 0] = np.nan
        np.fill_diagonal(c2, np.asarray(self.data.diagonal[self.angle]))
        return np.triu(c2) if half else c2


def maps_of(data: DataSets) -> list[StoredMap]:
    """Every map of all data sets, in their order.

    **Raises:** `DataError` without any, or when their frame times differ.
    """
    sets = [data] if isinstance(data, TwoTimeData) else list(data)
    maps = [StoredMap(one, angle) for one in sets for angle in range(one.n_angles)]
    if not maps:
        raise DataError("There is no data set to write.")
    times = np.asarray(maps[0].data.t)
    for one in sets:
        if np.shape(one.t) != times.shape or not np.allclose(one.t, times, rtol=1e-9, atol=0):
            raise DataError("Data sets of one file must have the same frame times.")
    return maps


def frame_time_of(maps: list[StoredMap], step: int) -> float:
    """Time of one detector frame [s].

    **Raises:** `DataError` for frames that are not equidistant, which only own and NPZ can hold.
    """
    t = np.asarray(maps[0].data.t, np.float64)
    steps = np.diff(t)
    if not np.allclose(steps, steps.mean(), rtol=1e-6, atol=0):
        raise DataError(
            f"Frames are {steps.min():.6g} to {steps.max():.6g} s apart; this layout stores one "
            "frame time only. Use write_own or write_npz."
        )
    return float((t[-1] - t[0]) / (t.size - 1)) / step


def needs_sigma(data: TwoTimeData) -> bool:
    """Weights that are only zero or one are a mask, which NaN in c2 expresses."""
    if data.root_weights is None:
        return False
    return data.absolute_sigma or not is_mask(data.root_weights)


def sigma_of(weights: np.ndarray) -> np.ndarray:
    """1/weights, NaN where the weight is zero."""
    return np.divide(1.0, weights, out=np.full_like(weights, np.nan), where=weights != 0)
