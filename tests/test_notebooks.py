"""Notebooks run from top to bottom, check what they say, and are stored with their outputs."""

import ast
import base64
import os
import re

import pytest

from notebooks import MAP, ROOT, executed, outputs, paths, read, real_map, text

NOTEBOOKS = paths()
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# Those that take a minute each; they run with the long tests.
LONG = (
    "degenerate_angles",
    "downstream_gradient",
    "experiment_design",
    "joint_q",
    "larger_than_memory",
    "posterior",
    "precision",
    "series",
    "spline_rate",
    "verdict",
)
by_time = pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.long if path.stem in LONG else (), id=path.stem)
        for path in NOTEBOOKS
    ],
)
GALLERY = ROOT / "docs" / "notebooks.md"

# Bytes of a notebook and of a figure in it.
LARGEST, LARGEST_FIGURE = 200_000, 60_000
FEWEST_CHECKS = 3


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shape_of_text(notebook) -> list[str]:
    """What a notebook prints, line by line, without numbers and the reason for convergence."""
    lines = "\n".join(text(output) for output in outputs(notebook)).splitlines()
    vary = re.compile(r"(?<=converged: ).*|[-+]?\d+\.?\d*(e[-+]?\d+)?")
    return [" ".join(vary.sub("#", line).split()) for line in lines]


def assert_clean(notebook):
    """No warnings, no errors."""
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text


@pytest.mark.slow
@by_time
def test_runs_and_prints_what_is_stored(path, tmp_path):
    needs_map = any(MAP in cell.source for cell in code(read(path)))
    if needs_map and not real_map().is_file():
        pytest.skip(f"the measured map is not here; set {MAP} to its path")
    fresh = executed(path, tmp_path)
    assert_clean(fresh)
    assert shape_of_text(fresh) == shape_of_text(read(path))
    assert not list(tmp_path.iterdir()), "a notebook leaves files behind"


@by_name
def test_stored_with_outputs(path):
    notebook = read(path)
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert_clean(notebook)
    figures = [o.data["image/png"] for o in outputs(notebook) if "image/png" in o.get("data", {})]
    assert figures
    assert max(len(base64.b64decode(figure)) for figure in figures) < LARGEST_FIGURE
    assert path.stat().st_size < LARGEST
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata.language_info) == {"name"}


@by_name
def test_nothing_of_a_machine(path):
    stored = path.read_text(encoding="utf-8")
    here = (
        str(ROOT.parent),
        os.path.expanduser("~/"),
        "/tmp",
        "/home/",
        "site-packages",
        "file://",
    )
    for word in here:
        assert word not in stored, word


@by_name
def test_checks_itself(path):
    checks = []
    for cell in code(read(path)):
        tree = ast.parse(cell.source)
        checks += [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        checks += [c for c in calls if ast.unparse(c.func).startswith("np.testing.assert_")]
    assert len(checks) >= FEWEST_CHECKS
    for check in checks:
        # A check of constants cannot fail.
        assert any(isinstance(node, ast.Name) for node in ast.walk(check)), ast.unparse(check)


@by_name
def test_the_gallery_names_it(path):
    assert f"(../notebooks/{path.name})" in GALLERY.read_text(encoding="utf-8")


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 10
