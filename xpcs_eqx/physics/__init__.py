"""Models of |c1|²: rates, their integrals, shear kernels, and the interface for new models."""

from .correlation import AbstractCorrelation as AbstractCorrelation
from .correlation import Features as Features
from .correlation import Pair as Pair
from .correlation import correlation_map as correlation_map
from .models import LaminarFlow as LaminarFlow
from .models import Static as Static
from .parameter import ParameterInfo as ParameterInfo
from .parameter import parameter as parameter
from .parameter import parameter_info as parameter_info
from .rates import AbstractRate as AbstractRate
from .rates import PowerLawRate as PowerLawRate
from .rates import Trapezoid as Trapezoid
from .rates import time_floor as time_floor
from .shear import AbstractShearKernel as AbstractShearKernel
from .shear import GapAveraged as GapAveraged
from .shear import Homodyne as Homodyne
from .sinc import sinc as sinc
from .sinc import sincos as sincos
