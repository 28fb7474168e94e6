"""Files in every layout the library reads, written whole or not at all."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import DataError
from ..files import replacing
from . import read_aps_old as aps_old
from . import read_aps_u as aps_u
from . import read_nxxpcs as nxxpcs
from . import read_own as own
from .two_time import TwoTimeData
from .weights import weighted

DataSets = TwoTimeData | Sequence[TwoTimeData]


@dataclass(frozen=True)
class _Map:
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


def _maps(data: DataSets) -> list[_Map]:
    sets = [data] if isinstance(data, TwoTimeData) else list(data)
    maps = [_Map(one, angle) for one in sets for angle in range(one.n_angles)]
    if not maps:
        raise DataError("There is no data set to write.")
    times = np.asarray(maps[0].data.t)
    for one in sets:
        if np.shape(one.t) != times.shape or not np.allclose(one.t, times, rtol=1e-9, atol=0):
            raise DataError("Data sets of one file must have the same frame times.")
    return maps


def _frame_time(maps: list[_Map], step: int) -> float:
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


def write_own(
    path: str | os.PathLike[str],
    data: TwoTimeData,
    *,
    chunk: int = 256,
    compression: Literal["gzip", "lzf"] | None = None,
) -> None:
    """Write the library's own layout: everything the data hold, chunked for reading by tile.

    - `chunk`: side of a chunk [frames].
    - `compression`: filter of HDF5, none by default.

    **Raises:** `DataError` when the folder does not exist.

    >>> import tempfile
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> t = np.array([0.0, 0.1, 0.2])
    >>> c2 = 1 + 0.2 * np.exp(-np.abs(t[:, None] - t))
    >>> data = xe.from_dict({"phi": [0.0], "g2": c2[None], "t1": t, "t2": t, "q": 0.005})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_own(f"{folder}/scan.h5", data)
    ...     again = xe.load(f"{folder}/scan.h5")
    >>> np.array_equal(again.c2, data.c2), again.provenance.layout
    (True, 'own')
    """
    import h5py

    n_angles, n, _ = np.shape(data.c2)
    chunks = (1, min(chunk, n), min(chunk, n))
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = own.FORMAT
        file.attrs["version"] = own.VERSION
        file.attrs["absolute_sigma"] = str(data.absolute_sigma)
        origin = data.provenance
        file.attrs["provenance"] = json.dumps(
            {
                "path": origin.path,
                "layout": origin.layout,
                "sha256": origin.sha256,
                "keys": origin.keys,
                "frames": origin.frames,
                "dt": origin.dt,
                "notes": origin.notes,
            }
        )
        shape = (n_angles, n, n)
        options = {"chunks": chunks, "compression": compression}
        c2 = file.create_dataset("c2", shape, np.asarray(data.c2).dtype, **options)
        for angle, one in enumerate(_maps(data)):
            c2[angle] = one.values(half=False)
        if _needs_sigma(data):
            weights = np.asarray(data.root_weights)
            sigma = file.create_dataset("sigma", shape, weights.dtype, **options)
            for angle in range(n_angles):
                sigma[angle] = _sigma(weights[angle])
        file["diagonal"] = np.asarray(data.diagonal)
        for key, values, unit in (
            ("t", data.t, "s"),
            ("phi", data.geometry.phi, "deg"),
            ("q", data.geometry.q, "1/angstrom"),
            ("gap", data.geometry.gap, "angstrom"),
        ):
            file[key] = np.asarray(values)
            file[key].attrs["units"] = unit


def _needs_sigma(data: TwoTimeData) -> bool:
    """Weights that are only zero or one are a mask, which NaN in c2 expresses."""
    if data.root_weights is None:
        return False
    return data.absolute_sigma or weighted(data)


def _sigma(weights: np.ndarray) -> np.ndarray:
    """1/weights, NaN where the weight is zero."""
    return np.divide(1.0, weights, out=np.full_like(weights, np.nan), where=weights != 0)


def write_npz(path: str | os.PathLike[str], data: TwoTimeData) -> None:
    """Write an NPZ file with the keys of the loader form, plus `diagonal`.

    **Raises:** `DataError` when the folder does not exist.
    """
    arrays = {
        "c2_exp": np.stack([one.values(half=False) for one in _maps(data)]),
        "phi_angles_list": np.asarray(data.geometry.phi),
        "t1": np.asarray(data.t),
        "t2": np.asarray(data.t),
        "wavevector_q_list": np.atleast_1d(np.asarray(data.geometry.q)),
        "L": np.asarray(data.geometry.gap),
        "diagonal": np.asarray(data.diagonal),
    }
    if _needs_sigma(data):
        arrays["sigma"] = np.stack([_sigma(one) for one in np.asarray(data.root_weights)])
        arrays["absolute_sigma"] = np.asarray(data.absolute_sigma)
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def write_aps_u(
    path: str | os.PathLike[str],
    data: DataSets,
    *,
    half: bool = False,
    index_mapping: bool = False,
    stride: int = 1,
    average: int = 1,
) -> None:
    """Write the APS-U layout; sigma and gap have no place in it.

    - `data`: one data set, or one for each q.
    - `half`: store the upper triangle only.
    - `index_mapping`: number the bins through `dynamic_index_mapping`, which lists the elements of
      the q-φ grid that are populated.
    - `stride`, `average`: written to the file; the frame time shrinks accordingly.

    The time of the first frame has no place either: give `time_origin` when reading.

    **Raises:** `DataError` for frames that are not equidistant or a missing folder.
    """
    import h5py

    maps = _maps(data)
    frame_time = _frame_time(maps, stride * average)
    sets = [data] if isinstance(data, TwoTimeData) else list(data)
    phi_list, columns = _columns(sets)
    elements = [iq * len(phi_list) + column for iq, one in enumerate(columns) for column in one]
    order = np.argsort(elements)
    bins = np.arange(len(elements)) if index_mapping else np.sort(elements)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file[aps_u.Q_LIST] = np.array([float(one.geometry.q) for one in sets])
        file[aps_u.PHI_LIST] = np.array(phi_list)
        if index_mapping:
            file[aps_u.INDEX_MAPPING] = np.sort(elements)
        file[aps_u.BINS] = bins + 1
        for number, index in zip(bins + 1, order, strict=True):
            file[f"{aps_u.MAPS}/c2_{number:05d}"] = maps[index].values(half)
        for key, value in zip(aps_u.STEPS, (stride, average), strict=True):
            file[key] = value
        file[aps_u.FRAME_TIME] = np.full((1, 1), frame_time)
        file[aps_u.COUNT_TIME] = np.full((1, 1), frame_time)


def _columns(sets: list[TwoTimeData]) -> tuple[list[float], list[list[int]]]:
    """φ list of the grid and the columns of each data set; equal angles may occur several times."""
    phi_list: list[float] = []
    columns = []
    for one in sets:
        used: list[int] = []
        for phi in np.asarray(one.geometry.phi, np.float64).tolist():
            free = [i for i, other in enumerate(phi_list) if other == phi and i not in used]
            if not free:
                phi_list.append(phi)
                free = [len(phi_list) - 1]
            used.append(free[0])
        columns.append(used)
    return phi_list, columns


def write_aps_old(
    path: str | os.PathLike[str],
    data: DataSets,
    *,
    half: bool = False,
    stride: int = 1,
    average: int = 1,
) -> None:
    """Write the older APS layout; arguments and errors as in `write_aps_u`."""
    import h5py

    maps = _maps(data)
    frame_time = _frame_time(maps, stride * average)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file[aps_old.Q_LIST] = np.array([[one.q for one in maps]])
        file[aps_old.PHI_LIST] = np.array([[one.phi for one in maps]])
        for number, one in enumerate(maps):
            file[f"{aps_old.MAPS}/g2_{number + 1:05d}"] = one.values(half)
        for key, value in zip(aps_old.STEPS, (stride, average), strict=True):
            file[key] = np.full((1, 1), value)
        file[aps_old.FRAME_TIME] = np.full((1, 1), frame_time)


def write_nxxpcs(
    path: str | os.PathLike[str],
    data: DataSets,
    *,
    storage_mode: Literal[
        "one_array_q_first", "one_array_q_last", "data_exchange_keys"
    ] = "one_array_q_first",
    populated_elements: Literal["all", "upper_half", "lower_half"] = "all",
    baseline_reference: Literal[0, 1] = 1,
    time_origin_location: Literal["upper_left", "lower_left"] = "upper_left",
) -> None:
    """Write an NXxpcs file with one region for each map; sigma and gap have no place in it.

    The four options are attributes of that definition and change how the maps are stored.

    **Raises:** `DataError` for frames that are not equidistant or a missing folder.
    """
    import h5py

    maps = _maps(data)
    frame_time = _frame_time(maps, 1)

    def stored(one: _Map) -> np.ndarray:
        c2 = one.values(half=False) - (1 - baseline_reference)
        if populated_elements != "all":
            c2 = np.triu(c2) if populated_elements == "upper_half" else np.tril(c2)
        return c2[::-1] if time_origin_location == "lower_left" else c2

    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = "NXxpcs"
        if storage_mode == "data_exchange_keys":
            found = entry.create_group(nxxpcs.MAPS)
            for number, one in enumerate(maps):
                found[f"{number + 1:05d}"] = stored(one)
        else:
            axis = 0 if storage_mode == "one_array_q_first" else -1
            entry[nxxpcs.MAPS] = np.stack([stored(one) for one in maps], axis=axis)
            found = entry[nxxpcs.MAPS]
        found.attrs["storage_mode"] = storage_mode
        found.attrs["baseline_reference"] = baseline_reference
        found.attrs["time_origin_location"] = time_origin_location
        found.attrs["populated_elements"] = populated_elements
        entry[nxxpcs.ROI_MAP] = np.arange(len(maps) + 1)[None]
        entry[nxxpcs.Q_LIST] = np.array([one.q for one in maps])
        entry[nxxpcs.Q_LIST].attrs["units"] = "1/angstrom"
        entry[nxxpcs.PHI_LIST] = np.array([one.phi for one in maps])
        entry[nxxpcs.PHI_LIST].attrs["units"] = "deg"
        entry[nxxpcs.FRAME_TIME] = frame_time
        entry[nxxpcs.FRAME_TIME].attrs["units"] = "s"
