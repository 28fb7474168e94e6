"""One small configuration, its data, and runs of the program on them."""

import json
from pathlib import Path
from typing import Any

from helpers_data import two_time

from xpcs_eqx import fit as program
from xpcs_eqx.data import write_own

MODEL = """
[model]
mode = "static"
[parameters.D0]
start = 8e4
[parameters.D_offset]
free = false
"""
SETTINGS = f"""
[data]
path = "data.h5"{MODEL}"""
QUICKLY = ("--no-plots", "--set", "output.fitted_data=false")


def prepared(folder: Path, n: int = 24) -> Path:
    """A folder with a configuration and its data."""
    write_own(str(folder / "data.h5"), two_time(n=n))
    (folder / "fit.toml").write_text(SETTINGS)
    return folder


def run(folder: Path, *arguments: str) -> int:
    """The exit code of the program on the configuration of a folder."""
    return program.main([str(folder / "fit.toml"), *arguments])


def results(folder: Path, name: str = "fit_results") -> dict[str, Any]:
    """What a fit found."""
    return json.loads((folder / name / "fit" / "parameters.json").read_text())
