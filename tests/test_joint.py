"""Joint fits: which parameter is whose, one sum over data sets, sharing and its verdict."""

import dataclasses
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, PHI, SHEAR, TRANSPORT, assert_close, make_data, mapped, start_off

import xpcs_eqx as xe
from xpcs_eqx import LaminarFlow, PowerLawRate, Static, fitting
from xpcs_eqx.errors import DataError, ModelError
from xpcs_eqx.objective import Pull, curve_objective, relative_weights, two_time_objective
from xpcs_eqx.parameters import Proportional, parameter_values, shared_parameters
from xpcs_eqx.program.task import quote_errors

T = np.linspace(0.0, 10.0, 21)
SHARED_NAMES = ("D0", "alpha", "D_offset", "gamma_dot_t0", "beta", "gamma_dot_t_offset", "phi0")


def shared(models=None, times=None, **keywords):
    models = [LAMINAR, LAMINAR] if models is None else models
    return shared_parameters(models, [T] * len(models) if times is None else times, **keywords)


class TestNames:
    def test_all_common_names_are_shared_by_default(self):
        parameters = shared()
        assert parameters.whole.free_names == SHARED_NAMES
        assert parameters.shared == SHARED_NAMES
        assert parameters.labels == ("1", "2")

    def test_only_common_names(self):
        parameters = shared([Static(TRANSPORT), LAMINAR], labels=("rest", "flow"))
        assert parameters.whole.free_names[:3] == ("D0", "alpha", "D_offset")
        assert parameters.whole.free_names[3:] == tuple(f"{n}[flow]" for n in SHARED_NAMES[3:])

    def test_nothing_shared(self):
        parameters = shared(shared=())
        assert parameters.whole.free_names == tuple(
            f"{name}[{k}]" for k in (1, 2) for name in SHARED_NAMES
        )

    def test_settings_by_plain_name_hold_for_every_data_set(self):
        parameters = shared(shared=("D0",), fixed=("beta",), bounds={"alpha": (-0.5, 0.5)})
        whole = parameters.whole
        assert not any(name.startswith("beta") for name in whole.free_names)
        for name in ("alpha[1]", "alpha[2]"):
            i = whole.free_names.index(name)
            assert (whole.lower[i], whole.upper[i]) == (-0.5, 0.5)

    def test_a_setting_by_full_name_wins(self):
        parameters = shared(shared=(), bounds={"alpha[2]": (-1, 1), "alpha": (-0.5, 0.5)})
        whole = parameters.whole
        assert whole.upper[whole.free_names.index("alpha[2]")] == 1
        assert whole.upper[whole.free_names.index("alpha[1]")] == 0.5

    def test_shared_values_start_where_the_first_model_does(self):
        other = start_off(LAMINAR, 1.4)
        parameters = shared([LAMINAR, other])
        first, second = parameters.models(parameters.whole.start)
        for name, value in parameter_values(LAMINAR).items():
            assert float(parameter_values(first)[name]) == float(value)
            assert float(parameter_values(second)[name]) == float(value)

    def test_tie_replaces_sharing(self):
        parameters = shared(ties={"D0[2]": Proportional("D0", 0.5)})
        first, second = parameters.models(parameters.whole.start)
        assert float(second.transport.amplitude) == 0.5 * float(first.transport.amplitude)
        assert float(second.transport.exponent) == float(first.transport.exponent)

    def test_the_carrier_may_be_named_in_full(self):
        parameters = shared(bounds={"alpha[1]": (-0.7, 0.7)})
        assert parameters.whole.upper[1] == 0.7

    def test_fixed_shared_parameter_varies_nowhere(self):
        parameters = shared(fixed=("alpha",))
        assert "alpha" not in parameters.whole.free_names
        for local in parameters.maps:
            assert "alpha" not in local.free_names

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"shared": ("D1",)}, "D1.*did you mean"),
            ({"fixed": ("alpha[3]",)}, r"alpha\[3\]"),
            ({"labels": ("a", "a")}, "different names"),
            ({"times": [T]}, "2 models and 1 arrays"),
        ],
    )
    def test_misuse(self, keywords, message):
        with pytest.raises(ModelError, match=message):
            shared(**keywords)


