"""Configurations of homodyne 2.x and xpcsjax: what is made of every key of their templates."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

import xpcs_eqx_command
from xpcs_eqx.config import read_configuration
from xpcs_eqx.config.effects import refuse_without_effect
from xpcs_eqx.config.read import check_settings
from xpcs_eqx.config.source import Source
from xpcs_eqx.data import write_own
from xpcs_eqx.errors import ConfigError
from xpcs_eqx.program.importing import translate
from xpcs_eqx.program.task import task_of

run = xpcs_eqx_command.main
LINES = Path(__file__).with_name("foreign_keys.txt").read_text(encoding="utf-8").splitlines()
KEYS = [tuple(line.split()) for line in LINES if not line.startswith("#")]
TEMPLATES = {
    "l": "laminar_flow",
    "s": "static",
    "m": "laminar_flow",
    "L": "laminar_flow",
    "A": "static_anisotropic",
    "I": "static_isotropic",
    "T": "two_component",
}
FLOW = ["D0", "alpha", "D_offset", "gamma_dot_t0", "beta", "gamma_dot_t_offset", "phi0"]
TWO = ["D0_ref", "alpha_ref", "D_offset_ref", "D0_sample", "alpha_sample", "D_offset_sample"]
TWO += ["v0", "v_beta", "v_offset", "f0", "f1", "f2", "f3", "phi0_het"]
BOUNDS = {"D0": (100.0, 1e5), "contrast": (0.0, 0.9), "offset": (0.8, 1.2), "phi0": (-10.0, 10.0)}
BOUNDS |= {"D0_ref": (1e5, 3e5), "phi0_het": (-9.0, 9.0)}
NLSQ = "optimization.nlsq"
VALUES = {
    "analyzer_parameters.dt": 0.1,
    "analyzer_parameters.start_frame": 3,
    "analyzer_parameters.end_frame": 20,
    "analyzer_parameters.scattering.wavevector_q": 0.0054,
    "analyzer_parameters.geometry.stator_rotor_gap": 2000000,
    "experimental_data.data_folder_path": "data",
    "experimental_data.data_file_name": "scan.hdf",
    "phi_filtering.enabled": True,
    "phi_filtering.target_ranges": [{"min_angle": -10.0, "max_angle": 10.0, "description": "x"}],
    # YAML takes such a number for a text.
    f"{NLSQ}.tolerance": "1e-8",
    f"{NLSQ}.max_iterations": 150,
    f"{NLSQ}.loss": "soft_l1",
    f"{NLSQ}.anti_degeneracy.enable": True,
    f"{NLSQ}.anti_degeneracy.per_angle_mode": "auto",
    # Of xpcsjax alone, whose layers are off.
    f"{NLSQ}.anti_degeneracy.execute_layers": False,
    f"{NLSQ}.anti_degeneracy.shear_weighting.enable": True,
    f"{NLSQ}.anti_degeneracy.shear_weighting.min_weight": 0.3,
    # Empty, as in the templates.
    "optimization.mcmc.initial_values.phi": {},
    "output.directory": "results",
}


def tree_of(values):
    tree = {}
    for key, value in values.items():
        *tables, last = key.split(".")
        node = tree
        for name in tables:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def template(letter, **more):
    """A configuration with the keys of a template, null where nothing else is said."""
    keys = [key for key, those in KEYS if those == "*" or letter in those]
    # One template has priors by name, another the key alone.
    keys = [k for k in keys if not any(other.startswith(f"{k}.") for other in keys)]
    mode = TEMPLATES[letter]
    names = {"laminar_flow": FLOW, "two_component": TWO}.get(mode, FLOW[:3])
    rows = [
        {"name": n, "min": low, "max": high, "type": "TruncatedNormal", "prior_mu": 1.0}
        for n, (low, high) in BOUNDS.items()
        if n in names or n in ("contrast", "offset")
    ]
    values = {**VALUES, "analysis_mode": mode, "parameter_space.bounds": rows}
    values |= {"initial_parameters.parameter_names": names, **more}
    return keys, tree_of({**{key: values.get(key) for key in keys}, **more})


@pytest.mark.parametrize("letter", TEMPLATES)
def test_every_key_is_translated_or_named(letter):
    keys, tree = template(letter)
    assert len(keys) > 250
    made = translate(tree)
    named = {name for name in made.left if ": " not in name}
    assert made.taken | named == set(keys)
    assert not made.taken & named
    assert "is no key of their templates" not in made.left.values()
    settings = check_settings(made.out, Source("from yaml"))
    assert settings.model.mode == TEMPLATES[letter]
    assert made.out["data"] == {
        "path": "data/scan.hdf",
        "dt": 0.1,
        "frames": [3, 20],
        "time_origin": pytest.approx(-0.2),
        "q": 0.0054,
        "gap": 2e6,
        "phi_ranges": [[-10.0, 10.0]],
    }
    assert made.out["solver"]["cost_tol"] == 1e-8
    assert made.out["scaling"]["offset_bounds"] == [0.8, 1.2]
    assert ("shear_weights" in made.out.get("defences", {})) == (
        TEMPLATES[letter] == "laminar_flow" and letter != "L"
    )
    assert "parameter_space.bounds: prior_mu, type" in made.left
    if letter == "T":
        assert made.out["parameters"]["phi0"]["bounds"] == [-9.0, 9.0]
        # The default start is not inside: they begin in the middle.
        assert made.out["parameters"]["D0_ref"]["start"] == 2e5


def test_an_unknown_key_is_named_as_such():
    _, tree = template("s", **{"optimisation.speed": "high"})
    made = translate(tree)
    assert made.left["optimisation.speed"] == "is no key of their templates"


def test_starts_fixed_active_and_tied():
    more = {
        "initial_parameters.values": [2000.0, -0.5, 10.0, 0.01, 0.0, 0.0, 1.0],
        "initial_parameters.fixed_parameters": {"beta": 0.2},
        "initial_parameters.active_parameters": ["D0", "alpha", "gamma_dot_0"],
        "initial_parameters.tied_parameters": {"D_offset": "D0"},
    }
    given = translate(template("m", **more)[1]).out["parameters"]
    assert given["D0"] == {"start": 2000.0, "bounds": [100.0, 1e5]}
    assert given["beta"] == {"start": 0.2, "free": False}
    assert given["phi0"] == {"start": 1.0, "free": False}
    assert given["D_offset"] == {"tie": "D0"}
    # What parameter_names leaves out is no part of their fit.
    few = {"initial_parameters.parameter_names": ["D0", "alpha"]}
    given = translate(template("s", **few)[1]).out["parameters"]
    assert [name for name, one in given.items() if one.get("free", True)] == ["D0", "alpha"]
    with pytest.raises(ConfigError, match="7 names and 2 values"):
        translate(template("m", **{**more, "initial_parameters.values": [1.0, 2.0]})[1])
    with pytest.raises(ConfigError, match="D_zero: no parameter of mode static"):
        translate(template("s", **{"initial_parameters.parameter_names": ["D_zero"]})[1])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("phi_filtering.target_ranges", [{"min_angle": 1.0}]),
        ("phi_filtering.target_ranges", [[1.0, 2.0]]),
        ("parameter_space.bounds", 3),
        ("parameter_space.bounds", ["D0"]),
        ("parameter_space.bounds", [{"name": "contrast", "min": 0.1}]),
        ("initial_parameters.parameter_names", "D0"),
        ("initial_parameters.values", 1.5),
        ("initial_parameters.active_parameters", True),
    ],
)
def test_what_has_another_form_is_named(key, value):
    named = "contrast" if isinstance(value, list) and "min" in value[0] else key.split(".")[0]
    with pytest.raises(ConfigError, match=f"{named}.* needed there"):
        translate(template("s", **{key: value})[1])


def test_searches_and_posteriors():
    starts = {f"{NLSQ}.multi_start.enable": True, f"{NLSQ}.multi_start.n_starts": 15}
    found = translate(template("s", **starts)[1]).out["global"]
    assert found == {"method": "multi_start", "starts": 15}
    cmaes = {f"{NLSQ}.cmaes.enable": True, f"{NLSQ}.cmaes.preset": "cmaes-global"}
    found = translate(template("s", **cmaes)[1]).out["global"]
    assert found == {"method": "cma_es", "preset": "global"}
    more = {"optimization.method": "cmc", "optimization.mcmc.num_samples": 1500}
    rows = [{"name": "D0", "min": 1.0, "max": 1e5, "prior_mu": 1e3, "prior_sigma": "1e3"}]
    _, tree = template("s", **more, **{"parameter_space.bounds": rows})
    out = translate(tree).out
    assert out["bayes"]["draws"] == 1500
    assert out["bayes"]["priors"]["D0"] == {"kind": "truncated_normal", "mean": 1e3, "sd": 1e3}
    assert out["solver"]["loss"] == "linear"
    check_settings(out, Source("from yaml"))
    # Layers that their templates have switched on belong to the fit before it.
    made = translate(template("l", **more)[1])
    assert "defences" not in made.out
    assert f"{NLSQ}.anti_degeneracy.shear_weighting.enable" in made.left
    source = Source("from yaml")
    refuse_without_effect(check_settings(made.out, source), source)


def test_the_command(tmp_path, capsys):
    """What it prints is a configuration that runs, with the objective of theirs."""
    from helpers import LAMINAR, make_data

    (tmp_path / "data").mkdir()
    write_own(str(tmp_path / "data" / "scan.hdf"), make_data(LAMINAR, t=0.1 * np.arange(20)))
    _, tree = template("l", **{"analyzer_parameters.start_frame": 1})
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(tree))
    assert run(["import", str(tmp_path / "theirs.yaml")]) == 0
    text = capsys.readouterr().out
    (tmp_path / "ours.toml").write_text(text)
    assert "# azimuths are read from the data" in text
    assert tomllib.loads(text)["model"]["kernel"] == "homodyne"
    task = task_of(read_configuration(str(tmp_path / "ours.toml")))
    assert task.problem.data[0].n_angles == 1
    assert type(task.problem.parameters.model.shear_kernel).__name__ == "Homodyne"
    (tmp_path / "other.yaml").write_text("a: 1\n")
    for name, said in (("other.yaml", "no analysis_mode"), ("none.yaml", "cannot be read")):
        assert run(["import", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "bad.yaml").write_text("analysis_mode: turbulent\n")
    assert run(["import", str(tmp_path / "bad.yaml")]) == 2
    assert "'turbulent'" in capsys.readouterr().err
    # What is found in the translation is in no line of the file.
    _, tree = template("l", **{f"{NLSQ}.anti_degeneracy.per_angle_mode": "some"})
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(tree))
    assert run(["import", str(tmp_path / "bad.yaml")]) == 2
    assert "bad.yaml, translated: scaling.mode = 'some'" in capsys.readouterr().err
