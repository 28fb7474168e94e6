"""What the tests of the library's entries call them with."""

import jax
import numpy as np
from helpers_data import two_time

import xpcs_eqx as xe

MODEL = xe.Static(xe.PowerLawRate(1.5e4, -0.3, 0.0))
T = 0.2 * np.arange(12)
PLACE = xe.Geometry(0.0054, [0.0])
KEY = jax.random.key(0)
DATA = two_time(phi=(0.0,), n=12)
MAP = xe.parameter_map(MODEL, T, fixed=("D_offset",))


def line(x, slope):
    return slope * x
