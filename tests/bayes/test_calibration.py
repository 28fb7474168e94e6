"""Simulation-based calibration (Talts et al., arXiv 1804.06788): ranks of the truth are uniform.

Every replica is what a user would do: data of a truth drawn from the prior, then `sample` or
`consensus`. Shapes and settings stay the same, so that all replicas run the same compiled code.

Several parameters are tested at once: that any of them is off shall be found by chance in one case
of a hundred. Their ranks depend on each other, so that this is Bonferroni's bound, which holds for
any dependence: the least p is compared with 0.01 over the number of parameters.
"""

import jax
import numpy as np
import pytest
from helpers import MODELS, PHI, make_data, mapped
from scipy import stats

from xpcs_eqx.bayes import (
    Consensus,
    LockStepChains,
    LogNormal,
    NumberOfShards,
    Nuts,
    SampledSigma,
    TruncatedNormal,
    consensus,
    default_priors,
    sample,
)
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.parameters import with_parameters
from xpcs_eqx.scaling import Averaged

REPLICAS, RANKS, BINS = 200, 99, 10

# Informative enough that most draws give maps with something to see.
WIDE = {
    "D0": LogNormal(np.log(1.5e4), 0.3),
    "alpha": TruncatedNormal(-0.2, 0.2, -2.0, 2.0),
    "D_offset": TruncatedNormal(0.0, 500.0, -1e5, 1e5),
    "contrast": TruncatedNormal(0.3, 0.06, 0.0, 1.0),
    "offset": TruncatedNormal(1.0, 0.1, 0.5, 1.5),
    "sigma": LogNormal(np.log(0.02), 0.3),
}
# About as informative as the data, so that to count them in every shard shows; and shards whose
# posteriors are nearly Gaussian, for which consensus is exact.
NARROW = {
    "D0": LogNormal(np.log(1.5e4), 0.05),
    "alpha": TruncatedNormal(-0.2, 0.05, -2.0, 2.0),
    "contrast": TruncatedNormal(0.3, 0.01, 0.0, 1.0),
    "offset": TruncatedNormal(1.0, 0.005, 0.5, 1.5),
    "sigma": LogNormal(np.log(0.02), 0.05),
}


def _problem(truth, frames, seed):
    """The objective of two small maps with the noise of a truth, and default start values."""
    physical = {name: v for name, v in truth.items() if name in ("D0", "alpha", "D_offset")}
    data = make_data(
        with_parameters(MODELS["static"], physical),
        n=frames,
        phi=PHI[:2],
        contrast=truth["contrast"],
        offset=truth["offset"],
        noise=truth["sigma"],
        seed=seed,
    )
    fixed = tuple(name for name in ("D_offset",) if name not in truth)
    parameters = mapped(MODELS["static"], data, fixed=fixed)
    return projected_objective(parameters, data, Averaged(2))


def _replica(priors, frames, seed):
    """Truth drawn from the priors, the objective of its data, and all priors."""
    keys = jax.random.split(jax.random.key(seed), len(priors))
    truth = {n: float(p.sample(k)) for (n, p), k in zip(priors.items(), keys, strict=True)}
    objective = _problem(truth, frames, seed)
    return truth, objective, default_priors(objective).replaced(priors)


def ranks(priors, draw, replicas=REPLICAS, frames=7):
    """Rank of each true parameter among `RANKS` thinned draws: (replica, entry), and names."""
    found = []
    for seed in range(replicas):
        truth, *problem = _replica(priors, frames, seed)
        theta, names = draw(*problem, seed)
        flat = theta.reshape(-1, theta.shape[-1])
        thinned = flat[np.linspace(0, len(flat) - 1, RANKS).round().astype(int)]
        found.append(np.sum(thinned < np.array([truth[name] for name in names]), axis=0))
    return np.stack(found), names


def p_values(found):
    """Of the chi² test that the ranks of each entry are uniform."""
    counts = [np.histogram(row, BINS, (-0.5, RANKS + 0.5))[0] for row in found.T]
    return np.array([stats.chisquare(c).pvalue for c in counts])


def calibrated(values):
    """Whether uniform ranks of all entries are compatible with these p at one per cent together."""
    return values.min() > 0.01 / len(values)


def _said(what, values, names):
    print(f"{what}: p of the chi² test", dict(zip(names, values.round(4), strict=True)))


def sampled(objective, priors, seed):
    """Draws by `sample`."""
    found = sample(
        objective,
        priors,
        noise=SampledSigma(priors["sigma"]),
        sampler=Nuts(warmup=150, draws=300, chains=2, parallel=LockStepChains()),
        key=seed,
    )
    return found.theta, found.names


def in_shards(power):
    """Draws by `consensus` over four shards."""

    def draw(objective, priors, seed):
        found = consensus(
            objective,
            priors,
            method=Consensus(by_size=False, size=NumberOfShards(4), power=power),
            noise=SampledSigma(priors["sigma"]),
            sampler=Nuts(warmup=100, draws=300, chains=2, parallel=LockStepChains()),
            key=seed,
        )
        return found.theta, found.names

    return draw


@pytest.mark.long
def test_draws_are_calibrated():
    found, names = ranks(WIDE, sampled)
    values = p_values(found)
    _said("sample", values, names)
    assert calibrated(values)


@pytest.mark.long
def test_a_prior_shared_by_shards_is_calibrated_and_a_whole_one_in_each_is_not():
    found, names = ranks(NARROW, in_shards(None), frames=25)
    values = p_values(found)
    _said("shards that share the prior", values, names)
    assert calibrated(values)
    wrong, _ = ranks(NARROW, in_shards(1.0), frames=25)
    values = p_values(wrong)
    _said("shards with the whole prior each", values, names)
    assert not calibrated(values)


@pytest.mark.long
def test_shards_of_small_maps_say_what_all_data_say():
    """What the ranks of a few hundred replicas cannot see: the error of the combination itself."""
    away, width = [], []
    for seed in range(60):
        _, *problem = _replica(NARROW, 25, seed)
        shards, whole = (
            draw(*problem, seed)[0].reshape(-1, len(NARROW)) for draw in (in_shards(None), sampled)
        )
        away.append((shards.mean(axis=0) - whole.mean(axis=0)) / whole.std(axis=0))
        width.append(shards.std(axis=0) / whole.std(axis=0))
    away, width = np.mean(away, axis=0), np.mean(width, axis=0)
    print("means off by", away.round(3), "sd; sd to sd", width.round(3))
    assert np.abs(away).max() < 0.1
    assert np.abs(width - 1).max() < 0.05
