"""sin x / x and its derivatives against long-double references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xpcs_eqx.physics import sinc, sincos

NEAR = [0.0, 1e-300, 1e-30, 1e-12, 1e-8, 1e-5, 1e-3, 0.02, 0.1, 0.3]
SWITCH = [0.4999, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 0.5001, 0.7]
FAR = [1.0, np.pi / 4, np.pi / 2, 2.0, np.pi, 4.4934, 7.0, 20.0, 99.5, 1234.5, 8000.0]
TOLERANCES = {  # value, first and second derivative
    np.float64: (1e-15, 2e-15, 8e-15),
    np.float32: (3e-7, 5e-7, 2e-6),
}


def reference(x):
    """sin x / x, first and second derivative, by series below 2 and directly above."""
    x = np.asarray(x).astype(np.longdouble)
    value, first, second = (np.zeros_like(x) for _ in range(3))
    coefficient = np.longdouble(1)
    for m in range(20):
        value += coefficient * x ** (2 * m)
        if m:
            first += coefficient * (2 * m) * x ** (2 * m - 1)
            second += coefficient * (2 * m) * (2 * m - 1) * x ** (2 * m - 2)
        coefficient = -coefficient / ((2 * m + 2) * (2 * m + 3))
    safe = np.where(np.abs(x) < 2, np.longdouble(2), x)
    far = np.sin(safe) / safe
    far_first = (np.cos(safe) - far) / safe
    far_second = -far - 2 * far_first / safe
    small = np.abs(x) < 2
    return (
        np.where(small, value, far),
        np.where(small, first, far_first),
        np.where(small, second, far_second),
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("points", [NEAR, SWITCH, FAR], ids=["near zero", "switch", "far"])
def test_value_and_derivatives(dtype, sign, points):
    with np.errstate(under="ignore"):
        x = sign * np.array(points).astype(dtype)
    functions = (sinc, jax.grad(sinc), jax.grad(jax.grad(sinc)))
    for function, wanted, tolerance in zip(functions, reference(x), TOLERANCES[dtype], strict=True):
        for transform in (jax.vmap(function), jax.jit(jax.vmap(function))):
            found = np.asarray(transform(jnp.asarray(x)))
            assert found.dtype == dtype
            np.testing.assert_allclose(found, wanted.astype(float), rtol=0, atol=tolerance)


def test_no_step_at_the_switch():
    x = 0.5 + 1e-7 * np.linspace(-1, 1, 201)
    for function, wanted in zip((sinc, jax.grad(sinc)), reference(x), strict=False):
        error = np.asarray(jax.vmap(function)(jnp.asarray(x))) - wanted
        assert np.abs(error).max() < 1e-15


@pytest.mark.parametrize(
    ("dtype", "largest", "tolerance"), [(np.float64, 1e6, 3e-16), (np.float32, 1e4, 1.5e-7)]
)
def test_sine_and_cosine(dtype, largest, tolerance):
    rng = np.random.default_rng(0)
    x = (rng.choice([-1, 1], 20_000) * largest ** rng.uniform(-2, 1, 20_000)).astype(dtype)
    found = sincos(jnp.asarray(x))
    for one, exact in zip(found, (np.sin, np.cos), strict=True):
        assert one.dtype == dtype
        error = np.abs(np.asarray(one) - exact(x.astype(np.longdouble)))
        assert error.max() < tolerance


def test_derivative_of_sine_is_cosine():
    x = jnp.linspace(-30, 30, 101)
    sine, cosine = sincos(x)
    slopes = (
        jax.vmap(jax.grad(lambda v: sincos(v)[0]))(x),
        jax.vmap(jax.grad(lambda v: sincos(v)[1]))(x),
    )
    np.testing.assert_array_equal(slopes[0], cosine)
    np.testing.assert_array_equal(slopes[1], -sine)


def test_very_large_arguments_stay_bounded():
    x = jnp.asarray([1e8, 1e12, 1e15, 1e20, 1e70, 1e300, np.inf])
    assert np.all(np.abs(np.asarray(sinc(x))) <= 1.1e-8)
    assert np.all(np.abs(np.asarray(sincos(x))) <= 1.0)
    for slope in (jax.grad(sinc), jax.grad(jax.grad(sinc)), jax.grad(lambda v: sincos(v)[1])):
        assert np.all(np.abs(jax.vmap(slope)(x)) <= 1.1e-8)
    assert np.isnan(sinc(jnp.asarray(np.nan)))
