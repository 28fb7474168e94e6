"""Settings with several data sets to objects: data, parameters, scalings, objective, solver."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data import TwoTimeData, load_joint, weighted
from ..errors import ConfigError, DataError, ModelError
from ..objective import CombinedObjective, relative_weights, two_time_objective
from ..objective.kernel.tiles import held_once
from ..objective.penalties import AbstractPenalty
from ..optimize import Recovery, TrustRegion
from .build import load_data, model_for, selection_of
from .joint_names import Names, shared_names, tables
from .joint_parameters import joint_parameters
from .models import rates_of
from .read import Configuration, JointConfiguration
from .scaling import Choice, choose_scaling
from .schema import Common, DataSet, Output, Parameter, SeveralQSettings
from .search import kept_by_bounds, refuse_search
from .solving import loss_of, penalties_of, residual_sd, solver_of
from .streaming import refuse_hybrid


@dataclass(frozen=True)
class JointProblem:
    """Everything a joint fit needs, and the decisions taken on the way, in words.

    `given` is what the tables say of the parameters of each data set.
    """

    data: tuple[TwoTimeData, ...]
    objective: CombinedObjective
    scalings: tuple[Choice, ...]
    names: Names
    given: tuple[dict[str, Parameter], ...]
    weights: tuple[float, ...]
    solver: TrustRegion
    recovery: Recovery
    decisions: tuple[str, ...]
    settings: Common

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return self.names.labels


def data_labels(configuration: JointConfiguration) -> tuple[str, ...]:
    """Names of the tables `[[data]]`: as given, else after the files where these differ, else 1, 2.

    **Raises:** `ConfigError` when two are equal.
    """
    parts = configuration.parts
    stems = [os.path.splitext(os.path.basename(part.data_path))[0].strip() for part in parts]
    usable = len(set(stems)) == len(stems) and not any(set(stem) & set("[]\"'") for stem in stems)
    out: list[str] = []
    for k, part in enumerate(parts):
        given = part.settings.data
        own = given.label if isinstance(given, DataSet) else None
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
    given = configuration.settings.data
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


def _loaded(
    configuration: JointConfiguration,
) -> tuple[tuple[Configuration, ...], tuple[str, ...], tuple[TwoTimeData, ...]]:
    """What is asked of each data set, its label, and the data."""
    parts, source = configuration.parts, configuration.source
    if isinstance(configuration.settings, SeveralQSettings):
        data = _every_q(parts[0])
        labels = tuple(f"{float(one.geometry.q):.6g}" for one in data)
        return parts * len(data), labels, data
    labels, loaded = data_labels(configuration), []
    for k, part in enumerate(parts):
        try:
            loaded.append(load_data(part))
        except DataError as error:
            raise DataError(f"{source.where(('data', str(k + 1)))}: {error}") from error
    return parts, labels, tuple(loaded)


def _weights(configuration: JointConfiguration, labels, data: Sequence[TwoTimeData]) -> np.ndarray:
    """Weight of the squared residuals of each data set.

    **Raises:** `ConfigError` when weights or sigma are given for some only.
    """
    source = configuration.source
    sets = [part.settings.data for part in configuration.parts]
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


def _refused(configuration: JointConfiguration) -> None:
    """Keys that mean nothing for several data sets."""
    solver, source = configuration.settings.solver, configuration.source
    refuse_search(configuration)
    if solver.angle_weights is not None:
        raise ConfigError(
            f"{source.where('solver.angle_weights')}: solver.angle_weights is for one data set; "
            "several have weight in their tables [[data]]"
        )
    streaming = configuration.settings.streaming.strategy
    if streaming in ("out_of_core", "hybrid"):
        raise ConfigError(
            f'{source.where("streaming.strategy")}: streaming.strategy = "{streaming}" is for one '
            "data set; several are fitted in memory"
        )
    if solver.method == "hybrid":
        raise ConfigError(
            f'{source.where("solver.method")}: solver.method = "hybrid" is for one data set; '
            "choose another method for several"
        )
    refuse_hybrid(configuration)
    if solver.profile:
        raise ConfigError(
            f"{source.where('solver.profile')}: there are no profile-likelihood intervals of a "
            "joint fit; leave solver.profile out"
        )
    output, default = configuration.settings.output, Output()
    for name in ("degeneracy", "diagnostics", "sequential"):
        asked = getattr(output, name)
        if asked is not False and asked != getattr(default, name):
            raise ConfigError(
                f"{source.where(f'output.{name}')}: output.{name} is for the fit of one data set, "
                "but several are fitted together here; leave it out, or run each data set by itself"
            )


def _penalties(settings: Common, names: Names, configuration) -> tuple[AbstractPenalty, ...]:
    """Smoothness of every rate of the joint fit once, by its names there."""
    out = {}
    for k, model in enumerate(names.models):
        publics = {leaf.name: names.public(k, leaf) for leaf in names.leaves[k]}
        follows = {leaf.name for leaf in names.leaves[k] if names.follows(k, leaf)}
        for penalty in penalties_of(settings, configuration.source, model):
            if not follows.issuperset(penalty.names):
                public = tuple(publics[name] for name in penalty.names)
                out[public] = dataclasses.replace(penalty, names=public)
    return tuple(out.values())


def _scaling(part: Configuration, label: str, data: TwoTimeData) -> Choice:
    try:
        return choose_scaling(part.settings, data)
    except ModelError as error:
        where = part.source.where("scaling")
        raise ConfigError(f"{where}: [scaling] of data set {label}: {error}") from error


def build_joint(configuration: JointConfiguration) -> JointProblem:
    """Load the data and make every object of the fit.

    **Raises:** `DataError`, `ConfigError`, `ModelError` with the place of the mistake.
    """
    settings, source = configuration.settings, configuration.source
    _refused(configuration)
    parts, labels, data = _loaded(configuration)
    weights = _weights(configuration, labels, data)
    times = [np.asarray(one.t, dtype=float) for one in data]
    # Knots of a rate that data sets share must be the same, so they span the times of all.
    every = np.unique(np.concatenate(times))
    rates = {name for part in parts for name in rates_of(part.settings.model.mode)}
    models = [model_for(part, every, rates) for part in parts]
    names = shared_names(settings.joint, models, labels, source)
    defaults, decisions = {}, ()
    if any(p.settings.model.mode == "two_component" for p in parts) and not any(
        name.partition("[")[0] == "f2" for name in settings.parameters
    ):
        # Only f0·exp(−f1·f2) enters; in the middle of the window f0 depends on f1 the least.
        defaults["f2"] = Parameter(start=0.5 * float(every[0] + every[-1]), free=False)
        decisions += (
            "f2 is kept at the middle of the time window, since only f0·exp(−f1·f2) enters",
        )
    factors = tuple(
        part.settings.data.factors if isinstance(part.settings.data, DataSet) else {}
        for part in parts
    )
    given = tables({**defaults, **settings.parameters}, names, source)
    parameters = joint_parameters(settings, names, given, factors, times, source)
    scalings = tuple(map(_scaling, parts, labels, data))

    def sd() -> float:
        """Standard deviation of the weighted residuals of all data sets."""
        own = np.array([residual_sd(one) for one in data])
        return float(np.sqrt(np.mean(weights * own**2)))

    loss, said = loss_of(settings, all(map(weighted, data)), sd)
    objective = two_time_objective(
        parameters,
        data,
        [choice.scaling for choice in scalings],
        weights=weights.tolist(),
        loss=loss,
        penalties=_penalties(settings, names, configuration),
    )
    return JointProblem(
        # The objective has a copy of maps in memory, which serves both.
        data=tuple(
            held_once(one, part.term.tiles) for one, part in zip(data, objective.parts, strict=True)
        ),
        objective=objective,
        scalings=scalings,
        names=names,
        given=given,
        weights=tuple(weights.tolist()),
        solver=solver_of(settings),
        recovery=Recovery(attempts=settings.solver.recovery),
        decisions=(*decisions, *kept_by_bounds(settings.parameters), *said),
        settings=settings,
    )
