"""Searches of every kind of objective, what is kept of each start, and pairs counted once."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import frame_times, joint_objective, make_data, mapped

import xpcs_eqx as xe
from xpcs_eqx import fitting
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import Fit
from xpcs_eqx.objective import AbstractObjective, Huber, curve_objective
from xpcs_eqx.parameters import PlainVariables, shared_parameters
from xpcs_eqx.search import (
    Auto,
    CmaEs,
    CmaPreset,
    Local,
    MultiStart,
    Selected,
    cma_es,
    cma_search,
    global_least_squares,
    multi_start,
)
from xpcs_eqx.search.pairs import count_pairs, thinned

TRUTH = xe.Static(xe.PowerLawRate(1.5e4, -0.3, 0.0))
X = np.linspace(0.0, 4.0, 60)
SHORT = CmaPreset(generations=10, agreeing=2)


def wave(x, frequency, decay):
    return jnp.exp(-decay * x) * jnp.cos(frequency * x)


def curve(noise=0.01):
    y = np.exp(-0.3 * X) * np.cos(17.0 * X) + noise * np.random.default_rng(0).normal(size=X.size)
    bounds = (np.array([0.5, 0.0]), np.array([25.0, 2.0]))
    start = np.array([2.0, 1.0])
    return curve_objective(wave, X, y, start, bounds=bounds, names=("frequency", "decay"))


def static(n=15, **keywords):
    return make_data(TRUTH, t=frame_times(n, span=3.0), phi=np.array([0.0]), **keywords)


def joint(loss=None):
    data = [static(), static(seed=1)]
    parameters = shared_parameters(
        [TRUTH, TRUTH], [one.t for one in data], shared=("D0", "alpha"), fixed=("D_offset",)
    )
    return xe.two_time_objective(parameters, data, loss=loss)


def test_a_local_fit_of_the_curve_is_wrong():
    fit = xe.curve_fit(wave, X, np.exp(-0.3 * X) * np.cos(17.0 * X), np.array([2.0, 1.0]))
    assert abs(fit.x[0] - 17.0) > 0.5


@pytest.mark.parametrize(
    "strategy", [MultiStart(), CmaEs(preset=SHORT), Selected(), Auto(budget=2000)]
)
def test_every_strategy_finds_the_minimum_of_a_curve(strategy):
    found = global_least_squares(curve(), strategy=strategy)
    assert isinstance(found.fit, Fit)
    assert found.fit.success
    np.testing.assert_allclose(found.fit.x, [17.0, 0.3], atol=5 * found.fit.perr.max())
    assert found.evaluations > 20
    assert "frequency" in found.report() or found.search is None


def test_multi_start_and_cma_es_of_a_curve():
    search = multi_start(curve(), starts=12)
    np.testing.assert_allclose(search.fit.x, search.basins[0].values, rtol=1e-6)
    found = cma_es(curve(), preset=SHORT)
    np.testing.assert_allclose(found.fit.x, search.fit.x, rtol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("loss", [None, Huber(0.02)], ids=["linear", "huber"])
def test_several_data_sets_are_searched_together(loss):
    objective = joint(loss)
    search = multi_start(objective, starts=8)
    direct = xe.least_squares(objective)
    assert search.fit.success
    np.testing.assert_allclose(search.fit["D0"].value, direct["D0"].value, rtol=1e-3)
    assert count_pairs(objective) == direct.n_pairs
    if loss is None:
        found = global_least_squares(objective, strategy=Auto(probes=4, budget=400))
        assert tuple(found.fit.parts) == tuple(direct.parts)
        np.testing.assert_allclose(found.fit["alpha"].value, direct["alpha"].value, atol=1e-3)


class Bowl(AbstractObjective):
    """An objective that no result is made for."""

    variables: object  # pyright: ignore[reportIncompatibleVariableOverride]

    traceable = True
    start = np.zeros(1)
    names = ("x",)
    memo = None

    def evaluate(self, y, memo):
        one = jnp.ones((1, 1))
        return xe.objective.NormalEquations(0.5 * y @ y, y, one, jnp.ones(())), memo

    def cost(self, y, memo):
        return 0.5 * y @ y


def test_what_no_result_is_made_for_is_refused_in_words():
    bowl = Bowl(PlainVariables(np.array([-1.0]), np.array([1.0]), np.ones(1)))
    for search in (multi_start, cma_es, global_least_squares):
        with pytest.raises(ModelError, match=r"of type Bowl: give one of .*cma_search"):
            search(bowl)
    assert abs(cma_search(bowl, preset=SHORT).x[0]) < 1e-6


def test_least_squares_of_a_curve_is_curve_fit(caplog):
    x = np.linspace(0.0, 2.0, 9)
    y = 3.0 * np.exp(-1.5 * x) + 0.01 * np.cos(9.0 * x)

    def decay(x, rate, amplitude):
        return amplitude * jnp.exp(-rate * x)

    start = np.ones(2)
    with caplog.at_level(logging.INFO, "xpcs_eqx"):
        fit = xe.least_squares(curve_objective(decay, x, y, start, names=("rate", "amplitude")))
    # Whoever wants to see its steps asks the logger.
    told = [one.getMessage() for one in caplog.records if one.name.startswith("xpcs_eqx")]
    assert len(told) == fit.evaluations, told
    plain = xe.curve_fit(decay, x, y, start)
    np.testing.assert_array_equal(fit.x, plain.x)
    np.testing.assert_array_equal(fit.pcov, plain.pcov)
    assert fit["rate"].error == fit.perr[0] == plain["p0"].error
    assert fit.success
    assert dict(fit.parts) == {}
    with pytest.raises(ModelError, match="fit of a curve has no two-time model"):
        _ = fit.model
    with pytest.raises(ModelError, match="bound the parameter"):
        fitting.profile_interval(fit, "rate")
    leaves, structure = jax.tree.flatten(fit)
    assert repr(jax.tree.unflatten(structure, leaves)) == repr(fit)


def test_least_squares_inside_a_transformation_names_fitted():
    objective = curve()
    with pytest.raises(ModelError, match="use `fitted`"):
        jax.jit(lambda start: xe.least_squares(objective, start).x)(objective.start)


FIXED = ("D0", "alpha", "D_offset")


@pytest.mark.parametrize("strategy", [None, Local(), MultiStart(), CmaEs(), Selected()])
def test_with_nothing_free_a_search_is_one_fit(strategy):
    data = static()
    objective = xe.projected_objective(mapped(TRUTH, data, fixed=FIXED), data)
    alone = xe.least_squares(objective)
    found = global_least_squares(objective, strategy=strategy)
    assert float(found.fit.cost) == float(alone.cost)
    assert found.evaluations == alone.evaluations
    assert "nothing to search for" in found.report()
    assert strategy is None or isinstance(strategy, Local) or "nothing" in strategy.plan(objective)
    search = multi_start(objective)
    assert float(search.fit.cost) == search.basins[0].cost == search.ends.cost[0]
    assert "nothing to search for" in search.report()
    result = cma_es(objective)
    assert float(result.fit.cost) == float(alone.cost)
    assert "nothing to search for" in result.reasons[0]


def test_the_end_of_each_start_is_kept():
    data = static(noise=0.002)
    objective = xe.projected_objective(mapped(TRUTH, data, fixed=("D_offset",)), data)
    search = multi_start(objective, starts=8, custom=np.array([[1e4, 0.0]]))
    ends = search.ends
    assert ends.x.shape == search.starts.shape == (8, 2)
    assert ends.cost.shape == ends.status.shape == ends.evaluations.shape == (8,)
    fitted = ends.evaluations > 0
    assert fitted[0]
    assert 3 <= fitted.sum() < 8
    assert np.isnan(ends.x[~fitted]).all()
    assert np.isinf(ends.cost[~fitted]).all()
    np.testing.assert_array_equal(np.isfinite(ends.cost), fitted)
    best = int(np.argmin(ends.cost))
    assert ends.converged[best]
    assert best in search.basins[0].members
    np.testing.assert_allclose(ends.x[best], search.basins[0].values)
    members = {m for basin in search.basins for m in basin.members}
    assert members | set(np.flatnonzero(fitted)) == set(np.flatnonzero(fitted))
    spent = {one.what: one.evaluations for one in search.spent}
    fits = sum(n for what, n in spent.items() if "fits" in what)
    assert int(ends.evaluations.sum()) == fits


def test_too_few_starts_are_remarked_on():
    data = static()
    objective = xe.projected_objective(mapped(TRUTH, data), data)
    search = multi_start(objective, starts=2)
    assert any("2 starts for 3 variables: fewer" in text for text in search.decisions)
    assert "2 starts for 3 variables" in MultiStart(starts=2).plan(objective)
    assert "fewer" not in MultiStart(starts=3).plan(objective)


def weighted(kind):
    """Data and the pairs that count: masked, with sigma, as points, in chunks."""
    data = static(n=20)
    weights = np.ones(data.c2.shape)
    weights[:, 3, :] = weights[:, :, 3] = 0.0
    masked = xe.TwoTimeData(data.c2, data.t, data.geometry, weights, data.diagonal)
    if kind == "masked":
        return masked
    if kind == "sigma":
        return xe.TwoTimeData(data.c2, data.t, data.geometry, 100 * weights, data.diagonal, True)
    i, j = np.triu_indices(20, 1)
    points = xe.data.PooledData(
        data.c2[0, i, j],
        i,
        j,
        np.zeros(i.size, int),
        data.t,
        data.geometry,
        root_weights=weights[0, i, j],
    )
    return points


@pytest.mark.parametrize("kind", ["masked", "sigma", "points"])
@pytest.mark.parametrize("make", [xe.projected_objective, joint_objective])
def test_each_pair_is_counted_once(kind, make):
    data = weighted(kind)
    objective = make(mapped(TRUTH, data), data)
    assert count_pairs(objective) == data.n_pairs == 19 * 18 // 2


def test_the_noise_of_a_search_knows_the_pairs_of_a_mask():
    """Twice the largest cost that noise makes: 9 times the variance, whatever is masked."""
    data = weighted("masked")
    objective = xe.projected_objective(mapped(TRUTH, data, fixed=("D_offset",)), data)
    search = multi_start(objective, starts=6)
    wanted = 9 * 2 * float(search.fit.cost) / data.n_pairs
    np.testing.assert_allclose(search.noise, wanted, rtol=1e-3)


def test_pairs_of_angles_without_weight_do_not_count():
    data = make_data(TRUTH, n=12)
    weights = np.array([1.0, 0.0, 2.0])
    objective = xe.projected_objective(mapped(TRUTH, data), data, angle_weights=weights)
    assert count_pairs(objective) == 2 * 12 * 11 // 2


@pytest.mark.long
def test_screening_sees_all_pairs_on_request():
    data = make_data(TRUTH, t=frame_times(90, span=3.0), phi=np.array([0.0]))
    objective = xe.projected_objective(mapped(TRUTH, data, fixed=("D_offset",)), data)
    assert thinned(objective) is not None
    search = multi_start(objective, starts=4, thin=None)
    assert not any("sample" in one.what for one in search.spent)
    whole = xe.search.population_costs(objective, search.starts)
    np.testing.assert_array_equal(search.costs, whole)
    assert any("sample" in one.what for one in multi_start(objective, starts=4, thin=500).spent)
    assert MultiStart(thin=None).settings(4)["thin"] is None
