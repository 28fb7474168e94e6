"""Settings to what finds the minimum: loss, penalties, solver; and the noise they go by."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..data import StoredTwoTime, TwoTimeData, noise_by_angle, weighted
from ..errors import ConfigError, ModelError
from ..objective import (
    AbstractLoss,
    Arctan,
    Cauchy,
    Huber,
    Linear,
    SoftL1,
)
from ..objective.penalties import LogSmoothness, Smoothness, smoothness
from ..optimize import (
    JacobianMetric,
    NaturalMetric,
    TrustRegion,
    damped_newton,
    dogleg,
    gauss_newton,
)
from ..parameters import ReferenceTime, SignedSlope, Slope
from ..physics import AbstractCorrelation
from .schema import Common
from .source import Source

LOSSES = {"soft_l1": SoftL1, "huber": Huber, "cauchy": Cauchy, "arctan": Arctan}
DESCENTS = {
    "levenberg_marquardt": damped_newton,
    "dogleg": dogleg,
    "gauss_newton": gauss_newton,
}
COORDINATES = {
    "slope": Slope,
    "signed_slope": SignedSlope,
    "reference_time": ReferenceTime,
}
METRICS = {"natural": NaturalMetric, "jacobian": JacobianMetric}


def residual_sd(data: TwoTimeData | StoredTwoTime) -> float:
    """Standard deviation that residuals have in the unit of the fit: one where sigma is known."""
    return 1.0 if weighted(data) else float(np.median(noise_by_angle(data)))


def penalties_of(
    settings: Common, source: Source, model: AbstractCorrelation
) -> tuple[Smoothness | LogSmoothness, ...]:
    """Smoothness of the rates of a model.

    **Raises:** `ConfigError` where it has nothing to work on.
    """
    asked = {n: r.smoothness for n, r in settings.rates.items() if r.smoothness}
    # Beside other data sets, rates may belong to these alone.
    asked = {name: width for name, width in asked.items() if hasattr(model, name)}
    try:
        return tuple(smoothness(model, name, width) for name, width in asked.items())
    except ModelError as error:
        raise ConfigError(f"{source.where('rates')}: [rates]: {error}") from error


def loss_of(
    settings: Common, absolute: bool, sd: Callable[[], float]
) -> tuple[AbstractLoss, tuple[str, ...]]:
    """The loss, and where it bends in words; `absolute` for residuals in units of sigma.

    **Raises:** `ConfigError` when it would bend nowhere.
    """
    name, scale = settings.solver.loss, settings.solver.loss_scale
    if name == "linear":
        return Linear(), ()
    if scale is not None:
        return LOSSES[name](scale), ()
    if absolute:
        return LOSSES[name](1.0), (f"the {name} loss bends at one sigma",)
    sigma = sd()
    if not sigma > 0:
        raise ConfigError(
            f"the noise of the data is estimated as {sigma:g}; give solver.loss_scale [c2] for the "
            f"{name} loss"
        )
    return LOSSES[name](sigma), (
        f"the {name} loss bends at {sigma:.3g} [c2], the noise estimated from the maps",
    )


# When to stop, by the same names in the configuration and in the solver.
_STOPPING = ("cost_tol", "step_tol", "gradient_tol", "max_evaluations")


def stopping_rule(solver: TrustRegion) -> dict[str, float | int]:
    """When a solver stops, in plain numbers by key of `[solver]`."""
    return {name: np.asarray(getattr(solver, name)).item() for name in _STOPPING}


def solver_of(settings: Common) -> TrustRegion:
    """The trust region of the settings; that of the defaults where another optimiser runs."""
    given = settings.solver
    fields: dict[str, Any] = {
        name: getattr(given, name) for name in _STOPPING if getattr(given, name) is not None
    }
    return TrustRegion(
        metric=METRICS[given.metric](),
        descent=DESCENTS.get(given.method, damped_newton)(),
        **fields,
    )
