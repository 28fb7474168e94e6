"""Results on disk, text report and plots of a fit."""

import dataclasses
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from helpers_data import two_time
from helpers_figures import complaints
from matplotlib.text import Text

from xpcs_eqx.data import Geometry, Provenance, from_dict
from xpcs_eqx.data.two_time import NO_Q, NO_TIMES
from xpcs_eqx.errors import FitError, ModelError
from xpcs_eqx.fitting import (
    Band,
    ProfileInterval,
    curve_fit,
    degeneracy_report,
    g2_at_ages,
    least_squares,
)
from xpcs_eqx.objective import projected_objective, two_time_objective
from xpcs_eqx.parameters import parameter_map, shared_parameters
from xpcs_eqx.physics import PowerLawRate, Static, correlation_map
from xpcs_eqx.report import (
    Origin,
    covariance_arrays,
    derived_sections,
    fit_sections,
    fitted_maps,
    has_maps,
    parameters_document,
    provenance_document,
    scaling_errors,
    text_report,
    to_json,
    write_fitted_data,
)
from xpcs_eqx.report.analyses import g2_section
from xpcs_eqx.report.maps import chosen_angles
from xpcs_eqx.report.misfit import misfit_section
from xpcs_eqx.report.plots import (
    autocorrelation,
    convergence_figure,
    drawings,
    scaling_figure,
    solver_drawings,
    write_plots,
)
from xpcs_eqx.report.plots.canvas import style
from xpcs_eqx.report.plots.curves import rate_limits
from xpcs_eqx.report.sections import Heading, text
from xpcs_eqx.scaling import Averaged, Fixed

PLOTS = (
    "maps.png",
    "c2_against_lag.png",
    "rates.png",
    "residuals_by_lag_and_age.png",
    "residuals.png",
    "scaling.png",
    "covariance.png",
    "convergence.png",
)
N, DT = 24, 0.1


def make_data():
    data = two_time(n=N)
    c2 = np.array(data.c2)
    c2[0, 3, :] = c2[0, :, 3] = np.nan
    return from_dict(
        {
            "phi_angles_list": data.geometry.phi,
            "c2_exp": c2,
            "t1": data.t,
            "t2": data.t,
            "wavevector_q_list": np.full(3, 0.0054),
        }
    )


def fit_of(data, scaling=None):
    # exp(−lag/4 frames) is J q² = 1/(4 dt)
    model = Static(PowerLawRate(1.2 / (4 * DT * 0.0054**2), 0.0, 0.0))
    parameters = parameter_map(
        model, data.t, fixed=("D_offset",), bounds={"D0": (1.0, 1e7), "D_offset": (-1.0, 1.0)}
    )
    return least_squares(two_time_objective(parameters, data, scaling))


@pytest.fixture(scope="module")
def data():
    return make_data()


@pytest.fixture(scope="module")
def fit(data):
    return fit_of(data)


@pytest.fixture(scope="module")
def maps(fit):
    return fitted_maps(fit)


def test_maps_are_data_minus_surface_where_pairs_count(data, fit, maps):
    expected = correlation_map(fit.model, data.t, Geometry(0.0054, data.geometry.phi))
    expected = fit.offset[:, None, None] + fit.contrast[:, None, None] * np.asarray(expected)
    np.testing.assert_allclose(maps.fitted, expected, rtol=1e-12)
    np.testing.assert_allclose(maps.fitted, fit.surface(), rtol=1e-12)
    upper = np.triu_indices(N, 1)
    assert np.count_nonzero(maps.used[:, *upper]) == data.n_pairs == fit.n_pairs
    assert not maps.used[0, 3].any()
    assert np.isnan(maps.residual[0, 3]).all()
    assert np.isnan(np.diagonal(maps.residual, axis1=1, axis2=2)).all()
    r = maps.residual[:, *upper]
    # Weights of one: Σ r² is chi², each pair once.
    np.testing.assert_allclose(np.nansum(r * r), float(fit.chi2), rtol=1e-9)
    assert maps.root_weights is None


def test_angles_to_show_are_spread_evenly():
    assert chosen_angles(3) == [0, 1, 2]
    chosen = chosen_angles(23)
    assert (len(chosen), chosen[0], chosen[-1]) == (6, 0, 22)
    assert np.ptp(np.diff(chosen)) <= 1


