"""The sum of squares and its gradient in one pass: right, vectorised, compiled once."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DOUBLE, MODELS, QUICK_TO_COMPILE, assert_close, make_data, mapped, pooled

from xpcs_eqx.bayes.density.tile_likelihood import data_cost, scaling_statistics
from xpcs_eqx.objective import two_time_objective
from xpcs_eqx.objective.kernel.frame_table import frame_table

SCALING = jnp.asarray([[0.21, 1.01], [0.19, 0.99], [0.2, 1.0]])


def _term(name, kind="map", n=13, **keywords):
    data = make_data(MODELS[name], n=n)
    parameters = mapped(MODELS[name], data)
    if kind == "points":
        data = pooled(data)
    if kind == "weights":
        weights = 50 + 100 * np.random.default_rng(1).random(data.c2.shape)
        weights[:, 3] = weights[:, :, 3] = 0
        data = dataclasses.replace(data, root_weights=weights)
    objective = two_time_objective(parameters, data, **keywords, eliminate=False)
    y = jnp.asarray(np.asarray(parameters.to_coordinates(parameters.start)) * 1.02)
    return objective, y


def _cost(term, y, scaling):
    table = frame_table(term.parameters, y, term.t, term.geometry, False)
    return data_cost(table, scaling, term.tiles)


def _jit(function):
    return eqx.filter_jit(function, compiler_options=QUICK_TO_COMPILE)


@pytest.mark.parametrize("kind", ["map", "points", "weights"])
@pytest.mark.parametrize("name", ["laminar", "fading"])
def test_value_and_gradient_are_those_of_the_normal_equations(name, kind):
    objective, y = _term(name, kind, tile=5 if kind != "points" else 40)
    both = _jit(lambda o, y, s: jax.value_and_grad(lambda y, s: _cost(o.term, y, s), (0, 1))(y, s))
    value, (to_y, to_scaling) = both(objective, y, SCALING)
    whole = jnp.concatenate([y, SCALING.T.ravel()])
    equations, _ = _jit(lambda o, v: o.evaluate(v, o.memo))(objective, whole)
    assert_close(value, equations.cost, DOUBLE.same)
    gradient = np.concatenate([to_y, np.asarray(to_scaling).T.ravel()])
    scale = np.sqrt(np.diagonal(equations.hessian) * 2 * equations.cost)
    assert_close(gradient, equations.gradient, DOUBLE.derivative, scale)


def test_user_kernel_with_scalar_features():
    objective, y = _term("stretched")
    gradient = _jit(lambda o, y: jax.grad(lambda y: _cost(o.term, y, SCALING))(y))(objective, y)
    cost = _jit(lambda o, y: _cost(o.term, y, SCALING))
    for i in range(2):
        step = jnp.zeros_like(y).at[i].set(1e-5)
        slope = (cost(objective, y + step) - cost(objective, y - step)) / 2e-5
        assert_close(gradient[i], slope, DOUBLE.difference)


@pytest.mark.parametrize("kind", ["map", "points"])
def test_statistics_hold_what_the_data_say_of_the_scaling(kind):
    """Cost at any other scaling follows from them, and so does its gradient."""
    objective, y = _term("laminar", kind)
    reference = SCALING - 0.01

    def moved(term, y):
        table = frame_table(term.parameters, y, term.t, term.geometry, False)
        sums = scaling_statistics(table, reference, term.tiles)
        step = SCALING - reference
        curved = jnp.einsum("ast,at->as", sums.hessian, step)
        return jnp.sum(sums.cost) + jnp.sum(step * (sums.gradient + 0.5 * curved))

    found = _jit(lambda o, y: jax.value_and_grad(lambda y: moved(o.term, y))(y))(objective, y)
    wanted = _jit(lambda o, y: jax.value_and_grad(lambda y: _cost(o.term, y, SCALING))(y))(
        objective, y
    )
    assert_close(found[0], wanted[0], DOUBLE.same)
    assert_close(found[1], wanted[1], DOUBLE.derivative)


def test_batches_and_second_derivatives():
    objective, y = _term("static")
    batch = jnp.stack([y, 1.01 * y, 0.99 * y])
    one = _jit(lambda o, y: jax.value_and_grad(lambda y: _cost(o.term, y, SCALING))(y))
    many = _jit(lambda o, b: jax.vmap(jax.value_and_grad(lambda y: _cost(o.term, y, SCALING)))(b))
    values, gradients = many(objective, batch)
    for k in range(3):
        value, gradient = one(objective, batch[k])
        assert_close(values[k], value, DOUBLE.same)
        assert_close(gradients[k], gradient, DOUBLE.derivative)
    hessian = _jit(lambda o, y: jax.hessian(lambda y: _cost(o.term, y, SCALING))(y))(objective, y)
    step = jnp.zeros_like(y).at[0].set(1e-5)
    column = (one(objective, y + step)[1] - one(objective, y - step)[1]) / 2e-5
    assert_close(hessian[0], column, DOUBLE.difference, np.abs(np.asarray(hessian)).max())


def test_other_values_compile_nothing():
    count = 0

    @eqx.filter_jit
    def both(objective, y):
        nonlocal count
        count += 1
        return jax.value_and_grad(lambda y: _cost(objective.term, y, SCALING))(y)

    objective, y = _term("static")
    both(objective, y)
    other = eqx.tree_at(lambda o: o.term.tiles.c2, objective, objective.term.tiles.c2 + 0.1)
    both(other, 1.1 * y)
    assert count == 1
