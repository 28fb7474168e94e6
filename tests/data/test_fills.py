"""Numbers that stand where nothing was measured are masked and named where they make no frame."""

import h5py
import numpy as np
import pytest
from helpers_data import data_of as _data
from helpers_data import noisy_map as _map
from helpers_data import notes_of as _notes

import xpcs_eqx as xe

N = 60
ROW, COLUMN = np.indices((N, N))
LAG = np.abs(ROW - COLUMN)


def _both(where):
    return where | where.T


REGIONS = {
    "lags": LAG > 25,
    "most lags": LAG > 12,
    "first lag": LAG == 1,
    "block": _both((ROW > 10) & (ROW < 20) & (COLUMN > 30) & (COLUMN < 45)),
    "corner": _both((ROW < 8) & (COLUMN > 50)),
    "early": ROW + COLUMN < 14,
    "part of a frame": _both((ROW == 20) & (COLUMN > 30)),
}
SCATTERED = _both(np.triu(np.random.default_rng(0).random((N, N)) < 0.03, 1))


def _filled(where, fill, base=0, rate=0.1, seed=0, dtype=np.float64):
    c2 = _map(N, rate, 0.01, seed) - base
    c2[where & (LAG > 0)] = fill
    return c2.astype(dtype)


def _count(where):
    return int(np.count_nonzero(np.triu(where, 1)))


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("fill", [0.0, -1.0, 1.05, 5.0, 1e30])
@pytest.mark.parametrize("region", REGIONS)
def test_regions_of_one_number_are_masked_and_named(region, fill, base):
    where = REGIONS[region]
    whole = _map(N, 0.1, 0.01) - base
    data = _data(whole, _filled(where, fill, base, seed=1, dtype=np.float32))
    assert data.masked_pairs == _count(where)
    assert not np.any(np.asarray(data.root_weights)[1][where])
    said = f"g2[1] holds {fill:.6g} in {_count(where)} pairs, of frames "
    assert said in _notes(data)
    # What was added is told by what was measured.
    assert np.median(data.c2[0][LAG > 30]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("fill", [0.0, -1.0, 7.0])
def test_what_no_noise_reaches_is_masked_wherever_it_stands(fill):
    data = _data(_filled(SCATTERED, fill))
    assert data.masked_pairs == _count(SCATTERED)
    assert f"holds {fill:g} in" in _notes(data)


@pytest.mark.parametrize("share", [0.005, 0.02])
@pytest.mark.parametrize("fill", [0.0, -1.0, 1.0, 1.02, 1.15, 1e30])
def test_what_stands_here_and_there_is_masked_within_the_noise_too(fill, share):
    n, random = 100, np.random.default_rng(1)
    where = _both(np.triu(random.random((n, n)) < share, 1))
    for dtype in (np.float64, np.float32):
        c2 = np.where(where, fill, _map(n, 0.05, 0.02)).astype(dtype)
        data = _data(c2)
        assert data.masked_pairs == _count(where)
        assert f"holds {fill:.6g} in {_count(where)} pairs" in _notes(data)


def test_where_it_stands_is_said_in_frames():
    data = _data(_filled(REGIONS["block"], 0.0))
    assert (
        "g2[0] holds 0 in 126 pairs, of frames 12–20 with 32–45, 12 to 33 apart, and no "
        "noise: not measured, masked."
    ) in data.provenance.notes


def test_what_several_maps_hold_is_said_once():
    where = REGIONS["lags"]
    data = _data(*(_filled(where, 0.0, seed=seed) for seed in range(3)))
    assert sum("and no noise" in note for note in data.provenance.notes) == 1
    assert f"g2[0] and 2 more hold each 0 in {_count(where)} pairs" in _notes(data)


def test_several_numbers_and_whole_frames_are_found_together():
    c2 = _filled(REGIONS["lags"], 0.0)
    block = REGIONS["block"] & (LAG <= 25)
    c2[block] = -1.0
    c2[40], c2[:, 40] = 7.0, 7.0
    data = _data(c2)
    lost = REGIONS["lags"] | block | (ROW == 40) | (COLUMN == 40)
    assert data.masked_pairs == _count(lost)
    assert "frame 41 hold 7: not measured, masked" in _notes(data)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("fill", [0.0, -1.0, 7.0])
def test_what_other_frames_have_added_saves_no_pair_of_a_frame_that_was_not_measured(fill, cut):
    c2 = _filled(LAG > 40, 0.0) if cut else _map(N, 0.1, 0.01)
    frames, odd = [20, 21], [44, 50]
    for frame in frames:
        c2[frame], c2[:, frame] = fill, fill
    # Whatever is done to the map afterwards.
    for frame in odd:
        c2[frame] += 0.03
        c2[:, frame] += 0.03
    data = _data(c2)
    lost = np.isin(ROW, frames) | np.isin(COLUMN, frames)
    if cut:
        lost |= (LAG > 40) & ~np.isin(ROW, odd) & ~np.isin(COLUMN, odd)
    assert data.masked_pairs >= _count(lost)
    assert not np.any(np.asarray(data.root_weights)[0][lost])
    assert "frame 21–22" in _notes(data)


def test_all_is_named_when_nothing_is_masked():
    c2 = _filled(REGIONS["lags"], 0.0)
    for frame, fill in ((20, -1.0), (40, 7.0)):
        c2[frame] = c2[:, frame] = fill
    masked, kept = (
        [note for note in _data(c2, bad_frames=frames).provenance.notes if "measured" in note]
        for frames in ("auto", "off")
    )
    assert len(masked) == 3
    assert kept == [
        note.replace("masked", "kept, as bad_frames says what to mask") for note in masked
    ]
    # What a list masks is one thing, and what it leaves is another.
    assert _data(c2, bad_frames=(21,)).masked_pairs == N - 1


def test_nothing_is_masked_when_that_is_not_asked_for():
    for frames in ("off", (3,)):
        data = _data(_filled(REGIONS["lags"], 0.0), bad_frames=frames)
        assert data.masked_pairs == (0 if frames == "off" else N - 1)
        assert "not measured, kept, as bad_frames says what to mask" in _notes(data)


@pytest.mark.parametrize("half", [True, False])
def test_files_and_memory_agree(tmp_path, half):
    path = tmp_path / "map.hdf"
    xe.data.write_aps_u(path, _data(_map(N, 0.1, 0.01).astype(np.float32)), half=half)
    with h5py.File(path, "a") as file:
        (name,) = file["xpcs/twotime/correlation_map"]
        found = file["xpcs/twotime/correlation_map"][name]
        found[...] = np.where(REGIONS["lags"], 0, found[...])
    loaded, stored = xe.load(path), xe.open_stored(path)
    assert loaded.masked_pairs == stored.masked_pairs == _count(REGIONS["lags"])
    assert loaded.provenance.notes == stored.provenance.notes
    np.testing.assert_array_equal(stored.angle(0).root_weights, loaded.root_weights)
    np.testing.assert_array_equal(stored.sample.values != 0, True)
    part = xe.Selection(start_frame=11)
    assert xe.load(path, selection=part).masked_pairs == _count(REGIONS["lags"][10:, 10:])


@pytest.mark.parametrize("noise", [0.0, 1e-4, 0.01])
@pytest.mark.parametrize("digits", [2, 3, None])
def test_numbers_of_few_digits_and_maps_without_noise_are_kept(noise, digits):
    for rate, ageing in ((0.02, 0.0), (0.3, 2.0), (5.0, 0.0), (12.0, 1.0)):
        area = np.cumsum(rate * ((np.arange(N) + 1) / N) ** ageing)
        drawn = np.triu(np.random.default_rng(2).normal(0, noise, (N, N)), 1)
        c2 = 1 + 0.9 * np.exp(-np.abs(area[:, None] - area)) + drawn + drawn.T
        for dtype in (np.float64, np.float32, np.float16):
            rounded = c2 if digits is None else np.round(c2, digits)
            data = _data(rounded.astype(dtype), rounded.astype(dtype) - 1)
            assert data.masked_pairs == 0, data.provenance.notes


@pytest.mark.parametrize("noise", [5e-4, 1e-3])
def test_numbers_that_are_coarse_only_where_they_are_large_are_kept(noise):
    """Half precision, or three digits: fine near zero, where most pairs of c2 − 1 are."""
    for seed, rate in enumerate((0.1, 0.3)):
        c2 = _map(300, rate, noise, seed, contrast=0.9) - 1
        digits = 2 - np.floor(np.log10(np.maximum(np.abs(c2), 1e-30)))
        for one in (c2.astype(np.float16), np.round(c2 * 10**digits) / 10**digits):
            data = _data(one)
            assert data.masked_pairs == 0, data.provenance.notes


def test_numbers_that_meet_where_most_of_them_are_were_measured():
    """Noise of a thousand steps of single precision, in the part of a map that has decayed."""
    for seed in range(0, 10, 2):
        data = _data(_map(300, 0.077, 1e-4, seed, contrast=0.9).astype(np.float32))
        assert data.masked_pairs == 0, data.provenance.notes


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("fill", [-9999.0, -1.0, 1.05, 1e4])
@pytest.mark.parametrize("frames", [range(120, 150), range(30), range(50, 70)])
def test_the_baseline_is_told_by_frames_that_were_measured(dtype, fill, frames):
    for base in (0, 1):
        c2 = _map(150, 0.012, 1.3e-3, contrast=0.1) - base
        c2[list(frames)] = c2[:, list(frames)] = fill
        data = _data(c2.astype(dtype))
        kept = 150 - len(frames)
        assert data.masked_pairs == 150 * 149 // 2 - kept * (kept - 1) // 2
        assert data.provenance.baseline_guessed == (base == 1), data.provenance.notes
        assert data.provenance.doubts == ()


@pytest.mark.parametrize("pixels", [200, 2000])
def test_zeros_of_few_photons_are_measured(pixels):
    """Two frames of few photons rarely have a pixel in common."""
    random = np.random.default_rng(3)
    for common in (0.05, 0.5, 1.0, 2.0, 4.0, 6.0):
        for _ in range(2):
            counts = random.poisson(np.sqrt(common / pixels), (N, pixels)).astype(float)
            mean = np.maximum(counts.mean(axis=1), 1e-30)
            c2 = counts @ counts.T / pixels / np.outer(mean, mean)
            dark = np.count_nonzero(np.all((c2 == 0) | np.eye(N, dtype=bool), axis=1))
            data = _data(c2)
            assert data.masked_pairs <= dark * N, (common, data.provenance.notes)


def test_values_that_were_cut_off_are_kept():
    """Without them only those above would be left, which are too high."""
    for low, high in ((0.99, 1.15), (1.0, 9.0), (0.0, 1.02)):
        data = _data(np.clip(_map(N, 0.1, 0.01), low, high))
        assert data.masked_pairs == 0, data.provenance.notes


def test_one_triangle_of_any_number_is_empty():
    c2 = _map()
    for fill in (-1.0, 1.0, 7.0, np.nan):
        data = _data(np.where(np.tri(40, k=-1), fill, c2))
        np.testing.assert_allclose(np.triu(data.c2[0], 1), np.triu(c2, 1))
        assert "were stored as one half" in _notes(data)
        assert data.masked_pairs == 0


def test_the_mean_of_triangles_is_that_of_both():
    c2 = _map()
    other = c2 + 0.01 * np.tri(40, k=-1)
    other[30:, :10] = 0.0
    t = 0.1 * np.arange(40)
    given = {"phi": [0.0], "g2": other[None], "t1": t, "t2": t, "q": 0.005}
    data = xe.from_dict(given, symmetrise="mean")
    assert data.masked_pairs == 100
    np.testing.assert_allclose(data.c2[0, 0, 1], c2[0, 1] + 0.005)


def test_bins_and_points_are_looked_at_too():
    full = _data(_map(N, 0.1, 0.01))
    bins = xe.data.binned(full, ages=8)
    grid = np.full((8, bins.bins.lags.size - 1), np.nan)
    grid[np.asarray(bins.bins.age), np.asarray(bins.bins.lag)] = bins.values
    late = np.isfinite(grid) & (np.arange(grid.shape[1]) > 18)
    given = {"ttcf": np.where(late, 0.0, grid), "ages": bins.bins.ages, "lags": bins.bins.lags}
    given |= {"q": 0.005, "t": full.t}
    found = xe.from_dict(given)
    assert found.values.size == np.count_nonzero(np.isfinite(grid) & ~late)
    assert f"ttcf holds 0 in {late.sum()} of its bins" in _notes(found)
    # All of one age, beside which nothing of it stands.
    for value in (1.0, 1.07):
        third = np.isfinite(grid) & (np.arange(8)[:, None] == 2)
        found = xe.from_dict(given | {"ttcf": np.where(third, value, grid)})
        assert found.values.size == np.count_nonzero(np.isfinite(grid) & ~third)
        assert f"ttcf holds {value:g} in {third.sum()} of its bins" in _notes(found)
    exact = 1 + 0.2 * np.exp(-np.arange(grid.shape[1]) / 4.0) * np.ones((8, 1))
    exact[5:] = 1.0
    held = xe.from_dict(given | {"ttcf": np.where(np.isfinite(grid), exact, np.nan)})
    assert held.values.size == np.count_nonzero(np.isfinite(grid))
    first, second = np.triu_indices(N, 1)
    c2 = _filled(REGIONS["lags"], 0.0)
    t = 0.1 * np.arange(N)
    points = {"data": c2[first, second], "t1": t[first], "t2": t[second], "q": 0.005}
    pooled = xe.from_dict(points)
    assert pooled.masked_pairs == _count(REGIONS["lags"])
    assert f"{pooled.masked_pairs} points at phi = 0 hold 0, and no noise" in _notes(pooled)
