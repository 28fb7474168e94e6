"""The command `xpcs-eqx`: what it answers at once, and from a file to results without editing."""

import csv
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers_data import two_time
from helpers_figures import complaints

import xpcs_eqx.program.series
import xpcs_eqx_command
from xpcs_eqx.config import read_configuration
from xpcs_eqx.data import write_own
from xpcs_eqx.errors import ConfigError
from xpcs_eqx.program.series import arrivals, named_once
from xpcs_eqx.program.task import task_of
from xpcs_eqx.report.collection import Result
from xpcs_eqx.report.plots import measured
from xpcs_eqx.simulation.__main__ import LAYOUTS, MODELS, TRUTH

ROOT = Path(__file__).parents[1]
MAP = ROOT.parent / "shared" / "data" / "bnl_twotime_350.npy"
run = xpcs_eqx_command.main
# One angle, few frames: enough for a static fit.
SMALL = ["--angles", "0", "--frames", "41", "--dt", "0.5", "--model", "static"]
SMALL += ["--set", "D_offset=0", "--set", "alpha=-0.3"]


def simulate(folder, layout="own", *arguments):
    path = str(folder / ("scan.npz" if layout == "npz" else "scan.hdf"))
    assert run(["simulate", path, "--layout", layout, *arguments]) == 0
    return path


