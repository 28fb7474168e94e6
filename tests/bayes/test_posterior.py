"""What is made of draws: labels, diagnostics, files, bands, modes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import MODELS, PHI, make_data, mapped

from xpcs_eqx.bayes import Nuts, precision, predictive, sample, write_posterior
from xpcs_eqx.bayes.arviz_io import PLOTS, bfmi, write_plots
from xpcs_eqx.bayes.diagnostics import diagnose_chains
from xpcs_eqx.bayes.modes import bimodality
from xpcs_eqx.bayes.nuts.chains import Draws
from xpcs_eqx.bayes.posterior import coverage, model_tests
from xpcs_eqx.errors import DataError, ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.physics import correlation_map


@pytest.fixture(scope="module")
def fitted():
    data = make_data(MODELS["static"], n=15, noise=0.001)
    return least_squares(projected_objective(mapped(MODELS["static"], data), data))


@pytest.fixture(scope="module")
def posterior(fitted):
    return sample(fitted, sampler=Nuts(warmup=150, draws=300), key=1)


def test_predictive_checks_are_the_tests_of_a_fit(fitted, posterior):
    (misfit,) = model_tests(posterior).values()
    assert not misfit.failed()
    for ours, theirs in zip(misfit.tests, fitted.misfit.tests, strict=True):
        assert ours.name == theirs.name
        np.testing.assert_allclose(ours.statistic, theirs.statistic, rtol=0.2)
    # A posterior of another rate: the residuals at its mean are no noise.
    i = posterior.names.index("D0")
    theta = posterior.theta.copy()
    theta[..., i] += 20 * np.std(theta[..., i])
    elsewhere = dataclasses.replace(posterior, theta=theta)
    (misfit,) = model_tests(elsewhere).values()
    assert {"lag", "scale"} <= {test.name for test in misfit.failed()}


def test_draws_are_labelled(posterior):
    found = posterior.variables()
    assert tuple(found) == ("D0", "alpha", "D_offset", "contrast", "offset", "sigma")
    assert found["contrast"].shape == (4, 300, 3)
    i = posterior.names.index("contrast[1]")
    np.testing.assert_array_equal(posterior["contrast[1]"], posterior.theta[..., i])
    np.testing.assert_array_equal(found["contrast"][..., 1], posterior.theta[..., i])
    with pytest.raises(KeyError, match="there are D0"):
        posterior["D1"]
    tree = posterior.to_datatree()
    assert tree["posterior"]["contrast"].dims == ("chain", "draw", "angle")
    np.testing.assert_array_equal(tree["posterior"]["angle"], PHI)
    assert set(tree["sample_stats"]) >= {"diverging", "energy", "tree_depth", "lp"}
    # The energy of a transition is not below that of its position at rest.
    stats = tree["sample_stats"]
    assert np.all(stats["energy"].values >= -stats["lp"].values - 1e-6)


@pytest.mark.long
def test_files_are_read_by_arviz_in_a_new_process(posterior, tmp_path):
    write_posterior(str(tmp_path), posterior, predictive_draws=20)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {f"{p}.png" for p in PLOTS}
    program = """
import sys, numpy as np, xarray, arviz_stats, arviz_plots
tree = xarray.open_datatree(sys.argv[1] + "/posterior.nc", engine="h5netcdf")
table = arviz_stats.summary(tree, ci_prob=0.94, ci_kind="eti", round_to="none")
assert {"D0", "contrast[0.0]", "offset[90.0]", "sigma"} <= set(table.index), list(table.index)
print(float(table.loc["alpha", "mean"]))
for name in ("pair", "forest", "trace"):
    getattr(arviz_plots, "plot_" + name)(tree, var_names=["D0", "alpha"], backend="matplotlib")
arviz_plots.plot_energy(tree, backend="matplotlib")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) == pytest.approx(posterior["alpha"].mean())
    with np.load(tmp_path / "samples.npz") as samples:
        np.testing.assert_array_equal(samples["D0"], posterior["D0"])
    with np.load(tmp_path / "fitted_data.npz") as surface:
        assert surface["mean"].shape == (3, 15, 15)
        assert np.all(surface["low"] <= surface["high"])
    diagnostics = json.loads((tmp_path / "diagnostics.json").read_text())
    assert diagnostics["status"] == posterior.status
    assert diagnostics["rhat"].keys() == set(posterior.names)
    parameters = json.loads((tmp_path / "parameters.json").read_text())
    assert parameters["parameters"]["alpha"]["sd"] == pytest.approx(posterior["alpha"].std())


def test_files_need_a_folder_and_plots_a_name(posterior, tmp_path):
    with pytest.raises(DataError, match="create it first"):
        write_posterior(str(tmp_path / "nowhere"), posterior)
    with pytest.raises(ModelError, match="no plot 'corner'"):
        write_plots(str(tmp_path), posterior.to_datatree(), ("D0",), ("corner",))


