"""Two-time maps: what they look like in memory, how files become maps."""

from .geometry import DEFAULT_GAP as DEFAULT_GAP
from .geometry import Geometry as Geometry
from .pooled import PooledData as PooledData
from .provenance import Provenance as Provenance
from .two_time import TwoTimeData as TwoTimeData
