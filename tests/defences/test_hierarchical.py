"""Alternation ends where joint and eliminated fits end, or says that it did not."""

import numpy as np
import pytest
from helpers import SoftL1
from helpers_defences import joint, projected, static_data, static_map

from xpcs_eqx.defences import (
    Hierarchical,
    LBFGSStage,
    ScalingStage,
    TrustRegionStage,
    hierarchical_least_squares,
)
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import HostLoop, projected_objective
from xpcs_eqx.optimize import Status
from xpcs_eqx.scaling import Fixed


def same_optimum(fit, other, within):
    """Equal within a fraction of an error bar, and in cost."""
    errors = np.sqrt(np.diagonal(np.asarray(other.uncertainty.classical)))
    assert np.max(np.abs(fit.values - other.values) / errors) < within
    assert float(fit.cost) == pytest.approx(float(other.cost), rel=1e-6)


@pytest.mark.parametrize("kind", ["static", "slow"])
def test_hierarchical_joint_and_eliminated_fits_end_at_the_same_optimum(kind):
    eliminated, together = (least_squares(o) for o in (projected(kind), joint(kind)))
    seen = []
    finished = hierarchical_least_squares(projected(kind), callback=seen.append)
    alone = hierarchical_least_squares(
        joint(kind), outer=200, tolerance=1e-7, physical=TrustRegionStage(), finish=None
    )
    for fit in (eliminated, together, finished, alone):
        assert fit.success, fit.message
    same_optimum(together, eliminated, 1e-4)
    same_optimum(finished, eliminated, 1e-4)
    # Without its last steps it stops when it no longer moves: near, not at, the minimum.
    same_optimum(alone, eliminated, 1e-2)
    np.testing.assert_allclose(
        finished.uncertainty.speckle, eliminated.uncertainty.speckle, rtol=1e-3
    )
    assert finished.solver_name.startswith("hierarchical, LBFGSStage and ScalingStage, finished")
    assert alone.solver_name == "hierarchical, TrustRegionStage and ScalingStage"
    # The outer iterations are kept, and were seen as they went.
    outer = finished.outer
    assert outer.size == len(seen) <= 5
    assert [one.number for one in seen] == list(range(1, outer.size + 1))
    np.testing.assert_array_equal(outer.physical[-1], seen[-1].physical)
    after = np.stack([outer.cost_physical, outer.cost_scaling], axis=1).ravel()
    assert np.all(np.diff(after) <= 1e-9 * after[:-1])
    assert len(outer.report().splitlines()) == outer.size + 1
    assert alone.outer.change[-1] <= 1e-7
    assert eliminated.outer is None


def test_an_alternation_that_is_cut_short_says_so():
    fit = hierarchical_least_squares(projected(), outer=2, finish=None)
    assert fit.status is Status.max_evaluations
    assert not fit.success
    assert fit.quality.flag == "poor"
    assert fit.outer.size == 2


def test_an_alternation_that_creeps_is_no_convergence():
    # So loose a tolerance that the first small step meets it, far from the minimum.
    fit = hierarchical_least_squares(projected(), outer=50, tolerance=0.05, finish=None)
    assert fit.outer.size < 50
    assert fit.status is Status.stalled
    assert not fit.success


def test_a_callback_stops_it():
    fit = hierarchical_least_squares(projected(), callback=lambda one: one.number == 2)
    assert fit.status is Status.interrupted
    assert fit.outer.size == 2


def test_robust_losses():
    objective = joint(loss=SoftL1(0.005))
    fit, wanted = hierarchical_least_squares(objective), least_squares(objective)
    assert fit.success
    same_optimum(fit, wanted, 1e-4)
    # One stage by itself: contrast and offset where they are best for the physics.
    scaling = fit.values[fit.index.scaling]
    reached = ScalingStage().run(objective, fit.values[fit.index.physical], 1.1 * scaling)
    np.testing.assert_allclose(reached.x, scaling, rtol=1e-5)
    assert reached.passes <= 50


def test_data_summed_in_python():
    objective = projected_objective(static_map(), static_data(), driver=HostLoop())
    fit, wanted = hierarchical_least_squares(objective, outer=1), least_squares(projected())
    assert fit.success
    same_optimum(fit, wanted, 1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"outer": 0}, "outer = 0"),
        ({"tolerance": 0.0}, "tolerance = 0.0"),
        ({"tolerance": np.nan}, "tolerance"),
    ],
)
def test_wrong_numbers_are_refused(fields, message):
    with pytest.raises(ModelError, match=message):
        Hierarchical(**fields)


def test_wrong_stages_are_refused():
    for stage in (LBFGSStage, ScalingStage):
        with pytest.raises(ModelError, match=f"tolerance = -1.0 of {stage.__name__}"):
            stage(tolerance=-1.0)
    with pytest.raises(ModelError, match="iterations = 0"):
        LBFGSStage(iterations=0)
    with pytest.raises(ModelError, match="outside its bounds"):
        hierarchical_least_squares(projected(), np.array([-1.0, 0.0]))


def test_a_fixed_scaling_takes_one_iteration():
    values = np.array([0.2, 0.22, 0.17]), np.ones(3)
    objective = projected_objective(static_map(), static_data(), Fixed(*values))
    fit = hierarchical_least_squares(objective)
    assert fit.success
    same_optimum(fit, least_squares(objective), 1e-4)
