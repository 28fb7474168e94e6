"""Checkpoints: round trips, damage of every kind, kills while writing, fingerprints."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, Stretched, make_data, mapped

import xpcs_eqx as xe
from xpcs_eqx.checkpoint import Checkpoints, file_identity, fingerprint, identity, read_stored
from xpcs_eqx.checkpoint.stored import write_stored
from xpcs_eqx.files import PARTIAL, replacing


class Inner(NamedTuple):
    numbers: jax.Array
    label: str


class State(eqx.Module):
    arrays: dict
    inner: Inner
    function: object
    mode: str = eqx.field(static=True, default="a")


def every_kind():
    """A state with every kind of leaf there is."""
    arrays = {
        "float64": jnp.array([1 / 3, -0.0, jnp.inf, jnp.nan]),
        "float32": jnp.float32(1.1),
        "bfloat16": jnp.linspace(0, 1, 5, dtype=jnp.bfloat16).reshape(5, 1),
        "float16": jnp.ones((2, 3), jnp.float16),
        "int8": jnp.array([-128, 127], jnp.int8),
        "uint64": jnp.array(2**64 - 1, jnp.uint64),
        "bool": jnp.array([True, False]),
        "complex": jnp.array([1 + 2j]),
        "empty": jnp.zeros((0, 3)),
        "large": jnp.arange(3000.0).reshape(3, 1000),
        "key": jax.random.key(7),
        "keys": jax.random.split(jax.random.key(7, impl="rbg"), 3),
        "numpy": np.arange(6, dtype=">i4").reshape(2, 3)[:, ::-1],
        "numpy scalar": np.float32(0.1),
        "a/b": 1,
        "big": 2**100,
        "float": 0.1,
        "not a number": float("nan"),
        "true": True,
        "imaginary": 1 - 2j,
        "bytes": b"\x00\xff",
        "text": "Å",
        "none": None,
    }
    return State(arrays, Inner(jnp.arange(3), "λ"), jnp.sin)


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if isinstance(b, jax.Array) and jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
            assert jax.random.key_impl(a) == jax.random.key_impl(b)
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert type(a) is type(b)
        if isinstance(b, jax.Array | np.ndarray | np.generic):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        else:
            assert a == b or (a != a and b != b)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(str(tmp_path / "folder"), "trust region", "problem")


def small(value=0.0):
    return {"x": np.full(5, float(value)), "n": 3}


def test_every_kind_of_leaf_comes_back_bit_for_bit(checkpoints):
    state, extra = every_kind(), {"events": [[1, 0.1], ["é", None]], "inf": float("inf")}
    path = checkpoints.write(12, state, extra)
    found = checkpoints.newest()
    assert (found.step, found.path, found.extra) == (12, path, extra)
    assert_same(found.restore(state), state)


def test_shapes_alone_are_enough_to_read(checkpoints):
    state = {"x": jnp.arange(4.0), "key": jax.random.key(1)}
    path = checkpoints.write(1, state)
    shapes = jax.eval_shape(lambda: state)
    assert_same(read_stored(path, "trust region", "problem").restore(shapes), state)


def test_state_whose_structure_depends_on_extra(checkpoints):
    checkpoints.write(1, {"x": jnp.ones(2), "best": jnp.zeros(2)}, {"best": True})
    found = checkpoints.newest()
    like = {"x": jnp.ones(2), "best": jnp.ones(2) if found.extra["best"] else None}
    assert_same(found.restore(like)["best"], jnp.zeros(2))


def test_any_hdf5_library_reads_the_file(checkpoints):
    with h5py.File(checkpoints.write(3, small(1.5), {"a": 1})) as file:
        assert file.attrs["format"] == "xpcs-eqx-checkpoint"
        assert (file.attrs["version"], file.attrs["step"]) == (1, 3)
        assert json.loads(file["document"][()])["extra"] == {"a": 1}
        [array] = [file["state"][name] for name in file["state"]]
        assert np.all(array[:] == 1.5)


def test_the_last_ones_are_kept(checkpoints):
    assert checkpoints.paths() == []
    assert checkpoints.newest() is None
    for step in range(8, 14):
        checkpoints.write(step, small(step))
    assert [path[-5:] for path in checkpoints.paths()] == ["11.h5", "12.h5", "13.h5"]
    assert checkpoints.newest().restore(small())["x"][0] == 13
    Path(checkpoints.folder, PARTIAL + "left").write_text("half")
    checkpoints.clear()
    assert not os.path.exists(checkpoints.folder)
    checkpoints.clear()


def test_clearing_leaves_what_is_not_ours(checkpoints):
    checkpoints.write(1, small())
    Path(checkpoints.folder, "notes.txt").write_text("mine")
    checkpoints.clear()
    assert os.listdir(checkpoints.folder) == ["notes.txt"]


# Damage


@pytest.fixture
def written(checkpoints):
    return Path(checkpoints.write(1, small(1.0)))


def refused(path, like=None, kind="trust region", mark="problem"):
    with pytest.raises(xe.CheckpointError) as caught:
        read_stored(str(path), kind, mark).restore(small() if like is None else like)
    message = str(caught.value)
    assert str(path) in message
    assert "remove it" in message or "continue" in message
    return message


def test_truncated_anywhere(written):
    content = written.read_bytes()
    for length in [*range(0, 520, 13), *range(520, len(content), 211), len(content) - 1]:
        written.write_bytes(content[:length])
        refused(written)
    assert "truncated" in refused(written)


def test_any_flipped_bit_is_found(written):
    content = bytearray(written.read_bytes())
    random = np.random.default_rng(0)
    # Every byte of the block in front, and some of HDF5's own header, attributes and data.
    for place in [*range(512), *range(512, len(content), 23)]:
        bit = 1 << int(random.integers(8))
        content[place] ^= bit
        written.write_bytes(content)
        refused(written)
        content[place] ^= bit
    written.write_bytes(content)
    read_stored(str(written), "trust region", "problem").restore(small())


def test_appended_bytes_are_found(written):
    written.write_bytes(written.read_bytes() + b"more")
    assert "damaged" in refused(written)


def test_foreign_files(tmp_path):
    path = tmp_path / "checkpoint-00000001.h5"
    with h5py.File(path, "w") as file:
        file["exchange/C2T_all"] = np.eye(3)
    assert "an HDF5 file, but no checkpoint" in refused(path)
    path.write_text("a text file\n" * 100)
    assert ": no checkpoint" in refused(path)
    path.write_bytes(b"")
    refused(path)
    path.unlink()
    assert "cannot be read" in refused(path)
    path.mkdir()
    assert "cannot be read" in refused(path)


def test_newer_version(written):
    import xpcs_eqx.checkpoint.stored as stored

    content = written.read_bytes()
    written.write_bytes(stored._header(content[512:], version=2) + content[512:])
    message = refused(written)
    assert "version 2" in message
    assert "newer library" in message


def test_other_kind_problem_and_structure(written):
    assert "of the trust region, not of the hybrid" in refused(written, kind="hybrid")
    assert "another problem" in refused(written, mark="other")
    assert "['x'], numpy float64 (4,) is needed" in refused(written, {"x": np.ones(4), "n": 3})
    assert "['x'], numpy float64 (5,) where nothing" in refused(written, {"n": 3})
    assert "numpy float32" in refused(written, {"x": np.ones(5, np.float32), "n": 3})
    assert "['x'], array float64" in refused(written, {"x": jnp.ones(5), "n": 3})
    assert "['m'], int is needed" in refused(written, {"x": np.ones(5), "m": 3})


def test_a_damaged_newest_one_is_passed_over(checkpoints, caplog):
    for step in (1, 2, 3):
        checkpoints.write(step, small(step))
    newest, middle, oldest = map(Path, reversed(checkpoints.paths()))
    newest.write_bytes(newest.read_bytes()[:-1])
    middle.write_text("nothing")
    assert checkpoints.newest().step == 1
    assert ["truncated" in r.getMessage() for r in caplog.records] == [True, False]
    oldest.write_bytes(b"")
    with pytest.raises(xe.CheckpointError, match="truncated"):
        checkpoints.newest()


def test_one_of_another_problem_is_not_passed_over(checkpoints):
    checkpoints.write(1, small())
    checkpoints.belonging_to("trust region", "other").write(2, small())
    with pytest.raises(xe.CheckpointError, match="another problem"):
        checkpoints.newest()


def test_what_cannot_be_stored(checkpoints):
    for leaf in (object(), np.array([object()]), np.array(["a"])):
        with pytest.raises(xe.CheckpointError, match=r"\['a'\]: .* cannot be stored"):
            checkpoints.write(1, {"a": leaf})
    with pytest.raises(TypeError):
        checkpoints.write(1, {}, {"a": {1, 2}})
    with pytest.raises(xe.CheckpointError, match="keep = 0"):
        Checkpoints("folder", keep=0)
    assert checkpoints.paths() == []
    assert not [n for n in os.listdir(checkpoints.folder) if n.startswith(PARTIAL)]


# Writing


def test_a_failure_while_writing_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("earlier")

    def interrupted():
        with replacing(path) as temporary:
            Path(temporary).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "earlier"


def test_a_file_that_cannot_be_written_is_named_as_it_was_given(tmp_path):
    """Where it cannot be made, and where it cannot be moved onto what is there."""
    (tmp_path / "folder").mkdir()
    for name in ("long" * 80, "folder"):
        path = str(tmp_path / name)
        with pytest.raises(OSError, match=name) as caught, replacing(path):
            pass
        assert caught.value.filename == path
        assert PARTIAL not in str(caught.value)
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_open_and_the_mask_is_left_alone(tmp_path, monkeypatch):
    def touched(mask):
        raise AssertionError("the mask belongs to the whole process, other threads included")

    for mask in (0o077, 0o022, 0o002):
        before = os.umask(mask)
        try:
            (tmp_path / "plain").write_text("")
            with monkeypatch.context() as patched:
                patched.setattr(os, "umask", touched)
                with replacing(tmp_path / "file") as temporary:
                    Path(temporary).write_text("whole")
            modes = [(tmp_path / name).stat().st_mode for name in ("file", "plain")]
            assert modes[0] == modes[1]
        finally:
            os.umask(before)
        (tmp_path / "plain").unlink()


def test_writing_is_cheap(checkpoints):
    state = {f"leaf {i}": np.arange(50.0) for i in range(40)}
    times = []
    for step in range(20):
        clock = time.perf_counter()
        checkpoints.write(step, state)
        times.append(time.perf_counter() - clock)
    # Some 5 ms on a quiet machine.
    assert np.median(times) < 0.1


WRITER = """
import h5py, os, sys, numpy as np
from xpcs_eqx.checkpoint import Checkpoints
folder = sys.argv[1]
for line in sys.stdin:
    # A fork of an interpreter that has everything imported and no array of JAX yet.
    child = os.fork()
    if child == 0:
        first = int(line)
        print(os.getpid(), flush=True)
        for step in range(first, 10**7):
            state = {"x": np.full(4_000, float(step)), "n": step}
            Checkpoints(folder, "loop", "p").write(step, state, {"step": step})
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="fork is POSIX")
def test_kills_while_writing_never_lose_the_newest_whole_one(tmp_path):
    folder = str(tmp_path / "folder")
    checkpoints, like = Checkpoints(folder, "loop", "p"), {"x": np.zeros(4_000), "n": 0}
    random = np.random.default_rng(5)
    kills, halves, last = 0, 0, 0
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", WRITER, folder], **pipes) as server:
        # Until at least twelve, one of them in the middle of a file.
        while kills < 12 or not halves:
            kills += 1
            assert kills < 200
            server.stdin.write(f"{last + 1}\n")
            server.stdin.flush()
            child = int(server.stdout.readline())
            time.sleep(random.uniform(0.0, 0.15))
            os.kill(child, signal.SIGKILL)
            assert server.stdout.readline() == "gone\n"
            found = checkpoints.newest()
            if found is None:
                continue
            assert found.step >= last
            assert np.all(found.restore(like)["x"] == found.step)
            assert found.extra == {"step": found.step}
            # Not one of the files behind it is damaged either.
            for path in checkpoints.paths():
                read_stored(path, "loop", "p").restore(like)
            last = found.step
            halves = sum(name.startswith(PARTIAL) for name in os.listdir(folder))
        server.stdin.close()
        assert server.wait(timeout=60) == 0
    assert last > 0
    checkpoints.clear()
    assert not os.path.exists(folder)


