"""The table `[scaling]`: which contrast and offset each angle has, and why."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import jax.numpy as jnp
import numpy as np
from pydantic import model_validator

from ...errors import ModelError
from ...scaling import (
    AbstractScaling,
    Averaged,
    Fixed,
    Fourier,
    Individual,
    auto_threshold,
    fixed_averaged,
    quantile_scaling,
)
from ..section import UNSET, FiniteBounds, PerAngle, Section, When, check_order, key
from .data import Given

if TYPE_CHECKING:
    from . import Settings

log = logging.getLogger(__name__)

_FIXED = (When("mode", ("fixed", "fixed_averaged")),)


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
    order: int = key(
        Fourier.order, "order of the Fourier series", when=(When("mode", ("fourier",)),), ge=0
    )
    contrast_bounds: FiniteBounds | None = key(
        None,
        "bounds of every contrast; equal ones fix it",
        example=[0.0, 1.0],
        when=(When("contrast", UNSET, unless=("bayes.scaling", "averaged")),),
    )
    offset_bounds: FiniteBounds | None = key(
        None,
        "bounds of every offset; equal ones fix it",
        example=[0.5, 1.5],
        when=(When("offset", UNSET, unless=("bayes.scaling", "averaged")),),
    )
    contrast: PerAngle | None = key(
        None,
        "its value in the fixed modes; by default from the data by quantiles",
        expected="a number, or one for each angle",
        example=0.3,
        when=_FIXED,
    )
    offset: PerAngle | None = key(
        None,
        "its value in the fixed modes; by default from the data by quantiles",
        expected="a number, or one for each angle",
        example=1.0,
        when=_FIXED,
    )

    @model_validator(mode="after")
    def _check(self) -> "Scaling":
        check_order("contrast_bounds", self.contrast_bounds, self.mode != "fourier")
        check_order("offset_bounds", self.offset_bounds, self.mode != "fourier")
        return self


@dataclass(frozen=True)
class ChosenScaling:
    """A scaling, the name of the mode that runs, and the reason in words."""

    scaling: AbstractScaling
    mode: str
    reason: str

    def __str__(self) -> str:
        return f"{self.mode}: {self.reason}"


def bounds_of(given: Scaling) -> dict[str, Any]:
    """Bounds of contrast and offset as far as they are given, as keywords of a scaling."""
    names = ("contrast_bounds", "offset_bounds")
    pairs = {name: getattr(given, name) for name in names}
    return {name: (pair[0], pair[1]) for name, pair in pairs.items() if pair is not None}


def _values(name: str, given: Any, estimate: np.ndarray) -> np.ndarray:
    if given is None:
        return estimate
    values = np.asarray(given, dtype=float)
    if values.shape not in ((), (1,), estimate.shape):
        raise ModelError(
            f"{name} has {values.size} values, the selected data have {estimate.size} angles; give "
            "one number or one for each angle"
        )
    return np.broadcast_to(values, estimate.shape)


def _fixed(given: Scaling, data: Given) -> ChosenScaling:
    """Contrast and offset that are not fitted: as given, else from quantiles of the data."""
    estimate = quantile_scaling(data, **bounds_of(given))
    contrast = _values("contrast", given.contrast, estimate[:, 0])
    offset = _values("offset", given.offset, estimate[:, 1])
    missing = [n for n in ("contrast", "offset") if getattr(given, n) is None]
    origin = (
        f"{' and '.join(missing)} from quantiles of the data, which noise and decay bias"
        if missing
        else "values as given"
    )
    if given.mode == "fixed":
        return ChosenScaling(Fixed(contrast, offset), "fixed", f"asked for; {origin}")
    scaling = fixed_averaged(jnp.asarray(contrast), jnp.asarray(offset))
    return ChosenScaling(scaling, "fixed_averaged", f"asked for; {origin}; mean of the angles")


def choose_scaling(settings: "Settings", data: Given) -> ChosenScaling:
    """The scaling of the configuration for these data.

    **Raises:** `ModelError` for bounds or values that do not suit the data.
    """
    given, n = settings.scaling, data.n_angles
    mode, reason = given.mode, "asked for"
    if mode in ("fixed", "fixed_averaged"):
        return _fixed(given, data)
    if mode == "fourier" and n >= 1 + 2 * given.order:
        scaling = Fourier(np.asarray(data.geometry.phi), given.order, **bounds_of(given))
        return ChosenScaling(scaling, mode, f"asked for, order {given.order}")
    if mode == "fourier":
        mode = "individual"
        reason = (
            f"a Fourier series of order {given.order} needs {1 + 2 * given.order} angles and the "
            f"data have {n}, so each angle has its own"
        )
        log.warning("scaling: %s", reason)
    elif mode is None and settings.model.mode == "static_isotropic":
        mode, reason = "averaged", "static_isotropic is one curve for all angles"
    elif mode == "auto_threshold":
        mode = "averaged" if isinstance(auto_threshold(n), Averaged) else "individual"
        reason = f"auto_threshold, the rule of homodyne 2.x, at {n} angles"
    elif mode in (None, "auto"):
        mode = "individual"
        reason = "eliminated exactly, so that a pair for each angle costs nothing"
    made = Averaged if mode == "averaged" else Individual
    return ChosenScaling(made(n, **bounds_of(given)), mode, reason)
