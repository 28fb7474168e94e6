"""Data already in memory: dictionaries of maps in loader or direct form, and of pooled points."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import DataError
from .assemble import Sigma, assemble
from .checks import (
    agreeing,
    finite_angles,
    near_misses,
    numbers,
    optional_scalar,
    positive,
    positive_sigma,
    scalar,
)
from .half import TOLERANCE
from .layouts.arrays import DIRECT, LOADER, raw_from_mapping
from .selection import Selection, in_ranges, usable_pairs
from .two_time import DEFAULT_GAP, Geometry, PooledData, Provenance, TwoTimeData

POOLED = ("data", "phi", "t1", "t2")


def from_dict(
    mapping: Mapping[str, Any],
    *,
    selection: Selection = Selection(),  # noqa: B008
    sigma: Sigma = None,
) -> TwoTimeData | PooledData:
    """Data from a dictionary, recognised by its keys.

    - loader form: `phi_angles_list` [degrees], `c2_exp` (angle, frame, frame), `t1`, `t2` [s],
      `wavevector_q_list` [1/Å] (all equal), optional `sigma`, `L` [Å], `dt` [s];
    - direct form: `phi`, `g2`, `t1`, `t2`, `q`, optional `sigma`, `L`, `dt`;
    - pooled points: flat `data`, `t1`, `t2`, `phi`, optional `sigma`, `q`, `L`.

    Times are used as they are; `dt` is only checked against them. `t1` and `t2` may be flat or
    meshgrids of either indexing. A stored `sigma` is absolute unless `absolute_sigma` is false in
    the dictionary. Arrays are taken over without a copy when nothing has to be masked or completed,
    so do not change them afterwards.

    - `selection`: what to take.
    - `sigma`: a number, or `"mad"` for a robust estimate, instead of the stored one.

    **Raises:** `DataError` naming missing keys with near misses, and everything else that makes the
    data unusable.

    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> t = np.array([0.0, 0.1, 0.2])
    >>> c2 = 1 + 0.2 * np.exp(-np.abs(t[:, None] - t))
    >>> data = xe.from_dict({"phi": [0.0], "g2": c2[None], "t1": t, "t2": t, "q": 0.005})
    >>> data.n_angles, data.n_frames, data.n_pairs
    (1, 3, 3)
    >>> xe.from_dict({"phi": [0.0], "g2": c2[None], "t1": t, "t2": t, "Q": 0.005})
    Traceback (most recent call last):
    xpcs_eqx.errors.DataError: dictionary (direct form): 'q' is missing. ...
    """
    form, keys = _form(mapping)
    missing = [key for key in keys if key not in mapping]
    if missing:
        hints = " ".join(
            f"{key!r} is missing.{near_misses(key, set(mapping) - set(keys))}" for key in missing
        )
        raise DataError(f"dictionary ({form} form): {hints} This form needs {', '.join(keys)}.")
    if form == "pooled":
        return pool(mapping, selection, sigma)
    raw = raw_from_mapping(mapping, form)
    return assemble(raw, selection, dt=optional_scalar(raw.where, mapping, "dt"), sigma=sigma)


def _form(mapping: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    forms = {"loader": LOADER, "direct": DIRECT, "pooled": POOLED}
    present = [name for name, keys in forms.items() if keys[0] in mapping]
    if len(present) > 1:
        raise DataError(
            f"dictionary: keys of several forms are present ({', '.join(present)}); give only one "
            f"of {', '.join(repr(keys[0]) for keys in forms.values())}."
        )
    if not present:
        scores = {n: sum(key in mapping for key in keys) for n, keys in forms.items()}
        likely = max(scores, key=lambda name: scores[name])
        raise DataError(
            "dictionary: no maps found; expected one of 'c2_exp' (loader form), 'g2' (direct form) "
            f"or 'data' (pooled points).{near_misses(forms[likely][0], mapping)}"
        )
    return present[0], forms[present[0]]


WHERE = "dictionary (pooled points)"


def pool(mapping: Mapping[str, Any], selection: Selection, sigma: Any = None) -> PooledData:
    """`PooledData` from flat `data`, `t1`, `t2`, `phi`, optional `sigma`, `q`, `L`, `dt`.

    Frames are the sorted distinct times. Points on the diagonal are dropped and counted, t1 > t2 is
    swapped, an unordered pair given twice counts once. Points come out sorted by angle, first and
    second frame, so the order of the input does not matter. NaN, bad frames, lags and ages get
    weight zero; points outside the frame and phi ranges are dropped.

    **Raises:** `DataError` for lengths that differ, times or angles that are no numbers, a pair
    given twice with two values, and an empty selection.
    """
    values = _flat("data", np.asarray(mapping["data"]))
    columns = {key: _flat(key, numbers(WHERE, key, mapping[key])) for key in ("t1", "t2", "phi")}
    for key, column in columns.items():
        if column.size != values.size:
            raise DataError(
                f"{WHERE}: {key} has {column.size} values but data {values.size}; all are flat "
                "lists of one length."
            )
    spread = _sigma(mapping.get("sigma") if sigma is None else sigma, values.size)
    finite_angles(WHERE, "phi", columns["phi"])
    t, first, second = _frames(columns["t1"], columns["t2"])
    if selection.time_origin not in (None, 0.0):
        raise DataError(f"{WHERE}: times are used as they are; leave time_origin out.")
    frames = selection.frame_slice(WHERE, t.size)
    inside = in_ranges(columns["phi"], selection.phi_ranges)
    inside &= (np.minimum(first, second) >= frames.start) & (
        np.maximum(first, second) < frames.stop
    )
    diagonal = first == second
    chosen = np.flatnonzero(inside & ~diagonal)
    if chosen.size == 0:
        raise DataError(
            f"{WHERE}: no point is left in the phi ranges and frames asked for; the selection is "
            "empty. Widen it."
        )
    low = np.minimum(first, second)[chosen] - frames.start
    high = np.maximum(first, second)[chosen] - frames.start
    phi, angle = np.unique(columns["phi"][chosen], return_inverse=True)
    t = t[frames]
    order, repeated = _distinct(values[chosen], spread[chosen], low, high, angle, t)
    kept = chosen[order]
    weights = _weights(
        values[kept], spread[kept], low[order], high[order], kept, t, frames, selection
    )
    notes = [
        f"{int(diagonal.sum())} points with t1 = t2 were dropped.",
        f"{repeated} points repeated a pair given before and were counted once.",
    ]
    q = scalar(WHERE, "q", mapping["q"]) if mapping.get("q") is not None else 1.0
    if mapping.get("q") is None:
        notes.append("No q was given; it is 1, so fitted coefficients carry its powers.")
    gap = scalar(WHERE, "L", mapping["L"]) if mapping.get("L") is not None else DEFAULT_GAP
    absolute = sigma is not None or (
        mapping.get("sigma") is not None and bool(mapping.get("absolute_sigma", True))
    )
    if mapping.get("dt") is not None:
        spacing = float(np.median(np.diff(t)))
        agreeing(
            WHERE, "the spacing of t1 and t2", spacing, scalar(WHERE, "dt", mapping["dt"]), "s"
        )
    exact = values.dtype if values.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    return PooledData(
        values=np.where(weights > 0, values[kept], 0).astype(exact),
        first=low[order],
        second=high[order],
        angle=angle[order],
        t=t,
        geometry=Geometry(
            q=positive(WHERE, "q", q, "1/Å"), phi=phi, gap=positive(WHERE, "L", gap, "Å")
        ),
        root_weights=None if np.all(weights == 1) and not absolute else weights.astype(exact),
        absolute_sigma=absolute,
        provenance=Provenance(
            layout="pooled",
            keys=tuple(mapping),
            frames=(frames.start + 1, frames.stop),
            notes=tuple(notes),
        ),
    )


def _flat(key: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 1 or array.size == 0:
        raise DataError(f"{WHERE}: {key} has shape {array.shape}; give a flat list of points.")
    if array.dtype.kind not in "fiub":
        raise DataError(f"{WHERE}: {key} holds {array.dtype} values; give real numbers.")
    return array


def _sigma(sigma: Any, size: int) -> np.ndarray:
    if isinstance(sigma, str):
        raise DataError(
            f"{WHERE}: sigma = {sigma!r} needs maps with neighbours; give a number for each point."
        )
    array = np.ones(()) if sigma is None else numbers(WHERE, "sigma", sigma)
    if array.ndim and array.shape != (size,):
        raise DataError(f"{WHERE}: sigma has shape {array.shape} but data has {size} points.")
    return np.broadcast_to(array, (size,))


def _frames(t1: np.ndarray, t2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct times and the frame of each point on both axes, by index."""
    both = np.concatenate([t1, t2])
    if not np.all(np.isfinite(both)):
        key = "t1" if not np.all(np.isfinite(t1)) else "t2"
        raise DataError(
            f"{WHERE}: {key} holds values that are not finite; every point needs times."
        )
    distinct, inverse = np.unique(both, return_inverse=True)
    # 3·0.1 and 0.3 are the same frame: times closer than rounding are merged
    apart = np.diff(distinct, prepend=-np.inf) > 1e-9 * max(np.max(np.abs(distinct)), 1e-300)
    frame_of = np.cumsum(apart) - 1
    index = frame_of[inverse]
    return distinct[apart], index[: t1.size], index[t1.size :]