# Fingerprints


def problem(**changes):
    data = make_data(Stretched(2.0, 0.8), n=12)
    return xe.projected_objective(mapped(Stretched(1.0, 1.0), data, **changes), data)


def test_a_fingerprint_is_that_of_the_content():
    wanted = fingerprint(problem(), {"a": 1, "b": 2})
    assert wanted == fingerprint(problem(), {"b": 2, "a": 1})
    assert len(wanted) == 64
    copied = jax.tree.map(lambda leaf: np.array(leaf) if eqx.is_array(leaf) else leaf, problem())
    assert fingerprint(copied, {"a": 1, "b": 2}) == wanted


DIFFERENT = [
    None, True, 1, 1.0, "1", b"1", 1j, -0.0, 0.0, float("nan"), (1,), [1], {1}, {1: 1}, (), ((),),
    ("ab", "c"), ("a", "bc"), np.array(1), np.array([1]), np.array([1], np.int32),
    jnp.ones((2, 3)), jnp.ones((3, 2)), jax.random.key(1), jax.random.key(2), jax.random.key_data,
    np.dtype("f4"), Path("a"), xe.Status.cost, xe.Status.step, Stretched, Stretched(), LAMINAR,
    jnp.sin, jnp.cos, functools.partial(max, 1), functools.partial(max, 2), Stretched().kernel,
    jax.jit(lambda x: x), jax.ShapeDtypeStruct((2,), float), xe.TrustRegion(),
    xe.TrustRegion(cost_tol=1e-3), xe.TrustRegion(max_evaluations=7), xe.Recovery(seed=1),
]  # fmt: skip


