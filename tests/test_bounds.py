"""Bounds in every way that SciPy takes them, at every place that takes bounds."""

import jax
import numpy as np
import pytest
from helpers import TRANSPORT, assert_close, frame_times
from scipy.optimize import Bounds

import xpcs_eqx as xe
from xpcs_eqx.errors import ModelError, PrecisionError
from xpcs_eqx.hybrid import HybridOptimiser
from xpcs_eqx.objective import curve_objective
from xpcs_eqx.physics import Static

X = np.linspace(0.0, 1.0, 20)
Y = 2.0 * X + 0.3 + 0.01 * np.cos(40 * X)
WAYS = (
    (-5.0, 5.0),
    (-5, [5.0, 5.0]),
    ([-5.0, -5.0], [5.0, 5.0]),
    Bounds(-5.0, 5.0),
    Bounds([-5.0, -5.0], [5.0, 5.0]),
    Bounds(-5.0, [5.0, 5.0], keep_feasible=True),
)


def line(x, a, b):
    return a * x + b


def test_all_ways_are_one():
    for bounds in WAYS:
        variables = curve_objective(line, X, Y, np.ones(2), bounds=bounds).variables
        np.testing.assert_array_equal(variables.lower, [-5.0, -5.0])
        np.testing.assert_array_equal(variables.upper, [5.0, 5.0])
    free = xe.curve_fit(line, X, Y, np.ones(2))
    for use in (
        lambda bounds: xe.curve_fit(line, X, Y, np.ones(2), bounds=bounds),
        lambda bounds: HybridOptimiser().fit((X, Y), line, np.ones(2), bounds=bounds),
    ):
        assert_close(use(Bounds(-5.0, 5.0)).x, free.x, 1e-8)
        assert_close(use(Bounds(-np.inf, np.inf)).x, free.x, 1e-8)
        held = use(Bounds([-5.0, -5.0], [1.5, 5.0]))
        assert held.x[0] == 1.5
        assert held.perr[0] == 0


def test_bounds_of_a_parameter():
    t, model = frame_times(11), Static(TRANSPORT)
    given = xe.parameter_map(model, t, bounds={"D0": Bounds(10.0, 1e5), "alpha": Bounds([-1], [0])})
    wanted = xe.parameter_map(model, t, bounds={"D0": (10.0, 1e5), "alpha": (-1, 0)})
    np.testing.assert_array_equal(given.lower, wanted.lower)
    np.testing.assert_array_equal(given.upper, wanted.upper)
    with pytest.raises(ModelError, match="D0: bounds are a pair"):
        xe.parameter_map(model, t, bounds={"D0": 3.0})


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (3.0, "a pair"),
        (([-1.0] * 3, [1.0] * 3), "one for each of 2"),
        ((None, 1.0), "inside"),
        (("low", "high"), "one for each of 2"),
        (Bounds(1.0, 0.0), "inside"),
    ],
)
def test_what_is_no_bounds(bounds, message):
    for use in (
        lambda: xe.curve_fit(line, X, Y, np.ones(2), bounds=bounds),
        lambda: HybridOptimiser().fit((X, Y), line, np.ones(2), bounds=bounds),
    ):
        with pytest.raises(ModelError, match=message):
            use()


def test_a_start_that_is_no_number():
    for start in (np.nan, np.inf):
        with pytest.raises(ModelError, match="finite"):
            xe.curve_fit(line, X, Y, np.array([start, 1.0]))


def test_single_precision_names_what_is_fitted():
    with jax.enable_x64(False):
        for use in (
            lambda: xe.curve_fit(line, X, Y, np.ones(2)),
            lambda: HybridOptimiser().fit((X, Y), line, np.ones(2)),
        ):
            with pytest.raises(PrecisionError, match="of a curve lose"):
                use()