def test_a_pair_plot_of_a_single_angle(posterior, tmp_path):
    def first(dataset):
        return dataset.isel(angle=[0]) if "angle" in dataset.dims else dataset

    tree = posterior.to_datatree().map_over_datasets(first)
    (path,) = write_plots(str(tmp_path), tree, ("D0", "contrast"), ("pair",))
    assert Path(path).stat().st_size > 1000


def test_surfaces_of_the_draws(posterior):
    """Streamed moments and percentiles are those of all surfaces at once."""
    found = predictive(posterior, 30)
    rows = posterior.theta.reshape(-1, posterior.theta.shape[-1])
    scaling = posterior.per_angle.reshape(len(rows), 3, 2)
    density = posterior.density
    surfaces = []

    @jax.jit
    def surface(x, scaling):
        model = density.parameters.build(x)
        correlation = correlation_map(model, density.term.t, density.term.geometry)
        return scaling[:, 1, None, None] + scaling[:, 0, None, None] * correlation

    for i in np.linspace(0, len(rows) - 1, 30).astype(int):
        surfaces.append(np.asarray(surface(rows[i, :3], scaling[i])))
    np.testing.assert_allclose(found.mean, np.mean(surfaces, axis=0), rtol=1e-10)
    np.testing.assert_allclose(found.sd, np.std(surfaces, axis=0, ddof=1), rtol=1e-7, atol=1e-12)
    low, high = np.quantile(surfaces, [0.05, 0.95], axis=0)
    np.testing.assert_allclose(found.low, low, rtol=1e-10)
    np.testing.assert_allclose(found.high, high, rtol=1e-10)


def test_what_the_data_added(fitted, posterior):
    found = {one.name: one for one in precision(posterior)}
    # Priors of alpha and contrast are far wider than what the data say.
    for name in ("alpha", "contrast[0]"):
        assert found[name].contraction > 0.9
        assert 0.7 < found[name].ratio < 1.3
        assert abs(found[name].z) < 1
    draws = posterior["alpha"]
    assert found["alpha"].mean == pytest.approx(draws.mean())
    assert found["alpha"].z == pytest.approx((draws.mean() - fitted["alpha"].value) / draws.std())
    assert found["sigma"].covered is None
    assert coverage(tuple(found.values())) > 0.8


def _chains(seed=0, chains=4, draws=400):
    return np.random.default_rng(seed).normal(size=(chains, draws, 2))


def _diagnosed(draws, divergent=0.0, depth=3, energy=None):
    shape = draws.shape[:2]
    rng = np.random.default_rng(5)
    divergences, whole = rng.random(shape) < divergent, np.full(shape, depth)
    energy = rng.normal(size=shape) if energy is None else energy
    kept = Draws(draws, energy, divergences, energy, whole, whole, np.full(shape, 0.9), draws)
    return diagnose_chains(("a", "b"), draws, kept, 10)


def test_good_chains_are_called_converged():
    found = _diagnosed(_chains())
    assert found.status == "converged"
    assert found.findings == ()


def test_a_chain_elsewhere_is_seen():
    draws = _chains()
    draws[0, :, 1] += 3
    found = _diagnosed(draws)
    assert found.status == "not_converged"
    assert "b (" in found.findings[0]
    assert "a (" not in found.findings[0]
    stuck = _chains()
    stuck[:, :, 0] = 1.0
    assert _diagnosed(stuck).status == "not_converged"


@pytest.mark.parametrize(
    ("rate", "status", "word"),
    [
        (0.02, "converged", "acceptable"),
        (0.07, "divergences", "some"),
        (0.2, "divergences", "many"),
        (0.5, "divergences", "unusable"),
    ],
)
def test_levels_of_divergences(rate, status, word):
    found = _diagnosed(_chains(), divergent=rate)
    assert found.status == status
    assert any(word in text for text in found.findings)


def test_slow_energy_and_deep_trajectories_are_mentioned():
    walk = np.cumsum(np.random.default_rng(1).normal(size=(4, 400)), axis=1)
    found = _diagnosed(_chains(), depth=10, energy=walk)
    assert any("BFMI" in text for text in found.findings)
    assert any("largest depth" in text for text in found.findings)
    assert np.all(bfmi(walk) < 0.3)
    few = _diagnosed(_chains(draws=40))
    assert any("effective samples" in text for text in few.findings)


def test_two_modes_are_found_and_one_is_not():
    rng = np.random.default_rng(0)
    one = rng.normal(size=4000)
    two = np.concatenate([rng.normal(-3, 1, 1600), rng.normal(3, 1, 2400)])
    found = bimodality("x", two)
    assert found.bimodal
    np.testing.assert_allclose(found.means, (-3, 3), atol=0.2)
    np.testing.assert_allclose(found.weights, (0.4, 0.6), atol=0.03)
    assert not bimodality("x", one).bimodal
    # A long tail is no second mode, nor is a small group far out.
    assert not bimodality("x", np.exp(one)).bimodal
    assert not bimodality("x", np.concatenate([one, rng.normal(20, 1, 200)])).bimodal
    # Apart by less than half of what is typical of the parameter.
    assert not bimodality("x", 100 + two, scale=100.0).bimodal
    assert not bimodality("x", np.ones(100)).bimodal
