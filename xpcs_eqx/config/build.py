"""Settings to objects: data, models, parameters, scalings, objective, solver."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..data import (
    Provenance,
    joint_sizes,
    load_joint,
    map_size,
    open_stored_joint,
    weighted,
)
from ..defences import DefenceLayers
from ..errors import ConfigError, DataError
from ..objective import (
    CombinedObjective,
    MapTiles,
    TwoTimeObjective,
    relative_weights,
    two_time_objective,
)
from ..objective.kernel.tiles import held_once
from ..objective.penalties import AbstractPenalty
from ..optimize import Recovery, SinglePrecision, TrustRegion
from ..parameters import ParameterMap, SharedParameters
from ..search import AbstractStrategy
from .parameters import Names, merged_tables, parameters_of, shared_names, with_earlier_starts
from .read import Configuration
from .source import nearest
from .tables import Settings
from .tables.data import DataSet, Given, Joint, read_data, reading_of
from .tables.defences import layers_of
from .tables.model import Parameter, kept_by_bounds, kept_by_default, model_for, rates_of
from .tables.scaling import ChosenScaling, choose_scaling
from .tables.search import strategy_of
from .tables.solver import loss_of, penalties_of, preparations_of, residual_sd, solver_of
from .tables.streaming import Plan, plan_of

_T = TypeVar("_T")


@dataclass(frozen=True)
class Problem:
    """Everything a fit needs, and the decisions taken on the way, in words.

    One data set is a list of length one, without a label unless the file has `[[data]]`.

    - `names`: of the parameters of all data sets; `given`: what is said of each, by own name.
    - `weights`: of the squared residuals of each data set.
    """

    data: tuple[Given, ...]
    objective: TwoTimeObjective | CombinedObjective
    scalings: tuple[ChosenScaling, ...]
    names: Names
    given: Mapping[str, Parameter]
    weights: tuple[float, ...]
    plan: Plan
    solver: TrustRegion
    recovery: Recovery
    preparations: tuple[SinglePrecision, ...]
    decisions: tuple[str, ...]
    settings: Settings
    search: AbstractStrategy | None = None
    layers: DefenceLayers | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the data sets; one alone has an empty one."""
        return self.names.labels

    @property
    def provenance(self) -> Provenance | dict[str, Provenance]:
        """Where the data come from, by label where they have labels."""
        each = [one.provenance for one in self.data]
        return each[0] if self.names.alone else dict(zip(self.labels, each, strict=True))

    @property
    def parameters(self) -> ParameterMap:
        """All free parameters of the fit."""
        return self.objective.physical


def data_labels(configuration: Configuration) -> tuple[str, ...]:
    """Names of the tables `[[data]]`: as given, else after the files where these differ, else 1, 2.

    **Raises:** `ConfigError` when two are equal.
    """
    parts = configuration.parts
    stems = [os.path.splitext(os.path.basename(part.data_path))[0].strip() for part in parts]
    usable = len(set(stems)) == len(stems) and not any(set(stem) & set("[]\"'") for stem in stems)
    out: list[str] = []
    for k, part in enumerate(parts):
        own = part.data.label if isinstance(part.data, DataSet) else None
        label = own or (stems[k] if usable else str(k + 1))
        if label in out:
            raise ConfigError(
                f"{configuration.source.where(('data', str(k + 1), 'label'))}: the label {label!r} "
                f"is that of [[data]] {out.index(label) + 1} already; give each its own label"
            )
        out.append(label)
    return tuple(out)


def _every_q(configuration: Configuration) -> dict[str, Any]:
    """How each q of a file is read."""
    how = reading_of(configuration.data)
    # A list is found exactly, and a single one so as well unless a tolerance searches around it.
    single = how.pop("q")
    if single is not None:
        how["selection"] = dataclasses.replace(how["selection"], q=(single,))
    return how


def _each(configuration: Configuration, read: Callable[[Configuration], _T]) -> list[_T]:
    """What is read of each table of data; what is wrong is said with the number of the table."""
    out = []
    for k, part in enumerate(configuration.parts):
        try:
            out.append(read(part))
        except DataError as error:
            if not isinstance(configuration.settings.data, list):
                raise
            where = configuration.source.where(("data", str(k + 1)))
            raise DataError(f"{where}: {error}") from error
    return out


