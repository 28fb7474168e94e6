"""Combined draws against the exact product of Gaussians."""

import jax
import numpy as np
import pytest

from xpcs_eqx.bayes.shards.combiners import (
    ConsensusAverage,
    GaussianProduct,
    MultimodalConsensus,
    RobustConsensus,
    SimpleAverage,
    WeightedAverage,
    moments_of,
    outlier_scores,
    precisions_of,
    shard_draws,
    shrunk,
)
from xpcs_eqx.errors import FitError, ModelError

KEY = jax.random.key(11)
EXACT = (ConsensusAverage(), RobustConsensus(), GaussianProduct(4000), MultimodalConsensus(2, 4000))
ALL = (*EXACT, WeightedAverage(), SimpleAverage())


def _name(value):
    return type(value).__name__


def _correlated(n_shards: int, n_draws: int = 2000, rho: float = 0.95, seed: int = 0):
    """Shards of a Gaussian of covariance S/K about their own means; the exact product."""
    rng = np.random.default_rng(seed)
    whole = np.array([[1.0, rho * 3.0], [rho * 3.0, 9.0]])
    factor = np.linalg.cholesky(whole * n_shards)
    centres = np.array([2.0, -5.0]) + rng.normal(size=(n_shards, 2)) @ factor.T
    draws = centres[:, None] + rng.normal(size=(n_shards, n_draws, 2)) @ factor.T
    return shard_draws(draws, ("a", "b")), centres.mean(axis=0), whole


CASES = [
    *((combiner, 10, 2000) for combiner in EXACT),
    # Averages of draws are as many as the draws of a shard; mixtures of 1000 shards take long.
    *((combiner, 1000, 1000) for combiner in EXACT[:3]),
]


@pytest.mark.parametrize(
    ("combiner", "n_shards", "n_draws"), CASES, ids=lambda v: _name(v) if callable(v) else str(v)
)
def test_correlation_and_variances_survive(combiner, n_shards, n_draws):
    shards, mean, covariance = _correlated(n_shards, n_draws)
    combined = combiner(shards, KEY)
    found = np.cov(combined.draws.T)
    assert len(combined.used) + len(combined.dropped) == n_shards
    assert len(combined.dropped) <= 0.01 * n_shards
    assert abs(found[0, 1] / np.sqrt(found[0, 0] * found[1, 1]) - 0.95) < 0.02
    exact = np.diagonal(covariance)
    np.testing.assert_allclose(np.diagonal(found), exact, rtol=0.10)
    away = (combined.draws.mean(axis=0) - mean) / np.sqrt(exact)
    assert np.all(np.abs(away) < 0.25)


def test_simple_averages_are_for_comparison():
    shards, mean, covariance = _correlated(10)
    # What they say they are: averages of the draws, one by one, with weights of each entry.
    for combiner, power in ((SimpleAverage(), 0), (WeightedAverage(), 1)):
        combined = combiner(shards, KEY)
        assert combined.used == tuple(range(10))
        weights = shards.draws.var(axis=1, ddof=1) ** -power
        weights = weights / weights.sum(axis=0)
        middle = np.sum(weights * shards.draws.mean(axis=1), axis=0)
        np.testing.assert_allclose(combined.draws.mean(axis=0), middle, rtol=1e-10)
        # That of the exact product, but for what 2000 draws know of means and of weights.
        assert np.all(np.abs(middle - mean) < 5 * np.sqrt(np.diagonal(covariance) / 2000))
    # Shards of different precision along different directions: only full matrices find the product.
    rng = np.random.default_rng(4)
    covariances = np.array([[[1.0, 0.99], [0.99, 1.0]], [[1.0, -0.99], [-0.99, 1.0]]])
    means = np.array([[1.0, 0.0], [0.0, 0.0]])
    draws = np.stack(
        [rng.multivariate_normal(m, c, 20000) for m, c in zip(means, covariances, strict=True)]
    )
    information = np.linalg.inv(covariances)
    exact = np.linalg.inv(information.sum(axis=0))
    centre = exact @ np.einsum("kef,kf->e", information, means)
    full = ConsensusAverage()(shard_draws(draws), KEY).draws
    np.testing.assert_allclose(np.cov(full.T), exact, atol=0.05 * exact[0, 0])
    np.testing.assert_allclose(full.mean(axis=0), centre, atol=0.005)
    single = WeightedAverage()(shard_draws(draws), KEY).draws
    assert np.var(single[:, 0]) > 20 * exact[0, 0]


