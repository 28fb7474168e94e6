"""Several data sets in the program: configuration, report, results, and going on."""

import contextlib
import dataclasses
import functools
import json
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

import xpcs_eqx as xe
from xpcs_eqx import fit as program
from xpcs_eqx.config import Source, check_settings, read_configuration
from xpcs_eqx.config.build import build
from xpcs_eqx.config.resolved import resolved_settings
from xpcs_eqx.config.tables import streaming
from xpcs_eqx.data import StoredTwoTime, write_aps_u, write_own
from xpcs_eqx.errors import ConfigError, DataError
from xpcs_eqx.objective import JointObjective
from xpcs_eqx.program import examining
from xpcs_eqx.report import folder_names
from xpcs_eqx.simulation import __main__ as simulation

QS = (0.004, 0.006, 0.008)
PHI = np.array([0.0, 40.0, 90.0])
TRUTH = xe.Static(xe.PowerLawRate(8e3, -0.3, 0.0))
FASTER = xe.Static(xe.PowerLawRate(2 * 8e3, -0.3, 0.0))
STATIC = """
[model]
mode = "static"
[parameters.D0]
start = 1e4
[parameters.D_offset]
free = false
"""


def simulated(model, q, seed):
    geometry = xe.Geometry(q=q, phi=PHI)
    data = xe.simulate(
        model, 0.1 * np.arange(20), geometry, 0.2, 1.0, noise=0.002, key=jax.random.key(seed)
    )
    data = jax.tree.map(np.asarray, data)
    return dataclasses.replace(data, provenance=dataclasses.replace(data.provenance, dt=0.1))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three q of one sample, in a file each and in one; and a sample twice as fast."""
    folder = tmp_path_factory.mktemp("files")
    sets = [simulated(TRUTH, q, seed) for seed, q in enumerate(QS)]
    for k, data in enumerate(sets):
        write_own(folder / f"q{k}.h5", data)
    write_aps_u(folder / "all.hdf", sets)
    write_own(folder / "hot.h5", simulated(FASTER, QS[2], 7))
    return folder


def tables(files, *names, **lines):
    """Tables `[[data]]`, with more lines for those of some names."""
    return "".join(
        f"[[data]]\npath = '{files / name}.h5'\n{lines.get(name, '')}\n" for name in names
    )


def configuration(folder, text):
    path = folder / "fit.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def run(folder, text, *arguments):
    """The exit code, and what a fit without plots has found."""
    code = program.main([configuration(folder, text), "--no-plots", "--quiet", *arguments])
    return code, found(folder / "fit_results")


def found(results):
    out = json.loads((results / "fit" / "parameters.json").read_text())
    del out["timings_s"]
    return out


def configured(folder, text, *overrides):
    made = read_configuration(configuration(folder, text), overrides)
    return made, build(made)


def problem(folder, text, *overrides):
    return configured(folder, text, *overrides)[1]


def test_several_q_of_one_file_stay_in_it_where_memory_is_short(files, tmp_path, monkeypatch):
    text = f"[data]\npath = '{files / 'all.hdf'}'\n[joint]\n" + STATIC
    held = problem(tmp_path, text)

    def unread(*_, **__):
        raise AssertionError("maps were read before their size was known")

    monkeypatch.setattr("xpcs_eqx.config.build.load_joint", unread)
    stored = problem(tmp_path, text, "streaming.strategy=out_of_core")
    choose = functools.partial(streaming.choose_strategy, total_memory_bytes=10_000)
    monkeypatch.setattr(streaming, "choose_strategy", choose)
    short = problem(tmp_path, text)
    for found in (stored, short):
        assert found.labels == held.labels
        assert found.plan.stored
        for one, data in zip(found.data, held.data, strict=True):
            assert isinstance(one, StoredTwoTime)
            np.testing.assert_array_equal(one.angle(0).c2[0], data.c2[0])
    assert not held.plan.stored
    assert held.plan.strategy.needed == short.plan.strategy.needed


@pytest.mark.long
def test_one_file_and_three_files_give_the_same_fit(files, tmp_path):
    (tmp_path / "three").mkdir()
    (tmp_path / "one").mkdir()
    code, three = run(tmp_path / "three", tables(files, "q0", "q1", "q2") + STATIC)
    assert code == 0
    code, one = run(tmp_path / "one", f"[data]\npath = '{files / 'all.hdf'}'\n[joint]\n" + STATIC)
    assert code == 0
    assert list(three["data_sets"]) == ["q0", "q1", "q2"]
    assert list(one["data_sets"]) == ["0.004", "0.006", "0.008"]
    for name in ("D0", "alpha"):
        mine, other = three["parameters"][name], one["parameters"][name]
        assert mine["role"] == "shared"
        for key in ("value", "error"):
            assert mine[key] == pytest.approx(other[key], rel=1e-6)
    assert abs(three["parameters"]["D0"]["value"] - 8e3) < 4 * three["parameters"]["D0"]["error"]
    assert three["parameters"]["D_offset"]["role"] == "fixed"
    assert three["sharing"]["agree"]
    assert three["sharing"]["degrees_of_freedom"] == 4
    block = three["data_sets"]["q1"]
    assert block["q_per_angstrom"] == pytest.approx(QS[1])
    assert block["file"] == "q1.h5"
    assert block["distance"]["degrees"] == 2
    results = tmp_path / "three" / "fit_results"
    written = {str(p.relative_to(results)) for p in results.rglob("*") if p.is_file()}
    assert written == {
        "config.toml",
        "provenance.json",
        "fit/parameters.json",
        "fit/covariance.npz",
        "fit/report.html",
        "fit/report.json",
        "fit/report.txt",
        *(f"fit/q{k}/parameters.json" for k in range(3)),
        *(f"fit/q{k}/covariance.npz" for k in range(3)),
        *(f"fit/q{k}/fitted_data.npz" for k in range(3)),
    }
    own = json.loads((results / "fit" / "q2" / "parameters.json").read_text())
    assert own["parameters"]["D0"]["value"] == three["parameters"]["D0"]["value"]
    with np.load(results / "fit" / "covariance.npz") as arrays:
        assert list(arrays["names"][-2:]) == ["D0", "alpha"]
    provenance = json.loads((results / "provenance.json").read_text())
    assert [one["file"] for one in provenance["data"].values()] == ["q0.h5", "q1.h5", "q2.h5"]
    assert all(len(one["sha256"]) == 64 for one in provenance["data"].values())


def test_wrong_sharing_is_visible_and_a_factor_heals_it(files, tmp_path):
    names = ("q0", "q1", "hot")
    code, wrong = run(tmp_path, tables(files, *names) + STATIC)
    assert code == 1
    assert wrong["quality"]["flag"] == "marginal"
    report = (tmp_path / "fit_results" / "fit" / "report.txt").read_text()
    assert "disagree on what they share" in report
    disagreement = " ".join(report.split())
    assert "furthest from the others: " in disagreement
    assert "Let parameters be separate" in disagreement
    assert "Do the data sets agree" in report
    # Only ratios of factors count.
    hot = tables(files, *names, q0="factors = {D0 = 2.2}", q1="factors = {D0 = 2.2}",
                 hot="factors = {D0 = 4.4}")  # fmt: skip
    _, right = run(tmp_path, hot + STATIC, "--overwrite")
    assert right["sharing"]["agree"]
    assert right["parameters"]["D0"]["role"] == "shared"
    assert right["parameters"]["D0[hot]"]["role"] == "tied"
    d0 = right["parameters"]["D0"]["value"]
    assert right["parameters"]["D0[hot]"]["value"] == pytest.approx(2 * d0, rel=1e-12)
    assert right["data_sets"]["hot"]["parameters"]["D0"]["value"] == pytest.approx(2 * d0)
    report = (tmp_path / "fit_results" / "fit" / "report.txt").read_text()
    for text in ("Quality: GOOD", "D0[hot]", "tied", "Contrast and offset of hot", "q0.h5"):
        assert text in report


SEPARATE = STATIC.replace("start = 1e4", "start = 1e4\nbounds = [1e3, 1e5]") + (
    "[parameters.\"D0[hot sample]\"]\nstart = 1.2e4\nbounds = [2e3, 9e4]\n"
    "[parameters.\"alpha[hot sample]\"]\ntie = \"alpha[q0]\"\nfactor = 1.0\n"
    "[joint]\nseparate = ['D0', 'alpha']\n[solver]\nerrors = 'classical'\n"
)  # fmt: skip


def test_the_resolved_configuration_runs_again_to_the_same_numbers(files, tmp_path):
    text = tables(files, "q0", "hot", hot="label = 'hot sample'") + SEPARATE
    code, first = run(tmp_path, text)
    assert code == 0
    again = str(tmp_path / "fit_results" / "config.toml")
    second = tmp_path / "second"
    assert program.main([again, "--quiet", "--output", str(second)]) == 0
    assert found(second)["parameters"] == first["parameters"]
    rows = first["parameters"]
    assert rows["D0[hot sample]"]["role"] == "separate"
    assert rows["D0[hot sample]"]["bounds"] == [2e3, 9e4]
    assert rows["D0[q0]"]["bounds"] == [1e3, 1e5]
    assert rows["D0[q0]"]["error"] == rows["D0[q0]"]["error_classical"]
    assert rows["alpha[hot sample]"]["value"] == rows["alpha[q0]"]["value"]
    own = json.loads((second / "fit" / "hot sample" / "parameters.json").read_text())
    assert own["quoted_error"] == "classical"
    assert tomllib.loads((second / "config.toml").read_text())["joint"] == {"shared": ["D_offset"]}


def test_one_table_alone_is_a_joint_fit_of_one(files, tmp_path):
    code, one = run(tmp_path, tables(files, "q0") + STATIC)
    assert code == 0
    assert one["parameters"]["D0"]["role"] == "separate"
    assert one["sharing"]["finding"].startswith("no parameter is shared")
    assert list(one["data_sets"]) == ["q0"]


def test_a_joint_fit_is_examined_as_one_of_one_data_set_is(files, tmp_path, monkeypatch):
    monkeypatch.setattr(examining, "suspicious", lambda *_: True)
    asked = "[output]\ndiagnostics = true\nsequential = 'inverse_variance'\n"
    code, both = run(tmp_path, tables(files, "q0", "q1") + STATIC + asked)
    assert code == 0
    folder = tmp_path / "fit_results" / "fit"
    # Without being asked for, since the fit is doubtful.
    left_open = json.loads((folder / "degeneracy.json").read_text())
    diagnosed = json.loads((folder / "diagnostics.json").read_text())
    assert left_open["condition_number"] == pytest.approx(both["condition_number"])
    known = {n for one in left_open["directions"] for n in one["names"]}
    assert known <= set(both["parameters"])
    assert diagnosed["names"] == ["D0", "alpha"]
    # Column norm and sensitivity make the error bar of independent pairs.
    each = zip(*(diagnosed[key] for key in ("names", "column_norms", "sensitivities")), strict=True)
    for name, column, share in each:
        error = both["parameters"][name]["error_classical"]
        assert both["residual_sd"] / (column * share) == pytest.approx(error, rel=1e-3)
    for name in ("q0", "q1"):
        angles = json.loads((folder / name / "sequential.json").read_text())
        assert len(angles["angles"]) == len(PHI)
        combined, together = angles["parameters"]["D0"], both["parameters"]["D0"]
        assert abs(combined["value"] - together["value"]) < 4 * combined["error"]
        assert combined["error"] > together["error"]
    report = (folder / "report.txt").read_text()
    for title in ("What the data leave open", "Diagnostics", "Each angle by itself, q1"):
        assert f"\n{title}\n" in report


def test_plots_for_each_data_set(files, tmp_path):
    path = configuration(tmp_path, tables(files, "q0", "q1", q0="label = 'a/b'") + STATIC)
    assert program.main([path, "--quiet"]) == 0
    plots = tmp_path / "fit_results" / "plots"
    # How the minimum was found is one thing for both.
    assert sorted(p.name for p in plots.iterdir()) == ["a_b", "convergence.png", "q1"]
    assert not (plots / "q1" / "convergence.png").exists()
    assert (plots / "a_b" / "maps.png").stat().st_size > 1000
    assert (plots / "q1" / "covariance.png").exists()
    assert (plots / "q1" / "mean_residuals.png").exists()
    assert found(tmp_path / "fit_results")["data_sets"]["a/b"]["folder"] == "a_b"


def test_profiles_and_searches_of_several_data_sets(files, tmp_path, capsys):
    text = tables(files, "q0", "q1") + STATIC.replace("1e4", "1e4\nbounds = [1e3, 1e5]")
    more = "[solver]\nprofile = ['D0']\n[global]\nmethod = 'multi_start'\nstarts = 4\n"
    path = configuration(tmp_path, text + more)
    assert program.main([path, "--no-plots", "--check"]) == 0
    assert "search: 4 starts" in capsys.readouterr().out
    code, both = run(tmp_path, text + more)
    assert code == 0
    row = both["parameters"]["D0"]
    assert row["profile"]["low"] < row["value"] < row["profile"]["high"]
    assert "multi-start" in {one["what"] for one in both["global"]["spent"]}
    assert set(both["data_sets"]) == {"q0", "q1"}
    report = (tmp_path / "fit_results" / "fit" / "report.txt").read_text()
    for said in ("by profile likelihood", "Search for other minima", "Do the data sets"):
        assert said in report


def test_a_fit_begins_where_an_earlier_one_ended(files, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    text = tables(files, "q0", "q1") + STATIC
    _, wanted = run(tmp_path / "first", text)
    earlier = tmp_path / "first" / "fit_results" / "fit" / "parameters.json"
    given = text.replace("start = 1e4\n", "") + f"[solver]\nstart_from = '{earlier}'\n"
    made = problem(tmp_path / "second", given)
    values = {name: wanted["parameters"][name]["value"] for name in ("D0", "alpha")}
    np.testing.assert_allclose(made.parameters.start, list(values.values()), rtol=1e-12)
    assert made.decisions[0].startswith("D0, alpha, D_offset start where the fit of")
    _, again = run(tmp_path / "second", given)
    assert again["evaluations"] <= 2
    resolved = tomllib.loads((tmp_path / "second" / "fit_results" / "config.toml").read_text())
    assert "start_from" not in resolved["solver"]
    assert resolved["parameters"]["D0"]["start"] == values["D0"]
    # What is said here goes before it, and values of its own no data set has from a shared one.
    made = problem(tmp_path / "second", given + "[parameters.alpha]\nstart = -0.5\n")
    np.testing.assert_allclose(made.parameters.start, [values["D0"], -0.5])
    with pytest.raises(ConfigError, match=r"start_from: .*no parameter of this fit"):
        problem(tmp_path / "second", given + "[joint]\nshared = []\n")
    with pytest.raises(ConfigError, match=r"solver\.start_from: .*cannot be read"):
        problem(tmp_path / "second", given, "solver.start_from=nowhere.json")


@pytest.mark.long
def test_a_posterior_of_several_data_sets(files, tmp_path):
    text = tables(files, "q0", "q1") + STATIC
    text += "[bayes]\nchains = 2\nwarm_up = 60\ndraws = 60\npredictive = 10\n"
    text += "[bayes.priors.contrast]\nkind = 'normal'\nmean = 0.2\nsd = 0.05\n"
    path = configuration(tmp_path, text)
    assert program.main([path, "--no-plots", "--quiet"]) in (0, 1)
    bayes = tmp_path / "fit_results" / "bayes"
    rows = json.loads((bayes / "parameters.json").read_text())["parameters"]
    assert {"D0", "alpha", "contrast[0][q0]", "offset[2][q1]", "sigma"} <= set(rows)
    fitted = found(tmp_path / "fit_results")["parameters"]
    for name in ("D0", "alpha"):
        assert abs(rows[name]["mean"] - fitted[name]["value"]) < rows[name]["sd"]
    report = " ".join((tmp_path / "fit_results" / "fit" / "report.txt").read_text().split())
    assert "1140 pairs are no more than 500000: one run" in report
    assert "prior of contrast[…]: normal, mean 0.2, sd 0.05" in report


def test_labels_become_folder_names():
    labels = ("a/b", "a:b", "..", "con", "A", "a", " x. ", "q = 0.0054", "café", "nul.txt")
    names = folder_names(labels)
    assert names[:4] == ("a_b", "a_b-2", "_", "con_")
    assert names[4:6] == ("A", "a-2")
    assert names[6:] == ("x", "q = 0.0054", "café", "nul.txt_")
    # Not the name of a file of results beside it, and short enough for every file system.
    assert folder_names(("parameters.json", "report.TXT", "é" * 200, "é" * 199)) == (
        "parameters.json_", "report.TXT_", "é" * 60, f"{'é' * 60}-2"
    )  # fmt: skip


def test_a_static_data_set_beside_a_flowing_one(files, tmp_path):
    made = problem(
        tmp_path,
        tables(files, "q0", "q1", q0="model = {mode = 'static'}")
        + "[model]\nkernel = 'homodyne'\n[parameters.phi0]\nstart = 3.0\n",
    )
    whole = made.objective.parameters.whole
    assert whole.free_names[:3] == ("D0", "alpha", "D_offset")
    assert whole.free_names[-1] == "phi0[q1]"
    assert float(made.objective.parts[1].term.parameters.start[-1]) == 3.0
    rest, flow = made.names.models
    assert type(rest).__name__ == "Static"
    assert type(flow.shear_kernel).__name__ == "Homodyne"


def test_settings_reach_the_objective(files, tmp_path):
    weights = {name: f"weight = {w}" for name, w in (("q0", 1.0), ("q1", 2.5))}
    text = tables(files, "q0", "q1", **weights) + STATIC
    made = problem(tmp_path, text + "[solver]\nloss = 'huber'\ncoordinates = 'physical'\n")
    assert made.weights == (1.0, 2.5)
    assert all(isinstance(part, JointObjective) for part in made.objective.parts)
    # The root mean square of noise 0.002 with these weights.
    assert float(made.objective.parts[0].loss.scale) == pytest.approx(0.002 * 1.75**0.5, rel=0.1)
    assert "noise estimated" in made.decisions[0]
    assert [p.provenance.path[-5:] for p in made.data] == ["q0.h5", "q1.h5"]
    swapped = problem(tmp_path, text, f"data.2.path={files / 'hot.h5'}")
    assert [p.provenance.path[-6:] for p in swapped.data] == ["/q0.h5", "hot.h5"]


def test_angles_of_each_data_set_have_weights(files, tmp_path):
    text = tables(
        files, "q0", "q1", q0="weight = 2.0", q1="weight = 1.0\nangle_weights = [1, 4, 1]"
    )
    parts = problem(tmp_path, text + STATIC).objective.parts
    # What is given for all stands where a data set has none of its own.
    every = problem(tmp_path, text + STATIC, "solver.angle_weights=[1, 1, 3]").objective.parts
    several = zip((*parts, *every), ([2, 2, 2], [1, 4, 1], [2, 2, 6], [1, 4, 1]), strict=True)
    for part, wanted in several:
        roots = np.asarray(part.term.tiles.root_angle_weights)
        np.testing.assert_allclose(roots**2, wanted)
    resolved = resolved_settings(*configured(tmp_path, text + STATIC), str(tmp_path))
    assert resolved["data"][1]["angle_weights"] == [1, 4, 1]
    assert "angle_weights" not in resolved["data"][0]


SPLINE = (
    "[model]\nmode = 'static'\n[rates.transport]\nkind = 'spline'\nknots = 4\nsmoothness = 0.5\n"
)


def test_splines_are_smooth_once_where_they_are_shared(files, tmp_path):
    made = problem(tmp_path, tables(files, "q0", "q1") + SPLINE)
    assert [p.names for p in made.objective.penalties] == [tuple(f"J[{i}]" for i in range(4))]
    text = (
        SPLINE
        + "[joint]\nshared = []\n[parameters.J]\nbounds = [1.0, 1e6]\n"
        + ('[parameters."J[q1]"]\nstart = 2e4\n[parameters."J[q1][3]"]\nfree = false\n')
    )
    made = problem(tmp_path, tables(files, "q0", "q1") + text)
    assert [p.names[0] for p in made.objective.penalties] == ["J[q0][0]", "J[q1][0]"]
    whole = made.objective.parameters.whole
    assert whole.free_names == (
        *(f"J[q0][{i}]" for i in range(4)),
        *(f"J[q1][{i}]" for i in range(3)),
    )
    assert whole.upper[0] == 1e6
    assert float(whole.start[4]) == 2e4


def test_f2_stays_in_the_middle_of_all_times(files, tmp_path):
    made = problem(tmp_path, tables(files, "q0", "q1") + "[model]\nmode = 'two_component'\n")
    assert "f2" not in made.objective.parameters.whole.free_names
    assert float(made.objective.parts[1].term.parameters.model.f2) == pytest.approx(0.95)
    assert "f2 is kept" in made.decisions[0]


def test_the_template_for_several_data_sets(capsys):
    assert program.main(["--template", "joint"]) == 0
    text = capsys.readouterr().out
    settings = check_settings(tomllib.loads(text), Source("template", text))
    assert [one.label for one in settings.data] == ["cold", "hot"]
    for key in ("#weight", "#factors", "#model", "#shared", "separate", "D0[hot]"):
        assert key in text


def test_check_names_data_sets_and_what_they_share(files, tmp_path, capsys):
    path = configuration(tmp_path, tables(files, "q0", "q1") + STATIC)
    assert program.main([path, "--check"]) == 0
    printed = capsys.readouterr().out
    for text in ("q0: ", "q1.h5", "shared: D0, alpha", "2 free parameters (D0, alpha)"):
        assert text in printed
    assert not (tmp_path / "fit_results").exists()


TWO = "[[data]]\npath = 'FILES/q0.h5'\n\n[[data]]\npath = 'FILES/q1.h5'\n"
WRONG = {
    "unknown key": (
        TWO + "framse = [1, 5]\n",
        ("line 6, [[data]] 2", "'data.2.framse'", "'data.2.frames'"),
    ),
    "no path": ("[[data]]\nlabel = 'x'\n", ("line 1, [[data]] 1", "'data.1.path' is missing")),
    "no data": ("data = []\n", ("[[data]]",)),
    "no table": ("data = [1]\n", ("[[data]] 1", "data.1 = 1", "a table [[data]]")),
    "range": (TWO + "weight = 0\n", ("line 6, [[data]] 2", "data.2.weight = 0", "above zero")),
    "nested": (
        TWO + "[data.model]\nmode = 'sttic'\n",
        ("line 7, [[data]] 2", "data.2.model.mode", "'static'"),
    ),
    "label": (TWO + "label = 'a[b]'\n", ("data.2.label", "without brackets")),
    "labels": (
        TWO + "label = 'q0'\n",
        ("line 6, [[data]] 2", "'q0'", "[[data]] 1 already"),
    ),
    "both": (
        TWO + "[joint]\nshared = []\nseparate = []\n",
        ("line 6", "joint", "leave one of them out"),
    ),
    "key of joint": (TWO + "[joint]\nshare = []\n", ("line 7", "'joint.share'", "'joint.shared'")),
    "shared": (
        TWO + "[joint]\nshared = ['D1']\n",
        ("line 7", "joint.shared", "'D1'", "did you mean 'D0'"),
    ),
    "separate": (TWO + "[joint]\nseparate = ['alfa']\n", ("line 7", "'alfa'", "'alpha'")),
    "lacking": (
        TWO + "model = {mode = 'static'}\n[joint]\nshared = ['phi0']\n",
        ("line 8", "'phi0'", "the model of q1 lacks it"),
    ),
    "unknown label": (
        TWO + "[parameters.'D0[q2]']\nstart = 1e4\n",
        ("line 6", "'D0[q2]'", "did you mean 'parameters.D0[q", "Known here"),
    ),
    "shared value": (
        TWO + "[parameters.'D0[q1]']\nstart = 1e4\n",
        ("line 7", "D0 is shared", "joint.separate"),
    ),
    "factor of nothing": (
        TWO + "factors = {D1 = 2}\n",
        ("line 6, [[data]] 2", "the model of q1 has no parameter 'D1'", "'D0'"),
    ),
    "factor of separate": (
        TWO + "factors = {D0 = 2}\n[joint]\nseparate = ['D0']\n",
        ("line 6, [[data]] 2", "D0 is separate"),
    ),
    "factor zero": (TWO + "factors = {D0 = 0}\n", ("[[data]] 2", "factors.D0 = 0")),
    "factor and tie": (
        TWO + "factors = {D0 = 2}\n[parameters.'D0[q1]']\ntie = 'D0'\n",
        ("line 6, [[data]] 2", "has a factor"),
    ),
    "tie to nothing": (
        TWO + "[parameters.alpha]\ntie = 'D1'\n",
        ("line 7", "alpha[q0] cannot be tied to 'D1'", "'D0'"),
    ),
    "tie in a ring": (
        TWO + "[parameters.'D0[q0]']\ntie = 'D0[q1]'\n",
        ("line 7", "is what the others share"),
    ),
    "tie of a tie": (
        TWO + "[parameters.alpha]\ntie = 'D0'\n[parameters.D0]\ntie = 'D_offset'\n",
        ("line 7", "D0 is tied itself"),
    ),
    "weights for some": (TWO + "weight = 2\n", ("[[data]] 1", "data.1.weight is missing")),
    "sigma for some": (
        TWO + "sigma = 0.01\n",
        ("line 1, [[data]] 1", "known for q1, but not for q0", "data.1.sigma", "weight"),
    ),
    "angle weights": (
        TWO + "angle_weights = [1, 1, 1]\n[solver]\nangle_weights = [1, 1]\n",
        ("line 8", "solver.angle_weights has 2 entries", "data of data set 1 have 3 angles"),
    ),
    "angle weights of a data set": (
        TWO + "angle_weights = [1, 1]\n",
        ("line 6, [[data]] 2", "data.2.angle_weights has 2 entries", "3 angles"),
    ),
    "profile": (TWO + "[solver]\nprofile = ['D1']\n", ("line 7", "'D1'", "did you mean 'D0'")),
    "scaling": (
        TWO + "[scaling]\nmode = 'fixed'\ncontrast = [0.1, 0.2]\n",
        ("[scaling] of data set q0", "2 values", "3 angles"),
    ),
    "rates": (TWO + "[rates.shear]\nkind = 'spline'\n", ("line 6", "unknown rate 'shear'")),
    "data of one": (TWO + "frames = [1, 99]\n", ("line 4, [[data]] 2", "q1.h5", "20 frames")),
    "missing file": (
        TWO.replace("q1", "q9"),
        ("line 4, [[data]] 2", "q9.h5", "no such file"),
    ),
    "start": (TWO + "[parameters.D0]\nstart = -5.0\n", ("[parameters]", "outside its bounds")),
    "several q": ("[data]\npath = 'FILES/all.hdf'\n", ("0.004, 0.006, 0.008", "[joint]")),
    "azimuths": (
        "[data]\npath = 'FILES/all.hdf'\nphi = 3.0\n[joint]\n",
        ("azimuths are stored", "leave it out", "data.phi"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named_with_place_and_remedy(files, tmp_path, capsys, case):
    text, fragments = WRONG[case]
    text = text.replace("FILES", str(files))
    # Bare keys and the line numbers come first.
    text += "" if "model" in text or text.startswith("data =") else "[model]\nmode = 'static'\n"
    assert program.main([configuration(tmp_path, text), "--check"]) == 2
    message = capsys.readouterr().err
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize("option", ["data.path=x.h5", "data.3.path=x.h5", "data.2=3"])
def test_a_data_set_is_named_by_its_number_on_the_command_line(files, tmp_path, option):
    path = configuration(tmp_path, tables(files, "q0", "q1") + STATIC)
    with pytest.raises(ConfigError, match=r"there are 2 tables \[\[data\]\].*data\.1\."):
        read_configuration(path, (option,))


def test_noise_that_cannot_be_estimated(files, tmp_path):
    flat = simulated(TRUTH, QS[0], 0)
    write_own(tmp_path / "flat.h5", dataclasses.replace(flat, c2=np.ones_like(flat.c2)))
    text = tables(files, "q0") + "[[data]]\npath = 'flat.h5'\n" + STATIC
    with pytest.raises(DataError, match=r"data set 2 cannot be estimated.*weight of \[\[data\]\]"):
        problem(tmp_path, text)


@pytest.fixture
def interrupt(monkeypatch):
    """The next run is interrupted at an evaluation, or never."""

    def at(evaluation):
        @contextlib.contextmanager
        def progress(arguments):
            def callback(state):
                if int(state.evaluations) == evaluation:
                    raise KeyboardInterrupt

            yield callback

        monkeypatch.setattr(program, "_progress", progress)

    return at


def test_interrupted_and_gone_on_with(files, tmp_path, interrupt, capsys):
    text = tables(files, "q0", "q1") + STATIC
    fast = ("--set", "output.fitted_data=false")
    code, wanted = run(tmp_path, text, *fast)
    assert code == 0
    path = configuration(tmp_path, text)
    again = [path, "--no-plots", "--quiet", "--overwrite", *fast]
    interrupt(3)
    assert program.main(again) == 3
    checkpoint = tmp_path / "fit_results.checkpoint"
    assert f"checkpoint written to {checkpoint}" in capsys.readouterr().err
    # Another data set is another problem.
    other = ["--resume", "--set", f"data.2.path={files / 'q2.h5'}"]
    assert program.main([*again, *other]) == 2
    assert "another problem" in capsys.readouterr().err
    interrupt(None)
    assert program.main([*again, "--resume"]) == 0
    assert found(tmp_path / "fit_results") == wanted
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == ["fit.toml", "fit_results"]


@pytest.mark.long
def test_the_example_runs_as_it_says(tmp_path, monkeypatch):
    text = (Path(__file__).parent.parent / "examples" / "joint.toml").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "joint.toml").write_text(text, encoding="utf-8")
    commands = [line.split() for line in text.splitlines() if "python -m xpcs_eqx" in line]
    assert [words[3].removeprefix("xpcs_eqx.") for words in commands] == [
        "simulation",
        "simulation",
        "fit",
    ]
    for words in commands[:2]:
        assert simulation.main(words[4:]) == 0
    assert program.main([*commands[2][4:], "--quiet", "--no-plots"]) == 0
    rows = found(tmp_path / "joint_results")
    assert rows["quality"]["flag"] == "good"
    truth = {"D0": 4000.0, "alpha": -0.8, "beta": 0.8, "phi0[cold]": 5.0, "phi0[hot]": 5.0}
    for name, value in truth.items():
        row = rows["parameters"][name]
        assert abs(row["value"] - value) < 4 * row["error"], name
