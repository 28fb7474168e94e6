"""The library's own HDF5 layout: chunked c2 with explicit times, written by `write_own`."""

import json
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .hdf5 import dataset, read_list, read_scalar, text_attribute
from .raw import RawMaps

if TYPE_CHECKING:
    import h5py

NAME = "own"
FORMAT = "xpcs-eqx"
VERSION = 1


def is_own(file: "h5py.File") -> bool:
    """Whether the root attribute names this layout."""
    return text_attribute(file, "format") == FORMAT


def read(file: "h5py.File") -> RawMaps:
    """Maps, times and lists of a file in the library's own layout.

    **Raises:** `DataError` naming what is missing or a version this library does not know.
    """
    where = file.filename
    version = text_attribute(file, "version")
    if version != str(VERSION):
        raise DataError(
            f"{where}: the attribute version is {version}; this library reads version {VERSION} of "
            "its layout. Update the library or write the file again."
        )
    notes: list[str] = []
    c2 = dataset(file, "c2")
    if c2.ndim != 3:
        raise DataError(f"{where}: c2 has shape {c2.shape}; (angle, frame, frame) is needed.")
    sigma = dataset(file, "sigma") if "sigma" in file else None
    if sigma is not None and sigma.shape != c2.shape:
        raise DataError(
            f"{where}: sigma has shape {sigma.shape} but c2 {c2.shape}; they must be the same."
        )
    diagonal = dataset(file, "diagonal") if "diagonal" in file else None
    if diagonal is not None and diagonal.shape != c2.shape[:2]:
        raise DataError(
            f"{where}: diagonal has shape {diagonal.shape} but c2 {c2.shape} needs {c2.shape[:2]}."
        )
    phi = read_list(file, "phi", "deg", notes)
    keys = ("c2", "t", "phi", "q", "gap", *(["sigma"] if sigma is not None else []))
    return RawMaps(
        path=where,
        layout=NAME,
        names=tuple(f"c2[{i}]" for i in range(c2.shape[0])),
        shapes=(c2.shape[1:],) * c2.shape[0],
        read=lambda index, rows, columns: c2[index, rows, columns],
        dtype=c2.dtype,
        q=np.full(c2.shape[0], read_scalar(file, "q", "1/Å", notes)),
        phi=phi,
        q_name="q",
        phi_name="phi",
        time_name="t",
        t=read_list(file, "t", "s", notes),
        gap=read_scalar(file, "gap", "", notes),
        read_sigma=(
            None if sigma is None else lambda index, rows, columns: sigma[index, rows, columns]
        ),
        absolute_sigma=text_attribute(file, "absolute_sigma") == "True",
        read_diagonal=None if diagonal is None else lambda index, frames: diagonal[index, frames],
        keys=keys,
        notes=(*_origin(file), *notes),
    )


def _origin(file: "h5py.File") -> tuple[str, ...]:
    """Where the data of this file came from when it was written, as remarks."""
    stored = text_attribute(file, "provenance")
    if not stored:
        return ()
    try:
        origin = json.loads(stored)
        sha256 = f", sha256 {origin['sha256']}" if origin["sha256"] else ""
        first = f"Written from {origin['path']} ({origin['layout']}{sha256})."
        return (first, *map(str, origin["notes"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file.filename}: the attribute provenance cannot be read ({error!r}); delete it or "
            "write the file again."
        ) from error
