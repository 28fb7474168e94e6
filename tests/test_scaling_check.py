"""Twenty-three angles whose contrast varies: which scalings are biased by it, and say so."""

import dataclasses

import numpy as np
import pytest
from helpers import LAMINAR, TRANSPORT, make_data, mapped, pooled, start_off

from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import Huber, two_time_objective
from xpcs_eqx.physics import Static
from xpcs_eqx.scaling import Averaged, Fixed, Fourier, quantile_scaling

pytestmark = pytest.mark.usefixtures("optimised")

MANY = np.linspace(-90.0, 90.0, 23)
# 20 % up and down, out of step with the shear.
VARYING = 0.2 * (1 + 0.2 * np.cos(np.deg2rad(2 * MANY + 40)))
STATISTICS = 0.005


def data_of(contrast, seed=0, **keywords):
    return make_data(n=41, phi=MANY, contrast=contrast, noise=STATISTICS, seed=seed, **keywords)


def fit_of(data, scaling=None, model=LAMINAR, **keywords):
    parameters = mapped(start_off(model, 1.2), data)
    return least_squares(two_time_objective(parameters, data, scaling, **keywords))


def constant():
    return Fixed(np.full(23, 0.2), np.ones(23))


def worst(fit, field):
    """Largest distance of a rate from the truth, in its errors."""
    value, error = fit.rate(field)
    true = getattr(LAMINAR, field)(np.maximum(fit.objective.term.t, 0.125))
    return float(np.max(np.abs(value - np.asarray(true)) / error))


@pytest.fixture(scope="module")
def varied():
    return data_of(VARYING)


@pytest.mark.long
def test_individual_scaling_recovers_the_rates(varied):
    fit = fit_of(varied)
    assert fit.scaling_check is None
    assert worst(fit, "transport") < 3
    assert worst(fit, "shear") < 3
    z = (fit.contrast - VARYING) / [fit[f"contrast[{a}]"].error for a in range(23)]
    assert np.max(np.abs(z)) < 4


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Averaged(23), marks=pytest.mark.long, id="averaged"),
        pytest.param(constant, id="fixed"),
    ],
)
def test_one_contrast_for_all_is_biased_and_says_so(varied, make):
    fit = fit_of(varied, make())
    check = fit.scaling_check
    print(check.finding())
    print({f: worst(fit, f) for f in ("transport", "shear")}, fit["phi0"])
    assert max(worst(fit, "transport"), worst(fit, "shear")) > 3
    assert abs(fit["phi0"].value - 5.0) > 5 * fit["phi0"].error
    assert check.contrast.significant
    assert check.contrast.varies
    assert check.biased
    assert fit.quality.flag == "marginal"
    assert check.finding() in fit.quality.findings
    assert "contrast varies with angle" in check.finding()
    assert "Individual" in check.finding()


@pytest.mark.long
def test_what_the_angles_would_have_is_what_they_get(varied):
    check = fit_of(varied, Averaged(23)).scaling_check
    free = fit_of(varied)
    assert np.max(np.abs(check.contrast.estimate - free.contrast) / check.contrast.error) < 2
    assert np.max(np.abs(check.offset.estimate - free.offset) / check.offset.error) < 2


def test_fixed_values_from_quantiles_are_refused_where_they_are_biased(varied):
    values = quantile_scaling(varied)
    fit = fit_of(varied, Fixed(values[:, 0], values[:, 1]))
    assert fit.scaling_check.significant


def test_a_shift_of_all_angles_is_not_called_variation():
    fit = fit_of(data_of(0.2), Fixed(np.full(23, 0.2), np.full(23, 1.002)))
    offset = fit.scaling_check.offset
    assert offset.significant
    assert not offset.varies
    assert "offset is not where Fixed scaling has it" in fit.scaling_check.finding()


@pytest.mark.long
@pytest.mark.parametrize("make", [lambda: Averaged(23), constant], ids=["averaged", "fixed"])
def test_equal_contrast_raises_no_warning(make):
    scores = []
    for seed in range(10):
        check = fit_of(data_of(0.2, seed), make()).scaling_check
        assert not check.significant, check.finding()
        assert check.finding() == ""
        scores += [one.statistic / one.degrees for one in (check.contrast, check.offset)]
    # The statistic has the distribution it is compared with: its mean is one.
    print(f"mean {np.mean(scores):.3f}, largest {np.max(scores):.2f}")
    assert abs(np.mean(scores) - 1) < 4 * np.sqrt(2 / 22 / len(scores))


@pytest.mark.long
def test_a_series_that_can_follow_raises_no_warning(varied):
    assert not fit_of(varied, Fourier(MANY, order=2)).scaling_check.significant


def speckle(truth, seed, pixels=2000, modes=4):
    """Maps from intensities of Gaussian fields, whose entries share frames: contrast 1/modes."""
    clean = make_data(truth, n=41, contrast=1.0, offset=0.0, noise=0.0)
    field = np.sqrt(np.asarray(clean.c2[0]))
    rng, root = np.random.default_rng(seed), np.linalg.cholesky(field)
    shape = (2, modes, len(clean.geometry.phi), 41, pixels)
    intensity = np.mean(np.sum((root @ rng.normal(size=shape)) ** 2, axis=0), axis=0) / 2
    c2 = intensity @ np.swapaxes(intensity, 1, 2) / pixels
    diagonal = np.diagonal(c2, axis1=1, axis2=2)
    return dataclasses.replace(clean, c2=c2, diagonal=diagonal)


@pytest.mark.long
def test_correlated_noise_raises_no_warning():
    truth = Static(TRANSPORT)
    for seed in range(4):
        fit = fit_of(speckle(truth, seed), Averaged(3), truth)
        assert abs(fit["contrast"].value - 0.25) < 0.05
        assert fit["contrast"].error > 1.5 * fit["contrast"].error_classical
        assert not fit.scaling_check.significant, fit.scaling_check.finding()


@pytest.mark.long
def test_robust_losses_and_points():
    truth = Static(TRANSPORT)
    # Within the bend of the loss: beyond it a pair says nothing of the size of its residual.
    for contrast, warned in ((0.2, False), ([0.2, 0.19, 0.21], True)):
        contrast = np.array(contrast) * np.ones(3)
        data = make_data(truth, n=41, contrast=contrast, noise=0.001)
        robust = fit_of(data, Averaged(3), truth, loss=Huber(0.01))
        points = fit_of(pooled(data), Averaged(3), truth)
        for fit in (robust, points):
            assert fit.scaling_check.contrast.significant == warned


@pytest.mark.long
def test_a_large_departure_does_not_hide_behind_its_own_misfit():
    data = make_data(Static(TRANSPORT), n=41, contrast=np.array([0.2, 0.16, 0.24]), noise=1e-4)
    check = fit_of(data, Averaged(3), Static(TRANSPORT)).scaling_check
    assert check.contrast.significant
    # As much up as down on maps that are alike: nothing else depends on it.
    assert not check.biased
    assert "hardly depend" in check.finding()
