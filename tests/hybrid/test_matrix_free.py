"""Steps by products JᵀJ v: the same minimum without the matrix, and thousands of parameters."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from helpers import DOUBLE, LAMINAR, make_data, mapped

from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import fitted
from xpcs_eqx.hybrid import HybridOptimiser, VectorModel, WarmUp, as_source, streamed_objective
from xpcs_eqx.objective import GroupVariance, SoftL1, curve_objective, projected_objective
from xpcs_eqx.optimize import ConjugateGradient, TrustRegion, covariance_columns, iterate_host
from xpcs_eqx.optimize.matrix_free import gradient_equations

X = np.linspace(0, 5, 400)
START = np.array([2.0, 1.0, 0.4])


def decay(x, amplitude, rate, offset):
    return amplitude * jnp.exp(-rate * x) + offset


Y = np.asarray(decay(jnp.asarray(X), 2.5, 1.3, 0.5)) + np.random.default_rng(0).normal(0, 0.05, 400)


def problem(bounds=None, start=START, **keywords):
    return streamed_objective(as_source((X, Y), chunk=150), decay, start, bounds=bounds, **keywords)


OBJECTIVES = {
    "source": lambda: problem(),
    "arrays": lambda: curve_objective(decay, X, Y, START),
    "robust": lambda: problem(loss=SoftL1(0.1)),
    "penalties": lambda: problem(penalties=(GroupVariance((("p0", "p1"),), 3.0),)),
}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_products_are_those_of_the_matrix(kind):
    objective = OBJECTIVES[kind]()
    y, v = objective.start, jnp.array([0.3, -1.0, 2.0])
    equations, _ = objective.evaluate(y, objective.memo)
    np.testing.assert_allclose(objective.product(y, v), equations.hessian @ v, rtol=1e-10)
    np.testing.assert_allclose(objective.diagonal(y), equations.diagonal, rtol=1e-10)
    cost, gradient = objective.cost_and_gradient(y, objective.memo)
    np.testing.assert_allclose(cost, equations.cost, rtol=1e-13)
    np.testing.assert_allclose(gradient, equations.gradient, rtol=1e-9)


def test_any_objective_has_products():
    data = make_data(LAMINAR, n=15)
    objective = projected_objective(mapped(LAMINAR, data), data)
    y = objective.variables.to_coordinates(objective.start)
    hessian = objective.evaluate(y, objective.memo)[0].hessian
    v = jnp.ones(y.shape)
    np.testing.assert_allclose(objective.product(y, v), hessian @ v, rtol=1e-12)
    with pytest.raises(ModelError, match="use another descent"):
        iterate_host(TrustRegion(descent=ConjugateGradient()), objective, objective.start)
    with pytest.raises(ModelError, match="another descent where all is compiled"):
        fitted(curve_objective(decay, X, Y, START), solver=TrustRegion(descent=ConjugateGradient()))
    with pytest.raises(ModelError, match="the points of a source do not allow"):
        fitted(problem())


@pytest.mark.parametrize("radius", [1e6, 1e-9])
def test_a_step_is_the_newton_step_inside_the_radius(radius):
    objective = problem()
    equations = gradient_equations(objective, objective.start, np.inf)
    scale, largest = jnp.array([1.0, 2.0, 0.5]), jnp.zeros(3)
    step = ConjugateGradient(forcing=1e-12).step(
        objective.variables,
        objective.start,
        scale,
        equations,
        largest,
        jnp.asarray(radius),
        objective.product,
    )
    hessian = np.asarray(objective.evaluate(objective.start, None)[0].hessian)
    scaled = hessian * np.outer(scale, scale)
    gradient = np.asarray(scale * equations.gradient)
    np.testing.assert_allclose(step.curved, scaled @ step.z, rtol=1e-9)
    newton = -np.linalg.solve(scaled, gradient)
    if radius > 1:
        np.testing.assert_allclose(step.z, newton, rtol=1e-6)
        moved = np.sqrt(-gradient @ newton / 2 / float(equations.cost))
        np.testing.assert_allclose(step.closeness.offset, moved, rtol=1e-6)
    else:
        length = radius * np.linalg.norm(gradient)
        np.testing.assert_allclose(np.linalg.norm(step.z), length, rtol=1e-6)
        assert step.closeness.offset == np.inf


def test_in_a_box():
    bounds = ([0.0, 0.1, 0.6], [10.0, 5.0, 3.0])
    by_products = HybridOptimiser(matrix_free_above=1).fit((X, Y), decay, [2, 1, 0.9], bounds)
    by_matrix = HybridOptimiser().fit((X, Y), decay, [2, 1, 0.9], bounds)
    assert by_products.success
    np.testing.assert_allclose(by_products.x, by_matrix.x, rtol=1e-6)
    assert np.all(np.isnan(by_products.pcov))
    assert np.all(np.isnan(by_products.perr[:2]))
    columns = covariance_columns(
        problem(bounds=bounds, start=(2, 1, 0.9)),
        by_products.x,
        (1, 2),
        by_products.residual_sd**2,
    )
    np.testing.assert_allclose(columns, by_matrix.pcov[:, 1:], rtol=1e-5, atol=1e-20)


def test_a_robust_fit_and_penalties():
    for keywords in ({"loss": SoftL1(0.05)}, {"penalties": (GroupVariance((("p0", "p1"),), 3.0),)}):
        free, held = (
            HybridOptimiser(matrix_free_above=above).fit((X, Y), decay, START, **keywords)
            for above in (1, 2000)
        )
        assert free.success
        np.testing.assert_array_less(np.abs(free.x - held.x), DOUBLE.optimum * held.perr)
        np.testing.assert_allclose(free.residual_sd, held.residual_sd, rtol=1e-6)


KNOTS, POINTS = 5000, 20_000


def knots(x, heights):
    """exp of a line through heights at equidistant knots in [0, 1]."""
    place = x * (KNOTS - 1)
    left = jnp.clip(place.astype(int), 0, KNOTS - 2)
    share = place - left
    return jnp.exp(0.3 * ((1 - share) * heights[left] + share * heights[left + 1]))


@pytest.mark.long
def test_five_thousand_parameters():
    random = np.random.default_rng(0)
    x = random.uniform(0, 1, POINTS)
    truth = np.sin(6 * np.linspace(0, 1, KNOTS)) + 1.2
    y = np.asarray(knots(jnp.asarray(x), jnp.asarray(truth))) + random.normal(0, 0.01, POINTS)
    short = WarmUp(minimum=20, max_iterations=20)
    found = HybridOptimiser(warm_up=short).fit((x, y), VectorModel(knots), np.full(KNOTS, 1.0))
    print(found.timings, found.evaluations)
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
