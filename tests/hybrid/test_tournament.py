"""The tournament among starts: candidates, rounds, batches, losers."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from xpcs_eqx.errors import ModelError
from xpcs_eqx.hybrid import (
    ArraySource,
    Chunk,
    HybridOptimiser,
    Tournament,
    as_source,
    streamed_objective,
)
from xpcs_eqx.objective import ArrayPoints
from xpcs_eqx.search import Halton, LatinHypercube, Sobol
from xpcs_eqx.search.tournament import batch_costs, sample_points

SAMPLERS = (LatinHypercube(), Sobol(), Halton())
START = np.array([1.0, -2.0, 0.0])
LOW, HIGH = np.array([0.0, -10.0, -5.0]), np.array([1.2, 10.0, np.inf])
TRUTH = np.array([1.5, 4.0, 0.3])
RNG = np.random.default_rng(0)
X = np.sort(RNG.uniform(0, 3, 5000))
Y = TRUTH[0] * np.sin(TRUTH[1] * X) + TRUTH[2] + 0.05 * RNG.normal(size=X.size)


def wave(x, amplitude, frequency, offset):
    return amplitude * jnp.sin(frequency * x) + offset


def problem(model=wave, chunk=1000, start=(1.0, 1.0, 0.0)):
    bounds = (np.array([0.0, 0.1, -2.0]), np.array([3.0, 10.0, 2.0]))
    return streamed_objective(ArraySource(X, Y, 0.05, chunk=chunk), model, start, bounds=bounds)


def run_tournament(tournament, objective, state=None, callback=lambda state: None):
    if state is None:
        state = tournament.begin(objective, objective.start)
    advance = tournament.machine(objective)
    while state.running:
        state = advance(state)
        callback(state)
    return state


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("n", [2, 7, 32])
def test_candidates_fill_their_box_and_repeat_with_the_seed(sampler, n):
    tournament = Tournament(n, sampler=sampler, around=0.5, seed=3)
    found = tournament.drawn(START, LOW, HIGH).candidates
    assert found.shape == (n, 3)
    np.testing.assert_array_equal(found[0], START)
    low, high = np.array([0.5, -3.0, -0.5]), np.array([1.2, -1.0, 0.5])
    assert np.all((found >= low) & (found <= high))
    np.testing.assert_array_equal(found, tournament.drawn(START, LOW, HIGH).candidates)
    other = Tournament(n, sampler=sampler, around=0.5, seed=4)
    assert not np.array_equal(found, other.drawn(START, LOW, HIGH).candidates)
    if n == 32:
        # Each quarter of every axis has its share.
        share = np.floor(4 * (found[1:] - low) / (high - low)).astype(int)
        counts = [np.bincount(axis, minlength=4) for axis in share.T]
        assert np.min(counts) >= 5


def test_candidates_over_the_bounds_need_bounds():
    with pytest.raises(ModelError, match=r"parameter 2 has bounds \[-5.0, inf\]"):
        Tournament(around=None).drawn(START, LOW, HIGH)
    found = Tournament(64, around=None).drawn(START, LOW, np.full(3, 20.0)).candidates
    assert np.ptp(found[:, 1]) > 25


def test_custom_candidates_come_first():
    custom = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    found = Tournament(5, custom=custom).drawn(START, LOW, HIGH).candidates
    np.testing.assert_array_equal(found[:3], [*custom, START])
    assert len(found) == 5
    # All of them play, also where there are more than places.
    assert len(Tournament(1, custom=custom).drawn(START, LOW, HIGH).candidates) == 3


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ([[0.0, 0.0]], "have 2 parameters"),
        ([[0.1, 0.0, 0.0], [5.0, 0.0, 0.0]], "custom candidate 1"),
        ([[np.nan, 0.0, 0.0]], "custom candidate 0"),
    ],
)
def test_bad_custom_candidates(custom, message):
    with pytest.raises(ModelError, match=message):
        Tournament(custom=np.array(custom)).drawn(START, LOW, HIGH)


@pytest.mark.parametrize(
    "keywords", [{"candidates": 0}, {"rounds": 0}, {"keep": 1.0}, {"keep": 0.0}, {"batch": 0}]
)
def test_numbers_that_leave_no_choice(keywords):
    with pytest.raises(ModelError, match=f"Tournament: {next(iter(keywords))} is"):
        Tournament(**keywords)
    with pytest.raises(ModelError, match=r"around is 0\.0"):
        Tournament(around=0.0)


def test_rounds_keep_a_fraction_of_the_best():
    tournament = Tournament(8, rounds=3, keep=0.5)
    state = tournament.drawn(START, LOW, HIGH)
    costs = np.array([5.0, 3.0, 8.0, 1.0, 7.0, 2.0, 6.0, 4.0])
    state = tournament.played(state, costs)
    np.testing.assert_array_equal(np.flatnonzero(state.alive), [1, 3, 5, 7])
    # Means count: 3 was best by far and is not thrown out by one bad batch.
    state = tournament.played(state, np.array([0.0, 3.0, 0.0, 4.0, 0.0, 9.0, 0.0, 3.0]))
    np.testing.assert_array_equal(np.flatnonzero(state.alive), [1, 3])
    np.testing.assert_array_equal(np.isnan(state.table[1]), ~np.isin(np.arange(8), [1, 3, 5, 7]))
    state = tournament.played(state, np.full(8, 2.0))
    assert state.winner == 3
    assert int(state.round) == 3
    np.testing.assert_array_equal(state.best, state.candidates[3])


def test_what_is_not_finite_loses():
    tournament = Tournament(4, rounds=2, keep=0.9)
    state = tournament.drawn(START, LOW, HIGH)
    state = tournament.played(state, np.array([np.nan, np.inf, 3.0, 1e300]))
    np.testing.assert_array_equal(state.alive, [False, False, True, True])
    assert state.winner == 2
    state = tournament.played(state, np.array([0.0, 0.0, np.nan, 1e300]))
    assert state.winner == 3
    assert np.isfinite(state.scores).any()


def test_without_any_finite_cost_the_first_is_returned():
    tournament = Tournament(4, rounds=2)
    state = tournament.drawn(START, LOW, HIGH)
    for _ in range(2):
        state = tournament.played(state, np.full(4, np.nan))
    assert not np.isfinite(state.scores).any()
    assert state.winner == 0


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_the_right_basin_wins(sampler):
    # Between start and truth lie wrong minima of the frequency.
    tournament = Tournament(128, rounds=4, sampler=sampler, around=None, batch=200, seed=1)
    state = run_tournament(tournament, problem())
    assert abs(state.best[1] - TRUTH[1]) < 0.8
    assert [np.isfinite(row).sum() for row in state.table] == [128, 64, 32, 16]
    assert state.alive.sum() == 8


def test_all_candidates_are_costed_in_one_call_compiled_once():
    traced = []

    def model(x, *parameters):
        traced.append(x.shape)
        return wave(x, *parameters)

    tournament = Tournament(16, rounds=4, batch=100)
    this = problem(model)
    state = run_tournament(tournament, this)
    assert traced == [(100,)]
    points = sample_points(this.points.chunks(), this, 100, 0)
    batch = ArrayPoints(*(jnp.asarray(part)[None] for part in points))
    found = batch_costs(this, state.candidates, batch)
    x, y, _ = points
    wanted = [0.5 * np.mean(((np.asarray(wave(x, *c)) - y) / 0.05) ** 2) for c in state.candidates]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_model_that_is_nan_in_a_corner():
    def partial(x, amplitude, frequency, offset):
        return wave(x, amplitude, frequency, offset) + 0 * jnp.log(6.0 - frequency)

    tournament = Tournament(64, around=None, batch=500)
    state = run_tournament(tournament, problem(partial))
    corner = state.candidates[:, 1] >= 6
    assert 10 < corner.sum() < 54
    assert not np.any(state.alive & corner)
    assert np.all(np.isfinite(state.table[0][~corner]))
    assert state.best[1] < 6
    # A whole fit over the same box finds the truth.
    start = (1.0, 7.0, 0.0)
    assert not np.isfinite(problem(partial).cost(jnp.array(start), None))
    fit = HybridOptimiser(tournament=tournament).minimise(problem(partial, start=start))
    assert fit.success
    np.testing.assert_array_less(np.abs(fit.x - TRUTH), 5 * fit.perr)


def test_a_tournament_goes_on_from_any_round():
    tournament = Tournament(20, rounds=4, batch=50, seed=2)
    states = []
    end = run_tournament(tournament, problem(), callback=states.append)
    for state in states[:-1]:
        again = run_tournament(tournament, problem(), state)
        np.testing.assert_array_equal(again.table, end.table)
        np.testing.assert_array_equal(again.alive, end.alive)


def test_samples_are_drawn_evenly_from_all_points():
    n = 20_000
    source = ArraySource(np.arange(n), np.arange(n), chunk=777)
    line = streamed_objective(source, lambda x, a: a * x, [1.0])

    def sample_of(seed):
        return sample_points(source.chunks(), line, 2000, seed)

    found = sample_of(5)
    assert found.y.shape == (2000,)
    assert np.unique(found.y).size == 2000
    # Tenths of the data, 200 each in the mean with a standard deviation of 13.
    counts = np.histogram(found.y, np.linspace(0, n, 11))[0]
    assert np.all(np.abs(counts - 200) < 65)
    # Neighbours are shuffled: batches are cut from the sample as it is.
    assert abs(np.corrcoef(found.y[1:], found.y[:-1])[0, 1]) < 0.1
    np.testing.assert_array_equal(found.y, sample_of(5).y)
    assert not np.array_equal(found.y, sample_of(6).y)


def test_samples_of_few_points_and_of_chunks_without_weight():
    root = np.where(np.arange(5000) < 2000, 0.0, 1.0)
    chunks = [Chunk(X[i : i + 500], Y[i : i + 500], root[i : i + 500], np.zeros(500, int))
              for i in range(0, 5000, 500)]  # fmt: skip
    found = sample_points(as_source(chunks, chunk=500).chunks(), problem(), 10_000, 0)
    np.testing.assert_array_equal(np.sort(found.x), X[2000:])
    state = run_tournament(Tournament(4, batch=10_000), problem())
    assert np.isfinite(state.scores).any()


def test_no_warning_for_numbers_that_are_no_power_of_two():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Sobol().unit(5, 2, 0).shape == (5, 2)
        assert Sobol().unit(1, 2, 0).shape == (1, 2)
