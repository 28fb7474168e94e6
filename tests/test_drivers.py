"""The same sum by threads, processes and Dask, and what is said when workers fail."""

import copy
import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import helpers_drivers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, LOSSES, TRANSPORT, assert_close, make_data, mapped, pooled, start_off
from helpers_drivers import Backwards

import xpcs_eqx as xe
from xpcs_eqx import cores
from xpcs_eqx.data import from_chunks, open_stored, write_own
from xpcs_eqx.inherited import Inherited
from xpcs_eqx.objective import StoredTiles, source_of
from xpcs_eqx.objective.drivers.executor import share_out
from xpcs_eqx.objective.drivers.loops import shares_of

N = 40
SAME = 1e-12


@pytest.fixture(scope="module")
def data():
    return make_data(n=N, diagonal=True)


@pytest.fixture(scope="module")
def path(data, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("maps") / "maps.h5")
    write_own(path, data)
    return path


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


def objective_of(data, **keywords):
    keywords = {"tile": 9, **keywords}
    return xe.two_time_objective(mapped(start_off(LAMINAR, 1.2), data), data, **keywords)


def evaluated(objective):
    y = objective.variables.to_coordinates(jnp.asarray(objective.start))
    return objective.evaluate(y, objective.memo)


def assert_same(found, wanted, tolerance=SAME):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert_close(one, other, tolerance)


def identical(one, other):
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.mark.parametrize("kind", ["maps", "file"])
def test_any_number_of_cores_gives_the_same_bits(data, path, monkeypatch, kind):
    objective = objective_of(data if kind == "maps" else open_stored(path), piece=1)
    assert objective.in_parts
    found = []
    for count in (1, 2, 4):
        monkeypatch.setenv(cores.VARIABLE, str(count))
        found.append(evaluated(objective))
    assert identical(found[0], found[1])
    assert identical(found[0], found[2])
    if kind == "maps":
        y = objective.variables.to_coordinates(jnp.asarray(objective.start))
        whole = jax.jit(lambda y: objective.evaluate(y, objective.memo))(y)
        assert_same(found[0], whole)


def test_a_sum_keeps_all_cores_at_work(monkeypatch):
    together = threading.Barrier(3, timeout=10)
    monkeypatch.setenv(cores.VARIABLE, "3")
    # Each waits for the two others.
    assert list(cores.in_order(lambda k: (together.wait(), k)[1], range(6))) == [*range(6)]


def test_parts_come_in_order_and_what_they_raise_where_they_would_have_come(monkeypatch):
    monkeypatch.setenv(cores.VARIABLE, "2")
    taken, found = [], []

    def work(k):
        if k == 3:
            raise ValueError("the third")
        return jnp.ones(()).dtype, k

    with jax.enable_x64(False), pytest.raises(ValueError, match="the third"):  # noqa: PT012
        for dtype, k in cores.in_order(work, (taken.append(k) or k for k in range(9))):
            found.append(k)
            assert dtype == jnp.float32
            assert len(taken) - len(found) <= 2
    assert found == [0, 1, 2]


