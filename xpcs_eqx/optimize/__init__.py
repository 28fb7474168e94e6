"""Solvers: a bounded trust region on Optimistix pieces, as one machine for every loop."""

from .convergence import Closeness as Closeness
from .convergence import Convergence as Convergence
from .convergence import Tried as Tried
from .convergence import closeness as closeness
from .loops import evaluated as evaluated
from .loops import initial_state as initial_state
from .loops import iterate_compiled as iterate_compiled
from .loops import iterate_host as iterate_host
from .loops import lower_iteration as lower_iteration
from .metric import AbstractMetric as AbstractMetric
from .metric import JacobianMetric as JacobianMetric
from .metric import NaturalMetric as NaturalMetric
from .minimiser import TrustRegionMinimiser as TrustRegionMinimiser
from .minimiser import value_and_equations as value_and_equations
from .recovery import Recovery as Recovery
from .recovery import at_bound as at_bound
from .search import NielsenSearch as NielsenSearch
from .search import NielsenState as NielsenState
from .search import default_search as default_search
from .status import Status as Status
from .trust_region import History as History
from .trust_region import TrustRegion as TrustRegion
from .trust_region import TrustRegionState as TrustRegionState
from .trust_region import damped_newton as damped_newton
from .trust_region import dogleg as dogleg
from .trust_region import gauss_newton as gauss_newton
