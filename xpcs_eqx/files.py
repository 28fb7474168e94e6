"""Files written whole or not at all, and what is written into them as JSON."""

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import jax
import numpy as np

from .errors import DataError

PARTIAL = ".part-"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """A temporary name in the folder of `path`, moved onto it when the block ends well.

    The content is on the disk before the name is: what stands at `path` is the earlier file or the
    whole new one, whenever the process or the machine stops. After a failure an earlier file at
    `path` is untouched and the temporary one is gone; a process that is killed leaves the temporary
    one, whose name begins with `PARTIAL`.

    **Raises:** `DataError` when the folder does not exist.
    """
    path = os.fspath(path)
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise DataError(f"{path}: the folder {folder} does not exist; create it first.")
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=PARTIAL, suffix=os.path.basename(path))
    os.close(handle)
    try:
        yield temporary
        _to_disk(temporary, os.O_RDWR)
        # mkstemp makes private files; a result gets what a plain open() would have given it
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        # An interrupt may come after the move, when nothing temporary is left.
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if os.name == "posix":
        # The new name is an entry of the folder, which has to reach the disk as well.
        _to_disk(folder, os.O_RDONLY)


def _to_disk(path: str, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def strict(value: Any) -> Any:
    """Plain JSON types; numbers that JSON does not know (NaN, infinity) become null."""
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.ndarray | jax.Array):
        return strict(np.asarray(value).tolist())
    if isinstance(value, Sequence):
        return [strict(v) for v in value]
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def to_json(value: Any) -> str:
    """Strict JSON text."""
    return json.dumps(strict(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
