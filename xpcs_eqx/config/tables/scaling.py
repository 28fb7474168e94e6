"""Which scaling runs, and why."""

import logging
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from ..data import StoredTwoTime, TwoTimeData
from ..errors import ModelError
from ..scaling import (
    CONTRAST_BOUNDS,
    OFFSET_BOUNDS,
    AbstractScaling,
    Averaged,
    Fixed,
    Fourier,
    Individual,
    auto_threshold,
    fixed_averaged,
    quantile_scaling,
)
from .schema import Settings

log = logging.getLogger(__name__)

Data = TwoTimeData | StoredTwoTime


@dataclass(frozen=True)
class Choice:
    """A scaling, the name of the mode that runs, and the reason in words."""

    scaling: AbstractScaling
    mode: str
    reason: str


def _pair(given: list[float] | None, default: tuple[float, float]) -> tuple[float, float]:
    return default if given is None else (given[0], given[1])


def _values(name: str, given, estimate: np.ndarray) -> np.ndarray:
    if given is None:
        return estimate
    values = np.asarray(given, dtype=float)
    if values.shape not in ((), (1,), estimate.shape):
        raise ModelError(
            f"{name} has {values.size} values, the selected data have {estimate.size} angles; give "
            "one number or one for each angle"
        )
    return np.broadcast_to(values, estimate.shape)


def _fixed(settings: Settings, data: Data, bounds) -> Choice:
    given, mode = settings.scaling, settings.scaling.mode
    estimate = quantile_scaling(data, contrast_bounds=bounds[0], offset_bounds=bounds[1])
    contrast = _values("contrast", given.contrast, estimate[:, 0])
    offset = _values("offset", given.offset, estimate[:, 1])
    missing = [n for n in ("contrast", "offset") if getattr(given, n) is None]
    origin = (
        f"{' and '.join(missing)} from quantiles of the data, which noise and decay bias"
        if missing
        else "values as given"
    )
    if mode == "fixed_averaged":
        return Choice(
            fixed_averaged(jnp.asarray(contrast), jnp.asarray(offset)),
            mode,
            f"asked for; {origin}; mean of the angles",
        )
    return Choice(Fixed(contrast, offset), "fixed", f"asked for; {origin}")


def choose_scaling(settings: Settings, data: Data) -> Choice:
    """The scaling of the configuration for these data.

    **Raises:** `ModelError` for bounds or values that do not suit the data.
    """
    given, n = settings.scaling, data.n_angles
    contrast = _pair(given.contrast_bounds, CONTRAST_BOUNDS)
    offset = _pair(given.offset_bounds, OFFSET_BOUNDS)
    bounds = (contrast, offset)
    if given.mode in ("fixed", "fixed_averaged"):
        return _fixed(settings, data, bounds)
    if given.mode == "averaged":
        return Choice(Averaged(n, *bounds), "averaged", "asked for")
    if given.mode is None and settings.model.mode == "static_isotropic":
        reason = "static_isotropic is one curve for all angles"
        return Choice(Averaged(n, *bounds), "averaged", reason)
    if given.mode == "auto_threshold":
        shared = isinstance(auto_threshold(n), Averaged)
        reason = f"auto_threshold, the rule of homodyne 2.x, at {n} angles"
        if shared:
            return Choice(Averaged(n, *bounds), "averaged", reason)
        return Choice(Individual(n, *bounds), "individual", reason)
    if given.mode == "fourier":
        return _fourier(settings, data, bounds)
    reason = (
        "asked for"
        if given.mode == "individual"
        else "auto: contrast and offset are eliminated exactly, so one pair an angle costs nothing"
    )
    return Choice(Individual(n, *bounds), "individual", reason)


def _fourier(settings: Settings, data: Data, bounds) -> Choice:
    given, n = settings.scaling, data.n_angles
    if n < 1 + 2 * given.order:
        reason = (
            f"a Fourier series of order {given.order} needs {1 + 2 * given.order} angles and the "
            f"data have {n}, so each angle has its own"
        )
        log.warning("scaling: %s", reason)
        return Choice(Individual(n, *bounds), "individual", reason)
    chosen = {}
    if given.contrast_bounds is not None:
        chosen["contrast_bounds"] = bounds[0]
    if given.offset_bounds is not None:
        chosen["offset_bounds"] = bounds[1]
    scaling = Fourier(np.asarray(data.geometry.phi), given.order, **chosen)
    return Choice(scaling, "fourier", f"asked for, order {given.order}")
