"""The program on data that stay in their file, and with the hybrid optimiser."""

import contextlib
import os
import signal
import subprocess
import sys
import tomllib

import h5py
import numpy as np
import pytest
from helpers_data import two_time
from helpers_program import QUICKLY, SETTINGS, prepared, results, run

from xpcs_eqx import fit as program
from xpcs_eqx.config import read_configuration, template
from xpcs_eqx.config.tables.streaming import optimiser_of
from xpcs_eqx.data import bands, load, write_npz, write_own
from xpcs_eqx.hybrid import strict_defences
from xpcs_eqx.optimize import by_bounds

STORED = ("--set", "streaming.strategy=out_of_core")
HYBRID = ("--set", "solver.method=hybrid", "--set", "hybrid.warm_up_minimum=3")


@pytest.fixture
def folder(tmp_path):
    return prepared(tmp_path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same data fitted in memory, from their file, and by the hybrid optimiser."""
    folder = prepared(tmp_path_factory.mktemp("runs"))
    kinds = {
        "memory": QUICKLY,
        "stored": (*STORED, "--set", "output.fitted_data=true"),
        "hybrid": (*QUICKLY, *STORED, *HYBRID),
    }
    for name, options in kinds.items():
        assert run(folder, "--quiet", "--output", str(folder / name), *options) == 0
    return folder


@pytest.fixture
def at_evaluation(monkeypatch):
    """What is done at an evaluation of the solver."""

    def at(number, action):
        @contextlib.contextmanager
        def progress(arguments):
            def callback(state):
                if int(state.evaluations) == number:
                    action()

            yield callback

        monkeypatch.setattr(program, "_progress", progress)

    return at


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["stored", "hybrid"])
def test_wherever_the_data_are_the_fit_is_the_same(runs, kind):
    wanted, found = results(runs, "memory"), results(runs, kind)
    for name, row in wanted["parameters"].items():
        other = found["parameters"][name]
        if row["role"] in ("fixed", "tied"):
            continue
        assert abs(other["value"] - row["value"]) < 1e-5 * row["error_classical"], name
        for error in ("error_classical", "error_speckle", "error_dyadic"):
            assert other[error] == pytest.approx(row[error], rel=1e-5), (name, error)
    assert found["pairs"] == wanted["pairs"]
    assert found["chi2"] == pytest.approx(wanted["chi2"], rel=1e-9)


def test_the_decision_is_in_the_report_and_in_the_numbers(runs):
    said = {
        "memory": ("in memory: the data need", "in_memory"),
        "stored": ("out of core: asked for", "out_of_core"),
        "hybrid": ("out of core: asked for", "out_of_core"),
    }
    for name, (text, choice) in said.items():
        report = " ".join((runs / name / "fit" / "report.txt").read_text().split())
        assert f"note {text}" in report
        assert "a stored Jacobian would take" in report
        strategy = results(runs, name)["strategy"]
        assert strategy["choice"] == choice
        # Three maps of 24 frames in double precision.
        assert strategy["data"] == 3 * 24 * 24 * 8
        assert strategy["needed"] == 3 * strategy["data"] < strategy["threshold"]


def test_the_phases_of_the_hybrid_optimiser_are_in_the_report(runs):
    report = " ".join((runs / "hybrid" / "fit" / "report.txt").read_text().split())
    assert "on maps from the file" in report
    assert "warm-up done:" in report
    assert "converged" in report
    assert "defences " in report
    document = results(runs, "hybrid")["hybrid"]
    assert document["telemetry"]["layers"]["warm start"]["asked"] == 1
    assert document["passes"]["warm-up"] >= 3
    assert {"warm-up", "solver"} <= set(results(runs, "hybrid")["timings_s"])
    assert "hybrid" not in results(runs, "memory")


def test_plots_and_fitted_data_of_maps_in_their_file(runs):
    plots = sorted(path.name for path in (runs / "stored" / "plots").iterdir())
    assert {"maps.png", "c2_against_lag.png", "residuals.png"} <= set(plots)
    data = load(str(runs / "data.h5"))
    with h5py.File(runs / "stored" / "fit" / "fitted_data.h5") as file:
        upper = np.triu_indices(24, 1)
        np.testing.assert_array_equal(file["c2"][()][:, *upper], np.asarray(data.c2)[:, *upper])
        assert np.isfinite(file["residual"][()][:, *upper]).all()


def test_the_resolved_configuration_runs_again(runs):
    path = runs / "hybrid" / "config.toml"
    settings = tomllib.loads(path.read_text())
    assert settings["streaming"]["strategy"] == "out_of_core"
    assert settings["hybrid"]["warm_up_minimum"] == 3
    again = str(runs / "again")
    assert program.main([str(path), "--quiet", "--output", again]) == 0
    assert results(runs, "again")["parameters"] == results(runs, "hybrid")["parameters"]


def test_little_memory_leaves_the_maps_in_their_file(folder, monkeypatch, capsys):
    monkeypatch.setattr("xpcs_eqx.objective.drivers.strategy.total_memory", lambda: 100_000)
    assert run(folder, "--check") == 0
    assert "  in memory: the data need 41.5 kB in memory, below" in capsys.readouterr().out
    less = ("--set", "streaming.memory_fraction=0.4")
    assert run(folder, "--check", *less) == 0
    assert "  out of core: the data need" in capsys.readouterr().out
    # The machine wins over the configuration.
    monkeypatch.setenv("XPCS_EQX_MEMORY_FRACTION", "0.9")
    assert run(folder, "--check", *less) == 0
    assert "  in memory: the data need" in capsys.readouterr().out
    monkeypatch.setenv("XPCS_EQX_MEMORY_FRACTION", "0.2")
    assert run(folder, "--quiet", "--set", "data.sigma=mad") == 0
    report = " ".join((folder / "fit_results" / "fit" / "report.txt").read_text().split())
    assert "out of core: the data need" in report
    assert "fit/fitted_data is not written since the maps stay in their file" in report
    assert not list((folder / "fit_results" / "fit").glob("fitted_data*"))


def test_files_that_cannot_be_read_in_parts(folder, monkeypatch, capsys):
    write_npz(str(folder / "data.npz"), two_time(n=24))
    change = ("--set", f"data.path={folder / 'data.npz'}")
    assert run(folder, "--check", *change, *STORED) == 2
    message = capsys.readouterr().err
    assert "streaming.strategy=out_of_core" in message
    assert "cannot be read in parts" in message
    assert "write_own" in message
    monkeypatch.setattr("xpcs_eqx.objective.drivers.strategy.total_memory", lambda: 1000)
    assert run(folder, "--quiet", *QUICKLY, *change) == 0
    report = " ".join((folder / "fit_results" / "fit" / "report.txt").read_text().split())
    assert "read into memory all the same" in report


WRONG = (
    (("streaming.strategy=disk",), '"in_memory", "out_of_core"'),
    (("streaming.memory_fraction=1.5",), "a number from 0.1 to 0.9"),
    (("streaming.piece=0",), "a number above 0, at most"),
    (("streaming.read_ahed=1",), "did you mean 'streaming.read_ahead'"),
    (("hybrid.preset=brave",), '"aggressive"'),
    (("hybrid.tolerance=1e-6",), 'hybrid.tolerance is of no effect with solver.method = "lev'),
    (("solver.method=hybrid", "solver.cost_tol=1e-9"), "hybrid.tolerance and hybrid.max_iter"),
    (("solver.method=dogleg", "streaming.strategy=hybrid"), "leave one of them out"),
    (("streaming.strategy=out_of_core", "data.phi=0.0"), "leave it out"),
)


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_mistakes_in_the_configuration(folder, capsys, changes, message):
    assert run(folder, "--check", *(part for one in changes for part in ("--set", one))) == 2
    assert message in capsys.readouterr().err


@pytest.mark.long
def test_several_data_sets_in_their_files(folder):
    write_own(str(folder / "other.h5"), two_time(n=18))
    several = SETTINGS.replace("[data]\n", "[[data]]\n")
    (folder / "fit.toml").write_text(several + '[[data]]\npath = "other.h5"\n')
    kinds = {"memory": (), "stored": STORED, "hybrid": (*STORED, *HYBRID)}
    for name, options in kinds.items():
        assert run(folder, "--quiet", *QUICKLY, *options, "--output", str(folder / name)) == 0
    wanted = results(folder, "memory")
    for kind in ("stored", "hybrid"):
        found = results(folder, kind)
        assert found["strategy"]["choice"] == "out_of_core"
        assert found["strategy"]["data"] == 3 * (24**2 + 18**2) * 8
        assert found["chi2"] == pytest.approx(wanted["chi2"], rel=1e-9)
        for name in ("D0", "alpha"):
            mine, other = wanted["parameters"][name], found["parameters"][name]
            assert abs(other["value"] - mine["value"]) < 1e-5 * mine["error_classical"]
            assert other["error"] == pytest.approx(mine["error"], rel=1e-5)
    assert "passes" in found["hybrid"]


def test_keys_of_the_hybrid_optimiser(folder):
    (folder / "fit.toml").write_text(
        SETTINGS + '[solver]\nmethod = "hybrid"\n[hybrid]\npreset = "conservative"\n'
        'warm_up_iterations = 40\nmax_iterations = 7\ntolerance = 1e-5\nnormalisation = "bounds"\n'
        'candidates = 9\ndefences = "strict"\n'
    )
    made = optimiser_of(read_configuration(str(folder / "fit.toml")).settings.hybrid)
    assert made.warm_up.max_iterations == 40
    assert (made.max_evaluations, made.tolerance) == (7, 1e-5)
    assert made.warm_up.units is by_bounds
    assert made.tournament.candidates == 9
    assert made.warm_up.guard == strict_defences().guard == 1.01
    # Those of the preset when nothing else is said.
    assert made.warm_up.window == 5


def test_a_check_says_what_the_hybrid_optimiser_will_do(folder, capsys):
    options = (*HYBRID, "--set", "hybrid.warm_up_iterations=40", "--set", "hybrid.candidates=9")
    assert run(folder, "--check", *options) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the hybrid optimiser runs as asked for, on maps in memory, preset default: " in said
    assert "the best of 9 candidates in 3 rounds, L-BFGS of 3 to 40 iterations" in said
    assert "then the trust region, to a tolerance of 1e-08" in said


def test_the_template_explains_the_tables():
    text = template("static")
    for line in ("[streaming]", '#strategy = "auto"', "[hybrid]", "#warm_up_minimum = 3"):
        assert line in text


@pytest.mark.parametrize("options", [STORED, (*STORED, *HYBRID)], ids=["stored", "hybrid"])
def test_interrupted_and_gone_on_with(folder, runs, at_evaluation, options, capsys):
    at_evaluation(3, interrupt)
    assert run(folder, *QUICKLY, *options) == 3
    assert "continue with --resume" in capsys.readouterr().err
    # The states of one optimiser are nothing to the other.
    other = STORED if options != STORED else (*STORED, *HYBRID)
    assert run(folder, *QUICKLY, *other, "--resume") == 2
    message = capsys.readouterr().err
    assert "a checkpoint of the" in message
    assert "continue with the settings it was written with" in message
    at_evaluation(-1, interrupt)
    assert run(folder, *QUICKLY, *options, "--resume", "--quiet") == 0
    name = "stored" if options == STORED else "hybrid"
    wanted, found = results(runs, name), results(folder)
    assert found["parameters"] == wanted["parameters"]
    assert found["evaluations"] == wanted["evaluations"]
    assert not (folder / "fit_results.checkpoint").exists()


def test_a_file_that_becomes_unreadable(folder, at_evaluation, monkeypatch, capsys):
    monkeypatch.setattr(bands, "PAUSE", 0.0)
    whole = (folder / "data.h5").read_bytes()
    at_evaluation(3, lambda: os.truncate(folder / "data.h5", len(whole) // 2))
    assert run(folder, *QUICKLY, *STORED) == 2
    message = capsys.readouterr().err
    kept = folder / "fit_results.checkpoint"
    assert f"checkpoint written to {kept}; continue with --resume" in message
    assert "could not be read" in message
    assert str(folder / "data.h5") in message
    assert list(kept.iterdir())
    assert not (folder / "fit_results").exists()
    (folder / "data.h5").write_bytes(whole)
    at_evaluation(-1, interrupt)
    assert run(folder, *QUICKLY, *STORED, "--resume", "--quiet") == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are POSIX")
def test_terminated_and_gone_on_with(folder, runs):
    command = [sys.executable, "-m", "xpcs_eqx.fit", str(folder / "fit.toml"), "-v", "--overwrite"]
    command += [*QUICKLY, *STORED]
    # On a busy machine the signal may come after the last of the evaluations, which shows nothing.
    for _ in range(5):
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as process:
            for line in process.stderr:
                if "evaluation 2:" in line:
                    process.send_signal(signal.SIGTERM)
                    break
            rest = process.stderr.read()
            ended = process.wait(timeout=120)
        if ended != 0:
            break
    assert ended == 3
    assert "interrupted; checkpoint written to" in rest
    assert run(folder, *QUICKLY, *STORED, "--resume", "--quiet") == 0
    assert results(folder)["parameters"] == results(runs, "stored")["parameters"]
