"""Arrays by their names, in a dictionary or an NPZ file, and NPY files of bare maps."""

import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

import numpy as np

from ...errors import DataError
from ...files import replacing
from ..checks import (
    array_of,
    closest,
    is_absolute,
    is_misspelt,
    near_misses,
    numbers,
    optional_scalar,
)
from ..two_time import NO_Q, NO_TIMES, TwoTimeData
from .maps import Description, RawMaps, maps_of, needs_sigma, worked_dtype, worked_in_place
from .opened import UNASKED, UNREADABLE

# Maps, angles, times and q of each form; the maps tell the forms apart.
LOADER = ("c2_exp", "phi_angles_list", "t1", "t2", "wavevector_q_list")
DIRECT = ("g2", "phi", "t1", "t2", "q")
# Of the forms and of pooled points; models without a direction need none.
AZIMUTHS = (LOADER[1], DIRECT[1])
# Bytes that a packed byte may become in memory; measured maps do not shrink to a tenth.
_DENSEST = 200
ABOUT_NPZ = Description(
    required=(
        "`c2_exp` (phi, frame, frame), `t1`, `t2` [s], `wavevector_q_list` [1/Å]; or `g2`, `t1`, "
        "`t2`, `q`",
    ),
    optional=(
        "`phi_angles_list`, in the second form `phi` [deg]; else `phi` as given, or 0 with a note",
        "`sigma` (phi, frame, frame), `absolute_sigma`, `L`: gap [Å], `diagonal`",
    ),
    guessed=(
        "a single map stands for a stack of one, and maps along the last axis for those along the "
        "first",
        "a single array of another name, as dynamix saves it, is read like an NPY file",
    ),
    refused=(
        "arrays of Python objects among these, encrypted or implausibly dense archives; further "
        "members are not read",
    ),
)
ABOUT_NPY = Description(
    required=("`the array` (frame, frame), (map, frame, frame) or (frame, frame, map)",),
    optional=(
        "`q`, `phi`, `dt` as given beside the file; maps at several q with `generic`, where the "
        "name of the array may be any",
    ),
    guessed=(
        "without `q` it is 1, without `dt` time is counted in frames; without `phi` only models "
        "without a direction can be fitted",
    ),
    refused=("several maps without `phi`",),
)


def raw_from_mapping(
    mapping: Mapping[str, Any],
    form: str,
    *,
    path: str = "memory",
    layout: str | None = None,
    owned: bool = False,
) -> RawMaps:
    """Loader or direct form as `RawMaps`.

    **Raises:** `DataError` for shapes that do not belong together and times that differ.
    """
    maps_key, phi_key, _, _, q_key = LOADER if form == "loader" else DIRECT
    where = path if path != "memory" else f"dictionary ({form} form)"
    stack, turned = _stack(where, maps_key, array_of(where, maps_key, mapping[maps_key]))
    stack = worked_in_place(stack) if owned else stack
    azimuths = phi_key in mapping
    phi = np.zeros(stack.shape[0])
    if azimuths:
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
    t = frame_axis(where, mapping["t1"], mapping["t2"], stack.shape[1:])
    return RawMaps(
        path=path,
        layout=layout or form,
        names=tuple(f"{maps_key}[{i}]" for i in range(stack.shape[0])),
        maps=tuple(stack),
        stack=stack,
        owned=owned,
        q=q,
        phi=phi,
        q_name=q_key,
        phi_name=phi_key,
        azimuths=azimuths,
        time_name="t1",
        t=t,
        gap=optional_scalar(where, mapping, "L"),
        gap_name="L",
        sigma=None if sigma is None else _sigma(where, sigma, stack.shape),
        absolute_sigma=is_absolute(where, mapping),
        diagonal=None if diagonal is None else numbers(where, "diagonal", diagonal),
        keys=tuple(key for key in mapping if key != maps_key),
        notes=(
            *turned,
            *_counted("t1", t),
            *not_read(mapping, LOADER if form == "loader" else DIRECT),
        ),
    )


