"""The table of `contract.py` for what streams: stored maps, sources of points, the hybrid fit."""

from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from contract import (
    GEOMETRY,
    MODULES,
    RECORDS,
    SHORT,
    Case,
    T,
    curve,
    line,
    map_of,
    small_data,
    small_map,
    small_objective,
)
from helpers import TRANSPORT

from xpcs_eqx import (
    data,
    fitting,
    hybrid,
    objective,
    optimize,
    physics,
    report,
    scaling,
    search,
    uncertainty,
)

EXAMPLE = Path(__file__).parent.parent / "examples" / "laminar_aps_u.hdf"
X = np.linspace(0.0, 1.0, 12)
START = np.array([1.0, 0.5])


def tiles():
    whole = np.arange(9)
    yield data.Tile(np.arange(3), whole, whole, np.asarray(small_data().c2))


@cache
def in_chunks():
    return data.from_chunks(tiles, T, GEOMETRY)


def fitted_values():
    return fitting.FittedValues(
        values=jnp.ones(5),
        model=physics.Static(TRANSPORT),
        contrast=jnp.array([0.2]),
        offset=jnp.ones(1),
        cost=jnp.asarray(0.5, float),
        status=jnp.asarray(1),
        at_bound=jnp.zeros(5, bool),
        index=scaling.index_map(scaling.Individual(1), ("D0", "alpha", "D_offset")),
    )


def of_vector(x, p):
    return p[0] * x + p[1]


@cache
def stored():
    return data.open_stored(EXAMPLE)


@cache
def stored_tiles():
    return objective.source_of(stored())


def source():
    return hybrid.ArraySource(X, 2 * X + 1, chunk=6)


def numbers():
    yield X, 2 * X + 1


def table():
    y = small_map().to_coordinates(jnp.asarray(small_map().start))
    return small_objective().term.table(y)


MODULES |= {
    data.MapSource: Case(lambda: stored().source),
    data.PairRule: Case(
        lambda: data.PairRule(T, np.ones(9, bool), np.array([1, 5]), np.array([0.0, 8.0]))
    ),
    data.ChunkedTwoTime: Case(in_chunks),
    data.StoredTwoTime: Case(stored),
    fitting.FittedValues: Case(fitted_values),
    hybrid.ArraySource: Case(source),
    hybrid.Chunk: Case(lambda: next(iter(source().chunks()))),
    hybrid.FactorySource: Case(lambda: hybrid.FactorySource(numbers)),
    hybrid.HDF5Source: Case(lambda: hybrid.HDF5Source("points.h5")),
    hybrid.HybridOptimiser: Case(hybrid.HybridOptimiser, text=4000),
    hybrid.StreamedPoints: Case(lambda: hybrid.StreamedPoints(source())),
    hybrid.VectorModel: Case(lambda: hybrid.VectorModel(of_vector)),
    objective.ArrayPoints: Case(lambda: curve().points),
    objective.Survey: Case(lambda: objective.Survey(12, 0.1)),
    objective.CurveModel: Case(lambda: objective.CurveModel(line, objective.Linear())),
    optimize.GradientEquations: Case(lambda: optimize.GradientEquations.zero(2)),
    optimize.WarmUpState: Case(lambda: optimize.WarmUp().begin(curve(), START)),
    optimize.SinglePrecisionState: Case(
        lambda: optimize.SinglePrecision().begin(small_objective(), small_map().start)
    ),
    optimize.WarmUpHistory: Case(optimize.WarmUpHistory.empty),
    optimize.Event: Case(lambda: optimize.Event("step clip", 3, (("norm", 0.2),))),
    search.TournamentState: Case(lambda: search.Tournament(candidates=4).begin(curve(), START)),
    objective.BandTiles: Case(lambda: next(iter(stored_tiles().stream())).tiles),
    objective.ChunkPieces: Case(lambda: objective.source_of(in_chunks())),
    objective.FrameTable: Case(table),
    objective.GroupVariance: Case(
        lambda: objective.GroupVariance((("a", "b"),), 2.0),
        lambda penalty: penalty.residuals({"a": jnp.asarray(1.0), "b": jnp.asarray(3.0)}),
    ),
    objective.LogSmoothness: Case(
        lambda: objective.LogSmoothness(("a", "b", "c"), 0.5), lambda p: p.residuals(rates())
    ),
    objective.Piece: Case(lambda: next(iter(stored_tiles().stream()))),
    objective.Smoothness: Case(
        lambda: objective.Smoothness(("a", "b", "c"), 0.5), lambda p: p.residuals(rates())
    ),
    objective.StoredTiles: Case(stored_tiles),
    objective.Strategy: Case(lambda: objective.choose_strategy(1000, 8, 7)),
    physics.TwoComponent: Case(
        lambda: physics.TwoComponent(
            *(physics.PowerLawRate(a, 0.2, 1e-3) for a in (1e4, 2e4, 1e3)), 0.5, -0.1, 2.0, 0.1
        ),
        map_of,
    ),
    uncertainty.ScoreCovariances: Case(
        lambda: uncertainty.ScoreCovariances(
            *(np.ones((2, 2)),) * 4, None, *(SHORT,) * 2, "dyadic", ""
        )
    ),
}


def rates():
    return {"a": jnp.asarray(1.0), "b": jnp.asarray(3.0), "c": jnp.asarray(4.0)}


def never(model, here):
    return False


RECORDS |= {
    data.Tile: lambda: next(tiles()),
    data.Sample: lambda: data.Sample(T, np.arange(9), np.arange(9)),
    data.MapSize: lambda: data.map_size(EXAMPLE),
    fitting.Sharing: lambda: fitting.Sharing(1.0, 1, 0.3, ()),
    fitting.Band: lambda: fitting.Band(T, T, T - 1, T + 1, 0.68),
    fitting.Derived: lambda: fitting.Derived(
        0.005,
        T[:3],
        *(np.ones((3, 1)),) * 2,
        {},
        {},
        *(np.ones(3),) * 2,
        {},
        {},
        1.0,
        0.1,
        2.0,
        np.ones(2),
    ),
    fitting.Exponent: lambda: fitting.Exponent(*(np.ones(2),) * 3, 2.0, 0.1, 0.3, 1, 2.0, 5.0),
    optimize.WarmUpEnd: lambda: next(iter(optimize.WarmUpEnd)),
    report.FittedBand: lambda: report.FittedBand(slice(0, 3), *(np.ones((3, 9)),) * 3, None),
    physics.Circumstances: lambda: physics.Circumstances(T, GEOMETRY, {"D0": (0.0, 1.0)}),
    physics.Degeneracy: lambda: physics.Degeneracy("f0 with f2", "fix one", never, True),
}