def _loaded(
    configuration: Configuration,
) -> tuple[Sequence[Given], tuple[str, ...], Plan]:
    """The data of all tables, their labels, and how they are kept.

    **Raises:** `DataError`, `ConfigError`, with the number of the table where there are several.
    """
    settings = configuration.settings
    if settings.several and not isinstance(settings.data, list):
        path, how = configuration.data_path, _every_q(configuration)
        plan = plan_of(configuration, joint_sizes(path, **how))
        read = open_stored_joint if plan.stored else load_joint
        every = read(path, checksum=True, **how)
        labels = tuple(f"{float(one.geometry.q):.6g}" for one in every)
        return every, labels, plan
    sizes = _each(configuration, lambda part: map_size(part.data_path, **reading_of(part.data)))
    if any(size.binned for size in sizes):
        _refuse_for_bins(configuration)
    plan = plan_of(configuration, sizes)
    data = _each(configuration, lambda part: read_data(part, plan.stored))
    return data, data_labels(configuration) if settings.several else ("",), plan


def _refuse_for_bins(configuration: Configuration) -> None:
    """Refuse what means over bins of age and lag cannot have.

    **Raises:** `ConfigError` with the place of the first such setting.
    """
    settings = configuration.settings
    asked = {
        "bayes": settings.bayes is not None,
        "streaming.strategy": settings.streaming.strategy == "out_of_core",
        "output.sequential": settings.output.sequential is not None,
        "output.g2_ages": settings.output.g2_ages is not None,
        "defences.shear_weights": settings.defences is not None
        and settings.defences.shear_weights is not None,
    }
    for key in (key for key, yes in asked.items() if yes):
        raise ConfigError(
            f"{configuration.source.where(key)}: {key} is for maps of two times, and the data are "
            "means over bins of age and lag, which are fitted by least squares as a whole; leave "
            "it out"
        )


def _weights(
    configuration: Configuration,
    data: Sequence[Given],
    labels: tuple[str, ...],
) -> np.ndarray:
    """Weight of the squared residuals of each data set.

    **Raises:** `ConfigError` when weights or sigma are given for some only.
    """
    if labels == ("",):
        return np.ones(1)
    source = configuration.source
    sets = [part.data for part in configuration.parts]
    given = [one.weight if isinstance(one, DataSet) else None for one in sets]
    if all(weight is not None for weight in given):
        return np.asarray(given, dtype=float)
    if any(weight is not None for weight in given):
        k = given.index(None)
        raise ConfigError(
            f"{source.where(('data', str(k + 1)))}: data.{k + 1}.weight is missing, and other data "
            "sets have one; give weight in every table [[data]] or in none"
        )
    known = [one.absolute_sigma for one in data]
    if any(known) and not all(known):
        k = known.index(False)
        those = ", ".join(name for name, yes in zip(labels, known, strict=True) if yes)
        raise ConfigError(
            f"{source.where(('data', str(k + 1)))}: sigma is known for {those}, but not for "
            f"{labels[k]}, so that they cannot be weighed against each other; give data.{k + 1}."
            'sigma, or sigma = "mad" in every table [[data]], or weight in every one'
        )
    try:
        return relative_weights(data)
    except DataError as error:
        raise DataError(
            f"{source.path}: {error}; the keys are sigma and weight of [[data]]"
        ) from error


def _penalties(names: Names, configuration: Configuration) -> tuple[AbstractPenalty, ...]:
    """Smoothness of every rate once, by its names in the fit."""
    out = {}
    for k, model in enumerate(names.models):
        entries = {one.leaf.name: one for one in names.entries if one.k == k}
        for penalty in penalties_of(configuration.settings.rates, model, configuration.source):
            mine = [entries[name] for name in penalty.names]
            if not all(one.follows for one in mine):
                public = tuple(one.public for one in mine)
                out[public] = dataclasses.replace(penalty, names=public)
    return tuple(out.values())


def _scaling(part: Configuration, label: str, data: Given) -> ChosenScaling:
    with part.source.placed("scaling", "[scaling]" + (f" of data set {label}" if label else "")):
        return choose_scaling(part.settings, data)


