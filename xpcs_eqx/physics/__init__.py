"""Models of the decay |c1|²: rates of diffusion and shear, and how to write a new model."""

from .correlation import AbstractCorrelation as AbstractCorrelation
from .correlation import Circumstances as Circumstances
from .correlation import Degeneracy as Degeneracy
from .correlation import Features as Features
from .correlation import Pair as Pair
from .correlation import correlation_map as correlation_map
from .correlation import correlation_rows as correlation_rows
from .correlation import degeneracies as degeneracies
from .diffusion import AbstractShearKernel as AbstractShearKernel
from .diffusion import GapAveraged as GapAveraged
from .diffusion import Homodyne as Homodyne
from .diffusion import LaminarFlow as LaminarFlow
from .diffusion import Static as Static
from .field import field_correlation as field_correlation
from .field import field_factor as field_factor
from .knots import PiecewiseConstantRate as PiecewiseConstantRate
from .knots import PiecewiseLinearRate as PiecewiseLinearRate
from .knots import SignedSplineRate as SignedSplineRate
from .knots import SplineRate as SplineRate
from .knots import log_knots as log_knots
from .knots import uniform_knots as uniform_knots
from .leaves import ParameterInfo as ParameterInfo
from .leaves import as_inexact as as_inexact
from .leaves import constant as constant
from .leaves import is_constant as is_constant
from .leaves import parameter as parameter
from .leaves import parameter_info as parameter_info
from .rates import AbstractRate as AbstractRate
from .rates import ExponentialRate as ExponentialRate
from .rates import FunctionRate as FunctionRate
from .rates import PowerLawRate as PowerLawRate
from .rates import Trapezoid as Trapezoid
from .rates import time_floor as time_floor
from .relaxation import Ballistic as Ballistic
from .relaxation import Caged as Caged
from .relaxation import DoubleExponential as DoubleExponential
from .relaxation import StretchedExponential as StretchedExponential
from .trigonometry import sinc as sinc
from .trigonometry import sincos as sincos
from .two_component import TwoComponent as TwoComponent
from .two_component import soft_clip as soft_clip

# By the words that configurations and the program of simulations have for them.
MODELS: dict[str, type[AbstractCorrelation]] = {
    "static": Static,
    "laminar_flow": LaminarFlow,
    "two_component": TwoComponent,
    "stretched_exponential": StretchedExponential,
    "double_exponential": DoubleExponential,
    "ballistic": Ballistic,
    "caged": Caged,
}
