"""Running notebooks; `python tests/notebooks.py [NAME …]` stores them with their outputs."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from xpcs_eqx.compiling import quick_options

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
MAP = "XPCS_EQX_REAL_MAP"
# Kernels take their environment from this process. Without the limit the allocator keeps freed
# memory for every thread, and what notebooks say about memory would depend on chance.
# XLA complains of slow compilation where the machine is busy; what fails raises all the same.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def paths() -> list[Path]:
    """All notebooks."""
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    """A notebook as it is stored."""
    return nbformat.read(path, as_version=4)


def real_map() -> Path:
    """Where the measured map is or would be."""
    beside = ROOT.parent / "shared" / "data" / "bnl_twotime_350.npy"
    return Path(os.environ.get(MAP, beside))


@contextmanager
def _environment():
    before = dict(os.environ)
    # Most of the time goes into compiling.
    flags = " ".join(f"--{name}={value}".lower() for name, value in quick_options().items())
    here = {MAP: str(real_map().resolve()), "XLA_FLAGS": flags}
    os.environ.update({**ENVIRONMENT, **here})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def executed(path: Path, folder: Path, timeout: float = 300.0) -> NotebookNode:
    """The notebook with fresh outputs from a kernel of its own that works in `folder`.

    **Raises:** `nbclient.exceptions.CellExecutionError` for the first cell that raises.
    """
    notebook = read(path)
    resources: dict[str, Any] = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=timeout,
        # A kernel warns that whoever is on this machine could listen.
        extra_arguments=["--log-level=ERROR"],
        resources=resources,
        record_timing=False,
        # What is printed arrives in pieces that depend on the load of the machine.
        coalesce_streams=True,
    )
    with _environment():
        client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """All outputs in order."""
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def text(output: NotebookNode) -> str:
    """What an output shows as text; empty for a figure."""
    if output.output_type == "stream":
        return output.text
    data = output.get("data", {})
    return "" if "image/png" in data else data.get("text/plain", "")


def main(names: list[str]) -> None:
    """Execute and store the named notebooks, by default all."""
    import tempfile

    for path in paths():
        if names and path.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        print(f"{path.name}: {len(outputs(notebook))} outputs")


if __name__ == "__main__":
    main(sys.argv[1:])
