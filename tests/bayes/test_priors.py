"""Densities of single parameters: normalised, sampled, tempered, refused."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from xpcs_eqx.bayes import Beta, HalfNormal, LogNormal, Normal, TruncatedNormal, Uniform
from xpcs_eqx.errors import ModelError

PRIORS = {
    "uniform": (Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
    "normal": (Normal(1.0, 2.0), stats.norm(1, 2)),
    "truncated": (TruncatedNormal(0.3, 0.25, 0.0, 1.0), stats.truncnorm(-1.2, 2.8, 0.3, 0.25)),
    "one-sided": (TruncatedNormal(0.0, 1.0, lower=2.0), stats.truncnorm(2, np.inf, 0, 1)),
    "log-normal": (LogNormal(1.0, 0.6), stats.lognorm(0.6, scale=math.e)),
    "half-normal": (HalfNormal(2.0), stats.halfnorm(scale=2.0)),
    "beta": (Beta(2.0, 3.0, -1.0, 1.0), stats.beta(2, 3, -1, 2)),
}


@pytest.mark.parametrize("name", PRIORS)
def test_density_and_moments_are_those_of_scipy(name):
    prior, wanted = PRIORS[name]
    x = np.array([-1.5, -0.9, 0.05, 0.4, 0.9, 2.5, 4.0])
    np.testing.assert_allclose(
        np.asarray(prior.log_density(jnp.asarray(x))), wanted.logpdf(x), atol=1e-10
    )
    mean, sd = prior.moments
    np.testing.assert_allclose([mean, sd], [wanted.mean(), wanted.std()], rtol=1e-8)


@pytest.mark.parametrize("name", PRIORS)
def test_draws_have_the_density(name):
    prior, wanted = PRIORS[name]
    draws = np.asarray(prior.sample(jax.random.key(3), (2000,)))
    assert stats.kstest(draws, wanted.cdf).pvalue > 1e-3


def test_a_cut_log_normal_is_normalised():
    prior = LogNormal(0.0, 1.0, 0.5, 4.0)
    mass, _ = integrate.quad(lambda v: math.exp(float(prior.log_density(np.asarray(v)))), 0.5, 4)
    mean, _ = integrate.quad(
        lambda v: v * math.exp(float(prior.log_density(np.asarray(v)))), 0.5, 4
    )
    assert mass == pytest.approx(1, abs=1e-9)
    assert float(prior.moments[0]) == pytest.approx(mean, rel=1e-8)
    assert float(prior.log_density(jnp.asarray(4.1))) == -math.inf


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(1.0, 1.0), "no volume"),
        (lambda: Uniform(0.0, math.inf), "normalised"),
        (lambda: TruncatedNormal(0.0, 1.0, 2.0, 1.0), "no volume"),
        (lambda: TruncatedNormal(0.0, 1.0, 50.0, 60.0), "no weight left"),
        (lambda: Normal(0.0, -1.0), "above 0"),
        (lambda: TruncatedNormal(0.0, 0.0), "above 0"),
        (lambda: LogNormal(0.0, -0.5), "above 0"),
        (lambda: LogNormal(0.0, 1.0, -1.0), "below 0"),
        (lambda: HalfNormal(math.nan), "above 0"),
        (lambda: Beta(1.0, 0.0), "above 0"),
    ],
)
def test_priors_that_cannot_be_are_refused(make, message):
    with pytest.raises(ModelError, match=message):
        make()


@pytest.mark.parametrize(
    ("prior", "fresh", "field"),
    [
        (TruncatedNormal(0.0, 1.0, 0.5, 3.0), TruncatedNormal(0.0, 0.1, 0.5, 3.0), "sd"),
        (TruncatedNormal(0.0, 1.0, 0.5), TruncatedNormal(0.0, 1.0, 0.2), "lower"),
        (LogNormal(0.0, 1.0, 0.5, 3.0), LogNormal(0.0, 0.3, 0.5, 3.0), "scale"),
        (LogNormal(0.0, 1.0, 0.0, 2.0), LogNormal(0.0, 1.0, 0.0, 3.0), "upper"),
    ],
)
def test_priors_are_values(prior, fresh, field):
    """A copy with another number is the prior of that number, mass and derivative included."""
    copy = eqx.tree_at(lambda p: getattr(p, field), prior, getattr(fresh, field))
    np.testing.assert_allclose(copy.log_density(0.55), fresh.log_density(0.55), rtol=1e-12)
    np.testing.assert_allclose(copy.moments, fresh.moments, rtol=1e-12)

    @jax.jit
    def value(number):
        return eqx.tree_at(lambda p: getattr(p, field), prior, number).log_density(0.55)

    at = float(getattr(prior, field))
    step = 1e-5 * max(abs(at), 1.0)
    if at > step:
        slope = (value(at + step) - value(at - step)) / (2 * step)
        np.testing.assert_allclose(jax.jit(jax.grad(value))(at), slope, rtol=1e-6)


def test_the_mass_of_a_far_tail_is_precise():
    for low in (0.0, 5.0, 20.0, 36.0):
        prior = TruncatedNormal(0.0, 1.0, low, np.inf)
        wanted = stats.norm.logpdf(low + 0.1) - stats.norm.logsf(low)
        np.testing.assert_allclose(prior.log_density(low + 0.1), wanted, rtol=1e-10, atol=1e-12)
        mirrored = TruncatedNormal(0.0, 1.0, -np.inf, -low)
        np.testing.assert_allclose(mirrored.log_density(-low - 0.1), wanted, rtol=1e-10, atol=1e-12)
