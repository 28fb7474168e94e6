"""Retries, categories, early stop, storage: with stand-ins, in one process."""

import itertools
import os
import pickle
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers_shards import Scripted, bent_problem, is_mapped

from xpcs_eqx.bayes import (
    Consensus,
    GivenSigma,
    Normal,
    NumberOfShards,
    Nuts,
    PlainStart,
    consensus,
)
from xpcs_eqx.bayes.shards import work as consensus_work
from xpcs_eqx.bayes.shards.work import ChainSettings, for_attempt
from xpcs_eqx.bayes.workers.base import (
    Limits,
    ResultStore,
    Serial,
    ShardFailure,
    Task,
    accepted,
    dump_shared,
    load_shared,
    run_shards,
)
from xpcs_eqx.bayes.workers.executor import ExecutorWorkers
from xpcs_eqx.errors import CheckpointError, ConfigError, FitError, ModelError

PRIOR = {"slope": Normal(0.6, 0.02), "bend": Normal(-0.06, 0.002)}


def _run(tmp_path, script, count=4, limits=None, **keywords):
    folder = tmp_path / "ran"
    folder.mkdir(exist_ok=True)
    work = Scripted(str(folder), script, np.ones(4))
    return run_shards(work, [10] * count, Serial(), limits, **keywords)


def _ran(tmp_path):
    return sorted(os.listdir(tmp_path / "ran"))


def test_results_come_by_number_and_the_largest_shard_goes_first(tmp_path):
    order = []

    def work(task: Task, beat):
        order.append(task.size)
        return {"draws": np.asarray(float(task.number))}

    seen = []
    run = run_shards(work, [3, 9, 5], Serial(), callback=seen.append)
    assert order == [9, 5, 3]
    assert [one.number for one in run.outcomes] == [0, 1, 2]
    assert [float(one.result["draws"]) for one in run.done] == [0, 1, 2]
    assert len(seen) == 3
    assert run.success_rate == 1
    assert accepted(run, Limits()) == ()


def test_a_failure_is_retried_and_named(tmp_path):
    script = {1: ("not_converged", 1), 2: ("crash", 99)}
    run = _run(tmp_path, script, limits=Limits(success=0.5))
    good, bad = run.outcomes[1], run.outcomes[2]
    assert int(good.result["attempt"]) == 2
    assert [one.category for one in good.failures] == ["not_converged"] * 2
    assert bad.result is None
    assert len(bad.failures) == 4
    assert bad.reason == "crashed: ValueError: a planted error"
    assert run.categories() == {"crashed": 1}
    assert _ran(tmp_path).count("ran-2-3") == 1
    notes = accepted(run, Limits(success=0.5))
    assert "shard 1 after not_converged: R-hat above 1.05: D0 (1.4)" in notes[0]
    assert "shard 2 dropped after 4 attempts: crashed: ValueError" in notes[1]
    assert "only 75 % of the shards succeeded" in notes[2]


def test_a_further_attempt_has_another_key_smaller_steps_and_a_longer_warm_up():
    sampler, key = Nuts(chains=2, warmup=100), jax.random.key(1)
    first = ChainSettings(np.ones((2, 3)), 0.4, np.eye(3), 0.8, sampler, key)
    tries = [for_attempt(first, Task(5, attempt, 10)) for attempt in range(4)]
    assert [one.sampler.warmup for one in tries] == [100, 200, 300, 400]
    np.testing.assert_allclose([one.target for one in tries], [0.8, 0.9, 0.95, 0.975])
    np.testing.assert_allclose([one.step_size for one in tries], [0.4, 0.2, 0.1, 0.05])
    np.testing.assert_allclose([one.positions[1, 2] for one in tries], [1, 0.5, 0.25, 0.125])
    assert {(one.sampler.chains, one.sampler.draws) for one in tries} == {(2, 1500)}
    others = [for_attempt(first, Task(6, attempt, 10)) for attempt in range(4)]
    keys = [tuple(jax.random.key_data(one.key).tolist()) for one in (*tries, *others, first)]
    assert len(set(keys)) == 9


def test_chains_of_a_shard_are_run_as_its_attempt_asks(monkeypatch):
    given = []

    def refusing(density, settings, callback):
        positions, step_size, _, target, sampler, key = settings
        given.append((positions, step_size, target, sampler.warmup, jax.random.key_data(key)))
        raise FitError("the log density is not finite")

    monkeypatch.setattr(consensus_work, "run_chains", refusing)
    with pytest.raises(FitError, match="non_finite"):
        consensus(
            bent_problem(priors=PRIOR)[0],
            PRIOR,
            method=Consensus(size=NumberOfShards(1), limits=Limits(retries=2)),
            noise=GivenSigma(0.5),
            sampler=Nuts(warmup=500),
            start=PlainStart(),
        )
    assert len(given) == 3
    for before, after in itertools.pairwise(given):
        np.testing.assert_allclose(after[0], before[0] * 0.5)
        assert after[1] == 0.5 * before[1]
        assert after[2] == pytest.approx(0.5 * (1 + before[2]))
        assert after[3] > before[3]
        assert np.any(np.asarray(after[4]) != np.asarray(before[4]))


