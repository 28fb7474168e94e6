"""The likelihood of speckle: its numbers, its errors, what it gains, and what it refuses."""

import dataclasses
import importlib
import itertools
import json
import sys
import textwrap
from functools import cache, partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SPECKLE, SPEED, make_data, mapped, pooled, values_of
from helpers_particles import intensities, power_integral

import xpcs_eqx as xe
from xpcs_eqx.data import Selection, from_dict, write_own
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fit import main
from xpcs_eqx.fitting import compare_likelihood, gain_of_offsets, likelihood_of
from xpcs_eqx.fitting.likelihood import start_of
from xpcs_eqx.fitting.solve import solve
from xpcs_eqx.objective import Pull
from xpcs_eqx.optimize import evaluated
from xpcs_eqx.physics import correlation_map
from xpcs_eqx.simulation import simulate_speckle

# Thousands of pixels are simulated for every error bar.
pytestmark = pytest.mark.usefixtures("optimised")

PIXELS = 2000


@cache
def simulated(kind, counts, contrast, frames):
    truth, _, t, geometry = SPECKLE[kind]
    return jax.jit(
        partial(
            simulate_speckle,
            truth,
            t[:frames],
            geometry,
            contrast,
            n_pixels=PIXELS,
            mean_counts=counts,
        ),
        compiler_options=SPEED,
    )


def data_of(kind="static", counts=5.0, contrast=0.25, seed=0, frames=30):
    key = jax.random.key(seed)
    # Its keyword, which `partial` has left open.
    return simulated(kind, counts, contrast, frames)(key=key)


def squares_of(data, kind="static", **how):
    truth, fixed, *_ = SPECKLE[kind]
    return xe.least_squares(xe.projected_objective(mapped(truth, data, fixed=fixed, **how), data))


@cache
def laminar_fit():
    return squares_of(data_of("laminar", frames=21), "laminar")


@eqx.filter_jit
def dense(likelihood, y):
    """K of each angle by the coordinates, from nothing but the map of the model."""
    term, p = likelihood.term, likelihood.physical.n_free
    model = term.parameters.build_from_coordinates(y[:p])
    contrast, offset, shot = likelihood.levels(y).T[:, :, None, None]
    c1 = correlation_map(model, term.t, term.geometry)
    return offset - 1 + contrast * c1 + shot * jnp.eye(term.t.size)


def test_cost_gradient_and_information_are_those_of_the_formula():
    likelihood = likelihood_of(laminar_fit())
    y = likelihood.variables.to_coordinates(jnp.asarray(likelihood.start))
    y = y + 0.03 * jnp.cos(jnp.arange(y.size)) * likelihood.variables.coordinate_scale
    equations, _ = evaluated(likelihood, y, likelihood.memo)
    c, n = likelihood.blocks.covariance, likelihood.blocks.n_pixels

    @jax.jit
    def minus_log(y):
        k = dense(likelihood, y)
        trace = jnp.trace(jnp.linalg.solve(k, c), axis1=1, axis2=2)
        return jnp.sum(0.5 * n * (jnp.linalg.slogdet(k)[1] + trace))

    sizes = jnp.linalg.slogdet(c)[1] + c.shape[1]
    np.testing.assert_allclose(equations.cost, minus_log(y) - jnp.sum(0.5 * n * sizes), rtol=1e-9)
    np.testing.assert_allclose(likelihood.cost(y, ()), equations.cost, rtol=1e-12)
    np.testing.assert_allclose(
        equations.gradient, jax.jit(jax.grad(minus_log))(y), rtol=1e-6, atol=1e-6
    )
    k, slopes = dense(likelihood, y), jax.jit(jax.jacfwd(partial(dense, likelihood)))(y)
    turned = jnp.einsum("aij,ajkv->avik", jnp.linalg.inv(k), slopes)
    information = 0.5 * jnp.einsum("a,avij,awji->vw", n, turned, turned)
    np.testing.assert_allclose(
        equations.hessian, information, rtol=1e-6, atol=1e-9 * float(jnp.max(information))
    )
    triangles = 3 * 21 * 22 // 2
    assert float(equations.count) == triangles


