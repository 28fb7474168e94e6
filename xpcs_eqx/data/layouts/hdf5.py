"""HDF5 files opened, read and named in messages; what h5py raises becomes a `DataError`."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...errors import DataError
from ..checks import near_misses, numbers, scalar

if TYPE_CHECKING:
    import h5py

_PER_ANGSTROM = {
    "1/angstrom": 1.0, "angstrom^-1": 1.0, "1/å": 1.0, "å^-1": 1.0, "1/a": 1.0, "a^-1": 1.0,
    "angstrom-1": 1.0, "a-1": 1.0, "å-1": 1.0, "å⁻¹": 1.0, "1/ang": 1.0, "inverse angstrom": 1.0,
    "1/nm": 0.1, "nm^-1": 0.1, "nm-1": 0.1, "nm⁻¹": 0.1, "1/nanometer": 0.1,
    "1/m": 1e-10, "m^-1": 1e-10,
}  # fmt: skip
_DEGREES = {
    "deg": 1.0, "degree": 1.0, "degrees": 1.0, "°": 1.0,
    "rad": 180 / np.pi, "radian": 180 / np.pi, "radians": 180 / np.pi,
}  # fmt: skip
_SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
    "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "microsecond": 1e-6, "microseconds": 1e-6,
    "ns": 1e-9, "nanosecond": 1e-9, "nanoseconds": 1e-9,
}  # fmt: skip
UNITS = {"1/Å": _PER_ANGSTROM, "deg": _DEGREES, "s": _SECONDS}


@contextmanager
def open_hdf5(path: str) -> Iterator["h5py.File"]:
    """The file opened for reading.

    **Raises:** `DataError` when it is no HDF5 file, truncated or damaged, also when that shows
    only while reading.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        found = str(error)
        if h5py.is_hdf5(path):
            raise DataError(
                f"{path}: starts as an HDF5 file but cannot be opened, it is truncated, damaged or "
                f"still being written ({found}). Copy it again."
            ) from error
        raise DataError(
            f"{path}: not an HDF5 file ({found}). Give an HDF5, NPZ or NPY file."
        ) from error
    with file:
        try:
            yield file
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{path}: reading stopped inside the HDF5 file, which is truncated or damaged "
                f"({error}). Copy it again."
            ) from error


# What is done about a file of maps without what its layout has.
_REMEDY = "Write the file again with it, or give layout= when it was taken for the wrong one."


def dataset(file: "h5py.File", key: str, remedy: str = _REMEDY) -> "h5py.Dataset":
    """The dataset at an HDF5 path; `remedy` says what to do when it is missing.

    **Raises:** `DataError` naming the path, what is there instead and near misses.
    """
    return _member(file, key, "dataset", remedy)


def maps_in(file: "h5py.File", folder: str) -> tuple[tuple[str, ...], tuple["h5py.Dataset", ...]]:
    """Paths of the maps in a group and the maps, by the number at the end of their names.

    **Raises:** `DataError` as `dataset`.
    """
    keys = sorted(_member(file, folder, "group", _REMEDY), key=lambda k: (trailing_number(k), k))
    names = tuple(f"{folder}/{key}" for key in keys)
    return names, tuple(dataset(file, name) for name in names)


def trailing_number(key: str) -> int:
    """The number at the end of a key such as `c2_00012`, −1 without one."""
    match = re.search(r"(\d+)$", key)
    return int(match.group(1)) if match else -1


def _member(file: "h5py.File", key: str, kind: Literal["dataset", "group"], remedy: str) -> Any:
    import h5py

    found = file.get(key)
    if isinstance(found, h5py.Dataset if kind == "dataset" else h5py.Group):
        return found
    if found is not None:
        raise DataError(
            f"{file.filename}: {key} is a {type(found).__name__.lower()}; a {kind} is needed there."
        )
    parent, name = posixpath.split(key.strip("/"))
    while parent and parent not in file:
        parent, name = posixpath.split(parent)
    there = file[parent] if parent else file
    listing = near_misses(name, there) if isinstance(there, Mapping) else ""
    raise DataError(
        f"{file.filename}: the {kind} {key} is missing; {name!r} is not in /{parent}.{listing} "
        f"{remedy}"
    )


def text_attribute(found: Any, name: str) -> str | None:
    """An attribute as text, or `None` when it is absent."""
    value = found.attrs.get(name)
    if value is None:
        return None
    value = np.asarray(value).reshape(-1)
    first = value[0] if value.size else ""
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)


def read_list(file: "h5py.File", key: str, unit: str, notes: list[str]) -> np.ndarray:
    """A flat float64 list in `unit`, whatever its shape on disk: (N,), (1, N), (N, 1).

    A unit that is unknown is remarked in `notes`; an empty `unit` is that of counts and numbers of
    bins, which have none, whatever a file calls it.

    **Raises:** `DataError` when it is missing, not numeric or two-dimensional.
    """
    values = _in_unit(file, key, unit, notes)
    if sum(length != 1 for length in values.shape) > 1:
        raise DataError(f"{file.filename}: {key} has shape {values.shape}; a list is needed.")
    return values.reshape(-1)


def read_scalar(file: "h5py.File", key: str, unit: str, notes: list[str]) -> float:
    """One number in `unit`, whatever its shape on disk: (), (1,), (1, 1).

    Units as in `read_list`.

    **Raises:** `DataError` when it is missing or not a single number.
    """
    return scalar(file.filename, key, _in_unit(file, key, unit, notes))


def _in_unit(file: "h5py.File", key: str, unit: str, notes: list[str]) -> np.ndarray:
    found = dataset(file, key)
    values = numbers(file.filename, key, found[()])
    stored = text_attribute(found, "units") if unit else None
    if stored is None:
        return values
    factor = UNITS[unit].get(stored.strip().lower())
    if factor is None:
        notes.append(f"The unit {stored!r} of {found.name} is unknown; it was read as {unit}.")
        return values
    return values * factor


def read_frame_time(
    file: "h5py.File", keys: tuple[str, ...], notes: list[str]
) -> tuple[str, float | None]:
    """The first of some HDF5 paths that is there, and the time of a frame [s] it holds.

    The first of all and `None` when none is there; one that stands in for it is remarked.

    **Raises:** `DataError` as `read_scalar`.
    """
    for key in keys:
        if key in file:
            if key != keys[0]:
                notes.append(f"{keys[0]} is absent; {key} was taken as the time of a frame.")
            return key, read_scalar(file, key, "s", notes)
    return keys[0], None


def read_steps(file: "h5py.File", keys: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Product of whole numbers such as stride and average; those absent count as one.

    **Raises:** `DataError` when one is not a whole number above zero.
    """
    step, present = 1, tuple(key for key in keys if key in file)
    for key in present:
        value = read_scalar(file, key, "", [])
        if not (value >= 1 and value == round(value)):
            raise DataError(
                f"{file.filename}: {key} is {value:g}; stride and average are whole numbers ≥ 1."
            )
        step *= int(value)
    return step, present
