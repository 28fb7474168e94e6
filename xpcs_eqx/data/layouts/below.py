"""Where in an HDF5 file a layout lies: in which of its groups, and what stands around these."""

import posixpath
from collections.abc import Iterator

from .hdf5 import Remarks
from .opened import Group

# Groups within groups that are looked at, and as many of them at most.
_DEEPEST, _LOOKED_AT = 5, 1000


def is_searched_in_part(file: Group) -> bool:
    """Whether a file has more groups than are looked at."""
    return len(file.below(_DEEPEST, _LOOKED_AT)) >= _LOOKED_AT


def groups_with(file: Group, *keys: str) -> tuple[str, ...]:
    """Paths of the groups that have something at all `keys`, wherever they lie."""
    below = file.below(_DEEPEST, _LOOKED_AT)
    return tuple(path for path, group in below if all(group.reach(key) is not None for key in keys))


def joined(group: str, key: str) -> str:
    """Path of what is at `key` of a group; that of the file itself is empty."""
    return posixpath.join(group, key)


def owner_of(path: str) -> str:
    """Path of the group that something lies in."""
    return path.rpartition("/")[0]


def enclosing(group: str) -> Iterator[str]:
    """Paths of a group and of those that it lies in, from the inside, up to the file itself."""
    while group:
        yield group
        group = owner_of(group)
    yield group


def around(file: Group, group: str, keys: tuple[str, ...], notes: Remarks) -> str:
    """The group, or the innermost one around it, that has one of the `keys`.

    Another than itself is remarked. It is the group itself where none has any.
    """
    for one in enclosing(group):
        there = next((key for key in keys if file.reach(joined(one, key)) is not None), None)
        if there is None:
            continue
        if one != group:
            notes.append(f"{group} has no {keys[0]}; {joined(one, there)}, around it, was taken.")
        return one
    return group
