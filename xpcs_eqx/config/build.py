"""Settings to objects: data, model, parameters, scaling, objective, solver."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..data import Selection, TwoTimeData, load, mad_sigma
from ..errors import ConfigError, ModelError
from ..fitting import Fit
from ..objective import (
    AbstractLoss,
    AbstractPenalty,
    Arctan,
    Cauchy,
    Huber,
    JointObjective,
    Linear,
    ProjectedObjective,
    SoftL1,
    two_time_objective,
)
from ..objective.smoothness import smoothness
from ..optimize import (
    JacobianMetric,
    NaturalMetric,
    Recovery,
    TrustRegion,
    damped_newton,
    dogleg,
    gauss_newton,
)
from ..parameters import (
    ParameterMap,
    Proportional,
    ReferenceTime,
    SignedSlope,
    Slope,
    parameter_map,
    with_parameters,
)
from ..parameters.parameter_map import parameter_leaves
from ..physics import AbstractCorrelation
from .models import model_of, rates_of
from .read import Configuration
from .scaling import Choice, choose_scaling
from .schema import Parameter, Settings
from .source import nearest

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


@dataclass(frozen=True)
class Problem:
    """Everything a fit needs, and the decisions taken on the way, in words."""

    data: TwoTimeData
    objective: ProjectedObjective | JointObjective
    scaling: Choice
    solver: TrustRegion
    recovery: Recovery
    decisions: tuple[str, ...]
    settings: Settings


def load_data(configuration: Configuration) -> TwoTimeData:
    """The data of a configuration. **Raises:** `DataError`."""
    given = configuration.settings.data
    q = tuple(given.q) if isinstance(given.q, list) else given.q
    first, last = given.frames or (1, -1)
    # A single q must be in the file (to 1 %), or belongs to a bare map; a tolerance searches.
    single = q if isinstance(q, float) and given.q_tolerance is None else None
    selection = Selection(
        start_frame=first,
        end_frame=last,
        time_origin=given.time_origin,
        q=q if single is None else None,
        q_tolerance=given.q_tolerance,
        phi_ranges=tuple((low, high) for low, high in given.phi_ranges),
        bad_frames=tuple(given.bad_frames),
        min_lag=given.min_lag,
        max_lag=given.max_lag,
        age_range=None if given.age_range is None else (given.age_range[0], given.age_range[1]),
    )
    return load(
        configuration.data_path,
        layout=given.layout,
        selection=selection,
        dt=given.dt,
        gap=given.gap,
        sigma=given.sigma,
        q=single,
        phi=given.phi,
    )


def _model(configuration: Configuration, data: TwoTimeData) -> AbstractCorrelation:
    settings = configuration.settings
    known = list(rates_of(settings.model.mode))
    for name in settings.rates:
        if name not in known:
            raise ConfigError(
                f"{configuration.source.where(f'rates.{name}')}: unknown rate {name!r} of mode "
                f"{settings.model.mode!r}{nearest(name, known, 'rates.')}"
            )
    t = np.asarray(data.t, dtype=float)
    given = settings.model
    try:
        return model_of(given.mode, given.kernel, given.integral, settings.rates, t)
    except ModelError as error:
        raise ConfigError(f"{configuration.source.where('rates')}: [rates]: {error}") from error


def _entries(given: Mapping[str, Parameter], known: list[str]) -> dict[str, Parameter]:
    """Tables by name, where that of `J` holds for each `J[i]`, whose own keys go before it."""
    members = {name: [entry for entry in known if entry.startswith(f"{name}[")] for name in given}
    out = {entry: given[name] for name, entries in members.items() for entry in entries}
    for name, parameter in given.items():
        if not members[name]:
            own = {key: getattr(parameter, key) for key in parameter.model_fields_set}
            out[name] = out[name].model_copy(update=own) if name in out else parameter
    return out


def _parameters(configuration: Configuration, data: TwoTimeData) -> ParameterMap:
    settings = configuration.settings
    model = _model(configuration, data)
    known = [leaf.name for leaf in parameter_leaves(model)]
    given = _entries(settings.parameters, known)
    if settings.model.mode == "two_component" and "f2" not in given:
        # Only f0·exp(−f1·f2) enters; in the middle of the window f0 depends on f1 the least.
        given["f2"] = Parameter(start=0.5 * float(data.t[0] + data.t[-1]), free=False)
    for name in given:
        if name not in known:
            where = configuration.source.where(f"parameters.{name}")
            raise ConfigError(
                f"{where}: unknown parameter {name!r} of mode {settings.model.mode!r}"
                f"{nearest(name, known, 'parameters.')}"
            )
    for name, parameter in given.items():
        if parameter.tie is None:
            continue
        where = configuration.source.where(f"parameters.{name}.tie")
        if parameter.tie not in known or parameter.tie == name:
            raise ConfigError(
                f"{where}: {name} cannot be tied to {parameter.tie!r}"
                f"{nearest(parameter.tie, [k for k in known if k != name])}"
            )
        if parameter.tie in given and given[parameter.tie].tie is not None:
            raise ConfigError(f"{where}: {parameter.tie} is tied itself; tie both to one parameter")
    starts = {name: p.start for name, p in given.items() if p.start is not None}
    model = with_parameters(model, {k: jnp.asarray(v) for k, v in starts.items()})
    physical = settings.solver.coordinates == "physical"
    try:
        return parameter_map(
            model,
            None if physical else np.asarray(data.t, dtype=float),
            rates=COORDINATES.get(settings.solver.coordinates, Slope),
            bounds={
                k: (p.bounds[0], p.bounds[1]) for k, p in given.items() if p.bounds is not None
            },
            fixed=tuple(name for name, p in given.items() if not p.free),
            ties={
                name: Proportional(p.tie, 1.0 if p.factor is None else p.factor)
                for name, p in given.items()
                if p.tie is not None
            },
            scale={name: p.scale for name, p in given.items() if p.scale is not None},
        )
    except ModelError as error:
        raise ConfigError(f"{configuration.source.path}, [parameters]: {error}") from error


def _weighted(data: TwoTimeData) -> bool:
    """Whether residuals are in units of sigma."""
    return data.root_weights is not None and np.max(data.root_weights) != 1


def _noise(data: TwoTimeData) -> float:
    """Standard deviation of c2 [c2]: where residuals are in units of c2, it must be estimated."""
    usable = data.root_weights
    return float(
        np.median(
            [
                mad_sigma(np.asarray(c2), None if usable is None else np.asarray(usable[a]) > 0)
                for a, c2 in enumerate(np.asarray(data.c2))
            ]
        )
    )


def _penalties(
    configuration: Configuration, data: TwoTimeData, model: AbstractCorrelation
) -> tuple[AbstractPenalty, ...]:
    asked = {n: r.smoothness for n, r in configuration.settings.rates.items() if r.smoothness}
    if not asked:
        return ()
    sigma = 1.0 if _weighted(data) else _noise(data)
    if not sigma > 0:
        raise ConfigError(
            f"the noise of the data is estimated as {sigma:g}, which leaves smoothness without a "
            "measure; give data.sigma"
        )
    try:
        # Residuals in units of c2 are a factor sigma smaller, and so is the penalty beside them.
        return tuple(smoothness(model, name, width / sigma) for name, width in asked.items())
    except ModelError as error:
        where = configuration.source.where("rates")
        raise ConfigError(f"{where}: [rates]: {error}") from error


def _loss(settings: Settings, data: TwoTimeData) -> tuple[AbstractLoss, tuple[str, ...]]:
    name, scale = settings.solver.loss, settings.solver.loss_scale
    if name == "linear":
        return Linear(), ()
    if scale is not None:
        return LOSSES[name](scale), ()
    if _weighted(data):
        return LOSSES[name](1.0), (f"the {name} loss bends at one sigma",)
    sigma = _noise(data)
    if not sigma > 0:
        raise ConfigError(
            f"the noise of the data is estimated as {sigma:g}; give solver.loss_scale [c2] for the "
            f"{name} loss"
        )
    return LOSSES[name](sigma), (
        f"the {name} loss bends at {sigma:.3g} [c2], the noise estimated from the maps",
    )


def _solver(settings: Settings) -> TrustRegion:
    given = settings.solver
    fields: dict[str, Any] = {
        name: getattr(given, name)
        for name in ("cost_tol", "step_tol", "gradient_tol", "max_evaluations")
        if getattr(given, name) is not None
    }
    return TrustRegion(metric=METRICS[given.metric](), descent=DESCENTS[given.method](), **fields)


def build(configuration: Configuration) -> Problem:
    """Load the data and make every object of the fit.

    **Raises:** `DataError`, `ConfigError`, `ModelError` with the place of the mistake.
    """
    settings = configuration.settings
    data = load_data(configuration)
    parameters = _parameters(configuration, data)
    source = configuration.source
    free = parameters.free_names
    for name in settings.solver.profile:
        if name not in free:
            raise ConfigError(
                f"{source.where('solver.profile')}: no free parameter {name!r} to profile"
                f"{nearest(name, free)}"
            )
    weights = settings.solver.angle_weights
    if weights is not None and len(weights) != data.n_angles:
        raise ConfigError(
            f"{source.where('solver.angle_weights')}: solver.angle_weights has {len(weights)} "
            f"entries, the selected data have {data.n_angles} angles; give one for each"
        )
    try:
        scaling = choose_scaling(settings, data)
    except ModelError as error:
        raise ConfigError(f"{source.where('scaling')}: [scaling]: {error}") from error
    loss, decisions = _loss(settings, data)
    if settings.model.mode == "two_component" and "f2" not in settings.parameters:
        decisions += (
            "f2 is kept at the middle of the time window, since only f0·exp(−f1·f2) enters",
        )
    objective = two_time_objective(
        parameters,
        data,
        scaling.scaling,
        loss=loss,
        penalties=_penalties(configuration, data, parameters.model),
        angle_weights=None if weights is None else np.asarray(weights),
    )
    return Problem(
        data=data,
        objective=objective,
        scaling=scaling,
        solver=_solver(settings),
        recovery=Recovery(attempts=settings.solver.recovery),
        decisions=decisions,
        settings=settings,
    )


def quote_errors(fit: Fit, kind: str) -> Fit:
    """The fit with another of its covariances as the quoted one."""
    uncertainty = fit.uncertainty
    if kind == uncertainty.chosen:
        return fit
    if not np.all(np.isfinite(np.diagonal(getattr(uncertainty, kind)))):
        reason = f"solver.errors = {kind!r} is not finite here; {uncertainty.reason}"
        return dataclasses.replace(fit, uncertainty=dataclasses.replace(uncertainty, reason=reason))
    reason = f"solver.errors = {kind!r} was asked for"
    rows = tuple(row._replace(error=getattr(row, f"error_{kind}")) for row in fit.rows)
    return dataclasses.replace(
        fit, rows=rows, uncertainty=dataclasses.replace(uncertainty, chosen=kind, reason=reason)
    )