def test_parameters_document_is_strict_json(fit):
    profile = ProfileInterval("D0", 0.68, 1.0, math.inf, 2.0)
    document = json.loads(
        to_json(parameters_document(fit, (profile,))),
        parse_constant=lambda name: pytest.fail(f"{name} is not JSON"),
    )
    assert document["converged"] is True
    assert document["degrees_of_freedom"] == fit.n_pairs - 8
    assert document["reduced_chi2"] is None  # no sigma was given
    d0 = document["parameters"]["D0"]
    assert d0["value"] == fit["D0"].value
    assert d0["error"] == fit["D0"].error
    assert d0["error_classical"] == fit["D0"].error_classical
    assert d0["bounds"] == [1.0, 1e7]
    assert d0["unit"] == "Å²/s^(1+alpha)"
    assert d0["profile"] == {"level": 0.68, "low": 1.0, "high": None}
    assert document["parameters"]["D_offset"]["role"] == "fixed"
    assert document["parameters"]["D_offset"]["error"] is None
    assert len(document["scaling"]["contrast_error"]) == 3
    assert len(document["history"]["cost"]) == fit.evaluations


def test_what_json_does_not_know_is_refused():
    with pytest.raises(TypeError, match="complex"):
        to_json({"z": 1j})


def test_covariance_arrays_carry_names_and_all_three(fit, tmp_path):
    np.savez(tmp_path / "c.npz", **covariance_arrays(fit))
    with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
        names = file["names"].tolist()
        assert names == list(fit.names)
        assert str(file["quoted"]) == fit.uncertainty.chosen
        i = names.index("D0")
        assert np.sqrt(file["covariance"][i, i]) == pytest.approx(fit["D0"].error)
        assert np.sqrt(file["classical"][i, i]) == pytest.approx(fit["D0"].error_classical)
        assert np.diagonal(file["correlation"]) == pytest.approx(1)


