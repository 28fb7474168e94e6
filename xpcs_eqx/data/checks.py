"""Checks of single values, with messages that name file, key, what was found and what to do."""

import difflib
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from ..errors import DataError

# Azimuths may have been counted on over some turns; what is beyond is no angle in degrees.
LARGEST_ANGLE = 1e4


def near_misses(name: str, present: Iterable[str]) -> str:
    """A half sentence naming what is there instead of `name`, or an empty string."""
    names = sorted(set(present))
    close = _close(name, names)
    if close:
        return f" Did you mean {', '.join(repr(found) for found in close)}?"
    return f" Present: {', '.join(repr(found) for found in names[:12])}." if names else ""


def is_misspelt(name: str, present: Iterable[str]) -> bool:
    """Whether something is there that may be meant by `name`."""
    return bool(_close(name, sorted(set(present))))


def closest(name: str, known: tuple[str, ...]) -> str:
    """What of the known is most likely meant by a name, in any case; empty for nothing."""
    folded = {one.casefold(): one for one in known}
    return next((folded[one] for one in _close(name.casefold(), sorted(folded))), "")


def _close(name: str, names: list[str]) -> list[str]:
    return difflib.get_close_matches(name, names, n=3, cutoff=0.6)


def array_of(where: str, key: str, value: Any) -> np.ndarray:
    """`value` as an array, itself where it is one.

    **Raises:** `DataError` when it is none, such as lists of different lengths.
    """
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: {key} is no array of numbers ({error}); give real numbers."
        ) from error


def numbers(where: str, key: str, value: Any) -> np.ndarray:
    """`value` as a real float64 array.

    **Raises:** `DataError` when it is not made of real numbers.
    """
    array = array_of(where, key, value)
    if array.dtype.kind not in "fiub":
        wanted = "seconds, as real numbers" if array.dtype.kind in "mM" else "real numbers"
        raise DataError(f"{where}: {key} holds {array.dtype} values; give {wanted}.")
    return array.astype(np.float64)


def scalar(where: str, key: str, value: Any) -> float:
    """The single number in `value`, whatever its shape: (), (1,), (1, 1).

    **Raises:** `DataError` when there are several numbers or none.
    """
    array = numbers(where, key, value)
    if array.size != 1:
        raise DataError(f"{where}: {key} has shape {array.shape}; a single number is needed.")
    return float(array.reshape(()))


def given_scalar(where: str, key: str, value: Any) -> float | None:
    """The number that was given for an argument, `None` for none.

    **Raises:** `DataError` naming the argument when it is no single number.
    """
    if value is None:
        return None
    single = isinstance(value, Real) or getattr(value, "shape", None) == ()
    if isinstance(value, bool) or not single:
        raise DataError(f"{where}: {key} is {shown(value)}; give a single number.")
    return scalar(where, key, value)


