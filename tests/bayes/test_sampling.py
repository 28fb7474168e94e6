"""Whole runs: closed forms, agreement of the ways to run, and the laminar problem."""

import math
import time
from typing import Any

import jax
import numpy as np
import pytest
from helpers import LAMINAR, MODELS, make_data, mapped
from scipy import stats

from xpcs_eqx.bayes import (
    GivenSigma,
    LaplaceStart,
    LockStepChains,
    MarginalisedScaling,
    Normal,
    Nuts,
    PathfinderStart,
    PlainStart,
    TruncatedNormal,
    fit_priors,
    sample,
)
from xpcs_eqx.bayes.nuts import nuts as nuts_module
from xpcs_eqx.bayes.nuts.chains import ChainSettings
from xpcs_eqx.bayes.nuts.sample import physical_draws, prepare
from xpcs_eqx.errors import FitError, ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.parameters import parameter_map
from xpcs_eqx.physics import AbstractCorrelation, Features, parameter
from xpcs_eqx.scaling import Fixed


class Straight(AbstractCorrelation):
    """c2 linear in its parameters, so that the posterior is a Gaussian in closed form."""

    slope: Any = parameter(start=0.1, bounds=(-1e3, 1e3))
    bend: Any = parameter(start=0.1, bounds=(-1e3, 1e3))

    def features(self, t, geometry):
        return Features(increments=self.slope * t + self.bend * t**2)

    def kernel(self, pair):
        return pair.increments


PRIOR = {"slope": Normal(0.3, 0.5), "bend": Normal(-0.1, 0.2)}


def _straight(priors=PRIOR, **keywords):
    """Posterior of the linear model, with the exact mean and covariance."""
    data = make_data(Straight(slope=0.5, bend=-0.05), n=9, phi=[0.0], contrast=1.0, noise=0.5)
    one = np.ones(1)
    parameters = parameter_map(Straight(), data.t)
    objective = projected_objective(parameters, data, Fixed(one, 0 * one))
    i, j = np.triu_indices(9, 1)
    columns = np.stack([data.t[j] - data.t[i], data.t[j] ** 2 - data.t[i] ** 2], axis=1)
    values = data.c2[0][i, j] - 1.0
    objective = projected_objective(parameters, data, Fixed(one, one))
    mean = np.array([float(p.mean) for p in priors.values()])
    sd = np.array([float(p.sd) for p in priors.values()])
    precision = columns.T @ columns / 0.25 + np.diag(sd**-2.0)
    covariance = np.linalg.inv(precision)
    exact = covariance @ (columns.T @ values / 0.25 + mean / sd**2)
    return objective, exact, covariance


def test_linear_gaussian_posterior_in_closed_form():
    objective, mean, covariance = _straight()
    posterior = sample(
        objective, PRIOR, noise=GivenSigma(0.5), sampler=Nuts(warmup=200, draws=1500), key=4
    )
    assert posterior.status == "converged"
    flat = posterior.theta.reshape(-1, 2)
    sd = np.sqrt(np.diagonal(covariance))
    size = posterior.diagnostics.ess_bulk
    np.testing.assert_array_less(np.abs(flat.mean(axis=0) - mean) / sd, 4 / np.sqrt(size))
    found = np.cov(flat.T)
    # Monte Carlo error of a covariance over the product of the two standard deviations.
    error = np.sqrt(2 / np.min(size))
    np.testing.assert_array_less(np.abs(found - covariance) / np.outer(sd, sd), 4 * error)


def test_truncated_posterior_has_the_known_mean():
    """Interval coordinates against a Gaussian cut by the support of the prior."""
    objective, mean, covariance = _straight()
    sd = math.sqrt(covariance[0, 0])
    low, high = mean[0] - 0.5 * sd, mean[0] + 2 * sd
    priors = {**PRIOR, "slope": TruncatedNormal(0.3, 0.5, low, high)}
    posterior = sample(
        objective, priors, noise=GivenSigma(0.5), sampler=Nuts(warmup=200, draws=1500), key=5
    )
    wanted = stats.truncnorm(-0.5, 2.0, mean[0], sd)
    draws = posterior["slope"]
    size = posterior.diagnostics.ess_bulk[0]
    assert draws.min() > low
    assert draws.max() < high
    assert abs(draws.mean() - wanted.mean()) < 4 * wanted.std() / math.sqrt(size)
    assert draws.std() == pytest.approx(wanted.std(), rel=4 / math.sqrt(2 * size))