def two_sets(noise=0.005):
    return [make_data(n=21, noise=noise, seed=1), make_data(n=21, phi=PHI + 20.0, seed=2)]


@pytest.mark.parametrize("loss", [None, xe.SoftL1(0.01)], ids=["linear", "soft_l1"])
@pytest.mark.parametrize("names", [None, ("D0", "phi0")], ids=["all", "some"])
def test_gradient_is_the_derivative_of_the_cost(loss, names):
    parameters = shared([start_off(LAMINAR, 1.1)] * 2, shared=names)
    objective = two_time_objective(
        parameters,
        two_sets(),
        loss=loss,
        penalties=(Pull(lambda p: p["D0"], jnp.asarray(1e4), jnp.asarray(1e3)),),
    )
    y = objective.variables.to_coordinates(objective.start)
    equations, memo = objective.evaluate(y, objective.memo)
    again, _ = objective.evaluate(y, memo)
    assert_close(again.gradient, equations.gradient, 1e-9)
    for i, step in enumerate(1e-5 * objective.variables.coordinate_scale):
        up, down = (
            objective.evaluate(y.at[i].add(sign * step), memo)[0].cost for sign in (1.0, -1.0)
        )
        slope = float(up - down) / (2 * step)
        scale = np.sqrt(float(equations.hessian[i, i] * equations.cost)) + abs(slope)
        assert abs(slope - float(equations.gradient[i])) < 1e-5 * scale


def test_the_cost_is_the_sum_over_data_sets():
    sets = two_sets()
    parameters = shared()
    objective = two_time_objective(parameters, sets, weights=(1.0, 2.0))
    y = parameters.whole.to_coordinates(jnp.asarray(parameters.whole.start))
    total = objective.evaluate(y, objective.memo)[0]
    alone = [xe.projected_objective(mapped(LAMINAR, one), one) for one in sets]
    costs = [float(o.evaluate(y, o.memo)[0].cost) for o in alone]
    assert float(total.cost) == pytest.approx(costs[0] + 2 * costs[1], rel=1e-10)
    assert float(objective.cost(y, objective.memo)) == pytest.approx(float(total.cost), rel=1e-9)


def test_weights_follow_the_noise():
    quiet, loud = make_data(n=41, noise=0.002), make_data(n=41, noise=0.008, seed=3)
    weights = relative_weights([quiet, loud])
    assert weights[0] / weights[1] == pytest.approx(16.0, rel=0.1)


def test_sigma_for_all_or_none():
    one = make_data(n=21)
    other = known(one, 0.005)
    with pytest.raises(DataError, match=r"data sets \[2\] of 2 only"):
        two_time_objective(shared(), [one, other])
    assert np.all(relative_weights([other, other]) == 1)