def _distinct(
    values: np.ndarray,
    sigma: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    angle: np.ndarray,
    t: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Indices of one point of each unordered pair, sorted, and how many were repeats."""
    key = (angle.astype(np.int64) * t.size + low) * t.size + high
    _, order, inverse = np.unique(key, return_index=True, return_inverse=True)
    original = order[inverse]
    for name, column in (("values", values), ("sigma", sigma)):
        reference = column[original]
        with np.errstate(invalid="ignore"):
            differs = np.abs(column - reference) > TOLERANCE * (1 + np.abs(reference))
        differs |= np.isnan(column) != np.isnan(reference)
        if np.any(differs):
            point = int(np.flatnonzero(differs)[0])
            raise DataError(
                f"{WHERE}: the pair t = ({t[low[point]]:.9g}, {t[high[point]]:.9g}) s is given "
                f"more than once with the {name} {float(reference[point]):.6g} and "
                f"{float(column[point]):.6g}. Each unordered pair of an angle counts once: average "
                "repeats, or make one data set for each scan."
            )
    return order, int(values.size - order.size)


def _weights(
    values: np.ndarray,
    sigma: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    kept: np.ndarray,
    t: np.ndarray,
    frames: slice,
    selection: Selection,
) -> np.ndarray:
    """1/sigma of each point, zero where it is masked."""
    usable = np.isfinite(values)
    pairs = usable_pairs(WHERE, selection, t, frames)
    if pairs is not None:
        usable &= pairs[low, high]
    if selection.pair_mask is not None:
        mask = np.asarray(selection.pair_mask)
        if mask.ndim != 1 or mask.size <= kept.max():
            raise DataError(
                f"{WHERE}: pair_mask has shape {mask.shape}; give one truth value for each point."
            )
        usable &= mask[kept].astype(bool)
    if not usable.any():
        raise DataError(
            f"{WHERE}: no finite pair is left after masks and NaN; widen the selection."
        )
    positive_sigma(WHERE, "sigma", sigma[usable])
    weights = np.zeros(values.shape)
    weights[usable] = 1.0 / sigma[usable]
    return weights
