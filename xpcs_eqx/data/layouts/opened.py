"""HDF5 files that are not trusted: every link is followed and every size checked in one place.

A reader sees groups and arrays of its own file, and of others only with consent. Whatever h5py
raises while anything is looked up or read becomes a `DataError` with the file and the HDF5 path.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError
from .raw_bytes import attribute_places, damaged_text, kind_of

if TYPE_CHECKING:
    import h5py

# h5py raises any of these for a file that is damaged or larger than what there is of it.
UNREADABLE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    MemoryError,
    OverflowError,
    IndexError,
    AttributeError,
    NotImplementedError,
    SystemError,
)
# Links to links that are followed, and arrays that are made of arrays.
_HOPS = 16
# A deflated zero takes about a thousandth of its size; nothing of use is packed more densely.
DENSEST = 1100
# Bytes that may be taken whatever the size of the file.
UNASKED = 64 * 2**20
_FILTERS = {
    4: "SZIP", 307: "bzip2", 32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle",
    32013: "zfp", 32015: "Zstandard", 32017: "SZ", 32026: "Blosc2",
}  # fmt: skip


@dataclass(frozen=True)
class Access:
    """What opening a file may do.

    - `linked_files`: files outside its folder may be read where it links to them.
    - `locking`: the file is locked while it is open, so that nobody writes it meanwhile.
    """

    linked_files: bool = False
    locking: bool = True


class UnreadableError(DataError):
    """What is there cannot be read now; it may be readable later."""


@contextmanager
def reading(where: str, key: str) -> Iterator[None]:
    """Turns what h5py raises while `key` is read into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            f"{where}: {_shown(key)} does not fit into memory ({_said(error)}). Take fewer frames "
            "or maps, or leave the maps in their file."
        ) from error
    except UNREADABLE as error:
        raise UnreadableError(
            f"{where}: reading stopped at {_shown(key)} inside the HDF5 file, which is truncated "
            f"or damaged ({_said(error)}). Copy it again."
        ) from error


def _said(error: BaseException) -> str:
    return _shown(str(error)) or type(error).__name__


