"""Arguments of the entries of the library: what is taken, and what is refused by its name."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers_entries import DATA, KEY, MAP, MODEL, PLACE, T, line

import xpcs_eqx as xe
from xpcs_eqx.errors import XPCSError


@pytest.fixture(scope="module")
def problem():
    return xe.projected_objective(MAP, DATA)


@pytest.fixture(scope="module")
def fit(problem):
    return xe.least_squares(problem)


def of_data(**changed):
    fields = ("c2", "t", "geometry", "root_weights", "diagonal")
    return xe.TwoTimeData(**{name: getattr(DATA, name) for name in fields} | changed)


# What is called, and words of the message: the name of the argument and what it must be.
WRONG = {
    "swapped": (lambda p: xe.projected_objective(DATA, MAP), "parameters", "ParameterMap"),
    "list": (lambda p: xe.projected_objective(MAP, [DATA]), "data", "TwoTimeData"),
    "word": (lambda p: xe.projected_objective(MAP, DATA, "individual"), "scaling", "Individual"),
    "class": (lambda p: xe.two_time_objective(MAP, DATA, loss=xe.Huber), "loss", "the class Huber"),
    "penalty": (lambda p: xe.two_time_objective(MAP, DATA, penalties=3), "penalties", "Pull"),
    "noise": (lambda p: xe.two_time_objective(MAP, DATA, noise="x"), "noise", "a number"),
    "weights": (lambda p: xe.two_time_objective(MAP, DATA, angle_weights="x"), "angle weights"),
    "tile": (lambda p: xe.two_time_objective(MAP, DATA, tile=0), "tile is 0"),
    "tile text": (lambda p: xe.two_time_objective(MAP, DATA, tile="x"), "tile", "whole number"),
    "shape": (lambda p: xe.two_time_objective(MAP, DATA, reference=[1, 2]), "reference", "angle"),
    "data": (lambda p: xe.least_squares(DATA), "objective", "ProjectedObjective"),
    "solver": (lambda p: xe.least_squares(p, solver="lm"), "solver is 'lm'", "TrustRegion"),
    "start": (lambda p: xe.least_squares(p, {"D0": 1}), "start", "array"),
    "every": (lambda p: xe.least_squares(p, every=1.5), "every is 1.5", "whole number"),
    "folder": (lambda p: xe.least_squares(p, checkpoints="x"), "checkpoints", "Checkpoints"),
    "callback": (lambda p: xe.least_squares(p, callback=3), "callback is 3", "function"),
    "fixed": (lambda p: xe.parameter_map(MODEL, fixed="D0"), "fixed is 'D0'", "in a list"),
    "bounds": (lambda p: xe.parameter_map(MODEL, bounds=[1, 2]), "bounds", "dictionary"),
    "box": (lambda p: xe.parameter_map(MODEL, bounds={"D0": 5}), "D0: bounds", "pair"),
    "times": (lambda p: xe.parameter_map(MODEL, 0.1), "t is 0.1", "frame"),
    "one time": (lambda p: xe.parameter_map(MODEL, [0.1]), "t has 1 values", "two frames"),
    "tie": (lambda p: xe.parameter_map(MODEL, T, ties={"alpha": "D0"}), "alpha", "Proportional"),
    "scale": (lambda p: xe.parameter_map(MODEL, T, scale={"D0": "x"}), "scale of D0", "number"),
    "rates": (lambda p: xe.parameter_map(MODEL, T, rates="slope"), "rates", "function"),
    "names": (lambda p: xe.parameter_map(MODEL, coordinates={"D0": 1}), "'D0'", "tuple"),
    "model": (lambda p: xe.parameter_map(xe.Static, T), "the class Static itself", "LaminarFlow"),
    "several": (lambda p: xe.shared_parameters(MODEL, [T]), "models", "Static"),
    "labels": (lambda p: xe.shared_parameters([MODEL], [T], labels="ab"), "labels is 'ab'"),
    "value": (lambda p: xe.with_parameters(MODEL, {"D0": "x"}), "'x'", "numbers"),
    "points": (lambda p: xe.curve_fit(line, [1, 2], ["a", "b"], [1.0]), "y is", "point"),
    "no function": (lambda p: xe.curve_fit("f", [1, 2], [1, 2], [1.0]), "function is 'f'"),
    "contrast": (lambda p: xe.simulate(MODEL, T, PLACE, "x", noise=1, key=KEY), "contrast"),
    "geometry": (lambda p: xe.simulate(MODEL, T, 0.1, 0.2, noise=1, key=KEY), "a Geometry"),
    "key": (lambda p: xe.simulate(MODEL, T, PLACE, 0.2, noise=1, key=0), "key of jax.random"),
    "rows": (lambda p: xe.simulate(MODEL, [[1], [1, 2]], PLACE, 0.2, noise=1, key=KEY), "t is"),
    "pixels": (
        lambda p: xe.simulate_speckle(MODEL, T, PLACE, 0.2, n_pixels=9.5, key=KEY),
        "n_pixels is 9.5",
    ),
    "map": (lambda p: xe.correlation_map(MODEL, T, 0.1), "geometry is 0.1"),
    "q": (lambda p: xe.Geometry("x", [0.0]), "q is", "real numbers"),
    "phi": (lambda p: xe.Geometry(0.1, [[0], [1, 2]]), "phi is", "real numbers"),
    "complex": (lambda p: xe.Geometry(1j, [0.0]), "q is", "real numbers"),
    "none": (lambda p: xe.Geometry(None, [0.0]), "q is", "real numbers"),
    "gap": (lambda p: xe.Geometry(0.1, [0.0], gap="1"), "gap is", "real numbers"),
    "c2": (lambda p: of_data(c2="x"), "c2 is", "real numbers"),
    "diagonal": (lambda p: of_data(diagonal=None), "diagonal is", "real numbers"),
    "no geometry": (lambda p: of_data(geometry=(0.1, [0.0])), "geometry is a tuple"),
    "tolerance": (lambda p: xe.TrustRegion(cost_tol="x"), "cost_tol is 'x'", "number"),
    "evaluations": (lambda p: xe.TrustRegion(max_evaluations=1.5), "max_evaluations is 1.5"),
    "attempts": (lambda p: xe.Recovery(attempts="x"), "attempts is 'x'"),
    "angles": (lambda p: xe.Individual("x"), "n_angles is 'x'"),
    "pair": (lambda p: xe.Averaged(1, contrast_bounds=3), "bounds are 3", "pair"),
    "order": (lambda p: xe.Fourier([0.0, 1, 2], order="x"), "order is 'x'"),
    "values": (lambda p: xe.Fixed("x", 1.0), "numbers"),
    "chains": (lambda p: xe.Nuts(chains="x"), "chains is 'x'"),
    "keep": (lambda p: xe.Checkpoints("folder", keep="x"), "keep is 'x'"),
    "problem": (lambda p: xe.sample(DATA), "problem", "ProjectedObjective"),
    "priors": (lambda p: xe.sample(p, "x"), "priors is 'x'", "PriorSet"),
    "sampler": (lambda p: xe.sample(p, sampler="nuts"), "sampler is 'nuts'", "Nuts"),
    "method": (lambda p: xe.consensus(p, {}, "x"), "method is 'x'", "Consensus"),
    "no fit": (lambda p: xe.profile_interval(p, "D0"), "fit is", "a Fit"),
    "strategy": (lambda p: xe.global_least_squares(p, strategy="auto"), "strategy", "MultiStart"),
    "layers": (lambda p: xe.defended_least_squares(p, "x"), "layers is 'x'", "DefenceLayers"),
    "fitted": (lambda p: xe.fitted(DATA), "objective", "ProjectedObjective"),
    "rate": (lambda p: xe.smoothness(MODEL, 3, 1.0), "field is 3", "a text"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named_with_what_they_must_be(problem, name):
    call, *words = WRONG[name]
    with pytest.raises(XPCSError) as caught:
        call(problem)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 300


def test_levels_and_kinds_of_an_interval(fit):
    for level in (0, 1, 2.0, 1 - 1e-16, np.float64(-1)):
        with pytest.raises(XPCSError, match="level"):
            xe.profile_interval(fit, "alpha", level)
    with pytest.raises(XPCSError, match="kind is 'x'; give one of classical, speckle, dyadic"):
        xe.profile_interval(fit, "alpha", kind="x")


def test_numbers_and_arrays_of_numpy_and_jax_are_taken_where_numbers_and_lists_are(fit):
    scale, bounds = {"D0": np.float32(2)}, {"D0": np.array([1.0, 1e6]), "alpha": [-2, 2]}
    for times in (T, list(T), tuple(T), jnp.asarray(T), T.astype(np.float32)):
        for fixed in (("D_offset",), ["D_offset"], np.array(["D_offset"])):
            made = xe.parameter_map(MODEL, times, fixed=fixed, bounds=bounds, scale=scale)
            assert made.free_names == ("D0", "alpha")
    problem = xe.projected_objective(
        made, DATA, xe.Individual(np.int64(1), contrast_bounds=[0, 1]),
        tile=np.int32(8), angle_weights=[1], penalties=[],
    )  # fmt: skip
    solver = xe.TrustRegion(cost_tol=np.float32(1e-6), max_evaluations=np.int64(50))
    start = np.asarray(problem.start)
    for given in (start, start.tolist(), jnp.asarray(start)):
        found = xe.least_squares(problem, given, solver=solver, every=np.int64(1))
        assert found["alpha"].value == pytest.approx(fit["alpha"].value, rel=1e-3, abs=1e-3)
    whole = of_data(c2=DATA.c2.tolist(), t=list(DATA.t), diagonal=DATA.diagonal.tolist())
    np.testing.assert_array_equal(whole.c2, DATA.c2)
    assert whole.c2.dtype == np.float64
    curve = xe.curve_fit(line, [1, 2, 3], (2.0, 4.0, 6.1), [np.float32(1)], sigma=np.ones(3))
    assert curve.x[0] == pytest.approx(2.0, abs=0.1)
    xe.simulate(MODEL, list(T), PLACE, np.float32(0.2), noise=np.array([0.1]), key=KEY)
    xe.simulate(MODEL, list(T), PLACE, 0.2, noise=0.1, key=jax.random.PRNGKey(0))


def test_checked_entries_stay_what_they_are_under_transformations():
    def total(contrast):
        made = xe.simulate(MODEL, jnp.asarray(T), PLACE, contrast, noise=0.0, key=KEY)
        return jnp.sum(made.c2)

    assert jax.jit(total)(0.2) == pytest.approx(float(total(0.2)))
    assert jax.vmap(total)(jnp.array([0.1, 0.2])).shape == (2,)
    assert xe.least_squares.__name__ == "least_squares"
    assert "objective" in xe.least_squares.__annotations__


@pytest.mark.parametrize("kind", ["constant", "huge", "steps"])
def test_maps_without_sense_warn_of_nothing_in_passing(kind):
    """What NumPy would warn of is said in words; warnings are errors here."""
    lag = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    c2 = {"constant": np.ones((8, 8)), "huge": 1e150 * (1 + 0.2 * np.exp(-lag / 3)),
          "steps": 1.0 * (lag < 3)}[kind]  # fmt: skip
    data = of_data(c2=c2[None], t=T[:8], diagonal=np.diagonal(c2)[None])
    problem = xe.projected_objective(xe.parameter_map(MODEL, data.t, fixed=("D_offset",)), data)
    assert xe.least_squares(problem).quality.flag == "poor"
    larger = 1e300 / c2.max() * c2[None]
    xe.data.from_dict({"phi": [0.0], "g2": larger, "t1": T[:8], "t2": T[:8], "q": 0.005})


# What each of these fields takes by its annotation is refused in any other form.
WRONG_VALUES = ("x", object(), 1j, np.ones((2, 2)), dict, ["a", 1])
SETTINGS = (
    xe.PowerLawRate(),
    xe.physics.ExponentialRate(),
    xe.Trapezoid(xe.PowerLawRate()),
    xe.SplineRate([0.0, 1.0], 2.0),
    xe.physics.SignedSplineRate([0.0, 1.0], 2.0),
    xe.physics.PiecewiseConstantRate([0.5], [1.0, 2.0]),
    xe.physics.FunctionRate(lambda t, p: p["a"] * t, {"a": 1.0}),
    xe.Static(),
    xe.LaminarFlow(),
    xe.TwoComponent(),
    xe.Huber(),
    xe.SoftL1(),
    xe.Cauchy(),
    xe.objective.Arctan(),
    xe.WarmUp(),
    xe.optimize.SinglePrecision(),
    xe.TrustRegion(),
    xe.HybridOptimiser(),
    xe.Nuts(),
    xe.search.MultiStart(),
    xe.search.CmaEs(),
    xe.search.Auto(),
    xe.defences.DefenceLayers(),
    xe.bayes.Consensus(),
    xe.fitting.Thresholds(),
    xe.objective.GroupVariance((("a", "b"),), 1.0),
)


@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: type(one).__name__)
def test_fields_of_another_type_are_refused(settings):
    fields = {one.name: one for one in dataclasses.fields(settings)}
    for name, field in fields.items():
        taken = {
            "x": "str" in str(field.type),
            None: "None" in str(field.type),
            dict: "Callable" in str(field.type),
        }
        for value in (*WRONG_VALUES, None):
            rows = isinstance(value, np.ndarray) and name == "custom"
            if rows or any(value is one and right for one, right in taken.items()):
                continue
            changed = {one: getattr(settings, one) for one in fields} | {name: value}
            with pytest.raises(XPCSError):
                type(settings)(**changed)


def test_transformations_build_and_change_what_is_checked():
    def decay(amplitude):
        return xe.Static(xe.PowerLawRate(amplitude, 0.0, 0.0)).transport(jnp.ones(2))

    jax.make_jaxpr(decay)(1.0)
    assert jax.vmap(decay)(jnp.arange(3.0)).shape == (3, 2)
    assert jax.grad(lambda a: decay(a)[0])(2.0) == 1
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), MODEL)
    assert jax.vmap(lambda model: model.transport(jnp.ones(2)))(many).shape == (2, 2)
    jax.tree.map(lambda leaf: "any", MODEL)
    eqx.tree_at(lambda model: model.transport.amplitude, MODEL, "any")
    eqx.filter_eval_shape(xe.Static, xe.PowerLawRate(1.0))
