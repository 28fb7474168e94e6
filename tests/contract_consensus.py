"""The table of `contract.py` for sampling in shards."""

from functools import cache

import jax
import numpy as np
from contract import Case, small_data, small_objective
from contract_streaming import MODULES, RECORDS

from xpcs_eqx import bayes
from xpcs_eqx.bayes.nuts.chains import Draws
from xpcs_eqx.bayes.posterior import posterior_of
from xpcs_eqx.bayes.shards import combiners, compare, correction, division
from xpcs_eqx.bayes.shards.division import Shards, pairs_of, split_pairs
from xpcs_eqx.bayes.workers.base import Attempt, Outcome, ResultStore, Task
from xpcs_eqx.objective import HeldExecutor, tiles_of

KEY = jax.random.key(0)
NAMES = ("a", "b")
NOTHING = compare.CrossShard((), (), (), ())
ATTEMPT = Attempt("timeout", "not done after 3600 s", 3600.0)


@cache
def shards():
    pairs = pairs_of(tiles_of(small_data()))
    return split_pairs(pairs, 2, True, KEY, size=bayes.NumberOfShards(3))[0]


@cache
def draws():
    return combiners.shard_draws(np.random.default_rng(0).normal(size=(3, 20, 2)), NAMES)


@cache
def combined():
    return bayes.ConsensusAverage()(draws(), KEY)


@cache
def posterior():
    density, theta = bayes.log_posterior(small_objective())
    rng, size = np.random.default_rng(0), (2, 20)
    entries = theta * (1 + 0.01 * rng.normal(size=(*size, theta.size)))
    numbers = [rng.normal(size=size) for _ in range(3)]
    no, ones = np.zeros(size, bool), np.ones(size, int)
    return posterior_of(
        density,
        entries,
        np.ones((*size, 3, 2)),
        Draws(entries, numbers[0], no, numbers[1], ones, ones, np.ones(size), entries),
        step_size=0.5,
        metric=np.eye(theta.size),
        fit=None,
    )


def result():
    return compare.ShardResults(
        division=shards(),
        draws=draws(),
        combined=combined(),
        comparison=compare.compare_shards(draws().draws, NAMES),
        plan=division.Plan(100, 200, 0.1),
        dropped=((2, "timeout"),),
        table=(row(),),
        pareto_k=0.2,
    )


def row():
    return compare.ShardRow(2, 36, "done", (ATTEMPT,), 1.0, False, 1.0, 300.0, 0.0)


MODULES |= {
    bayes.Consensus: Case(lambda: bayes.Consensus(size=bayes.NumberOfShards(3)), text=3000),
    bayes.DaskWorkers: Case(bayes.DaskWorkers),
    bayes.ExecutorWorkers: Case(lambda: bayes.ExecutorWorkers(HeldExecutor())),
    bayes.JobSettings: Case(lambda: bayes.JobSettings("slurm")),
    bayes.NumberOfShards: Case(lambda: bayes.NumberOfShards(3)),
    bayes.PairsPerShard: Case(lambda: bayes.PairsPerShard(100)),
    ResultStore: Case(lambda: ResultStore("folder")),
    Shards: Case(shards),
    compare.ShardResults: Case(result, text=20000),
}
RECORDS |= {
    Attempt: lambda: ATTEMPT,
    compare.BimodalSummary: lambda: compare.BimodalSummary("D0", (1,), 1.0, 2.0, 0.0, 0.0, 2, 0),
    compare.CoOccurrence: lambda: compare.CoOccurrence("D0", "alpha", 1, 2),
    combiners.Combined: combined,
    correction.Corrected: lambda: correction.Corrected(np.ones((3, 2)), 0.2, 2.5, ("as told",)),
    compare.CrossShard: lambda: NOTHING,
    compare.Heterogeneity: lambda: compare.Heterogeneity("D0", 0.1, 1.0),
    Outcome: lambda: Outcome(2, {"draws": np.ones(3)}, (ATTEMPT,), 1.0, False),
    division.Plan: lambda: division.Plan(100, 200, 0.1),
    combiners.ShardDraws: draws,
    compare.ShardRow: row,
    Task: lambda: Task(1, 0, 5000),
}
