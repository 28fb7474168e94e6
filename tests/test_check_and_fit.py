"""What a check accepts a fit accepts, and the other way round: same refusals, same notes."""

import json
import random

import helpers_fuzz
import pytest
from helpers_fuzz import BINS
from helpers_program import MODEL, QUICKLY

from xpcs_eqx import fit as program

SETTINGS = f"""{MODEL}
[solver]
max_evaluations = 2
recovery = 0
errors = "classical"
[global]
method = "local"
"""


def table(path, how):
    """A table of data that is read in this way."""
    lines = ["[data]", f"path = {json.dumps(path)}"]
    if "dt" in how:
        lines.append(f"dt = {how['dt']}")
    if "layout" in how:
        told = how["layout"]
        given = {
            key: getattr(told, key)
            for key in ("maps", "axes", "q", "phi", "t", "ages", "lags")
            if getattr(told, key) is not None
        }
        lines += ['layout = "generic"', "[data.generic]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in given.items()]
    return "\n".join(lines)


def both(folder, capsys, stored=False):
    """Exit codes of the check and of the fit, what the check printed, and the notes of the fit."""
    path, where = str(folder / "fit.toml"), folder / "results"
    how = ("--set", "streaming.strategy=out_of_core") if stored else ()
    capsys.readouterr()
    checked = program.main([path, "--check", *how])
    said = capsys.readouterr()
    done = program.main([path, *QUICKLY, "--quiet", "--overwrite", "--output", str(where), *how])
    refused = capsys.readouterr().err
    notes = []
    if done in (0, 1):
        notes = json.loads((where / "provenance.json").read_text())["data"]["notes"]
    return checked, done, said, refused, notes


def compare(seed, folder, right, outside, capsys):
    """Exit code of both, after holding one against the other."""
    draw = random.Random(seed)
    kind = right[seed % len(right)]
    path = str(folder / "changed")
    helpers_fuzz.changed(draw, kind, path, outside)
    (folder / "fit.toml").write_text(table(path, kind[2]) + SETTINGS)
    stored = draw.random() < 0.2
    checked, done, said, refused, notes = both(folder, capsys, stored)
    assert checked in (0, 1, 2), (seed, kind[0], checked, said.err)
    assert (checked == 2) == (done == 2), (seed, kind[0], said, refused)
    if checked == 2:
        assert said.err.split("\n")[-2:] == refused.split("\n")[-2:], (seed, kind[0])
    printed = " ".join(said.out.split())
    for note in notes:
        assert " ".join(note.split()) in printed, (seed, kind[0], note)
    return done


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    return folder, helpers_fuzz.originals(folder), helpers_fuzz.secret(tmp_path)


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[] if one == "id02" else [pytest.mark.long]) for one in BINS]
)
def test_bins_that_are_checked_are_fitted(files, capsys, name):
    folder, right, outside = files
    right = [one for one in right if one[0] == name]
    codes = [compare(seed, folder, right, outside, capsys) for seed in range(8)]
    assert 2 in codes
    assert {0, 1} & set(codes)


@pytest.mark.long
@pytest.mark.parametrize("batch", range(4))
def test_files_that_are_checked_are_fitted(files, capsys, batch):
    codes = [
        compare(seed, *files, capsys) for seed in range(1000 + 100 * batch, 1100 + 100 * batch)
    ]
    assert {1, 2} <= set(codes)