def test_values_of_several_data_sets_are_replaced():
    sets, ties = two_sets(), {"D0[2]": Proportional("D_offset", 30.0)}
    fixed = ("D_offset", "alpha[2]")

    def built(one, other, offset):
        # Where the first model has the value that is shared.
        model = LaminarFlow(PowerLawRate(1.5e4, -0.3, offset), SHEAR, 5.0)
        names = tuple(name for name in SHARED_NAMES if name != "alpha")
        parameters = shared([model] * 2, shared=names, fixed=fixed, ties=ties)
        return two_time_objective(parameters, [one, other], noise=0.005, weights=(1.0, 1.0))

    objective = built(*sets, 500.0)
    place = eqx.tree_at(lambda g: g.q, sets[1].geometry, np.asarray(0.006))
    other = dataclasses.replace(sets[1], c2=sets[1].c2 + 0.01, geometry=place)
    wanted = built(sets[0], other, 400.0)
    found = xe.with_values(objective, data_set="2", c2=other.c2, q=0.006)
    found = xe.with_values(found, fixed={"D_offset": 400.0})
    y = jnp.asarray(objective.variables.to_coordinates(jnp.asarray(objective.start)))
    assert float(found.cost(y, found.memo)) == pytest.approx(float(wanted.cost(y, wanted.memo)))
    for name, value in parameter_values(found.parameters.models(found.start)[1]).items():
        again = parameter_values(wanted.parameters.models(wanted.start)[1])[name]
        assert float(value) == float(again)
    with pytest.raises(ModelError, match=r"data_set = None does not say .* give '1' or '2'"):
        xe.with_values(objective, q=0.006)
    with pytest.raises(ModelError, match="D0 is fitted"):
        xe.with_values(objective, fixed={"D0": 1.0})
    with pytest.raises(ModelError, match=r"data_set = '2' .* give None"):
        xe.with_values(xe.projected_objective(mapped(LAMINAR, sets[0]), sets[0]), data_set="2", q=1)


def test_as_many_data_sets_as_models():
    with pytest.raises(ModelError, match="for 2 data sets, but there are 1"):
        two_time_objective(shared(), [make_data(n=21)], weights=(1.0,))


QS = (0.004, 0.005, 0.006, 0.007, 0.008)


def at_q(model, q, seed, n=31, noise=0.003):
    geometry = xe.Geometry(q=q, phi=PHI)
    t = np.linspace(0.0, 10.0, n)
    return xe.simulate(
        model, t, geometry, contrast=0.2, offset=1.0, noise=noise, key=jax.random.key(seed)
    )


def known(data, sigma):
    weights = np.full(data.c2.shape, 1 / sigma)
    return dataclasses.replace(data, root_weights=weights, absolute_sigma=True)


def joint(models, data, **keywords):
    parameters = shared_parameters(models, [one.t for one in data], **keywords)
    return xe.least_squares(two_time_objective(parameters, data))


@pytest.fixture(scope="module")
def five():
    """Five q of one sample, with the separate fits and the joint one."""
    # Little noise: the separate estimates are then linear in it, as their combination assumes; and
    # known, so that both weigh the data sets alike.
    data = [known(at_q(LAMINAR, q, seed, noise=1e-4), 1e-4) for seed, q in enumerate(QS)]
    fixed = ("alpha", "beta", "D_offset", "gamma_dot_t_offset")
    alone = [
        xe.least_squares(
            xe.projected_objective(
                xe.parameter_map(start_off(LAMINAR, 1.0), one.t, fixed=fixed), one
            )
        )
        for one in data
    ]
    return data, alone, joint([LAMINAR] * 5, data, fixed=fixed)


def test_joint_fit_is_the_precision_weighted_combination(five):
    _, alone, together = five
    names = ("D0", "gamma_dot_t0", "phi0")
    x = np.array([[fit[name].value for name in names] for fit in alone])
    precision = [
        np.linalg.inv(fit.index.physical_block(fit.uncertainty.classical)) for fit in alone
    ]
    covariance = np.linalg.inv(sum(precision))
    mean = covariance @ sum(p @ row for p, row in zip(precision, x, strict=True))
    for i, name in enumerate(names):
        sd = np.sqrt(covariance[i, i])
        assert abs(together[name].value - mean[i]) < 0.1 * sd
        assert together[name].error_classical == pytest.approx(sd, rel=0.05)
        assert together[name].error_classical < min(fit[name].error_classical for fit in alone)


def test_right_sharing_passes(five):
    together = five[2]
    assert together.success
    assert together.quality.flag == "good"
    assert together.sharing.agree
    # Twelve contrasts between five estimates of three parameters.
    assert together.sharing.degrees == 12
    assert "agree" in together.sharing.finding()


