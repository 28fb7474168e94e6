"""Shards in processes and on executors, with planted failures."""

import concurrent.futures
import dataclasses
import gc
import multiprocessing
import os

import numpy as np
import pytest
from helpers_shards import Scripted, Unreadable

from xpcs_eqx.bayes.workers import processes
from xpcs_eqx.bayes.workers.base import Limits, run_shards
from xpcs_eqx.bayes.workers.executor import DaskWorkers, ExecutorWorkers, JobSettings
from xpcs_eqx.bayes.workers.processes import SpawnedProcesses
from xpcs_eqx.errors import FitError, ModelError

DATA = np.arange(20000.0)


def _work(tmp_path, script):
    return Scripted(str(tmp_path), script, DATA)


def _check_rest(run, bad):
    for one in run.outcomes:
        if one.number in bad:
            continue
        assert one.result is not None, one.reason
        assert float(one.result["draws"][0]) == one.number
        assert float(one.result["sum"]) == DATA.sum()
        assert bool(one.result["mapped"])
        assert bool(one.result["double"])


@pytest.mark.long
def test_each_loss_of_a_process_costs_one_attempt(tmp_path):
    """Killed, hanging, crawling, and a process that ends by itself; the rest is intact."""
    script = {0: ("killed", 9), 1: ("hang", 9), 2: ("crawl", 9), 3: ("exit", 0), 4: ("crash", 9)}
    limits = Limits(timeout=4.0, heartbeat=2.0, retries=1, success=0.3)
    sizes = [20 - k for k in range(9)]
    run = run_shards(_work(tmp_path, script), sizes, SpawnedProcesses(2, str(tmp_path)), limits)
    reasons = {one.number: one.reason for one in run.outcomes}
    assert reasons[0] == "crashed: its process ended by signal SIGKILL (out of memory?)"
    assert reasons[1] == "stalled: no progress for 2 s"
    assert reasons[2] == "timeout: not done after 4 s"
    assert reasons[3] == "crashed: its process ended with exit code 7"
    assert reasons[4] == "crashed: ValueError: a planted error"
    assert int(run.outcomes[3].result["attempt"]) == 1
    assert run.categories() == {"timeout": 1, "stalled": 1, "crashed": 2}
    _check_rest(run, {0, 1, 2, 4})
    # Shared arrays, and processes, are gone.
    assert all(name.startswith("ran-") for name in os.listdir(tmp_path))
    assert not multiprocessing.active_children()


def test_work_that_cannot_be_read_is_an_error_at_once(tmp_path):
    with pytest.raises(FitError, match=r"no module named 'notebook'.*can be imported"):
        run_shards(Unreadable(), [1], SpawnedProcesses(1))  # pyright: ignore[reportArgumentType]
    assert not multiprocessing.active_children()


def test_any_executor_will_do(tmp_path):
    script = {1: ("crash", 0), 3: ("slow", 9)}
    with concurrent.futures.ThreadPoolExecutor(3) as executor:
        workers = ExecutorWorkers(executor, slots=3, folder=str(tmp_path))
        limits = Limits(timeout=0.5, retries=0)
        run = run_shards(_work(tmp_path, script), [5] * 5, workers, limits)
    assert run.outcomes[1].reason == "crashed: ValueError: a planted error"
    assert run.outcomes[3].reason == "timeout: not done after 0.5 s"
    _check_rest(run, {1, 3})


@pytest.mark.slow
def test_a_broken_pool_ends_with_its_reason(tmp_path):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        run = run_shards(
            _work(tmp_path, {1: ("killed", 9)}),
            [5, 4, 3],
            ExecutorWorkers(executor, slots=1, folder=str(tmp_path)),
            Limits(retries=1),
        )
    assert run.outcomes[0].result is not None
    for number in (1, 2):
        assert run.outcomes[number].result is None
        assert run.outcomes[number].reason.startswith("crashed: the executor")


@pytest.mark.slow
def test_a_local_dask_cluster_samples_shards(tmp_path):
    pytest.importorskip("distributed")
    workers = DaskWorkers(processes=1, folder=str(tmp_path))
    run = run_shards(_work(tmp_path, {1: ("crash", 0)}), [5] * 3, workers, Limits())
    assert int(run.outcomes[1].result["attempt"]) == 1
    _check_rest(run, set())


def test_job_scripts_say_what_was_asked_for():
    pytest.importorskip("dask_jobqueue")
    slurm = JobSettings(
        "slurm",
        jobs=3,
        cores=32,
        processes=16,
        memory="128GB",
        queue="xpcs",
        account="beamtime-7",
        walltime="02:30:00",
        interface=None,
        directives=("-m n",),
        prologue=("module load python",),
    )
    chosen = dataclasses.replace(slurm, system="pbs", resources="select=1:ncpus=32:mem=128gb")
    pbs = chosen.job_script()
    for line in (
        "#PBS -q xpcs",
        "#PBS -A beamtime-7",
        "#PBS -l walltime=02:30:00",
        "#PBS -l select=1:ncpus=32:mem=128gb",
        "#PBS -m n",
        "module load python",
    ):
        assert line in pbs.splitlines(), pbs
    assert "--nworkers 16 " in pbs
    slurm = slurm.job_script()
    for line in ("#SBATCH -p xpcs", "#SBATCH -A beamtime-7", "#SBATCH -t 02:30:00"):
        assert line in slurm.splitlines(), slurm
    assert "#SBATCH --cpus-per-task=32" in slurm
    assert DaskWorkers(chosen).slots == 48
    assert DaskWorkers(processes=3).slots == 3


def test_bad_settings_are_refused():
    with pytest.raises(ModelError, match="8 processes on 4 cores"):
        JobSettings("pbs", cores=4, processes=8)
    with pytest.raises(ModelError, match="jobs is 0"):
        JobSettings("pbs", jobs=0)
    with pytest.raises(ModelError, match="processes is 0"):
        DaskWorkers(processes=0)
    with pytest.raises(ModelError, match="no batch system 'sge'"):
        JobSettings("sge")
    with pytest.raises(ModelError, match="resources belong to PBS"):
        JobSettings("slurm", resources="select=1")
    with pytest.raises(ModelError, match=r"count is -1; .* one a core"):
        SpawnedProcesses(-1)


def test_a_process_that_cannot_be_started_leaves_none_behind(tmp_path, monkeypatch):
    made, ended = [], []

    class Started:
        def __init__(self, *_):
            if len(made) == 2:
                raise OSError("no more processes")
            made.append(self)

        def end(self):
            ended.append(self)

    monkeypatch.setattr(processes, "_Process", Started)
    with pytest.raises(OSError, match="no more processes"):
        run_shards(_work(tmp_path, {}), [1] * 3, SpawnedProcesses(3, str(tmp_path)))
    assert sorted(map(id, ended)) == sorted(map(id, made))
    assert len(made) == 2


def test_nothing_keeps_shared_arrays_after_a_run(tmp_path):
    """Not even in an executor that stays open."""
    work = Scripted(str(tmp_path), {}, DATA)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        run_shards(work, [1, 2], ExecutorWorkers(executor, folder=str(tmp_path)))
        gc.collect()
        maps = [one for one in gc.get_objects() if isinstance(one, np.memmap)]
        mine = [one for one in maps if str(one.filename).startswith(str(tmp_path))]
        assert mine == []
