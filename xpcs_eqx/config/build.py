"""Settings to objects: data, models, parameters, scalings, objective, solver."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import MapSize, StoredTwoTime, TwoTimeData, load_joint, map_size, weighted
from ..defences import DefenceLayers
from ..errors import ConfigError, DataError, ModelError
from ..objective import CombinedObjective, TwoTimeObjective, relative_weights, two_time_objective
from ..objective.kernel.tiles import held_once
from ..objective.penalties import AbstractPenalty
from ..optimize import Recovery, TrustRegion
from ..parameters import ParameterMap, SharedParameters
from ..search import AbstractStrategy
from .parameters import Names, parameters_of, shared_names, tables, with_earlier_starts
from .read import Configuration
from .source import nearest
from .tables import Settings
from .tables.data import DataSet, Joint, load_data, open_data, reading_of, selection_of
from .tables.defences import layers_of
from .tables.model import Parameter, kept_by_bounds, model_for, rates_of
from .tables.scaling import ChosenScaling, choose_scaling
from .tables.search import strategy_of
from .tables.solver import loss_of, penalties_of, residual_sd, solver_of
from .tables.streaming import Plan, plan_of


@dataclass(frozen=True)
class Problem:
    """Everything a fit needs, and the decisions taken on the way, in words.

    One data set is a list of length one, without a label unless the file has `[[data]]`.

    - `names`: of the parameters of all data sets; `given`: what the tables say of those of each.
    - `weights`: of the squared residuals of each data set.
    """

    data: tuple[TwoTimeData | StoredTwoTime, ...]
    objective: TwoTimeObjective | CombinedObjective
    scalings: tuple[ChosenScaling, ...]
    names: Names
    given: tuple[dict[str, Parameter], ...]
    weights: tuple[float, ...]
    plan: Plan
    solver: TrustRegion
    recovery: Recovery
    decisions: tuple[str, ...]
    settings: Settings
    search: AbstractStrategy | None = None
    layers: DefenceLayers | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the data sets; one alone has an empty one."""
        return self.names.labels

    @property
    def of_one(self) -> TwoTimeObjective:
        """The objective where there is one data set, for what does not take several."""
        assert not isinstance(self.objective, CombinedObjective)
        return self.objective

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


def _every_q(configuration: Configuration) -> tuple[TwoTimeData, ...]:
    """One data set for each q of a file."""
    given = configuration.data
    if given.phi is not None:
        raise ConfigError(
            f"{configuration.source.where('data.phi')}: data.phi belongs to bare maps, which are "
            "at one q each; give a table [[data]] for each file"
        )
    # A list is found exactly, and a single one so as well unless a tolerance searches around it.
    q = tuple(given.q) if isinstance(given.q, list) else given.q
    exact = (q,) if isinstance(q, float) and given.q_tolerance is None else q
    return load_joint(
        configuration.data_path,
        layout=given.layout,
        selection=selection_of(given, exact),
        dt=given.dt,
        gap=given.gap,
        sigma=given.sigma,
    )


@dataclass(frozen=True)
class _Loaded:
    """What is asked of each data set, its label, the data, and how they are kept."""

    parts: tuple[Configuration, ...]
    labels: tuple[str, ...]
    data: tuple[TwoTimeData | StoredTwoTime, ...]
    plan: Plan


@contextmanager
def _numbered(configuration: Configuration, k: int) -> Iterator[None]:
    """What is wrong with the data of a table `[[data]]` is said with its number."""
    try:
        yield
    except DataError as error:
        if not isinstance(configuration.settings.data, list):
            raise
        raise DataError(f"{configuration.source.where(('data', str(k + 1)))}: {error}") from error


def _loaded(configuration: Configuration) -> _Loaded:
    """The data of all tables.

    **Raises:** `DataError`, `ConfigError`, with the number of the table where there are several.
    """
    parts, settings, sizes, data = configuration.parts, configuration.settings, [], []
    if settings.several and not isinstance(settings.data, list):
        every = _every_q(configuration)
        labels = tuple(f"{float(one.geometry.q):.6g}" for one in every)
        sizes = [
            MapSize(one.c2.size, one.c2.itemsize, one.n_angles, np.asarray(one.t), False)
            for one in every
        ]
        return _Loaded(parts * len(every), labels, every, plan_of(configuration, sizes))
    for k, part in enumerate(parts):
        with _numbered(configuration, k):
            sizes.append(map_size(part.data_path, **reading_of(part.data)))
    plan = plan_of(configuration, sizes)
    for k, part in enumerate(parts):
        with _numbered(configuration, k):
            data.append(open_data(part) if plan.stored else load_data(part))
    labels = data_labels(configuration) if settings.several else ("",)
    return _Loaded(parts, labels, tuple(data), plan)


