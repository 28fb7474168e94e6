"""Defences of several data sets fitted together, and after a warm-up."""

import json
from functools import cache

import numpy as np
import pytest
from helpers import PHI, SoftL1, make_data, start_off
from helpers_defences import CONTRAST, HELD, SLOW, STATIC, joint, projected, static_data

from xpcs_eqx.defences import (
    AbsoluteRegularisation,
    DefenceLayers,
    GoHierarchical,
    GradientMonitor,
    Hierarchical,
    Monitoring,
    RelativeRegularisation,
    ResetScaling,
    ShearWeights,
    defended_least_squares,
    hierarchical_least_squares,
)
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import GroupVariance, curve_objective, two_time_objective
from xpcs_eqx.optimize import Recovery, Status, WarmUp
from xpcs_eqx.parameters import shared_parameters, with_parameters


@cache
def slow_data(seed):
    return make_data(SLOW, n=21, contrast=CONTRAST, noise=0.003, seed=seed)


def several(data, model=STATIC, fixed=("D_offset",), **keywords):
    """Data sets that share all of their parameters."""
    starts, times = [start_off(model, 1.2)] * 2, [one.t for one in data]
    parameters = shared_parameters(starts, times, labels=("hot", "cold"), fixed=fixed)
    return two_time_objective(parameters, data, **keywords)


def same_optimum(fit, other, within):
    errors = np.sqrt(np.diagonal(np.asarray(other.uncertainty.classical)))
    assert np.max(np.abs(fit.values - other.values) / errors) < within


@pytest.mark.parametrize("loss", [None, SoftL1(0.005)], ids=["linear", "robust"])
def test_data_sets_are_fitted_in_turn_as_they_are_together(loss):
    data = [static_data(), make_data(STATIC, n=21, contrast=0.15, noise=0.003, seed=5)]
    objective = several(data, loss=loss)
    fit, together = hierarchical_least_squares(objective), least_squares(objective)
    assert fit.success
    same_optimum(fit, together, 1e-3)
    assert tuple(fit.parts) == ("hot", "cold")
    assert fit.outer.scaling.shape[1] == 12
    np.testing.assert_allclose(fit.parts["cold"].contrast, together.parts["cold"].contrast)


@pytest.mark.parametrize("kind", [RelativeRegularisation, AbsoluteRegularisation])
@pytest.mark.parametrize("hierarchical", [None, Hierarchical()], ids=["together", "in turn"])
def test_the_same_data_twice_are_defended_as_once(kind, hierarchical):
    """Every sum is twice that of one data set, and with it every penalty."""
    layers = DefenceLayers(regularisation=kind(), hierarchical=hierarchical)
    once, report_of_once = defended_least_squares(projected(), layers)
    twice, report = defended_least_squares(several([static_data(), static_data()]), layers)
    assert twice.success
    assert report.settled
    np.testing.assert_allclose(twice.x[:2], once.x[:2], rtol=1e-5)
    np.testing.assert_allclose(float(twice.cost), 2 * float(once.cost), rtol=1e-6)
    assert [one.label for one in report.data_sets] == ["hot", "cold"]
    for one, label in zip(report.data_sets, ("hot", "cold"), strict=True):
        np.testing.assert_allclose(twice.parts[label].contrast, once.contrast, rtol=1e-5)
        wanted = report_of_once.regularisation
        np.testing.assert_allclose(one.regularisation.variation, wanted.variation, rtol=1e-3)
        np.testing.assert_allclose(2 * one.regularisation.share, wanted.share, rtol=1e-3)
    assert report.regularisation is None
    names = [name for name, _ in report.entries()]
    assert "regularisation [hot]" in names
    assert set(report.document()["data_sets"]) == {"hot", "cold"}
    json.dumps(report.document())


