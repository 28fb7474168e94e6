"""Data already in memory: the loader form, the direct form and pooled points."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import DataError
from .assemble import Sigma, assemble
from .checks import near_misses, numbers, scalar
from .points import pool
from .pooled import PooledData
from .raw import RawMaps
from .selection import Selection
from .two_time import TwoTimeData

# maps, angles, q of each form; the maps tell the forms apart
LOADER = ("c2_exp", "phi_angles_list", "t1", "t2", "wavevector_q_list")
DIRECT = ("g2", "phi", "t1", "t2", "q")
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
    return assemble(raw, selection, dt=_optional(raw.where, mapping, "dt"), sigma=sigma)


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


def _optional(where: str, mapping: Mapping[str, Any], key: str) -> float | None:
    value = mapping.get(key)
    return None if value is None else scalar(where, key, value)


def raw_from_mapping(
    mapping: Mapping[str, Any],
    form: str,
    *,
    path: str = "memory",
    layout: str | None = None,
    sha256: str = "",
    owned: bool = False,
) -> RawMaps:
    """Loader or direct form as `RawMaps`.

    **Raises:** `DataError` for shapes that do not belong together and times that differ.
    """
    maps_key, phi_key, _, _, q_key = LOADER if form == "loader" else DIRECT
    where = path if path != "memory" else f"dictionary ({form} form)"
    stack = np.asarray(mapping[maps_key])
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3:
        raise DataError(
            f"{where}: {maps_key} has shape {stack.shape}; (angle, frame, frame) needed."
        )
    phi = numbers(where, phi_key, mapping[phi_key]).reshape(-1)
    q = numbers(where, q_key, mapping[q_key]).reshape(-1)
    if q.size == 0 or not np.allclose(q, q[0], rtol=1e-6, atol=0, equal_nan=True):
        raise DataError(
            f"{where}: {q_key} holds {q.size} values from {q.min() if q.size else None} to "
            f"{q.max() if q.size else None} [1/Å]; one data set has one q. Make one data set for "
            "each q and fit each by itself."
        )
    sigma = mapping.get("sigma")
    sigma = None if sigma is None else _sigma_stack(where, sigma, stack.shape)
    diagonal = mapping.get("diagonal")
    diagonal = None if diagonal is None else numbers(where, "diagonal", diagonal)
    if diagonal is not None and diagonal.shape != stack.shape[:2]:
        raise DataError(
            f"{where}: diagonal has shape {diagonal.shape} but {maps_key} {stack.shape} needs "
            f"{stack.shape[:2]}."
        )
    return RawMaps(
        path=path,
        layout=layout or form,
        sha256=sha256,
        names=tuple(f"{maps_key}[{i}]" for i in range(stack.shape[0])),
        shapes=(stack.shape[1:],) * stack.shape[0],
        read=lambda index, rows, columns: stack[index, rows, columns],
        dtype=stack.dtype,
        stack=stack,
        owned=owned,
        q=np.full(stack.shape[0], q[0]),
        phi=phi,
        q_name=q_key,
        phi_name=phi_key,
        time_name="t1",
        t=frame_axis(where, mapping["t1"], mapping["t2"], stack.shape[1:]),
        gap=_optional(where, mapping, "L"),
        gap_name="L",
        read_sigma=(
            None if sigma is None else lambda index, rows, columns: sigma[index, rows, columns]
        ),
        absolute_sigma=bool(mapping.get("absolute_sigma", True)),
        read_diagonal=None if diagonal is None else lambda index, frames: diagonal[index, frames],
        keys=tuple(key for key in mapping if key != maps_key),
    )


def _sigma_stack(where: str, sigma: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(sigma)
    if array.ndim == 0:
        return np.broadcast_to(array, shape)
    if array.ndim == 2 and shape[0] == 1:
        array = array[None]
    if array.shape != shape:
        raise DataError(
            f"{where}: sigma has shape {array.shape} but the maps have {shape}; give one standard "
            "deviation for each entry, or a single number."
        )
    return array


def frame_axis(where: str, t1: Any, t2: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The one time axis [s] behind `t1` and `t2`, flat or meshgrids.

    **Raises:** `DataError` when they are no axis, do not fit the maps or differ.
    """
    if len(shape) == 2 and shape[0] != shape[1]:
        raise DataError(f"{where}: the maps have shape {shape}; a map must be square.")
    first = _flat_axis(where, "t1", numbers(where, "t1", t1))
    second = _flat_axis(where, "t2", numbers(where, "t2", t2))
    for key, axis in (("t1", first), ("t2", second)):
        if axis.size != shape[0]:
            raise DataError(
                f"{where}: {key} has {axis.size} times but the maps have {shape[0]} frames; give "
                "one time for each frame."
            )
    scale = np.max(np.abs(first[np.isfinite(first)]), initial=0.0)
    if not np.allclose(first, second, rtol=0, atol=1e-9 * scale, equal_nan=True):
        worst = int(np.nanargmax(np.abs(first - second)))
        raise DataError(
            f"{where}: t1 and t2 differ, at frame {worst + 1} by {first[worst] - second[worst]:.3g}"
            " s; both axes of a two-time map are the same frames."
        )
    return first


def _flat_axis(where: str, key: str, values: np.ndarray) -> np.ndarray:
    if values.ndim == 1:
        return values
    if values.ndim == 2:
        if np.array_equal(values, np.broadcast_to(values[:, :1], values.shape), equal_nan=True):
            return values[:, 0]
        if np.array_equal(values, np.broadcast_to(values[:1], values.shape), equal_nan=True):
            return values[0]
    raise DataError(
        f"{where}: {key} has shape {values.shape} and is neither a flat time axis nor a meshgrid "
        "that varies along one axis only."
    )
