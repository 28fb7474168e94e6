"""The program: exit codes, messages, results, and what becomes of earlier results."""

import json
import os
import re
import subprocess
import sys
import tomllib
from argparse import Namespace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers_bad_data import BAD_CALLS, BAD_FILES
from helpers_data import two_time
from helpers_program import QUICKLY, prepared, run

import xpcs_eqx.fitting
import xpcs_eqx.program.task
import xpcs_eqx.report.plots
from xpcs_eqx import fit as program
from xpcs_eqx.data import LAYOUTS, Selection, write_nxxpcs, write_own

# Refused by the schema, before the data are looked at.
BY_SCHEMA = {
    "dt_zero": "data.dt",
    "gap_negative": "data.gap",
    "sigma_negative": "data.sigma",
    "sigma_unknown_word": "data.sigma",
    "unknown_layout": "data.layout",
}


@pytest.fixture
def folder(tmp_path):
    return prepared(tmp_path)


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def earlier_results(folder):
    """Results of an earlier run, in outline."""
    results = folder / "fit_results"
    (results / "fit").mkdir(parents=True)
    (results / "provenance.json").write_text("{}")
    (results / "fit" / "report.txt").write_text("precious")
    return snapshot(results)


def assert_untouched(folder, before):
    assert snapshot(folder / "fit_results") == before
    assert not [name for name in os.listdir(folder) if name.startswith(".fit_results")]


def test_a_fit_writes_everything_and_ends_with_zero(folder, capsys):
    assert run(folder, "--set", "solver.profile=['D0']") == 0
    results = folder / "fit_results"
    assert set(snapshot(results)) == {
        "config.toml",
        "provenance.json",
        "fit/parameters.json",
        "fit/covariance.npz",
        "fit/fitted_data.npz",
        "fit/report.html",
        "fit/report.json",
        "fit/report.txt",
        "plots/maps.png",
        "plots/c2_against_lag.png",
        "plots/residuals.png",
        "plots/residuals_by_lag_and_age.png",
        "plots/scaling.png",
        "plots/convergence.png",
        "plots/rates.png",
        "plots/covariance.png",
        "plots/mean_residuals.png",
    }
    parameters = json.loads((results / "fit" / "parameters.json").read_text())
    assert parameters["converged"]
    profile = parameters["parameters"]["D0"]["profile"]
    assert profile["low"] < parameters["parameters"]["D0"]["value"] < profile["high"]
    printed = capsys.readouterr()
    assert "by profile likelihood" in printed.out
    page = results / "fit" / "report.html"
    assert f"Results: {results}, to be read in {page}" in printed.out
    assert (results / "fit" / "report.txt").read_text().startswith("Fit of data.h5")
    page = (results / "fit" / "report.html").read_text(encoding="utf-8")
    assert "Fit of data.h5" in page
    assert page.count("data:image/") == page.count("<figcaption>") == 9
    assert len(page) < 5_000_000
    provenance = json.loads((results / "provenance.json").read_text())
    assert len(provenance["data"]["sha256"]) == 64
    assert provenance["data"]["file"] == "data.h5"
    assert provenance["wall_time_s"] > 0
    assert str(folder) not in (results / "provenance.json").read_text()
    resolved = tomllib.loads((results / "config.toml").read_text())
    assert resolved["data"]["path"] == "../data.h5"
    assert resolved["solver"]["profile"] == ["D0"]
    assert resolved == provenance["configuration"]
    with np.load(results / "fit" / "fitted_data.npz") as arrays:
        assert arrays["c2"].shape == (3, 24, 24)


def test_the_resolved_configuration_gives_the_same_fit(folder):
    assert run(folder, "--no-plots", "--quiet") == 0
    again = str(folder / "fit_results" / "config.toml")
    assert program.main([again, "--quiet", "--output", str(folder / "second")]) == 0
    first, second = (
        json.loads((folder / name / "fit" / "parameters.json").read_text())
        for name in ("fit_results", "second")
    )
    assert first["parameters"] == second["parameters"]
    assert not (folder / "second" / "plots").exists()


def test_quiet_and_verbose(folder, capsys):
    assert run(folder, "--quiet", "--no-plots", "--set", "output.fitted_data=false") == 0
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
    assert not (folder / "fit_results" / "fit" / "fitted_data.npz").exists()
    assert run(folder, "-v", "--no-plots", "--overwrite") == 0
    assert "evaluation 1: cost" in capsys.readouterr().err


