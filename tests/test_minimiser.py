"""The trust region as a minimiser of Optimistix, and Optimistix' own solver on the residual."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import xpcs_eqx as xe
from xpcs_eqx.optimize import TrustRegionMinimiser, value_and_equations


@pytest.fixture(scope="module")
def problem():
    t = np.arange(1, 25) * 0.1
    model = xe.Static(xe.PowerLawRate(2e4, -0.3, 0.0))
    geometry = xe.Geometry(q=0.0054, phi=np.array([0.0]))
    c2 = 1.0 + 0.3 * np.asarray(xe.correlation_map(model, t, geometry))
    noise = np.triu(np.random.default_rng(0).normal(0, 0.005, c2.shape), 1)
    data = xe.TwoTimeData(
        c2 + noise + np.swapaxes(noise, 1, 2), t, geometry, None, np.full(c2.shape[:2], np.nan)
    )
    return xe.parameter_map(model, t, fixed=("D_offset",)), data


def minimise(parameters, objective, start):
    return optx.minimise(
        lambda y, o: value_and_equations(o, y),
        TrustRegionMinimiser(),
        parameters.to_coordinates(start),
        args=objective,
        has_aux=True,
        options={"variables": parameters},
        throw=False,
    ).value


def test_three_ways_to_the_same_minimum(problem):
    parameters, data = problem
    start = jnp.asarray(parameters.start) * jnp.array([1.4, 0.6])
    fit = xe.least_squares(xe.projected_objective(parameters, data), start)
    by_optimistix = parameters.to_physical(
        minimise(parameters, xe.projected_objective(parameters, data), start)
    )
    joint = xe.two_time_objective(parameters, data, eliminate=False)
    first = jnp.concatenate([start, jnp.asarray(joint.start)[2:]])
    marquardt = optx.least_squares(
        lambda y, o: xe.objective.residual(o, y),
        optx.LevenbergMarquardt(rtol=1e-12, atol=1e-12),
        joint.variables.to_coordinates(first),
        args=joint,
        throw=False,
    ).value
    best = fit.values[fit.index.physical]
    np.testing.assert_allclose(by_optimistix, best, rtol=1e-7)
    np.testing.assert_allclose(joint.variables.to_physical(marquardt)[:2], best, rtol=1e-6)
    np.testing.assert_allclose(marquardt[2:], [fit.contrast[0], fit.offset[0]], rtol=1e-7)


@pytest.mark.long
def test_implicit_derivative_with_respect_to_an_entry(problem):
    parameters, data = problem
    objective = xe.projected_objective(parameters, data)
    c2 = objective.term.tiles.c2

    def amplitude(c2):
        changed = eqx.tree_at(lambda o: o.term.tiles.c2, objective, c2)
        y = minimise(parameters, changed, jnp.asarray(parameters.start))
        return parameters.to_physical(y)[0]

    change = jnp.zeros_like(c2).at[0, 3, 7].set(1.0)
    slope = jax.jvp(amplitude, (c2,), (change,))[1]
    step = 1e-3
    difference = (amplitude(c2 + step * change) - amplitude(c2 - step * change)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-4)
