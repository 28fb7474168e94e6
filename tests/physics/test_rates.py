"""Power-law rates and their time integrals against quadrature."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from xpcs_eqx.physics import PowerLawRate, Trapezoid, time_floor

EXPONENTS = [-2, -1.57, -1 - 1e-3, -1 - 1e-9, -1, -1 + 1e-12, -1 + 1e-5, -0.99, -0.3, 0, 0.5, 1, 2]
GRIDS = {
    "from zero": 0.1 * np.arange(30),
    "from one frame": 0.1 * np.arange(1, 31),
    "late": 500 + 0.1 * np.arange(30),
    "uneven": np.cumsum(np.geomspace(1e-3, 5.0, 30)),
}
grids = pytest.mark.parametrize("t", GRIDS.values(), ids=GRIDS.keys())


# One length of grid and times as an argument: compiled once for all cases.
@jax.jit
def increments(x, t):
    """∫ from t[0] of the power law with amplitude, exponent and offset `x`."""
    integral = PowerLawRate(x[0], x[1], x[2]).integral(t)
    return integral - integral[0]


forward = jax.jit(jax.jacfwd(increments))
reverse = jax.jit(jax.jacrev(increments))
total = jax.jit(lambda x, t: jnp.sum(increments(x, t) ** 2))
gradient = jax.jit(jax.grad(total))
hessian = jax.jit(jax.hessian(total))


def quadrature(rate, t):
    """∫ rate dt from t[0], with the rate held below half the first spacing."""
    floor = 0.5 * (t[1] - t[0])
    steps = []
    for a, b in pairwise(t):
        inside = [floor] if a < floor < b else None
        value, _ = quad(lambda s: rate(max(s, floor)), a, b, points=inside, epsrel=1e-12)
        steps.append(value)
    return np.concatenate([[0.0], np.cumsum(steps)])


@pytest.mark.parametrize("exponent", EXPONENTS)
@grids
def test_integral_against_quadrature(exponent, t):
    found = np.asarray(increments(jnp.array([3.0, exponent, -0.2]), jnp.asarray(t)))
    wanted = quadrature(lambda s: 3.0 * s**exponent - 0.2, t)
    scale = np.abs(np.diff(wanted)).max()
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11 * scale)


@grids
def test_rate_is_the_power_law(t):
    found = PowerLawRate(3.0, -0.4, 0.1)(jnp.asarray(t[1:]))
    np.testing.assert_allclose(found, 3 * t[1:] ** -0.4 + 0.1, rtol=1e-14)


@pytest.mark.parametrize("exponent", EXPONENTS)
@grids
def test_derivatives_against_differences(exponent, t):
    t = jnp.asarray(t)
    x = jnp.array([3.0, exponent, -0.2])
    exact = np.asarray(forward(x, t))
    np.testing.assert_allclose(reverse(x, t), exact, rtol=1e-9, atol=1e-12)
    for i, step in enumerate((1e-3, 1e-4, 1e-3)):
        h = jnp.zeros(3).at[i].set(step)
        # fourth-order central difference
        near = increments(x + h, t) - increments(x - h, t)
        far = increments(x + 2 * h, t) - increments(x - 2 * h, t)
        numeric = np.asarray(8 * near - far) / (12 * step)
        scale = np.abs(numeric).max()
        np.testing.assert_allclose(exact[:, i], numeric, rtol=2e-7, atol=2e-7 * scale)


@pytest.mark.parametrize("exponent", [-2, -1.57, -1, 0, 2])
def test_time_zero_is_finite_and_differentiable_twice(exponent):
    t = jnp.asarray(GRIDS["from zero"])
    x = jnp.array([1.0, exponent, 0.0])
    assert np.isfinite(total(x, t))
    assert np.all(np.isfinite(gradient(x, t)))
    assert np.all(np.isfinite(hessian(x, t)))


def test_smooth_through_exponent_minus_one():
    t = jnp.linspace(0.5, 20.0, 30)
    x = jnp.array([1.0, -1.0, 0.0])
    exact = np.log(np.asarray(t) / 0.5)
    np.testing.assert_allclose(increments(x, t), exact, rtol=1e-13, atol=1e-15)
    slope = forward(x, t)[:, 1]
    # d/da ∫ t^a = ∫ ln t t^a, at a = −1: (ln² t)/2
    wanted = 0.5 * (np.log(np.asarray(t)) ** 2 - np.log(0.5) ** 2)
    np.testing.assert_allclose(slope, wanted, rtol=1e-12, atol=1e-14)


def test_trapezoid_is_the_cumulative_trapezoid():
    t = GRIDS["from zero"]
    values = 2.0 * np.maximum(t, 0.05) ** -0.7 + 0.3
    wanted = np.concatenate([[0], np.cumsum(0.5 * (values[1:] + values[:-1]) * np.diff(t))])
    found = Trapezoid(PowerLawRate(2.0, -0.7, 0.3)).integral(jnp.asarray(t))
    np.testing.assert_allclose(found, wanted, rtol=1e-14)


@pytest.mark.parametrize("exponent", [-1.57, -0.3, 0.5, 2])
def test_trapezoid_converges_to_exact(exponent):
    rate = PowerLawRate(1.0, exponent, 0.1)
    errors = []
    for n in (41, 81, 161):
        t = jnp.linspace(1.0, 9.0, n)
        exact, trapezoid = rate.integral(t), Trapezoid(rate).integral(t)
        errors.append(abs(float((trapezoid[-1] - trapezoid[0]) - (exact[-1] - exact[0]))))
    assert errors[0] < 0.1
    # second order: a quarter of the error for half the spacing
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 4.0, rtol=0.05)


@pytest.mark.parametrize("integral", [PowerLawRate, lambda *x: Trapezoid(PowerLawRate(*x))])
def test_a_range_of_frames_keeps_its_age(integral):
    t = jnp.asarray(GRIDS["from one frame"])
    rate = integral(1.0, -0.8, 0.1)
    whole, part = rate.integral(t), rate.integral(t[12:])
    np.testing.assert_allclose(np.diff(part), np.diff(whole)[12:], rtol=1e-12)
    restarted = rate.integral(t[12:] - t[12] + t[0])
    assert np.all(np.abs(np.diff(restarted) / np.diff(part) - 1) > 0.02)


def test_late_times_lose_no_digits():
    # Counted from t = 0 the integral would be 5e9, its increments of 1e4 good to 1e-10 only.
    t = jnp.asarray(1e5 + 0.1 * np.arange(5))
    found = np.diff(np.asarray(PowerLawRate(1.0, 1.0, 0.0).integral(t)))
    s = np.asarray(t).astype(np.longdouble)
    np.testing.assert_allclose(found, np.diff(s * s / 2).astype(float), rtol=1e-13)


def test_single_precision_stays_single():
    t = jnp.asarray(GRIDS["from zero"], jnp.float32)
    rate = jax.tree.map(lambda v: v.astype(jnp.float32), PowerLawRate(3.0, -0.5, 0.1))
    found = rate.integral(t)
    assert found.dtype == jnp.float32
    wanted = PowerLawRate(3.0, -0.5, 0.1).integral(t.astype(jnp.float64))
    np.testing.assert_allclose(found - found[0], wanted - wanted[0], rtol=2e-5, atol=1e-6)


def test_floor_is_half_a_frame():
    assert float(time_floor(jnp.array([0.0, 0.2, 0.4]))) == pytest.approx(0.1)
