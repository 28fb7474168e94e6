"""The log density: closed forms, marginalised scaling, and what is refused."""

import dataclasses
import time
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    MODELS,
    QUICK_TO_COMPILE,
    SCALINGS,
    dense_residual,
    joint_objective,
    make_data,
    mapped,
    pooled,
)
from scipy import stats

from xpcs_eqx.bayes import (
    GivenSigma,
    HalfNormal,
    MarginalisedScaling,
    Normal,
    SampledSigma,
    Uniform,
    default_priors,
    log_posterior,
)
from xpcs_eqx.errors import ModelError
from xpcs_eqx.objective import Huber, Pull, projected_objective

_jit = partial(eqx.filter_jit, compiler_options=QUICK_TO_COMPILE)
_values = _jit(lambda density, z: jax.vmap(lambda z: density(z))(z))
_both = _jit(lambda density, z: jax.value_and_grad(lambda z: density(z))(z))
_likelihood = _jit(lambda density, theta: density.log_likelihood(theta))


def _objective(name="static", n=11, scaling=None, make=projected_objective, **keywords):
    data = make_data(MODELS[name], n=n)
    return make(mapped(MODELS[name], data), data, scaling, **keywords), data


@pytest.mark.parametrize("scaling", SCALINGS)
def test_log_likelihood_is_that_of_independent_gaussians(scaling):
    objective, data = _objective(scaling=SCALINGS[scaling])
    density, theta = log_posterior(objective)
    x, coefficients, sigma = density.data.split(jnp.asarray(theta))
    term = density.term
    residual = np.asarray(dense_residual(term, data, x, coefficients))
    wanted = stats.norm(0, float(sigma)).logpdf(residual).sum()
    np.testing.assert_allclose(_likelihood(density, jnp.asarray(theta)), wanted, rtol=1e-9)


@pytest.mark.parametrize("scaling", ["individual", "averaged", "fourier"])
def test_marginalised_scaling_is_the_gaussian_integral(scaling):
    """Against the dense Gaussian of all data: mean and covariance with the scaling integrated."""
    objective, data = _objective(n=7, scaling=SCALINGS[scaling])
    names = objective.term.scaling.names
    centre = {"c": 0.25, "o": 0.95}
    priors = default_priors(objective).replaced(
        {name: Normal(centre[name[0]], 0.1 + 0.01 * i) for i, name in enumerate(names)}
    )
    density, theta = log_posterior(objective, priors, scaling=MarginalisedScaling())
    x, _, sigma = density.data.split(jnp.asarray(theta))
    term = density.term
    zero = jnp.zeros(term.scaling.size)
    offset = np.asarray(dense_residual(term, data, x, zero))
    columns = np.stack(
        [
            np.asarray(dense_residual(term, data, x, zero.at[k].set(1.0))) - offset
            for k in range(term.scaling.size)
        ],
        axis=1,
    )
    mean = np.array([float(priors[name].mean) for name in names])
    sd = np.array([float(priors[name].sd) for name in names])
    covariance = float(sigma) ** 2 * np.eye(len(offset)) + (columns * sd**2) @ columns.T
    wanted = stats.multivariate_normal(offset + columns @ mean, covariance).logpdf(0 * offset)
    found = _likelihood(density, jnp.asarray(theta))
    np.testing.assert_allclose(found, wanted, rtol=1e-8)
    # Draws of contrast and offset come from the conditional Gaussian.
    draw = _jit(
        lambda density, x, sigma, keys: jax.vmap(
            lambda key: density.treatment.per_angle(
                density.term, density.data.table(x), jnp.zeros(0), sigma, key
            )
        )(keys)
    )
    draws = np.asarray(draw(density, x, sigma, jax.random.split(jax.random.key(0), 4000)))
    precision = columns.T @ columns / float(sigma) ** 2 + np.diag(sd**-2.0)
    conditional = np.linalg.inv(precision)
    centre = conditional @ (mean / sd**2 - columns.T @ offset / float(sigma) ** 2)
    wanted_mean = np.asarray(term.scaling.per_angle(jnp.asarray(centre)))
    spread = np.sqrt(np.diagonal(term.scaling.covariance(jnp.asarray(conditional))))
    error = np.abs(draws.mean(axis=0) - wanted_mean).T.ravel() / spread
    assert error.max() < 5 / np.sqrt(4000)
    np.testing.assert_allclose(draws.std(axis=0).T.ravel(), spread, rtol=0.06)


@pytest.mark.parametrize("treatment", [None, MarginalisedScaling()])
def test_gradient_against_finite_differences(treatment):
    objective, _ = _objective("static")
    density, theta = log_posterior(objective, scaling=treatment)
    z = density.coordinates.from_physical(jnp.asarray(theta)) + 0.01
    gradient = np.asarray(_both(density, z)[1])
    steps = 1e-5 * jnp.eye(len(z))
    up, down = np.split(np.asarray(_values(density, jnp.concatenate([z + steps, z - steps]))), 2)
    np.testing.assert_allclose(gradient, (up - down) / 2e-5, rtol=1e-5, atol=1e-5)


