"""Parameters: which are fitted, their names, bounds and ties, shared ones of several data sets."""

from .bijections import AbstractBijection as AbstractBijection
from .bijections import Affine as Affine
from .bijections import Identity as Identity
from .bijections import Log as Log
from .bijections import ReferenceAmplitude as ReferenceAmplitude
from .bijections import ReferenceTime as ReferenceTime
from .bijections import SignedSlope as SignedSlope
from .bijections import Slope as Slope
from .leaves import Proportional as Proportional
from .leaves import SavedValue as SavedValue
from .leaves import parameter_values as parameter_values
from .leaves import saved_values as saved_values
from .leaves import with_parameters as with_parameters
from .parameter_map import ParameterMap as ParameterMap
from .parameter_map import parameter_map as parameter_map
from .parameter_map import scale_from_bounds as scale_from_bounds
from .parameter_map import scale_from_start as scale_from_start
from .shared import SharedParameters as SharedParameters
from .shared import shared_parameters as shared_parameters
from .variables import AbstractVariables as AbstractVariables
from .variables import PlainVariables as PlainVariables
from .variables import box_of as box_of
from .variables import snap as snap
from .variables import unbounded as unbounded
