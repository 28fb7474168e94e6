"""The program with [bayes]: what is written, and what an interruption leaves."""

import json
import os
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from helpers_posterior import IN_SHARDS, QUICKLY, prepared, report_of, run

from xpcs_eqx.bayes import infer
from xpcs_eqx.bayes.arviz_io import PLOTS
from xpcs_eqx.config import read_configuration
from xpcs_eqx.config.build import build
from xpcs_eqx.config.inference import inference_of
from xpcs_eqx.errors import ConfigError
from xpcs_eqx.program import sampling


@pytest.fixture
def folder(tmp_path):
    return prepared(tmp_path)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Results with draws and all plots of them."""
    folder = prepared(tmp_path_factory.mktemp("sampled"))
    assert run(folder, "--quiet", "--set", "output.fitted_data=false") == 0
    return folder / "fit_results"


@pytest.mark.slow
def test_the_posterior_is_in_report_and_folder(sampled):
    found = {path.name for path in (sampled / "bayes").iterdir()}
    assert found == {
        "samples.npz", "parameters.json", "diagnostics.json", "fitted_data.npz", "posterior.nc",
        "report.txt", "report.html", "plots",
    }  # fmt: skip
    plots = {path.name for path in (sampled / "bayes" / "plots").iterdir()}
    # The corner plot takes the place of the pair plot of ArviZ.
    assert plots == {f"{name}.png" for name in ("corner", *PLOTS) if name != "pair"}
    report = report_of(sampled)
    assert "status CONVERGED" in report
    assert "828 pairs are no more than 500000: one run" in report
    assert "prior of alpha: normal, mean 0, sd 0.5" in report
    assert "the data are used twice" in report
    parameters = json.loads((sampled / "bayes" / "parameters.json").read_text())["parameters"]
    fitted = json.loads((sampled / "fit" / "parameters.json").read_text())["parameters"]
    for name in ("D0", "alpha", "contrast", "offset"):
        assert abs(parameters[name]["mean"] - fitted[name]["value"]) < 0.3 * parameters[name]["sd"]
        assert re.search(rf"{re.escape(name)} +[-\d.e+]+", report)
    with np.load(sampled / "bayes" / "fitted_data.npz") as surface:
        assert surface["draws"] == 20
        assert np.all(surface["low"] <= surface["mean"])
    # The page stands alone.
    html = (sampled / "bayes" / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/") == len(plots)
    assert "CONVERGED" in html
    assert "http" not in html


@pytest.mark.slow
def test_the_resolved_configuration_asks_for_the_same(sampled):
    path = str(sampled / "config.toml")
    settings = tomllib.loads((sampled / "config.toml").read_text(encoding="utf-8"))
    assert settings["bayes"]["chains"] == 4
    assert settings["bayes"]["priors"]["alpha"]["kind"] == "normal"
    given = read_configuration(path).settings.bayes
    assert given == read_configuration(str(sampled.parent / "fit.toml")).settings.bayes


@pytest.mark.slow
def test_arviz_reads_what_the_program_writes_in_a_new_process(sampled):
    text = """
import sys, xarray, arviz_stats, arviz_plots
tree = xarray.open_datatree(sys.argv[1], engine="h5netcdf")
print(arviz_stats.summary(tree, ci_prob=0.94, ci_kind="eti", round_to="none").loc["D0", "mean"])
for name in ("pair", "forest", "autocorr", "rank", "ess", "trace"):
    getattr(arviz_plots, "plot_" + name)(tree, var_names=["D0", "alpha"], backend="matplotlib")
