"""What root weights say, and the noise of data that carry none."""

import numpy as np
from jaxtyping import Array, Float

from .noise import maps_sigma
from .stored import StoredTwoTime
from .two_time import TwoTimeData


def weighted(data: TwoTimeData | StoredTwoTime) -> bool:
    """Whether residuals are in units of sigma: weights of zero and one only say what counts."""
    if isinstance(data, StoredTwoTime):
        return data.source.sigma_halves is not None or data.largest_root_weight != 1
    return data.root_weights is not None and not is_mask(data.root_weights)


def is_mask(weights: Float[np.ndarray | Array, "angle frame frame"]) -> bool:
    """Whether root weights are all zero or one, so that they carry no sigma."""
    # Map by map, so that what is made on the way has the size of one.
    return all(bool(np.all((one == 0) | (one == 1))) for one in map(np.asarray, weights))


def noise_by_angle(data: TwoTimeData | StoredTwoTime) -> Float[np.ndarray, "angle"]:
    """Standard deviation of c2 at each angle [c2], by `mad_sigma`.

    **Raises:** `DataError` as `mad_sigma`.
    """
    if isinstance(data, StoredTwoTime):
        maps = (data.angle(a) for a in range(data.n_angles))
        return np.concatenate([noise_by_angle(one) for one in maps])
    weights = data.root_weights
    return maps_sigma(np.asarray(data.c2), None if weights is None else np.asarray(weights) > 0)
