"""Work on other threads is done under the settings of JAX of whoever asks for it."""

import importlib
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Stretched, make_data, mapped

import xpcs_eqx as xe
from xpcs_eqx.bayes.nuts import nuts
from xpcs_eqx.bayes.workers import executor as executors
from xpcs_eqx.data import open_stored, write_own
from xpcs_eqx.fitting import sequential, sequential_least_squares
from xpcs_eqx.inherited import Inherited, received
from xpcs_eqx.objective import read_ahead
from xpcs_eqx.search import OverExecutor, local_fits

# Its name in the package is that of the function.
solving = importlib.import_module("xpcs_eqx.fitting.solve")


def settings():
    config = jax.config
    return config.jax_enable_x64, config.jax_default_matmul_precision, config.jax_default_device


@pytest.fixture
def single():
    """The whole process in single precision, as every one begins."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


@pytest.fixture
def marked():
    """Settings of this thread alone, and what is seen of them elsewhere."""
    with jax.default_matmul_precision("float32"), jax.default_device(jax.devices()[0]):
        yield settings()


def record(monkeypatch, module, name):
    """Settings and thread of each call of a function of a module."""
    seen, function = [], getattr(module, name)

    def recorded(*arguments, **keywords):
        seen.append((settings(), threading.current_thread()))
        return function(*arguments, **keywords)

    monkeypatch.setattr(module, name, recorded)
    return seen


def assert_inherited(seen, wanted):
    assert seen
    assert {found for found, _ in seen} == {wanted}
    assert threading.main_thread() not in {thread for _, thread in seen}


def test_every_setting_goes_with_the_work_and_none_stays(marked):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(Inherited(settings)).result() == marked
        assert pool.submit(settings).result() != marked
        with jax.enable_x64(False):
            assert pool.submit(Inherited(lambda x: jnp.asarray(x).dtype, 0.5)).result() == "float32"
        with pytest.raises(ZeroDivisionError):
            pool.submit(Inherited(lambda: 1 / 0)).result()
        assert not pool.submit(lambda: settings()[1]).result()


def double(x, *, key):
    return {"sum": jnp.sum(x) + 1e-12, "same": x, "key": key}


def test_a_call_that_was_pickled_keeps_every_digit(single):
    with jax.enable_x64(True):
        text = pickle.dumps(Inherited(double, jnp.array([1.0, 1e-12]), key=np.float64(0.1)))
    # In a process that has single precision, and back through one of its threads.
    back = pickle.loads(pickle.dumps(pickle.loads(text)()))
    with jax.enable_x64(True):
        result = received(back)
        assert result["sum"] - 1 == pytest.approx(2e-12, rel=1e-3)
        assert isinstance(result["same"], jax.Array)
    assert result["same"].dtype == "float64"
    assert result["key"] == 0.1


def test_items_are_made_ahead_in_the_precision_of_the_reader(single):
    items = lambda: (jnp.asarray(1 + 1e-12 * k) for k in range(3))  # noqa: E731
    with jax.enable_x64(True):
        assert [float(one) for one in read_ahead(items())] == [1 + 1e-12 * k for k in range(3)]
    assert {one.dtype for one in read_ahead(items())} == {np.dtype("float32")}


def test_a_file_gives_the_cost_of_the_memory_in_double_precision(single, tmp_path):
    with jax.enable_x64(True):
        data = make_data(Stretched(2.0, 0.8), n=24)
        write_own(tmp_path / "a.h5", data)
        stored = open_stored(tmp_path / "a.h5")
        parameters = mapped(Stretched(1.0, 1.0), data)
        costs = []
        for one, piece in ((data, None), (stored, 4_000)):
            objective = xe.projected_objective(parameters, one, tile=8, piece=piece)
            y = objective.variables.to_coordinates(jnp.asarray(objective.start))
            costs.append(float(objective.evaluate(y, objective.memo)[0].cost))
    assert costs[1] == pytest.approx(costs[0], rel=1e-13)


def test_what_is_compiled_ahead_is_compiled_for_the_fit(marked, monkeypatch):
    seen = record(monkeypatch, solving, "lower_iteration")
    bars = record(monkeypatch, solving, "lower_optimum")
    scores = record(monkeypatch, solving, "lower_scores")
    data = make_data(Stretched(2.0, 0.8), n=12)
    fit = xe.least_squares(xe.projected_objective(mapped(Stretched(1.0, 1.0), data), data))
    assert fit.success
    assert_inherited([*seen, *bars, *scores], marked)


def test_executors_of_fits(marked, monkeypatch):
    data = make_data(Stretched(2.0, 0.8), n=12)
    parameters = mapped(Stretched(1.0, 1.0), data)
    objective = xe.projected_objective(parameters, data)
    fits = record(monkeypatch, local_fits, "_run_one")
    angles = record(monkeypatch, sequential, "_alone")
    with ThreadPoolExecutor(1) as pool:
        starts = np.asarray(objective.start)[None]
        assert OverExecutor(pool).run(objective, starts, xe.TrustRegion()).converged.all()
        sequential_least_squares(parameters, data, executor=pool)
    assert_inherited(fits, marked)
    assert_inherited(angles, marked)


@pytest.mark.long
def test_chains_on_threads(marked, monkeypatch):
    data = make_data(Stretched(2.0, 0.8), n=12)
    fit = xe.least_squares(xe.projected_objective(mapped(Stretched(1.0, 1.0), data), data))
    seen = record(monkeypatch, nuts, "_advance")
    xe.sample(fit, sampler=xe.Nuts(chains=2, warmup=20, draws=4))
    assert_inherited(seen, marked)


def test_a_worker_of_shards_leaves_its_process_as_it_was(single, monkeypatch, tmp_path):
    monkeypatch.setattr(executors, "load_shared", lambda _: lambda *_: {"x": settings()[0]})
    event = executors.call(str(tmp_path), executors.Task(0, 0, 1))
    assert event.result == {"x": True}
    assert not settings()[0]
