"""Coordinates of samplers: exact determinants, supports, and no influence on the posterior."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MODELS, QUICK_TO_COMPILE, make_data, mapped

from xpcs_eqx.bayes import Uniform, default_priors, log_posterior
from xpcs_eqx.bayes.density.coordinates import (
    FreeReference,
    FreeSlope,
    HalfLine,
    Interval,
    LogInterval,
    TanhInterval,
)
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.parameters import Affine, Identity, ReferenceAmplitude, ReferenceTime, Slope

_jit = partial(eqx.filter_jit, compiler_options=QUICK_TO_COMPILE)
SLOPE = Slope(3.0)
CASES = {
    "interval": (Interval(-1.0, 2.0), (0.4,)),
    "tanh": (TanhInterval(-2.0, 2.0), (1.1,)),
    "log-interval": (LogInterval(1.0, 1e6), (0.3,)),
    "above": (HalfLine(2.0, 1), (-0.5,)),
    "below": (HalfLine(2.0, -1), (0.7,)),
    "slope": (FreeSlope(SLOPE, TanhInterval(-2.0, 2.0), 0), (9.0, -0.4, 0.2)),
    "slope-unbounded": (FreeSlope(SLOPE, Identity(), 0), (9.0, -0.4, -0.3)),
    "slope-offset-above-0": (FreeSlope(SLOPE, TanhInterval(-2.0, 2.0), 1), (9.0, -0.4, -0.6)),
    "slope-offset-below-0": (FreeSlope(SLOPE, TanhInterval(-2.0, 2.0), -1), (9.0, -0.4, 0.6)),
    "reference-time": (FreeReference(ReferenceTime(3.0), TanhInterval(-2.0, 2.0)), (9.0, 0.4, 0.2)),
    "amplitude": (FreeReference(ReferenceAmplitude(3.0), TanhInterval(-2.0, 2.0)), (9.0, 0.4)),
}


@pytest.mark.parametrize("name", CASES)
def test_round_trip_and_determinant(name):
    bijection, y = CASES[name]
    y = tuple(jnp.asarray(v) for v in y)
    np.testing.assert_allclose(bijection.inverse(bijection.forward(y)), y, rtol=1e-9)
    columns = []
    for i in range(len(y)):
        up, down = (tuple(v + s * 1e-6 * (k == i) for k, v in enumerate(y)) for s in (1, -1))
        columns.append(
            (np.asarray(bijection.forward(up)) - np.asarray(bijection.forward(down))) / 2e-6
        )
    wanted = np.linalg.slogdet(np.array(columns))[1]
    np.testing.assert_allclose(bijection.log_det(y), wanted, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("slope")])
def test_every_coordinate_is_a_possible_rate(name):
    bijection, _ = CASES[name]
    bounded = isinstance(bijection.exponent, TanhInterval)
    y = tuple(3 * jax.random.normal(jax.random.key(i), (500,)) for i in range(3))
    a, b, c = (np.asarray(v) for v in bijection.forward(y))
    # An exponent without bounds may be so steep that the amplitude at 1 s underflows.
    assert np.all(a > 0 if bounded else a >= 0)
    # Where everything cancels, rounding may leave a whole rate just below zero.
    if bounded:
        assert np.all(a * 3.0**b + c > -1e-12 * np.abs(c))
    if bounded:
        assert np.all(np.abs(b) <= 2 * (1 + 1e-12))
    if bijection.sign:
        assert np.all(bijection.sign * c >= 0)


def test_density_of_the_physical_parameters_does_not_depend_on_the_coordinates():
    """Slope, reference-time and separate coordinates of one posterior: the same density of θ."""
    data = make_data(MODELS["static"], n=11)
    densities = []
    for keywords in ({}, {"rates": ReferenceTime}, {"coordinates": {}}):
        objective = projected_objective(mapped(MODELS["static"], data, **keywords), data)
        # Given, since a natural step is part of the coordinates.
        density, theta = log_posterior(objective)
        densities.append(density)
    kinds = {type(d.coordinates.groups[0].bijection) for d in densities[:2]}
    assert kinds == {FreeSlope, FreeReference}
    assert densities[2].coordinates.groups == ()

    @_jit
    def of_theta(density, theta):
        z = density.coordinates.from_physical(theta)
        return density(z) - density.coordinates.log_det(z)

    for factor in (0.9, 1.0, 1.1):
        there = jnp.asarray(theta) * factor
        values = [float(of_theta(density, there)) for density in densities]
        np.testing.assert_allclose(values, values[0], rtol=1e-11)


def test_centring_and_scaling_change_nothing_but_z():
    data = make_data(MODELS["static"], n=11)
    density, theta = log_posterior(projected_objective(mapped(MODELS["static"], data), data))
    size = len(theta)
    moved = dataclasses.replace(
        density.coordinates, centre=np.linspace(-1, 1, size), scale=np.linspace(0.1, 2, size)
    )
    other = dataclasses.replace(density, coordinates=moved)

    @_jit
    def of_theta(density, theta):
        z = density.coordinates.from_physical(theta)
        return density(z) - density.coordinates.log_det(z), density.coordinates.to_physical(z)

    first, back = of_theta(density, jnp.asarray(theta))
    second, _ = of_theta(other, jnp.asarray(theta))
    np.testing.assert_allclose(first, second, rtol=1e-11)
    np.testing.assert_allclose(back, theta, rtol=1e-10)


def test_an_amplitude_that_may_be_negative_gets_separate_coordinates():
    data = make_data(MODELS["static"], n=11)
    objective = projected_objective(mapped(MODELS["static"], data), data)
    priors = default_priors(objective).replaced({"D0": Uniform(-1e5, 1e5)})
    density, _ = log_posterior(objective, priors)
    assert density.coordinates.groups == ()
    kinds = {type(group.bijection) for group in density.coordinates.alone}
    assert kinds == {Interval, HalfLine}
    assert Affine not in kinds
