"""Fitted surfaces of any model and rescaling of each to the data of its angle."""

from typing import NamedTuple

import equinox as eqx
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

    def __repr__(self) -> str:
        return eqx.tree_pformat(self)


def rescaled_surface(model: AbstractCorrelation, data: TwoTimeData) -> RescaledSurface:
    """The surfaces of a model with contrast and offset solved at each angle by least squares.

    Weights and masks of the data count; residuals (data − surface) are NaN where no pair counts,
    the diagonal included. Contrast and offset are free of bounds.
    """
    surface = np.array(correlation_map(model, jnp.asarray(data.t), data.geometry))
    residuals = np.empty_like(surface)
    scaling = np.empty((data.n_angles, 2))
    upper = np.triu(np.ones((data.n_frames, data.n_frames), bool), 1)
    # Angle by angle: beside the two results only a few maps exist at a time.
    for a in range(data.n_angles):
        weights = upper if data.root_weights is None else np.asarray(data.root_weights[a]) * upper
        keep = weights > 0
        c2 = np.asarray(data.c2[a], dtype=float)
        root = weights[keep].astype(float)
        columns = np.stack([surface[a][keep], np.ones(root.size)], axis=1) * root[:, None]
        contrast, offset = np.linalg.lstsq(columns, c2[keep] * root, rcond=None)[0]
        scaling[a] = contrast, offset
        surface[a] = offset + contrast * surface[a]
        residuals[a] = np.where(keep | keep.T, c2 - surface[a], np.nan)
    return RescaledSurface(surface, scaling[:, 0], scaling[:, 1], residuals)


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
