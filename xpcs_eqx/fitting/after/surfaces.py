"""Fitted surfaces of any model and rescaling of each to the data of its angle."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...data import PooledData, StoredTwoTime, TwoTimeData
from ...errors import DataError
from ...physics import AbstractCorrelation, correlation_map
from ...scaling import CONTRAST_BOUNDS, OFFSET_BOUNDS


class RescaledSurface(NamedTuple):
    """Surfaces offset + contrast · |c1|² with the scaling that suits the data best."""

    surface: Float[np.ndarray, "angle frame frame"]
    contrast: Float[np.ndarray, "angle"]
    offset: Float[np.ndarray, "angle"]
    residuals: Float[np.ndarray, "angle frame frame"]

    def __repr__(self) -> str:
        return eqx.tree_pformat(self)


def _best_scaling(correlation, values, root) -> Float[np.ndarray, "2"]:
    """(contrast, offset) of pairs with root weights above zero, by least squares."""
    keep = root > 0
    root = np.asarray(root[keep], dtype=float)
    columns = np.stack([np.asarray(correlation)[keep], np.ones(root.size)], axis=1) * root[:, None]
    return np.linalg.lstsq(columns, np.asarray(values[keep], dtype=float) * root, rcond=None)[0]


def _upper_roots(data: TwoTimeData, angle: int) -> np.ndarray:
    """Root weights of the pairs i < j of one angle, zero elsewhere."""
    upper = np.triu(np.ones((data.n_frames, data.n_frames), bool), 1)
    return upper if data.root_weights is None else np.asarray(data.root_weights[angle]) * upper


def rescaled_surface(model: AbstractCorrelation, data: TwoTimeData) -> RescaledSurface:
    """The surfaces of a model with contrast and offset solved at each angle by least squares.

    Weights and masks of the data count; residuals (data − surface) are NaN where no pair counts,
    the diagonal included. Contrast and offset are free of bounds.

    **Raises:** `DataError` for data that are not maps in memory.
    """
    if isinstance(data, StoredTwoTime):
        raise DataError(
            "the maps stay in their file and are not all formed at once: call "
            "rescaled_surface(model, data.angle(k)) for one angle k after the other"
        )
    if not isinstance(data, TwoTimeData):
        raise DataError(
            f"{type(data).__name__} holds no maps to set a surface beside; consistent_scaling "
            "gives contrast and offset of pooled points, Fit.surface the fitted maps"
        )
    surface = np.array(correlation_map(model, jnp.asarray(data.t), data.geometry))
    residuals = np.empty_like(surface)
    scaling = np.empty((data.n_angles, 2))
    # Angle by angle: beside the two results only a few maps exist at a time.
    for a in range(data.n_angles):
        root = _upper_roots(data, a)
        c2 = np.asarray(data.c2[a], dtype=float)
        scaling[a] = contrast, offset = _best_scaling(surface[a], c2, root)
        surface[a] = offset + contrast * surface[a]
        residuals[a] = np.where((root > 0) | (root > 0).T, c2 - surface[a], np.nan)
    return RescaledSurface(surface, scaling[:, 0], scaling[:, 1], residuals)


def _scaling_by_angle(
    model: AbstractCorrelation, data: TwoTimeData | StoredTwoTime | PooledData
) -> Float[np.ndarray, "angle 2"]:
    found = np.empty((data.n_angles, 2))
    for a in range(data.n_angles):
        one = np.asarray(data.geometry.phi)[a : a + 1]
        geometry = eqx.tree_at(lambda g: g.phi, data.geometry, one)
        surface = np.asarray(correlation_map(model, jnp.asarray(data.t), geometry))[0]
        if isinstance(data, PooledData):
            mine = np.flatnonzero(np.asarray(data.angle) == a)
            first, second = np.asarray(data.first)[mine], np.asarray(data.second)[mine]
            weights = data.root_weights
            root = np.ones(mine.size) if weights is None else np.asarray(weights)[mine]
            correlation, values = surface[first, second], np.asarray(data.values)[mine]
        else:
            whole = data if isinstance(data, TwoTimeData) else data.angle(a)
            k = a if isinstance(data, TwoTimeData) else 0
            correlation, values, root = surface, np.asarray(whole.c2[k]), _upper_roots(whole, k)
        found[a] = _best_scaling(correlation, values, root)
    return found


def consistent_scaling(
    model: AbstractCorrelation, data: TwoTimeData | StoredTwoTime | PooledData
) -> tuple[Float[np.ndarray, "angle 2"], tuple[bool, ...]]:
    """(contrast, offset) by least squares at given physics, and at which angles to believe it.

    An angle is believed when both lie inside the default bounds; elsewhere use
    `quantile_scaling`. Of maps in a file one is in memory at a time.

    **Raises:** `DataError` for chunks from a factory.
    """
    if not isinstance(data, TwoTimeData | StoredTwoTime | PooledData):
        raise DataError(
            f"{type(data).__name__} holds no pairs by angle in memory or in a file; give maps or "
            "pooled points, or use quantile_scaling"
        )
    values = _scaling_by_angle(model, data)
    low_contrast, high_contrast = CONTRAST_BOUNDS
    low_offset, high_offset = OFFSET_BOUNDS
    inside = (values[:, 0] >= low_contrast) & (values[:, 0] <= high_contrast)
    inside &= (values[:, 1] >= low_offset) & (values[:, 1] <= high_offset)
    return values, tuple(bool(b) for b in inside)
