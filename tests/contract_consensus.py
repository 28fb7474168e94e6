"""The table of `contract.py` for sampling in shards."""

from functools import cache

import jax
import numpy as np
from contract import Case, small_data, small_objective
from contract_streaming import MODULES, RECORDS

from xpcs_eqx import bayes
from xpcs_eqx.bayes.posterior import posterior_of
from xpcs_eqx.objective import HeldExecutor

KEY = jax.random.key(0)
NAMES = ("a", "b")
NOTHING = bayes.CrossShard((), (), (), ())
ATTEMPT = bayes.Attempt("timeout", "not done after 3600 s", 3600.0)


@cache
def shards():
    pairs = bayes.pairs_of(small_data())
    return bayes.split_pairs(pairs, 2, True, KEY, size=bayes.NumberOfShards(3))[0]


@cache
def draws():
    return bayes.shard_draws(np.random.default_rng(0).normal(size=(3, 20, 2)), NAMES)


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
        bayes.Draws(entries, numbers[0], no, numbers[1], ones, ones, np.ones(size), entries),
        step_size=0.5,
        metric=np.eye(theta.size),
        fit=None,
        max_depth=10,
        notes=(),
        timings=(),
    )


def result():
    return bayes.ConsensusPosterior(
        posterior=posterior(),
        shards=shards(),
        subposteriors=draws(),
        combined=combined(),
        comparison=bayes.compare_shards(draws().draws, NAMES),
        plan=bayes.Plan(100, 200, 0.1),
        dropped=((2, "timeout"),),
        table=(row(),),
        pareto_k=0.2,
    )


def row():
    return bayes.ShardRow(2, 36, "done", (ATTEMPT,), 1.0, False, 1.0, 300.0, 0.0)


MODULES |= {
    bayes.ConsensusPosterior: Case(result, text=20000),
    bayes.DaskWorkers: Case(lambda: bayes.DaskWorkers(bayes.LocalCluster())),
    bayes.ExecutorWorkers: Case(lambda: bayes.ExecutorWorkers(HeldExecutor())),
    bayes.GivenPower: Case(lambda: bayes.GivenPower(0.5)),
    bayes.NumberOfShards: Case(lambda: bayes.NumberOfShards(3)),
    bayes.PairsPerShard: Case(lambda: bayes.PairsPerShard(100)),
    bayes.Shards: Case(shards),
}
RECORDS |= {
    bayes.Attempt: lambda: ATTEMPT,
    bayes.BimodalSummary: lambda: bayes.BimodalSummary("D0", (1,), 1.0, 2.0, 0.0, 0.0, 2, 0),
    bayes.CoOccurrence: lambda: bayes.CoOccurrence("D0", "alpha", 1, 2),
    bayes.Combined: combined,
    bayes.Corrected: lambda: bayes.NoCorrection()(np.ones((3, 2)), posterior().density, KEY),
    bayes.CrossShard: lambda: NOTHING,
    bayes.Heterogeneity: lambda: bayes.Heterogeneity("D0", 0.1, 1.0),
    bayes.Outcome: lambda: bayes.Outcome(2, {"draws": np.ones(3)}, (ATTEMPT,), 1.0, False),
    bayes.Plan: lambda: bayes.Plan(100, 200, 0.1),
    bayes.Route: lambda: bayes.AutomaticRoute().decide(1000),
    bayes.ShardDraws: draws,
    bayes.ShardRow: row,
    bayes.Task: lambda: bayes.Task(1, 0, 5000),
}
