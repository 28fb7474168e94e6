"""Settings to objects: data, model, parameters, scaling, objective, solver."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..data import (
    Selection,
    StoredTwoTime,
    TwoTimeData,
    load,
    map_size,
    open_stored,
    weighted,
)
from ..defences import DefenceLayers
from ..errors import ConfigError, ModelError
from ..fitting import Fit
from ..objective import JointObjective, ProjectedObjective, two_time_objective
from ..objective.kernel.tiles import held_once
from ..optimize import Recovery, TrustRegion
from ..parameters import ParameterMap, Proportional, Slope, parameter_map, with_parameters
from ..parameters.leaves import parameter_leaves
from ..physics import AbstractCorrelation
from ..search import AbstractStrategy
from .defences import layers_of
from .models import model_of, rates_of
from .read import Configuration
from .scaling import Choice, choose_scaling
from .schema import Data, Parameter, Settings
from .search import kept_by_bounds, strategy_of
from .solving import COORDINATES, loss_of, penalties_of, residual_sd, solver_of
from .source import nearest
from .streaming import Plan, plan_of


@dataclass(frozen=True)
class Problem:
    """Everything a fit needs, and the decisions taken on the way, in words."""

    data: TwoTimeData | StoredTwoTime
    objective: ProjectedObjective | JointObjective
    scaling: Choice
    plan: Plan
    solver: TrustRegion
    recovery: Recovery
    decisions: tuple[str, ...]
    settings: Settings
    search: AbstractStrategy | None = None
    layers: DefenceLayers | None = None


def selection_of(given: Data, q: float | tuple[float, ...] | None) -> Selection:
    """Which frames, azimuths and pairs a table of data asks for, at `q` [1/Å]."""
    first, last = given.frames or (1, -1)
    return Selection(
        start_frame=first,
        end_frame=last,
        time_origin=given.time_origin,
        q=q,
        q_tolerance=given.q_tolerance,
        phi_ranges=tuple((low, high) for low, high in given.phi_ranges),
        bad_frames=tuple(given.bad_frames),
        min_lag=given.min_lag,
        max_lag=given.max_lag,
        age_range=None if given.age_range is None else (given.age_range[0], given.age_range[1]),
    )


def _asked(configuration: Configuration) -> dict[str, Any]:
    """What a table of data asks of every way to read it."""
    given = configuration.settings.data
    q = tuple(given.q) if isinstance(given.q, list) else given.q
    # A single q must be in the file (to 1 %), or belongs to a bare map; a tolerance searches.
    single = q if isinstance(q, float) and given.q_tolerance is None else None
    return {
        "layout": given.layout,
        "selection": selection_of(given, q if single is None else None),
        "dt": given.dt,
        "gap": given.gap,
        "sigma": given.sigma,
        "q": single,
    }


def load_data(configuration: Configuration) -> TwoTimeData:
    """The data of a configuration in memory. **Raises:** `DataError`."""
    phi = configuration.settings.data.phi
    return load(configuration.data_path, phi=phi, **_asked(configuration))


def open_data(configuration: Configuration) -> StoredTwoTime:
    """The data of a configuration, left in their file.

    **Raises:** `DataError`; `ConfigError` for azimuths, which are stored with such maps.
    """
    if configuration.settings.data.phi is not None:
        raise ConfigError(
            f"{configuration.source.where('data.phi')}: data.phi belongs to bare maps (npy); the "
            "azimuths of maps that stay in their file are stored there: leave it out"
        )
    return open_stored(configuration.data_path, checksum=True, **_asked(configuration))


def model_for(
    configuration: Configuration, t: Float[np.ndarray, "frame"], known: Collection[str]
) -> AbstractCorrelation:
    """The model at its default start values, with knots inside the times `t` [s].

    `known` are the rates that the configuration may speak of.

    **Raises:** `ConfigError` for unknown rates and knots that do not make a rate.
    """
    settings = configuration.settings
    for name in settings.rates:
        if name not in known:
            raise ConfigError(
                f"{configuration.source.where(('rates', name))}: unknown rate {name!r} of mode "
                f"{settings.model.mode!r}{nearest(name, known, 'rates.')}"
            )
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


def _parameters(configuration: Configuration, data: TwoTimeData | StoredTwoTime) -> ParameterMap:
    settings = configuration.settings
    t = np.asarray(data.t, dtype=float)
    model = model_for(configuration, t, rates_of(settings.model.mode))
    known = [leaf.name for leaf in parameter_leaves(model)]
    given = _entries(settings.parameters, known)
    if settings.model.mode == "two_component" and "f2" not in given:
        # Only f0·exp(−f1·f2) enters; in the middle of the window f0 depends on f1 the least.
        given["f2"] = Parameter(start=0.5 * float(data.t[0] + data.t[-1]), free=False)
    for name in given:
        if name not in known:
            where = configuration.source.where(("parameters", name))
            raise ConfigError(
                f"{where}: unknown parameter {name!r} of mode {settings.model.mode!r}"
                f"{nearest(name, known, 'parameters.')}"
            )
    for name, parameter in given.items():
        if parameter.tie is None:
            continue
        where = configuration.source.where(("parameters", name, "tie"))
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
            None if physical else t,
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


def build(configuration: Configuration) -> Problem:
    """Load the data and make every object of the fit.

    **Raises:** `DataError`, `ConfigError`, `ModelError` with the place of the mistake.
    """
    settings = configuration.settings
    plan = plan_of(configuration, map_size(configuration.data_path, **_asked(configuration)))
    data = open_data(configuration) if plan.stored else load_data(configuration)
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
    loss, decisions = loss_of(settings, weighted(data), lambda: residual_sd(data))
    if settings.model.mode == "two_component" and "f2" not in settings.parameters:
        decisions += (
            "f2 is kept at the middle of the time window, since only f0·exp(−f1·f2) enters",
        )
    decisions += kept_by_bounds(settings.parameters)
    objective = two_time_objective(
        parameters,
        data,
        scaling.scaling,
        loss=loss,
        penalties=penalties_of(settings, source, parameters.model),
        angle_weights=None if weights is None else np.asarray(weights),
        driver=plan.driver,
        piece=plan.piece,
    )
    return Problem(
        # The objective has a copy of maps in memory, which serves both.
        data=held_once(data, objective.term.tiles),
        objective=objective,
        scaling=scaling,
        plan=plan,
        solver=solver_of(settings),
        recovery=Recovery(attempts=settings.solver.recovery),
        decisions=(*decisions, *plan.decisions),
        settings=settings,
        search=strategy_of(configuration, objective),
        layers=layers_of(configuration, objective),
    )


def quote_errors(fit: Fit, kind: str) -> Fit:
    """The fit, and each data set in it, with another of its covariances as the quoted one."""
    fit = dataclasses.replace(
        fit, data_sets=tuple(quote_errors(one, kind) for one in fit.data_sets)
    )
    uncertainty = fit.uncertainty
    if kind == uncertainty.chosen:
        return fit
    if not np.all(np.isfinite(np.diagonal(getattr(uncertainty, kind)))):
        reason = f"solver.errors = {kind!r} is not finite here; {uncertainty.reason}"
        return dataclasses.replace(fit, uncertainty=dataclasses.replace(uncertainty, reason=reason))
    reason = f"solver.errors = {kind!r} was asked for"
    rows = tuple(row._replace(error=getattr(row, f"error_{kind}")) for row in fit.rows)
    chosen = dataclasses.replace(uncertainty, chosen=kind, reason=reason)
    return dataclasses.replace(fit, rows=rows, uncertainty=chosen)
