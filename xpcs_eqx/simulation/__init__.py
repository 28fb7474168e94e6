"""Simulated maps: a surface with independent noise, or speckle patterns with the true one."""

from ..physics import field_correlation as field_correlation
from .speckle import mode_weights as mode_weights
from .speckle import simulate_speckle as simulate_speckle
from .surface import simulate as simulate
