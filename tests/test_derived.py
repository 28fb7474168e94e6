"""Numbers that follow from the parameters: against closed forms, with errors that cover."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import LAMINAR, frame_times, make_data, mapped
from helpers_figures import complaints

from xpcs_eqx.data import Geometry
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import (
    common_age,
    derived_values,
    half_decay_lags,
    least_squares,
    line_of_logarithms,
    q_exponent,
    stated_exponent,
)
from xpcs_eqx.objective import projected_objective, two_time_objective
from xpcs_eqx.parameters import shared_parameters
from xpcs_eqx.physics import (
    Ballistic,
    Caged,
    PowerLawRate,
    Static,
    StretchedExponential,
    Trapezoid,
    TwoComponent,
    correlation_map,
)
from xpcs_eqx.report import Table, derived_sections
from xpcs_eqx.report.collection import AGE, Result, as_page, comparison, exponents_of
from xpcs_eqx.report.derived import exponent_section, exponent_sections
from xpcs_eqx.report.plots import exponent_figure, save_figures
from xpcs_eqx.report.plots.canvas import style
from xpcs_eqx.report.plots.series import series_drawings, series_figure


def test_what_is_the_same_at_all_angles_is_said_once():
    data = make_data(LAMINAR, n=21, phi=[0.0, 20.0, 45.0, 70.0, 90.0, 120.0])
    free = {"D0", "phi0"}
    names = mapped(LAMINAR, data).names
    fixed = tuple(name for name in names if name not in free)
    fit = least_squares(projected_objective(mapped(LAMINAR, data, fixed=fixed), data))
    (section,) = derived_sections(fit, [0.5, 1.0])
    lags, rates = (one for one in section.content if isinstance(one, Table))
    # Of six angles four are shown.
    assert lags.header == ["age [s]", "0°", "45°", "70°", "120°"]
    assert all("±" in cell for row in lags.rows for cell in row[1:])
    assert "All 6 angles are in fit/parameters.json." in section.content
    assert [row[0] for row in rates.rows] == [row[0] for row in lags.rows] == ["0.5", "1"]
    assert {"τ [s]", "D [Å²/s]", "shear rate [1/s]"} < set(rates.header)
    found = derived_values(fit, [0.5, 1.0], gamma_age=1.0)
    assert found.gamma == pytest.approx(1 / found.taus[1])
    assert found.gamma_error == pytest.approx(found.tau_errors[1] / found.taus[1] ** 2)
    shown = float(rates.rows[0][rates.header.index("D [Å²/s]")])
    error = 0.5 * found.rate_errors["transport"][0]
    assert abs(shown - 0.5 * found.rates["transport"][0]) < 0.06 * error
    assert np.asarray(section.document["derived"]["half_decay_s"]).shape == (2, 6)


ONE = Geometry(0.0054, np.array([0.0]))


def rate(amplitude, exponent=0.0):
    return PowerLawRate(amplitude, exponent, 0.0)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Static(rate(4e3)), np.log(2) / (0.0054**2 * 4e3)),
        (Static(Trapezoid(rate(4e3))), np.log(2) / (0.0054**2 * 4e3)),
        (StretchedExponential(rate(0.2), 1.6), (0.5 * np.log(2)) ** (1 / 1.6) / 0.2),
        (Ballistic(rate(50.0)), np.sqrt(np.log(2)) / (0.0054 * 50)),
    ],
    ids=["static", "trapezoid", "stretched", "ballistic"],
)
def test_lags_in_closed_form(model, expected):
    found = half_decay_lags(model, frame_times(31), ONE, np.array([0.2, 5.0]))
    np.testing.assert_allclose(found, np.full((2, 1), expected), rtol=1e-6)


def test_lags_of_ages_and_angles():
    geometry = Geometry(0.0054, np.array([0.0, 60.0, 90.0]))
    ages = np.array([0.1, 3.0])
    lags = half_decay_lags(LAMINAR, frame_times(31), geometry, ages)
    for age, row in zip(ages, lags, strict=True):
        for angle, lag in enumerate(row):
            pair = correlation_map(LAMINAR, np.array([age, age + lag]), geometry)
            assert float(pair[angle, 0, 1]) == pytest.approx(0.5, abs=1e-8)
    # What hardly decays has no such lag.
    assert np.isinf(half_decay_lags(Static(rate(1e-3)), frame_times(31), ONE, ages)).all()


def test_numbers_of_a_fit():
    """Rates are those of the fit; where one parameter is free, relative errors are all the same."""
    data = make_data(Static(rate(8e3)), n=31, phi=[0.0, 90.0])
    fit = least_squares(
        projected_objective(mapped(Static(rate(6e3)), data, fixed=("alpha", "D_offset")), data)
    )
    found, row = derived_values(fit), fit["D0"]
    relative = row.error / row.value
    np.testing.assert_allclose(found.lag_errors / found.lags, relative, rtol=1e-4)
    np.testing.assert_allclose(found.rates["transport"], row.value, rtol=1e-9)
    np.testing.assert_allclose(found.rate_errors["transport"], row.error, rtol=1e-6)
    assert found.means["transport"] == pytest.approx(row.value)
    assert found.gamma == pytest.approx(0.5 * 0.0054**2 * row.value)
    assert found.gamma_error == pytest.approx(relative * found.gamma, rel=1e-5)
    np.testing.assert_allclose(found.taus, 1 / found.gamma)
    np.testing.assert_allclose(found.tau_errors, relative / found.gamma, rtol=1e-5)
    # At ages that are asked for, which Γ does not follow.
    chosen = derived_values(fit, [1.0, 2.0])
    np.testing.assert_allclose(chosen.ages, [1.0, 2.0])
    np.testing.assert_allclose(chosen.lags, found.lags[:2])
    np.testing.assert_allclose(chosen.lag_errors, found.lag_errors[:2], rtol=1e-5)
    assert chosen.gamma == pytest.approx(found.gamma)
    with pytest.raises(ModelError, match="times from 0 on"):
        derived_values(fit, [-1.0])
    (section,) = derived_sections(fit)
    assert section.document["derived"]["gamma_per_s"] == found.gamma
    # One row an age: no angle decays in another way.
    (table,) = (one for one in section.content if isinstance(one, Table))
    assert len(table.rows) == 3
    assert "phi [deg]" not in table.header
    assert "The same at all angles." in section.content
    assert q_exponent(fit, [found]) is None


def test_what_degenerate_parameters_leave_determined_has_the_error_of_the_fit_without_one():
    """With a fixed exponent of 0 only the sum of amplitude and offset is known, and that well."""
    data = make_data(Static(rate(8e3)), n=31, phi=[0.0, 90.0])

    def fitted(*fixed):
        start = Static(PowerLawRate(6e3, 0.0, 1e3))
        return least_squares(projected_objective(mapped(start, data, fixed=fixed), data))

    both, one = fitted("alpha"), fitted("alpha", "D_offset")
    assert np.isinf([both["D0"].error, both["D_offset"].error]).all()
    assert np.isfinite(both["contrast[0]"].error)
    found, wanted = derived_values(both), derived_values(one)
    for name in ("lag_errors", "tau_errors", "gamma_error"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-4)
    for name in ("rate_errors", "mean_errors"):
        other = getattr(wanted, name)["transport"]
        np.testing.assert_allclose(getattr(found, name)["transport"], other, rtol=1e-4)
    for mine, other in zip(both.rate("transport"), one.rate("transport"), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4)
    assert both.signal.rate == pytest.approx(one.signal.rate, rel=1e-4)
    said = " ".join(both.quality.findings)
    assert "do not determine D0" in said
    assert "the decay is not determined" not in said
    # As far as they do depend on one of the two, nothing is known.
    uncertainty, place = both.uncertainty, both.names.index("D0")
    alone = uncertainty.carried(np.eye(len(both.names))[[place, place + 1]])
    assert np.isinf(alone.errors()).all()
    np.testing.assert_allclose(alone.carried(np.ones((1, 2))).errors(), one["D0"].error, rtol=1e-4)


@pytest.mark.parametrize("slope", [2.0, 1.0, 0.0])
def test_slopes_cover_the_truth(slope):
    rng = np.random.default_rng(3)
    q = np.geomspace(2e-3, 8e-3, 5)
    # What data sets share makes their errors correlated.
    factor = 0.05 * (np.eye(5) + 0.6)
    covariance = factor @ factor.T
    inside, agree = 0, 0
    for _ in range(400):
        gamma = 3.0 * (q / 4e-3) ** slope * np.exp(factor @ rng.normal(size=5))
        found = line_of_logarithms(q, gamma, covariance, slope)
        inside += abs(found.slope - slope) < found.slope_error
        agree += found.statistic < 7.815
    assert 0.61 < inside / 400 < 0.75
    assert agree / 400 > 0.9


def test_what_has_no_line(tmp_path):
    two = np.array([1e-3, 2e-3])
    assert line_of_logarithms(two[:1], two[:1], np.eye(1)) is None
    assert line_of_logarithms(two[[0, 0]], two, np.eye(2)) is None
    assert line_of_logarithms(two, np.array([1.0, np.nan]), np.eye(2)) is None
    found = line_of_logarithms(two, np.array([1.0, 2.0]), 1e-4 * np.eye(2), 2.0)
    assert found.slope == pytest.approx(1.0)
    assert "where the model has 2" in found.finding()
    assert "errors away" in found.finding()
    assert stated_exponent(TwoComponent()) is None
    assert stated_exponent(StretchedExponential()) is None
    assert (stated_exponent(Caged()), stated_exponent(Ballistic())) == (2.0, 1.0)
    section = exponent_section(found)
    assert section.document["q"]["deviation"] < -3
    # Two samples, the second of which is ten times as fast: no line, whatever its slope.
    found = line_of_logarithms(
        np.array([1.0, 2.0, 3.0]), np.array([1.0, 40.0, 9.0]), 1e-4 * np.eye(3), 2.0
    )
    assert not found.straight
    assert "no exponent describes them" in found.finding()
    assert "as the model has it" not in found.finding()
    with style():
        # Less than a decade of q: few ticks, and no two on one another.
        for slope in (0.3, 2.0):
            q, gamma = np.array([3e-3, 5.4e-3, 8e-3]), 3.0 * np.arange(1, 4) ** slope
            wide = line_of_logarithms(q, gamma, 1e-4 * np.eye(3))
            assert complaints(exponent_section(wide).figures()[0].draw()) == []
    names, missing = save_figures(str(tmp_path), section.figures)
    assert ([one.file for one in names], missing) == (["q.png"], ())


def results_at(q, factors, files=("a.h5", "b.h5")):
    """Results of files whose rates differ by a factor, Γ ∝ q² in each."""
    return [
        Result(
            file, "good", {"q [1/Å]": one, "T": 280.0 + 10 * k}, units={"D0": "Å²/s", "Γ": "1/s"},
            parameters={
                "D0": (factor, 0.01 * factor), "alpha": (0.5, np.nan),
                "Γ": (1e4 * factor * one**2, 50 * factor * one**2),
            },
            exponent=2.0, file=file,
        )
        for k, (file, factor) in enumerate(zip(files, factors, strict=True))
        for one in q
    ]  # fmt: skip


def test_what_is_said_of_q_counts_frames_where_the_results_do():
    units = {"D0": "Å²/frame", "Γ": "1/frame"}
    results = [
        dataclasses.replace(one, units=units) for one in results_at((0.004, 0.006), (1.0, 3.0))[:2]
    ]
    assert "τ [frames]" in as_page("Series", results)
    assert "[s]" not in as_page("Series", results)
    assert "τ [frames]" in comparison(results)
    # Numbers of another unit are not apart by so many errors.
    other = results_at((0.004,), (3.0, 3.0))[:1]
    found = [line.split() for line in comparison([results[0], *other]).splitlines()]
    assert ["D0", "[Å²/frame]", "1.000", "±", "0.010", "-"] in found
    assert ["D0", "[Å²/s]", "-", "3.000", "±", "0.030"] in found
    *_, of_q = series_drawings(results, None, exponents_of(results))
    with style():
        names = [axis.get_ylabel() for axis in of_q.draw().axes]
    assert names == ["Γ [1/frame]", "τ = 1/Γ [frames]", "D = Γ/q² [Å²/frame]"]


def test_files_with_the_same_q_have_a_line_each():
    """One line through all of them would mix temperatures."""
    q = (0.004, 0.006, 0.008)
    results = results_at(q, (1.0, 3.0))
    found = exponents_of(results)
    assert list(found) == ["a.h5", "b.h5"]
    for one in found.values():
        assert one.slope == pytest.approx(2.0)
        assert one.statistic == pytest.approx(0.0, abs=1e-9)
    (section,) = exponent_sections(found)
    assert [row[0] for row in section.content[0].rows] == ["a.h5", "b.h5"]
    assert section.content[1].endswith("the model has 2.")
    other = dataclasses.replace(results[0], parameters={"Γ": (0.5, 0.01)})
    (section,) = exponent_sections(exponents_of([other, *results[1:]]))
    assert section.content[1].endswith("not on a line, so that no exponent describes them: a.h5.")
    # A q each: one line through all of them.
    assert list(exponents_of([results[0], results[4]])) == [""]
    assert exponents_of([results[0], results[3]]) == {}
    # Also where their q differ a little.
    moved = [
        dataclasses.replace(one, about={"q [1/Å]": 1.01 * one.about["q [1/Å]"]})
        for one in results[3:]
    ]
    found = exponents_of([*results[:3], *moved])
    assert list(found) == ["a.h5", "b.h5"]
    # And where files of two folders have the same name.
    named = [
        dataclasses.replace(one, file="a.h5", sha256=str(1 + k // 3) * 64)
        for k, one in enumerate([*results[:3], *moved])
    ]
    assert list(exponents_of(named)) == ["a.h5 (sha256 11111111…)", "a.h5 (sha256 22222222…)"]
    # A line of one of them alone says of which.
    (section,) = exponent_sections(exponents_of([*results[:3], results[3]]))
    assert [row[0] for row in section.content[0].rows] == ["a.h5"]
    # Two fits of each q of a file, say by two models, make no line.
    assert exponents_of([*results[:3], *results[:3]]) == {}
    with style():
        figure = exponent_figure(found)
        assert complaints(figure) == []
        assert [text.get_text() for text in figure.legends[0].texts] == ["a.h5", "b.h5"]
        figure = series_figure(results, "T")
        assert complaints(figure) == []
        assert [text.get_text() for text in figure.legends[0].texts] == [
            f"q = {one} 1/Å" for one in q
        ]


def test_rates_of_different_ages_are_on_no_line():
    """A sample ages, and windows of another length have another age."""
    results = [
        dataclasses.replace(one, file=f"{k}.h5", about={**one.about, AGE: 1.0 + k})
        for k, one in enumerate(results_at((0.004, 0.006), (1.0,), ("a.h5",)))
    ]
    assert exponents_of(results) == {}
    assert "No exponent: age of Γ differs" in as_page("Series", results)
    alike = [dataclasses.replace(one, about={**one.about, AGE: 2.0}) for one in results]
    (found,) = exponents_of(alike).values()
    assert found.age == 2.0
    assert "age of Γ = 2 s" in as_page("Series", alike)
    # Nor are they compared with one another.
    rows = [
        next(line.split() for line in comparison(those).splitlines() if line.startswith("  Γ ["))
        for those in (results, alike)
    ]
    assert rows[1][:-1] == rows[0]
    # Data sets fitted together are compared at an age that all of them have.
    fits = [
        SimpleNamespace(objective=SimpleNamespace(term=SimpleNamespace(t=t)))
        for t in (np.linspace(1, 5, 9), np.linspace(3, 30, 9), np.linspace(6, 9, 3))
    ]
    assert common_age(fits[:1]) == 2.0
    assert common_age(fits[:2]) == 3.5
    assert common_age(fits) is None


def test_poor_fits_are_on_no_line():
    results = results_at((0.004, 0.006, 0.008), (1.0,), ("a.h5",))
    wrong = {**results[0].parameters, "Γ": (0.5, 0.001)}
    poor = dataclasses.replace(results[0], verdict="poor", parameters=wrong)
    (found,) = exponents_of([poor, *results[1:]]).values()
    assert found.slope == pytest.approx(2.0)
    page = as_page("Series", [poor, *results[1:]])
    assert "Without poor fits: a.h5 at q = 0.004" in page


def test_what_all_results_have_in_common_is_said_once():
    failed = Result("c.h5", "failed: no maps")
    page = as_page("Series", results_at((0.006,), (1.0, 3.0)))
    assert "2 good" in page
    assert "the same in all fits: q = 0.006 1/Å, alpha = 0.5" in page
    assert "<th>alpha" not in page
    assert ">3.000 ± 0.030<" in page
    assert "in the CSV file" not in page
    page = as_page("Series", [*results_at((0.006,), (1.0, 3.0)), failed])
    assert "2 good, 1 failed" in page
    assert "the same in all fits: q = 0.006 1/Å, alpha = 0.5" in page
    # Why there is none is no cell of the table.
    assert ">failed</td>" in page
    assert "<li>c.h5: no maps</li>" in page


MOTIONS = [(Static(rate(4e3)), 2.0), (Ballistic(rate(40)), 1.0)]
Q = (0.004, 0.0054, 0.007)


def slopes_in_errors(model, slope, seeds):
    """(slope − truth)/error of joint fits with a rate of each q, a simulated set for each seed."""
    names = mapped(model, make_data(model, n=9, phi=[0.0])).names
    fixed, out = tuple(name for name in names if name.endswith("offset")), []
    for seed in seeds:
        sets = [make_data(model, n=31, phi=[0.0], seed=10 * seed + k, q=q) for k, q in enumerate(Q)]
        parameters = shared_parameters(
            [model] * 3, [one.t for one in sets], shared=[], fixed=fixed, labels=["a", "b", "c"]
        )
        fit = least_squares(two_time_objective(parameters, sets))
        found = q_exponent(fit, [derived_values(one) for one in fit.parts.values()])
        out.append((found.slope - slope) / found.slope_error)
    return np.array(out)


@pytest.mark.parametrize(
    ("model", "slope"), [MOTIONS[0], pytest.param(*MOTIONS[1], marks=pytest.mark.long)]
)
def test_exponents_of_some_simulated_sets(model, slope):
    z = slopes_in_errors(model, slope, range(12))
    assert 0.5 < np.std(z) < 1.6
    assert abs(np.mean(z)) < 1


@pytest.mark.long
@pytest.mark.parametrize(("model", "slope"), MOTIONS)
def test_exponents_of_simulated_sets(model, slope):
    """Intervals of 68 % hold the truth in 61 to 75 % of 400 sets."""
    z = slopes_in_errors(model, slope, range(400))
    assert 0.61 < np.mean(np.abs(z) < 1) < 0.75
