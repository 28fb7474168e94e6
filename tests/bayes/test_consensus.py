"""Consensus against the posterior of all data, and failures planted in the data."""

import dataclasses
import os

import equinox as eqx
import jax
import numpy as np
import pytest
from helpers import MODELS, make_data, mapped
from helpers_shards import Signed, bent_problem

from xpcs_eqx.bayes import Consensus, GivenSigma, MarginalisedScaling, Normal, Nuts, log_posterior
from xpcs_eqx.bayes.nuts import nuts as nuts_module
from xpcs_eqx.bayes.nuts.chains import LockStepChains
from xpcs_eqx.bayes.shards.anchors import NoAnchor
from xpcs_eqx.bayes.shards.combiners import GaussianProduct, RobustConsensus
from xpcs_eqx.bayes.shards.compare import compare_shards
from xpcs_eqx.bayes.shards.consensus import consensus
from xpcs_eqx.bayes.shards.correction import ImportanceCorrection
from xpcs_eqx.bayes.shards.division import (
    AngleBalanced,
    ContiguousShards,
    NumberOfShards,
    RandomShards,
    StratifiedByAngle,
    pairs_of,
)
from xpcs_eqx.bayes.shards.work import layout_of, shard_density, without_data
from xpcs_eqx.bayes.workers.base import AbstractWorkers, Limits, Serial
from xpcs_eqx.bayes.workers.processes import SpawnedProcesses
from xpcs_eqx.compiling import quick_jit
from xpcs_eqx.errors import CheckpointError, FitError, ModelError
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.parameters import parameter_map
from xpcs_eqx.scaling import Fixed

KEY = jax.random.key(5)
# As informative as the data of the small problem, so that to count it twice shows.
PRIOR = {"slope": Normal(0.6, 0.02), "bend": Normal(-0.06, 0.002)}
SHORT = Nuts(warmup=100, draws=400, parallel=LockStepChains())
COMMON = {"noise": GivenSigma(0.5), "sampler": SHORT}


@quick_jit
def _value(density, z):
    return jax.value_and_grad(lambda z: density(z))(z)


@pytest.mark.parametrize(
    "sharding",
    [AngleBalanced(), RandomShards(), StratifiedByAngle()],
    ids=lambda s: type(s).__name__,
)
def test_shards_add_up_to_the_posterior_of_all_data(sharding):
    """Likelihood, prior, volume and penalties each count once in total."""
    data = make_data(MODELS["static"], n=9, noise=0.01)
    objective = projected_objective(mapped(MODELS["static"], data), data)
    density, theta = log_posterior(objective)
    pairs = pairs_of(density.term.tiles)
    shards = sharding.split(pairs, 5, KEY)
    layout, template = layout_of(shards.by_angle), without_data(density)
    begin = np.asarray(density.coordinates.from_physical(theta))
    rng = np.random.default_rng(0)
    for z in begin + 0.1 * rng.normal(size=(2, begin.size)):
        whole = _value(density, z)
        for method in (Consensus(), Consensus(power=1.0)):
            parts = [
                _value(
                    shard_density(template, pairs.points(members), layout, method.prior_power(5)), z
                )
                for members in map(shards.members, range(5))
            ]
            value = sum(float(part[0]) for part in parts)
            gradient = sum(np.asarray(part[1]) for part in parts)
            if method.power is None:
                np.testing.assert_allclose(value, whole[0], rtol=1e-10)
                np.testing.assert_allclose(gradient, whole[1], rtol=1e-8, atol=1e-8)
            else:
                physical = density.coordinates.to_physical(z)
                prior = density.log_prior(physical) + density.coordinates.log_det(z)
                np.testing.assert_allclose(value - float(whole[0]), 4 * float(prior), rtol=1e-8)


@pytest.fixture(scope="module")
def bent():
    return bent_problem(priors=PRIOR)


@pytest.fixture(scope="module")
def eight(bent):
    """Eight shards, with the number of times a transition was traced."""
    count, original = 0, nuts_module.advance

    def counting(*args):
        nonlocal count
        count += 1
        return original(*args)

    nuts_module.advance = counting
    # Or it would be none where a test before this one had the same shapes.
    jax.clear_caches()
    try:
        found = consensus(
            bent[0], PRIOR, method=Consensus(size=NumberOfShards(8), by_size=False), key=1, **COMMON
        )
    finally:
        nuts_module.advance = original
    return found, count


def _check(found, mean, covariance, within=0.25):
    draws = found.theta.reshape(-1, mean.size)
    sd = np.sqrt(np.diagonal(covariance))
    assert np.all(np.abs(draws.mean(axis=0) - mean) < within * sd)
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.12)


def test_consensus_has_the_closed_form(bent, eight):
    found, _ = eight
    _, mean, covariance = bent
    _check(found, mean, covariance)
    draws = found.theta[0]
    exact = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert np.corrcoef(draws.T)[0, 1] == pytest.approx(exact, abs=0.02)
    assert found.status == "converged"
    assert found.shards.dropped == ()
    assert found.shards.division.n_shards == 8
    assert found["slope"].shape == (1, 1600)
    assert np.all(found.diagnostics.rhat < 1.05)
    # Effective draws are those of the worst shard, not of its 1600 combined ones.
    assert np.all(found.diagnostics.ess_bulk <= 1600)
    assert found.draws.energy.shape == (32, 400)
    assert len(found.shards.table) == 8
    assert found.shards.table[0].status == "done"
    assert any("prior to the power 0.125" in note for note in found.notes)


