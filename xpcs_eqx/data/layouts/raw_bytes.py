"""What the bytes of a file say before HDF5 is asked: what it is, and texts of any length in it.

Texts are references of 16 bytes, length, address and number, into heaps. HDF5 makes room for the
length before it looks there, and runs for ever where it is close to 2^32, or where the objects of a
heap do not fill it.
"""

import mmap
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

_KINDS = (
    (b"\x1f\x8b", "it is packed by gzip: unpack it first"),
    (b"BZh", "it is packed by bzip2: unpack it first"),
    (b"\xfd7zXZ", "it is packed by xz: unpack it first"),
    (
        b"version https://git-lfs",
        "it is a pointer of Git LFS: get the file itself with git lfs pull",
    ),
    (b"MATLAB 5", "it is a MATLAB file of an older version: save it with -v7.3"),
    (b"\x80", "it is a pickle of Python: save its arrays with numpy.savez"),
    (b"<", "it is a web page or another XML document, such as the answer of a server"),
    (b"II*\0", "it is a TIFF image"),
    (b"MM\0*", "it is a TIFF image"),
)


def kind_of(path: str) -> str:
    """What a file is by its first bytes, in words; empty for what is not known."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(512)
    except OSError:
        # What HDF5 said of it is told then.
        return ""
    if not start:
        return "it is empty"
    known = [words for mark, words in _KINDS if start.startswith(mark)]
    if not known and start.isascii() and b"\0" not in start:
        known = ["it is text: save the numbers with numpy.save"]
    return "".join(known[:1])


# Part of a large file that is looked through, at its start and at its end [bytes].
_LOOKED_THROUGH = 64 * 2**20


def damaged_text(path: str, places: Iterable[int], count: int) -> int | None:
    """Place of a text that cannot be read, among `count` references at each of these places or in
    the heaps of a file; `None` when all can be followed."""
    wrong, size = _damaged_heap(*_as_it_is(path)), os.path.getsize(path)
    if wrong is not None:
        return wrong
    with open(path, "rb") as stream:
        for place in places:
            stream.seek(place)
            found = stream.read(16 * count)
            if any(_number(found, at, 4) > size for at in range(0, len(found), 16)):
                return place
    return None


def attribute_places(path: str, name: str) -> list[int]:
    """Where the values of all attributes of a name may begin in a file."""
    return _attribute_places(*_as_it_is(path), name)


def _parts(size: int) -> tuple[tuple[int, int], ...]:
    """Parts of a file that are looked through."""
    if size <= 2 * _LOOKED_THROUGH:
        return ((0, size),)
    return (0, _LOOKED_THROUGH), (size - _LOOKED_THROUGH, size)


def _found(content: Any, mark: bytes, size: int) -> Iterator[int]:
    for low, high in _parts(size):
        place = content.find(mark, low, high)
        while place >= 0:
            yield place
            place = content.find(mark, place + 1, high)


def _as_it_is(path: str) -> tuple[str, int, int]:
    """A file in the state in which it is: what was found in it holds as long as that stays."""
    state = os.stat(path)
    return os.path.realpath(path), state.st_size, state.st_mtime_ns


@lru_cache(maxsize=256)
def _attribute_places(path: str, size: int, changed: int, name: str) -> list[int]:
    del changed
    out, mark = [], name.encode() + b"\0"
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as all_:
        for place in _found(all_, mark, size):
            # Version 3 of the message has the encoding of the name before the name.
            for version, before, padded in ((1, 8, True), (2, 8, False), (3, 9, False)):
                head = all_[max(place - before, 0) : place]
                if len(head) < before or head[0] != version or _number(head, 2, 2) != len(mark):
                    continue
                sizes = [len(mark), _number(head, 4, 2), _number(head, 6, 2)]
                sizes = [-(-one // 8) * 8 if padded else one for one in sizes]
                # Others of the name may be of fixed length; class 9 is that of any length.
                kind = all_[place + sizes[0] : place + sizes[0] + 1]
                if kind and kind[0] & 15 == 9:
                    out.append(place + sum(sizes))
    return out


def _number(content: Any, at: int, n: int) -> int:
    return int.from_bytes(content[at : at + n], "little")


@lru_cache(maxsize=16)
def _damaged_heap(path: str, size: int, changed: int) -> int | None:
    """Where a global heap begins whose objects do not fill it; `None` when all are sound."""
    del changed
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as all_:
        heaps = _found(all_, b"GCOL\x01\x00\x00\x00", size)
        return next((place for place in heaps if not _sound_heap(all_, place, size)), None)


def _sound_heap(content: Any, place: int, size: int) -> bool:
    """Whether the objects of a global heap follow one another up to its end."""
    end, at = place + _number(content, place + 8, 8), place + 16
    if not at < end <= size:
        return False
    while at + 16 <= end:
        index, length = _number(content, at, 2), _number(content, at + 8, 8)
        # Object 0 is what is free and counts its own head.
        step = length if index == 0 else 16 + -(-length // 8) * 8
        if step < 16 or at + step > end:
            return False
        at += step
    return True
