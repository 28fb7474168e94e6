"""Each phase of the hybrid optimiser alone: decisions, state machines, steps."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from xpcs_eqx.errors import ModelError
from xpcs_eqx.hybrid import (
    Automatic,
    Backtracking,
    ByBounds,
    ByStart,
    ConjugateStep,
    CostGuard,
    Defences,
    DenseStep,
    Finalise,
    FirstStep,
    FullStep,
    GaussNewton,
    HybridOptimiser,
    MaxIterations,
    NoNormalisation,
    Plateau,
    Progress,
    SmallGradient,
    StepClip,
    StrongWolfe,
    Survey,
    TrustRadius,
    VectorModel,
    WarmStart,
    WarmUp,
    WarmUpEnd,
    as_source,
    covariance_columns,
    curve_problem,
    no_defences,
)
from xpcs_eqx.hybrid.gauss_newton import gradient_measure
from xpcs_eqx.optimize import Status

X = np.linspace(0, 5, 400)


def decay(x, amplitude, rate, offset):
    return amplitude * jnp.exp(-rate * x) + offset


Y = np.asarray(decay(jnp.asarray(X), 2.5, 1.3, 0.5)) + np.random.default_rng(0).normal(0, 0.05, 400)
SOURCE = as_source((X, Y), chunk=150)


def problem(start=(2.0, 1.0, 0.4), bounds=None, model=decay):
    return curve_problem(SOURCE, model, start, bounds=bounds)


# Phase 0


BOUNDS = ([0.0, 0.1, -1.0], [10.0, 5.0, 3.0])
KINDS = {
    "bounds": (ByBounds(), BOUNDS),
    "start": (ByStart(), None),
    "start in bounds": (ByStart(), BOUNDS),
    "none": (NoNormalisation(), BOUNDS),
    "automatic": (Automatic(), ([0.0, -np.inf, 0.0], [10.0, 5.0, np.inf])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_normalised_problem_is_the_same_problem(kind):
    normalisation, bounds = KINDS[kind]
    plain = problem(start=(2.0, 1.0, 0.0), bounds=bounds)
    scaled = normalisation.normalise(plain)
    np.testing.assert_allclose(scaled.original(scaled.start), plain.start, rtol=1e-14)
    np.testing.assert_array_equal(scaled.original(scaled.lower), plain.lower)
    np.testing.assert_array_equal(scaled.original(scaled.upper), plain.upper)
    z = scaled.start + 0.01
    y, d = scaled.original(z), scaled.scale
    (cost, gradient), (cost_y, gradient_y) = scaled.cost_and_gradient(z), plain.cost_and_gradient(y)
    assert cost == cost_y
    np.testing.assert_allclose(gradient, gradient_y * d, rtol=1e-13)
    equations, plain_equations = scaled.equations(z), plain.equations(y)
    np.testing.assert_allclose(equations.gradient, gradient, rtol=1e-9)
    np.testing.assert_allclose(
        equations.hessian, plain_equations.hessian * np.outer(d, d), rtol=1e-13
    )
    v = np.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(scaled.hessian_vector(z, v), equations.hessian @ v, rtol=1e-10)
    np.testing.assert_allclose(scaled.diagonal(z), np.diagonal(equations.hessian), rtol=1e-10)


def test_what_the_units_are():
    bounded = ByBounds().normalise(problem(bounds=BOUNDS))
    np.testing.assert_allclose((bounded.lower, bounded.upper), ([0] * 3, [1] * 3))
    np.testing.assert_allclose(ByStart().normalise(problem((-2.0, 1, 0))).start, [-1, 1, 0])
    mixed = Automatic().normalise(problem(bounds=([0, -np.inf, -np.inf], [10, np.inf, np.inf])))
    np.testing.assert_allclose(mixed.scale, [10, 1.0, 0.4])
    with pytest.raises(ModelError, match="p1 has no finite bounds"):
        ByBounds().normalise(problem(bounds=([0, -np.inf, 0], [10, 5, 1])))


# Phase 1: searches, criteria, defences


def search(line, function, slope, first, longest=np.inf):
    state = line.start(function(0.0), slope(0.0), first, longest)
    tried = []
    while not state.done:
        tried.append(float(state.step))
        state = line.update(state, function(state.step), slope(state.step))
    return state, tried


def quartic(a):
    return (a - 1.0) ** 4 + 0.5 * (a - 1.0) ** 2


def quartic_slope(a):
    return 4 * (a - 1.0) ** 3 + (a - 1.0)


@pytest.mark.parametrize("first", [1e-3, 0.5, 1.0, 30.0])
def test_strong_wolfe(first):
    line = StrongWolfe(curvature=0.1)
    state, _ = search(line, quartic, quartic_slope, first)
    step, slope = float(state.step), quartic_slope(0.0)
    assert state.accepted
    assert quartic(step) <= quartic(0.0) + line.decrease * step * slope
    assert abs(quartic_slope(step)) <= -line.curvature * slope


def test_searches_back_off_from_what_has_no_value():
    def wall(a):
        return quartic(a) if a < 0.3 else np.nan

    for line in (StrongWolfe(), Backtracking(), FullStep()):
        state, tried = search(line, wall, quartic_slope, 1.0)
        assert state.accepted
        assert 0 < state.step < 0.3
        assert tried[0] == 1.0
    state, tried = search(FullStep(), lambda a: 1 + a, lambda a: -1.0, 5.0)
    assert (float(state.step), tried) == (5.0, [5.0])


def test_searches_end():
    for line in (StrongWolfe(tries=7), Backtracking(tries=7)):
        # The slope lies: the function only grows.
        state, tried = search(line, lambda a: 1.0 + a, lambda a: -1.0, 1.0)
        assert not state.accepted
        assert len(tried) == 7
    state, tried = search(StrongWolfe(), lambda a: -a, lambda a: -1.0, 0.1, longest=0.35)
    assert state.accepted
    assert max(tried) == float(state.step) == 0.35


def test_criteria():
    flat = Progress(7, np.array([9.0, 5, 1, 1, 1, 1, 1, 1]), 0.5)
    falling = Progress(7, np.geomspace(1, 1e-3, 8), 0.5)
    assert Plateau().met(flat)
    assert not Plateau().met(falling)
    assert not Plateau(window=10).met(flat)
    assert SmallGradient(0.5).met(flat)
    assert not SmallGradient(0.4).met(flat)
    assert MaxIterations(7).met(flat)
    assert not MaxIterations(8).met(flat)


def test_decisions_of_the_defences():
    assert WarmStart().skip(0.0099)
    assert not WarmStart().skip(0.01)
    assert [FirstStep().size(r) for r in (0.09, 0.1, 0.99, 1.0)] == [1.0, 0.5, 0.5, 0.1]
    assert CostGuard().exceeded(1.06, 1.0)
    assert not CostGuard().exceeded(1.05, 1.0)
    assert StepClip().longest(2.0) == pytest.approx(0.05)
    off = no_defences()
    assert not off.warm_start.skip(0.0)
    assert not off.guard.exceeded(1e300, 1e-300)
    assert off.clip.longest(1e6) == np.inf
    assert {off.first_step.size(r) for r in (0.0, 0.5, 5.0)} == {1.0}


@pytest.mark.parametrize("line", [StrongWolfe(), Backtracking()], ids=["wolfe", "armijo"])
def test_warm_up_alone(line):
    scaled = ByStart().normalise(problem((1.0, 0.4, -1.0)))
    survey = scaled.survey()
    passes = []
    state = WarmUp(search=line).run(scaled, survey, scaled.start, lambda s: passes.append(s.trial))
    x = scaled.original(state.best)
    np.testing.assert_allclose(x, HybridOptimiser().fit((X, Y), decay, x).x, rtol=1e-3)
    residual = np.asarray(decay(X, *x)) - Y
    np.testing.assert_allclose(state.best_loss, np.mean(residual**2) / np.var(Y), rtol=1e-9)
    assert np.all(np.diff(state.history) < 0)
    assert len(passes) == int(state.evaluations)
    assert np.all(state.losses[: int(state.iteration)] >= state.best_loss)


def test_steps_are_clipped():
    scaled = ByStart().normalise(problem((1.0, 0.4, -1.0)))
    warm_up = WarmUp(
        defences=Defences(clip=StepClip(0.03)), minimum=8, criteria=(MaxIterations(8),)
    )
    points = []
    state = warm_up.run(scaled, scaled.survey(), scaled.start, lambda s: points.append(s.z))
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert lengths.max() <= 0.03 * (1 + 1e-12)
    assert int(state.clipped) > 0
    assert int(state.iteration) == 8
    assert warm_up.reason(state) == "done: the iterations are used up"


def test_minimum_of_iterations():
    scaled = ByStart().normalise(problem((1.0, 0.4, -1.0)))
    survey = scaled.survey()
    eager = WarmUp(minimum=12, criteria=(Plateau(relative=0.9), MaxIterations(500)))
    state = eager.run(scaled, survey, scaled.start)
    assert int(state.iteration) == 12
    assert eager.reason(state) == "done: the loss no longer falls"


def test_warm_start_skips_the_warm_up():
    near = HybridOptimiser().fit((X, Y), decay, [2.4, 1.25, 0.5])
    loss = np.mean((np.asarray(decay(X, 2.4, 1.25, 0.5)) - Y) ** 2) / np.var(Y)
    threshold = WarmStart(1.01 * loss)
    skipping = HybridOptimiser(warm_up=WarmUp(defences=Defences(warm_start=threshold)))
    skipped = skipping.fit((X, Y), decay, [2.4, 1.25, 0.5])
    assert dict(skipped.iterations)["warm-up"] == 0
    assert dict(skipped.evaluations)["warm-up"] == 1
    assert skipped.warm_up.startswith("skipped")
    assert skipped.telemetry.fired("warm start") == 1
    assert skipped.success
    np.testing.assert_allclose(skipped.x, near.x, rtol=1e-7)


def test_a_diverging_warm_up_is_stopped_and_the_best_point_kept():
    scaled = NoNormalisation().normalise(problem((2.0, 1.0, 0.4)))
    survey = scaled.survey()
    # A long first step without a search overshoots.
    wild = Defences(
        warm_start=WarmStart(0.0), first_step=FirstStep(40.0, 40.0, 40.0), clip=StepClip(np.inf)
    )
    warm_up = WarmUp(search=FullStep(), defences=wild)
    seen = []
    state = warm_up.run(scaled, survey, scaled.start, lambda s: seen.append(float(s.loss)))
    assert state.end is WarmUpEnd.guard
    assert float(state.loss) > 1.05 * float(state.first_loss)
    assert float(state.best_loss) == min(seen) < float(state.loss)
    cost, _ = scaled.cost_and_gradient(state.best)
    np.testing.assert_allclose(2 * cost / survey.count / survey.variance, state.best_loss)
    whole = HybridOptimiser(normalisation=NoNormalisation(), warm_up=warm_up)
    found = whole.fit((X, Y), decay, [2.0, 1.0, 0.4])
    assert found.telemetry.fired("cost guard") == 1
    assert found.success


def test_warm_up_in_a_box():
    scaled = ByBounds().normalise(problem((2.0, 1.0, 0.9), ([0, 0.1, 0.6], [10, 5, 3])))
    state = WarmUp().run(scaled, scaled.survey(), scaled.start)
    x = scaled.original(state.best)
    assert x[2] == 0.6
    assert state.held.tolist() == [False, False, True]
    assert float(state.measure) < 1e-4


def test_what_is_not_finite_is_caught():
    def shaped(x, rate):
        return jnp.where(rate < 2.0, jnp.exp(-rate * x), jnp.nan)

    scaled = NoNormalisation().normalise(
        curve_problem(as_source((X, np.exp(-1.9 * X))), shaped, [0.2])
    )
    far = Defences(WarmStart(0.0), FirstStep(30.0, 30.0, 30.0), clip=StepClip(np.inf))
    warm_up = WarmUp(defences=far)
    state = warm_up.run(scaled, scaled.survey(), scaled.start)
    assert int(state.caught[2]) > 0
    np.testing.assert_allclose(state.best, 1.9, rtol=1e-3)
    start = warm_up.update(scaled, warm_up.start(scaled.start), 1.0, np.array([np.nan]))
    assert start.end is WarmUpEnd.non_finite
    assert start.caught.tolist() == [1, 0, 0]


# Phase 2


def test_trust_radius():
    rule = TrustRadius()
    assert rule.update(1.0, 1.0, 0.2, True) == 0.5
    assert rule.update(1.0, 0.1, np.nan, False) == 0.05
    assert rule.update(1.0, 1.0, 0.8, True) == 2.0
    assert rule.update(1.0, 0.5, 0.8, False) == 1.0
    assert rule.update(800.0, 800.0, 0.9, True) == 1e3
    assert rule.collapsed(0.9e-8)
    assert not rule.collapsed(1e-8)


def test_gauss_newton_alone():
    scaled = ByStart().normalise(problem())
    survey = scaled.survey()
    state = GaussNewton().run(scaled, survey, scaled.start)
    assert Status(int(state.status)).converged
    assert gradient_measure(scaled, state.z, state.local) <= 1e-8
    used = int(state.evaluations)
    accepted = state.history.cost[:used][state.history.accepted[:used]]
    assert np.all(np.diff(accepted) < 0)
    assert float(state.local.cost) == accepted[-1]
    final = Finalise()(scaled, state.z, state.local, survey)
    equations = problem().equations(final.x)
    np.testing.assert_allclose(final.hessian, equations.hessian, rtol=1e-10)
    covariance = np.linalg.inv(equations.hessian) * 2 * equations.cost / (400 - 3)
    np.testing.assert_allclose(final.pcov, covariance, rtol=1e-7)


def test_iterations_used_up_are_no_success():
    found = HybridOptimiser(
        warm_up=WarmUp(minimum=1, criteria=(MaxIterations(1),)),
        gauss_newton=GaussNewton(max_iterations=2),
    ).fit((X, Y), decay, [0.5, 0.1, 0.0])
    assert found.status is Status.max_evaluations
    assert not found.success
    residual = np.asarray(decay(X, *found.x)) - Y
    np.testing.assert_allclose(found.fun, 0.5 * residual @ residual, rtol=1e-12)


def advance(newton, scaled, state, cost=None):
    """One round, with the cost found replaced where one is given."""
    state = newton.propose(scaled, state)
    found = newton.evaluate(scaled, state)
    if cost is not None:
        found = type(found)(np.asarray(cost), found.gradient, found.diagonal, found.hessian)
    return newton.update(scaled, state, found)


def test_collapse_with_a_large_gradient_resets_the_radius():
    scaled = ByStart().normalise(problem())
    newton = GaussNewton(radius=TrustRadius(start=1e-3, smallest=2e-4))
    state = newton.start(scaled.start, scaled.survey())
    state = newton.update(scaled, state, newton.evaluate(scaled, state))
    state = advance(newton, scaled, state)
    assert int(state.accepted) == 1
    while not int(state.resets):
        assert Status(int(state.status)) is Status.running
        state = advance(newton, scaled, state, np.inf)
    assert float(state.radius) == 1e-3
    # Nothing was accepted since: the same steps would only fail again.
    while Status(int(state.status)) is Status.running:
        state = advance(newton, scaled, state, np.inf)
    assert Status(int(state.status)) is Status.stalled
    assert int(state.resets) == 1


def test_conjugate_and_dense_steps_agree():
    scaled = ByStart().normalise(problem())
    z = scaled.start
    conjugate, dense = ConjugateStep(forcing=1e-12), DenseStep()
    steps = [
        step.solve(scaled, z, step.evaluate(scaled, z, np.inf), 0.0, 1e3)
        for step in (conjugate, dense)
    ]
    closeness = gradient_measure(scaled, z, dense.evaluate(scaled, z, np.inf))
    assert closeness > 1e-3
    np.testing.assert_allclose(steps[0].change, steps[1].change, rtol=1e-6)
    np.testing.assert_allclose(steps[0].predicted, steps[1].predicted, rtol=1e-8)
    short = conjugate.solve(scaled, z, conjugate.evaluate(scaled, z, np.inf), 0.0, 1e-3)
    assert short.at_boundary
    assert short.predicted > 0
    np.testing.assert_allclose(short.length, 1e-3, rtol=1e-9)


def test_matrix_free_in_a_box():
    bounds = ([0.0, 0.1, 0.6], [10.0, 5.0, 3.0])
    by_products = HybridOptimiser(matrix_free_above=1).fit((X, Y), decay, [2, 1, 0.9], bounds)
    by_matrix = HybridOptimiser().fit((X, Y), decay, [2, 1, 0.9], bounds)
    assert by_products.success
    np.testing.assert_allclose(by_products.x, by_matrix.x, rtol=1e-6)
    assert by_products.pcov is None
    assert by_products.perr is None
    columns = covariance_columns(
        problem(bounds=bounds, start=(2, 1, 0.9)),
        by_products.x,
        (1, 2),
        by_products.residual_variance,
    )
    np.testing.assert_allclose(columns, by_matrix.pcov[:, 1:], rtol=1e-5, atol=1e-20)


KNOTS, POINTS = 5000, 20_000


def knots(x, heights):
    """exp of a line through heights at equidistant knots in [0, 1]."""
    place = x * (KNOTS - 1)
    left = jnp.clip(place.astype(int), 0, KNOTS - 2)
    share = place - left
    return jnp.exp(0.3 * ((1 - share) * heights[left] + share * heights[left + 1]))


@pytest.mark.slow
def test_five_thousand_parameters():
    random = np.random.default_rng(0)
    x = random.uniform(0, 1, POINTS)
    truth = np.sin(6 * np.linspace(0, 1, KNOTS)) + 1.2
    y = np.asarray(knots(jnp.asarray(x), jnp.asarray(truth))) + random.normal(0, 0.01, POINTS)
    short = WarmUp(minimum=20, criteria=(MaxIterations(20),))
    found = HybridOptimiser(warm_up=short).fit((x, y), VectorModel(knots), np.full(KNOTS, 1.0))
    print(found.timings, found.iterations)
    assert found.success
    # The same by sparse normal equations, formed here.
    place = x * (KNOTS - 1)
    left = np.clip(place.astype(int), 0, KNOTS - 2)
    share = place - left
    rows = np.repeat(np.arange(POINTS), 2)
    columns = np.stack([left, left + 1], 1).ravel()
    weights = np.stack([1 - share, share], 1).ravel()
    basis = scipy.sparse.csr_matrix((weights, (rows, columns)), (POINTS, KNOTS))
    heights = found.x.copy()
    for _ in range(5):
        value = np.exp(0.3 * (basis @ heights))
        jacobian = scipy.sparse.diags(0.3 * value) @ basis
        normal = (jacobian.T @ jacobian + 1e-12 * scipy.sparse.eye(KNOTS)).tocsc()
        heights = heights - scipy.sparse.linalg.spsolve(normal, jacobian.T @ (value - y))
    wanted = 0.5 * np.sum((np.exp(0.3 * (basis @ heights)) - y) ** 2)
    np.testing.assert_allclose(found.fun, wanted, rtol=1e-9)


def test_survey():
    sigma = 0.1 + 0.2 * X
    survey = curve_problem(as_source((X, 1e6 + Y, sigma), chunk=77), decay, [1.0, 1, 1]).survey()
    assert isinstance(survey, Survey)
    weight = sigma**-2
    mean = np.average(Y, weights=weight)
    assert survey.count == 400
    np.testing.assert_allclose(survey.variance, np.sum(weight * (Y - mean) ** 2) / 400, rtol=1e-8)