@pytest.fixture(scope="module")
def static():
    data = make_data(MODELS["static"], n=21, noise=0.002)
    objective = projected_objective(mapped(MODELS["static"], data), data)
    fit = least_squares(objective)
    posterior = sample(fit, sampler=Nuts(warmup=200, draws=600), key=1)
    return objective, fit, posterior


def _same(first, second, names):
    for name in names:
        a, b = first[name], second[name]
        sizes = [
            posterior.diagnostics.ess_bulk[posterior.names.index(name)]
            if name in posterior.names
            else np.size(a) / 4
            for posterior in (first, second)
        ]
        error = np.sqrt(
            sum(d.std(axis=(0, 1)) ** 2 / s for d, s in zip((a, b), sizes, strict=True))
        )
        assert np.all(np.abs(a.mean(axis=(0, 1)) - b.mean(axis=(0, 1))) < 4 * error), name
        np.testing.assert_allclose(a.std(axis=(0, 1)), b.std(axis=(0, 1)), rtol=0.15)


PHYSICAL = ("D0", "alpha", "D_offset", "sigma", "contrast", "offset")


@pytest.mark.long
def test_marginalised_scaling_gives_the_same_posterior(static):
    _, fit, sampled = static
    assert sampled.status == "converged"
    marginal = sample(
        fit, sampler=Nuts(warmup=200, draws=600), scaling=MarginalisedScaling(), key=2
    )
    assert marginal.names == ("D0", "alpha", "D_offset", "sigma")
    assert marginal["contrast"].shape == (4, 600, 3)
    _same(sampled, marginal, PHYSICAL)


@pytest.mark.parametrize(
    "start",
    [pytest.param(one, marks=pytest.mark.long) for one in (PlainStart(), PathfinderStart())],
    ids=["plain", "pathfinder"],
)
def test_other_starts_find_the_same_posterior(static, start):
    objective, _, sampled = static
    other = sample(objective, sampler=Nuts(warmup=300, draws=600), start=start, key=3)
    assert other.status == "converged"
    assert other.fitted == ()
    _same(sampled, other, PHYSICAL)


@pytest.mark.long
def test_runs_repeat(static):
    _, fit, _ = static
    settings = Nuts(warmup=20, draws=110)
    seen = []
    first = sample(fit, sampler=settings, key=7, callback=seen.append)
    assert [(p.phase, p.done) for p in seen][-2:] == [("sampling", 100), ("sampling", 110)]
    assert seen[-1].total == 110
    again = sample(fit, sampler=settings, key=7)
    np.testing.assert_array_equal(first.theta, again.theta)
    other = sample(fit, sampler=settings, key=jax.random.key(8))
    assert not np.any(first.theta == other.theta)


def test_other_data_compile_nothing():
    """Another realisation, other priors, another target: nothing is traced again."""
    settings = Nuts(warmup=60, draws=50)

    def run(seed, **keywords):
        data = make_data(MODELS["static"], n=21, noise=0.002, seed=seed)
        objective = projected_objective(mapped(MODELS["static"], data), data)
        return sample(objective, {"alpha": TruncatedNormal(0.1 * seed, 0.5, -2, 2)}, **keywords)

    count = 0
    original = nuts_module.advance

    def counting(*args):
        nonlocal count
        count += 1
        return original(*args)

    nuts_module.advance = counting
    try:
        run(1, sampler=settings)
        traced = count
        run(2, sampler=settings)
        run(3, sampler=Nuts(warmup=75, draws=40, target_acceptance=0.8), key=3)
    finally:
        nuts_module.advance = original
    assert count == traced


def test_priors_from_the_fit_are_reported(static):
    _, fit, plain = static
    from_fit = fit_priors(fit, width=3.0)
    row = fit["alpha"]
    assert float(from_fit["alpha"].mean) == row.value
    assert float(from_fit["alpha"].sd) == pytest.approx(3 * row.error)
    posterior = sample(fit, from_fit, sampler=Nuts(warmup=60, draws=50), key=1)
    assert "twice" in " ".join(posterior.notes)
    assert not any("twice" in note for note in plain.notes)
    with pytest.raises(ModelError, match="above 0"):
        fit_priors(fit, width=0.0)


