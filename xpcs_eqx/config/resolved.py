"""The configuration as it ran: every default in place."""

import os
from typing import Any

from ..parameters import parameter_values
from .build import Problem
from .effects import without_unused
from .read import Configuration
from .tables import PATHS
from .tables.model import Parameter


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
    # TOML has no null: what is not set is left out.
    dumped = given.model_dump(exclude_none=True)
    # In the order in which a configuration is written by hand.
    settings = {key: dumped[key] for key in ("data", "joint") if key in dumped} | dumped
    settings["output"]["directory"] = "."
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
    whole, out = problem.parameters, {}
    values, free = parameter_values(whole.model), whole.free_names
    tied = {name for name, _ in whole.ties}
    for entry in problem.names.entries:
        table, name = problem.given.get(entry.own, Parameter()), entry.public
        if table.tie is not None:
            # A tied parameter has nothing of its own but the tie.
            factor = 1.0 if table.factor is None else table.factor
            out[entry.own] = {"tie": table.tie, "factor": factor}
        elif name not in tied:
            out[name] = {"start": float(values[name]), "free": name in free}
            if name in free:
                bounds = whole.lower[free.index(name)], whole.upper[free.index(name)]
                out[name]["bounds"] = [float(end) for end in bounds]
            if table.scale is not None:
                out[name]["scale"] = table.scale
    return out