def test_each_data_set_has_its_own_fit(five):
    data, _, together = five
    for one, label in zip(data, together.parts, strict=True):
        fit = together.parts[label]
        assert fit["D0"].value == pytest.approx(together["D0"].value, rel=1e-12)
        assert fit["D0"].error == pytest.approx(together["D0"].error, rel=1e-9)
        assert fit["D0"].role == "shared"
        assert fit["alpha"].role == "fixed"
        # Bounds of what varies are those of the whole; what does not has none of its own.
        for name in ("D0", "phi0"):
            row, whole = fit[name], together[name]
            assert np.isfinite(row.lower)
            assert (row.lower, row.upper) == (whole.lower, whole.upper)
        assert not any(np.isinf([row.lower, row.upper]).any() for row in fit.rows)
        assert np.isfinite(fit["contrast[0]"].error)
        assert np.nanstd(fit.residuals()) == pytest.approx(0.0001, rel=0.1)
        assert fit.surface().shape == one.c2.shape
        value, error = fit.rate("transport")
        assert np.all(error > 0)
        assert np.all(np.isfinite(value))
        assert together[f"D0[{label}]"].error == fit["D0"].error
        assert together[f"contrast[0][{label}]"].value == fit["contrast[0]"].value
        assert tuple(fit.parts) == (label,)
        assert fit.parts[label] is fit
    with pytest.raises(KeyError, match="no data set 'x'; there are 1, 2"):
        together.parts["x"]
    with pytest.raises(KeyError, match="no parameter 'x'; there are D0"):
        together["x"]


def test_what_one_data_set_has_is_asked_of_it(five):
    together = five[2]
    for ask in (together.surface, together.residuals):
        with pytest.raises(ModelError, match="several data sets"):
            ask()
    with pytest.raises(ModelError, match="one TwoTimeData; give a list"):
        two_time_objective(shared([start_off(LAMINAR, 1.1)] * 2), two_sets()[0])
    for what in ("model", "contrast", "index", "scaling_check"):
        with pytest.raises(ModelError, match=r"several data sets \(1, 2, .* fit.parts\['1'\]"):
            getattr(together, what)
    assert together.x.shape == together.objective.start.shape
    assert dict(zip(together.objective.names, together.x, strict=True))["D0"] == pytest.approx(
        together["D0"].value
    )
    assert together.perr[0] == pytest.approx(together["D0"].error)


def test_one_kind_of_errors_is_quoted_for_all(five):
    together = five[2]
    quoted = quote_errors(together, "dyadic")
    for one in (quoted, *quoted.parts.values()):
        assert one.uncertainty.chosen == "dyadic"
        assert one["D0"].error == one["D0"].error_dyadic
    # Where it is not finite for all together, it is quoted for none of them.
    dyadic = np.array(together.uncertainty.dyadic)
    dyadic[0, 0] = np.inf
    open_ = dataclasses.replace(
        together, uncertainty=dataclasses.replace(together.uncertainty, dyadic=dyadic)
    )
    kept = quote_errors(open_, "dyadic")
    for one in (kept, *kept.parts.values()):
        assert one.uncertainty.chosen == "speckle"
        assert one["D0"].error == one["D0"].error_speckle
        assert "'dyadic' is not finite here" in one.uncertainty.reason


def test_profiles_of_several_data_sets(five):
    together = five[2]
    interval = fitting.profile_interval(together, "D0")
    error = together["D0"].error_classical
    assert interval.high - interval.value == pytest.approx(error, rel=0.05)
    assert interval.value - interval.low == pytest.approx(error, rel=0.05)
    curve = fitting.profile_curve(together, "D0", [interval.value + error])
    assert curve.rise[0] == pytest.approx(1.0, rel=0.1)
    with pytest.raises(ModelError, match="'2' was fitted together with others"):
        fitting.profile_interval(together.parts["2"], "D0")


