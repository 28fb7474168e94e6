"""Fits as differentiable functions: derivatives against refits, both modes, jit and vmap."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    LAMINAR,
    QUICK_TO_COMPILE,
    TRANSPORT,
    assert_close,
    dense_residual,
    frame_times,
    joint_objective,
    make_data,
    mapped,
    pooled,
)

from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import (
    FullCurvature,
    GaussNewtonCurvature,
    classical_covariance,
    fitted,
    least_squares,
    with_values,
)
from xpcs_eqx.fitting.derivative.minimum import minimum_of
from xpcs_eqx.objective import HostLoop, Pull, SoftL1, projected_objective
from xpcs_eqx.optimize import Status, TrustRegion
from xpcs_eqx.parameters import with_parameters
from xpcs_eqx.physics import Static
from xpcs_eqx.scaling import Averaged, Fixed, Fourier, Individual

STATIC = Static(TRANSPORT)
# Refits must agree to far more digits than the differences between them have.
TIGHT = TrustRegion(cost_tol=1e-16, gradient_tol=1e-12, step_tol=1e-13)
# How well exact derivatives must agree with central differences of refits.
RELATIVE = 1e-4


def quick(function):
    return jax.jit(function, compiler_options=QUICK_TO_COMPILE)


def direction(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def assert_derivative(objective_at, n, quantity=None):
    """Derivatives of a fit to objective_at(s), by the n entries of s at 0, equal those of refits.

    Differences are central, of fourth order, with steps that move the fit by a fifth of a standard
    error: far above what refits leave open. Agreement is relative to the largest derivative by the
    same entry of s, every parameter in units of its error. Both modes agree.
    """
    origin = jnp.zeros(n)
    traces = []

    def values_at(s):
        objective = objective_at(s)
        values = fitted(objective, solver=TIGHT).values
        return values if quantity is None else quantity(objective, values)

    @quick
    def run(s):
        traces.append(s)
        return values_at(s)

    @quick
    def both_modes(s):
        values, push = jax.linearize(values_at, s)
        pull = jax.linear_transpose(push, s)
        forward = jax.vmap(push, out_axes=1)(jnp.eye(n))
        backward = jax.vmap(lambda v: pull(v)[0])(jnp.eye(values.shape[0]))
        errors = values
        if quantity is None:
            errors = jnp.sqrt(jnp.diagonal(classical_covariance(objective_at(s), values)))
        return forward, backward, errors

    forward, backward, errors = (np.asarray(a) for a in both_modes(origin))
    errors = np.where(errors > 0, errors, 1.0)[:, None]
    exact = forward / errors
    assert np.isfinite(exact).all()
    assert_close(backward / errors, exact, 1e-9, np.abs(exact).max(axis=0))
    # A quantity is its own unit, and a fifth of it is no small change.
    reach = 0.2 if quantity is None else 0.02
    steps = np.minimum(reach / np.abs(exact).max(axis=0), 0.05)
    for i, size in enumerate(steps):
        at = {k: np.asarray(run(origin.at[i].set(k * size))) for k in (-2, -1, 1, 2)}
        found = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * size) / errors[:, 0]
        atol = RELATIVE * np.abs(found).max()
        np.testing.assert_allclose(exact[:, i], found, rtol=0, atol=atol, err_msg=f"input {i}")
    assert len(traces) == 1
    return exact


def d_offset(values):
    return values["D_offset"]


def perturbed(objective, s):
    """An objective whose every kind of input moves with an entry of s."""
    term = objective.term
    shape = term.tiles.c2.shape
    weights = 100 * (1 + s[1] * direction(shape, 1))
    c2 = term.tiles.c2 + s[0] * direction(shape, 0)
    return with_values(
        objective,
        c2=c2.at[1, 3, 7].add(s[2]),
        root_weights=weights,
        angle_weights=jnp.exp(s[3] * jnp.array([1.0, -0.5, 0.3])),
        q=term.geometry.q * (1 + s[4]),
        gap=term.geometry.gap * (1 + s[5]),
        phi=term.geometry.phi + s[6] * jnp.array([1.0, 2.0, -1.0]),
        t=term.t * (1 + s[7]),
        fixed={"alpha": -0.3 + s[8]},
        penalties=(Pull(d_offset, jnp.asarray(300.0) + 100 * s[9], 200.0 * (1 + s[10])),),
    )


N_INPUTS = 11


@pytest.fixture(scope="module")
def laminar():
    data = make_data(LAMINAR, t=frame_times(25, 1.0), noise=0.01)
    parameters = mapped(LAMINAR, data, fixed=("alpha", "gamma_dot_t_offset"))
    return projected_objective(parameters, data, tile=10)


@pytest.mark.slow
def test_laminar_fit_by_every_input(laminar):
    assert_derivative(lambda s: perturbed(laminar, s), N_INPUTS)


def static_objective(build=projected_objective, scaling=None, *, model=STATIC, bounds=None, **rest):
    """Diffusion at rest with so much noise that curvature of the model counts."""
    n, dtype = rest.pop("n", 16), rest.pop("dtype", np.float64)
    data = make_data(STATIC, t=frame_times(n, 4.0), noise=0.02, dtype=dtype)
    parameters = mapped(model, data, fixed=("D_offset",), bounds=bounds)
    return build(parameters, data, scaling, **rest)


def moved(objective, s):
    """Data and geometry that move with three entries of s."""
    term = objective.term
    # Smooth over the map, so that parameters move by more than residuals do.
    ramp = jnp.linspace(0.5, 1.0, term.t.shape[0])
    c2 = term.tiles.c2 + s[0] * ramp[:, None] * ramp**2
    return with_values(objective, c2=c2, q=term.geometry.q * (1 + s[1]), t=term.t * (1 + s[2]))


@pytest.mark.long
def test_fourier_scaling_with_a_robust_loss_by_its_scale():
    scaling = Fourier(np.array([0.0, 45.0, 90.0]), order=1)
    objective = static_objective(joint_objective, scaling, loss=SoftL1(0.02))

    def at(s):
        scale = objective.loss.scale * jnp.exp(s[3])
        return eqx.tree_at(lambda o: o.loss.scale, moved(objective, s), scale)

    assert_derivative(at, 4)


@pytest.mark.long
def test_fixed_scaling_by_its_values():
    objective = static_objective(scaling=Fixed(np.full(3, 0.2), np.full(3, 1.0)))

    def at(s):
        contrast = objective.term.scaling.contrast + s[3]
        return eqx.tree_at(lambda o: o.term.scaling.contrast, moved(objective, s), contrast)

    assert_derivative(at, 4)


@pytest.mark.long
def test_covariance_of_an_averaged_fit():
    objective = static_objective(scaling=Averaged(3))

    def errors(objective, values):
        return jnp.sqrt(jnp.diagonal(classical_covariance(objective, values)))

    assert_derivative(lambda s: moved(objective, s), 3, errors)


@pytest.mark.long
def test_nothing_moves_along_an_active_bound():
    """Also the rest moves as if what is on a bound were fixed there, and with the bound."""
    objective = static_objective(
        scaling=Individual(3, contrast_bounds=(0.0, 0.19)),
        model=with_parameters(STATIC, {"alpha": -0.1}),
        bounds={"alpha": (-0.2, 1.0)},
    )

    def at(s):
        lower = objective.variables.lower + s[3] * jnp.array([0.0, 1.0])
        return eqx.tree_at(lambda o: o.variables.lower, moved(objective, s), lower)

    exact = assert_derivative(at, 4)
    held = np.array([True, True, True, False, False, False, False, True])
    np.testing.assert_array_equal(exact[held, :3], 0.0)
    assert np.all(exact[~held, 0] != 0)
    assert exact[-1, 3] == 1.0


def test_same_optimum_and_covariance_as_the_local_fit():
    objective = static_objective()
    fit = least_squares(objective)
    values = fitted(objective)
    # The local fit stops where its cost no longer falls; this one takes one more step.
    errors = fit.uncertainty.errors("classical")
    assert_close(values.values, fit.values, 1e-4, errors)
    problem = minimum_of(objective)
    gradient = quick(lambda problem, u: problem.gradient(u))
    slope = [gradient(problem, u) * errors for u in (values.values, fit.values)]
    assert np.linalg.norm(slope[0]) < np.linalg.norm(slope[1])
    assert int(values.status) == int(fit.status)
    assert values["D0"] == values.values[-2]
    np.testing.assert_array_equal(values.contrast, values.values[:3])
    np.testing.assert_allclose(values.cost, fit.cost, rtol=1e-10)
    covariance = classical_covariance(objective, values.values)
    assert_close(covariance, fit.uncertainty.classical, 1e-5, np.outer(errors, errors))


@pytest.mark.parametrize("cut", ["maps", pytest.param("points", marks=pytest.mark.long)])
def test_curvature_is_the_derivative_of_the_gradient(cut):
    data = make_data(LAMINAR, t=frame_times(12, 1.0), noise=0.02)
    parameters = mapped(LAMINAR, data, fixed=("D_offset",))
    objective = projected_objective(parameters, data if cut == "maps" else pooled(data), tile=7)
    problem = minimum_of(objective)
    u = jnp.concatenate([jnp.array([0.2, 0.21, 0.19, 1.0, 1.01, 0.99]), parameters.start * 1.1])

    @quick
    def found(u):
        by_pairs = FullCurvature().matrix(problem, u)
        gauss_newton = GaussNewtonCurvature().matrix(problem, u)
        gradient = problem.gradient(u)
        return by_pairs, gauss_newton, gradient

    @quick
    def wanted(u):
        gradient = jax.grad(lambda u: dense_cost(problem, data, u))
        matrix = jax.jacfwd(lambda u: dense_residuals(problem, data, u))(u)
        return jax.jacfwd(gradient)(u), matrix.T @ matrix, gradient(u)

    scale = np.sqrt(np.diagonal(np.asarray(wanted(u)[1])))
    for one, other in zip(found(u)[:2], wanted(u)[:2], strict=True):
        assert_close(one, other, 1e-9, np.outer(scale, scale))
    assert_close(found(u)[2], wanted(u)[2], 1e-9, scale)


def dense_residuals(problem, data, u):
    c, x = problem.split(u)
    return dense_residual(problem.term, data, x, c)


def dense_cost(problem, data, u):
    return 0.5 * jnp.sum(dense_residuals(problem, data, u) ** 2)


@pytest.mark.long
def test_gauss_newton_is_right_where_residuals_are_small_and_else_not():
    def derivative(noise, curvature):
        data = make_data(STATIC, t=frame_times(16, 4.0), noise=noise)
        objective = projected_objective(mapped(STATIC, data, fixed=("D_offset",)), data)
        return by_q(curvature, objective)[-2:]

    @quick
    def by_q(curvature, objective):
        def at(q):
            return fitted(with_values(objective, q=q), curvature=curvature).values

        return jax.jacfwd(at)(objective.term.geometry.q)

    small = [derivative(1e-6, c) for c in (FullCurvature(), GaussNewtonCurvature())]
    np.testing.assert_allclose(*small, rtol=1e-4)
    large = [derivative(0.05, c) for c in (FullCurvature(), GaussNewtonCurvature())]
    assert np.max(np.abs(large[0] / large[1] - 1)) > 1e-3


@pytest.mark.long
def test_vmap_over_data_sets_equals_separate_fits():
    objective = static_objective(n=12)
    maps = objective.term.tiles.c2
    stack = maps + 0.02 * direction((5, *maps.shape), 8)

    def one(c2):
        found = fitted(with_values(objective, c2=c2))
        return found.values, found.status

    values, status = quick(jax.vmap(one))(stack)
    single = quick(one)
    for k in range(5):
        np.testing.assert_allclose(values[k], single(stack[k])[0], rtol=1e-8)
    assert np.all(np.asarray(status) > 0)


def test_what_did_not_converge_has_no_derivative():
    objective = static_objective(n=12)
    solver = TrustRegion(max_evaluations=2)

    @quick
    def both(q):
        def at(q):
            found = fitted(with_values(objective, q=q), start=jnp.array([5e4, 0.5]), solver=solver)
            return found.values, found.status

        backward = jax.grad(lambda q: at(q)[0][-1])(q)
        return jax.jvp(at, (q,), (jnp.ones(()),)), backward

    ((values, status), (change, _)), backward = both(objective.term.geometry.q)
    assert int(status) == Status.max_evaluations
    assert np.all(np.isfinite(values))
    assert np.all(np.isnan(change))
    assert np.isnan(backward)


@pytest.mark.long
def test_single_precision_maps_keep_their_precision():
    objective = static_objective(n=12, dtype=np.float32)
    gradient = quick(jax.grad(lambda c2: fitted(with_values(objective, c2=c2))["D0"]))(
        objective.term.tiles.c2
    )
    assert gradient.dtype == np.float32
    lower = np.tril_indices(12)
    np.testing.assert_array_equal(np.asarray(gradient)[:, lower[0], lower[1]], 0.0)
    assert np.all(np.asarray(gradient)[:, 0, 1] != 0)


def test_a_loop_in_python_cannot_be_differentiated():
    with pytest.raises(ModelError, match="build the objective with Scan"):
        fitted(static_objective(driver=HostLoop()))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fixed": {"alpha": 0.1}}, "alpha is fitted"),
        ({"fixed": {"D_ofset": 0.1}}, "did you mean 'D_offset'"),
        ({"c2": np.ones((3, 4, 4))}, r"c2 has shape \(3, 4, 4\)"),
        ({"q": np.ones(2)}, r"q has shape \(2,\)"),
    ],
)
def test_values_that_do_not_fit(given, message):
    with pytest.raises(ModelError, match=message):
        with_values(static_objective(), **given)


def test_points_have_no_maps_to_replace():
    data = make_data(STATIC, n=12)
    objective = projected_objective(mapped(STATIC, data), pooled(data))
    with pytest.raises(ModelError, match="PointTiles"):
        with_values(objective, angle_weights=np.ones(3))


def test_a_start_of_another_length():
    with pytest.raises(ModelError, match="the start has shape"):
        fitted(static_objective(), start=np.ones(3))
