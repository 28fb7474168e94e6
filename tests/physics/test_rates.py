"""Power-law rates and their time integrals against quadrature."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from xpcs_eqx.data import Geometry, TwoTimeData
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.parameters import parameter_map, parameter_values, with_parameters
from xpcs_eqx.physics import (
    Homodyne,
    LaminarFlow,
    PowerLawRate,
    Static,
    Trapezoid,
    TwoComponent,
    correlation_map,
    time_floor,
)
from xpcs_eqx.physics.trigonometry import cos_degrees

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
    """∫ from the second frame of the power law with amplitude, exponent and offset `x`."""
    integral = PowerLawRate(x[0], x[1], x[2]).integral(t)
    return integral - integral[1]


forward = jax.jit(jax.jacfwd(increments))
reverse = jax.jit(jax.jacrev(increments))
# What no frame at t = 0 enters, whose integral may diverge.
total = jax.jit(lambda x, t: jnp.sum(increments(x, t)[1:] ** 2))
gradient = jax.jit(jax.grad(total))
hessian = jax.jit(jax.hessian(total))


def quadrature(amplitude, exponent, offset, t):
    """∫ amplitude · s^exponent + offset from the second frame; −∞ at t = 0 where it diverges."""
    steps = []
    for a, b in pairwise(t):
        if a > 0:
            power, _ = quad(lambda s: s**exponent, a, b, epsrel=1e-12)
        elif exponent > -1:
            # A rule for integrands with an algebraic singularity at the lower end.
            power, _ = quad(lambda s: 1.0, a, b, weight="alg", wvar=(exponent, 0), epsrel=1e-12)
        else:
            power = np.inf
        steps.append(amplitude * power + offset * (b - a))
    return np.concatenate([[-steps[0], 0.0], np.cumsum(steps[1:])])


@pytest.mark.parametrize("exponent", EXPONENTS)
@grids
def test_integral_against_quadrature(exponent, t):
    found = np.asarray(increments(jnp.array([3.0, exponent, -0.2]), jnp.asarray(t)))
    wanted = quadrature(3.0, exponent, -0.2, t)
    if np.isinf(wanted[0]):
        # Nothing physical is as large, and all derivatives of a decay stay finite.
        assert -1e100 < found[0] < -1e60
        found, wanted = found[1:], wanted[1:]
    scale = np.abs(np.diff(wanted)).max()
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11 * scale)


@grids
def test_rate_is_the_power_law(t):
    found = PowerLawRate(3.0, -0.4, 0.1)(jnp.asarray(t[1:]))
    np.testing.assert_allclose(found, 3 * t[1:] ** -0.4 + 0.1, rtol=1e-14)


@pytest.mark.parametrize("exponent", EXPONENTS)
@grids
def test_derivatives_against_differences(exponent, t):
    # Differences cannot follow what diverges near −1; c1 of such pairs is looked at below.
    later = slice(1, None) if t[0] == 0 and exponent < -0.9 else slice(None)
    t = jnp.asarray(t)
    x = jnp.array([3.0, exponent, -0.2])
    exact = np.asarray(forward(x, t))
    np.testing.assert_allclose(reverse(x, t), exact, rtol=1e-9, atol=1e-12)
    exact = exact[later]
    for i, step in enumerate((1e-3, 1e-4, 1e-3)):
        h = jnp.zeros(3).at[i].set(step)
        # fourth-order central difference
        near = increments(x + h, t) - increments(x - h, t)
        far = increments(x + 2 * h, t) - increments(x - 2 * h, t)
        numeric = np.asarray(8 * near - far)[later] / (12 * step)
        scale = np.abs(numeric).max()
        np.testing.assert_allclose(exact[:, i], numeric, rtol=2e-7, atol=2e-7 * scale)


@pytest.mark.parametrize("exponent", [-2, -1.57, -1, -0.8, 0, 2])
def test_later_frames_are_differentiable_twice_beside_one_at_zero(exponent):
    t = jnp.asarray(GRIDS["from zero"])
    x = jnp.array([1.0, exponent, 0.0])
    assert np.isfinite(total(x, t))
    assert np.all(np.isfinite(gradient(x, t)))
    assert np.all(np.isfinite(hessian(x, t)))


@pytest.mark.parametrize("exponent", [-2.0, -1.0, -0.8, 0.0, 2.0])
def test_the_rate_itself_is_finite_at_zero(exponent):
    def rate(x):
        return PowerLawRate(x[0], x[1], x[2])(jnp.zeros(1))[0]

    x = jnp.array([3.0, exponent, 0.5])
    assert np.isfinite(rate(x))
    assert np.all(np.isfinite(jax.grad(rate)(x)))
    if exponent >= 0:
        assert float(rate(x)) == (3.5 if exponent == 0 else 0.5)


CORRELATIONS = {
    "decay": Static(PowerLawRate(4e3, 0.0, 1e3)),
    "shear": LaminarFlow(PowerLawRate(10.0), PowerLawRate(1e-3, 0.0, 1e-4), 20.0),
    "shear of homodyne": LaminarFlow(
        PowerLawRate(10.0), PowerLawRate(1e-3, 0.0, 1e-4), 20.0, Homodyne()
    ),
    "velocity": TwoComponent(PowerLawRate(10.0), PowerLawRate(20.0), PowerLawRate(1e3), f0=0.4),
}
# The exponent that diverges, and the amplitude it belongs to.
DIVERGING = {
    "decay": ("alpha", "D0"),
    "shear": ("beta", "gamma_dot_t0"),
    "shear of homodyne": ("beta", "gamma_dot_t0"),
    "velocity": ("v_beta", "v0"),
}
FEW = jnp.array([0.0, 0.1, 0.25, 1.0, 5.0])
WHERE = Geometry(0.0054, np.array([0.0, 70.0]))


def correlation_of(kind):
    """|c1|² of frame 0 with the others, and among these, by exponent and amplitude."""
    model = CORRELATIONS[kind]

    def at(values):
        changed = with_parameters(model, dict(zip(DIVERGING[kind], values, strict=True)))
        c1 = correlation_map(changed, FEW, WHERE)
        return c1[:, 0, 1:], c1[:, 1:, 1:]

    return at


@pytest.mark.parametrize("kind", CORRELATIONS)
def test_frame_at_zero_is_uncorrelated_where_the_integral_diverges(kind):
    at = correlation_of(kind)
    amplitude = parameter_values(CORRELATIONS[kind])[DIVERGING[kind][1]]
    exponents = np.array(
        [-2.0, -1.5, -1 - 1e-3, -1 - 1e-12, -1.0, -1 + 1e-12, -1 + 1e-8, -1 + 1e-6]
    )
    points = jnp.stack([jnp.asarray(exponents), jnp.full(exponents.shape, amplitude)], axis=1)
    first, later = jax.jit(jax.vmap(at))(points)
    slopes = jax.jit(jax.vmap(jax.jacrev(at)))(points)
    curvatures = jax.jit(jax.vmap(jax.jacfwd(jax.jacrev(at))))(points)
    for part in (*slopes, *curvatures):
        assert np.all(np.isfinite(part))
    if kind == "velocity":
        # An unknown phase leaves the sum of the squares of both parts.
        still = 0.6**4 * np.exp(-(0.0054**2) * 10.0 * np.asarray(FEW[1:]))
        moving = 0.4**4 * np.exp(-(0.0054**2) * 20.0 * np.asarray(FEW[1:]))
        wanted = (still + moving) / (0.6**2 + 0.4**2) ** 2
        np.testing.assert_allclose(first, np.broadcast_to(wanted, first.shape), rtol=1e-12)
    else:
        np.testing.assert_allclose(first, 0.0, atol=1e-12)
    np.testing.assert_allclose(slopes[0], 0.0, atol=1e-12)
    # Later frames pass −1 as if nothing were there.
    near = np.abs(exponents + 1) < 1e-7
    np.testing.assert_allclose(later[near], np.broadcast_to(later[4], later[near].shape), atol=1e-6)
    np.testing.assert_allclose(
        slopes[1][near], np.broadcast_to(slopes[1][4], slopes[1][near].shape), rtol=2e-6, atol=1e-5
    )


def test_decay_from_zero_falls_smoothly_to_nothing():
    """c1 and its slope through −1 in steps, against the exact function of the exponent."""
    exponents = np.linspace(-1.3, -0.7, 601)
    at = correlation_of("decay")
    amplitude = jnp.full(exponents.shape, 4e3)
    points = jnp.stack([jnp.asarray(exponents), amplitude], axis=1)
    first, _ = jax.vmap(at)(points)
    slope = jax.vmap(jax.jacfwd(at))(points)[0][..., 0]
    s = np.maximum(exponents + 1, 1e-3)[:, None]
    t = np.asarray(FEW[1:])
    area = 4e3 * t**s / s
    wanted = np.where(exponents[:, None] > -1, np.exp(-(0.0054**2) * (area + 1e3 * t)), 0.0)
    np.testing.assert_allclose(first[:, 0], wanted, rtol=1e-10, atol=1e-14)
    wanted *= -(0.0054**2) * area * (np.log(t) - 1 / s)
    np.testing.assert_allclose(slope[:, 0], wanted, rtol=1e-9, atol=1e-13)
    # No step between neighbours is larger than the slope allows.
    assert np.abs(np.diff(np.asarray(first[:, 0]), axis=0)).max() < 1.1e-3 * np.abs(wanted).max()


def test_without_amplitude_nothing_diverges():
    for kind in CORRELATIONS:
        model = CORRELATIONS[kind]
        exponent, amplitude = DIVERGING[kind]
        none = with_parameters(model, {exponent: -1.5, amplitude: 0.0})
        zero = with_parameters(model, {exponent: 0.0, amplitude: 0.0})
        np.testing.assert_array_equal(
            correlation_map(none, FEW, WHERE), correlation_map(zero, FEW, WHERE)
        )
        negative = with_parameters(model, {exponent: -1.5, amplitude: -1.0})
        slope = jax.jacrev(correlation_of(kind))
        for part in slope(jnp.array([-1.5, -1.0])) + slope(jnp.array([-1.5, 0.0])):
            assert np.all(np.isfinite(part))
        assert np.all(np.isfinite(correlation_map(negative, FEW, WHERE)))


def test_across_the_flow_a_diverging_shear_moves_nothing():
    model = LaminarFlow(PowerLawRate(10.0), PowerLawRate(1e-3, -1.5), 0.0)
    across = Geometry(0.0054, np.array([90.0, -90.0, 270.0]))
    still = Static(PowerLawRate(10.0))
    np.testing.assert_allclose(
        correlation_map(model, FEW, across), correlation_map(still, FEW, across), rtol=1e-15
    )


def test_cosine_of_degrees():
    angle = np.linspace(-720, 720, 2881)
    exact = np.cos(np.deg2rad(angle % 360))
    np.testing.assert_allclose(cos_degrees(jnp.asarray(angle)), exact, atol=5e-16)
    assert np.all(np.asarray(cos_degrees(jnp.array([90.0, -90.0, 270.0, -450.0]))) == 0.0)
    for point in (0.0, 45.0, 90.0, -135.0, 180.0):
        slope, curvature = jax.grad(cos_degrees)(point), jax.grad(jax.grad(cos_degrees))(point)
        radian = np.pi / 180
        np.testing.assert_allclose(slope, -radian * np.sin(point * radian), atol=1e-17)
        np.testing.assert_allclose(curvature, -(radian**2) * np.cos(point * radian), atol=1e-18)


def test_smooth_through_exponent_minus_one():
    t = jnp.linspace(0.5, 20.0, 30)
    x = jnp.array([1.0, -1.0, 0.0])
    exact = np.log(np.asarray(t) / 0.5)
    found, slope = increments(x, t), forward(x, t)[:, 1]
    np.testing.assert_allclose(found - found[0], exact, rtol=1e-13, atol=1e-15)
    slope = slope - slope[0]
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


def test_a_fit_finds_the_formula_that_quadrature_made():
    """Maps from t = 0 made without this package's integrals, for which a floor would be wrong."""
    t, q, truth = 0.1 * np.arange(21), 0.0054, (4000.0, -0.8, 1000.0)
    steps = quadrature(*truth, t)
    c2 = 1 + 0.2 * np.exp(-(q**2) * np.abs(steps[:, None] - steps[None, :]))
    unknown = np.full((1, t.size), np.nan)
    data = TwoTimeData(c2[None], t, Geometry(q, np.array([0.0])), None, unknown)
    fit = least_squares(projected_objective(parameter_map(Static(), t), data))
    assert fit.success
    found = [fit[name].value for name in ("D0", "alpha", "D_offset")]
    np.testing.assert_allclose(found, truth, rtol=1e-6)