def test_how_many_threads(monkeypatch):
    monkeypatch.delenv(cores.VARIABLE, raising=False)
    assert cores.threads() >= 1
    # Of a process that has a share of the work, all cores are those of all processes.
    sent = pickle.loads(pickle.dumps(Inherited(cores.threads)))
    alone = cores.threads()
    assert (sent(), Inherited(cores.threads)()) == (1, alone)
    # Beside other processes it has its share, and one at least.
    for processes in (1, 2, 100):
        with cores.beside(processes):
            assert cores.threads() == max(1, alone // processes)
    assert cores.threads() == alone
    monkeypatch.setenv(cores.VARIABLE, "3")
    with cores.beside(2):
        assert cores.threads() == 3
    for wrong in ("0", "many", "-1", "1.5"):
        monkeypatch.setenv(cores.VARIABLE, wrong)
        with pytest.raises(xe.ConfigError, match=f"{cores.VARIABLE} is '{wrong}'"):
            cores.threads()


STARTED = """
import json, os, sys
from xpcs_eqx import cores
allowed = os.sched_getaffinity(0)
cores.start_beside(int(sys.argv[1]))
import jax
jax.devices()
tasks = [int(task) for task in os.listdir("/proc/self/task")]
free = all(os.sched_getaffinity(task) == allowed for task in tasks)
print(json.dumps({"free": free, "threads": len(tasks)}))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are told apart on Linux")
def test_jax_beside_other_processes_has_threads_for_its_share_that_may_run_anywhere():
    cores_here = len(os.sched_getaffinity(0))

    def started(processes):
        command = [sys.executable, "-c", STARTED, str(processes)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return json.loads(told)

    alone, beside = started(1), started(cores_here)
    assert alone["free"]
    assert beside["free"]
    assert beside["threads"] < alone["threads"] or cores_here == 1


@pytest.mark.parametrize("n", [1, 7, 8, 9, 15, 16, 17, 63, 64, 165, 511, 512, 513, 4950])
def test_shares_are_of_one_length_and_none_is_small(n):
    tiles = SimpleNamespace(table=np.zeros((n, 3), int))
    shares = shares_of(tiles)
    lengths = [end - first for first, end in shares]
    assert shares[0][0] == 0
    assert shares[-1][1] == n
    assert all(a[1] == b[0] for a, b in itertools.pairwise(shares))
    assert len(shares) <= 64
    if len(shares) > 1:
        # The last may be what is left, but no core waits for one of twice its length.
        assert max(lengths) >= 8
        assert len(set(lengths[:-1])) == 1


@pytest.mark.parametrize("kind", ["maps", "points", "file"])
def test_threads_sum_data_in_memory_and_in_a_file(data, path, threads, kind):
    given = {"maps": data, "points": pooled(data), "file": open_stored(path)}[kind]
    loss = LOSSES["huber" if kind == "maps" else "linear"]
    serial, shared = (
        objective_of(given, driver=driver, loss=loss, piece=1)
        for driver in (xe.objective.HostLoop(), xe.ExecutorSum(threads, workers=2))
    )
    found = evaluated(shared)
    assert_same(found, evaluated(serial))
    assert identical(found, evaluated(shared))
    if kind == "maps":
        y = jnp.zeros(shared.start.shape)
        assert_same(shared.cost(y, shared.memo), serial.cost(y, serial.memo))


def test_whoever_finishes_first_the_sum_is_the_same(path):
    lazy = open_stored(path)
    wanted = evaluated(objective_of(lazy, piece=1))[0]
    executor = Backwards()
    objective = objective_of(lazy, piece=1, driver=xe.ExecutorSum(executor, workers=2))
    found = evaluated(objective)[0]
    assert_same(found, wanted)
    # What travels is small, and repeats itself but for the numbers.
    parcels = {len(pickle.dumps(arguments)) for arguments in executor.asked}
    assert len(parcels) <= 2
    assert max(parcels) < 40_000
    assert identical(found, evaluated(objective)[0])
    assert len({arguments[0] for arguments in executor.asked}) == 1
    backwards = Backwards([OSError("the net is down")])
    objective = objective_of(lazy, piece=1, driver=xe.ExecutorSum(backwards, workers=2))
    assert identical(found, evaluated(objective)[0])


def test_chunks_from_a_factory_are_shared_out(data, threads):
    source = from_chunks(Rows(np.asarray(data.c2)), data.t, data.geometry)
    keywords = {"reference": np.array([[0.2, 1.0]] * 3)}
    wanted = evaluated(objective_of(source, **keywords))[0]
    for executor in (threads, Backwards()):
        driver = xe.ExecutorSum(executor, workers=2)
        assert_same(evaluated(objective_of(source, driver=driver, **keywords))[0], wanted)


class Rows:
    def __init__(self, c2):
        self.c2 = c2

    def __call__(self):
        for low in range(0, N, 7):
            rows = np.arange(low, min(low + 7, N))
            yield xe.Tile(np.arange(3), rows, np.arange(N), self.c2[:, rows])


@pytest.mark.parametrize(("n", "workers"), [(1, 1), (7, 2), (25, 2), (1000, 3), (5, 64)])
def test_shares_fall_in_length_and_cover_everything(n, workers):
    shares = share_out(n, workers)
    assert [k for share in shares for k in share] == list(range(n))
    lengths = [len(share) for share in shares]
    # The last one takes what is left.
    assert lengths == sorted(lengths, reverse=True)
    assert len(shares) >= min(n, 2 * workers)
    assert len(shares) <= 20 * workers


def test_an_executor_stays_behind(path, threads):
    driver = xe.ExecutorSum(threads, workers=2)
    assert copy.deepcopy(driver) == driver
    assert driver != xe.ExecutorSum(Backwards(), workers=2)
    objective = objective_of(open_stored(path), piece=1, driver=driver)
    away = pickle.loads(pickle.dumps(objective))
    assert "ThreadPool" not in repr(away.term.driver)
    assert identical(evaluated(away)[0], evaluated(objective)[0])


def test_what_cannot_be_sent_is_refused(data, path):
    with pytest.raises(xe.ConfigError, match="int, which has no `submit`"):
        xe.ExecutorSum(3)
    with pytest.raises(xe.ConfigError, match="workers = 0"):
        xe.ExecutorSum(Backwards(), workers=0)
    driver = xe.ExecutorSum(Backwards(), workers=2)
    with pytest.raises(xe.ModelError, match=r"write_own.*open_stored"):
        objective_of(data, driver=driver)
    lazy = open_stored(path)
    ties = {"alpha": lambda values: values["D_offset"] * 0.0}
    parameters = mapped(LAMINAR, lazy, ties=ties)
    objective = xe.projected_objective(parameters, lazy, driver=driver)
    assert np.isfinite(evaluated(objective)[0].cost)
    with pytest.raises(xe.ModelError, match="defined at the top of a module"):
        driver.sum(lambda args, block: args, jnp.ones(()), objective.term.tiles, jnp.zeros(3))
    with pytest.raises(xe.ModelError, match="compiled or differentiated"):
        jax.grad(lambda y: objective.cost(y, objective.memo))(jnp.zeros(6))


@pytest.mark.parametrize("share", [0, -1])
def test_failures_say_where(path, share):
    lazy = open_stored(path)

    def cost(failures):
        driver = xe.ExecutorSum(Backwards(failures), workers=2)
        return evaluated(objective_of(lazy, piece=1, driver=driver))[0].cost

    where = r"maps\.h5, pieces 1 … 4 of 15: "
    with pytest.raises(xe.FitError, match=where + r".*failed twice \(OSError: the net"):
        cost([OSError("the net is down")] * 40)
    with pytest.raises(xe.ModelError, match=r"pieces \d+ … \d+ of 15: no sense"):
        cost([xe.ModelError("no sense of time")])


def test_an_executor_that_was_shut_down(path):
    pool = ThreadPoolExecutor(1)
    objective = objective_of(open_stored(path), driver=xe.ExecutorSum(pool))
    pool.shutdown()
    with pytest.raises(xe.FitError, match="takes no work: cannot schedule new futures"):
        evaluated(objective)


# --- processes -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_find_what_one_process_finds(path, processes):
    lazy = open_stored(path)
    driver = xe.ExecutorSum(processes, workers=2)
    serial, shared = objective_of(lazy, piece=1), objective_of(lazy, piece=1, driver=driver)
    assert_same(evaluated(shared), evaluated(serial))
    one, other = xe.least_squares(serial), xe.least_squares(shared)
    assert other.success
    assert other.evaluations == one.evaluations
    for row, same in zip(one.rows, other.rows, strict=True):
        assert abs(row.value - same.value) < 1e-6 * row.error
        assert_close(same.error, row.error, 1e-6)


def test_workers_compile_once_and_keep_their_precision(path, processes):
    tiles = source_of(open_stored(path), tile=9, piece=1)
    driver = xe.ExecutorSum(processes, workers=2)
    upper = np.triu(np.ones((N, N)), 1)
    maps = np.stack([open_stored(path).angle(a).c2[0] for a in range(3)])
    for factor in (2.0, 3.0, 4.0):
        total = driver.sum(helpers_drivers.counted, jnp.asarray(factor), tiles, jnp.zeros(3))
        np.testing.assert_allclose(total, factor * np.sum(maps * upper, axis=(1, 2)), rtol=1e-12)
    for _, compiled, precision in processes.map(helpers_drivers.compilations, range(8)):
        assert compiled <= 1
        assert precision == "float32"


@pytest.mark.long
def test_errors_of_processes(path, processes, tmp_path):
    moved = str(tmp_path / "gone.h5")
    shutil.copy(path, moved)
    driver = xe.ExecutorSum(processes, workers=1)
    objective = objective_of(open_stored(moved), piece=1, driver=driver)
    tiles = objective.term.tiles
    assert isinstance(tiles, StoredTiles)
    with pytest.raises(xe.ModelError, match=r"gone\.h5, pieces 1 … 8 of 15: the model has no"):
        driver.sum(helpers_drivers.wrong, jnp.ones(()), tiles, jnp.zeros(3))
    os.remove(moved)
    with pytest.raises(xe.DataError, match=r"pieces 1 … 8 of 15: .*gone\.h5: rows 1 … 9 of"):
        evaluated(objective)


@pytest.mark.long
def test_a_killed_worker_ends_the_fit_with_its_checkpoint_kept(path, tmp_path):
    lazy = open_stored(path)
    start = mapped(start_off(xe.Static(TRANSPORT), 1.3), lazy)
    # Of other errors, which take a pass of their own, it says nothing.
    fitted = partial(xe.least_squares, errors="classical")
    wanted = fitted(xe.projected_objective(start, lazy, tile=9, piece=1))
    checkpoints = xe.Checkpoints(str(tmp_path / "states"), interval=3600.0)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        driver = xe.ExecutorSum(pool, workers=1)
        objective = xe.projected_objective(start, lazy, tile=9, piece=1, driver=driver)

        def kill(state):
            if int(state.evaluations) == 3:
                pool.submit(helpers_drivers.deadly, None, None)

        with pytest.raises(xe.FitError, match=r"died.*Start a new executor.*resume"):
            fitted(objective, checkpoints=checkpoints, callback=kill)
    assert len(checkpoints.paths()) == 1
    with ThreadPoolExecutor(1) as pool:
        driver = xe.ExecutorSum(pool, workers=1)
        objective = xe.projected_objective(start, lazy, tile=9, piece=1, driver=driver)
        fit = fitted(objective, checkpoints=checkpoints, resume=True)
    assert fit.evaluations == wanted.evaluations
    assert_close(fit.values, wanted.values, 1e-9)


# --- machines ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dask():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.long
def test_dask_finds_what_one_process_finds(path, dask):
    lazy = open_stored(path)
    driver = xe.ExecutorSum(dask.get_executor(), workers=2)
    start = mapped(start_off(xe.Static(TRANSPORT), 1.3), lazy)
    serial, shared = (
        xe.projected_objective(start, lazy, tile=9, piece=1, driver=one) for one in (None, driver)
    )
    assert_same(evaluated(shared)[1].equations, evaluated(serial)[1].equations)
    with pytest.raises(xe.ModelError, match=r"pieces \d+ … \d+ of 15: the model has no"):
        driver.sum(helpers_drivers.wrong, jnp.ones(()), shared.term.tiles, jnp.zeros(3))
