"""Confidence bands of the rates of a fit."""

import dataclasses
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ...errors import FitError
from ...physics import AbstractRate
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
