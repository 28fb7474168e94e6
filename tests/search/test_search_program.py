"""`[global]` in a configuration: every method, what it reports, and what is refused."""

import json

import pytest
from helpers_program import QUICKLY, prepared, results, run

from xpcs_eqx.search import trial


@pytest.fixture
def folder(tmp_path):
    return prepared(tmp_path, n=16)


def settings(**options):
    return [f"--set=global.{name}={value!r}" for name, value in options.items()]


@pytest.mark.parametrize(
    ("options", "spent"),
    [
        ({"method": "multi_start", "starts": 6, "sampler": "sobol"}, {"local fit", "multi-start"}),
        ({"method": "cma_es", "preset": "fast", "budget": 400}, {"CMA-ES"}),
        ({"method": "auto", "starts": 6}, {"local fit", "multi-start"}),
    ],
    ids=lambda given: given.get("method") if isinstance(given, dict) else "",
)
def test_each_method_ends_where_the_local_fit_does(folder, capsys, options, spent):
    if options["method"] == "cma_es":
        pytest.importorskip("cma")
    assert run(folder, *QUICKLY) == 0
    local = results(folder)
    assert "global_search" not in local
    assert run(folder, *QUICKLY, "--output", str(folder / "searched"), *settings(**options)) == 0
    found = results(folder, "searched")
    assert found["cost"] == pytest.approx(local["cost"], rel=1e-9)
    search = found["global_search"]
    assert spent <= {one["what"] for one in search["spent"]}
    assert search["evaluations"] == sum(one["evaluations"] for one in search["spent"])
    report = (folder / "searched" / "fit" / "report.txt").read_text()
    assert "Search for the global minimum" in report
    assert f"{search['evaluations']} evaluations" in report
    # What was asked for is what is stored, and gives the same again.
    again = folder / "searched" / "fit" / "resolved.toml"
    if again.is_file():
        assert f'method = "{options["method"]}"' in again.read_text()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        ({"method": "annealing"}, ("global.method", "multi_start", "annealing")),
        ({"method": "multi_start", "starts": 0}, ("global.starts", "from 1")),
        ({"method": "multi_start", "starts": 10**7}, ("global.starts", "10000000")),
        ({"method": "multi_start", "starts": 2, "refine": 3}, ("global.refine", "2 starts")),
        ({"method": "multi_start", "keep": 0.0}, ("global.keep", "above 0")),
        ({"method": "multi_start", "preset": "fast"}, ("global.preset", "no effect")),
        ({"method": "cma_es", "starts": 5}, ("global.starts", "no effect")),
        ({"method": "auto", "budget": 20}, ("global.budget", "from 100")),
        ({"starts": 5}, ("global.starts", "no effect")),
    ],
)
def test_settings_that_make_no_sense(folder, capsys, options, fragments):
    assert run(folder, *QUICKLY, *settings(**options)) == 2
    said = capsys.readouterr().err
    for fragment in fragments:
        assert fragment in said
    assert not (folder / "fit_results").exists()


def test_bounds_without_volume(folder, capsys):
    bounds = "--set=parameters.D0.bounds=[8e4, 8e4]"
    assert run(folder, *QUICKLY, bounds, *settings(method="multi_start")) == 2
    said = capsys.readouterr().err
    assert "D0" in said
    assert "80000" in said


def test_cma_es_without_its_library(folder, capsys, monkeypatch):
    monkeypatch.setattr(trial, "find_spec", lambda name: None)
    assert run(folder, *QUICKLY, *settings(method="cma_es")) == 2
    assert 'pip install "xpcs_eqx[global]"' in capsys.readouterr().err


def test_an_earlier_result_stays_when_a_search_is_refused(folder, capsys):
    assert run(folder, *QUICKLY) == 0
    before = json.dumps(results(folder))
    assert run(folder, *QUICKLY, "--overwrite", *settings(method="annealing")) == 2
    assert json.dumps(results(folder)) == before
    capsys.readouterr()