def test_a_fit_ends_where_the_gradient_vanishes():
    fit = laminar_fit()
    found = xe.maximum_likelihood(fit)
    assert found.success
    assert found.quality.flag == "good", found.quality
    assert found.n_pairs == 3 * 21 * 22 // 2
    assert found.names[:9] == (
        *(f"contrast[{i}]" for i in range(3)),
        *(f"offset[{i}]" for i in range(3)),
        *(f"shot[{i}]" for i in range(3)),
    )
    np.testing.assert_allclose(found.values[6:9], 0.2, atol=0.02)
    likelihood = found.objective
    y = likelihood.variables.to_coordinates(jnp.asarray(found.x))
    equations, _ = evaluated(likelihood, y, ())
    step = np.linalg.solve(equations.hessian, equations.gradient)
    assert step @ np.asarray(equations.gradient) < 1e-8
    # Half the deviance has the size of half a χ²; more of speckle, which is not Gaussian.
    assert 0.9 < float(found.chi2) / found.degrees_of_freedom < 1.6
    assert found.surface().shape == found.residuals().shape == (3, 21, 21)


@pytest.mark.long
def test_frames_left_out_are_as_if_they_had_not_been():
    data = data_of()
    # They are counted from one.
    kept = np.setdiff1d(np.arange(30), [0, 7, 29])
    known = {"q": data.geometry.q, "phi": data.geometry.phi}
    c2, t = np.array(data.c2), np.asarray(data.t)
    c2[0, np.arange(30), np.arange(30)] = data.diagonal[0]
    masked = from_dict(
        {"g2": c2, "t1": t, "t2": t, **known}, selection=Selection(bad_frames=[1, 8, 30])
    )
    fit = squares_of(masked)
    likelihood = likelihood_of(fit)
    y = likelihood.variables.to_coordinates(jnp.asarray(likelihood.start))
    equations, _ = evaluated(likelihood, y, ())
    k = np.asarray(dense(likelihood, y))[0][np.ix_(kept, kept)]
    c = c2[0][np.ix_(kept, kept)] - 1
    c = 0.5 * (c + c.T)
    turned = np.linalg.solve(k, c)
    best = np.linalg.slogdet(c)[1] + kept.size
    n = float(likelihood.blocks.n_pixels[0])
    cost = 0.5 * n * (np.linalg.slogdet(k)[1] + np.trace(turned) - best)
    np.testing.assert_allclose(equations.cost, cost, rtol=1e-8)
    assert float(equations.count) == kept.size * (kept.size + 1) / 2
    assert xe.maximum_likelihood(fit).success


@pytest.mark.parametrize(
    ("kind", "frames", "level", "loss"),
    [
        pytest.param("static", 30, np.nan, 0.25, marks=pytest.mark.long, id="none"),
        pytest.param("static", 30, 1.1, 0.25, id="overwritten"),
        # Its parameters differ in size by ten orders of magnitude.
        pytest.param("laminar", 21, 1.1, 0.5, marks=pytest.mark.long, id="overwritten, laminar"),
    ],
)
def test_without_the_diagonal_nothing_is_taken_from_it(kind, frames, level, loss):
    data = data_of(kind, counts=20.0, frames=frames)
    whole = xe.maximum_likelihood(squares_of(data, kind))
    diagonal = jnp.full_like(data.diagonal, level)
    fit = squares_of(dataclasses.replace(data, diagonal=diagonal), kind)
    found = xe.maximum_likelihood(fit)
    assert found.success
    assert "shot[0]" not in found.names
    assert "without the raw diagonal" in found.uncertainty.reason
    # The scatter of the other entries tells the shot noise; of small maps it is not all they do.
    np.testing.assert_allclose(found.uncertainty.shot_noise, 1 / 20, rtol=0.5)
    for name in found.names:
        one, other = whole[name], found[name]
        assert abs(one.value - other.value) < 3 * other.error, name
        assert other.error == pytest.approx(one.error, rel=loss), name
    # The diagonal that stands there says nothing by itself.
    likelihood = found.objective
    y = likelihood.variables.to_coordinates(jnp.asarray(found.x))
    for k, c in zip(dense(likelihood, y), likelihood.blocks.covariance, strict=True):
        inverse = np.linalg.inv(k)
        slope = inverse - inverse @ np.asarray(c) @ inverse
        np.testing.assert_allclose(np.diagonal(slope), 0, atol=1e-3 * np.abs(inverse).max())


