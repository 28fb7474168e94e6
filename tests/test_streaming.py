"""Data that stay in their file or come in chunks: the same sums, errors and fits as in memory."""

import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import equinox as eqx
import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DOUBLE, LAMINAR, LOSSES, assert_close, make_data, mapped, start_off

import xpcs_eqx as xe
from xpcs_eqx.data import (
    StoredTwoTime,
    Tile,
    from_chunks,
    load,
    open_stored,
    write_aps_old,
    write_aps_u,
    write_nxxpcs,
    write_own,
)
from xpcs_eqx.objective import (
    ChunkPieces,
    NormalEquations,
    StoredTiles,
    add_piece,
    pieces_of,
    read_ahead,
    source_of,
    sum_pieces,
)
from xpcs_eqx.objective.two_time import _equations
from xpcs_eqx.report import text_report
from xpcs_eqx.scaling import quantile_scaling
from xpcs_eqx.uncertainty import speckle_scores

N = 40


@pytest.fixture(scope="module")
def data():
    return make_data(n=N, diagonal=True)


def weighted(data, **fields):
    """The data with NaN spread over them and a standard deviation for each pair."""
    c2 = np.array(data.c2)
    c2[0, 3, 17] = c2[0, 17, 3] = np.nan
    c2[1, 5, 30] = np.inf
    spread = 0.004 + 0.004 * np.random.default_rng(4).random(c2.shape)
    roots = 1 / (spread + np.swapaxes(spread, 1, 2))
    return eqx.tree_at(
        lambda d: (d.c2, d.root_weights), data, (c2, roots), is_leaf=lambda x: x is None
    )


def written(tmp_path, data, write=write_own, **keywords):
    path = str(tmp_path / "maps.h5")
    write(path, data, **keywords)
    return path


def evaluated(data, scaling=None, **keywords):
    """Objective, equations and memo at the start."""
    parameters = mapped(start_off(LAMINAR, 1.2), data)
    objective = xe.two_time_objective(parameters, data, scaling, tile=9, **keywords)
    y = objective.variables.to_coordinates(jnp.asarray(objective.start))
    return objective, *objective.evaluate(y, objective.memo)


