"""A fit with the layers of `[defences]`."""

from collections.abc import Callable
from typing import Any

from ..checkpoint import Checkpoints
from ..config.build import Problem
from ..defences import DefenceLayers, DefendedFit, defended_least_squares
from ..errors import ConfigError


def defended(
    problem: Problem,
    layers: DefenceLayers,
    *,
    callback: Callable[[Any], Any] | None = None,
    checkpoints: Checkpoints | None = None,
    every: int = 1,
    resume: bool = False,
) -> DefendedFit:
    """Fit with layers; no checkpoint is written of its rounds.

    **Raises:** `ConfigError` when one is to be resumed.
    """
    del checkpoints, every
    if resume:
        raise ConfigError(
            "a fit with [defences] runs in several rounds and leaves no checkpoint; run it again "
            "without --resume"
        )
    return defended_least_squares(
        problem.objective,
        layers,
        solver=problem.solver,
        recovery=problem.recovery,
        callback=callback,
    )
