"""Degeneracy, diagnostics and single angles from the program."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers_program import prepared, run

from xpcs_eqx.program.examining import suspicious


def test_everything_that_can_be_asked_for(tmp_path):
    folder = prepared(tmp_path)
    asked = ("degeneracy=true", "diagnostics=true", "sequential='inverse_variance'")
    switches = [part for one in asked for part in ("--set", f"output.{one}")]
    assert run(folder, *switches, "--set", "model.mode='static'") in (0, 1)
    results = folder / "fit_results"
    report = (results / "fit" / "report.txt").read_text(encoding="utf-8")
    for heading in ("What the data leave open", "Diagnostics", "Each angle by itself"):
        assert heading in report
    found = json.loads((results / "fit" / "degeneracy.json").read_text())
    assert found["degenerate"] == (results / "plots" / "degeneracy.png").is_file()
    assert found["condition_number"] > 1
    sensitivities = json.loads((results / "fit" / "diagnostics.json").read_text())["sensitivities"]
    assert all(0 <= one <= 1 for one in sensitivities)
    angles = json.loads((results / "fit" / "sequential.json").read_text())
    whole = json.loads((results / "fit" / "parameters.json").read_text())
    assert len(angles["angles"]) + len(angles["failed"]) == len(whole["scaling"]["phi_deg"])
    assert angles["combination"] == "InverseVariance"


@pytest.mark.parametrize(
    ("weak", "condition", "errors", "wanted"),
    [((), 1e4, (0.1,), False), (("D0",), 1e4, (0.1,), True), ((), 1e9, (0.1,), True)],
)
def test_auto_looks_at_degenerate_fits_alone(weak, condition, errors, wanted):
    uncertainty = SimpleNamespace(weak_directions=weak, condition_number=np.asarray(condition))
    rows = [SimpleNamespace(error=error) for error in errors]
    assert suspicious(SimpleNamespace(uncertainty=uncertainty, rows=rows)) == wanted
