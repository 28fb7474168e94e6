"""The results folder: complete or not there, and never a loss of an earlier one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ConfigError

# What stands at the top of a results folder; anything else was not written by a fit.
ENTRIES = ("fit", "plots", "bayes", "config.toml", "provenance.json")


def check_target(target: str, overwrite: bool, keep: tuple[str, ...] = ()) -> None:
    """Make sure before any work that results can be written to `target`.

    `keep` are files that must survive: an earlier folder that holds one is not replaced.

    **Raises:** `ConfigError` when something is there and `overwrite` is false, when it is no
    results folder, or when the place cannot be written to.
    """
    target = os.path.realpath(target)
    if os.path.lexists(target):
        if not os.path.isdir(target):
            raise ConfigError(f"{target}: a file is in the place of the results folder; rename it")
        strange = sorted(set(os.listdir(target)) - set(ENTRIES))
        if strange:
            raise ConfigError(
                f"{target}: holds {', '.join(strange[:4])}, which no fit wrote, so it is not "
                "replaced; give another folder with --output"
            )
        if os.listdir(target) and not overwrite:
            raise ConfigError(
                f"{target}: results are already there; give --overwrite to replace them, or another"
                " folder with --output"
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
def new_results(target: str, overwrite: bool) -> Iterator[str]:
    """A folder beside `target` to write into; it takes the place of `target` at the end.

    When anything is raised inside, interrupts included, it is removed and `target` stays as it
    was. An earlier result is moved aside, replaced, and only then deleted.

    **Raises:** `ConfigError` as `check_target`.
    """
    check_target(target, overwrite)
    target = os.path.realpath(target)
    parent, name = os.path.split(target)
    os.makedirs(parent, exist_ok=True)
    fresh = os.path.join(parent, f".{name}.new-{os.getpid()}")
    old = os.path.join(parent, f".{name}.old-{os.getpid()}")
    os.mkdir(fresh)
    try:
        yield fresh
        check_target(target, overwrite)
        if os.path.isdir(target):
            os.rename(target, old)
        os.rename(fresh, target)
    except BaseException:
        if os.path.isdir(old) and not os.path.lexists(target):
            os.rename(old, target)
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    finally:
        if os.path.isdir(target):
            shutil.rmtree(old, ignore_errors=True)
