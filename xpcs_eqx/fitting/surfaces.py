"""Fitted surfaces of any model and rescaling of each to the data of its angle."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..data import TwoTimeData
from ..physics import AbstractCorrelation, correlation_map
from ..scaling import CONTRAST_BOUNDS, OFFSET_BOUNDS


class RescaledSurface(NamedTuple):
    """Surfaces offset + contrast · |c1|² with the scaling that suits the data best."""

    surface: Float[np.ndarray, "angle frame frame"]
    contrast: Float[np.ndarray, "angle"]
    offset: Float[np.ndarray, "angle"]
    residuals: Float[np.ndarray, "angle frame frame"]


def rescaled_surface(model: AbstractCorrelation, data: TwoTimeData) -> RescaledSurface:
    """The surfaces of a model with contrast and offset solved at each angle by least squares.

    Weights and masks of the data count; residuals (data − surface) are NaN where no pair counts,
    the diagonal included. Contrast and offset are free of bounds.
    """
    n = data.n_frames
    used = np.ones(data.c2.shape) if data.root_weights is None else np.asarray(data.root_weights)
    used = np.where(np.triu(np.ones((n, n), bool), 1), used, 0.0)
    correlation = np.asarray(correlation_map(model, jnp.asarray(data.t), data.geometry))
    c2 = np.asarray(data.c2, dtype=float)
    scaling = np.empty((data.n_angles, 2))
    for a in range(data.n_angles):
        keep = used[a] > 0
        root = used[a][keep]
        columns = np.stack([correlation[a][keep], np.ones(keep.sum())], axis=1) * root[:, None]
        scaling[a] = np.linalg.lstsq(columns, c2[a][keep] * root, rcond=None)[0]
    contrast, offset = scaling.T
    surface = offset[:, None, None] + contrast[:, None, None] * correlation
    both = (used > 0) | (np.swapaxes(used, 1, 2) > 0)
    return RescaledSurface(surface, contrast, offset, np.where(both, c2 - surface, np.nan))


def consistent_scaling(
    model: AbstractCorrelation, data: TwoTimeData
) -> tuple[Float[np.ndarray, "angle 2"], tuple[bool, ...]]:
    """(contrast, offset) by least squares at given physics, and at which angles to believe it.

    An angle is believed when both lie inside the default bounds; elsewhere use
    `quantile_scaling`.
    """
    found = rescaled_surface(model, data)
    values = np.stack([found.contrast, found.offset], axis=1)
    low_contrast, high_contrast = CONTRAST_BOUNDS
    low_offset, high_offset = OFFSET_BOUNDS
    inside = (values[:, 0] >= low_contrast) & (values[:, 0] <= high_contrast)
    inside &= (values[:, 1] >= low_offset) & (values[:, 1] <= high_offset)
    return values, tuple(bool(b) for b in inside)
