"""Penalties have one unit: a width means the same in every fit and sampler, sigma known or not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import frame_times, joint_objective, make_data, mapped, pooled

from xpcs_eqx.bayes import LaplaceStart, log_posterior
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import (
    least_squares,
    profile_interval,
    with_values,
)
from xpcs_eqx.hybrid import HybridOptimiser
from xpcs_eqx.objective import (
    DeviceMesh,
    Huber,
    Pull,
    noise_of,
    projected_objective,
    smoothness,
    two_time_objective,
    with_penalties,
)
from xpcs_eqx.parameters import parameter_map, shared_parameters
from xpcs_eqx.physics import PowerLawRate, SplineRate, Static

NOISE = 0.005
T = frame_times(41)
TRUTH = Static(PowerLawRate(1.5e4, -0.3, 0.0))
DATA = make_data(TRUTH, t=T, phi=[0.0], noise=NOISE)
PARAMETERS = mapped(TRUTH, DATA, fixed=("D_offset",))
PULL = Pull(lambda p: p["alpha"], 0.0, 0.1)


def weighed(sigma, absolute):
    """The data with sigma everywhere; a relative one may be off by any factor."""
    weights = np.full(DATA.c2.shape, 1 / sigma)
    return dataclasses.replace(DATA, root_weights=weights, absolute_sigma=absolute)


KNOWN = weighed(NOISE, True)


def least(data, pull=PULL, make=projected_objective, **keywords):
    return make(PARAMETERS, data, penalties=(pull,), **keywords)


@pytest.fixture(scope="module")
def wanted():
    """The fit with sigma known: near the data, since 0.1 is far wider than their error."""
    fit = least_squares(least(KNOWN))
    assert abs(fit["alpha"].value + 0.3) < 4 * fit["alpha"].error_classical < 0.1
    return fit


@pytest.mark.parametrize(
    "data",
    [DATA, weighed(0.1, False), weighed(1e-4, False), pooled(DATA)],
    ids=["no sigma", "sigma too large", "sigma too small", "points"],
)
def test_a_width_is_the_same_whether_sigma_is_known(data, wanted):
    fit = least_squares(least(data))
    off = (fit["alpha"].value - wanted["alpha"].value) / wanted["alpha"].error_classical
    assert abs(off) < 0.05
    assert fit["alpha"].error_classical == pytest.approx(wanted["alpha"].error_classical, rel=0.05)


def test_a_narrow_pull_is_the_product_of_two_gaussians(wanted):
    """As precise as the data: half-way, with an error smaller by √2, in every kind of fit."""
    plain = least_squares(projected_objective(PARAMETERS, DATA))
    value, error = plain["alpha"].value, plain["alpha"].error_classical
    pull = Pull(PULL.function, value + 2 * error, error)
    for fit in (
        least_squares(least(DATA, pull)),
        least_squares(least(KNOWN, pull)),
        least_squares(least(DATA, pull, joint_objective)),
        least_squares(least(DATA, pull, joint_objective, loss=Huber(10.0))),
        HybridOptimiser().minimise(least(DATA, pull)),
        least_squares(with_values(projected_objective(PARAMETERS, DATA), penalties=(pull,))),
        least_squares(with_penalties(projected_objective(PARAMETERS, DATA), (pull,))),
    ):
        assert fit["alpha"].value == pytest.approx(value + error, abs=0.05 * error)
        assert fit["alpha"].error_classical == pytest.approx(error / np.sqrt(2), rel=0.03)
    found = profile_interval(least_squares(least(DATA, pull)), "alpha")
    assert 0.5 * (found.high - found.low) == pytest.approx(error / np.sqrt(2), rel=0.05)


def test_noise_may_be_given(wanted):
    """Penalties count with its square, so that another noise is another width."""
    for make in (projected_objective, joint_objective):
        twice = least(DATA, make=make, noise=2 * NOISE)
        narrow = least(DATA, Pull(PULL.function, 0.0, 0.05), make, noise=NOISE)
        y = twice.variables.to_coordinates(twice.start)
        assert float(twice.cost(y, twice.memo)) == pytest.approx(float(narrow.cost(y, narrow.memo)))
    given = with_values(least(DATA), noise=2 * NOISE)
    assert float(given.term.noise) == 2 * NOISE
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(ModelError, match="noise = "):
            least(DATA, noise=bad)


def test_noise_is_that_of_the_weighted_residuals():
    masked = np.ones(DATA.c2.shape)
    masked[:, ::7] = 0
    rng = np.random.default_rng(0)
    sigma = 0.003 * np.exp(rng.normal(size=DATA.c2.shape))
    clean = make_data(TRUTH, t=T, phi=[0.0], noise=0.0)
    noisy = dataclasses.replace(
        clean, c2=clean.c2 + 2 * sigma * rng.normal(size=sigma.shape), root_weights=1 / sigma
    )
    for data, expected in (
        (DATA, NOISE),
        (dataclasses.replace(DATA, root_weights=masked), NOISE),
        (weighed(0.01, False), NOISE / 0.01),
        (noisy, 2.0),
        (pooled(DATA), NOISE),
    ):
        found = noise_of(projected_objective(PARAMETERS, data).term.tiles)
        assert found == pytest.approx(expected, rel=0.15)
        on_mesh = projected_objective(PARAMETERS, data, driver=DeviceMesh(1))
        assert noise_of(on_mesh.term.tiles) == pytest.approx(found, rel=1e-12)
    double = projected_objective(PARAMETERS, DATA, angle_weights=np.array([4.0]))
    assert noise_of(double.term.tiles) == pytest.approx(2 * NOISE, rel=0.15)


def test_data_without_noise_leave_penalties_without_a_measure():
    flat = dataclasses.replace(DATA, c2=np.ones_like(DATA.c2))
    with pytest.raises(ModelError, match="estimated as 0, which leaves penalties without a measur"):
        least(flat)
    assert least(flat, noise=0.01).penalties == (PULL,)
    few = pooled(DATA, keep=np.arange(T.size)[:, None] < 2)
    with pytest.raises(ModelError, match="no three entries"):
        least(few)


@pytest.mark.long
def test_smoothness_leaves_a_rate_that_the_data_know():
    """Of the pages: 0.5 in ln J between knots does not bend what data without sigma say."""
    rate = SplineRate(np.array([0.3, 2.0, 5.0, 10.0]), np.array([3e4, 1e4, 2e4, 1e4]))
    data = make_data(Static(rate), t=T, phi=[0.0], noise=NOISE)
    parameters = parameter_map(Static(rate), T)
    smooth = (smoothness(Static(rate), "transport", 0.5),)
    plain, drawn = (
        least_squares(projected_objective(parameters, data, penalties=one)) for one in ((), smooth)
    )
    for k in range(4):
        row = plain[f"J[{k}]"]
        assert abs(drawn[f"J[{k}]"].value - row.value) < row.error_classical


def shared():
    sets = [DATA, make_data(TRUTH, t=T, phi=[0.0], noise=NOISE, seed=1)]
    return shared_parameters([PARAMETERS.model] * 2, [T, T], fixed=("D_offset",)), sets


def test_joint_fits_and_their_posteriors_weigh_alike():
    parameters, sets = shared()
    plain = least_squares(two_time_objective(parameters, sets))
    row = next(one for one in plain.rows if one.name == "alpha")
    pull = Pull(PULL.function, row.value + 2 * row.error_classical, row.error_classical)
    objective = two_time_objective(parameters, sets, penalties=(pull,))
    fit = least_squares(objective)
    drawn = next(one for one in fit.rows if one.name == "alpha")
    middle = row.value + row.error_classical
    assert drawn.value == pytest.approx(middle, abs=0.05 * row.error_classical)
    free = np.asarray(fit.values)[-parameters.whole.n_free :]
    density, theta = log_posterior(objective, start=free)
    without, _ = log_posterior(two_time_objective(parameters, sets), start=free)
    added = float(density.log_prior(theta) - without.log_prior(theta))
    away = (drawn.value - float(pull.target)) / float(pull.width)
    assert added == pytest.approx(-0.5 * away**2, rel=1e-6)
    given = two_time_objective(parameters, sets, penalties=(pull,), noise=1.0)
    assert float(given.noise) == 1.0


@pytest.mark.parametrize("data", [DATA, KNOWN], ids=["sigma sampled", "sigma known"])
def test_ln_prior_of_a_smoothness_is_that_of_a_gaussian(data):
    """Roughness (+½, −1, +½) of size ½: −½(1 + 4 + 1) = −3, whatever is known of sigma."""
    bend = np.array([0.0, 0.0, 0.5, 0.0, 0.0])
    model = Static(SplineRate(np.linspace(0.5, 9.5, 5), 1e4 * np.exp(bend)))
    parameters = parameter_map(model, T)
    penalty = smoothness(model, "transport", 0.5)
    rough, plain = (
        log_posterior(projected_objective(parameters, data, penalties=one))
        for one in ((penalty,), ())
    )
    theta = jnp.asarray(rough[1])
    assert float(rough[0].log_prior(theta) - plain[0].log_prior(theta)) == pytest.approx(-3.0)


@pytest.mark.parametrize("data", [DATA, KNOWN], ids=["sigma sampled", "sigma known"])
def test_the_laplace_start_counts_a_penalty_once(data):
    """A pull so narrow that it alone decides: the metric has its width, not 0.707 of it."""
    width = 1e-4
    fit = least_squares(least(data, Pull(PULL.function, -0.3, width)))
    start = np.asarray(fit.values)[fit.index.physical]
    density, theta = log_posterior(
        fit.objective, start=start, scaling_start=np.stack([fit.contrast, fit.offset], 1)
    )
    begun = LaplaceStart().begin(density, theta, fit, 4, jax.random.key(0))
    coordinates = begun.density.coordinates
    jacobian = jax.jacfwd(coordinates.to_physical)(jnp.zeros(len(theta)))
    covariance = jacobian @ np.asarray(begun.metric) @ jacobian.T
    k = density.names.index("alpha")
    assert np.sqrt(covariance[k, k]) == pytest.approx(width, rel=0.01)
