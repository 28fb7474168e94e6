"""Several data sets sampled together: a closed form, and the parts of the density."""

import jax
import numpy as np
import pytest
from helpers import MODELS, make_data, mapped
from helpers_shards import Bent

from xpcs_eqx.bayes import (
    AngleBalanced,
    Consensus,
    GivenSigma,
    LockStepChains,
    Normal,
    NumberOfShards,
    Nuts,
    default_priors,
    infer,
    log_posterior,
    read_posterior,
    sample,
    with_scaling,
    write_posterior,
)
from xpcs_eqx.bayes.shards.division import pairs_of_all
from xpcs_eqx.bayes.shards.work import layout_of, shard_density, without_data
from xpcs_eqx.compiling import quick_jit
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import projected_objective, two_time_objective
from xpcs_eqx.parameters import shared_parameters
from xpcs_eqx.scaling import Averaged, Fixed

PRIOR = {
    "slope": Normal(0.6, 0.02),
    "bend[a]": Normal(-0.06, 0.004),
    "bend[b]": Normal(-0.02, 0.004),
}
NOISE = 0.5


def _straight():
    """Two data sets with one slope and a bend each; exact mean and covariance."""
    truths = [Bent(slope=0.5, bend=-0.05), Bent(slope=0.5, bend=-0.02)]
    sets = [
        make_data(model, n=n, phi=[0.0], contrast=1.0, noise=NOISE, seed=n)
        for model, n in zip(truths, (21, 26), strict=True)
    ]
    parameters = shared_parameters(
        [Bent()] * 2, [one.t for one in sets], shared=("slope",), labels=("a", "b")
    )
    one = np.ones(1)
    objective = two_time_objective(parameters, sets, [Fixed(one, one)] * 2, weights=(1.0, 1.0))
    precision, right = np.zeros((3, 3)), np.zeros(3)
    for k, data in enumerate(sets):
        i, j = np.triu_indices(data.n_frames, 1)
        columns = np.zeros((i.size, 3))
        columns[:, 0] = data.t[j] - data.t[i]
        columns[:, 1 + k] = data.t[j] ** 2 - data.t[i] ** 2
        precision += columns.T @ columns / NOISE**2
        right += columns.T @ (data.c2[0][i, j] - 1.0) / NOISE**2
    names = ("slope", "bend[a]", "bend[b]")
    mean = np.array([float(PRIOR[n].mean) for n in names])
    sd = np.array([float(PRIOR[n].sd) for n in names])
    covariance = np.linalg.inv(precision + np.diag(sd**-2.0))
    return objective, names, covariance @ (right + mean / sd**2), covariance


def test_joint_posterior_in_closed_form():
    objective, names, mean, covariance = _straight()
    found = sample(
        objective, PRIOR, noise=GivenSigma(NOISE), sampler=Nuts(warmup=150, draws=300), key=2
    )
    assert found.status == "converged"
    assert set(found.names) == set(names)
    draws = np.stack([found[name].ravel() for name in names], axis=1)
    sd, size = np.sqrt(np.diagonal(covariance)), found.diagnostics.ess_bulk.min()
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - mean) / sd, 4 / np.sqrt(size))
    away = (np.cov(draws.T) - covariance) / np.outer(sd, sd)
    np.testing.assert_array_less(np.abs(away), 4 * np.sqrt(2 / size))
    # Each data set has the shared slope and its own bend.
    first, second = found.parts.values()
    np.testing.assert_array_equal(first["slope"], second["slope"])
    np.testing.assert_array_equal(second["bend"], found["bend[b]"])
    assert first["contrast"].shape == (4, 300, 1)
    with pytest.raises(KeyError, match="bend"):
        found["bend"]


def _static(**keywords):
    sets = [make_data(MODELS["static"], n=9, phi=[0.0, 50.0], seed=k) for k in (1, 2)]
    parameters = shared_parameters([MODELS["static"]] * 2, [one.t for one in sets])
    return two_time_objective(parameters, sets, weights=(1.0, 2.0), **keywords)


