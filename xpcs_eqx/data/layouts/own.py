"""The library's own HDF5 layout: chunked c2 with explicit times, written by `write_own`."""

import json
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...errors import DataError
from ...files import replacing
from ..two_time import Provenance, TwoTimeData
from .hdf5 import Remarks, dataset, read_list, read_scalar, text_attribute
from .maps import Layer, RawMaps, maps_of, needs_sigma

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
    notes = Remarks()
    c2 = dataset(file, "c2")
    if c2.ndim != 3:
        raise DataError(f"{where}: c2 has shape {c2.shape}; (angle, frame, frame) is needed.")
    origin, azimuths = _origin(file)
    keys = ("c2", "t", "phi", "q", "gap", *(["sigma"] if "sigma" in file else []))
    return RawMaps(
        path=where,
        layout=NAME,
        names=tuple(f"c2[{i}]" for i in range(c2.shape[0])),
        maps=tuple(Layer(c2, i) for i in range(c2.shape[0])),
        q=np.full(c2.shape[0], read_scalar(file, "q", "1/Å", notes)),
        phi=read_list(file, "phi", "deg", notes),
        q_name="q",
        phi_name="phi",
        time_name="t",
        t=read_list(file, "t", "s", notes),
        gap=read_scalar(file, "gap", "Å", notes),
        sigma=dataset(file, "sigma") if "sigma" in file else None,
        absolute_sigma=text_attribute(file, "absolute_sigma") == "True",
        diagonal=dataset(file, "diagonal") if "diagonal" in file else None,
        keys=keys,
        azimuths=azimuths,
        notes=(*origin, *notes),
        refused=notes.refused,
    )


def _origin(file: "h5py.File") -> tuple[tuple[str, ...], bool]:
    """Where the data of this file came from when it was written, as remarks; whether with φ."""
    stored = text_attribute(file, "provenance")
    if not stored:
        return (), True
    try:
        origin = json.loads(stored)
        sha256 = f", sha256 {origin['sha256']}" if origin["sha256"] else ""
        first = f"Written from {origin['path']} ({origin['layout']}{sha256})."
        return (first, *map(str, origin["notes"])), bool(origin.get("azimuths", True))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file.filename}: the attribute provenance cannot be read ({error!r}); delete it or "
            "write the file again."
        ) from error


def write_own(
    path: str | os.PathLike[str],
    data: TwoTimeData,
    *,
    chunk: int = 256,
    compression: Literal["gzip", "lzf"] | None = None,
) -> None:
    """Write the library's own layout: everything the data hold, chunked for reading by tile.

    - `chunk`: side of a chunk [frames].
    - `compression`: filter of HDF5, none by default.

    **Raises:** `DataError` when the folder does not exist.

    >>> import tempfile
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> t = np.array([0.0, 0.1, 0.2])
    >>> c2 = 1 + 0.2 * np.exp(-np.abs(t[:, None] - t))
    >>> data = xe.from_dict({"phi": [0.0], "g2": c2[None], "t1": t, "t2": t, "q": 0.005})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_own(f"{folder}/scan.h5", data)
    ...     again = xe.load(f"{folder}/scan.h5")
    >>> np.array_equal(again.c2, data.c2), again.provenance.layout
    (True, 'own')
    """
    import h5py

    side = min(chunk, data.n_frames)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        file.attrs["absolute_sigma"] = str(data.absolute_sigma)
        origin = {field.name: getattr(data.provenance, field.name) for field in fields(Provenance)}
        file.attrs["provenance"] = json.dumps(origin)
        shape, options = np.shape(data.c2), {"chunks": (1, side, side), "compression": compression}
        c2 = file.create_dataset("c2", shape, np.asarray(data.c2).dtype, **options)
        sigma = None
        if needs_sigma(data):
            sigma = file.create_dataset(
                "sigma", shape, np.asarray(data.root_weights).dtype, **options
            )
        for angle, one in enumerate(maps_of(data)):
            c2[angle] = one.values()
            if sigma is not None:
                sigma[angle] = one.sigma()
        file["diagonal"] = np.asarray(data.diagonal)
        for key, values, unit in (
            ("t", data.t, "s"),
            ("phi", data.geometry.phi, "deg"),
            ("q", data.geometry.q, "1/angstrom"),
            ("gap", data.geometry.gap, "angstrom"),
        ):
            file[key] = np.asarray(values)
            file[key].attrs["units"] = unit