def _weights(configuration: Configuration, loaded: _Loaded) -> np.ndarray:
    """Weight of the squared residuals of each data set.

    **Raises:** `ConfigError` when weights or sigma are given for some only.
    """
    if loaded.labels == ("",):
        return np.ones(1)
    source, data, labels = configuration.source, loaded.data, loaded.labels
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
        publics = {leaf.name: names.public(k, leaf) for leaf in names.leaves[k]}
        follows = {leaf.name for leaf in names.leaves[k] if names.follows(k, leaf)}
        for penalty in penalties_of(configuration, model):
            if not follows.issuperset(penalty.names):
                public = tuple(publics[name] for name in penalty.names)
                out[public] = dataclasses.replace(penalty, names=public)
    return tuple(out.values())


def _scaling(part: Configuration, label: str, data: TwoTimeData | StoredTwoTime) -> ChosenScaling:
    try:
        return choose_scaling(part.settings, data)
    except ModelError as error:
        whose = f" of data set {label}" if label else ""
        raise ConfigError(f"{part.source.where('scaling')}: [scaling]{whose}: {error}") from error


def _check_profile(configuration: Configuration, free: Sequence[str]) -> None:
    for name in configuration.settings.solver.profile:
        if name not in free:
            raise ConfigError(
                f"{configuration.source.where('solver.profile')}: no free parameter {name!r} to "
                f"profile{nearest(name, free)}"
            )


def _angle_weights(part: Configuration, k: int, n_angles: int) -> np.ndarray | None:
    """Weights of the angles of data set k.

    **Raises:** `ConfigError` for another number of them than there are angles.
    """
    if isinstance(part.data, DataSet):
        key, weights = ("data", str(k + 1), "angle_weights"), part.data.angle_weights
    else:
        key, weights = ("solver", "angle_weights"), part.settings.solver.angle_weights
    if weights is not None and len(weights) != n_angles:
        raise ConfigError(
            f"{part.source.where(key)}: {'.'.join(key)} has {len(weights)} entries, the selected "
            f"data have {n_angles} angles; give one for each"
        )
    return None if weights is None else np.asarray(weights)


def build(configuration: Configuration) -> Problem:
    """Load the data and make every object of the fit.

    **Raises:** `DataError`, `ConfigError`, `ModelError` with the place of the mistake.
    """
    settings, source = configuration.settings, configuration.source
    loaded = _loaded(configuration)
    data, parts = loaded.data, loaded.parts
    weights = _weights(configuration, loaded)
    times = [np.asarray(one.t, dtype=float) for one in data]
    # Knots of a rate that data sets share must be the same, so they span the times of all.
    every = np.unique(np.concatenate(times))
    rates = list(dict.fromkeys(r for part in parts for r in rates_of(part.settings.model.mode)))
    models = [model_for(part, every, rates) for part in parts]
    names = shared_names(settings.joint or Joint(), models, loaded.labels, source)
    said, decisions = dict(settings.parameters), ()
    modes = [part.settings.model.mode for part in parts]
    if "two_component" in modes and "f2" not in {name.partition("[")[0] for name in said}:
        # Only f0·exp(−f1·f2) enters; in the middle of the window f0 depends on f1 the least.
        said["f2"] = Parameter(start=0.5 * float(every[0] + every[-1]), free=False)
        decisions += (
            "f2 is kept at the middle of the time window, since only f0·exp(−f1·f2) enters",
        )
    factors = tuple(p.data.factors if isinstance(p.data, DataSet) else {} for p in parts)
    said, taken = with_earlier_starts(configuration, said, names)
    given = tables(said, names, settings.model.mode, source)
    parameters = parameters_of(settings, names, given, factors, times, source)
    scalings = tuple(map(_scaling, parts, loaded.labels, data))

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
        "driver": loaded.plan.driver,
        "piece": loaded.plan.piece,
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
    _check_profile(configuration, objective.physical.free_names)
    return Problem(
        # The objective has a copy of maps in memory, which serves both.
        data=tuple(held_once(one, term.tiles) for one, term in zip(data, terms, strict=True)),
        objective=objective,
        scalings=scalings,
        names=names,
        given=given,
        weights=tuple(weights.tolist()),
        plan=loaded.plan,
        solver=solver_of(settings.solver),
        recovery=Recovery(attempts=settings.solver.recovery),
        decisions=(
            *decisions,
            *taken,
            *bends,
            *kept_by_bounds(settings.parameters),
            *loaded.plan.decisions,
        ),
        settings=settings,
        search=strategy_of(configuration, objective),
        layers=layers_of(configuration, objective),
    )