def test_whatever_differs_has_another_fingerprint():
    marks = [fingerprint(thing) for thing in DIFFERENT]
    assert len(set(marks)) == len(marks)


def test_functions_count_with_what_they_hold():
    def scaled(factor, power=2):
        def model(x, a):
            return factor * a * x**power

        return model

    assert fingerprint(scaled(1.0)) == fingerprint(scaled(1.0))
    assert fingerprint(scaled(1.0)) != fingerprint(scaled(2.0))
    one = fingerprint(lambda x: x + 1)
    assert one != fingerprint(lambda x: x + 2)
    typed = [eval(text) for text in ("lambda x: x + x", "lambda x: x - x")]
    assert fingerprint(typed[0]) != fingerprint(typed[1])

    def itself():
        return itself

    assert fingerprint(itself) == fingerprint(itself)


def typed(text, **names):
    """What `m` becomes in a text without a file, as in a shell."""
    here = {"jnp": jnp, "eqx": eqx, **names}
    exec(text, here)
    return here["m"]


def test_a_text_that_python_takes_for_the_source_is_not_trusted(monkeypatch):
    # Two on one line, and lines of a file that was edited since.
    one, two = (lambda x: x + 1), (lambda x: x + 2)
    assert fingerprint(one) != fingerprint(two)
    monkeypatch.setattr("inspect.getsource", lambda thing: "def m(x): return x")
    made = [typed(f"def m(x): return {k} * x") for k in (1, 2)]
    assert fingerprint(made[0]) != fingerprint(made[1])