def test_fits_of_several_data_sets_are_plain_values(five):
    together = five[2]
    again = pickle.loads(pickle.dumps(together))
    assert tuple(again.parts) == tuple(together.parts)
    assert np.array_equal(again.values, together.values)
    leaves, structure = jax.tree.flatten(together)
    same = jax.tree.unflatten(structure, leaves)
    assert repr(same) == repr(together)
    assert repr(together).startswith("Fit of 5 data sets")
    assert "good" in repr(together)


def test_one_data_set_is_the_plain_fit(five):
    data, _, _ = five
    plain = xe.least_squares(xe.projected_objective(mapped(LAMINAR, data[0]), data[0]))
    single = joint([LAMINAR], data[:1])
    assert float(single.chi2) == pytest.approx(float(plain.chi2), rel=1e-9)
    for name in SHARED_NAMES:
        assert single[name].value == pytest.approx(
            plain[name].value, rel=1e-4, abs=1e-3 * plain[name].error
        )
        for kind in ("error_classical", "error_speckle", "error_dyadic"):
            assert getattr(single[name], kind) == pytest.approx(
                getattr(plain[name], kind), rel=1e-3
            )
    assert single.sharing.degrees == 0


def test_wrong_sharing_is_named():
    faster = LaminarFlow(PowerLawRate(1.15 * 1.5e4, -0.3, 500.0), SHEAR, 5.0)
    data = [at_q(LAMINAR, q, seed, noise=0.001) for seed, q in enumerate(QS[:3])]
    data.append(at_q(faster, QS[3], 9, noise=0.001))
    labels = ("cold", "cool", "warm", "hot")
    wrong = joint([LAMINAR] * 4, data, labels=labels)
    assert not wrong.sharing.agree
    assert wrong.quality.flag == "marginal"
    assert "furthest from the others: hot" in wrong.quality.findings[0]
    assert max(wrong.sharing.distances, key=lambda d: d.statistic).label == "hot"
    right = joint([LAMINAR] * 4, data, labels=labels, ties={"D0[hot]": Proportional("D0", 1.15)})
    assert right.sharing.agree
    assert right["D0[hot]"].role == "tied"
    assert right["D0[hot]"].value == pytest.approx(1.15 * right["D0"].value)
    assert right.parts["hot"]["D0"].error == pytest.approx(1.15 * right["D0"].error, rel=1e-6)
    # What is tied has the error that follows from the others, in the table of the whole as well.
    for field in ("error", "error_classical", "error_speckle", "error_dyadic"):
        wanted = pytest.approx(1.15 * getattr(right["D0"], field), rel=1e-6)
        assert getattr(right["D0[hot]"], field) == wanted
    assert not right["D0[hot]"].at_bound


@pytest.mark.long
def test_the_scaling_of_each_data_set_is_checked():
    phi = np.linspace(-90.0, 90.0, 8)
    contrast = 0.2 * (1 + 0.2 * np.cos(np.deg2rad(2 * phi + 40)))
    data = [
        make_data(n=31, phi=phi, contrast=value, noise=0.005, seed=seed)
        for seed, value in enumerate((0.2, contrast))
    ]
    parameters = shared_parameters([LAMINAR] * 2, [one.t for one in data], labels=["flat", "wavy"])
    fit = xe.least_squares(two_time_objective(parameters, data, [xe.Averaged(8)] * 2))
    flat, wavy = (part.scaling_check for part in fit.parts.values())
    assert not flat.significant
    assert wavy.contrast.significant
    assert wavy.contrast.varies
    assert wavy.names == fit.objective.names
    # What the angles would have is what they get where each may have its own.
    free = xe.least_squares(two_time_objective(parameters, data, [xe.Averaged(8), None]))
    assert free.parts["wavy"].scaling_check is None
    estimate, error = wavy.contrast.estimate, wavy.contrast.error
    assert np.max(np.abs(estimate - free.parts["wavy"].contrast) / error) < 2
    said = [text for text in fit.quality.findings if text.startswith("wavy: contrast varies")]
    assert said == [f"wavy: {wavy.finding()}"]
    assert (fit.quality.flag == "marginal") == wavy.biased
    alone = xe.projected_objective(mapped(LAMINAR, data[1]), data[1], xe.Averaged(8))
    single = xe.least_squares(alone).scaling_check
    assert np.max(np.abs(single.contrast.estimate - estimate) / error) < 2


