"""Global search: many starts, their basins, and what to try next."""

from .axes import AbstractAxis as AbstractAxis
from .axes import AsinhAxis as AsinhAxis
from .axes import LinearAxis as LinearAxis
from .axes import LogAxis as LogAxis
from .population import in_physical_variables as in_physical_variables
from .population import population_costs as population_costs
from .space import NormalisedSpace as NormalisedSpace
from .space import axis_for as axis_for
from .space import normalised_space as normalised_space
