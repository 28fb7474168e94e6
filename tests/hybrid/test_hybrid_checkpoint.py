"""A streamed fit that is interrupted anywhere ends where one that was not does, to the last bit."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from xpcs_eqx.checkpoint import Checkpoints
from xpcs_eqx.errors import CheckpointError, DataError
from xpcs_eqx.hybrid import (
    AbstractSource,
    Chunk,
    HDF5Source,
    HybridOptimiser,
    Retry,
    Tournament,
    WarmUp,
)
from xpcs_eqx.optimize import Status, TrustRegionState, WarmUpState
from xpcs_eqx.search import TournamentState

RNG = np.random.default_rng(3)
N = 1500
X = RNG.uniform(0, 4, N)
Y = 2.0 * np.exp(-1.3 * X) * np.cos(3.0 * X) + 0.4 + 0.02 * RNG.normal(size=N)
P0 = np.array([0.5, 0.5, 2.5, 0.0])
BOUNDS = (np.array([0.0, 0.0, 1.0, -2.0]), np.array([5.0, 5.0, 6.0, 2.0]))


def model(x, amplitude, rate, frequency, offset):
    return amplitude * jnp.exp(-rate * x) * jnp.cos(frequency * x) + offset


TOURNAMENT = Tournament(12, rounds=3, batch=300, around=None, seed=7)
# Of six iterations, so that the trust region has something left to do.
WARM_UP = WarmUp(minimum=6, max_iterations=6)
OPTIMISER = HybridOptimiser(tournament=TOURNAMENT, warm_up=WARM_UP, chunk=400)
KINDS = {"tournament": TournamentState, "warm-up": WarmUpState, "trust region": TrustRegionState}


class Stop(Exception):
    """What interrupts a fit in these tests."""


class Passes:
    """A callback that remembers the kinds of states it saw and raises at the n-th of one."""

    def __init__(self, kind=None, number=0, ends=False):
        self.seen, self.kind, self.number, self.ends = [], kind, number, ends

    def __call__(self, state):
        self.seen.append(type(state))
        if self.kind is not None and isinstance(state, self.kind):
            self.number -= 1
            if self.number < 0:
                if self.ends:
                    return True
                raise Stop
        return False


def fit(folder=None, callback=None, *, optimiser=OPTIMISER, source=(X, Y, 0.02), **keywords):
    keywords = {"every": 3, "bounds": BOUNDS} | keywords
    if folder is not None:
        keywords["checkpoints"] = Checkpoints(os.fspath(folder))
    return optimiser.fit(source, keywords.pop("model", model), P0, callback=callback, **keywords)


def assert_same(found, wanted):
    assert found.status is wanted.status
    for name in ("x", "pcov", "perr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.fun == wanted.fun
    assert found.evaluations == wanted.evaluations
    np.testing.assert_array_equal(found.warm_up.losses, wanted.warm_up.losses)
    np.testing.assert_array_equal(found.history.cost, wanted.history.cost)
    assert found.telemetry.counts == wanted.telemetry.counts


@pytest.fixture(scope="module")
def whole():
    """The fit that nothing interrupts, and how many passes of each kind it takes."""
    passes = Passes()
    result = fit(callback=passes)
    assert result.success
    counts = {name: passes.seen.count(kind) for name, kind in KINDS.items()}
    assert counts["tournament"] == 3
    assert counts["warm-up"] > 5
    assert counts["trust region"] > 2
    return result, counts


def test_a_fit_with_checkpoints_is_the_fit_without(whole, tmp_path):
    assert_same(fit(tmp_path / "run"), whole[0])
    assert 1 <= len(Checkpoints(os.fspath(tmp_path / "run")).paths()) <= 3


@pytest.mark.parametrize("ends", [False, True], ids=["raises", "ends"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", ["first", "middle", "last"])
def test_a_fit_goes_on_from_any_moment(whole, tmp_path, kind, moment, ends):
    wanted, counts = whole
    number = {"first": 0, "middle": counts[kind] // 2, "last": counts[kind] - 1}[moment]
    callback = Passes(KINDS[kind], number, ends)
    if ends:
        stopped = fit(tmp_path, callback)
        # The evaluation that converged ends the fit before the callback can.
        if (kind, moment) != ("trust region", "last"):
            assert stopped.status is Status.interrupted
            assert not stopped.success
            assert np.all(np.isfinite(stopped.x))
    else:
        with pytest.raises(Stop):
            fit(tmp_path, callback)
    later = Passes()
    assert_same(fit(tmp_path, later, resume=True), wanted)
    assert len(later.seen) < sum(counts.values())


def test_a_fit_interrupted_again_and_again(whole, tmp_path):
    tries = 0
    while True:
        try:
            found = fit(tmp_path, Passes(object, 1), resume=tries > 0)
        except Stop:
            tries += 1
            assert tries < 50
            continue
        break
    assert tries > 5
    assert_same(found, whole[0])


def test_a_finished_fit_is_not_repeated(whole, tmp_path):
    fit(tmp_path)
    passes = Passes()
    assert_same(fit(tmp_path, passes, resume=True), whole[0])
    assert passes.seen == []


def test_matrix_free_steps_go_on_as_well(tmp_path):
    optimiser = HybridOptimiser(warm_up=WARM_UP, matrix_free_above=1, chunk=400)
    wanted = fit(optimiser=optimiser)
    with pytest.raises(Stop):
        fit(tmp_path, Passes(TrustRegionState, 1), optimiser=optimiser, every=1)
    found = fit(tmp_path, optimiser=optimiser, resume=True)
    np.testing.assert_array_equal(found.x, wanted.x)
    assert found.fun == wanted.fun
    assert found.evaluations == wanted.evaluations


OTHERS = {
    "data": {"source": (X, Y + 1e-12, 0.02)},
    "sigma": {"source": (X, Y, 0.03)},
    "model": {"model": lambda x, a, b, c, d: model(x, a, b, c, d) + 0},
    "bounds": {"bounds": (BOUNDS[0] - 1, BOUNDS[1])},
    "chunk": {"optimiser": HybridOptimiser(tournament=TOURNAMENT, warm_up=WARM_UP, chunk=500)},
    "tournament": {
        "optimiser": HybridOptimiser(
            tournament=Tournament(12, rounds=3, batch=300, around=None, seed=8),
            warm_up=WARM_UP,
            chunk=400,
        )
    },
    "group weights": {"group_weights": np.array([2.0])},
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    with pytest.raises(Stop):
        fit(folder, Passes(WarmUpState, 5))
    return folder


@pytest.mark.parametrize("what", OTHERS)
def test_the_checkpoint_of_another_problem_is_refused(begun, what):
    with pytest.raises(CheckpointError, match="another problem"):
        fit(begun, resume=True, **OTHERS[what])


def test_checkpoints_are_not_overwritten_by_a_new_fit(begun):
    with pytest.raises(CheckpointError, match="resume it, or remove them"):
        fit(begun)


def test_resume_needs_a_folder():
    with pytest.raises(CheckpointError, match="give checkpoints="):
        fit(resume=True)
    with pytest.raises(CheckpointError, match="every = 0"):
        fit(every=0)


def test_resume_without_a_checkpoint_starts_from_the_beginning(whole, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert_same(fit(tmp_path / "none", resume=True), whole[0])
    assert "no checkpoint, the fit starts from the beginning" in caplog.text


def test_a_damaged_checkpoint_has_an_older_one_behind_it(whole, tmp_path, caplog):
    with pytest.raises(Stop):
        fit(tmp_path, Passes(TrustRegionState, 1), every=1)
    paths = Checkpoints(os.fspath(tmp_path)).paths()
    assert len(paths) == 3
    os.truncate(paths[-1], os.path.getsize(paths[-1]) // 2)
    assert_same(fit(tmp_path, resume=True), whole[0])
    assert "truncated" in caplog.text


def test_a_folder_that_cannot_be_written_costs_no_fit(whole, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    assert_same(fit(tmp_path / "file" / "run"), whole[0])
    assert "no checkpoint written" in caplog.text


def points_file(path):
    with h5py.File(path, "w") as file:
        # Small chunks: damage in the middle leaves a beginning that can be read.
        file.create_dataset("x", data=X, chunks=(100,))
        file.create_dataset("y", data=Y, chunks=(100,))
    return HDF5Source(path, sigma=0.02, chunk=400, block=400, retry=Retry(pause=0.001))


@pytest.mark.parametrize("damage", ["deleted", "truncated"])
@pytest.mark.parametrize("kind", ["warm-up", "trust region"])
def test_a_file_that_fails_in_the_middle_leaves_its_checkpoint(whole, tmp_path, damage, kind):
    path, saved, folder = (tmp_path / name for name in ("points.h5", "saved.h5", "run"))
    source = points_file(path)
    shutil.copy(path, saved)
    left = [3 if kind == "warm-up" else 1]

    def spoil(state):
        if isinstance(state, KINDS[kind]):
            left[0] -= 1
            if left[0] == 0 and damage == "deleted":
                os.remove(path)
            elif left[0] == 0:
                os.truncate(path, os.path.getsize(path) // 2)

    with pytest.raises(DataError, match="could not be read in 4 attempts"):
        fit(folder, spoil, source=source, every=1)
    assert Checkpoints(os.fspath(folder)).paths()
    shutil.copy(saved, path)
    assert_same(fit(folder, source=source, resume=True), whole[0])


def test_the_points_may_come_from_elsewhere(whole, tmp_path):
    with pytest.raises(Stop):
        fit(tmp_path / "run", Passes(WarmUpState, 4))
    source = points_file(tmp_path / "points.h5")
    assert_same(fit(tmp_path / "run", source=source, resume=True), whole[0])


def pieces():
    for start in range(0, N, 400):
        yield X[start : start + 400], Y[start : start + 400], np.full(400, 0.02)[: N - start]


def test_a_pass_that_cannot_be_read_is_tried_again(whole):
    calls = []

    def flaky():
        calls.append(1)
        for number, piece in enumerate(pieces()):
            if number == 2 and len(calls) % 5 == 0:
                raise OSError("the disk is away for a moment")
            yield piece

    found = fit(source=flaky)
    np.testing.assert_array_equal(found.x, whole[0].x)
    assert found.evaluations == whole[0].evaluations
    assert found.telemetry.fired("retry") >= 3
    events = [event for event in found.telemetry.events if event.layer == "retry"]
    assert len(events) == found.telemetry.fired("retry")


def test_a_source_that_stays_away_is_a_clear_error(tmp_path):
    calls = []

    def gone():
        calls.append(1)
        if len(calls) > 8:
            raise OSError("no such disk")
        yield from pieces()

    seen = []
    with pytest.raises(
        DataError, match=r"in 4 attempts \(no such disk\).*last checkpoint"
    ) as found:
        fit(tmp_path, seen.append, source=gone)
    assert Checkpoints(os.fspath(tmp_path)).paths()
    # What was found so far is not lost, with or without checkpoints.
    assert f"'p0': {float(seen[-1].best[0])!r}" in str(found.value)


@pytest.mark.parametrize("change", [-100, 100])
def test_a_source_that_changes_its_length_is_noticed(change):
    calls = []

    def growing():
        calls.append(1)
        number = N - 200 + (change if len(calls) > 5 else 0)
        return iter([(X[:number], Y[:number])])

    with pytest.raises(DataError, match=rf"gave {N - 200 + change} points .* {N - 200} in the"):
        fit(source=growing)


@pytest.mark.parametrize("tournament", [TOURNAMENT, None])
def test_data_that_cannot_be_used_leave_no_checkpoint(tmp_path, tournament):
    bad = [(X, np.where(np.arange(N) == 900, np.inf, Y))]
    optimiser = HybridOptimiser(tournament=tournament, warm_up=WARM_UP, chunk=400)
    with pytest.raises(DataError, match="chunk 0, index 900: y is inf"):
        fit(tmp_path, source=lambda: iter(bad), optimiser=optimiser)
    assert Checkpoints(os.fspath(tmp_path)).paths() == []


def test_passes_are_counted(whole):
    result, counts = whole
    tournament, warm_up = result.prepared["tournament"], result.warm_up
    assert result.evaluations == len(result.history.cost) + sum(
        int(state.evaluations) for state in (tournament, warm_up)
    )
    assert len(result.history.cost) == counts["trust region"]
    assert int(warm_up.iteration) == counts["warm-up"] - 1
    assert result.history.cost.min() == pytest.approx(result.fun, rel=1e-12)
    assert {"tournament", "warm-up", "solver"} <= set(dict(result.timings))
    assert min(dict(result.timings).values()) > 0
    assert int(tournament.round) == 3


class WithEmptyChunks(AbstractSource):
    """Chunks of which every second has no weight at all and holds what is no number."""

    def chunks(self):
        for x, y, sigma in pieces():
            missing = 400 - y.size
            full = [np.concatenate([a, np.repeat(a[-1:], missing)]) for a in (x, y, 1 / sigma)]
            full[2][400 - missing :] = 0.0
            group = np.zeros(400, np.int32)
            yield Chunk(np.full(400, np.nan), np.full(400, np.inf), np.zeros(400), group)
            yield Chunk(*full, group)

    @property
    def length(self):
        return N


def test_chunks_without_weight_change_nothing(whole):
    plain = HybridOptimiser(warm_up=WARM_UP, chunk=400)
    wanted, found = fit(optimiser=plain), fit(optimiser=plain, source=WithEmptyChunks())
    np.testing.assert_array_equal(found.x, wanted.x)
    assert found.n_pairs == N
    # Drawing a sample meets them too; other random numbers go to the other points.
    assert fit(source=WithEmptyChunks()).fun == pytest.approx(whole[0].fun, rel=1e-9)


PROGRAM = """
import os, signal, sys
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
from xpcs_eqx.checkpoint import Checkpoints
from xpcs_eqx.hybrid import HybridOptimiser, Tournament, WarmUp

