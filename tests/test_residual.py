"""All residuals as one vector, and scaling at given physics, for every kind of data."""

import jax
import numpy as np
import pytest
from helpers import LAMINAR, MODELS, SCALINGS, joint_objective, make_data, mapped, pooled

import xpcs_eqx as xe
from xpcs_eqx.data import write_own
from xpcs_eqx.errors import DataError, ModelError
from xpcs_eqx.objective import curve_objective, residual
from xpcs_eqx.parameters import shared_parameters

TRUTH = MODELS["static"]


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("make", [xe.projected_objective, joint_objective])
def test_half_the_squares_are_the_cost(make, scaling):
    data = make_data(TRUTH, n=12)
    objective = make(mapped(TRUTH, data), data, SCALINGS[scaling])
    y = objective.variables.to_coordinates(objective.start)
    equations, _ = jax.jit(lambda o, y: o.evaluate(y, o.memo))(objective, y)
    value, slope = jax.jit(jax.value_and_grad(lambda y: 0.5 * (residual(objective, y) ** 2).sum()))(
        y
    )
    np.testing.assert_allclose(value, equations.cost, rtol=1e-10)
    scale = np.abs(np.asarray(equations.gradient)).max()
    np.testing.assert_allclose(slope, equations.gradient, rtol=1e-6, atol=1e-9 * scale)


def test_of_several_data_sets_and_of_curves():
    data = [make_data(TRUTH, n=12), make_data(TRUTH, n=10, seed=1)]
    parameters = shared_parameters([TRUTH, TRUTH], [one.t for one in data])
    combined = xe.two_time_objective(parameters, data)
    y = combined.variables.to_coordinates(combined.start)
    found = 0.5 * float((residual(combined, y) ** 2).sum())
    np.testing.assert_allclose(found, combined.cost(y, combined.memo), rtol=1e-10)
    x = np.linspace(0.0, 1.0, 7)
    curve = curve_objective(lambda x, a, b: a + b * x, x, 2 * x, np.array([0.5, 1.0]), chunk=3)
    y = curve.start
    wanted = 0.5 + x - 2 * x
    np.testing.assert_allclose(residual(curve, y)[:7], wanted, rtol=1e-14)
    np.testing.assert_array_equal(residual(curve, y)[7:], 0.0)


def test_what_is_refused_says_why():
    data = make_data(LAMINAR, n=12)
    objective = xe.projected_objective(mapped(LAMINAR, data), data)
    with pytest.raises(ModelError, match=r"y has shape \(13,\); give the 7 coordinates of D0, alp"):
        residual(objective, np.zeros(13))

    class Odd(str):
        names = ()

    with pytest.raises(ModelError, match="residuals of a Odd are not known"):
        residual(Odd(), np.zeros(0))  # pyright: ignore[reportArgumentType]


def test_scaling_of_points_and_of_files_is_that_of_maps(tmp_path):
    data = make_data(TRUTH, n=15)
    wanted, believed = xe.fitting.consistent_scaling(TRUTH, data)
    found = xe.fitting.rescaled_surface(TRUTH, data)
    np.testing.assert_allclose(wanted, np.stack([found.contrast, found.offset], axis=1), rtol=1e-12)
    points, path = pooled(data), tmp_path / "maps.h5"
    write_own(path, data)
    stored = xe.open_stored(path)
    for other in (points, stored):
        values, said = xe.fitting.consistent_scaling(TRUTH, other)
        np.testing.assert_allclose(values, wanted, rtol=1e-9)
        assert said == believed
    with pytest.raises(DataError, match=r"PooledData holds no maps .* consistent_scaling"):
        xe.fitting.rescaled_surface(TRUTH, points)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=r"in their file .* data.angle\(k\)"):
        xe.fitting.rescaled_surface(TRUTH, stored)  # pyright: ignore[reportArgumentType]
    one = xe.fitting.rescaled_surface(TRUTH, stored.angle(1))
    np.testing.assert_allclose(one.contrast[0], wanted[1, 0], rtol=1e-9)
