"""The Python of the README runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parent.parent / "README.md"


def test_python_blocks_run_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    fit, truth = names["fit"], {"D0": 1.5e4, "alpha": -0.3, "phi0": 5.0, "beta": 0.3}
    assert fit.success
    for name, value in truth.items():
        assert abs(fit[name].value - value) < 4 * fit[name].error_classical, name
    assert names["joint"].success
    assert names["joint"].sharing.agree
    decay = names["decay"]
    assert decay.success
    assert np.all(np.abs(decay.x - [3.0, 0.7, 0.5]) < 4 * decay.perr)
    assert "stretch" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["xpcs_eqx.fit examples", "pytest"])
def test_each_set_up_command_is_one_line(command):
    lines = [
        line
        for line in README.read_text(encoding="utf-8").splitlines()
        if line.startswith("python3 -m venv") and command in line
    ]
    assert len(lines) == 1


def test_nothing_is_left_to_fill_in():
    assert "@@" not in README.read_text(encoding="utf-8")
