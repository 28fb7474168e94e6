"""States of long computations on disk, to go on from after an interruption."""

from ..fingerprint import file_identity as file_identity
from ..fingerprint import fingerprint as fingerprint
from ..fingerprint import identity as identity
from .checkpoints import Checkpoints as Checkpoints
from .checkpoints import to_resume as to_resume
from .stored import StoredCheckpoint as StoredCheckpoint
from .stored import read_stored as read_stored
from .stored import understood as understood
