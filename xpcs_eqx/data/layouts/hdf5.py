"""Lists, numbers and maps read from HDF5 files, in the units of the library."""

import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ..checks import near_misses, numbers, positive, scalar
from ..two_time import Doubt
from .maps import Unreached
from .opened import Array, Group, UnreadableError
from .units import factor_to, unit_of


class Remarks(list[str]):
    """Remarks on a file in sentences, in the order in which they were found.

    - `refused`: why what stands at an HDF5 path means nothing, unless it is given.
    - `doubts`: about what the file contradicts itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused: dict[str, str] = {}
        self.doubts: set[Doubt] = set()

    def doubt(self, about: Doubt, text: str) -> None:
        """Remark on something that the file contradicts itself about."""
        self.doubts.add(about)
        self.append(text)

    @contextmanager
    def refusing(self, key: str) -> Iterator[None]:
        """Keeps what is wrong with what stands at an HDF5 path; something may be given for it."""
        try:
            yield
        except UnreadableError:
            raise
        except DataError as error:
            self.refused[key] = str(error)


# Of a billion frames nobody keeps one row.
_LARGEST_STEP = 1_000_000_000
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


def maps_in(
    file: Group, folder: str, notes: Remarks
) -> tuple[tuple[str, ...], tuple[Array | Unreached, ...]]:
    """Paths of the maps in a group and the maps, by the number at the end of their names.

    One that cannot be reached is an error when it is taken. Texts and lists beside them are none,
    and are remarked.

    **Raises:** `DataError` when there is none, or no group.
    """
    found = {key: _map(file, f"{folder}/{key}") for key in in_order(group(file, folder))}
    arrays = {key: one for key, one in found.items() if isinstance(one, Array)}
    beside = [k for k, one in arrays.items() if one.ndim < 2 or one.dtype.kind in "SO"]
    if beside and len(beside) < len(found):
        notes.append(f"Not read in {folder}, as no maps: {', '.join(beside[:8])}.")
        found = {key: one for key, one in found.items() if key not in beside}
    if not found:
        raise DataError(f"{file.filename}: there is no two-time map in {folder}; nothing to fit.")
    nameless = [key for key in found if _AT_END.search(key) is None]
    if nameless and len(found) > 1:
        notes.append(
            f"In {folder} the names of {', '.join(nameless[:8])} end in no number: maps were taken "
            f"in the order {', '.join(list(found)[:8])}, as what is listed for each of them."
        )
    return tuple(f"{folder}/{key}" for key in found), tuple(found.values())


def _map(file: Group, key: str) -> Array | Unreached:
    try:
        return dataset(file, key)
    except DataError as error:
        return Unreached(error)


# More digits are no number of a map, and Python refuses thousands of them.
_AT_END = re.compile(
    r"(?P<sign>(?:(?<![0-9A-Za-z])-)?)(?<!\d)(?P<whole>\d{1,18})(?P<part>(?:\.\d{1,18})?)$"
)


def in_order(keys: Iterable[str]) -> list[str]:
    """Names sorted by the numbers at their ends, decimals and signs among them.

    >>> from xpcs_eqx.data.layouts.hdf5 import in_order
    >>> in_order(["phi_45", "phi_22.5", "phi_-45"]), in_order(["c2.10", "c2.9"])
    (['phi_-45', 'phi_22.5', 'phi_45'], ['c2.9', 'c2.10'])
    """
    found = {name: _AT_END.search(name) for name in keys}
    pointed = [one for one in found.values() if one and one["part"]]
    wholes = {one["whole"] for one in pointed}
    # One number before the point of all is that of a name, such as 2 of `c2.9` and `c2.10`.
    alike = len(pointed) == len(found) and len(wholes) == 1 and int(min(wholes)) > 0

    def number(name: str) -> float:
        match = found[name]
        if match is None:
            return -np.inf
        if match["part"] and alike:
            return float(match["part"][1:])
        return float(match["sign"] + match["whole"] + match["part"])

    return sorted(found, key=lambda name: (number(name), name))


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


def read_list(
    file: Group, key: str, unit: str, notes: Remarks, said: tuple[str, ...] = ()
) -> np.ndarray:
    """A flat float64 list in `unit`, whatever its shape on disk: (N,), (1, N), (N, 1).

    The unit it is stored in is that of its attribute `units` or `unit`, or one of those `said`
    elsewhere. A unit that is unknown or of another kind of quantity is refused in `notes`. An empty
    `unit` is that of counts and numbers of bins, which have none, whatever a file calls it.

    **Raises:** `DataError` when it is missing, not numeric or two-dimensional.
    """
    values = in_unit(file, key, unit, notes, said)
    if sum(length != 1 for length in values.shape) > 1:
        raise DataError(f"{file.filename}: {key} has shape {values.shape}; a list is needed.")
    return values.reshape(-1)


def read_bins(file: Group, key: str) -> np.ndarray:
    """A flat list of whole numbers, such as those of bins.

    **Raises:** `DataError` as `read_list`, and when one of them is not whole.
    """
    values = read_list(file, key, "", Remarks())
    odd = values[~(np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2**53))]
    if odd.size:
        raise DataError(f"{file.filename}: {key} holds {odd[0]:g}; whole numbers are needed.")
    return values.astype(np.int64)


def read_scalar(file: Group, key: str, unit: str, notes: Remarks) -> float:
    """One number in `unit`, whatever its shape on disk: (), (1,), (1, 1).

    Units as in `read_list`.

    **Raises:** `DataError` when it is missing or not a single number.
    """
    return scalar(file.filename, key, in_unit(file, key, unit, notes))


def unit_words(found: Array) -> tuple[str, ...]:
    """What attributes of a dataset say of its unit; nothing where it has none."""
    names = [name for name in found.attributes() if "unit" in name.casefold()]
    sure = [name for name in names if name.casefold() in ("units", "unit")]
    told = tuple(text for text in map(found.text, sure) if text and text.strip())
    if told:
        return told
    out = []
    for name in (name for name in names if name not in sure):
        # Others have it in their names, and most of these are none.
        with suppress(DataError):
            text = found.text(name)
            out += [text] if text and unit_of(text) is not None else []
    return tuple(out)


def in_unit(
    file: Group, key: str, unit: str, notes: Remarks, said: tuple[str, ...] = ()
) -> np.ndarray:
    """Numbers in `unit`, in the shape that they have; units as in `read_list`."""
    found = dataset(file, key)
    values = numbers(file.filename, key, found[()])
    if not unit:
        return values
    words = (*unit_words(found), *(text for text in said if text and text.strip()))
    factors = {word: factor_to(unit, word) for word in words}
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
    - `other`: what it may be as well [s] where the file leaves that open: the time that a frame is
      exposed where that is longer, or the same number in a smaller unit.
    """

    name: str
    value: float | None
    other: float | None


