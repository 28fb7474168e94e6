"""Every choice of coordinates ends at the same optimum."""

import numpy as np
import pytest
from helpers import LAMINAR, frame_times, make_data, start_off

import xpcs_eqx as xe
from xpcs_eqx.parameters import Affine, Log, ReferenceAmplitude, ReferenceTime, SignedSlope, Slope


@pytest.fixture(scope="module")
def problem():
    data = make_data(t=frame_times(41), phi=[-12.0, 40.0, 110.0], noise=0.002)
    return data, start_off(LAMINAR, 1.2)


def chi2(data, parameters):
    fit = xe.least_squares(xe.projected_objective(parameters, data))
    assert fit.success, fit.message
    return float(fit.chi2), fit


@pytest.fixture(scope="module")
def reference(problem):
    data, start = problem
    return chi2(data, xe.parameter_map(start, data.t))


@pytest.mark.long
@pytest.mark.parametrize("rates", [ReferenceTime, SignedSlope])
def test_rates(problem, reference, rates):
    data, start = problem
    found, fit = chi2(data, xe.parameter_map(start, data.t, rates=rates))
    np.testing.assert_allclose(found, reference[0], rtol=1e-8)
    np.testing.assert_allclose(fit["phi0"].value, reference[1]["phi0"].value, atol=1e-3)


def test_named_coordinates(problem, reference):
    data, start = problem
    t_ref = np.asarray(1.0)
    coordinates = {
        ("D0", "alpha", "D_offset"): Slope(t_ref),
        ("gamma_dot_t0",): Log(),
        ("beta",): Affine(0.3, 0.1),
    }
    found, _ = chi2(data, xe.parameter_map(start, data.t, coordinates=coordinates))
    np.testing.assert_allclose(found, reference[0], rtol=1e-8)


def test_amplitude_at_a_reference_time_when_the_offset_is_fixed(problem):
    data, start = problem
    parameters = xe.parameter_map(start, data.t, fixed=("D_offset", "gamma_dot_t_offset"))
    kinds = [type(group.bijection) for group in parameters.groups]
    assert kinds.count(ReferenceAmplitude) == 2


@pytest.mark.long
def test_physical(problem, reference):
    data, start = problem
    found, _ = chi2(data, xe.parameter_map(start, None))
    np.testing.assert_allclose(found, reference[0], rtol=1e-6)
