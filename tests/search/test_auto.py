"""Strategies: what they try, when they stop, and the rule that selects a method."""

import dataclasses
from functools import cache

import jax
import numpy as np
import pytest
from helpers import LAMINAR, MODELS, make_data, mapped, start_off

import xpcs_eqx as xe
from xpcs_eqx.errors import FitError, ModelError
from xpcs_eqx.search import (
    CHAIN,
    Auto,
    Axis,
    CmaEs,
    CmaPreset,
    CmaProgress,
    Local,
    MultiStart,
    SearchProgress,
    Selected,
    global_least_squares,
    noise_variance,
    normalised_space,
    scale_ratio,
    select_method,
    skip_search,
)
from xpcs_eqx.search import around as around_module
from xpcs_eqx.search import trial as trial_module

STATIC = MODELS["static"]
OTHERS = ("alpha", "D_offset", "beta", "gamma_dot_t_offset")


@cache
def objective(noise=0.01):
    data = make_data(LAMINAR, n=31, noise=noise)
    return xe.projected_objective(mapped(LAMINAR, data, fixed=OTHERS), data)


# From here a local fit ends in a mirrored minimum. What it leaves beside the best hides in a noise
# of LOUD, and is most of what is left with QUIET.
WRONG = np.array([1e6, 0.5, -30.0])
QUIET, LOUD = 0.001, 0.04
AROUND = "fits from other starts to a sample of the pairs"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "said"),
    [pytest.param(QUIET, "not trusted", marks=pytest.mark.long), (LOUD, "looks right")],
)
def test_auto_finds_the_minimum_that_a_local_fit_misses(noise, said):
    best = xe.least_squares(objective(noise))
    local = global_least_squares(objective(noise), WRONG, strategy=Local())
    assert float(local.fit.cost) > (1 + 1e-3) * float(best.cost)
    found = global_least_squares(objective(noise), WRONG)
    assert float(found.fit.cost) <= float(best.cost) * (1 + 1e-6)
    assert found.method == "a look around"
    assert said in found.decisions[0]
    assert found.evaluations == sum(one.evaluations for one in found.spent) <= 5000
    assert "evaluations" in found.report()


@pytest.mark.long
def test_what_ran_out_of_evaluations_is_brought_to_its_end():
    data = make_data(STATIC, n=41, noise=0.01)
    problem = xe.projected_objective(mapped(start_off(STATIC, 3.0), data), data)
    best = xe.least_squares(problem)
    how = {"solver": xe.TrustRegion(max_evaluations=5), "recovery": xe.Recovery(attempts=0)}
    assert not xe.least_squares(problem, **how).success
    found = global_least_squares(problem, strategy=Auto(probes=2), **how)
    assert found.fit.success
    assert float(found.fit.cost) == pytest.approx(float(best.cost), rel=1e-9)
    assert "a fit from the end of its fit to the sample" in " ".join(found.decisions)


@pytest.mark.long
def test_cma_es_follows_where_starts_do_not_agree(monkeypatch):
    pytest.importorskip("cma")
    # Points of which the best are fitted agree too soon.
    monkeypatch.setattr(around_module, "DRAWN", 1)
    best = xe.least_squares(objective(QUIET))
    unlucky = Auto(multi=MultiStart(starts=3, seed=6))
    found = global_least_squares(objective(QUIET), WRONG, strategy=unlucky)
    tried = [one.what for one in found.spent]
    assert tried[:2] == ["local fit", AROUND]
    assert tried[-2:] == ["multi-start", "CMA-ES"]
    assert any("disagrees" in text or "not confirmed" in text for text in found.decisions)
    assert found.method == "CMA-ES"
    assert float(found.fit.cost) <= float(best.cost) * (1 + 1e-6)


def test_auto_leaves_a_right_fit_alone_after_a_look_around():
    found = global_least_squares(objective(), strategy=Auto(probes=4))
    assert found.method == "local fit"
    assert any("looks right" in text for text in found.decisions)
    assert [one.what for one in found.spent] == ["local fit", AROUND]
    alone = global_least_squares(objective(), strategy=Auto(probes=0))
    assert [one.what for one in alone.spent] == ["local fit"]