arviz_plots.plot_energy(tree, backend="matplotlib")
"""
    done = subprocess.run(
        [sys.executable, "-c", text, str(sampled / "bayes" / "posterior.nc")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert done.returncode == 0, done.stderr
    parameters = json.loads((sampled / "bayes" / "parameters.json").read_text())["parameters"]
    assert float(done.stdout.split()[-1]) == pytest.approx(parameters["D0"]["mean"])


@pytest.mark.long
def test_shards_are_interrupted_and_gone_on_with(folder, monkeypatch, capsys):
    seen = []

    def stopping(*args, callback, **keywords):
        def once(outcome):
            seen.append(outcome.number)
            if len(seen) == 2:
                raise KeyboardInterrupt

        return infer(*args, callback=once, **keywords)

    monkeypatch.setattr(sampling, "infer", stopping)
    results, kept = folder / "fit_results", folder / "fit_results.checkpoint"
    assert run(folder, *QUICKLY, *IN_SHARDS) == 3
    message = capsys.readouterr().err
    assert f"the fit is written to {results}" in message
    assert "--resume" in message
    # The fit is there, and says what it lacks.
    assert "none: sampling was interrupted" in report_of(results)
    assert not (results / "bayes").exists()
    shards = sorted(path.name for path in (kept / "shards").iterdir())
    assert shards == ["shard-00000.h5", "shard-00001.h5"]
    assert run(folder, *QUICKLY, *IN_SHARDS) == 2
    assert "--resume" in capsys.readouterr().err
    # Two shards are read, one is sampled; the results that wait for it need no --overwrite.
    assert run(folder, *QUICKLY, *IN_SHARDS, "--resume") == 0
    assert seen[2:] == [0, 1, 2]
    assert not kept.exists()
    report = report_of(results)
    assert "3 of 3 in the result" in report
    assert "2 shards were read from an earlier run" in report
    assert "precision-weighted average" in report
    written = json.loads((results / "bayes" / "shards.json").read_text())
    assert [one["used"] for one in written["shards"]] == [True] * 3
    assert [one["resumed"] for one in written["shards"]] == [True, True, False]
    assert written["dropped"] == []


@pytest.mark.long
def test_a_run_is_interrupted_and_gone_on_with(folder, monkeypatch, capsys, tmp_path_factory):
    seen = []

    def stopping(*args, callback, **keywords):
        def once(progress):
            seen.append(progress.phase)
            if len(seen) == 3:
                raise KeyboardInterrupt

        return infer(*args, callback=once, **keywords)

    results, kept = folder / "fit_results", folder / "fit_results.checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "infer", stopping)
        assert run(folder, *QUICKLY) == 3
    message = capsys.readouterr().err
    assert "the draws so far are kept, continue with --resume" in message
    assert "none: sampling was interrupted" in report_of(results)
    assert len(list((kept / "shards" / "attempt-0").iterdir())) == 3
    assert run(folder, *QUICKLY, "--resume") == 0
    assert not kept.exists()
    whole = prepared(tmp_path_factory.mktemp("whole"))
    assert run(whole, *QUICKLY) == 0
    found, wanted = (
        np.load(one / "fit_results" / "bayes" / "samples.npz") for one in (folder, whole)
    )
    assert set(found.files) == set(wanted.files)
    for name in wanted.files:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


def test_a_failed_posterior_costs_neither_the_fit_nor_the_exit_code(folder, monkeypatch, caplog):
    def failing(*_, **__):
        raise ConfigError("nothing can be sampled today")

    monkeypatch.setattr(sampling, "infer", failing)
    assert run(folder, *QUICKLY) == 1
    assert "status none: nothing can be sampled today" in report_of(folder / "fit_results")
    assert not (folder / "fit_results.checkpoint").exists()


def test_without_the_table_nothing_is_sampled(tmp_path):
    folder = prepared(tmp_path, "")
    configuration = read_configuration(str(folder / "fit.toml"))
    assert configuration.settings.bayes is None
    assert inference_of(configuration, build(configuration)) is None


@pytest.mark.long
def test_shards_of_maps_in_their_file(folder):
    options = ("bayes.draws=200", "bayes.warm_up=100", "streaming.strategy=out_of_core")
    more = [part for one in options for part in ("--set", one)]
    assert run(folder, *QUICKLY, *IN_SHARDS[:2], "--set", "bayes.shards.count=2", *more) == 0
    report = report_of(folder / "fit_results")
    assert "out of core: asked for" in report
    assert "2 of 2 in the result" in report
    rows = json.loads((folder / "fit_results" / "bayes" / "parameters.json").read_text())
    fitted = json.loads((folder / "fit_results" / "fit" / "parameters.json").read_text())
    for name in ("D0", "alpha", "contrast", "offset"):
        one = rows["parameters"][name]
        assert abs(one["mean"] - fitted["parameters"][name]["value"]) < 0.3 * one["sd"]


def test_check_tells_the_plan(folder, capsys):
    script = ("--set", "bayes.shards.executor=slurm", "--set", f"bayes.shards.folder={folder}")
    job = ("--set", "bayes.shards.job.queue=short")
    assert run(folder, "--check", *IN_SHARDS, *script, *job) == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in (
        "consensus of 828 pairs was asked for",
        "3 shards (angle-balanced) of 276 pairs",
        "5 sampled entries: D0, alpha, contrast, offset, sigma",
        "prior of D0: from the fit, 5 times its error wide (uses the data twice)",
        "prior of alpha: normal, mean 0, sd 0.5",
        "prior of contrast: truncated_normal, mean 0.3, sd 0.25, lower 0, upper 1 (default)",
        "100 transitions of warm-up and 250 draws",
        "#SBATCH -p short",
    ):
        assert text in said, text
