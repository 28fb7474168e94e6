"""What tells one file from another, whatever its name."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

_BLOCK = 1 << 20  # bytes


def checksum_of(path: str, unwanted: Event | None = None) -> str:
    """SHA-256 of a file, read in blocks; an empty text once it is `unwanted`."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            if unwanted is not None and unwanted.is_set():
                return ""
            digest.update(block)
    return digest.hexdigest()


def no_checksum() -> str:
    """That of what is no file, or was not asked for."""
    return ""


@contextmanager
def checksum_beside(path: str) -> Iterator[Callable[[], str]]:
    """SHA-256 of a file, found while other work goes on, and waited for by who calls for it.

    Where that work fails or is interrupted it is given up.
    """
    unwanted = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(checksum_of, path, unwanted).result
        except BaseException:
            unwanted.set()
            raise


def checksum_of_all(path: str, own: str, linked: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """SHA-256 of a file, whose `own` is known, with those it links to, each named in a remark."""
    sums = [(one, checksum_of(one)) for one in linked]
    together = hashlib.sha256("".join((own, *(one for _, one in sums))).encode()).hexdigest()
    remarks = [f"Read as well, as {path} links to it: {one}, sha256 {sha}." for one, sha in sums]
    return together, (f"The checksum is that of all files; sha256 of this one: {own}.", *remarks)
