"""HDF5 files opened, read and named in messages; what h5py raises becomes a `DataError`."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ...errors import DataError
from ..checks import near_misses, numbers, scalar
from .units import factor_to

if TYPE_CHECKING:
    import h5py


class Remarks(list[str]):
    """Remarks on a file in sentences, in the order in which they were found.

    - `refused`: why what stands at an HDF5 path means nothing, unless it is given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused: dict[str, str] = {}


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
    texts = texts_in(value)
    return texts[0] if texts else ""


def texts_in(value: Any) -> tuple[str, ...]:
    """The texts in what is stored: one or an array of them, as text or bytes."""
    import h5py

    flat = np.asarray(() if isinstance(value, h5py.Empty) else value).reshape(-1)
    return tuple(_decoded(one) if isinstance(one, bytes) else str(one) for one in flat)


def _decoded(text: bytes) -> str:
    """UTF-8, or Latin-1 where it is none, in which older programs wrote Å and µ."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def read_list(
    file: "h5py.File", key: str, unit: str, notes: Remarks, said: tuple[str, ...] = ()
) -> np.ndarray:
    """A flat float64 list in `unit`, whatever its shape on disk: (N,), (1, N), (N, 1).

    The unit it is stored in is that of its attribute `units` or `unit`, or one of those `said`
    elsewhere. A unit that is unknown or of another kind of quantity is refused in `notes`. An empty
    `unit` is that of counts and numbers of bins, which have none, whatever a file calls it.

    **Raises:** `DataError` when it is missing, not numeric or two-dimensional.
    """
    values = _in_unit(file, key, unit, notes, said)
    if sum(length != 1 for length in values.shape) > 1:
        raise DataError(f"{file.filename}: {key} has shape {values.shape}; a list is needed.")
    return values.reshape(-1)


def read_scalar(file: "h5py.File", key: str, unit: str, notes: Remarks) -> float:
    """One number in `unit`, whatever its shape on disk: (), (1,), (1, 1).

    Units as in `read_list`.

    **Raises:** `DataError` when it is missing or not a single number.
    """
    return scalar(file.filename, key, _in_unit(file, key, unit, notes))


def _in_unit(
    file: "h5py.File", key: str, unit: str, notes: Remarks, said: tuple[str, ...] = ()
) -> np.ndarray:
    found = dataset(file, key)
    values = numbers(file.filename, key, found[()])
    if not unit:
        return values
    names = [name for name in found.attrs if name.casefold() in ("units", "unit")]
    words = [text for text in (*(text_attribute(found, name) for name in names), *said) if text]
    factors = {word: factor_to(unit, word) for word in words if word.strip()}
    wrong = [reason for reason in factors.values() if isinstance(reason, str)]
    if not wrong and len(set(factors.values())) > 1:
        wrong = [f"the units {', '.join(map(repr, factors))} are said of it, which differ"]
    if wrong:
        notes.refused[key] = f"{file.filename}: {key}: {wrong[0]}."
        return values
    return values * float(next(iter(factors.values()), 1.0))


class FrameTime(NamedTuple):
    """The time from one frame to the next, as a file has it.

    - `name`: HDF5 path; `value`: [s], `None` when it is not stored.
    - `exposure`: time that a frame is exposed [s] where it is stored and longer than that.
    """

    name: str
    value: float | None
    exposure: float | None


def read_frame_time(file: "h5py.File", keys: tuple[str, str], notes: Remarks) -> FrameTime:
    """The time of a frame from the HDF5 paths of that and of its exposure.

    The exposure stands in where the first is absent, which is remarked, and so is one that is
    longer.

    **Raises:** `DataError` as `read_scalar`.
    """
    period, exposure = keys
    exposed = read_scalar(file, exposure, "s", notes) if exposure in file else None
    if period not in file:
        if exposed is None:
            return FrameTime(period, None, None)
        notes.append(f"{period} is absent; {exposure} was taken as the time of a frame.")
        return FrameTime(exposure, exposed, None)
    value = read_scalar(file, period, "s", notes)
    known = not notes.refused.keys() & {period, exposure}
    if exposed is None or not (known and exposed > value * (1 + 1e-3)):
        return FrameTime(period, value, None)
    notes.append(
        f"{period} is {value:.6g} s but frames were exposed for {exposed:.6g} s ({exposure}), "
        "which cannot be. The first was used; if it is the wrong one, all rates are off by their "
        "ratio. Give dt to say which is right."
    )
    return FrameTime(period, value, exposed)


def read_steps(file: "h5py.File", keys: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Product of whole numbers such as stride and average; those absent count as one.

    **Raises:** `DataError` when one is not a whole number above zero.
    """
    step, present = 1, tuple(key for key in keys if key in file)
    for key in present:
        value = read_scalar(file, key, "", Remarks())
        if not (value >= 1 and value.is_integer()):
            raise DataError(
                f"{file.filename}: {key} is {value:g}; stride and average are whole numbers ≥ 1."
            )
        step *= int(value)
    return step, present
