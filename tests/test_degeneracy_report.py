"""What the data leave open is named, profiled and met with advice."""

import dataclasses
import json

import equinox as eqx
import numpy as np
import pytest
from helpers import make_data, mapped

from xpcs_eqx.errors import ModelError
from xpcs_eqx.files import to_json
from xpcs_eqx.fitting import (
    Direction,
    curve_fit,
    degeneracy_report,
    diagnose,
    least_squares,
    profile_curve,
    profile_interval,
)
from xpcs_eqx.objective import projected_objective, two_time_objective
from xpcs_eqx.parameters import shared_parameters
from xpcs_eqx.physics import LaminarFlow, PowerLawRate, Static
from xpcs_eqx.report.plots import degeneracy_figure

BROWNIAN = Static(PowerLawRate(1e4, 0.0, 5e3))


def fit_of(truth, data, **keywords):
    return least_squares(projected_objective(mapped(truth, data, **keywords), data))


@pytest.fixture(scope="module")
def data():
    return make_data(BROWNIAN, n=31, noise=0.003)


@pytest.fixture(scope="module")
def open_fit(data):
    return fit_of(BROWNIAN, data)


@pytest.fixture(scope="module")
def found(open_fit):
    return degeneracy_report(open_fit)


def test_the_standing_example_is_named(found):
    assert found.degenerate
    direction = found.directions[0]
    assert set(direction.names) == {"D0", "D_offset"}
    assert "determine" in direction.sentence()
    assert "D0 + D_offset" in direction.sentence() or "D_offset + D0" in direction.sentence()
    assert "the transport rate as a whole is known best" in found.report()


def test_what_the_direction_says_is_so(open_fit, found):
    # Along it nothing changes: the sum of the two stays, whatever D_offset is.
    curve = next(p for p in found.profiles if p.name == "D_offset")
    total = curve.others[:, curve.names.index("D0")] + curve.values
    assert np.ptp(curve.values) > 1e4
    assert np.ptp(total) < 0.02 * np.mean(total)


def test_what_is_determined_follows_from_the_steps():
    two = Direction(0.0, ("D0", "v"), (0.7, -0.7), (100.0, -50.0), ("Å²/s", "Å/s"))
    assert "no curvature beyond rounding): the data determine D0 + 2·v and" in two.sentence()
    # No pair of three is determined.
    three = Direction(1e-6, ("a", "b", "c"), (0.8, -0.4, -0.4), (1.0, -2.0, -3.0), ("", "", ""))
    assert three.combination() == ""
    assert three.sentence().endswith("costs no more than one standard error")
    assert "determine combinations of them" in three._replace(ratio=0.0).sentence()


def test_the_profile_is_flat(found):
    curve = next(p for p in found.profiles if p.name == "D_offset")
    assert curve.flat
    assert "is flat" in curve.sentence()
    assert np.all(curve.rise >= 0)


def test_advice_names_what_to_do(found):
    text = found.report()
    assert 'fixed=("D_offset",)' in text
    assert "[parameters.D_offset] start = 0.0, free = false" in text
    assert "least_squares" in text
    assert "ReferenceTime" in text
    assert "all but zero" in text


def test_following_the_advice_ends_it(data):
    better = fit_of(Static(PowerLawRate(1e4, 0.0, 0.0)), data, fixed=("D_offset",))
    found = degeneracy_report(better)
    assert not found.degenerate
    assert found.profiles == found.advice == ()
    assert "every direction is determined" in found.report()
    assert abs(better["D0"].value - 1.5e4) < 4 * better["D0"].error


def test_a_curve_agrees_with_the_interval(data):
    fit = fit_of(Static(PowerLawRate(1e4, 0.0, 0.0)), data, fixed=("D_offset",))
    row = fit["alpha"]
    curve = profile_curve(fit, "alpha", row.value + row.error_classical * np.linspace(-3, 3, 13))
    parabola = ((curve.values - row.value) / row.error_classical) ** 2
    np.testing.assert_allclose(curve.rise, parabola, atol=0.02, rtol=0.1)
    assert not curve.flat
    interval = profile_interval(fit, "alpha")
    crossing = np.interp(1.0, curve.rise[6:], curve.values[6:])
    assert abs(crossing - interval.high) < 0.1 * row.error_classical


