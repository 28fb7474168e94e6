"""What is sampled follows the file; shards in processes, their file and their plots."""

import importlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers_data import two_time
from helpers_posterior import QUICKLY, SETTINGS, report_of, run

from xpcs_eqx.bayes import infer
from xpcs_eqx.bayes.arviz_io import PLOTS
from xpcs_eqx.bayes.nuts.chains import Draws
from xpcs_eqx.bayes.write import plot_posterior
from xpcs_eqx.data import write_own
from xpcs_eqx.program import sampling
from xpcs_eqx.report.plots.corner import shards_figure

# Its name in the package is that of the function.
sample_module = importlib.import_module("xpcs_eqx.bayes.nuts.sample")

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


def about_the_start(density, settings, *_):
    """Draws from the Gaussian that chains begin with, in place of NUTS, slow to compile.

    What is sampled, and what becomes of the draws, is the same.
    """
    positions, step_size, metric, _, sampler, _ = settings
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
        noise,
    )
    return sample_module.ChainRun(draws, step_size, metric, 0.0, 0.0)


@pytest.mark.long
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
            # Pathfinder knows the curvature from a few steps towards the minimum only, and what it
            # makes of the wide priors of offsets is too narrow by up to a factor of two.
            least = 0.5 if "pathfinder" in variant else 0.6
            assert least < found[name]["sd"] / error < 1.6
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


@pytest.mark.long
def test_processes_sample_shards(in_processes):
    results, found = in_processes
    shards = json.loads((results / "bayes" / "shards.json").read_text())
    assert [one["status"] for one in shards["shards"]] == ["done", "done"]
    assert found.names == (*PHYSICAL, *EACH, "sigma")
    assert "executor processes" in report_of(results)


@pytest.mark.long
def test_a_file_of_shards_is_of_one_piece(in_processes):
    results, found = in_processes
    text = """
import sys, xarray, arviz_stats, arviz_plots
tree = xarray.open_datatree(sys.argv[1], engine="h5netcdf")
assert set(tree.children) == {"posterior", "shards", "xpcs_eqx"}, tree
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


@pytest.mark.long
def test_plots_of_shards(in_processes, tmp_path):
    results, found = in_processes
    plots = {path.name: path.stat().st_size for path in (results / "bayes" / "plots").iterdir()}
    assert set(plots) == {f"{n}.png" for n in ("corner", "shards", *PLOTS) if n != "pair"}
    assert min(plots.values()) > 2000
    plot_posterior(str(tmp_path), found, ("energy",))
    assert (tmp_path / "energy.png").stat().st_size == plots["energy.png"]
    axes = shards_figure(found).axes
    assert [axis.get_ylabel().split("\n")[0] for axis in axes] == list(PHYSICAL)
    assert axes[0].get_ylabel() == "D0\n[Å²/s^(1+alpha)]"
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
