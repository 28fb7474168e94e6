"""Every pair lands in one shard, shards are of the size asked for, and plans follow their size."""

from itertools import pairwise

import jax
import numpy as np
import pytest

from xpcs_eqx.bayes import Consensus
from xpcs_eqx.bayes.shards.division import (
    AngleBalanced,
    AutomaticSize,
    ContiguousShards,
    NumberOfShards,
    PairsPerShard,
    RandomShards,
    StratifiedByAngle,
    pairs_of,
    split_pairs,
)
from xpcs_eqx.data import Geometry, PooledData, TwoTimeData
from xpcs_eqx.errors import ModelError
from xpcs_eqx.objective import tiles_of

SHARDINGS = (RandomShards(), ContiguousShards(), StratifiedByAngle(), AngleBalanced())
KEY = jax.random.key(3)
N, PHI = 14, np.array([0.0, 30.0, 80.0])


def _map(masked: bool = True) -> TwoTimeData:
    rng = np.random.default_rng(0)
    upper = np.triu(rng.normal(size=(3, N, N)), 1)
    roots = np.ones((3, N, N))
    roots[1, 2, 5] = roots[1, 5, 2] = 0.0
    roots[2, :6] = roots[2, :, :6] = 0.0
    return TwoTimeData(
        upper + np.swapaxes(upper, 1, 2),
        np.arange(N, dtype=float),
        Geometry(np.asarray(0.01), PHI),
        roots if masked else None,
        np.full((3, N), np.nan),
    )


def _pooled(data: TwoTimeData, weighted: bool = True) -> PooledData:
    """The same pairs in a random order."""
    rows, columns = np.triu_indices(N, 1)
    order = np.random.default_rng(1).permutation(3 * rows.size)
    angle = np.repeat(np.arange(3), rows.size)[order]
    first, second = np.tile(rows, 3)[order], np.tile(columns, 3)[order]
    roots = data.root_weights
    return PooledData(
        np.asarray(data.c2)[angle, first, second],
        first,
        second,
        angle,
        data.t,
        data.geometry,
        np.asarray(roots)[angle, first, second] if weighted and roots is not None else None,
    )


def _set(points) -> set:
    columns = (points.angle, points.first, points.second, points.values)
    return set(zip(*(np.asarray(c).tolist() for c in columns), strict=True))


