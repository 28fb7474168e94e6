"""The place of a results folder: one program at a time, the earlier results or the whole new ones.

New results are written beside it, into `.NAME.new-PID`, and exchanged with what is there in one
step, where the system can do that. Where it cannot, the earlier ones are moved aside, to
`.NAME.old-PID`, before the new ones take their place; a program that is killed in between leaves
both of them whole, and the next one puts the earlier ones back. Whatever else a killed program
leaves, the next one removes.
"""

import ctypes
import logging
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import ConfigError
from ..files import to_disk

if sys.platform == "win32":
    import msvcrt

    # Far behind what the file says of its holder, which others read: Windows locks what is read.
    _LOCKED = 2**20

    def _lock(handle: int) -> None:
        """**Raises:** `BlockingIOError` when another process holds it."""
        os.lseek(handle, _LOCKED, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
        finally:
            os.lseek(handle, 0, os.SEEK_SET)

    def _free(handle: int, path: str) -> None:
        # What another one has opened meanwhile cannot be removed, and need not.
        os.close(handle)
        with suppress(OSError):
            os.unlink(path)
else:
    import fcntl

    def _lock(handle: int) -> None:
        """**Raises:** `BlockingIOError` when another process holds it."""
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _free(handle: int, path: str) -> None:
        # In this order: nobody else may lock a file that is about to go. One that stays is free.
        try:
            with suppress(OSError):
                os.unlink(path)
        finally:
            os.close(handle)


log = logging.getLogger(__name__)

# What stands at the top of a results folder; anything else was not written by a fit.
ENTRIES = ("fit", "plots", "bayes", "config.toml", "provenance.json")
# What is made of its name beside it must be a name as well.
_LONGEST = 220


def check_target(target: str, overwrite: bool, keep: tuple[str, ...] = (), whose: str = "") -> None:
    """Make sure before any work that results can be written to `target`.

    `keep` are files that must survive: an earlier folder that holds one is not replaced. `whose` is
    what is known of results that are there.

    **Raises:** `ConfigError` when something is there and `overwrite` is false, when it is no
    results folder, or when the place cannot be written to.
    """
    if "\0" in target or len(os.fsencode(os.path.basename(target))) > _LONGEST:
        raise ConfigError(
            f"{target[:_LONGEST]!r}: no folder can have such a name, or it is too long; give "
            f"another one, of up to {_LONGEST} characters, with --output"
        )
    target = os.path.realpath(target)
    if os.path.lexists(target):
        if not os.path.isdir(target):
            raise ConfigError(f"{target}: a file is in the place of the results folder; rename it")
        with _writing(target):
            there = os.listdir(target)
        strange = sorted(set(there) - set(ENTRIES))
        if strange:
            raise ConfigError(
                f"{target}: holds {', '.join(strange[:4])}, which no fit wrote, so it is not "
                "replaced; give another folder with --output"
            )
        if there and not overwrite:
            raise ConfigError(
                f"{target}: results are already there{whose}; give --overwrite to replace them, or "
                "another folder with --output"
            )
    for path in keep:
        if os.path.realpath(path).startswith(target + os.sep):
            raise ConfigError(
                f"{target}: the results folder would replace {path}, which is still needed; give "
                "another folder with --output"
            )
    parent = os.path.dirname(target)
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{target}: cannot be written, {parent} is not a writable folder")


@contextmanager
def _writing(target: str) -> Iterator[None]:
    """What the system refuses of a place is an error of that place."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written: {error.strerror or error}; give another folder with "
            "--output"
        ) from error


@contextmanager
def claimed(target: str) -> Iterator[None]:
    """Keep other programs from a results folder, and remove what killed ones have left beside it.

    A file beside it, `.NAME.lock`, is locked, and says who holds it. The system frees it when the
    process ends, however that ends.

    **Raises:** `ConfigError` when another program has it, and as `check_target`.
    """
    check_target(target, True)
    target = os.path.realpath(target)
    parent = os.path.dirname(target)
    missing = [parent]
    while not os.path.exists(missing[-1]):
        missing.append(os.path.dirname(missing[-1]))
    path, handle = _beside(target, "lock"), None
    try:
        with _writing(target):
            os.makedirs(parent, exist_ok=True)
            handle = _locked(path, target)
            _clear_up(target)
        yield
    finally:
        if handle is not None:
            _free(handle, path)
        for folder in missing[:-1]:
            # Only what is empty goes: a folder that was made for nothing.
            with suppress(OSError):
                os.rmdir(folder)


def _beside(target: str, ending: str) -> str:
    parent, name = os.path.split(target)
    return os.path.join(parent, f".{name}.{ending}")


def _locked(path: str, target: str) -> int:
    """An open file that is locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
        except BlockingIOError:
            holder = os.read(handle, 200).decode("utf-8", "replace").strip()
            os.close(handle)
            raise ConfigError(
                f"{target}: {holder or 'another program'} is writing these results; wait until it "
                "has ended, or give another folder with --output"
            ) from None
        except OSError as error:
            log.warning("%s: cannot be locked, %s; start no second fit here", target, error)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return handle
        # It belonged to a program that has just ended, and is gone.
        os.close(handle)


def _clear_up(target: str) -> None:
    """Remove what killed programs have left beside results; put back earlier ones set aside."""
    parent, name = os.path.split(target)
    left = re.compile(rf"\.{re.escape(name)}\.(?:new|old|gone)-\d+")
    found = [os.path.join(parent, one) for one in os.listdir(parent) if left.fullmatch(one)]
    for path in sorted(found, key=os.path.getmtime, reverse=True):
        if ".old-" in os.path.basename(path) and not os.path.lexists(target):
            os.rename(path, target)
            log.warning("%s: put back; a program was killed while it replaced them", target)
        else:
            _remove(path)


def _remove(path: str) -> None:
    """Remove a folder; what is left of it when that is cut short can be taken for no result."""
    gone = re.sub(r"\.(?:new|old)-(\d+)$", r".gone-\1", path)
    if gone != path:
        shutil.rmtree(gone, ignore_errors=True)
        with suppress(OSError):
            os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def new_results(target: str, overwrite: bool) -> Iterator[str]:
    """A folder beside `target` to write into; it takes the place of `target` at the end.

    When anything is raised inside, interrupts included, it is removed and `target` stays as it
    was. Earlier results are there until the new ones are, and only then deleted.

    **Raises:** `ConfigError` as `check_target`.
    """
    check_target(target, overwrite)
    target = os.path.realpath(target)
    fresh, old = (_beside(target, f"{word}-{os.getpid()}") for word in ("new", "old"))
    with _writing(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        # Of a process that had the same number and was killed.
        shutil.rmtree(fresh, ignore_errors=True)
        os.mkdir(fresh)
    try:
        yield fresh
        check_target(target, overwrite)
        for folder, _, names in os.walk(fresh):
            for name in names:
                to_disk(os.path.join(folder, name), os.O_RDWR)
        _put(fresh, target, old)
    finally:
        if not os.path.lexists(target) and os.path.isdir(old):
            os.rename(old, target)
        for path in (fresh, old):
            if os.path.lexists(path):
                _remove(path)


def _put(fresh: str, target: str, old: str) -> None:
    """Put a folder in the place of another one, which is set aside."""
    if not os.path.isdir(target):
        os.rename(fresh, target)
    elif not exchange(fresh, target):
        os.rename(target, old)
        os.rename(fresh, target)
    if os.name == "posix":
        to_disk(os.path.dirname(target), os.O_RDONLY)


def exchange(one: str, other: str) -> bool:
    """Exchange two folders in one step; false, and nothing done, where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and not rename(here, os.fsencode(one), here, os.fsencode(other), swap)
