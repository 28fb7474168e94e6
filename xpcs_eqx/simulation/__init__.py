"""Simulated maps: a surface with independent noise, or speckle patterns with the true one."""

from ..physics import field_correlation as field_correlation
from .maps import mode_weights as mode_weights
from .maps import simulate as simulate
from .maps import simulate_speckle as simulate_speckle
from .maps import speckle_pixels as speckle_pixels