def test_different_shards_are_weighted_by_their_precision():
    rng = np.random.default_rng(5)
    sd = np.array([1.0, 3.0])[:, None, None]
    draws = sd * rng.normal(size=(2, 20000, 1)) + np.array([0.0, 10.0])[:, None, None]
    for combiner in (ConsensusAverage(), GaussianProduct(20000), WeightedAverage()):
        found = combiner(shard_draws(draws), KEY).draws
        assert found.mean() == pytest.approx(1.0, abs=0.06)
        assert found.var() == pytest.approx(0.9, rel=0.04)


@pytest.mark.parametrize("combiner", ALL, ids=_name)
def test_units_of_parameters_do_not_matter(combiner):
    shards, _, _ = _correlated(6, 500)
    units = np.array([1e-9, 1e6])
    scaled = combiner(shards._replace(draws=shards.draws * units), KEY)
    plain = combiner(shards, KEY)
    np.testing.assert_allclose(scaled.draws / units, plain.draws, rtol=1e-6)


def test_a_shard_from_another_truth_is_set_aside():
    shards, mean, covariance = _correlated(10)
    draws = shards.draws.copy()
    # Off along the weak direction of the correlation: no parameter by itself is far out.
    sd = np.sqrt(10 * np.diagonal(covariance))
    shift = sd * np.array([1.5, -1.5])
    draws[4] += shift - draws[4].mean(axis=0) + mean
    assert np.all(np.abs(draws[4].mean(axis=0) - mean) < 2 * sd)
    combined = RobustConsensus()(shards._replace(draws=draws), KEY)
    assert [number for number, _ in combined.dropped] == [4]
    assert "Mahalanobis" in combined.dropped[0][1]
    assert 4 not in combined.used
    rest = RobustConsensus()(shards.only(np.delete(np.arange(10), 4)), KEY)
    np.testing.assert_allclose(combined.draws, rest.draws)
    assert (
        np.abs(ConsensusAverage()(shards._replace(draws=draws), KEY).draws.mean(axis=0) - mean)[0]
        > 0.1
    )


def test_shards_that_agree_are_all_used():
    dropped = [
        len(RobustConsensus()(_correlated(20, 400, seed=s)[0], KEY).dropped) for s in range(20)
    ]
    assert sum(dropped) <= 4
    scores = outlier_scores(moments_of(_correlated(500, 200)[0].draws))
    assert np.mean(scores > 3.5) < 0.01


@pytest.mark.long
def test_shrinking_restores_variances_of_few_draws():
    rng = np.random.default_rng(2)
    size, n_draws = 20, 80
    draws = rng.normal(size=(50, n_draws, size)) * np.sqrt(50)
    shards = shard_draws(draws)
    plain = np.var(ConsensusAverage()(shards, KEY).draws, axis=0).mean()
    robust = np.var(RobustConsensus()(shards, KEY).draws, axis=0).mean()
    assert plain < 0.8
    assert robust == pytest.approx(1.0, abs=0.07)
    assert GaussianProduct(4000)(shards, KEY).draws.var() == pytest.approx(1.0, abs=0.07)


def test_shrinking_leaves_real_differences():
    rng = np.random.default_rng(3)
    sd = np.linspace(1, 5, 8)[:, None, None]
    covariances = moments_of(rng.normal(size=(8, 5000, 2)) * sd).covariances
    drawn, share = shrunk(covariances, np.full(8, 5000.0))
    # The share of Ledoit and Wolf in closed form, where the difference is no chance.
    variance = sd[:, 0, 0] ** 2
    wanted = 6 / 5000 / (2 * (variance / variance.mean() - 1) ** 2)
    outer = [0, 1, 2, 6, 7]
    np.testing.assert_allclose(share[outer], wanted[outer], rtol=0.25)
    assert np.max(share[outer]) < 0.005
    towards = share[:, None, None] * covariances.mean(axis=0)
    np.testing.assert_allclose(drawn, (1 - share)[:, None, None] * covariances + towards)
    # What is left of the differences is what 5000 draws know of each covariance.
    away = (drawn - variance[:, None, None] * np.eye(2)) / variance[:, None, None]
    assert np.all(np.abs(away[outer]) < 4 * np.sqrt(2 / 5000))


