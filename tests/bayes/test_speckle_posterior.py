"""Posteriors of speckle: under its likelihood, and of least squares as wide as its errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SPECKLE, mapped, values_of
from test_likelihood import data_of, joint_fit, squares_of

import xpcs_eqx as xe
from xpcs_eqx import bayes
from xpcs_eqx.bayes.nuts.sample import prepare
from xpcs_eqx.bayes.nuts.starts import LaplaceStart, PlainStart
from xpcs_eqx.bayes.posterior import model_tests
from xpcs_eqx.compiling import quick_jit
from xpcs_eqx.errors import ModelError
from xpcs_eqx.objective import Pull

QUICK = xe.Nuts(chains=2, warmup=200, draws=300, retries=0)


def prepared(problem, start=LaplaceStart(), stretched=None, **how):  # noqa: B008
    given = (how.get("priors"), start, how.get("scaling"), how.get("noise"))
    return prepare(problem, *given, stretched=stretched)


def at(density, fit):
    """The entries at a fit."""
    values = dict(zip(fit.names, np.asarray(fit.values), strict=True))
    sigma = float(fit.uncertainty.residual_variance) ** 0.5
    return jnp.asarray([values.get(name, sigma) for name in density.names])


@quick_jit
def _gradients(density, places):
    return jax.lax.map(jax.grad(density.log_likelihood), places)


def spread(density, theta):
    """Standard deviations that the curvature of the likelihood has at a place."""
    step = 1e-5 * np.diag(np.asarray(theta))
    ahead, behind = (np.asarray(_gradients(density, theta + sign * step)) for sign in (1, -1))
    curvature = (behind - ahead) / (2 * np.diagonal(step)[:, None])
    sd = np.diagonal(np.linalg.inv(0.5 * (curvature + curvature.T))) ** 0.5
    return dict(zip(density.names, sd, strict=True))


def quoted(fit, density):
    return {name: fit[name].error for name in density.names if name != "sigma"}


@pytest.mark.long
def test_a_likelihood_of_pairs_becomes_as_wide_as_the_quoted_errors():
    fit = squares_of(data_of())
    density, _, _, _, notes = prepared(fit)
    assert "stretched about the fit" in notes[0]
    theta = at(density, fit)
    found, wanted = spread(density, theta), quoted(fit, density)
    for name, error in wanted.items():
        # The curvature of a sum of squares is not quite that of its linear part.
        assert found[name] == pytest.approx(error, rel=0.1), name
        assert error > 1.5 * fit[name].error_classical
    # At the fit itself nothing has changed, and sigma is left alone.
    plain, *_ = prepared(fit, stretched=False)
    assert plain.adjustment is None
    np.testing.assert_allclose(density.log_likelihood(theta), plain.log_likelihood(theta))
    assert found["sigma"] == pytest.approx(spread(plain, theta)["sigma"], rel=0.01)
    for name in wanted:
        assert spread(plain, theta)[name] == pytest.approx(fit[name].error_classical, rel=0.1)
    z = density.coordinates.from_physical(1.001 * theta)
    np.testing.assert_allclose(density.likelihood_at(z), density.log_likelihood(1.001 * theta))
    # Chains begin as wide as they will be.
    begun = LaplaceStart().begin(density, np.asarray(theta), fit, 2, jax.random.key(0))
    u = begun.density.coordinates
    slopes = np.asarray(jax.jacfwd(u.to_physical)(jnp.zeros(len(density.names))))
    wide = np.sqrt(np.diagonal(slopes @ begun.metric @ slopes.T))
    assert wide[0] == pytest.approx(wanted["D0"], rel=0.1)


@pytest.mark.long
def test_penalties_and_bounds_are_not_stretched():
    data = data_of()
    truth, fixed, *_ = SPECKLE["static"]
    free = squares_of(data)
    width = 0.5 * free["D0"].error
    pull = Pull(lambda v: v["D0"], 1000.0, width)
    parameters = mapped(truth, data, fixed=fixed)
    drawn = xe.least_squares(xe.projected_objective(parameters, data, penalties=(pull,)))
    density, *_ = prepared(drawn)
    # What the data say is as uncertain as without the penalty.
    alone = spread(density, at(density, drawn))["D0"]
    assert alone == pytest.approx(free["D0"].error, rel=0.2)
    held = squares_of(data, bounds={"D0": (1000.0, 2000.0)})
    assert held["D0"].at_bound
    density, *_ = prepared(held, stretched=True)
    index = density.names.index("D0")
    matrix = density.adjustment.matrix
    np.testing.assert_array_equal(matrix[index], np.eye(len(matrix))[index])
    assert matrix[1, 1] < 0.8


def test_the_likelihood_of_speckle_is_that_of_the_fit():
    fit = squares_of(data_of())
    found = xe.maximum_likelihood(fit)
    plain, theta, _, priors, _ = prepared(found, stretched=False)
    assert plain.names == ("D0", "contrast[0]", "offset[0]", "shot[0]")
    assert priors["shot[0]"].support == (1e-6, 1e4)
    np.testing.assert_allclose(theta, at(plain, found), rtol=1e-9)
    likelihood = found.objective
    places = jnp.asarray(theta) * jnp.asarray([[1.0] * 4, [1.05, 0.97, 1.001, 1.1]])
    costs = [likelihood.cost(likelihood.variables.to_coordinates(one), ()) for one in places]
    slopes = jax.jit(jax.vmap(jax.value_and_grad(plain.log_likelihood)))(places)
    np.testing.assert_allclose(slopes[0][0] - slopes[0][1], costs[1] - costs[0], rtol=1e-9)

    for one, slope in zip(places, slopes[1], strict=True):
        y = likelihood.variables.to_coordinates(one)
        gradient = likelihood.evaluate(y, ())[0].gradient
        turn = jax.jacfwd(likelihood.variables.to_coordinates)(one)
        np.testing.assert_allclose(slope, -gradient @ turn, rtol=1e-6, atol=1e-4)
    density, *_, notes = prepared(found)
    assert "that of Gaussian intensities" in notes[0]
    wide, theta = spread(density, at(density, found)), at(density, found)
    for name, error in quoted(found, density).items():
        assert wide[name] == pytest.approx(error, rel=0.25), name
    assert wide["shot[0]"] > 1.2 * spread(plain, theta)["shot[0]"]


@pytest.mark.long
def test_several_data_sets_are_stretched_together():
    for fit in (joint_fit(), xe.maximum_likelihood(joint_fit())):
        density, *_ = prepared(fit)
        found = spread(density, at(density, fit))
        assert found["D0"] == pytest.approx(fit["D0"].error, rel=0.2)
        name = "contrast[0][fast]"
        assert found[name] == pytest.approx(fit[name].error, rel=0.2)


def test_what_does_not_go_together_is_refused():
    fit = squares_of(data_of())
    found = xe.maximum_likelihood(fit)
    with pytest.raises(ModelError, match="cannot be marginalised"):
        prepared(found, scaling=bayes.MarginalisedScaling())
    with pytest.raises(ModelError, match="knows its noise"):
        prepared(found, noise=bayes.SampledSigma())
    with pytest.raises(ModelError, match="needs together"):
        xe.consensus(found)
    with pytest.raises(ModelError, match="there is none; give the fit"):
        prepared(fit.objective, start=PlainStart(), stretched=True)
    assert prepared(fit.objective, start=PlainStart()).density.adjustment is None
    # Given sigmas say how wide the likelihood is.
    assert prepared(fit, noise=bayes.GivenSigma(0.01)).density.adjustment is None
    # Without finite errors it stays as it is, and says so.
    covariance = np.full_like(fit.uncertainty.speckle, np.inf)
    lost = dataclasses.replace(fit.uncertainty, speckle=covariance)
    lost = dataclasses.replace(fit, uncertainty=lost)
    assert "which are not finite: D0" in prepared(lost, stretched=None).notes[0]
    with pytest.raises(ModelError, match="which are not finite"):
        prepared(lost, stretched=True)


@pytest.mark.long
def test_marginalised_scaling_is_stretched_in_the_parameters():
    fit = squares_of(data_of())
    density, *_ = prepared(fit, scaling=bayes.MarginalisedScaling())
    assert density.names == ("D0", "sigma")
    assert spread(density, at(density, fit))["D0"] == pytest.approx(fit["D0"].error, rel=0.15)


@pytest.mark.long
@pytest.mark.parametrize("likelihood", [False, True], ids=["squares", "speckle"])
def test_draws_are_as_wide_as_the_errors_and_come_back_from_a_file(likelihood, tmp_path, optimised):
    fit = squares_of(data_of(frames=40))
    fit = xe.maximum_likelihood(fit) if likelihood else fit
    posterior = xe.sample(fit, sampler=QUICK)
    for one in bayes.precision(posterior):
        if one.name != "sigma":
            assert one.quoted_ratio == pytest.approx(1.0, abs=0.2), one.name
    assert not any("is too small by as much" in note for note in posterior.notes)
    (misfit,) = model_tests(posterior).values()
    assert not misfit.failed()
    xe.write_posterior(str(tmp_path), posterior, plots=(), fitted_data=False)
    again = bayes.read_posterior(str(tmp_path / "posterior.nc"), fit)
    z = np.full(len(posterior.names), 0.3)
    np.testing.assert_allclose(again.density(z), posterior.density(z), rtol=1e-9)
    if likelihood:
        assert posterior["shot[0]"].shape == (2, 300)


@quick_jit
def _weighted(density, z, metric):
    """Weighted mean and standard deviation of the entries, by importance."""
    log_weights = jax.lax.map(density, z) + 0.5 * jnp.sum(z * jnp.linalg.solve(metric, z.T).T, 1)
    weights = jax.nn.softmax(log_weights)
    theta = jax.vmap(density.coordinates.to_physical)(z)
    mean = weights @ theta
    return mean, jnp.sqrt(weights @ (theta - mean) ** 2), 1 / jnp.sum(weights**2)


def moments(fit, stretched=None, draws=1000):
    """Mean and standard deviation of the posterior of each entry, without a sampler."""
    density, *_ = prepared(fit, stretched=stretched)
    theta = np.asarray(at(density, fit))
    wide = LaplaceStart(spread=1.2)
    begun = wide.begin(density, theta, fit, draws, jax.random.key(1))
    mean, sd, effective = _weighted(begun.density, begun.positions, 1.44 * begun.metric)
    assert effective > 0.2 * draws
    return dict(zip(density.names, zip(mean.tolist(), sd.tolist(), strict=True), strict=True))


@pytest.mark.long
@pytest.mark.parametrize("counts", [0.5, 5.0, 50.0])
def test_posteriors_of_speckle_are_calibrated(counts, optimised):
    """Mean squared distance from the truth, in standard deviations of the posterior."""
    true = {**values_of(SPECKLE["static"][0]), "contrast[0]": 0.25, "offset[0]": 1.0}
    found = {}
    for seed in range(100):
        fit = squares_of(data_of(counts=counts, seed=seed, frames=60))
        kinds = {
            "least squares": (fit, None),
            "least squares as it is": (fit, False),
            "speckle": (xe.maximum_likelihood(fit), None),
        }
        for kind, (one, stretched) in kinds.items():
            for name, (mean, sd) in moments(one, stretched).items():
                if name in true:
                    found.setdefault(f"{kind}, {name}", []).append((mean - true[name]) / sd)
    squares = {name: round(float(np.mean(np.square(one))), 2) for name, one in found.items()}
    print(counts, squares)
    assert squares["least squares as it is, D0"] > (4 if counts >= 5 else 1)
    for kind in ("least squares", "speckle"):
        assert 0.6 < squares[f"{kind}, D0"] < 1.4
