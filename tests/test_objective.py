"""Objectives against dense derivatives, finite differences, and each other."""

import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    DOUBLE,
    LAMINAR,
    LOSSES,
    MODELS,
    QUICK_TO_COMPILE,
    SCALINGS,
    SINGLE,
    Stretched,
    assert_close,
    dense_residual,
    make_data,
    mapped,
    pooled,
    start_off,
)
from scipy.optimize import least_squares as scipy_least_squares

from xpcs_eqx.data import TwoTimeData, from_dict
from xpcs_eqx.errors import DataError, ModelError
from xpcs_eqx.objective import (
    HostLoop,
    Linear,
    NormalEquations,
    Pull,
    noise_of,
    projected_objective,
    residual,
    two_time_objective,
)
from xpcs_eqx.physics import AbstractCorrelation, Features, parameter

# Many small shapes: compiling takes the time, not running.
evaluate = eqx.filter_jit(
    lambda objective, y, memo: objective.evaluate(y, memo), compiler_options=QUICK_TO_COMPILE
)
cost_of = eqx.filter_jit(
    lambda objective, y, memo: objective.cost(y, memo), compiler_options=QUICK_TO_COMPILE
)


def at_start(objective, step=0.02):
    """Coordinates a little beside the start, where the gradient does not vanish."""
    y = objective.variables.to_coordinates(jnp.asarray(objective.start))
    return y + step * jnp.cos(jnp.arange(y.size))


def normal(objective, y=None):
    y = at_start(objective) if y is None else y
    return evaluate(objective, y, objective.memo)[0]


def assert_same_equations(found, wanted, rtol=DOUBLE.same):
    assert_close(found.cost, wanted.cost, rtol)
    assert_close(found.gradient, wanted.gradient, rtol)
    assert_close(found.hessian, wanted.hessian, rtol)
    assert float(found.count) == float(wanted.count)


@pytest.fixture(scope="module", params=MODELS, ids=str)
def case(request):
    """A model with data, both objectives at a start beside the truth, and the dense Jacobian."""
    model = MODELS[request.param]
    data = make_data(model)
    parameters = mapped(model, data)
    joint = two_time_objective(parameters, data, tile=13, eliminate=False)
    projected = projected_objective(parameters, data, tile=13)
    y = at_start(projected)
    coefficients = evaluate(projected, y, projected.memo)[1].coefficients

    @jax.jit
    def dense(y, c):
        def function(y, c):
            return dense_residual(joint.term, data, y, c)

        columns = jnp.concatenate(jax.jacfwd(function, (0, 1))(y, c), axis=1)
        return function(y, c), columns

    return joint, projected, y, coefficients, dense


def test_normal_equations_are_the_dense_ones(case):
    joint, _, y, coefficients, dense = case
    r, columns = dense(y, coefficients)
    found = normal(joint, jnp.concatenate([y, coefficients]))
    lengths = np.linalg.norm(columns, axis=0)
    assert_close(found.cost, 0.5 * r @ r, DOUBLE.same)
    assert_close(found.gradient, columns.T @ r, DOUBLE.derivative, lengths * np.linalg.norm(r))
    assert_close(found.hessian, columns.T @ columns, DOUBLE.derivative, np.outer(lengths, lengths))
    assert float(found.count) == r.size


def test_projection_is_the_schur_complement_of_the_dense_ones(case):
    _, projected, y, coefficients, dense = case
    r, columns = dense(y, coefficients)
    physical, linear = np.asarray(columns[:, : y.size]), np.asarray(columns[:, y.size :])
    # The linear least-squares problem really is solved …
    assert_close(linear.T @ r, 0.0, 1e-9, np.linalg.norm(linear, axis=0) * np.linalg.norm(r))
    # … and eliminating it means projecting the other columns (Kaufman's derivative).
    q, _ = np.linalg.qr(linear)
    reduced = physical - q @ (q.T @ physical)
    found = normal(projected, y)
    lengths = np.linalg.norm(physical, axis=0)
    assert_close(found.hessian, reduced.T @ reduced, DOUBLE.derivative, np.outer(lengths, lengths))
    assert_close(found.gradient, reduced.T @ r, DOUBLE.derivative, lengths * np.linalg.norm(r))


