"""Simulated maps: a model with Gaussian noise, or speckle patterns with photon counts."""

from ..physics import field_correlation as field_correlation
from .maps import mode_weights as mode_weights
from .maps import simulate as simulate
from .maps import simulate_speckle as simulate_speckle
from .maps import speckle_pixels as speckle_pixels
