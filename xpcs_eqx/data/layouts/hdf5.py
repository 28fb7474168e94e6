"""Lists, numbers and maps read from HDF5 files, in the units of the library."""

import posixpath
import re

import numpy as np

from ...errors import DataError
from ..checks import near_misses, numbers, scalar
from .opened import Array, Group

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
# Of a billion frames nobody keeps one row.
_LARGEST_STEP = 1_000_000_000
UNITS = {"1/Å": _PER_ANGSTROM, "deg": _DEGREES, "s": _SECONDS}


# What is done about a file of maps without what its layout has.
_REMEDY = "Write the file again with it, or give layout= when it was taken for the wrong one."


def dataset(file: Group, key: str, remedy: str = _REMEDY) -> Array:
    """The dataset at an HDF5 path; `remedy` says what to do when it is missing.

    **Raises:** `DataError` naming the path, what is there instead and near misses.
    """
    found = file.get(key)
    if isinstance(found, Array):
        return found
    raise _absent(file, key, found, "dataset", remedy)


def group(file: Group, key: str, remedy: str = _REMEDY) -> Group:
    """The group at an HDF5 path.

    **Raises:** `DataError` as `dataset`.
    """
    found = file.get(key)
    if isinstance(found, Group):
        return found
    raise _absent(file, key, found, "group", remedy)


def maps_in(file: Group, folder: str) -> tuple[tuple[str, ...], tuple[Array, ...]]:
    """Paths of the maps in a group and the maps, by the number at the end of their names.

    **Raises:** `DataError` as `dataset`, and when there is none.
    """
    keys = sorted(group(file, folder), key=lambda k: (trailing_number(k), k))
    if not keys:
        raise DataError(f"{file.filename}: there is no two-time map in {folder}; nothing to fit.")
    names = tuple(f"{folder}/{key}" for key in keys)
    return names, tuple(dataset(file, name) for name in names)


def trailing_number(key: str) -> int:
    """The number at the end of a key such as `c2_00012`, −1 without one."""
    # More digits are no number of a bin, and Python refuses thousands of them.
    match = re.search(r"(?<!\d)([0-9]{1,18})$", key)
    return int(match.group(1)) if match else -1


def _absent(file: Group, key: str, found: object, kind: str, remedy: str) -> DataError:
    """What is said where something else is at a path, or nothing."""
    if found is not None:
        there = "dataset" if kind == "group" else "group"
        return DataError(f"{file.filename}: {key} is a {there}; a {kind} is needed there.")
    parent, name = posixpath.split(key.strip("/"))
    while parent and parent not in file:
        parent, name = posixpath.split(parent)
    there = file[parent] if parent else file
    listing = near_misses(name, there) if isinstance(there, Group) else ""
    return DataError(
        f"{file.filename}: the {kind} {key} is missing; {name!r} is not in /{parent}.{listing} "
        f"{remedy}"
    )


def text_attribute(found: Group | Array, name: str) -> str | None:
    """An attribute as text, or `None` when it is absent."""
    return found.text(name)


def read_list(file: Group, key: str, unit: str, notes: list[str]) -> np.ndarray:
    """A flat float64 list in `unit`, whatever its shape on disk: (N,), (1, N), (N, 1).

    A unit that is unknown is remarked in `notes`; an empty `unit` is that of counts and numbers of
    bins, which have none, whatever a file calls it.

    **Raises:** `DataError` when it is missing, not numeric or two-dimensional.
    """
    values = _in_unit(file, key, unit, notes)
    if sum(length != 1 for length in values.shape) > 1:
        raise DataError(f"{file.filename}: {key} has shape {values.shape}; a list is needed.")
    return values.reshape(-1)


def read_whole(file: Group, key: str) -> np.ndarray:
    """A flat list of whole numbers, such as those of bins.

    **Raises:** `DataError` as `read_list`, and when one of them is not whole.
    """
    values = read_list(file, key, "", [])
    odd = values[~(np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2**53))]
    if odd.size:
        raise DataError(f"{file.filename}: {key} holds {odd[0]:g}; whole numbers are needed.")
    return values.astype(np.int64)


def read_scalar(file: Group, key: str, unit: str, notes: list[str]) -> float:
    """One number in `unit`, whatever its shape on disk: (), (1,), (1, 1).

    Units as in `read_list`.

    **Raises:** `DataError` when it is missing or not a single number.
    """
    return scalar(file.filename, key, _in_unit(file, key, unit, notes))


def _in_unit(file: Group, key: str, unit: str, notes: list[str]) -> np.ndarray:
    found = dataset(file, key)
    if found.dtype.kind not in "fiub":
        raise DataError(f"{file.filename}: {key} holds {found.dtype} values; give real numbers.")
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
    file: Group, keys: tuple[str, ...], notes: list[str]
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


def read_steps(file: Group, keys: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Product of whole numbers such as stride and average; those absent count as one.

    **Raises:** `DataError` when one is not a whole number above zero.
    """
    step, present = 1, tuple(key for key in keys if key in file)
    for key in present:
        value = read_scalar(file, key, "", [])
        if not (1 <= value <= _LARGEST_STEP and value == round(value)):
            raise DataError(
                f"{file.filename}: {key} is {value:g}; stride and average are whole numbers from 1 "
                f"to {_LARGEST_STEP:g}."
            )
        step *= int(value)
    return step, present
