"""Fits that leave no degree of freedom: infinite errors in words, unless sigma is known."""

import dataclasses

import numpy as np
import pytest
from helpers import TRANSPORT, assert_close, make_data, mapped

import xpcs_eqx as xe
from xpcs_eqx import fitting, report
from xpcs_eqx.fitting import classical_covariance, profile_curve, sequential_least_squares
from xpcs_eqx.objective import projected_objective, two_time_objective
from xpcs_eqx.parameters import shared_parameters
from xpcs_eqx.physics import Static
from xpcs_eqx.search import skip_search

WORDS = "no more points than free parameters"
TRUTH = Static(TRANSPORT)
HELD = ("alpha", "D_offset")


def three_frames(seed=0, phi=(0.0,)):
    """Three pairs for one diffusion coefficient, a contrast and an offset."""
    return make_data(TRUTH, n=3, phi=np.array(phi), noise=0.002, seed=seed)


@pytest.fixture(scope="module")
def scarce():
    data = three_frames()
    objective = projected_objective(mapped(TRUTH, data, fixed=HELD), data)
    return objective, fitting.least_squares(objective)


def test_a_map_with_as_many_parameters_as_pairs(scarce):
    objective, fit = scarce
    assert fit.success
    assert (fit.n_pairs, fit.degrees_of_freedom) == (3, 0)
    for kind in ("classical", "speckle", "dyadic"):
        assert np.all(np.isinf(fit.uncertainty.errors(kind))), kind
    assert WORDS in fit.uncertainty.reason
    assert WORDS in fit.quality.findings[0]
    # Said once, and not that one parameter or the other were to blame.
    assert len(fit.quality.findings) == 1
    assert fit.quality.flag == "poor"
    assert WORDS in " ".join(report.text_report(fit).split())
    assert np.isnan(fit.reduced_chi2)
    assert np.isnan(fit.residual_sd)
    assert np.all(np.isinf(classical_covariance(objective, fit.values)))
    assert np.all(np.isinf(fit.rate("transport")[1]))
    assert np.isinf(fitting.profile_interval(fit, diffusion, kind="speckle").high)
    interval = fitting.profile_interval(fit, "D0")
    assert (interval.low, interval.high) == (fit["D0"].lower, fit["D0"].upper)
    assert np.all(profile_curve(fit, "D0", [1.1 * fit["D0"].value]).rise == 0)


def diffusion(values):
    return values["D0"]


def test_a_known_sigma_needs_no_degrees_of_freedom(scarce):
    relative = scarce[1]
    data = three_frames()
    weights = np.full(data.c2.shape, 500.0)
    known = dataclasses.replace(data, root_weights=weights, absolute_sigma=True)
    for loss in (xe.objective.Linear(), xe.SoftL1(10.0)):
        fit = fitting.least_squares(
            two_time_objective(mapped(TRUTH, data, fixed=HELD), known, loss=loss)
        )
        assert fit.uncertainty.chosen == "classical"
        wanted = np.linalg.inv(np.asarray(relative.joint_hessian)) / 500.0**2
        assert_close(fit.uncertainty.covariance, wanted, 1e-5)
        assert np.isnan(fit.reduced_chi2)
        assert fit.quality.flag == "good"


def test_a_joint_fit_that_only_together_has_degrees_of_freedom():
    data = [three_frames(seed) for seed in range(2)]
    times = [one.t for one in data]
    shared = shared_parameters([TRUTH] * 2, times, shared=("D0",), fixed=HELD)
    fit = xe.least_squares(two_time_objective(shared, data, weights=(1.0, 1.0)))
    assert fit.degrees_of_freedom == 1
    assert np.all(np.isfinite(fit.uncertainty.errors("classical")))
    # No data set can be judged by itself.
    assert fit.sharing.degrees == 0
    assert fit.sharing.distances == ()
    apart = shared_parameters([TRUTH] * 2, times, shared=(), fixed=HELD)
    fit = xe.least_squares(two_time_objective(apart, data, weights=(1.0, 1.0)))
    assert fit.degrees_of_freedom == 0
    assert WORDS in fit.quality.findings[0]
    assert np.all(np.isinf(fit.uncertainty.errors()))
    for one in fit.parts.values():
        assert np.all(np.isinf(one.uncertainty.errors()))


def test_angles_that_have_no_errors_have_no_weight():
    data = make_data(TRUTH, n=5, phi=np.array([0.0, 40.0, 90.0]), noise=0.002)
    parameters = mapped(TRUTH, data, fixed=HELD)

    def fitted(frames):
        """With so many frames left of each angle."""
        weights = np.zeros(data.c2.shape)
        for a, n in enumerate(frames):
            weights[a, :n, :n] = 1.0
        return sequential_least_squares(parameters, dataclasses.replace(data, root_weights=weights))

    some, rest, none = fitted((3, 5, 5)), fitted((0, 5, 5)), fitted((3, 3, 3))
    assert not some.failed
    assert WORDS in some.fits[0].quality.findings[0]
    assert_close(some.values, rest.values, 1e-7)
    assert_close(some.covariance, rest.covariance, 1e-5)
    # Nothing but such angles: a value, and no error.
    assert np.all(np.isinf(none.covariance))
    assert np.all(np.isfinite(none.values))


def test_no_search_is_skipped_for_want_of_residuals():
    assert not skip_search(np.nan, 1e-4, converged=True, at_bound=False).skip
