"""Groups: of points, with weights, and of parameters, drawn together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DOUBLE, Stretched, make_data, mapped

from xpcs_eqx.defences import AbsoluteVariation
from xpcs_eqx.errors import DataError, ModelError
from xpcs_eqx.hybrid import (
    ArraySource,
    HybridOptimiser,
    group_variances,
    streamed_objective,
    with_group_weights,
)
from xpcs_eqx.objective import noise_of, two_time_objective
from xpcs_eqx.objective.penalties import GroupVariance

RNG = np.random.default_rng(1)
N = 3000
X = RNG.uniform(0, 5, N)
GROUP = np.arange(N) % 3
NOISE = np.array([0.01, 0.1, 0.05])
Y = 2.0 * np.exp(-0.7 * X) + 0.3 + NOISE[GROUP] * RNG.normal(size=N)
# One group lies: without weights it draws the offset.
Y = Y + np.where(GROUP == 1, 0.2, 0.0)
START = np.array([1.0, 1.0, 0.0])


def decay(x, amplitude, rate, offset):
    return amplitude * jnp.exp(-rate * x) + offset


def problem(weights=None, sigma=None, chunk=700):
    source = ArraySource(X, Y, sigma, GROUP, chunk)
    return streamed_objective(source, decay, START, group_weights=weights, bounds=(-10.0, 10.0))


OPTIMISER = HybridOptimiser()


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [1.0, 0.01, 2.0], [1.0, 0.0, 0.5]])
def test_group_weights_move_the_optimum_as_weighted_least_squares(weights):
    curve_fit = pytest.importorskip("scipy.optimize").curve_fit
    weights = np.array(weights)
    found = OPTIMISER.fit((X, Y), decay, START, (-10.0, 10.0), groups=GROUP, group_weights=weights)
    used = weights[GROUP] > 0
    wanted, covariance = curve_fit(
        decay, X[used], Y[used], START, 1 / np.sqrt(weights[GROUP][used]), xtol=1e-14, ftol=1e-14
    )
    errors = np.sqrt(np.diagonal(covariance))
    assert found.success
    assert found.n_pairs == used.sum()
    np.testing.assert_array_less(np.abs(found.x - wanted), DOUBLE.optimum * errors)
    np.testing.assert_allclose(found.perr, errors, rtol=1e-5)
    if weights[1] < 1:
        assert abs(found.x[2] - 0.3) < 0.01
    else:
        assert abs(found.x[2] - 0.3) > 0.05


def test_weights_are_replaced_without_tracing_again():
    traced = []

    def model(x, *parameters):
        traced.append(parameters)
        return decay(x, *parameters)

    source = ArraySource(X, Y, None, GROUP, 700)
    one = streamed_objective(source, model, START, group_weights=np.ones(3))
    one.evaluate(one.start, None)
    before = len(traced)
    found, _ = with_group_weights(one, [4.0, 0.0, 0.0]).evaluate(one.start, None)
    assert len(traced) == before > 0
    only = streamed_objective(ArraySource(X[GROUP == 0], Y[GROUP == 0], 0.5), decay, START)
    wanted, _ = only.evaluate(only.start, None)
    np.testing.assert_allclose(found.hessian, wanted.hessian, rtol=1e-12)


def test_variances_of_groups_suggest_the_weights():
    truth = np.array([2.0, 0.7, 0.3])
    found = group_variances(problem([5.0, 1.0, 1.0], sigma=0.1), truth, 4)
    r = (decay(X, *truth) - Y) / 0.1
    wanted = [np.mean(r[g == GROUP] ** 2) for g in range(3)]
    np.testing.assert_allclose(found[:3], wanted, rtol=1e-10)
    assert np.isnan(found[3])
    # Two outer iterations: the group that lies has lost its say.
    weights = np.ones(3)
    for _ in range(3):
        fit = OPTIMISER.minimise(problem(weights))
        weights = 1 / group_variances(problem(), fit.x, 3)
    assert weights[0] > 20 * weights[1]
    assert abs(fit.x[2] - 0.3) < 0.02


def test_groups_without_a_weight_are_named():
    with pytest.raises(DataError, match="group 2, but there are weights for 2 groups"):
        OPTIMISER.minimise(problem(np.ones(2)))
    with pytest.raises(DataError, match="group 2"):
        group_variances(problem(), START, 2)
    for wrong in ([1.0, -1.0, 1.0], [1.0, np.nan, 1.0], 3.0):
        with pytest.raises(ModelError, match="weights of groups"):
            with_group_weights(problem(), wrong)


NAMES = tuple("abcde")
VARIANCE = GroupVariance((("a", "b", "c"), ("d", "e")), 0.7)


def values(y):
    return dict(zip(NAMES, y, strict=True))


def cost_of(penalty, y):
    r = np.asarray(penalty.residuals(values(y)))
    return 0.5 * r @ r


def test_the_cost_is_the_variance():
    y = RNG.normal(size=5)
    wanted = 0.5 * 0.7 * (np.var(y[:3]) + np.var(y[3:]))
    assert cost_of(VARIANCE, y) == pytest.approx(wanted, rel=1e-13)
    assert cost_of(GroupVariance((("a", "d"),), 0.0), y) == 0.0


def test_gradient_and_curvature_of_a_penalty_are_those_of_its_cost():
    # Of the data, which any values of the five fit alike, nothing is left.
    objective = streamed_objective(
        (X, 0 * X), lambda x, *b: 0 * x, np.zeros(5), names=NAMES, penalties=(VARIANCE,)
    )
    y, v = RNG.normal(size=5), RNG.normal(size=5)
    cost, gradient = objective.cost_and_gradient(jnp.asarray(y), None)
    equations, _ = objective.evaluate(jnp.asarray(y), None)
    assert float(cost) == pytest.approx(cost_of(VARIANCE, y), rel=1e-13)
    assert float(equations.cost) == pytest.approx(float(cost), rel=1e-13)
    unit = 1e-4 * np.eye(5)
    slope = [(cost_of(VARIANCE, y + e) - cost_of(VARIANCE, y - e)) / 2e-4 for e in unit]
    np.testing.assert_allclose(gradient, slope, rtol=DOUBLE.difference, atol=1e-9)
    np.testing.assert_allclose(equations.gradient, gradient, rtol=1e-12, atol=1e-14)

    def gradient_at(x):
        return objective.cost_and_gradient(jnp.asarray(x), None)[1]

    turn = [(gradient_at(y + e) - gradient_at(y - e)) / 2e-4 for e in unit]
    np.testing.assert_allclose(equations.hessian, turn, rtol=DOUBLE.difference, atol=1e-9)
    found = objective.product(jnp.asarray(y), v)
    np.testing.assert_allclose(found, equations.hessian @ v, atol=1e-12)
    np.testing.assert_allclose(objective.diagonal(jnp.asarray(y)), equations.diagonal, atol=1e-13)


def two_rates(x, first, second, offset):
    return jnp.where(x < 2.5, first, second) * x + offset


def test_a_group_variance_draws_parameters_of_a_streamed_fit_together():
    y = np.where(X < 2.5, 1.0, 1.2) * X + 0.01 * RNG.normal(size=N)
    names = ("k1", "k2", "offset")

    def pulled_by(weight):
        penalties = (GroupVariance((("k1", "k2"),), weight),) if weight else ()
        return streamed_objective((X, y), two_rates, START, names=names, penalties=penalties)

    gaps, costs = [], []
    for weight in (0.0, 1e3, 1e7):
        fit = OPTIMISER.minimise(pulled_by(weight))
        assert fit.success
        gaps.append(abs(fit.x[1] - fit.x[0]))
        costs.append(fit.fun)
    assert gaps[0] == pytest.approx(0.2, abs=0.01)
    assert gaps[0] > 1.05 * gaps[1] > 50 * gaps[2]
    assert costs[0] < costs[1] < costs[2]
    # At the optimum the whole gradient vanishes, that of the penalty included.
    pulled = pulled_by(1e3)
    fit = OPTIMISER.fit((X, y), two_rates, START, names=names, penalties=pulled.penalties)
    own, whole = (
        np.linalg.norm(one.cost_and_gradient(jnp.asarray(fit.x), None)[1])
        for one in (pulled_by(0.0), pulled)
    )
    assert whole < 1e-6 * own


def test_a_group_variance_in_a_two_time_objective():
    data = make_data(Stretched(2.0, 0.8), n=15)
    parameters = mapped(Stretched(2.2, 0.9), data)
    penalty = GroupVariance((("tau", "stretch"),), 3.0)
    plain = two_time_objective(parameters, data, eliminate=False)
    pulled = two_time_objective(parameters, data, penalties=(penalty,), eliminate=False)
    y = plain.variables.to_coordinates(plain.start)

    @jax.jit
    def both(y):
        return [o.evaluate(y, o.memo)[0] for o in (plain, pulled)]

    before, after = both(y)
    # χ² grows by λ Var; without sigma the cost is in units of the noise of the maps.
    wanted = 1.5 * np.var([2.2, 0.9]) * noise_of(plain.term.tiles) ** 2
    assert float(after.cost - before.cost) == pytest.approx(wanted, rel=1e-6)
    step = 1e-5 * np.eye(y.size)[0]
    up, down = both(y + step), both(y - step)
    difference = [(float(u.cost) - float(d.cost)) / 2e-5 for u, d in zip(up, down, strict=True)]
    found = float(after.gradient[0] - before.gradient[0])
    assert found == pytest.approx(difference[1] - difference[0], rel=1e-5)


def test_a_group_variance_of_contrasts_in_a_hybrid_fit_of_a_map():
    contrast = np.array([0.15, 0.2, 0.25])
    data = make_data(Stretched(2.0, 0.8), n=15, contrast=contrast, noise=0.002)
    parameters = mapped(Stretched(2.0, 0.8), data)
    spreads = []
    # Far more than the data, whose sum of squares is 0.001.
    for weight in (0.0, 1e6):
        together = AbsoluteVariation(weight, 1.0, ("contrast",))
        objective = two_time_objective(
            parameters, data, eliminate=False, scaling_penalties=(together,)
        )
        fit = OPTIMISER.minimise(objective)
        assert fit.success
        # Their common size goes along with the shape of the decay; their ratios do not.
        spreads.append(np.std(fit.contrast) / np.mean(fit.contrast))
    assert spreads[0] == pytest.approx(np.std(contrast) / np.mean(contrast), rel=0.05)
    assert spreads[1] < 0.01 * spreads[0]


@pytest.mark.parametrize(
    ("groups", "weight", "message"),
    [
        ((("a",),), 1.0, "at least two"),
        ((("a", "a"),), 1.0, "different names"),
        (("ab",), 1.0, "each several in a list, each a text"),
        ((("a", "b"),), -1.0, "not be below 0"),
    ],
)
def test_what_is_no_group_variance(groups, weight, message):
    with pytest.raises(ModelError, match=message):
        GroupVariance(groups, weight)


def test_a_name_that_is_unknown_is_named():
    with pytest.raises(ModelError, match="no parameter 'f'"):
        GroupVariance((("a", "f"),), 1.0).residuals(values(np.zeros(5)))
