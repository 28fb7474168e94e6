"""Scaling mappers, the index map, start values, and bounded quadratics."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SCALINGS, Stretched, make_data, pooled
from scipy.optimize import lsq_linear

from xpcs_eqx.errors import DataError, ModelError
from xpcs_eqx.objective import minimise_in_box
from xpcs_eqx.scaling import (
    Averaged,
    Fixed,
    Fourier,
    Individual,
    auto_threshold,
    fixed_averaged,
    index_map,
    quantile_scaling,
)


@pytest.mark.parametrize("name", SCALINGS, ids=str)
def test_contract(name):
    scaling = SCALINGS[name]
    k, n = scaling.size, 3
    lower, upper = scaling.bounds
    assert scaling.basis.shape == (n, 2, k)
    assert scaling.constant.shape == (n, 2)
    assert lower.shape == upper.shape == (k,)
    assert len(set(scaling.names)) == k
    coefficients = lower + (upper - lower) * jnp.linspace(0.3, 0.6, k)
    values = jax.jit(lambda c: scaling.per_angle(c))(coefficients)
    assert values.shape == (n, 2)
    # Linear, with the basis as its derivative …
    jacobian = jax.jacfwd(scaling.per_angle)(coefficients)
    np.testing.assert_allclose(jacobian, scaling.basis, atol=1e-14)
    np.testing.assert_allclose(values, scaling.constant + scaling.basis @ coefficients, rtol=1e-12)
    # … invertible inside the bounds …
    np.testing.assert_allclose(scaling.from_per_angle(values), coefficients, atol=1e-12)
    # … clipped outside them …
    far = scaling.from_per_angle(jnp.full((n, 2), 50.0))
    assert bool(jnp.all((far >= lower) & (far <= upper)))
    # … and with the covariance of all contrasts, then all offsets.
    root = np.random.default_rng(0).normal(size=(k, k))
    flat = np.moveaxis(np.asarray(jacobian), 1, 0).reshape(2 * n, k)
    np.testing.assert_allclose(
        scaling.covariance(root @ root.T), flat @ root @ root.T @ flat.T, atol=1e-12
    )


def test_fourier_series():
    phi = np.array([0.0, 30.0, 75.0, 140.0, 200.0, 290.0])
    scaling = Fourier(phi, order=2)
    c = dict(zip(scaling.names, np.linspace(-0.1, 0.15, scaling.size), strict=True))
    c |= {"contrast_c0": 0.3, "offset_c0": 1.05}
    values = scaling.per_angle(jnp.array(list(c.values())))
    p = np.deg2rad(phi)
    for column, kind in enumerate(("contrast", "offset")):
        wanted = c[f"{kind}_c0"] + sum(
            c[f"{kind}_c{k}"] * np.cos(k * p) + c[f"{kind}_s{k}"] * np.sin(k * p) for k in (1, 2)
        )
        np.testing.assert_allclose(values[:, column], wanted, rtol=1e-12)
    # Six angles, ten numbers: what is not a series is met in least squares.
    noisy = np.asarray(values) + 1e-3 * np.random.default_rng(0).normal(size=(6, 2))
    found = scaling.from_per_angle(noisy)
    wanted = np.linalg.lstsq(np.asarray(scaling.harmonics), noisy[:, 0], rcond=None)[0]
    np.testing.assert_allclose(found[:5], wanted, atol=1e-10)


def test_the_default_bounds_of_a_series_are_those_of_contrast_and_offset_themselves():
    lower, upper = Fourier(np.linspace(0, 300, 6), order=2).bounds
    # A contrast of speckle lies in (0, 1); harmonics may have either sign.
    assert (float(lower[0]), float(upper[0])) == (0.0, 1.0)
    mean = Averaged(6).bounds
    np.testing.assert_array_equal([lower[0], upper[0]], [mean[0][0], mean[1][0]])
    np.testing.assert_array_equal([lower[5], upper[5]], [mean[0][1], mean[1][1]])
    np.testing.assert_array_equal(np.delete(lower, [0, 5]), -np.delete(upper, [0, 5]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fourier(np.zeros(4), order=2), "needs at least 5 angles, the data have 4"),
        (lambda: Fourier(np.zeros(4), order=-1), "order is -1; give a whole number from 0"),
        (lambda: Individual(3, contrast_bounds=(1.0, 0.0)), "contrast bounds .* inside out"),
        (lambda: Averaged(3, offset_bounds=(1.0, 0.9)), "offset bounds .* inside out"),
        (lambda: Fourier(np.arange(6), offset_bounds=(1.0, 1.0)), "offset bounds .* inside out"),
        (lambda: Fixed(np.ones(3), np.ones(2)), "two lists with one value an angle"),
    ],
)
def test_impossible_scalings(make, message):
    with pytest.raises(ModelError, match=message):
        make()


@pytest.mark.parametrize("kind", [Individual, Averaged])
def test_equal_bounds_fix_contrast_or_offset(kind):
    free = kind(3)
    for fixed, level in (("offset", 1.0), ("contrast", 0.3)):
        scaling = kind(3, **{f"{fixed}_bounds": (level, level)})
        kept = [k for k, name in enumerate(free.names) if not name.startswith(fixed)]
        assert scaling.names == tuple(free.names[k] for k in kept)
        np.testing.assert_array_equal(scaling.basis, np.asarray(free.basis)[:, :, kept])
        for own, every in zip(scaling.bounds, free.bounds, strict=True):
            np.testing.assert_array_equal(own, np.asarray(every)[kept])
        own = 0.6 + 0.1 * np.arange(scaling.size)
        found = np.asarray(scaling.per_angle(own))
        np.testing.assert_array_equal(found[:, ("contrast", "offset").index(fixed)], level)
        np.testing.assert_allclose(scaling.from_per_angle(found), own)
    held = kind(3, contrast_bounds=(0.3, 0.3), offset_bounds=(1.0, 1.0))
    assert held.names == ()
    np.testing.assert_array_equal(held.per_angle(np.zeros(0)), Fixed([0.3] * 3, [1.0] * 3).constant)


def test_which_scaling_runs():
    assert isinstance(auto_threshold(2), Individual)
    assert isinstance(auto_threshold(3), Averaged)
    same = fixed_averaged(np.array([0.1, 0.3]), np.array([1.0, 1.2]))
    np.testing.assert_allclose(same.constant, [[0.2, 1.1], [0.2, 1.1]])


def test_index_map():
    index = index_map(SCALINGS["individual"], ("D0", "alpha"))
    assert index.size == 8
    assert index.names[index.index("contrast[2]")] == "contrast[2]"
    assert index.names[index.group("offset")] == ("offset[0]", "offset[1]", "offset[2]")
    assert index.names[index.physical] == ("D0", "alpha")
    matrix = np.arange(64.0).reshape(8, 8)
    np.testing.assert_array_equal(index.physical_block(matrix), matrix[6:, 6:])
    np.testing.assert_array_equal(matrix[index.scaling, index.scaling], matrix[:6, :6])
    with pytest.raises(ModelError, match="no entry 'gamma'"):
        index.index("gamma")
    with pytest.raises(ModelError, match="no group 'phi'"):
        index.group("phi")
    assert index_map(SCALINGS["fixed"], ("D0",)).group("contrast") == slice(0, 0)


def test_quantile_start():
    contrast, offset = np.array([0.2, 0.3, 0.1]), np.array([1.0, 1.05, 0.95])
    model = Stretched(tau=2.0, stretch=1.0)
    data = make_data(model, n=101, contrast=contrast, offset=offset, noise=0.0)
    found = quantile_scaling(data)
    np.testing.assert_allclose(found[:, 1], offset, atol=1e-2)
    assert np.all(found[:, 0] > 0.5 * contrast)
    assert np.all(found[:, 0] <= contrast)
    np.testing.assert_allclose(quantile_scaling(pooled(data)), found, rtol=1e-12)
    # Noise biases the percentiles; knowing it takes the bias off.
    noisy = make_data(model, n=101, contrast=contrast, offset=offset, noise=0.02)
    sd = np.full(3, 0.02)
    biased, corrected = quantile_scaling(noisy), quantile_scaling(noisy, noise=sd)
    assert np.all(np.abs(corrected[:, 1] - offset) < 0.3 * np.abs(biased[:, 1] - offset))


def test_an_angle_without_pairs_has_no_quantiles():
    data = make_data(Stretched(tau=2.0, stretch=1.0), n=11, noise=0.0)
    weights = np.ones(data.c2.shape)
    weights[1] = 0.0
    with pytest.raises(DataError, match="angle 1 has no pair"):
        quantile_scaling(dataclasses.replace(data, root_weights=weights))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_quadratics_in_a_box_by_brute_force(k):
    rng = np.random.default_rng(k)
    roots = rng.normal(size=(60, k, k)) * 10.0 ** rng.uniform(-2, 2, size=(60, 1, k))
    hessians = roots.swapaxes(1, 2) @ roots
    gradients = rng.normal(size=(60, k)) * np.sqrt(np.diagonal(hessians, axis1=1, axis2=2))
    lower, upper = -rng.uniform(0, 1, (60, k)), rng.uniform(0, 1, (60, k))
    found, held = jax.jit(jax.vmap(minimise_in_box))(hessians, gradients, lower, upper)
    for h, g, low, high, x, on in zip(
        hessians, gradients, lower, upper, np.asarray(found), np.asarray(held), strict=True
    ):
        best = np.inf
        for sides in itertools.product((-1, 0, 1), repeat=k):
            sides = np.array(sides)
            free = sides == 0
            y = np.where(sides < 0, low, high)
            if free.any():
                y[free] = np.linalg.solve(
                    h[np.ix_(free, free)], -(g + h[:, ~free] @ y[~free])[free]
                )
            if np.all((y >= low - 1e-12) & (y <= high + 1e-12)):
                best = min(best, g @ y + 0.5 * y @ h @ y)
        value = g @ x + 0.5 * x @ h @ x
        assert value <= best + 1e-9 * (abs(best) + 1e-12)
        assert np.all((x >= low) & (x <= high))
        np.testing.assert_array_equal(on, (x == low) | (x == high))


def test_quadratics_in_a_box_against_scipy():
    rng = np.random.default_rng(7)
    matrices, right = rng.normal(size=(20, 30, 12)), rng.normal(size=(20, 30))
    low, high = np.full(12, -0.05), np.full(12, 0.1)
    hessians = matrices.swapaxes(1, 2) @ matrices
    gradients = -np.einsum("bmk,bm->bk", matrices, right)
    found, _ = jax.jit(jax.vmap(minimise_in_box, (0, 0, None, None)))(
        hessians, gradients, low, high
    )
    for a, b, x in zip(matrices, right, found, strict=True):
        peer = lsq_linear(a, b, (low, high), method="bvls", tol=1e-14).x
        np.testing.assert_allclose(x, peer, atol=1e-9)


def test_a_direction_without_curvature_stays_inside():
    hessian = jnp.diag(jnp.array([2.0, 0.0]))
    x, _ = minimise_in_box(hessian, jnp.array([-1.0, 0.0]), -jnp.ones(2), jnp.ones(2))
    np.testing.assert_allclose(x, [0.5, 0.0], atol=1e-12)
    x, held = minimise_in_box(jnp.zeros((0, 0)), jnp.zeros(0), jnp.zeros(0), jnp.zeros(0))
    assert x.shape == held.shape == (0,)