def test_the_budget_is_kept_and_said(monkeypatch):
    monkeypatch.setattr(trial_module, "find_spec", lambda name: None)
    found = global_least_squares(objective(QUIET), WRONG, strategy=Auto(budget=400))
    assert found.evaluations <= 400 + 50
    assert any("the budget of 400" in text for text in found.decisions)
    with pytest.raises(ModelError, match="no room for a search"):
        Auto(budget=10)
    with pytest.raises(ModelError, match="probes"):
        Auto(probes=-1)


@pytest.mark.long
def test_a_start_without_coordinates_is_not_the_end():
    data = make_data(LAMINAR, n=31, noise=0.01)
    # The whole transport rate and phi0 are free; the rest is known.
    held = ("beta", "gamma_dot_t_offset", "gamma_dot_t0")
    whole = xe.projected_objective(mapped(LAMINAR, data, fixed=held), data)
    start = np.array([100.0, 0.0, -9e4, 0.0])
    found = global_least_squares(whole, start, strategy=MultiStart(starts=8))
    assert "no solver coordinates" in found.decisions[0]
    assert found.fit.success
    with pytest.raises(FitError, match="no fit from any start"):
        global_least_squares(whole, start, strategy=Local())


def test_noise_is_told_from_the_data():
    assert noise_variance(objective()) == pytest.approx(1e-4, rel=0.15)
    data = make_data(LAMINAR, n=21, noise=0.01)
    known = dataclasses.replace(
        data, root_weights=np.full(data.c2.shape, 100.0), absolute_sigma=True
    )
    parameters = mapped(LAMINAR, data, fixed=OTHERS)
    assert noise_variance(xe.projected_objective(parameters, known)) == 1.0
    robust = xe.two_time_objective(parameters, data, loss=xe.SoftL1(0.02), eliminate=False)
    assert np.isnan(noise_variance(robust))


def test_the_warm_start_rule():
    assert skip_search(1e-4, 1e-4, converged=True, at_bound=False).skip
    assert not skip_search(1e-4, 1e-4, converged=False, at_bound=False).skip
    assert not skip_search(1e-4, 1e-4, converged=True, at_bound=True).skip
    assert not skip_search(1.2e-4, 1e-4, converged=True, at_bound=False).skip
    unknown = skip_search(1e-4, np.nan, converged=True, at_bound=False)
    assert not unknown.skip
    assert "noise of the data is not known" in unknown.reason
    assert skip_search(0.0, 0.0, converged=True, at_bound=False).skip
    assert not skip_search(1e-4, 0.0, converged=True, at_bound=False).skip


def test_scales_select_the_method():
    space = normalised_space(objective())
    assert [axis.scale for axis in space.axes] == [0.0, 0.0, np.inf]
    chosen = select_method(space)
    assert chosen.method == "cma_es"
    assert CHAIN == ("cma_es", "multi_start", "local")
    assert "not installed" in select_method(space, cma_es_available=False).reason
    assert scale_ratio(np.array([-1.0, 1.0]), np.array([1.0, 5.0])) == 5.0
    model = xe.Static(xe.PowerLawRate(1e4, 0.0, 0.0))
    data = make_data(model, n=9)
    narrow = mapped(model, data, bounds={"D0": (9e3, 1.1e4), "D_offset": (-3e3, 3e3)})
    narrow = xe.projected_objective(narrow, data)
    assert select_method(normalised_space(narrow)).method == "cma_es"
    one = mapped(model, data, bounds={"D0": (9e3, 1.1e4)}, fixed=("alpha", "D_offset"))
    one = normalised_space(xe.projected_objective(one, data))
    assert select_method(one).method == "multi_start"


