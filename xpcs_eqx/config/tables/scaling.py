"""The table `[scaling]`: which contrast and offset each angle has, and why."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import model_validator

from ...errors import ModelError
from ..section import UNSET, FiniteBounds, PerAngle, Section, When, key, ordered

if TYPE_CHECKING:
    from ...data import StoredTwoTime, TwoTimeData
    from ...scaling import AbstractScaling
    from . import Settings

log = logging.getLogger(__name__)


class Scaling(Section):
    """Contrast and offset of each angle."""

    mode: (
        Literal[
            "auto", "individual", "averaged", "fixed", "fixed_averaged", "fourier", "auto_threshold"
        ]
        | None
    ) = key(
        None,
        "how the angles share them; auto by default, averaged for static_isotropic",
        example="auto",
    )
    order: int = key(2, "order of the Fourier series", when=(When("mode", ("fourier",)),), ge=0)
    contrast_bounds: FiniteBounds | None = key(
        None,
        "bounds of every contrast",
        example=[0.0, 1.0],
        when=(When("contrast", UNSET, unless=("bayes.scaling", "averaged")),),
    )
    offset_bounds: FiniteBounds | None = key(
        None,
        "bounds of every offset",
        example=[0.5, 1.5],
        when=(When("offset", UNSET, unless=("bayes.scaling", "averaged")),),
    )
    contrast: PerAngle | None = key(
        None,
        "its value in the fixed modes; by default from the data by quantiles",
        expected="a number, or one for each angle",
        example=0.3,
    )
    offset: PerAngle | None = key(
        None,
        "its value in the fixed modes; by default from the data by quantiles",
        expected="a number, or one for each angle",
        example=1.0,
    )

    @model_validator(mode="after")
    def _check(self) -> "Scaling":
        ordered("contrast_bounds", self.contrast_bounds)
        ordered("offset_bounds", self.offset_bounds)
        given = self.contrast is not None or self.offset is not None
        if given and self.mode not in ("fixed", "fixed_averaged"):
            raise ValueError(
                'contrast and offset are values of the modes "fixed" and "fixed_averaged"; '
                "set scaling.mode to one of them, or leave the values out"
            )
        return self


@dataclass(frozen=True)
class ChosenScaling:
    """A scaling, the name of the mode that runs, and the reason in words."""

    scaling: "AbstractScaling"
    mode: str
    reason: str

    def __str__(self) -> str:
        return f"{self.mode}: {self.reason}"


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


def _fixed(settings: "Settings", data: "TwoTimeData | StoredTwoTime", bounds) -> ChosenScaling:
    import jax.numpy as jnp

    from ...scaling import Fixed, fixed_averaged, quantile_scaling

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
        return ChosenScaling(
            fixed_averaged(jnp.asarray(contrast), jnp.asarray(offset)),
            mode,
            f"asked for; {origin}; mean of the angles",
        )
    return ChosenScaling(Fixed(contrast, offset), "fixed", f"asked for; {origin}")


def choose_scaling(settings: "Settings", data: "TwoTimeData | StoredTwoTime") -> ChosenScaling:
    """The scaling of the configuration for these data.

    **Raises:** `ModelError` for bounds or values that do not suit the data.
    """
    from ...scaling import CONTRAST_BOUNDS, OFFSET_BOUNDS, Averaged, Individual, auto_threshold

    given, n = settings.scaling, data.n_angles
    contrast = _pair(given.contrast_bounds, CONTRAST_BOUNDS)
    offset = _pair(given.offset_bounds, OFFSET_BOUNDS)
    bounds = (contrast, offset)
    if given.mode in ("fixed", "fixed_averaged"):
        return _fixed(settings, data, bounds)
    if given.mode == "averaged":
        return ChosenScaling(Averaged(n, *bounds), "averaged", "asked for")
    if given.mode is None and settings.model.mode == "static_isotropic":
        reason = "static_isotropic is one curve for all angles"
        return ChosenScaling(Averaged(n, *bounds), "averaged", reason)
    if given.mode == "auto_threshold":
        shared = isinstance(auto_threshold(n), Averaged)
        reason = f"auto_threshold, the rule of homodyne 2.x, at {n} angles"
        if shared:
            return ChosenScaling(Averaged(n, *bounds), "averaged", reason)
        return ChosenScaling(Individual(n, *bounds), "individual", reason)
    if given.mode == "fourier":
        return _fourier(settings, data, bounds)
    reason = (
        "asked for"
        if given.mode == "individual"
        else "auto: contrast and offset are eliminated exactly, so one pair an angle costs nothing"
    )
    return ChosenScaling(Individual(n, *bounds), "individual", reason)


def _fourier(settings: "Settings", data: "TwoTimeData | StoredTwoTime", bounds) -> ChosenScaling:
    from ...scaling import Fourier, Individual

    given, n = settings.scaling, data.n_angles
    if n < 1 + 2 * given.order:
        reason = (
            f"a Fourier series of order {given.order} needs {1 + 2 * given.order} angles and the "
            f"data have {n}, so each angle has its own"
        )
        log.warning("scaling: %s", reason)
        return ChosenScaling(Individual(n, *bounds), "individual", reason)
    chosen = {}
    if given.contrast_bounds is not None:
        chosen["contrast_bounds"] = bounds[0]
    if given.offset_bounds is not None:
        chosen["offset_bounds"] = bounds[1]
    scaling = Fourier(np.asarray(data.geometry.phi), given.order, **chosen)
    return ChosenScaling(scaling, "fourier", f"asked for, order {given.order}")
