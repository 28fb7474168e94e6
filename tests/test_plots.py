"""Plots as they are read: nothing collides, means are means, and every format is written."""

from datetime import UTC, datetime

import numpy as np
import pytest
from helpers_data import two_time
from helpers_figures import complaints
from PIL import Image

from xpcs_eqx.data import binned
from xpcs_eqx.errors import ConfigError
from xpcs_eqx.fitting import line_of_logarithms
from xpcs_eqx.report import Drawing, FittedMaps
from xpcs_eqx.report.collection import Result
from xpcs_eqx.report.plots import (
    data_figure,
    exponent_figure,
    lag_figure,
    map_figure,
    residual_figure,
    residual_map_figure,
    save_figures,
    sheet_figure,
)
from xpcs_eqx.report.plots.canvas import picture_of, style
from xpcs_eqx.report.plots.corner import Scale, corner
from xpcs_eqx.report.plots.means import lag_limits, mean_by_lag, means
from xpcs_eqx.report.plots.measured import save_data_figure
from xpcs_eqx.report.plots.series import series_figure


def maps_of(n_angles=3, n=60, step=1, noise=0.02, first=0.0, of=None, dt=0.1):
    """Exponential decays that slow down, as a fit has left them."""
    random = np.random.default_rng(1)
    t = first + dt * step * np.arange(n)
    age, lag = 0.5 * (t[:, None] + t), np.abs(t[:, None] - t)
    one = 1 + 0.2 * np.exp(-lag / (0.5 + 0.1 * age))
    fitted = np.repeat(one[None], n_angles, 0)
    scatter = noise * random.normal(size=fitted.shape)
    c2 = fitted + np.triu(scatter, 1) + np.swapaxes(np.triu(scatter, 1), 1, 2)
    used = np.broadcast_to(~np.eye(n, dtype=bool), c2.shape)
    residual = np.where(used, c2 - fitted, np.nan)
    phi = np.linspace(-157.5, 180.0, n_angles)
    many = n_angles if of is None else of
    return FittedMaps(c2, fitted, residual, used, None, t, phi, 0.0054, 2e6, many, step)


CASES = {
    "one": maps_of(1),
    "long times": maps_of(2, dt=137.0, first=12345.0),
    "six of many": maps_of(6, of=23, step=3),
    "few frames": maps_of(3, n=5),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_in_a_figure_collides(name):
    maps = CASES[name]
    with style():
        for draw in (map_figure, lag_figure, residual_map_figure, residual_figure):
            assert complaints(draw(maps)) == [], draw.__name__


def test_a_contact_sheet_of_many_angles():
    maps = maps_of(24, n=30)
    panels = list(zip(maps.phi, maps.c2, maps.fitted, strict=True))
    with style():
        figure = sheet_figure(panels, 24)
    assert complaints(figure) == []
    images = [axes for axes in figure.axes if axes.images]
    assert len(images) == 24
    shown = np.asarray(images[0].images[0].get_array())
    # Drawn with its first row at the bottom: above the diagonal stands the fit.
    np.testing.assert_array_equal(shown[9, 3], maps.fitted[0, 9, 3])
    np.testing.assert_array_equal(shown[3, 9], maps.c2[0, 3, 9])
    assert images[0].images[0].origin == "lower"
    assert figure.axes[-1].get_ylabel() == "c2"


def test_colour_bars_say_of_what():
    with style():
        for draw in (map_figure, residual_map_figure):
            figure = draw(maps_of(2))
            bars = [axes for axes in figure.axes if hasattr(axes, "_colorbar")]
            assert bars
            assert all(axes.get_ylabel() for axes in bars)


def test_means_are_over_the_same_pairs():
    maps = maps_of(1, n=41)
    maps.used.setflags(write=False)
    ages = np.linspace(maps.t[0], maps.t[-1], 4)
    lags = lag_limits(maps.t, 0.1)
    assert np.all(np.diff(np.diff(np.log(lags))[3:]) < 0.5)
    found = means(maps, 0, ages, lags)
    assert found.pairs.sum() == 41 * 40 // 2
    first, second = np.triu_indices(41, 1)
    age, lag = 0.5 * (maps.t[first] + maps.t[second]), maps.t[second] - maps.t[first]
    for i in range(3):
        for k in range(len(lags) - 1):
            mine = (lag >= lags[k]) & (lag < lags[k + 1])
            mine &= (age >= ages[i]) & ((age < ages[i + 1]) | (i == 2))
            assert found.pairs[i, k] == mine.sum()
            if mine.any():
                wanted = maps.c2[0][first[mine], second[mine]].mean()
                assert found.c2[i, k] == pytest.approx(wanted)
    # No step of the short lags is empty, and noise goes down with the number of pairs.
    assert np.all(found.pairs.sum(axis=0)[:6] > 0)
    many = found.pairs > 30
    assert np.abs((found.c2 - found.fitted)[many]).max() < 0.02
    lag, mean = mean_by_lag(np.where(maps.used[0], maps.c2[0], np.nan), maps.t)
    assert lag[0] == pytest.approx(0.1)
    assert mean[0] == pytest.approx(np.diagonal(maps.c2[0], 1).mean())


def test_panels_of_all_angles_have_one_scale_that_holds_all_of_them():
    maps = maps_of(3)
    # Of maps that a fit has missed by far.
    maps.fitted[2] += 0.7
    with style():
        figure = lag_figure(maps)
    (limits,) = {axes.get_ylim() for axes in figure.axes}
    assert limits[0] < 1.0
    assert limits[1] > 1.8


def test_short_lags_of_a_thinned_map_come_from_its_middle():
    thin, middle = maps_of(1, n=40, step=5), maps_of(1, n=60, first=7.0)
    lags = lag_limits(thin.t, 0.1)
    ages = np.linspace(thin.t[0], thin.t[-1], 5)
    both = means(thin, 0, ages, lags, middle)
    assert both.middle[~np.isnan(both.middle)].min() == pytest.approx(0.1)
    assert both.pairs.sum() == 40 * 39 // 2 + 60 * 59 // 2


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_every_format_is_written_and_shown(form, tmp_path):
    figures = [Drawing("inside/lags", lambda: lag_figure(maps_of(1)), "what to see")]
    (shown,), missing = save_figures(str(tmp_path), lambda: figures, form)
    assert missing == ()
    assert shown.file == f"inside/lags.{form}"
    content = (tmp_path / shown.file).read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[form])
    # A page shows pictures, whatever the files are.
    assert shown.content.startswith(b"\x89PNG")
    assert shown.caption == "what to see"
    if form == "svg":
        # Letters stay letters.
        assert b"mean c2" in content