def shown(value: Any) -> str:
    """A wrong value in a message, not longer than a line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:56]} …"


def distinct(where: str, key: str, bins: np.ndarray) -> None:
    """Make sure that no number of a bin is listed twice.

    **Raises:** `DataError` naming the first that is.
    """
    found, counts = np.unique(bins, return_counts=True)
    if np.any(counts > 1):
        twice = int(found[counts > 1][0])
        raise DataError(
            f"{where}: {key} lists bin {twice} {int(counts[counts > 1][0])} times; two maps of one "
            "bin would count its pairs twice. Keep one of them."
        )


def optional_scalar(where: str, mapping: Mapping[str, Any], key: str) -> float | None:
    """The single number under a key of a dictionary, `None` when it is not there.

    **Raises:** `DataError` as `scalar`.
    """
    value = mapping.get(key)
    return None if value is None else scalar(where, key, value)


def is_absolute(where: str, mapping: Mapping[str, Any]) -> bool:
    """Whether the sigma of a dictionary is known absolutely, which it is unless that is denied.

    **Raises:** `DataError` as `scalar`.
    """
    return optional_scalar(where, mapping, "absolute_sigma") != 0


def positive(where: str, key: str, value: float, unit: str) -> float:
    """`value` when it is finite and above zero.

    **Raises:** `DataError` otherwise.
    """
    if not (np.isfinite(value) and value > 0):
        raise DataError(f"{where}: {key} is {value:g} [{unit}]; it must be finite and above zero.")
    return float(value)


def agreeing(where: str, key: str, stored: float, given: float, unit: str) -> float:
    """`stored`, after making sure that `given` is the same to 1 %.

    **Raises:** `DataError` when the two differ by more.
    """
    if not abs(given - stored) <= 0.01 * abs(stored):
        raise DataError(
            f"{where}: {key} says {stored:.6g} [{unit}] but {given:.6g} was given, which differs "
            "by more than 1 %. Leave the given value out, or correct the one that is wrong."
        )
    return stored


def increasing_times(where: str, key: str, t: np.ndarray) -> None:
    """Make sure that frame times are finite and strictly increasing.

    **Raises:** `DataError` naming the first offending frame.
    """
    if not np.all(np.isfinite(t)):
        frame = int(np.flatnonzero(~np.isfinite(t))[0])
        raise DataError(
            f"{where}: time {key} of frame {frame + 1} is {t[frame]}; frame times [s] must be "
            "finite. Cut the frame range or repair the times."
        )
    steps = np.diff(t)
    if steps.size and np.min(steps) <= 0:
        frame = int(np.flatnonzero(steps <= 0)[0])
        remedy = "Sort frames and maps together."
        with np.errstate(over="ignore"):
            single = t.astype(np.float32)
        coarse = float(np.spacing(np.max(np.abs(single))))
        if np.array_equal(t, single) and np.min(steps) == 0 and np.max(steps) <= 2 * coarse:
            remedy = (
                f"Numbers of 32 bits, as these are, tell times there only {coarse:.3g} s apart: "
                "write them in 64 bits, or count them from the first frame."
            )
        raise DataError(
            f"{where}: times {key} do not increase: frame {frame + 1} has t = {t[frame]:.9g} s and "
            f"frame {frame + 2} has t = {t[frame + 1]:.9g} s. {remedy}"
        )


# Times between frames that no detector has [s]; powers of such times leave the range of numbers.
_SHORTEST, _LONGEST = 1e-18, 1e15


def plausible_spacing(where: str, key: str, spacing: float) -> None:
    """Make sure that the time between two frames [s] is one that can be calculated with.

    **Raises:** `DataError` otherwise.
    """
    if not _SHORTEST <= spacing <= _LONGEST:
        raise DataError(
            f"{where}: {key} says that frames are {spacing:g} s apart; times from {_SHORTEST:g} to "
            f"{_LONGEST:g} s can be used. Give dt [s], or correct the unit."
        )


def finite_angles(where: str, key: str, phi: np.ndarray) -> None:
    """Make sure that every azimuth is a number, and one that an angle can be.

    **Raises:** `DataError` naming the first one which is not.
    """
    bad = np.flatnonzero(~(np.abs(phi) <= LARGEST_ANGLE))
    if bad.size:
        raise DataError(
            f"{where}: angle {key} of map {int(bad[0]) + 1} is {phi[bad[0]]:g}; every map needs a "
            f"finite azimuth between -{LARGEST_ANGLE:g} and {LARGEST_ANGLE:g} [degrees]. Leave "
            "this map out or give its angle."
        )


def positive_sigma(where: str, key: str, sigma: np.ndarray) -> None:
    """Make sure that standard deviations of usable pairs are above zero.

    **Raises:** `DataError` with the number of offending entries and the first value.
    """
    bad = ~(sigma > 0)
    if np.any(bad):
        raise DataError(
            f"{where}: {key} has {int(np.count_nonzero(bad))} entries that are not above zero, the "
            f"first is {sigma[bad][0]}. Every usable pair needs sigma > 0; set c2 to NaN there to "
            "leave a pair out."
        )
