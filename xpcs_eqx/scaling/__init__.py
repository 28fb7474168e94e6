"""Contrast and offset of each angle as linear maps of a few coefficients."""

from .index_map import IndexMap as IndexMap
from .index_map import index_map as index_map
from .mappers import CONTRAST_BOUNDS as CONTRAST_BOUNDS
from .mappers import OFFSET_BOUNDS as OFFSET_BOUNDS
from .mappers import AbstractScaling as AbstractScaling
from .mappers import Averaged as Averaged
from .mappers import Fixed as Fixed
from .mappers import Fourier as Fourier
from .mappers import Individual as Individual
from .mappers import fixed_averaged as fixed_averaged
from .start import auto_scaling as auto_scaling
from .start import auto_threshold as auto_threshold
from .start import quantile_scaling as quantile_scaling
