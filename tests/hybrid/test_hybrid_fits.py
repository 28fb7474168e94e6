"""Whole fits by the hybrid optimiser, against the truth and against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, make_data, mapped, start_off, values_of
from scipy.optimize import curve_fit as scipy_curve_fit

from xpcs_eqx.errors import CovarianceWarning, DataError, ModelError, PrecisionError
from xpcs_eqx.fitting import curve_fit, least_squares
from xpcs_eqx.hybrid import (
    Chunk,
    HybridOptimiser,
    aggressive,
    as_source,
    conservative,
    default,
    memory_optimised,
    no_defences,
    relaxed_defences,
    scientific,
    streamed_objective,
    strict_defences,
)
from xpcs_eqx.hybrid.sources import source_stored_as
from xpcs_eqx.objective import HostLoop, SoftL1, projected_objective, two_time_objective
from xpcs_eqx.optimize import Status, cost_and_gradient
from xpcs_eqx.parameters import with_parameters

SAME = 1e-6


def decay(x, amplitude, rate, offset):
    return amplitude * jnp.exp(-rate * x) + offset


def oscillation(x, a, rate, frequency, phase, b, fast):
    wave = a * jnp.exp(-rate * x) * jnp.cos(frequency * x + phase)
    return wave + b * jnp.exp(-fast * x)


def uneven(x, amplitude, rate, level):
    """Parameters 1e5, 1e-3 and 1, the level in units of 100."""
    return amplitude * jnp.exp(-rate * x) + 1e2 * level


MODELS = {
    "decay": (decay, [2.5, 1.3, 0.5], 5.0, 0.05),
    "oscillation": (oscillation, [2.0, 0.4, 6.0, 0.5, 1.0, 2.0], 5.0, 0.05),
    "uneven": (uneven, [1e5, 1e-3, 1.0], 5e3, 2e2),
}
STARTS = {
    ("decay", "good"): [2.0, 1.0, 0.4],
    ("decay", "poor"): [100.0, 0.05, -30.0],
    ("oscillation", "good"): [1.8, 0.5, 5.9, 0.4, 0.8, 1.5],
    ("oscillation", "poor"): [0.5, 1.5, 5.0, 0.05, 3.0, 8.0],
    ("uneven", "good"): [8e4, 1.3e-3, 2.0],
    ("uneven", "poor"): [1e3, 1e-2, 30.0],
}


def simulated(name, n, sigma=None, seed=0):
    function, truth, span, noise = MODELS[name]
    x = np.linspace(0, span, n)
    spread = noise if sigma is None else sigma(x)
    draw = np.random.default_rng(seed).normal(0, spread, n)
    return x, np.asarray(function(jnp.asarray(x), *truth)) + draw


def scipy_fit(function, x, y, start, **keywords):
    value = jax.jit(function)

    @jax.jit
    def columns(b):
        return jax.jacfwd(lambda b: function(x, *b))(b)

    return scipy_curve_fit(
        lambda x, *b: np.asarray(value(x, *b)),
        x,
        y,
        start,
        jac=lambda _, *b: np.asarray(columns(jnp.asarray(b))),
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
        **keywords,
    )


def assert_same_fit(found, x, pcov):
    assert found.success
    errors = np.sqrt(np.diagonal(pcov))
    np.testing.assert_array_less(np.abs(found.x - x) / errors, 1e-4)
    np.testing.assert_array_less(np.abs(found.pcov - pcov) / np.outer(errors, errors), SAME)
    np.testing.assert_allclose(found.perr, errors, rtol=SAME)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decay", pytest.param("oscillation", marks=pytest.mark.long)])
def test_a_million_points(name):
    function, truth, *_ = MODELS[name]
    x, y = simulated(name, 1_000_000)
    found = HybridOptimiser(chunk=100_000).fit((x, y), function, STARTS[name, "good"])
    print(name, found.timings, found.evaluations)
    assert np.all(np.abs(found.x - truth) < 3 * found.perr)
    assert_same_fit(found, *scipy_fit(function, x, y, truth))


@pytest.mark.parametrize(("name", "kind"), STARTS)
def test_from_any_start(name, kind):
    function, truth, *_ = MODELS[name]
    x, y = simulated(name, 2000)
    found = default().fit((x, y), function, STARTS[name, kind])
    assert np.all(np.abs(found.x - truth) < 3 * found.perr)
    assert_same_fit(found, *scipy_fit(function, x, y, truth))
    assert found.n_pairs - found.degrees_of_freedom == len(truth)


def varying(x):
    return 0.02 + 0.03 * x


@pytest.mark.parametrize("absolute", [False, True])
def test_sigma(absolute):
    x, y = simulated("decay", 3000, varying)
    sigma = varying(x)
    found = default().fit((x, y), decay, [2.0, 1.0, 0.4], sigma=sigma, absolute_sigma=absolute)
    wanted = scipy_fit(decay, x, y, [2.0, 1.0, 0.4], sigma=sigma, absolute_sigma=absolute)
    assert_same_fit(found, *wanted)
    chi2 = np.sum(((np.asarray(decay(x, *wanted[0])) - y) / sigma) ** 2)
    np.testing.assert_allclose(2 * found.fun, chi2, rtol=1e-10)
    np.testing.assert_allclose(found.residual_sd**2, chi2 / (3000 - 3), rtol=1e-10)
    # The other switch gives another covariance here, so that the comparison means something.
    assert abs(found.residual_sd**2 - 1) > 1e-3


def test_result_belongs_together():
    x, y = simulated("oscillation", 2000)
    found = default().fit((x, y), oscillation, STARTS["oscillation", "poor"])

    def residuals(b):
        return oscillation(x, *b) - y

    r, jacobian = np.asarray(residuals(found.x)), np.asarray(jax.jacfwd(residuals)(found.x))
    np.testing.assert_allclose(found.fun, 0.5 * r @ r, rtol=1e-12)
    variance = r @ r / found.degrees_of_freedom
    wanted = variance * np.linalg.inv(jacobian.T @ jacobian)
    np.testing.assert_allclose(found.pcov, wanted, rtol=1e-7)
    accepted = found.history.cost[found.history.accepted]
    assert found.fun == accepted.min() == accepted[-1]


def test_chunks_and_sources_change_nothing():
    x, y = simulated("decay", 2000)

    def pieces():
        return iter([(x[:777], y[:777]), (x[777:], y[777:])])

    whole = default().fit((x, y), decay, [2.0, 1.0, 0.4])
    others = [
        HybridOptimiser(chunk=chunk).fit(source, decay, [2.0, 1.0, 0.4])
        for chunk, source in ((33, (x, y)), (2000, pieces), (500, (x[::-1], y[::-1])))
    ]
    for found in others:
        np.testing.assert_allclose(found.x, whole.x, rtol=1e-8)
        np.testing.assert_allclose(found.pcov, whole.pcov, rtol=1e-6)
    problems = [
        streamed_objective(as_source((x, y), chunk=c), decay, [2.0, 1.0, 0.4]) for c in (33, 7)
    ]
    first, second = (p.evaluate(p.start, None)[0] for p in problems)
    np.testing.assert_allclose(first.hessian, second.hessian, rtol=1e-12)
    np.testing.assert_allclose(first.gradient, second.gradient, rtol=1e-10)


OFFSETS = ("D_offset", "gamma_dot_t_offset")


@pytest.fixture(scope="module")
def laminar():
    return make_data(LAMINAR, n=31, noise=0.003)


def laminar_parameters(data, factor):
    """Started `factor` off; the offsets, which a small map leaves almost open, at their truth."""
    truth = values_of(LAMINAR)
    start = with_parameters(start_off(LAMINAR, factor), {name: truth[name] for name in OFFSETS})
    return mapped(start, data, fixed=OFFSETS)


@pytest.mark.parametrize("factor", [pytest.param(1.1, marks=pytest.mark.long), 1.6])
def test_laminar_map(laminar, factor):
    objective = projected_objective(laminar_parameters(laminar, factor), laminar)
    found = default().minimise(objective)
    assert found.success
    truth, names = values_of(LAMINAR), objective.names
    own = np.array([found[name].error_classical for name in names])
    pulls = [(found[n].value - truth[n]) / error for n, error in zip(names, own, strict=True)]
    assert np.max(np.abs(pulls)) < 3
    reference = least_squares(objective)
    errors = np.array([reference[name].error_classical for name in names])
    np.testing.assert_array_less(np.abs(found.x - reference.x) / errors, 1e-4)
    np.testing.assert_allclose(own, errors, rtol=1e-5)
    np.testing.assert_allclose(found.fun, reference.cost, rtol=1e-10)


def test_joint_and_host_loop_maps(laminar):
    parameters = laminar_parameters(laminar, 1.0)
    projected = projected_objective(parameters, laminar)
    host = projected_objective(parameters, laminar, driver=HostLoop())
    joint = two_time_objective(parameters, laminar, eliminate=False)
    upper = np.triu_indices(laminar.n_frames, 1)
    values = np.asarray(laminar.c2)[:, upper[0], upper[1]]
    for objective in (projected, host, joint):
        wanted = 0.5 * values.size * values.var()
        np.testing.assert_allclose(objective.spread(), wanted, rtol=1e-8)
    y = projected.variables.to_coordinates(projected.start)
    found = [cost_and_gradient(one, y) for one in (projected, host)]
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-9)


def test_bounds_active():
    x, y = simulated("decay", 2000)
    bounds = ([0.0, 0.0, 0.6], [5.0, 5.0, 1.0])
    found = default().fit((x, y), decay, [2.0, 1.0, 0.9], bounds=bounds)
    assert found.success
    assert found.x[2] == 0.6
    assert [row.at_bound for row in found.rows] == [False, False, True]
    free, pcov = scipy_fit(lambda x, a, b: decay(x, a, b, 0.6), x, y, [2.0, 1.0])
    np.testing.assert_allclose(found.x[:2], free, rtol=1e-7)
    np.testing.assert_allclose(found.pcov[:2, :2], pcov, rtol=1e-5)
    assert found.perr[2] == 0
    assert found.degrees_of_freedom == 2000 - 2


def test_rank_deficient():
    x, y = simulated("decay", 500)

    def twice(x, a, b, rate, offset):
        return (a + b) * jnp.exp(-rate * x) + offset

    with pytest.warns(CovarianceWarning, match="do not determine p0, p1"):
        found = default().fit((x, y), twice, [1.0, 2.0, 1.0, 0.4])
    assert found.success
    assert np.all(np.isinf(found.perr[:2]))
    assert np.all(np.isfinite(found.perr[2:]))
    wanted, _ = scipy_fit(decay, x, y, [2.0, 1.0, 0.4])
    np.testing.assert_allclose(found.x[0] + found.x[1], wanted[0], rtol=1e-6)
    np.testing.assert_allclose(found.x[2:], wanted[1:], rtol=1e-6)


PRESETS = {f.__name__: f for f in (default, aggressive, conservative, memory_optimised, scientific)}
DEFENCES = (strict_defences, relaxed_defences, no_defences)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    x, y = simulated("decay", 2000)
    found = PRESETS[name]().fit((x, y), decay, [2.0, 1.0, 0.4])
    wanted, pcov = scipy_fit(decay, x, y, [2.0, 1.0, 0.4])
    assert found.success
    assert np.all(np.abs(found.x - wanted) / np.sqrt(np.diagonal(pcov)) < 1e-2)


def test_memory_preset_stores_float32():
    x, y = simulated("decay", 2000)
    optimiser = memory_optimised()
    seen = []
    model = jax.tree_util.Partial(decay)
    optimiser.fit((x, y), lambda x, *b: seen.append(x.dtype) or model(x, *b), [2.0, 1.0, 0.4])
    source = source_stored_as(as_source((x, y), chunk=optimiser.chunk), optimiser.stored_as)
    chunk = next(source.chunks())
    assert chunk.y.dtype == np.float32
    assert chunk.y.shape == (1000,)
    # The arithmetic is in double precision.
    assert set(seen) == {np.dtype("float64")}


@pytest.mark.parametrize("defences", DEFENCES, ids=lambda f: f.__name__)
def test_defences_presets(defences):
    x, y = simulated("decay", 2000)
    found = HybridOptimiser(warm_up=defences()).fit((x, y), decay, [2.0, 1.0, 0.4])
    assert found.success


def corner(x, a, b):
    """NaN for b below 0.3, where the way from the start leads."""
    return a * jnp.where(b > 0.3, jnp.sqrt(b - 0.3), jnp.nan) * x


def test_model_without_value_in_a_corner():
    x = np.linspace(0.1, 1, 200)
    y = np.asarray(corner(x, 2.0, 0.34)) + np.random.default_rng(0).normal(0, 0.01, x.size)

    def model(x, b):
        return corner(x, 2.0, b)

    found = default().fit((x, y), model, [2.0])
    assert found.success
    assert abs(found.x[0] - 0.34) < 3 * found.perr[0]
    nowhere = default().fit((x, y), model, [0.1])
    assert nowhere.status is Status.non_finite
    assert not nowhere.success
    assert nowhere.x[0] == 0.1


def test_bad_data_and_arguments():
    x, y = simulated("decay", 200)
    broken = y.copy()
    broken[17] = np.inf
    with pytest.raises(DataError, match="index 17"):
        default().fit((x, broken), decay, [2.0, 1.0, 0.4])
    with pytest.raises(ModelError, match=r"p1.*inside the bounds"):
        default().fit((x, y), decay, [2.0, 9.0, 0.4], bounds=(0.0, 5.0))
    with pytest.raises(ModelError, match="3 parameters cannot be fitted to 2 points"):
        default().fit((x[:2], y[:2]), decay, [2.0, 1.0, 0.4])
    with jax.enable_x64(False), pytest.raises(PrecisionError):
        default().fit((x, y), decay, [2.0, 1.0, 0.4])


MODELS_OF_NO_USE = {
    "numpy": (lambda x, a, b, c: a * np.exp(-b * x) + c, "with jax.numpy instead of numpy"),
    "if": (lambda x, a, b, c: decay(x, a, b, c) if a > 0 else x, "jnp.where instead of if"),
    "column": (lambda x, *b: decay(x, *b)[:, None], r"shape \(200, 1\).*one for each point"),
}


@pytest.mark.parametrize("case", MODELS_OF_NO_USE)
def test_models_that_cannot_be_used(case):
    model, message = MODELS_OF_NO_USE[case]
    x, y = simulated("decay", 200)
    for fit in (default().fit, lambda source, *rest: curve_fit(rest[0], *source, *rest[1:])):
        with pytest.raises(ModelError, match=message):
            fit((x, y), model, np.array([2.0, 1.0, 0.4]))


def test_zero_weights_count_for_nothing():
    x, y = simulated("decay", 300)
    ones = np.ones(100)

    def chunks():
        for i in range(3):
            part = slice(100 * i, 100 * i + 100)
            yield Chunk(x[part], y[part], ones, np.zeros(100, int))
            # What has no weight may be nonsense.
            yield Chunk(x[part], np.full(100, 1e9), 0 * ones, np.zeros(100, int))

    found = HybridOptimiser(chunk=100).fit(chunks, decay, [2.0, 1.0, 0.4])
    whole = HybridOptimiser(chunk=100).fit((x, y), decay, [2.0, 1.0, 0.4])
    np.testing.assert_allclose(found.x, whole.x, rtol=1e-12)
    assert found.n_pairs == 300


def test_gradient_where_padding_is_outside_the_domain():
    x = np.linspace(1, 2, 6)
    problem = streamed_objective(as_source((x, x), chunk=4), lambda x, a: a * jnp.sqrt(x), [1.5])
    chunk = Chunk(np.array([1.0, 0.0, -1.0]), np.ones(3), np.array([1.0, 0, 0]), np.zeros(3))
    inside, _, root = problem.model.points(chunk, float)
    np.testing.assert_array_equal(inside, np.ones(3))
    np.testing.assert_array_equal(root, [1, 0, 0])
    assert np.all(np.isfinite(problem.cost_and_gradient(problem.start, None)[1]))


def test_exact_data():
    x = np.linspace(0, 5, 300)
    y = np.asarray(decay(jnp.asarray(x), 2.5, 1.3, 0.0))
    found = default().fit((x, y), decay, [1.0, 1.0, 1.0])
    assert found.success
    np.testing.assert_allclose(found.x, [2.5, 1.3, 0.0], atol=1e-12)
    flat = default().fit((x, np.ones_like(x)), lambda x, level: level + 0 * x, [3.0])
    assert flat.success
    assert flat.x[0] == 1


def test_robust_loss():
    x, y = simulated("decay", 1000)
    y[::50] += 3.0
    found = default().fit((x, y), decay, [2.0, 1.0, 0.4], loss=SoftL1(0.05))
    plain = default().fit((x, y), decay, [2.0, 1.0, 0.4])
    assert found.success
    assert abs(found.x[2] - 0.5) < 0.02 < abs(plain.x[2] - 0.5)


def test_a_callback_sees_and_stops():
    x, y = simulated("decay", 1000)
    seen = []
    watched = default().fit((x, y), decay, [2.0, 1.0, 0.4], callback=lambda s: seen.append(s))
    # One state for each iteration of the warm-up, its start included, and each evaluation.
    steps = int(watched.warm_up.iteration) + 1
    assert len(seen) == steps + len(watched.history.cost)
    assert seen[0].phase == "warm-up"
    np.testing.assert_array_equal(seen[-1].y, watched.x)
    stopped = default().fit((x, y), decay, [2.0, 1.0, 0.4], callback=lambda s: True)
    assert stopped.status is Status.interrupted
    assert not stopped.success
    np.testing.assert_allclose(
        stopped.fun, 0.5 * np.sum((np.asarray(decay(x, *stopped.x)) - y) ** 2), rtol=1e-12
    )


def test_nothing_is_traced_again_for_new_values():
    traces = []

    def counted(x, a, b, c):
        traces.append(1)
        return decay(x, a, b, c)

    x, y = simulated("decay", 2000)
    default().fit((x, y), counted, [2.0, 1.0, 0.4])
    before = len(traces)
    assert before > 0
    bounds = ([0.0, 0.0, 0.0], [9.0, 9.0, 9.0])
    default().fit((x + 0.01, y + 0.1), counted, [2.1, 1.1, 0.5], bounds=bounds)
    assert len(traces) == before


def test_a_start_where_the_model_nearly_overflows():
    x, y = simulated("decay", 300)
    found = default().fit((x, y), decay, [1e140, 0.1, 0.4])
    # Whatever comes of it, it comes without a warning, and only success is called so.
    near = bool(np.all(np.abs(found.x - MODELS["decay"][1]) < 4 * found.perr))
    assert found.success <= near
    assert np.isfinite(found.fun)


def test_data_that_are_zero_everywhere():
    # Squares of what is left lose their digits: no step can be judged, and none is needed.
    x = np.linspace(0, 10, 60)
    for optimiser in (default(), aggressive()):
        found = optimiser.fit((x, 0 * x), lambda x, a, b: a * x + b, [1.0, 1.0])
        assert found.success, found.message
        # Steps are judged by the size of the start.
        assert np.all(np.abs(found.x) < optimiser.tolerance)
