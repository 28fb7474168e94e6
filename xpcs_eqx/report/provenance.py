"""Where a result came from: versions, platform, data, configuration."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jax

from ..data import Provenance

PACKAGES = (
    "xpcs-eqx",
    "jax",
    "jaxlib",
    "equinox",
    "optimistix",
    "lineax",
    "optax",
    "numpy",
    "h5py",
)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def file_name(data: Provenance) -> str:
    """Name of the file that data came from."""
    return os.path.basename(data.path)


def _origin(data: Provenance) -> dict[str, Any]:
    return {
        "file": file_name(data),
        "sha256": data.sha256,
        "layout": data.layout,
        "keys": data.keys,
        "frames": data.frames,
        "dt_s": data.dt,
        "notes": data.notes,
    }


def provenance_document(
    data: Provenance | Mapping[str, Provenance],
    configuration: Mapping[str, Any],
    wall_time: float,
    **extra: Any,
) -> dict[str, Any]:
    """What is needed to repeat a fit.

    **Arguments:**

    - `data`: origin of the data, by label when there are several data sets; its path is reduced to
        the file name, the checksum says the rest.
    - `configuration`: the resolved configuration.
    - `wall_time`: seconds from the start of the program to the writing of this.
    """
    return {
        "format": "xpcs-eqx results",
        "format_version": 1,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_time_s": wall_time,
        "versions": {"python": platform.python_version()}
        | {package: _version(package) for package in PACKAGES},
        "platform": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "devices": [str(device) for device in jax.devices()],
        },
        "data": _origin(data)
        if isinstance(data, Provenance)
        else {label: _origin(one) for label, one in data.items()},
        "configuration": configuration,
        **extra,
    }
