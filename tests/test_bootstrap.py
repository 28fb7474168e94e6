"""Errors by fitting maps that were simulated from a fit."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_data, mapped, pooled
from helpers_program import QUICKLY, results, run

import xpcs_eqx as xe
import xpcs_eqx.program.task
from xpcs_eqx.data import write_own
from xpcs_eqx.errors import FitError, ModelError
from xpcs_eqx.fitting import Bootstrap, bootstrap
from xpcs_eqx.fitting.after.bootstrap import replica_of

# It has decayed within the map, so that its estimates are nearly normal.
TRUTH = xe.Static(xe.PowerLawRate(5e4, 0.0, 0.0))
T = 0.1 * np.arange(24)
FIXED = ("alpha", "D_offset")
TABLES = """
[data]
path = "data.h5"
[model]
mode = "static"
[parameters]
D0 = {start = 8e4}
alpha = {start = 0.0, free = false}
D_offset = {start = 0.0, free = false}
[solver]
bootstrap = 120
"""


def data_of(seed=0, phi=(0.0,)):
    geometry, key = xe.Geometry(0.0054, np.array(phi)), jax.random.key(seed)
    return xe.simulate_speckle(TRUTH, T, geometry, 0.25, n_pixels=400, mean_counts=5.0, key=key)


def fit_of(data):
    return xe.least_squares(xe.projected_objective(mapped(TRUTH, data, fixed=FIXED), data))


def test_errors_are_those_that_the_fit_quotes():
    fit = fit_of(data_of())
    found = bootstrap(fit, 80)
    assert found.names == tuple(fit.names)
    assert found.failed == 0
    # Of 80 fits a standard deviation is known to 8 %.
    quoted = np.array([fit[name].error for name in found.names])
    np.testing.assert_array_less(np.abs(np.log(found.errors / quoted)), 0.25)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), found.errors)
    np.testing.assert_array_less(np.abs(found.bias), 5 * found.errors / np.sqrt(80))
    low, high = found.interval("D0")
    assert low < fit["D0"].value < high
    assert 0.6 < (high - low) / (2 * fit["D0"].error) < 1.6
    with pytest.raises(ModelError, match="no 'D1' was fitted; there are contrast"):
        found.interval("D1")
    with pytest.raises(ModelError, match="level is 2"):
        found.interval("D0", 2.0)


@pytest.mark.long
def test_maps_have_the_pixels_contrast_and_offset_of_the_fit():
    fit = fit_of(data_of(phi=(0.0, 90.0)))
    # A ninth of the pixels at one angle: three times the scatter there.
    pixels = np.asarray(fit.uncertainty.n_pixels) / np.array([1.0, 9.0])
    fewer = dataclasses.replace(fit.uncertainty, n_pixels=pixels)
    replica = replica_of(eqx.tree_at(lambda f: f.uncertainty, fit, fewer))
    drawn, diagonals = zip(
        *map(replica.drawn, jax.random.split(jax.random.key(0), 60)), strict=True
    )
    middle = fit.offset[:, None] + fit.contrast[:, None] + fit.uncertainty.shot_noise[:, None]
    scatter = np.std(drawn, axis=0)[:, 0, 1:].mean(axis=1)
    assert scatter[1] / scatter[0] == pytest.approx(3.0, rel=0.15)
    error = np.std(diagonals, axis=0) / np.sqrt(60)
    np.testing.assert_array_less(np.abs(np.mean(diagonals, axis=0) - middle), 5 * error)
    surface = xe.physics.correlation_map(fit.model, T, fit.objective.term.geometry)
    wanted = fit.offset[:, None, None] + fit.contrast[:, None, None] * surface
    error = np.std(drawn, axis=0) / np.sqrt(60) + np.eye(T.size)
    np.testing.assert_array_less(np.abs(np.mean(drawn, axis=0) - wanted), 5 * error)


@pytest.mark.long
def test_maps_of_many_pixels_scatter_less_and_take_no_longer():
    fit = fit_of(data_of())
    pixels = 1e4 * np.asarray(fit.uncertainty.n_pixels)
    many = dataclasses.replace(fit.uncertainty, n_pixels=pixels)
    few, more = (
        replica_of(eqx.tree_at(lambda f: f.uncertainty, fit, noise))
        for noise in (fit.uncertainty, many)
    )
    keys = jax.random.split(jax.random.key(0), 12)
    wide, narrow = (
        np.std([one.drawn(key)[0] for key in keys], axis=0)[0, 0, 1:].mean() for one in (few, more)
    )
    # Either is known to some 10 %.
    assert wide / narrow == pytest.approx(100.0, rel=0.3)


@pytest.mark.long
def test_after_the_likelihood_it_is_simulated_from_what_that_found():
    fit = fit_of(data_of())
    found = bootstrap(fit, 3, then=xe.maximum_likelihood)
    better = xe.maximum_likelihood(fit)
    k = found.names.index("D0")
    assert found.fitted[k] == better["D0"].value != fit["D0"].value
    np.testing.assert_array_less(
        np.abs(found.values[:, k] - found.fitted[k]), 5 * better["D0"].error
    )


def test_maps_without_a_diagonal_are_simulated_without_one():
    data = data_of()
    neighbours = np.diagonal(np.asarray(data.c2[0]), 1)
    for diagonal in (np.full((1, 24), np.nan), np.append(neighbours, neighbours[-1])[None]):
        fit = fit_of(dataclasses.replace(data, diagonal=diagonal))
        _, drawn = replica_of(fit).drawn(jax.random.key(0))
        assert np.isnan(drawn).all()
    # A frame that has none has none again.
    some = np.array(data.diagonal)
    some[0, 3] = np.nan
    _, drawn = replica_of(fit_of(dataclasses.replace(data, diagonal=some))).drawn(jax.random.key(0))
    assert np.flatnonzero(np.isnan(drawn[0])).tolist() == [3]


@pytest.mark.long
def test_after_the_likelihood_they_are_those_that_it_quotes():
    fit = fit_of(data_of())
    found = bootstrap(fit, 60, then=xe.maximum_likelihood)
    better = xe.maximum_likelihood(fit)
    k = found.names.index("D0")
    # Of 60 fits a standard deviation is known to 9 %.
    assert abs(np.log(found.errors[k] / better["D0"].error)) < 0.3


def test_errors_that_are_too_small_are_doubted():
    fit = fit_of(data_of())
    spread = np.array([fit[name].error for name in fit.names])
    for factor, said in ((1.0, ()), (1.3, ()), (2.0, ("D0 by a factor of 2",))):
        rows = np.random.default_rng(0).normal(size=(200, 3))
        rows = (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)
        # Contrast and offset are no result, and D0 comes last.
        values = fit.values + rows * spread * np.array([3.0, 1.0, factor])
        found = Bootstrap(tuple(fit.names), np.asarray(fit.values), values, 0)
        assert [one.rpartition(": ")[2] for one in found.doubts(fit)] == list(said)


def test_the_program_holds_errors_against_simulated_maps(tmp_path, monkeypatch):
    write_own(str(tmp_path / "data.h5"), data_of())
    (tmp_path / "fit.toml").write_text(TABLES)
    seen = []

    def recorded(fit, replicas, **how):
        seen.append((replicas, how["then"]))
        found = bootstrap(fit, 3, **how)
        # As if the fits had scattered far more.
        values = found.fitted + 1e3 * (found.values - found.fitted)
        return found._replace(values=np.tile(values, (40, 1)))

    monkeypatch.setattr(xpcs_eqx.program.task, "bootstrap", recorded)
    assert run(tmp_path, *QUICKLY) == 1
    assert seen == [(120, None)]
    written = results(tmp_path)
    assert written["bootstrap"]["fits"] == 120
    row = written["bootstrap"]["parameters"]["D0"]
    assert row["quoted"] == written["parameters"]["D0"]["error"] < 0.1 * row["error"]
    assert "scatter more than the quoted errors say: D0" in written["quality"]["findings"][-1]
    assert "Errors of simulated maps" in (tmp_path / "fit_results/fit/report.txt").read_text()


@pytest.mark.long
def test_of_several_data_sets():
    data = [data_of(0), data_of(1)]
    parameters = xe.shared_parameters(
        [TRUTH, TRUTH], [one.t for one in data], fixed=FIXED, labels=["a", "b"]
    )
    fit = xe.least_squares(xe.two_time_objective(parameters, data))
    found = bootstrap(fit, 40)
    k = found.names.index("D0")
    assert abs(np.log(found.errors[k] / fit["D0"].error)) < 0.4


def test_it_can_be_ended_and_repeated():
    fit, seen = fit_of(data_of()), []
    found = bootstrap(fit, 50, callback=lambda made: seen.append(made) or made == 4)
    assert seen == [1, 2, 3, 4]
    assert len(found.values) == 4
    again = bootstrap(fit, 50, callback=lambda made: made == 4)
    np.testing.assert_array_equal(again.values, found.values)
    other = bootstrap(fit, 4, seed=1)
    assert np.abs(other.values - found.values).min() > 0


def test_what_it_cannot_simulate_is_refused():
    line = xe.curve_fit(lambda x, a: a * x, np.arange(5.0), np.arange(5.0) * 1.01, np.ones(1))
    with pytest.raises(ModelError, match="this is one of a curve"):
        bootstrap(line)
    points = pooled(make_data(n=15, phi=np.array([0.0])))
    parameters = mapped(TRUTH, points, fixed=FIXED)
    with pytest.raises(ModelError, match="these data are points"):
        bootstrap(xe.least_squares(xe.two_time_objective(parameters, points)))
    fit = fit_of(data_of())
    with pytest.raises(ModelError, match="replicas is 1; give a whole number from 2"):
        bootstrap(fit, 1)
    nothing = eqx.tree_at(lambda f: f.fitted.contrast, fit, -jnp.ones(1))
    with pytest.raises(FitError, match="the contrast of angle 0 is -1"):
        bootstrap(nothing)
    quick = xe.least_squares(fit.objective, errors="classical")
    with pytest.raises(FitError, match="no number of independent pixels"):
        bootstrap(quick)