def test_axes_are_exact_at_their_ends_and_invert():
    u = np.linspace(0, 1, 11)
    for axis in (Axis(-2, 3), Axis(1e-6, 0.5, 0), Axis(-1e5, 1e5, 1e3)):
        x = axis.from_unit(u)
        assert np.all(np.diff(x) > 0)
        np.testing.assert_allclose(axis.to_unit(x), u, atol=1e-12)
        assert np.all((axis.from_unit(u) >= axis.lower) & (axis.from_unit(u) <= axis.upper))
    data = make_data(LAMINAR, n=9)
    space = normalised_space(xe.projected_objective(mapped(LAMINAR, data), data))
    assert all(0 < space.axes[i].scale < np.inf for i in (2, 5))
    with pytest.raises(ModelError, match="none of the 7 variables"):
        space.to_unit(np.zeros(3))


def test_selected_runs_what_the_rule_says():
    pytest.importorskip("cma")
    found = global_least_squares(objective(), strategy=Selected())
    assert any("suffices" in text for text in found.decisions)
    narrow = dataclasses.replace(CmaEs(), budget=300)
    far = global_least_squares(objective(QUIET), WRONG, strategy=Selected(cma=narrow))
    assert far.cma is not None
    assert "CMA-ES" in far.report()
    assert jax.tree.leaves(far)


def failing(what):
    def method(*given, **more):
        raise FitError(f"no {what} today")

    return method


def test_what_fails_falls_back_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(trial_module, "find_spec", lambda name: True)
    monkeypatch.setattr(trial_module, "cma_es", failing("CMA-ES"))
    auto = trial_module.Trial(objective(QUIET), None)
    kept = auto.local(WRONG)
    Auto()._cma_es(auto)
    assert auto.fit is kept
    assert auto.decisions[-1] == "CMA-ES: no CMA-ES today"
    # No generation fits into what is left: said, not raised.
    wide = Auto(budget=150, preset=CmaPreset(population=200))
    wide._cma_es(auto)
    assert auto.decisions[-1].startswith("no CMA-ES: ")
    monkeypatch.setattr(trial_module, "multi_start", failing("multi-start"))
    found = global_least_squares(objective(QUIET), WRONG, strategy=Selected())
    assert found.method == "local fit"
    assert float(found.fit.cost) == float(kept.cost)
    said = "; ".join(found.decisions)
    assert "multi_start: cma_es failed: it found no fit" in said
    assert said.endswith("local: multi_start failed: it found no fit")


@pytest.mark.parametrize("strategy", [MultiStart(starts=4), CmaEs(), Selected(), Auto()])
def test_a_callback_that_ends_the_local_fit_ends_the_search(strategy):
    found = global_least_squares(
        objective(QUIET), WRONG, strategy=strategy, callback=lambda state: True
    )
    assert [one.what for one in found.spent] == ["local fit"]
    assert found.fit.status == xe.Status.interrupted
    assert found.evaluations <= 2
    assert any("ended by the callback" in text for text in found.decisions)


def test_a_callback_sees_multi_start_and_cma_es_and_ends_them():
    seen = []

    def stop(state):
        seen.append(type(state).__name__)
        return not hasattr(state, "equations")

    ended = global_least_squares(objective(QUIET), WRONG, callback=stop)
    assert [one.what for one in ended.spent] == ["local fit", AROUND]
    assert seen[0] == "TrustRegionState"
    assert seen[-1] == "SearchProgress"
    pytest.importorskip("cma")
    global_least_squares(objective(QUIET), WRONG, strategy=CmaEs(), callback=stop)
    assert seen[-1] == "CmaProgress"
    assert seen.count("CmaProgress") == 1
    texts = [SearchProgress("screening", 20, 0.7).summary]
    texts.append(CmaProgress("search", 1, 3, 9, 0.2, 0.7, 27).summary)
    assert all(" evaluations, cost 0.7" in text for text in texts)


@pytest.mark.long
def test_auto_finds_the_minimum_from_anywhere():
    whole = objective(QUIET)
    best = xe.least_squares(whole)
    low, high = np.asarray(whole.variables.lower), np.asarray(whole.variables.upper)
    draws = np.random.default_rng(4).random((6, low.size))
    ends = []
    for k, start in enumerate(low + draws * (high - low)):
        found = global_least_squares(whole, start, strategy=Auto(seed=1000 * (k + 1)))
        ends.append(float(found.fit.cost) / float(best.cost) - 1)
    assert max(ends) <= 1e-6
