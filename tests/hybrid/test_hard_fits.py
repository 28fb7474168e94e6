"""Fits that a radius with a cap and a ridge with a unit once got wrong."""

import jax.numpy as jnp
import numpy as np
import pytest

from xpcs_eqx.fitting import curve_fit
from xpcs_eqx.hybrid import aggressive, default
from xpcs_eqx.objective.elimination import minimise_in_box


def test_a_step_in_a_box_does_not_depend_on_units():
    hessian, gradient = jnp.diag(jnp.array([1e-16, 1.0])), jnp.array([-1e-16, 0.0])
    step, _ = minimise_in_box(hessian, gradient, -10 * jnp.ones(2), 10 * jnp.ones(2))
    np.testing.assert_allclose(step, [1.0, 0.0], rtol=1e-6)


def decay(x, a, b, c):
    return a * jnp.exp(-b * x) + c


def test_parameters_of_wild_units():
    x = np.linspace(0, 1e-6, 500)
    noise = 2e-11 * np.random.default_rng(0).normal(size=500)
    y = 3e-9 * np.exp(-4e6 * x) + 1e-10 + noise
    start = [1e-9, 1e6, 0.0]
    wanted = curve_fit(decay, x, y, np.array(start))
    assert wanted.success
    found = aggressive().fit((x, y), decay, start)
    np.testing.assert_allclose(
        found.x, wanted.x, atol=0.01 * np.min(wanted.perr[[0, 2]]), rtol=1e-3
    )


@pytest.mark.parametrize("level", [1e6, 1e8])
def test_a_line_far_from_its_start(level):
    x = np.linspace(0, 10, 400)
    y = 2 * x + level + 0.05 * np.random.default_rng(0).normal(size=400)
    found = default().fit((x, y), lambda x, a, b: a * x + b, [1.0, 1.0])
    assert found.success
    np.testing.assert_allclose(found.x[0], 2.0009, atol=2e-3)
    np.testing.assert_allclose(found.x[1], level, atol=0.05)


def test_every_firing_is_an_event():
    x = np.linspace(0, 5, 200)
    y = 2.5 * np.exp(-1.3 * x) + 0.5
    found = default().fit((x, y), decay, [100.0, 0.05, -30.0])
    fired = found.telemetry.fired("step clip")
    assert fired > 1
    events = [event for event in found.telemetry.events if event.layer == "step clip"]
    assert len(events) == fired
    assert len({event.iteration for event in events}) == fired
    assert all(dict(event.numbers)["norm"] > 0 for event in events)
