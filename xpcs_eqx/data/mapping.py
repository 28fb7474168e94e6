"""Data already in memory: dictionaries of maps in loader or direct form, and of pooled points."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..arguments import named
from ..errors import DataError
from .bad_frames import left_out
from .baseline import Baseline, Levels, baseline_of, checked_baseline, levels_of
from .bins import bins_from
from .checks import (
    agreeing,
    array_of,
    finite_angles,
    is_absolute,
    near_misses,
    numbers,
    optional_scalar,
    positive,
    positive_sigma,
    shown,
)
from .chosen import Sigma, choose
from .fills import fills_of
from .layouts import age_lag
from .layouts.arrays import DIRECT, LOADER, check_keys, not_read, raw_from_mapping
from .load import assemble
from .meaning import clock_before
from .selection import PairRule, Selection, in_ranges, pair_rule
from .symmetry import TOLERANCE, Symmetrise
from .two_time import DEFAULT_GAP, NO_Q, Geometry, PooledData, Provenance, TwoTimeData

POOLED = ("data", "phi", "t1", "t2")


@named
def from_dict(
    mapping: Mapping[str, Any],
    *,
    selection: Selection = Selection(),  # noqa: B008
    sigma: Sigma = None,
    baseline: Baseline = "auto",
    symmetrise: Symmetrise | None = None,
) -> TwoTimeData | PooledData:
    """Data from a dictionary, recognised by its keys.

    - loader form: `c2_exp` (angle, frame, frame), `t1`, `t2` [s], `wavevector_q_list` [1/Å] (all
      equal), optional `phi_angles_list` [degrees], `sigma`, `L` [Å], `dt` [s];
    - direct form: `g2`, `t1`, `t2`, `q`, optional `phi`, `sigma`, `L`, `dt`;
    - pooled points: flat `data`, `t1`, `t2`, optional `phi`, `sigma`, `q`, `L`;
    - bins: `ttcf` (angle, age, lag), `ages`, `lags` [s], `phi`, `q`, and `t` or `dt`, optional
      `sigma`, `L`; as in `load_bins`.

    Without azimuths only models that have no direction can be fitted.

    Times are used as they are, unless they are those of a clock, of which the first then is 0;
    `dt` is only checked against them. `t1` and `t2` may be flat or
    meshgrids of either indexing. A stored `sigma` is absolute unless `absolute_sigma` is false in
    the dictionary. Arrays are taken over without a copy when nothing has to be masked or completed,
    so do not change them afterwards.

    - `selection`: what to take.
    - `sigma`: a number, or `"mad"` for a robust estimate, instead of the stored one.
    - `baseline`, `symmetrise`: as in `load`.

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
    if not isinstance(mapping, Mapping):
        raise DataError(f"dictionary: {shown(mapping)} was given; give a dictionary of arrays.")
    if not isinstance(selection, Selection):
        raise DataError(f"dictionary: selection is {shown(selection)}; give a Selection.")
    form, keys = _form(mapping)
    check_keys(f"dictionary ({form} form)", mapping, keys)
    if form == "pooled":
        return pool(mapping, selection, sigma, checked_baseline(WHERE, baseline))
    if form == "bins":
        where = "dictionary (bins)"
        dt, raw = optional_scalar(where, mapping, "dt"), age_lag.raw_bins(mapping)
        given = {"sigma": sigma, "baseline": baseline, "symmetrise": symmetrise}
        return bins_from(raw, selection, dt=dt, **given)
    raw = raw_from_mapping(mapping, form)
    dt = optional_scalar(raw.where, mapping, "dt")
    return assemble(
        choose(raw, selection, dt=dt, sigma=sigma, baseline=baseline, symmetrise=symmetrise)
    )