def test_mixed_models_share_what_they_have_in_common():
    rest = at_q(Static(TRANSPORT), 0.006, 1)
    flow = at_q(LAMINAR, 0.006, 2)
    fit = joint([Static(TRANSPORT), LAMINAR], [rest, flow], labels=("rest", "flow"))
    assert fit.success
    assert fit["phi0[flow]"].role == "separate"
    assert fit["D0"].role == "shared"
    assert abs(fit["phi0[flow]"].value - 5.0) < 4 * fit["phi0[flow]"].error
    assert [row.name for row in fit.parts["rest"].rows[:3]] == ["D0", "alpha", "D_offset"]


def test_a_shared_parameter_on_its_bound_has_no_error():
    data = [at_q(LAMINAR, q, seed) for seed, q in enumerate(QS[:2])]
    start = LaminarFlow(TRANSPORT, SHEAR, 3.0)
    fit = joint([start] * 2, data, bounds={"phi0": (0.0, 4.0)})
    assert fit["phi0"].at_bound
    assert np.isnan(fit["phi0"].error)
    assert fit.parts["1"]["phi0"].at_bound
    assert any("phi0 ended on its bound" in text for text in fit.quality.findings)


@pytest.mark.long
def test_robust_loss_agrees_with_the_linear_one_on_clean_data():
    data = [at_q(LAMINAR, q, seed) for seed, q in enumerate(QS[:2])]
    parameters = shared_parameters([LAMINAR] * 2, [one.t for one in data])
    linear = xe.least_squares(two_time_objective(parameters, data))
    robust = xe.least_squares(two_time_objective(parameters, data, loss=xe.SoftL1(0.1)))
    assert robust.success
    for name in ("phi0", "beta", "gamma_dot_t0"):
        assert abs(robust[name].value - linear[name].value) < 0.02 * linear[name].error


@pytest.mark.long
@pytest.mark.parametrize("loss", [None, xe.SoftL1(0.01)], ids=["linear", "soft_l1"])
def test_stopped_and_gone_on_with(tmp_path, loss):
    data = [two_sets()[0], make_data(n=21, phi=PHI + 20.0, seed=3)]
    fixed = ("D_offset", "gamma_dot_t_offset")
    parameters = shared([start_off(LAMINAR, 1.2)] * 2, [one.t for one in data], fixed=fixed)
    objective = two_time_objective(parameters, data, loss=loss)
    wanted = xe.least_squares(objective)
    # One map decays within a frame: without contrast it has no speckle, and takes no error away.
    assert wanted.parts["2"].contrast[0] == 0
    assert all(np.isfinite(row.error) for row in wanted.rows if row.role == "shared")

    def stop(state):
        if int(state.evaluations) == 4:
            raise KeyboardInterrupt

    checkpoints = xe.Checkpoints(str(tmp_path / "folder"))
    with pytest.raises(KeyboardInterrupt):
        xe.least_squares(objective, checkpoints=checkpoints, callback=stop)
    fit = xe.least_squares(objective, checkpoints=checkpoints, resume=True)
    assert np.array_equal(fit.values, wanted.values)
    assert (fit.evaluations, fit.recovery) == (wanted.evaluations, wanted.recovery)
    assert np.array_equal(fit.uncertainty.covariance, wanted.uncertainty.covariance)
    # Data sets in another order, or weighed differently, are another problem.
    for other in (
        two_time_objective(parameters, data[::-1], loss=loss),
        two_time_objective(parameters, data, weights=(1.0, 2.0), loss=loss),
    ):
        with pytest.raises(xe.CheckpointError, match="another problem"):
            xe.least_squares(other, checkpoints=checkpoints, resume=True)


