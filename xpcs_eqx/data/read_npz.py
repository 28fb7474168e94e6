"""NumPy files: NPZ with the keys of the loader or direct form, NPY with bare maps."""

import zipfile
import zlib
from typing import Any

import numpy as np

from ..errors import DataError
from .checks import near_misses
from .dictionary import DIRECT, LOADER, raw_from_mapping
from .raw import RawMaps


def read_npz(path: str, sha256: str) -> RawMaps:
    """Maps of an NPZ file with the keys of the loader or direct form.

    **Raises:** `DataError` for a damaged file or missing keys, with near misses.
    """
    try:
        # a stream of our own, as np.load leaves its own open when the archive is damaged
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            mapping = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: the NPZ file cannot be read, it is truncated or holds Python objects "
            f"({error}). Save plain arrays with numpy.savez."
        ) from error
    form, keys = ("direct", DIRECT) if "g2" in mapping else ("loader", LOADER)
    missing = [key for key in keys if key not in mapping]
    if missing:
        hints = " ".join(f"{key!r} is missing.{near_misses(key, mapping)}" for key in missing)
        raise DataError(f"{path}: {hints} An NPZ file needs {', '.join(keys)}.")
    return raw_from_mapping(mapping, form, path=path, layout="npz", sha256=sha256, owned=True)


def read_npy(path: str, sha256: str, q: float | None, phi: Any, counted: bool) -> RawMaps:
    """Bare maps `(frame, frame)` or `(angle, frame, frame)`; everything else is given.

    - `q`: scattering vector [1/Å]; 1 when `None`.
    - `phi`: azimuths [degrees]; 0 when `None`, which only a single map allows.
    - `counted`: time is counted in frames, 1 … n, as no frame time is known.

    **Raises:** `DataError` for a damaged file, another number of dimensions or missing angles.
    """
    try:
        with open(path, "rb") as stream:
            stack = np.load(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: the NPY file cannot be read, it is truncated or holds Python objects "
            f"({error}). Save a plain array with numpy.save."
        ) from error
    stack = stack[None] if stack.ndim == 2 else stack
    if stack.ndim != 3:
        raise DataError(
            f"{path}: the array has shape {stack.shape}; (frame, frame) or (angle, frame, frame) "
            "is needed."
        )
    if phi is None and stack.shape[0] != 1:
        raise DataError(
            f"{path}: {stack.shape[0]} maps and no angles; give phi= with one azimuth [degrees] "
            "for each map."
        )
    remarks = {
        "No q was given; it is 1, so fitted coefficients carry its powers.": q is None,
        "No phi was given; it is 0.": phi is None,
        "No frame time was given; time is counted in frames.": counted,
    }
    return RawMaps(
        path=path,
        layout="npy",
        sha256=sha256,
        names=tuple(f"map {i + 1}" for i in range(stack.shape[0])),
        shapes=(stack.shape[1:],) * stack.shape[0],
        read=lambda index, rows, columns: stack[index, rows, columns],
        dtype=stack.dtype,
        stack=stack,
        owned=True,
        q=np.full(stack.shape[0], 1.0 if q is None else float(q)),
        phi=np.atleast_1d(np.asarray(0.0 if phi is None else phi, np.float64)),
        q_name="q",
        phi_name="phi",
        time_name="dt",
        frame_time=1.0 if counted else None,
        keys=("array",),
        notes=tuple(text for text, applies in remarks.items() if applies),
    )
