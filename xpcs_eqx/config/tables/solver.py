"""The table `[solver]`: what finds the minimum, which loss it minimises, which error is quoted."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ...errors import ConfigError, ModelError
from ...objective import losses
from ..section import SET, Names, Path, Positive, Section, When, choice, class_default, key

if TYPE_CHECKING:
    from ...data import StoredTwoTime, TwoTimeData
    from ...objective import AbstractLoss
    from ...objective.penalties import LogSmoothness, Smoothness
    from ...optimize import TrustRegion
    from ...physics import AbstractCorrelation
    from ..read import Configuration
    from . import Settings

DESCENTS = choice(
    levenberg_marquardt="optimize.damped_newton",
    dogleg="optimize.dogleg",
    gauss_newton="optimize.gauss_newton",
    hybrid=None,
)
LOSSES = choice(**{word: f"objective.{loss.__name__}" for word, loss in losses.LOSSES.items()})
METRICS = choice(natural="optimize.NaturalMetric", jacobian="optimize.JacobianMetric")
COORDINATES = choice(
    slope="parameters.Slope",
    signed_slope="parameters.SignedSlope",
    reference_time="parameters.ReferenceTime",
    physical=None,
)

# What the hybrid optimiser, asked for in either of two ways, makes nothing of.
_TRUST_REGION = (
    When("method", ("levenberg_marquardt", "dogleg", "gauss_newton")),
    When("streaming.strategy", ("auto", "in_memory", "out_of_core")),
)
_REMEDY = "the hybrid optimiser has hybrid.tolerance and hybrid.max_iterations"
_STOPPING_RULE = tuple(When(one.choice, one.values, remedy=_REMEDY) for one in _TRUST_REGION)
_CLASS = "optimize.TrustRegion"
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
        when=(When("loss", tuple(word for word in LOSSES.paths if word != "linear")),),
    )
    cost_tol: Positive | None = key(
        None, "relative fall of the cost", of=_CLASS, when=_STOPPING_RULE
    )
    step_tol: Positive | None = key(None, "relative step", of=_CLASS, when=_STOPPING_RULE)
    gradient_tol: Positive | None = key(
        None, "largest cosine of residuals and derivatives", of=_CLASS, when=_STOPPING_RULE
    )
    max_evaluations: int | None = key(
        None, "evaluations of the normal equations", of=_CLASS, when=_STOPPING_RULE, ge=1
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
    recovery: int = key(3, "attempts to rescue a failed fit", when=_TRUST_REGION, ge=0)
    checkpoint: bool | Literal["auto"] = key(
        "auto",
        "states to go on from with --resume; auto: of fits that take long or are interrupted",
    )
    checkpoint_every: int = key(
        1, "evaluations between two checkpoints", when=(When("checkpoint", (True, "auto")),), ge=1
    )
    angle_weights: (
        Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field()] | None
    ) = key(None, "weight of the squared residuals of each angle", example=[1.0, 1.0, 0.5])
    errors: Literal["speckle", "classical", "dyadic"] = key(
        "speckle", "the error bar that is quoted"
    )
    profile: Names = key([], "parameters that get a profile-likelihood interval")
    profile_level: Annotated[float, Field(gt=0, lt=1)] = key(
        0.6827, "probability inside those intervals", when=(When("profile", SET),)
    )


def is_hybrid(settings: "Settings") -> bool:
    """Whether the hybrid optimiser is asked for."""
    return "hybrid" in (settings.solver.method, settings.streaming.strategy)


def excluded(settings: "Settings") -> Iterator[tuple[str, str]]:
    """Keys of `[solver]` that other tables leave no room for, and what to say."""
    solver = settings.solver
    plain = Solver.model_fields["method"].default
    if settings.streaming.strategy == "hybrid" and solver.method not in ("hybrid", plain):
        yield (
            "solver.method",
            f'solver.method = "{solver.method}" is not the hybrid optimiser that '
            'streaming.strategy = "hybrid" asks for; leave one of them out',
        )
    if settings.several and solver.angle_weights is not None:
        yield (
            "solver.angle_weights",
            "solver.angle_weights is for one data set; several have weight and angle_weights in "
            "their tables [[data]]",
        )


def residual_sd(data: "TwoTimeData | StoredTwoTime") -> float:
    """Standard deviation that residuals have in the unit of the fit: one where sigma is known."""
    from ...data import noise_by_angle, weighted

    return 1.0 if weighted(data) else float(np.median(noise_by_angle(data)))


def penalties_of(
    configuration: "Configuration", model: "AbstractCorrelation"
) -> "tuple[Smoothness | LogSmoothness, ...]":
    """Smoothness of the rates of a model.

    **Raises:** `ConfigError` where it has nothing to work on.
    """
    from ...objective.penalties import smoothness

    rates, source = configuration.settings.rates, configuration.source
    # Beside other data sets, rates may belong to these alone.
    asked = {n: r.smoothness for n, r in rates.items() if r.smoothness and hasattr(model, n)}
    try:
        return tuple(smoothness(model, name, width) for name, width in asked.items())
    except ModelError as error:
        raise ConfigError(f"{source.where('rates')}: [rates]: {error}") from error


def loss_of(
    given: Solver, absolute: bool, sd: Callable[[], float]
) -> "tuple[AbstractLoss, tuple[str, ...]]":
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


def stopping_rule(given: Solver) -> dict[str, float | int]:
    """When the trust region stops, in plain numbers by key, defaults filled in."""
    own = {name: getattr(given, name) for name in STOPPING}
    return {n: class_default(_CLASS, n) if value is None else value for n, value in own.items()}


def solver_of(given: Solver) -> "TrustRegion":
    """The trust region of the settings; that of the defaults where another optimiser runs."""
    from ...optimize import TrustRegion

    fields: dict[str, Any] = {
        name: getattr(given, name) for name in STOPPING if getattr(given, name) is not None
    }
    descent = DESCENTS[given.method] or DESCENTS["levenberg_marquardt"]
    return TrustRegion(metric=METRICS[given.metric](), descent=descent(), **fields)
