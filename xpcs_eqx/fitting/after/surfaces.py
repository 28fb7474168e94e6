"""Bands of fitted rates, surfaces of any model, and rescaling of each to the data of its angle."""

import dataclasses
from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...data import PooledData, StoredTwoTime, TwoTimeData
from ...errors import DataError, FitError
from ...physics import AbstractCorrelation, AbstractRate, correlation_map
from ...scaling import CONTRAST_BOUNDS, OFFSET_BOUNDS
from ..fit import Fit


class Band(NamedTuple):
    """A rate at the frame times `t` [s] and its pointwise confidence limits at `level`.

    Limits are NaN where the fit has no finite error of the rate.
    """

    t: Float[np.ndarray, "frame"]
    value: Float[np.ndarray, "frame"]
    low: Float[np.ndarray, "frame"]
    high: Float[np.ndarray, "frame"]
    level: float


def limits(
    value: Float[np.ndarray, "frame"],
    error: Float[np.ndarray, "frame"],
    level: float,
    positive: bool,
) -> tuple[Float[np.ndarray, "frame"], Float[np.ndarray, "frame"]]:
    """Pointwise limits from values and standard errors.

    Symmetric about the value, or, for a rate that is positive by its nature and above zero, about
    its logarithm: value · exp(± z·error/value) with z the normal quantile, which stays positive.

    **Raises:** `FitError` for a level outside 0 … 1.
    """
    if not 0 < level < 1:
        raise FitError(f"the level of a band is {level:g}; give a number between 0 and 1")
    z = NormalDist().inv_cdf(0.5 + 0.5 * level)
    error = np.where(np.isfinite(error), error, np.nan)
    above = value > 0
    if positive:
        relative = z * error / np.where(above, value, 1.0)
        # Beyond this exponent a limit says only that there is none.
        factor = np.exp(np.minimum(relative, 100.0))
        low, high = value / factor, value * factor
        return np.where(above, low, value - z * error), np.where(above, high, value + z * error)
    return value - z * error, value + z * error


def is_positive(fit: Fit, field: str) -> bool:
    """Whether a rate is positive by its class, or must be by what the model says."""
    return getattr(fit.model, field).positive or field in fit.model.positive_rates


def band(fit: Fit, field: str, level: float = 0.6827, *, kind: str | None = None) -> Band:
    """Pointwise confidence band of a rate from the covariance of the fit.

    **Arguments:**

    - `field`: the rate by its field in the model: `"transport"`, `"shear"`, `"velocity"`, …
    - `level`: probability inside the band at each time.
    - `kind`: `"speckle"`, `"classical"` or `"dyadic"` covariance; by default the quoted one.

    With a smoothness penalty the classical covariance is that of a Gaussian prior and a Gaussian
    likelihood together; the sandwiches describe the scatter of the penalised estimate about its
    own mean and know nothing of the bias.

    **Raises:** `FitError` for a field that is no rate, or a level outside 0 … 1.
    """
    rates = [f.name for f in dataclasses.fields(fit.model)]
    rates = [name for name in rates if isinstance(getattr(fit.model, name), AbstractRate)]
    if field not in rates:
        raise FitError(
            f"{type(fit.model).__name__} has no rate {field!r}; it has {', '.join(rates) or 'none'}"
        )
    if kind is not None:
        uncertainty = dataclasses.replace(fit.uncertainty, chosen=kind)
        fit = dataclasses.replace(fit, uncertainty=uncertainty)
    t = np.asarray(fit.objective.term.t)
    value, error = fit.rate(field)
    low, high = limits(value, error, level, is_positive(fit, field))
    return Band(np.maximum(t, 0.5 * (t[1] - t[0])), value, low, high, level)


class RescaledSurface(NamedTuple):
    """Surfaces offset + contrast · |c1|² with the scaling that suits the data best."""

    surface: Float[np.ndarray, "angle frame frame"]
    contrast: Float[np.ndarray, "angle"]
    offset: Float[np.ndarray, "angle"]
    residuals: Float[np.ndarray, "angle frame frame"]

    def __repr__(self) -> str:
        return eqx.tree_pformat(self)


def _one_by_one(
    model: AbstractCorrelation, data: TwoTimeData | StoredTwoTime | PooledData
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, Float[np.ndarray, "2"]]]:
    """|c1|², c2 and root weights of each angle, and the (contrast, offset) that suit them best.

    Of maps the weights are those of the pairs i < j, zero elsewhere. One angle is in memory at a
    time beside the data.
    """
    n = np.shape(data.t)[0]
    upper = np.triu(np.ones((n, n), bool), 1)
    for a in range(data.n_angles):
        place = jnp.asarray(data.t), data.geometry.angle(a)
        correlation = np.asarray(correlation_map(model, *place))[0]
        if isinstance(data, PooledData):
            mine = np.flatnonzero(np.asarray(data.angle) == a)
            pairs = (np.asarray(data.first), np.asarray(data.second))
            correlation = data.mean(correlation[pairs])[mine]
            values, weights = np.asarray(data.values)[mine], data.root_weights
            root = np.ones(mine.size) if weights is None else np.asarray(weights)[mine]
        else:
            maps, k = (data, a) if isinstance(data, TwoTimeData) else (data.angle(a), 0)
            values, weights = np.asarray(maps.c2[k], dtype=float), maps.root_weights
            root = upper if weights is None else np.asarray(weights[k]) * upper
        keep = root > 0
        scale = np.asarray(root[keep], dtype=float)
        columns = np.stack([correlation[keep], np.ones(scale.size)], axis=1) * scale[:, None]
        best = np.linalg.lstsq(columns, np.asarray(values[keep], dtype=float) * scale, rcond=None)
        yield correlation, values, root, best[0]


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
    shape = (data.n_angles, data.n_frames, data.n_frames)
    surface, residuals, scaling = np.empty(shape), np.empty(shape), np.empty((data.n_angles, 2))
    for a, (correlation, c2, root, best) in enumerate(_one_by_one(model, data)):
        scaling[a] = contrast, offset = best
        surface[a] = offset + contrast * correlation
        residuals[a] = np.where((root > 0) | (root > 0).T, c2 - surface[a], np.nan)
    return RescaledSurface(surface, scaling[:, 0], scaling[:, 1], residuals)


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
    values = np.array([best for *_, best in _one_by_one(model, data)])
    low, high = np.transpose([CONTRAST_BOUNDS, OFFSET_BOUNDS])
    inside = np.all((values >= low) & (values <= high), axis=1)
    return values, tuple(inside.tolist())
