"""`[global]` as a strategy: what reaches it, and what is refused before a fit."""

import json

import pytest
from helpers_program import prepared, run

from xpcs_eqx.config import read_configuration
from xpcs_eqx.config.build import build
from xpcs_eqx.errors import ConfigError
from xpcs_eqx.search import Auto, CmaEs, MultiStart, Screening, Selected, trial


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("searched"), n=9)


@pytest.fixture
def problem(folder):
    """The problem of the configuration with changes."""

    def changed(*options):
        return build(read_configuration(str(folder / "fit.toml"), options))

    return changed


def test_the_seed_reaches_every_part_of_a_search(problem):
    seeded = "global.seed=7"
    multi = problem('global.method="multi_start"', seeded).search
    assert isinstance(multi, MultiStart)
    assert multi.settings(4)["seed"] == 7
    pytest.importorskip("cma")
    cma = problem('global.method="cma_es"', seeded).search
    assert isinstance(cma, CmaEs)
    assert cma.seed == 7
    auto = problem('global.method="auto"', seeded).search
    assert isinstance(auto, Auto)
    # CMA-ES takes the seed of auto, multi-starts add it to their own.
    assert auto.seed == auto.multi.settings(4, auto.seed)["seed"] == 7


MULTI = 'global.method="multi_start"'


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (
            ("parameters.D0.bounds=[8e4, 8e4]", MULTI),
            ("parameters.D0.bounds = [80000, 80000]", "leaves no room", "free = false"),
        ),
        (
            ("parameters.D0.bounds=[8e4, 8e4]", "parameters.D0.free=true"),
            ("parameters.D0", "free = true", "no room"),
        ),
        (
            ("parameters.alpha.bounds=[-inf, inf]", MULTI),
            ("parameters.alpha.bounds = [-inf, inf] is not finite", "two finite numbers"),
        ),
    ],
)
def test_bounds_that_cannot_be_searched(problem, options, fragments):
    with pytest.raises(ConfigError) as caught:
        problem(*options)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert "--set parameters." in str(caught.value)


def test_a_parameter_that_its_bounds_keep_is_spoken_of(problem):
    said = problem("parameters.D0.bounds=[8e4, 8e4]").decisions
    assert any(text.startswith("D0 is kept at 80000, since its bounds are equal") for text in said)
    fixed = problem("parameters.D0.bounds=[8e4, 8e4]", "parameters.D0.free=false").decisions
    assert not any("is kept at" in text for text in fixed)


def test_every_key_reaches_its_strategy(problem):
    custom = "global.custom=[{alpha = 0.5}, {D0 = 7e4}]"
    made = problem(MULTI, custom, "global.least=4", "global.starts=1500").search
    assert made.custom == ((8e4, 0.5), (7e4, 0.0))
    assert made.screening == Screening(0.5, 4)
    pytest.importorskip("cma")
    selected = problem('global.method="selected"', custom, "global.seed=3").search
    assert isinstance(selected, Selected)
    assert selected.multi.custom == made.custom
    assert selected.multi.seed == selected.cma.seed == 3
    assert problem('global.method="auto"', "global.probes=2").search.probes == 2


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        ((MULTI, "global.custom=[{alpha = 3.0}]"), ("global.custom", "alpha = 3, outside")),
        ((MULTI, "global.custom=[{beta = 1.0}]"), ("global.custom", "'beta'", "D0, alpha")),
        ((MULTI, "global.probes=2"), ("global.probes", "no effect")),
        (('global.method="cma_es"', "global.custom=[{D0 = 1e4}]"), ("global.custom", "no effect")),
        ((MULTI, "solver.checkpoint=true"), ("--set solver.checkpoint", "local fit")),
    ],
)
def test_settings_that_do_not_go_together(problem, options, fragments):
    with pytest.raises(ConfigError) as caught:
        problem(*options)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_minima_of_an_earlier_search_are_starts(problem, tmp_path):
    path = tmp_path / "earlier.json"
    minima = [{"values": {"D0": 7e4, "alpha": 0.5, "gone": 1.0}}, {"values": {"D0": 9e4}}]
    path.write_text(json.dumps({"parameters": {}, "global": {"minima": minima}}))
    made = problem(MULTI, "global.custom=[{alpha = 0.25}]", f"global.starts_from={path}").search
    assert made.custom == ((8e4, 0.25), (7e4, 0.5), (9e4, 0.0))
    for content, said in (("{}", "has its minima under global"), (None, "cannot be read")):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError, match=rf"--set global\.starts_from=.*{said}"):
            problem(MULTI, f"global.starts_from={path}")


def test_cma_es_without_its_library(problem, monkeypatch):
    monkeypatch.setattr(trial, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"xpcs-eqx\[global\]"):
        problem('global.method="cma_es"')


@pytest.mark.parametrize(
    ("method", "fragments"),
    [
        ("multi_start", ("1500 starts, 0 of them given, by LatinHypercube", "rarely find")),
        ("selected", ("the scales of the bounds are a factor",)),
        ("auto", ("6 starts beside it", "at most 5000 evaluations")),
        ("cma_es", ("points a generation", "seed 0")),
    ],
)
def test_check_says_what_will_be_tried(folder, capsys, method, fragments):
    if method == "cma_es":
        pytest.importorskip("cma")
    more = ("--set=global.starts=1500",) if method == "multi_start" else ()
    assert run(folder, "--check", f"--set=global.method={method!r}", *more) == 0
    said = capsys.readouterr().out
    assert "search: " in said
    for fragment in fragments:
        assert fragment in said
