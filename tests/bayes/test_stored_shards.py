"""Shards of maps that stay in their file are those of the same maps in memory."""

import sys

import jax
import numpy as np
import pytest
from helpers import make_data
from helpers_shards import Bent

from xpcs_eqx.bayes import (
    Consensus,
    ContiguousShards,
    GivenSigma,
    ImportanceCorrection,
    LockStepChains,
    Normal,
    NumberOfShards,
    Nuts,
    PlainStart,
    consensus,
    default_priors,
    infer,
    sample,
)
from xpcs_eqx.bayes.shards import work as consensus_work
from xpcs_eqx.bayes.shards.consensus import _prepared
from xpcs_eqx.bayes.shards.division import pairs_of
from xpcs_eqx.bayes.shards.work import layout_of, shard_density, without_data
from xpcs_eqx.compiling import quick_jit
from xpcs_eqx.data import Selection, load, open_stored, write_own
from xpcs_eqx.errors import ModelError
from xpcs_eqx.objective import projected_objective, source_of, tiles_of
from xpcs_eqx.parameters import parameter_map
from xpcs_eqx.scaling import Fixed

PRIOR = {"slope": Normal(0.6, 0.02), "bend": Normal(-0.06, 0.002)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("maps") / "scan.h5")
    write_own(path, make_data(Bent(slope=0.5, bend=-0.05), n=31, phi=[0.0, 40.0], noise=0.5))
    return path


def _same(path, pick=None, **keywords):
    stored = pairs_of(source_of(open_stored(path, **keywords)))
    memory = pairs_of(tiles_of(load(path, **keywords)))
    assert stored.n_pairs == memory.n_pairs
    numbers = np.random.default_rng(0).permutation(stored.n_pairs) if pick is None else pick
    for mine, wanted in zip(stored.points(numbers), memory.points(numbers), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-12)
    np.testing.assert_array_equal(stored.angle(), memory.angle())
    np.testing.assert_array_equal(stored.first(), memory.first())
    return stored


def test_pairs_in_a_file_are_those_in_memory(path, tmp_path):
    whole = _same(path)
    assert whole.n_pairs == 2 * 31 * 30 // 2
    masked = _same(path, selection=Selection(bad_frames=(3, 17), max_lag=12), sigma=0.2)
    assert 0 < masked.n_pairs < whole.n_pairs
    angle = np.array([4.0, 0.0])
    weighted = source_of(open_stored(path), angle_weights=angle)
    points = pairs_of(weighted).points(np.arange(5))
    np.testing.assert_array_equal(points.root_weights, 2.0)
    assert pairs_of(weighted).n_pairs == whole.n_pairs // 2
    assert pairs_of(source_of(open_stored(path))).points(np.arange(0)).values.size == 0


def test_rows_of_a_map_of_several_bands(tmp_path, monkeypatch):
    from xpcs_eqx.bayes.shards import division

    monkeypatch.setattr(division, "_BAND", 7)
    path = str(tmp_path / "scan.h5")
    data = make_data(Bent(slope=0.5, bend=-0.05), n=31, phi=[0.0, 40.0], noise=0.5)
    write_own(path, data)
    _same(path)


def _objective(data):
    one = np.ones(2)
    return projected_objective(parameter_map(Bent(), data.t), data, Fixed(one, one))


def test_densities_of_shards_in_a_file(path):
    """Where chains begin, some pairs stand in for all; each shard has its own pairs exactly."""
    start, noise = PlainStart(), GivenSigma(0.5)
    prior = default_priors(_objective(load(path))).replaced(PRIOR)
    stored, memory = (
        (pairs, found.density)
        for pairs, found in (
            _prepared(_objective(one(path)), prior, start, None, noise, None, None)
            for one in (open_stored, load)
        )
    )
    shards = ContiguousShards().split(stored[0], 3, jax.random.key(0))
    z = np.array([0.1, -0.2])

    @quick_jit
    def value(density):
        return density(z)

    np.testing.assert_allclose(value(stored[1]), value(memory[1]), rtol=1e-10)
    for k in range(3):
        mine, wanted = (
            value(
                shard_density(
                    without_data(density),
                    pairs.points(shards.members(k)),
                    layout_of(shards.by_angle),
                    1 / 3,
                )
            )
            for pairs, density in (stored, memory)
        )
        np.testing.assert_allclose(mine, wanted, rtol=1e-10)


def test_pairs_that_stand_in_have_the_weight_of_all(path, monkeypatch):
    monkeypatch.setattr(consensus_work, "_STAND_IN", 200)
    _, found = _prepared(
        _objective(open_stored(path)),
        default_priors(_objective(load(path))).replaced(PRIOR),
        PlainStart(),
        None,
        GivenSigma(0.5),
        None,
        None,
    )
    density = found.density
    weights = np.asarray(density.term.tiles.root_weights)
    assert np.count_nonzero(weights) == 200
    assert np.sum(weights**2) == pytest.approx(2 * 31 * 30 / 2)
    assert float(density.n_pairs) == 2 * 31 * 30 / 2


SETTINGS = {
    "noise": GivenSigma(0.5),
    "sampler": Nuts(warmup=100, draws=200, parallel=LockStepChains()),
    "key": 1,
}
METHOD = Consensus(size=NumberOfShards(3), sharding=ContiguousShards(), by_size=False)


@pytest.mark.long
def test_consensus_of_maps_in_a_file(path):
    stored, memory = _objective(open_stored(path)), _objective(load(path))
    found = consensus(stored, PRIOR, METHOD, **SETTINGS)
    wanted = consensus(memory, PRIOR, METHOD, **SETTINGS)
    sd = wanted.theta.std(axis=(0, 1))
    away = np.abs(found.theta.mean(axis=(0, 1)) - wanted.theta.mean(axis=(0, 1)))
    assert np.all(away < 0.2 * sd)
    np.testing.assert_allclose(found.theta.std(axis=(0, 1)), sd, rtol=0.15)


def test_what_would_read_a_file_thousands_of_times_is_refused(path):
    stored = _objective(open_stored(path))
    with pytest.raises(ModelError, match="leave correction out"):
        consensus(stored, PRIOR, method=Consensus(correction=ImportanceCorrection()), **SETTINGS)
    with pytest.raises(ModelError, match="shards read their own part"):
        sample(stored, PRIOR, noise=GivenSigma(0.5))


def test_the_route_counts_the_pairs_of_a_file(path, monkeypatch):
    module = sys.modules[infer.__module__]
    for name in ("sample", "consensus"):
        monkeypatch.setattr(module, name, lambda *args, name=name, **keywords: name)
    pairs = 2 * 31 * 30 // 2
    for data in (open_stored(path), load(path)):
        objective = _objective(data)
        assert infer(objective, method=Consensus(threshold=pairs - 1)) == "consensus"
        assert infer(objective, method=Consensus(threshold=pairs)) == "sample"