def _stack(where: str, key: str, array: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Maps `(angle, frame, frame)` from these, from a single one or from maps along the last axis,
    as some correlators save them; and a remark on the latter.
    """
    if array.ndim not in (2, 3):
        raise DataError(
            f"{where}: {key} has shape {array.shape}; (frame, frame) or (angle, frame, frame) is "
            "needed."
        )
    if array.ndim == 2:
        return array[None], ()
    if array.shape[0] == array.shape[1] != array.shape[2]:
        remark = f"{key} has shape {array.shape}: maps were taken along its last axis."
        return np.moveaxis(array, -1, 0), (remark,)
    return array, ()


def _sigma(where: str, sigma: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The standard deviation of each entry from that, from that of a single map or of all."""
    array = array_of(where, "sigma", sigma)
    if array.ndim == 0:
        return np.broadcast_to(array, shape)
    if array.ndim == 2 and shape[0] != 1:
        # One map is no sigma of several; what is said of its shape names both.
        return array
    return _stack(where, "sigma", array)[0]


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
    rounded = max(_rounding(t1), _rounding(t2))
    if not np.allclose(first, second, rtol=0, atol=max(1e-9, rounded) * scale, equal_nan=True):
        worst = int(np.argmax(np.nan_to_num(np.abs(first - second), nan=np.inf)))
        raise DataError(
            f"{where}: t1 and t2 differ, at frame {worst + 1} by {first[worst] - second[worst]:.3g}"
            " s; both axes of a two-time map are the same frames."
        )
    return second if _rounding(t1) > _rounding(t2) else first


def _counted(key: str, t: np.ndarray) -> tuple[str, ...]:
    """A remark on times, which have no unit here, that may be numbers of frames."""
    if t.size < 3 or t[0] not in (0, 1) or np.any(np.diff(t) != 1):
        return ()
    return (
        f"{key} counts {t[0]:g}, {t[1]:g}, {t[2]:g}, …, as numbers of frames do; these were taken "
        "as seconds, so that rates are per frame if they are none.",
    )


def _rounding(t: Any) -> float:
    """To what part numbers of the type of these times are rounded."""
    dtype = np.asarray(t).dtype
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0


def _flat_axis(where: str, key: str, values: np.ndarray) -> np.ndarray:
    if values.ndim == 1:
        return values
    if values.ndim == 2 and values.size:
        if np.array_equal(values, np.broadcast_to(values[:, :1], values.shape), equal_nan=True):
            return values[:, 0]
        if np.array_equal(values, np.broadcast_to(values[:1], values.shape), equal_nan=True):
            return values[0]
    raise DataError(
        f"{where}: {key} has shape {values.shape} and is neither a flat time axis nor a meshgrid "
        "that varies along one axis only."
    )


# What is read beside the arrays of a form.
_BESIDE = ("sigma", "absolute_sigma", "L", "dt", "diagonal")


def not_read(mapping: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    """A remark on arrays beside those of a form that are not read, with what they may stand for."""
    said = []
    for key in mapping:
        if key not in (*keys, *_BESIDE):
            meant = closest(key, (*keys, *_BESIDE))
            said.append(f"{key!r} (did you mean {meant!r}?)" if meant else repr(key))
    more = f" and {len(said) - 8} more" if len(said) > 8 else ""
    return (f"Not read: {', '.join(said[:8])}{more}.",) if said else ()


def check_keys(where: str, mapping: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Make sure that all of these keys are there.

    Azimuths may be absent, unless they are there under a name that is almost right.

    **Raises:** `DataError` naming those that are missing, with near misses.
    """
    others = set(mapping) - set(keys)
    missing = [key for key in keys if key not in mapping]
    missing = [key for key in missing if key not in AZIMUTHS or is_misspelt(key, others)]
    if missing:
        hints = " ".join(f"{key!r} is missing.{near_misses(key, others)}" for key in missing)
        raise DataError(f"{where}: {hints} This form needs {', '.join(keys)}.")


class _Members(Mapping[str, np.ndarray]):
    """The arrays of an open NPZ file, each read when it is asked for and checked before that."""

    def __init__(self, path: str, archive: zipfile.ZipFile):
        self.path, self.archive = path, archive
        self.names = {
            one.filename.removesuffix(".npy"): one
            for one in archive.infolist()
            if one.filename.endswith(".npy")
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, key: object) -> bool:
        return key in self.names

    def __getitem__(self, key: str) -> np.ndarray:
        with self._open(key) as stream:
            self._header(key, stream)
        with self._open(key) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of an array."""
        with self._open(key) as stream:
            return self._header(key, stream)

    @contextmanager
    def _open(self, key: str) -> Iterator[Any]:
        member = self.names[key]
        if member.flag_bits & 1:
            raise DataError(
                f"{self.path}: the NPZ file is encrypted at {key!r}. Save it without a password."
            )
        with _reading(self.path, "NPZ", key), self.archive.open(member) as stream:
            yield stream

    def _header(self, key: str, stream: Any) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of an array, after checking that the archive may hold as much."""
        member, size = self.names[key], os.path.getsize(self.path)
        packed = size if member.compress_type == zipfile.ZIP_STORED else member.compress_size
        most = max(UNASKED, _DENSEST * min(packed, size))
        if member.compress_type == zipfile.ZIP_STORED:
            most = size
        if member.file_size > most:
            raise DataError(
                f"{self.path}: {key!r} claims to unpack to {member.file_size} bytes from "
                f"{member.compress_size}; no map is packed so densely. The file is damaged or made "
                "to fill the memory."
            )
        return _header(self.path, key, stream, member.file_size)


@contextmanager
def _reading(path: str, kind: Literal["NPZ", "NPY"], key: str = "") -> Iterator[None]:
    """Turns what NumPy and zipfile raise while an array is read into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            f"{path}: {key or 'the array'} does not fit into memory ({error}). Write the maps to "
            "HDF5 once with write_own where there is room, and leave them there."
        ) from error
    except (*UNREADABLE, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
            SyntaxError, tokenize.TokenError, RecursionError) as error:  # fmt: skip
        remedy = (
            "a plain array with numpy.save" if kind == "NPY" else "plain arrays with numpy.savez"
        )
        at = f" at {key!r}" if key else ""
        raise DataError(
            f"{path}: the {kind} file cannot be read{at}, it is truncated or holds Python objects "
            f"({error}). Save {remedy}."
        ) from error


def _header(path: str, key: str, stream: Any, size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a saved array of which `size` bytes are there.

    **Raises:** `DataError` when that is another number than the array needs.
    """
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        # its size is that of a pickle, which is never looked into
        return shape, dtype
    wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if wanted != size - stream.tell():
        raise DataError(
            f"{path}: {key!r} claims shape {shape} of {dtype}, {wanted} bytes, but "
            f"{size - stream.tell()} are there; the file is truncated or damaged. Copy it again."
        )
    return shape, dtype


@contextmanager
def open_npz(path: str) -> Iterator[_Members]:
    """The arrays of an NPZ file by their names, read when they are asked for.

    **Raises:** `DataError` for a damaged or encrypted file.
    """
    with ExitStack() as stack:
        with _reading(path, "NPZ"):
            archive = stack.enter_context(zipfile.ZipFile(path))
        yield _Members(path, archive)


def bare_array(path: str) -> np.ndarray:
    """The array of an NPY file.

    **Raises:** `DataError` for a damaged file.
    """
    with _reading(path, "NPY"), open(path, "rb") as stream:
        _header(path, "the array", stream, os.path.getsize(path))
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def array_size(path: str, names: tuple[str, ...]) -> tuple[int, int]:
    """Entries of the maps in an NPZ or NPY file and bytes of each as it is worked on, from the
    header alone.

    `names`: those that the maps may have in an NPZ file.

    **Raises:** `DataError` for a damaged file.
    """
    shape, dtype = (0,), np.dtype(float)
    if not zipfile.is_zipfile(path):
        with _reading(path, "NPY"), open(path, "rb") as stream:
            shape, dtype = _header(path, "the array", stream, os.path.getsize(path))
    else:
        with open_npz(path) as arrays:
            for name in names:
                if name in arrays:
                    shape, dtype = arrays.header(name)
    return int(np.prod(shape, dtype=object)), worked_dtype(dtype).itemsize


def lone_array(path: str) -> str | None:
    """The name of the only array in an NPZ file, as some correlators save a bare map.

    **Raises:** `DataError` for a damaged file.
    """
    with open_npz(path) as arrays:
        names = tuple(arrays)
    return names[0] if len(names) == 1 and names[0] not in LOADER + DIRECT else None


def has_array(path: str, name: str) -> bool:
    """Whether an NPZ file holds an array of this name.

    **Raises:** `DataError` for a damaged file.
    """
    with open_npz(path) as arrays:
        return name in arrays


def read_npz(path: str) -> RawMaps:
    """Maps of an NPZ file with the keys of the loader or direct form.

    **Raises:** `DataError` for a damaged file or missing keys, with near misses.
    """
    with open_npz(path) as mapping:
        form, keys = ("direct", DIRECT) if "g2" in mapping else ("loader", LOADER)
        if LOADER[0] not in mapping and DIRECT[0] not in mapping:
            raise DataError(_unknown(mapping))
        check_keys(path, mapping, keys)
        raw = raw_from_mapping(mapping, form, path=path, layout="npz", owned=True)
        # Beside the times themselves it can only agree with them or not.
        return replace(raw, frame_time=optional_scalar(path, mapping, "dt"))


def _unknown(arrays: _Members) -> str:
    """What an NPZ file of no known form holds, and what would be read."""
    held = ", ".join(f"{name!r} {arrays.header(name)[0]}" for name in islice(arrays, 12))
    missing = (name for name in (LOADER[0], DIRECT[0]) if is_misspelt(name, arrays))
    near = "".join(f" {name!r} is missing.{near_misses(name, arrays)}" for name in missing)
    return (
        f"{arrays.path}: no maps by a known name in the NPZ file, which holds {held or 'nothing'}."
        f"{near} It needs "
        f"{', '.join(LOADER)}; or {', '.join(DIRECT)}; for bins of age and lag ttcf, ages, lags, "
        'q. Or say what is what with layout = "generic" (data.generic = {maps = NAME, …}; '
        'data.GenericLayout in Python), with axes = "age_lag" where the maps are bins.'
    )


def read_npy(
    path: str, q: float | None, phi: Any, counted: bool, name: str | None = None
) -> RawMaps:
    """Bare maps `(frame, frame)` or `(angle, frame, frame)`; everything else is given.

    - `name`: that of the array in an NPZ file.
    - `q`: scattering vector [1/Å]; 1 when `None`.
    - `phi`: azimuths [degrees]; when `None`, which only a single map allows, they are not known.
    - `counted`: time is counted in frames, 1 … n, as no frame time is known.

    **Raises:** `DataError` for a damaged file, another number of dimensions or missing angles.
    """
    if name is None:
        stack, turned = _stack(path, "the array", bare_array(path))
    else:
        with open_npz(path) as arrays:
            stack, turned = _stack(path, name, arrays[name])
    stack = worked_in_place(stack)
    if phi is None and stack.shape[0] != 1:
        raise DataError(
            f"{path}: {stack.shape[0]} maps and no angles; give phi= with one azimuth [degrees] "
            "for each map."
        )
    remarks = {
        NO_Q: q is None,
        NO_TIMES: counted,
    }
    return RawMaps(
        path=path,
        layout="npy" if name is None else "npz",
        names=tuple(f"map {i + 1}" for i in range(stack.shape[0])),
        maps=tuple(stack),
        stack=stack,
        owned=True,
        q=np.full(stack.shape[0], 1.0 if q is None else float(q)),
        phi=np.atleast_1d(numbers(path, "phi", 0.0 if phi is None else phi)),
        q_name="q",
        phi_name="phi",
        azimuths=phi is not None,
        time_name="dt",
        frame_time=1.0 if counted else None,
        keys=(name or "array",),
        notes=(*turned, *(text for text, applies in remarks.items() if applies)),
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
