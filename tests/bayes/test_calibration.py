"""Simulation-based calibration (Talts et al., arXiv 1804.06788): ranks of the truth are uniform."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MODELS, PHI, frame_times, make_data, mapped
from scipy import stats

from xpcs_eqx.bayes import LogNormal, SampledSigma, TruncatedNormal, default_priors, log_posterior
from xpcs_eqx.bayes.nuts import CHUNK, advance, averaging_from, chains_at
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.physics import correlation_map
from xpcs_eqx.scaling import Averaged

REPLICAS, THIN, BINS = 200, 5, 10
# Informative enough that most draws give maps with something to see.
PRIORS = {
    "D0": LogNormal(np.log(1.5e4), 0.4),
    "alpha": TruncatedNormal(-0.2, 0.3, -2.0, 2.0),
    "D_offset": TruncatedNormal(0.0, 1000.0, -1e5, 1e5),
    "contrast": TruncatedNormal(0.3, 0.1, 0.0, 1.0),
    "offset": TruncatedNormal(1.0, 0.1, 0.5, 1.5),
}
NOISE = LogNormal(np.log(0.02), 0.3)


def _problem():
    """A log density of a small map, whose data are replaced in each replica."""
    data = make_data(MODELS["static"], t=frame_times(7), phi=PHI[:2])
    objective = projected_objective(mapped(MODELS["static"], data), data, Averaged(2))
    priors = default_priors(objective).replaced(PRIORS)
    return log_posterior(objective, priors, noise=SampledSigma(NOISE))


def _simulated(density, theta, key):
    """c2 of the parameters with their noise."""
    x, coefficients, sigma = density.split(theta)
    term = density.term
    surface = correlation_map(density.parameters.build(x), term.t, term.geometry)
    scaling = term.scaling.per_angle(coefficients)[:, :, None, None]
    noise = sigma * jax.random.normal(key, surface.shape)
    return scaling[:, 1] + scaling[:, 0] * surface + noise


@partial(eqx.filter_jit, donate="none")
def _pieces(density, c2, chains, metric, first, adapting, step_size):
    def one(c2, chain, metric, size):
        mine = eqx.tree_at(lambda d: d.term.tiles.c2, density, c2)
        # Shallow: trajectories of all replicas wait for the longest.
        return advance(
            mine, chain, size, metric, first, jnp.asarray(CHUNK), jnp.asarray(0.85), adapting, 3
        )

    return jax.vmap(one)(c2, chains, metric, step_size)


def ranks(density, priors_of_sampler, seed=0):
    """Rank of each true parameter among thinned draws, (replica, entry)."""
    for_truth, for_data, for_chains = jax.random.split(jax.random.key(seed), 3)
    keys = jax.random.split(for_truth, len(density.names))
    truth = jnp.stack(
        [p.sample(k, (REPLICAS,)) for p, k in zip(density.priors, keys, strict=True)], axis=1
    )
    c2 = jax.vmap(partial(_simulated, density))(truth, jax.random.split(for_data, REPLICAS))
    density = dataclasses.replace(density, priors=priors_of_sampler)
    z = jax.vmap(density.coordinates.from_physical)(truth)

    def begin(c2, z, key):
        mine = eqx.tree_at(lambda d: d.term.tiles.c2, density, c2)
        whole = chains_at(mine, z[None], key[None])
        return jax.tree.map(lambda leaf: leaf[0], whole)

    chains = eqx.filter_jit(jax.vmap(begin))(c2, z, jax.random.split(for_chains, REPLICAS))
    metric = jnp.broadcast_to(0.1 * jnp.eye(z.shape[1]), (REPLICAS, z.shape[1], z.shape[1]))
    step_size = jnp.full((REPLICAS,), 0.3)
    kept = []
    for piece in range(6):
        adapting = piece < 3
        chains, draws = _pieces(
            density, c2, chains, metric, piece * CHUNK, jnp.asarray(adapting), step_size
        )
        if adapting:
            step_size = jnp.exp(chains.averaging.log_step_size_avg)
            if piece < 2:
                spread = draws.position - draws.position.mean(axis=1, keepdims=True)
                metric = jnp.einsum("rni,rnj->rij", spread, spread) / CHUNK
                metric += 1e-4 * jnp.eye(z.shape[1])
            chains = chains._replace(averaging=averaging_from(step_size))
        else:
            kept.append(draws.position[:, ::THIN])
    position = jnp.concatenate(kept, axis=1)
    theta = jax.vmap(jax.vmap(density.coordinates.to_physical))(position)
    return np.asarray(jnp.sum(theta < truth[:, None], axis=1)), position.shape[1]


def _p_values(found, size):
    counts = [np.histogram(row, BINS, (-0.5, size + 0.5))[0] for row in found.T]
    return np.array([stats.chisquare(c).pvalue for c in counts])


@pytest.mark.long
def test_ranks_of_the_truth_are_uniform():
    density, _ = _problem()
    found, size = ranks(density, density.priors)
    values = _p_values(found, size)
    print("chi² test of the ranks:", dict(zip(density.names, np.round(values, 3), strict=True)))
    # One per cent over all parameters together.
    assert values.min() > 0.01 / len(values)
    # Priors that are too narrow are seen.
    narrow = tuple(prior.powered(4.0) for prior in density.priors)
    wrong, size = ranks(density, narrow)
    assert _p_values(wrong, size).min() < 1e-3
