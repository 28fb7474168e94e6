"""What contradicts a posterior, or makes it too narrow, is said and changes its status."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MODELS, frame_times, make_data, mapped
from helpers_shards import bent_problem
from scipy import stats

from xpcs_eqx.bayes import (
    AngleBalanced,
    Consensus,
    ContiguousShards,
    GivenSigma,
    Limits,
    Normal,
    NumberOfShards,
    Nuts,
    consensus,
    default_priors,
    infer,
    log_posterior,
    precision,
    sample,
)
from xpcs_eqx.bayes.diagnostics import (
    about_independence,
    against_fit,
    contradicted,
    diagnose_chains,
    widening,
)
from xpcs_eqx.bayes.nuts.chains import Draws, LockStepChains
from xpcs_eqx.bayes.nuts.sample import physical_draws
from xpcs_eqx.bayes.shards.anchors import LaplaceAnchor, NoAnchor, NoCommonMaximum
from xpcs_eqx.bayes.shards.compare import chance_limit, compare_shards
from xpcs_eqx.errors import FitError, ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import projected_objective

WIDE = {"slope": Normal(0.6, 1.0), "bend": Normal(-0.06, 0.1)}
COMMON = {
    "noise": GivenSigma(0.5),
    "sampler": Nuts(warmup=100, draws=400, parallel=LockStepChains()),
    "key": 1,
}


@pytest.fixture(scope="module")
def bent():
    return bent_problem(priors=WIDE)


@pytest.fixture(scope="module")
def torn(bent):
    """The second half of the frames with another slope."""
    objective = bent[0]
    c2 = np.array(objective.term.tiles.c2)
    middle = c2.shape[1] // 2
    c2[:, middle:, middle:] += np.abs(np.subtract.outer(*[np.arange(c2.shape[1] - middle)] * 2))
    return eqx.tree_at(lambda o: o.term.tiles.c2, objective, jnp.asarray(c2))


def shards_of(objective, **keywords):
    given = {
        "sharding": ContiguousShards(),
        "size": NumberOfShards(4),
        "by_size": False,
        **keywords,
    }
    return consensus(objective, WIDE, Consensus(**given), **COMMON)


def test_shards_that_contradict_each_other_are_named(torn):
    for anchor in (None, NoAnchor()):
        found = shards_of(torn, anchor=anchor)
        assert found.status == "contradictory"
        finding = found.diagnostics.findings[0]
        assert "shards differ in slope by" in finding
        assert "more than chance" in finding
        assert all(f"shard {k}: " in finding for k in range(4))
        assert "contradict each other" in found.diagnostics.recommendations[0]
        assert "contradictory" in repr(found).splitlines()[0]


class Irremovable(LaplaceAnchor):
    """An anchor as of shards whose product has no maximum."""

    def removed(self, shards, sites, coordinates):
        raise NoCommonMaximum("the shards together have no maximum near the fit")


def test_draws_survive_an_anchor_that_cannot_be_divided_out(torn, bent):
    """They stay where they were drawn, and the shards are named, however close they are held."""
    found = shards_of(torn, anchor=Irremovable())
    assert found.status == "contradictory"
    assert any("no maximum near the fit" in t for t in found.diagnostics.findings)
    assert any("no posterior" in text for text in found.notes)
    assert found.shards.draws.draws.shape == (4, 1600, 2)
    assert found.theta.shape == (1, 1600, 2)
    # No shard contradicts the others here: the reason is told, and where they are.
    calm = shards_of(bent[0], anchor=Irremovable())
    assert calm.shards.comparison.contradictions == ()
    assert calm.status == "contradictory"
    assert "held at the fit: shard " in calm.diagnostics.findings[0]


def test_draws_of_a_consensus_are_in_the_coordinates_that_they_say(bent):
    found = shards_of(bent[0], anchor=NoAnchor(), sharding=AngleBalanced())
    assert found.status == "converged"
    posterior = found
    density, draws = posterior.density, posterior.draws
    physical = np.asarray(physical_draws(density, draws.position))
    # By themselves, four shards scatter by twice the width of all data about the same place.
    away = (physical.mean(axis=(0, 1)) - bent[1]) / np.sqrt(np.diagonal(bent[2]))
    assert np.all(np.abs(away) < 2)
    ratio = physical.reshape(4, -1, 2).std(axis=1) / np.sqrt(np.diagonal(bent[2]))
    np.testing.assert_allclose(np.sqrt(np.mean(ratio**2, axis=0)), 2.0, rtol=0.25)
    # The gradient is that of the density of each shard by the same z: Stein's identity.
    z = np.reshape(draws.position, (4, -1, 2))
    g = np.reshape(draws.gradient, (4, -1, 2))
    product = np.mean(
        [np.mean((a - a.mean(0))[:, :, None] * b[:, None], 0) for a, b in zip(z, g, strict=True)], 0
    )
    np.testing.assert_allclose(product, -np.eye(2), atol=0.25)


@pytest.mark.parametrize(("n_shards", "size"), [(2, 1), (4, 5), (20, 50)])
def test_the_limit_of_chance(n_shards, size):
    limit = chance_limit(n_shards, size)
    assert stats.chi2(n_shards - 1).sf((n_shards - 1) * limit**2) == pytest.approx(1e-4 / size)
    rng = np.random.default_rng(0)
    agreeing = rng.normal(size=(n_shards, 1, size)) + rng.normal(size=(n_shards, 500, size))
    assert compare_shards(agreeing, tuple(map(str, range(size)))).contradictions == ()
    assert chance_limit(1, size) == math.inf


def _chains(mean, draws=500):
    rng = np.random.default_rng(0)
    theta = mean + rng.normal(size=(4, draws, 1))
    nothing = np.zeros((4, draws))
    energy = rng.normal(size=(4, draws))
    whole = nothing.astype(int)
    draws = Draws(theta, nothing, nothing > 0, energy, whole, whole, nothing, theta)
    found = diagnose_chains(("a",), theta, draws, 10)
    return theta, found


@pytest.mark.parametrize(("mean", "status"), [(4.0, "converged"), (-6.0, "contradictory")])
def test_a_posterior_far_from_the_fit_is_contradictory(mean, status):
    theta, found = _chains(mean)
    assert found.status == "converged"
    compared = against_fit(found, theta, [("a", 0.0, 1.0), ("b", 0.0, 1.0)])
    assert compared.status == status
    assert (status == "contradictory") == any("from the fit (0" in t for t in compared.findings)
    for unknown in (math.nan, math.inf, 0.0):
        assert against_fit(found, theta, [("a", 0.0, unknown)]).status == "converged"
    # What has not converged contradicts nothing yet.
    worse = found._replace(status="not_converged")
    assert contradicted(worse, ("x",), ()).status == "not_converged"


def test_too_few_effective_draws_are_not_converged():
    _, found = _chains(0.0, draws=60)
    assert np.all(found.rhat < 1.05)
    assert found.status == "not_converged"
    assert any("fewer than 400 effective samples" in text for text in found.findings)


def test_a_prior_that_excludes_the_fit_is_contradictory(bent):
    prior = {"slope": Normal(2.0, 0.005), "bend": WIDE["bend"]}
    found = sample(bent[0], prior, **{k: COMMON[k] for k in ("noise", "sampler", "key")})
    assert found.status == "contradictory"
    assert any(text.startswith("slope = ") for text in found.diagnostics.findings)
    text = repr(found)
    assert len(text.splitlines()) < 12
    assert "  slope = " in text


def _correlated(fit, factor):
    rows = tuple(row._replace(error=factor * row.error_classical) for row in fit.rows)
    uncertainty = dataclasses.replace(fit.uncertainty, chosen="speckle")
    return dataclasses.replace(fit, rows=rows, uncertainty=uncertainty)


def test_pairs_that_are_not_independent_are_spoken_of(bent):
    """In Python as in the program: one run, shards, and the numbers of `precision`."""
    fit = _correlated(least_squares(bent[0]), 4.0)
    assert widening(fit) == pytest.approx(4.0)
    assert about_independence(_correlated(fit, 1.1)) == ()
    keywords = {k: COMMON[k] for k in ("noise", "sampler", "key")}
    one = sample(fit, WIDE, **keywords)
    several = shards_of(fit)
    for found in (one, several):
        (note,) = [text for text in found.notes if "independent" in text]
        assert "up to 4 times" in note
        for row in precision(found):
            assert row.quoted_ratio == pytest.approx(row.ratio / 4)
    plain = sample(_correlated(fit, 1.0), WIDE, **keywords)
    assert not any("independent" in text for text in plain.notes)


def test_a_single_chain_is_refused_before_sampling():
    for run in (sample, consensus, infer):
        with pytest.raises(ModelError, match="chains is 1; give a whole number from 2: R-hat"):
            run(None, sampler=Nuts(chains=1))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, int, jnp.asarray])
def test_seeds_are_integers_of_any_kind(bent, kind):
    short = Nuts(chains=2, warmup=0, draws=4, parallel=LockStepChains())
    draws = [
        sample(bent[0], WIDE, noise=GivenSigma(0.5), sampler=short, key=k)
        for k in (kind(3), jax.random.key(3))
    ]
    np.testing.assert_array_equal(draws[0].theta, draws[1].theta)


@pytest.mark.parametrize("run", [sample, consensus])
def test_what_is_no_key_is_refused_before_a_fit(bent, run):
    for wrong in (3.0, "3", None):
        with pytest.raises(ModelError, match=r"give a key of jax\.random or a whole number"):
            run(bent[0], key=wrong)


def test_timeouts_are_timeouts(bent):
    """In this process as in others."""
    limits = Limits(retries=0, timeout=1e-6, success=0.0)
    with pytest.raises(FitError, match=r"timeout [1-4].*timeout: not done after 1e-06 s"):
        shards_of(bent[0], limits=limits)


def test_offsets_of_rates_are_as_wide_as_their_rates():
    """The default width of D_offset is of the size of J, whatever that is."""
    t = frame_times(11)
    for scale in (1.0, 100.0):
        model = MODELS["laminar"]
        model = eqx.tree_at(
            lambda m: (m.transport.amplitude, m.transport.offset),
            model,
            (jnp.asarray(1e3 * scale), jnp.asarray(0.0)),
        )
        data = make_data(model, t=t)
        found = default_priors(projected_objective(mapped(model, data), data))
        # J of t^-0.3 is largest at half a frame spacing, where it is held.
        largest = 1e3 * scale * 0.5**-0.3
        assert float(found["D_offset"].sd) == pytest.approx(largest)
        assert float(found["gamma_dot_t_offset"].sd) == pytest.approx(2.8e-3 * 10**0.3 + 1e-4)


def test_the_data_are_constants_of_a_log_posterior(bent):
    density, theta = log_posterior(bent[0], noise=GivenSigma(0.5))
    z = density.coordinates.from_physical(jnp.asarray(theta))

    def value(c2):
        return eqx.tree_at(lambda d: d.term.tiles.c2, density, c2)(z)

    with pytest.raises(ModelError, match="data are constants of a log posterior"):
        jax.grad(value)(density.term.tiles.c2)
