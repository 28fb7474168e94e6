"""Bijections, the parameter map, and the dependence table."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, MODELS, make_data, mapped, values_of

import xpcs_eqx as xe
from xpcs_eqx.errors import ModelError
from xpcs_eqx.objective.kernel.frame_table import dependence
from xpcs_eqx.parameters import (
    Identity,
    Log,
    ReferenceAmplitude,
    ReferenceTime,
    SignedSlope,
    Slope,
    parameter_map,
    with_parameters,
)

T_REF = jnp.asarray(3.7)
BIJECTIONS = {
    "identity": (Identity(), (1.3, -0.2)),
    "log": (Log(), (120.0,)),
    "reference amplitude": (ReferenceAmplitude(T_REF), (1.2e4, -0.4)),
    "reference time": (ReferenceTime(T_REF), (1.2e4, -0.4, 300.0)),
    "slope": (Slope(T_REF), (1.2e4, -0.4, 300.0)),
    "slope, negative offset": (Slope(T_REF), (2e-3, 0.7, -1e-3)),
    "signed slope": (SignedSlope(T_REF), (2e-3, 0.7, -1e-2)),
}


@pytest.mark.parametrize("name", BIJECTIONS, ids=str)
def test_bijections_are_bijective(name):
    bijection, x = BIJECTIONS[name]
    x = tuple(jnp.asarray(v) for v in x)
    y = bijection.inverse(x)
    for found, wanted in zip(bijection.forward(y), x, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    for found, wanted in zip(bijection.inverse(bijection.forward(y)), y, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10)
    # The log-determinant against differences of the forward map.
    h = 1e-6
    columns = []
    for i in range(len(y)):
        up, down = (
            np.array(bijection.forward(tuple(v + s * h * (k == i) for k, v in enumerate(y))))
            for s in (1, -1)
        )
        columns.append((up - down) / (2 * h))
    sign, wanted = np.linalg.slogdet(np.array(columns).T)
    assert sign != 0
    np.testing.assert_allclose(bijection.log_det(y), wanted, rtol=1e-6, atol=1e-6)


def test_slope_coordinates_mean_what_they_say():
    a, b, c = (jnp.asarray(v) for v in (1.2e4, -0.4, 300.0))

    def rate(t):
        return a * t**b + c

    log_rho, s, w = Slope(T_REF).inverse((a, b, c))
    np.testing.assert_allclose(log_rho, jnp.log(rate(T_REF)), rtol=1e-12)
    np.testing.assert_allclose(s, T_REF * jax.grad(rate)(T_REF) / rate(T_REF), rtol=1e-12)
    np.testing.assert_allclose(w, c / rate(T_REF), rtol=1e-12)


@pytest.mark.parametrize("name", MODELS, ids=str)
def test_map_there_and_back(name):
    model = MODELS[name]
    parameters = mapped(model, make_data(model, n=8))
    x = parameters.start
    y = parameters.to_coordinates(x)
    np.testing.assert_allclose(parameters.to_physical(y), x, rtol=1e-12)
    np.testing.assert_allclose(parameters.all_values(x), list(values_of(model).values()))
    rebuilt = parameters.build_from_coordinates(tuple(y))
    for key, value in values_of(rebuilt).items():
        np.testing.assert_allclose(value, values_of(model)[key], rtol=1e-12)


def test_fixed_tied_and_equal_bounds():
    ties = {"D_offset": lambda values: 0.1 * values["D0"]}
    parameters = parameter_map(
        LAMINAR,
        jnp.linspace(0, 1, 5),
        fixed=("alpha",),
        ties=ties,
        bounds={"beta": (0.25, 0.25)},
    )
    assert parameters.free_names == ("D0", "gamma_dot_t0", "gamma_dot_t_offset", "phi0")
    model = parameters.build(jnp.array([2e4, 1e-3, 0.0, 1.0]))
    values = values_of(model)
    assert values["D_offset"] == 2e3
    assert values["alpha"] == values_of(LAMINAR)["alpha"]
    assert values["beta"] == 0.25


def test_a_tie_to_nothing_is_named():
    parameters = parameter_map(LAMINAR, ties={"phi0": lambda values: values["phi"]})
    with pytest.raises(ModelError, match="tie of phi0 asks for 'phi'; what it may use is D0"):
        parameters.build(parameters.start)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"fixed": ("alpa",)}, "did you mean 'alpha'"),
        ({"bounds": {"D0": (5.0, 1.0)}}, "bounds of D0 are inside out"),
        ({"bounds": {"D0": (1.0, 5.0)}}, "start value 15000 of D0 lies outside"),
        ({"ties": {"gamma": lambda values: 0.0}}, "no parameter 'gamma'"),
        ({"scale": {"phi": 1.0}}, "did you mean 'phi0'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named(keywords, message):
    with pytest.raises(ModelError, match=message):
        parameter_map(LAMINAR, **keywords)


def test_a_start_that_is_not_finite():
    with pytest.raises(ModelError, match="start value of alpha is nan"):
        parameter_map(with_parameters(LAMINAR, {"alpha": np.nan}))


def test_with_parameters_replaces_and_keeps():
    changed = with_parameters(LAMINAR, {"beta": 0.7})
    assert values_of(changed) == {**values_of(LAMINAR), "beta": 0.7}
    assert eqx.tree_equal(with_parameters(changed, {"beta": 0.3}), LAMINAR)


def test_dependence_table():
    def function(a, b, c):
        inner = jax.jit(lambda x, y: (x + 1.0, y * 2.0))(a, b)
        return [a * 2.0, inner[0], jnp.sin(b) + c, jnp.ones(())]

    wanted = [
        [True, False, False],
        [True, True, False],  # a call is taken as a whole
        [False, True, True],
        [False, False, False],
    ]
    np.testing.assert_array_equal(dependence(function, 1.0, 2.0, 3.0), wanted)


@pytest.mark.parametrize("name", MODELS, ids=str)
def test_dependence_never_misses_a_derivative(name):
    model = MODELS[name]
    data = make_data(model, n=8)
    parameters = mapped(model, data)

    def rows(*y):
        features = parameters.build_from_coordinates(y).features(jnp.asarray(data.t), data.geometry)
        return jax.tree.leaves(features)

    y = tuple(parameters.to_coordinates(parameters.start))
    table = dependence(rows, *y)
    derivatives = jax.jacfwd(rows, argnums=tuple(range(len(y))))(*y)
    for k, by_parameter in enumerate(derivatives):
        for a, derivative in enumerate(by_parameter):
            assert table[k, a] or not np.any(derivative)


def test_a_declaration_that_cannot_be_is_a_mistake_in_a_model():
    for keywords in (
        {"bounds": (1.0, 1.0)},
        {"bounds": (2.0, 1.0)},
        {"start": 5.0, "bounds": (0, 1)},
    ):
        with pytest.raises(xe.ModelError):
            xe.physics.parameter(**keywords)
    for phi, q in ((3.0, 0.1), ([[0.0]], 0.1), ([0.0], [0.1, 0.2])):
        with pytest.raises(xe.DataError):
            xe.Geometry(q=q, phi=phi)
