"""Fits that are stopped and gone on with: the same end, the same evaluations, bit for bit."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import frame_times, make_data, mapped

import xpcs_eqx as xe
from xpcs_eqx.data import open_stored, write_own
from xpcs_eqx.fitting import attempts

TRUTH = xe.Static(xe.PowerLawRate(6e3, -0.4, 0.0))
START = xe.Static(xe.PowerLawRate(9e3, -0.2, 0.0))


@pytest.fixture(scope="module")
def data():
    return make_data(TRUTH, t=frame_times(31), noise=0.003)


def objective(data, low=7e3, **keywords):
    """A fit that ends on the bound `low` of D0, so that a recovery follows the first attempt."""
    parameters = mapped(START, data, fixed=("D_offset",), bounds={"D0": (low, 1e5)})
    return xe.two_time_objective(parameters, data, **keywords)


class Stop:
    """A callback that interrupts at an evaluation, as Ctrl-C does."""

    def __init__(self, evaluation, error=KeyboardInterrupt):
        self.left, self.error = evaluation, error

    def __call__(self, state):
        self.left -= 1
        if self.left == 0:
            raise self.error


def stopped(problem, checkpoints, evaluation, error=KeyboardInterrupt, **keywords):
    with pytest.raises(error):
        xe.least_squares(
            problem, checkpoints=checkpoints, callback=Stop(evaluation, error), **keywords
        )


def assert_identical(fit, wanted):
    assert np.array_equal(fit.values, wanted.values)
    assert fit.evaluations == wanted.evaluations
    assert fit.iterations == wanted.iterations
    assert fit.recovery == wanted.recovery
    assert fit.status == wanted.status
    for found, known in zip(
        jax.tree.leaves(fit.history), jax.tree.leaves(wanted.history), strict=True
    ):
        assert np.array_equal(found, known, equal_nan=True)


@pytest.fixture(scope="module")
def reference(data):
    fit = xe.least_squares(objective(data))
    # Both attempts must be there to be interrupted.
    assert [action.cause for action in fit.recovery] == ["at bounds"]
    return fit


def test_stopped_at_every_evaluation(data, reference, tmp_path):
    problem = objective(data)
    for evaluation in range(1, reference.evaluations + 1):
        checkpoints = xe.Checkpoints(str(tmp_path / str(evaluation)))
        stopped(problem, checkpoints, evaluation)
        assert checkpoints.paths()[-1].endswith(f"{evaluation:08d}.h5")
        fit = xe.least_squares(problem, checkpoints=checkpoints, resume=True)
        assert_identical(fit, reference)


@pytest.mark.parametrize(
    "keywords", [{"driver": xe.objective.HostLoop(), "tile": 16}, {"loss": xe.SoftL1()}]
)
def test_stopped_again_and_again(data, tmp_path, keywords):
    problem = objective(data, **keywords)
    wanted = xe.least_squares(problem)
    checkpoints = xe.Checkpoints(str(tmp_path / "folder"))
    stopped(problem, checkpoints, 3)
    for _ in range(3, wanted.evaluations - 5, 5):
        stopped(problem, checkpoints, 5, resume=True)
    fit = xe.least_squares(problem, checkpoints=checkpoints, resume=True)
    assert_identical(fit, wanted)


def test_maps_that_stay_in_their_file(data, tmp_path):
    path = tmp_path / "data.h5"
    write_own(path, data)
    wanted = xe.least_squares(objective(open_stored(path)))
    checkpoints = xe.Checkpoints(str(tmp_path / "folder"))
    stopped(objective(open_stored(path)), checkpoints, 4)
    # The file may lie elsewhere by now, but not be another one.
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    path = path.rename(moved / path.name)
    fit = xe.least_squares(objective(open_stored(path)), checkpoints=checkpoints, resume=True)
    assert_identical(fit, wanted)
    os.utime(path, ns=(0, 1))
    with pytest.raises(xe.CheckpointError, match="another problem"):
        xe.least_squares(objective(open_stored(path)), checkpoints=checkpoints, resume=True)


def test_one_driver_goes_on_where_another_stopped(data, reference, tmp_path):
    checkpoints = xe.Checkpoints(str(tmp_path / "folder"))
    stopped(objective(data, tile=16), checkpoints, 4)
    by_tile = objective(data, tile=16, driver=xe.objective.HostLoop())
    fit = xe.least_squares(by_tile, checkpoints=checkpoints, resume=True)
    np.testing.assert_allclose(fit.values, reference.values, rtol=1e-8)


def test_a_callback_that_ends_the_fit_leaves_a_checkpoint(data, reference, tmp_path):
    checkpoints = xe.Checkpoints(str(tmp_path / "folder"), interval=1e6)
    part = xe.least_squares(
        objective(data),
        checkpoints=checkpoints,
        callback=lambda state: int(state.evaluations) == 3,
    )
    assert part.status == xe.Status.interrupted
    fit = xe.least_squares(objective(data), checkpoints=checkpoints, resume=True)
    assert_identical(fit, reference)


def test_an_error_in_the_middle_leaves_a_checkpoint(data, reference, tmp_path):
    checkpoints = xe.Checkpoints(str(tmp_path / "folder"), interval=1e6)
    stopped(objective(data), checkpoints, 5, error=xe.DataError)
    assert len(checkpoints.paths()) == 1
    fit = xe.least_squares(objective(data), checkpoints=checkpoints, resume=True)
    assert_identical(fit, reference)


def test_short_memory_is_remembered(data, reference, tmp_path, monkeypatch):
    whole = attempts.iterate_host
    seen = []

    def short(solver, problem, x, **keywords):
        seen.append(type(problem.term.driver))
        if seen == [xe.objective.Scan]:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return whole(solver, problem, x, **keywords)

    monkeypatch.setattr(attempts, "iterate_host", short)
    checkpoints = xe.Checkpoints(str(tmp_path / "folder"))
    stopped(objective(data), checkpoints, 3)
    fit = xe.least_squares(objective(data), checkpoints=checkpoints, resume=True)
    assert [action.cause for action in fit.recovery] == ["out of memory", "at bounds"]
    assert set(seen[1:]) == {xe.objective.HostLoop}
    assert fit.evaluations == reference.evaluations
    np.testing.assert_allclose(fit.values, reference.values, rtol=1e-8)


def test_when_checkpoints_are_written(data, tmp_path):
    problem = objective(data)

    def steps(name, every=1, **keywords):
        checkpoints = xe.Checkpoints(str(tmp_path / name), keep=99, **keywords)
        fit = xe.least_squares(problem, checkpoints=checkpoints, every=every)
        return fit.evaluations, [int(path[-11:-3]) for path in checkpoints.paths()]

    n, every = steps("all")
    assert every == list(range(1, n + 1))
    assert steps("third", every=3)[1] == list(range(3, n + 1, 3))
    assert steps("slow", interval=1e6)[1] == []
    assert not (tmp_path / "slow").exists()


def test_a_full_disk_costs_no_fit(data, reference, tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xe.Checkpoints, "write", full)
    fit = xe.least_squares(objective(data), checkpoints=xe.Checkpoints(str(tmp_path / "folder")))
    assert_identical(fit, reference)
    # Once, not at each evaluation.
    assert caplog.text.count("no checkpoint written: [Errno 28] No space left") == 1


def test_what_is_refused(data, tmp_path, caplog):
    checkpoints = xe.Checkpoints(str(tmp_path / "folder"))
    problem = objective(data)
    stopped(problem, checkpoints, 2)

    def contents():
        return [Path(path).read_bytes() for path in checkpoints.paths()]

    before = contents()
    with pytest.raises(xe.CheckpointError, match="holds 2 checkpoints of an interrupted fit"):
        xe.least_squares(problem, checkpoints=checkpoints)
    other = make_data(TRUTH, t=frame_times(31), noise=0.003, seed=1)
    changes = [
        {"objective": objective(other)},
        {"objective": objective(data, low=6.9e3)},
        {"objective": objective(data, loss=xe.SoftL1(0.003))},
        {"solver": xe.TrustRegion(cost_tol=1e-11)},
        {"recovery": xe.Recovery(attempts=1)},
        {"start": np.array([9.1e3, -0.2])},
        {"checkpoints": xe.Checkpoints(checkpoints.folder, fingerprint="mine")},
    ]
    for change in changes:
        with pytest.raises(xe.CheckpointError, match="another problem"):
            xe.least_squares(
                **{"objective": problem, "checkpoints": checkpoints, "resume": True, **change}
            )
    assert contents() == before
    with pytest.raises(xe.CheckpointError, match="give checkpoints="):
        xe.least_squares(problem, resume=True)
    with pytest.raises(xe.CheckpointError, match="every = 0"):
        xe.least_squares(problem, every=0)
    checkpoints.clear()
    assert xe.least_squares(problem, checkpoints=checkpoints, resume=True).status > 0
    assert "no checkpoint, the fit starts from the beginning" in caplog.text


def test_recoveries_of_curve_fits_are_told():
    x = np.linspace(0, 4, 30)
    fit = xe.curve_fit(
        lambda x, a, b: a * jnp.exp(-b * x),
        x,
        2 * np.exp(-x),
        [1.0, 2.0],
        bounds=([0, 1.5], [9, 9]),
    )
    assert [action.cause for action in fit.recovery] == ["at bounds"]
    assert fit.x[1] == 1.5


def test_every_leaf_of_the_state_is_restored(data, tmp_path):
    """What a checkpoint holds is the state: nothing in it stays as it was at the start."""
    problem = objective(data)
    states = []
    checkpoints = xe.Checkpoints(str(tmp_path / "folder"))
    xe.least_squares(problem, checkpoints=checkpoints, callback=lambda s: states.append(s))
    own = checkpoints.belonging_to(
        "trust region", problem, np.asarray(problem.start), xe.TrustRegion(), xe.Recovery()
    )
    found = own.newest()
    restored = found.restore({"state": states[-1], "best": states[-1]})["state"]
    for here, there in zip(jax.tree.leaves(restored), jax.tree.leaves(states[-1]), strict=True):
        assert here.dtype == there.dtype
        assert np.asarray(here).tobytes() == np.asarray(there).tobytes()


# Kills

CHILD = """
import json, os, sys, time
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
import xpcs_eqx as xe
from xpcs_eqx.data import open_stored
from xpcs_eqx.objective import AbstractDriver