def test_gradient_of_the_projected_cost_against_differences(case):
    _, projected, y, *_ = case
    found = normal(projected, y).gradient
    h = 1e-5

    def cost(y):
        return float(cost_of(projected, y, projected.memo))

    steps = h * jnp.eye(y.size)
    wanted = np.array([(cost(y + e) - cost(y - e)) / (2 * h) for e in steps])
    assert_close(found, wanted, DOUBLE.difference, np.maximum(np.abs(wanted), 1e-4))
    assert_close(cost(y), normal(projected, y).cost, DOUBLE.same)


@pytest.fixture(scope="module")
def small():
    """The model that compiles fastest, for what does not depend on the model."""
    data = make_data(Stretched(tau=2.0, stretch=0.8), n=20)
    return data, mapped(Stretched(tau=2.5, stretch=0.9), data)


def test_without_jit_and_with_another_driver_the_same(small):
    data, parameters = small
    wanted = normal(projected_objective(parameters, data))
    host = projected_objective(parameters, data, tile=9, driver=HostLoop())
    y = at_start(host)
    found, _ = host.evaluate(y, host.memo)
    assert_same_equations(found, wanted)
    assert_close(host.cost(y, host.memo), wanted.cost, DOUBLE.same)


@pytest.fixture(scope="module")
def laminar():
    data = make_data(LAMINAR, n=40)
    parameters = mapped(start_off(LAMINAR, 1.1), data)
    objective = projected_objective(parameters, data)
    return data, parameters, objective, normal(objective)


@pytest.mark.parametrize("tile", [7, 39, 64])
def test_tile_size_does_not_matter(laminar, tile):
    data, parameters, _, wanted = laminar
    assert_same_equations(normal(projected_objective(parameters, data, tile=tile)), wanted)


@pytest.mark.parametrize("tile", [1, 3, 20])
def test_tile_size_does_not_matter_on_a_small_map(small, tile):
    data, parameters = small
    wanted = normal(projected_objective(parameters, data))
    assert_same_equations(normal(projected_objective(parameters, data, tile=tile)), wanted)


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_gradient_with_every_scaling(small, scaling):
    data, parameters = small
    objective = projected_objective(parameters, data, SCALINGS[scaling])
    y, h = at_start(objective), 1e-5
    found = normal(objective, y).gradient
    for i in range(2):
        e = h * jnp.eye(y.size)[i]
        up, down = (float(cost_of(objective, y + s * e, objective.memo)) for s in (1, -1))
        wanted = (up - down) / (2 * h)
        assert_close(found[i], wanted, DOUBLE.difference, max(abs(wanted), 1e-4))


def test_the_reference_affects_rounding_only(laminar):
    data, parameters, _, wanted = laminar
    other = projected_objective(parameters, data, reference=np.array([[0.5, 1.4]] * 3))
    assert_same_equations(normal(other), wanted, 1e-9)


def test_permuted_and_unsorted_angles_change_nothing(laminar):
    data, parameters, _, wanted = laminar
    order = [2, 0, 1]
    turned = eqx.tree_at(
        lambda d: (d.c2, d.geometry.phi), data, (data.c2[order], data.geometry.phi[order])
    )
    assert_same_equations(normal(projected_objective(parameters, turned)), wanted)


def test_duplicated_angles_count_twice(laminar):
    data, parameters, _, wanted = laminar
    twice = TwoTimeData(
        c2=np.concatenate([data.c2, data.c2]),
        t=data.t,
        geometry=eqx.tree_at(lambda g: g.phi, data.geometry, np.tile(data.geometry.phi, 2)),
        root_weights=None,
        diagonal=np.tile(data.diagonal, (2, 1)),
    )
    found = normal(projected_objective(parameters, twice))
    assert_same_equations(found, wanted + wanted)