def read_time(file: Group, key: str, notes: Remarks) -> float | None:
    """A time [s], which some programs store once for each frame, `None` where nothing is stored.

    What is no time above zero, or differs from frame to frame, is NaN and refused in `notes`.
    """
    with notes.refusing(key):
        return _time(file, key, notes) if key in file else None
    return np.nan


def _time(file: Group, key: str, notes: Remarks) -> float:
    values = read_list(file, key, "s", notes)
    if values.size > 1 and np.ptp(values) <= 1e-6 * np.abs(values[0]):
        values = values[:1]
    if values.size > 1:
        raise DataError(
            f"{file.filename}: {key} has {values.size} values from {np.min(values):.6g} to "
            f"{np.max(values):.6g} s; one time for all frames is needed. Store the times of the "
            'frames, or say what is where with layout = "generic" and t (data.generic).'
        )
    return positive(file.filename, key, scalar(file.filename, key, values), "s")


def read_frame_time(file: Group, keys: tuple[str, str], notes: Remarks) -> FrameTime:
    """The time of a frame from the HDF5 paths of that and of its exposure.

    The exposure stands in where the first is absent, which is remarked, and so is one that is
    longer. What is refused is as `read_time` says.
    """
    period, exposure = keys
    exposed, value = read_time(file, exposure, notes), read_time(file, period, notes)
    if value is None:
        if exposed is None:
            return FrameTime(period, None, None)
        notes.append(f"{period} is absent; {exposure} was taken as the time of a frame.")
        return FrameTime(exposure, exposed, None)
    known = not notes.refused.keys() & {period, exposure}
    if exposed is None or not (known and exposed > value * (1 + 1e-3)):
        smaller = None
        if known and exposed and not unit_words(dataset(file, period)):
            smaller = _in_smaller_unit(period, value, exposure, exposed, notes)
        return FrameTime(period, value, smaller)
    notes.doubt(
        "times",
        f"{period} is {value:.6g} s but frames were exposed for {exposed:.6g} s ({exposure}), "
        "which cannot be. The first was used; if it is the wrong one, all rates are off by their "
        "ratio. Give dt to say which is right.",
    )
    return FrameTime(period, value, exposed)


