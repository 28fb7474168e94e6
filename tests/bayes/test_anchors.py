"""Shards held near the fit: what is divided out again, and what it does for bent posteriors."""

from typing import Any

import jax
import numpy as np
import pytest
from helpers import make_data
from helpers_shards import bent_problem

from xpcs_eqx.bayes import (
    Consensus,
    ConsensusAverage,
    GaussianProduct,
    GivenSigma,
    LaplaceAnchor,
    LockStepChains,
    NoAnchor,
    Normal,
    NumberOfShards,
    Nuts,
    PlainStart,
    RobustConsensus,
    consensus,
)
from xpcs_eqx.bayes.shards.anchors import Site, positive, site_of
from xpcs_eqx.bayes.shards.combiners import shard_draws
from xpcs_eqx.bayes.shards.compare import too_narrow
from xpcs_eqx.errors import FitError, ModelError
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.parameters import parameter_map
from xpcs_eqx.physics import AbstractCorrelation, Features, parameter
from xpcs_eqx.scaling import Fixed

KEY = jax.random.key(7)
SHORT = Nuts(chains=2, warmup=100, draws=250, parallel=LockStepChains())
COMMON = {"noise": GivenSigma(0.5), "sampler": SHORT, "key": 1}
CURVE, MIDDLE = 4.0, 5.0


class Banana(AbstractCorrelation):
    """Linear in slope and in bend + CURVE·slope²: a bent Gaussian whose moments are known."""

    slope: Any = parameter(start=0.1, bounds=(-1e3, 1e3))
    bend: Any = parameter(start=0.1, bounds=(-1e3, 1e3))

    def features(self, t, geometry):
        straight = self.bend + CURVE * self.slope**2
        return Features(increments=self.slope * (t - MIDDLE) + straight * (t - MIDDLE) ** 2)

    def kernel(self, pair):
        return pair.increments


def banana_problem(n=31, noise=0.5):
    """Objective, and mean and covariance of its posterior for priors as good as flat."""
    truth = Banana(slope=0.0, bend=-0.05)
    data = make_data(truth, n=n, phi=[0.0], contrast=1.0, noise=noise)
    one = np.ones(1)
    objective = projected_objective(parameter_map(Banana(), data.t), data, Fixed(one, one))
    i, j = np.triu_indices(n, 1)
    t = data.t - MIDDLE
    columns = np.stack([t[j] - t[i], t[j] ** 2 - t[i] ** 2], axis=1)
    covariance = np.linalg.inv(columns.T @ columns / noise**2)
    slope, straight = covariance @ (columns.T @ (data.c2[0][i, j] - 1.0) / noise**2)
    variance = covariance[0, 0]
    mean = np.array([slope, straight - CURVE * (slope**2 + variance)])
    turn = np.array([[1.0, 0.0], [-2 * CURVE * slope, 1.0]])
    covariance = turn @ covariance @ turn.T
    covariance[1, 1] += 2 * (CURVE * variance) ** 2
    return objective, mean, covariance


@pytest.fixture(scope="module")
def banana():
    return banana_problem()


def _of_banana(problem, anchor, **more):
    """Distances of the means in standard deviations, and ratios of standard deviations."""
    objective, mean, covariance = problem
    priors = {"slope": Normal(0.0, 1e2), "bend": Normal(0.0, 1e2)}
    found = consensus(
        objective,
        priors,
        method=Consensus(size=NumberOfShards(40), anchor=anchor, by_size=False),
        **COMMON,
        **more,
    )
    theta, sd = found.theta[0], np.sqrt(np.diagonal(covariance))
    return found, (theta.mean(axis=0) - mean) / sd, theta.std(axis=0) / sd


@pytest.mark.long
def test_the_curvature_of_a_posterior_counts_once(banana):
    found, away, ratio = _of_banana(banana, None)
    assert np.abs(away).max() < 0.1
    np.testing.assert_allclose(ratio, 1.0, atol=0.1)
    assert any("40 shards anchored at the fit" in note for note in found.notes)
    assert found.shards.dropped == ()
    # Without one, one or the other does not hold; by how much, chance decides.
    _, away, ratio = _of_banana(banana, NoAnchor())
    assert max(np.abs(away).max(), np.abs(ratio - 1).max()) > 0.1


