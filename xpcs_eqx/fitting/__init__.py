"""From an objective to a result: the local fit with recovery, error bars and a verdict."""

from .fit import Fit as Fit
from .fit import ParameterRow as ParameterRow
from .fit import Quality as Quality
from .fit import RecoveryAction as RecoveryAction