def test_help_needs_no_jax():
    """Nothing slow is imported before there is something to do."""
    program = """
import sys
import xpcs_eqx_command as command
codes = [command.main(["--help"]), command.main(["--version"]), command.main(["what"])]
codes += [command.main([name, "--help"]) for name, (_, add) in command.COMMANDS.items() if add]
assert codes == [0, 0, 2] + [0] * (len(codes) - 3), codes
assert not {"jax", "numpy", "xpcs_eqx"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("xpcs-eqx co", {"compare"}),
        ("xpcs-eqx fit --fo", {"--follow", "--format"}),
        ("xpcs-eqx show --layo", {"--layout"}),
        ("xpcs-eqx report --format ", {"png", "svg", "pdf"}),
    ],
)
def test_a_shell_completes(line, wanted, tmp_path):
    """As argcomplete asks, without importing the package."""
    program = "import sys, xpcs_eqx_command as c; sys.argv[0] = 'xpcs-eqx'; c.main([])"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "said"), "_ARGCOMPLETE_IFS": "\n"}
    asked |= {"_ARGCOMPLETE_SUPPRESS_SPACE": "1", "_ARGCOMPLETE_SHELL": "bash"}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=os.environ | asked)
    assert wanted <= set((tmp_path / "said").read_text().splitlines())


def test_the_script_is_the_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"xpcs-eqx": "xpcs_eqx_command:main"}
    said = (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text(encoding="utf-8")
    assert f'__version__ = "{xpcs_eqx_command.version()}"' in said
    for built in ("wheel", "sdist"):
        included = project["tool"]["hatch"]["build"]["targets"][built]["include"]
        assert {"xpcs_eqx", "xpcs_eqx_command.py"} <= set(included)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_init_makes_a_configuration_of_every_layout(layout, tmp_path, capsys):
    path = simulate(tmp_path, layout, "--frames", "21")
    assert run(["show", path]) == 0
    shown = capsys.readouterr().out
    # Bins of age and lag have no frame time of their own.
    assert "0.0054 1/Å" in shown
    assert run(["init", path, "-o", str(tmp_path / "fit.toml")]) == 0
    text = (tmp_path / "fit.toml").read_text()
    assert len(text.splitlines()) < 30
    assert "unsure" in text
    configuration = read_configuration(str(tmp_path / "fit.toml"))
    assert configuration.settings.model.mode == "laminar_flow"
    assert task_of(configuration).problem.data[0].n_angles == 3
    assert run(["init", path, "-o", str(tmp_path / "fit.toml")]) == 2
    assert "is there already" in capsys.readouterr().err


def test_from_a_file_to_results_and_to_a_comparison(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate(tmp_path, "own", *SMALL)
    capsys.readouterr()
    assert run(["init", "scan.hdf"]) == 0
    Path("fit.toml").write_text(capsys.readouterr().out)
    assert run(["check", "fit.toml"]) == 0
    assert run(["fit", "fit.toml", "--quiet"]) == 0
    assert run(["fit", "fit.toml", "--no-plots", "--quiet", "--output", "again"]) == 0
    capsys.readouterr()
    assert run(["compare", "fit_results", "again", "--csv", "a.csv", "--html", "a.html"]) == 0
    shown = capsys.readouterr().out
    assert "fit_results" in shown
    assert "apart [errors]" in shown
    header, first, second = Path("a.csv").read_text().splitlines()
    found = json.loads(Path("again/fit/parameters.json").read_text())["parameters"]["D0"]
    assert first.split(",")[1:] == second.split(",")[1:]
    assert float(first.split(",")[header.split(",").index("error of D0")]) == found["error"]
    assert "fit_results" in Path("a.html").read_text()
    # The plots of a fit that has none.
    text = Path("again/fit/report.txt").read_text()
    assert run(["report", "again"]) == 0
    assert Path("again/plots/maps.png").stat().st_size > 1000
    assert Path("again/fit/report.txt").read_text() == text
    assert Path("again/fit/report.html").read_text().count("<figcaption>") == 6
    # Other numbers are asked for: what is there is not what would be written.
    again = ["fit", "fit.toml", "--no-plots", "--quiet", "--output", "again", "--resume"]
    assert run([*again, "--format", "svg"]) == 0
    assert run([*again, "--set", "output.ages=[1.0]"]) == 2
    assert "of another configuration" in capsys.readouterr().err
    # Plots would show other maps than those that were fitted.
    with h5py.File("scan.hdf", "a") as file:
        file["more"] = 1
    assert run(["report", "again"]) == 2
    assert "has changed since it was fitted" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compare", "report"])
def test_what_is_no_results_folder(command, tmp_path, capsys):
    """Each is told by what it is, with what to do."""
    needed = {"compare": "parameters.json", "report": "report.json"}[command]
    said = {
        "none": "there is no such folder",
        "empty": "name the folder that `xpcs-eqx fit` has written",
        "night": "is the folder of a series; name a folder in it",
        "old": f"fit once more: xpcs-eqx fit {tmp_path}/old/config.toml --output NEW_FOLDER",
        "damaged": f"{needed} cannot be read",
    }
    for name in ("empty", "night", "old", "damaged/fit"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "night" / "series.csv").touch()
    (tmp_path / "old" / "config.toml").touch()
    (tmp_path / "damaged" / "fit" / needed).write_text("[1]")
    for name, wanted in said.items():
        assert run([command, str(tmp_path / name)]) == 2
        assert wanted in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scan.hdf", "scan.npz", "map.npy"])
def test_a_data_file_is_no_configuration(name, tmp_path, capsys):
    if name == "map.npy":
        path = str(MAP)
        if not MAP.exists():
            pytest.skip(f"{MAP.name} is not on this machine")
    else:
        path = simulate(tmp_path, "npz" if "npz" in name else "own", "--frames", "5")
    for command in ("fit", "check"):
        assert run([command, path]) == 2
        assert f"xpcs-eqx init {path} > fit.toml" in capsys.readouterr().err


@pytest.mark.skipif(not MAP.exists(), reason=f"{MAP.name} is not on this machine")
def test_init_of_a_bare_map(capsys, tmp_path):
    assert run(["init", str(MAP), "--dt", "1"]) == 0
    (tmp_path / "fit.toml").write_text(capsys.readouterr().out)
    problem = task_of(read_configuration(str(tmp_path / "fit.toml"))).problem
    assert problem.parameters.free_names == ("D0", "alpha")
    # Without a time between frames there is nothing to go by but their number.
    assert run(["init", str(MAP)]) == 0


def test_show_draws_every_q_and_init_takes_one(tmp_path, capsys, monkeypatch):
    """With the intensity of the frames where the file has it."""
    figures = []
    draw = measured.data_figure

    def kept(*given):
        figures.append(draw(*given))
        return figures[-1]

    monkeypatch.setattr(measured, "data_figure", kept)
    path = simulate(tmp_path, "aps-u", "--q", "0.004,0.006", "--frames", "15")
    assert run(["show", path, "--plot", str(tmp_path / "shown.png")]) == 0
    shown = capsys.readouterr().out
    assert "2 q, 3 angles" in shown
    assert "0.004 1/Å" in shown
    assert (tmp_path / "shown.png").read_bytes().startswith(b"\x89PNG")
    assert not any("intensity" in axes.get_title(loc="left") for axes in figures[-1].axes)
    with h5py.File(path, "a") as file:
        file["xpcs/spatial_mean/intensity_vs_time"] = np.linspace(3.0, 2.0, 15)
    assert run(["show", path, "--plot", str(tmp_path / "shown.png")]) == 0
    capsys.readouterr()
    (one,) = [axes for axes in figures[-1].axes if "intensity" in axes.get_title(loc="left")]
    np.testing.assert_allclose(one.lines[0].get_xydata()[:, 1], np.linspace(3.0, 2.0, 15))
    assert complaints(figures[-1]) == []
    assert run(["init", path]) == 0
    assert "q = 0.004  # unsure: [1/Å], of 0.004, 0.006" in capsys.readouterr().out
    assert run(["simulate", path, "--q", "0.004,0.006"]) == 2
    assert "layout own holds one q" in capsys.readouterr().err


@pytest.mark.parametrize("mode", MODELS)
def test_init_knows_every_model(mode, tmp_path, capsys):
    write_own(str(tmp_path / "data.h5"), two_time(n=15))
    target = str(tmp_path / "fit.toml")
    assert run(["init", str(tmp_path / "data.h5"), "--model", mode, "-o", target]) == 0
    assert read_configuration(target).settings.model.mode == mode
    assert run(["init", str(tmp_path / "data.h5"), "--model", "statc"]) == 2
    assert "there is no such model" in capsys.readouterr().err


def test_a_template_by_its_mode(capsys):
    assert run(["template", "ballistic"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["model"]["mode"] == "ballistic"
    assert run(["template", "nothing"]) == 2
    assert "no template 'nothing'" in capsys.readouterr().err
    assert run(["fit"]) == 2
    assert "give a configuration" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_fitted_without_editing(layout, tmp_path):
    path = simulate(tmp_path, layout)
    target = str(tmp_path / "fit.toml")
    assert run(["init", path, "-o", target]) == 0
    assert run(["fit", target, "--no-plots", "--quiet"]) == 0
    found = json.loads((tmp_path / "fit_results" / "fit" / "parameters.json").read_text())
    for name, value in TRUTH.items():
        row = found["parameters"][name]
        assert abs(row["value"] - value) < 4 * row["error"], name


@pytest.mark.long
@pytest.mark.skipif(not MAP.exists(), reason=f"{MAP.name} is not on this machine")
def test_the_real_map_is_fitted_without_editing(tmp_path, monkeypatch, capsys):
    """Its power law leaves structure, which is said; g2 at ages says why: it is stretched."""
    monkeypatch.chdir(tmp_path)
    assert run(["init", str(MAP), "--dt", "1", "-o", "fit.toml"]) == 0
    assert run(["fit", "fit.toml", "--no-plots", "--set", "output.g2_ages=2"]) == 1
    assert "the model does not fit" in capsys.readouterr().out
    found = json.loads(Path("fit_results/fit/parameters.json").read_text())["parameters"]
    assert found["alpha"]["value"] == pytest.approx(-0.5, abs=3 * found["alpha"]["error"])
    curves = json.loads(Path("fit_results/fit/g2.json").read_text())["curves"]
    assert any(one["stretch"] + 2 * one["stretch_error"] < 1 for one in curves)


def test_a_series_is_one_table(tmp_path, capsys, monkeypatch):
    """A broken file stops nothing, what is finished is not done again, and metadata sort."""
    monkeypatch.chdir(tmp_path)
    for k, D0 in enumerate((3000, 5000)):
        arguments = [*SMALL, "--seed", str(k), "--set", f"D0={D0}"]
        assert run(["simulate", f"scan_{k}.hdf", *arguments]) == 0
        with h5py.File(f"scan_{k}.hdf", "a") as file:
            file["sample/temperature"] = 300.0 - k
            file["entry/start_time"] = f"2026-11-29T10:{30 + k}:00+01:00"
    Path("scan_2.hdf").write_text("no maps")
    assert run(["init", "scan_0.hdf", "-o", "fit.toml"]) == 0
    series = ["fit", "fit.toml", "scan_0.hdf", "scan_1.hdf", "scan_2.hdf", "--no-plots"]
    series += ["--about", "T=sample/temperature", "--about", "begun=entry/start_time"]
    capsys.readouterr()
    assert run(series) == 1
    said = capsys.readouterr().out
    assert "scan_1.hdf: good" in said
    assert "scan_2.hdf: failed: " in said
    assert "not an HDF5 file" in said
    with open("fit_series/series.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == ["scan_1.hdf", "scan_0.hdf", "scan_2.hdf"]
    assert [row["T"] for row in rows] == ["299.0", "300.0", ""]
    assert [row["begun"][11:16] for row in rows] == ["10:31", "10:30", ""]
    found = json.loads(Path("fit_series/scan_1/fit/parameters.json").read_text())
    assert float(rows[0]["D0 [Å²/s^(1+alpha)]"]) == found["parameters"]["D0"]["value"]
    page = Path("fit_series/series.html").read_text()
    assert "scan_2.hdf" in page
    assert page.count("<figcaption>") == 1
    written = Path("fit_series/scan_0/provenance.json").stat().st_mtime_ns
    # Once more, with the third file mended: only that is fitted.
    Path("scan_2.hdf").write_bytes(Path("scan_0.hdf").read_bytes())
    assert run(series) == 0
    assert Path("fit_series/scan_0/provenance.json").stat().st_mtime_ns == written
    assert Path("fit_series/scan_2/fit/parameters.json").exists()
    # By another configuration nothing is fitted, and what was found stays.
    table = Path("fit_series/series.csv").read_text()
    capsys.readouterr()
    assert run([*series, "--set", "output.ages=[1.0]"]) == 1
    said = capsys.readouterr().out
    assert said.count("of another configuration") == 3
    assert "the earlier series.csv in fit_series stays" in said
    assert Path("fit_series/series.csv").read_text() == table


def test_each_q_by_itself(tmp_path, capsys, monkeypatch):
    """One results folder for each q, from where the first ended, and the exponent in the page."""
    monkeypatch.chdir(tmp_path)
    simulate(tmp_path, "aps-u", *SMALL, "--q", "0.0054,0.007,0.009")
    assert run(["init", "scan.hdf", "-o", "fit.toml"]) == 0
    series = ["fit", "fit.toml", "scan.hdf", "--each-q", "--from-first", "--no-plots"]
    capsys.readouterr()
    assert run(series) == 0
    assert "scan.hdf, q = 0.009 1/Å: good" in capsys.readouterr().out
    with open("fit_series/series.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["q [1/Å]"]) for row in rows] == [0.0054, 0.007, 0.009]
    assert all(float(row["error of Γ"]) > 0 for row in rows)
    assert all(0.2 < float(row["contrast[0]"]) < 0.3 for row in rows)
    half = [float(row["half-decay at 5.1875 s and 0° [s]"]) for row in rows]
    assert half == sorted(half, reverse=True)
    assert float(rows[0]["mean D [Å²/s]"]) > 100
    assert "as the model has it (2)" in Path("fit_series/series.html").read_text()
    later = tomllib.loads(Path("fit_series/scan_q0.009/config.toml").read_text())
    first = json.loads(Path("fit_series/scan_q0.0054/fit/parameters.json").read_text())
    assert later["global"]["method"] == "local"
    assert later["parameters"]["D0"]["start"] == first["parameters"]["D0"]["value"]
    folders = [f"fit_series/scan_q{q}" for q in ("0.0054", "0.007")]
    assert run(["compare", *folders]) == 0
    assert "How relaxation depends on q" in capsys.readouterr().out
    assert run(["fit", "fit.toml", "--each-q"]) == 2
    (tmp_path / "joint.toml").write_text(Path("fit.toml").read_text() + "[joint]\n")
    assert run(["fit", "joint.toml", "scan.hdf"]) == 2
    assert "--each-q fits each q" in capsys.readouterr().err


def test_a_followed_folder(tmp_path):
    """Files come once they no longer change, and again when they are written again."""
    batches = arrivals(str(tmp_path), pause=0.0)
    (tmp_path / "notes.txt").write_text("no data")
    (tmp_path / "a.h5").write_text("one")
    assert next(batches) == [str(tmp_path / "a.h5")]
    (tmp_path / "b.h5").write_text("two")
    (tmp_path / "a.h5").write_text("one, and more")
    assert next(batches) == [str(tmp_path / "a.h5"), str(tmp_path / "b.h5")]
    with pytest.raises(ConfigError, match="there is no such folder"):
        next(arrivals(str(tmp_path / "nowhere"), pause=0.0))


@pytest.mark.parametrize("follow", [False, True])
def test_an_interrupted_series(follow, tmp_path, capsys, monkeypatch):
    """What is finished stays; a folder is followed until an interrupt, which is no failure."""
    done = []

    def fit_some(series, item, target):
        if done:
            raise KeyboardInterrupt
        done.append(item)
        return "cannot be fitted"

    monkeypatch.setattr(xpcs_eqx.program.series, "fit_item", fit_some)
    monkeypatch.setattr(xpcs_eqx.program.series, "arrivals", lambda _: iter([["a.h5"], ["b.h5"]]))
    monkeypatch.chdir(tmp_path)
    Path("fit.toml").write_text("[data]\npath = 'a.h5'\n")
    files = ["--follow", "."] if follow else ["a.h5", "b.h5"]
    assert run(["fit", "fit.toml", *files]) == (1 if follow else 3)
    said = capsys.readouterr()
    assert "a.h5: failed: cannot be fitted" in said.out
    assert ("the same command goes on" in said.err) != follow
    assert len(Path("fit_series/series.csv").read_text().splitlines()) == 2
    # Before anything came there is nothing to name.
    assert run(["fit", "fit.toml", *files, "--output", "other"]) == (0 if follow else 3)
    assert "series.csv" not in capsys.readouterr().out
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.hdf", "--jobs", "0"], "--jobs of 1 or more"),
        (["a.hdf", "--resume"], "without --resume"),
        (["a.hdf", "--about", "T"], "write NAME=PATH"),
        (["--follow", "nowhere"], "there is no such folder"),
        # Options may stand before the files, and what is no option is said.
        (["--jobs", "0", "a.hdf", "b.hdf"], "--jobs of 1 or more"),
        (["--each-q", "a.hdf", "--set", "data.q=[1, 2]", "--set", "data.merge_q=true"], "merge_q"),
        (["a.hdf", "--job-s", "2"], "unrecognized arguments: --job-s"),
        # Without files there is no series, of which alone these are asked.
        (["--jobs", "2"], "--jobs is for a series"),
        (["--about", "T=sample/T"], "--about is for a series"),
        (["--from-first"], "--from-first is for a series"),
    ],
)
def test_what_a_series_does_not_take(arguments, said, tmp_path, capsys):
    (tmp_path / "fit.toml").write_text("[data]\npath = 'a.hdf'\n")
    assert run(["fit", str(tmp_path / "fit.toml"), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_comes_again_is_fitted_again(tmp_path, monkeypatch, capsys):
    """One that is written again while its folder is followed; results of others stay."""
    done = []

    def fitted(series, item, target):
        done.append((os.path.basename(item.file), series.overwrite))
        return "" if item.file != "b.h5" else "there are results already"

    monkeypatch.setattr(xpcs_eqx.program.series, "fit_item", fitted)
    monkeypatch.setattr(
        xpcs_eqx.program.series, "arrivals", lambda _: iter([["a.h5"], ["b.h5"], ["b.h5", "a.h5"]])
    )
    monkeypatch.setattr(
        xpcs_eqx.program.series,
        "read_result",
        lambda _, name, about: Result(name, "good", about, {"D0": (1.0, 0.1)}),
    )
    monkeypatch.chdir(tmp_path)
    Path("fit.toml").write_text("[data]\npath = 'a.h5'\n")
    assert run(["fit", "fit.toml", "--follow", "."]) == 1
    assert done == [("a.h5", False), ("b.h5", False), ("b.h5", False), ("a.h5", True)]


def test_files_of_one_name_and_missing_numbers(tmp_path, monkeypatch, capsys):
    """They go by their paths; what is not a number has no place among numbers."""
    for k, folder in enumerate("abc"):
        (tmp_path / folder).mkdir()
        with h5py.File(tmp_path / folder / "run.hdf", "w") as file:
            file["T"] = (300.0, np.nan, 290.0)[k]
    monkeypatch.setattr(xpcs_eqx.program.series, "fit_item", lambda *_: "cannot be fitted")
    monkeypatch.chdir(tmp_path)
    Path("fit.toml").write_text("[data]\npath = 'a.h5'\n")
    files = [f"{folder}/run.hdf" for folder in "abc"]
    assert run(["fit", "fit.toml", "--about", "T=T", *files]) == 1
    with open("fit_series/series.csv", newline="") as stream:
        rows = [(row["name"], row["T"]) for row in csv.DictReader(stream)]
    assert rows == [("c/run.hdf", "290.0"), ("a/run.hdf", "300.0"), ("b/run.hdf", "")]
    said = capsys.readouterr().out
    assert "b/run.hdf: failed" in said
    assert "--about" not in said
    assert run(["fit", "fit.toml", "--about", "T=sample/T", *files]) == 1
    assert "--about T: there is no value at sample/T in any file" in capsys.readouterr().out


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path, capsys):
    (tmp_path / "taken").touch()
    path = simulate(tmp_path, "own", "--frames", "5")
    assert run(["show", path, "--plot", str(tmp_path / "taken" / "shown.png")]) == 2
    assert "a file stands where a folder is needed" in capsys.readouterr().err


def test_names_with_numbers_are_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(xpcs_eqx.program.series, "fit_item", lambda *_: "cannot be fitted")
    monkeypatch.chdir(tmp_path)
    Path("fit.toml").write_text("[data]\npath = 'a.h5'\n")
    files = ["scan_10.h5", "scan_9b2.h5", "9.h5", "scan_9b10.h5", "scan_9.h5", "scan.h5"]
    assert run(["fit", "fit.toml", *files]) == 1
    with open("fit_series/series.csv", newline="") as stream:
        names = [row["name"] for row in csv.DictReader(stream)]
    order = ["9.h5", "scan.h5", "scan_9.h5", "scan_9b2.h5", "scan_9b10.h5", "scan_10.h5"]
    assert names == order


def test_a_file_that_is_named_twice_is_fitted_once(tmp_path, monkeypatch):
    """However its path is spelled, and where it comes with a followed folder as well."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.h5", "b.h5", "in/a.h5", "in/.hidden.h5"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    given = ["b.h5", "a.h5", "./a.h5", str(tmp_path / "a.h5"), "in/a.h5", "in/none.h5"]
    assert named_once(given, None) == ["b.h5", "a.h5", "in/a.h5", "in/none.h5"]
    assert named_once([*given, "in/.hidden.h5"], "in/") == [
        "b.h5", "a.h5", "in/none.h5", "in/.hidden.h5"
    ]  # fmt: skip


