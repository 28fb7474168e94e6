"""What tells one file from another, whatever its name."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


def checksum_of(path: str) -> str:
    """SHA-256 of a file, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def no_checksum() -> str:
    """That of what is no file, or was not asked for."""
    return ""


@contextmanager
def checksum_beside(path: str) -> Iterator[Callable[[], str]]:
    """SHA-256 of a file, found while other work goes on, and waited for by who calls for it."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(checksum_of, path).result


def checksum_of_all(path: str, linked: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """SHA-256 of a file with those it links to, of which each is named in a remark."""
    own = checksum_of(path)
    if not linked:
        return own, ()
    sums = [(one, checksum_of(one)) for one in linked]
    together = hashlib.sha256("".join((own, *(one for _, one in sums))).encode()).hexdigest()
    remarks = [f"Read as well, as {path} links to it: {one}, sha256 {sha}." for one, sha in sums]
    return together, (f"The checksum is that of all files; sha256 of this one: {own}.", *remarks)
