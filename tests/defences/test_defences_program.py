"""The tables of defences in a configuration and in the program."""

import dataclasses
import json
import tomllib

import equinox as eqx
import numpy as np
import pytest
from helpers_defences import SLOW, slow_data

from xpcs_eqx import fit as program
from xpcs_eqx.config import read_configuration
from xpcs_eqx.config.build import build
from xpcs_eqx.data import write_own
from xpcs_eqx.errors import ConfigError
from xpcs_eqx.optimize import TrustRegion, dogleg
from xpcs_eqx.program.task import task_of

SETTINGS = """
[data]
path = "data.h5"
[parameters.D0]
start = 3.6e3
[parameters.alpha]
start = -0.1
[parameters.gamma_dot_t0]
start = 5e-4
bounds = [1e-6, 0.5]
[parameters.beta]
start = 0.2
[parameters.D_offset]
start = 0.0
free = false
[parameters.gamma_dot_t_offset]
start = 0.0
free = false
[output]
plots = false
"""
ALL = """
[defences.hierarchical]
outer = 2
[defences.regularisation]
mode = "relative"
[defences.monitor]
watched = ["D0"]
response = "reset"
[defences.shear_weights]
minimum = 0.5
[defences.group_variance]
groups = [["alpha", "beta"]]
weight = 1e-4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("defences")
    write_own(str(out / "data.h5"), slow_data())
    return out


def written(folder, text):
    path = folder / "fit.toml"
    path.write_text(SETTINGS + text)
    return str(path)


def report_of(results):
    """The report with its appendix, which a terminal is spared."""
    return (results / "fit" / "report.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_layer_stands_in_report_and_results(folder):
    # The contrast varies with the angle and is drawn together: what that leaves is doubted.
    assert program.main([written(folder, ALL), "--overwrite"]) == 1
    printed = report_of(folder / "fit_results")
    layers = ("hierarchical", "regularisation", "monitor", "shear weights", "group variance")
    section = printed[printed.index("\nDefences\n") :]
    for name in layers:
        assert f"\n  {name} " in section
    assert "the covariance is" in printed
    found = json.loads((folder / "fit_results" / "fit" / "parameters.json").read_text())
    assert found["converged"]
    findings = found["quality"]["findings"]
    # Which angle departs most depends on noise that is common to their pairs.
    assert findings[0].startswith("the model does not fit: at φ = "), findings
    report = found["defences"]
    assert report["settled"]
    assert len(report["outer"]["change"]) == report["hierarchical"]["outer_iterations"] <= 2
    assert report["monitor"]["alarms"] == []
    assert np.sum(report["shear_weights"]["weights"]) == pytest.approx(3)
    truth = float(SLOW.transport.amplitude)
    row = found["parameters"]["D0"]
    assert abs(row["value"] - truth) < 5 * row["error"]
    # What was asked for can be asked for again.
    resolved = tomllib.loads((folder / "fit_results" / "config.toml").read_text())
    wanted = tomllib.loads(ALL)["defences"]
    for name, table in wanted.items():
        assert table.items() <= resolved["defences"][name].items()


def test_settings_become_layers(folder):
    text = ALL.replace('mode = "relative"', "target_share = 0.2")
    problem = build(read_configuration(written(folder, text)))
    layers = problem.layers
    assert layers.hierarchical.outer == 2
    # Three angles are few: the absolute form.
    assert type(layers.regularisation).__name__ == "AbsoluteRegularisation"
    assert layers.regularisation.weight == pytest.approx(20)
    assert layers.monitoring.watched == ("D0",)
    assert type(layers.monitoring.response).__name__ == "ResetScaling"
    assert layers.shear_weights.minimum == 0.5
    assert layers.group_variance.groups == (("alpha", "beta"),)
    assert build(read_configuration(written(folder, ""))).layers is None
    with pytest.raises(ConfigError, match="leaves no checkpoint"):
        task_of(read_configuration(written(folder, ALL))).run(resume=True)


def test_a_check_says_what_will_defend_the_fit(folder, capsys):
    assert program.main([written(folder, ALL), "--check"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "defended in 10 rounds at most by",
        "hierarchical: 2 outer iterations at most, finished by the trust region",
        "regularisation: RelativeRegularisation of contrast and offset, λ = 10",
        "monitor: ResetScaling, watching D0",
        "shear weights: from 0.5 across the flow, power 1",
        "group variance: alpha, beta, λ = 0.0001",
    ):
        assert f"{line}\n" in printed
    assert program.main([written(folder, ""), "--check"]) == 0
    assert "defended" not in capsys.readouterr().out


SOLVER = """
[solver]
method = "dogleg"
step_tol = 1e-5
max_evaluations = 7
"""


def test_the_solver_that_was_asked_for_ends_an_alternation(folder):
    def layers(text):
        return build(read_configuration(written(folder, SOLVER + text))).layers

    wanted = TrustRegion(descent=dogleg(), step_tol=1e-5, max_evaluations=7)
    assert eqx.tree_equal(layers("[defences.hierarchical]\n").hierarchical.finish, wanted)
    response = layers('[defences.monitor]\nresponse = "hierarchical"\n').monitoring.response
    assert eqx.tree_equal(response.method.finish, wanted)
    text = '[defences.hierarchical]\nphysical = "trust_region"\niterations = 9\n'
    stage = layers(text).hierarchical.physical
    nine = dataclasses.replace(wanted, max_evaluations=9)
    assert eqx.tree_equal(stage.solver, nine)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[defences]\n", ("names no layer", "[defences.monitor]")),
        ("[defences.monitors]\n", ("unknown key 'defences.monitors'", "'defences.monitor'")),
        ("[defences.monitor]\nratio = 2.0\n", ("line 22", "defences.monitor.ratio = 2.0", "0 and")),
        ("[defences.monitor]\nratios = 0.1\n", ("unknown key", "'defences.monitor.ratio'")),
        ('[defences.monitor]\nresponse = "resett"\n', ("did you mean 'reset'",)),
        ('[defences.monitor]\nresponse = "reset"\n', ("add [defences.regularisation]",)),
        ("[defences.regularisation]\ntarget_share = -1.0\n", ("target_share", "above zero")),
        ("[defences.regularisation]\ngroups = []\n", ("defences.regularisation.groups",)),
        ("[defences.shear_weights]\nminimum = -0.1\n", ("above 0, at most 1",)),
        ("[defences.hierarchical]\nouter = 0\n", ("whole number from 1",)),
        (
            "[defences.group_variance]\nweight = 1.0\n",
            ("defences.group_variance.groups", "missing"),
        ),
        ('[defences.group_variance]\nweight = -1.0\ngroups = [["a", "b"]]\n', ("weight = -1.0",)),
    ],
)
def test_wrong_keys_are_refused_with_their_place(folder, text, wanted):
    with pytest.raises(ConfigError) as caught:
        read_configuration(written(folder, text))
    for part in wanted:
        assert part in str(caught.value), str(caught.value)


SCALED = '[scaling]\nmode = "fixed"\n[defences.regularisation]\n'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('[defences.monitor]\nwatched = ["D1"]\n', ("[defences.monitor]", "did you mean 'D0'")),
        ('[defences.monitor]\nwatched = ["D_offset"]\n', ("no parameter 'D_offset'",)),
        (SCALED, ("line 23", "[defences.regularisation]", "contrast and offset are fixed")),
        ('[model]\nmode = "static"\n[defences.shear_weights]\n', ("flow angle phi0",)),
        ('[global]\nmethod = "multi_start"\n[defences.monitor]\n', ("[global] asks for many",)),
        ("[solver]\ncheckpoint = true\n[defences.monitor]\n", ("solver.checkpoint = true",)),
        (
            '[solver]\nerrors = "classical"\n[defences.shear_weights]\n',
            ("line 22", "solver.errors", "inverse variances"),
        ),
        (
            '[defences.group_variance]\ngroups = [["D0", "alpha"]]\nweight = 1.0\n',
            ("[defences.group_variance]", "different units"),
        ),
        ("[solver]\nrecovery = 1\n[defences.hierarchical]\n", ("solver.recovery is of no",)),
        (
            "[solver]\nstep_tol = 1e-5\n[defences.hierarchical]\nfinish = false\n",
            ("line 22", "solver.step_tol is of no effect", "not finished by the solver"),
        ),
        ("[bayes]\n[defences.regularisation]\n", ("no likelihood for [bayes]",)),
        ("[bayes]\n[defences.shear_weights]\n", ("no likelihood for [bayes]",)),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_place(folder, text, wanted):
    settings = SETTINGS.split("[parameters.gamma_dot_t0]")[0] if "static" in text else SETTINGS
    path = folder / "wrong.toml"
    path.write_text(settings + text)
    with pytest.raises(ConfigError) as caught:
        build(read_configuration(str(path)))
    for part in wanted:
        assert part in str(caught.value), str(caught.value)


@pytest.mark.long
def test_several_data_sets_are_defended(folder):
    path = folder / "joint.toml"
    sets = "".join(f'[[data]]\npath = "data.h5"\nlabel = "{one}"\n' for one in ("hot", "cold"))
    text = SETTINGS.replace('[data]\npath = "data.h5"\n', sets)
    path.write_text(text.replace("plots = false", 'plots = false\ndirectory = "both"') + ALL)
    assert program.main([str(path), "--overwrite"]) == 1
    printed = report_of(folder / "both")
    assert "regularisation [hot]" in printed
    assert "shear weights [cold]" in printed


@pytest.mark.slow
def test_the_hybrid_optimiser_is_defended(folder):
    text = '[solver]\nmethod = "hybrid"\n[hybrid]\ncandidates = 4\n' + ALL
    assert program.main([written(folder, text), "--overwrite"]) == 1
    printed = report_of(folder / "fit_results")
    assert "tournament" in printed
    assert "warm-up" in printed
    section = printed[printed.index("\nDefences\n") :]
    assert "shear weights" in section
