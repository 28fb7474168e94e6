"""Results of fits: diagnostics, surfaces, rescaling, curve fits, rates, table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import curve_fit as scipy_curve_fit

import xpcs_eqx as xe
from xpcs_eqx.fitting import Fit
from xpcs_eqx.parameters import scale_from_bounds, scale_from_start
from xpcs_eqx.uncertainty import covariance

GEOMETRY = xe.Geometry(q=0.0054, phi=np.array([0.0, 60.0]))
TIMES = 0.2 * np.arange(1, 42)


@pytest.fixture(scope="module")
def truth():
    return xe.Static(xe.PowerLawRate(8e3, -0.3, 0.0))


@pytest.fixture(scope="module")
def fit(truth):
    contrast, offset = np.array([0.25, 0.2]), np.array([1.0, 1.01])
    data = xe.simulate(truth, TIMES, GEOMETRY, contrast, offset, noise=0.004, key=jax.random.key(1))
    parameters = xe.parameter_map(truth, TIMES, fixed=("D_offset",))
    return xe.least_squares(xe.projected_objective(parameters, data)), data


@pytest.mark.parametrize("loss", [None, pytest.param(xe.Huber(0.02), marks=pytest.mark.long)])
def test_only_classical_errors(fit, truth, loss, monkeypatch):
    parameters = xe.parameter_map(truth, TIMES, fixed=("D_offset",))
    objective = xe.two_time_objective(parameters, fit[1], loss=loss)
    whole = xe.least_squares(objective)
    for name in ("speckle_scores", "lower_speckle_scores"):
        monkeypatch.delattr(covariance, name)
    found = xe.least_squares(objective, errors="classical")
    np.testing.assert_allclose(found.x, whole.x, rtol=1e-12)
    classical = whole.uncertainty.classical
    np.testing.assert_allclose(found.uncertainty.classical, classical, rtol=1e-9)
    assert found["D0"].error == found["D0"].error_classical
    assert np.isnan([found["D0"].error_speckle, found["D0"].error_dyadic]).all()
    assert found.misfit is None
    assert found.signal is None
    # What was not tested is not called good.
    assert whole.quality.flag == "good"
    assert found.quality.doubtful
    assert "were tested" in found.quality.findings[-1]
    assert "independent" in found.uncertainty.reason
    with pytest.raises(xe.FitError, match="made all errors"):
        xe.maximum_likelihood(found)


def test_table_and_lookup(fit):
    fit, _ = fit
    assert [row.role for row in fit.rows] == ["free", "free", "fixed", *["scaling"] * 4]
    assert fit["D0"].error == fit["D0"].error_speckle
    assert np.isnan(fit["D_offset"].error)
    with pytest.raises(KeyError, match="there are D0, alpha"):
        fit["gamma"]


def test_surface_residuals_and_rescaling(fit, truth):
    fit, data = fit
    residuals = fit.residuals()
    assert np.isnan(residuals[:, range(41), range(41)]).all()
    upper = np.triu_indices(41, 1)
    used = residuals[:, upper[0], upper[1]]
    np.testing.assert_allclose(np.sum(used**2), float(fit.chi2), rtol=1e-10)
    rescaled = xe.fitting.rescaled_surface(fit.model, data)
    np.testing.assert_allclose(rescaled.contrast, fit.contrast, rtol=1e-9)
    np.testing.assert_allclose(rescaled.offset, fit.offset, rtol=1e-9)
    np.testing.assert_allclose(rescaled.residuals, residuals, atol=1e-10)
    values, believed = xe.fitting.consistent_scaling(truth, data)
    assert all(believed)
    np.testing.assert_allclose(values, [[0.25, 1.0], [0.2, 1.01]], atol=2e-3)


def test_rate_and_band_against_sampling(fit):
    fit, _ = fit
    rate, error = fit.rate("transport")
    draws = np.random.default_rng(0).multivariate_normal(
        fit.values[fit.index.physical],
        fit.index.physical_block(fit.uncertainty.covariance),
        size=4000,
    )
    curves = draws[:, :1] * TIMES ** draws[:, 1:2]
    np.testing.assert_allclose(rate, fit["D0"].value * TIMES ** fit["alpha"].value, rtol=1e-10)
    np.testing.assert_allclose(error, curves.std(axis=0), rtol=0.1)


def test_diagnostics_against_the_dense_jacobian(fit):
    fit, _ = fit
    found = xe.diagnose(fit)
    hessian = fit.joint_hessian
    block = np.asarray(fit.index.physical_block(hessian))
    np.testing.assert_allclose(found.column_norms, np.sqrt(np.diag(block)), rtol=1e-12)
    inverse = np.diag(np.linalg.inv(hessian))
    share = 1 / np.sqrt(inverse * np.diag(hessian))
    np.testing.assert_allclose(found.sensitivities, share[fit.index.physical], rtol=1e-8)
    assert np.all((found.sensitivities > 0) & (found.sensitivities <= 1))
    assert np.all(found.gradient_noise < 1e-1)
    columns = found.column_norms
    unit = [columns[i] for i, name in enumerate(found.names) if name in ("D0", "D_offset", "phi0")]
    wanted = np.clip(np.exp(np.mean(np.log(unit))) / columns, 1e-8, 1e2)
    np.testing.assert_allclose(found.recommended_scales, wanted, rtol=1e-10)
    assert "condition number" in found.report()


def test_a_start_at_zero_has_the_size_of_its_natural_step(fit):
    fit, _ = fit
    start = np.asarray(fit.objective.start)
    place = fit.index.physical_names.index("alpha")

    def at(alpha):
        return xe.diagnose(fit, np.where(np.arange(start.size) == place, alpha, start))

    zero, tiny, above, below = at(0.0), at(1e-13), at(2e-3), at(-2e-3)
    np.testing.assert_allclose(zero.gradients, tiny.gradients, rtol=1e-6)
    assert zero.imbalance < 1e4
    # Of a natural step, an exponent of one, where the value itself is two thousandths; from both
    # sides, since the derivative is another one there.
    around = 0.5 * (above.gradients[place] + below.gradients[place])
    assert zero.gradients[place] == pytest.approx(500 * around, rel=1e-4)


def test_scales(truth):
    parameters = xe.parameter_map(truth, None, bounds={"D0": (1.0, 101.0 + 1e4)})
    assert scale_from_bounds(parameters)["D0"] == pytest.approx(1e4 + 100)
    assert scale_from_start(parameters) == pytest.approx({"D0": 8e3, "alpha": 0.3})


def line(x, a, b, c):
    return a * jnp.exp(-b * x) + c


@pytest.fixture(scope="module")
def curve():
    x = np.linspace(0, 4, 60)
    sigma = np.where(x < 2, 0.01, 0.03)
    random = np.random.default_rng(3)
    return x, np.asarray(line(x, 2.0, 1.3, 0.5)) + random.normal(0, sigma), sigma


@pytest.mark.parametrize("absolute", [False, True])
def test_curve_fit_agrees_with_scipy(curve, absolute):
    x, y, sigma = curve
    start = np.array([1.0, 1.0, 0.0])
    ours = xe.curve_fit(line, x, y, start, sigma=sigma, absolute_sigma=absolute)
    theirs, covariance = scipy_curve_fit(
        lambda x, a, b, c: a * np.exp(-b * x) + c,
        x,
        y,
        start,
        sigma=sigma,
        absolute_sigma=absolute,
        ftol=1e-14,
        xtol=1e-14,
    )
    assert isinstance(ours, Fit)
    assert ours.success
    np.testing.assert_allclose(ours.x, theirs, rtol=1e-7)
    np.testing.assert_allclose(ours.pcov, covariance, rtol=1e-5)


def test_curve_fit_on_a_bound_and_undetermined(curve):
    x, y, _ = curve
    held = xe.curve_fit(line, x, y, [1.0, 1.0, 0.1], bounds=([0, 0, -1.0], [5, 5, 0.3]))
    assert held.x[2] == 0.3
    assert held.perr[2] == 0
    with pytest.warns(xe.CovarianceWarning, match="do not determine p0, p1"):
        twice = xe.curve_fit(lambda x, a, b: (a + b) * x, x, y, [1.0, 1.0])
    assert np.all(np.isinf(twice.perr))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": np.zeros(60)}, "sigma must be finite and positive"),
        ({"bounds": ([2, 0, 0], [3, 5, 5])}, "must lie inside bounds"),
        ({"y": np.full(60, np.nan)}, "must be finite"),
        ({"y": np.ones(3)}, "one entry a point"),
    ],
)
def test_curve_fit_refuses(curve, change, message):
    x, y, _ = curve
    arguments = {"x": x, "y": y, "start": [1.0, 1.0, 0.0], **change}
    with pytest.raises(xe.XPCSError, match=message):
        xe.curve_fit(line, **arguments)
