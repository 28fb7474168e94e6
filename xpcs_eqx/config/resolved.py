"""The configuration as it ran: every default in place."""

import os
from typing import Any

from ..parameters import parameter_values
from .build import Problem
from .read import Configuration


def _without_none(value: Any) -> Any:
    # TOML has no null: what is not set is left out.
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return value


def resolved_settings(
    configuration: Configuration, problem: Problem, folder: str
) -> dict[str, Any]:
    """The settings with defaults filled in, so that they can be run again from `folder`.

    The data path is relative to `folder`, where the file will stand.
    """
    settings = _without_none(configuration.settings.model_dump())
    solver, parameters = problem.solver, problem.objective.term.parameters
    folder = os.path.abspath(folder)
    try:
        settings["data"]["path"] = os.path.relpath(configuration.data_path, folder)
    except ValueError:
        # Another drive: there is no relative path.
        settings["data"]["path"] = configuration.data_path
    settings["output"]["directory"] = "."
    settings["scaling"]["mode"] = problem.scaling.mode
    for name in ("cost_tol", "step_tol", "gradient_tol", "max_evaluations"):
        settings["solver"][name] = getattr(solver, name)
    values = parameter_values(parameters.model)
    tied = {name for name, _ in parameters.ties}
    positions = {name: i for i, name in enumerate(parameters.free_names)}
    # What was said of all values at knots by one name stands at each of them below.
    known = set(parameters.names)
    settings["parameters"] = {k: v for k, v in settings["parameters"].items() if k in known}
    for name in parameters.names:
        table = settings["parameters"].setdefault(name, {})
        if name in tied:
            # A tied parameter has nothing of its own but the tie.
            settings["parameters"][name] = {"tie": table["tie"], "factor": table.get("factor", 1.0)}
            continue
        table["start"] = float(values[name])
        table["free"] = name in positions
        if name in positions:
            i = positions[name]
            table["bounds"] = [float(parameters.lower[i]), float(parameters.upper[i])]
        else:
            table.pop("bounds", None)
    return settings