def test_a_few_draws_are_not_called_converged(static):
    objective, _, _ = static
    posterior = sample(
        objective,
        start=PlainStart(jitter=2.0),
        sampler=Nuts(warmup=0, draws=20, chains=2, max_depth=2),
        key=1,
    )
    assert posterior.status == "not_converged"
    assert posterior.diagnostics.recommendations


@pytest.mark.parametrize(
    "wrong",
    [{"chains": 0}, {"draws": 2}, {"warmup": -1}, {"max_depth": 0}, {"target_acceptance": 1.0}],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ModelError, match=next(iter(wrong))):
        Nuts(**wrong)


@pytest.mark.parametrize("width", [0.2, 1e-3])
def test_a_fit_that_a_prior_excludes_is_left_before_sampling(static, width):
    """The start climbs towards where data and prior agree, at the shapes that chains have."""
    _, fit, _ = static
    row = fit["D_offset"]
    # Many prior widths away, and narrower than what the data say.
    prior = TruncatedNormal(row.value + 6 * row.error, width * row.error, -1e5, 1e5)
    start = LaplaceStart()
    prepared = prepare(fit, {"D_offset": prior}, start, None, None)
    begun = start.begin(prepared.density, prepared.theta, fit, 4, jax.random.key(0))
    theta = physical_draws(begun.density, np.zeros((1, 1, len(prepared.theta))))[0, 0]
    where = prepared.density.names.index("D_offset")
    assert abs(theta[where] - float(prior.mean)) < 1.0 * row.error
    # The metric knows the prior.
    moved = physical_draws(begun.density, begun.positions[:, None])[:, 0]
    assert np.ptp(moved[:, where]) < 3 * row.error


def test_chains_begin_on_the_side_of_zero_that_has_a_density(static):
    _, fit, _ = static
    value = fit["D_offset"].value
    edge = {"D_offset": TruncatedNormal(value, 1e3, value - 1e-3, 1e5)}
    prepared = prepare(fit, edge, PlainStart(), None, None)
    begun = PlainStart(jitter=0.5).begin(
        prepared.density, prepared.theta, None, 4, jax.random.key(0)
    )
    sampler = Nuts(chains=4, max_depth=5, parallel=LockStepChains())
    places = (begun.positions, begun.step_size, begun.metric)
    settings = ChainSettings(*places, 0.8, sampler, jax.random.key(1))
    chains = nuts_module.Runner(begun.density, settings).begin(begun.positions)
    assert np.all(np.isfinite(chains.state.logdensity))


def test_a_start_without_density_is_an_error(static):
    objective, _, _ = static
    nothing = {"alpha": TruncatedNormal(0.0, 1.0, -2.0, 2.0), "sigma": TruncatedNormal(1e3, 1.0)}
    with pytest.raises(FitError, match="not finite"):
        sample(objective, {**nothing, "D_offset": Normal(math.nan, 1.0)}, start=PlainStart())


@pytest.mark.long
def test_laminar_flow_at_full_length():
    """3 × 101 frames, 4 chains × (500 + 1500): converged, and at the fit where data decide."""
    data = make_data(LAMINAR, n=101, noise=3e-4)
    objective = projected_objective(mapped(LAMINAR, data), data)
    fit = least_squares(objective)
    wall, cpu = time.perf_counter(), time.process_time()
    posterior = sample(fit, key=0)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = posterior.diagnostics
    print(
        f"{wall:.0f} s, {cpu:.0f} s of processor, {posterior.draws.steps.mean():.1f} gradients a "
        f"draw, bulk ESS ≥ {found.ess_bulk.min():.0f}, R-hat ≤ {found.rhat.max():.4f}, "
        f"divergences {100 * found.divergence_rate:.2g} %"
    )
    assert posterior.status == "converged"
    assert found.rhat.max() <= 1.01
    assert found.divergence_rate <= 0.01
    assert found.ess_bulk.min() >= 2000
    assert cpu < 2 * 180
    fitted = {name: value for name, value, _ in posterior.fitted}
    for i, name in enumerate(posterior.names[:-1]):
        draws = posterior.theta[..., i]
        assert abs(draws.mean() - fitted[name]) < 0.2 * draws.std(), name
