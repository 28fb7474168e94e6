"""Degeneracy, diagnostics and single angles from the program."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers_program import prepared, run

from xpcs_eqx.program.examining import suspicious
from xpcs_eqx.showing import value_and_error

# The decay of the data in helpers_data is exp(-lag/4) per frame: a constant J [Å²/s].
TRUTH = 1 / (4 * 0.1 * 0.0054**2)


@pytest.mark.slow
def test_everything_that_can_be_asked_for(tmp_path):
    folder = prepared(tmp_path)
    asked = ("degeneracy=true", "diagnostics=true", "sequential='inverse_variance'")
    switches = [part for one in asked for part in ("--set", f"output.{one}")]
    assert run(folder, *switches) == 0
    written = folder / "fit_results"
    report = (written / "fit" / "report.txt").read_text(encoding="utf-8")

    def section(heading):
        return report[report.index(f"\n{heading}\n") :].split("\n\n")[0]

    def document(name):
        return json.loads((written / "fit" / f"{name}.json").read_text())

    whole = document("parameters")
    # Fixed D_offset: nothing is left open, and a plot of it would be empty.
    degeneracy = document("degeneracy")
    assert degeneracy["degenerate"] is False
    assert not (written / "plots" / "degeneracy.png").exists()
    assert 1 < degeneracy["condition_number"] < 1e3
    assert "every direction is determined" in section("What the data leave open")

    diagnostics = document("diagnostics")
    assert diagnostics["names"] == ["D0", "alpha"]
    assert diagnostics["condition_number"] == pytest.approx(degeneracy["condition_number"])
    # Column norm and sensitivity make the error bar of independent pairs.
    for i, name in enumerate(diagnostics["names"]):
        column, share = diagnostics["column_norms"][i], diagnostics["sensitivities"][i]
        assert 0 < share <= 1
        wanted = whole["parameters"][name]["error_classical"]
        assert whole["residual_sd"] / (column * share) == pytest.approx(wanted, rel=1e-3)
        assert f"{column:.4g}" in section("Diagnostics")

    angles = document("sequential")
    assert angles["combination"] == "InverseVariance"
    assert angles["failed"] == []
    assert [one["phi_deg"] for one in angles["angles"]] == whole["scaling"]["phi_deg"]
    for one in angles["angles"]:
        found = one["parameters"]["D0"]
        assert abs(found["value"] - TRUTH) < 4 * found["error"]
        assert one["contrast"] == pytest.approx(0.3, abs=0.03)
    combined, together = angles["parameters"]["D0"], whole["parameters"]["D0"]
    assert combined["angles"] == 3
    assert abs(combined["value"] - together["value"]) < together["error"]
    assert combined["error"] == pytest.approx(together["error"], rel=0.1)
    shown = value_and_error(combined["value"], combined["error"])
    assert all(cell in section("Each angle by itself") for cell in shown)


@pytest.mark.parametrize(
    ("weak", "condition", "errors", "wanted"),
    [((), 1e4, (0.1,), False), (("D0",), 1e4, (0.1,), True), ((), 1e9, (0.1,), True)],
)
def test_auto_looks_at_degenerate_fits_alone(weak, condition, errors, wanted):
    uncertainty = SimpleNamespace(weak_directions=weak, condition_number=np.asarray(condition))
    rows = [SimpleNamespace(error=error) for error in errors]
    assert suspicious(SimpleNamespace(uncertainty=uncertainty, rows=rows)) == wanted