def test_too_few_successes_are_refused(tmp_path):
    run = _run(tmp_path, {0: ("non_finite", 9)}, count=10, limits=Limits(retries=0))
    assert len(accepted(run, Limits())) == 1
    run = _run(tmp_path, {0: ("non_finite", 9)}, count=9, limits=Limits(retries=0))
    with pytest.raises(FitError, match=r"8 of 9 shards succeeded.*non_finite 1\).*shard 0: non"):
        accepted(run, Limits())
    assert len(accepted(run, Limits(success=0.8))) == 1


def test_draws_that_are_not_finite_are_a_failure():
    def work(task, beat):
        return {"draws": np.array([1.0, np.nan])}

    run = run_shards(work, [1], Serial(), Limits(retries=0))
    assert run.outcomes[0].reason == "non_finite: draws is not finite"


def test_many_early_failures_stop_the_run(tmp_path):
    script = dict.fromkeys(range(12), ("crash", 9))
    run = _run(tmp_path, script, count=30, limits=Limits(retries=0))
    assert run.stopped == "stopped early: 6 of the first 6 shards to end were dropped"
    assert len(_ran(tmp_path)) == 6
    with pytest.raises(FitError, match=r"stopped early.*crashed 6"):
        accepted(run, Limits(success=0.0))
    # Half of them is not more than half.
    script = dict.fromkeys(range(5), ("crash", 9))
    assert _run(tmp_path, script, count=12, limits=Limits(retries=0)).stopped == ""


def test_limits_of_time_hold_in_one_process_where_progress_is_reported(tmp_path):
    limits = Limits(timeout=0.3, retries=0)
    run = _run(tmp_path, {1: ("crawl", 0)}, limits=limits)
    assert run.outcomes[1].reason == "timeout: not done after 0.3 s"
    assert len(run.done) == 3


def test_finished_shards_are_not_sampled_again(tmp_path):
    store = ResultStore(str(tmp_path / "kept"), "this problem")
    first = _run(tmp_path, {2: ("crash", 9)}, limits=Limits(retries=0), store=store)
    assert len(first.done) == 3
    for name in _ran(tmp_path):
        os.unlink(tmp_path / "ran" / name)
    again = _run(tmp_path, {}, store=store)
    assert _ran(tmp_path) == ["ran-2-0"]
    assert [one.resumed for one in again.outcomes] == [True, True, False, True]
    assert float(again.outcomes[3].result["draws"][0]) == 3
    assert "3 shards were read from an earlier run" in again.notes()
    with pytest.raises(CheckpointError, match="another problem"):
        _run(tmp_path, {}, store=ResultStore(store.folder, "another"))


def test_a_damaged_result_is_named(tmp_path):
    store = ResultStore(str(tmp_path), "x")
    store.save(1, {"draws": np.zeros(2000)})
    content = Path(store.path(1)).read_bytes()
    for broken in (content[:600], b"", b"nothing"):
        Path(store.path(1)).write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"shard-00001\.h5: .*remove it"):
            store.load(1)
    assert store.load(0) is None


def test_large_arrays_are_shared_once(tmp_path):
    large, small = np.arange(20000.0), np.arange(3)
    dump_shared(str(tmp_path), {"a": large, "b": [large, small], "f": np.zeros((200, 200), "f4")})
    assert sorted(os.listdir(tmp_path)) == ["array-000", "array-001", "work.pickle"]
    found = load_shared(str(tmp_path))
    assert is_mapped(found["a"])
    assert not is_mapped(small)
    assert not found["a"].flags.writeable
    np.testing.assert_array_equal(found["b"][0], large)
    assert found["f"].dtype == np.float32
    np.testing.assert_array_equal(found["b"][1], small)


def test_bad_limits_are_refused():
    for name in ("timeout", "heartbeat"):
        for value in (0, -1.0, float("nan")):
            with pytest.raises(ModelError, match=f"{name} is .*above zero, or no shard"):
                Limits(**{name: value})
    with pytest.raises(ModelError, match="retries is -1"):
        Limits(retries=-1)
    with pytest.raises(ModelError, match="from 0 to 1"):
        Limits(success=1.5)
    with pytest.raises(ConfigError, match="int, which has no `submit`"):
        ExecutorWorkers(3)


def test_a_slow_shard_that_reports_has_not_stalled(tmp_path):
    """In this process nothing else can be known of it: it is not thrown away as it reports."""

    def work(task, beat):
        time.sleep(0.2)
        beat()
        return {"draws": np.zeros(3)}

    run = run_shards(work, [1], Serial(), Limits(retries=0, heartbeat=0.05))
    assert run.outcomes[0].result is not None
    late = run_shards(work, [1], Serial(), Limits(retries=0, timeout=0.05))
    assert late.outcomes[0].reason == "timeout: not done after 0.05 s"


def test_a_failure_of_a_shard_reads_well():
    failure = ShardFailure("timeout", "not done after 3 s")
    assert str(failure) == "timeout: not done after 3 s"
    again = pickle.loads(pickle.dumps(failure))
    assert (again.category, again.reason) == (failure.category, failure.reason)