def test_not_converged_is_one_and_the_results_are_there(folder):
    code = run(
        folder, "--quiet", "--no-plots", "--set", "solver.max_evaluations=2",
        "--set", "solver.recovery=0", "--set", "parameters.D0.start=1000.0",
    )  # fmt: skip
    assert code == 1
    parameters = json.loads((folder / "fit_results" / "fit" / "parameters.json").read_text())
    assert parameters["status"] == "max_evaluations"
    assert parameters["quality"]["flag"] == "poor"


@pytest.mark.parametrize("kind", ["classical", "speckle", "dyadic"])
def test_the_quoted_error_can_be_chosen(folder, kind):
    assert run(folder, "--quiet", "--no-plots", "--set", f"solver.errors={kind}") == 0
    found = json.loads((folder / "fit_results" / "fit" / "parameters.json").read_text())
    d0 = found["parameters"]["D0"]
    assert d0["error"] == d0[f"error_{kind}"]
    assert found["quoted_error"] == kind


def test_the_first_evaluations_in_single_precision(folder, tmp_path):
    found = {}
    for word in ("double", "single_first"):
        how = ("--set", f"solver.precision={word}", "--output", str(tmp_path / word))
        assert run(folder, "--quiet", "--no-plots", *how) == 0
        written = json.loads((tmp_path / word / "fit" / "parameters.json").read_text())
        found[word] = written["parameters"]["D0"]
    gap = abs(found["double"]["value"] - found["single_first"]["value"])
    assert gap < 1e-3 * found["double"]["error"]
    said = (tmp_path / "single_first" / "fit" / "report.txt").read_text()
    assert re.search(r"single precision +\d+ evaluations: converged", said)
    assert "single precision" not in (tmp_path / "double" / "fit" / "report.txt").read_text()


@pytest.mark.parametrize(
    "loss",
    [
        "soft_l1",
        *(pytest.param(one, marks=pytest.mark.long) for one in ("huber", "cauchy", "arctan")),
    ],
)
def test_robust_losses(folder, loss):
    code = run(folder, "--quiet", "--no-plots", "--set", f"solver.loss={loss}")
    assert code == 0
    assert "bends at" in (folder / "fit_results" / "fit" / "report.txt").read_text()


def test_results_are_only_replaced_when_asked(folder, capsys):
    before = earlier_results(folder)
    assert run(folder) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert_untouched(folder, before)
    assert run(folder, "--overwrite", "--quiet", "--no-plots") == 0
    assert (folder / "fit_results" / "fit" / "parameters.json").exists()
    assert sorted(os.listdir(folder)) == ["data.h5", "fit.toml", "fit_results"]


def test_output_option_wins(folder, monkeypatch):
    monkeypatch.chdir(folder)
    arguments = ("--quiet", "--no-plots", "--set", "output.directory=one")
    assert run(folder, *arguments, "--output", "two") == 0
    assert (folder / "two" / "config.toml").exists()
    assert not (folder / "one").exists()


def test_check_fits_and_writes_nothing(folder, capsys):
    before = snapshot(folder)
    assert run(folder, "--check") == 0
    printed = capsys.readouterr().out
    for text in (
        "usable",
        "× 24 frames",
        "2 free parameters (D0, alpha), 6 scaling",
        "individual",
    ):
        assert text in printed
    assert snapshot(folder) == before
    assert run(folder, "--check", "--set", "data.frames=[1, 99]") == 2


def test_check_prints_every_note_of_the_fit(folder, capsys):
    path = folder / "data.h5"
    write_nxxpcs(str(path), two_time(n=24))
    with h5py.File(path, "r+") as file:
        file.move("entry/twotime", "entry/xpcs/twotime")
        maps = file["entry/xpcs/twotime/two_time_corr_func"]
        maps[:, 5] = maps[:, :, 5] = 0.0
        del maps.attrs["baseline_reference"]
    assert run(folder, "--check") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert run(folder, *QUICKLY) in (0, 1)
    document = json.loads((folder / "fit_results" / "provenance.json").read_text())
    notes = document["data"]["notes"]
    assert len(notes) >= 4
    for note in notes:
        assert " ".join(note.split()) in printed


