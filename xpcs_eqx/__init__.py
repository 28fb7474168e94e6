"""Fits of two-time X-ray photon correlation maps, on JAX and Equinox.

What most people need, by task; the packages below have the rest (`xpcs_eqx.physics`, `bayes`, …).
"""

from .bayes import Nuts as Nuts
from .bayes import Posterior as Posterior
from .bayes import consensus as consensus
from .bayes import sample as sample
from .bayes import write_posterior as write_posterior
from .checkpoint import Checkpoints as Checkpoints
from .data import Geometry as Geometry
from .data import Selection as Selection
from .data import Tile as Tile
from .data import TwoTimeData as TwoTimeData
from .data import from_chunks as from_chunks
from .data import from_dict as from_dict
from .data import load as load
from .data import load_joint as load_joint
from .data import open_stored as open_stored
from .defences import defended_least_squares as defended_least_squares
from .errors import CheckpointError as CheckpointError
from .errors import ConfigError as ConfigError
from .errors import CovarianceWarning as CovarianceWarning
from .errors import DataError as DataError
from .errors import FitError as FitError
from .errors import ModelError as ModelError
from .errors import PrecisionError as PrecisionError
from .errors import XPCSError as XPCSError
from .errors import XPCSWarning as XPCSWarning
from .fitting import Fit as Fit
from .fitting import curve_fit as curve_fit
from .fitting import diagnose as diagnose
from .fitting import fitted as fitted
from .fitting import least_squares as least_squares
from .fitting import profile_interval as profile_interval
from .fitting import with_values as with_values
from .hybrid import HybridOptimiser as HybridOptimiser
from .objective import Arctan as Arctan
from .objective import Cauchy as Cauchy
from .objective import DeviceMesh as DeviceMesh
from .objective import ExecutorSum as ExecutorSum
from .objective import Huber as Huber
from .objective import SoftL1 as SoftL1
from .objective import projected_objective as projected_objective
from .objective import residual as residual
from .objective import smoothness as smoothness
from .objective import two_time_objective as two_time_objective
from .optimize import Recovery as Recovery
from .optimize import Status as Status
from .optimize import TrustRegion as TrustRegion
from .optimize import WarmUp as WarmUp
from .parameters import parameter_map as parameter_map
from .parameters import parameter_values as parameter_values
from .parameters import shared_parameters as shared_parameters
from .parameters import with_parameters as with_parameters
from .physics import AbstractCorrelation as AbstractCorrelation
from .physics import AbstractRate as AbstractRate
from .physics import Features as Features
from .physics import LaminarFlow as LaminarFlow
from .physics import Pair as Pair
from .physics import PowerLawRate as PowerLawRate
from .physics import SplineRate as SplineRate
from .physics import Static as Static
from .physics import Trapezoid as Trapezoid
from .physics import TwoComponent as TwoComponent
from .physics import correlation_map as correlation_map
from .physics import parameter as parameter
from .scaling import Averaged as Averaged
from .scaling import Fixed as Fixed
from .scaling import Fourier as Fourier
from .scaling import Individual as Individual
from .search import global_least_squares as global_least_squares
from .simulation import simulate as simulate
from .simulation import simulate_speckle as simulate_speckle

# By task, not by letter.
__all__ = [  # noqa: RUF022
    # Data: from files, from memory.
    "Geometry",
    "Selection",
    "Tile",
    "TwoTimeData",
    "from_chunks",
    "from_dict",
    "load",
    "load_joint",
    "open_stored",
    # Models of the correlation, and how to write one.
    "AbstractCorrelation",
    "AbstractRate",
    "Features",
    "LaminarFlow",
    "Pair",
    "PowerLawRate",
    "SplineRate",
    "Static",
    "Trapezoid",
    "TwoComponent",
    "correlation_map",
    "parameter",
    # Parameters, contrast and offset.
    "Averaged",
    "Fixed",
    "Fourier",
    "Individual",
    "parameter_map",
    "parameter_values",
    "shared_parameters",
    "with_parameters",
    # Simulation.
    "simulate",
    "simulate_speckle",
    # What is minimised.
    "Arctan",
    "Cauchy",
    "Huber",
    "SoftL1",
    "projected_objective",
    "residual",
    "smoothness",
    "two_time_objective",
    # Fits.
    "Fit",
    "HybridOptimiser",
    "Recovery",
    "Status",
    "TrustRegion",
    "WarmUp",
    "curve_fit",
    "defended_least_squares",
    "fitted",
    "global_least_squares",
    "least_squares",
    "with_values",
    # After a fit.
    "diagnose",
    "profile_interval",
    # Long fits, and many cores or devices.
    "Checkpoints",
    "DeviceMesh",
    "ExecutorSum",
    # Posteriors.
    "Nuts",
    "Posterior",
    "consensus",
    "sample",
    "write_posterior",
    # What can go wrong.
    "CheckpointError",
    "ConfigError",
    "CovarianceWarning",
    "DataError",
    "FitError",
    "ModelError",
    "PrecisionError",
    "XPCSError",
    "XPCSWarning",
]
