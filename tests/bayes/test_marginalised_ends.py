"""Ends of priors of marginalised contrast and offset: refused where they matter, else harmless."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from helpers import MODELS, make_data, mapped

from xpcs_eqx.bayes import (
    LaplaceStart,
    MarginalisedScaling,
    Normal,
    PlainStart,
    TruncatedNormal,
    sample,
)
from xpcs_eqx.bayes.density.log_posterior import scaling_draws
from xpcs_eqx.bayes.marginalised import _conditional_mean, _marginal_sd, beyond_ends
from xpcs_eqx.bayes.nuts.chains import Draws
from xpcs_eqx.bayes.nuts.sample import ChainRun, prepare
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.scaling import Averaged


@pytest.fixture(scope="module")
def fit():
    data = make_data(MODELS["static"], n=21, noise=0.01)
    return least_squares(
        projected_objective(mapped(MODELS["static"], data), data, Averaged(data.n_angles))
    )


def _prepared(problem, priors=None, start=None):
    start = LaplaceStart() if start is None else start
    return prepare(problem, priors, start, MarginalisedScaling(), None)


def test_default_priors_are_far_enough_from_their_ends(fit):
    prepared = _prepared(fit)
    treatment = prepared.density.treatment
    np.testing.assert_array_equal(treatment.lower, fit.objective.term.scaling.bounds[0])
    np.testing.assert_array_equal(treatment.upper, fit.objective.term.scaling.bounds[1])
    # Data decide: mean and spread are those of the fit.
    sigma = float(prepared.theta[-1])
    rows = [row for row in fit.rows if row.role == "scaling"]
    mean = np.asarray(_conditional_mean(prepared.density, prepared.theta))
    sd = _marginal_sd(prepared.density, treatment, fit, sigma)
    np.testing.assert_allclose(mean, [row.value for row in rows], rtol=1e-3)
    np.testing.assert_allclose(sd, [row.error_classical for row in rows], rtol=0.2)


@pytest.mark.parametrize(
    ("lower", "upper", "where"),
    [(-5.0, 20.0, "5.0 standard deviations inside"), (-20.0, -1.0, "1.0 beyond")],
)
def test_ends_near_the_fit_are_refused(fit, lower, upper, where):
    prepared = _prepared(fit)
    treatment = prepared.density.treatment
    sd = _marginal_sd(prepared.density, treatment, fit, float(prepared.theta[-1]))[0]
    mean = np.asarray(_conditional_mean(prepared.density, prepared.theta))[0]
    ends = mean + lower * sd, mean + upper * sd

    def prior(low, high):
        return {"contrast": TruncatedNormal(0.3, 0.25, low, high)}

    with pytest.raises(ModelError, match=rf"contrast is .*{where}.*mean 0.3 and sd 0.25 on \["):
        _prepared(fit, prior(*ends))
    with pytest.raises(ModelError, match=r"Use SampledScaling\(\), give a Normal prior"):
        _prepared(fit, prior(*ends))
    _prepared(fit, prior(mean - 7 * sd, mean + 7 * sd))
    _prepared(fit, {"contrast": Normal(0.3, 0.25)})


def test_bounds_of_the_fit_are_ends_of_the_default_priors(fit):
    term = fit.objective.term
    close = dataclasses.replace(
        term.scaling, contrast_bounds=(0.0, 0.9 * float(fit["contrast"].value))
    )
    objective = dataclasses.replace(fit.objective, term=dataclasses.replace(term, scaling=close))
    with pytest.raises(ModelError, match="beyond the nearer end"):
        _prepared(dataclasses.replace(fit, objective=objective))


def test_draws_beyond_an_end_are_remarked_on(fit):
    fitted = _prepared(fit)
    rows = np.broadcast_to(np.asarray(fitted.theta), (2, 50, fitted.theta.size))
    per_angle = np.asarray(scaling_draws(fitted.density, rows, jax.random.key(0)))
    assert beyond_ends(fitted.density, per_angle) == ()
    cut = {"contrast": TruncatedNormal(0.3, 0.25, 0.0, np.median(per_angle[..., 0]))}
    # Without a fit there is no spread to compare with, and nothing is refused beforehand.
    density = _prepared(fit.objective, cut, PlainStart()).density
    (remark,) = beyond_ends(density, per_angle)
    assert remark.startswith("50 % of the draws of contrast lie beyond the ends [0, ")


def test_the_remark_is_in_the_posterior(fit, monkeypatch):
    rng = np.random.default_rng(0)

    def still(density, settings, *rest):
        positions, shape = settings.positions, (2, 20)
        z = 1e-3 * rng.normal(size=(*shape, positions.shape[1]))
        ones = np.ones(shape)
        draws = Draws(z, ones, ones < 0, rng.normal(size=shape), ones, ones, ones, z)
        return ChainRun(draws, 0.1, np.eye(positions.shape[1]), 0.0, 0.0)

    monkeypatch.setattr(sys.modules[sample.__module__], "run_chains", still)
    cut = {"contrast": TruncatedNormal(0.3, 0.25, 0.0, fit["contrast"].value)}
    settings = {"start": PlainStart(), "scaling": MarginalisedScaling()}
    found = sample(fit.objective, cut, **settings)
    assert "draws of contrast lie beyond the ends" in found.notes[-1]
    assert not any("beyond" in note for note in sample(fit.objective, **settings).notes)