folder, kill = sys.argv[1], int(sys.argv[2])
x = np.linspace(0, 4, 1000)
y = 2.0 * np.exp(-1.3 * x) + 0.01 * np.sin(40 * x)
left = [kill]

def model(x, amplitude, rate):
    return amplitude * jnp.exp(-rate * x)

def callback(state):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

optimiser = HybridOptimiser(
    tournament=Tournament(4, rounds=2, batch=100),
    warm_up=WarmUp(minimum=8, max_iterations=8),
    chunk=300,
)
result = optimiser.fit((x, y), model, [1.0, 0.2], callback=callback,
                       checkpoints=Checkpoints(folder), every=2, resume=True)
print(result.x.tobytes().hex(), -1 - left[0], left[0])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.long
def test_a_process_that_is_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))

    def run(folder, kill):
        return subprocess.run(
            [sys.executable, program, tmp_path / folder, str(kill)],
            capture_output=True,
            text=True,
            check=False,
        )

    whole = run("whole", -1)
    assert whole.returncode == 0, whole.stderr
    wanted, passes, _ = whole.stdout.split()
    for kill in (4, 6):
        assert run("killed", kill).returncode == -signal.SIGKILL
    end = run("killed", -1)
    assert end.returncode == 0, end.stderr
    found, _, left = end.stdout.split()
    assert found == wanted
    # It went on where it was: fewer passes were left than a whole fit takes.
    assert -1 - int(left) < int(passes) - 4
