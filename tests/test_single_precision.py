"""Tiles in single precision: the same equations to rounding, and a fit that ends in double."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LOSSES, MODELS, frame_times, make_data, mapped, pooled

import xpcs_eqx as xe
from xpcs_eqx.data import write_own
from xpcs_eqx.objective import in_single_precision
from xpcs_eqx.objective.kernel.blocks import sums


@pytest.fixture(scope="module")
def laminar():
    data = make_data(t=frame_times(101))
    return xe.projected_objective(mapped(MODELS["laminar"], data), data)


def step_error(objective, single):
    """How far equations in single precision lead a Newton step astray, in standard errors."""
    y = jnp.asarray(objective.variables.to_coordinates(jnp.asarray(objective.start)))
    exact, rough = (one.evaluate(y, one.memo)[0] for one in (objective, single))
    assert rough.cost.dtype == np.float64
    scale = np.sqrt(np.diag(exact.hessian))
    difference = (exact.hessian - rough.hessian) / scale[:, None] / scale
    # Relative to columns of which contrast and offset have taken the most.
    assert 1e-12 < np.max(np.abs(difference)) < 5e-4
    covariance = np.linalg.pinv(np.asarray(exact.hessian)) * 2 * exact.cost / exact.count
    missed = np.linalg.pinv(np.asarray(exact.hessian)) @ (exact.gradient - rough.gradient)
    return np.max(np.abs(missed) / np.sqrt(np.diag(covariance)))


@pytest.mark.parametrize("model", ["laminar", "fading"])
def test_a_step_is_off_by_little(model):
    data = make_data(MODELS[model], t=frame_times(101))
    objective = xe.projected_objective(mapped(MODELS[model], data), data)
    assert step_error(objective, in_single_precision(objective)) < 2e-3


def test_any_loss():
    data = make_data(t=frame_times(101))
    objective = xe.two_time_objective(
        mapped(MODELS["laminar"], data), data, loss=LOSSES["soft_l1"], eliminate=False
    )
    assert step_error(objective, in_single_precision(objective)) < 2e-3


@pytest.fixture(scope="module")
def fit(laminar):
    return xe.least_squares(laminar)


def test_the_end_is_in_double_precision(laminar, fit):
    quick = xe.least_squares(laminar, warm_up=xe.optimize.SinglePrecision())
    assert quick.success
    # Ten times closer than what is asked of it.
    np.testing.assert_array_less(np.abs(quick.x - fit.x), 1e-4 * fit.perr)
    np.testing.assert_allclose(quick.perr, fit.perr, rtol=1e-6)
    before = quick.prepared["single precision"].evaluations
    assert before >= 5
    assert quick.evaluations - before <= 4 < fit.evaluations
    # What rounding refuses is left to double precision.
    assert quick.evaluations <= fit.evaluations + 3


@pytest.mark.long
def test_maps_in_a_file(laminar, fit, tmp_path):
    data = make_data(t=frame_times(101))
    write_own(tmp_path / "maps.hdf", data)
    stored = xe.open_stored(tmp_path / "maps.hdf")
    objective = xe.projected_objective(mapped(MODELS["laminar"], data), stored)
    quick = xe.least_squares(objective, warm_up=xe.optimize.SinglePrecision())
    np.testing.assert_array_less(np.abs(quick.x - fit.x), 1e-2 * fit.perr)


def test_it_is_gone_on_with(laminar, tmp_path):
    whole = xe.least_squares(laminar, warm_up=xe.optimize.SinglePrecision())
    seen = []

    def stop(state):
        seen.append(state)
        return len(seen) == 4

    how = {"warm_up": xe.optimize.SinglePrecision(), "checkpoints": xe.Checkpoints(tmp_path)}
    xe.least_squares(laminar, callback=stop, **how)
    again = xe.least_squares(laminar, resume=True, **how)
    assert again.evaluations == whole.evaluations
    np.testing.assert_array_equal(again.x, whole.x)


def test_points_are_refused():
    data = make_data(n=11)
    points = pooled(data)
    objective = xe.projected_objective(mapped(MODELS["static"], data), points)
    assert in_single_precision(objective) is None
    with pytest.raises(xe.ModelError, match="SinglePrecision is for maps"):
        xe.least_squares(objective, warm_up=xe.optimize.SinglePrecision())


def test_sums_of_several_arrays_have_every_derivative():
    a, b = jnp.arange(12.0).reshape(3, 4), jnp.ones((3, 4))

    def total(a):
        first, second, both = sums([a, b, a * b], (0,))
        return jnp.sum(first * second * both)

    def plain(a):
        return jnp.sum(a.sum(0) * b.sum(0) * (a * b).sum(0))

    change = jnp.cos(a)
    batch = jnp.stack([a, 2 * a])

    @partial(jax.jit, static_argnums=0)
    def derivatives(function):
        mixed = jax.jvp(jax.grad(function), (a,), (change,))[1]
        return jax.grad(function)(a), jax.hessian(function)(a), mixed, jax.vmap(function)(batch)

    for found, wanted in zip(derivatives(total), derivatives(plain), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-14)
    nine = sums([a + k for k in range(9)], (0, 1))
    np.testing.assert_allclose(nine, [66 + 12 * k for k in range(9)], rtol=1e-14)