@pytest.mark.long
def test_a_series_in_processes(tmp_path, monkeypatch):
    """Several at a time as one after the other; one that was killed goes on with what is left."""
    monkeypatch.chdir(tmp_path)
    for k in range(5):
        assert run(["simulate", f"scan_{k}.hdf", *SMALL, "--seed", str(k)]) == 0
    Path("scan_2.hdf").write_text("no maps")
    assert run(["init", "scan_0.hdf", "-o", "fit.toml"]) == 0
    files = [f"scan_{k}.hdf" for k in range(5)]
    program = [sys.executable, "-m", "xpcs_eqx", "fit", "fit.toml", *files, "--no-plots"]
    two = [*program, "--jobs", "2", "--output", "two"]
    with subprocess.Popen(two, stdout=subprocess.PIPE, text=True, start_new_session=True) as first:
        good = (line.split(":")[0] for line in first.stdout if ": good" in line)
        done = [next(good), next(good)]
        # All of its processes at once, without a chance to clear up.
        os.killpg(first.pid, signal.SIGKILL)
    written = {n: Path("two", n[:-4], "provenance.json").stat().st_mtime_ns for n in done}
    assert run(["fit", "fit.toml", *files, "--jobs", "2", "--no-plots", "--output", "two"]) == 1
    for name, then in written.items():
        assert Path("two", name[:-4], "provenance.json").stat().st_mtime_ns == then
    assert run(["fit", "fit.toml", *files, "--no-plots", "--output", "one"]) == 1
    tables = []
    for name in ("one", "two"):
        with open(Path(name, "series.csv"), newline="") as stream:
            tables.append(list(csv.DictReader(stream)))
    for one, other in zip(*tables, strict=True):
        assert (one["name"], one["verdict"]) == (other["name"], other["verdict"])
        if one["verdict"] == "good":
            key = "D0 [Å²/s^(1+alpha)]"
            assert float(one[key]) == pytest.approx(float(other[key]), rel=1e-9)
    assert [row["verdict"].split(":")[0] for row in tables[1]].count("failed") == 1