def test_what_is_left_far_sharper_than_the_anchor_by_uneven_shards_is_named():
    rng, names = np.random.default_rng(0), ("D0", "gamma_dot_t0")
    anchor, combined = rng.normal(scale=[3.0, 1e-4], size=(2, 2000, 2))
    even = rng.normal(scale=[3.0, 1e-4], size=(8, 2000, 2))
    uneven = even * np.linspace(0.3, 1.0, 8)[:, None, None]
    sharp = combined * [0.3, 1.0]
    assert too_narrow(combined, even, anchor, names) == ()
    assert too_narrow(combined, uneven, anchor, names) == ()
    # A posterior that is narrower than about the fit, as a prior may make it, in every shard.
    assert too_narrow(sharp, even, anchor, names) == ()
    (found,) = too_narrow(sharp, uneven, anchor, names)
    assert found.startswith("D0 spreads by 0.9")


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_an_anchor_is_divided_out_of_gaussians_exactly(share):
    """Whatever is drawn, as few draws as there may be."""
    rng = np.random.default_rng(0)
    size, n_shards, n = 4, 6, 12
    factors = rng.normal(size=(n_shards, size, 3 * size))
    precisions = factors @ np.swapaxes(factors, 1, 2)
    scatter = np.linalg.cholesky(np.linalg.inv(precisions))
    means = 5 + np.einsum("kef,kf->ke", scatter, rng.normal(size=(n_shards, size)))
    whole = precisions.sum(axis=0)
    mean = np.linalg.solve(whole, np.einsum("kef,kf->e", precisions, means))
    anchor = LaplaceAnchor(share)
    added = anchor.precision(np.linalg.inv(whole), n_shards)
    np.testing.assert_allclose(added, share * 5 / 6 * whole, rtol=1e-8)
    draws = rng.normal(size=(n_shards, n, size))
    sites = [
        # The gradient of what was sampled, and the anchor taken out of it.
        site_of(z, -(z - m) @ p - z @ added + z @ added, 1.0)
        for z, m, p in zip(draws, means, precisions, strict=True)
    ]
    sites = Site(*(np.stack(part) for part in zip(*sites, strict=True)))
    np.testing.assert_allclose(sites.precision, precisions, rtol=1e-6)
    plain = np.zeros(size), np.ones(size)
    removed, notes = anchor.removed(shard_draws(draws), sites, _Coordinates(*plain))
    np.testing.assert_allclose(removed.draws.mean(axis=1), means, rtol=1e-6)
    for one, precision in zip(removed.draws, precisions, strict=True):
        np.testing.assert_allclose(np.cov(one.T), np.linalg.inv(precision), rtol=1e-6)
    assert "divided out" in notes[0]
    for combiner in (GaussianProduct(40000), ConsensusAverage(), RobustConsensus()):
        found = combiner(removed, KEY).draws
        sd = np.sqrt(np.diagonal(np.linalg.inv(whole)))
        within = 0.03 if isinstance(combiner, GaussianProduct) else 1e-6
        assert np.all(np.abs(found.mean(axis=0) - mean) < within * sd)


class _Coordinates:
    """All of `Coordinates` that a shift and a scale need."""

    def __init__(self, centre, scale):
        self.centre, self.scale = centre, scale


@pytest.mark.slow
def test_an_anchored_gaussian_has_its_closed_form_from_few_draws():
    priors = {"slope": Normal(0.6, 0.02), "bend": Normal(-0.06, 0.002)}
    objective, mean, covariance = bent_problem(priors=priors)
    for anchor in (LaplaceAnchor(), LaplaceAnchor(0.2)):
        found = consensus(
            objective,
            priors,
            method=Consensus(size=NumberOfShards(8), anchor=anchor, by_size=False),
            **COMMON,
        )
        sd = np.sqrt(np.diagonal(covariance))
        # Means to rounding, where draws alone would know them to a tenth of a standard deviation.
        theta = found.theta[0]
        assert np.all(np.abs(theta.mean(axis=0) - mean) < 1e-3 * sd)
        np.testing.assert_allclose(theta.std(axis=0), sd, rtol=0.15)
        assert np.min(found.shards.draws.effective) > 1e6


def test_precisions_are_made_positive_without_a_change_of_their_sum():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(60, 3, 3))
    precisions = np.eye(3) + 0.6 * (noise + np.swapaxes(noise, 1, 2)) / np.sqrt(2)
    assert np.linalg.eigvalsh(precisions).min() < 0
    made, note = positive(precisions)
    assert np.linalg.eigvalsh(made).min() > 0
    np.testing.assert_allclose(made.sum(axis=0), precisions.sum(axis=0), rtol=1e-9, atol=1e-9)
    assert "towards their mean" in note
    # One that has nothing to do with the others does not decide for them.
    precisions[7] = -50 * np.eye(3)
    again, _ = positive(precisions)
    assert np.linalg.eigvalsh(again).min() > 0
    np.testing.assert_allclose(np.delete(again, 7, 0), np.delete(made, 7, 0), atol=0.2)
    fine = np.eye(2) * np.arange(1.0, 5.0)[:, None, None]
    np.testing.assert_array_equal(positive(fine)[0], fine)
    with pytest.raises(FitError, match="no maximum near the fit"):
        positive(-fine)


def test_anchors_that_cannot_be_are_refused(banana):
    for share in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(ModelError, match="share"):
            LaplaceAnchor(share)
    with pytest.raises(ModelError, match=r"LaplaceAnchor.*fit"):
        _of_banana(banana, LaplaceAnchor(), start=PlainStart())
