"""Results of the beamline ID02 of the ESRF: means over bins of age and lag.

The paths, the order of the axes and the units are those of its viewer, XPCSUtilities 1.0.4 (PyPI);
how bins are made is that of xpcs-correlator 0.4.5 (PyPI).
"""

from dataclasses import replace

import numpy as np

from ...errors import DataError
from .generic import GenericLayout
from .generic import read as read_described
from .hdf5 import (
    Remarks,
    dataset,
    group,
    groups_with,
    in_unit,
    joined,
    owner_of,
    read_bins,
    read_list,
)
from .maps import Description, RawMaps
from .opened import Array, Group

NAME = "id02"
# Where analyses of an entry are, and the group of two-time results in each: of files of version 2,
# and older.
PLACES = (("correlations", "twotime"), ("dynamix/correlations/directions", "2times_correlation"))
# In older files, two groups above an analysis.
Q_RANGES = "q_index_min_max"
ABOUT = Description(
    required=(
        "`entry_0000/correlations/KEY/twotime/ttcf` (region, age, lag): means of c2 over bins, for "
        "`load_bins`; older files `entry_0000/dynamix/correlations/directions/KEY/"
        "2times_correlation/ttcf`",
        "`age`, `lag` (in older files also `timeshift`) beside it: centres of the bins [s]",
        "`KEY/parameters/q` (region,): q [1/nm] unless its unit says otherwise; in older files "
        "`KEY/q_index` and `entry_0000/dynamix/correlations/q_index_min_max`",
        "the frame time is not stored: give `dt`",
    ),
    optional=("`phi` as given beside the file, which static models do not need",),
    guessed=(
        "KEY is the only analysis, `entry_0000` any group that holds some; say which with "
        "`analysis` where there are several",
        "edges of lags are those of xpcs-correlator where its rule gives the centres, else midway",
    ),
    refused=("everything that is refused of `age-lag`",),
)


def analyses(file: Group) -> dict[str, str]:
    """Names of the analyses with two-time results, and where these are.

    They are those of their groups, with that of the entry where several have some.
    """
    found = {}
    for folder, results in PLACES:
        for entry in groups_with(file, folder):
            keys = file.reach(f"{entry}/{folder}")
            for key in keys if isinstance(keys, Group) else ():
                place = f"{entry}/{folder}/{key}/{results}"
                if isinstance(file.reach(f"{place}/ttcf"), Array):
                    found[entry, key] = place
    alone = len({entry for entry, _ in found}) < 2
    return {key if alone else f"{entry}/{key}": place for (entry, key), place in found.items()}


def read(file: Group, analysis: str) -> RawMaps:
    """Bins of one analysis.

    **Raises:** `DataError` naming what is missing or does not fit.
    """
    place = analyses(file)[analysis]
    lags = next((name for name in ("lag", "timeshift") if f"{place}/{name}" in file), "lag")
    notes = Remarks()
    q, keys = _q(file, place.rpartition("/")[0], notes)
    layout = GenericLayout(
        f"{place}/ttcf", axes="age_lag", ages=f"{place}/age", lags=f"{place}/{lags}", q=tuple(q)
    )
    raw = read_described(file, layout, units_known=True)
    assert raw.lags is not None
    first = f"this file, whose first lags are {', '.join(f'{one:.4g}' for one in raw.lags[:2])} s"
    edges = edges_of(raw.lags)
    return replace(
        raw,
        layout=NAME,
        lags=raw.lags if edges is None else edges,
        q_name=keys[-1],
        phi_name="phi",
        time_name=first,
        keys=(*raw.keys, *keys),
        notes=(*notes, *raw.notes),
        refused={**raw.refused, **notes.refused},
    )


def edges_of(centres: np.ndarray) -> np.ndarray | None:
    """Edges of lags as xpcs-correlator makes them: 10^N single frames, then a geometric series.

    None for centres that are others.
    """
    if centres.size < 2 or not abs(centres[0]) < 1e-6 * centres[1]:
        return None
    for single in (10, 100, 1000, 10_000):
        edges = [-0.5]
        for k, centre in enumerate(centres / centres[1]):
            edges.append(2 * centre - edges[-1] if k < single else centre**2 / edges[-1])
        found = np.array(edges)
        if centres.size > single and abs(found[single] - single) < 1e-3:
            return centres[1] * found if np.all(np.diff(found) > 0) else None
    return None


def _q(file: Group, folder: str, notes: Remarks) -> tuple[np.ndarray, tuple[str, ...]]:
    """q of each region [1/Å], and where it was found."""
    if "q_index" in group(file, folder):
        ranges = joined(owner_of(owner_of(folder)), Q_RANGES)
        keys = (f"{folder}/q_index", ranges)
        indices = in_unit(file, ranges, "", notes).reshape(-1, 3)[:, 0].tolist()
        means = in_unit(file, ranges, "1/Å", notes, _said(file, ranges)).reshape(-1, 3)
        chosen = read_bins(file, keys[0]).tolist()
        for one in (one for one in chosen if one not in indices):
            raise DataError(f"{file.filename}: {keys[0]} names region {one}, not in {ranges}.")
        return means[[indices.index(one) for one in chosen], 1:].mean(axis=1), keys
    key = f"{folder}/parameters/q"
    return read_list(file, key, "1/Å", notes, _said(file, key)), (key,)


def _said(file: Group, key: str) -> tuple[str, ...]:
    """The unit of q where none is stored: the viewer shows what stands there as 1/nm."""
    names = {name.casefold() for name in dataset(file, key).attributes()}
    return () if names & {"unit", "units"} else ("1/nm",)
