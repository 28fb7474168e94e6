"""`[global]` in a configuration: every method, what it reports, and what is refused."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import LAMINAR, frame_times, make_data
from helpers_program import QUICKLY, results, run

from xpcs_eqx.data import write_own
from xpcs_eqx.parameters import parameter_values
from xpcs_eqx.program import examining

OTHERS = ("D0", "alpha", "D_offset", "beta", "gamma_dot_t_offset")


@pytest.fixture
def folder(tmp_path):
    """Laminar flow with one of its two rates known."""
    # The decay is resolved at every angle, so that the flow angle has one minimum in half a turn.
    data = make_data(LAMINAR, t=frame_times(13, span=2.0), noise=0.003, diagonal=True)
    write_own(str(tmp_path / "data.h5"), data)
    lines = ["[data]", 'path = "data.h5"', "[model]", 'mode = "laminar_flow"']
    for name, value in parameter_values(LAMINAR).items():
        lines += [f"[parameters.{name}]", f"start = {float(value)!r}"]
        lines += ["free = false"] * (name in OTHERS)
    (tmp_path / "fit.toml").write_text("\n".join(lines))
    return tmp_path


def settings(**options):
    return [f"--set=global.{name}={value!r}" for name, value in options.items()]


def searched(folder, name, **options):
    """Exit code, results and report of a run with `[global]`."""
    code = run(folder, *QUICKLY, "--output", str(folder / name), *settings(**options))
    report = (folder / name / "fit" / "report.txt").read_text()
    return code, results(folder, name), report


@pytest.mark.long
def test_each_method_ends_where_the_local_fit_does(folder, capsys):
    assert run(folder, *QUICKLY, *settings(method="local")) == 0
    local = results(folder)
    assert "global" not in local
    wanted = {
        "multi_start": ({"starts": 6, "sampler": "sobol"}, {"local fit", "multi-start"}),
        "auto": ({"starts": 6}, {"local fit", "fits from other starts to a sample of the pairs"}),
        "cma_es": ({"preset": "fast", "budget": 400}, {"local fit", "CMA-ES"}),
    }
    for method, (options, spent) in wanted.items():
        if method == "cma_es":
            pytest.importorskip("cma")
        code, found, report = searched(folder, method, method=method, **options)
        assert code == 0
        assert found["cost"] == pytest.approx(local["cost"], rel=1e-9)
        assert found["quality"]["flag"] == "good"
        search = found["global"]
        assert {one["what"] for one in search["spent"]} == spent
        assert search["evaluations"] == sum(one["evaluations"] for one in search["spent"])
        assert not search["degenerate"]
        assert "Search for other minima" in report
        assert f"{search['evaluations']} evaluations" in report
        # What was asked for is what is stored, and gives the same again.
        again = (folder / method / "config.toml").read_text()
        assert f'method = "{method}"' in again
    capsys.readouterr()


@pytest.mark.slow
def test_a_second_minimum_is_in_the_verdict(folder, capsys):
    half_a_turn = "--set=parameters.phi0.bounds=[-80.0, 280.0]"
    options = settings(method="multi_start", starts=16, seed=1)
    assert run(folder, *QUICKLY, half_a_turn, *options) == 1
    found = results(folder)
    assert found["global"]["degenerate"]
    assert found["quality"]["flag"] == "marginal"
    assert any("minimum 2 is as good as the best" in text for text in found["quality"]["findings"])
    report = (folder / "fit_results" / "fit" / "report.txt").read_text()
    # The decisions of multi-start, its evaluations by phase, and what tells minima apart.
    for text in ("16 starts, 1 given", "LatinHypercube", "screening 16", "barrier", "equally good"):
        assert text in report
    phases = found["global"]["multi_start"]["spent"]
    assert phases[0] == {"what": "screening", "evaluations": 16}
    assert len(found["global"]["multi_start"]["starts"]) == 16
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        ({"method": "annealing"}, ("global.method", "multi_start", "annealing")),
        ({"method": "multi_start", "starts": 0}, ("global.starts", "from 1")),
        ({"method": "multi_start", "starts": 10**7}, ("global.starts", "10000000", "100000")),
        ({"method": "multi_start", "starts": 2, "refine": 3}, ("global.refine", "2 starts")),
        ({"method": "multi_start", "keep": 0.0}, ("global.keep", "above 0")),
        ({"method": "multi_start", "preset": "fast"}, ("global.preset", "no effect")),
        ({"method": "cma_es", "starts": 5}, ("global.starts", "no effect")),
        ({"method": "auto", "budget": 20}, ("global.budget", "from 100")),
        ({"method": "local", "starts": 5}, ("global.starts", "no effect")),
    ],
)
def test_settings_that_make_no_sense(folder, capsys, options, fragments):
    assert run(folder, *QUICKLY, *settings(**options)) == 2
    said = capsys.readouterr().err
    for fragment in fragments:
        assert fragment in said
    assert not (folder / "fit_results").exists()


@pytest.mark.slow
def test_an_earlier_result_stays_when_a_search_is_refused(folder, capsys):
    assert run(folder, *QUICKLY) == 0
    before = json.dumps(results(folder))
    assert run(folder, *QUICKLY, "--overwrite", *settings(method="annealing")) == 2
    assert json.dumps(results(folder)) == before
    capsys.readouterr()


@pytest.mark.parametrize("flat", [True, False])
def test_a_flat_valley_is_looked_at(monkeypatch, flat):
    monkeypatch.setattr(examining, "suspicious", lambda *_: False)
    monkeypatch.setattr(examining, "degeneracy_report", lambda fit, names=None: "looked at")
    monkeypatch.setattr(examining, "degeneracy_sections", lambda report: [report])
    output = SimpleNamespace(degeneracy="auto", diagnostics=False, sequential=None, g2_ages=None)
    verdict = SimpleNamespace(condition=1e6)
    given = SimpleNamespace(output=output, several=False, verdict=verdict)
    problem: Any = SimpleNamespace(settings=given)
    fit: Any = SimpleNamespace(n_pairs=10)
    searched: Any = SimpleNamespace(flat=flat)
    found = examining.examine(fit, problem, searched)
    assert "".join(found) == ("looked at" if flat else "")
