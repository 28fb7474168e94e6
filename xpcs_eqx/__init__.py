"""Fits of two-time X-ray photon correlation maps, on JAX and Equinox.

What most people need, by task; the packages below have the rest (`xpcs_eqx.physics`, `bayes`, …).
"""

# Before anything that takes long to import.
from . import starting as _starting  # noqa: F401, I001

from .bayes import Nuts, Posterior, consensus, sample, write_posterior
from .checkpoint import Checkpoints
from .compiling import compilation_cache
from .data import (
    Geometry,
    Selection,
    Tile,
    TwoTimeData,
    from_chunks,
    from_dict,
    load,
    load_joint,
    open_stored,
)
from .defences import defended_least_squares
from .errors import (
    CheckpointError,
    ConfigError,
    CovarianceWarning,
    DataError,
    FitError,
    ModelError,
    PrecisionError,
    XPCSError,
    XPCSWarning,
)
from .fitting import (
    Fit,
    curve_fit,
    diagnose,
    fitted,
    least_squares,
    maximum_likelihood,
    profile_interval,
    with_values,
)
from .hybrid import HybridOptimiser
from .objective import (
    Cauchy,
    DeviceMesh,
    ExecutorSum,
    Huber,
    SoftL1,
    projected_objective,
    smoothness,
    two_time_objective,
)
from .optimize import Recovery, Status, TrustRegion, WarmUp
from .parameters import parameter_map, parameter_values, shared_parameters, with_parameters
from .physics import (
    AbstractCorrelation,
    AbstractRate,
    Features,
    LaminarFlow,
    Pair,
    PowerLawRate,
    SplineRate,
    Static,
    Trapezoid,
    TwoComponent,
    correlation_map,
    parameter,
)
from .scaling import Averaged, Fixed, Fourier, Individual
from .search import global_least_squares
from .simulation import simulate, simulate_speckle

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
    "Cauchy",
    "Huber",
    "SoftL1",
    "projected_objective",
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
    "maximum_likelihood",
    "with_values",
    # After a fit.
    "diagnose",
    "profile_interval",
    # Long fits, many cores or devices, and many processes.
    "Checkpoints",
    "DeviceMesh",
    "ExecutorSum",
    "compilation_cache",
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
