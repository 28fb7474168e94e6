"""Is there anything to fit? Whether maps have a contrast and a decay that the fit could see."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .covariance import ScoreCovariances
from .uncertainty import Uncertainty

# Below this determinant of (|c1|², 1) with unit diagonal the first is constant.
_FLAT = 1e-12
# A correlation below this says nothing of its exponent.
_GONE = 0.02


class Signal(NamedTuple):
    """What the maps of a data set have to say about a decay.

    - `contrast`: of all angles together, in its errors with the parameters of the model held;
        it is what tells |c1|² from a constant.
    - `rate`: relative error of the best determined exponent −log |c1|² of an angle.
    - `nearest`: largest |c1|² between neighbouring frames; `farthest`: least |c1|² of the first
        and the last frame.
    """

    contrast: float
    rate: float
    nearest: float
    farthest: float


def signal_of(
    scores: ScoreCovariances,
    contrast: Float[np.ndarray, "angle"],
    uncertainty: Uncertainty,
) -> Signal | None:
    """The signal of a data set; `uncertainty` is that of the entries of the fit.

    None of points that are single pairs.
    """
    found = scores.decays
    if found is None or scores.by_angle is None:
        return None
    gram = np.asarray(scores.gram)[:, -2:, -2:]
    middle = np.asarray(scores.by_angle)[:, -2:, -2:]
    size = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 0.0))
    weight = np.zeros(contrast.size)
    for a in range(contrast.size):
        if not np.all(size[a] > 0):
            continue
        scaled = gram[a] / np.outer(size[a], size[a])
        if np.linalg.det(scaled) < _FLAT:
            # |c1|² is as constant as numbers can be.
            continue
        inverse = np.linalg.inv(scaled) / np.outer(size[a], size[a])
        variance = (inverse @ middle[a] @ inverse)[0, 0]
        weight[a] = 1 / variance if variance > 0 else 0.0
    total = weight.sum()
    seen = float(np.sum(contrast * weight) / np.sqrt(total)) if total > 0 else 0.0
    decay, columns = found.correlation, found.columns(contrast)
    slopes = np.einsum("acl,ace->ale", columns, found.entries[:, : columns.shape[1]])
    error = uncertainty.errors_of(slopes.reshape(-1, slopes.shape[-1])).reshape(decay.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = -np.log(np.maximum(decay, 1e-300))
        relative = error / decay / exponent
    usable = (decay > _GONE) & (exponent > 0) & np.any(columns != 0, axis=1)
    usable &= np.isfinite(relative)
    rate = float(np.min(relative[usable])) if usable.any() else np.inf
    if not columns.shape[1]:
        # A decay of which nothing is free is given.
        rate = 0.0
    return Signal(seen, rate, found.nearest, found.farthest)
