"""Fits to single angles and their combination."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import TRANSPORT, assert_close, make_data, mapped, start_off

from xpcs_eqx import fitting
from xpcs_eqx.errors import FitError, ModelError
from xpcs_eqx.fitting import ByPoints, InverseVariance, Uniform, sequential_least_squares
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.physics import LaminarFlow, PowerLawRate, Static

PHI = np.array([0.0, 40.0, 90.0])
TRUTH = Static(TRANSPORT)
CONTRAST = np.array([0.2, 0.24, 0.18])
COMBINATIONS = (InverseVariance(), Uniform(), ByPoints())


@pytest.fixture(scope="module")
def data():
    return make_data(TRUTH, n=31, phi=PHI, contrast=CONTRAST, noise=0.002)


@pytest.fixture(scope="module")
def parameters(data):
    return mapped(start_off(TRUTH, 1.3), data)


@pytest.fixture(scope="module")
def fit(parameters, data):
    return sequential_least_squares(parameters, data)


def masked(data, angles):
    weights = np.ones(data.c2.shape)
    weights[list(angles)] = 0.0
    return dataclasses.replace(data, root_weights=weights)


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda c: type(c).__name__)
def test_truth_is_found(parameters, data, combination):
    found = sequential_least_squares(parameters, data, combination=combination)
    for row, true in zip(found.rows, (1.5e4, -0.3, 500.0), strict=True):
        assert abs(row.value - true) < 3.5 * row.error, row
        assert row.angles == 3
    assert found.success_rate == 1.0
    assert "agree within their errors" in found.report()


def test_inverse_variance_is_close_to_the_fit_of_all(fit, parameters, data):
    whole = fitting.least_squares(projected_objective(parameters, data))
    for row in fit.rows:
        other = whole[row.name]
        assert abs(row.value - other.value) < other.error
        assert 0.7 < row.error / other.error < 1.3


def test_the_formula_with_full_matrices(fit):
    inverses = [one.information for one in fit.estimates]
    total = np.sum(inverses, axis=0)
    wanted = np.linalg.solve(
        total, sum(i @ e.value for i, e in zip(inverses, fit.estimates, strict=True))
    )
    combined = InverseVariance()(fit.estimates)
    assert_close(combined.value, wanted, 1e-9)
    assert_close(combined.covariance, np.linalg.inv(total), 1e-6)
    # Parameter by parameter is another answer: the matrices are far from diagonal.
    variances = np.array([np.diagonal(np.linalg.inv(i)) for i in inverses])
    values = np.array([one.value for one in fit.estimates])
    single = np.sum(values / variances, axis=0) / np.sum(1 / variances, axis=0)
    error = np.sqrt(np.diagonal(combined.covariance))
    assert np.max(np.abs(single - combined.value) / error) > 0.03


def test_one_after_the_other_and_by_an_executor(fit, parameters, data):
    with ThreadPoolExecutor(1) as executor:
        apart = sequential_least_squares(parameters, data, executor=executor)
    error = np.sqrt(np.diagonal(fit.covariance))
    assert np.max(np.abs(apart.values - fit.values) / error) < 1e-3


def test_failed_angles_are_set_aside_with_the_reason(parameters, data, fit):
    found = sequential_least_squares(parameters, masked(data, [1]))
    assert found.angles == (0, 2)
    (failed,) = found.failed
    assert (failed.angle, failed.phi) == (1, 40.0)
    assert "0 pairs" in failed.reason
    assert failed.reason in found.report()
    kept = tuple(fit.estimates[a] for a in (0, 2))
    error = np.sqrt(np.diagonal(InverseVariance()(kept).covariance))
    moved = InverseVariance()(found.estimates).value - InverseVariance()(kept).value
    assert np.max(np.abs(moved) / error) < 1e-3


def test_too_few_angles(parameters, data):
    with pytest.raises(FitError, match=r"1 of 3 angles .* 0.5 asked for: angle 0 \(0 deg\)"):
        sequential_least_squares(parameters, masked(data, [0, 1]))
    found = sequential_least_squares(parameters, masked(data, [0, 1]), minimum_success_rate=0.3)
    assert found.angles == (2,)
    assert found.heterogeneity.degrees == 0


def test_angles_that_disagree(parameters):
    other = Static(PowerLawRate(1.8e4, -0.3, 500.0))
    one, two = (make_data(m, n=31, phi=PHI, noise=0.002) for m in (TRUTH, other))
    mixed = dataclasses.replace(one, c2=np.concatenate([one.c2[:2], two.c2[2:]]))
    found = sequential_least_squares(parameters, mixed)
    assert found.heterogeneity.probability < 1e-6
    assert "do not agree" in found.report()


def test_an_angle_without_shear_does_not_poison_it():
    truth = LaminarFlow(PowerLawRate(4e3, -0.3, 0.0), PowerLawRate(8e-4, 0.3, 0.0), 0.0)
    data = make_data(truth, n=31, phi=PHI, noise=0.001)
    fixed = ("phi0", "D_offset", "gamma_dot_t_offset")
    found = sequential_least_squares(mapped(truth, data, fixed=fixed), data)
    # At 90 degrees the flow is across the scattering vector.
    assert not found.estimates[2].determined[2]
    shear, transport = found["gamma_dot_t0"], found["D0"]
    assert shear.angles == 2
    assert abs(shear.value - 8e-4) < 4 * shear.error < 1e-4
    assert abs(transport.value - 4e3) < 4 * transport.error
    assert found.heterogeneity.degrees == 4 + 4 + 2 - 4


def test_what_no_angle_determines_is_named():
    laminar = LaminarFlow(PowerLawRate(4e3, -0.3, 0.0), PowerLawRate(8e-4, 0.3, 0.0), 0.0)
    data = make_data(laminar, n=31, phi=PHI[:1], noise=0.001)
    fixed = ("D_offset", "gamma_dot_t_offset", "beta", "alpha")
    found = sequential_least_squares(mapped(laminar, data, fixed=fixed), data)
    assert not np.isfinite(found["phi0"].error)
    assert np.isfinite(found["D0"].error)
    assert any("phi0 is not determined" in text for text in found.findings)


def test_misuse(parameters, data):
    with pytest.raises(ModelError, match="a share, 0 to 1"):
        sequential_least_squares(parameters, data, minimum_success_rate=1.5)
    with pytest.raises(ModelError, match="maps in memory"):
        sequential_least_squares(parameters, np.zeros(3))
    with pytest.raises(ModelError, match="no parameter is free"):
        sequential_least_squares(mapped(TRUTH, data, fixed=("D0", "alpha", "D_offset")), data)
    with pytest.raises(KeyError, match="no parameter 'beta'"):
        sequential_least_squares(parameters, data)["beta"]
