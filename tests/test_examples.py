"""The scripts in `examples/` run, and type checkers know what comes out of them."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xpcs_eqx.showing import value_and_error

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def test_a_model_of_ones_own():
    fit = runpy.run_path(str(EXAMPLES / "own_model.py"))["main"]()
    assert fit.success
    for name, truth in (("Gamma", 0.8), ("stretch", 0.7)):
        assert abs(fit[name].value - truth) < 4 * fit[name].error


def test_from_a_file_to_a_report(tmp_path, capsys):
    fit = runpy.run_path(str(EXAMPLES / "pipeline.py"))["main"](folder=tmp_path / "out")
    assert fit.success
    report = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    assert report in capsys.readouterr().out
    assert value_and_error(fit["D0"].value, fit["D0"].error)[0] in report


@pytest.mark.long
@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is not installed")
def test_a_wrong_type_is_seen(tmp_path):
    # The checks inside the examples mean something only if a wrong one is refused.
    text = (EXAMPLES / "own_model.py").read_text(encoding="utf-8")
    wrong = text.replace('fit["Gamma"].value, float', 'fit["Gamma"].value, str')
    assert wrong != text
    (tmp_path / "wrong.py").write_text(wrong, encoding="utf-8")
    command = ["pyright", "--pythonpath", sys.executable, str(tmp_path / "wrong.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "reportAssertTypeFailure" in done.stdout
