"""g2(τ) cut out of maps at ages: what is averaged, its errors, its fit, and the program."""

import csv
import json
from itertools import pairwise

import jax
import numpy as np
import pytest
from helpers import make_data, mapped
from helpers_data import PHI as PHI_OF_DATA
from helpers_figures import complaints
from helpers_program import prepared, run

import xpcs_eqx as xe
from xpcs_eqx.data import binned, multi_tau
from xpcs_eqx.errors import DataError, ModelError
from xpcs_eqx.fitting import g2_at_ages, half_decay_lags
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.physics import PowerLawRate, Static, StretchedExponential
from xpcs_eqx.report.analyses import g2_section
from xpcs_eqx.report.plots.canvas import style

AGEING = Static(PowerLawRate(8e4, -0.4, 0.0))
PHI = np.array([0.0, 90.0])


@pytest.fixture(scope="module")
def data():
    return make_data(AGEING, n=80, phi=PHI, noise=0.004)


@pytest.fixture(scope="module")
def fit(data):
    parameters = mapped(AGEING, data, fixed=("D_offset",))
    return xe.least_squares(projected_objective(parameters, data))


@pytest.fixture(scope="module")
def curves(data, fit):
    return g2_at_ages(data, 3, beside=fit)


def test_means_are_over_the_pairs_of_an_age(data, curves):
    assert [(one.angle, one.phi) for one in curves] == 3 * [(0, 0.0), (1, 90.0)]
    t, edges = np.asarray(data.t), multi_tau(80)
    one = curves[3]
    assert one.between == pytest.approx((t[0] + (t[-1] - t[0]) / 3, t[0] + 2 * (t[-1] - t[0]) / 3))
    direct = []
    for low, high in pairwise(edges):
        values = [
            data.c2[1, i, j]
            for i in range(80)
            for j in range(i + 1, 80)
            if low <= j - i < high and one.between[0] <= 0.5 * (t[i] + t[j]) <= one.between[1]
        ]
        if values:
            direct.append((np.mean(values), len(values)))
    np.testing.assert_allclose(one.g2, [mean for mean, _ in direct], rtol=1e-12)
    assert one.pairs.tolist() == [count for _, count in direct]
    # Where the lag is longer than the first age allows there are no pairs.
    assert curves[0].lag[-1] < curves[3].lag[-1]


def test_an_ageing_sample_is_slower_at_each_age(data, fit, curves):
    """Half-decays are those of the truth at the middle of the window, and of the fit beside."""
    halves = [one.half_decay for one in curves[::2]]
    assert halves == sorted(halves)
    for one in curves:
        # Pairs of this age begin half a lag earlier. In the first window much has aged.
        begin = np.array([one.age - 0.5 * one.half_decay])
        truth = half_decay_lags(AGEING, np.asarray(data.t), data.geometry, begin)[0, one.angle]
        assert one.half_decay == pytest.approx(truth, rel=0.08 if one.age > 3 else 0.2)
        assert one.half_decay_beside == pytest.approx(one.half_decay, rel=0.1)
        assert one.half_decay_error > 0
        # g2 = offset + contrast exp(−2 (τ/τ0)^stretch).
        half = one.tau * (0.5 * np.log(2)) ** (1 / one.stretch)
        assert half == pytest.approx(one.half_decay, rel=1e-6)
        assert np.max(np.abs(one.beside - one.g2) / one.error) < 6


@pytest.mark.long
def test_errors_are_those_of_speckle():
    """Points and times scatter about the truth as their errors say, over maps that share none."""
    truth = StretchedExponential(PowerLawRate(0.25, 0.0, 0.0), 1.3)
    t, many = np.arange(1.0, 81.0), 24
    geometry = xe.Geometry(0.01, np.zeros(many))
    maps = xe.simulate_speckle(truth, t, geometry, 0.2, n_pixels=2000, key=jax.random.key(3))
    found = g2_at_ages(maps, [40.0], width=30.0)
    z = np.array([(one.g2 - 1 - 0.2 * np.exp(-2 * (0.25 * one.lag) ** 1.3)) / one.error
                  for one in found])  # fmt: skip
    # Short lags, where neighbouring pairs scatter together, and long ones.
    assert 0.8 < np.std(z[:, :6]) < 1.25
    assert 0.8 < np.std(z[:, 6:]) < 1.3
    times = np.array([(one.tau - 4.0) / one.tau_error for one in found])
    assert 0.6 < np.std(times) < 1.5
    assert abs(np.mean(times)) < 0.7


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"ages": 0}, ModelError, "a number of windows from 1"),
        ({"ages": 2, "width": 1.0}, ModelError, "without a width"),
        ({"ages": [1e3]}, ModelError, "the maps have ages of"),
        ({"ages": [1.0], "width": -1.0}, ModelError, "a length of time above 0"),
        ({"ages": [1.0], "angles": [2]}, ModelError, "angles holds 2; there are 0 … 1"),
        ({"ages": [1.0], "width": 1e-3}, DataError, "take wider windows"),
    ],
)
def test_what_cannot_be_cut(data, given, error, said):
    with pytest.raises(error, match=said):
        g2_at_ages(data, given.pop("ages"), **given)


def test_other_data_are_refused(data, fit):
    with pytest.raises(DataError, match="takes maps in memory, not PooledData"):
        g2_at_ages(binned(data, 3))
    short = make_data(AGEING, n=30, phi=PHI)
    with pytest.raises(ModelError, match="beside is a fit of 80 frames, and the data have 30"):
        g2_at_ages(short, 2, beside=fit)


def test_the_figure_is_legible(curves):
    with style():
        (drawing,) = g2_section(curves).figures()
        assert complaints(drawing.draw()) == []


@pytest.mark.long
def test_the_program_cuts_g2(tmp_path, capsys):
    folder = prepared(tmp_path, n=80)
    assert run(folder, "--set", "output.g2_ages=2") == 0
    written = folder / "fit_results"
    report = (written / "fit" / "report.txt").read_text(encoding="utf-8")
    assert "\ng2(τ) at chosen ages\n" in report
    assert (written / "plots" / "g2.png").stat().st_size > 5000
    found = json.loads((written / "fit" / "g2.json").read_text())["curves"]
    assert [one["phi_deg"] for one in found] == 2 * list(PHI_OF_DATA)
    with open(written / "fit" / "g2.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    # Two of the three angles have the same azimuth.
    assert len({(row["age_s"], row["phi_deg"]) for row in rows}) == 4
    for row in rows:
        assert abs(float(row["g2"]) - float(row["stretched"])) < 8 * float(row["error"])
        assert abs(float(row["g2"]) - float(row["fit_of_maps"])) < 8 * float(row["error"])
    # A window that cannot be is said, and costs nothing.
    assert run(folder, "--overwrite", "--no-plots", "--set", "output.g2_ages=[500.0]") == 0
    assert "no g2 at ages: ages are 500 s" in capsys.readouterr().out
    assert run(folder, "--check", "--set", "output.g2_width=1.0") == 2
    assert "output.g2_ages" in capsys.readouterr().err
