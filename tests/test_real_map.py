"""A measured map (350 frames, one angle, NSLS-II) against reference least-squares fits."""

import json
import re
from pathlib import Path

import pytest

from xpcs_eqx.data import Selection, load
from xpcs_eqx.fit import main
from xpcs_eqx.fitting import least_squares, maximum_likelihood
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.parameters import parameter_map
from xpcs_eqx.physics import PowerLawRate, Static

FILE = Path(__file__).parents[2] / "shared" / "data" / "bnl_twotime_350.npy"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE.name} is not on this machine")

D0 = {"D0": (1e-6, 10.0)}


@pytest.fixture(scope="module")
def data():
    # Times count frames from 1 and q is one: rates come out per frame.
    return load(FILE, dt=1.0, q=1.0, selection=Selection(time_origin=1.0))


def fitted(data, fixed, bounds):
    model = Static(PowerLawRate(0.1, 0.0, 0.0))
    return least_squares(
        projected_objective(parameter_map(model, data.t, fixed=fixed, bounds=bounds), data)
    )


def assert_agrees(value, reference, error):
    assert abs(value - reference) < error, f"{value} is not {reference} ± {error}"


def test_all_pairs_are_used(data):
    assert data.n_pairs == 61_075
    assert (data.t[0], data.t[-1]) == (1.0, 350.0)


@pytest.mark.long
def test_the_likelihood_says_what_it_cannot_use(data):
    squares = fitted(data, ("alpha", "D_offset"), D0)
    found = maximum_likelihood(squares)
    assert found.success
    assert abs(found["D0"].value - squares["D0"].value) < squares["D0"].error
    assert 0.5 < found["D0"].error / squares["D0"].error < 1
    assert "without the raw diagonal, which cannot be used" in found.uncertainty.reason
    assert found.quality.flag == "marginal"


@pytest.mark.long
def test_constant_rate(data):
    fit = fitted(data, ("alpha", "D_offset"), D0)
    assert fit.success
    assert_agrees(fit["offset[0]"].value, 1.02741, 0.00039)
    assert_agrees(fit["contrast[0]"].value, 0.0560, 0.0017)
    # exp(−2Γτ): J = 2Γ
    assert_agrees(fit["D0"].value / 2, 0.0223, 0.0011)
    assert_agrees(float(fit.chi2), 315.539, 0.001)


@pytest.mark.long
def test_ageing_rate(data):
    fit = fitted(data, ("D_offset",), D0)
    assert fit.success
    assert_agrees(fit["offset[0]"].value, 1.02739, 0.00038)
    assert_agrees(fit["contrast[0]"].value, 0.0591, 0.0018)
    assert_agrees(fit["D0"].value * 100 ** fit["alpha"].value / 2, 0.0293, 0.0016)
    assert_agrees(fit["alpha"].value, -0.500, 0.045)
    assert_agrees(float(fit.chi2), 314.913, 0.001)
    # The map is speckle: pairs are no independent measurements.
    assert fit["alpha"].error > 1.05 * fit["alpha"].error_classical


def test_power_law_with_offset_is_called_degenerate(data):
    fit = fitted(data, (), {**D0, "D_offset": (-10.0, 10.0)})
    assert float(fit.chi2) < 314.913
    assert_agrees(float(fit.chi2), 314.825, 0.02)
    assert fit.quality.flag in ("marginal", "poor")
    findings = " ".join(fit.quality.findings)
    assert "degenerate" in findings
    assert "D0" in findings
    assert "D_offset" in findings


def test_the_program_fits_it_as_the_page_says(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "my-file.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (block,) = (text for text in blocks if "map.npy" in text)
    configuration = tmp_path / "map.toml"
    configuration.write_text(block.replace('"map.npy"', f'"{FILE.as_posix()}"'), encoding="utf-8")
    target = tmp_path / "out"
    # The power law leaves structure in this map, as the program says; the values are right.
    assert main([str(configuration), "--output", str(target), "--quiet", "--no-plots"]) == 1
    found = json.loads((target / "fit" / "parameters.json").read_text(encoding="utf-8"))
    values = {name: row["value"] for name, row in found["parameters"].items()}
    assert_agrees(0.5 * values["D0"] * 100 ** values["alpha"], 0.0293, 0.0016)
    assert_agrees(values["alpha"], -0.500, 0.045)
