"""Solvers: a bounded trust region on Optimistix pieces, as one machine for every loop."""

from .metric import AbstractMetric as AbstractMetric
from .metric import JacobianMetric as JacobianMetric
from .metric import NaturalMetric as NaturalMetric
from .minimiser import TrustRegionMinimiser as TrustRegionMinimiser
from .minimiser import value_and_equations as value_and_equations
from .recovery import Recovery as Recovery
from .recovery import at_bound as at_bound
from .status import Status as Status
from .trust_region import History as History
from .trust_region import TrustRegion as TrustRegion
from .trust_region import TrustRegionState as TrustRegionState
from .trust_region import damped_newton as damped_newton
from .trust_region import default_search as default_search
from .trust_region import dogleg as dogleg
from .trust_region import evaluated as evaluated
from .trust_region import gauss_newton as gauss_newton
from .trust_region import initial_state as initial_state
from .trust_region import iterate_compiled as iterate_compiled
from .trust_region import iterate_host as iterate_host
from .trust_region import lower_iteration as lower_iteration