def _shown(text: str) -> str:
    """The text as it can be printed: names in damaged files need not be UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def open_hdf5(path: str, access: Access = Access()) -> Iterator["Group"]:
    """The root group of a file opened for reading, with the files that it links to.

    **Raises:** `DataError` when it is no HDF5 file, locked, truncated or damaged.
    """
    with ExitStack() as stack:
        files = _Files(path, access, stack)
        yield Group(files, files.open(path), "")


class _Files:
    """A file and those that it links to, open together."""

    def __init__(self, path: str, access: Access, stack: ExitStack):
        self.path, self.access, self.stack = path, access, stack
        self.open_files: dict[str, Any] = {}
        # Other files of which something was read.
        self.linked: set[str] = set()
        self.unreached: dict[str, None] = {}
        self.walks: dict[tuple[str, int, int], tuple[tuple[str, Group], ...]] = {}

    def open(self, path: str) -> "h5py.File":
        real = os.path.realpath(path)
        if real not in self.open_files:
            file = _opened(path, self.access.locking)
            self.open_files[real] = self.stack.enter_context(file)
        return self.open_files[real]

    def beside(self, owner: str, name: str, key: str) -> str:
        """Path of another file that the file `owner` needs for `key`.

        **Raises:** `DataError` when it is missing, or outside the folder without consent.
        """
        # Where HDF5 looks: as the owner was named, and where it lies when that is a link.
        folders = [
            os.path.dirname(os.path.abspath(owner)),
            os.path.dirname(os.path.realpath(owner)),
        ]
        wanted = [os.path.join(folder, name) for folder in folders]
        there = [one for one in wanted if os.path.isfile(one)]
        home = os.path.realpath(os.path.dirname(os.path.realpath(self.path)))
        real = os.path.realpath(there[0] if there else wanted[0])
        outside = os.path.commonpath([home, real]) != home
        if outside and not self.access.linked_files:
            raise DataError(
                f"{self.path}: {_shown(key)} lies in another file, {_shown(name)}, outside the "
                "folder of this one, which is not read unasked. Allow it with linked_files=True "
                "(data.linked_files = true), or copy that file beside this one."
            )
        if not there:
            raise DataError(
                f"{self.path}: {_shown(key)} lies in another file, {_shown(name)}, which is not "
                f"there ({_shown(wanted[0])}). Copy it as well."
            )
        self.linked.add(real)
        return there[0]


def _opened(path: str, locking: bool) -> "h5py.File":
    import h5py

    try:
        # Unless it is turned off, HDF5 and its environment decide: not every disk can lock.
        return h5py.File(path, "r", locking=None if locking else False)
    except UNREADABLE as error:
        found = _said(error)
        if "unable to lock file" in found or isinstance(error, BlockingIOError):
            raise UnreadableError(
                f"{path}: the file is locked, most likely as another program is writing it "
                f"({found}). Wait for that, or read beside it with locking=False "
                "(data.locking = false)."
            ) from error
        if "consistency flags" in found or "already open for" in found:
            raise UnreadableError(
                f"{path}: the file is being written, or whoever wrote it did not close it "
                f"({found}). Wait, or clear the mark with `h5clear -s` of the HDF5 tools."
            ) from error
        if isinstance(error, PermissionError):
            raise UnreadableError(
                f"{path}: cannot be read ({found}); check the permissions."
            ) from error
        if isinstance(error, FileNotFoundError):
            raise UnreadableError(f"{path}: there is no such file; check the path.") from error
        if h5py.is_hdf5(path):
            raise UnreadableError(
                f"{path}: starts as an HDF5 file but cannot be opened, it is truncated, damaged or "
                f"still being written ({found}). Copy it again."
            ) from error
        raise UnreadableError(
            f"{path}: not an HDF5 file, {kind_of(path) or found}. Give an HDF5, NPZ or NPY file."
        ) from error


class _Member:
    """What a group and an array have in common."""

    def __init__(self, files: _Files, found: Any, key: str):
        self._files, self._found = files, found
        self.key = key

    @property
    def filename(self) -> str:
        """The file that was opened."""
        return self._files.path

    @property
    def linked(self) -> tuple[str, ...]:
        """Other files of which something was read so far."""
        return tuple(sorted(self._files.linked))

    def text(self, name: str) -> str | None:
        """An attribute as text, or `None` when it is absent.

        **Raises:** `DataError` when it cannot be read.
        """
        import h5py

        what = f"the attribute {name} of /{self.key}"
        with reading(self.filename, what):
            if not h5py.h5a.exists(self._found.id, name.encode()):
                return None
            stored = h5py.h5a.open(self._found.id, name.encode())
            kind, shape = stored.get_type(), stored.shape
            if shape is None:
                return None
            plain = (h5py.h5t.STRING, h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM)
            too_long = np.prod(shape, dtype=float) * kind.get_size() > 2**16
            if kind.get_class() not in plain or too_long:
                raise DataError(f"{self.filename}: {what} is no text; write it as one.")
            if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
                owner = self._found.file.filename
                places = attribute_places(owner, name)
                self._check_texts(what, damaged_text(owner, places, int(np.prod(shape))))
            texts = _texts(self._found.attrs[name])
            return texts[0] if texts else ""

    def _check_texts(self, what: str, wrong: int | None) -> None:
        if wrong is not None:
            raise DataError(
                f"{self.filename}: {what} cannot be read: the text at byte {wrong} of the HDF5 "
                "file is damaged. Copy it again."
            )

    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes.

        **Raises:** `DataError` when they cannot be read.
        """
        with reading(self.filename, f"the attributes of /{self.key}"):
            # h5py leaves a name that is no UTF-8 as bytes.
            names = tuple(self._found.attrs)
            return tuple(_decoded(one) if isinstance(one, bytes) else one for one in names)


