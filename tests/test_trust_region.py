"""The bounded trust region against SciPy and Optimistix, and the promises of its state machine."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import DOUBLE, LAMINAR, LOSSES, Stretched, make_data, mapped, start_off, values_of
from scipy.optimize import least_squares as scipy_least_squares

from xpcs_eqx.errors import CovarianceWarning, FitError, ModelError
from xpcs_eqx.fitting import curve_fit, least_squares
from xpcs_eqx.objective import curve_objective, projected_objective, residual, two_time_objective
from xpcs_eqx.optimize import (
    JacobianMetric,
    NaturalMetric,
    Recovery,
    Status,
    TrustRegion,
    TrustRegionMinimiser,
    dogleg,
    gauss_newton,
    iterate_compiled,
    iterate_host,
    value_and_equations,
)
from xpcs_eqx.parameters import Log, unbounded, with_parameters
from xpcs_eqx.physics import AbstractCorrelation, Features, parameter

TRUTH = Stretched(tau=2.0, stretch=0.8)
START = Stretched(tau=2.8, stretch=1.1)


@pytest.fixture(scope="module")
def data():
    return make_data(TRUTH, n=24, noise=0.01)


@pytest.fixture(scope="module")
def parameters(data):
    return mapped(START, data)


@pytest.fixture(scope="module")
def joint(data, parameters):
    return two_time_objective(parameters, data, eliminate=False)


def errors_of(hessian, cost, n_points):
    return np.sqrt(np.diagonal(np.linalg.inv(hessian)) * 2 * float(cost) / n_points)


def physical(objective, state):
    return np.asarray(objective.variables.to_physical(state.y))


def scipy_optimum(objective, x0, **keywords):
    function = eqx.filter_jit(residual)
    jacobian = eqx.filter_jit(jax.jacfwd(residual, argnums=1))
    bounds = tuple(np.asarray(b) for b in (objective.variables.lower, objective.variables.upper))
    # The models here are their own coordinates. A start on a bound SciPy moves inside.
    return scipy_least_squares(
        lambda x: np.asarray(function(objective, jnp.asarray(x))),
        x0,
        jac=lambda x: np.asarray(jacobian(objective, jnp.asarray(x))),
        bounds=bounds,
        method="trf",
        x_scale="jac",
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
        **keywords,
    )


@pytest.mark.parametrize("name", LOSSES, ids=str)
def test_same_optimum_as_scipy_with_every_loss(data, parameters, name):
    loss = LOSSES[name]
    objective = two_time_objective(parameters, data, loss=loss, eliminate=False)
    state = iterate_host(TrustRegion(), objective, objective.start)
    assert Status(int(state.status)).converged
    f_scale = 1.0 if name == "linear" else float(loss.scale)
    peer = scipy_optimum(objective, np.asarray(objective.start), loss=name, f_scale=f_scale)
    np.testing.assert_allclose(state.equations.cost, peer.cost, rtol=1e-9)
    errors = errors_of(state.equations.hessian, state.equations.cost, data.n_pairs)
    np.testing.assert_allclose(
        (physical(objective, state) - peer.x) / errors, 0, atol=DOUBLE.optimum
    )


@pytest.mark.parametrize(
    ("bounds", "start"),
    [
        ({"tau": (2.3, 9.0)}, {}),  # active at the optimum
        ({"tau": (2.3, 9.0)}, {"tau": 2.3}),  # and at the start
        ({"stretch": (0.2, 0.7), "tau": (0.5, 50.0)}, {"stretch": 0.7, "tau": 50.0}),
        ({"tau": (1.0, 3.0), "stretch": (0.5, 1.5)}, {"tau": 1.0, "stretch": 1.5}),  # left again
        ({"tau": (2.5, 9.0), "stretch": (1.0, 1.5)}, {"tau": 9.0, "stretch": 1.5}),  # both active
    ],
)
def test_same_bounded_optimum_as_scipy(data, bounds, start):
    model = with_parameters(with_parameters(START, {"stretch": 0.6}), start)
    if "stretch" in bounds and "stretch" not in start:
        model = with_parameters(model, {"stretch": bounds["stretch"][0]})
    objective = two_time_objective(mapped(model, data, bounds=bounds), data, eliminate=False)
    state = iterate_host(TrustRegion(), objective, objective.start)
    assert Status(int(state.status)).converged
    peer = scipy_optimum(objective, np.asarray(objective.start))
    np.testing.assert_allclose(state.equations.cost, peer.cost, rtol=1e-7)
    x = physical(objective, state)
    np.testing.assert_allclose(x, peer.x, atol=1e-4)
    # SciPy ends a hair inside; here an active bound is met to the last bit.
    lower, upper = (np.asarray(b) for b in (objective.variables.lower, objective.variables.upper))
    active = peer.active_mask != 0
    np.testing.assert_array_equal(x[peer.active_mask == -1], lower[peer.active_mask == -1])
    np.testing.assert_array_equal(x[peer.active_mask == 1], upper[peer.active_mask == 1])
    assert np.all((x[~active] > lower[~active]) & (x[~active] < upper[~active]))


def test_exact_bounds_in_curved_coordinates():
    data = make_data(n=31)
    bounds = {"beta": (0.5, 1.0), "alpha": (-0.2, 0.5)}
    start = with_parameters(start_off(LAMINAR, 1.2), {"beta": 1.0, "alpha": 0.5})
    fit = least_squares(projected_objective(mapped(start, data, bounds=bounds), data))
    assert fit.success
    assert fit["beta"].value == 0.5
    assert fit["beta"].at_bound
    assert np.isnan(fit["beta"].error)
    assert any("beta ended on its bound" in finding for finding in fit.quality.findings)


def test_same_optimum_as_optimistix(joint):
    solver = optx.LevenbergMarquardt(rtol=1e-10, atol=1e-10)

    @eqx.filter_jit
    def solve(objective, y):
        return optx.least_squares(lambda y, o: residual(o, y), solver, y, objective).value

    start = jnp.asarray(joint.start)
    state = iterate_host(TrustRegion(), joint, start)
    errors = errors_of(state.equations.hessian, state.equations.cost, joint.term.tiles.c2.size / 2)
    np.testing.assert_allclose((solve(joint, start) - state.y) / errors, 0, atol=DOUBLE.optimum)


def test_behind_the_interface_of_optimistix(joint):
    solver = TrustRegionMinimiser()

    @eqx.filter_jit
    def solve(objective, y):
        return optx.minimise(
            lambda y, o: value_and_equations(o, y),
            solver,
            y,
            objective,
            has_aux=True,
            options={"variables": objective.variables},
        ).value

    state = iterate_host(TrustRegion(), joint, joint.start)
    np.testing.assert_allclose(solve(joint, jnp.asarray(joint.start)), state.y, rtol=1e-6)


def test_compiled_and_host_loops_give_the_same_iterates(joint):
    solver = TrustRegion()
    seen = []
    host = iterate_host(solver, joint, joint.start, callback=lambda s: seen.append(s.y))
    compiled = eqx.filter_jit(iterate_compiled)(solver, joint, jnp.asarray(joint.start))
    n = int(host.evaluations)
    assert int(compiled.evaluations) == n == len(seen)
    assert int(compiled.status) == int(host.status)
    np.testing.assert_allclose(compiled.history.cost[:n], host.history.cost[:n], rtol=1e-9)
    np.testing.assert_array_equal(compiled.history.accepted[:n], host.history.accepted[:n])
    np.testing.assert_allclose(compiled.y, host.y, rtol=1e-9)


@pytest.mark.parametrize("descent", [dogleg, gauss_newton])
def test_other_descents_reach_the_same_optimum(joint, descent):
    wanted = iterate_host(TrustRegion(), joint, joint.start)
    found = iterate_host(TrustRegion(descent=descent()), joint, joint.start)
    assert Status(int(found.status)).converged
    np.testing.assert_allclose(found.equations.cost, wanted.equations.cost, rtol=1e-10)
    np.testing.assert_allclose(found.y, wanted.y, rtol=1e-5)


def test_costs_of_accepted_steps_never_rise(joint):
    state = iterate_host(TrustRegion(), joint, joint.start)
    n = int(state.evaluations)
    accepted = np.asarray(state.history.accepted[:n])
    cost = np.asarray(state.history.cost[:n])[accepted]
    assert np.all(np.diff(cost) <= 0)
    assert cost[-1] == float(state.equations.cost)
    assert int(state.accepted) + int(state.rejected) == n


def valley(x, a, b):
    # Rosenbrock's function as two residuals, of a and b at x = 0 and 1.
    return jnp.where(x == 0, 10 * (b - a**2), 1 - a)


PLANE = np.array([0.0, 1.0])


@pytest.mark.parametrize("start", [(-1.2, 1.0), (0.0, 5.0), (3.0, -4.0)])
def test_rosenbrock(start):
    with pytest.warns(CovarianceWarning, match="no more points than free parameters"):
        fit = curve_fit(valley, PLANE, np.zeros(2), np.array(start))
    assert fit.success
    np.testing.assert_allclose(fit.x, [1.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("start", [(-1.2, 1.0), (0.5, -1.5), (-2.0, 0.5)])
def test_bounded_rosenbrock(start):
    bounds = (np.array([-2.0, -1.5]), np.array([0.5, 2.0]))
    fit = curve_fit(valley, PLANE, np.zeros(2), np.array(start), bounds=bounds)
    peer = scipy_least_squares(
        lambda p: np.array([10 * (p[1] - p[0] ** 2), 1 - p[0]]), (0.0, 0.0), bounds=bounds
    )
    assert fit.success
    assert fit.x[0] == 0.5
    np.testing.assert_allclose(fit.x, peer.x, atol=1e-5)
    assert fit.perr[0] == 0.0


def test_a_degenerate_direction_is_infinite_and_not_zero():
    x = np.linspace(0, 1, 20)
    with pytest.warns(CovarianceWarning, match="do not determine p0, p1"):
        fit = curve_fit(lambda x, a, b, c: (a + b) * x + c, x, 2 * x + 1, np.ones(3))
    np.testing.assert_allclose([fit.x[0] + fit.x[1], fit.x[2]], [2.0, 1.0], atol=1e-8)
    assert np.all(np.isinf(fit.perr[:2]))
    assert np.isfinite(fit.perr[2])


def test_units_of_the_variables_do_not_matter():
    x = np.linspace(0.1, 3, 30)
    rng = np.random.default_rng(0)
    y = 2 * np.exp(-0.8 * x) + 0.01 * rng.normal(size=30)

    def curve(unit):
        return lambda x, a, b: a / unit * jnp.exp(-b * unit * x)

    fits = [curve_fit(curve(u), x, y, np.array([1.0 * u, 2.0 / u])) for u in (1.0, 1e6)]
    assert fits[0].evaluations == fits[1].evaluations
    np.testing.assert_allclose(fits[0].x, fits[1].x * [1e-6, 1e6], rtol=1e-8)


def test_fixed_and_tied_parameters(data):
    fixed = least_squares(projected_objective(mapped(START, data, fixed=("stretch",)), data))
    assert fixed.success
    assert fixed["stretch"].value == values_of(START)["stretch"]
    assert fixed["stretch"].role == "fixed"
    ties = {"stretch": lambda values: 0.4 * values["tau"]}
    tied = least_squares(projected_objective(mapped(START, data, ties=ties), data))
    assert tied.success
    assert tied["stretch"].role == "tied"
    np.testing.assert_allclose(tied["stretch"].value, 0.4 * tied["tau"].value, rtol=1e-12)
    np.testing.assert_allclose(tied["stretch"].error, 0.4 * tied["tau"].error, rtol=1e-12)
    # The truth obeys the tie.
    assert abs(tied["tau"].value - 2.0) < 5 * tied["tau"].error_classical


def test_nothing_free_but_the_scaling(data):
    fit = least_squares(projected_objective(mapped(TRUTH, data, fixed=("tau", "stretch")), data))
    assert fit.success
    np.testing.assert_allclose(fit.contrast, 0.2, atol=0.01)


def wavy(x, a):
    return jnp.sin(a) * jnp.ones_like(x)


def test_convergence_without_a_move_needs_a_vanishing_gradient():
    x, y = np.linspace(0, 1, 5), np.array([0.3, 0.5, 0.4, 0.2, 0.6])
    best = float(np.arcsin(0.4))
    objective = curve_objective(wavy, x, y, np.array([best]))
    state = iterate_host(TrustRegion(), objective, objective.start)
    assert Status(int(state.status)) == Status.gradient
    assert int(state.evaluations) == 1

    def kink(x, a):
        # Its derivative promises what it never keeps.
        return jnp.where(a == 1.0, a * x, x + jnp.abs(a - 1.0) + 1.0 + 1e-3 * (a - 1.0))

    objective = curve_objective(kink, x, np.full(5, -1.0), np.array([1.0]))
    state = iterate_host(TrustRegion(max_evaluations=300), objective, objective.start)
    assert float(state.y[0]) == 1.0
    assert Status(int(state.status)) == Status.stalled


def test_regions_that_are_not_finite():
    def root(x, a, b):
        return jnp.sqrt(a - x) + b

    x = np.linspace(0, 1, 40)
    y = np.sqrt(1.2 - x) + 0.3
    fit = curve_fit(root, x, y, np.array([5.0, -1.0]))
    assert fit.success
    np.testing.assert_allclose(fit.x, [1.2, 0.3], atol=1e-6)


class Notebook:
    """Records states, and stops the fit at a given evaluation."""

    def __init__(self, stop=None):
        self.stop, self.states = stop, []

    def __call__(self, state):
        self.states.append(state)
        return len(self.states) == self.stop


def test_a_callback_stops_the_fit(data, parameters):
    notebook = Notebook(stop=3)
    fit = least_squares(projected_objective(parameters, data), callback=notebook)
    assert fit.status == Status.interrupted
    assert not fit.success
    assert fit.evaluations == len(notebook.states) == 3
    assert fit.recovery == ()
    assert fit.history.cost.shape == (3,)
    watching, logarithmic = Notebook(), mapped(START, data, coordinates={("tau",): Log()})
    watched = least_squares(projected_objective(logarithmic, data), callback=watching)
    assert watched.success
    # Parameters by name and in their units, whatever coordinates the solver has.
    last = watching.states[-1]
    np.testing.assert_allclose(last.best, watched.x, rtol=1e-12)
    assert last.values == dict(zip(watched.objective.names, last.best.tolist(), strict=True))
    np.testing.assert_allclose(last.y[0], np.log(last.best[0]), rtol=1e-12)


def test_too_few_evaluations_are_named(data, parameters):
    objective = projected_objective(parameters, data)
    short = TrustRegion(max_evaluations=2)
    fit = least_squares(objective, solver=short, recovery=Recovery(attempts=0))
    assert fit.status == Status.max_evaluations
    assert fit.quality.flag == "poor"
    # The number is a total: nothing is left for another attempt.
    fit = least_squares(objective, solver=short, recovery=Recovery(attempts=2))
    assert fit.status == Status.max_evaluations
    assert fit.evaluations == 2
    assert fit.recovery == ()
    assert float(fit.cost) < fit.history.cost[0]


def states(objective, solver=None, **changes):
    """A solved state with some of it replaced, as a failing fit would leave it."""
    state = iterate_host(solver or TrustRegion(), objective, objective.start)
    for name, value in changes.items():
        old = getattr(state, name)
        state = eqx.tree_at(
            lambda s, name=name: getattr(s, name), state, jnp.asarray(value, old.dtype)
        )
    return state


def test_recovery_names_the_cause_and_acts_on_it(data):
    parameters = mapped(START, data, bounds={"tau": (0.5, 50.0)})
    objective = projected_objective(parameters, data)
    variables, start = objective.variables, np.asarray(objective.start)
    recovery, solver = Recovery(), TrustRegion()
    stalled = int(Status.stalled)
    y0 = variables.to_coordinates(jnp.asarray(start))
    flat = eqx.tree_at(
        lambda s: s.equations.hessian, states(objective, status=stalled), jnp.zeros((2, 2))
    )
    cases = {
        "non-finite": (states(objective, status=int(Status.non_finite), y=y0), "middle"),
        "not moved": (
            states(objective, status=stalled, y=y0),
            tuple(f"perturbed by {k}%" for k in (5, 10, 20)),
        ),
        "singular": (flat, "ridge"),
        "at bounds": (states(objective, y=y0.at[0].set(50.0)), "inside the bounds"),
        "not converged": (states(objective, status=stalled), "continued"),
    }
    for cause, (state, words) in cases.items():
        assert recovery.diagnose(variables, start, state) == cause
        for attempt in range(3):
            plan = recovery.plan(cause, attempt, variables, start, state, solver)
            assert plan.cause == cause
            assert (words[attempt] if isinstance(words, tuple) else words) in plan.action
            assert np.all((plan.x >= variables.lower) & (plan.x <= variables.upper))
            careful = cause in ("non-finite", "singular", "not converged")
            assert plan.solver.damping == (100 if careful else 1) * solver.damping
            if cause in ("not moved", "at bounds"):
                assert not np.any(np.asarray(plan.x) == variables.to_physical(state.y))
    twice = [
        recovery.plan("not moved", 1, variables, start, cases["not moved"][0], solver).x
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*twice)
    kick = np.abs(np.asarray(twice[0]) / start - 1)
    np.testing.assert_allclose(kick, 0.10, rtol=1e-9)
    assert recovery.diagnose(variables, start, states(objective)) is None


class Brittle(AbstractCorrelation):
    """Not a number beyond some speed."""

    speed: float = parameter(start=1.0, bounds=(0.0, 4.0))

    def features(self, t, geometry):
        return Features(increments=jnp.sqrt(2.2 - self.speed) * t)

    def kernel(self, pair):
        return jnp.exp(-pair.increments)


def test_a_start_that_is_not_finite_is_rescued_or_refused(data):
    fit = least_squares(projected_objective(mapped(Brittle(2.21), data), data))
    assert fit.recovery[0].cause == "non-finite"
    assert "middle of the bounds" in fit.recovery[0].action
    assert fit.success
    with pytest.raises(FitError, match=r"no finite cost at the start \{'speed': 3.9"):
        least_squares(projected_objective(mapped(Brittle(3.9), data), data))


def test_starts_that_do_not_fit(data, parameters):
    objective = projected_objective(parameters, data)
    with pytest.raises(ModelError, match=r"shape \(3,\), the fit \(2,\)"):
        least_squares(objective, jnp.ones(3))
    with pytest.raises(ModelError, match="start 5 of stretch lies outside its bounds"):
        least_squares(objective, jnp.array([1.0, 5.0]))


def test_many_fits_at_once(data):
    solver = TrustRegion()
    objectives = [
        projected_objective(mapped(START, each), each)
        for each in (make_data(TRUTH, n=24, noise=0.01, seed=seed) for seed in range(3))
    ]
    arrays = [eqx.filter(o, eqx.is_array) for o in objectives]
    static = eqx.filter(objectives[0], eqx.is_array, inverse=True)
    stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(v) for v in leaves]), *arrays)

    @eqx.filter_jit
    def solve(stacked, start):
        def one(arrays):
            state = iterate_compiled(solver, eqx.combine(arrays, static), start)
            return state.y, state.equations.cost, state.status

        return jax.vmap(one)(stacked)

    y, cost, status = solve(stacked, jnp.asarray(objectives[0].start))
    for k, objective in enumerate(objectives):
        alone = iterate_host(solver, objective, objective.start)
        assert int(status[k]) == int(alone.status)
        np.testing.assert_allclose(y[k], alone.y, rtol=1e-8)
        np.testing.assert_allclose(cost[k], alone.equations.cost, rtol=1e-10)


def test_metrics(joint):
    wanted = iterate_host(TrustRegion(), joint, joint.start)
    found = iterate_host(TrustRegion(metric=JacobianMetric()), joint, joint.start)
    np.testing.assert_allclose(found.y, wanted.y, rtol=1e-6)


def test_gradients_that_count_as_none_follow_the_units():
    natural, curvature, units = (
        np.array([1.0, 2.0, 0.1]),
        np.array([4.0, 0.0, 9.0]),
        10.0 ** np.arange(3),
    )
    metric = NaturalMetric()
    one = np.asarray(metric.negligible(natural, curvature))
    # A natural step along any coordinate then changes the residuals by less than a part of what
    # the best determined one does.
    np.testing.assert_allclose(one * natural, one[0] * natural[0], rtol=1e-12)
    assert 0 < one[0] * natural[0] < 1e-6 * np.sqrt(4.0)
    other = np.asarray(metric.negligible(natural * units, curvature / units**2))
    np.testing.assert_allclose(other, one / units, rtol=1e-12)
    # With the units of the Jacobian no gradient is too small to count.
    assert not np.any(JacobianMetric().negligible(natural, curvature))


def test_variables_without_bounds():
    variables = unbounded(jnp.array([0.0, -3.0]))
    np.testing.assert_array_equal(variables.coordinate_scale, [1.0, 3.0])
    assert np.all(np.isinf(variables.lower) & np.isinf(variables.upper))


@pytest.mark.parametrize("number", [0, -3])
def test_a_number_of_evaluations_below_one_is_refused(number):
    with pytest.raises(ModelError, match=f"max_evaluations is {number}"):
        TrustRegion(max_evaluations=number)


def test_any_whole_number_of_evaluations_is_a_limit():
    fit = curve_fit(
        lambda x, a: a * x,
        np.arange(3.0),
        np.arange(3.0) + np.array([0.1, -0.1, 0.1]),
        np.ones(1),
        solver=TrustRegion(max_evaluations=10**30),
    )
    assert fit.success
