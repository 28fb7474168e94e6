"""The configuration as it ran: every default in place."""

import os
from typing import Any

from ..optimize import TrustRegion
from ..parameters import ParameterMap, parameter_values
from .build import Problem
from .effects import without_unused
from .joint import JointProblem
from .read import Configuration, JointConfiguration
from .schema import Common
from .solving import stopping_rule
from .streaming import is_hybrid


def _without_none(value: Any) -> Any:
    # TOML has no null: what is not set is left out.
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value


def _common(settings: Common, solver: TrustRegion) -> dict[str, Any]:
    dumped = _without_none(settings.model_dump())
    # In the order in which a configuration is written by hand.
    out = {key: dumped[key] for key in ("data", "joint") if key in dumped} | dumped
    out["output"]["directory"] = "."
    if not is_hybrid(settings):
        out["solver"] |= stopping_rule(solver)
    return out


def _relative(path: str, folder: str) -> str:
    try:
        return os.path.relpath(path, os.path.abspath(folder))
    except ValueError:
        # Another drive: there is no relative path.
        return path


def resolved_settings(
    configuration: Configuration, problem: Problem, folder: str
) -> dict[str, Any]:
    """The settings with defaults filled in, so that they can be run again from `folder`.

    The data path is relative to `folder`, where the file will stand.
    """
    parameters = problem.objective.term.parameters
    settings = _common(configuration.settings, problem.solver)
    settings["data"]["path"] = _relative(configuration.data_path, folder)
    settings["scaling"]["mode"] = problem.scaling.mode
    _with_relative_shards(settings, configuration, folder)
    values = parameter_values(parameters.model)
    tied = {name for name, _ in parameters.ties}
    # What was said of all values at knots by one name stands at each of them below.
    known = set(parameters.names)
    settings["parameters"] = {k: v for k, v in settings["parameters"].items() if k in known}
    for name in parameters.names:
        table = settings["parameters"].setdefault(name, {})
        if name in tied:
            # A tied parameter has nothing of its own but the tie.
            settings["parameters"][name] = {"tie": table["tie"], "factor": table.get("factor", 1.0)}
        else:
            table.pop("bounds", None)
            table |= _held(parameters, name, float(values[name]))
    return without_unused(configuration.settings, settings)


def _with_relative_shards(
    settings: dict[str, Any], configuration: Configuration, folder: str
) -> None:
    shards = settings.get("bayes", {}).get("shards", {})
    if "folder" in shards:
        shards["folder"] = _relative(configuration.source.absolute(shards["folder"]), folder)


def _held(parameters: ParameterMap, name: str, value: float) -> dict[str, Any]:
    """Start, freedom and bounds of a parameter that is not tied."""
    if name not in parameters.free_names:
        return {"start": value, "free": False}
    i = parameters.free_names.index(name)
    bounds = [float(parameters.lower[i]), float(parameters.upper[i])]
    return {"start": value, "free": True, "bounds": bounds}


def resolved_joint_settings(
    configuration: JointConfiguration, problem: JointProblem, folder: str
) -> dict[str, Any]:
    """As `resolved_settings`, for several data sets; each parameter has a table of its own."""
    settings = _common(configuration.settings, problem.solver)
    whole, names = problem.objective.parameters.whole, problem.names
    several = isinstance(settings["data"], list)
    tables = settings["data"] if several else [settings["data"]]
    for k, (table, part) in enumerate(zip(tables, configuration.parts, strict=True)):
        table["path"] = _relative(part.data_path, folder)
        if several:
            table["label"] = names.labels[k]
            if not table["factors"]:
                del table["factors"]
            if "model" in table:
                table["model"] = part.settings.model.model_dump()
    modes = {choice.mode for choice in problem.scalings}
    if len(modes) == 1:
        settings["scaling"]["mode"] = modes.pop()
    settings["joint"] = {"shared": list(names.shared)}
    values = parameter_values(whole.model)
    tied = {name for name, _ in whole.ties}
    out = {}
    for k, leaves in enumerate(names.leaves):
        for leaf in leaves:
            table, name = problem.given[k].get(leaf.name), names.public(k, leaf)
            if table is not None and table.tie is not None:
                factor = 1.0 if table.factor is None else table.factor
                out[names.own(k, leaf)] = {"tie": table.tie, "factor": factor}
            elif name not in tied:
                out[name] = _held(whole, name, float(values[name]))
                if table is not None and table.scale is not None:
                    out[name]["scale"] = table.scale
    settings["parameters"] = out
    return without_unused(configuration.settings, settings)
