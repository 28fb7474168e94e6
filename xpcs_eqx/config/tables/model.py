"""The model of a mode with the rates that were asked for."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from ..errors import ModelError
from ..physics import (
    AbstractCorrelation,
    AbstractRate,
    ExponentialRate,
    GapAveraged,
    Homodyne,
    LaminarFlow,
    PiecewiseConstantRate,
    PiecewiseLinearRate,
    PowerLawRate,
    SignedSplineRate,
    SplineRate,
    Static,
    Trapezoid,
    TwoComponent,
    log_knots,
    uniform_knots,
)
from .schema import Rate

KERNELS = {"gap_averaged": GapAveraged, "homodyne": Homodyne}
KNOTS = {"uniform": uniform_knots, "log": log_knots}
AT_KNOTS = {
    "spline": SplineRate,
    "signed_spline": SignedSplineRate,
    "piecewise_linear": PiecewiseLinearRate,
}


def rates_of(mode: str) -> dict[str, PowerLawRate]:
    """The rates of a mode by name, at their default start values."""
    if mode == "two_component":
        model, names = TwoComponent(), ("reference", "sample", "velocity")
    elif mode == "laminar_flow":
        model, names = LaminarFlow(), ("transport", "shear")
    else:
        model, names = Static(), ("transport",)
    return {name: getattr(model, name) for name in names}


def _rate(default: PowerLawRate, given: Rate, t: Float[np.ndarray, "frame"] | None) -> AbstractRate:
    """A rate of the kind asked for, constant at the start of the default."""
    if given.kind == "power_law":
        return default
    if t is None:
        raise ModelError(f"a rate of kind {given.kind!r} needs the frame times")
    start = float(np.asarray(default.amplitude))
    if given.kind == "exponential":
        # A fall over the window: with initial = 0 or an endless tau nothing could be learnt.
        return ExponentialRate(start, 0.5 * float(t[-1] - t[0]), 0.0)
    if given.kind == "piecewise_constant":
        if given.times is not None:
            return PiecewiseConstantRate(given.times, start)
        return PiecewiseConstantRate(KNOTS[given.spacing](t, given.knots + 1)[1:-1], start)
    knots = KNOTS[given.spacing](t, given.knots) if given.times is None else given.times
    return AT_KNOTS[given.kind](knots, start)


def model_of(
    mode: str,
    kernel: str = "gap_averaged",
    integral: str = "exact",
    rates: Mapping[str, Rate] | None = None,
    t: Float[np.ndarray, "frame"] | None = None,
) -> AbstractCorrelation:
    """The model of a mode at its default start values.

    `rates` by name, power laws where nothing is said; others than those and exponential ageing
    have their knots inside the frame times `t` [s].

    **Raises:** `ModelError` for knots that do not make a rate.
    """
    made = {
        name: _rate(default, (rates or {}).get(name, Rate()), t)
        for name, default in rates_of(mode).items()
    }
    if integral == "trapezoid":
        made = {name: Trapezoid(rate) for name, rate in made.items()}
    if mode == "two_component":
        return TwoComponent(made["reference"], made["sample"], made["velocity"])
    if mode == "laminar_flow":
        return LaminarFlow(made["transport"], made["shear"], shear_kernel=KERNELS[kernel]())
    return Static(made["transport"])