def _texts(value: Any) -> tuple[str, ...]:
    """The texts in what is stored: one or an array of them, as text or bytes."""
    flat = np.asarray(value).reshape(-1)
    bytes_of = (one if isinstance(one, bytes) else _bytes(str(one)) for one in flat)
    return tuple(map(_decoded, bytes_of))


def _bytes(text: str) -> bytes:
    """Those of a text as stored; h5py escapes each that is not of UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _decoded(text: bytes) -> str:
    """UTF-8, or Latin-1 where it is none, in which older programs wrote Å and µ."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


class Group(_Member, Mapping[str, "Group | Array"]):
    """A group by its members; a key may be a path, with links on it."""

    def __getitem__(self, key: str) -> "Group | Array":
        found = self._follow(key, 0)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[str]:
        with reading(self.filename, f"/{self.key}"):
            names = list(self._found.id)
        for name in names:
            try:
                yield name.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{self.filename}: /{self.key} holds {name!r}, a name that is not UTF-8; the "
                    "file is damaged or of a foreign program. Rename it."
                ) from error

    def __len__(self) -> int:
        with reading(self.filename, f"/{self.key}"):
            return len(self._found)

    def __contains__(self, key: object) -> bool:
        return self.get(str(key)) is not None

    def get(self, key: str, default: Any = None) -> Any:
        found = self._follow(key, 0)
        return default if found is None else found

    def below(self, deepest: int, most: int) -> tuple[tuple[str, "Group"], ...]:
        """Groups below this one and their paths, those less deep first, each of them once.

        Links are followed from this group only, and named last: within others they may lead to
        files of which nothing is wanted, such as those of all frames. What cannot be told is left
        out, and the reasons are kept.

        `deepest`: groups within groups; `most`: as many are looked at, and as many behind links.
        """
        asked = self.key, deepest, most
        if asked not in self._files.walks:
            self._files.walks[asked] = tuple(self._walk(deepest, most))
        return self._files.walks[asked]

    def _walk(self, deepest: int, most: int) -> Iterator[tuple[str, "Group"]]:
        seen = set()
        own = dict(self._own_groups())
        linked = ((name, self.reach(name)) for name in self if name not in own)
        for level in (own.items(), linked):
            limit = len(seen) + most
            for _ in range(deepest):
                inner = []
                for path, found in level:
                    if not isinstance(found, Group) or len(seen) >= limit:
                        continue
                    # Of its file and its place there: links may lead to it by several paths.
                    identity = hash(found._found.id)
                    if identity not in seen:
                        seen.add(identity)
                        yield path, found
                        inner += [(f"{path}/{name}", one) for name, one in found._own_groups()]
                level = inner

    def _own_groups(self) -> Iterator[tuple[str, "Group"]]:
        """The groups in this one that no link leads to, by their names."""
        import h5py

        try:
            names = tuple(self)
        except DataError as error:
            self._files.unreached.setdefault(str(error))
            return
        for name in names:
            here, part, key = self._found.id, name.encode("utf-8"), f"{self.key}/{name}".lstrip("/")
            try:
                with reading(self.filename, f"/{key}"):
                    # One look, as there may be thousands of members; a link is none of these.
                    kind = h5py.h5g.get_objinfo(here, part, follow_link=False).type
                    if kind != h5py.h5g.GROUP:
                        continue
                    found = h5py.Group(h5py.h5g.open(here, part))
            except DataError as error:
                self._files.unreached.setdefault(str(error))
                continue
            yield name, Group(self._files, found, key)

    def reach(self, key: str) -> "Group | Array | None":
        """What is at a path, `None` as well where that cannot be told; the reasons are kept."""
        try:
            return self.get(key)
        except DataError as error:
            self._files.unreached.setdefault(str(error))
            return None

    @property
    def unreached(self) -> str:
        """Why some of what was looked for could not be reached."""
        return " ".join(self._files.unreached)

    def _follow(self, key: str, hops: int, depth: int = 0) -> "Group | Array | None":
        """What is at a path, link by link, so that no other file is opened unseen.

        `depth`: of arrays that are made of arrays.
        """
        import h5py

        here = self
        if key.startswith("/"):
            here = Group(self._files, self._found.file["/"], "")
        parts = [part for part in key.split("/") if part not in ("", ".")]
        for place, part in enumerate(parts):
            path = f"{here.key}/{part}".lstrip("/")
            rest = "/".join(parts[place + 1 :])
            with reading(self.filename, f"/{path}"):
                there, name = here._found, part.encode("utf-8")
                if not there.id.links.exists(name):
                    return None
                link = there.get(part, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    return here._linked(link, path, rest, hops, depth)
                kind = there.get(part, getclass=True)
                if kind is h5py.Dataset and not rest:
                    return Array(self._files, _dataset(there.id, name), path, depth)
                if kind is not h5py.Group:
                    return None
                here = Group(self._files, h5py.Group(h5py.h5g.open(there.id, name)), path)
        return here

    def _linked(
        self, link: Any, path: str, rest: str, hops: int, depth: int
    ) -> "Group | Array | None":
        """What a link that is no hard one leads to."""
        import h5py

        if hops == _HOPS:
            raise DataError(f"{self.filename}: the links at /{path} lead in a circle.")
        target, start, of = link.path, self, ""
        if isinstance(link, h5py.ExternalLink):
            beside = self._files.beside(self._found.file.filename, link.filename, f"/{path}")
            start, target = Group(self._files, self._files.open(beside), ""), f"/{target}"
            of = f" of {_shown(link.filename)}"
        found = start._follow(target, hops + 1, depth)
        if found is None:
            raise DataError(
                f"{self.filename}: /{path} is a link to {_shown(target)}{of}, where nothing is. "
                "Copy the file again, with the files it belongs to."
            )
        # Messages and provenance name things by where they are in the file that was opened.
        found.key = path
        if not rest:
            return found
        return found._follow(rest, hops + 1, depth) if isinstance(found, Group) else None


def _dataset(group: Any, name: bytes) -> "h5py.Dataset":
    """A dataset whose further files are looked for where it lies, not where the program runs."""
    import h5py

    found = h5py.h5d.open(group, name)
    create = found.get_create_plist()
    if create.get_external_count() or create.get_layout() == h5py.h5d.VIRTUAL:
        found.close()
        how = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        how.set_efile_prefix(b"${ORIGIN}")
        how.set_virtual_prefix(b"${ORIGIN}")
        found = h5py.h5d.open(group, name, how)
    return h5py.Dataset(found)


class Array(_Member):
    """A dataset, of which blocks are read; its size was checked against the file."""

    def __init__(self, files: _Files, found: Any, key: str, depth: int = 0):
        super().__init__(files, found, key)
        with reading(self.filename, f"/{key}"):
            if found.shape is None:
                raise DataError(f"{self.filename}: /{key} is empty (a null dataspace).")
            self.shape: tuple[int, ...] = found.shape
            self.dtype: np.dtype = found.dtype
            self._check_storage(depth)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def name(self) -> str:
        """HDF5 path."""
        return f"/{self.key}"

    def __getitem__(self, block: Any, /) -> Any:
        if self.dtype.kind not in "fiub":
            held = "texts" if self.dtype.kind in "SO" else f"{self.dtype} values"
            raise DataError(f"{self.filename}: {self.name} holds {held}; give real numbers.")
        return self._read(block)

    def _read(self, block: Any) -> Any:
        try:
            return self._entries(block)
        except DataError as error:
            if self._missing_filter() is not None:
                with suppress(ImportError):
                    # Installed it suffices that it is imported; its import takes a while.
                    import_module("hdf5plugin")
            if missing := self._missing_filter():
                raise DataError(
                    f"{self.filename}: {self.name} is compressed with filter {missing}, and the "
                    "plugin for it is not installed. Install it with pip install hdf5plugin and "
                    "start again."
                ) from error
            # It may have been another thread that has imported it meanwhile.
            return self._entries(block)

    def _entries(self, block: Any) -> Any:
        with reading(self.filename, self.name):
            return self._found[block]

    def words(self) -> tuple[str, ...]:
        """The texts that the dataset holds.

        **Raises:** `DataError` when it holds something else.
        """
        if self.dtype.kind not in "SO" or self.size * self.dtype.itemsize > 2**16:
            raise DataError(f"{self.filename}: {self.name} holds {self.dtype}; a text is needed.")
        if self.dtype.kind == "O":
            with reading(self.filename, self.name):
                place = self._found.id.get_offset()
                places = [] if place is None else [place]
                wrong = damaged_text(self._found.file.filename, places, self.size)
            self._check_texts(self.name, wrong)
        return _texts(self._read(()))

    def _missing_filter(self) -> str | None:
        """Number and name of a compression of this array that is not installed."""
        import h5py

        with reading(self.filename, self.name):
            steps = self._found.id.get_create_plist()
            for place in range(steps.get_nfilters()):
                number = steps.get_filter(place)[0]
                if not h5py.h5z.filter_avail(number):
                    return f"{number} ({_FILTERS.get(number, 'unknown')})"
        return None

    def _check_storage(self, depth: int) -> None:
        """Make sure that the entries are in files that may be read, and that there is room for so
        many of them.

        **Raises:** `DataError` otherwise.
        """
        import h5py

        where, found, owner = self.filename, self._found, self._found.file.filename
        create = found.id.get_create_plist()
        layout, n_bytes = create.get_layout(), self.size * self.dtype.itemsize
        if found.is_virtual:
            self._check_sources(owner, depth)
            return
        stored, end = found.id.get_storage_size(), os.path.getsize(owner)
        if create.get_external_count():
            names = [create.get_external(i)[0] for i in range(create.get_external_count())]
            beside = [self._files.beside(owner, os.fsdecode(one), self.name) for one in names]
            room = sum(os.path.getsize(one) for one in beside)
        elif layout == h5py.h5d.CHUNKED:
            chunk = create.get_chunk()
            whole = [-(-n // c) * c for n, c in zip(self.shape, chunk, strict=True)]
            n_bytes = max(
                int(np.prod(one, dtype=object)) * self.dtype.itemsize for one in (whole, chunk)
            )
            room = max(UNASKED, DENSEST * min(stored, end))
        else:
            # Nothing was ever written where no room is taken: the fill value stands for it.
            room = min(stored, end) if stored else UNASKED
        if n_bytes > room:
            raise DataError(
                f"{where}: {self.name} claims {n_bytes} bytes in shape {self.shape}, but {stored} "
                f"are stored and the file has {end}; it is truncated or damaged. Copy it again."
            )

    def _check_sources(self, owner: str, depth: int) -> None:
        """Make sure that everything a virtual dataset is made of is there."""
        if depth == _HOPS:
            raise DataError(f"{self.filename}: {self.name} is made of itself.")
        room = 0
        for source in self._found.virtual_sources():
            other = owner
            if source.file_name != ".":
                other = self._files.beside(owner, source.file_name, self.name)
            root = Group(self._files, self._files.open(other), "")
            found = root._follow(source.dset_name, 0, depth + 1)
            if not isinstance(found, Array) or not _covers(found, source):
                raise DataError(
                    f"{self.filename}: {self.name} is made of {_shown(source.dset_name)} of "
                    f"{_shown(other)}, which is not there, or not wholly. Copy that file again."
                )
            room += found.size * found.dtype.itemsize
        # What no source covers is filled up.
        if self.size * self.dtype.itemsize > max(UNASKED, 4 * room):
            raise DataError(
                f"{self.filename}: {self.name} claims shape {self.shape}, but what it is made of "
                f"has {room} bytes. Copy the file again."
            )


def _covers(found: Array, source: Any) -> bool:
    """Whether a source of a virtual dataset is as large as when it was mapped."""
    asked = source.src_space.shape
    # The space of a source that is taken whole has no shape.
    if not asked:
        return found.size >= source.vspace.get_select_npoints()
    pairs = zip(found.shape, asked, strict=False)
    return found.ndim == len(asked) and all(there >= wanted for there, wanted in pairs)
