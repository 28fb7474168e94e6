"""Results that are those of what is asked for already."""

import json
import os
from collections.abc import Mapping
from typing import Any

from ..checkpoint import Checkpoints
from ..config.resolved import resolved_settings
from ..files import to_json
from ..report import origins
from .task import Task


def finished(task: Task, target: str, checkpoints: Checkpoints | None) -> bool | None:
    """Whether the results in a folder are those of a task, and good; None when they are not its.

    A checkpoint that is younger than they are belongs to a fit that has begun after them.
    """
    try:
        with open(os.path.join(target, "provenance.json"), encoding="utf-8") as stream:
            found = json.load(stream)
            written = os.fstat(stream.fileno()).st_mtime_ns
        with open(os.path.join(target, "fit", "parameters.json"), encoding="utf-8") as stream:
            good = json.load(stream)["good"]
        same = _compared(found["configuration"], found["data"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Nothing there, or not by this program as it is now.
        return None
    left = [] if checkpoints is None else checkpoints.paths()
    if any(os.stat(path).st_mtime_ns > written for path in left):
        return None
    problem = task.problem
    data = [one.provenance for one in problem.data]
    known = data[0] if problem.names.alone else dict(zip(problem.labels, data, strict=True))
    settings = resolved_settings(task.configuration, problem, target)
    wanted = json.loads(to_json([settings, origins(known)]))
    return bool(good) if _compared(*wanted) == same else None


def _compared(settings: Mapping[str, Any], data: Any) -> Any:
    """What makes two fits the same, of settings and data: all but what is written of it."""
    return {name: table for name, table in settings.items() if name != "output"}, data
