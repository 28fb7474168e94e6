"""Start values of contrast and offset from the data alone."""

import numpy as np
from jaxtyping import Float

from ..data import ChunkedTwoTime, PooledData, StoredTwoTime, TwoTimeData, row_step
from ..errors import DataError
from .mappers import CONTRAST_BOUNDS, OFFSET_BOUNDS, AbstractScaling, Averaged, Individual

Data = TwoTimeData | PooledData | StoredTwoTime | ChunkedTwoTime

_FEWEST = 10


def _sampled_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs i < j of frames: all of them, or every k-th row of a large map (all lags stay)."""
    rows = np.arange(0, n, row_step(n))
    first = np.repeat(rows, n - 1 - rows)
    second = np.concatenate([np.arange(i + 1, n) for i in rows])
    return first, second


def _points(data: Data, angle: int, pairs):
    """Values and lags [frames] of the pairs of one angle that count."""
    if isinstance(data, StoredTwoTime | ChunkedTwoTime):
        mine = data.sample.angles == angle
        return data.sample.values[mine], data.sample.lags[mine]
    if isinstance(data, PooledData):
        mine = np.asarray(data.angle) == angle
        if data.root_weights is not None:
            mine &= np.asarray(data.root_weights) > 0
        lag = np.asarray(data.second) - np.asarray(data.first)
        return np.asarray(data.values)[mine], lag[mine]
    first, second = pairs
    values = np.asarray(data.c2[angle])[first, second]
    if data.root_weights is not None:
        used = np.asarray(data.root_weights[angle])[first, second] > 0
        values, first, second = values[used], first[used], second[used]
    return values, second - first


def quantile_scaling(
    data: Data,
    *,
    contrast_bounds: tuple[float, float] = CONTRAST_BOUNDS,
    offset_bounds: tuple[float, float] = OFFSET_BOUNDS,
    noise: Float[np.ndarray, "angle"] | None = None,
) -> Float[np.ndarray, "angle 2"]:
    """(contrast, offset) of each angle from the floor and the ceiling of c2 over lag.

    Offset is the 10th percentile of c2 at lags above their 80th percentile, the ceiling the 90th
    percentile at lags below their 20th; a region with fewer than 10 points falls back to all
    points. The rule is biased by noise and by fast or slow decays: good as a start and, for want
    of better, for the fixed modes.

    **Arguments:**

    - `noise`: standard deviation of c2 at each angle; when given, the bias of the two percentiles
        by Gaussian noise (±1.2816 sd) is taken off.

    **Raises:** `DataError` for an angle without pairs.
    """
    out = np.empty((data.n_angles, 2))
    pairs = _sampled_pairs(data.n_frames) if isinstance(data, TwoTimeData) else None
    for a in range(data.n_angles):
        values, lag = _points(data, a, pairs)
        if values.size == 0:
            raise DataError(
                f"angle {a} has no pair that counts, so that its contrast and offset cannot be "
                "found; leave the angle out, or mask less"
            )
        far = values[lag >= np.percentile(lag, 80)]
        near = values[lag <= np.percentile(lag, 20)]
        far = far if far.size >= _FEWEST else values
        near = near if near.size >= _FEWEST else values
        offset, ceiling = np.percentile(far, 10), np.percentile(near, 90)
        if noise is not None:
            offset += 1.2815515655446004 * noise[a]
            ceiling -= 1.2815515655446004 * noise[a]
        offset = np.clip(offset, *offset_bounds)
        out[a] = np.clip(ceiling - offset, *contrast_bounds), offset
    return out


def auto_scaling(data: Data) -> AbstractScaling:
    """Individual scaling: it is eliminated exactly, so it costs no more than the other modes."""
    return Individual(data.n_angles)


def auto_threshold(n_angles: int) -> AbstractScaling:
    """The rule of homodyne 2.x: individual below three angles, one common pair from there on.

    Where the contrast varies with angle the common pair biases J(t); it is not the default.
    """
    return Individual(n_angles) if n_angles < 3 else Averaged(n_angles)