MODULE = "class M(eqx.Module):\n a: float = 1.0\n {}\n"
# Each with one thing in it that makes another model.
TYPED = {
    "constant": ("def m(x): return 1.0 * x", "def m(x): return 2.0 * x"),
    "name": ("def m(x): return jnp.exp(x)", "def m(x): return jnp.sin(x)"),
    "set": ("def m(x): return x in {1, 2}", "def m(x): return x in {1, 3}"),
    "default": ("def m(x, k=1): return k * x", "def m(x, k=2): return k * x"),
    "keyword": ("def m(x, *, k=1): return k * x", "def m(x, *, k=2): return k * x"),
    "inside": ("def m(x): return (lambda y: 2 * y)(x)", "def m(x): return (lambda y: 3 * y)(x)"),
    "deep inside": (
        "def m(x):\n def f(y):\n  def g(z): return z + 1\n  return g(y)\n return f(x)",
        "def m(x):\n def f(y):\n  def g(z): return z + 2\n  return g(y)\n return f(x)",
    ),
    "global number": ("k = 1\ndef m(x): return k * x", "k = 2\ndef m(x): return k * x"),
    "global function": (
        "def f(x): return x\ndef m(x): return f(x)",
        "def f(x): return -x\ndef m(x): return f(x)",
    ),
    "method": (
        MODULE.format("def __call__(self, x): return 2 * x") + "m = M()",
        MODULE.format("def __call__(self, x): return 3 * x") + "m = M()",
    ),
    "bound method": (
        MODULE.format("def f(self, x): return 2 * x") + "m = M().f",
        MODULE.format("def f(self, x): return 3 * x") + "m = M().f",
    ),
    "field": (
        MODULE.format("def f(self, x): return 2 * x") + "m = M(1.0).f",
        MODULE.format("def f(self, x): return 2 * x") + "m = M(2.0).f",
    ),
    "property": (
        MODULE.format("p = property(lambda self: 2)") + "m = M()",
        MODULE.format("p = property(lambda self: 3)") + "m = M()",
    ),
    "static method": (
        MODULE.format("p = staticmethod(lambda: 2)") + "m = M()",
        MODULE.format("p = staticmethod(lambda: 3)") + "m = M()",
    ),
    "attribute of a class": ("class m: k = 1", "class m: k = 2"),
    "class with a call": (
        "class C:\n def __init__(self): self.k = 1\n def __call__(self, x): return x\nm = C()",
        "class C:\n def __init__(self): self.k = 2\n def __call__(self, x): return x\nm = C()",
    ),
}


