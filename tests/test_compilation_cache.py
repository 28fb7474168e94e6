"""Compiled functions on disk: found again, bounded in size, and never a reason to fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import xpcs_eqx as xe
from xpcs_eqx import compiling
from xpcs_eqx.compiling import quick_jit

SCRIPT = """
import json, sys, warnings
warnings.simplefilter("error")
import jax, numpy
import xpcs_eqx as xe
jax.jit(lambda x: x - 1)(1.0)
folder = xe.compilation_cache(sys.argv[1])
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
print(json.dumps([
    str(folder),
    float(jax.jit(lambda x: numpy.float32(2) * x + 1)(3.0)),
    hits.count("/jax/compilation_cache/cache_hits"),
]))
"""


def start(folder):
    unset = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=unset)


def ended(process):
    out, error = process.communicate()
    assert process.returncode == 0, error
    return json.loads(out)


@pytest.mark.long
def test_the_next_process_finds_what_was_compiled(tmp_path):
    # Two at a time, which write the same entries.
    both = [ended(one) for one in [start(tmp_path), start(tmp_path)]]
    folder, value, _ = both[0]
    assert Path(folder).parent == tmp_path
    assert Path(folder).name.startswith(f"jax-{jax.__version__}-")
    assert value == both[1][1] == 7.0
    entries = [*Path(folder).glob("*-cache")]
    assert ended(start(tmp_path)) == [folder, 7.0, 1]
    # What is damaged, and a folder that is none.
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:20])
    (tmp_path / "file").write_text("")
    damaged, none = [ended(one) for one in [start(tmp_path), start(tmp_path / "file" / "x")]]
    assert damaged == [folder, 7.0, 0]
    assert none == ["None", 7.0, 0]


def test_what_was_used_least_recently_goes(tmp_path):
    ages = {"jax-0.1-a/old": 1, "jax-0.1-a/older": 0, "jax-0.2-b/new": 3, "jax-0.2-b/newer": 4}
    for name, age in ages.items():
        path = tmp_path / f"{name}-cache"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (age, age))
    compiling._shrink(tmp_path, 250)
    left = sorted(path.stem for path in tmp_path.rglob("*-cache"))
    assert left == ["new-cache", "newer-cache"]


def test_where_it_is_and_who_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiling.cache_folder() == tmp_path / "xpcs_eqx"
    with pytest.raises(xe.ConfigError, match="limit is -1 bytes"):
        xe.compilation_cache(limit=-1)
    # What JAX was told already stays.
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "given"))
    try:
        assert xe.compilation_cache() == tmp_path / "given"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert not (tmp_path / "xpcs_eqx").exists()


def test_what_is_prepared_is_compiled_once_and_runs_without_compiling():
    traced = []

    @quick_jit
    def scaled(model, x):
        traced.append(x.shape)
        return {"twice": 2 * x, "name": model}

    for _ in range(3):
        like = scaled.prepare("one", np.zeros(3))
        assert like["name"] == "one"
        assert like["twice"].shape == (3,)
        assert like["twice"].sum() == 0
    before = len(traced)
    np.testing.assert_array_equal(scaled("one", np.arange(3.0))["twice"], [0, 2, 4])
    assert len(traced) == before
    # Other shapes and other values that are no arrays are other kinds.
    assert scaled.prepare("one", np.zeros(4))["twice"].shape == (4,)
    assert scaled.prepare("two", np.zeros(3))["name"] == "two"
    assert len(traced) > before + 1
