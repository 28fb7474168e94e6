"""The library's own HDF5 layout: chunked c2 with explicit times, written by `write_own`."""

import json
import os
from collections.abc import Set
from dataclasses import fields
from typing import Literal

import numpy as np

from ...errors import DataError
from ...files import replacing
from ..two_time import DOUBTS, Doubt, Provenance, TwoTimeData
from .hdf5 import Remarks, dataset, read_list, read_scalar
from .maps import Description, RawMaps, layers, maps_of, needs_sigma
from .opened import Group

NAME = "own"
FORMAT = "xpcs-eqx"
VERSION = 1
# Characters of a text in an attribute.
_LONGEST = 60_000


ABOUT = Description(
    required=(
        "`format` = `xpcs-eqx` and `version` = 1, attributes of the file",
        "`c2` (phi, frame, frame): the maps",
        "`t` (frame,): times [s]",
        "`phi` (phi,): azimuth [deg]",
        "`q`, `gap`: [1/Å], [Å]",
    ),
    optional=(
        "`sigma` (phi, frame, frame), the attribute `absolute_sigma` says of which kind",
        "`diagonal` (phi, frame): the raw diagonals",
        "the attribute `provenance`: where the maps came from",
    ),
    refused=("other versions",),
)


def analyses(file: Group) -> dict[str, str]:
    """The whole file where the root attribute names this layout."""
    return {"": ""} if file.text("format") == FORMAT else {}


def read(file: Group, analysis: str = "") -> RawMaps:
    """Maps, times and lists of a file in the library's own layout.

    **Raises:** `DataError` naming what is missing or a version this library does not know.
    """
    del analysis
    where = file.filename
    version = file.text("version")
    if version != str(VERSION):
        raise DataError(
            f"{where}: the attribute version is {version}; this library reads version {VERSION} of "
            "its layout. Update the library or write the file again."
        )
    notes = Remarks()
    origin, azimuths, doubts = _origin(file)
    c2 = dataset(file, "c2")
    names, maps = layers(where, "c2", c2)
    keys = ("c2", "t", "phi", "q", "gap", *(["sigma"] if "sigma" in file else []))
    return RawMaps(
        path=where,
        layout=NAME,
        names=names,
        maps=maps,
        q=np.full(len(maps), read_scalar(file, "q", "1/Å", notes)),
        phi=read_list(file, "phi", "deg", notes),
        q_name="q",
        phi_name="phi",
        time_name="t",
        t=read_list(file, "t", "s", notes),
        gap=read_scalar(file, "gap", "Å", notes),
        sigma=dataset(file, "sigma") if "sigma" in file else None,
        absolute_sigma=file.text("absolute_sigma") == "True",
        diagonal=dataset(file, "diagonal") if "diagonal" in file else None,
        azimuths=azimuths,
        keys=keys,
        notes=(*origin, *notes),
        refused=notes.refused,
        doubts=doubts,
    )


def _origin(file: Group) -> tuple[tuple[str, ...], bool, Set[Doubt]]:
    """Where the data of this file came from when it was written, as remarks; whether with φ."""
    stored = file.text("provenance")
    if not stored:
        return (), True, frozenset()
    try:
        origin = json.loads(stored)
        sha256 = f", sha256 {origin['sha256']}" if origin["sha256"] else ""
        first = f"Written from {origin['path']} ({origin['layout']}{sha256})."
        doubts = DOUBTS.keys() & set(origin.get("doubts", ()))
        return (first, *map(str, origin["notes"])), bool(origin.get("azimuths", True)), doubts
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file.filename}: the attribute provenance cannot be read ({error!r}); delete it or "
            "write the file again."
        ) from error


def _provenance_text(provenance: Provenance) -> str:
    """The provenance in an attribute, which holds 64 kB; the names of thousands of maps do not
    matter, and of thousands of remarks the first ones do."""
    origin = {field.name: getattr(provenance, field.name) for field in fields(Provenance)}
    notes = list(provenance.notes)
    text = json.dumps(origin)
    while len(text) > _LONGEST:
        text = json.dumps(origin | {"keys": [], "notes": notes})
        notes = notes[: len(notes) // 2]
    return text


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
        # Texts of fixed length: those of any length need a heap, whose damage can hang HDF5.
        for name, text in (
            ("format", FORMAT),
            ("absolute_sigma", str(data.absolute_sigma)),
            ("provenance", _provenance_text(data.provenance)),
        ):
            file.attrs[name] = np.bytes_(text.encode())
        file.attrs["version"] = VERSION
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
            file[key].attrs["units"] = np.bytes_(unit.encode())