def assert_same_equations(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        for field in ("cost", "gradient", "hessian", "count"):
            assert_close(getattr(one, field), getattr(other, field), DOUBLE.same)


def assert_same_sums(path, *, pieces=(1, 9 * N * 8 * 2, None), stored=None, **options):
    """Streamed and in memory: equations of every angle and of the coordinates."""
    memory, lazy = load(path, **options), stored or open_stored(path, **options)
    assert lazy.n_pairs == memory.n_pairs
    assert lazy.masked_pairs == memory.masked_pairs
    assert lazy.absolute_sigma == memory.absolute_sigma
    assert lazy.provenance.notes == memory.provenance.notes
    np.testing.assert_array_equal(lazy.diagonal, memory.diagonal)
    np.testing.assert_array_equal(quantile_scaling(lazy), quantile_scaling(memory))
    _, equations, memo = evaluated(memory)
    for piece in pieces:
        objective, found, own = evaluated(lazy, piece=piece)
        assert isinstance(objective.term.tiles, StoredTiles)
        assert_same_equations((found, own.equations), (equations, memo.equations))
    return memory, lazy


LAYOUTS = {
    "own": (write_own, {}),
    "aps-u": (write_aps_u, {}),
    "aps-u-half": (write_aps_u, {"half": True}),
    "aps-old": (write_aps_old, {"half": True}),
    "nxxpcs-flipped": (write_nxxpcs, {"time_origin_location": "lower_left"}),
    "nxxpcs-half": (
        write_nxxpcs,
        {
            "storage_mode": "one_array_q_last",
            "populated_elements": "lower_half",
            "baseline_reference": 0,
        },
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_sizes_of_pieces_give_the_same_sums(tmp_path, data, layout):
    write, keywords = LAYOUTS[layout]
    path = written(tmp_path, data, write, **keywords)
    assert_same_sums(path)


def test_pieces_are_bands_or_groups_of_maps(tmp_path, data):
    lazy = open_stored(written(tmp_path, data))
    n_tiles = -(-N // 9)
    for piece, band, group, count in (
        (1, 1, 1, 3 * n_tiles),
        (2 * 9 * N * 8, 2, 1, 9),
        (2 * N * N * 8, n_tiles, 2, 2),
        (None, n_tiles, 3, 1),
    ):
        tiles = source_of(lazy, tile=9, piece=piece)
        assert (tiles.band, tiles.group, tiles.n_pieces) == (band, group, count)
        shapes = {eqx.tree_pformat(eqx.filter_eval_shape(lambda p: p, p)) for p in tiles.stream()}
        assert len(shapes) == 1


@pytest.mark.parametrize("half", ["upper", "lower"])
def test_half_stored_maps_of_single_precision(tmp_path, data, half):
    path = written(tmp_path, data, write_aps_u)
    with h5py.File(path, "r+") as file:
        group = file["xpcs/twotime/correlation_map"]
        for key in list(group):
            c2 = np.asarray(group[key], np.float32)
            c2 = np.triu(c2) if half == "upper" else np.tril(c2)
            del group[key]
            group[key] = c2
    _, lazy = assert_same_sums(path)
    assert set(lazy.source.halves) == {half}
    assert lazy.source.dtype == "float32"


def test_masks_nan_and_stored_sigma(tmp_path, data):
    path = written(tmp_path, weighted(data), chunk=16)
    with h5py.File(path, "r+") as file:
        # In one triangle only: the pair counts for nothing all the same.
        file["c2"][2, 30, 7] = np.nan
    mask = np.random.default_rng(0).random((3, N, N)) > 0.1
    selection = xe.Selection(
        start_frame=3,
        end_frame=N - 1,
        bad_frames=(9,),
        min_lag=2,
        max_lag=30,
        age_range=(1.0, 8.5),
        pair_mask=mask[:, 2 : N - 1, 2 : N - 1],
    )
    _, lazy = assert_same_sums(path, selection=selection)
    assert lazy.source.halves == ("upper", "upper", "both")
    assert_same_sums(path, pieces=(None,))


@pytest.mark.parametrize("sigma", [0.007, "mad"])
def test_constant_and_estimated_sigma_of_single_precision(tmp_path, data, sigma):
    single = eqx.tree_at(lambda d: d.c2, data, np.asarray(data.c2, np.float32))
    assert_same_sums(written(tmp_path, single), pieces=(1,), sigma=sigma)


def test_some_of_the_angles(tmp_path, data):
    path = written(tmp_path, data, write_aps_u)
    selection = xe.Selection(phi_ranges=((40.0, 100.0),))
    _, lazy = assert_same_sums(path, pieces=(1,), selection=selection)
    assert lazy.source.maps == (1, 2)


def test_other_ways_to_store_what_is_asked_for(tmp_path, data):
    lazy = open_stored(written(tmp_path, weighted(data)))
    weights = np.array([1.0, 0.0, 2.0])
    angle = eqx.tree_at(lambda d: d.t, load(lazy.source.path), lazy.t)
    _, equations, memo = evaluated(angle, angle_weights=weights, loss=LOSSES["huber"])
    found = evaluated(lazy, angle_weights=weights, loss=LOSSES["huber"], piece=1)
    assert_same_equations((found[1], found[2].equations), (equations, memo.equations))


def test_one_angle_in_memory(tmp_path, data):
    path = written(tmp_path, weighted(data))
    whole, lazy = load(path), open_stored(path)
    for a in range(3):
        one = lazy.angle(a)
        np.testing.assert_array_equal(one.c2[0], whole.c2[a])
        upper = np.triu_indices(N, 1)
        np.testing.assert_array_equal(one.root_weights[0][upper], whole.root_weights[a][upper])
    plain = open_stored(written(tmp_path, data), sigma=0.1).angle(1)
    np.testing.assert_allclose(plain.root_weights[0][np.triu_indices(N, 1)], 10.0)
    assert open_stored(path).angle(0).n_pairs == N * (N - 1) // 2


def chunks_by_rows(data, height=7, sigma=None):
    """A factory of rows of all maps, both triangles."""

    def factory():
        for low in range(0, N, height):
            rows = np.arange(low, min(low + height, N))
            part = None if sigma is None else sigma[:, rows]
            yield Tile(np.arange(3), rows, np.arange(N), np.asarray(data.c2)[:, rows], part)

    return factory


def test_chunks_from_a_factory(data):
    given = weighted(data)
    sigma = 1 / np.asarray(given.root_weights)
    chunks = from_chunks(chunks_by_rows(given, sigma=sigma), data.t, data.geometry, run=300)
    assert chunks.absolute_sigma
    assert isinstance(source_of(chunks), ChunkPieces)
    finite = np.isfinite(np.asarray(given.c2)) & (np.asarray(given.c2).swapaxes(1, 2) < np.inf)
    clean = eqx.tree_at(
        lambda d: (d.c2, d.root_weights),
        given,
        (np.where(finite, given.c2, 0), np.where(finite, given.root_weights, 0)),
    )
    reference = quantile_scaling(data)
    _, equations, memo = evaluated(clean, reference=reference)
    _, found, own = evaluated(chunks, reference=reference)
    assert_same_equations((found, own.equations), (equations, memo.equations))
    assert chunks.n_pairs == int(equations.count)
    # The start values come from a part of the pairs.
    np.testing.assert_allclose(quantile_scaling(chunks), reference, atol=0.02)


def test_chunks_that_cannot_be_used_are_refused(data):
    factory, t, place = chunks_by_rows(data), data.t, data.geometry
    with pytest.raises(xe.DataError, match=r"only once.*without calling it"):
        from_chunks(factory(), t, place)
    once = factory()
    with pytest.raises(xe.DataError, match="same iterator twice"):
        from_chunks(lambda: once, t, place)
    with pytest.raises(xe.DataError, match="returned int"):
        from_chunks(lambda: 3, t, place)
    with pytest.raises(xe.DataError, match="chunk 1 is ndarray"):
        from_chunks(lambda: [np.ones(3)], t, place)
    with pytest.raises(xe.DataError, match="rows must be whole numbers in 0 … 39"):
        from_chunks(lambda: [Tile([0], [N], [0], np.ones((1, 1, 1)))], t, place)
    with pytest.raises(xe.DataError, match="no pair that counts at angles"):
        from_chunks(lambda: [Tile([0], [0], [1], np.ones((1, 1, 1)))], t, place)
    calls = []

    def shrinking():
        calls.append(1)
        made = list(factory())
        return made if len(calls) < 3 else made[:-1]

    objective = evaluated(from_chunks(factory, t, place))[0]
    source = eqx.tree_at(lambda s: s.data, objective.term.tiles, from_chunks(shrinking, t, place))
    with pytest.raises(xe.DataError, match="6 chunks at first and 5 now"):
        list(source.stream())


def test_one_compilation_for_all_pieces(tmp_path, data):
    lazy = open_stored(written(tmp_path, data))
    traces = []

    def function(args, block):
        traces.append(1)
        return jnp.sum(block.values * block.root_weights**2) * args

    tiles = source_of(lazy, tile=9, piece=1)
    assert tiles.n_pieces == 15
    total = sum_pieces(function, jnp.asarray(2.0), tiles, jnp.zeros(3))
    again = sum_pieces(function, jnp.asarray(1.0), tiles, jnp.zeros(3))
    assert len(traces) == 1
    upper = np.triu(np.ones((N, N)), 1)
    np.testing.assert_allclose(total, 2 * np.sum(data.c2 * upper, axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(again, total / 2, rtol=1e-12)


def test_shares_of_pieces_travel_and_add_up(tmp_path, data):
    lazy = open_stored(written(tmp_path, weighted(data)))
    assert isinstance(pickle.loads(pickle.dumps(lazy)), StoredTwoTime)
    objective = evaluated(lazy, piece=1)[0]
    y, term = jnp.zeros(7), objective.term
    args = (term.table(y), term.reference, LOSSES["linear"])
    zero = NormalEquations.zero(9, (3,))
    parcel = pickle.dumps((_equations, args, term.tiles, zero))
    function, args, tiles, zero = pickle.loads(parcel)
    whole = term.angle_equations(y, term.reference, LOSSES["linear"])
    shares = [range(4), range(4, 11), range(11, tiles.n_pieces)]
    parts = [sum_pieces(function, args, tiles, zero, share) for share in shares]
    assert_same_equations([parts[0] + parts[1] + parts[2]], [whole])
    one = add_piece(function, args, zero, next(tiles.stream((2,))))
    assert_same_equations([one], [sum_pieces(function, args, tiles, zero, (2,))])


def test_a_piece_of_zero_weight_adds_nothing(tmp_path, data):
    path = written(tmp_path, data)
    selection = xe.Selection(bad_frames=tuple(range(1, 10)))
    lazy = open_stored(path, selection=selection)
    tiles = source_of(lazy, tile=9, piece=1)
    objective = evaluated(lazy, piece=1)[0]
    args = (objective.term.table(jnp.zeros(7)), objective.term.reference, LOSSES["linear"])
    zero = NormalEquations.zero(9, (3,))
    empty = sum_pieces(_equations, args, tiles, zero, (0,))
    assert all(np.all(np.asarray(leaf) == 0) for leaf in (empty.cost, empty.hessian, empty.count))
    assert_same_sums(path, selection=selection, pieces=(1,))


def test_not_inside_a_compiled_function(tmp_path, data):
    objective, *_ = evaluated(open_stored(written(tmp_path, data)))
    with pytest.raises(xe.ModelError, match="read piece by piece"):
        eqx.filter_jit(lambda y: objective.evaluate(y, objective.memo))(jnp.zeros(7))
    with pytest.raises(xe.ModelError, match="Scan sums data in memory"):
        evaluated(open_stored(written(tmp_path, data)), driver=xe.objective.Scan())


def test_data_in_memory_are_one_piece(data):
    tiles = source_of(data)
    assert pieces_of(tiles).n_pieces == 1
    found = evaluated(data, driver=xe.objective.HostLoop())[1]
    assert_same_equations([found], [evaluated(data)[1]])


# Reading ahead.


def test_reading_ahead_keeps_order_bounds_and_errors():
    made, before = [], threading.active_count()

    def items():
        for k in range(6):
            made.append(k)
            yield k
            if k == 4:
                raise xe.DataError("stop")

    seen = []

    def look_at_all():
        for k in read_ahead(items(), ahead=1):
            seen.append(k)
            # One in hand, one waiting, one being made.
            assert len(made) <= k + 3

    with pytest.raises(xe.DataError, match="stop"):
        look_at_all()
    assert seen == [0, 1, 2, 3, 4]
    # Left alone in the middle, the thread ends.
    for k in read_ahead(items()):
        if k == 2:
            break
    assert threading.active_count() == before


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("xpcs_eqx.data.bands.PAUSE", 0.01)


def test_a_file_that_becomes_unreadable(tmp_path, data, impatient):
    path = written(tmp_path, data)
    lazy = open_stored(path)
    objective, equations, _ = evaluated(lazy, piece=1)
    y = objective.variables.to_coordinates(jnp.asarray(objective.start))
    size = os.path.getsize(path)
    keep = Path(path).read_bytes()
    with open(path, "r+b") as file:
        file.truncate(size // 2)
    message = r"maps.h5: rows \d+ … \d+ of c2\[\d\] could not be read, also not in 3 more attempts"
    with pytest.raises(xe.DataError, match=message):
        objective.evaluate(y, objective.memo)
    os.unlink(path)
    with pytest.raises(xe.DataError, match=message):
        objective.evaluate(y, objective.memo)
    write_own(path, make_data(n=N - 1))
    with pytest.raises(xe.DataError, match="the file was replaced"):
        objective.evaluate(y, objective.memo)
    Path(path).write_bytes(keep)
    assert_same_equations([objective.evaluate(y, objective.memo)[0]], [equations])


def test_a_failure_that_passes_is_overcome(tmp_path, data, impatient, monkeypatch):
    import xpcs_eqx.data.bands as bands

    lazy = open_stored(written(tmp_path, data))
    objective, equations, _ = evaluated(lazy, piece=1)
    opened, calls = bands.open_hdf5, []

    def flaky(path, *rest):
        calls.append(path)
        if len(calls) < 4:
            raise OSError("the network is down")
        return opened(path, *rest)

    monkeypatch.setattr(bands, "open_hdf5", flaky)
    y = objective.variables.to_coordinates(jnp.asarray(objective.start))
    assert_same_equations([objective.evaluate(y, objective.memo)[0]], [equations])
    assert len(calls) == 4


BAD = {
    "asymmetric": (lambda c2: c2.__setitem__((1, 3, 9), 7.0), {}, "neither symmetric nor stored"),
    "nothing left": (lambda c2: c2.__setitem__(1, np.nan), {}, "no finite pair left"),
    "frames": (None, {"selection": xe.Selection(end_frame=99)}, "40 frames"),
    "lags": (None, {"selection": xe.Selection(min_lag=40)}, "leave no pair"),
    "mask": (None, {"selection": xe.Selection(pair_mask=np.ones((3, 3)))}, "pair_mask has shape"),
    "sigma": (None, {"sigma": -1.0}, "must be finite and above zero"),
    "estimate": (None, {"sigma": "best"}, "give a number, 'mad' or nothing"),
    "q": (None, {"q": 0.1}, "differs"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_get_the_message_of_load(tmp_path, data, case):
    change, options, message = BAD[case]
    path = written(tmp_path, data)
    if change is not None:
        with h5py.File(path, "r+") as file:
            c2 = file["c2"][()]
            change(c2)
            file["c2"][...] = c2
    texts = []
    for reader in (load, open_stored):
        with pytest.raises(xe.DataError, match=message) as caught:
            reader(path, **options)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_files_that_cannot_be_read_in_parts(tmp_path, data):
    path = str(tmp_path / "maps.npz")
    xe.data.write_npz(path, data)
    with pytest.raises(xe.DataError, match="NPZ files cannot be read in parts"):
        open_stored(path)


def test_large_maps_are_surveyed_in_strips(tmp_path, data, monkeypatch):
    path = written(tmp_path, weighted(data), chunk=16)
    plain = open_stored(path, sigma="mad")
    monkeypatch.setattr("xpcs_eqx.data.survey._WHOLE", 0)
    monkeypatch.setattr("xpcs_eqx.data.survey._STRIP", 7 * N)
    stripped = open_stored(path, sigma="mad")
    for one, other in zip(
        eqx.filter(plain, eqx.is_array_like).__dict__.values(),
        eqx.filter(stripped, eqx.is_array_like).__dict__.values(),
        strict=True,
    ):
        assert eqx.tree_equal(one, other)
    assert plain.pairs == stripped.pairs
    assert plain.source.halves == stripped.source.halves


# Whole fits.


def test_a_streamed_fit_is_the_fit_in_memory(tmp_path):
    data = weighted(make_data(n=N, diagonal=True, noise=0.01))
    path = written(tmp_path, data)
    memory, lazy = load(path), open_stored(path)
    # All that the data determine: along a valley two orders of one sum part ways.
    fixed = ("D_offset", "gamma_dot_t_offset")
    parameters = mapped(start_off(LAMINAR, 1.2), memory, fixed=fixed)
    wanted = xe.least_squares(xe.projected_objective(parameters, memory, tile=9))
    fit = xe.least_squares(xe.projected_objective(parameters, lazy, tile=9, piece=9 * N * 8))
    assert fit.success
    assert fit.evaluations == wanted.evaluations
    errors = wanted.uncertainty.errors()
    np.testing.assert_array_less(np.abs(fit.values - wanted.values) / errors, 1e-6)
    for kind in ("classical", "speckle", "dyadic"):
        one, other = fit.uncertainty.errors(kind), wanted.uncertainty.errors(kind)
        np.testing.assert_allclose(one, other, rtol=2e-4)
    assert fit.uncertainty.reason == wanted.uncertainty.reason
    np.testing.assert_allclose(fit.uncertainty.shot_noise, wanted.uncertainty.shot_noise, rtol=1e-5)
    assert fit.n_pairs == wanted.n_pairs == lazy.n_pairs
    for a in (0, 2, -1):
        np.testing.assert_allclose(fit.surface(a), fit.surface()[a], rtol=1e-12)
        np.testing.assert_allclose(wanted.residuals(a), wanted.residuals()[a], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(fit.residuals(a), wanted.residuals(a), rtol=1e-6, atol=1e-8)
    with pytest.raises(xe.FitError, match=r"residuals\(angle\)"):
        fit.residuals()
    gradients = [xe.diagnose(one).gradients for one in (fit, wanted)]
    np.testing.assert_allclose(*gradients, rtol=1e-6)
    assert "0 masked" not in text_report(fit, title="streamed")


def test_speckle_scores_of_groups_of_maps(tmp_path, data):
    lazy = open_stored(written(tmp_path, data))
    y, shot = jnp.zeros(7), jnp.array([0.1, jnp.nan, 0.2])
    memory, grouped = (evaluated(d, piece=2 * N * N * 8)[0].term for d in (data, lazy))
    assert (grouped.tiles.group, grouped.tiles.n_pieces) == (2, 2)
    keywords = {"pooled_side": 16}
    at = (y, memory.reference, LOSSES["linear"], shot)
    wanted = eqx.filter_jit(speckle_scores)(memory, *at, **keywords)
    found = speckle_scores(grouped, *at, **keywords)
    for field in ("covariance", "shot", "n_pixels", "variance_sum"):
        assert_close(getattr(found, field), getattr(wanted, field), 1e-5)
    for field in ("covariance", "own"):
        assert_close(getattr(found.dyadic, field), getattr(wanted.dyadic, field), 1e-5)
    assert np.array_equal(found.from_residuals, wanted.from_residuals)


def test_chunks_are_fitted_like_pooled_points(data):
    chunks = from_chunks(chunks_by_rows(data), data.t, data.geometry, run=300)
    parameters = mapped(start_off(LAMINAR, 1.1), data)
    fit = xe.least_squares(xe.projected_objective(parameters, chunks))
    wanted = xe.least_squares(xe.projected_objective(parameters, data, tile=9))
    assert fit.success
    assert fit.uncertainty.chosen == "dyadic"
    shift = np.abs(fit.values - wanted.values) / wanted.uncertainty.errors("classical")
    np.testing.assert_array_less(shift, 1e-4)
    one, other = fit.uncertainty.errors("dyadic"), wanted.uncertainty.errors("dyadic")
    np.testing.assert_allclose(one, other, rtol=1e-3)


MEMORY = """
import json, sys
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np
import xpcs_eqx as xe

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3

small, large = (xe.open_stored(path) for path in sys.argv[1:])
def evaluate(data):
    parameters = xe.parameter_map(xe.Static(), data.t)
    objective = xe.projected_objective(parameters, data, piece=2**20)
    y = objective.variables.to_coordinates(objective.start)
    return float(objective.evaluate(y, objective.memo)[0].count)
evaluate(small)
before = peak()
count = evaluate(large)
print(json.dumps({"before": before, "after": peak(), "count": count}))
"""


@pytest.mark.long
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is read on Linux")
def test_memory_does_not_grow_with_the_file(tmp_path):
    n, many, paths = 1501, 56, []
    one = make_data(n=n, phi=[0.0]).c2[0].astype(np.float32)
    for n_angles in (2, many):
        path = str(tmp_path / f"{n_angles}.h5")
        paths.append(path)
        with h5py.File(path, "w") as file:
            file.attrs.update({"format": "xpcs-eqx", "version": 1, "absolute_sigma": "False"})
            file["t"], file["phi"] = np.linspace(0.1, 10, n), np.linspace(0, 90, n_angles)
            file["q"], file["gap"] = 0.0054, 2e6
            c2 = file.create_dataset("c2", (n_angles, n, n), np.float32)
            for a in range(n_angles):
                c2[a] = one
    size = os.path.getsize(paths[1]) / 1e6
    # It runs far longer than it compiles.
    how = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *paths], capture_output=True, text=True, check=True, env=how
    )
    found = json.loads(done.stdout)
    assert found["count"] == many * n * (n - 1) / 2
    assert size > 500
    # Another number of angles compiles once more, some 50 MB whatever the size of the file.
    assert found["after"] - found["before"] < size / 5, found
