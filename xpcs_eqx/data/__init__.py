"""Two-time maps: what they look like in memory, how files become maps."""

from .assemble import Sigma as Sigma
from .diagonal import AbstractDiagonal as AbstractDiagonal
from .diagonal import Basic as Basic
from .diagonal import Interpolation as Interpolation
from .diagonal import Statistical as Statistical
from .diagonal import TrimmedMean as TrimmedMean
from .diagonal import correct_diagonal as correct_diagonal
from .dictionary import from_dict as from_dict
from .geometry import DEFAULT_GAP as DEFAULT_GAP
from .geometry import Geometry as Geometry
from .load import LAYOUTS as LAYOUTS
from .load import load as load
from .load import load_joint as load_joint
from .noise import mad_sigma as mad_sigma
from .pooled import PooledData as PooledData
from .provenance import Provenance as Provenance
from .selection import Selection as Selection
from .two_time import TwoTimeData as TwoTimeData
from .write import write_aps_old as write_aps_old
from .write import write_aps_u as write_aps_u
from .write import write_npz as write_npz
from .write import write_nxxpcs as write_nxxpcs
from .write import write_own as write_own
