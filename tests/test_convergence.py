"""The one rule of convergence: success at a minimum only, and at every minimum."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import LAMINAR, LOSSES, Stretched, make_data, mapped, start_off, values_of
from more_garbow_hillstrom import PROBLEMS
from nist import problems as nist_problems

from xpcs_eqx.data import Geometry, TwoTimeData
from xpcs_eqx.errors import FitError
from xpcs_eqx.fitting import curve_fit, curve_solver, least_squares, profile_curve, profile_interval
from xpcs_eqx.objective import curve_objective, projected_objective
from xpcs_eqx.optimize import (
    NielsenSearch,
    Recovery,
    Status,
    TrustRegion,
    TrustRegionMinimiser,
    initial_state,
    iterate_host,
    value_and_equations,
)
from xpcs_eqx.optimize.loops import advance
from xpcs_eqx.parameters import PlainVariables, parameter_map, snap, with_parameters
from xpcs_eqx.physics import PowerLawRate, Static, correlation_map

# Of fits that fail, or end where columns are parallel, errors are infinite, which is said.
pytestmark = pytest.mark.filterwarnings("ignore::xpcs_eqx.errors.CovarianceWarning")

# The peaks of Osborne 2 have underflowed at starts ten times as far: its model is exactly flat
# there, which no derivative tells from a variable without any meaning.
FLAT_AT_THE_START = "Osborne 2"


def fit_of(problem, factor, recovery=None):
    start = problem.start * factor
    if not problem.start.any():
        start = np.full(problem.start.shape, 0.0 if factor == 1 else float(factor))
    number = np.arange(float(problem.count))
    return curve_fit(problem.curve, number, np.zeros(problem.count), start, recovery=recovery)


def at_a_minimum(problem, cost) -> bool:
    square = 2 * cost
    best = abs(square - problem.minimum) <= 1e-6 * problem.minimum + 1e-12
    return best or any(abs(square - one) <= 1e-4 * one for one in problem.others)


@pytest.mark.slow
@pytest.mark.parametrize(
    "factor", [1, *(pytest.param(far, marks=pytest.mark.long) for far in (10, 100))]
)
def test_success_at_a_minimum_only_from_starts_near_and_far(factor):
    for problem in PROBLEMS:
        if factor > 1 and problem.name == FLAT_AT_THE_START:
            continue
        for recovery in (None, Recovery(attempts=0)):
            fit = fit_of(problem, factor, recovery)
            assert at_a_minimum(problem, fit.fun) or not fit.success, (problem.name, fit)
            assert fit.success or factor > 1, (problem.name, fit)


@pytest.mark.parametrize("name", ["Freudenstein and Roth", "Jennrich and Sampson"])
def test_parallel_columns_at_a_minimum_with_large_residuals(name):
    (problem,) = (one for one in PROBLEMS if one.name == name)
    fit = fit_of(problem, 1, Recovery(attempts=0))
    assert fit.success
    assert at_a_minimum(problem, fit.fun)


def test_a_model_that_ceased_to_depend_on_a_variable_is_at_no_minimum():
    (problem,) = (one for one in nist_problems() if one.name == "BoxBOD")
    # The rate runs to where its exponential vanishes, and every derivative by it.
    alone = curve_fit(
        problem.function, problem.x, problem.y, problem.start1, recovery=Recovery(attempts=0)
    )
    assert alone.status is Status.stalled
    fit = curve_fit(problem.function, problem.x, problem.y, problem.start1)
    assert fit.success
    np.testing.assert_allclose(fit.x, problem.certified, rtol=1e-6)
    assert fit.recovery[0].cause == "singular"
    assert "put back to its start" in fit.recovery[0].action


def line(x, a, b):
    return a * x + b


@pytest.mark.parametrize("truth", [(2.0, 1.0), (2.0, 1e6), (3e-9, 1e-10), (0.0, 1.0), (1e8, -1e-3)])
@pytest.mark.parametrize("off", [0.0, 0.5])
def test_exact_lines(truth, off):
    x, truth = np.linspace(0, 10, 40), np.array(truth)
    fit = curve_fit(line, x, line(x, *truth), truth * (1 + off))
    assert fit.success, fit
    y = line(x, *truth)
    np.testing.assert_allclose(line(x, *fit.x), y, rtol=0, atol=1e-12 * np.max(np.abs(y)))


def test_data_that_are_zero():
    x = np.linspace(0, 10, 40)
    fit = curve_fit(line, x, np.zeros(40), np.ones(2))
    assert fit.success
    np.testing.assert_allclose(fit.x, 0.0, atol=1e-12)


def exact_map(model, t, contrast=0.25, phi=(0.0,)):
    geometry = Geometry(0.0054, np.array(phi))
    c2 = 1.0 + contrast * np.array(correlation_map(model, t, geometry))
    return TwoTimeData(c2, t, geometry, None, np.full(c2.shape[:2], np.nan))


@pytest.mark.parametrize("contrast", [0.25, 0.01])
@pytest.mark.parametrize("off", [1.0, 0.7, 1.8])
def test_maps_without_noise(contrast, off):
    t = 0.2 * np.arange(20)
    truth = Static(PowerLawRate(1.5e4, -0.3, 0.0))
    data = exact_map(truth, t, contrast)
    start = with_parameters(truth, {"D0": 1.5e4 * off, "alpha": -0.3 * off})
    objective = projected_objective(parameter_map(start, t, fixed=("D_offset",)), data)
    fit = least_squares(objective)
    assert fit.success, fit.message
    assert not fit.recovery
    np.testing.assert_allclose([fit["D0"].value, fit["alpha"].value], [1.5e4, -0.3], rtol=1e-8)


@pytest.mark.parametrize("off", [1.0, 1.2])
def test_laminar_maps_without_noise(off):
    data = make_data(LAMINAR, n=31, noise=0.0)
    start = start_off(LAMINAR, off)
    fit = least_squares(projected_objective(mapped(start, data), data))
    assert fit.success, fit.message
    assert not fit.recovery
    for name, value in values_of(LAMINAR).items():
        assert abs(fit[name].value - value) <= 1e-6 * max(abs(value), 1.0), name


@pytest.mark.parametrize("loss", [one for one in LOSSES if one != "linear"])
def test_robust_losses_succeed_at_a_small_gradient_only(loss):
    # From zeros every residual is an outlier, where a redescending loss is nearly flat.
    x = np.linspace(0, 10, 60)
    y = 2 * x + 1 + 0.1 * np.random.default_rng(0).normal(size=60)
    for size in (1.0, 1e4, 1e7):
        scaled = dataclasses.replace(LOSSES[loss], scale=jnp.asarray(0.3))
        objective = curve_objective(line, x, size * y, np.zeros(2), loss=scaled)
        fit = curve_fit(line, x, size * y, np.zeros(2), loss=scaled)
        if not fit.success:
            continue
        unit = jnp.sqrt(jnp.sum(x**2)), jnp.sqrt(60.0)
        # The cost has no slope along any column, and none of its own curvature downwards.
        slope = jax.grad(lambda z, o=objective, u=unit: o.cost(z / jnp.stack(u), o.memo))
        z = jnp.asarray(fit.x) * jnp.stack(unit)
        curvature = jnp.linalg.eigvalsh(jax.jacfwd(slope)(z))
        length = np.sqrt(2 * fit.fun)
        assert float(jnp.max(jnp.abs(slope(z)))) <= 1e-6 * length
        assert float(curvature[0]) >= -1e-8 * float(curvature[-1]) or size > 1


def wall(x, a, b, c, d):
    return a * jnp.exp(-2 * (jnp.maximum(b, 1e-12) * x) ** c) + d


def test_a_wall_of_nan_is_no_minimum_and_is_named():
    # A stretched exponential from x = 0: its derivative by the rate is NaN there for c < 1.
    x = np.linspace(0, 10, 200)
    exact = np.asarray(wall(x, 0.3, 0.5, 0.8, 1.0))
    y = exact + 0.02 * np.ptp(exact) * np.random.default_rng(5).normal(size=200)
    fit = curve_fit(wall, x, y, np.array([0.4, 0.4, 1.2, 0.9]))
    assert not fit.success
    assert "the derivative of the model by p0, p1" in fit.message
    assert "is not finite at point 0 (x = 0.0)" in fit.message
    shifted = np.roll(x, 7), np.roll(y, 7)
    assert "point 7 (x = 0.0)" in curve_fit(wall, *shifted, np.array([0.4, 0.4, 1.2, 0.9])).message
    # Without the point there is no wall.
    fit = curve_fit(wall, x[1:], y[1:], np.array([0.4, 0.4, 1.2, 0.9]))
    assert fit.success
    np.testing.assert_allclose(fit.x[2], 0.832, atol=0.01)


def test_a_model_that_is_not_finite_is_named():
    x = np.linspace(0, 1, 9)
    fit = curve_fit(lambda x, a, b: jnp.log(a - x) + b, x, x, np.array([0.5, 1.0]))
    assert fit.status is Status.non_finite
    assert "the model is not finite at point 4 (x = 0.5)" in fit.message


TRUTH = Stretched(tau=2.0, stretch=0.8)


@pytest.fixture(scope="module")
def objective():
    data = make_data(TRUTH, n=24, noise=0.01)
    return projected_objective(mapped(Stretched(tau=2.8, stretch=1.1), data), data)


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_the_number_of_evaluations_is_a_total(objective, most):
    fit = least_squares(objective, solver=TrustRegion(max_evaluations=most))
    assert fit.status is Status.max_evaluations
    assert fit.evaluations == most == fit.history.cost.size
    assert "number of evaluations is used up" in fit.message


def test_recovery_shares_the_evaluations():
    (problem,) = (one for one in PROBLEMS if one.name == "Box three-dimensional")
    number, zeros = np.arange(float(problem.count)), np.zeros(problem.count)
    alone = curve_fit(
        problem.curve, number, zeros, 100 * problem.start, recovery=Recovery(attempts=0)
    )
    assert alone.status is Status.stalled
    few = dataclasses.replace(curve_solver(), max_evaluations=alone.evaluations + 3)
    fit = curve_fit(problem.curve, number, zeros, 100 * problem.start, solver=few)
    assert fit.status is Status.max_evaluations
    assert fit.evaluations == alone.evaluations + 3
    assert len(fit.recovery) == 1


def test_a_huge_number_of_evaluations_allocates_nothing(objective):
    solver = TrustRegion(max_evaluations=9223372036854775807)
    fit = least_squares(objective, solver=solver)
    assert fit.success
    assert fit.history.cost.size == fit.evaluations
    state = eqx.filter_eval_shape(initial_state, solver, objective, jnp.asarray(objective.start))
    assert state.history.cost.size == 10_000


def test_tolerances_and_searches_compile_nothing_anew(objective):
    solver = TrustRegion()
    iterate_host(solver, objective, jnp.asarray(objective.start))
    compiled = advance.traced()._cached._cache_size()
    for other in (
        dataclasses.replace(solver, cost_tol=1e-4, step_tol=1e-5, gradient_tol=1e-3),
        dataclasses.replace(solver, offset_tol=1e-3, damping=3),
        dataclasses.replace(solver, search=NielsenSearch(low=0.01, growth=3)),
    ):
        iterate_host(other, objective, jnp.asarray(objective.start), allowed=7)
    assert advance.traced()._cached._cache_size() == compiled


@pytest.mark.parametrize(
    ("solver", "result"),
    [
        (TrustRegion(), optx.RESULTS.successful),
        (TrustRegion(max_evaluations=3), optx.RESULTS.nonlinear_max_steps_reached),
    ],
)
def test_a_minimiser_passes_failure_on(objective, solver, result):
    y = objective.variables.to_coordinates(jnp.asarray(objective.start))
    found = optx.minimise(
        lambda y, o: value_and_equations(o, y),
        TrustRegionMinimiser(solver=solver),
        y,
        args=objective,
        has_aux=True,
        options={"variables": objective.variables},
        throw=False,
    )
    assert found.result == result


def test_a_minimiser_says_that_it_diverged():
    def kink(x, a):
        return jnp.where(a == 1.0, a * x, x + jnp.abs(a - 1.0) + 1.0 + 1e-3 * (a - 1.0))

    x = np.linspace(0, 1, 5)
    objective = curve_objective(kink, x, np.full(5, -1.0), np.array([1.0]))
    found = optx.minimise(
        lambda y, o: value_and_equations(o, y),
        TrustRegionMinimiser(),
        jnp.ones(1),
        args=objective,
        has_aux=True,
        throw=False,
    )
    assert found.result == optx.RESULTS.nonlinear_divergence


@pytest.fixture(scope="module")
def fit(objective):
    return least_squares(objective)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_profiles_pass_failure_on(fit, most):
    short = TrustRegion(max_evaluations=most)
    with pytest.raises(FitError, match=r"profile of tau at .* did not converge"):
        profile_interval(fit, "tau", solver=short)
    with pytest.raises(FitError, match=r"profile of tau at .* did not converge"):
        profile_curve(fit, "tau", [1.5, 2.5], solver=short)


def variables(lower, upper, scale):
    return PlainVariables(*(jnp.array([float(v)]) for v in (lower, upper, scale)))


@pytest.mark.parametrize(
    ("lower", "upper", "x", "wanted"),
    [
        (0.0, 1e12, 0.3, 0.3),
        (0.0, 1e13, 1e-3, 1e-3),
        (0.0, 1e4, 3e-9, 3e-9),
        (0.1, 1e17, 1.5e4, 1.5e4),
        (-1e17, 1e17, 1.0, 1.0),
        (0.1, 1e17, 0.1 * (1 + 1e-15), 0.1),
        (-1e5, 1e5, 1e5 * (1 - 1e-15), 1e5),
        (0.0, np.inf, 1e-17, 0.0),
        (1.0, 1.0 + 1e-9, 1.0 + 5e-10, 1.0 + 5e-10),
    ],
)
def test_a_bound_is_near_by_its_own_size(lower, upper, x, wanted):
    assert float(snap(variables(lower, upper, 1.0), jnp.array([x]))[0]) == wanted


def decay(x, a, b, c):
    return a * jnp.exp(-b * x) + c


@pytest.mark.parametrize("upper", [1e4, 1e12, 1e13, 1e17, 1e300])
def test_wide_bounds_change_nothing(upper):
    x = np.linspace(0, 10, 400)
    y = 2.5 * np.exp(-0.3 * x) + 0.5 + 0.05 * np.random.default_rng(2).normal(size=400)
    fit = curve_fit(decay, x, y, np.ones(3), bounds=(0, upper))
    free = curve_fit(decay, x, y, np.ones(3))
    assert fit.success
    np.testing.assert_allclose(fit.x, free.x, rtol=1e-7)
    np.testing.assert_allclose(fit.perr, free.perr, rtol=1e-6)


def test_small_amplitudes_are_not_on_a_bound_of_zero():
    x = np.linspace(0, 10, 400)
    y = 3e-9 * (np.exp(-0.3 * x) + 0.02 * np.random.default_rng(2).normal(size=400))
    fit = curve_fit(
        lambda x, a, b: a * jnp.exp(-b * x), x, y, np.array([1e-9, 1.0]), bounds=(0, 1e4)
    )
    assert fit.success
    free = curve_fit(lambda x, a, b: a * jnp.exp(-b * x), x, y, np.array([1e-9, 1.0]))
    np.testing.assert_allclose(fit.perr, free.perr, rtol=1e-6)
    assert np.all(fit.perr > 0)


@pytest.mark.parametrize("upper", [1e12, 1e17])
def test_wide_bounds_of_a_map(upper):
    t = 0.2 * np.arange(20)
    truth = Static(PowerLawRate(1.5e4, -0.3, 0.0))
    data = exact_map(truth, t)
    noise = np.triu(np.random.default_rng(0).normal(0, 0.003, (1, 20, 20)), 1)
    data = dataclasses.replace(data, c2=data.c2 + noise + np.swapaxes(noise, 1, 2))
    start = with_parameters(truth, {"D0": 1e4, "alpha": 0.0})
    chosen = parameter_map(start, t, fixed=("D_offset",), bounds={"D0": (0.1, upper)})
    fit = least_squares(projected_objective(chosen, data))
    assert fit.success
    assert not fit["D0"].at_bound
    assert abs(fit["D0"].value - 1.5e4) < 5 * fit["D0"].error
