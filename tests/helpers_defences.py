"""Small problems for the tests of defences, with what was compiled for them in common."""

from functools import cache

import numpy as np
from helpers import make_data, mapped, start_off

from xpcs_eqx.objective import projected_objective, two_time_objective
from xpcs_eqx.physics import LaminarFlow, PowerLawRate, Static

STATIC = Static(PowerLawRate(2e4, -0.3, 0.0))
# Slow enough, and of a shear small enough, for all angles to have their contrast determined.
SLOW = LaminarFlow(PowerLawRate(3e3, -0.1, 0.0), PowerLawRate(4e-4, 0.2, 0.0), 5.0)
HELD = ("D_offset", "gamma_dot_t_offset")
CONTRAST = np.array([0.2, 0.22, 0.17])


@cache
def static_data():
    return make_data(STATIC, n=21, contrast=CONTRAST, noise=0.003)


@cache
def slow_data():
    return make_data(SLOW, n=21, contrast=CONTRAST, noise=0.003)


@cache
def static_map():
    return mapped(start_off(STATIC, 1.2), static_data(), fixed=("D_offset",))


@cache
def slow_map():
    return mapped(start_off(SLOW, 1.2), slow_data(), fixed=HELD)


def projected(kind="static", **keywords):
    parameters, data = _of(kind)
    return projected_objective(parameters, data, **keywords)


def joint(kind="static", scaling=None, **keywords):
    parameters, data = _of(kind)
    return two_time_objective(parameters, data, scaling, **keywords, eliminate=False)


def _of(kind):
    return (static_map(), static_data()) if kind == "static" else (slow_map(), slow_data())
