"""The program with [bayes]: what is written, what is refused, and what an interruption leaves."""

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from helpers_data import two_time

from xpcs_eqx import fit as program
from xpcs_eqx.bayes import Draws, infer
from xpcs_eqx.bayes.arviz_io import PLOTS
from xpcs_eqx.bayes.write_consensus import plot_consensus
from xpcs_eqx.config import Settings, Source, check_settings, read_configuration, template
from xpcs_eqx.config.bayes import inference_of, refuse_unsupported
from xpcs_eqx.config.build import build
from xpcs_eqx.config.schema_bayes import Bayes, Job, Prior, Shards
from xpcs_eqx.data import write_own
from xpcs_eqx.errors import ConfigError
from xpcs_eqx.program import sampling, tasks
from xpcs_eqx.report.plots.posterior import shards_figure

# Its name in the package is that of the function.
sample_module = importlib.import_module("xpcs_eqx.bayes.sample")

SETTINGS = """
[data]
path = "data.h5"
[model]
mode = "static"
[scaling]
mode = "averaged"
[parameters.D0]
start = 8e4
[parameters.D_offset]
free = false
"""
POSTERIOR = """
[bayes]
warm_up = 150
draws = 250
predictive = 20
[bayes.priors.alpha]
kind = "normal"
mean = 0.0
sd = 0.5
[bayes.priors.D0]
from_fit = true
width = 5.0
"""
QUICKLY = ("--quiet", "--no-plots", "--set", "output.fitted_data=false")
IN_SHARDS = ("--set", "bayes.method=consensus", "--set", "bayes.shards.count=3")


def prepared(folder, extra=POSTERIOR):
    write_own(str(folder / "data.h5"), two_time(n=24))
    (folder / "fit.toml").write_text(SETTINGS + extra, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path):
    return prepared(tmp_path)


def run(folder, *arguments):
    return program.main([str(folder / "fit.toml"), *arguments])


def report_of(results):
    return " ".join((results / "fit" / "report.txt").read_text(encoding="utf-8").split())


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
    assert plots == {"corner.png", *(f"{name}.png" for name in PLOTS)}
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
    assert html.count("data:image/png;base64,") == len(plots)
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


# A map that is sampled in seconds, most of them compilation.
TINY = """
[bayes]
chains = 2
warm_up = 60
draws = 60
predictive = 0
plots = false
"""
PHYSICAL, EACH = ("D0", "alpha"), ("contrast[0]", "contrast[1]", "offset[0]", "offset[1]")
# Options, sampled entries, what is written beside them, and what the report says.
VARIANTS = {
    "individual, pathfinder": (
        ("bayes.start=pathfinder",),
        (*PHYSICAL, *EACH, "sigma"),
        (),
        "start from Pathfinder",
    ),
    "averaged": (
        ("bayes.scaling=averaged",),
        (*PHYSICAL, "contrast", "offset", "sigma"),
        (),
        "scaling averaged",
    ),
    "fixed": (("bayes.scaling=fixed",), (*PHYSICAL, "sigma"), (), "scaling fixed"),
    "marginalised": (
        ("bayes.scaling=marginalised",),
        (*PHYSICAL, "sigma"),
        EACH,
        "contrast and offset were marginalised, not sampled",
    ),
}


def tiny(folder, extra=TINY):
    write_own(str(folder / "data.h5"), two_time(phi=(0.0, 60.0), n=12))
    text = SETTINGS.replace('"averaged"', '"individual"') + extra
    (folder / "fit.toml").write_text(text, encoding="utf-8")
    return folder