def test_half_and_full_storage(laminar):
    data, parameters, _, wanted = laminar
    dictionary = {
        "phi": data.geometry.phi,
        "t1": data.t,
        "t2": data.t,
        "q": float(data.geometry.q),
    }
    for stored in (data.c2, np.triu(data.c2), np.tril(data.c2)):
        read = from_dict({**dictionary, "g2": stored})
        assert read.n_pairs == data.n_pairs
        assert_same_equations(normal(projected_objective(parameters, read)), wanted)


def test_only_the_upper_triangle_is_read(laminar):
    data, parameters, _, wanted = laminar
    garbage = data.c2 + np.tril(np.full(data.c2.shape[1:], 1e3))
    other = eqx.tree_at(lambda d: d.c2, data, garbage)
    objective = projected_objective(parameters, other, tile=11)
    assert_same_equations(normal(objective), wanted)


def test_single_precision_data(laminar):
    data, parameters, _, wanted = laminar
    single = eqx.tree_at(lambda d: d.c2, data, data.c2.astype(np.float32))
    rounded = eqx.tree_at(lambda d: d.c2, data, single.c2.astype(np.float64))
    found = normal(projected_objective(parameters, single))
    assert found.gradient.dtype == np.float64
    # The arithmetic is double whatever the storage: the same but for the order of sums, of which
    # the elimination of contrast and offset leaves some fifty roundings …
    assert_same_equations(found, normal(projected_objective(parameters, rounded)))
    # … and storage costs what rounding the data costs.
    assert_close(found.cost, wanted.cost, SINGLE.same)
    assert_close(found.gradient, wanted.gradient, SINGLE.derivative)


def test_pooled_points_equal_maps(laminar):
    data, parameters, _, wanted = laminar
    for size in (None, 100):
        objective = projected_objective(parameters, pooled(data), tile=size)
        assert_same_equations(normal(objective), wanted)


def test_masks_equal_dropped_points(laminar):
    data, parameters, *_ = laminar
    keep = np.random.default_rng(5).random(data.c2.shape) > 0.3
    masked = eqx.tree_at(
        lambda d: (d.c2, d.root_weights),
        data,
        (np.where(keep, data.c2, 0.0), keep.astype(float)),
        is_leaf=lambda leaf: leaf is None,
    )
    found = normal(projected_objective(parameters, masked))
    wanted = normal(projected_objective(parameters, pooled(data, keep)))
    # The start of the scaling differs, since it is made from other pairs; the result may not.
    assert_same_equations(found, wanted)
    assert float(found.count) == masked.n_pairs


def test_weights_multiply_squared_residuals(laminar):
    data, parameters, _, wanted = laminar
    weighted = eqx.tree_at(
        lambda d: d.root_weights, data, np.full(data.c2.shape, 3.0), is_leaf=lambda x: x is None
    )
    found = normal(projected_objective(parameters, weighted))
    assert_close(found.cost, 9 * wanted.cost, DOUBLE.same)
    assert_close(found.hessian, 9 * wanted.hessian, DOUBLE.same)


def test_angle_weights(laminar):
    data, parameters, objective, _ = laminar
    weights = np.array([1.0, 0.0, 2.5])
    other = projected_objective(parameters, data, angle_weights=weights)
    y, per_angle = at_start(objective), objective.term.reference
    plain = objective.term.angle_equations(y, per_angle, Linear())
    found = other.term.angle_equations(y, per_angle, Linear())
    assert_close(found.cost, weights * plain.cost, DOUBLE.same)
    assert_close(found.hessian, weights[:, None, None] * plain.hessian, DOUBLE.same)
    for wrong in (np.ones(2), np.array([1.0, -1.0, 1.0]), np.array([1.0, np.nan, 1.0])):
        with pytest.raises(DataError, match="angle weights"):
            projected_objective(parameters, data, angle_weights=wrong)


