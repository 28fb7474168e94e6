"""Posterior draws with names and diagnostics."""
import equinox as eqx
from typing import Any
class Posterior(eqx.Module):
    """tmp"""
    theta: Any
    per_angle: Any
    draws: Any
    step_size: Any
    metric: Any
    density: Any
    timings: Any = eqx.field(static=True)
    names: Any = eqx.field(static=True)
def posterior_of(density, theta, per_angle, draws, *, step_size, metric, fit, max_depth, notes, timings):
    return Posterior(theta, per_angle, draws, step_size, metric, density, timings, density.names)
