"""Compiled functions on disk: found again, bounded in size, and never a reason to fail."""

import errno
import gc
import json
import os
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, Stretched, make_data, mapped

import xpcs_eqx as xe
from xpcs_eqx import compiled, compiling
from xpcs_eqx.compiling import quick_jit
from xpcs_eqx.data import write_own
from xpcs_eqx.fingerprint import fingerprint_by_name
from xpcs_eqx.objective import NormalEquations, two_time
from xpcs_eqx.parameters.variables import coordinates_of
from xpcs_eqx.physics import PowerLawRate

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


def start(folder, script=SCRIPT, *more):
    unset = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    command = [sys.executable, "-c", script, str(folder), *map(str, more)]
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
        compiled.keep_in(None)
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


@pytest.fixture
def kept_in(tmp_path):
    yield tmp_path / "kept"
    compiled.keep_in(None)


@pytest.fixture
def lowered():
    """Names of the functions that were lowered."""
    names = []

    def heard(event, _, fun_name=None, **__):
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield names
    jax.monitoring.unregister_event_duration_listener(heard)


RATE = PowerLawRate(2.0, -0.5, 0.1)
PARAMETERS = xe.parameter_map(xe.Static(RATE), np.arange(1.0, 5.0))


def begin(folder):
    """As in another process, which has nothing in memory."""
    compiled.keep_in(None)
    compiled.keep_in(folder)


def test_a_function_of_the_library_is_found_without_being_traced(kept_in, lowered):
    variables, x = PARAMETERS, np.array([2.0, -0.5, 0.1])
    plain = np.asarray(coordinates_of(variables, x))
    for lowerings in (1, 0):
        begin(kept_in)
        lowered.clear()
        np.testing.assert_array_equal(coordinates_of(variables, x), plain)
        assert len(lowered) == lowerings
        assert coordinates_of.prepare(variables, x).shape == (3,)
        (entry,) = kept_in.glob("*")
        assert entry.name.endswith(compiled.ENTRY)
    # Asked for once more, as by the next file of a series, it is at hand.
    at_hand = dict(compiled._ready)
    compiled.keep_in(kept_in)
    assert at_hand == compiled._ready
    assert len(at_hand) == 1
    # Inside other functions it is traced as ever.
    derivative = jax.jacfwd(lambda x: coordinates_of(variables, x))(x)
    assert np.all(np.isfinite(derivative))
    # What is not whole is made anew.
    entry.write_bytes(entry.read_bytes()[:-7])
    begin(kept_in)
    lowered.clear()
    np.testing.assert_array_equal(coordinates_of(variables, x), plain)
    assert len(lowered) == 1
    begin(kept_in)
    lowered.clear()
    # Another shape, another type, another setting, another version of the library.
    with jax.default_matmul_precision("highest"):
        coordinates_of(variables, x)
    coordinates_of(variables, np.tile(x, (2, 1)))
    assert len(lowered) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "_library", lambda: "another version")
        patch.setattr(compiled, "_installed", lambda: "another version")
        begin(kept_in)
        coordinates_of(variables, x)
    assert len(lowered) == 3
    assert len([*kept_in.glob("*")]) == 4


def test_what_is_put_off_is_done_once_by_whoever_needs_it_first(kept_in, lowered):
    variables, x = PARAMETERS, np.array([2.0, -0.5, 0.1])
    plain = np.asarray(coordinates_of(variables, x))
    for lowerings in (1, 0):
        begin(kept_in)
        lowered.clear()
        put_off = []
        for _ in range(2):
            assert coordinates_of.prepare(variables, x, later=put_off.append).shape == (3,)
        assert not compiled._ready
        # Called before, by several at once, of whom one makes it.
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: coordinates_of(variables, x), range(8)))
        for one in found:
            np.testing.assert_array_equal(one, plain)
        ready = dict(compiled._ready)
        for work in put_off:
            work()
        assert compiled._ready == ready
        assert not compiled._put_off
        assert len(lowered) == lowerings
        assert len([*kept_in.glob("*")]) == 1


def test_what_is_put_off_keeps_no_data(kept_in):
    for _ in range(2):
        begin(kept_in)
        x = np.array([2.0, -0.5, 0.1])
        gone, put_off = weakref.ref(x), []
        coordinates_of.prepare(PARAMETERS, x, later=put_off.append)
        del x
        gc.collect()
        assert gone() is None
        # The second time it is on disk.
        put_off.pop()()