def versions(pair):
    """Both texts of a pair as they are, and in every wrapping."""
    for wrap in WRAPPINGS:
        yield [wrap(typed(text)) for text in pair]


WRAPPINGS = (
    lambda m: m,
    lambda m: functools.partial(m, 1.0),
    jax.tree_util.Partial,
    lambda m: jax.jit(m) if callable(m) else m,
    lambda m: jax.grad(m) if callable(m) else m,
    lambda m: jax.vmap(jax.value_and_grad(m)) if callable(m) else m,
    lambda m: functools.cache(m),
    lambda m: eqx.filter_jit(m) if callable(m) else m,
    lambda m: typed("def m(x): return f(x)", f=m),
    lambda m: {"of": [m]},
)


def test_whatever_a_model_without_a_file_does_counts():
    same = []
    for name, pair in TYPED.items():
        callable_ = callable(typed(pair[0]))
        for k, (one, two) in enumerate(versions(pair) if callable_ else [map(typed, pair)]):
            if fingerprint(one) == fingerprint(two):
                same.append(f"{name}, wrapping {k}")
    assert not same


def test_what_wraps_a_function_counts_as_well():
    def square(x, y):
        return x * x * y

    wrapped = [square, jax.grad(square), jax.grad(square, 1), jax.vmap(square)]
    wrapped += [jax.vmap(square, (0, None)), jax.hessian(square)]
    marks = [fingerprint(one) for one in wrapped]
    assert len(set(marks)) == len(marks)


def test_functions_without_code_count_by_module_name_and_owner():
    import math

    some = (math.sin, np.sin, jnp.sin, math.cos, "ab".join, "cd".join, [1].count, [2].count)
    some += (np.ones(2).dot, np.zeros(2).dot, str.join, functools.partial(np.sin, 1.0))
    marks = [fingerprint(one) for one in some]
    assert len(set(marks)) == len(marks)
    assert marks == [fingerprint(one) for one in some]


