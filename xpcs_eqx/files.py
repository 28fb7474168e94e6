"""Files written whole or not at all, read again when that failed, and JSON in them."""

import errno
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np

from .arguments import check_fields
from .errors import DataError

PARTIAL = ".part-"
T = TypeVar("T")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """A temporary name in the folder of `path`, moved onto it when the block ends well.

    The content is on the disk before the name is: what stands at `path` is the earlier file or the
    whole new one, whenever the process or the machine stops. After a failure an earlier file at
    `path` is untouched and the temporary one is gone; a process that is killed leaves the temporary
    one, whose name begins with `PARTIAL`.

    **Raises:** `DataError` when the folder does not exist, `OSError` of `path` when it cannot be
    written.
    """
    path = os.fspath(path)
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise DataError(f"{path}: the folder {folder} does not exist; create it first.")
    temporary = _partial(folder, os.path.basename(path))
    try:
        yield temporary
        to_disk(temporary, os.O_RDWR)
        os.replace(temporary, path)
    except BaseException as error:
        # An interrupt may come after the move, when nothing temporary is left.
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            raise OSError(error.errno, error.strerror, path) from error
        raise
    if os.name == "posix":
        # The new name is an entry of the folder, which has to reach the disk as well.
        to_disk(folder, os.O_RDONLY)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """A text into a file, in UTF-8, as of `replacing`."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text)


def _partial(folder: str, name: str) -> str:
    """A new empty file beside `name`, with the permissions that a plain open() gives it.

    Not of `tempfile`, whose files are private: what they would have been cannot be asked for
    without changing the mask of the whole process, other threads included.
    """
    while True:
        path = os.path.join(folder, f"{PARTIAL}{secrets.token_hex(8)}{name}")
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
            return path
        except FileExistsError:
            continue
        except OSError as error:
            # The name that is made up here says nothing to anybody.
            raise OSError(error.errno, error.strerror, os.path.join(folder, name)) from error


def to_disk(path: str, flags: int) -> None:
    """Wait until a file, or the names in a folder, are on the disk; `flags` as of `os.open`.

    Some file systems of networks cannot be asked that of a folder; there they decide themselves.
    """
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        unable = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
        if not (error.errno in unable and os.path.isdir(path)):
            raise
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


class Retry(eqx.Module):
    """How often a read that failed is tried again.

    - `attempts`: further attempts after the first.
    - `pause`: wait before the first of them [s], twice as long before each later one.
    """

    attempts: int = eqx.field(static=True, default=3)
    pause: float = eqx.field(static=True, default=0.0)

    __check_init__ = check_fields

    def run(
        self,
        read: Callable[[], T],
        failed: Callable[[Exception], None] | None = None,
        errors: tuple[type[Exception], ...] = (OSError,),
    ) -> T:
        """The value of `read()`, called again where it raises one of `errors`.

        `failed` hears of each of them, before the next attempt.

        **Raises:** the last of them when no attempt succeeded, and at once whatever else `read`
        raises.
        """
        failures = 0
        while True:
            try:
                return read()
            except errors as error:
                if failed is not None:
                    failed(error)
                if failures == self.attempts:
                    raise
                time.sleep(self.pause * 2**failures)
                failures += 1
