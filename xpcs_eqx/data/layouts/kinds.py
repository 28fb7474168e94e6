"""What files are that are taken for HDF5 files, by their first bytes."""

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