@pytest.mark.parametrize("model", [LAMINAR, Stretched(2.0, 0.8)], ids=["library", "user"])
@pytest.mark.parametrize("on_disk", [True, False])
def test_a_sum_that_was_compiled_ahead_is_not_compiled_again(kept_in, lowered, model, on_disk):
    data = make_data(model, n=80)
    objective = xe.projected_objective(mapped(model, data), data, tile=16)
    assert objective.in_parts
    compiled.keep_in(kept_in if on_disk else None)
    put_off = []
    objective.lower_parts(put_off.append)
    for work in put_off:
        work()
    y = jnp.asarray(objective.variables.to_coordinates(jnp.asarray(objective.start)))
    zero = NormalEquations.zero(y.size + 2, (data.geometry.phi.size,), y.dtype)
    term = objective.term
    lowered.clear()
    args = term.table(y), term.reference, two_time.loss_of(objective)
    found = term.driver.sum(two_time._equations, args, term.tiles, zero)
    assert lowered == []
    assert np.all(np.isfinite(found.cost))


def test_what_replaced_the_library_under_a_process_is_not_kept(kept_in, monkeypatch):
    compiled.keep_in(kept_in)
    monkeypatch.setattr(compiled, "_installed", lambda: "the next version")
    x = np.array([2.0, -0.5, 0.1])
    assert np.all(np.isfinite(coordinates_of(PARAMETERS, x)))
    assert not kept_in.exists()


@pytest.mark.skipif(os.name != "posix", reason="others can write where a mode says so")
def test_nothing_is_read_where_others_can_write(kept_in, lowered):
    x = np.array([2.0, -0.5, 0.1])
    for mode, lowerings in ((0o700, 1), (0o700, 0), (0o770, 1), (0o707, 1)):
        kept_in.mkdir(exist_ok=True)
        kept_in.chmod(mode)
        begin(kept_in)
        lowered.clear()
        coordinates_of(PARAMETERS, x)
        assert len(lowered) == lowerings
    assert len([*kept_in.iterdir()]) == 1


def test_a_full_disk_costs_time_alone(kept_in, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    compiled.keep_in(kept_in)
    assert np.all(np.isfinite(coordinates_of(PARAMETERS, np.array([2.0, -0.5, 0.1]))))
    assert not [*kept_in.iterdir()]


def test_anything_of_a_user_is_traced_as_ever(kept_in):
    class Own(PowerLawRate):
        def rate(self, t):
            return 2 * super().rate(t)

    def product(a, b):
        return a * b

    compiled.keep_in(kept_in)
    assert quick_jit(product)(np.ones(2), 3.0).tolist() == [3.0, 3.0]
    own = xe.parameter_map(xe.Static(Own(2.0, -0.5, 0.1)), np.arange(1.0, 5.0))
    for parameters in (own, PARAMETERS):
        with pytest.raises(xe.CheckpointError, match="known by name"):
            fingerprint_by_name(product, parameters)
        coordinates_of(parameters, np.array([2.0, -0.5, 0.1]))
        assert kept_in.exists() == (parameters is PARAMETERS)
    assert len({fingerprint_by_name(one) for one in ((None, 1), (1, None), (1.0, None))}) == 3


FIT = """
import json, sys
import jax, numpy
jax.config.update("jax_enable_x64", True)
import xpcs_eqx as xe
xe.compilation_cache(sys.argv[1])
lowered = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, _, **about: "to_mlir" in name and lowered.append(about.get("fun_name"))
)
data = xe.load(sys.argv[2])
parameters = xe.parameter_map(xe.Static(xe.PowerLawRate(900.0, -0.1, 50.0)), data.t)
fit = xe.least_squares(xe.projected_objective(parameters, data))
print(json.dumps([fit.values.tolist(), fit.uncertainty.covariance.tolist(), lowered]))
"""


def test_a_second_process_fits_without_compiling(tmp_path):
    # Factorisations of matrices too, which JAX looks up when it lowers the first of them.
    truth = xe.Static(xe.PowerLawRate(1000.0, -0.2, 100.0))
    geometry = xe.Geometry(q=0.01, phi=np.zeros(1))
    data = xe.simulate(truth, np.arange(21) * 0.5, geometry, 0.3, noise=0.01, key=jax.random.key(0))
    write_own(tmp_path / "data.h5", data)
    first, second = (ended(start(tmp_path, FIT, tmp_path / "data.h5")) for _ in range(2))
    assert first[:2] == second[:2]
    assert len(first[2]) > 5
    assert second[2] == []
