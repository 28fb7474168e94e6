"""Diagonal of a map replaced for display; fits never use the diagonal."""

import abc
from collections.abc import Callable

import equinox as eqx
import numpy as np

from ..arguments import check_fields
from ..errors import DataError


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, NaN left out."""
    return np.nanmean(values, axis=-1)


def median(values: np.ndarray) -> np.ndarray:
    """Median over the last axis, NaN left out."""
    return np.nanmedian(values, axis=-1)


class TrimmedMean(eqx.Module):
    """Mean over the last axis without the `fraction` smallest and largest values; NaN left out."""

    fraction: float = 0.2

    def __check_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.fraction < 0.5:
            raise DataError(f"fraction is {self.fraction}; less than half can go at either end.")

    def __call__(self, values: np.ndarray) -> np.ndarray:
        ordered = np.sort(values, axis=-1)
        count = np.count_nonzero(~np.isnan(ordered), axis=-1, keepdims=True)
        cut = np.floor(self.fraction * count)
        rank = np.arange(values.shape[-1])
        inside = (rank >= cut) & (rank < count - cut)
        return np.nanmean(np.where(inside, ordered, np.nan), axis=-1)


class AbstractDiagonal(eqx.Module):
    """A rule for what to show on the diagonal."""

    __check_init__ = check_fields

    @abc.abstractmethod
    def __call__(self, c2: np.ndarray) -> np.ndarray:
        """Values `(frame,)` for the diagonal of one map `(frame, frame)`."""


class Basic(AbstractDiagonal):
    """Mean of the two neighbours on the side band, c2(i−1, i) and c2(i, i+1); one at the ends."""

    def __call__(self, c2: np.ndarray) -> np.ndarray:
        side = np.diagonal(c2, 1)
        return 0.5 * (np.append(side, side[-1]) + np.append(side[0], side))


class Statistical(AbstractDiagonal):
    """An estimator over the entries of the row up to `window` frames away on either side.

    - `window`: largest lag [frames].
    - `estimator`: `mean`, `median`, `TrimmedMean()` or any function that reduces the last axis of
      `(frame, 2·window)`, where entries beyond the map are NaN.
    """

    window: int = 3
    estimator: Callable[[np.ndarray], np.ndarray] = median

    def __check_init__(self) -> None:
        check_fields(self)
        if self.window < 1:
            raise DataError(f"window is {self.window}; at least one frame on each side is needed.")

    def __call__(self, c2: np.ndarray) -> np.ndarray:
        n = c2.shape[0]
        window = min(self.window, n - 1)
        values = np.full((n, 2 * window), np.nan)
        for lag in range(1, window + 1):
            values[: n - lag, lag - 1] = np.diagonal(c2, lag)
            values[lag:, window + lag - 1] = np.diagonal(c2, lag)
        return self.estimator(values)


class Interpolation(AbstractDiagonal):
    """Cubic through the row at lags −2, −1, 1, 2; straight or constant where the map ends."""

    def __call__(self, c2: np.ndarray) -> np.ndarray:
        values = Basic()(c2)
        if c2.shape[0] < 5:
            return values
        near, far = np.diagonal(c2, 1), np.diagonal(c2, 2)
        values[2:-2] = (4 * (near[1:-2] + near[2:-1]) - (far[:-2] + far[2:])) / 6
        return values


def correct_diagonal(c2: np.ndarray, method: AbstractDiagonal) -> np.ndarray:
    """A copy of the maps `(…, frame, frame)` [c2] with the diagonal replaced by `method`.

    For display only. **Raises:** `DataError` when the maps are not square with two frames or more.
    """
    shape = np.shape(c2)
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] < 2:
        raise DataError(f"c2 has shape {shape}; give square maps (…, frame, frame).")
    shown = np.array(c2)
    for one in shown.reshape(-1, *shape[-2:]):
        np.fill_diagonal(one, method(one))
    return shown
