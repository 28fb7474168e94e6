"""The checkpoints of one computation in one folder."""

import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import equinox as eqx
from jaxtyping import PyTree

from ..arguments import check_fields
from ..errors import CheckpointError
from ..files import PARTIAL
from ..fingerprint import fingerprint
from .stored import DamagedCheckpoint, StoredCheckpoint, read_stored, write_stored

log = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d{8,})\.h5")


class Checkpoints(eqx.Module):
    """A folder that keeps a long fit, to go on with it after an interruption.

    It has the last states of one computation; only one at a time may use it.

    - `folder`: made at the first writing.
    - `kind`: what was computing ("trust region"); `fingerprint`: which problem. Those of another
        kind or problem are refused.
    - `keep`: number of checkpoints that are kept; a damaged one has older ones behind it.
    - `interval`: shortest time between two writings [s], for whoever writes regularly.
    """

    folder: str = eqx.field(static=True, converter=os.fspath)
    kind: str = eqx.field(static=True, default="")
    fingerprint: str = eqx.field(static=True, default="")
    keep: int = eqx.field(static=True, default=3)
    interval: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        check_fields(self)
        if self.keep < 1:
            raise CheckpointError(f"keep = {self.keep}: at least one checkpoint must be kept")

    def belonging_to(self, kind: str, *problem: Any) -> "Checkpoints":
        """The same folder for a kind of computation on a problem, which `fingerprint` takes.

        A fingerprint given before goes into the new one.
        """
        mark = fingerprint(self.fingerprint, kind, *problem)
        return Checkpoints(self.folder, kind, mark, self.keep, self.interval)

    def paths(self) -> list[str]:
        """The files, oldest first, whether they can be read or not."""
        if not os.path.isdir(self.folder):
            return []
        found = [(int(m[1]), m[0]) for m in map(_NAME.fullmatch, os.listdir(self.folder)) if m]
        return [os.path.join(self.folder, name) for _, name in sorted(found)]

    def write(self, step: int, state: PyTree, extra: Mapping[str, Any] | None = None) -> str:
        """Write a state and forget the oldest; returns the path.

        **Arguments:**

        - `step`: grows as the computation goes on; the largest is the newest.
        - `state`: a pytree of arrays, random keys, numbers and strings. Functions in it are not
            stored: they come from the state that is given for reading.
        - `extra`: anything that JSON knows.

        **Raises:** `CheckpointError` for a leaf that cannot be stored, `TypeError` for an `extra`
        that is not JSON, `OSError` when the folder cannot be written to.
        """
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, f"checkpoint-{step:08d}.h5")
        write_stored(path, self.kind, self.fingerprint, step, state, extra or {})
        for old in self.paths()[: -self.keep]:
            os.unlink(old)
        return path

    def newest(self) -> StoredCheckpoint | None:
        """The newest good checkpoint, whose state is still to be restored; None without any.

        A damaged one is passed over with a warning when an older one is good.

        **Raises:** `CheckpointError` when none is good, or the newest good one is of another kind
        or problem or of a newer version.
        """
        damaged: list[DamagedCheckpoint] = []
        for path in reversed(self.paths()):
            try:
                found = read_stored(path, self.kind, self.fingerprint)
            except DamagedCheckpoint as error:
                damaged.append(error)
                continue
            for error in damaged:
                log.warning("%s. Continuing from %s", error, os.path.basename(path))
            return found
        if damaged:
            raise damaged[0]
        return None

    def clear(self) -> None:
        """Remove all checkpoints, and the folder when nothing else is in it."""
        if not os.path.isdir(self.folder):
            return
        # What a killed process left half written goes as well.
        halves = [
            os.path.join(self.folder, name)
            for name in os.listdir(self.folder)
            if name.startswith(PARTIAL)
        ]
        for path in (*self.paths(), *halves):
            os.unlink(path)
        with suppress(OSError):
            os.rmdir(self.folder)


def to_resume(checkpoints: Checkpoints | None, resume: bool) -> StoredCheckpoint | None:
    """The newest checkpoint when `resume` is asked for; None to start from the beginning.

    **Raises:** `CheckpointError` as `Checkpoints.newest`, for `resume` without checkpoints, and
    without `resume` for any checkpoint, which is the work of an earlier fit.
    """
    if checkpoints is None:
        if resume:
            raise CheckpointError("resume needs the checkpoints to go on from; give checkpoints=")
        return None
    if resume:
        found = checkpoints.newest()
        if found is None:
            log.warning("%s: no checkpoint, the fit starts from the beginning", checkpoints.folder)
        return found
    if paths := checkpoints.paths():
        raise CheckpointError(
            f"{checkpoints.folder}: holds {len(paths)} checkpoints of an interrupted fit, or of "
            "one that has finished; resume it, or remove them to start from the beginning"
        )
    return None
