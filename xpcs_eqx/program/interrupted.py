"""Checkpoints of the program: where they lie, and what is said when a fit ends early."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator

from ..checkpoint import Checkpoints
from ..errors import CheckpointError, ConfigError

log = logging.getLogger("xpcs_eqx.fit")

# Of checkpoints nobody asked for [s]: what is fitted faster never sees the disk.
QUIET_INTERVAL = 5.0
# Beside the states of a fit: finished shards of its posterior, and the sign that the results of the
# fit are written while its posterior is still to be sampled.
SHARDS, SAMPLING = "shards", "sampling"


def _left(checkpoints: Checkpoints) -> bool:
    """Whether an interrupted run left anything."""
    places = (os.path.join(checkpoints.folder, name) for name in (SHARDS, SAMPLING))
    return bool(checkpoints.paths()) or any(map(os.path.exists, places))


def mark_sampling(checkpoints: Checkpoints) -> None:
    """Note that the fit is finished and its results are written without a posterior."""
    os.makedirs(checkpoints.folder, exist_ok=True)
    with open(os.path.join(checkpoints.folder, SAMPLING), "w", encoding="utf-8") as stream:
        stream.write("the fit is finished, its posterior is not\n")


def was_sampling(checkpoints: Checkpoints | None) -> bool:
    """Whether the results there are those of a fit whose posterior was interrupted."""
    return checkpoints is not None and os.path.exists(os.path.join(checkpoints.folder, SAMPLING))


def clear_checkpoints(checkpoints: Checkpoints) -> None:
    """Remove what an interrupted run left."""
    shutil.rmtree(os.path.join(checkpoints.folder, SHARDS), ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(checkpoints.folder, SAMPLING))
    checkpoints.clear()


def checkpoints_of(
    wanted: bool | str, target: str, *, resume: bool, overwrite: bool
) -> Checkpoints | None:
    """Where the states of a fit go: a folder beside its results. `wanted` is `solver.checkpoint`.

    **Raises:** `ConfigError` for states of an interrupted fit that would be lost.
    """
    if wanted is False:
        if resume:
            raise ConfigError(
                "--resume needs a checkpoint, but solver.checkpoint is false; set it to true, or "
                "leave out --resume"
            )
        return None
    interval = QUIET_INTERVAL if wanted == "auto" else 0.0
    found = Checkpoints(f"{os.path.realpath(target)}.checkpoint", interval=interval)
    if _left(found) and not (resume or overwrite):
        raise ConfigError(
            f"{found.folder}: an interrupted fit left its checkpoint here; give --resume to go on "
            "with it, or --overwrite to start from the beginning"
        )
    return found


@contextlib.contextmanager
def explain_resume(checkpoints: Checkpoints | None) -> Iterator[None]:
    """Whoever ends a fit before its results are written is told how to go on."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} (--overwrite without --resume starts from the beginning)"
        ) from None
    except BaseException as error:
        if checkpoints is None or not _left(checkpoints):
            raise
        written = f"checkpoint written to {checkpoints.folder}; continue with --resume"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"interrupted; {written}") from None
        log.warning("%s", written)
        raise