@pytest.mark.long
def test_fitted_differentiates_several_data_sets():
    """Values and covariance of the fit, and the derivative by a map against fits of moved maps."""
    data = [make_data(Static(TRANSPORT), n=12, noise=0.02, seed=seed) for seed in (1, 2)]
    models = [Static(TRANSPORT)] * 2
    ties = {"D0[2]": Proportional("D0", 1.1)}
    parameters = shared_parameters(models, [one.t for one in data], fixed=("D_offset",), ties=ties)
    pull = Pull(lambda p: p["alpha"], jnp.asarray(-0.2), jnp.asarray(0.3))
    objective = two_time_objective(
        parameters, data, weights=(1.0, 2.0), penalties=(pull,), noise=0.02
    )
    kick = 0.01 * np.sin(np.arange(144.0)).reshape(12, 12)

    def at(s):
        c2 = objective.parts[1].term.tiles.c2 + s * kick
        return xe.fitted(eqx.tree_at(lambda o: o.parts[1].term.tiles.c2, objective, c2))

    fit = xe.least_squares(objective)
    found = at(0.0)
    assert found.index.names == fit.names
    errors = fit.uncertainty.errors("classical")
    assert np.max(np.abs(found.values - fit.values) / errors) < 1e-4
    assert float(found.cost) == pytest.approx(float(fit.cost), rel=1e-9)
    for one, part in zip(found.contrast, fit.parts.values(), strict=True):
        np.testing.assert_allclose(one, part.contrast, rtol=1e-5)
    # A shared parameter by any of its names, as in the fit.
    assert found["alpha[2]"] == found["alpha[1]"] == found["alpha"]
    with pytest.raises(ModelError, match=r"no entry 'alpha\[3\]'"):
        found["alpha[3]"]
    np.testing.assert_allclose(
        xe.fitting.classical_covariance(objective, fit.values),
        fit.uncertainty.classical,
        rtol=1e-6,
        atol=1e-12 * np.max(errors) ** 2,
    )
    slope = jax.jacfwd(lambda s: at(s).values)(0.0)
    by_difference = (at(1e-2).values - at(-1e-2).values) / 2e-2
    np.testing.assert_allclose(slope / errors, by_difference / errors, rtol=1e-3, atol=1e-4)
    backward = jax.grad(lambda s: at(s)["alpha"])(0.0)
    assert float(backward) == pytest.approx(float(slope[fit.names.index("alpha")]), rel=1e-6)


def test_fitted_differentiates_a_curve():
    x = np.linspace(0.0, 2.0, 15)
    y = 3.0 * np.exp(-1.5 * x) + 0.05 * np.cos(9.0 * x)
    start = np.ones(2)

    def decay(x, rate, amplitude):
        return amplitude * jnp.exp(-rate * x)

    for loss in (None, xe.SoftL1(0.1)):
        objective = curve_objective(decay, x, y, start, loss=loss, names=("rate", "amplitude"))

        def at(s, objective=objective):
            moved = objective.points.y + s * x[None]
            return xe.fitted(eqx.tree_at(lambda o: o.points.y, objective, moved))

        fit, found = xe.least_squares(objective), at(0.0)
        assert found.model is None
        np.testing.assert_allclose(found.values, fit.x, rtol=1e-8)
        np.testing.assert_allclose(
            xe.fitting.classical_covariance(objective, fit.x), fit.pcov, rtol=1e-6
        )
        slope = jax.jacfwd(lambda s: at(s).values)(0.0)
        by_difference = (at(1e-4).values - at(-1e-4).values) / 2e-4
        np.testing.assert_allclose(slope, by_difference, rtol=1e-5)
