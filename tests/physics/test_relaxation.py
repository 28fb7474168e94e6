"""The forms of one-time functions, by their formulas, as correlations of fields, and from data."""

import numpy as np
import pytest
from helpers import frame_times, make_data

from xpcs_eqx.config.tables.model import Model, model_of
from xpcs_eqx.data import Geometry
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.parameters import parameter_map, parameter_values, with_parameters
from xpcs_eqx.physics import (
    Ballistic,
    Caged,
    DoubleExponential,
    LaminarFlow,
    PowerLawRate,
    Static,
    StretchedExponential,
    correlation_map,
    field_correlation,
    field_factor,
)
from xpcs_eqx.scaling import half_decays

Q = 0.0054
GEOMETRY = Geometry(Q, np.array([0.0]))
T = frame_times(12)
# ∫ (a t^b) dt between all pairs of frames.
AGED = {"amplitude": 0.6, "exponent": -0.3, "offset": 0.0}


def grown(t):
    whole = AGED["amplitude"] * t ** (AGED["exponent"] + 1) / (AGED["exponent"] + 1)
    return np.abs(whole[None, :] - whole[:, None])


def lag(t):
    return np.abs(t[None, :] - t[:, None])


def rate(factor=1.0):
    return PowerLawRate(AGED["amplitude"] * factor, AGED["exponent"], 0.0)


CASES = {
    "stretched": (StretchedExponential(rate(), 0.7), lambda t: np.exp(-2 * grown(t) ** 0.7)),
    "compressed": (StretchedExponential(rate(), 1.8), lambda t: np.exp(-2 * grown(t) ** 1.8)),
    "double": (
        DoubleExponential(rate(), 8.0, 0.6),
        lambda t: (0.4 * np.exp(-8 * grown(t)) + 0.6 * np.exp(-grown(t))) ** 2,
    ),
    "ballistic": (Ballistic(rate(100.0)), lambda t: np.exp(-((Q * 100 * grown(t)) ** 2))),
    "caged": (
        Caged(rate(1e4), cage=80.0, cage_time=0.5),
        lambda t: np.exp(-(Q**2) * (80.0**2 * (1 - np.exp(-lag(t) / 0.5)) + 1e4 * grown(t))),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_formula_and_field(name):
    model, formula = CASES[name]
    found = np.asarray(correlation_map(model, T, GEOMETRY)[0])
    np.testing.assert_allclose(found, formula(T), rtol=1e-10, atol=1e-12)
    # A Gaussian field has it.
    _, error = field_factor(field_correlation(model, T, GEOMETRY))
    assert float(error) < 1e-10


def test_beyond_two_no_field_has_a_compressed_exponential():
    model = with_parameters(StretchedExponential(rate()), {"stretch": 3.0})
    _, error = field_factor(field_correlation(model, np.linspace(0.1, 4, 60), GEOMETRY))
    assert float(error) > 1e-3
    with pytest.raises(ModelError, match=r"stretch lies outside its bounds \[0\.1, 2\]"):
        parameter_map(model)


@pytest.mark.parametrize(
    "model",
    [Static(), LaminarFlow(), StretchedExponential(), DoubleExponential(), Ballistic(), Caged()],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("half", [0.3, 40.0])
def test_starts_decay_where_the_data_do(model, half):
    begun = with_parameters(model, model.starts(np.array([half]), GEOMETRY))
    # Two frames that are `half` apart; a factor of two in time is near enough to start from.
    sooner, later = (
        float(correlation_map(begun, np.array([1.0, 1.0 + k * half]), GEOMETRY)[0, 0, 1])
        for k in (0.4, 2.5)
    )
    assert sooner > 0.5 > later


@pytest.mark.parametrize("contrast", [0.05, 0.4])
@pytest.mark.parametrize("speed", [0.03, 0.3, 1.0])
def test_half_decay_of_data(speed, contrast):
    t = 0.1 * np.arange(80)
    data = make_data(
        StretchedExponential(PowerLawRate(speed, 0.0, 0.0)), t=t, phi=[0.0], noise=0.1 * contrast,
        contrast=contrast,
    )  # fmt: skip
    expected = 0.5 * np.log(2) / speed
    assert half_decays(data) == pytest.approx(expected, rel=0.4)


def test_a_mode_begins_at_the_data():
    model = StretchedExponential(PowerLawRate(3.0, 0.0, 0.0))
    data = make_data(model, t=0.02 * np.arange(60), phi=[0.0])
    begun = parameter_values(model_of(Model(mode="stretched_exponential"), {}, None, data))
    assert float(begun["Gamma0"]) == pytest.approx(3.0, rel=0.5)
    # Those of homodyne 2.x stay where they are.
    assert float(parameter_values(model_of(Model(mode="static"), {}, None, data))["D0"]) == 1e4


@pytest.mark.parametrize(
    ("stretch", "seed"),
    [
        (0.5, 1),
        (1.0, 2),
        (2.0, 3),
        *(
            pytest.param(stretch, seed, marks=pytest.mark.long)
            for stretch in (0.5, 0.7, 1.0, 1.3, 1.6, 1.9, 2.0)
            for seed in (11, 12, 13)
        ),
    ],
)
def test_exponents_are_recovered_from_the_data_alone(stretch, seed):
    truth = StretchedExponential(PowerLawRate(0.6, -0.2, 0.0), stretch)
    t = 0.1 * np.arange(1, 61)
    data = make_data(truth, t=t, phi=[0.0], seed=seed, noise=0.003)
    start = with_parameters(
        StretchedExponential(), StretchedExponential().starts(half_decays(data), data.geometry)
    )
    fit = least_squares(projected_objective(parameter_map(start, t, fixed=("Gamma_offset",)), data))
    assert fit.success
    for name in ("Gamma0", "ageing", "stretch"):
        row, true = fit[name], float(parameter_values(truth)[name])
        # Two is the largest exponent there is: a fit that would go beyond ends there.
        assert abs(row.value - true) < 3 * row.error or (row.at_bound and row.value == true == 2.0)
