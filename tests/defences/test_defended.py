"""Layers together: one objective, responses to a collapse, what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import PHI, make_data, mapped, start_off
from helpers_defences import CONTRAST, HELD, SLOW, STATIC, joint, projected, slow_map

from xpcs_eqx.defences import (
    Abort,
    AbsoluteRegularisation,
    Alarm,
    DefenceLayers,
    GoHierarchical,
    GradientMonitor,
    Hierarchical,
    Monitoring,
    RelativeRegularisation,
    ResetScaling,
    ShearWeights,
    Warn,
    defended_least_squares,
)
from xpcs_eqx.defences.defended import Watch
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import (
    GroupVariance,
    JointObjective,
    projected_objective,
    two_time_objective,
)
from xpcs_eqx.optimize import Recovery, Status
from xpcs_eqx.parameters import parameter_values, with_parameters
from xpcs_eqx.scaling import Fixed

NO_RECOVERY = Recovery(attempts=0)


def collapsing():
    """All correlation lost within a frame: the cost depends on contrast and offset alone."""
    data = make_data(STATIC, n=21, contrast=CONTRAST, noise=0.003)
    start = with_parameters(STATIC, {"D0": 5e7})
    bounds = {"D0": (1.0, 1e9)}
    return two_time_objective(
        mapped(start, data, bounds=bounds, fixed=("D_offset",)), data, eliminate=False
    )


def answered(response, **layers):
    found = defended_least_squares(
        collapsing(),
        DefenceLayers(monitoring=Monitoring(GradientMonitor(consecutive=3), response), **layers),
        recovery=NO_RECOVERY,
    )
    monitor = found.report.monitor
    assert monitor.smallest < 0.01
    assert "gradient collapse" in monitor.alarms[0][1]
    # Whatever was done, a reader of the fit is told.
    assert any("gradient collapse" in text for text in found.fit.quality.findings)
    assert found.fit.quality.flag != "good"
    return found


def test_a_warning_lets_the_fit_go_on():
    fit, report = answered(Warn())
    plain = least_squares(collapsing(), recovery=NO_RECOVERY)
    np.testing.assert_array_equal(fit.values, plain.values)
    assert "the fit went on" in report.monitor.alarms[0][1]
    assert fit.outer is None
    assert report.rounds == 1


def test_an_abort_returns_the_best_point_so_far():
    fit, report = answered(Abort())
    assert fit.status is Status.interrupted
    assert not fit.success
    assert fit.evaluations == 3
    assert float(fit.cost) == np.min(fit.history.cost)
    assert "ended the fit" in report.monitor.alarms[0][1]


def test_a_collapse_can_go_on_in_turn():
    fit, report = answered(GoHierarchical(Hierarchical(outer=2)))
    assert fit.solver_name.startswith("hierarchical")
    assert report.hierarchical == fit.outer.size
    assert report.rounds == 2
    assert fit.evaluations > 3


@pytest.mark.parametrize(
    "layers",
    [
        {"response": GoHierarchical(Hierarchical(outer=2))},
        {"response": ResetScaling(), "regularisation": RelativeRegularisation()},
    ],
    ids=["hierarchical", "reset"],
)
def test_a_response_follows_in_the_last_round_as_well(layers):
    fit, report = answered(**layers, rounds=1)
    resets = sum("no response is left" not in text for _, text in report.monitor.alarms)
    assert report.rounds == 1 + resets >= 2
    assert fit.status is not Status.interrupted
    if report.regularisation is not None:
        assert report.regularisation.weight == pytest.approx(10.0 ** (1 + resets))
    else:
        assert fit.solver_name.startswith("hierarchical")


def test_a_reset_sends_the_scaling_to_its_mean_and_raises_the_penalty():
    layer = AbsoluteRegularisation(groups=("contrast",))
    fit, report = answered(ResetScaling(), regularisation=layer)
    resets = sum("reset the scaling" in text for _, text in report.monitor.alarms)
    assert 1 <= resets <= 3
    assert report.regularisation.weight == pytest.approx(layer.weight * 10.0**resets)
    weight = layer.weight * 10.0**resets
    mse = float(fit.chi2) / fit.n_pairs
    wanted = weight * mse / np.mean(fit.contrast) ** 2
    # It is that of the round before, and no round settles where nothing is determined.
    assert fit.objective.scaling_penalties[-1].weight == pytest.approx(wanted, rel=0.1)
    assert report.rounds > resets


def test_a_user_who_ends_the_fit_gets_no_response():
    response = GoHierarchical(Hierarchical(outer=2))
    found = defended_least_squares(
        collapsing(),
        DefenceLayers(monitoring=Monitoring(GradientMonitor(consecutive=3), response)),
        recovery=NO_RECOVERY,
        callback=lambda state: int(state.evaluations) >= 3,
    )
    assert found.fit.status is Status.interrupted
    assert found.report.rounds == 1
    assert found.report.monitor.alarms == ()


def test_resets_are_limited():
    monitoring = Monitoring(GradientMonitor(consecutive=1), ResetScaling(), limit=2)
    layers = DefenceLayers(monitoring=monitoring, regularisation=RelativeRegularisation())
    report = defended_least_squares(collapsing(), layers, recovery=NO_RECOVERY).report
    texts = [text for _, text in report.monitor.alarms]
    assert sum("reset the scaling" in text for text in texts) == 2
    assert "no response is left" in texts[2]
    assert report.regularisation.weight == pytest.approx(1000.0)


def test_a_fit_that_does_not_collapse_has_no_alarm():
    layers = DefenceLayers(monitoring=Monitoring(watched=("D0", "alpha")))
    found = defended_least_squares(joint(), layers)
    assert found.report.monitor.alarms == ()
    assert found.report.monitor.checks > 2
    assert not found.report.monitor.eliminated
    plain = least_squares(joint())
    np.testing.assert_array_equal(found.fit.values, plain.values)
    assert found.fit.quality == plain.quality
    # An eliminated scaling has no gradient that could win.
    found = defended_least_squares(projected(), layers)
    assert np.isinf(found.report.monitor.smallest)
    assert "eliminated" in dict(found.report.entries())["monitor"]


def test_a_watched_parameter_without_effect_is_named():
    monitor = GradientMonitor(flat_checks=2, after=0)
    watch = Watch(Monitoring(monitor, watched=("alpha",)), joint(), None)
    gradient = np.ones(8)
    gradient[1] = 0.0
    for accepted in (1, 2, 2, 3):
        equations = SimpleNamespace(cost=0.5, gradient=gradient)
        state = SimpleNamespace(evaluations=1 + accepted, accepted=accepted, equations=equations)
        assert not watch(state)
    # A rejected step is no check.
    assert int(watch.state.checks) == 3
    assert watch.alarms == [(2, f"{Alarm.flat.message}: alpha")]


@pytest.mark.long
def test_all_layers_make_one_objective_and_settle():
    groups = GroupVariance((("alpha", "beta"),), 1e-3)
    layers = DefenceLayers(
        hierarchical=Hierarchical(),
        regularisation=RelativeRegularisation(),
        monitoring=Monitoring(),
        shear_weights=ShearWeights(),
        group_variance=groups,
    )
    seen = []
    fit, report = defended_least_squares(projected("slow"), layers, callback=seen.append)
    assert fit.success
    assert report.settled
    assert report.rounds >= 2
    assert seen
    # The layers are in the objective the fit is the minimum of.
    assert isinstance(fit.objective, JointObjective)
    assert fit.objective.penalties == (groups,)
    (penalty,) = fit.objective.scaling_penalties
    assert float(penalty.squares) == pytest.approx(2 * _data_cost(fit), rel=1e-4)
    phi0 = fit["phi0"].value
    root = np.asarray(fit.objective.term.tiles.root_angle_weights)
    np.testing.assert_allclose(root**2, ShearWeights()(PHI, phi0), rtol=1e-5)
    again = least_squares(fit.objective, np.roll(fit.values, slow_map().n_free))
    errors = again.uncertainty.errors("classical")
    assert np.max(np.abs(again.values - fit.values) / errors) < 1e-4
    # Every layer tells of itself.
    names = [name for name, _ in report.entries()]
    assert names == [
        "hierarchical", "regularisation", "monitor", "shear weights", "group variance", "rounds"
    ]  # fmt: skip
    alpha, beta = fit["alpha"].value, fit["beta"].value
    # Beside the cost of data without sigma a penalty weighs as much as their noise.
    weight = 1e-3 * float(fit.objective.noise) ** 2
    wanted = 0.5 * weight * np.var([alpha, beta]) / float(fit.cost)
    assert any("(GroupVariance): the covariance is conditional" in t for t in fit.quality.findings)
    assert report.group_share == pytest.approx(wanted, rel=1e-6)
    cv = np.std(fit.contrast) / np.mean(fit.contrast)
    assert report.regularisation.variation[0] == pytest.approx(cv, rel=1e-6)
    shares = 0.5 * 10 * float(penalty.squares) * np.sum(np.square(report.regularisation.variation))
    assert report.regularisation.share == pytest.approx(shares / float(fit.cost), rel=1e-6)
    document = report.document()
    assert set(document) >= {"hierarchical", "regularisation", "monitor", "shear_weights"}


def _data_cost(fit):
    return 0.5 * float(fit.chi2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AbsoluteRegularisation, RelativeRegularisation])
def test_a_contrast_that_varies_is_warned_of(kind):
    """At the default weight, which draws together most of what it would be seen by."""
    contrast = np.array([0.2, 0.25, 0.3])
    data = make_data(SLOW, n=31, contrast=contrast, noise=0.01)
    objective = projected_objective(mapped(start_off(SLOW, 1.2), data, fixed=HELD), data)
    layers = DefenceLayers(regularisation=kind(largest_variation=0.1))
    fit, report = defended_least_squares(objective, layers)
    assert fit.success
    assert np.std(fit.contrast) < 0.8 * np.std(contrast)
    assert report.regularisation.variation[0] < 0.1
    # It is biased, by far more than it admits to, and says so.
    distance = [abs(fit[n].value - v) / fit[n].error for n, v in (("phi0", 5.0), ("D0", 3e3))]
    assert max(distance) > 2.5
    assert fit.quality.flag == "marginal"
    check = fit.scaling_check
    assert check.biased
    assert np.max(np.abs(check.contrast.estimate - contrast)) < 0.02
    assert check.finding() in fit.quality.findings
    assert f"under {report.regularisation.kind}" in check.finding()
    assert "lower its share" in check.finding()
    assert report.regularisation.unpenalised[0] == pytest.approx(0.163, abs=0.03)
    assert report.regularisation.warnings[0].startswith("contrast varies by")
    assert report.regularisation.warnings[0] in fit.quality.findings


def test_a_contrast_that_does_not_vary_is_not_warned_of():
    data = make_data(STATIC, n=21, contrast=0.2, noise=0.003)
    objective = projected_objective(mapped(start_off(STATIC, 1.2), data, fixed=("D_offset",)), data)
    layers = DefenceLayers(regularisation=RelativeRegularisation())
    fit, report = defended_least_squares(objective, layers)
    assert not fit.scaling_check.significant
    assert report.warnings == ()
    assert fit.quality.flag == "good"


def test_a_penalty_of_next_to_nothing_is_none():
    layers = DefenceLayers(regularisation=RelativeRegularisation(target_share=1e-9))
    fit = defended_least_squares(joint(), layers).fit
    np.testing.assert_allclose(fit.values, least_squares(joint()).values, rtol=1e-4)
    assert not fit.scaling_check.significant


def test_rounds_that_run_out_are_said():
    layers = DefenceLayers(regularisation=RelativeRegularisation(), rounds=1)
    found = defended_least_squares(joint(), layers)
    assert not found.report.settled
    assert "not settled after 1 rounds" in found.fit.quality.findings[-1]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"shear_weights": ShearWeights()}, "flow angle phi0"),
        ({"monitoring": Monitoring(watched=("D_0",))}, "no parameter 'D_0'"),
        ({"group_variance": GroupVariance((("D0", "beta"),), 1.0)}, "no parameter 'beta'"),
        (
            {"group_variance": GroupVariance((("D0", "alpha"),), 1.0)},
            r"group D0 \[.*\], alpha \[1\] has parameters of different units",
        ),
    ],
)
def test_layers_without_anything_to_work_on_are_refused(layers, message):
    with pytest.raises(ModelError, match=message):
        defended_least_squares(projected(), DefenceLayers(**layers))


@pytest.mark.parametrize(
    "layers", [{"regularisation": AbsoluteRegularisation()}, {"hierarchical": Hierarchical()}]
)
def test_a_fixed_scaling_needs_no_defence(layers):
    scaling = Fixed(CONTRAST, np.ones(3))
    with pytest.raises(ModelError, match="contrast and offset are fixed"):
        defended_least_squares(joint(scaling=scaling), DefenceLayers(**layers))


def test_wrong_numbers_are_refused():
    with pytest.raises(ModelError, match="there is none"):
        DefenceLayers(monitoring=Monitoring(response=ResetScaling()))
    with pytest.raises(ModelError, match="rounds is 0"):
        DefenceLayers(rounds=0)
    with pytest.raises(ModelError, match=r"tolerance is 0\.0"):
        DefenceLayers(tolerance=0.0)
    with pytest.raises(ModelError, match="limit is 0"):
        Monitoring(limit=0)
    with pytest.raises(ModelError, match=r"factor is 0\.5"):
        ResetScaling(0.5)
    assert parameter_values(SLOW)["phi0"] == 5.0