@pytest.mark.parametrize(
    ("value", "error", "wanted"),
    [
        (4022.4, 61.0, ["3900", "4000", "4100"]),
        (9.81e-5, 2.1e-6, ["0.95", "1.00"]),
        (-0.8, 0.003, ["−0.805", "−0.800", "−0.795"]),
    ],
)
def test_corner_plots_have_scales(value, error, wanted):
    entries = [Scale("gamma_dot_t0", value, error, "1/s^(1+beta)"), Scale("beta", 0.8, 0.01)] * 2
    with style():
        figure = corner("", entries, np.eye(4), lambda *_: None, lambda *_: None)
        assert complaints(figure) == []
    texts = [one.get_text() for one in figure.axes[0].texts]
    assert set(wanted) <= set(texts)
    assert any("1/s^(1+beta)" in one for one in texts)


def test_what_was_measured_is_drawn_with_its_q():
    sets = [two_time(phi=(0.0, 90.0), n=20, q=q) for q in (0.0054, 0.0108)]
    with style():
        maps, bins = data_figure(sets), data_figure([binned(one, ages=3) for one in sets])
        alone = data_figure(sets[:1])
        assert [complaints(one) for one in (maps, bins, alone)] == [[]] * 3
    titles = [axes.get_title(loc="left") for axes in maps.axes if axes.images]
    assert titles[1:3] == ["q = 0.0054 1/Å, φ = 90°", "q = 0.0108 1/Å, φ = 0°"]
    # Of bins there is nothing but c2 against lag.
    assert len(bins.axes) == 4
    assert "q = 0.0054" in alone._suptitle.get_text()


def test_files_that_failed_keep_their_numbers():
    fine = {"parameters": {"D0": (1.0, 0.1)}, "units": {"D0": "Å²/s"}}
    results = [
        Result("a", "good", **fine),
        Result("b", "failed: no file"),
        Result("c", "good", **fine),
    ]
    with style():
        figure = series_figure(results, None)
        assert complaints(figure) == []
    points = figure.axes[0].containers[0].lines[0].get_xdata()
    assert list(points) == [1.0, 3.0]


@pytest.mark.parametrize(("dpi", "size"), [(200, (400, 200)), (100, (800, 400))])
def test_a_page_shows_a_picture_as_large_as_it_was_drawn(tmp_path, dpi, size):
    Image.new("RGB", (400, 200)).save(tmp_path / "a.png", dpi=(dpi, dpi))
    assert picture_of(str(tmp_path / "a.png")).size == size


def test_a_scatter_of_percents_is_no_slope():
    q = np.array([0.002, 0.006, 0.012])
    gamma = 2e4 * q**2 * np.array([0.99, 1.0, 1.01])
    with style():
        figure = exponent_figure({"": line_of_logarithms(q, gamma, np.diag([1e-5] * 3), 2.0)})
        assert complaints(figure) == []
    for axis, values in zip(figure.axes, (gamma, 1 / gamma, gamma / q**2), strict=True):
        low, high = axis.get_ylim()
        assert values.min() / 2 < low < values.min()
        assert values.max() < high < 2 * values.max()
    assert high > 1.5 * low


def test_what_was_measured_is_drawn_in_the_format_of_its_file(tmp_path):
    with pytest.raises(ConfigError, match=r"shown\.gif: plots are written as png, svg, pdf"):
        save_data_figure(str(tmp_path / "shown.gif"), [])


def results_at(values, good=True):
    return [
        Result(
            f"scan_{k}.hdf", "good" if good or k else "marginal", {"at": value},
            {"D0": (3000.0 + 10 * k, 25.0), "alpha": (-0.3, 0.01)}, {"D0": "Å²/s", "alpha": ""},
        )
        for k, value in enumerate(values)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "along", "places"),
    [
        ([300.0, 310.0, None], "at", [300.0, 310.0]),
        (
            [datetime(2026, 11, 29, 10, 30, tzinfo=UTC), datetime(2026, 11, 29, 12, 0, tzinfo=UTC)],
            "at [h after 2026-11-29 10:30]",
            [0.0, 1.5],
        ),
        (["hot", "cold"], "row of the table", [1.0, 2.0]),
    ],
)
def test_a_series_is_drawn_against_what_is_known(values, along, places):
    with style():
        figure = series_figure(results_at(values), "at")
        assert complaints(figure) == []
        first = figure.axes[0]
        assert first.get_xlabel() == along
        np.testing.assert_allclose(first.lines[0].get_xdata(), places)
        assert complaints(series_figure(results_at(values, good=False), "at")) == []