def test_what_changes_while_a_program_runs_does_not_count():
    text = (
        "import logging\nlog, calls, n = logging.getLogger(), [], 0\n"
        "def m(x):\n global n\n n += 1\n calls.append(log)\n return x"
    )
    m = typed(text)
    before = fingerprint(m)
    m(1.0)
    assert fingerprint(m) == before
    # Nor a comment, a docstring of a class or the line it stands on.
    assert fingerprint(typed("\n\n# hm\ndef m(x): return x")) == fingerprint(
        typed("def m(x): return x")
    )
    assert fingerprint(typed("class m:\n 'a'\n k = 1")) == fingerprint(typed("\nclass m: k = 1"))


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    x = np.linspace(0, 5, 40)
    y = 2.0 * np.exp(-0.5 * x) + 1.0
    one = typed("def m(x, a, b, c): return a * jnp.exp(-b * x) + 1.0 * c")
    two = typed("def m(x, a, b, c): return a * jnp.sin(-b * x) + 1.0 * c")
    hybrid = xe.hybrid.aggressive()
    kept = Checkpoints(str(tmp_path / "kept"))
    found = hybrid.fit((x, y), one, np.ones(3), checkpoints=kept)
    assert found.success
    again = hybrid.fit((x, y), one, np.ones(3), checkpoints=kept, resume=True)
    assert np.array_equal(again.x, found.x)
    with pytest.raises(xe.CheckpointError, match="another problem"):
        hybrid.fit((x, y), two, np.ones(3), checkpoints=kept, resume=True)


@pytest.mark.parametrize(
    "changes",
    [{"fixed": ("stretch",)}, {"bounds": {"tau": (0.1, 9.0)}}, {"scale": {"tau": 0.5}}],
)
def test_another_parameter_map_is_another_problem(changes):
    assert fingerprint(problem(**changes)) != fingerprint(problem())


def test_one_entry_of_the_data_and_the_driver():
    here = problem()
    other = eqx.tree_at(lambda o: o.term.tiles.c2, here, here.term.tiles.c2.at[0, 1, 2].add(1e-15))
    assert fingerprint(other) != fingerprint(here)
    by_tile = eqx.tree_at(lambda o: o.term.driver, here, xe.objective.HostLoop())
    assert fingerprint(by_tile) == fingerprint(here)


def test_files_too_large_to_read_count_by_what_the_folder_says(tmp_path):
    path = tmp_path / "data.h5"
    path.write_bytes(b"abc")
    first = fingerprint(file_identity(path, shape=(3,)))
    assert first == fingerprint(file_identity(path, shape=(3,)))
    assert first != fingerprint(file_identity(path, shape=(4,)))
    path.write_bytes(b"abcd")
    assert first != fingerprint(file_identity(path, shape=(3,)))
    with pytest.raises(xe.CheckpointError, match="cannot be looked at"):
        file_identity(tmp_path / "none")


def test_what_cannot_be_recognised_needs_an_identity():
    class Handle:
        pass

    with pytest.raises(xe.CheckpointError, match=r"recognise a .*Handle again; register"):
        fingerprint({"file": Handle()})
    identity.register(Handle, lambda handle: "the file")
    assert fingerprint(Handle()) == fingerprint("the file")
    with pytest.raises(xe.CheckpointError, match="array of objects"):
        fingerprint(np.array([Handle()]))


def every_text():
    """Fingerprints of models without a file, in every wrapping."""
    pairs = [pair for pair in TYPED.values() if callable(typed(pair[0]))]
    return fingerprint([list(versions(pair)) for pair in pairs])


def test_fingerprints_agree_between_processes():
    program = (
        "import jax; jax.config.update('jax_enable_x64', True)\n"
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_checkpoint import every_text, fingerprint, problem\n"
        "import xpcs_eqx as xe\n"
        "print(fingerprint(problem(), xe.TrustRegion(), {'b', 'a', 'c'}), every_text())"
    )
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    done = subprocess.run(
        [sys.executable, "-c", program, here], capture_output=True, text=True, env=environment
    )
    here = [fingerprint(problem(), xe.TrustRegion(), {"b", "a", "c"}), every_text()]
    assert done.stdout.split() == here


def test_write_stored_refuses_nothing_silently(tmp_path):
    with pytest.raises(xe.DataError, match="does not exist"):
        write_stored(str(tmp_path / "none" / "a.h5"), "k", "f", 1, {}, {})
