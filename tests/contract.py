"""One ready-made instance of every public class, and how each may be used, for the contract."""

import importlib
import inspect
import pkgutil
import types
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from helpers import LAMINAR, PHI, TRANSPORT, frame_times, make_data, pooled

import xpcs_eqx
from xpcs_eqx import (
    checkpoint,
    config,
    data,
    fitting,
    objective,
    optimize,
    parameters,
    physics,
    report,
    scaling,
    uncertainty,
)

T = frame_times(9)
SHORT = np.array([0.4, 4.1, 9.3])


def packages() -> tuple[types.ModuleType, ...]:
    """The package and those below it, each of which says what is public; `scaling` is one file."""
    below = [m.name for m in pkgutil.iter_modules(xpcs_eqx.__path__) if m.ispkg]
    below = sorted([*below, "scaling"])
    return (xpcs_eqx, *(importlib.import_module(f"xpcs_eqx.{name}") for name in below))


def offered(package: types.ModuleType) -> dict[str, Any]:
    """What a package re-exports, or a file defines: what a file imports is not its own."""
    whole = hasattr(package, "__path__")
    return {
        name: value
        for name, value in vars(package).items()
        if not (name.startswith("_") or isinstance(value, types.ModuleType))
        and (whole or getattr(value, "__module__", package.__name__) == package.__name__)
    }


def public_names() -> dict[str, Any]:
    """Everything re-exported, by the shortest way to it (`TwoTimeData`, `data.MapSource`)."""
    found: dict[str, Any] = {}
    known: set[int] = set()
    for package in packages():
        prefix = package.__name__.removeprefix("xpcs_eqx").lstrip(".")
        for name, value in offered(package).items():
            if id(value) not in known:
                known.add(id(value))
                found[f"{prefix}.{name}" if prefix else name] = value
    return found


def is_abstract(cls: type) -> bool:
    return inspect.isabstract(cls) or bool(
        getattr(cls, "__abstractvars__", ()) or getattr(cls, "__abstractclassvars__", ())
    )


def needs_nothing(cls: type) -> bool:
    """Whether a class can be made, and without arguments."""
    return not is_abstract(cls) and all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        for p in inspect.signature(cls).parameters.values()
    )


# Public classes without an instance in the tables.
EXCEPTIONS = {"data.BandReader": "an open file"}
# Public values that are neither classes nor functions.
CONSTANTS = {
    "data.DEFAULT_GAP": "gap of the shear cell where nobody says [Å]",
    "data.DOUBTS": "reasons for a doubtful verdict, by word",
    "data.Doubt": "a type, for annotations",
    "data.LAYOUTS": "names of file layouts",
    "data.Sigma": "a type, for annotations",
    "physics.MODELS": "words for models",
    "config.TEMPLATES": "names of templates",
    "scaling.CONTRAST_BOUNDS": "bounds of the contrast",
    "search.CHAIN": "names of methods",
    "scaling.OFFSET_BOUNDS": "bounds of the offset",
    "objective.AnyData": "a type, for annotations",
    "objective.Choice": "a type, for annotations",
    "objective.TwoTimeObjective": "a type, for annotations",
    "search.CMA_PRESETS": "settings by name",
}


class Case(NamedTuple):
    """An instance, what jit, vmap and grad are tried on, and how long its text may be."""

    make: Callable[[], Any]
    use: Callable[[Any], Any] | None = None
    text: int = 2000