def _form(mapping: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    forms = {"loader": LOADER, "direct": DIRECT, "pooled": POOLED, "bins": age_lag.KEYS}
    present = [name for name, keys in forms.items() if keys[0] in mapping]
    if len(present) > 1:
        raise DataError(
            f"dictionary: keys of several forms are present ({', '.join(present)}); give only one "
            f"of {', '.join(repr(keys[0]) for keys in forms.values())}."
        )
    if not present:
        scores = {n: sum(key in mapping for key in keys) for n, keys in forms.items()}
        likely = forms[max(scores, key=lambda name: scores[name])]
        raise DataError(
            "dictionary: no maps found; expected one of 'c2_exp' (loader form), 'g2' (direct "
            "form), 'data' (pooled points) or 'ttcf' (bins of age and lag)."
            f"{near_misses(likely[0], mapping)}"
        )
    return present[0], forms[present[0]]


WHERE = "dictionary (pooled points)"
# Frames of points that are looked at as maps.
_MOST_FRAMES = 3000


class _Points(NamedTuple):
    """Columns of points: what was given, both frames with the earlier first, the azimuth.

    `number` is the place of a point in what was given.
    """

    values: np.ndarray
    sigma: np.ndarray
    first: np.ndarray
    second: np.ndarray
    phi: np.ndarray
    number: np.ndarray

    def at(self, index: np.ndarray) -> "_Points":
        """Some of the points."""
        return _Points(*(column[index] for column in self))


def pool(
    mapping: Mapping[str, Any],
    selection: Selection,
    sigma: Any = None,
    baseline: Baseline = "auto",
) -> PooledData:
    """`PooledData` from flat `data`, `t1`, `t2`, optional `phi`, `sigma`, `q`, `L`, `dt`.

    Frames are the sorted distinct times. Points on the diagonal are dropped and counted, t1 > t2 is
    swapped, an unordered pair given twice counts once. Points come out sorted by angle, first and
    second frame, so the order of the input does not matter. NaN, bad frames, lags and ages get
    weight zero; points outside the frame and phi ranges are dropped.

    **Raises:** `DataError` for lengths that differ, times or angles that are no numbers, a pair
    given twice with two values, and an empty selection.
    """
    values = _flat("data", array_of(WHERE, "data", mapping["data"]))
    azimuths = "phi" in mapping
    t1, t2 = (_flat(key, mapping[key], values.size) for key in ("t1", "t2"))
    phi = _flat("phi", mapping["phi"], values.size) if azimuths else np.zeros(values.size)
    given = mapping.get("sigma") if sigma is None else sigma
    spread = _sigma(given, values.size)
    finite_angles(WHERE, "phi", phi)
    before, clock = clock_before(WHERE, "t1", np.concatenate([t1, t2]), selection)
    if before:
        # Beside times as large, neighbouring frames are equal to rounding.
        t1, t2, selection = t1 - before, t2 - before, replace(selection, time_origin=None)
    t, one, other = _frames(t1, t2)
    if selection.time_origin not in (None, 0.0):
        raise DataError(f"{WHERE}: times are used as they are; leave time_origin out.")
    n_frames = t.size
    frames = selection.frame_slice(WHERE, n_frames)
    t = t[frames]
    first, second = np.minimum(one, other) - frames.start, np.maximum(one, other) - frames.start
    inside = in_ranges(phi, selection.phi_ranges) & (first >= 0) & (second < t.size)
    points = _Points(values, spread, first, second, phi, np.arange(values.size))
    points = points.at(inside & (first != second))
    if points.values.size == 0:
        raise DataError(
            f"{WHERE}: no point is left in the phi ranges and frames asked for; the selection is "
            "empty. Widen it."
        )
    found = points.values.size
    points = _distinct(points, t)
    weights = _weights(points, selection, pair_rule(WHERE, selection, t, frames, n_frames))
    angles, angle = np.unique(points.phi, return_inverse=True)
    filled, remarks = _filled(points, angle, weights > 0, t.size, selection)
    weights[filled] = 0
    notes = [
        f"{np.count_nonzero(first == second)} points with t1 = t2 were dropped.",
        f"{found - points.values.size} points repeated a pair given before and were counted once.",
    ]
    q, gap, dt = (optional_scalar(WHERE, mapping, key) for key in ("q", "L", "dt"))
    if not azimuths:
        notes.append("No azimuths are known; only models without a direction can be fitted.")
    if q is None:
        notes.append(NO_Q)
    lags, used = points.second - points.first, weights > 0

    def levels() -> list[Levels | None]:
        each = (used & (angle == k) for k in range(angles.size))
        return [levels_of(points.values[one], lags[one]) for one in each]

    level = baseline_of(None, baseline, levels)
    notes += [*remarks, *not_read(mapping, (*POOLED, "q")), *filter(None, (clock, level.remark))]
    absolute = sigma is not None or (given is not None and is_absolute(WHERE, mapping))
    if dt is not None:
        spacing = float(np.median(np.diff(t)))
        agreeing(WHERE, "the spacing of t1 and t2", spacing, dt, "s")
    exact = values.dtype if values.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    return PooledData(
        values=np.where(used, points.values + level.added, 0).astype(exact),
        first=points.first,
        second=points.second,
        angle=angle,
        t=t,
        geometry=Geometry(
            q=positive(WHERE, "q", 1.0 if q is None else q, "1/Å"),
            phi=angles,
            gap=positive(WHERE, "L", DEFAULT_GAP if gap is None else gap, "Å"),
        ),
        root_weights=None if np.all(weights == 1) and not absolute else weights.astype(exact),
        absolute_sigma=absolute,
        provenance=Provenance(
            layout="pooled",
            keys=tuple(mapping),
            azimuths=azimuths,
            frames=(frames.start + 1, frames.stop),
            baseline_guessed=level.guessed,
            doubts=("baseline",) if level.open else (),
            notes=tuple(notes),
        ),
    )


def _filled(
    points: _Points, angle: np.ndarray, used: np.ndarray, n: int, selection: Selection
) -> tuple[np.ndarray, list[str]]:
    """Points with numbers that were not measured and are to be left out, and remarks.

    Looked for in maps of them, unless these would be large.
    """
    out, remarks = np.zeros(used.shape, bool), list[str]()
    masked = selection.bad_frames == "auto"
    for k in range(int(angle.max()) + 1) if n <= _MOST_FRAMES else ():
        here = used & (angle == k)
        at = points.first[here], points.second[here]
        grid, there = np.zeros((n, n)), np.zeros((n, n), bool)
        grid[at], there[at] = points.values[here], True
        for fill in fills_of(grid, there, pairs=True):
            out |= masked & here & (points.values == fill.value)
            remarks.append(
                f"{fill.held} points at phi = {points.phi[here][0]:g} hold {fill.value:.6g}, and "
                f"no noise: not measured, {left_out(masked)}."
            )
    return out, remarks


def _flat(key: str, value: Any, size: int | None = None) -> np.ndarray:
    """A flat column of real numbers, as long as the first one, whose precision is kept."""
    array = array_of(WHERE, key, value)
    if array.ndim != 1 or array.size == 0:
        raise DataError(f"{WHERE}: {key} has shape {array.shape}; give a flat list of points.")
    exact = numbers(WHERE, key, array)
    if size is None:
        return array
    if array.size != size:
        raise DataError(
            f"{WHERE}: {key} has {array.size} values but data {size}; all are flat lists of one "
            "length."
        )
    return exact


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


def _distinct(points: _Points, t: np.ndarray) -> _Points:
    """One point of each unordered pair, sorted by angle and frames."""
    _, angle = np.unique(points.phi, return_inverse=True)
    key = (angle.astype(np.int64) * t.size + points.first) * t.size + points.second
    _, order, inverse = np.unique(key, return_index=True, return_inverse=True)
    original = points.at(order[inverse])
    for name in ("values", "sigma"):
        column, reference = getattr(points, name), getattr(original, name)
        with np.errstate(invalid="ignore"):
            differs = np.abs(column - reference) > TOLERANCE * (1 + np.abs(reference))
        differs |= np.isnan(column) != np.isnan(reference)
        if np.any(differs):
            k = int(np.flatnonzero(differs)[0])
            raise DataError(
                f"{WHERE}: the pair t = ({t[points.first[k]]:.9g}, {t[points.second[k]]:.9g}) s is "
                f"given more than once with the {name} {float(reference[k]):.6g} and "
                f"{float(column[k]):.6g}. Each unordered pair of an angle counts once: average "
                "repeats, or make one data set for each scan."
            )
    return points.at(order)


def _weights(points: _Points, selection: Selection, rule: PairRule | None) -> np.ndarray:
    """1/sigma of each point, zero where it is masked."""
    usable = np.isfinite(points.values)
    if rule is not None:
        usable &= rule(points.first, points.second)
    if selection.pair_mask is not None:
        mask = np.asarray(selection.pair_mask)
        if mask.ndim != 1 or mask.size <= points.number.max():
            raise DataError(
                f"{WHERE}: pair_mask has shape {mask.shape}; give one truth value for each point."
            )
        usable &= mask[points.number].astype(bool)
    if not usable.any():
        raise DataError(
            f"{WHERE}: no finite pair is left after masks and NaN; widen the selection."
        )
    positive_sigma(WHERE, "sigma", points.sigma[usable])
    weights = np.zeros(usable.shape)
    weights[usable] = 1.0 / points.sigma[usable]
    return weights