def test_points_say_what_maps_say():
    objective, data = _objective()
    points = projected_objective(mapped(MODELS["static"], data), pooled(data))
    reference = np.asarray(objective.term.reference)
    first, theta = log_posterior(objective, scaling_start=reference)
    second, _ = log_posterior(points, default_priors(objective), scaling_start=reference)
    z = first.coordinates.from_physical(jnp.asarray(theta))
    shift = np.log(float(second.priors[-1].scale) / float(first.priors[-1].scale))
    assert abs(shift) < 1e-9
    found, wanted = _both(second, z), _both(first, z)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-11)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-8, atol=1e-8)


def test_penalties_enter_as_priors():
    pull = Pull(lambda values: values["alpha"], jnp.asarray(-0.2), jnp.asarray(0.05))
    plain, _ = _objective()
    pulled, _ = _objective(penalties=(pull,))
    first, theta = log_posterior(plain)
    second, _ = log_posterior(pulled)
    theta = jnp.asarray(theta)
    alpha = float(theta[first.names.index("alpha")])
    difference = second.log_prior(theta) - first.log_prior(theta)
    np.testing.assert_allclose(difference, -0.5 * ((alpha + 0.2) / 0.05) ** 2, rtol=1e-9)


def test_known_sigma_is_no_parameter():
    objective, data = _objective()
    weights = np.full(data.c2.shape, 200.0)
    known = dataclasses.replace(data, root_weights=weights, absolute_sigma=True)
    density, _ = log_posterior(projected_objective(mapped(MODELS["static"], data), known))
    assert "sigma" not in density.names
    density, theta = log_posterior(objective)
    assert density.names[-1] == "sigma"
    assert isinstance(density.priors[-1], HalfNormal)
    # Robust scale of the residuals at the start.
    assert float(density.priors[-1].scale) == pytest.approx(theta[-1])
    given = SampledSigma(Uniform(0.001, 0.1))
    assert isinstance(log_posterior(objective, noise=given)[0].priors[-1], Uniform)


@pytest.mark.long
def test_a_gradient_costs_about_a_cost():
    data = make_data(MODELS["laminar"], n=201)
    objective = projected_objective(mapped(MODELS["laminar"], data), data)
    density, theta = log_posterior(objective)
    z = density.coordinates.from_physical(jnp.asarray(theta))
    both = eqx.filter_jit(lambda density, z: jax.value_and_grad(lambda z: density(z))(z))
    cost = eqx.filter_jit(lambda objective, y, memo: objective.cost(y, memo))
    y = objective.variables.to_coordinates(jnp.asarray(objective.start))

    def seconds(function, *args):
        jax.block_until_ready(function(*args))
        times = []
        for _ in range(10):
            start = time.process_time()
            jax.block_until_ready(function(*args))
            times.append(time.process_time() - start)
        return min(times)

    ratio = seconds(both, density, z) / seconds(cost, objective, y, objective.memo)
    print(f"value and gradient of the log posterior over a cost: {ratio:.2f}")
    assert ratio < 2


def test_defaults_are_those_of_the_table():
    objective, _ = _objective("laminar")
    priors = default_priors(objective)
    start = MODELS["laminar"].transport.amplitude
    assert float(priors["D0"].location) == pytest.approx(np.log(float(start)))
    assert float(priors["beta"].sd) == 0.5
    assert float(priors["contrast[1]"].mean) == 0.3
    replaced = priors.replaced({"contrast": Normal(0.2, 0.1), "alpha": Normal(0.0, 0.3)})
    assert float(replaced["contrast[2]"].sd) == 0.1
    assert isinstance(replaced["beta"], type(priors["beta"]))


def _robust():
    return _objective(make=joint_objective, loss=Huber(0.01))[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: default_priors(o).replaced({"alpa": Normal(0.0, 1.0)}), "did you mean 'alpha'"),
        (lambda o: default_priors(o).replaced({"alpha": 3.0}), "give one of"),
        (lambda o: log_posterior(o.term), "cannot be sampled"),
        (
            lambda o: log_posterior(_objective(make=joint_objective, loss=Huber(0.01))[0]),
            "Gaussian",
        ),
        (
            lambda o: log_posterior(
                o,
                default_priors(o).replaced({"offset": Uniform(0.5, 1.5)}),
                scaling=MarginalisedScaling(),
            ),
            "Normal prior or use SampledScaling",
        ),
        (lambda o: GivenSigma(0.0), "above 0"),
    ],
)
def test_bad_input_is_refused(make, message):
    objective, _ = _objective()
    with pytest.raises(ModelError, match=message):
        make(objective)
