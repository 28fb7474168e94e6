"""Damaged and hostile files give data or a `DataError`, soon and within some memory."""

import os
import subprocess
import sys

import helpers_fuzz
import pytest

CASES, BATCH = 240, 1000


@pytest.mark.parametrize(
    "kind", range(len(helpers_fuzz.KINDS)), ids=lambda k: helpers_fuzz.KINDS[k][0]
)
def test_changed_files_are_data_or_a_data_error(tmp_path, kind):
    folder, n = tmp_path / "here", len(helpers_fuzz.KINDS)
    folder.mkdir()
    right, outside = helpers_fuzz.originals(folder), helpers_fuzz.secret(tmp_path)
    wrong = [helpers_fuzz.attempt(s, folder, right, outside) for s in range(kind, CASES, n)]
    assert not list(filter(None, wrong))


@pytest.mark.long
@pytest.mark.parametrize("batch", range(10))
def test_thousands_of_changed_files(batch):
    # A process of its own, as a damaged file may hang HDF5 or take all memory.
    bounds = (10_000 + batch * BATCH, 10_000 + (batch + 1) * BATCH)
    command = [sys.executable, "-W", "ignore", helpers_fuzz.__file__, *map(str, bounds)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}
    )
    said = done.stdout.splitlines()
    assert said[-1:] == ["done"], (said[-1:], done.stderr[-500:])
    assert not [line for line in said if line.startswith("wrong")]