@pytest.mark.long
@pytest.mark.parametrize("kind", SPECKLE)
@pytest.mark.parametrize("counts", [5.0, 50.0])
def test_intervals_cover_without_the_diagonal(kind, counts):
    sets, true = 60, values_of(SPECKLE[kind][0])
    off, errors, shots = [], [], []
    for seed in range(sets):
        data = data_of(kind, counts, seed=seed, frames=40)
        diagonal = jnp.full_like(data.diagonal, 1.0)
        found = xe.maximum_likelihood(
            squares_of(dataclasses.replace(data, diagonal=diagonal), kind)
        )
        names = found.objective.physical.free_names
        off.append([found[n].value - true[n] for n in names])
        errors.append([found[n].error for n in names])
        shots.append(counts * found.uncertainty.shot_noise[0])
    covered = np.mean(np.abs(off) <= np.array(errors), axis=0)
    print(kind, counts, "covered", covered, "shot noise over the true one", np.median(shots))
    # Within three standard deviations.
    assert np.all((covered >= 0.5) & (covered <= 0.86))
    assert 0.8 < np.median(shots) < 1.25


def test_bounds_and_penalties_hold():
    data = data_of()
    fit = squares_of(data, bounds={"D0": (1000.0, 2000.0)})
    found = xe.maximum_likelihood(fit)
    assert found["D0"].value == 1000.0
    assert found["D0"].at_bound
    truth, fixed, *_ = SPECKLE["static"]
    drawn = xe.projected_objective(
        mapped(truth, data, fixed=fixed), data, penalties=(Pull(lambda v: v["D0"], 1200.0, 10.0),)
    )
    pulled = xe.maximum_likelihood(xe.least_squares(drawn))
    free = xe.maximum_likelihood(squares_of(data))
    weight, pull = 1 / free["D0"].error_classical ** 2, 1 / 10.0**2
    expected = (free["D0"].value * weight + 1200.0 * pull) / (weight + pull)
    assert abs(pulled["D0"].value - expected) < 0.5 * free["D0"].error


def test_both_fits_side_by_side():
    compared = compare_likelihood(laminar_fit())
    assert compared.quoted.objective is compared.likelihood.objective
    assert np.all(compared.expected > 1.2)
    # What is not Gaussian takes some of it back.
    assert np.all(compared.gain > 1.05)
    assert np.all(compared.gain < 1.1 * compared.expected)
    assert np.all(np.abs(compared.difference) < 4)
    # Half of what is counted is one photon in twenty: nothing is left to gain.
    faint = compare_likelihood(squares_of(data_of(counts=0.05)))
    assert faint.likelihood is None
    assert "promises" in faint.reason
    assert faint.quoted is faint.squares