def _angle_weights(part: Configuration, k: int, n_angles: int) -> np.ndarray | None:
    """Weights of the angles of data set k: its own, else those that are given for all.

    **Raises:** `ConfigError` for another number of them than there are angles.
    """
    own = part.data.angle_weights if isinstance(part.data, DataSet) else None
    key = ("solver", "angle_weights") if own is None else ("data", str(k + 1), "angle_weights")
    weights = part.settings.solver.angle_weights if own is None else own
    if weights is None:
        return None
    if len(weights) != n_angles:
        which = f" of data set {k + 1}" if isinstance(part.data, DataSet) else ""
        raise ConfigError(
            f"{part.source.where(key)}: {'.'.join(key)} has {len(weights)} entries, the selected "
            f"data{which} have {n_angles} angles; give one for each"
        )
    return np.asarray(weights)


def build(configuration: Configuration) -> Problem:
    """Load the data and make every object of the fit.

    **Raises:** `DataError`, `ConfigError`, `ModelError` with the place of the mistake.
    """
    settings, source = configuration.settings, configuration.source
    data, labels, plan = _loaded(configuration)
    # Several q of one file have one table.
    parts = configuration.parts * (len(data) // len(configuration.parts))
    weights = _weights(configuration, data, labels)
    times = [np.asarray(one.t, dtype=float) for one in data]
    # Knots of a rate that data sets share must be the same, so they span the times of all.
    every = np.unique(np.concatenate(times))
    rates = list(dict.fromkeys(r for part in parts for r in rates_of(part.settings.model.mode)))
    models = [model_for(part, every, rates, one) for part, one in zip(parts, data, strict=True)]
    names = shared_names(settings.joint or Joint(), models, labels, source)
    kept, decisions = kept_by_default(parts, every)
    said = {**settings.parameters, **kept}
    factors = tuple(p.data.factors if isinstance(p.data, DataSet) else {} for p in parts)
    given = merged_tables(said, names, settings.model.mode, source)
    given, taken = with_earlier_starts(configuration, given, names)
    parameters = parameters_of(settings, names, said, given, factors, times, source)
    scalings = tuple(map(_scaling, parts, labels, data))

    def sd() -> float:
        """Standard deviation of the weighted residuals of all data sets."""
        own = np.array([residual_sd(one) for one in data])
        return float(np.sqrt(np.mean(weights * own**2)))

    loss, bends = loss_of(settings.solver, all(map(weighted, data)), sd)
    angle_weights = [
        _angle_weights(part, k, one.n_angles)
        for k, (part, one) in enumerate(zip(parts, data, strict=True))
    ]
    how: dict[str, Any] = {
        "loss": loss,
        "penalties": _penalties(names, configuration),
        "driver": plan.driver,
        "piece": plan.piece,
    }
    if isinstance(parameters, SharedParameters):
        how |= {"weights": weights.tolist(), "angle_weights": angle_weights}
        chosen = [one.scaling for one in scalings]
        objective = two_time_objective(parameters, data, chosen, **how)
        terms = [part.term for part in objective.parts]
    else:
        how["angle_weights"] = angle_weights[0]
        objective = two_time_objective(parameters, data[0], scalings[0].scaling, **how)
        terms = [objective.term]
    free = objective.physical.free_names
    for name in settings.solver.profile:
        if name not in free:
            raise ConfigError(
                f"{source.where('solver.profile')}: no free parameter {name!r} to profile"
                f"{nearest(name, free)}"
            )
    if settings.solver.bootstrap and not all(isinstance(one.tiles, MapTiles) for one in terms):
        raise ConfigError(
            f"{source.where('solver.bootstrap')}: it simulates whole maps in memory, and these "
            "data are points, or maps in a file; leave it out"
        )
    strategy, looked = strategy_of(settings, objective, source)
    return Problem(
        # The objective has a copy of maps in memory, which serves both.
        data=tuple(held_once(one, term.tiles) for one, term in zip(data, terms, strict=True)),
        objective=objective,
        scalings=scalings,
        names=names,
        given=given,
        weights=tuple(weights.tolist()),
        plan=plan,
        solver=solver_of(settings.solver),
        recovery=Recovery(attempts=settings.solver.recovery),
        preparations=preparations_of(settings.solver, objective, source),
        decisions=(
            *decisions,
            *taken,
            *bends,
            *kept_by_bounds(settings.parameters),
            *plan.decisions,
            *looked,
        ),
        settings=settings,
        search=strategy,
        layers=layers_of(configuration, objective),
    )
