"""Alternation ends where joint and eliminated fits end, or says that it did not."""

import numpy as np
import pytest
from helpers import SoftL1
from helpers_defences import CONTRAST, joint, projected, static_data, static_map

from xpcs_eqx.defences import (
    Hierarchical,
    LBFGSStage,
    ScalingStage,
    TrustRegionStage,
    hierarchical_least_squares,
)
from xpcs_eqx.defences.hierarchical import hierarchical_found
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import least_squares, solve
from xpcs_eqx.objective import HostLoop, projected_objective
from xpcs_eqx.optimize import Status
from xpcs_eqx.scaling import Fixed


def same_optimum(fit, other, within):
    """Equal within a fraction of an error bar, and in cost."""
    errors = np.sqrt(np.diagonal(np.asarray(other.uncertainty.classical)))
    assert np.max(np.abs(fit.values - other.values) / errors) < within
    assert float(fit.cost) == pytest.approx(float(other.cost), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["static", pytest.param("slow", marks=pytest.mark.long)])
def test_hierarchical_joint_and_eliminated_fits_end_at_the_same_optimum(kind):
    seen = []
    eliminated = least_squares(projected(kind))
    fit = hierarchical_least_squares(projected(kind), callback=seen.append)
    assert eliminated.success
    assert fit.success
    same_optimum(fit, eliminated, 1e-4)
    np.testing.assert_allclose(fit.uncertainty.speckle, eliminated.uncertainty.speckle, rtol=1e-3)
    together = solve(joint(kind))
    assert int(together.status) > 0
    p = len(eliminated.index.physical_names)
    x = joint(kind).variables.to_physical(together.y)
    errors = eliminated.uncertainty.errors("classical")
    assert np.max(np.abs(np.roll(x, -p) - eliminated.values) / errors) < 1e-4
    assert fit.solver_name.startswith("hierarchical, LBFGSStage and ScalingStage, finished")
    # The outer iterations are kept, and were seen as they went.
    outer = fit.outer
    assert outer.size == len(seen) <= 5
    assert [one.number for one in seen] == list(range(1, outer.size + 1))
    np.testing.assert_array_equal(outer.physical[-1], seen[-1].physical)
    after = np.stack([outer.cost_physical, outer.cost_scaling], axis=1).ravel()
    assert np.all(np.diff(after) <= 1e-9 * after[:-1])
    assert len(outer.report().splitlines()) == outer.size + 1
    assert eliminated.outer is None


def test_alternation_alone_ends_there_too():
    method = Hierarchical(outer=200, physical=TrustRegionStage(), finish=None)
    fit = hierarchical_least_squares(projected(), method=method)
    assert fit.success, fit.message
    # It stops when it no longer moves: near, not at, the minimum.
    same_optimum(fit, least_squares(projected()), 1e-2)
    assert fit.solver_name == "hierarchical, TrustRegionStage and ScalingStage"
    assert fit.outer.change[-1] <= 1e-6


def test_an_alternation_that_is_cut_short_says_so():
    fit = hierarchical_least_squares(projected(), method=Hierarchical(outer=2, finish=None))
    assert fit.status is Status.max_evaluations
    assert not fit.success
    assert fit.quality.flag == "poor"
    assert fit.outer.size == 2


def test_an_alternation_that_creeps_is_no_convergence():
    # So loose a tolerance that the first small step meets it, far from the minimum.
    method = Hierarchical(outer=50, tolerance=0.05, finish=None)
    fit = hierarchical_least_squares(projected(), method=method)
    assert fit.outer.size < 50
    assert fit.status is Status.stalled
    assert not fit.success


def test_a_callback_stops_it():
    fit = hierarchical_least_squares(projected(), callback=lambda one: one.number == 2)
    assert fit.status is Status.interrupted
    assert fit.outer.size == 2


@pytest.mark.long
def test_robust_losses():
    objective = joint(loss=SoftL1(0.005))
    start = np.asarray(objective.start)
    found, wanted = hierarchical_found(objective, start, Hierarchical()), solve(objective)
    assert found.status.converged
    assert float(found.cost) == pytest.approx(float(wanted.equations.cost), rel=1e-9)
    np.testing.assert_allclose(found.y, wanted.y, rtol=1e-4, atol=1e-6)
    # One stage by itself: contrast and offset where they are best for the physics.
    x = np.asarray(objective.variables.to_physical(found.y))
    reached = ScalingStage().run(objective, x[:2], np.clip(1.1 * x[2:], 0.0, 1.4))
    np.testing.assert_allclose(reached.x, x[2:], rtol=1e-4)
    assert 1 < reached.passes <= 50


def test_data_summed_in_python():
    objective = projected_objective(static_map(), static_data(), driver=HostLoop())
    start = np.asarray(objective.start)
    found, wanted = (
        hierarchical_found(one, start, Hierarchical(outer=2, finish=None))
        for one in (objective, projected())
    )
    assert float(found.cost) == pytest.approx(float(wanted.cost), rel=1e-9)
    np.testing.assert_allclose(found.run.outer.physical, wanted.run.outer.physical, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"outer": 0}, "outer is 0"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"tolerance": np.nan}, "tolerance"),
    ],
)
def test_wrong_numbers_are_refused(fields, message):
    with pytest.raises(ModelError, match=message):
        Hierarchical(**fields)


def test_wrong_stages_are_refused():
    for stage in (LBFGSStage, ScalingStage):
        with pytest.raises(ModelError, match=f"{stage.__name__}: tolerance is -1.0"):
            stage(tolerance=-1.0)
    with pytest.raises(ModelError, match="iterations is 0"):
        LBFGSStage(iterations=0)
    with pytest.raises(ModelError, match="outside its bounds"):
        hierarchical_least_squares(projected(), np.array([-1.0, 0.0]))


def test_a_fixed_scaling_has_one_group_only():
    objective = projected_objective(static_map(), static_data(), Fixed(CONTRAST, np.ones(3)))
    found = hierarchical_found(objective, np.asarray(objective.start), Hierarchical(finish=None))
    assert found.run.outer.size <= 3
    wanted = solve(objective)
    assert float(found.cost) == pytest.approx(float(wanted.equations.cost), rel=1e-6)


def test_a_fit_begun_at_its_minimum_has_converged():
    objective = projected()
    best = solve(objective)
    at = np.asarray(objective.variables.to_physical(best.y))
    again = solve(objective, at)
    assert again.status.converged
    assert again.run.recovery == ()
    assert again.run.evaluations <= 8
    found = hierarchical_found(objective, at, Hierarchical(outer=1))
    assert found.status.converged