def test_check_says_what_the_data_leave_open(folder, capsys):
    write_own(str(folder / "data.h5"), two_time(phi=(10.0, 10.0), n=16))
    assert run(folder, "--check", "--set", "model.mode=laminar_flow") == 1
    printed = capsys.readouterr().out
    assert "do not determine gamma_dot_t0, phi0" in printed.splitlines()[0]
    assert "note: c2[0], c2[1] are all at q" in printed
    # A rate without shear has nothing of it.
    assert run(folder, "--check", "--set", "data.frames=[2, -1]") == 0
    assert "usable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "/full/disk"), "/full/disk: No space left on dev"),
        (PermissionError(13, "Permission denied", "x"), "x: Permission denied; see who may"),
        (OSError("something of a library"), "something of a library; see that it is there"),
        (MemoryError(), "the memory is used up; take fewer frames"),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), "the memory is used up"),
    ],
)
def test_what_the_system_refuses_is_no_bug(folder, capsys, monkeypatch, error, said):
    before = earlier_results(folder)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(xpcs_eqx.program.task, "build", fail)
    assert run(folder, "--overwrite") == 2
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message
    assert_untouched(folder, before)


def test_a_full_disk_keeps_the_earlier_results(folder, capsys, monkeypatch):
    before = earlier_results(folder)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for name in ("savez", "savez_compressed"):
        monkeypatch.setattr(np, name, full)
    assert run(folder, "--overwrite", "--no-plots") == 2
    message = capsys.readouterr().err
    assert "covariance.npz: No space left on device; make room there" in message
    assert_untouched(folder, before)


def test_template_is_printed(capsys):
    assert program.main(["--template", "laminar_flow"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["model"]["mode"] == "laminar_flow"


@pytest.mark.parametrize("arguments", [[], ["--template", "nothing"], ["a.toml", "--what"]])
def test_wrong_command_lines_end_with_two(arguments, capsys):
    assert program.main(arguments) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("make", BAD_FILES, ids=lambda make: make.__name__)
def test_bad_files(tmp_path, capsys, make):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    path, fragments = make(inputs)
    before = earlier_results(tmp_path)
    (tmp_path / "fit.toml").write_text(f"[data]\npath = '{path}'\n[model]\nmode = 'static'\n")
    assert run(tmp_path, "--overwrite") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    for fragment in fragments:
        assert fragment in printed.err
    assert_untouched(tmp_path, before)


def as_settings(keywords):
    """Keyword arguments of `load` as keys of `[data]`."""
    selection = keywords.pop("selection", Selection())
    frames = [selection.start_frame, selection.end_frame]
    keys = {**keywords, "frames": frames, "min_lag": selection.min_lag}
    if selection.q is not None:
        keys |= {"q": selection.q, "q_tolerance": selection.q_tolerance}
    if selection.phi_ranges:
        keys["phi_ranges"] = [list(pair) for pair in selection.phi_ranges]
    return "".join(f"{key} = {value!r}\n" for key, value in keys.items())


@pytest.mark.parametrize("make", BAD_CALLS, ids=lambda make: make.__name__)
def test_good_files_asked_for_the_impossible(tmp_path, capsys, make):
    path, keywords, fragments = make(tmp_path)
    before = earlier_results(tmp_path)
    text = f"[data]\npath = '{path}'\n{as_settings(dict(keywords))}[model]\nmode = 'static'\n"
    (tmp_path / "fit.toml").write_text(text)
    assert run(tmp_path, "--overwrite") == 2
    printed = capsys.readouterr()
    refused = BY_SCHEMA.get(make.__name__)
    for fragment in (refused, "line") if refused else fragments:
        assert fragment in printed.err
    assert_untouched(tmp_path, before)


@pytest.mark.parametrize(
    ("option", "fragments"),
    [
        ("scaling.contrast_bounds=[0.9, 0.1]", ("contrast_bounds", "inside out")),
        ("data.frames=[1, 3]", ("parameters", "pairs", "select more data")),
        ("solver.los=huber", ("'solver.loss'",)),
        ("solver.max_evaluations=many", ("max_evaluations", "'many'", "whole number")),
        ("data.path=nowhere.h5", ("nowhere.h5", "no such file")),
        ("parameters.D0.start=1e12", ("D0", "outside its bounds")),
        ("output.directory=.", ("which no fit wrote",)),
    ],
)
def test_bad_settings(folder, capsys, monkeypatch, option, fragments):
    monkeypatch.chdir(folder)
    before = earlier_results(folder)
    arguments = ["--overwrite", "--set", option]
    if option.startswith("data.frames"):
        arguments += ["--set", "data.phi_ranges=[[-20, 0]]"]
    assert run(folder, *arguments) == 2
    message = capsys.readouterr().err
    for fragment in fragments:
        assert fragment in message
    assert_untouched(folder, before)


def test_missing_configuration(tmp_path, capsys):
    assert program.main([str(tmp_path / "no.toml")]) == 2
    assert "--template" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 3), (RuntimeError("surprise"), 4)]
)
def test_failing_while_writing_keeps_the_earlier_results(folder, capsys, monkeypatch, error, code):
    before = earlier_results(folder)

    def fail(*_):
        raise error

    monkeypatch.setattr(xpcs_eqx.report.folder, "write_files", fail)
    assert run(folder, "--overwrite") == code
    assert_untouched(folder, before)
    message = capsys.readouterr().err
    if code == 4:
        assert "internal error: RuntimeError: surprise (test_program.py, line" in message
        assert "Traceback" not in message
        assert run(folder, "--overwrite", "-v") == 4
        assert "Traceback" in capsys.readouterr().err


