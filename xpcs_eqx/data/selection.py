"""What to take from a file: frames, q, azimuths, and which pairs count."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import DataError
from .checks import given_scalar, numbers, shown


def _real(name: str) -> Any:
    """Makes a number, or nothing, of what is given for an argument."""
    return eqx.field(converter=partial(given_scalar, "Selection", name), default=None)


def _whole(name: str, default: int | None) -> Any:
    """The same for a whole number."""

    def convert(value: Any) -> int | None:
        number = given_scalar("Selection", name, value)
        fits = default is None if number is None else number.is_integer()
        if not fits:
            raise DataError(f"{name} is {shown(value)}; give a whole number.")
        return None if number is None else int(number)

    return eqx.field(converter=convert, default=default)


def _q(value: Any) -> float | tuple[float, ...] | None:
    if isinstance(value, list | tuple) or getattr(value, "ndim", 0):
        return tuple(numbers("Selection", "q", value).reshape(-1).tolist())
    return given_scalar("Selection", "q", value)


def _pairs(name: str) -> Callable[[Any], tuple[tuple[float, float], ...]]:
    def convert(value: Any) -> tuple[tuple[float, float], ...]:
        found = numbers("Selection", name, value)
        if found.size and (found.ndim != 2 or found.shape[1] != 2):
            raise DataError(f"{name} is {shown(value)}; give pairs (low, high).")
        return tuple((low, high) for low, high in found.reshape(-1, 2).tolist())

    return convert


def _frame_numbers(value: Any) -> Any:
    """`"auto"`, `"off"` or whole numbers as a tuple, from any sequence or array of them.

    **Raises:** `DataError` for anything else.
    """
    if isinstance(value, str) and value in ("auto", "off"):
        return value
    found = np.asarray(value)
    if isinstance(value, str) or found.ndim > 1 or (found.size and found.dtype.kind not in "iu"):
        raise DataError(
            f"bad_frames is {shown(value)}; give 'auto', 'off' or a list of whole numbers from 1."
        )
    return tuple(found.reshape(-1).tolist())


class Selection(eqx.Module):
    """Which frames, q, angles, lags and ages enter a fit.

    Nothing but damaged frames is left out without being asked.

    - `start_frame`, `end_frame`: 1-based, both inclusive; `end_frame = -1` is the last frame. A
      range keeps absolute time: frame i has t = time_origin + (i − 1)·dt·stride·average.
    - `time_origin`: time of frame 1 [s]; `None` means 0. Explicit frame times are used as they are.
    - `q`: scattering vector(s) to take [1/Å]. One number takes the nearest bin, or every bin
      within `q_tolerance`. A list takes the bins of exactly these values (to 0.1 %).
    - `q_tolerance`: half width around a single `q` [1/Å].
    - `merge_q`: take all maps within the tolerance, or of the list, as at one q, their mean.
    - `phi_ranges`: `(low, high)` in degrees, inclusive, around the circle: `(170, -170)` is 20
      degrees wide. Maps in any of the ranges are taken; no range takes all.
    - `bad_frames`: 1-based frames of the map whose rows and columns count for nothing; `"auto"`
      masks those that were not measured, as `data.bad_frames` finds them, and pairs that hold a
      number in place of one, as `data.fills` finds these; `"off"` masks none. Whatever is found is
      in the notes of the data. In bins and pooled points only such numbers are looked for.
    - `min_lag`, `max_lag`: lags to keep [frames of the map], inclusive.
    - `age_range`: ages (t1 + t2)/2 to keep [s], inclusive.
    - `pair_mask`: `(frame, frame)` or `(angle, frame, frame)`, true where the pair i < j counts;
      for all frames and maps of the file or for the selected ones. For pooled points `(point,)`.

    **Raises:** `DataError` when a limit is impossible by itself.

    >>> import xpcs_eqx as xe
    >>> chosen = xe.Selection(start_frame=11, end_frame=100, phi_ranges=((-10.0, 10.0),), min_lag=2)
    >>> chosen.phi_ranges
    ((-10.0, 10.0),)
    >>> xe.Selection(start_frame=0)
    Traceback (most recent call last):
    xpcs_eqx.errors.DataError: start_frame is 0; frames are counted from 1.
    """

    start_frame: int = _whole("start_frame", 1)
    end_frame: int = _whole("end_frame", -1)
    time_origin: float | None = _real("time_origin")
    q: float | tuple[float, ...] | None = eqx.field(converter=_q, default=None)
    q_tolerance: float | None = _real("q_tolerance")
    merge_q: bool = False
    phi_ranges: tuple[tuple[float, float], ...] = eqx.field(
        converter=_pairs("phi_ranges"), default=()
    )
    bad_frames: tuple[int, ...] | Literal["auto", "off"] = eqx.field(
        converter=_frame_numbers, default="auto"
    )
    min_lag: int = _whole("min_lag", 1)
    max_lag: int | None = _whole("max_lag", None)
    age_range: tuple[float, float] | None = eqx.field(
        converter=lambda value: None if value is None else _pairs("age_range")([value])[0],
        default=None,
    )
    pair_mask: np.ndarray | jax.Array | None = None

    def __check_init__(self) -> None:
        if not isinstance(self.merge_q, bool | np.bool_):
            raise DataError(f"merge_q is {shown(self.merge_q)}; give True or False.")
        if self.start_frame < 1:
            raise DataError(f"start_frame is {self.start_frame}; frames are counted from 1.")
        if self.end_frame != -1 and self.end_frame <= self.start_frame:
            raise DataError(
                f"end_frame {self.end_frame} is not after start_frame {self.start_frame}; at least "
                "two frames make a pair. Use -1 for the last frame."
            )
        if self.min_lag < 1 or (self.max_lag is not None and self.max_lag < self.min_lag):
            raise DataError(
                f"No lag lies in {self.min_lag} … {self.max_lag} [frames]; lags start at 1, as the "
                "diagonal never counts."
            )
        if self.q_tolerance is not None and (
            self.q is None or isinstance(self.q, tuple) or not self.q_tolerance > 0
        ):
            raise DataError(
                f"q_tolerance {self.q_tolerance} needs a single q to go with and must be positive."
            )
        if self.merge_q and self.q_tolerance is None and not isinstance(self.q, tuple):
            raise DataError(
                "merge_q needs the q bins to merge: give q with q_tolerance, or a list of q."
            )
        if self.time_origin is not None and not np.isfinite(self.time_origin):
            raise DataError(f"time_origin is {self.time_origin}; give a finite time [s].")
        for low, high in self.phi_ranges:
            if not (np.isfinite(low) and np.isfinite(high)):
                raise DataError(f"phi range ({low}, {high}) is not finite [degrees].")
        if isinstance(self.q, tuple) and not self.q:
            raise DataError("q is an empty list; give at least one q [1/Å], or leave q out.")
        if self.age_range is not None and not self.age_range[0] <= self.age_range[1]:
            raise DataError(f"age_range {self.age_range} is empty; give (low, high) [s].")

    @property
    def listed_frames(self) -> tuple[int, ...]:
        """Bad frames that are given as numbers."""
        return () if isinstance(self.bad_frames, str) else self.bad_frames

    @property
    def leaves_out(self) -> bool:
        """Whether some pairs of the frames that are taken shall count for nothing."""
        limited = self.min_lag > 1 or self.max_lag is not None or self.age_range is not None
        return limited or bool(self.listed_frames) or self.pair_mask is not None

    def frame_slice(self, where: str, n_frames: int) -> slice:
        """Zero-based half-open slice of the frames of a map with `n_frames`.

        **Raises:** `DataError` when the range reaches beyond the map or holds less than two frames.
        """
        end = n_frames if self.end_frame == -1 else self.end_frame
        if end > n_frames or end - self.start_frame < 1:
            raise DataError(
                f"{where}: frames {self.start_frame} … {self.end_frame} were asked for but the "
                f"maps have {n_frames} frames; at least two frames inside are needed. Frames are "
                "counted from 1 and -1 is the last."
            )
        return slice(self.start_frame - 1, end)


def in_ranges(phi: np.ndarray, ranges: tuple[tuple[float, float], ...]) -> np.ndarray:
    """True for the azimuths [degrees] inside any of the ranges, around the circle."""
    if not ranges:
        return np.ones(phi.shape, bool)
    inside = np.zeros(phi.shape, bool)
    for low, high in ranges:
        width = high - low if high - low >= 360 else (high - low) % 360
        # a tiny allowance keeps both ends inclusive in spite of the rounding in the modulo
        distance = (phi - low + 1e-9) % 360
        inside |= distance <= width + 2e-9
    return inside


def listed(values: np.ndarray) -> str:
    """The distinct values in a message."""
    return ", ".join(f"{value:.6g}" for value in np.unique(values))


def choose_q(where: str, key: str, q: np.ndarray, selection: Selection) -> np.ndarray:
    """Indices of the maps at the q that was asked for, in file order.

    **Raises:** `DataError` when nothing lies there.
    """
    wanted = selection.q
    if wanted is None:
        return np.arange(q.size)
    if not np.any(np.isfinite(q)):
        raise DataError(f"{where}: {key} holds no q that is a number.")
    if isinstance(wanted, tuple):
        found = {f"at {value:.6g}": np.isclose(q, value, rtol=1e-3, atol=0) for value in wanted}
    elif selection.q_tolerance is not None:
        width = selection.q_tolerance
        near = np.abs(q - wanted) <= width * (1 + 1e-9)
        found = {f"within {width:.3g} of {wanted:.6g}": near}
    else:
        nearest = q[np.nanargmin(np.abs(q - wanted))]
        found = {f"near {wanted:.6g}": np.isclose(q, nearest, rtol=1e-6, atol=0)}
    for asked, here in found.items():
        if not here.any():
            raise DataError(
                f"{where}: no q bin {asked} [1/Å] in {key}; there are {listed(q)}. The selection "
                "is empty: widen it or take another q."
            )
    return np.flatnonzero(np.any(list(found.values()), axis=0))


class PairRule(eqx.Module):
    """Which pairs bad frames, lag limits and an age range leave, from the two frames alone.

    - `t`: frame times [s]; `good`: frames that count.
    - `lags`: smallest and largest lag [frames]; `ages`: smallest and largest age [s].

    Works with NumPy and, inside compiled functions, with JAX arrays.
    """

    t: Float[np.ndarray | jax.Array, " frame"]
    good: Bool[np.ndarray | jax.Array, " frame"]
    lags: Int[np.ndarray | jax.Array, "2"]
    ages: Float[np.ndarray | jax.Array, "2"]

    def __call__(self, first: Any, second: Any) -> Any:
        """Whether pairs of frames count; the diagonal never does."""
        lag = abs(second - first)
        age = 0.5 * (self.t[first] + self.t[second])
        keep = (lag >= self.lags[0]) & (lag <= self.lags[1])
        keep &= (age >= self.ages[0]) & (age <= self.ages[1])
        return keep & self.good[first] & self.good[second]


def pair_rule(
    where: str,
    selection: Selection,
    t: np.ndarray,
    frames: slice,
    n_frames: int,
    damaged: Iterable[int] = (),
) -> PairRule | None:
    """The rule of a selection; `None` when all pairs off the diagonal count.

    `t` are the times of the selected `frames` of maps that have `n_frames`; `damaged` are numbers
    of frames, from 1, that are bad beside those of the selection.

    **Raises:** `DataError` when a bad frame does not exist or no pair is left.
    """
    limited = selection.min_lag > 1 or selection.max_lag is not None
    bad = {*selection.listed_frames, *damaged}
    if not (limited or selection.age_range is not None or bad):
        return None
    n = t.size
    good = np.ones(n, bool)
    for frame in sorted(bad):
        if not 1 <= frame <= n_frames:
            raise DataError(
                f"{where}: bad frame {frame} does not exist; rows of the map count from 1 to "
                f"{n_frames}, whatever the numbers of the frames of the detector."
            )
        if frames.start < frame <= frames.stop:
            good[frame - 1 - frames.start] = False
    low, high = selection.age_range or (-np.inf, np.inf)
    # inclusive to rounding of the mean of two times
    slack = 0.0 if selection.age_range is None else 1e-9 * max(abs(low), abs(high))
    rule = PairRule(
        np.asarray(t),
        good,
        np.array([selection.min_lag, n if selection.max_lag is None else selection.max_lag]),
        np.array([low - slack, high + slack]),
    )
    if not any(np.any(rule(i, np.arange(i + 1, n))) for i in range(n)):
        raise DataError(
            f"{where}: bad frames, lag limits ({selection.min_lag} … {selection.max_lag} frames) "
            f"and age range {selection.age_range} [s] leave no pair of the {n} frames; the "
            "selection is empty. Widen it."
        )
    return rule


def chosen_mask(
    where: str,
    selection: Selection,
    maps: np.ndarray,
    n_maps: int,
    n_frames: int,
    frames: slice,
) -> np.ndarray | None:
    """The user's `pair_mask` for the chosen `maps` and `frames` of a file.

    `(frame, frame)` or `(angle, frame, frame)`; the file has `n_maps` maps of `n_frames` frames.

    **Raises:** `DataError` when the mask has the shape neither of these nor of all.
    """
    if selection.pair_mask is None:
        return None
    mask = np.asarray(selection.pair_mask)
    n = frames.stop - frames.start
    if mask.ndim == 3 and mask.shape[0] == n_maps != maps.size:
        mask = mask[maps]
    if mask.shape[-2:] == (n_frames, n_frames):
        mask = mask[..., frames, frames]
    if mask.shape not in ((n, n), (maps.size, n, n)):
        raise DataError(
            f"{where}: pair_mask has shape {np.shape(selection.pair_mask)}; give ({n}, {n}) or "
            f"({maps.size}, {n}, {n}), true where the pair i < j counts."
        )
    return mask.astype(bool)