def test_units_of_time(laminar):
    data, parameters, _, wanted = laminar
    k = 60.0
    model = parameters.model

    def rescale(rate):
        a, b, c = rate.amplitude, rate.exponent, rate.offset
        return type(rate)(a * k ** (-b - 1), b, c / k)

    other = eqx.tree_at(
        lambda m: (m.transport, m.shear), model, (rescale(model.transport), rescale(model.shear))
    )
    minutes = eqx.tree_at(lambda d: d.t, data, data.t * k)
    infinite = dict.fromkeys(parameters.free_names, (-np.inf, np.inf))
    found = projected_objective(mapped(other, minutes, bounds=infinite), minutes)
    # Slope coordinates are logarithms, slopes and ratios: the equations stay what they were.
    assert_same_equations(normal(found), wanted)


def test_a_penalty_adds_to_the_sum(laminar):
    data, parameters, objective, wanted = laminar
    pull = Pull(lambda values: values["alpha"] + values["beta"], jnp.asarray(0.3), jnp.asarray(0.1))
    other = projected_objective(parameters, data, penalties=(pull,))
    y, h = at_start(objective), 1e-5
    found = normal(other)
    assert float(found.count) == float(wanted.count)
    values = parameters.build(parameters.to_physical(y))
    r = (values.transport.exponent + values.shear.exponent - 0.3) / 0.1
    # Where sigma is not known, by the noise of the maps, so that 0.1 is what it is with sigma.
    noise = noise_of(objective.term.tiles)
    assert 0 < noise < 0.05
    assert_close(found.cost, wanted.cost + 0.5 * (noise * r) ** 2, DOUBLE.same)
    e = h * jnp.eye(y.size)[1]
    up, down = (float(cost_of(other, y + s * e, other.memo)) for s in (1, -1))
    assert_close(found.gradient[1], (up - down) / (2 * h), DOUBLE.difference)


@pytest.mark.parametrize("name", LOSSES, ids=str)
def test_losses_are_those_of_scipy(name):
    loss, r = LOSSES[name], np.random.default_rng(1).normal(0, 0.03, 200)
    f_scale = 1.0 if name == "linear" else float(loss.scale)
    # One evaluation: SciPy reports its cost and gradient at the start.
    peer = scipy_least_squares(
        lambda x: x * r, [1.0], jac=lambda x: r[:, None], loss=name, f_scale=f_scale, max_nfev=1
    )
    assert_close(jnp.sum(loss.density(r)), peer.cost, 1e-12)
    rescaled, factor = loss.rescale(jnp.asarray(r))
    factor = np.ones_like(r) if factor is None else factor
    slope = np.asarray(rescaled) * factor
    assert_close(slope @ r, peer.grad[0], 1e-12)
    # Gradient and curvature are the derivatives of the density, the latter kept positive.
    assert_close(slope, jax.vmap(jax.grad(loss.density))(jnp.asarray(r)), 1e-10)
    curvature = jax.vmap(jax.grad(jax.grad(loss.density)))(jnp.asarray(r))
    assert_close(np.asarray(factor) ** 2, np.maximum(curvature, 0.1 * loss.weight(r)), 1e-10)