def test_document_is_plain(found):
    read = json.loads(to_json(found.document()))
    assert read["degenerate"]
    assert read["profiles"][0]["flat"] in (True, False)
    assert read["advice"][0]["python"]


def test_flow_direction_of_one_angle():
    flow = LaminarFlow(PowerLawRate(4e3, -0.3, 0.0), PowerLawRate(8e-4, 0.3, 0.0), 5.0)
    data = make_data(flow, n=31, phi=np.array([20.0]), noise=0.001)
    found = degeneracy_report(
        fit_of(flow, data, fixed=("D_offset", "gamma_dot_t_offset")), profiles=()
    )
    assert any({"phi0", "gamma_dot_t0"} <= set(one.names) for one in found.directions)
    assert "[parameters.phi0] free = false" in found.report()


def joined(data, count, **sharing):
    """The objective of angles of the data, each as a data set of its own."""
    sets = [
        dataclasses.replace(
            data,
            c2=data.c2[k : k + 1],
            diagonal=data.diagonal[k : k + 1],
            geometry=eqx.tree_at(lambda g: g.phi, data.geometry, data.geometry.phi[k : k + 1]),
        )
        for k in range(count)
    ]
    models, times = [BROWNIAN] * count, [data.t] * count
    parameters = shared_parameters(models, times, labels=list("abc")[:count], **sharing)
    return two_time_objective(parameters, sets, weights=[1.0] * count)


@pytest.mark.long
def test_several_data_sets_are_as_open_as_one_with_all_their_angles(data, open_fit):
    joint_fit = least_squares(joined(data, 3))
    whole, joint = (degeneracy_report(fit, profiles=()) for fit in (open_fit, joint_fit))
    assert [one.names for one in joint.directions] == [one.names for one in whole.directions]
    assert joint.determined[0].startswith("the transport rate of a as a whole is known best")
    assert joint.determined[0].partition("known")[2] == whole.determined[0].partition("known")[2]
    text = joint.report()
    assert 'shared_parameters(..., fixed=("D_offset",))' in text
    assert "fit.parts['a'].rate(\"transport\")" in text
    assert "[joint]" not in text
    one, all_of_them = diagnose(open_fit), diagnose(joint_fit)
    assert one.names == all_of_them.names
    for name in ("column_norms", "sensitivities", "gradients", "recommended_scales"):
        np.testing.assert_allclose(getattr(all_of_them, name), getattr(one, name), rtol=1e-5)
    aside = [open_fit["alpha"].value - 5e-4]
    curves = [profile_curve(fit, "alpha", aside) for fit in (open_fit, joint_fit)]
    np.testing.assert_allclose(curves[1].rise, curves[0].rise, rtol=1e-2)


def test_what_data_sets_have_for_themselves_is_named_with_their_label(data):
    fit = least_squares(joined(data, 2, shared=("alpha",)))
    found = degeneracy_report(fit, profiles=())
    partners = {frozenset(one.names[:2]) for one in found.directions}
    assert {frozenset((f"D0[{k}]", f"D_offset[{k}]")) for k in "ab"} <= partners
    text = found.report()
    assert '[parameters."D_offset[b]"] start = 0.0, free = false' in text
    assert "the transport rate of b as a whole is known best" in text


def test_the_fit_of_a_curve_has_no_report():
    x = np.linspace(0.0, 1.0, 5)
    fit = curve_fit(lambda x, a: a * x, x, x, [0.5])
    for ask in (degeneracy_report, diagnose):
        with pytest.raises(ModelError, match="fit of a curve, of which the normal matrix"):
            ask(fit)


def test_unknown_parameters(open_fit):
    with pytest.raises(ModelError, match="no free parameter 'beta'"):
        degeneracy_report(open_fit, ("beta",))
    with pytest.raises(ModelError, match="no free parameter 'beta'"):
        profile_curve(open_fit, "beta", [1.0])


def test_figure(found):
    figure = degeneracy_figure(found)
    assert len(figure.axes) == len(found.profiles) + 1
