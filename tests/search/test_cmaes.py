"""CMA-ES with restarts: known functions, wrong basins, seeds, budgets, refusals."""

import itertools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, make_data, mapped, start_off

from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import curve_objective, projected_objective
from xpcs_eqx.optimize import Status, TrustRegion
from xpcs_eqx.parameters import with_parameters
from xpcs_eqx.search import (
    CMA_PRESETS,
    CmaPreset,
    cma_es,
    cma_search,
    next_plan,
    population_costs,
)
from xpcs_eqx.search.evolution import Evolution

FAST = CMA_PRESETS["fast"]


def residuals_of(function, start, lower, upper, points):
    """A sum of squares whose residuals are those of `function(*parameters)`."""

    def model(x, *parameters):
        return function(jnp.stack(parameters))[x.astype(int)]

    bounds = (np.full(len(start), lower), np.full(len(start), upper))
    return curve_objective(
        model, np.arange(float(points)), np.zeros(points), np.asarray(start), bounds=bounds
    )


def rosenbrock(p):
    return jnp.concatenate([10 * (p[1:] - p[:-1] ** 2), 1 - p[:-1]])


def rastrigin(p):
    # Its half sum of squares is Σ p² + 10 (1 − cos 2πp), of which 1 − cos is 2 sin².
    return jnp.concatenate([jnp.sqrt(2.0) * p, jnp.sqrt(40.0) * jnp.sin(jnp.pi * p)])


def narrow_well(p):
    # A wide minimum of cost ½·0.3² and a narrow one at 2.5, of cost 0.
    return jnp.atleast_1d(jnp.minimum(0.3 + (p[0] + 1.0) ** 2, 4.0 * jnp.abs(p[0] - 2.5)))


@pytest.fixture(scope="module")
def laminar():
    """A map whose fit from reversed flow and extreme shear ends in a wrong basin."""
    data = make_data(n=51, noise=0.01)
    return projected_objective(mapped(LAMINAR, data), data)


@pytest.fixture(scope="module")
def wrong(laminar):
    start = with_parameters(
        LAMINAR,
        {"phi0": -25.0, "gamma_dot_t0": 0.4, "beta": -1.0, "gamma_dot_t_offset": 0.05},
    )
    parameters = laminar.term.parameters
    return np.asarray(eqx.tree_at(lambda p: p.model, parameters, start).start)


def test_curved_valley():
    objective = residuals_of(rosenbrock, [-1.0, 1.5, 0.0], -2.0, 2.0, 4)
    found = cma_search(objective, preset=CmaPreset(generations=40, restarts=0))
    np.testing.assert_allclose(found.x, 1.0, atol=1e-6)
    assert found.cost < 1e-12


@pytest.mark.long
def test_lowest_of_many_minima():
    objective = residuals_of(rastrigin, [3.1, -4.1, 2.1], -5.12, 5.12, 6)
    for seed in range(3):
        found = cma_search(objective, preset=CmaPreset(agreeing=100), seed=seed, budget=6000)
        np.testing.assert_allclose(found.x, 0.0, atol=1e-6)
        assert found.local_cost > 1.0
        assert "of CMA-ES" in found.reasons[0]
        # No generation begins after the budget, but local fits are finished.
        assert found.evaluations < 7000


def test_one_variable():
    objective = residuals_of(narrow_well, [-1.5], -6.0, 6.0, 1)
    found = cma_search(objective, preset=FAST)
    np.testing.assert_allclose(found.x, 2.5, atol=1e-4)
    assert found.local_cost == pytest.approx(0.5 * 0.3**2)


def test_minimum_on_a_face():
    objective = residuals_of(lambda p: p - jnp.array([0.2, 3.0]), [0.5, 0.5], -1.0, 1.0, 2)
    found = cma_search(objective, preset=FAST)
    np.testing.assert_allclose(found.x, [0.2, 1.0], atol=1e-8)


@pytest.mark.long
def test_a_wrong_basin_is_left(laminar, wrong):
    best = least_squares(laminar)
    solver = TrustRegion(max_evaluations=50)
    local = least_squares(laminar, wrong, solver=solver)
    assert local.cost > 1.01 * best.cost
    found = cma_es(laminar, wrong, preset=FAST, solver=solver)
    assert found.fit.success
    np.testing.assert_allclose(found.fit.cost, best.cost, rtol=1e-6)
    assert found.local_cost == pytest.approx(float(local.cost))
    assert found.runs[0].regime == "warm"
    assert found.runs[0].sigma == FAST.warm_sigma
    used = sum(run.evaluations + run.refinement for run in found.runs)
    # Nothing goes uncounted.
    assert found.evaluations == used + local.evaluations + found.fit.evaluations
    for run in found.runs:
        assert run.evaluations == run.generations * run.population
        assert run.refined <= run.cost
        assert run.stop
    lines = found.table().splitlines()
    assert len(lines) == 1 + len(found.runs)
    assert found.reasons[0] in repr(found)


def test_a_start_that_is_better_is_kept(laminar):
    start = np.asarray(laminar.start)
    found = cma_es(laminar, start, preset=CmaPreset(generations=2, restarts=0), budget=60)
    assert "from the start ends at" in found.reasons[0]
    assert "is kept" in found.reasons[0]
    assert "budget of 60" in found.reasons[1]
    assert float(found.fit.cost) == pytest.approx(found.local_cost, rel=1e-9)
    assert len(found.runs) == 1
    assert found.runs[0].generations == 2


