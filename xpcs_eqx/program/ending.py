"""How a run of the program ends: exit codes, and what is said of whatever ended it."""

import errno
import os
import traceback

from ..errors import XPCSError

OK, DOUBTFUL, BAD_INPUT, INTERRUPTED, INTERNAL = range(5)

# What to do about an error of the system, by its number; of others, that the file is looked at.
_REMEDIES = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): "make room there, or write to another disk with "
    "--output",
    (errno.EACCES, errno.EPERM, errno.EROFS): "see who may read and write there, or give another "
    "folder with --output",
    (errno.EEXIST, errno.ENOTDIR): "a file stands where a folder is needed; rename it, or give "
    "another folder",
    (errno.ENAMETOOLONG,): "shorten the name",
    (errno.EMFILE, errno.ENFILE): "raise the number of open files (ulimit -n)",
}


def told(error: BaseException) -> tuple[int, str]:
    """The exit code for whatever ended a run, and what is said: the only place that decides."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, str(error) or "interrupted; nothing was written"
    if isinstance(error, XPCSError):
        return BAD_INPUT, f"error: {error}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return BAD_INPUT, (
            "error: the memory is used up; take fewer frames or angles (data.frames, "
            "data.phi_ranges), leave the maps in their file (streaming.strategy = "
            f'"out_of_core"), or take a larger machine ({error})'
        )
    if isinstance(error, OSError):
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        remedy = next(
            (text for numbers, text in _REMEDIES.items() if error.errno in numbers),
            "see that it is there and that its disk can be read and written",
        )
        return BAD_INPUT, f"error: {place}{error.strerror or error}; {remedy}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return INTERNAL, (
        f"internal error: {type(error).__name__}: {error} "
        f"({os.path.basename(frame.filename)}, line {frame.lineno}); run with -v for more"
    )
