"""The hybrid streaming optimiser: tournament, warm-up and trust region, from any source."""

from ..files import Retry as Retry
from ..objective import Chunk as Chunk
from ..objective import VectorModel as VectorModel
from ..optimize import Telemetry as Telemetry
from ..optimize import WarmUp as WarmUp
from ..optimize import no_defences as no_defences
from ..optimize import relaxed_defences as relaxed_defences
from ..optimize import strict_defences as strict_defences
from ..search import Tournament as Tournament
from .optimiser import HybridOptimiser as HybridOptimiser
from .optimiser import aggressive as aggressive
from .optimiser import conservative as conservative
from .optimiser import default as default
from .optimiser import memory_optimised as memory_optimised
from .optimiser import scientific as scientific
from .sources import AbstractSource as AbstractSource
from .sources import ArraySource as ArraySource
from .sources import FactorySource as FactorySource
from .sources import HDF5Source as HDF5Source
from .sources import as_source as as_source
from .streamed import StreamedPoints as StreamedPoints
from .streamed import group_variances as group_variances
from .streamed import streamed_objective as streamed_objective
from .streamed import with_group_weights as with_group_weights
