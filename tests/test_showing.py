"""What values and results show of themselves: texts, tables, HTML, figures, progress."""

import csv
import sys

import jax
import numpy as np
import pytest
from contract import combined, curve, pooled, robust_objective, small_data, small_fit, small_map
from contract import small_objective as objective
from contract_bayes import posterior

import xpcs_eqx as xe
from xpcs_eqx.bayes.nuts.chains import SamplingProgress
from xpcs_eqx.bayes.progress import in_bars
from xpcs_eqx.progress import in_one_line
from xpcs_eqx.report.figures import Figures


def test_numbers_are_shown_in_a_few_lines():
    shown = (
        (small_data(), ("3 angles (φ = ", "9 frames", "dt = ", "q = 0.0054 1/Å", "108 entries")),
        (pooled(small_data()), ("3 angles", "108 entries")),
        (small_map(), ("D0", "Å²/s", "tied", "lower")),
        (small_map().model, ("transport: PowerLawRate", "alpha = ", "phi0 = ", " deg")),
        (objective(), ("LaminarFlow on 3 angles", "eliminated", "Individual", "gamma_dot_t0")),
        (robust_objective(), ("SoftL1(scale=0.02)", "D0")),
        (combined(), ("1: Static on", "2: Static on", "D0 ")),
        (curve(), ("start", "upper")),
        (xe.PowerLawRate(2.0, 0.5), ("PowerLawRate(amplitude=2, exponent=0.5, offset=0)",)),
        (xe.Fixed([0.2], [1.0]), ("contrast=[0.2]",)),
        (posterior(), ("draws", "±")),
    )
    for one, words in shown:
        text = repr(one)
        assert all(word in text for word in words), text
        assert text.count("\n") < 20, text
        assert "f64[" not in text


def test_what_has_no_numbers_shows_its_shapes():
    """Inside a compiled function, as a batch, and as mere shapes."""
    texts = []
    for one in (small_data(), small_map(), small_map().model, objective()):
        jax.make_jaxpr(lambda one: texts.append(repr(one)))(one)
        texts.append(repr(jax.tree.map(lambda leaf: np.stack([leaf, leaf]), one)))
        texts.append(repr(jax.eval_shape(lambda one: one, one)))
    assert all(texts)


def test_tables_as_text_html_csv_and_dataframe(tmp_path):
    fit = small_fit()
    found = fit.summary()
    assert str(found).splitlines()[0].split() == ["parameter", *found.columns]
    assert found["D0"]["value"] == fit["D0"].value
    with pytest.raises(KeyError, match="no parameter 'D'; there are D0, alpha"):
        found["D"]
    html = fit._repr_html_()
    assert "Fit of Static to 108 pairs" in html
    assert "<details><summary>contrast and offset" in html
    assert html.count("<table") == html.count("</table>") == 2
    fit.to_csv(tmp_path / "fit.csv")
    with open(tmp_path / "fit.csv", encoding="utf-8") as stream:
        rows = {row["parameter"]: row for row in csv.DictReader(stream)}
    assert float(rows["alpha"]["value"]) == fit["alpha"].value
    assert set(rows) == {row.name for row in fit.rows}
    with pytest.raises(xe.DataError, match="does not exist"):
        fit.to_csv(tmp_path / "none" / "fit.csv")
    for one in (fit, posterior()):
        assert one.covariance.shape == (len(one.names),) * 2
        known = np.diagonal(one.correlation) != 0
        np.testing.assert_allclose(np.diagonal(one.correlation)[known], 1.0)
        assert "<table" in one._repr_html_()
    frame = pytest.importorskip("pandas") and fit.to_dataframe()
    assert frame.loc["alpha", "value"] == fit["alpha"].value
    assert list(posterior().to_dataframe().index) == list(posterior().names)


@pytest.mark.parametrize(
    ("value", "error", "cells", "together"),
    [
        (-0.5, 0.052, ("-0.500", "0.052"), "-0.500 ± 0.052"),
        (203.0, 0.05, ("203.000", "0.050"), "203.000 ± 0.050"),
        (3873.0, 124.0, ("3870", "120"), "3870 ± 120"),
        (1.0, 0.0996, ("1.00", "0.10"), "1.00 ± 0.10"),
        (-0.001, 0.52, ("0.00", "0.52"), "0.00 ± 0.52"),
        (2e-4, 4.8e-6, ("2.000e-04", "4.8e-06"), "(2.000 ± 0.048)e-04"),
        (0.999977, 1.6e-6, ("0.9999770", "1.6e-06"), "0.9999770 ± 0.0000016"),
        (2e7, 3e4, ("2.0000e+07", "3.0e+04"), "(2.0000 ± 0.0030)e+07"),
        (0.0, 2e-7, ("0e+00", "2.0e-07"), "(0.0 ± 2.0)e-07"),
        (1.5, np.nan, ("1.5", "-"), "1.5"),
    ],
)
def test_a_value_is_shown_to_the_digits_of_its_error(value, error, cells, together):
    assert xe.showing.value_and_error(value, error) == cells
    assert xe.showing.with_error(value, error) == together
    for one, other in (("value", "error"), ("mean", "sd")):
        table = xe.showing.Table({"D0": {one: value, other: error}})
        assert repr(table).splitlines()[2].split() == ["D0", *cells]
        assert all(f">{cell}<" in table._repr_html_() for cell in cells)