def _two_modes(n_shards: int, n_draws: int = 600, seed: int = 0, weights=(0.5, 0.5)):
    """Modes at (−4, 4) and (4, −4), known of each parameter alone to be at ±4."""
    rng = np.random.default_rng(seed)
    sd = 0.3 * np.sqrt(n_shards)
    place = np.array([[-4.0, 4.0], [4.0, -4.0]])
    which = rng.random((n_shards, n_draws)) < weights[1]
    centres = rng.normal(size=(n_shards, 1, 2)) * sd * 0.3
    return place[which.astype(int)] + centres + sd * rng.normal(size=(n_shards, n_draws, 2))


def test_modes_are_matched_jointly():
    draws = _two_modes(6)
    combined = MultimodalConsensus()(shard_draws(draws), KEY)
    # No draw at (4, 4) or (−4, −4), where the modes of each parameter alone would also meet.
    assert np.all(np.abs(combined.draws.sum(axis=1)) < 4)
    sign = np.sign(combined.draws[:, 0])
    for side in (-1, 1):
        mine = combined.draws[sign == side]
        if len(mine) > 100:
            np.testing.assert_allclose(mine.std(axis=0), 0.3, rtol=0.2)
            np.testing.assert_allclose(np.abs(mine.mean(axis=0)), 4, atol=0.5)
    assert "a mode of 6 of 6 shards" in " ".join(combined.log)
    # The average of draws lies between the modes, where nothing is.
    assert np.mean(np.abs(ConsensusAverage()(shard_draws(draws), KEY).draws[:, 0]) < 2) > 0.5


def test_a_mode_weighs_what_its_product_does():
    """Two shards with weights (0.8, 0.2) each, no other difference: 16 to 1."""
    rng = np.random.default_rng(8)
    quantiles = rng.normal(size=(4000, 1))
    quantiles = (quantiles - quantiles.mean()) / quantiles.std()
    one = np.concatenate([quantiles[:3200] - 10, quantiles[:800] + 10])
    combined = MultimodalConsensus(draws=20000)(shard_draws(np.stack([one, one])), KEY)
    assert np.mean(combined.draws < 0) == pytest.approx(16 / 17, abs=0.03)


def test_a_bimodal_minority_is_set_aside_and_named():
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(10, 600, 2))
    draws[7] = _two_modes(1, seed=2)[0]
    combined = RobustConsensus()(shard_draws(draws, ("D0", "alpha")), KEY)
    assert combined.dropped == ((7, "two modes in D0, alpha"),)
    majority = RobustConsensus()(shard_draws(_two_modes(4, seed=3) / 2), KEY)
    assert majority.dropped == ()
    assert "4 of 4 shards have two modes" in majority.log[0]


def test_bad_draws_are_refused():
    draws = np.random.default_rng(0).normal(size=(3, 50, 2))
    with pytest.raises(ModelError, match=r"\(shard, draw, entry\)"):
        shard_draws(draws[0])
    with pytest.raises(ModelError, match="4 draws of 2 entries"):
        shard_draws(draws[:, :4])
    bad = draws.copy()
    bad[1, 3, 0] = np.nan
    with pytest.raises(ModelError, match="shard 8 are not all finite"):
        shard_draws(bad, numbers=(7, 8, 9))
    bad[1, :, 0] = 1.0
    with pytest.raises(ModelError, match="D0 never moves in shard 1"):
        shard_draws(bad, ("D0", "alpha"))
    with pytest.raises(FitError, match="exactly degenerate"):
        precisions_of(np.ones((1, 2, 2)))
    for wrong in (lambda: RobustConsensus(0.0), lambda: GaussianProduct(0)):
        with pytest.raises(ModelError):
            wrong()
