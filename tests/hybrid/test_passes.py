"""What the hybrid optimiser takes: passes over the data, and the minima that it reaches."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, make_data, mapped, start_off, values_of

import xpcs_eqx as xe
from xpcs_eqx.hybrid import aggressive, default

X = np.linspace(0, 10, 400)
# Truth; passes of six starts by the optimiser with a Gauss-Newton phase of its own, and how many of
# them it led to the global minimum.
CURVES = {
    "decay": (lambda x, a, b, c: a * jnp.exp(-b * x) + c, [2.5, 0.3, 0.5], 186, 6),
    "biexponential": (
        lambda x, a, b, c, d, e: a * jnp.exp(-b * x) + c * jnp.exp(-d * x) + e,
        [2.0, 0.25, 1.5, 2.0, 0.3],
        308,
        6,
    ),
    "oscillation": (
        lambda x, a, b, w, p, c: a * jnp.exp(-b * x) * jnp.cos(w * x + p) + c,
        [2.0, 0.2, 3.0, 0.5, 0.4],
        501,
        6,
    ),
    "gaussian": (
        lambda x, a, m, s, c: a * jnp.exp(-0.5 * ((x - m) / s) ** 2) + c,
        [3.0, 5.0, 0.8, 0.5],
        220,
        5,
    ),
    "logistic": (
        lambda x, a, k, m, c: a / (1 + jnp.exp(-k * (x - m))) + c,
        [3.0, 2.0, 4.0, 0.2],
        238,
        6,
    ),
}
SEEDS = {"decay": 5, "biexponential": 5, "oscillation": 3, "gaussian": 5, "logistic": 8}


LONG = [pytest.param(name, marks=pytest.mark.long) for name in list(CURVES)[1:]]


@pytest.mark.parametrize("name", ["decay", *LONG])
def test_half_the_passes_or_hardly_more_than_the_trust_region_alone(name):
    function, truth, before, reached = CURVES[name]
    random = np.random.default_rng(SEEDS[name])
    y = np.asarray(function(X, *truth)) + 0.05 * random.normal(size=X.size)
    best = xe.curve_fit(function, X, y, np.array(truth)).fun
    starts = truth * np.exp(random.uniform(-0.9, 0.9, (6, len(truth))))
    alone = sum(xe.curve_fit(function, X, y, start).evaluations for start in starts)
    fits = [default().fit((X, y), function, start) for start in starts]
    passes = sum(fit.evaluations for fit in fits)
    print(name, alone, passes)
    assert passes <= max(before / 2, 1.1 * alone)
    assert sum(abs(fit.fun - best) < 1e-6 * best for fit in fits) >= reached


@pytest.mark.parametrize("preset", [default, aggressive], ids=lambda preset: preset.__name__)
@pytest.mark.parametrize("n", [101, pytest.param(1001, marks=pytest.mark.long)])
def test_laminar_flow_from_a_start_far_off(n, preset):
    data = make_data(LAMINAR, n=n, noise=0.003)
    parameters = mapped(start_off(LAMINAR, 1.4), data)
    objective = xe.projected_objective(parameters, data, xe.Averaged(data.n_angles))
    fit = preset().minimise(objective)
    assert fit.success
    assert len(fit.values) == 9
    for name, value in values_of(LAMINAR).items():
        assert abs(fit[name].value - value) < 3 * fit[name].error, name
    assert fit.evaluations < 30