def _in_smaller_unit(
    period: str, value: float, exposure: str, exposed: float, notes: Remarks
) -> float | None:
    """A frame time without a unit in the one in which it fits the exposure, ms or µs, where as s it
    is long beside that; a doubt.
    """
    for factor, unit in ((1e-3, "ms"), (1e-6, "µs")):
        if 0.5 <= exposed / (factor * value) < 1 + 1e-3:
            notes.doubt(
                "times",
                f"{period} is {value:.6g} without a unit, and frames were exposed for "
                f"{exposed:.6g} s ({exposure}): it was taken as s. If it is {unit}, all rates are "
                f"off by that; give dt = {factor * value:g}, or {value:g} if it is not.",
            )
            return factor * value
    return None


def read_steps(file: Group, keys: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Product of whole numbers such as stride and average; those absent count as one.

    **Raises:** `DataError` when one is not a whole number above zero.
    """
    step, present = 1, tuple(key for key in keys if key in file)
    for key in present:
        value = read_scalar(file, key, "", Remarks())
        if not (1 <= value <= _LARGEST_STEP and value.is_integer()):
            raise DataError(
                f"{file.filename}: {key} is {value:g}; stride and average are whole numbers from 1 "
                f"to {_LARGEST_STEP:g}."
            )
        step *= int(value)
    return step, present


# Groups within groups that are looked at, and as many of them at most.
_DEEPEST, _LOOKED_AT = 5, 1000


def is_searched_in_part(file: Group) -> bool:
    """Whether a file has more groups than are looked at."""
    return len(file.below(_DEEPEST, _LOOKED_AT)) >= _LOOKED_AT


def groups_with(file: Group, *keys: str) -> tuple[str, ...]:
    """Paths of the groups that have something at all `keys`, wherever they lie."""
    below = file.below(_DEEPEST, _LOOKED_AT)
    return tuple(path for path, group in below if all(group.reach(key) is not None for key in keys))


def joined(group: str, key: str) -> str:
    """Path of what is at `key` of a group; that of the file itself is empty."""
    return posixpath.join(group, key)


def owner_of(path: str) -> str:
    """Path of the group that something lies in."""
    return path.rpartition("/")[0]


def enclosing(group: str) -> Iterator[str]:
    """Paths of a group and of those that it lies in, from the inside, up to the file itself."""
    while group:
        yield group
        group = owner_of(group)
    yield group


def around(file: Group, group: str, keys: tuple[str, ...], notes: Remarks) -> str:
    """The group, or the innermost one around it, that has one of the `keys`.

    Another than itself is remarked. It is the group itself where none has any.
    """
    for one in enclosing(group):
        there = next((key for key in keys if file.reach(joined(one, key)) is not None), None)
        if there is None:
            continue
        if one != group:
            notes.append(f"{group} has no {keys[0]}; {joined(one, there)}, around it, was taken.")
        return one
    return group
