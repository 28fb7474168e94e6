"""What sampling leaves on disk: results of shards and runs, and the data that processes share."""

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np

from ...errors import CheckpointError
from ...files import replacing

# Smaller arrays travel with the rest; larger ones are mapped into memory by every process.
_LARGE = 2**16  # bytes
_WORK = "work.pickle"
_MARK = "fingerprint"


class ResultStore(eqx.Module):
    """Numbered results in a folder, one file each, written whole or not at all.

    - `folder`: made at the first writing.
    - `fingerprint`: of the problem; results of another one are refused.
    - `kind`: what they are of, such as a shard or a piece of a run.
    """

    folder: str = eqx.field(static=True)
    fingerprint: str = eqx.field(static=True, default="")
    kind: str = eqx.field(static=True, default="shard")

    def path(self, number: int) -> str:
        """The file of a result."""
        return os.path.join(self.folder, f"{self.kind}-{number:05d}.npz")

    def save(self, number: int, result: Mapping[str, np.ndarray]) -> None:
        """Write a result.

        **Raises:** `OSError` when the folder cannot be written to.
        """
        os.makedirs(self.folder, exist_ok=True)
        with replacing(self.path(number)) as path, open(path, "wb") as stream:
            content: dict[str, Any] = {_MARK: np.asarray(self.fingerprint), **result}
            np.savez(stream, **content)

    def load(self, number: int) -> dict[str, np.ndarray] | None:
        """A result, None when there is none.

        **Raises:** `CheckpointError` for a damaged file and for the result of another problem.
        """
        path = self.path(number)
        if not os.path.exists(path):
            return None
        try:
            # Opened here: a file that is no archive would be left open.
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            mark = str(found.pop(_MARK))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(
                f"{path}: not a whole result of a {self.kind} ({error}); remove it, and the "
                f"{self.kind} is sampled again"
            ) from error
        if mark != self.fingerprint:
            raise CheckpointError(
                f"{path}: the result of another problem: data, model, priors, shards, sampler or "
                "key are not those it was made with; restore them to continue, or give another "
                "folder"
            )
        return found


class _Dump(pickle.Pickler):
    """Pickles large arrays as files of their own."""

    def __init__(self, stream: io.BufferedWriter, folder: str):
        super().__init__(stream, protocol=5)
        self.folder = folder
        self.written: dict[int, tuple[str, np.ndarray]] = {}

    def persistent_id(self, obj: Any) -> str | None:
        if not isinstance(obj, np.ndarray) or obj.nbytes < _LARGE or obj.dtype.hasobject:
            return None
        # The array is kept alive, or another could get its identity.
        if id(obj) not in self.written:
            name = f"array-{len(self.written):03d}.npy"
            np.save(os.path.join(self.folder, name), obj)
            self.written[id(obj)] = (name, obj)
        return self.written[id(obj)][0]


class _Load(pickle.Unpickler):
    def __init__(self, stream: io.BufferedReader, folder: str):
        super().__init__(stream)
        self.folder = folder

    def persistent_load(self, pid: str) -> np.ndarray:
        return np.load(os.path.join(self.folder, pid), mmap_mode="r")


def dump_shared(folder: str, value: Any) -> None:
    """Write a picklable value into an existing folder, its large NumPy arrays as `.npy` files.

    **Raises:** whatever pickling it raises.
    """
    with open(os.path.join(folder, _WORK), "wb") as stream:
        _Dump(stream, folder).dump(value)


def load_shared(folder: str) -> Any:
    """The value again; its large arrays are read-only maps of the files.

    All processes of a machine then share one copy in memory.
    """
    with open(os.path.join(folder, _WORK), "rb") as stream:
        return _Load(stream, folder).load()
