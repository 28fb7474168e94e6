"""Weights of the angles: values, derivatives, and what they do to fits and error bars."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import PHI, dense_residual, pooled
from helpers_defences import joint, projected, slow_data, slow_map, static_data, static_map

from xpcs_eqx.defences import ShearWeights, with_shear_weights
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import projected_objective, two_time_objective
from xpcs_eqx.optimize.loops import _evaluate_compiled, evaluated
from xpcs_eqx.physics import correlation_map, field_correlation
from xpcs_eqx.scaling import Averaged
from xpcs_eqx.uncertainty.speckle_noise import beyond_gaussian


def test_values_are_those_of_the_formula():
    weights = np.asarray(ShearWeights()(PHI, 5.0))
    raw = 0.3 + 0.7 * np.abs(np.cos(np.deg2rad(5.0 - PHI)))
    np.testing.assert_allclose(weights, 3 * raw / raw.sum(), rtol=1e-13)
    assert weights.sum() == pytest.approx(3)
    # Even in the cosine: a flow the other way has the same weights.
    np.testing.assert_allclose(ShearWeights()(PHI, 185.0), weights, rtol=1e-12)
    np.testing.assert_allclose(ShearWeights(exponent=0.0)(PHI, 5.0), np.ones(3), rtol=1e-13)
    square = 0.1 + 0.9 * np.cos(np.deg2rad(PHI)) ** 2
    found = ShearWeights(minimum=0.1, exponent=2.0)(PHI, 0.0)
    np.testing.assert_allclose(found, 3 * square / square.sum(), rtol=1e-13)


@pytest.mark.parametrize("exponent", [1.0, 2.5])
def test_derivatives_by_the_flow_angle(exponent):
    rule = ShearWeights(exponent=exponent)
    slope = jax.jit(jax.jacfwd(lambda phi0: rule(PHI, phi0)))(5.0)
    up, down = (np.asarray(rule(PHI, 5.0 + s * 1e-5)) for s in (1, -1))
    np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-6, atol=1e-10)
    # Across the flow the cosine vanishes; there must be a number all the same.
    assert np.all(np.isfinite(jax.jit(jax.jacfwd(lambda phi0: rule(PHI, phi0)))(0.0)))


def test_weights_replace_those_of_the_angles_without_compiling():
    own = np.array([1.0, 2.0, 0.5])
    objective = projected("slow", angle_weights=own)
    x = np.asarray(objective.start)
    first, weights, phi0 = with_shear_weights(objective, ShearWeights(), x)
    assert phi0 == pytest.approx(6.0)
    np.testing.assert_allclose(weights, ShearWeights()(PHI, 6.0), rtol=1e-12)
    root = np.asarray(first.term.tiles.root_angle_weights)
    np.testing.assert_allclose(root**2, own * weights, rtol=1e-12)
    y = objective.variables.to_coordinates(objective.start)
    found, _ = evaluated(first, y, first.memo)
    fresh = projected("slow", angle_weights=own * weights)
    wanted, _ = evaluated(fresh, y, fresh.memo)
    np.testing.assert_allclose(found.hessian, wanted.hessian, rtol=1e-10)
    cache = _evaluate_compiled.traced()._cached
    before = cache._cache_size()
    x[slow_map().free_names.index("phi0")] = -20.0
    other, changed, _ = with_shear_weights(objective, ShearWeights(0.1, 3.0), x)
    evaluated(other, y, other.memo)
    assert not np.allclose(changed, weights)
    assert cache._cache_size() == before


def test_error_bars_count_the_weights():
    weights = np.asarray(ShearWeights(minimum=0.1)(PHI, 5.0))
    objective = joint(scaling=Averaged(3), angle_weights=weights)
    fit = least_squares(objective)
    term, p = objective.term, static_map().n_free
    i, j = np.triu_indices(21, 1)
    w = np.repeat(weights, i.size)

    def raw(u):
        y = term.parameters.to_coordinates(u[2:])
        return dense_residual(term, static_data(), y, u[:2])

    u = jnp.asarray(fit.values)
    r, jacobian = (np.asarray(a) for a in jax.jit(lambda u: (raw(u), jax.jacfwd(raw)(u)))(u))
    bread = np.linalg.inv((jacobian.T * w) @ jacobian)
    scores = (jacobian * (w * r)[:, None]).reshape(3, i.size, p + 2)
    by_frame = np.zeros((3, 21, p + 2))
    for a in range(3):
        np.add.at(by_frame[a], i, scores[a])
        np.add.at(by_frame[a], j, scores[a])
    own = np.einsum("amc,amd->acd", scores, scores)
    meat = np.einsum("anc,and->acd", by_frame, by_frame) - own
    # A fit follows the noise and so takes 4/n of it out of the sums by frame, to first order:
    # (4/n) (B H⁻¹ G + G H⁻¹ B − G H⁻¹ B_all H⁻¹ G) of an angle with curvature G, covariance B.
    by_angle = (jacobian * np.sqrt(w)[:, None]).reshape(3, i.size, p + 2)
    followed = np.einsum("amc,amd->acd", by_angle, by_angle) @ bread
    across = followed @ meat
    common = followed @ meat.sum(0) @ np.swapaxes(followed, 1, 2)
    meat = meat + 4 / 21 * (across + np.swapaxes(across, 1, 2) - common)
    # Of few frames some directions scatter less than a tenth of independent pairs: raised to that.
    part, directions = scipy.linalg.eigh(meat.sum(0), own.sum(0))
    turned = own.sum(0) @ directions
    assert part[0] < 0.1 < part[-1]
    wanted = bread @ ((turned * np.maximum(part, 0.1)) @ turned.T) @ bread
    scale = np.sqrt(np.outer(np.diagonal(bread), np.diagonal(bread)))
    found = np.asarray(fit.uncertainty.dyadic)
    np.testing.assert_allclose(found / scale, wanted / scale, atol=1e-4 * np.max(wanted / scale))
    # The noise of speckle along weighted columns, from whole matrices: Σ tr(K J_a K J_b)/(2N) and
    # what intensities have beyond that (compared with sums over all pairs in test_uncertainty.py).
    correlation = np.asarray(jax.jit(correlation_map)(fit.model, term.t, term.geometry))
    field = field_correlation(fit.model, term.t, term.geometry)
    middle = np.zeros((p + 2, p + 2))
    for a in range(3):
        level = float(fit.contrast[a])
        signal = level * correlation[a]
        shot = float(fit.uncertainty.shot_noise[a])
        np.fill_diagonal(signal, level + shot)
        columns = np.zeros((p + 2, 21, 21))
        columns[:, i, j] = (jacobian * w[:, None])[a * i.size : (a + 1) * i.size].T
        turned = np.einsum("ij,cjk->cik", signal, columns + np.swapaxes(columns, 1, 2))
        traces = np.einsum("cij,dji->cd", turned, turned)
        level, shot = jnp.asarray(level), jnp.asarray(shot)
        columns = columns + np.swapaxes(columns, 1, 2)
        beyond = jax.jit(beyond_gaussian)(columns, field[a], np.ones(21), level, shot)
        middle += (traces / 2 + beyond) / float(fit.uncertainty.n_pixels[a])
    wanted = bread @ middle @ bread
    found = np.asarray(fit.uncertainty.speckle)
    np.testing.assert_allclose(found / scale, wanted / scale, atol=1e-3 * np.max(wanted / scale))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"minimum": 0.0}, "minimum is 0.0"),
        ({"minimum": 1.2}, "minimum"),
        ({"exponent": -1.0}, "exponent is -1.0"),
        ({"exponent": np.inf}, "exponent"),
    ],
)
def test_wrong_numbers_are_refused(fields, message):
    with pytest.raises(ModelError, match=message):
        ShearWeights(**fields)


def test_models_and_data_without_a_flow_angle_are_refused():
    x = np.ones(2)
    static = projected_objective(static_map(), static_data())
    with pytest.raises(ModelError, match=r"flow angle phi0 .* Static"):
        with_shear_weights(static, ShearWeights(), x)
    points = two_time_objective(slow_map(), pooled(slow_data()), eliminate=False)
    with pytest.raises(ModelError, match="whole maps; the data are PointTiles"):
        with_shear_weights(points, ShearWeights(), x)
