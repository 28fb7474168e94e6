"""From an objective to a result: the local fit with recovery, error bars and a verdict."""

from .attempts import RecoveryAction as RecoveryAction
from .bands import Band as Band
from .bands import band as band
from .bands import limits as limits
from .curve_fit import CurveFit as CurveFit
from .curve_fit import curve_fit as curve_fit
from .diagnostics import Diagnostics as Diagnostics
from .diagnostics import diagnose as diagnose
from .fit import Fit as Fit
from .fit import ParameterRow as ParameterRow
from .fit import Quality as Quality
from .joint import JointFit as JointFit
from .joint_least_squares import joint_least_squares as joint_least_squares
from .least_squares import least_squares as least_squares
from .profile import ProfileInterval as ProfileInterval
from .profile import profile_interval as profile_interval
from .sharing import Sharing as Sharing
from .surfaces import RescaledSurface as RescaledSurface
from .surfaces import consistent_scaling as consistent_scaling
from .surfaces import rescaled_surface as rescaled_surface