@pytest.mark.slow
def test_each_data_set_has_shear_weights_of_its_own_flow():
    data = [slow_data(3), slow_data(4)]
    objective = several(data, SLOW, HELD)
    layers = DefenceLayers(
        shear_weights=ShearWeights(),
        group_variance=GroupVariance((("alpha", "beta"),), 1e-3),
        monitoring=Monitoring(watched=("phi0",)),
    )
    fit, report = defended_least_squares(objective, layers)
    assert fit.success
    assert report.settled
    for part, one in zip(fit.objective.parts, report.data_sets, strict=True):
        assert one.shear_weights.phi0 == pytest.approx(fit["phi0"].value, rel=1e-5)
        root = np.asarray(part.term.tiles.root_angle_weights)
        own = np.asarray(objective.parts[0].term.tiles.root_angle_weights)
        wanted = own**2 * np.asarray(ShearWeights()(PHI, fit["phi0"].value))
        np.testing.assert_allclose(root**2 / np.sum(root**2), wanted / np.sum(wanted), rtol=1e-5)
    assert report.group_share > 0
    assert report.monitor.alarms == ()


@pytest.mark.parametrize(
    "response", [GoHierarchical(Hierarchical(outer=2)), ResetScaling()], ids=["in turn", "reset"]
)
def test_a_collapse_of_several_data_sets_is_answered(response):
    data = [static_data(), static_data()]
    start = with_parameters(STATIC, {"D0": 5e7})
    parameters = shared_parameters(
        [start, start],
        [one.t for one in data],
        fixed=("D_offset",),
        bounds={"D0": (1.0, 1e9)},
    )
    objective = two_time_objective(parameters, data, eliminate=False)
    layers = DefenceLayers(
        monitoring=Monitoring(GradientMonitor(consecutive=3), response),
        regularisation=AbsoluteRegularisation(),
    )
    fit, report = defended_least_squares(objective, layers, recovery=Recovery(attempts=0))
    assert "gradient collapse" in report.monitor.alarms[0][1]
    assert report.rounds > 1
    assert tuple(fit.parts) == ("1", "2")


def test_a_warm_up_leads_to_where_a_defended_fit_begins():
    layers = DefenceLayers(regularisation=RelativeRegularisation(), monitoring=Monitoring())
    plain = defended_least_squares(joint(), layers).fit
    seen = []
    fit, report = defended_least_squares(
        joint(), layers, preparations=(WarmUp(),), callback=seen.append
    )
    assert fit.success
    assert report.settled
    same_optimum(fit, plain, 1e-3)
    assert fit.warm_up is not None
    assert fit.solver_name.startswith("warm-up, trust region")
    phases = [type(state).__name__ for state in seen]
    assert phases[0] == "WarmUpState"
    assert phases[-1] == "TrustRegionState"
    solving = phases.count("TrustRegionState")
    assert fit.evaluations == solving + int(fit.warm_up.evaluations)
    assert dict(fit.timings).keys() >= {"warm-up", "solver"}
    np.testing.assert_array_equal(fit.run.start, np.asarray(joint().start))
    # One that goes in turn begins there as well.
    layers = DefenceLayers(hierarchical=Hierarchical())
    turn = defended_least_squares(projected(), layers, preparations=(WarmUp(),)).fit
    assert turn.solver_name.startswith("warm-up, hierarchical")
    same_optimum(turn, least_squares(projected()), 1e-3)


def test_a_user_who_ends_the_warm_up_ends_the_fit():
    found = defended_least_squares(
        joint(), DefenceLayers(monitoring=Monitoring()), preparations=(WarmUp(),),
        callback=lambda state: type(state).__name__ == "WarmUpState",
    )  # fmt: skip
    assert found.fit.status is Status.interrupted
    assert found.report.rounds == 1


def test_a_curve_has_nothing_to_defend():
    x = np.linspace(0.0, 1.0, 9)
    curve = curve_objective(lambda x, a: a * x, x, x, np.ones(1))
    with pytest.raises(ModelError, match="takes the objective of a two-time data set"):
        defended_least_squares(curve, DefenceLayers(monitoring=Monitoring()))