def test_no_plot_costs_a_result(folder, capsys, monkeypatch):
    def broken(*_, **__):
        raise ValueError("cannot be drawn")

    monkeypatch.setattr(xpcs_eqx.report.plots, "rate_figure", broken)
    assert run(folder) == 0
    results = folder / "fit_results"
    said = "the plot rates is missing: ValueError: cannot be drawn"
    for text in (capsys.readouterr().out, (results / "fit" / "report.txt").read_text()):
        assert said in text
    assert said in (results / "fit" / "report.html").read_text()
    assert (results / "plots" / "maps.png").exists()
    assert not (results / "plots" / "rates.png").exists()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(xpcs_eqx.report.plots, "save_figures", interrupted)
    assert run(folder, "--output", str(folder / "second")) == 3
    assert "complete but for plots" in capsys.readouterr().err
    assert set(snapshot(folder / "second")) == {
        name for name in snapshot(results) if not name.startswith("plots")
    }


@pytest.mark.parametrize("error", [AttributeError("of another NumPy"), ImportError("not there")])
def test_a_broken_matplotlib_costs_no_result(folder, capsys, monkeypatch, error):
    def find_spec(name, path=None, target=None):
        if name == "xpcs_eqx.report.plots":
            raise error

    monkeypatch.delitem(sys.modules, "xpcs_eqx.report.plots")
    monkeypatch.delattr(xpcs_eqx.report, "plots")
    monkeypatch.setattr(sys, "meta_path", [Namespace(find_spec=find_spec), *sys.meta_path])
    assert run(folder) == 0
    assert "there are no plots: " in capsys.readouterr().out
    assert str(error) in (folder / "fit_results" / "fit" / "report.html").read_text()


def test_interrupted_while_fitting(folder, monkeypatch):
    before = earlier_results(folder)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(xpcs_eqx.fitting, "least_squares", interrupted)
    assert run(folder, "--overwrite", "--set", "global.method='local'") == 3
    assert_untouched(folder, before)
    monkeypatch.setattr(xpcs_eqx.search, "global_least_squares", interrupted)
    assert run(folder, "--overwrite") == 3
    assert_untouched(folder, before)


def test_output_on_a_terminal_without_unicode_and_into_a_closed_pipe(folder):
    command = [sys.executable, "-m", "xpcs_eqx.fit", str(folder / "fit.toml"), "--check"]
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=plain)
    assert done.returncode == 0, done.stderr
    assert "1/?" in done.stdout
    printing = [sys.executable, "-m", "xpcs_eqx.fit", "--template", "static"]
    with subprocess.Popen(printing, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=300) == 0


@pytest.mark.long
def test_the_program_runs_as_a_module(folder):
    done = subprocess.run(
        [sys.executable, "-m", "xpcs_eqx.fit", "fit.toml", "--no-plots"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Quality: GOOD" in done.stdout


WITHOUT_EXTRAS = """
import sys
for name in ("pydantic", "rich", "tomli_w", "matplotlib"):
    # As if it was not installed.
    sys.modules[name] = None
import importlib.util
found = importlib.util.find_spec
missing = lambda name: name in sys.modules and sys.modules[name] is None
importlib.util.find_spec = lambda name, *more: None if missing(name) else found(name, *more)
import xpcs_eqx.fit
print("imported")
sys.exit(xpcs_eqx.fit.main(sys.argv[1:]))
"""


def test_the_program_can_be_imported_without_its_extras(tmp_path):
    for arguments in (["fit.toml"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_EXTRAS, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(program.__file__).parents[1])},
        )
        assert (done.returncode, done.stdout) == (2, "imported\n")
        assert "pip install 'xpcs-eqx[program]'" in done.stderr


# The generic one needs more keys.
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "generic"])
def test_a_missing_file_is_bad_input_whatever_its_layout(folder, layout, capsys):
    (folder / "data.h5").unlink()
    assert run(folder, "--set", f"data.layout={layout}") == 2
    assert "there is no such file" in capsys.readouterr().err