class Slowly(AbstractDriver):
    # Tile by tile, with a while between two evaluations as a large file takes.
    traceable = False

    def sum(self, function, args, tiles, zero):
        time.sleep(0.1)
        return xe.objective.HostLoop().sum(function, args, tiles, zero)


def fit(path, folder, out):
    data = open_stored(path)
    start = xe.Static(xe.PowerLawRate(9e3, -0.2, 0.0))
    parameters = xe.parameter_map(start, data.t, fixed=("D_offset",), bounds={"D0": (7e3, 1e5)})
    problem = xe.projected_objective(parameters, data, tile=8, driver=Slowly())
    fit = xe.least_squares(problem, checkpoints=xe.Checkpoints(folder), resume=True)
    found = {"values": [v.hex() for v in np.asarray(fit.values).tolist()]}
    found |= {"cost": float(fit.cost).hex(), "evaluations": fit.evaluations}
    found["history"] = [float(c).hex() for c in fit.history.cost]
    found["recovery"] = fit.recovery
    with open(out, "w") as stream:
        json.dump(found, stream)


for line in sys.stdin:
    # Everything is imported, nothing of JAX runs yet: a child is a fresh process in no time.
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        fit(*json.loads(line))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(status, flush=True)
"""


class Children:
    """Fits in processes of their own, forked from one that has imported everything."""

    def __init__(self, process, path):
        self.process, self.path = process, path

    def start(self, folder, out):
        self.process.stdin.write(json.dumps([str(self.path), str(folder), str(out)]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def status(self):
        return int(self.process.stdout.readline())


@pytest.fixture
def children(tmp_path, data):
    path = tmp_path / "data.h5"
    write_own(path, data)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", CHILD, str(tmp_path / "compiled")]
    with subprocess.Popen(command, **pipes) as process:
        yield Children(process, path)
        process.stdin.close()
        assert process.wait(timeout=60) == 0


@pytest.mark.long
@pytest.mark.parametrize("wanted_kills", [2, 20])
@pytest.mark.skipif(sys.platform == "win32", reason="fork is POSIX")
def test_killed_at_random_moments(tmp_path, children, wanted_kills):
    wanted = tmp_path / "wanted.json"
    for _ in range(2):
        # The second finds everything compiled, as the killed ones will.
        clock = time.monotonic()
        children.start(tmp_path / "whole", wanted)
        assert children.status() == 0
        duration = time.monotonic() - clock
        checkpoints = xe.Checkpoints(str(tmp_path / "whole"))
        assert checkpoints.paths()
        checkpoints.clear()
    moments, kills, fits = random.Random(3), 0, 0
    reached = []
    while kills < wanted_kills:
        folder, out = tmp_path / f"folder {fits}", tmp_path / f"found {fits}.json"
        fits += 1
        while not out.exists():
            child = children.start(folder, out)
            if kills < wanted_kills:
                if kills % 2:
                    # Half of them are after a checkpoint, however busy the machine is meanwhile.
                    while not (out.exists() or xe.Checkpoints(str(folder)).paths()):
                        time.sleep(0.002)
                time.sleep(moments.uniform(0.0, duration / (4 if kills % 2 else 1)))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            if children.status() != 0:
                kills += 1
                names = sorted(n for n in os.listdir(folder)) if folder.exists() else []
                reached += [n for n in names if n.startswith("checkpoint")][-1:]
        assert out.read_text() == wanted.read_text()
    # The moments were spread over the fit.
    assert len(set(reached)) > wanted_kills // 8