@pytest.mark.parametrize("name", LOSSES, ids=str)
def test_influence_of_a_residual_is_the_derivative_of_the_loss(name):
    loss = LOSSES[name]
    margin = 1.0 if name == "linear" else float(loss.scale)
    # Inliers, the edge from both sides, outliers, and what only a wild start knows.
    sizes = np.array([1e-9, 0.3, 0.999999, 1.000001, 2.0, 30.0, 1e6])
    r = margin * jnp.asarray(np.concatenate([-sizes[::-1], [0.0], sizes]))
    first = jax.grad(loss.density)
    assert_close(loss.influence(r), jax.vmap(first)(r), 1e-12)
    assert_close(loss.influence_slope(r), jax.vmap(jax.grad(first))(r), 1e-12)
    assert_close(loss.weight(r) * r, loss.influence(r), 1e-15)
    assert float(loss.weight(jnp.zeros(()))) == 1.0
    # No residual, however large, is without a share in the matrix of the normal equations.
    rescaled, factor = loss.rescale(r)
    factor = jnp.ones_like(r) if factor is None else factor
    assert_close(factor * rescaled, loss.influence(r), 1e-14)
    assert jnp.all(factor**2 >= 0.099 * loss.weight(r))


@pytest.mark.parametrize("name", ["huber", "cauchy"])
def test_gradient_of_a_robust_cost(small, name):
    data, parameters = small
    objective = two_time_objective(parameters, data, loss=LOSSES[name], eliminate=False)
    y, h = at_start(objective, 0.01), 1e-6
    found = normal(objective, y)
    for i in (0, 1, 2, 7):
        e = h * jnp.eye(y.size)[i]
        up, down = (float(cost_of(objective, y + s * e, objective.memo)) for s in (1, -1))
        wanted = (up - down) / (2 * h)
        assert_close(found.gradient[i], wanted, DOUBLE.difference, max(abs(wanted), 1e-3))


def test_the_cheaper_objective_is_chosen(laminar):
    data, parameters, *_ = laminar
    names = parameters.free_names
    assert two_time_objective(parameters, data).names == names
    joint = two_time_objective(parameters, data, loss=LOSSES["huber"])
    assert joint.names == names + SCALINGS["individual"].names


def test_residual_vector(laminar):
    data, parameters, *_ = laminar
    objective = two_time_objective(parameters, data, eliminate=False)
    y = at_start(objective)
    r = eqx.filter_jit(residual)(objective, y)
    assert_close(0.5 * r @ r, normal(objective, y).cost, DOUBLE.same)
    wanted = dense_residual(objective.term, data, y[:7], y[7:])
    assert_close(np.sort(r[r != 0]), np.sort(wanted), DOUBLE.same)


TRACES = []


class Counted(AbstractCorrelation):
    """Counts how often it is traced."""

    speed: float = parameter(unit="1/s", start=0.5, bounds=(1e-3, 10.0))

    def features(self, t, geometry):
        TRACES.append("features")
        return Features(increments=self.speed * t)

    def kernel(self, pair):
        return jnp.exp(-pair.increments)


def test_no_retrace_when_values_change():
    def build(seed, speed):
        data = make_data(Stretched(), n=15, seed=seed)
        data = eqx.tree_at(lambda d: d.t, data, data.t * (1 + seed))
        parameters = mapped(Counted(speed), data, bounds={"speed": (1e-3, 5.0 + seed)})
        return projected_objective(parameters, data)

    first, second = build(0, 0.5), build(1, 0.7)
    TRACES.clear()
    normal(first, jnp.array([0.4]))
    assert TRACES
    TRACES.clear()
    normal(second, jnp.array([0.6]))
    assert not TRACES


def test_normal_equations_are_a_monoid():
    rng = np.random.default_rng(0)

    def draw():
        return NormalEquations(*(jnp.asarray(rng.normal(size=s)) for s in ((), 3, (3, 3), ())))

    a, b, c = draw(), draw(), draw()
    zero = NormalEquations.zero(3)
    for left, right in (
        (a + zero, a),
        (zero + a, a),
        ((a + b) + c, a + (b + c)),
        (a + b, b + a),
        (jax.tree.map(lambda *parts: jnp.stack(parts), a, b, c).total(), a + b + c),
        ((a + b).transform(jnp.eye(3)), a + b),
    ):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), left, right)
    matrix = jnp.asarray(rng.normal(size=(3, 2)))
    whole, parts = (a + b).transform(matrix), a.transform(matrix) + b.transform(matrix)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), whole, parts)


