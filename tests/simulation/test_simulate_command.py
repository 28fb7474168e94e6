"""The command that writes simulated files, and the example it made."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from xpcs_eqx.data import Selection, binned, load, load_bins
from xpcs_eqx.errors import DataError
from xpcs_eqx.parameters import parameter_values, with_parameters
from xpcs_eqx.simulation.__main__ import LAYOUTS, MODELS, TRUTH, main, parser, simulated, truth

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("extra", [[], ["--single"]], ids=["double", "single"])
def test_every_layout_reads_back(layout, extra, tmp_path, capsys):
    path = str(tmp_path / ("out.npz" if layout == "npz" else "out.hdf"))
    arguments = [path, "--layout", layout, "--frames", "12", "--dt", "0.05", *extra]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "gamma_dot_t0" in out
    assert "0.0054" in out
    given = parser().parse_args(arguments)
    wanted = simulated(given, truth(given.model, given.values))
    if layout == "age-lag":
        found, wanted = load_bins(path), binned(wanted)
        np.testing.assert_allclose(found.values, wanted.values, rtol=1e-6)
    else:
        found = load(path)
        np.testing.assert_allclose(found.c2, wanted.c2, rtol=1e-6)
    np.testing.assert_allclose(found.t, 0.05 * np.arange(12), rtol=1e-12)
    np.testing.assert_array_equal(found.geometry.phi, [0, 45, 90])
    assert float(found.geometry.q) == 0.0054


@pytest.mark.parametrize("layout", ["aps-u", "aps_old", "nxxpcs"])
def test_half_maps_are_completed(layout, tmp_path):
    paths = [str(tmp_path / name) for name in ("full.hdf", "half.hdf")]
    for path, extra in zip(paths, ([], ["--half"]), strict=True):
        assert main([path, "--layout", layout, "--frames", "9", *extra]) == 0
    full, half = (load(path) for path in paths)
    np.testing.assert_allclose(half.c2, full.c2, rtol=1e-12)


def test_speckle_and_set(tmp_path, capsys):
    path = str(tmp_path / "out.hdf")
    arguments = ["--model", "static", "--angles", "0", "--frames", "8", "--speckle"]
    arguments += ["--pixels", "500", "--counts", "2", "--set", "D0=1234", "--set", "alpha=0"]
    assert main([path, *arguments]) == 0
    assert "1234" in capsys.readouterr().out
    data = load(path)
    assert float(np.mean(data.diagonal)) == pytest.approx(1.75, rel=0.1)
    again = str(tmp_path / "again.hdf")
    assert main([again, *arguments]) == 0
    np.testing.assert_array_equal(load(again).c2, data.c2)
    assert main([again, *arguments, "--seed", "1"]) == 0
    assert not np.array_equal(load(again).c2, data.c2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "gama_dot_t0=1"], "'gamma_dot_t0'"),
        (["--set", "D0"], "write NAME=VALUE"),
        (["--set", "D0=fast"], "'fast' is no number"),
        (["--set", "D0=nan"], "finite number"),
        (["--dt", "0"], "--dt is 0 [s]"),
        (["--q", "-1"], "--q is -1"),
        (["--gap", "inf"], "--gap is inf"),
        (["--angles", "0,x"], "--angles: 'x'"),
        (["--frames", "1"], "at least two"),
        (["--noise", "-1"], "not negative"),
        (["--pixels", "10"], "--pixels has no meaning without --speckle"),
        (["--speckle", "--noise", "1"], "--noise has no meaning with --speckle"),
        (["--speckle", "--contrast", "2"], "speckle has a contrast"),
        (["--half"], "stores full maps"),
        (["--dt", "10", "--set", "alpha=400"], "not finite"),
    ],
)
def test_bad_arguments_leave_an_earlier_file(arguments, message, tmp_path, capsys):
    path = tmp_path / "out.hdf"
    path.write_bytes(b"earlier")
    assert main([str(path), "--frames", "8", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder_and_unknown_layout(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere" / "out.hdf"), "--frames", "4"]) == 2
    assert "does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "out.hdf"), "--layout", "other"])
    assert stopped.value.code == 2


def test_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "xpcs_eqx.simulation", "out.hdf", "--frames", "6"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "D0" in done.stdout
    assert load(tmp_path / "out.hdf").n_frames == 6


def test_the_example_is_what_its_configuration_says():
    settings = tomllib.loads((EXAMPLES / "laminar.toml").read_text(encoding="utf-8"))
    path = EXAMPLES / settings["data"]["path"]
    assert path.stat().st_size < 300_000
    assert set(settings["parameters"]) == set(TRUTH)
    for name, value in TRUTH.items():
        one = settings["parameters"][name]
        assert one["bounds"][0] < one["start"] < one["bounds"][1]
        assert 0.3 < abs(one["start"] / value - 1) < 0.5, name
    data = load(path, gap=settings["data"]["gap"], selection=Selection())
    assert data.c2.shape == (3, 101, 101)
    # the bare surface at the truth, and the noise it was made with
    bare = ["bare", "--noise", "0"]
    given = parser().parse_args(bare)
    surface = simulated(given, truth(given.model, given.values)).c2
    upper = np.triu_indices(101, 1)
    residual = (np.asarray(data.c2) - surface)[:, *upper]
    assert residual.std() == pytest.approx(0.005, rel=0.03)


def test_every_model_and_both_spellings_of_a_layout(tmp_path, capsys):
    for name in MODELS:
        for spelling in ("aps-u", "aps_u"):
            path = str(tmp_path / f"{name}{spelling}.hdf")
            assert main([path, "--model", name, "--layout", spelling, "--frames", "9"]) == 0
            assert "aps-u, 9 frames" in capsys.readouterr().out
            assert load(path, layout="aps_u").provenance.layout == "aps-u"
    with pytest.raises(DataError, match="layout 'aps-v' is unknown"):
        load(path, layout="aps_v")
    # Every parameter of two components decides something about the maps.
    given = parser().parse_args([path, "--model", "two_component", "--noise", "0"])
    model = truth(given.model, [])
    wanted = np.asarray(simulated(given, model).c2)
    for name, value in parameter_values(model).items():
        other = with_parameters(
            model, {name: float(value) * 1.2 + 0.2 * (1 + 1e3 * ("offset" in name))}
        )
        assert np.max(np.abs(np.asarray(simulated(given, other).c2) - wanted)) > 1e-5, name
