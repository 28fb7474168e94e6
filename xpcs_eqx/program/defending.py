"""A fit with the layers of `[defences]`."""

from collections.abc import Callable
from typing import Any

import numpy as np

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


def defence_line(layers: DefenceLayers | None) -> str:
    """The layers that will defend the fit, as a line of --check; empty without any."""
    if layers is None:
        return ""
    said = {}
    if layers.hierarchical is not None:
        one = layers.hierarchical
        last = "left there" if one.finish is None else "finished by the trust region"
        said["hierarchical"] = f"{one.outer} outer iterations at most, {last}"
    if layers.regularisation is not None:
        one = layers.regularisation
        groups = " and ".join(one.groups)
        said["regularisation"] = f"{type(one).__name__} of {groups}, λ = {one.weight:g}"
    if layers.monitoring is not None:
        watched = ", ".join(layers.monitoring.watched)
        said["monitor"] = type(layers.monitoring.response).__name__
        said["monitor"] += f", watching {watched}" if watched else ""
    if layers.shear_weights is not None:
        one = layers.shear_weights
        said["shear weights"] = f"from {one.minimum:g} across the flow, power {one.exponent:g}"
    if layers.group_variance is not None:
        groups = "; ".join(", ".join(group) for group in layers.group_variance.groups)
        weight = np.asarray(layers.group_variance.weight).item()
        said["group variance"] = f"{groups}, λ = {weight:g}"
    listed = "".join(f"\n    {name}: {text}" for name, text in said.items())
    return f"\n  defended in {layers.rounds} rounds at most by{listed}"