def test_markup_in_names_is_text():
    shown = xe.showing.Table({"<b>": {"value": 1.0, "unit": "<i>"}})
    assert "<b>" not in shown._repr_html_()
    many = xe.showing.Table({str(k): {"value": float(k)} for k in range(1000)})
    assert str(many).count("\n") < 70
    assert not xe.showing.Table({})


def test_labelled_arrays():
    pytest.importorskip("xarray")
    fit = small_fit()
    found = fit.to_xarray(maps=True)
    assert float(found.value.sel(parameter="alpha")) == fit["alpha"].value
    assert found.residual.dims == ("angle", "t1", "t2")
    assert found.contrast.size == found.phi.size == 3
    assert found.attrs["verdict"] == fit.quality.flag
    assert posterior().to_xarray()["D0"].dims == ("chain", "draw")


@pytest.mark.parametrize("missing", ["pandas", "xarray", "rich", "rich.console", "matplotlib"])
def test_what_is_missing_is_named(monkeypatch, missing):
    calls = {
        "pandas": small_fit().to_dataframe,
        "xarray": small_fit().to_xarray,
        "rich": lambda: in_one_line(True).__enter__(),
        "matplotlib": lambda: small_fit().plot(),
    }
    monkeypatch.setitem(sys.modules, missing, None)
    for name in [one for one in sys.modules if one.startswith("xpcs_eqx.report.plots")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(xe.ModelError, match="install"):
        calls[missing.split(".")[0]]()


def test_figures_are_drawn_when_they_are_asked_for(tmp_path):
    fit = small_fit()
    figures = fit.plot("scaling", "covariance")
    assert list(figures) == ["scaling", "covariance"]
    assert "save(folder)" in repr(figures)
    assert {"maps", "residuals"} < set(fit.plot())
    html = fit.plot("scaling")._repr_html_()
    assert html.count("data:image/png;base64,") == 1
    assert fit.plot("scaling").save(tmp_path, "svg") == (str(tmp_path / "scaling.svg"),)
    assert (tmp_path / "scaling.svg").read_text(encoding="utf-8").count("<svg") == 1
    (one,) = fit.plot("scaling").drawings
    several = Figures(tuple(one._replace(name=f"{label}/x") for label in ("20 °C", "a:b")))
    assert list(several) == ["20 °C/x", "a:b/x"]
    assert several.save(tmp_path)[1] == str(tmp_path / "a_b" / "x.png")
    assert list(posterior().plot()) == ["corner"]
    with pytest.raises(xe.ModelError, match=r"no figure 'map'; there are .*maps"):
        fit.plot("map")
    with pytest.raises(KeyError, match="there are scaling"):
        figures["maps"]
    with pytest.raises(xe.ModelError, match="no figures of a Selection"):
        xe.showing.figures_of(xe.Selection())


def test_windows_show_the_figures_as_they_are():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figures = small_fit().plot("scaling")
    try:
        figures.show()
        (number,) = pyplot.get_fignums()
        labels = [axes.get_ylabel() for axes in pyplot.figure(number).axes]
        assert labels == [axes.get_ylabel() for axes in figures["scaling"].axes]
    finally:
        pyplot.close("all")


def test_progress_is_shown_and_handed_on(capfd):
    seen = []
    with in_one_line(True, seen.append) as callback:
        callback(SamplingProgress("warm-up", 1, 10, 0, 0.5, 7.0))
    with in_bars(True, lambda state: state.done == 10) as callback:
        assert callback(SamplingProgress("warm-up", 1, 10, 0, 0.5, 7.0)) is False
        assert callback(SamplingProgress("sampling", 10, 10, 2, 0.5, 7.0)) is True
    with in_one_line(False, seen.append) as callback:
        assert callback == seen.append
    assert seen[0].summary == "warm-up 1/10: step size 0.5, 7.0 gradients a draw"
    fit = xe.least_squares(small_fit().objective, progress=True)
    np.testing.assert_array_equal(fit.values, small_fit().values)
    assert capfd.readouterr().out == ""