def test_the_program_shows_both_side_by_side(tmp_path, capsys):
    write_own(tmp_path / "maps.h5", data_of())
    text = """
        data = {path = "maps.h5"}
        model = {mode = "static"}
        parameters = {alpha = {free = false}, D_offset = {free = false}}
        solver = {likelihood = "speckle", profile = ["D0"], bootstrap = 4}
        global = {method = "local"}
        """
    (tmp_path / "fit.toml").write_text(textwrap.dedent(text), encoding="utf-8")
    assert main([str(tmp_path / "fit.toml"), "--no-plots"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for said in (
        "error one standard error, by the likelihood of speckle",
        "quoted likelihood of speckle: errors were expected to be smaller by a factor of",
        "parameter least squares error likelihood error gain difference [errors]",
        "offset_bounds = [1.0, 1.0] in [scaling] divides the errors by",
    ):
        assert said in printed, said
    document = json.loads((tmp_path / "fit_results" / "fit" / "parameters.json").read_text())
    both = document["likelihood"]["parameters"]["D0"]
    assert both["gain"] == pytest.approx(
        both["least_squares"]["error"] / both["likelihood"]["error"]
    )
    assert document["likelihood"]["gain_of_offsets_held_at_one"]["the likelihood"] > 1
    # The interval is about the value that is quoted, and as wide as its error.
    quoted = both["likelihood"]
    interval = document["parameters"]["D0"]["profile"]
    assert interval["low"] < quoted["value"] < interval["high"]
    assert (interval["high"] - interval["low"]) / 2 == pytest.approx(quoted["error"], rel=0.2)


def test_a_likelihood_that_loses_precision_is_not_quoted():
    fit = laminar_fit()
    compared = compare_likelihood(fit, frames=8, asked=True)
    assert compared.likelihood is None
    assert "its errors are larger, by a factor of" in compared.reason
    assert "blocks of frames" in compared.reason
    assert compared.quoted.quality.doubtful


def test_with_all_of_the_model_held_the_scaling_is_fitted():
    truth, *_ = SPECKLE["static"]
    data = data_of()
    start = mapped(truth, data, fixed=("D0", "alpha", "D_offset"))
    squares = xe.least_squares(xe.projected_objective(start, data))
    found = xe.maximum_likelihood(squares)
    assert found.success
    assert abs(found["contrast[0]"].value - 0.25) < 5 * found["contrast[0]"].error


def test_a_diagonal_of_some_frames_is_not_that_of_all():
    data = data_of()
    diagonal = np.array(data.diagonal)
    diagonal[:, 4:] = np.nan
    likelihood = likelihood_of(squares_of(dataclasses.replace(data, diagonal=diagonal)))
    assert not likelihood.known_diagonal.any()


def test_intensities_without_shot_noise_are_no_reason_to_doubt():
    truth, _, t, geometry = SPECKLE["static"]
    at_bound = 0
    for seed in range(4):
        how = {"n_pixels": PIXELS, "key": jax.random.key(seed)}
        found = xe.maximum_likelihood(
            squares_of(simulate_speckle(truth, t[:30], geometry, 0.25, **how))
        )
        at_bound += found["shot[0]"].at_bound
        assert not any("shot[0] ended on its bound" in one for one in found.quality.findings)
    assert at_bound


def test_few_pixels_for_so_many_frames():
    truth, _, t, geometry = SPECKLE["static"]
    found = {}
    for pixels in (15, 100):
        how = {"n_pixels": pixels, "mean_counts": 5.0, "key": jax.random.key(1)}
        found[pixels] = squares_of(simulate_speckle(truth, t[:30], geometry, 0.25, **how))
    with pytest.raises(ModelError, match="independent pixels, which say little of 30 frames at"):
        xe.maximum_likelihood(found[15])
    better = xe.maximum_likelihood(found[100])
    # Their sample covariance is farther from any other than that of many pixels.
    np.testing.assert_allclose(better.uncertainty.n_pixels, 100, rtol=0.15)
    assert not any("deviance" in one for one in better.doubts)


def test_what_the_likelihood_would_leave_out_is_refused():
    truth, fixed, *_ = SPECKLE["laminar"]
    data = data_of("laminar", frames=21)
    start = mapped(truth, data, fixed=fixed)
    drawn = xe.defences.AbsoluteVariation(1.0, 630.0)
    fits = {
        "the loss": xe.two_time_objective(start, data, loss=xe.Huber(1.0)),
        "penalties on contrast": xe.projected_objective(start, data, scaling_penalties=(drawn,)),
        "weights of the angles": xe.projected_objective(
            start, data, angle_weights=np.array([1.0, 1.0, 3.0])
        ),
    }
    for what, objective in fits.items():
        with pytest.raises(ModelError, match=what):
            likelihood_of(xe.least_squares(objective))


def test_noise_that_is_not_of_speckle_goes_back_to_least_squares():
    fit = squares_of(data_of())
    # As many pixels would leave a fifth of the noise that there is.
    pixels = 5 * np.asarray(fit.uncertainty.n_pixels)
    uncertainty = dataclasses.replace(fit.uncertainty, n_pixels=pixels)
    compared = compare_likelihood(dataclasses.replace(fit, uncertainty=uncertainty), asked=True)
    assert compared.likelihood is None
    assert "the deviance of the likelihood is" in compared.reason
    assert compared.quoted.quality.doubtful
    assert "was asked for" in compared.quoted.quality.findings[-1]


def test_what_it_cannot_use_is_refused():
    data = data_of()
    holes = np.ones(data.c2.shape)
    holes[0, 3, 5:9] = holes[0, 5:9, 3] = 0.0
    fit = squares_of(dataclasses.replace(data, root_weights=holes))
    with pytest.raises(ModelError, match="angle 0: 4 pairs are masked one by one"):
        xe.maximum_likelihood(fit)
    points = pooled(make_data(n=15, phi=np.array([0.0])))
    truth, fixed, *_ = SPECKLE["static"]
    at_points = xe.least_squares(xe.two_time_objective(mapped(truth, points, fixed=fixed), points))
    compared = compare_likelihood(at_points, asked=True)
    assert compared.likelihood is None
    assert "points" in compared.reason
    line = xe.curve_fit(lambda x, a: a * x, np.arange(5.0), np.arange(5.0) * 1.01, np.ones(1))
    with pytest.raises(ModelError, match="least-squares fit of maps"):
        xe.maximum_likelihood(line)


@cache
def joint_fit(factors=(1.0, 1.0)):
    """Two data sets of one D0, with another q and counts, `factors` times their weight."""
    truth, fixed, t, geometry = SPECKLE["static"]
    data = []
    for seed, (q, counts) in enumerate(((0.01, 20.0), (0.014, 5.0))):
        how = {"n_pixels": PIXELS, "mean_counts": counts, "key": jax.random.key(seed)}
        data.append(simulate_speckle(truth, t[:30], xe.Geometry(q, geometry.phi), 0.25, **how))
    parameters = xe.shared_parameters(
        [truth, truth], [one.t for one in data], fixed=fixed, labels=["slow", "fast"]
    )
    weights = np.multiply(xe.objective.combined.relative_weights(data), factors)
    return xe.least_squares(xe.two_time_objective(parameters, data, weights=weights))


def test_several_data_sets_are_fitted_together():
    fit = joint_fit()
    # The weight of a data set among others says nothing of the number of its pixels.
    other = joint_fit((1.0, 9.0))
    pixels, same = (one.uncertainty.n_pixels for one in (fit, other))
    np.testing.assert_allclose(same, pixels, rtol=0.1)
    likelihood = likelihood_of(fit)
    y = likelihood.variables.to_coordinates(jnp.asarray(start_of(likelihood, fit)))
    equations, _ = evaluated(likelihood, y, likelihood.memo)
    own = [
        part.evaluate(z, ())[0]
        for part, z in zip(likelihood.parts, likelihood.local(y)[0], strict=True)
    ]
    np.testing.assert_allclose(equations.cost, sum(one.cost for one in own), rtol=1e-12)
    np.testing.assert_allclose(likelihood.cost(y, likelihood.memo), equations.cost, rtol=1e-12)
    slope = jax.grad(lambda y: likelihood.cost(y, likelihood.memo))(y)
    np.testing.assert_allclose(equations.gradient, slope, rtol=1e-6, atol=1e-6)
    found = xe.maximum_likelihood(fit)
    assert found.success
    assert found.quality.flag == "good", found.quality
    assert found.names == (
        *(
            f"{kind}[0][{label}]"
            for label in ("slow", "fast")
            for kind in ("contrast", "offset", "shot")
        ),
        "D0",
    )
    np.testing.assert_allclose(found.parts["slow"]["shot[0]"].value, 1 / 20, rtol=0.2)
    np.testing.assert_allclose(found.parts["fast"]["shot[0]"].value, 1 / 5, rtol=0.2)
    compared = compare_likelihood(fit, asked=True)
    assert compared.quoted["D0"].error == found["D0"].error
    assert np.all(compared.expected > 1)


@pytest.mark.long
def test_what_data_sets_say_by_themselves_adds_up():
    fit = joint_fit()
    found, apart = xe.maximum_likelihood(fit), []
    for part in fit.data_sets:
        term = part.objective.term
        alone = xe.least_squares(dataclasses.replace(part.objective, term=term))
        apart.append(xe.maximum_likelihood(alone)["D0"])
    weights = np.array([one.error**-2 for one in apart])
    mean = weights @ [one.value for one in apart] / weights.sum()
    assert abs(found["D0"].value - mean) < 0.1 * found["D0"].error
    np.testing.assert_allclose(found["D0"].error, weights.sum() ** -0.5, rtol=0.05)


TIGHT = xe.TrustRegion(cost_tol=1e-16, step_tol=1e-13, gradient_tol=1e-14, damping=1e-4)


def refitted(objective, **values):
    """The minimum with other values, whose derivative by them is taken below."""
    return xe.fitted(xe.with_values(objective, **values), solver=TIGHT)


def test_a_fit_is_differentiable_by_data_and_geometry():
    better = xe.maximum_likelihood(squares_of(data_of()))
    objective, errors = better.objective, better.uncertainty.errors("classical")
    found = xe.fitted(objective, solver=TIGHT)
    assert int(found.status) > 0
    np.testing.assert_allclose(found.values, better.values, atol=1e-3 * errors.min())
    term = objective.term
    way = jnp.asarray(np.random.default_rng(0).normal(size=term.tiles.c2.shape))

    def along(step):
        moved = {"c2": term.tiles.c2 + step * way, "q": term.geometry.q * (1 + step)}
        found = refitted(objective, **moved, t=term.t * (1 + 0.3 * step))
        return jnp.append(found.values, found.cost)

    _, change = jax.jit(lambda: jax.jvp(along, (0.0,), (1.0,)))()
    step = 1e-5
    wanted = (along(step) - along(-step)) / (2 * step)
    np.testing.assert_allclose(change, wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max())
    by_map = jax.jit(jax.grad(lambda c2: refitted(objective, c2=c2)["D0"]))(term.tiles.c2)
    alone = jax.jvp(lambda c2: refitted(objective, c2=c2)["D0"], (term.tiles.c2,), (way,))[1]
    np.testing.assert_allclose(jnp.sum(by_map * way), alone, rtol=1e-8)
    # Each pair once; what a frame has with itself stays.
    assert np.count_nonzero(np.tril(by_map)) == 0 < np.count_nonzero(by_map)
    with pytest.raises(ModelError, match="has no weights"):
        xe.with_values(objective, angle_weights=np.ones(term.tiles.c2.shape[0]))


@pytest.mark.long
def test_a_fit_of_several_is_differentiable():
    better = xe.maximum_likelihood(joint_fit())
    objective, errors = better.objective, better.uncertainty.errors("classical")
    found = xe.fitted(objective, solver=TIGHT)
    np.testing.assert_allclose(found.values, better.values, atol=1e-3 * errors.min())

    def at(q):
        return refitted(objective, data_set="fast", q=q)["D0"]

    q = objective.parts[1].term.geometry.q
    slope, step = jax.jacfwd(at)(q), 1e-4 * q
    np.testing.assert_allclose(slope, (at(q + step) - at(q - step)) / (2 * step), rtol=1e-4)


def test_without_the_diagonal_no_derivative_is_known():
    data = data_of(counts=20.0)
    data = dataclasses.replace(data, diagonal=jnp.full_like(data.diagonal, np.nan))
    likelihood = likelihood_of(squares_of(data))
    with pytest.raises(ModelError, match=r"angles \[0\] have no raw diagonal"):
        xe.fitted(likelihood)


def spread(kind, counts, contrast, sets, frames):
    """Deviations of both fits from the truth and quoted errors, `(fit, set, parameter)`."""
    true = values_of(SPECKLE[kind][0])
    off, errors = [], []
    for seed in range(sets):
        fit = squares_of(data_of(kind, counts, contrast, seed, frames), kind)
        pair = (fit, xe.maximum_likelihood(fit))
        names = fit.objective.names
        off.append([[one[n].value - true[n] for n in names] for one in pair])
        errors.append([[one[n].error for n in names] for one in pair])
    return np.moveaxis(off, 1, 0), np.moveaxis(errors, 1, 0)


def test_the_solver_takes_it_as_any_objective():
    fit = laminar_fit()
    solution = solve(likelihood_of(fit))
    assert solution.status.converged
    assert solution.run.evaluations <= 15


@pytest.mark.slow
def test_it_is_more_precise_and_says_how_much():
    sets = 16
    # Of the size of the data above, for which everything is compiled.
    off, errors = spread("static", 20.0, 0.25, sets, 30)
    squares, likelihood = np.sqrt(np.mean(off**2, axis=1))
    assert likelihood[0] < 0.95 * squares[0]
    z = off[1] / errors[1]
    # Within three standard deviations.
    assert 0.3 < np.mean(z**2) < 2.3
    assert abs(np.mean(z)) < 3 / np.sqrt(sets)


@pytest.fixture
def benchmarks(monkeypatch):
    """The folder of benchmarks, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    yield
    for name in ("precision_bound", "precision", "common"):
        sys.modules.pop(name, None)


@pytest.fixture
def theory(benchmarks):
    """The benchmark that has the exact covariance of a map, by nothing of the library."""
    return importlib.import_module("precision_bound")


@pytest.fixture
def precision(benchmarks):
    """The benchmark that fits many maps."""
    return importlib.import_module("precision")


def assert_errors_are_exact(theory, fit, fixed, frames=None):
    """Errors of both fits against the exact covariance of the maps of the fitted model."""
    found = xe.maximum_likelihood(fit, frames=frames)
    term, pixels = fit.objective.term, None
    for one, kind in ((fit, "squares"), (found, "likelihood")):
        noise = one.uncertainty
        shot, pixels = np.asarray(noise.shot_noise), np.asarray(noise.n_pixels)
        levels = zip(one.contrast.tolist(), shot.tolist(), pixels.tolist(), strict=True)
        how = (one.model, fixed, term.t, term.geometry, list(levels), frames)
        exact = theory.exact_errors(*how)[True]
        errors = [one[name].error for name in exact["names"]]
        # Simulated pixels leave some 2 % to chance, and a contrast that is no 1/M has modes of
        # unequal weights.
        np.testing.assert_allclose(errors, exact[kind], rtol=0.08, err_msg=kind)
        assert np.all(exact["best"] <= exact[kind])
    if frames is None:
        # Nothing that is made of the maps is much more precise.
        assert np.all(exact["likelihood"] < 1.1 * exact["best"])


@pytest.mark.parametrize(
    ("kind", "frames"),
    [
        ("static", None),
        ("static", 11),
        pytest.param("laminar", None, marks=pytest.mark.long),
        pytest.param("laminar", 11, marks=pytest.mark.long),
    ],
)
def test_errors_are_those_of_the_exact_covariance(theory, kind, frames):
    fit = laminar_fit() if kind == "laminar" else squares_of(data_of())
    assert_errors_are_exact(theory, fit, SPECKLE[kind][1], frames)


def test_blocks_of_frames_add_up():
    fit = laminar_fit()
    found = xe.maximum_likelihood(fit, frames=8)
    assert found.success
    assert "in 3 blocks of 7 frames" in found.uncertainty.reason
    likelihood = found.objective
    y = likelihood.variables.to_coordinates(jnp.asarray(found.x))
    c2 = np.asarray(fit.objective.term.tiles.c2) - 1
    cost = 0.0
    for a, k in enumerate(np.asarray(dense(likelihood, y))):
        c = np.triu(c2[a], 1)
        c = c + c.T + np.diag(np.asarray(fit.objective.term.diagonal)[a] - 1)
        for begin in (0, 7, 14):
            own = np.s_[begin : begin + 7, begin : begin + 7]
            best = np.linalg.slogdet(c[own])[1] + 7
            value = np.linalg.slogdet(k[own])[1] + np.trace(np.linalg.solve(k[own], c[own]))
            cost += 0.5 * float(likelihood.n_pixels[a]) * (value - best)
    np.testing.assert_allclose(found.cost, cost, rtol=1e-9)
    assert found.n_pairs == 3 * 3 * 7 * 8 // 2
    # A block more than there are frames for ends with the last one, which counts once.
    uneven = xe.maximum_likelihood(fit, frames=11)
    assert uneven.n_pairs == 3 * (11 * 12 + 10 * 11) // 2
    # What is left out would have said something.
    whole = compare_likelihood(fit).likelihood
    assert all(found[n].error > 0.95 * whole[n].error for n in whole.objective.physical.free_names)


def test_what_offsets_held_at_one_would_gain():
    """Against a fit in which they are held, of maps with little noise."""
    truth, fixed, t, geometry = SPECKLE["static"]
    how = {"n_pixels": 50_000, "mean_counts": 5.0, "key": jax.random.key(1)}
    data = simulate_speckle(truth, t[:30], geometry, 0.25, **how)
    scaling = xe.Individual(1, offset_bounds=(1.0, 1.0))
    held = xe.projected_objective(mapped(truth, data, fixed=fixed), data, scaling)
    squares = squares_of(data), xe.least_squares(held)
    for free, held in (squares, [xe.maximum_likelihood(one) for one in squares]):
        gain = free["D0"].error / held["D0"].error
        assert gain_of_offsets(free) == pytest.approx(gain, rel=0.05)
        assert gain > 1.1
        assert gain_of_offsets(held) is None
    above = dataclasses.replace(data, c2=data.c2 + 0.05, diagonal=data.diagonal + 0.05)
    assert gain_of_offsets(squares_of(above)) is None


@pytest.mark.long
@pytest.mark.parametrize("decay", [0.25, 1.0, 4.0], ids=["slow", "medium", "fast"])
@pytest.mark.parametrize("contrast", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("counts", [0.5, 5.0, 50.0])
def test_errors_are_exact_in_each_cell(theory, counts, contrast, decay):
    truth, fixed, t, geometry = SPECKLE["static"]
    truth = xe.with_parameters(truth, {"D0": decay * values_of(truth)["D0"]})
    how = {"n_pixels": 50_000, "mean_counts": counts, "key": jax.random.key(1)}
    data = simulate_speckle(truth, t[:30], geometry, contrast, **how)
    fit = xe.least_squares(xe.projected_objective(mapped(truth, data, fixed=fixed), data))
    assert_errors_are_exact(theory, fit, fixed)


DECAYS, CONTRASTS, COUNTS = ("slow", "medium", "fast"), (0.1, 0.25, 0.5), (0.5, 5.0, 50.0)
MAPS = 200
_MEASURED = {}


def measured(precision, kind, decay, contrast, counts, frames=None, offset="free"):
    """What the benchmark says of a cell, once a run of the tests."""
    frames = frames or {"static": 61, "laminar": 31}[kind]
    cell = (kind, decay, frames, contrast, counts, offset, MAPS)
    if cell not in _MEASURED:
        _MEASURED[cell] = precision.cell(*cell, PIXELS, 0)
        print({n: v for n, v in _MEASURED[cell].items() if n != "sd"})
    return _MEASURED[cell]


@pytest.mark.long
@pytest.mark.parametrize("kind", SPECKLE)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("counts", COUNTS)
def test_intervals_cover(precision, kind, decay, contrast, counts):
    found = measured(precision, kind, decay, contrast, counts)
    assert 0.58 <= found["coverage"][1] <= 0.78
    # Within three standard deviations.
    assert found["bias"] < 0.2 + 3 * found["bias_error"]


@pytest.mark.long
def test_intervals_cover_on_average(precision):
    cells = itertools.product(SPECKLE, DECAYS, CONTRASTS, COUNTS)
    covered = [measured(precision, *cell)["coverage"][1] for cell in cells]
    assert 0.65 <= np.mean(covered) <= 0.71


@pytest.mark.long
@pytest.mark.parametrize("offset", ["free", "fixed"])
@pytest.mark.parametrize(
    ("contrast", "counts", "most"),
    [
        (0.25, 50.0, 0.4),
        (0.25, 5.0, 0.55),
        (0.1, 5.0, 0.65),
        (0.25, 0.5, 1.02),
        (0.25, 0.05, 1.02),
    ],
)
def test_true_errors_against_those_of_least_squares(precision, contrast, counts, most, offset):
    found = measured(precision, "laminar", "medium", contrast, counts, 61, offset)
    assert found["ratio"] < most + 2 * found["ratio_error"]
    assert found["bias"] < 0.2 + 3 * found["bias_error"]


def map_of_particles(seed, frames=41, pixels=1000, modes=4, counts=5.0, particles=32):
    """Maps of counted speckle of particles in the shear of the laminar truth above."""
    truth, _, t, geometry = SPECKLE["laminar"]
    t, q, true = np.asarray(t)[:frames], float(geometry.q), values_of(truth)
    rng, maps = np.random.default_rng(seed), []
    travelled = power_integral(t, true["D0"], true["alpha"])
    strain = power_integral(t, true["gamma_dot_t0"], true["beta"])
    for phi in np.asarray(geometry.phi):
        along = float(geometry.gap) * np.cos(np.radians(true["phi0"] - phi)) * strain
        light = intensities(t, q, travelled, along, pixels * modes, particles, rng)
        counted = rng.poisson(counts * light.reshape(pixels, modes, frames).mean(axis=1))
        mean = counted.mean(axis=0)
        maps.append(counted.T @ counted / pixels / np.outer(mean, mean))
    return from_dict(
        {"g2": np.array(maps), "t1": t, "t2": t, "q": q, "phi": np.asarray(geometry.phi)}
    )


@pytest.mark.long
def test_particles_in_a_shear_cell():
    """Nothing of the data is made with a formula of the library."""
    true, sets = values_of(SPECKLE["laminar"][0]), 32
    off, errors = [], []
    for seed in range(sets):
        fit = squares_of(map_of_particles(seed), "laminar")
        pair = (fit, xe.maximum_likelihood(fit))
        names = fit.objective.names
        off.append([[one[n].value - true[n] for n in names] for one in pair])
        errors.append([[one[n].error for n in names] for one in pair])
    off, errors = np.array(off), np.array(errors)
    sd, bias = np.std(off, axis=0, ddof=1), np.mean(off, axis=0)
    inside = np.mean(np.abs(off) <= errors, axis=0)
    print(names, "sd ratio", sd[1] / sd[0], "bias in sd", bias / sd, "covered", inside)
    print("mean quoted error over sd", np.sqrt(np.mean(errors**2, axis=0)) / sd)
    assert np.all(np.abs(bias[1]) < 3 * sd[1] / np.sqrt(sets))
    assert np.median(sd[1] / sd[0]) < 0.7
    # Parameters hang together: of 32 × 5 intervals some 80 count.
    assert 0.54 <= np.mean(inside[1]) <= 0.82