def test_the_prior_counted_in_every_shard_shows(bent):
    _, mean, covariance = bent
    found = consensus(
        bent[0],
        PRIOR,
        method=Consensus(size=NumberOfShards(8), power=1.0, by_size=False),
        key=1,
        **COMMON,
    )
    draws = found.theta[0]
    sd = np.sqrt(np.diagonal(covariance))
    assert np.max(np.abs(draws.mean(axis=0) - mean) / sd) > 1
    assert np.all(draws.std(axis=0) < 0.7 * sd)


def test_shards_are_compiled_once(eight):
    _, count = eight
    assert count == 1


def test_files_can_be_written(eight, tmp_path):
    pytest.importorskip("arviz_base")
    from xpcs_eqx.bayes import write_posterior

    write_posterior(str(tmp_path), eight[0], plots=(), predictive_draws=5)
    assert sorted(os.listdir(tmp_path)) == [
        "diagnostics.json",
        "fitted_data.npz",
        "parameters.json",
        "posterior.nc",
        "samples.npz",
        "shards.json",
    ]


def test_another_combiner_takes_the_same_shards(bent, eight):
    found, _ = eight
    combined = GaussianProduct(4000)(found.shards.draws, KEY)
    robust = RobustConsensus()(found.shards.draws, KEY)
    sd = robust.draws.std(axis=0)
    assert np.all(np.abs(combined.draws.mean(axis=0) - robust.draws.mean(axis=0)) < 0.1 * sd)
    np.testing.assert_allclose(combined.draws.std(axis=0), sd, rtol=0.1)


def test_importance_correction(bent, eight):
    found, _ = eight
    _, mean, covariance = bent
    density = found.density
    c = density.coordinates
    z = (GaussianProduct(1000)(found.shards.draws, KEY).draws - c.centre) / c.scale
    good = ImportanceCorrection(2000)(z, density, KEY)
    assert good.pareto_k < 0.5
    assert good.effective > 1000
    theta = np.asarray(jax.vmap(c.to_physical)(good.draws))
    sd = np.sqrt(np.diagonal(covariance))
    assert np.all(np.abs(theta.mean(axis=0) - mean) < 0.15 * sd)
    # Off by a standard deviation it is put right, off by ten it says so.
    shifted = ImportanceCorrection(2000)(z + z.std(axis=0) * [1, -1], density, KEY)
    theta = np.asarray(jax.vmap(c.to_physical)(shifted.draws))
    assert np.all(np.abs(theta.mean(axis=0) - mean) < 0.25 * sd)
    far = z + 5.0 * z.std(axis=0) * [1, -1]
    bad = ImportanceCorrection(2000, rounds=1)(far, density, KEY)
    assert bad.pareto_k > 0.7
    assert "too far" in bad.notes[0]
    # Rounds go on as long as they are needed, and find the way back.
    again = ImportanceCorrection(2000, rounds=8)(far, density, KEY)
    assert again.pareto_k < 0.7
    assert "rounds: " in again.notes[0]
    theta = np.asarray(jax.vmap(c.to_physical)(again.draws))
    assert np.all(np.abs(theta.mean(axis=0) - mean) < 0.25 * sd)
    np.testing.assert_allclose(theta.std(axis=0), sd, rtol=0.2)


def test_an_interrupted_run_goes_on_where_it_stopped(bent, tmp_path):
    method = Consensus(size=NumberOfShards(4), by_size=False)
    folder = str(tmp_path / "shards")
    settings = {**COMMON, "method": method, "folder": folder, "key": 3}
    seen = []

    def stop(outcome):
        seen.append(outcome)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consensus(bent[0], PRIOR, callback=stop, **settings)
    resumed = []
    found = consensus(bent[0], PRIOR, callback=resumed.append, **settings)
    assert sum(one.resumed for one in resumed) == 2
    assert {one.number for one in seen} == {one.number for one in resumed if one.resumed}
    plain = consensus(bent[0], PRIOR, **{**settings, "folder": None})
    np.testing.assert_allclose(found["slope"], plain["slope"], rtol=1e-9)
    with pytest.raises(CheckpointError, match="another problem"):
        consensus(bent[0], PRIOR, **{**settings, "key": 4})
    other = {**PRIOR, "slope": Normal(0.6, 0.03)}
    with pytest.raises(CheckpointError, match="another problem"):
        consensus(bent[0], other, **settings)


