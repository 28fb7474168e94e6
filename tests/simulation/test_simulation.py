"""Simulated maps: symmetric, reproducible, with the noise that is claimed for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SPEED

from xpcs_eqx.data import Geometry
from xpcs_eqx.errors import ModelError
from xpcs_eqx.physics import (
    AbstractCorrelation,
    Features,
    Homodyne,
    LaminarFlow,
    PowerLawRate,
    Static,
    correlation_map,
)
from xpcs_eqx.physics.field import field_factor
from xpcs_eqx.simulation import field_correlation, mode_weights, simulate, simulate_speckle

T = 0.1 * np.arange(40)
PHI = np.array([0.0, 90.0])
GEOMETRY = Geometry(q=0.0054, phi=PHI, gap=2e6)
MODEL = LaminarFlow(PowerLawRate(4000.0, -0.8, 1000.0), PowerLawRate(3e-4, 0.8, 2e-4), phi0=5.0)
# Loses half of its correlation from one frame to the next.
FAST = Static(PowerLawRate(np.log(2.0) / (0.0054**2 * 0.1), 0.0, 0.0))
ONE = Geometry(q=0.0054, phi=np.array([0.0]))
UPPER = np.triu_indices(T.size, 1)


def surface(model=MODEL, geometry=GEOMETRY, contrast=0.25, t=T):
    return 1 + contrast * np.asarray(correlation_map(model, jnp.asarray(t), geometry))


def test_surface_without_noise():
    data = simulate(MODEL, T, GEOMETRY, [0.2, 0.3], [1.1, 0.9], noise=0.0, key=jax.random.key(0))
    c1 = surface(contrast=1.0) - 1
    wanted = np.array([1.1, 0.9])[:, None, None] + np.array([0.2, 0.3])[:, None, None] * c1
    np.testing.assert_allclose(data.c2, wanted, rtol=1e-12)
    np.testing.assert_allclose(data.diagonal, np.array([[1.3], [1.2]]) * np.ones(T.size))
    assert data.n_pairs == 2 * len(UPPER[0])


def test_noise_is_gaussian_once_for_each_pair():
    noise = np.array([0.01, 0.03])
    data = simulate(MODEL, T, GEOMETRY, 0.25, 1.0, noise=noise, key=jax.random.key(1))
    np.testing.assert_array_equal(data.c2, np.swapaxes(data.c2, 1, 2))
    residual = (np.asarray(data.c2) - surface())[:, *UPPER] / noise[:, None]
    n = residual.size
    assert abs(residual.mean()) < 4 / np.sqrt(n)
    assert abs(residual.std(axis=1) - 1).max() < 4 / np.sqrt(n)  # 4 σ of a standard deviation
    assert abs((residual**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert abs(np.corrcoef(residual)[0, 1]) < 4 / np.sqrt(n / 2)


def test_same_key_same_map_and_another_key_another():
    def draw(seed):
        return np.asarray(
            simulate(MODEL, T, GEOMETRY, 0.25, noise=0.01, key=jax.random.key(seed)).c2
        )

    np.testing.assert_array_equal(draw(3), draw(3))
    assert np.all(draw(3) != draw(4))


def test_simulate_under_jit_vmap_and_grad():
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.jit(jax.vmap(lambda key: simulate(MODEL, T, GEOMETRY, 0.25, noise=0.01, key=key)))(
        keys
    )
    assert many.c2.shape == (3, 2, T.size, T.size)
    one = simulate(MODEL, T, GEOMETRY, 0.25, noise=0.01, key=keys[1])
    np.testing.assert_allclose(many.c2[1], one.c2, rtol=1e-11)
    slope = jax.grad(lambda c: simulate(MODEL, T, GEOMETRY, c, noise=0.01, key=keys[0]).c2.sum())(
        0.25
    )
    assert float(slope) == pytest.approx((surface(contrast=1.0) - 1).sum())


@pytest.mark.parametrize("name", ["contrast", "offset", "noise"])
def test_values_must_fit_the_angles(name):
    values = {"contrast": 0.25, "offset": 1.0, "noise": 0.01, name: [1.0, 1.0, 1.0]}
    with pytest.raises(ModelError, match=rf"{name} has shape \(3,\) but there are 2 angles"):
        simulate(MODEL, T, GEOMETRY, **values, key=jax.random.key(0))


@pytest.mark.parametrize("contrast", [1.0, 0.9, 0.5, 1 / 3, 0.3, 0.25, 0.2, 0.07, 0.01])
def test_mode_weights_have_the_contrast(contrast):
    weights = mode_weights(contrast)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights**2).sum() == pytest.approx(contrast)
    assert np.all(weights > -1e-12)
    assert len(weights) == int(np.ceil(1 / contrast - 1e-9))


@pytest.mark.parametrize("contrast", [0.0, -0.1, 1.01, np.nan])
def test_impossible_contrast(contrast):
    with pytest.raises(ModelError, match="speckle has a contrast above 0"):
        mode_weights(contrast)


def test_field_of_laminar_flow_changes_sign_and_is_positive_definite():
    c1 = np.asarray(field_correlation(MODEL, jnp.asarray(T), GEOMETRY))
    assert c1[0].min() < -0.05
    np.testing.assert_allclose(c1**2, surface(contrast=1.0) - 1, atol=1e-14)
    assert np.linalg.eigvalsh(c1).min() > -1e-12
    assert float(field_factor(jnp.asarray(c1))[1]) < 1e-12
    # without the sign no field has this correlation
    assert np.linalg.eigvalsh(np.abs(c1)).min() < -1e-3
    assert float(field_factor(jnp.abs(c1))[1]) > 1e-3


def test_factor_of_a_complex_field():
    phase = np.exp(0.7j * T)
    c1 = jnp.asarray(phase[:, None] * phase[None, :].conj() * np.exp(-np.abs(T[:, None] - T)))
    factor, error = field_factor(c1)
    np.testing.assert_allclose(factor @ factor.conj().T, c1, atol=1e-13)
    assert float(error) < 1e-13


class Impossible(AbstractCorrelation):
    """A box in the delay: the correlation of nothing."""

    def features(self, t, geometry):
        return Features(increments=t)

    def kernel(self, pair):
        return jnp.where(pair.increments < 1.0, 1.0, 0.0)


def test_a_correlation_that_no_field_has():
    def draw(key):
        return simulate_speckle(Impossible(), T, ONE, 0.5, n_pixels=10, key=key).c2

    with pytest.raises(ModelError, match="no Gaussian field"):
        draw(jax.random.key(0))
    with pytest.raises(RuntimeError, match="no Gaussian field"):
        jax.block_until_ready(jax.jit(draw)(jax.random.key(0)))


def speckle(model, geometry, contrast, repeats, seed, t=T, **keywords):
    """c2 of repeated simulations, `(repeat, angle, frame, frame)`."""

    def one(key):
        return simulate_speckle(model, t, geometry, contrast, key=key, **keywords).c2

    many = jax.jit(jax.vmap(one), compiler_options=SPEED)
    return np.asarray(many(jax.random.split(jax.random.key(seed), repeats)))


@pytest.mark.parametrize("kernel", [None, Homodyne()], ids=["gap averaged", "homodyne"])
def test_speckle_has_the_surface_of_the_model(kernel):
    model = MODEL if kernel is None else LaminarFlow(MODEL.transport, MODEL.shear, 5.0, kernel)
    n, repeats, contrast = 1000, 60, np.array([0.3, 0.5])
    c2 = speckle(model, GEOMETRY, contrast, repeats, seed=0, n_pixels=n)
    np.testing.assert_array_equal(c2, np.swapaxes(c2, 2, 3))
    wanted = surface(model, contrast=contrast[:, None, None])
    # the error of the mean, and O(1/N) from dividing by the mean of a frame
    allowed = 5 * contrast[:, None, None] / np.sqrt(n * repeats) * np.sqrt(2) + 3 / n
    assert np.all(np.abs(c2.mean(0) - wanted) < allowed)


@pytest.mark.parametrize(
    "counts", [None, *(pytest.param(few, marks=pytest.mark.long) for few in (0.5, 20.0))]
)
@pytest.mark.parametrize("contrast", [pytest.param(1.0, marks=pytest.mark.long), 0.3])
def test_variance_and_covariance_of_the_noise(counts, contrast):
    n, repeats, t = 500, 400, T[:16]
    c2 = speckle(FAST, ONE, contrast, repeats, 1, t, n_pixels=n, mean_counts=counts)[:, 0]
    k_one = contrast + (0.0 if counts is None else 1 / counts)
    assert c2[:, range(16), range(16)].mean() == pytest.approx(1 + k_one, rel=0.02)
    first, second = np.triu_indices(16, 8)  # |c1|² < 0.004 there
    noise = c2[:, first, second] - 1
    ratio = noise.var(axis=0, ddof=1) * n / k_one**2
    assert ratio.mean() == pytest.approx(1.0, abs=0.06)
    # entries (i, k), (j, k) share frame k: covariance K_ij K_kk / N with K_ij of neighbours
    k_near = contrast * 0.5
    pairs = [(i, i + 1, k) for i in range(7) for k in range(i + 9, 16)]
    found = n * np.mean([(c2[:, i, k] - 1) * (c2[:, j, k] - 1) for i, j, k in pairs], axis=0)
    error = found.std() / np.sqrt(repeats)
    assert error < 0.25 * k_near * k_one
    assert found.mean() == pytest.approx(k_near * k_one, abs=4 * error)


def test_dividing_by_frame_means_leaves_the_offset_and_costs_contrast_of_order_one_in_n():
    n, repeats, t = 20, 20_000, T[:10]
    c2 = speckle(FAST, ONE, 1.0, repeats, 2, t, n_pixels=n)[:, 0]
    far = c2[:, 0, 9] - 1  # |c1|² = 0.002
    error = far.std() / np.sqrt(repeats)
    assert abs(far.mean() - 0.5**9) < 4 * error
    # var/mean² of N exponential numbers: the sample value is 1 − 2/(N+1) of the true one
    diagonal = c2[:, 0, 0] - 1
    wanted = (n - 1) / (n + 1)
    assert diagonal.mean() == pytest.approx(wanted, abs=4 * diagonal.std() / np.sqrt(repeats))


def test_speckle_diagonal_is_kept():
    data = simulate_speckle(
        MODEL, T, GEOMETRY, 0.25, n_pixels=2000, mean_counts=2.0, key=jax.random.key(0)
    )
    np.testing.assert_array_equal(data.diagonal, np.diagonal(data.c2, axis1=1, axis2=2))
    assert float(data.diagonal.mean()) == pytest.approx(1 + 0.25 + 0.5, rel=0.02)
    assert data.n_pairs == 2 * len(UPPER[0])
    assert "LaminarFlow" in data.provenance.notes[0]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"n_pixels": 1}, "at least two"),
        ({"n_pixels": 100, "mean_counts": 0.01}, "without a single photon"),
        ({"n_pixels": 100, "mean_counts": -1.0}, "without a single photon"),
        ({"n_pixels": 100, "mean_counts": [1.0, 1.0, 1.0]}, "there are 2 angles"),
    ],
)
def test_impossible_speckle(keywords, message):
    with pytest.raises(ModelError, match=message):
        simulate_speckle(MODEL, T, GEOMETRY, 0.25, **keywords, key=jax.random.key(0))


def test_a_single_frame_is_no_map():
    with pytest.raises(ModelError, match="at least two frames"):
        simulate(MODEL, T[:1], GEOMETRY, 0.25, noise=0.01, key=jax.random.key(0))
