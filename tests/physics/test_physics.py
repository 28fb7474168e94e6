"""|c1|² of the models: symmetries, the formula of homodyne 2.x, and a model of one's own."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from xpcs_eqx.data import Geometry
from xpcs_eqx.errors import ModelError
from xpcs_eqx.objective import two_time_objective
from xpcs_eqx.parameters import parameter_map
from xpcs_eqx.physics import (
    AbstractCorrelation,
    Features,
    GapAveraged,
    Homodyne,
    LaminarFlow,
    PowerLawRate,
    Static,
    Trapezoid,
    correlation_map,
    parameter,
)
from xpcs_eqx.simulation import simulate

Q, GAP = 0.0054, 2e6
PHI = np.array([0.0, 33.0, 90.0, 170.0])
T = 0.1 * np.arange(40)
TRANSPORT, SHEAR, PHI0 = (4000.0, -0.8, 1000.0), (3e-4, 0.8, 2e-4), 5.0
GEOMETRY = Geometry(q=Q, phi=PHI, gap=GAP)


def laminar(kernel, integral=lambda rate: rate, transport=TRANSPORT, phi0=PHI0):
    return LaminarFlow(
        integral(PowerLawRate(*transport)),
        integral(PowerLawRate(*SHEAR)),
        phi0=phi0,
        shear_kernel=kernel,
    )


MODELS = [
    Static(PowerLawRate(*TRANSPORT)),
    laminar(GapAveraged()),
    laminar(Homodyne(), Trapezoid),
]
models = pytest.mark.parametrize("model", MODELS, ids=["static", "laminar", "homodyne"])


def homodyne_surface(t, phi, dt):
    """|c1|² as homodyne 2.x writes it, one loop at a time."""
    floor = dt / 2
    s = np.where(t < floor, floor, t)
    rate = TRANSPORT[0] * s ** TRANSPORT[1] + TRANSPORT[2]
    strain_rate = SHEAR[0] * s ** SHEAR[1] + SHEAR[2]
    out = np.empty((len(phi), len(t), len(t)))
    for a, angle in enumerate(phi):
        for i in range(len(t)):
            for j in range(len(t)):
                low, high = min(i, j), max(i, j)
                diffusion = strain = 0.0
                for k in range(low, high):
                    diffusion += 0.5 * (rate[k] + rate[k + 1]) * dt
                    strain += 0.5 * (strain_rate[k] + strain_rate[k + 1]) * dt
                c1 = np.exp(-0.5 * Q**2 * diffusion)
                y = Q * GAP / (2 * np.pi) * np.cos(np.deg2rad(PHI0 - angle)) * strain
                c1 *= 1.0 if y == 0 else (np.sin(y) / y) ** 2
                out[a, i, j] = c1**2
    return out


@pytest.mark.parametrize("first", [0, 1, 25])
def test_homodyne_surface(first):
    t = 0.1 * np.arange(first, first + 40)
    found = correlation_map(laminar(Homodyne(), Trapezoid), jnp.asarray(t), GEOMETRY)
    np.testing.assert_allclose(found, homodyne_surface(t, PHI, 0.1), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found, homodyne_surface(t, PHI, 0.1), rtol=1e-8, atol=1e-12)


def test_homodyne_rates_are_larger():
    # The curvatures agree at small x when the shear rate is larger by π/√2.
    x = jnp.asarray(0.01)
    small = 1 - GapAveraged()(x), 1 - Homodyne()(x * np.pi / np.sqrt(2))
    assert float(small[0] / small[1]) == pytest.approx(1.0, rel=1e-4)


def test_gap_average_is_an_average_over_the_gap():
    y = (np.arange(200_000) + 0.5) / 200_000 - 0.5
    for x in (0.0, 0.3, 1.0, np.pi, 5.0, 20.0):
        mean = np.mean(np.exp(2j * x * y))
        assert float(GapAveraged()(jnp.asarray(x))) == pytest.approx(abs(mean) ** 2, abs=1e-9)


@models
def test_symmetric_and_one_on_the_diagonal(model):
    found = np.asarray(correlation_map(model, jnp.asarray(T), GEOMETRY))
    assert found.shape == (PHI.size, T.size, T.size)
    np.testing.assert_array_equal(found, np.swapaxes(found, 1, 2))
    np.testing.assert_array_equal(np.diagonal(found, axis1=1, axis2=2), 1.0)
    assert found.min() >= 0
    assert found.max() <= 1


@models
def test_absolute_time_is_kept(model):
    whole = correlation_map(model, jnp.asarray(T), GEOMETRY)[:, 10:, 10:]
    part = correlation_map(model, jnp.asarray(T[10:]), GEOMETRY)
    np.testing.assert_allclose(part, whole, rtol=1e-10, atol=1e-14)
    restarted = correlation_map(model, jnp.asarray(T[10:] - T[10]), GEOMETRY)
    assert np.abs(np.asarray(restarted - whole)).max() > 1e-3


@pytest.mark.parametrize("kernel", [GapAveraged(), Homodyne()], ids=["gap", "homodyne"])
def test_even_in_the_cosine(kernel):
    t = jnp.asarray(T)
    model = laminar(kernel)
    here = correlation_map(model, t, Geometry(q=Q, phi=PHI, gap=GAP))
    turned = correlation_map(model, t, Geometry(q=Q, phi=PHI + 180, gap=GAP))
    mirrored = correlation_map(model, t, Geometry(q=Q, phi=2 * PHI0 - PHI, gap=GAP))
    np.testing.assert_allclose(turned, here, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(mirrored, here, rtol=1e-9, atol=1e-13)


def test_every_angle_pushes_the_shear_rate_the_same_way():
    t, phi = jnp.asarray(T[:4]), np.arange(0.0, 360.0, 20.0)

    def sums(amplitude):
        model = LaminarFlow(PowerLawRate(*TRANSPORT), PowerLawRate(amplitude, 0.0, 0.0), phi0=PHI0)
        return correlation_map(model, t, Geometry(q=Q, phi=phi, gap=GAP)).sum((1, 2))

    assert np.all(np.asarray(jax.jacfwd(sums)(jnp.asarray(3e-4))) < 0)


def test_gradients_with_a_negative_transport_coefficient():
    t = jnp.asarray(T)

    @jax.jit
    @jax.value_and_grad
    def total(x):
        one = laminar(GapAveraged(), transport=(x[0], x[1], x[2]), phi0=x[3])
        return jnp.sum(correlation_map(one, t, GEOMETRY) ** 2)

    for x in ([-3000.0, -0.5, 200.0, 5.0], [1000.0, -0.5, -900.0, 5.0], [0.0, 0.0, 0.0, 5.0]):
        value, gradient = total(jnp.array(x))
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))


def test_gradient_against_differences():
    t = jnp.asarray(T)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(PHI.size, T.size, T.size)))

    @jax.jit
    def total(x):
        model = LaminarFlow(
            PowerLawRate(x[0] * 1e3, x[1], x[2] * 1e3),
            PowerLawRate(x[3] * 1e-4, x[4], x[5] * 1e-4),
            phi0=x[6],
        )
        return jnp.sum(weights * correlation_map(model, t, GEOMETRY))

    x = jnp.array([4.0, -0.8, 1.0, 3.0, 0.8, 2.0, 5.0])
    exact = jax.grad(total)(x)
    for i in range(x.size):
        h = jnp.zeros_like(x).at[i].set(1e-4)
        numeric = (8 * (total(x + h) - total(x - h)) - total(x + 2 * h) + total(x - 2 * h)) / 12e-4
        assert float(exact[i]) == pytest.approx(float(numeric), rel=1e-6, abs=1e-6)


def test_map_is_the_same_under_jit():
    t = jnp.asarray(T)
    model = MODELS[1]
    plain = correlation_map(model, t, GEOMETRY)
    compiled = jax.jit(correlation_map)(model, t, jax.tree.map(jnp.asarray, GEOMETRY))
    np.testing.assert_allclose(compiled, plain, rtol=1e-10, atol=1e-13)


class Stretched(AbstractCorrelation):
    """|c1|² = exp(−2 (Γ τ)^γ), in ten lines."""

    rate: Float[Array, ""] = parameter(unit="1/s", start=0.5, bounds=(1e-4, 10.0))
    stretching: Float[Array, ""] = parameter(start=1.0, bounds=(0.1, 2.0))
    names: ClassVar[dict[str, str]] = {"rate": "Gamma", "stretching": "gamma"}

    def features(self, t, geometry):
        return Features(increments=t, scalars=(self.rate, self.stretching))

    def kernel(self, pair):
        rate, stretching = pair.scalars
        return jnp.exp(-2 * (rate * pair.increments) ** stretching)


class Careless(Stretched):
    """The same with a parameter used in the kernel, whose derivative a fit would lose."""

    def features(self, t, geometry):
        return Features(increments=t)

    def kernel(self, pair):
        return jnp.exp(-2 * self.rate * pair.increments)


def test_own_model_is_evaluated_and_differentiated():
    t = jnp.asarray(T)
    lag = np.abs(T[:, None] - T[None, :])
    found = correlation_map(Stretched(0.4, 0.7), t, GEOMETRY)
    np.testing.assert_allclose(found[2], np.exp(-2 * (0.4 * lag) ** 0.7), rtol=1e-12)
    gradient = jax.grad(lambda model: correlation_map(model, t, GEOMETRY)[0].sum())(
        Stretched(0.4, 0.7)
    )
    safe = np.where(lag == 0, 1.0, 0.4 * lag)
    power = np.where(lag == 0, 0.0, safe**0.7)
    weight = -2 * np.exp(-2 * power) * power
    assert float(gradient.rate) == pytest.approx((weight * 0.7 / 0.4).sum(), rel=1e-10)
    assert float(gradient.stretching) == pytest.approx((weight * np.log(safe)).sum(), rel=1e-10)


def test_own_model_has_named_parameters_with_bounds():
    variables = parameter_map(Stretched(0.4, 0.7), jnp.asarray(T))
    assert variables.free_names == ("Gamma", "gamma")
    np.testing.assert_allclose(variables.lower, [1e-4, 0.1])


def test_parameter_in_the_kernel_is_refused():
    model = Stretched(0.4, 0.7)
    data = simulate(model, T, GEOMETRY, 0.2, noise=0.01, key=jax.random.key(0))
    two_time_objective(parameter_map(model), data)
    with pytest.raises(ModelError, match="uses the parameter"):
        two_time_objective(parameter_map(Careless(0.4, 0.7)), data)