def test_a_shard_of_nan_is_dropped_with_its_reason(bent):
    _, mean, covariance = bent

    class Poisoned(AbstractWorkers):
        def open(self, work, limits, tasks):
            pairs = work.pairs
            c2 = np.array(pairs.tiles.c2)
            c2.reshape(-1)[pairs.places[work.shards.members(2)[:1]]] = np.nan
            pairs = eqx.tree_at(lambda p: p.tiles.c2, pairs, c2)
            return Serial().open(dataclasses.replace(work, pairs=pairs), limits, tasks)

    found = consensus(
        bent[0],
        PRIOR,
        method=Consensus(size=NumberOfShards(10), workers=Poisoned(), by_size=False),
        key=1,
        **COMMON,
    )
    assert [number for number, _ in found.shards.dropped] == [2]
    assert found.shards.dropped[0][1].startswith("non_finite: the log density is not finite")
    assert len(found.shards.table[2].failures) == 4
    assert found.shards.draws.numbers == (0, 1, 3, 4, 5, 6, 7, 8, 9)
    # A tenth of data and prior is missing.
    _check(found, mean, covariance, within=0.8)
    with pytest.raises(FitError, match=r"7 of 8 shards succeeded.*non_finite 1"):
        consensus(
            bent[0],
            PRIOR,
            method=Consensus(size=NumberOfShards(8), workers=Poisoned(), by_size=False),
            key=1,
            **COMMON,
        )


def test_a_shard_from_another_truth_is_set_aside():
    objective, _, _ = bent_problem(priors=PRIOR)
    c2 = np.array(objective.term.tiles.c2)
    pairs = pairs_of(objective.term.tiles)
    shards = ContiguousShards().split(pairs, 10, KEY)
    c2.reshape(-1)[pairs.places[shards.members(6)]] += 1.5
    objective = eqx.tree_at(lambda o: o.term.tiles.c2, objective, c2)
    wide = {"slope": Normal(0.6, 1.0), "bend": Normal(-0.06, 0.1)}
    found = consensus(
        objective,
        wide,
        method=Consensus(size=NumberOfShards(10), sharding=ContiguousShards(), by_size=False),
        key=1,
        **COMMON,
    )
    assert [number for number, _ in found.shards.dropped] == [6]
    assert "Mahalanobis" in found.shards.dropped[0][1]
    assert any("shard 6 set aside" in note for note in found.notes)
    assert len(found.shards.combined.used) == 9
    assert max(one.excess for one in found.shards.comparison.heterogeneity) > 2


def test_a_bimodal_shard_is_named_and_the_rest_intact():
    n = 31
    data = make_data(Signed(slope=0.3), n=n, phi=[0.0], contrast=1.0, noise=0.5)
    one = np.ones(1)
    objective = projected_objective(parameter_map(Signed(), data.t), data, Fixed(one, one))
    prior = {"slope": Normal(0.0, 1.0)}
    method = Consensus(
        size=NumberOfShards(5),
        sharding=ContiguousShards(),
        limits=Limits(retries=1, success=0.8),
        # With an anchor no shard would see but the mode of all data.
        anchor=NoAnchor(),
        by_size=False,
    )
    found = consensus(objective, prior, method, key=2, **COMMON)
    assert [number for number, _ in found.shards.dropped] == [0]
    assert "two modes in slope" in found.shards.dropped[0][1]
    assert found["slope"].mean() == pytest.approx(0.3, abs=0.1)


@pytest.mark.long
def test_processes_draw_what_one_process_draws(bent, eight, tmp_path):
    alone, _ = eight
    workers = SpawnedProcesses(1, str(tmp_path))
    spread = consensus(
        bent[0],
        PRIOR,
        method=Consensus(size=NumberOfShards(8), workers=workers, by_size=False),
        key=1,
        **COMMON,
    )
    np.testing.assert_allclose(spread["slope"], alone["slope"], rtol=1e-9)
    assert os.listdir(tmp_path) == []


def test_shards_are_compared():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(6, 600, 3)) + np.array([10.0, 0.0, 5.0])
    draws[2, :, :2] += np.where(rng.random((600, 1)) < 0.5, 8.0, 0.0)
    draws[4, :, 0] += np.where(rng.random(600) < 0.5, 8.0, 0.0)
    draws[5, :, 2] += 30.0
    found = compare_shards(draws, ("D0", "alpha", "offset"), range(10, 16))
    assert [one.name for one in found.bimodal] == ["D0", "alpha"]
    first = found.bimodal[0]
    assert first.shards == (12, 14)
    assert first.low == pytest.approx(10, abs=0.3)
    assert first.high == pytest.approx(18, abs=0.3)
    assert (first.near_low, first.near_high) == (4, 0)
    assert found.together == (("D0", "alpha", 1, 2),)
    assert found.heterogeneity[2].excess > 5
    assert found.heterogeneity[2].cv == pytest.approx(12.2 / 10, rel=0.05)
    text = " ".join(found.findings)
    assert "D0 and alpha have two modes together in 1 of 2 shards" in text
    assert "differ in offset" in text


def test_bad_requests_are_refused_before_sampling(bent):
    with pytest.raises(ModelError, match="every shard would have its own"):
        consensus(bent[0], PRIOR, scaling=MarginalisedScaling())
    with pytest.raises(ModelError, match="fewer than the 2 sampled parameters"):
        consensus(bent[0], PRIOR, method=Consensus(size=NumberOfShards(300)), noise=GivenSigma(0.5))
