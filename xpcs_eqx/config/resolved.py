"""The configuration as it ran: every default in place."""

import os
from typing import Any

from ..parameters import ParameterMap, parameter_values
from .build import Problem
from .effects import without_unused
from .read import Configuration
from .source import PATHS
from .tables.solver import stopping_rule


def _without_none(value: Any) -> Any:
    # TOML has no null: what is not set is left out.
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value


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

    Paths are relative to `folder`, where the file will stand; each parameter has its own table.
    """
    given = configuration.settings
    dumped = _without_none(given.model_dump())
    # In the order in which a configuration is written by hand.
    settings = {key: dumped[key] for key in ("data", "joint") if key in dumped} | dumped
    settings["output"]["directory"] = "."
    settings["solver"] |= stopping_rule(given.solver)
    several = isinstance(settings["data"], list)
    tables = settings["data"] if several else [settings["data"]]
    for k, (table, part) in enumerate(zip(tables, configuration.parts, strict=True)):
        table["path"] = _relative(part.data_path, folder)
        if several:
            table["label"] = problem.labels[k]
            if not table["factors"]:
                del table["factors"]
            if "model" in table:
                table["model"] = part.settings.model.model_dump()
    # The starts that it led to stand in the tables of the parameters.
    settings["solver"].pop("start_from", None)
    for *names, last in PATHS:
        table = settings
        for name in names:
            table = table.get(name, {}) if isinstance(table, dict) else {}
        if names not in (["data"], ["output"]) and last in table:
            table[last] = _relative(configuration.source.absolute(table[last]), folder)
    modes = {choice.mode for choice in problem.scalings}
    if len(modes) == 1:
        settings["scaling"]["mode"] = modes.pop()
    if given.several:
        settings["joint"] = {"shared": list(problem.names.shared)}
    settings["parameters"] = _parameters(problem)
    return without_unused(given, settings)


def _parameters(problem: Problem) -> dict[str, Any]:
    """A table for each parameter of the fit."""
    whole, names = problem.parameters, problem.names
    values = parameter_values(whole.model)
    tied = {name for name, _ in whole.ties}
    out = {}
    for k, leaves in enumerate(names.leaves):
        for leaf in leaves:
            table, name = problem.given[k].get(leaf.name), names.public(k, leaf)
            if table is not None and table.tie is not None:
                # A tied parameter has nothing of its own but the tie.
                factor = 1.0 if table.factor is None else table.factor
                out[names.own(k, leaf)] = {"tie": table.tie, "factor": factor}
            elif name not in tied:
                out[name] = _held(whole, name, float(values[name]))
                if table is not None and table.scale is not None:
                    out[name]["scale"] = table.scale
    return out


def _held(parameters: ParameterMap, name: str, value: float) -> dict[str, Any]:
    """Start, freedom and bounds of a parameter that is not tied."""
    if name not in parameters.free_names:
        return {"start": value, "free": False}
    i = parameters.free_names.index(name)
    bounds = [float(parameters.lower[i]), float(parameters.upper[i])]
    return {"start": value, "free": True, "bounds": bounds}
