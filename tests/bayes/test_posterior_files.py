"""What files and reports say of contrast and offset that are marginalised, or slow to sample."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MODELS, SCALINGS, dense_residual, make_data, mapped

from xpcs_eqx.bayes import MarginalisedScaling, arviz_io, default_priors, log_posterior
from xpcs_eqx.bayes.diagnostics import diagnose_chains
from xpcs_eqx.bayes.marginalised import conditional_scaling, marginalised_scaling
from xpcs_eqx.bayes.nuts.chains import Draws
from xpcs_eqx.bayes.priors.families import Normal
from xpcs_eqx.objective import projected_objective


def _drawn(scaling):
    """Marginalised density with two places, and what a posterior knows that is asked for here."""
    data = make_data(MODELS["static"], n=7)
    objective = projected_objective(mapped(MODELS["static"], data), data, SCALINGS[scaling])
    priors = default_priors(objective)
    priors = priors.replaced(
        {
            name: Normal(0.3 if name.startswith("c") else 0.9, 0.02 + 0.01 * i)
            for i, name in enumerate(objective.term.scaling.names)
        }
    )
    density, theta = log_posterior(objective, priors, scaling=MarginalisedScaling())
    far = theta * np.array([1.2, *np.ones(theta.size - 2), 3.0])
    rows = np.stack([[theta, far]])
    n_angles = density.term.reference.shape[0]
    draws = np.random.default_rng(0).normal(size=(4, 50, n_angles, 2))
    found = types.SimpleNamespace(density=density, theta=rows, per_angle=draws)
    return found, data, priors


def _dense(density, data, priors, row):
    """Mean and variance of contrast and offset of each angle by the normal equations."""
    x, _, sigma = density.data.split(jnp.asarray(row))
    term = density.term
    zero = jnp.zeros(term.scaling.size)
    offset = np.asarray(dense_residual(term, data, x, zero))
    columns = np.stack(
        [
            np.asarray(dense_residual(term, data, x, zero.at[k].set(1.0))) - offset
            for k in range(zero.size)
        ],
        axis=1,
    )
    own = [priors[name] for name in term.scaling.names]
    weight = np.array([float(p.sd) ** -2.0 for p in own])
    covariance = np.linalg.inv(columns.T @ columns / float(sigma) ** 2 + np.diag(weight))
    right = weight * [float(p.mean) for p in own] - columns.T @ offset / float(sigma) ** 2
    basis = np.asarray(term.scaling.basis)
    mean = np.asarray(term.scaling.per_angle(jnp.asarray(covariance @ right)))
    return mean, np.einsum("ask,kl,asl->as", basis, covariance, basis)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scaling", "names"),
    [
        ("individual", [f"{kind}[{i}]" for kind in ("contrast", "offset") for i in range(3)]),
        ("averaged", ["contrast", "offset"]),
    ],
)
def test_marginalised_scaling_in_files_is_that_of_the_normal_equations(scaling, names):
    found, data, priors = _drawn(scaling)
    wanted = [_dense(found.density, data, priors, row) for row in found.theta[0]]
    mean, variance = (np.stack(one) for one in zip(*wanted, strict=True))
    conditional = conditional_scaling(found)
    np.testing.assert_allclose(conditional.mean, mean, rtol=1e-8)
    np.testing.assert_allclose(conditional.variance, variance, rtol=1e-7)
    listed = marginalised_scaling(found)
    assert [one.name for one in listed] == names
    # Law of total variance; the two places differ, so that both terms count.
    total = np.sqrt(variance.mean(axis=0) + mean.var(axis=0))
    assert np.all(total > 1.001 * np.sqrt(variance.mean(axis=0)))
    for one in listed:
        angle = int(one.name[-2]) if "[" in one.name else 0
        kind = int(one.name.startswith("offset"))
        assert one.mean == pytest.approx(mean[:, angle, kind].mean(), rel=1e-8)
        assert one.sd == pytest.approx(total[angle, kind], rel=1e-7)
        np.testing.assert_array_equal(one.draws, found.per_angle[..., angle, kind])
        assert set(one.summary()) >= {"mean", "sd", "low", "high", "rhat", "marginalised"}


def test_chains_that_mix_badly_with_contrast_and_offset_are_told_of_other_ways():
    def advice(names, apart):
        draws = np.random.default_rng(0).normal(size=(4, 200, 2))
        draws[0] += apart
        zero = np.zeros((4, 200))
        energy = np.random.default_rng(1).normal(size=zero.shape)
        whole = zero.astype(int)
        kept = Draws(draws, zero, zero > 0, energy, whole, whole, zero, draws)
        found = diagnose_chains(names, draws, kept, 10)
        return found.status, " ".join(found.recommendations)

    status, said = advice(("D0", "contrast"), 3.0)
    assert status == "not_converged"
    assert 'bayes.scaling = "marginalised" (MarginalisedScaling())' in said
    assert 'bayes.start = "pathfinder" (PathfinderStart())' in said
    # Neither where all is well nor where nothing of the kind is sampled.
    assert "marginalised" not in advice(("D0", "contrast"), 0.0)[1]
    assert "marginalised" not in advice(("D0", "alpha"), 3.0)[1]


def _tree(leading):
    rng = np.random.default_rng(0)
    shape = {"shard": 2, "chain": 2, "draw": 60}
    size = tuple(shape[name] for name in leading)
    names = {"a": rng.normal(size=size), "b": rng.normal(size=size)}
    return arviz_io.datatree(names, {"energy": rng.normal(size=size)}, {}, {}, {}, leading)


def test_plots_close_their_own_figures_alone(tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("arviz_plots")
    mine = pyplot.figure()
    try:
        tree = _tree(("chain", "draw"))
        arviz_io.write_plots(str(tmp_path), tree, ("a", "b"), ("forest",))
        assert pyplot.get_fignums() == [mine.number]
        with pytest.raises(KeyError):
            arviz_io.write_plots(str(tmp_path), tree, ("a", "c"), ("forest",))
        assert pyplot.get_fignums() == [mine.number]
    finally:
        pyplot.close(mine)


def test_a_shard_out_of_a_tree_is_a_run_by_itself(tmp_path):
    """ArviZ takes its chains for those of one run, whatever the tree was made of."""
    pytest.importorskip("arviz_plots")
    tree = _tree(("shard", "chain", "draw")).sel(shard=1, drop=True)
    arviz_io.write_plots(str(tmp_path), tree, ("a", "b"), ("energy", "ess"))
    assert {path.name for path in tmp_path.iterdir()} == {"energy.png", "ess.png"}
