"""Multi-start: planted minima, valleys, screening, and what is refused."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, frame_times, make_data, mapped

import xpcs_eqx as xe
from xpcs_eqx.config.tables.search import Global
from xpcs_eqx.errors import ConfigError, ModelError
from xpcs_eqx.optimize import Status, TrustRegion
from xpcs_eqx.search import (
    Halton,
    LatinHypercube,
    MultiStart,
    OneCall,
    OverExecutor,
    Screening,
    Sobol,
    in_physical_variables,
    local_fits,
    local_fits_for,
    multi_start,
    normalised_space,
    population_costs,
)
from xpcs_eqx.search.pairs import thinned
from xpcs_eqx.search.starts import MOST


class Sum(xe.AbstractCorrelation):
    """exp(−(a + b) τ): only the sum of its parameters enters."""

    a: Any = xe.parameter(unit="1/s", start=0.5, bounds=(0.1, 1.5))
    b: Any = xe.parameter(unit="1/s", start=0.5, bounds=(0.1, 1.5))

    def features(self, t, geometry):
        return xe.Features(increments=(self.a + self.b) * t)

    def kernel(self, pair):
        return jnp.exp(-pair.increments)


class Product(xe.AbstractCorrelation):
    """exp(−a b τ): the valley of equal fits is bent."""

    a: Any = xe.parameter(unit="1/s", start=1.0, bounds=(0.2, 4.0))
    b: Any = xe.parameter(start=1.0, bounds=(0.2, 4.0))

    def features(self, t, geometry):
        return xe.Features(increments=self.a * self.b * t)

    def kernel(self, pair):
        return jnp.exp(-pair.increments)


OTHERS = ("alpha", "D_offset", "beta", "gamma_dot_t_offset")


@cache
def mirrored():
    """Laminar flow whose flow angle may be turned by half a turn: two equal minima."""
    # Times in which the decay is resolved at every angle, and bounds with both minima well inside.
    data = make_data(LAMINAR, t=frame_times(21, span=2.0))
    bounds = {"phi0": (-80.0, 280.0), "D0": (1e3, 1e5), "gamma_dot_t0": (5e-4, 2e-2)}
    parameters = mapped(LAMINAR, data, fixed=OTHERS, bounds=bounds)
    return xe.projected_objective(parameters, data)


@cache
def two_minima():
    return multi_start(mirrored(), starts=16, seed=1)


@pytest.mark.slow
def test_two_equal_minima_are_two_basins():
    search = two_minima()
    assert len(search.equal) == 2
    assert search.degenerate
    assert search.fit.quality.flag == "marginal"
    assert search.warnings[0] in search.fit.quality.findings
    # Which of two equal ones is called the best is a matter of rounding.
    assert all(text in search.warnings[0] for text in ("phi0 ", "4.89", "184.9"))
    angles = sorted(basin.values[-1] for basin in search.equal)
    assert angles[1] - angles[0] == pytest.approx(180.0, abs=1e-3)
    assert not any(basin.degenerate for basin in search.equal)
    assert all(basin.refined for basin in search.equal)
    assert search.basins[1].barrier > search.noise
    assert "as good as the best" in search.reason
    assert search.fit.success
    assert float(search.fit.cost) <= search.basins[0].cost * (1 + 1e-9)


@pytest.mark.parametrize(
    "model",
    [Sum(0.4, 0.5), pytest.param(Product(1.0, 0.9), marks=pytest.mark.long)],
    ids=["straight", "bent"],
)
@pytest.mark.parametrize("noise", [pytest.param(0.0, marks=pytest.mark.long), 0.003])
def test_a_flat_valley_is_one_degenerate_basin(model, noise):
    data = make_data(model, n=15, phi=np.array([0.0]), noise=noise)
    search = multi_start(xe.projected_objective(mapped(model, data), data), starts=12, refine=4)
    assert len(search.equal) == 1, search.table()
    assert search.basins[0].degenerate
    assert "flat valley" in search.reason
    assert "flat valley" in search.table()
    low, high = np.asarray(search.basins[0].extent).T
    assert np.all(high - low > 0.1)


@pytest.mark.slow
def test_a_determined_minimum_is_neither():
    model = xe.Static(xe.PowerLawRate(1.5e4, -0.3, 0.0))
    data = make_data(model, n=21)
    parameters = mapped(model, data, fixed=("D_offset",))
    search = multi_start(xe.projected_objective(parameters, data), starts=10)
    assert len(search.equal) == 1
    assert not search.degenerate
    assert abs(search.fit["alpha"].value + 0.3) < 5 * search.fit["alpha"].error


@pytest.mark.long
@pytest.mark.slow
def test_executors_end_where_one_call_does():
    objective = mirrored()
    starts = np.array([[2e4, 2e-3, 20.0], [1e4, 4e-3, 170.0], [3e4, 1e-3, -10.0]])
    solver = TrustRegion()
    one = OneCall().run(objective, starts, solver)
    together = OneCall(batch=3).run(objective, starts, solver)
    alone = OverExecutor().run(objective, starts, solver)
    with ThreadPoolExecutor(2) as pool:
        pooled = OverExecutor(pool).run(objective, starts, solver)
    for other in (together, alone, pooled):
        np.testing.assert_allclose(other.x, one.x, rtol=1e-5)
        np.testing.assert_allclose(other.cost, one.cost, rtol=1e-10)
    with pytest.raises(ConfigError, match="no `map`"):
        OverExecutor(3)  # pyright: ignore[reportArgumentType]


def test_fits_are_batched_where_an_accelerator_would_be_idle(monkeypatch):
    objective = mirrored()
    assert local_fits_for(objective, 1000) == OneCall(batch=1)
    monkeypatch.setattr(local_fits, "_platform", lambda objective: "gpu")
    assert local_fits_for(objective, 1000) == OneCall(batch=local_fits.ACCELERATED)
    assert isinstance(local_fits_for(objective, 10**7), OverExecutor)


def test_custom_starts_come_first_and_are_never_screened_out():
    objective = mirrored()
    worst = np.array([[1e3, 0.02, -79.0]])
    search = multi_start(objective, starts=8, custom=worst, screening=Screening(keep=0.01, least=2))
    assert np.array_equal(search.starts[:1], worst)
    assert len(search.starts) == 8
    assert search.decisions[1].startswith("2 of 8")
    # Two fits: the given start, and the best of the drawn ones.
    kept = Screening(keep=0.01, least=2).chosen(search.costs, 1)
    assert kept[0] == 0
    assert kept[1] == 1 + np.argmin(search.costs[1:])


def test_the_same_seed_gives_the_same_search_and_each_sampler_works():
    objective = mirrored()
    first, again = (multi_start(objective, starts=16, seed=1) for _ in range(2))
    assert first.basins == again.basins == two_minima().basins
    for sampler in (Sobol(), Halton(), LatinHypercube()):
        found = multi_start(objective, starts=8, sampler=sampler, seed=3)
        assert len(found.starts) == 8
        assert np.all(found.starts >= objective.variables.lower)
        assert np.all(found.starts <= objective.variables.upper)


def test_evaluations_are_counted_and_the_callback_can_end_it():
    seen = []
    search = multi_start(mirrored(), starts=8, callback=lambda p: seen.append(p))
    assert search.evaluations == sum(one.evaluations for one in search.spent)
    assert seen[-1].evaluations == search.evaluations
    assert search.spent[0] == ("screening", 8)


@pytest.mark.parametrize(
    ("phase", "spent"), [("screening", ["the best start"]), ("rough fits", ["rough fits"])]
)
def test_the_callback_ends_a_search_at_once(phase, spent):
    seen = []

    def stop(progress):
        seen.append(progress.phase)
        return progress.phase == phase

    ended = multi_start(mirrored(), starts=8, callback=stop)
    assert seen[-1] == phase
    assert any(f"ended by the callback after: {phase}" in text for text in ended.decisions)
    done = {one.what: one.evaluations for one in ended.spent}
    assert list(done) == ["screening", *spent, "ways between minima", "final fit"]
    assert done["ways between minima"] == 0
    assert done["final fit"] <= 2
    assert len(ended.basins) == 1
    assert not ended.basins[0].refined
    assert ended.fit.status == Status.interrupted
    assert "interrupted" in ended.reason


def test_costs_of_a_population_are_those_of_single_points():
    objective = mirrored()
    space = normalised_space(objective)
    x = space.from_unit(np.random.default_rng(0).random((5, 3)))
    costs = population_costs(objective, x)
    physical = in_physical_variables(objective)
    one = jax.jit(lambda q: physical.cost(q, physical.memo))
    np.testing.assert_allclose(costs, [float(one(jnp.asarray(q))) for q in x], rtol=1e-10)
    data = make_data(LAMINAR, t=frame_times(21, span=2.0))
    host = xe.projected_objective(objective.variables, data, driver=xe.objective.HostLoop())
    np.testing.assert_allclose(population_costs(host, x[:2]), costs[:2], rtol=1e-10)
    with pytest.raises(ModelError, match="3 variables"):
        population_costs(objective, x[:, :2])
    assert population_costs(objective, np.zeros((0, 3))).shape == (0,)
    assert np.isinf(population_costs(objective, np.full((1, 3), np.nan)))[0]


def test_costs_of_a_sample_of_pairs_are_those_of_all_within_its_noise():
    data = make_data(LAMINAR, n=101)
    objective = xe.projected_objective(mapped(LAMINAR, data, fixed=OTHERS), data)
    space = normalised_space(objective)
    x = space.from_unit(np.random.default_rng(1).random((6, 3)))
    sample = thinned(objective)
    assert sample is not None
    ratio = population_costs(sample, x) / population_costs(objective, x)
    np.testing.assert_allclose(ratio, 1.0, atol=0.15)
    assert thinned(mirrored()) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"starts": 0}, "starts = 0; give at least 1"),
        ({"starts": 10**7}, "starts = 10000000 is more than 100000"),
        ({"starts": 4, "refine": 5}, "no more than there are"),
        ({"custom": np.zeros((1, 2))}, "one row of 3 numbers"),
        ({"custom": [[1.0, 2.0, 3.0], [1.0]]}, "unequal length"),
        ({"custom": np.array([[2e6, 1e-3, 0.0]])}, "D0 = 2e\\+06, outside"),
        ({"custom": np.array([[np.nan, 1e-3, 0.0]])}, "D0 = nan, outside"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ModelError, match=message):
        multi_start(mirrored(), **settings)


def test_the_configuration_refuses_the_same_number_of_starts():
    limit = next(one.le for one in Global.model_fields["starts"].metadata if hasattr(one, "le"))
    assert limit == MOST


def test_a_strategy_refuses_numbers_of_starts_when_it_is_made():
    for given, message in (
        ({"starts": 0}, "starts = 0"),
        ({"starts": -3}, "starts = -3"),
        ({"starts": 10**7}, "more than 100000"),
        ({"starts": 2, "refine": 3}, "refine = 3 of 2 starts"),
    ):
        with pytest.raises(ModelError, match=message):
            MultiStart(**given)
    # What was never given cannot be too much.
    assert MultiStart(starts=2).settings(2)["refine"] is None
    assert len(multi_start(mirrored(), starts=2).starts) == 2


def test_screening_bounds_and_starts_that_make_no_sense():
    for keep in (0.0, 1.1, -1.0):
        with pytest.raises(ModelError, match="a number above 0, at most 1"):
            Screening(keep=keep)
    with pytest.raises(ModelError, match="least is 0"):
        Screening(least=0)
    with pytest.raises(ModelError, match="batch"):
        OneCall(batch=0)
    data = make_data(LAMINAR, n=9)
    endless = mapped(LAMINAR, data, bounds={"D0": (1.0, np.inf), "phi0": (-np.inf, np.inf)})
    with pytest.raises(ModelError, match=r"D0 in \[1, inf\], phi0 in"):
        multi_start(xe.projected_objective(endless, data))
    thin = mapped(LAMINAR, data, bounds={"phi0": (5.0, np.nextafter(5.0, 6.0))})
    with pytest.raises(ModelError, match="without volume: phi0"):
        multi_start(xe.projected_objective(thin, data))
    many = multi_start(mirrored(), starts=301, screening=Screening(keep=0.01))
    assert any("more than 300 rarely find" in text for text in many.decisions)
    without = np.array([[100.0, 0.0, -9e4, 1e-3, 0.0, 0.0, 0.0]])
    with pytest.raises(ModelError, match="no solver coordinates"):
        multi_start(xe.projected_objective(mapped(LAMINAR, data), data), custom=without)


def test_reports_read_well():
    search = two_minima()
    text = search.report()
    assert search.reason in text
    assert "evaluations" in text
    assert repr(search).startswith(f"Search: {len(search.basins)} distinct minima")
    assert "minimum 2 is as good as the best" in search.reason
    assert MultiStart(starts=4, refine=3).settings(2)["refine"] == 2


@pytest.mark.long
def test_twenty_starts_cost_few_fits():
    """In passes over all pairs, of which sampled ones are a share: a measure without a clock."""
    data = make_data(LAMINAR, n=101)
    whole = xe.projected_objective(mapped(LAMINAR, data, fixed=OTHERS), data)
    one = xe.least_squares(whole, np.array([2.1e4, 3.9e-3, 7.0])).evaluations
    sample = thinned(whole)
    assert sample is not None
    share = np.count_nonzero(np.asarray(sample.term.tiles.root_weights)) / data.n_pairs
    search = multi_start(whole, starts=20)
    seen = {"screening": share, "rough fits to a sample of the pairs": share}
    passes = sum(phase.evaluations * seen.get(phase.what, 1.0) for phase in search.spent)
    assert passes < 13 * one