def test_fitted_data_hold_what_is_promised(fit, maps, tmp_path):
    write_fitted_data(str(tmp_path / "fitted.npz"), fit)
    with np.load(tmp_path / "fitted.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert {"c2", "fitted", "residual", "used", "t", "phi", "q", "gap"} == set(arrays)
    used = arrays["used"]
    np.testing.assert_array_equal(used, maps.used)
    np.testing.assert_allclose(
        arrays["residual"][used], (arrays["c2"] - arrays["fitted"])[used], rtol=1e-12
    )


def test_scaling_errors_for_own_common_and_fixed_pairs(data, fit):
    contrast, offset = scaling_errors(fit)
    for a in range(3):
        assert contrast[a] == pytest.approx(fit[f"contrast[{a}]"].error)
        assert offset[a] == pytest.approx(fit[f"offset[{a}]"].error)
    common = fit_of(data, Averaged(3))
    contrast, offset = scaling_errors(common)
    assert contrast == pytest.approx([common["contrast"].error] * 3)
    assert offset == pytest.approx([common["offset"].error] * 3)
    fixed = fit_of(data, Fixed(np.full(3, 0.3), np.ones(3)))
    assert scaling_errors(fixed)[0].tolist() == [0, 0, 0]


def test_text_report_names_what_matters(data, fit):
    report = text_report(
        fit,
        origins=(Origin(data.provenance, "individual: auto"),),
        decisions=("something was decided",),
        profiles=(ProfileInterval("D0", 0.68, 1.0, 3.0, 2.0),),
        timings={"loading": 1.0},
        all_errors=True,
    )
    for said in (
        f"Quality: {fit.quality.flag.upper()}",
        "Static",
        "individual: auto",
        "something was decided",
        fit.message,
        f"{fit.n_pairs}, each unordered pair once",
        f"{data.masked_pairs} masked",
        f"{fit.degrees_of_freedom} degrees of freedom",
        "classical",
        "speckle",
        "dyadic",
        "fixed",
        "68.00% by profile likelihood",
        "loading 1.00 s",
    ):
        assert said in report
    # Long texts are broken across lines.
    assert fit.uncertainty.reason[:30] in " ".join(report.split())
    assert max(map(len, report.splitlines())) <= 120
    assert "nan" not in report.lower().split()


def test_a_report_begins_with_what_was_found_and_is_in_words_of_the_field(data, fit):
    origin = Origin(data.provenance, "individual: auto")
    report = text_report(fit, origins=(origin,))
    order = ("Quality", "What was found", "How sure", "What to doubt", "Contrast and offset")
    order += ("Does the model fit?", "Appendix: how it was done", "Data", "Model", "Fit", "Time")
    places = [report.index(f"{one}") for one in order[:1]]
    places += [report.index(f"\n{one}\n") for one in order[1:]]
    assert places == sorted(places)
    found = report[: report.index("Appendix")]
    assert found == text_report(fit, origins=(origin,), appendix=False).rstrip() + "\n\n\n"
    # One error, and how it was made.
    assert found.count("one standard error") == 1
    assert "by which entries of a map that share a frame are not independent" in " ".join(
        found.split()
    )
    for word in ("dyadic", "sandwich", "decided", "Descent", "chi²", "χ²", "gap", "nan", "memory"):
        assert word not in found, word
    for word in ("sandwich", "decided", "Descent", "gap", "χ²"):
        assert word not in report, word
    assert "q = 0.0054 1/Å" in found
    assert "Diffusion without flow" in " ".join(found.split())


def test_what_is_masked_is_said_at_once(fit):
    # Frame 4 of the first of three angles is NaN.
    headline = " ".join(text_report(fit, appendix=False).split()).split("What was found")[0]
    assert f"{N - 1} of {3 * N * (N - 1) // 2} pairs masked" in headline


def test_no_length_is_there_where_q_is_not_known(fit):
    unknown = Provenance(notes=(NO_Q,))
    data = dataclasses.replace(two_time(n=12), provenance=unknown)
    parameters = fit.objective.term.parameters
    # Of one data set and of several, before anything is fitted.
    units = two_time_objective(parameters, data).term.parameters.units
    both = shared_parameters([parameters.model] * 2, [data.t] * 2)
    assert "Å" not in "".join(two_time_objective(both, [data] * 2).parameters.whole.units)
    known = dict(zip(parameters.names, units, strict=True))
    rows = tuple(row._replace(unit=known.get(row.name, "")) for row in fit.rows)
    bare = dataclasses.replace(fit, rows=rows)
    sections = [*fit_sections(bare, (Origin(unknown),)), *derived_sections(bare)]
    assert "Å" not in text("Fit", sections)
    label = bare.plot("rates")["rates"].axes[0].get_ylabel()
    assert label == "J(t) [1/s]"
    known = text("Fit", [*fit_sections(fit), *derived_sections(fit)])
    assert "D [Å²/s]" in known
    assert "Å²/s^(1+alpha)" in known


def test_no_second_is_there_where_the_frame_time_is_not_known(fit):
    unknown = Provenance(notes=(NO_TIMES,))
    data = dataclasses.replace(two_time(n=12), provenance=unknown)
    assert "t = 0 … 1.1 frames" in repr(data)
    parameters = two_time_objective(fit.objective.term.parameters, data).term.parameters
    units = dict(zip(parameters.names, parameters.units, strict=True))
    assert set(units.values()) == {"Å²/frame^(1+alpha)", "", "Å²/frame"}
    rows = tuple(row._replace(unit=units.get(row.name, "")) for row in fit.rows)
    bare = dataclasses.replace(fit, rows=rows)
    report = text_report(bare, origins=(Origin(unknown),), sections=derived_sections(bare))
    figures = bare.plot("maps", "c2_against_lag", "rates").values()
    drawn = [words.get_text() for one in figures for words in one.findobj(Text)]
    said = [report.split("\nTime\n")[0], *drawn]
    assert [one for one in said if re.search(r"\d s\b|\[s\]|/s\b", one)] == []
    assert "age [frames]" in report
    assert {"t1 [frames]", "J(t) [Å²/frame]"} <= set(drawn)


def test_python_and_files_count_frames_where_their_time_is_not_known(tmp_path):
    known = two_time(n=40, phi=(0.0,))
    moved = np.array(known.c2)
    # A step in age and lag, which no model of one rate has.
    moved[:, :12, 12:20] += 0.2
    moved[:, 12:20, :12] += 0.2
    data = dataclasses.replace(
        known, c2=moved, t=np.arange(40.0), provenance=Provenance(notes=(NO_TIMES,))
    )
    start = Static(PowerLawRate(4e3, 0.0, 0.0))
    parameters = parameter_map(start, data.t, fixed=("alpha",))
    objective = projected_objective(parameters, data)
    assert "t = 0 … 39 frames, dt = 1 frames" in repr(objective)
    fit = least_squares(objective)
    places = [one.where.text for one in fit.misfit.tests if one.where]
    known_best = degeneracy_report(fit, ()).determined
    assert known_best
    said = " ".join([*fit.quality.findings, *places, *known_best])
    assert re.search(r"at (lags|ages) [\d.–]+ frames", said)
    assert re.search(r"\d s\b", said) is None
    curves = g2_at_ages(data, 1, beside=fit)
    g2_section(curves).files["fit/g2.csv"](tmp_path / "g2.csv")
    header = (tmp_path / "g2.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith("age_frames,phi_deg,lag_frames,")


def test_tests_of_data_sets_are_named_as_their_other_sections_are(fit):
    of_q, named = (dataclasses.replace(fit, label=label) for label in ("0.0054", "cold"))
    section = misfit_section(SimpleNamespace(parts={"0.0054": of_q, "cold": named}))
    titles = [one.title for one in section.content if isinstance(one, Heading)]
    assert titles == ["q = 0.0054 1/Å", "cold"]
    starts = [one.caption.partition(": mean residual")[0] for one in section.figures()]
    assert starts == titles


def test_one_angle_and_a_given_sigma():
    data = two_time(n=12, phi=(0.0,))
    data = dataclasses.replace(data, root_weights=np.full((1, 12, 12), 100.0), absolute_sigma=True)
    parameters = parameter_map(
        Static(PowerLawRate(8e4, 0.0, 0.0)), data.t, fixed=("alpha", "D_offset")
    )
    fit = least_squares(two_time_objective(parameters, data))
    report = text_report(fit)
    assert "1 angle, 12 frames" in report
    assert "1 angles" not in report
    assert "reduced χ²" in report
    assert "scaled by the residuals" not in report


def test_text_report_lists_strong_correlations_bounds_and_recovery(data):
    model = Static(PowerLawRate(2e4, 0.0, 0.0))
    parameters = parameter_map(
        model, data.t, bounds={"D0": (1.0, 3e4)}, fixed=("alpha", "D_offset")
    )
    fit = least_squares(two_time_objective(parameters, data))
    report = text_report(fit)
    assert fit["D0"].at_bound
    assert "on its bound" in report
    assert "widen the bound" in " ".join(report.split())
    assert ("Recovery" in report) == bool(fit.recovery)


def test_every_figure_of_a_fit_can_be_read(data, fit):
    one = two_time(n=12, phi=(0.0,))
    parameters = parameter_map(
        Static(PowerLawRate(8e4, 0.0, 0.0)), one.t, fixed=("alpha", "D_offset")
    )
    alone = least_squares(two_time_objective(parameters, one))
    with style():
        for found in (fit, alone):
            for drawing in (*drawings(found), *solver_drawings(found)):
                assert complaints(drawing.draw()) == [], drawing.name
                assert drawing.caption.endswith(".")
        # A single angle is a line of a table; where it is drawn, it stands in the middle of its
        # axis, by its own azimuth.
        assert "scaling" not in [one.name for one in drawings(alone)]
        scaling = scaling_figure(alone)
    for axes in scaling.axes:
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0"]
        assert np.ptp(axes.get_xlim()) == 2


def test_a_rate_is_seen_with_its_band():
    """Not cut off, however little it changes; a band without end is cut."""
    t = np.linspace(0.0, 1.0, 5)
    flat = Band(t, np.full(5, 4e4), np.full(5, 3.5e4), np.full(5, 4.5e4), 0.6827)
    bottom, top, logarithmic = rate_limits(flat)
    assert (bottom, logarithmic) == (0.0, False)
    assert top >= 4.5e4
    lost = flat._replace(low=np.full(5, -np.inf), high=np.full(5, np.inf))
    assert np.isfinite(rate_limits(lost)[:2]).all()
    wide = flat._replace(low=np.full(5, -1e9), high=np.full(5, 1e9))
    assert rate_limits(wide)[:2] == (0.0, 8e4)
    steep = Band(t, np.geomspace(1.0, 100.0, 5), t + 0.1, t + 200.0, 0.6827)
    assert rate_limits(steep) == (0.2, 201.0, True)


def test_costs_are_shown_above_their_lowest_for_a_part_as_well(fit):
    """The cost of a part is not that of the history, which is of all data sets together."""
    part = dataclasses.replace(fit, cost=np.asarray(0.1 * float(fit.cost)))
    with style():
        shown, whole = (convergence_figure(one).axes[0].lines[0].get_ydata() for one in (part, fit))
    np.testing.assert_array_equal(shown, whole)
    assert shown[-1] < 1e-6 * shown[0]


def test_every_plot_is_written(fit, tmp_path):
    assert write_plots(str(tmp_path), fit) == PLOTS
    for name in PLOTS:
        content = (tmp_path / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000


@pytest.mark.long
def test_plots_of_a_map_larger_than_the_panel_and_of_few_frames(tmp_path):
    for n in (4, 300):
        folder = tmp_path / str(n)
        folder.mkdir()
        data = two_time(n=n, phi=(0.0,))
        parameters = parameter_map(
            Static(PowerLawRate(8e4, 0.0, 0.0)), data.t, fixed=("alpha", "D_offset")
        )
        fit = least_squares(two_time_objective(parameters, data))
        assert set(write_plots(str(folder), fit)) == set(PLOTS) - {"scaling.png"}


def test_plots_touch_nothing_global(fit, tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    write_plots(str(tmp_path), fit)
    assert dict(mpl.rcParams) == before


def test_autocorrelation_sees_shared_frames():
    random = np.random.default_rng(0)
    n = 80
    frame = random.normal(size=n)
    shared = np.broadcast_to(frame[:, None], (n, n)) + 1e-9
    white = random.normal(size=(n, n))
    sharing, along = autocorrelation(shared[None])
    assert sharing[0] == pytest.approx(1)
    assert sharing[5] > 0.8
    assert abs(along[5]) < 0.3
    sharing, along = autocorrelation(white[None])
    assert np.abs(sharing[1:]).max() < 0.1
    assert np.abs(along[1:]).max() < 0.1


def test_pooled_points_have_no_maps(data):
    n = 12
    first, second = np.triu_indices(n, 1)
    lag = 0.1 * (second - first)
    pooled = from_dict(
        {
            "data": 1 + 0.3 * np.exp(-lag / 0.4) + 1e-3 * np.sin(7.0 * np.arange(lag.size)),
            "t1": 0.1 * first,
            "t2": 0.1 * second,
            "phi": np.zeros(lag.size),
            "q": 0.0054,
        }
    )
    parameters = parameter_map(
        Static(PowerLawRate(8e4, 0.0, 0.0)), pooled.t, fixed=("alpha", "D_offset")
    )
    fit = least_squares(two_time_objective(parameters, pooled))
    assert not has_maps(fit)
    with pytest.raises(FitError, match="pooled points"):
        fitted_maps(fit)
    assert "dyadic: pooled points" in " ".join(text_report(fit).split())
    json.loads(to_json(parameters_document(fit)))


def test_provenance_document(data):
    document = provenance_document(data.provenance, {"data": {"path": "x"}}, 1.5)
    assert document["wall_time_s"] == 1.5
    assert document["configuration"] == {"data": {"path": "x"}}
    assert document["versions"]["jax"]
    json.loads(to_json(document))


def test_the_fit_of_a_curve_has_no_report_of_maps():
    x = np.linspace(0.0, 2.0, 9)
    fit = curve_fit(lambda x, slope: slope * x, x, 3.0 * x, np.ones(1))
    with pytest.raises(ModelError, match=r"fit of a curve; its table is fit\.rows"):
        text_report(fit)