@pytest.mark.long
def test_equal_seeds_and_the_global_random_numbers(laminar):
    state = np.random.get_state()  # noqa: NPY002
    errors = np.geterr()
    settings = CmaPreset(generations=8, restarts=1, refined=1)
    one, again = (cma_es(laminar, preset=settings, seed=3) for _ in range(2))
    other = cma_es(laminar, preset=settings, seed=4)
    assert one.runs == again.runs
    assert one.runs != other.runs
    np.testing.assert_array_equal(one.fit.values, again.fit.values)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(state[1], after[1])
    assert (state[0], *state[2:]) == (after[0], *after[2:])
    assert np.geterr() == errors


@pytest.mark.long
def test_no_compilation_by_generation_or_size_of_population(laminar):
    quick = CmaPreset(generations=4, restarts=1, refined=1)
    cma_es(laminar, preset=quick)
    with jax.log_compiles(False):
        counted = []
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, duration, **_: counted.append(event)
        )
    other = CmaPreset(generations=5, restarts=3, refined=1, agreeing=100)
    found = cma_es(laminar, preset=other, seed=7)
    assert {run.population for run in found.runs} >= {9, 18, 36}
    assert "/jax/core/compile/backend_compile_duration" not in counted


def test_a_callback_sees_the_search_and_ends_it(laminar, wrong):
    seen = []

    def stop(progress):
        seen.append(progress)
        return progress.phase == "search" and progress.generation == 3

    found = cma_es(laminar, wrong, callback=stop)
    assert found.fit.status == Status.interrupted
    assert found.reasons[-1] == "the search ended: it was interrupted"
    assert [p.generation for p in seen if p.phase == "search"] == [1, 2, 3]
    assert {p.phase for p in seen} == {"start", "search"}
    assert all(a.evaluations < b.evaluations for a, b in itertools.pairwise(seen))
    assert float(found.fit.cost) <= found.local_cost * (1 + 1e-9)


@pytest.mark.parametrize("phase", ["start", "refinement"])
def test_a_callback_ends_local_fits(laminar, wrong, phase):
    quick = CmaPreset(generations=2, restarts=1)
    found = cma_es(laminar, wrong, preset=quick, callback=lambda p: p.phase == phase)
    assert found.fit.status == Status.interrupted
    assert len(found.runs) == (phase == "refinement")


def test_an_interrupt_goes_through(laminar):
    def interrupt(progress):
        if progress.phase == "search":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cma_es(laminar, callback=interrupt)


def test_restarts_share_the_evaluations():
    done = [("first", 900)]
    for _ in range(8):
        plan = next_plan(done, 9, 0.3, 100, (0.9, 0.4))
        done.append((plan.regime, plan.evaluations))
        assert plan.population >= 9
        assert plan.sigma <= 0.3
    large = [used for regime, used in done if regime == "large"]
    assert all(b == 2 * a for a, b in itertools.pairwise(large))
    assert large[0] == 1800
    small = sum(used for regime, used in done if regime != "large")
    assert small <= 2 * sum(large)
    # The largest small population is half the large one, the smallest the first.
    spent = [*done, ("small", -small)]
    sizes = [next_plan(spent, 9, 0.3, 100, (u, 0.0)).population for u in (0.0, 1.0)]
    assert sizes == [9, 9 * 2 ** (len(large) - 1)]


def test_points_without_finite_costs_come_last():
    strategy = Evolution(np.array([0.5, 0.5]), 0.3, 8, 1e-4, np.random.default_rng(0))
    points = strategy.ask()
    assert points.shape == (8, 2)
    assert points.min() >= 0
    assert points.max() <= 1
    objective = residuals_of(lambda p: jnp.log(p), [1.0, 2.0], -3.0, 3.0, 2)
    assert np.isinf(population_costs(objective, np.array([[-1.0, 1.0]]))[0])
    np.testing.assert_allclose(cma_search(objective, preset=FAST).x, 1.0, atol=1e-6)


def test_without_the_library(laminar, monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(ModelError, match=r"pip install 'xpcs-eqx\[global\]'"):
        cma_es(laminar)


def test_settings_that_allow_no_search(laminar):
    with pytest.raises(ModelError, match="less than one generation of 9 points"):
        cma_es(laminar, budget=8)
    for settings, said in (
        ({"sigma": 0.0}, "sigma = 0 must lie above 0"),
        ({"sigma": -0.1}, "sigma = -0.1 must"),
        ({"warm_sigma": float("nan")}, "warm_sigma = nan must"),
        ({"population": 3}, "a population of 3 points"),
        ({"generations": 0}, "generations is 0"),
        ({"restarts": -1}, "restarts is -1"),
        ({"narrow": 1.0}, "narrow is 1.0; give a number from 0 to below 1"),
    ):
        with pytest.raises(ModelError, match=said):
            CmaPreset(**settings)
    outside = np.asarray(laminar.start) * 1e9
    with pytest.raises(ModelError, match="outside its bounds"):
        cma_es(laminar, outside)


def test_bounds_that_cannot_be_searched():
    data = make_data(n=9)
    start = start_off(LAMINAR, 1.1)
    endless = projected_objective(mapped(start, data, bounds={"alpha": (-np.inf, 2.0)}), data)
    with pytest.raises(ModelError, match="alpha in"):
        cma_es(endless)
    d0 = float(start.transport.amplitude)
    flat = {"D0": (d0, np.nextafter(d0, np.inf))}
    with pytest.raises(ModelError, match="D0 in"):
        cma_es(projected_objective(mapped(start, data, bounds=flat), data))
