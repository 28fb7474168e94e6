"""Fits of two-time X-ray photon correlation maps, on JAX and Equinox.

Where to start:

    import jax
    import xpcs_eqx as xe

    jax.config.update("jax_enable_x64", True)  # the library never changes this for you
    data = xe.load("scan.hdf")                 # print(data) says what was read
    fit = xe.fit_maps(data, xe.Static)         # or xe.LaminarFlow, xe.physics.StretchedExponential
    print(fit)                                 # verdict, parameters with errors
    fit.plot().save("figures")                 # in a notebook fit.plot() shows them

Then, by task: `load`, `from_dict` (data); `Static`, `LaminarFlow`, `PowerLawRate` (models);
`fit_maps`, `least_squares`, `global_least_squares` (fits); `profile_interval` (errors); `simulate`
(data to try with); `sample` (posteriors). `dir(xe)` lists what most people need, and the packages
below have the rest: `xe.physics`, `xe.objective`, `xe.bayes`, ….
"""

# Before anything that takes long to import.
from . import starting as _starting  # noqa: F401, I001

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

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
from .errors import (
    CheckpointError,
    ConfigError,
    CovarianceWarning,
    DataError,
    FitError,
    ModelError,
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
from .showing import figures_of as _figures_of
from .simulation import simulate, simulate_speckle

__version__ = "0.1.0"

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
    "fit_maps",
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
    "XPCSError",
    "XPCSWarning",
]

# What few people need stays out of sight; it is there all the same, and in its package.
_SELDOM = {
    "CheckpointError",
    "CovarianceWarning",
    "DeviceMesh",
    "ExecutorSum",
    "HybridOptimiser",
    "Pair",
    "Recovery",
    "Status",
    "Tile",
    "Trapezoid",
    "consensus",
    "from_chunks",
    "with_values",
}
_PACKAGES = {
    "bayes",
    "data",
    "defences",
    "fitting",
    "objective",
    "optimize",
    "parameters",
    "physics",
    "report",
    "search",
    "simulation",
}


def __dir__() -> list[str]:
    return sorted({*__all__, *_PACKAGES, "__version__"} - _SELDOM)


# What not every program wants comes in when it is asked for: names by their packages.
_LATER = {
    "bayes": {"Nuts", "Posterior", "consensus", "sample", "write_posterior"},
    "defences": {"defended_least_squares"},
    "hybrid": {"HybridOptimiser"},
    "report": set[str](),
    "search": {"fit_maps", "global_least_squares"},
}

if _TYPE_CHECKING:
    # Known to type checkers, to which a `__getattr__` would make every name a known one.
    from . import bayes as bayes
    from . import defences as defences
    from . import hybrid as hybrid
    from . import report as report
    from . import search as search
    from .bayes import Nuts, Posterior, consensus, sample, write_posterior
    from .defences import defended_least_squares
    from .hybrid import HybridOptimiser
    from .search import fit_maps, global_least_squares
else:

    def __getattr__(name):
        if name in _LATER:
            return _import_module(f".{name}", __name__)
        for package, names in _LATER.items():
            if name in names:
                return getattr(_import_module(f".{package}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_no_figures = _figures_of.dispatch(object)


@_figures_of.register
def _(fit: Fit, names: tuple[str, ...] = ()):
    from .report.figures import figures_of_fit

    return figures_of_fit(fit, names)


@_figures_of.register(object)
def _(result: _Any, names: tuple[str, ...] = ()):
    from .bayes import Posterior
    from .report.figures import figures_of_posterior

    found = figures_of_posterior if isinstance(result, Posterior) else _no_figures
    return found(result, names)
