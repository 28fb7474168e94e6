"""The table `[solver]`: what finds the minimum, which loss it minimises, which error is quoted."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from ... import objective, optimize, parameters
from ...data import PooledData, noise_by_angle, weighted
from ...errors import ConfigError
from ...fitting.likelihood import WHOLE
from ...objective import (
    AbstractLoss,
    AbstractObjective,
    LogSmoothness,
    Smoothness,
    noise_of,
    smoothness,
    tiles_of,
)
from ...optimize import AbstractMetric, Recovery, SinglePrecision, TrustRegion
from ...physics import AbstractCorrelation
from ..section import SET, Choice, Names, Path, Positive, Section, When, choice_of, key, made
from ..source import Source
from .data import Given
from .model import Rate

if TYPE_CHECKING:
    from . import Settings

DESCENTS = Choice(
    levenberg_marquardt=optimize.damped_newton,
    dogleg=optimize.dogleg,
    gauss_newton=optimize.gauss_newton,
    hybrid=None,
)
LOSSES = choice_of(objective, AbstractLoss)
METRICS = choice_of(optimize, AbstractMetric, "Metric")
COORDINATES = Choice(
    slope=parameters.Slope,
    signed_slope=parameters.SignedSlope,
    reference_time=parameters.ReferenceTime,
    physical=None,
)

# What the hybrid optimiser, asked for in either of two ways, makes nothing of.
_TRUST_REGION = (
    When("method", ("levenberg_marquardt", "dogleg", "gauss_newton")),
    When("streaming.strategy", ("auto", "in_memory", "out_of_core")),
)
_REMEDY = "the hybrid optimiser has hybrid.tolerance and hybrid.max_iterations"
_STOPPING_RULE = tuple(When(one.choice, one.values, remedy=_REMEDY) for one in _TRUST_REGION)
# When to stop, by the same names in the configuration and in the solver.
STOPPING = ("cost_tol", "step_tol", "gradient_tol", "max_evaluations")


class Solver(Section):
    """How the minimum is found, and which error bar is quoted."""

    method: Annotated[str, DESCENTS] = key(
        "levenberg_marquardt",
        "step inside the trust region; hybrid: the optimiser of [hybrid], from afar",
        shown=True,
    )
    loss: Annotated[str, LOSSES] = key(
        "linear", "what is summed of the residuals; all but linear forgive outliers", shown=True
    )
    loss_scale: Positive | None = key(
        None,
        "residual where a robust loss bends, in sigma (in c2 without sigma); 1 sigma by default",
        example=1.0,
        when=(When("loss", tuple(word for word in LOSSES.meant if word != "linear")),),
    )
    likelihood: Literal["least_squares", "speckle", "auto"] = key(
        "least_squares",
        "what is fitted at last; speckle: the likelihood of the pixels, more precise at some "
        "counts a pixel; auto: where it can be used, pays, and is quick",
    )
    likelihood_frames: int = key(
        WHOLE,
        "frames that the likelihood of the pixels takes at once; maps of more are cut into blocks, "
        "and pairs of frames of different blocks are left out",
        ge=2,
    )
    cost_tol: Positive = key(TrustRegion.cost_tol, "relative fall of the cost", when=_STOPPING_RULE)
    step_tol: Positive = key(TrustRegion.step_tol, "relative step", when=_STOPPING_RULE)
    gradient_tol: Positive = key(
        TrustRegion.gradient_tol, "largest cosine of residuals and derivatives", when=_STOPPING_RULE
    )
    max_evaluations: int = key(
        TrustRegion.max_evaluations,
        "evaluations of the normal equations",
        when=_STOPPING_RULE,
        ge=1,
    )
    metric: Annotated[str, METRICS] = key(
        "natural",
        "what a step is measured in: natural scales of the parameters, or columns of the Jacobian",
        when=_TRUST_REGION,
    )
    coordinates: Annotated[str, COORDINATES] = key("slope", "variables that the steps are taken in")
    start_from: Path | None = key(
        None,
        "parameters.json of an earlier fit, whose values are the starts of parameters without one",
        example="earlier/fit/parameters.json",
    )
    precision: Literal["double", "single_first"] = key(
        "double",
        "arithmetic on maps; single_first: the first evaluations in single precision, the last "
        "ones in double, for devices that are slow in double",
        when=_TRUST_REGION,
    )
    recovery: int = key(
        Recovery.attempts, "attempts to rescue a failed fit", when=_TRUST_REGION, ge=0
    )
    checkpoint: bool | Literal["auto"] = key(
        "auto",
        "states to go on from with --resume; auto: of fits that take long or are interrupted",
    )
    checkpoint_every: int = key(
        1, "evaluations between two checkpoints", when=(When("checkpoint", (True, "auto")),), ge=1
    )
    angle_weights: list[Positive] | None = key(
        None, "weight of the squared residuals of each angle", example=[1.0, 1.0, 0.5]
    )
    errors: Literal["speckle", "classical", "dyadic"] = key(
        "speckle", "the error bar that is quoted"
    )
    bootstrap: Annotated[int, Field(ge=2)] | None = key(
        None,
        "maps that are simulated from the fit and fitted again, so many, whose scatter is held "
        "against its errors",
        example=200,
    )
    profile: Names = key([], "parameters that get a profile-likelihood interval")
    # Beyond these, what is left to 0 and 1 is lost by rounding.
    profile_level: Annotated[float, Field(gt=0, ge=1e-6, lt=1, le=1 - 1e-9)] = key(
        0.6827, "probability inside those intervals", when=(When("profile", SET),)
    )

    def excluded(self, settings: "Settings") -> Iterator[tuple[str, str]]:
        """What a step inside the trust region does not go together with."""
        plain = type(self).model_fields["method"].default
        if settings.streaming.strategy == "hybrid" and self.method not in ("hybrid", plain):
            yield (
                "solver.method",
                f'solver.method = "{self.method}" is not the hybrid optimiser that '
                'streaming.strategy = "hybrid" asks for; leave one of them out',
            )


def is_hybrid(settings: "Settings") -> bool:
    """Whether the hybrid optimiser is asked for."""
    return "hybrid" in (settings.solver.method, settings.streaming.strategy)


def residual_sd(data: Given) -> float:
    """Standard deviation that residuals have in the unit of the fit: one where sigma is known."""
    if weighted(data):
        return 1.0
    if isinstance(data, PooledData):
        return noise_of(tiles_of(data))
    return float(np.median(noise_by_angle(data)))


def preparations_of(
    given: Solver, objective: AbstractObjective, source: Source
) -> tuple[SinglePrecision, ...]:
    """What comes before the trust region.

    **Raises:** `ConfigError` where single precision is asked for and the data are no maps.
    """
    if given.precision == "double":
        return ()
    first = SinglePrecision()
    with source.placed("solver.precision", f'solver.precision = "{given.precision}"'):
        first.check(objective)
    return (first,)


def penalties_of(
    rates: Mapping[str, Rate], model: AbstractCorrelation, source: Source
) -> tuple[Smoothness | LogSmoothness, ...]:
    """Smoothness of the rates of a model.

    **Raises:** `ConfigError` where it has nothing to work on.
    """
    # Beside other data sets, rates may belong to these alone.
    asked = {n: r.smoothness for n, r in rates.items() if r.smoothness and hasattr(model, n)}
    with source.placed("rates", "[rates]"):
        return tuple(smoothness(model, name, width) for name, width in asked.items())


def loss_of(
    given: Solver, absolute: bool, sd: Callable[[], float]
) -> tuple[AbstractLoss, tuple[str, ...]]:
    """The loss, and where it bends in words; `absolute` for residuals in units of sigma.

    **Raises:** `ConfigError` when it would bend nowhere.
    """
    name, loss = given.loss, LOSSES[given.loss]
    if name == "linear":
        return loss(), ()
    if given.loss_scale is not None:
        return loss(given.loss_scale), ()
    if absolute:
        return loss(1.0), (f"the {name} loss bends at one sigma",)
    sigma = sd()
    if not sigma > 0:
        raise ConfigError(
            f"the noise of the data is estimated as {sigma:g}; give solver.loss_scale [c2] for the "
            f"{name} loss"
        )
    return loss(sigma), (
        f"the {name} loss bends at {sigma:.3g} [c2], the noise estimated from the maps",
    )


def solver_of(given: Solver) -> TrustRegion:
    """The trust region of the settings; that of the defaults where another optimiser runs."""
    descent = DESCENTS[given.method] or optimize.damped_newton
    return made(TrustRegion, given, metric=METRICS[given.metric](), descent=descent())
