"""Means over bins of age and lag as arrays by their names, in a dictionary or an NPZ file."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import DataError
from ...files import replacing
from ..checks import is_absolute, optional_scalar
from ..two_time import PooledData
from .arrays import check_keys, not_read
from .generic import GenericLayout, read_arrays
from .maps import Description, RawMaps

NAME = "age-lag"
MAPS = "ttcf"
KEYS = (MAPS, "ages", "lags", "q")
ABOUT = Description(
    required=(
        "`ttcf` (phi, age, lag): means of c2 over bins, NaN where there is none; in a dictionary "
        "or an NPZ file, for `load_bins`",
        "`ages`, `lags`: edges or centres of the bins of (t1 + t2)/2 and t2 − t1 [s], ages from "
        "frame 1 on where there is no `t`",
        "`q`: [1/Å]",
        "`t` (frame,): times of the frames [s], equally spaced; else give `dt`",
    ),
    optional=(
        "`phi` (phi,): azimuth [deg], which static models do not need",
        "`sigma` (phi, age, lag), `absolute_sigma`, `L`: gap [Å]",
    ),
    guessed=(
        "of as many ages or lags as bins: edges midway between these centres, of lags whose steps "
        "grow in the logarithm; a bin holds its lower edge",
        "without `t`: as many frames as the bins reach to",
    ),
    refused=(
        "frames that are not equally spaced, selections of frames",
        "bins with numbers where no pair of frames is, if more than a tenth",
    ),
)


def raw_bins(mapping: Mapping[str, Any], path: str = "memory") -> RawMaps:
    """Bins under the keys of this layout.

    **Raises:** `DataError` naming missing keys, with near misses, and shapes that do not fit.
    """
    where = path if path != "memory" else "dictionary (bins)"
    check_keys(where, mapping, KEYS)
    t, sigma, phi, dt = (key if key in mapping else None for key in ("t", "sigma", "phi", "dt"))
    layout = GenericLayout(
        MAPS,
        axes="age_lag",
        ages="ages",
        lags="lags",
        q="q",
        phi=phi,
        t=t,
        frame_time=dt,
        sigma=sigma,
    )
    raw = read_arrays(path, layout, mapping, NAME)
    absolute = is_absolute(where, mapping)
    gap = optional_scalar(where, mapping, "L")
    notes = (*raw.notes, *not_read(mapping, (*KEYS, "phi", "t")))
    return replace(raw, absolute_sigma=absolute, gap=gap, gap_name="L", notes=notes)


def write_bins(path: str | os.PathLike[str], data: PooledData) -> None:
    """Write bins of age and lag to an NPZ file, which `load_bins` and a configuration read.

    **Raises:** `DataError` for points that are no bins, and when the folder does not exist.
    """
    bins = data.bins if isinstance(data, PooledData) else None
    if bins is None:
        raise DataError(f"{path}: these data are no bins of age and lag; make some with binned.")
    ages, lags = np.asarray(bins.ages), np.asarray(bins.lags)
    place = (np.asarray(data.angle), np.asarray(bins.age), np.asarray(bins.lag))

    def grid(values):
        out = np.full((data.n_angles, ages.size - 1, lags.size - 1), np.nan)
        out[place] = values
        return out

    roots = np.ones(place[0].size) if data.root_weights is None else np.asarray(data.root_weights)
    used = roots > 0
    arrays = {
        MAPS: grid(np.where(used, np.asarray(data.values), np.nan)),
        "sigma": grid(np.divide(1.0, roots, out=np.full(roots.shape, np.nan), where=used)),
        "absolute_sigma": np.asarray(data.absolute_sigma),
        "ages": ages,
        "lags": lags,
        "t": np.asarray(data.t),
        "phi": np.asarray(data.geometry.phi),
        "q": np.asarray(data.geometry.q),
        "L": np.asarray(data.geometry.gap),
    }
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
