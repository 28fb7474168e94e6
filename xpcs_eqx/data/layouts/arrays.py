"""Arrays by their names, in a dictionary or an NPZ file, and NPY files of bare maps."""

import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ...errors import DataError
from ...files import replacing
from ..checks import array_of, near_misses, numbers, optional_scalar
from ..two_time import TwoTimeData
from .maps import RawMaps, maps_of, needs_sigma

# Maps, angles, times and q of each form; the maps tell the forms apart.
LOADER = ("c2_exp", "phi_angles_list", "t1", "t2", "wavevector_q_list")
DIRECT = ("g2", "phi", "t1", "t2", "q")


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
    stack = _stack(where, maps_key, array_of(where, maps_key, mapping[maps_key]))
    phi = numbers(where, phi_key, mapping[phi_key]).reshape(-1)
    q = numbers(where, q_key, mapping[q_key]).reshape(-1)
    if q.size != stack.shape[0]:
        if q.size == 0 or not np.allclose(q, q[0], rtol=1e-6, atol=0, equal_nan=True):
            raise DataError(
                f"{where}: {q_key} holds {q.size} values for {stack.shape[0]} maps; give one q "
                "[1/Å] for each map, or one for all."
            )
        q = np.full(stack.shape[0], q[0])
    sigma, diagonal = mapping.get("sigma"), mapping.get("diagonal")
    return RawMaps(
        path=path,
        layout=layout or form,
        sha256=sha256,
        names=tuple(f"{maps_key}[{i}]" for i in range(stack.shape[0])),
        maps=tuple(stack),
        stack=stack,
        owned=owned,
        q=q,
        phi=phi,
        q_name=q_key,
        phi_name=phi_key,
        time_name="t1",
        t=frame_axis(where, mapping["t1"], mapping["t2"], stack.shape[1:]),
        gap=optional_scalar(where, mapping, "L"),
        gap_name="L",
        sigma=None if sigma is None else _sigma(array_of(where, "sigma", sigma), stack.shape),
        absolute_sigma=bool(mapping.get("absolute_sigma", True)),
        diagonal=None if diagonal is None else numbers(where, "diagonal", diagonal),
        keys=tuple(key for key in mapping if key != maps_key),
    )


def _stack(where: str, key: str, array: np.ndarray) -> np.ndarray:
    """Maps `(angle, frame, frame)` from these or from a single one."""
    if array.ndim not in (2, 3):
        raise DataError(
            f"{where}: {key} has shape {array.shape}; (frame, frame) or (angle, frame, frame) is "
            "needed."
        )
    return array if array.ndim == 3 else array[None]


def _sigma(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The standard deviation of each entry from that, from that of a single map or of all."""
    if array.ndim == 0:
        return np.broadcast_to(array, shape)
    return array[None] if array.ndim == 2 and shape[0] == 1 else array


def frame_axis(where: str, t1: Any, t2: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The one time axis [s] behind `t1` and `t2`, flat or meshgrids.

    **Raises:** `DataError` when they are no axis, do not fit the maps or differ.
    """
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


def check_keys(where: str, mapping: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Make sure that all of these keys are there.

    **Raises:** `DataError` naming those that are missing, with near misses.
    """
    missing = [key for key in keys if key not in mapping]
    if missing:
        others = set(mapping) - set(keys)
        hints = " ".join(f"{key!r} is missing.{near_misses(key, others)}" for key in missing)
        raise DataError(f"{where}: {hints} This form needs {', '.join(keys)}.")


def _saved(path: str, kind: Literal["NPZ", "NPY"]) -> Any:
    """The array of an NPY file, the dictionary of arrays of an NPZ file."""
    try:
        # a stream of our own, as np.load leaves its own open when the archive is damaged
        with open(path, "rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray) != (kind == "NPY"):
                raise ValueError(f"it holds {type(found).__name__}")
            return found if kind == "NPY" else {key: found[key] for key in found.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        remedy = (
            "a plain array with numpy.save" if kind == "NPY" else "plain arrays with numpy.savez"
        )
        raise DataError(
            f"{path}: the {kind} file cannot be read, it is truncated or holds Python objects "
            f"({error}). Save {remedy}."
        ) from error


def read_npz(path: str, sha256: str) -> RawMaps:
    """Maps of an NPZ file with the keys of the loader or direct form.

    **Raises:** `DataError` for a damaged file or missing keys, with near misses.
    """
    mapping = _saved(path, "NPZ")
    form, keys = ("direct", DIRECT) if "g2" in mapping else ("loader", LOADER)
    check_keys(path, mapping, keys)
    return raw_from_mapping(mapping, form, path=path, layout="npz", sha256=sha256, owned=True)


def read_npy(path: str, sha256: str, q: float | None, phi: Any, counted: bool) -> RawMaps:
    """Bare maps `(frame, frame)` or `(angle, frame, frame)`; everything else is given.

    - `q`: scattering vector [1/Å]; 1 when `None`.
    - `phi`: azimuths [degrees]; 0 when `None`, which only a single map allows.
    - `counted`: time is counted in frames, 1 … n, as no frame time is known.

    **Raises:** `DataError` for a damaged file, another number of dimensions or missing angles.
    """
    stack = _stack(path, "the array", _saved(path, "NPY"))
    if phi is None and stack.shape[0] != 1:
        raise DataError(
            f"{path}: {stack.shape[0]} maps and no angles; give phi= with one azimuth [degrees] "
            "for each map."
        )
    remarks = {
        "No q was given; it is 1, so fitted coefficients carry its powers.": q is None,
        "No phi was given; it is 0.": phi is None,
        "No frame time was given; time is counted in frames.": counted,
    }
    return RawMaps(
        path=path,
        layout="npy",
        sha256=sha256,
        names=tuple(f"map {i + 1}" for i in range(stack.shape[0])),
        maps=tuple(stack),
        stack=stack,
        owned=True,
        q=np.full(stack.shape[0], 1.0 if q is None else float(q)),
        phi=np.atleast_1d(numbers(path, "phi", 0.0 if phi is None else phi)),
        q_name="q",
        phi_name="phi",
        time_name="dt",
        frame_time=1.0 if counted else None,
        keys=("array",),
        notes=tuple(text for text, applies in remarks.items() if applies),
    )


def write_npz(path: str | os.PathLike[str], data: TwoTimeData) -> None:
    """Write an NPZ file with the keys of the loader form, plus `diagonal`.

    **Raises:** `DataError` when the folder does not exist.
    """
    maps = maps_of(data)
    arrays = {
        "c2_exp": np.stack([one.values() for one in maps]),
        "phi_angles_list": np.asarray(data.geometry.phi),
        "t1": np.asarray(data.t),
        "t2": np.asarray(data.t),
        "wavevector_q_list": np.atleast_1d(np.asarray(data.geometry.q)),
        "L": np.asarray(data.geometry.gap),
        "diagonal": np.asarray(data.diagonal),
    }
    if needs_sigma(data):
        arrays["sigma"] = np.stack([one.sigma() for one in maps])
        arrays["absolute_sigma"] = np.asarray(data.absolute_sigma)
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
