"""Where numbers came from: enough to find the file again and to see what was taken from it."""

import equinox as eqx


class Provenance(eqx.Module):
    """Origin of a data set; hashable, every field static.

    - `path`: file as it was given, or `"memory"`.
    - `layout`: name of the layout (`"aps-u"`, `"aps-old"`, `"nxxpcs"`, `"own"`, `"npz"`, `"npy"`,
      `"dictionary"`, `"direct"`, `"pooled"`).
    - `sha256`: checksum of the file, empty for data from memory.
    - `keys`: HDF5 paths or dictionary keys that were read.
    - `frames`: first and last frame that were used, 1-based and inclusive; `(0, 0)` when unknown.
    - `dt`: time between two frames of the map [s], stride and averaging included; `None` when the
      times were handed over as they are.
    - `notes`: what a reader should know, in sentences (masked entries, completed triangles, …).
    """

    path: str = eqx.field(static=True, default="memory")
    layout: str = eqx.field(static=True, default="dictionary")
    sha256: str = eqx.field(static=True, default="")
    keys: tuple[str, ...] = eqx.field(static=True, default=())
    frames: tuple[int, int] = eqx.field(static=True, default=(0, 0))
    dt: float | None = eqx.field(static=True, default=None)
    notes: tuple[str, ...] = eqx.field(static=True, default=())

    def where(self) -> str:
        """File and layout in a form that starts an error message."""
        return self.path if self.layout in self.path else f"{self.path} ({self.layout})"
