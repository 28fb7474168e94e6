"""Fits of large maps begin on a sample of their tiles: the same minimum, with fewer passes."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DOUBLE, LAMINAR, LOSSES, frame_times, make_data, mapped, start_off

import xpcs_eqx as xe
from xpcs_eqx.data import open_stored, write_own
from xpcs_eqx.objective import HostLoop, Linear, NormalEquations, sampled, two_time
from xpcs_eqx.objective.drivers.loops import SomeTiles, scan_tiles
from xpcs_eqx.objective.sampled import drawn_tiles, in_sample
from xpcs_eqx.objective.two_time import angle_cost
from xpcs_eqx.optimize import TrustRegion, closer_start, evaluated
from xpcs_eqx.parameters import with_parameters

TILE, N = 10, 101


@pytest.fixture(scope="module")
def data():
    return make_data(t=frame_times(N), noise=5e-4)


@pytest.fixture
def large(monkeypatch):
    """Maps of these tests pass for large ones."""
    monkeypatch.setattr(sampled, "_LARGE", 1000)


def objective_of(data, **more):
    return xe.projected_objective(mapped(start_off(LAMINAR), data), data, tile=TILE, **more)


def stored(data, folder, **more):
    write_own(folder / "maps.h5", data)
    return objective_of(open_stored(folder / "maps.h5"), piece=20_000, **more)


def sums_of(objective):
    y = jnp.asarray(objective.variables.to_coordinates(objective.start))
    return evaluated(objective, y, objective.memo)[0]


def weights_of(objective):
    """Sum of the weights of each angle."""
    term = objective.term
    y = jnp.asarray(objective.variables.to_coordinates(objective.start))
    return angle_cost(term, y, term.reference, Linear()).hessian[:, 1, 1]


def test_some_tiles_are_summed_by_what_was_made_for_all(data):
    objective = objective_of(data)
    places = (3, 0, 7, 12, 5, 1, 20, 9, 14, 18, 2, 6, 11, 16, 4, 8, 10)
    tiles = objective.term.tiles
    some = eqx.tree_at(lambda one: one.term.tiles, objective, SomeTiles(tiles, places))
    assert some.in_parts
    y = jnp.asarray(objective.variables.to_coordinates(objective.start))
    apart = some.term.angle_equations(y, some.term.reference, Linear())
    args = some.term.table(y), some.term.reference, Linear()
    zero = NormalEquations.zero(y.size + 2, (len(data.geometry.phi),), y.dtype)
    one_by_one = scan_tiles(two_time._equations, args, some.term.tiles, zero)
    np.testing.assert_allclose(apart.hessian, one_by_one.hessian, rtol=DOUBLE.same)
    np.testing.assert_allclose(apart.cost, one_by_one.cost, rtol=DOUBLE.same)
    assert sum(apart.count) == sum(one_by_one.count) > 0


@pytest.mark.parametrize(("maps", "side"), [(1, 22), (1, 40), (8, 8), (23, 8), (200, 16)])
def test_tiles_are_of_every_map_and_age_and_a_small_part(maps, side):
    found = drawn_tiles(maps, side)
    assert len({tuple(row) for row in found.tolist()}) == len(found)
    assert set(found[:, 0]) == set(range(maps))
    assert np.all(found[:, 1] <= found[:, 2])
    assert found.max(axis=0)[2] < side
    # Each has pairs of neighbouring frames, and together they have all lags and ages.
    assert {row[0] for row in found.tolist() if row[1] == row[2]} == set(range(maps))
    assert np.ptp(found[:, 1]) > side / 2
    assert np.max(found[:, 2] - found[:, 1]) > side / 2
    assert len(found) < maps * side * (side + 1) / 2 * 0.25


def test_sums_of_a_file_are_those_of_memory_and_of_their_size(data, large, tmp_path):
    objective = objective_of(data)
    samples = in_sample(objective), in_sample(stored(data, tmp_path))
    whole, held, read = map(sums_of, (objective, *samples))
    np.testing.assert_allclose(held.hessian, read.hessian, rtol=DOUBLE.same)
    np.testing.assert_allclose(held.cost, read.cost, rtol=DOUBLE.same)
    assert held.count < 0.35 * whole.count
    for one in samples:
        # Weights are those of all pairs, so that penalties count as much.
        np.testing.assert_allclose(weights_of(one), N * (N - 1) / 2, rtol=DOUBLE.same)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_fit_ends_where_it_would_without_and_passes_over_the_data_less(
    data, large, monkeypatch, tmp_path, where
):
    objective = objective_of(data) if where == "memory" else stored(data, tmp_path)
    fit = xe.least_squares(objective)
    assert fit.solver_name.startswith("sample of tiles, ")
    assert dict(fit.timings)["sample of tiles"] > 0
    monkeypatch.setattr(sampled, "_LARGE", 10**12)
    alone = xe.least_squares(objective)
    assert "sample" not in alone.solver_name
    assert fit.success
    assert fit.evaluations < alone.evaluations
    for name in fit.objective.names:
        assert abs(fit[name].value - alone[name].value) < 1e-3 * fit[name].error
    np.testing.assert_allclose(fit.cost, alone.cost, rtol=1e-10)


def test_a_start_as_near_as_the_minimum_of_a_sample_is_kept(data, large):
    objective = objective_of(data)
    fit = xe.least_squares(objective)
    at = fit.values[fit.index.physical]
    assert closer_start(TrustRegion(), objective, np.asarray(at)) is None
    assert "sample" not in xe.least_squares(objective, jnp.asarray(at)).solver_name


def test_a_sample_without_a_minimum_inside_the_bounds_is_no_start(data, large):
    # The truth lies outside.
    model = with_parameters(start_off(LAMINAR), {"D0": 1000.0})
    parameters = mapped(model, data, bounds={"D0": (1.0, 2000.0)})
    objective = xe.projected_objective(parameters, data, tile=TILE)
    assert closer_start(TrustRegion(), objective, np.asarray(objective.start)) is None


def test_only_large_maps_of_this_process_are_sampled(data, large, monkeypatch):
    loss = xe.two_time_objective(
        mapped(start_off(LAMINAR), data), data, tile=TILE, loss=LOSSES["soft_l1"], eliminate=False
    )
    assert in_sample(loss) is not None
    assert in_sample(objective_of(data, driver=HostLoop())) is None
    monkeypatch.setattr(sampled, "_LARGE", 10**6)
    assert in_sample(objective_of(data)) is None


def test_a_fit_that_was_stopped_goes_on_from_where_the_sample_led(data, large, tmp_path):
    objective, checkpoints = objective_of(data), xe.Checkpoints(tmp_path)
    whole = xe.least_squares(objective)
    stopped = xe.least_squares(
        objective, callback=lambda state: state.evaluations == 2, checkpoints=checkpoints
    )
    assert stopped.evaluations == 2
    again = xe.least_squares(objective, checkpoints=checkpoints, resume=True)
    assert again.solver_name.startswith("sample of tiles, ")
    np.testing.assert_array_equal(again.history.cost, whole.history.cost)
    np.testing.assert_array_equal(again.values, whole.values)