def test_the_likelihood_is_the_product_of_those_of_the_data_sets():
    objective = _static()
    density, theta = log_posterior(objective)
    assert density.names[:3] == ("D0", "alpha", "D_offset")
    assert density.names[3:] == (
        *(f"{n}[{a}][1]" for n in ("contrast", "offset") for a in (0, 1)),
        *(f"{n}[{a}][2]" for n in ("contrast", "offset") for a in (0, 1)),
        "sigma",
    )
    value = quick_jit(lambda d, theta: d.log_likelihood(theta))
    total = 0.0
    for k, part in enumerate(objective.parts):
        alone, own = log_posterior(part)
        own = np.array(own)
        own[:3], own[-1] = theta[:3], theta[-1]
        own[3:7] = theta[3 + 4 * k : 7 + 4 * k]
        np.testing.assert_allclose(density.local(theta)[k], own, rtol=1e-12)
        total += float(value(alone, own))
    np.testing.assert_allclose(value(density, theta), total, rtol=1e-10)


def test_priors_have_public_names():
    objective = _static()
    found = default_priors(objective)
    # Those that the parameters have in a fit of one data set by itself, bounds included.
    data = make_data(MODELS["static"], n=9, phi=[0.0, 50.0], seed=1)
    own = default_priors(projected_objective(mapped(MODELS["static"], data), data))
    for name in ("D0", "alpha", "D_offset"):
        assert float(found[name].log_density(0.5)) == float(own[name].log_density(0.5))
        assert found[name].support == own[name].support
    assert "contrast[1][2]" in found.names
    with pytest.raises(ModelError, match="alph"):
        log_posterior(objective, {"alph": Normal(0.0, 1.0)})


def test_shards_of_several_data_sets_add_up_to_the_posterior():
    objective = _static()
    density, theta = log_posterior(objective)
    pairs = pairs_of_all(objective)
    shards = AngleBalanced().split(pairs, 3, jax.random.key(1))
    # Two angles of each data set, 36 pairs a map.
    np.testing.assert_array_equal(shards.by_angle, np.full((3, 4), 12))
    layout, template = layout_of(shards.by_angle, (2, 2)), without_data(density)
    z = density.coordinates.from_physical(theta)
    value = quick_jit(lambda d, z: d(z))
    each = [
        value(shard_density(template, pairs.points(shards.members(k)), layout, 1 / 3), z)
        for k in range(3)
    ]
    np.testing.assert_allclose(sum(each), value(density, z), rtol=1e-10)
    with pytest.raises(ModelError, match="sample: problem is of type SharedParameters; give"):
        sample(objective.parameters)


@pytest.mark.long
def test_consensus_of_several_data_sets_has_the_closed_form(tmp_path):
    objective, names, mean, covariance = _straight()
    found = infer(
        objective,
        PRIOR,
        Consensus(threshold=300, size=NumberOfShards(2), by_size=False),
        noise=GivenSigma(NOISE),
        sampler=Nuts(warmup=100, draws=400, parallel=LockStepChains()),
        key=2,
    )
    assert found.status == "converged"
    assert found.shards.division.n_shards == 2
    draws = np.stack([found[name].ravel() for name in names], axis=1)
    sd = np.sqrt(np.diagonal(covariance))
    # Moved to the mean and covariance that remain when the anchor is divided out.
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - mean) / sd, 0.1)
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.12)
    second = found.parts["b"]
    np.testing.assert_array_equal(second["bend"], found["bend[b]"])
    # Convergence is that of the chains of the worst shard, of the entries of the data set.
    places = [found.names.index(name) for name in ("slope", "bend[b]")]
    for name in ("rhat", "ess_bulk"):
        whole, own = (np.asarray(getattr(one.diagnostics, name)) for one in (found, second))
        # Of ranks, in which two draws that rounding cannot tell apart may change places.
        np.testing.assert_allclose(own, whole[places], rtol=1e-4)
    tree = found.to_datatree()
    assert tree["shards"].posterior["bend[b]"].shape == (2, 4, 400)
    assert "sample_stats" not in second.to_datatree()
    write_posterior(str(tmp_path), found, plots=(), predictive_draws=4)
    again = read_posterior(str(tmp_path / "posterior.nc"), objective)
    np.testing.assert_array_equal(again.parts["b"].theta, second.theta)
    assert again.parts["b"].diagnostics.status == second.diagnostics.status


@pytest.mark.long
def test_several_data_sets_are_sampled_with_scalings_of_their_own():
    objective = _static()
    fit = with_scaling(least_squares(objective), [Averaged(2), Averaged(2)])
    wanted = least_squares(_static(scaling=[Averaged(2), Averaged(2)]))
    for name in ("D0", "alpha", "contrast[1]", "offset[2]"):
        assert abs(fit[name].value - wanted[name].value) < 1e-3 * wanted[name].error
    with pytest.raises(ModelError, match="2 data sets and 1 scalings; give one for each"):
        with_scaling(fit, Averaged(2))