def about_the_start(density, positions, step_size, metric, target, sampler, *_, **__):
    """Draws from the Gaussian that chains begin with, in place of NUTS, slow to compile.

    What is sampled, and what becomes of the draws, is the same.
    """
    shape = (sampler.chains, sampler.draws)
    noise = np.random.default_rng(0).normal(size=(*shape, positions.shape[1]))
    zero = np.zeros(shape)
    draws = Draws(
        noise @ np.linalg.cholesky(metric).T,
        zero,
        zero.astype(bool),
        noise[..., 0],
        zero.astype(int),
        zero.astype(int) + 1,
        zero + 0.9,
    )
    return sample_module.ChainRun(draws, step_size, metric, 0.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_sampled_follows_the_file(tmp_path, variant, monkeypatch):
    monkeypatch.setattr(sample_module, "run_chains", about_the_start)
    options, sampled_names, beside, said = VARIANTS[variant]
    options = [part for option in options for part in ("--set", option)]
    # So few draws need not converge.
    assert run(tiny(tmp_path), *QUICKLY, *options) in (0, 1)
    written = tmp_path / "fit_results" / "bayes"
    document = json.loads((written / "parameters.json").read_text())
    found = document["parameters"]
    assert tuple(found) == (*sampled_names, *beside)
    diagnostics = json.loads((written / "diagnostics.json").read_text())
    assert tuple(diagnostics["rhat"]) == sampled_names
    report = report_of(tmp_path / "fit_results")
    assert said in report
    assert ("note" in document) == bool(beside)
    fitted = json.loads((tmp_path / "fit_results" / "fit" / "parameters.json").read_text())
    for name in EACH:
        value, error = (fitted["parameters"][name][key] for key in ("value", "error_classical"))
        if name in found:
            assert abs(found[name]["mean"] - value) < error
            assert 0.6 < found[name]["sd"] / error < 1.6
            assert found[name].get("marginalised", False) == (name in beside)
            columns = report.rpartition("Posterior")[2]
            assert re.search(rf" {re.escape(name)} [-\d.e+]+ [-\d.e+]+ ", columns)
    with np.load(written / "samples.npz") as samples:
        assert samples["contrast"].shape == (2, 60, 2)
        moved = np.ptp(samples["contrast"], axis=(0, 1)) > 0
        assert np.all(moved == (variant != "fixed"))
        same = np.array_equal(samples["contrast"][..., 0], samples["contrast"][..., 1])
        assert same == (variant == "averaged")


@pytest.fixture(scope="module")
def in_processes(tmp_path_factory):
    """Results of two shards that were sampled by another process, and the posterior itself."""
    folder = tiny(tmp_path_factory.mktemp("processes"), TINY.replace("false", "true"))
    shards = ("method=consensus", "shards.count=2", "shards.executor=processes", "shards.workers=1")
    kept = []

    def keeping(*given, **how):
        kept.append(infer(*given, **how))
        return kept[-1]

    options = [part for option in shards for part in ("--set", f"bayes.{option}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "infer", keeping)
        code = run(folder, "--quiet", "--set", "output.fitted_data=false", *options)
    assert code in (0, 1)
    return folder / "fit_results", kept[0]


@pytest.mark.slow
def test_processes_sample_shards(in_processes):
    results, found = in_processes
    shards = json.loads((results / "bayes" / "shards.json").read_text())
    assert [one["status"] for one in shards["shards"]] == ["done", "done"]
    assert found.names == (*PHYSICAL, *EACH, "sigma")
    assert "executor processes" in report_of(results)


@pytest.mark.slow
def test_a_file_of_shards_is_of_one_piece(in_processes):
    results, found = in_processes
    text = """
import sys, xarray, arviz_stats, arviz_plots
tree = xarray.open_datatree(sys.argv[1], engine="h5netcdf")
assert set(tree.children) == {"posterior", "shards"}, tree
assert "sample_stats" not in tree, "combined draws are no chains"
print(arviz_stats.summary(tree, ci_prob=0.94, ci_kind="eti", round_to="none").loc["D0", "mean"])
shard = tree["shards"].sel(shard=1)
names = set(shard["sample_stats"].sizes.items())
assert names == {("chain", 2), ("draw", shard["posterior"].sizes["draw"])}, names
table = arviz_stats.summary(shard, ci_prob=0.94, ci_kind="eti", round_to="none")
print(table.loc["alpha", "r_hat"] if "r_hat" in table else table.loc["alpha", "rhat"])
for name in ("pair", "forest", "trace", "ess"):
    for one in (tree, shard):
        getattr(arviz_plots, "plot_" + name)(one, var_names=["D0", "alpha"], backend="matplotlib")
arviz_plots.plot_energy(shard, backend="matplotlib")
"""
    done = subprocess.run(
        [sys.executable, "-c", text, str(results / "bayes" / "posterior.nc")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert done.returncode == 0, done.stderr
    mean, rhat = map(float, done.stdout.split())
    assert mean == pytest.approx(found["D0"].mean())
    assert 0.9 < rhat < 1.2


@pytest.mark.slow
def test_plots_of_shards(in_processes, tmp_path):
    results, found = in_processes
    plots = {path.name: path.stat().st_size for path in (results / "bayes" / "plots").iterdir()}
    assert set(plots) == {"corner.png", "shards.png", *(f"{name}.png" for name in PLOTS)}
    assert min(plots.values()) > 2000
    plot_consensus(str(tmp_path), found, ("energy",))
    assert (tmp_path / "energy.png").stat().st_size == plots["energy.png"]
    axes = shards_figure(found).axes
    assert [axis.get_ylabel() for axis in axes] == list(PHYSICAL)
    assert [axis.get_xlabel() for axis in axes] == ["", "shard"]
    for axis, name in zip(axes, PHYSICAL, strict=True):
        points = axis.containers[0].lines[0].get_xydata()
        np.testing.assert_array_equal(points[:, 0], [0, 1])
        middle = found[name].mean()
        assert axis.lines[0].get_ydata()[0] == pytest.approx(middle)
        assert points[:, 1].min() < middle < points[:, 1].max()
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == [
        "combined ± sd",
        "shard",
    ]


@pytest.mark.slow
def test_shards_are_interrupted_and_gone_on_with(folder, monkeypatch, capsys):
    seen = []

    def stopping(inference, fit, checkpoints, callback=None):
        def once(outcome):
            seen.append(outcome.number)
            if len(seen) == 2:
                raise KeyboardInterrupt

        return sampling.sampled(inference, fit, checkpoints, once)

    monkeypatch.setattr(tasks, "sampled", stopping)
    results, kept = folder / "fit_results", folder / "fit_results.checkpoint"
    assert run(folder, *QUICKLY, *IN_SHARDS) == 3
    message = capsys.readouterr().err
    assert f"the fit is written to {results}" in message
    assert "--resume" in message
    # The fit is there, and says what it lacks.
    assert "none: sampling was interrupted" in report_of(results)
    assert not (results / "bayes").exists()
    shards = sorted(path.name for path in (kept / "shards").iterdir())
    assert shards == ["shard-00000.npz", "shard-00001.npz"]
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


def test_check_tells_the_plan(folder, capsys):
    script = ("--set", "bayes.shards.executor=slurm", "--set", f"bayes.shards.folder={folder}")
    job = ("--set", "bayes.shards.job.queue=short")
    assert run(folder, "--check", *IN_SHARDS, *script, *job) == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in (
        "consensus of 828 pairs was asked for",
        "3 shards (angle-balanced) of 276 to 276 pairs",
        "5 sampled entries: D0, alpha, contrast, offset, sigma",
        "prior of D0: from the fit, 5 times its error wide (uses the data twice)",
        "prior of alpha: normal, mean 0, sd 0.5",
        "prior of contrast: truncated_normal, mean 0.3, sd 0.25, lower 0, upper 1 (default)",
        "100 transitions of warm-up and 250 draws",
        "#SBATCH -p short",
    ):
        assert text in said, text


PBS = "[bayes.shards]\nexecutor = 'pbs'\nfolder = 'x'\n[bayes.shards.job]\n"
# What the tables themselves tell: (lines, fragments of the message).
WRONG = {
    "unknown key": ("[bayes]\nwarmup = 3\n", ("'bayes.warmup'", "'bayes.warm_up'")),
    "unknown key of shards": ("[bayes.shards]\ntimout = 3.0\n", ("'bayes.shards.timeout'",)),
    "unknown key of a prior": (
        "[bayes.priors.alpha]\nknd = 'uniform'\n",
        ("'bayes.priors.alpha.knd'", "'bayes.priors.alpha.kind'"),
    ),
    "unknown kind": (
        "[bayes.priors.alpha]\nkind = 'cauchy'\n",
        ("bayes.priors.alpha.kind = 'cauchy'", '"uniform"'),
    ),
    "no kind": ("[bayes.priors.alpha]\nlower = 0.0\n", ("bayes.priors.alpha", "kind is missing")),
    "a number is missing": (
        "[bayes.priors.alpha]\nkind = 'normal'\nmean = 0.0\n",
        ("bayes.priors.alpha", "needs sd"),
    ),
    "a number of another kind": (
        "[bayes.priors.alpha]\nkind = 'uniform'\na = 1.0\n",
        ("has no a", "lower, upper"),
    ),
    "no volume": (
        "[bayes.priors.alpha]\nkind = 'uniform'\nlower = 1.0\nupper = 1.0\n",
        ("between 1 and 1 has no volume", "free = false"),
    ),
    "from the fit and of a kind": (
        "[bayes.priors.alpha]\nkind = 'uniform'\nfrom_fit = true\n",
        ("from_fit has width alone",),
    ),
    "no time": ("[bayes.shards]\ntimeout = 0.0\n", ("bayes.shards.timeout = 0.0", "above zero")),
    "no sign of life": (
        "[bayes.shards]\nheartbeat = 0.0\n",
        ("bayes.shards.heartbeat = 0.0", "above zero"),
    ),
    "two sizes": ("[bayes.shards]\npairs = 9\ncount = 9\n", ("leave one of them out",)),
    "no folder": ("[bayes.shards]\nexecutor = 'pbs'\n", ("needs folder",)),
    "workers of nobody": ("[bayes.shards]\nworkers = 3\n", ("not to \"serial\"",)),
    "a job of nobody": ("[bayes.shards.job]\njobs = 2\n", ("not to \"serial\"",)),
    "too many processes": (
        "[bayes.shards]\nexecutor = 'pbs'\nfolder = 'x'\n[bayes.shards.job]\ncores = 2\n",
        ("bayes.shards.job", "give a core to each"),
    ),
    "no memory": (
        f"{PBS}memory = 'lots'\n",
        ("bayes.shards.job.memory = 'lots'", 'a number from 1 with MB, GB', '"16GB"'),
    ),
    "memory without unit": (f"{PBS}memory = '16'\n", ("bayes.shards.job.memory = '16'",)),
    "memory of nothing": (f"{PBS}memory = '0GB'\n", ("bayes.shards.job.memory = '0GB'",)),
    "walltime of no form": (
        f"{PBS}walltime = '90 min'\n",
        ("bayes.shards.job.walltime = '90 min'", 'hours:minutes:seconds like "04:00:00"'),
    ),
    "walltime of nothing": (f"{PBS}walltime = '00:00:00'\n", ("walltime", "no time at all")),
    "days of PBS": (
        f"{PBS}walltime = '1-04:00:00'\n",
        ("bayes.shards", "job.walltime = \"1-04:00:00\" has days", '"100:00:00"'),
    ),
    "no cores": (f"{PBS}cores = 0\n", ("bayes.shards.job.cores = 0", "whole number from 1")),
    "cores in words": (f"{PBS}cores = '8'\n", ("bayes.shards.job.cores = '8'", "whole number")),
    "a queue of two words": (
        f"{PBS}queue = 'a b'\n",
        ("bayes.shards.job.queue = 'a b'", "without spaces"),
    ),
    "two lines in one": (
        f'{PBS}directives = ["a\\nb"]\n',
        ("bayes.shards.job.directives = ", "texts of one line"),
    ),
    "no chains": ("[bayes]\nchains = 0\n", ("bayes.chains = 0", "whole number from 2")),
    "marginalised in shards": (
        "[bayes]\nmethod = 'consensus'\nscaling = 'marginalised'\n",
        ("cannot be marginalised",),
    ),
    "no table": ("bayes = 3\n", ("bayes = 3", "a table of keys")),
    "a prior that is no table": ("[bayes.priors]\nalpha = 1.0\n", ("a table of keys",)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_the_tables(tmp_path, case):
    text, fragments = WRONG[case]
    path = tmp_path / "fit.toml"
    path.write_text(f"{text}[data]\npath = 'data.h5'\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_configuration(str(path))
    for fragment in (f"{path}, line ", *fragments):
        assert fragment in str(caught.value), fragment


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    folder = prepared(tmp_path_factory.mktemp("problem"), "")
    return folder, build(read_configuration(str(folder / "fit.toml")))


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (
            ["bayes.priors.alhpa.kind=uniform"],
            ("bayes.priors.alhpa", "did you mean 'bayes.priors.alpha'"),
        ),
        (["bayes.priors.D_offset.kind=uniform"], ("no parameter 'D_offset' is sampled",)),
        (["bayes.priors.sigma.from_fit=true"], ("no error of sigma",)),
        (
            ["bayes.priors.alpha={kind='truncated_normal', mean=0.0, sd=1e-3, lower=1.0}"],
            ("bayes.priors.alpha", "no weight left"),
        ),
        (
            ["bayes.priors.alpha={kind='uniform', lower=3.0}"],
            ("bayes.priors.alpha", "between 3 and 2 has no volume"),
        ),
        (["bayes.sigma=given"], ("bayes.sigma", "data have no sigma")),
        (
            ["bayes.method=consensus", "bayes.shards.count=300"],
            ("--set bayes.shards.count=300", "fewer than the 5 sampled parameters"),
        ),
        (
            ["bayes.method=consensus", "bayes.shards.executor=pbs", "bayes.shards.folder=/nowhere"],
            ("/nowhere is no folder that can be written to",),
        ),
        (
            ["bayes.scaling=marginalised", "bayes.priors.contrast={kind='uniform'}"],
            ("[bayes]", "contrast is a uniform", "a normal prior", 'bayes.scaling = "sampled"'),
        ),
        (
            ["bayes.method=consensus", "bayes.shards.count=200"],
            ("--set bayes.shards.count=200", "sample all data in one run"),
        ),
        (
            ["bayes.priors.D0={kind='log_normal', median=2.0, scale=0.01, lower=3.0, upper=4.0}"],
            ("bayes.priors.D0", "median 2 and scale 0.01 has no weight left between 3 and 4"),
        ),
        (
            ["bayes.priors.D0={kind='log_normal', median=2.0, scale=0.1, lower=1e9}"],
            ("bayes.priors.D0", "log_normal", "between 1e+09 and", "no volume", "free = false"),
        ),
        (
            ["bayes.priors.D0={kind='log_normal', median=2.0, scale=0.1, lower=-3.0}"],
            ("bayes.priors.D0", "lower = -3 of a log_normal prior"),
        ),
        (
            ["bayes.method=single", "bayes.shards.count=3"],
            ("--set bayes.shards.count=3", 'bayes.method = "single" is one run'),
        ),
    ],
)
def test_what_is_wrong_with_the_data_or_the_model(problem, options, fragments):
    folder, built = problem
    configuration = read_configuration(str(folder / "fit.toml"), tuple(options))
    with pytest.raises(ConfigError) as caught:
        inference_of(configuration, built)
    for fragment in fragments:
        assert fragment in str(caught.value), fragment
    # Classes of the library mean nothing in a file.
    assert not re.search(r"\b[A-Z][a-z]+[A-Z]\w+", str(caught.value).replace(str(folder), ""))


def test_shards_that_one_run_does_not_use_are_spoken_of(problem, caplog):
    folder, built = problem
    path = str(folder / "fit.toml")
    configuration = read_configuration(path, ("bayes.shards.count=3",))
    inference = inference_of(configuration, built)
    said = "[bayes.shards] (count) is not used: 828 pairs are no more than 500000: one run"
    assert any(said in line for line in inference.lines)
    assert said in caplog.text
    caplog.clear()
    # The defaults in a configuration as it ran are nothing that was asked for.
    again = read_configuration(path, ("bayes.method=single", 'bayes.shards.executor="serial"'))
    assert not any("not used" in line for line in inference_of(again, built).lines)
    assert not caplog.text


def test_priors_are_told_in_the_words_of_their_tables(problem):
    folder, built = problem
    option = "bayes.priors.D0={kind='log_normal', median=8e4, scale=0.5, lower=1.0, upper=1e6}"
    configuration = read_configuration(str(folder / "fit.toml"), (option,))
    lines = inference_of(configuration, built).lines
    assert "prior of D0: log_normal, median 80000, scale 0.5, lower 1, upper 1e+06" in lines


@pytest.mark.parametrize(
    ("options", "stored", "fragment"),
    [
        (("solver.loss=huber",), False, "the likelihood of [bayes] is Gaussian"),
        ((), True, "needs the maps in memory"),
        ((), True, "in Python with xpcs_eqx.bayes.consensus(fit)"),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_any_work(problem, options, stored, fragment):
    path = str(problem[0] / "fit.toml")
    refuse_unsupported(read_configuration(path, options), stored)
    with pytest.raises(ConfigError, match=re.escape(fragment)):
        refuse_unsupported(read_configuration(path, (*options, "bayes.chains=2")), stored)


def test_several_data_sets_are_refused_before_they_are_read(tmp_path, capsys):
    (tmp_path / "fit.toml").write_text("[[data]]\npath = 'no.h5'\n[bayes]\n", encoding="utf-8")
    assert run(tmp_path) == 2
    said = capsys.readouterr().err
    assert "several are fitted together" in said
    assert "xpcs_eqx.bayes.joint_sample(joint_fit)" in said


def test_the_template_shows_every_key_in_comments():
    text = template("laminar_flow")
    assert "bayes" not in tomllib.loads(text)
    given = tomllib.loads(re.sub(r"^#(\[|\w+ = )", r"\1", text, flags=re.MULTILINE))["bayes"]
    tables = {"": Bayes, "shards": Shards, "job": Job, "prior": Prior}
    found = {
        "": given,
        "shards": given["shards"],
        "job": given["shards"]["job"],
        "prior": given["priors"]["alpha"],
    }
    for name, model in tables.items():
        assert set(found[name]) == set(model.model_fields), name
    # What cannot stand together is taken out; every example is a value of its kind.
    prior, shards = given["priors"]["alpha"], given["shards"]
    for name in ("median", "scale", "a", "b", "width"):
        assert isinstance(prior.pop(name), float)
    shards.pop("count")
    shards.pop("workers")
    shards["executor"] = "pbs"
    raw = {"data": {"path": "x"}, "bayes": given}
    settings = check_settings(raw, Source("template", text))
    assert isinstance(settings, Settings)
    assert settings.bayes is not None