class Careless(AbstractCorrelation):
    """Uses a parameter in the kernel, where its derivative would be lost."""

    speed: float = parameter(start=0.5)

    def features(self, t, geometry):
        return Features(increments=t)

    def kernel(self, pair):
        return jnp.exp(-self.speed * pair.increments)


class Shapeless(AbstractCorrelation):
    """A feature of the wrong shape."""

    speed: float = parameter(start=0.5)

    def features(self, t, geometry):
        return Features(increments=self.speed * t[1:])

    def kernel(self, pair):
        return jnp.exp(-pair.increments)


@pytest.mark.parametrize(
    ("model", "message"),
    [(Careless(), "`kernel` uses the parameter 'speed'"), (Shapeless(), "`increments` has shape")],
)
def test_models_that_break_the_interface(model, message):
    data = make_data(Stretched(), n=6)
    with pytest.raises(ModelError, match=message):
        projected_objective(mapped(model, data), data)


def test_more_parameters_than_pairs():
    data = make_data(LAMINAR, n=3)
    with pytest.raises(ModelError, match=r"13 parameters.*cannot be fitted to 9 pairs"):
        projected_objective(mapped(LAMINAR, data), data)


def test_a_scaling_for_other_angles():
    data = make_data(LAMINAR, n=12, phi=[0.0, 90.0])
    with pytest.raises(ModelError, match="3 angles, the data have 2"):
        projected_objective(mapped(LAMINAR, data), data, SCALINGS["averaged"])


def test_single_precision_is_refused():
    program = """
import numpy as np
from xpcs_eqx import *
from xpcs_eqx.errors import PrecisionError
data = TwoTimeData(c2=np.ones((1, 9, 9)), t=np.arange(9.0), geometry=Geometry(q=0.01, phi=[0.0]),
                   root_weights=None, diagonal=np.ones((1, 9)))
try:
    projected_objective(parameter_map(Static(), data.t), data)
except PrecisionError as error:
    assert 'jax.config.update("jax_enable_x64", True)' in str(error)
    print("refused")
"""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "refused"


def test_frames_before_the_beginning_of_a_power_law_are_refused():
    data = make_data(n=9)
    early = eqx.tree_at(lambda d: d.t, data, np.asarray(data.t) - data.t[4])
    with pytest.raises(DataError, match="4 frames are before t = 0, the first at -"):
        projected_objective(mapped(LAMINAR, data), early)


def test_numbers_of_a_compiled_function_may_be_constants():
    data = make_data(MODELS["static"], n=12)
    objective = projected_objective(mapped(MODELS["static"], data), data)
    y, memo = objective.variables.to_coordinates(jnp.asarray(objective.start)), objective.memo
    c2 = objective.term.tiles.c2
    expected = objective.evaluate(y, memo)[0].cost
    assert_close(jax.jit(lambda one: one * objective.cost(y, memo))(1.0), expected, 1e-12)
    assert_close(
        jax.jit(lambda one: one * objective.evaluate(y, memo)[0].cost)(1.0), expected, 1e-12
    )
    twice, _ = jax.lax.scan(lambda sum_, _: (sum_ + objective.cost(y, memo), None), 0.0, length=2)
    assert_close(twice, 2 * expected, 1e-12)

    def of_maps(c2):
        return eqx.tree_at(lambda one: one.term.tiles.c2, objective, c2).cost(y, memo)

    slope, step = jax.jit(jax.grad(of_maps))(c2), jnp.zeros_like(c2).at[0, 2, 5].set(1e-3)
    change = (of_maps(c2 + step) - of_maps(c2 - step)) / 2e-3
    assert_close(slope[0, 2, 5], change, 1e-6)
