"""Robust fits: they get to the minimum from anywhere, and quote the errors that they have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from scipy.optimize import linprog, minimize

import xpcs_eqx as xe
from xpcs_eqx.objective import influence_sums

ROBUST = {"soft_l1": xe.SoftL1, "huber": xe.Huber, "cauchy": xe.Cauchy, "arctan": xe.Arctan}
X = np.linspace(0.0, 10.0, 60)


def line(x, a, b):
    return a * x + b


def decay(x, amplitude, rate, level):
    return amplitude * jnp.exp(-rate * x) + level


def test_sums_of_influences_are_those_of_the_definition():
    loss, r = xe.Cauchy(0.7), np.random.default_rng(0).normal(size=50)
    root = np.where(np.arange(50) < 40, 1.0, 0.0)
    sums = influence_sums(loss, jnp.asarray(root * r), jnp.asarray(root))
    first = jax.grad(loss.density)
    psi, slope = jax.vmap(first)(r[:40]), jax.vmap(jax.grad(first))(r[:40])
    assert_close(sums.square, np.sum(psi**2), 1e-13)
    assert_close(sums.mean_slope, np.mean(slope), 1e-13)
    k = 1 + 3 / 40 * np.var(slope) / np.mean(slope) ** 2
    assert_close(sums.variance(3), k**2 * np.sum(psi**2) / 37 / np.mean(slope) ** 2, 1e-13)
    # Parts of the data add up.
    both = influence_sums(loss, r[:15], np.ones(15)) + influence_sums(loss, r[15:40], np.ones(25))
    assert_close(both.variance(3), sums.variance(3), 1e-13)
    # Least squares: the residual variance that everyone knows.
    assert_close(influence_sums(xe.Linear(), r, np.ones(50)).variance(4), r @ r / 46, 1e-13)


def test_what_cannot_be_told_from_residuals_is_infinite():
    r = jnp.array([0.1, -0.2, 0.3])
    for parameters in (3, 4):
        assert influence_sums(xe.Linear(), r, jnp.ones(3)).variance(parameters) == np.inf
    # Nothing but outliers: no curvature.
    assert influence_sums(xe.Huber(0.01), r, jnp.ones(3)).variance(1) == np.inf
    assert influence_sums(xe.Cauchy(0.01), r, jnp.ones(3)).variance(1) == np.inf
