"""Penalties on contrast and offset: one definition for value, gradient and curvature."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SCALINGS, SoftL1
from helpers_defences import joint, projected, static_data, static_map

from xpcs_eqx.compiling import quick_jit
from xpcs_eqx.defences import (
    AbsoluteRegularisation,
    AbsoluteVariation,
    RelativeRegularisation,
    RelativeVariation,
    coefficient_of_variation,
    regularisation_for,
)
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import FullCurvature, least_squares, solve
from xpcs_eqx.fitting.derivative.minimum import minimum_of
from xpcs_eqx.objective import (
    JointObjective,
    joint_of,
    projected_objective,
    scaling_penalty_equations,
    two_time_objective,
)
from xpcs_eqx.optimize import evaluated

RELATIVE, ABSOLUTE = RelativeVariation(10.0, 0.02), AbsoluteVariation(3.0, 500.0)
VALUES = np.array([[0.2, 1.0], [0.24, 1.02], [0.13, 0.99]])


def half_square(penalty, per_angle):
    return 0.5 * jnp.sum(penalty.residuals(per_angle) ** 2)


def test_values_are_those_of_the_formula():
    cv = np.std(VALUES, axis=0) / np.mean(VALUES, axis=0)
    np.testing.assert_allclose(coefficient_of_variation(VALUES), cv, rtol=1e-13)
    # λ·CV²·S and λ·Var·n are added to the sum of squares, half of them to the cost.
    relative, absolute = 10.0 * 0.02 * np.sum(cv**2), 3.0 * 500 * np.sum(np.var(VALUES, axis=0))
    np.testing.assert_allclose(half_square(RELATIVE, VALUES), 0.5 * relative, rtol=1e-12)
    np.testing.assert_allclose(half_square(ABSOLUTE, VALUES), 0.5 * absolute, rtol=1e-12)
    only = RelativeVariation(10.0, 0.02, ("contrast",))
    np.testing.assert_allclose(half_square(only, VALUES), 0.5 * 10 * 0.02 * cv[0] ** 2, rtol=1e-12)
    assert np.all(np.isfinite(RELATIVE.residuals(np.zeros((3, 2)))))


@pytest.mark.parametrize("kind", [RelativeRegularisation, AbsoluteRegularisation])
@pytest.mark.parametrize("group", [0, 1])
def test_at_the_target_variation_the_penalty_is_the_target_share(kind, group):
    layer = kind()
    assert layer.weight == pytest.approx(10.0)
    mean = np.array([0.2, 1.1])
    per_angle = np.tile(mean, (4, 1))
    per_angle[:, group] *= 1 + 0.1 * np.array([-1.0, 1.0, -1.0, 1.0])
    # Whatever the unit of the residuals and the number of pairs.
    for squares, pairs in ((0.3, 100), (2e6, 10**6)):
        penalty = layer.penalty(squares, pairs, mean)
        assert float(half_square(penalty, per_angle)) / (0.5 * squares) == pytest.approx(0.10)


@pytest.mark.parametrize("penalty", [RELATIVE, ABSOLUTE], ids=["relative", "absolute"])
@pytest.mark.parametrize("mode", ["individual", "fourier"])
def test_gradient_and_curvature_are_those_of_the_value(penalty, mode):
    scaling = SCALINGS[mode]
    start = np.asarray(scaling.from_per_angle(jnp.asarray(VALUES)))

    @quick_jit
    def equations(c):
        return scaling_penalty_equations((penalty,), scaling, c)

    found = equations(start)
    step = 1e-6
    for i in range(start.size):
        kick = step * np.eye(start.size)[i]
        up, down = equations(start + kick), equations(start - kick)
        slope = (float(up.cost) - float(down.cost)) / (2 * step)
        assert float(found.gradient[i]) == pytest.approx(slope, rel=1e-5, abs=1e-9)
        if penalty is ABSOLUTE:
            # Linear residuals: JᵀJ is the exact curvature.
            bent = np.asarray(up.gradient - down.gradient) / (2 * step)
            np.testing.assert_allclose(found.hessian[i], bent, rtol=1e-6, atol=1e-6)
    assert np.linalg.eigvalsh(np.asarray(found.hessian)).min() > -1e-9


def test_an_objective_adds_its_penalties_and_their_derivatives():
    objective = joint(loss=SoftL1(0.01), scaling_penalties=(RELATIVE, ABSOLUTE))
    bare = joint(loss=SoftL1(0.01))
    rng = np.random.default_rng(3)
    y = np.array(objective.variables.to_coordinates(objective.start))
    y[2:] *= 1 + 0.1 * rng.normal(size=y.size - 2)
    found, _ = evaluated(objective, jnp.asarray(y), objective.memo)
    plain, _ = evaluated(bare, jnp.asarray(y), bare.memo)
    per_angle = np.asarray(objective.term.scaling.per_angle(jnp.asarray(y[2:])))
    added = sum(float(half_square(one, per_angle)) for one in (RELATIVE, ABSOLUTE))
    assert float(found.cost - plain.cost) == pytest.approx(added, rel=1e-9)
    assert added > 0.1 * float(plain.cost)
    cost = quick_jit(lambda o, y: o.cost(y, o.memo))
    for i in range(y.size):
        kick = 1e-6 * np.eye(y.size)[i]
        slope = (float(cost(objective, y + kick)) - float(cost(objective, y - kick))) / 2e-6
        assert float(found.gradient[i]) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_elimination_with_a_linear_penalty_is_exact():
    eliminated = projected(scaling_penalties=(ABSOLUTE,))
    together = joint_of(eliminated)
    assert isinstance(together, JointObjective)
    one, free = (least_squares(o) for o in (eliminated, projected()))
    other = solve(together)
    assert one.success
    assert float(one.cost) == pytest.approx(float(other.equations.cost), rel=1e-10)
    np.testing.assert_allclose(np.asarray(other.y)[2:], one.values[:6], rtol=1e-5)
    # It does something, and a reader of the fit is told.
    assert np.std(one.contrast) < 0.5 * np.std(free.contrast)
    first = [np.linalg.inv(np.asarray(fit.joint_hessian))[0, 0] for fit in (one, free)]
    assert first[0] < 0.5 * first[1]
    assert "conditional on it" in one.quality.findings[-1]
    assert not any("conditional on it" in text for text in free.quality.findings)
    # The derivative of the minimised cost vanishes, whichever way it is written.
    problem = minimum_of(eliminated)
    u = jnp.asarray(one.values)
    cost, slope = quick_jit(lambda p, u: (p.cost(u), p.gradient(u)))(problem, u)
    assert float(cost) == pytest.approx(float(one.cost), rel=1e-9)
    unit = np.sqrt(np.diagonal(np.asarray(one.joint_hessian)))
    assert np.max(np.abs(slope) / unit) < 1e-6 * np.sqrt(2 * float(cost))
    matrix = np.asarray(quick_jit(FullCurvature().matrix)(problem, u))
    kick = jnp.asarray(1e-5 * np.eye(u.size)[0])
    along = quick_jit(lambda p, u, k: p.gradient(u + k) - p.gradient(u - k))
    np.testing.assert_allclose(
        matrix[0] / unit, along(problem, u, kick) / 2e-5 / unit, atol=1e-4 * unit[0]
    )


def test_only_linear_penalties_are_eliminated():
    with pytest.raises(ModelError, match=r"RelativeVariation is not linear .* two_time_objective"):
        projected_objective(static_map(), static_data(), scaling_penalties=(RELATIVE,))
    chosen = two_time_objective(static_map(), static_data(), scaling_penalties=(RELATIVE,))
    assert isinstance(chosen, JointObjective)
    linear = two_time_objective(static_map(), static_data(), scaling_penalties=(ABSOLUTE,))
    assert not isinstance(linear, JointObjective)


def test_the_form_follows_the_number_of_angles():
    assert isinstance(regularisation_for(5), AbsoluteRegularisation)
    assert isinstance(regularisation_for(6, target_share=0.2), RelativeRegularisation)
    assert regularisation_for(6, target_share=0.2).weight == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_variation": 0.0}, "target_variation is 0.0; .* above zero"),
        ({"target_share": -0.1}, "target_share"),
        ({"largest_variation": np.nan}, "largest_variation"),
        ({"factor": np.inf}, "factor"),
        ({"groups": ("contrasts",)}, "no group 'contrasts'"),
        ({"groups": ()}, "groups"),
    ],
)
@pytest.mark.parametrize("kind", [RelativeRegularisation, AbsoluteRegularisation])
def test_wrong_numbers_are_refused(kind, fields, message):
    with pytest.raises(ModelError, match=message):
        kind(**fields)


def test_a_posterior_has_no_penalties_on_the_scaling():
    from xpcs_eqx.bayes import log_posterior

    with pytest.raises(ModelError, match="penalties on contrast and offset are no part"):
        log_posterior(projected(scaling_penalties=(ABSOLUTE,)))
