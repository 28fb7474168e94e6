"""What the fit of a curve shows: its points with the curve through them, tables, and figures."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers_figures import complaints

import xpcs_eqx as xe
from xpcs_eqx.report.plots import curve_figure
from xpcs_eqx.report.plots.canvas import style
from xpcs_eqx.report.points import curve_between, fitted_points

TAU = np.geomspace(1e-3, 10.0, 23)
TRUTH = (0.2, 3.0, 1.02)
NOISE = 0.004


def siegert(tau, contrast, rate, offset):
    """g2 of a simple exponential."""
    return offset + contrast * jnp.exp(-2 * rate * tau)


@pytest.fixture(scope="module")
def fit():
    scatter = np.random.default_rng(0).normal(size=TAU.size)
    objective = xe.objective.curve_objective(
        siegert,
        TAU,
        np.asarray(siegert(TAU, *TRUTH)) + NOISE * scatter,
        np.array([0.1, 1.0, 1.0]),
        sigma=np.full(TAU.size, NOISE),
        names=("contrast", "rate", "offset"),
        absolute_sigma=True,
        # Two chunks, the last of which is filled up.
        chunk=16,
    )
    return xe.least_squares(objective)


def with_objective(fit, **changes):
    """The fit as if its objective had been another one."""
    return dataclasses.replace(fit, objective=dataclasses.replace(fit.objective, **changes))


def with_function(fit, function, x=None):
    """The fit as if another function, of other abscissae, had been fitted."""
    objective = fit.objective
    model = dataclasses.replace(objective.model, function=function)
    points = objective.points if x is None else dataclasses.replace(objective.points, x=x)
    return with_objective(fit, model=model, points=points)


def test_points_with_what_was_fitted(fit):
    found = fitted_points(fit)
    np.testing.assert_array_equal(found.x, TAU)
    np.testing.assert_allclose(found.fitted, siegert(TAU, *fit.x))
    np.testing.assert_array_equal(found.residual, found.y - found.fitted)
    np.testing.assert_allclose(found.sigma, NOISE)
    assert found.step == 1
    # Some of them, across the chunks.
    few = fitted_points(fit, 8)
    assert few.step == 3
    np.testing.assert_array_equal(few.x, TAU[::3])
    fine = np.linspace(0.01, 1.0, 30)
    np.testing.assert_allclose(curve_between(fit, fine), siegert(fine, *fit.x))


def test_bars_are_of_what_is_known(fit):
    """Ratios of sigma get their size from the residuals; of equal weights nothing is known."""
    equal = with_objective(fit, absolute_sigma=False)
    assert fitted_points(equal).sigma is None
    points = fit.objective.points
    root = points.root_weights * np.linspace(1.0, 2.0, 32).reshape(2, 16)
    other = with_objective(
        equal, points=dataclasses.replace(points, root_weights=jnp.asarray(root))
    )
    found = fitted_points(other)
    used = np.asarray(root).ravel()[: TAU.size]
    np.testing.assert_allclose(found.sigma, fit.residual_sd / used)
    with style():
        assert len(curve_figure(equal).axes[0].collections) == 0
        assert len(curve_figure(other).axes[0].collections) == 1


def test_a_good_curve_says_what_was_not_tested(fit):
    assert fit.quality.flag == "good"
    assert [one for one in fit.quality.findings if "along the curve is not tested" in one]


def test_a_curve_is_drawn_with_what_it_leaves(fit):
    with style():
        figure = curve_figure(fit)
        assert complaints(figure) == []
    upper, lower = figure.axes
    # Lags lie over decades, and so does the axis.
    assert upper.get_xscale() == lower.get_xscale() == "log"
    (line,) = [one for one in upper.lines if one.get_label() == "fit"]
    x, y = line.get_data()
    assert x.size > 100
    np.testing.assert_allclose(y, siegert(x, *fit.x))
    left = lower.containers[0].lines[0].get_ydata()
    np.testing.assert_allclose(left, fitted_points(fit).residual)
    # One bar for each point.
    assert len(upper.collections[0].get_segments()) == TAU.size


def test_nothing_is_drawn_between_points_where_nothing_is_known(fit):
    place = np.arange(16.0)

    def by_place(x, a, b, c):
        return a * place + b + 0 * x

    odd = with_function(fit, by_place)
    assert curve_between(odd, TAU) is None
    with style():
        drawn = curve_figure(odd).axes[0].lines[-1].get_xdata()
    np.testing.assert_array_equal(drawn, TAU)

    def of_two(x, a, b, c):
        return siegert(x[:, 0], a, b, c) + 0 * x[:, 1]

    x = fit.objective.points.x
    several = with_function(fit, of_two, jnp.stack([x, x**2], axis=-1))
    assert curve_between(several, TAU) is None
    with style():
        figure = curve_figure(several)
        assert complaints(figure) == []
    assert figure.axes[1].get_xlabel() == "fitted y"


def test_many_points_are_drawn_without_bars():
    x = np.linspace(0.0, 1.0, 50_001)

    def line(x, slope):
        return slope * x

    fit = xe.curve_fit(line, x, 2 * x + np.sin(1e5 * x), np.array([1.0]))
    with style():
        figure = curve_figure(fit)
        assert complaints(figure) == []
    assert figure._suptitle.get_text() == "every 3rd point"
    assert figure.axes[0].lines[0].get_xdata().size == 16_667
    assert figure.axes[0].get_xscale() == "linear"


def test_tables_and_figures_of_a_curve(fit, tmp_path):
    figures = fit.plot()
    assert list(figures) == ["curve", "covariance", "convergence"]
    with style():
        assert [complaints(one) for one in figures.values()] == [[]] * 3
    assert fit.plot("curve").save(tmp_path) == (str(tmp_path / "curve.png"),)
    assert fit.summary()["rate"]["value"] == fit["rate"].value
    fit.to_csv(tmp_path / "curve.csv")
    assert (tmp_path / "curve.csv").read_text().splitlines()[0].startswith("parameter,value,error")
    assert "Fit of a curve to 23 points" in fit._repr_html_()
    assert fit.to_dataframe().loc["offset", "value"] == fit["offset"].value
    found = fit.to_xarray()
    assert float(found.error.sel(parameter="rate")) == pytest.approx(fit["rate"].error)
    with pytest.raises(xe.ConfigError, match=r"curve\.gif: plots are written as png, svg, pdf"):
        figures.save(tmp_path, "gif")


def test_a_fit_without_errors_has_no_ellipses(fit):
    unknown = np.full_like(fit.covariance, np.nan)
    errors = dataclasses.replace(fit.uncertainty, classical=unknown)
    bare = dataclasses.replace(fit, uncertainty=errors)
    assert list(bare.plot()) == ["curve", "convergence"]


def test_maps_are_no_points(fit):
    with pytest.raises(xe.FitError, match="no points of a curve"):
        fitted_points(dataclasses.replace(fit, objective=None))
