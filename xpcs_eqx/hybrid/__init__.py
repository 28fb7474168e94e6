"""Streaming optimiser for any curve: normalise, warm up, Gauss–Newton, finalise."""

from .points import CHUNK as CHUNK
from .points import Chunk as Chunk
from .retry import Failure as Failure
from .retry import Outcome as Outcome
from .retry import Retry as Retry
from .sources import AbstractSource as AbstractSource
from .sources import ArraySource as ArraySource
from .sources import FactorySource as FactorySource
from .sources import HDF5Source as HDF5Source
from .sources import as_source as as_source
from .sources import source_fingerprint as source_fingerprint
from .telemetry import Event as Event
from .telemetry import Telemetry as Telemetry
