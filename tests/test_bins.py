"""Fits to means over bins of age and lag: what is averaged, what comes out, what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    DOUBLE,
    LAMINAR,
    MODELS,
    assert_close,
    joint_objective,
    make_data,
    mapped,
    start_off,
    values_of,
)
from helpers_figures import complaints

import xpcs_eqx as xe
from xpcs_eqx.data import PooledData, binned, load_bins, write_bins, write_own
from xpcs_eqx.errors import FitError, ModelError
from xpcs_eqx.fit import main
from xpcs_eqx.fitting.after.surfaces import consistent_scaling
from xpcs_eqx.objective import Huber, projected_objective, residual
from xpcs_eqx.parameters import with_parameters
from xpcs_eqx.report import fitted_bins, text_report
from xpcs_eqx.report.plots import drawings
from xpcs_eqx.report.plots.canvas import style

AGING = xe.Static(xe.PowerLawRate(2e4, -0.5, 0.0))


def at_centres(bins):
    """Points at the middle of bins instead of means over them."""
    age = bins.mean(0.5 * (bins.first + bins.second))
    lag = np.maximum(np.round(bins.lag_frames), 1)
    first = np.clip(np.round(age - 0.5 * lag), 0, bins.n_frames - 1 - lag).astype(int)
    return PooledData(
        bins.values, first, first + lag.astype(int), bins.angle, bins.t, bins.geometry,
        bins.root_weights,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["fading", *(pytest.param(one, marks=pytest.mark.long) for one in ("static", "laminar"))],
)
def test_normal_equations_are_those_of_the_means(name):
    """Against residuals that are differentiated as a whole, of chunks of several lengths."""
    model = MODELS[name]
    data = make_data(model, n=14)
    bins = binned(data, ages=3)
    objective = projected_objective(mapped(model, data), bins, tile=40)
    y = objective.variables.to_coordinates(jnp.asarray(objective.start)) + 0.1
    wanted = residual(objective, y)
    surface = xe.correlation_map(
        objective.variables.build(objective.variables.to_physical(y)), data.t, data.geometry
    )
    scaling = objective.evaluate(y, objective.memo)[1].scaling
    c1 = np.asarray(surface)[bins.angle[bins.bins.point], bins.first, bins.second]
    contrast, offset = np.asarray(scaling)[bins.angle].T
    direct = bins.root_weights * (offset + contrast * bins.mean(c1) - bins.values)
    assert_close(np.sum(wanted**2), np.sum(direct**2), DOUBLE.same)
    together = joint_objective(mapped(model, data), bins, tile=40)
    z = jnp.concatenate([y, together.start[y.size :]])
    equations = together.evaluate(z, together.memo)[0]
    jacobian = jax.jacfwd(lambda z: residual(together, z))(z)
    rest = residual(together, z)
    assert_close(equations.cost, 0.5 * rest @ rest, DOUBLE.same)
    assert_close(equations.gradient, jacobian.T @ rest, DOUBLE.derivative)
    assert_close(equations.hessian, jacobian.T @ jacobian, DOUBLE.derivative)


@pytest.mark.long
def test_an_objective_of_bins_can_be_transformed():
    data = make_data(AGING, n=12)
    objective = projected_objective(mapped(AGING, data, fixed=("D_offset",)), binned(data, 2))
    y = objective.variables.to_coordinates(jnp.asarray(objective.start))

    def cost(y):
        return objective.cost(y, objective.memo)

    slope = jax.jit(jax.grad(cost))(y)
    found = jax.vmap(lambda y: objective.cost_and_gradient(y, objective.memo)[1])(y[None])[0]
    assert_close(slope, found, DOUBLE.derivative)


@pytest.mark.parametrize(
    ("model", "ages"), [(AGING, 6), pytest.param(LAMINAR, 5, marks=pytest.mark.long)]
)
def test_bins_of_a_map_give_what_the_map_gives(model, ages):
    data = make_data(model, n=60, noise=0.004)
    fixed = tuple(name for name in values_of(model) if name.endswith("offset"))
    truth = values_of(model)
    start = with_parameters(start_off(model, 1.2), {name: truth[name] for name in fixed})
    parameters = mapped(start, data, fixed=fixed)
    bins = binned(data, ages)
    assert bins.n_pairs < 0.2 * data.n_pairs
    fit = xe.least_squares(projected_objective(parameters, bins))
    whole = xe.least_squares(projected_objective(parameters, data))
    assert f"to {bins.n_pairs} bins" in repr(fit)
    assert f"to {data.n_pairs} pairs" in repr(whole)
    assert fit.success
    for name in fit.objective.names:
        row, other = fit[name], whole[name]
        assert abs(row.value - truth[name]) < 5 * row.error, name
        assert abs(row.value - other.value) < 3 * row.error, name
        assert 0.3 < row.error / other.error < 4, name
    assert fit.quality.flag == "good"
    assert fit.uncertainty.chosen == "dyadic"
    assert f"between {ages} ages" in fit.uncertainty.reason
    assert any("errors know of noise" in one for one in fit.quality.findings)
    assert 0.3 < fit.fitted.scatter < 1.5
    assert fit.signal is not None
    assert fit.signal.contrast > 100
    assert fit.misfit is None
    with pytest.raises(FitError, match="not means over bins"):
        fitted_bins(whole)


def test_wide_bins_are_averaged_not_taken_at_their_centres():
    """Without noise: the truth from means, something else from points in the middle of bins."""
    n = 120
    data = make_data(AGING, n=n, noise=0.0, phi=np.array([0.0]))
    dt = float(data.t[1] - data.t[0])
    lags = dt * (np.array([0, 4, 12, 30, 70, n - 1]) + 0.5)
    bins = binned(data, 3, lags)
    parameters = mapped(start_off(AGING, 1.2), data, fixed=("D_offset",))
    fit, wrong = (
        xe.least_squares(projected_objective(parameters, one)) for one in (bins, at_centres(bins))
    )
    for name in ("D0", "alpha"):
        truth = values_of(AGING)[name]
        assert abs(fit[name].value / truth - 1) < 1e-3
        assert abs(wrong[name].value / truth - 1) > 0.03
    scaling = np.array([fit.contrast[0], fit.offset[0]])
    np.testing.assert_allclose(consistent_scaling(AGING, bins)[0][0], scaling, atol=1e-3)


def test_what_is_missing_is_said_and_nothing_is_hidden():
    data = make_data(AGING, n=40, noise=0.004, phi=np.array([0.0]))
    bins = binned(data, 8)
    # No aging where there is some, and a map that is flat.
    steady = with_parameters(AGING, {"alpha": 0.8})
    wrong = mapped(steady, data, fixed=("D_offset", "alpha"))
    fit = xe.least_squares(projected_objective(wrong, bins))
    assert fit.quality.doubtful
    assert any("neighbouring ages" in one for one in fit.quality.findings)
    with style():
        assert [complaints(one.draw()) for one in drawings(fit)] == [[]] * 4
    flat = replace(bins, values=1 + 0.004 * np.random.default_rng(0).normal(size=bins.values.size))
    nothing = xe.least_squares(projected_objective(wrong, flat))
    assert nothing.quality.flag == "poor"


@pytest.mark.long
def test_few_ages_and_robust_losses():
    data = make_data(AGING, n=40, noise=0.004, phi=np.array([0.0]))
    few = xe.least_squares(projected_objective(mapped(AGING, data), binned(data, 2)))
    assert few.uncertainty.chosen == "classical"
    assert "too few ages" in few.uncertainty.reason
    bins = binned(data, 8)
    robust = xe.least_squares(joint_objective(mapped(AGING, data), bins, loss=Huber(0.02)))
    assert robust.success
    assert np.isfinite(robust["D0"].error)


@pytest.mark.long
def test_bins_and_maps_fit_together():
    parts = [make_data(AGING, n=30), binned(make_data(AGING, n=30, seed=1), 5)]
    shared = xe.shared_parameters([AGING, AGING], [one.t for one in parts])
    fit = xe.least_squares(xe.two_time_objective(shared, parts))
    assert fit.success
    assert fit.uncertainty.chosen == "dyadic"
    assert abs(fit["alpha"].value + 0.5) < 5 * fit["alpha"].error
    assert "errors know of noise" in text_report(fit)


def test_what_bins_do_not_have_is_refused():
    data = make_data(AGING, n=20)
    objective = projected_objective(mapped(AGING, data), binned(data, 4))
    for function in (xe.fitted, xe.sample, xe.consensus):
        with pytest.raises(ModelError, match="means over bins of age and lag"):
            function(objective)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    data = make_data(AGING, n=41, noise=0.004, phi=np.array([0.0, 90.0]))
    write_bins(tmp_path / "bins.npz", binned(data, 5))
    write_own(tmp_path / "maps.h5", data)
    text = '[data]\npath = "bins.npz"\n[model]\nmode = "static"\n[global]\nmethod = "local"\n'
    (tmp_path / "fit.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.long
def test_the_program_fits_bins(folder, capsys):
    assert main(["fit.toml", "--check"]) == 0
    assert "bins of age and lag" in capsys.readouterr().out
    assert main(["fit.toml", "--output", "out"]) == 0
    report = capsys.readouterr().out
    method = (folder / "out" / "fit" / "report.txt").read_text()
    assert "each a mean over its pairs of frames" in method
    assert "errors come from the scatter between 5 ages" in " ".join(report.split())
    with np.load("out/fit/fitted_bins.npz") as found:
        bins = load_bins("bins.npz")
        np.testing.assert_allclose(np.sort(found["c2"]), np.sort(bins.values))
        np.testing.assert_allclose(found["residual"], found["c2"] - found["fitted"])
        assert np.std(found["residual"] * found["root_weights"]) < 0.006
        assert found["lag"].min() == pytest.approx(0.25)
    for name in ("bins", "c2_against_lag"):
        assert (folder / "out" / "plots" / f"{name}.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("streaming.strategy='out_of_core'", "streaming.strategy is for maps"),
        ("bayes.draws=100", "bayes is for maps"),
        ("output.sequential='inverse_variance'", "output.sequential is for maps"),
        ("defences.shear_weights.minimum=0.3", "defences.shear_weights is for maps"),
        ("data.frames=[2, 30]", "frames is for maps"),
        ("data.symmetrise='mean'", "symmetrise is for maps"),
    ],
)
def test_the_program_refuses_what_bins_do_not_have(folder, given, words, capsys):
    assert main(["fit.toml", "--check", "--set", given]) == 2
    assert words in capsys.readouterr().err
