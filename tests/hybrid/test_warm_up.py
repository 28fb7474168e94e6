"""The warm-up alone: units, line searches, reasons to end, defences."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, make_data, mapped, start_off

from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import curve_fit, least_squares
from xpcs_eqx.hybrid import HybridOptimiser, as_source, streamed_objective
from xpcs_eqx.objective import curve_objective, projected_objective
from xpcs_eqx.optimize import (
    Status,
    WarmUp,
    WarmUpEnd,
    as_given,
    automatic,
    backtracking,
    by_bounds,
    by_start,
    full_step,
    no_defences,
    zoom,
)

X = np.linspace(0, 5, 400)
FAR = np.array([1.0, 0.4, -1.0])


def decay(x, amplitude, rate, offset):
    return amplitude * jnp.exp(-rate * x) + offset


Y = np.asarray(decay(jnp.asarray(X), 2.5, 1.3, 0.5)) + np.random.default_rng(0).normal(0, 0.05, 400)
SOURCE = as_source((X, Y), chunk=150)
# Long enough to get to the minimum.
LONG = WarmUp(plateau=1e-12, plateau_close=1e-12, window=5, gradient=1e-6)


def problem(start=(2.0, 1.0, 0.4), bounds=None, model=decay):
    return streamed_objective(SOURCE, model, np.array(start), bounds=bounds)


def run(warm_up, objective, x=None, watch=lambda state: None):
    state = warm_up.begin(objective, np.asarray(objective.start if x is None else x))
    advance = warm_up.machine(objective)
    while state.running:
        state = advance(state)
        watch(state)
    return state


def test_what_the_units_are():
    lower, upper = np.array([0.0, -np.inf, -np.inf]), np.array([10.0, np.inf, 5.0])
    start, names = np.array([-2.0, 1.0, 0.0]), ("p0", "p1", "p2")
    np.testing.assert_array_equal(by_start(lower, upper, start, names), [2, 1, 1])
    np.testing.assert_array_equal(automatic(lower, upper, start, names), [2, 1, 1])
    np.testing.assert_array_equal(automatic(lower, lower + 0.5, start, names), [0.5, 1, 1])
    np.testing.assert_array_equal(as_given(lower, upper, start, names), [1, 1, 1])
    box = np.zeros(3), np.array([10.0, 4.0, 1.0])
    np.testing.assert_array_equal(by_bounds(*box, start, names), [10, 4, 1])
    with pytest.raises(ModelError, match="p1 has no finite bounds"):
        by_bounds(lower, upper, start, names)


def test_the_gradient_is_that_of_the_units():
    bounds = (np.full(3, -10.0), np.array([10.0, 30.0, 90.0]))
    for units in (by_bounds, by_start, as_given):
        objective = problem(FAR, bounds)
        state = run(WarmUp(units=units, max_iterations=0), objective)
        _, gradient = objective.cost_and_gradient(objective.start, None)
        scale = units(*bounds, FAR, objective.names) / objective.spread()
        np.testing.assert_allclose(state.gradient, scale * gradient, rtol=1e-12)
        assert state.end is WarmUpEnd.iterations


@pytest.mark.parametrize("search", [zoom, backtracking], ids=["zoom", "backtracking"])
def test_it_arrives(search):
    objective = problem(FAR)
    states = []
    state = run(dataclasses.replace(LONG, search=search), objective, watch=states.append)
    np.testing.assert_allclose(state.best, curve_fit(decay, X, Y, FAR).x, rtol=1e-3)
    residual = np.asarray(decay(X, *state.best)) - Y
    np.testing.assert_allclose(state.best_loss, np.mean(residual**2) / np.var(Y), rtol=1e-9)
    assert np.all(np.diff(state.losses) < 0)
    # A state after the start, after each iteration, and perhaps one for the search that failed.
    assert len(states) - int(state.iteration) in (1, 2)
    assert [int(s.evaluations) for s in states] == sorted(int(s.evaluations) for s in states)


def test_passes_are_those_that_are_made():
    passes = []

    def counted():
        passes.append(1)
        return iter([(X, Y)])

    objective = streamed_objective(counted, decay, FAR)
    passes.clear()
    state = run(WarmUp(), objective)
    assert len(passes) == int(state.evaluations)


def test_arrays_and_maps_alike():
    streamed = run(LONG, problem(FAR))
    compiled = run(LONG, curve_objective(decay, X, Y, FAR))
    np.testing.assert_allclose(compiled.best, streamed.best, rtol=1e-6)
    data = make_data(LAMINAR, n=15, noise=0.003)
    objective = projected_objective(mapped(start_off(LAMINAR, 1.3), data), data)
    state = run(WarmUp(plateau=1e-3, window=3), objective)
    assert float(state.best_loss) < 0.5 * float(state.first_loss)


@pytest.mark.parametrize("fit", [curve_fit, least_squares], ids=["curve_fit", "least_squares"])
def test_it_improves_the_start_of_a_fit(fit):
    alone = curve_fit(decay, X, Y, FAR)
    if fit is curve_fit:
        found = curve_fit(decay, X, Y, FAR, warm_up=WarmUp())
    else:
        found = least_squares(problem(FAR), warm_up=WarmUp())
    assert found.success
    np.testing.assert_allclose(found.x, alone.x, rtol=1e-7)
    assert found.warm_up.iteration > 0
    assert found.evaluations == len(found.history.cost) + int(found.warm_up.evaluations)
    assert found.history.cost[0] < alone.history.cost[0]
    assert alone.warm_up is None


def test_steps_are_clipped():
    points = []
    warm_up = WarmUp(clip=0.03, max_iterations=8)
    state = run(warm_up, problem(FAR), watch=lambda s: points.append(s.x / s.unit))
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert lengths.max() <= 0.03 * (1 + 1e-12)
    assert int(state.clipped) > 0
    assert int(state.iteration) == 8
    assert state.end is WarmUpEnd.iterations
    assert state.end.message == "done: the iterations are used up"


def test_reasons_to_end():
    slow = WarmUp(plateau=0.9, plateau_close=0.9, clip=np.inf)
    early = run(slow, problem(FAR))
    late = run(dataclasses.replace(slow, minimum=12), problem(FAR))
    assert (early.end, late.end) == (WarmUpEnd.plateau, WarmUpEnd.plateau)
    assert int(early.iteration) < int(late.iteration) == 12
    # What fell over a window counts, not what the last iteration did.
    assert run(WarmUp(plateau=0.9, window=6), problem(FAR)).iteration >= 6
    # Clipped steps say nothing of what longer ones would do.
    clipped = run(WarmUp(plateau=1.0, plateau_close=1.0), problem(FAR))
    assert clipped.history.clipped[: int(clipped.iteration) - 1].all()
    flat = run(WarmUp(plateau=0.0, plateau_close=0.0, gradient=0.05), problem(FAR))
    assert flat.end is WarmUpEnd.gradient
    assert float(flat.measure) <= 0.05


def test_the_first_step_goes_by_the_loss():
    assert [WarmUp().first_step(r) for r in (0.09, 0.1, 0.99, 1.0)] == [1.0, 0.5, 0.5, 0.1]
    assert {no_defences().first_step(r) for r in (0.0, 0.5, 5.0)} == {1.0}


def test_a_warm_start_skips_it():
    loss = np.mean((np.asarray(decay(X, 2.4, 1.25, 0.5)) - Y) ** 2) / np.var(Y)
    for factor, end in ((0.99, WarmUpEnd.plateau), (1.01, WarmUpEnd.skipped)):
        skipping = HybridOptimiser(warm_up=WarmUp(warm_start=factor * loss, plateau_close=1.0))
        found = skipping.fit((X, Y), decay, [2.4, 1.25, 0.5])
        assert found.success
        assert found.warm_up.end is end
        assert found.telemetry.fired("warm start") == (end is WarmUpEnd.skipped)
    assert int(found.warm_up.iteration) == 0
    assert int(found.warm_up.evaluations) == 1


def test_a_diverging_warm_up_is_stopped_and_the_best_point_kept():
    # A long first step without a search overshoots.
    wild = WarmUp(
        search=full_step,
        units=as_given,
        warm_start=0.0,
        refinement=40.0,
        careful=40.0,
        exploration=40.0,
        clip=np.inf,
    )
    seen = []
    objective = problem((2.0, 1.0, 0.4))
    state = run(wild, objective, watch=lambda s: seen.append(float(s.loss)))
    assert state.end is WarmUpEnd.guard
    assert float(state.loss) > 1.05 * float(state.first_loss)
    assert float(state.best_loss) == min(seen) < float(state.loss)
    cost, _ = objective.cost_and_gradient(jnp.asarray(state.best), None)
    np.testing.assert_allclose(cost / objective.spread(), state.best_loss)
    found = HybridOptimiser(warm_up=wild).fit((X, Y), decay, [2.0, 1.0, 0.4])
    assert found.telemetry.fired("cost guard") == 1
    assert found.success


def test_in_a_box():
    state = run(LONG, problem((2.0, 1.0, 0.9), ([0, 0.1, 0.6], [10, 5, 3])))
    assert state.best[2] == 0.6
    assert state.held.tolist() == [False, False, True]
    assert float(state.measure) < 1e-4


def test_what_is_not_finite_is_caught():
    def shaped(x, rate):
        return jnp.where(rate < 2.0, jnp.exp(-rate * x), jnp.nan)

    objective = streamed_objective((X, np.exp(-1.9 * X)), shaped, np.array([0.2]))
    for search in (zoom, backtracking, full_step):
        far = dataclasses.replace(
            no_defences(LONG), refinement=30.0, careful=30.0, exploration=30.0, search=search
        )
        state = run(dataclasses.replace(far, guard=1.05, units=as_given), objective)
        assert int(state.caught[0]) > 0
        assert state.telemetry.fired("finite loss") == int(state.caught[0])
        assert float(state.best_loss) < float(state.first_loss)
    nowhere = run(WarmUp(), objective, np.array([3.0]))
    assert nowhere.end is WarmUpEnd.non_finite
    assert nowhere.caught.tolist() == [1, 0]


def test_evaluations_used_up_are_no_success():
    short = HybridOptimiser(warm_up=WarmUp(max_iterations=1), max_evaluations=2)
    found = short.fit((X, Y), decay, [0.5, 0.1, 0.0])
    assert found.status is Status.max_evaluations
    assert not found.success
    residual = np.asarray(decay(X, *found.x)) - Y
    np.testing.assert_allclose(found.fun, 0.5 * residual @ residual, rtol=1e-12)


def test_survey():
    sigma = 0.1 + 0.2 * X
    source = as_source((X, 1e6 + Y, sigma), chunk=77)
    curve = streamed_objective(source, decay, [1.0, 1, 1])
    survey = curve.points.survey(curve.model)
    weight = sigma**-2
    mean = np.average(Y, weights=weight)
    assert survey.count == 400
    np.testing.assert_allclose(survey.spread, 0.5 * np.sum(weight * (Y - mean) ** 2), rtol=1e-8)
