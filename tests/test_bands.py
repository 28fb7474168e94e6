"""Confidence bands of rates contain the truth as often as they say."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import frame_times, make_data

from xpcs_eqx.fitting import band, least_squares
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.objective.penalties import smoothness
from xpcs_eqx.parameters import parameter_map
from xpcs_eqx.physics import (
    FunctionRate,
    PiecewiseConstantRate,
    SplineRate,
    Static,
    uniform_knots,
)

pytestmark = pytest.mark.slow

SETS = 50
COVERAGE = (0.60, 0.75)
NOISE = 0.005
T = frame_times(61)

OSCILLATING = FunctionRate(
    lambda t, p: p["level"] * (1 + p["depth"] * jnp.sin(2 * jnp.pi * t / p["period"])),
    {"level": 1e4, "depth": 0.5, "period": 5.0},
    panels=2,
)
STEP = PiecewiseConstantRate([5.0], np.array([8e3, 1.6e4]))

# Truth, what is fitted, the expected second difference of ln J, and where the fit can follow.
CASES = {
    "oscillating, spline of 12 knots": (OSCILLATING, SplineRate(uniform_knots(T, 12), 1e4), None),
    "step, spline of 20 knots": (STEP, SplineRate(uniform_knots(T, 20), 1e4), 0.5),
    "step, four constants": (STEP, PiecewiseConstantRate([2.5, 5.0, 7.5], 1e4), None),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long if "knots" in name else ()) for name in CASES],
)
def test_pointwise_coverage(name):
    rate, fitted, width = CASES[name]
    truth, model = Static(rate), Static(fitted)
    parameters = parameter_map(model, T)
    penalties = () if width is None else (smoothness(model, "transport", width),)
    inside = []
    for seed in range(SETS):
        data = make_data(truth, t=T, phi=[0.0], noise=NOISE, seed=seed)
        objective = projected_objective(parameters, data, penalties=penalties)
        fit = least_squares(objective, errors="classical")
        assert fit.success
        # The noise is independent, and so the classical covariance is the right one.
        found = band(fit, "transport", 0.68, kind="classical")
        true = np.asarray(rate(jnp.asarray(found.t)))
        inside.append((found.low <= true) & (true <= found.high))
    by_frame = np.mean(inside, axis=0)
    away = np.abs(T - 5.0) > 1.0
    print(f"{name}: {by_frame.mean():.3f}, away from t = 5 s {by_frame[away].mean():.3f}")
    print(np.round(by_frame, 2))
    # All frames count, also those beside the step, which no spline follows and none covers.
    assert COVERAGE[0] <= by_frame.mean() <= COVERAGE[1]
    # Nowhere else is the truth simply missed.
    assert by_frame[away].min() > 0.4