def squares(tree: Any) -> jax.Array:
    """A number made of all floating-point leaves, for objects that are mere values."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    parts = [jnp.sum(jnp.where(jnp.isfinite(leaf), leaf, 0.0) ** 2) for leaf in leaves]
    return sum(parts, jnp.zeros(()))


def map_of(model):
    return physics.correlation_map(model, T, GEOMETRY)


def rate_of(rate):
    return jnp.concatenate([rate(T[1:]), rate.integral(T)])


def kernel_of(kernel):
    return kernel(jnp.array([0.0, 0.3, 2.0]))


def loss_at(loss):
    r = jnp.array([-0.3, 0.1, 3.0])
    parts = [loss.density, loss.weight, loss.influence, loss.influence_slope]
    return jnp.concatenate([*(part(r) for part in parts), loss.rescale(r)[0]])


def scaling_of(scaling):
    return scaling.per_angle(0.1 * jnp.arange(1.0, scaling.size + 1))


def there(*x):
    def use(bijection):
        y = bijection.inverse(tuple(jnp.asarray(v) for v in x))
        return jnp.stack([*y, *bijection.forward(y), bijection.log_det(y)])

    return use


def coordinates_of(variables):
    x = jnp.asarray(variables.start)
    y = variables.to_coordinates(x)
    return jnp.concatenate([y, variables.to_physical(y)])


def line(x, slope, level):
    return level + slope * x


def half_of_d0(values):
    return 0.5 * values["D0"]


def linear_rate(t, p):
    return p["slope"] * t + p["level"]


GEOMETRY = data.Geometry(0.0054, PHI)


@cache
def small_data():
    return make_data(n=9)


@cache
def small_likelihood():
    term, ones = small_objective().term, np.ones(3)
    x = np.asarray(term.parameters.start)
    coefficients = np.asarray(term.scaling.from_per_angle(term.reference))
    known = np.array([True, False, True])
    return objective.speckle_likelihood(
        term, x, coefficients, 0.2 * ones, 100 * ones, np.full((3, 9), 1.4), known
    )


@cache
def small_map():
    return parameters.parameter_map(LAMINAR, T, ties={"D_offset": half_of_d0})


@cache
def small_objective():
    return objective.projected_objective(small_map(), small_data())


@cache
def robust_objective():
    return objective.two_time_objective(
        small_map(), small_data(), loss=objective.SoftL1(0.02), eliminate=False
    )


@cache
def curve():
    x = np.linspace(0.0, 1.0, 8)
    return objective.curve_objective(line, x, 2 * x + 1, np.ones(2))


@cache
def small_fit():
    start = physics.Static(physics.PowerLawRate(1e4, -0.2, 0.0))
    truth = physics.Static(TRANSPORT)
    chosen = parameters.parameter_map(start, T, fixed=("D_offset",))
    return fitting.least_squares(objective.projected_objective(chosen, make_data(truth, n=9)))


@cache
def joint_parameters():
    return parameters.shared_parameters([physics.Static(TRANSPORT)] * 2, [T, T])


@cache
def combined():
    sets = [make_data(physics.Static(TRANSPORT), n=9, seed=k) for k in (0, 1)]
    return objective.two_time_objective(joint_parameters(), sets)


def solver_state():
    o = curve()
    equations = objective.NormalEquations.zero(2)
    return optimize.TrustRegion(max_evaluations=4).start(
        o.variables, jnp.asarray(o.start), equations, o.memo
    )


def block():
    return objective.tiles_of(small_data()).block(jnp.array([0, 0, 0]))


# Classes that can be made without arguments are tried so, unless an instance of them stands here.
MODULES: dict[type, Case] = {
    checkpoint.Checkpoints: Case(lambda: checkpoint.Checkpoints("states", keep=2)),
    data.Geometry: Case(lambda: GEOMETRY),
    data.Bins: Case(lambda: data.binned(small_data(), 2).bins),
    data.GenericLayout: Case(lambda: data.GenericLayout("maps", q=(0.004, 0.005))),
    data.PooledData: Case(lambda: pooled(small_data())),
    data.Selection: Case(lambda: data.Selection(end_frame=5, phi_ranges=((-10.0, 10.0),))),
    data.TwoTimeData: Case(small_data),
    fitting.Fit: Case(small_fit, lambda fit: fit.values**2),
    fitting.Thresholds: Case(fitting.Thresholds, lambda one: jnp.asarray(one.level)),
    uncertainty.Misfit: Case(
        lambda: uncertainty.Misfit((), SHORT, 1.0, 1.0, *(np.ones((3, 2)),) * 4),
        lambda misfit: jnp.asarray(misfit.by_lag),
    ),
    fitting.FittedModel: Case(lambda: small_fit().fitted, lambda fitted: fitted.contrast**2),
    fitting.Run: Case(lambda: small_fit().run),
    fitting.Solution: Case(lambda: fitting.solve(small_objective()), lambda s: s.cost, 9000),
    objective.Arctan: Case(lambda: objective.Arctan(0.5), loss_at),
    objective.Block: Case(block),
    objective.Cauchy: Case(lambda: objective.Cauchy(0.5), loss_at),
    objective.CombinedObjective: Case(combined, text=9000),
    objective.CurveObjective: Case(curve),
    objective.ExecutorSum: Case(lambda: objective.ExecutorSum(objective.HeldExecutor(), workers=2)),
    objective.Huber: Case(lambda: objective.Huber(0.5), loss_at),
    objective.InfluenceSums: Case(
        lambda: objective.influence_sums(objective.Huber(0.5), SHORT, jnp.ones_like(SHORT)),
        lambda sums: (sums + sums).variance(1.0),
    ),
    objective.JointObjective: Case(robust_objective, text=5000),
    objective.Linear: Case(objective.Linear, loss_at),
    objective.MapTiles: Case(lambda: objective.tiles_of(small_data())),
    objective.Memo: Case(lambda: small_objective().memo),
    objective.NormalEquations: Case(
        lambda: objective.NormalEquations(*(jnp.ones(s) for s in ((), (2,), (2, 2), ()))),
        lambda e: (e + e).transform(jnp.array([[1.0], [2.0]])).hessian,
    ),
    objective.PackedMaps: Case(lambda: objective.pack_maps(objective.tiles_of(small_data()))),
    objective.PointTiles: Case(lambda: objective.tiles_of(pooled(small_data()))),
    objective.ProjectedObjective: Case(small_objective, text=5000),
    objective.Pull: Case(
        lambda: objective.Pull(half_of_d0, 1.0, 0.5),
        lambda pull: pull.residuals({"D0": jnp.asarray(3.0)}),
    ),
    objective.ShotScaling: Case(
        lambda: objective.ShotScaling(
            scaling.Individual(3), jnp.array([np.nan, 0.2, np.nan]), (0, 2)
        ),
        scaling_of,
    ),
    objective.SpeckleLikelihood: Case(small_likelihood, text=6000),
    objective.SoftL1: Case(lambda: objective.SoftL1(0.5), loss_at),
    objective.TablePieces: Case(lambda: objective.TablePieces(objective.tiles_of(small_data()), 2)),
    objective.TwoTimeTerm: Case(lambda: small_objective().term, text=5000),
    optimize.Closeness: Case(lambda: optimize.Closeness(*(jnp.ones(()),) * 6)),
    optimize.Convergence: Case(lambda: optimize.TrustRegion().convergence),
    optimize.History: Case(lambda: solver_state().history),
    optimize.NielsenState: Case(lambda: optimize.NielsenState(jnp.ones(()), jnp.ones(()))),
    optimize.Tried: Case(lambda: optimize.Tried(*(jnp.ones(()),) * 7)),
    optimize.TrustRegionState: Case(solver_state),
    parameters.Affine: Case(lambda: parameters.Affine(1.0, 2.0), there(0.4)),
    parameters.Identity: Case(parameters.Identity, there(0.4)),
    parameters.Log: Case(parameters.Log, there(3.0)),
    parameters.ParameterMap: Case(small_map, coordinates_of),
    parameters.PlainVariables: Case(lambda: parameters.unbounded(SHORT)),
    parameters.Proportional: Case(
        lambda: parameters.Proportional("D0", 2.0), lambda tie: tie({"D0": jnp.asarray(3.0)})
    ),
    parameters.ReferenceAmplitude: Case(
        lambda: parameters.ReferenceAmplitude(3.7), there(1.2, -0.4)
    ),
    parameters.ReferenceTime: Case(lambda: parameters.ReferenceTime(3.7), there(1.2, -0.4, 0.3)),
    parameters.SharedParameters: Case(
        joint_parameters, lambda p: p.local(1, jnp.asarray(p.whole.start)), 4000
    ),
    parameters.SignedSlope: Case(lambda: parameters.SignedSlope(3.7), there(1.2, 0.7, -0.3)),
    parameters.Slope: Case(lambda: parameters.Slope(3.7), there(1.2, -0.4, 0.3)),
    physics.ExponentialRate: Case(lambda: physics.ExponentialRate(2.0, 3.0, 0.1), rate_of),
    physics.Features: Case(lambda: physics.Features(increments=jnp.asarray(T))),
    physics.FunctionRate: Case(
        lambda: physics.FunctionRate(linear_rate, {"slope": 0.2, "level": 1.0}), rate_of
    ),
    physics.GapAveraged: Case(physics.GapAveraged, kernel_of),
    physics.Homodyne: Case(physics.Homodyne, kernel_of),
    physics.Ballistic: Case(physics.Ballistic, map_of),
    physics.Caged: Case(physics.Caged, map_of),
    physics.DoubleExponential: Case(physics.DoubleExponential, map_of),
    physics.StretchedExponential: Case(physics.StretchedExponential, map_of),
    physics.LaminarFlow: Case(lambda: LAMINAR, map_of),
    physics.Pair: Case(lambda: physics.Pair(jnp.ones(2), (), (), jnp.zeros(2))),
    physics.PiecewiseConstantRate: Case(
        lambda: physics.PiecewiseConstantRate(SHORT[1:2], [1.0, 2.0]), rate_of
    ),
    physics.PiecewiseLinearRate: Case(
        lambda: physics.PiecewiseLinearRate(SHORT, [1.0, 2.0, 1.5]), rate_of
    ),
    physics.PowerLawRate: Case(lambda: physics.PowerLawRate(1.5, -0.3, 0.2), rate_of),
    physics.SignedSplineRate: Case(
        lambda: physics.SignedSplineRate(SHORT, [1.0, -2.0, 1.5]), rate_of
    ),
    physics.SplineRate: Case(lambda: physics.SplineRate(SHORT, [1.0, 2.0, 1.5]), rate_of),
    physics.Static: Case(lambda: physics.Static(TRANSPORT), map_of),
    physics.Trapezoid: Case(lambda: physics.Trapezoid(physics.PowerLawRate(1.5, -0.3)), rate_of),
    scaling.Averaged: Case(lambda: scaling.Averaged(3), scaling_of),
    scaling.Fixed: Case(lambda: scaling.Fixed([0.2, 0.3], [1.0, 1.1]), scaling_of),
    scaling.Fourier: Case(lambda: scaling.Fourier(PHI, order=1), scaling_of),
    scaling.IndexMap: Case(lambda: small_fit().index),
    scaling.Individual: Case(lambda: scaling.Individual(3), scaling_of),
    uncertainty.Optimum: Case(
        lambda: uncertainty.optimum(
            small_objective(),
            small_map().to_coordinates(jnp.asarray(small_map().start)),
            small_objective().memo,
        )
    ),
    uncertainty.Uncertainty: Case(lambda: small_fit().uncertainty),
}

for _cls in public_names().values():
    if inspect.isclass(_cls) and issubclass(_cls, eqx.Module) and needs_nothing(_cls):
        MODULES.setdefault(_cls, Case(_cls))


# Public classes that are no Modules: records of results, and what the program needs.
RECORDS: dict[type, Callable[[], Any]] = {
    checkpoint.StoredCheckpoint: lambda: checkpoint.StoredCheckpoint("states/1.h5", 1, {}, ()),
    config.Configuration: lambda: config.Configuration(settings(), config.Source("my.toml")),
    config.Settings: lambda: settings(),
    config.Source: lambda: config.Source("my.toml", "[data]"),
    data.FrameIntensities: lambda: data.FrameIntensities(np.arange(3.0), np.ones(3), "xpcs/i"),
    objective.HeldExecutor: objective.HeldExecutor,
    objective.PixelScores: lambda: objective.PixelScores(np.eye(2), np.eye(2), np.ones(())),
    fitting.AgedG2: lambda: fitting.AgedG2(
        5.0, (0.0, 10.0), 0, 0.0, *(np.ones(1),) * 6, *(1.0,) * 7, small_fit()
    ),
    fitting.Bootstrap: lambda: fitting.Bootstrap(("D0",), np.ones(1), np.ones((2, 1)), 0),
    fitting.Comparison: lambda: fitting.Comparison(small_fit(), None, "why", False, None),
    fitting.Diagnostics: lambda: fitting.Diagnostics(
        ("D0",), *(np.ones(1),) * 3, 1.0, np.ones(1), 10.0, 0.1
    ),
    fitting.ParameterRow: lambda: small_fit()["D0"],
    fitting.ProfileInterval: lambda: fitting.ProfileInterval("D0", 0.68, 1.0, 3.0, 2.0),
    fitting.Quality: lambda: small_fit().quality,
    uncertainty.MisfitTest: lambda: uncertainty.MisfitTest("lag", 9.0, 7, 0.25, None),
    uncertainty.Deviation: lambda: uncertainty.Deviation("lags", 0.1, 0.2, 0.01, 0.001),
    uncertainty.Signal: lambda: uncertainty.Signal(9.0, 0.1, 0.9, 0.1),
    report.Report: lambda: report.Report("Fit", ()),
    fitting.RecoveryAction: lambda: fitting.RecoveryAction("not moved", "perturbed", "kept"),
    fitting.RescaledSurface: lambda: fitting.RescaledSurface(
        np.ones((3, 9, 9)), PHI, PHI, np.ones((3, 9, 9))
    ),
    optimize.Status: lambda: optimize.Status.cost,
    physics.ParameterInfo: lambda: physics.ParameterInfo("s", 1.0),
    report.FittedBins: lambda: report.FittedBins(*(np.arange(2),) * 3, *(np.ones(2),) * 6),
    report.FittedMaps: lambda: report.fitted_maps(small_fit()),
    parameters.SavedValue: lambda: parameters.SavedValue(1.0, 0.1, 0.0, 2.0, "free"),
    report.Origin: lambda: report.Origin(scaling="individual: auto", weight=2.0),
    report.Section: lambda: report.Section("Time", ["1 s"], {"seconds": 1.0}),
    report.Table: lambda: report.Table(("name", "value"), (("a", "1"),)),
    report.Entry: lambda: report.Entry("q", "0.0054 1/Å"),
    report.Item: lambda: report.Item("a sentence"),
    report.Heading: lambda: report.Heading("a data set"),
    report.Picture: lambda: report.Picture("maps", "what to see", b"", file="maps.pdf"),
    report.Drawing: lambda: report.Drawing("map", report.to_json),
}


def settings():
    return config.Settings.model_validate({"data": {"path": "scan.hdf"}})