@pytest.mark.parametrize("sharding", SHARDINGS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("form", ["map", "pooled"])
def test_every_pair_is_in_exactly_one_shard(sharding, form):
    data = _map()
    pairs = pairs_of(tiles_of(data if form == "map" else _pooled(data)))
    assert pairs.n_pairs == data.n_pairs
    shards = sharding.split(pairs, 7, KEY)
    np.testing.assert_array_equal(np.sort(shards.order), np.arange(data.n_pairs))
    assert shards.n_shards == 7
    assert shards.by_angle.sum() == data.n_pairs
    parts = [_set(pairs.points(shards.members(k))) for k in range(7)]
    assert sum(map(len, parts)) == data.n_pairs
    rows, columns = np.triu_indices(N, 1)
    roots, c2 = np.asarray(data.root_weights), np.asarray(data.c2)
    expected = {
        (a, int(i), int(j), float(c2[a, i, j]))
        for a in range(3)
        for i, j in zip(rows, columns, strict=True)
        if roots[a, i, j] > 0
    }
    assert set.union(*parts) == expected


def test_shards_are_what_their_names_say():
    data = _map()
    pairs = pairs_of(tiles_of(data))
    counts = np.bincount(pairs.angle())
    balanced = AngleBalanced().split(pairs, 5, KEY)
    assert np.ptp(balanced.sizes) <= 1
    assert np.all(np.abs(balanced.by_angle - counts / 5) < 1)
    assert np.all(balanced.coverage == 1)
    stratified = StratifiedByAngle().split(pairs, 6, KEY)
    assert np.all(np.count_nonzero(stratified.by_angle, axis=1) == 1)
    np.testing.assert_allclose(stratified.coverage, 1 / 3)
    contiguous = ContiguousShards().split(pairs, 5, KEY)
    ages = [pairs.first()[contiguous.members(k)] for k in range(5)]
    assert all(a.max() <= b.min() for a, b in pairwise(ages))
    one, other = (RandomShards().split(pairs, 5, jax.random.key(k)).order for k in (1, 2))
    assert np.any(one != other)
    np.testing.assert_array_equal(one, RandomShards().split(pairs, 5, jax.random.key(1)).order)


def test_few_pairs_of_an_angle_are_found_before_sampling():
    data = _map()
    roots = np.array(data.root_weights)
    roots[2] = 0.0
    roots[2, 0, 1:3] = 1.0
    data = TwoTimeData(data.c2, data.t, data.geometry, roots, data.diagonal)
    pairs = pairs_of(tiles_of(data))
    with pytest.raises(ModelError, match=r"67 % of the angles.*fewest: 2, shards: 6"):
        AngleBalanced().split(pairs, 6, KEY)
    _, notes = split_pairs(pairs, 3, False, KEY, AngleBalanced(coverage=0.5), NumberOfShards(6))
    assert any("only 67 % of the angles" in note for note in notes)
    with pytest.raises(ModelError, match="cannot hold 3 angles"):
        StratifiedByAngle().split(pairs, 2, KEY)


def test_sizes_follow_pairs_parameters_and_angles():
    size = AutomaticSize()
    assert size.points(10**5, 3, 20, False) == 10_000
    assert size.points(10**9, 3, 20, False) == 20_000
    assert size.points(10**5, 3, 20, True) == 5_000
    assert size.points(10**9, 3, 20, True) == 10_000
    assert size.points(10**7, 3, 20, False) == pytest.approx(10_000 * 2**0.5, abs=1)
    for angles, factor in ((3, 0.6), (5, 0.7), (10, 0.85), (11, 1.0)):
        assert size.points(10**9, 3, angles, False) == round(20_000 * factor)
    assert size.points(10**9, 30, 3, True) == 45_000
    assert size.count(10**6, 3, 20, False) == 100
    assert size.count(3000, 3, 3, True) == 1
    assert PairsPerShard(100).count(1049, 3, 3, True) == 10


def test_too_small_shards_are_refused_or_noted():
    pairs = pairs_of(tiles_of(_map()))
    with pytest.raises(ModelError, match="the 9 sampled parameters; sample all data in one run"):
        split_pairs(pairs, 9, True, KEY, size=NumberOfShards(40))
    _, notes = split_pairs(pairs, 2, False, KEY, size=NumberOfShards(3))
    assert "3 shards (angle-balanced)" in notes[0]
    assert "fewer than 1500" in notes[1]
    for wrong in (lambda: NumberOfShards(0), lambda: PairsPerShard(0)):
        with pytest.raises(ModelError, match="is 0; give a whole number from 1"):
            wrong()


def test_data_in_a_file_are_refused():
    with pytest.raises(ModelError, match="load the data"):
        pairs_of("maps.h5")  # pyright: ignore[reportArgumentType]


def test_route_plan_and_tempering():
    automatic = Consensus()
    assert not automatic.in_shards(500_000)
    assert automatic.in_shards(500_001)
    assert "500001 pairs are more than 500000" in automatic.reason(500_001)
    assert Consensus(threshold=0).in_shards(10)
    assert "consensus of 10 pairs was asked for" in Consensus(threshold=0).reason(10)
    assert not Consensus(threshold=None).in_shards(10**9)
    assert "one run on all 10 pairs was asked for" in Consensus(threshold=None).reason(10)
    assert automatic.plan(20_000, 4, 500, 1500) == (500, 1500, 1.0)
    assert automatic.plan(5_000, 4, 500, 1500) == (250, 750, 0.5)
    assert automatic.plan(100, 2, 500, 1500) == (100, 200, 0.01)
    assert automatic.plan(100, 20, 500, 1500)[:2] == (400, 1000)
    assert Consensus(by_size=False).plan(100, 20, 30, 40)[:2] == (30, 40)
    assert automatic.prior_power(8) == 1 / 8
    assert Consensus(power=0.3).prior_power(8) == 0.3
    for power in (0.0, 1.1):
        with pytest.raises(ModelError, match="above 0, at most 1"):
            Consensus(power=power)
    with pytest.raises(ModelError, match="from 0 or None"):
        Consensus(threshold=-1)
