"""Frames that were not measured are masked and named; frames that were measured are not."""

import jax
import numpy as np
import pytest
from helpers_data import data_of as _data
from helpers_data import noisy_map as _map
from helpers_data import notes_of as _notes

import xpcs_eqx as xe
from xpcs_eqx.data import survey

FILLS = [0.0, -1.0, 1.0, 1.07, 5.0, 1e6, -1e30]
PLACES = {
    "first": [0],
    "last": [39],
    "middle": [17],
    "end": list(range(28, 40)),
    "some": [2, 9, 30],
}


def _pairs(n, bad):
    return n * (n - 1) // 2 - (n - bad) * (n - bad - 1) // 2


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("fill", FILLS)
def test_every_fill_at_every_place_is_masked_and_named(fill, place):
    frames = PLACES[place]
    data = _data(_map(), _map(seed=1, frames=frames, fill=fill))
    assert data.masked_pairs == 2 * _pairs(40, len(frames))
    assert not np.any(np.asarray(data.root_weights)[:, frames])
    name = f"{frames[0] + 1}–{frames[-1] + 1}" if place == "end" else str(frames[-1] + 1)
    assert f"{name}" in _notes(data)
    assert "not measured" in _notes(data)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_files_and_memory_find_the_same(tmp_path, half, dtype):
    good = _data(_map(seed=2).astype(dtype))
    path = tmp_path / "map.hdf"
    xe.data.write_aps_u(path, good, half=half)
    import h5py

    with h5py.File(path, "a") as file:
        (name,) = file["xpcs/twotime/correlation_map"]
        found = file["xpcs/twotime/correlation_map"][name]
        for frame, fill in ((4, 0.0), (11, -1.0), (25, 7.5)):
            values = found[:]
            values[frame, frame + 1 :] = values[:frame, frame] = fill
            if not half:
                values[frame + 1 :, frame] = values[frame, :frame] = fill
            found[...] = values
    loaded, stored = xe.load(path), xe.open_stored(path)
    assert loaded.masked_pairs == stored.masked_pairs == _pairs(40, 3)
    assert loaded.provenance.notes == stored.provenance.notes
    for number in (5, 12, 26):
        assert f"frame {number} hold" in _notes(loaded)
    part = xe.Selection(start_frame=10, end_frame=30)
    cut = xe.load(path, selection=part)
    assert cut.masked_pairs == _pairs(21, 2)
    assert "frame 12 hold" in _notes(cut)
    np.testing.assert_array_equal(
        xe.open_stored(path, selection=part).angle(0).root_weights, cut.root_weights
    )


def test_a_frame_of_noise_around_zero_is_masked():
    c2 = _map(noise=0.02)
    c2[8] -= 1.05
    c2[:, 8] -= 1.05
    data = _data(c2)
    assert data.masked_pairs == _pairs(40, 1)
    assert "frame 9 lie where no correlation is" in _notes(data)


@pytest.mark.parametrize("frames", [[2], [3, 4, 11], list(range(26, 40)), list(range(13))])
@pytest.mark.parametrize("contrast", [0.05, 0.3])
def test_frames_of_noise_around_zero_are_masked_however_many(frames, contrast):
    """Up to a third of a map, of which more than half then lies at zero."""
    c2, random = _map(noise=0.02, contrast=contrast), np.random.default_rng(4)
    noise = np.triu(random.normal(0, 0.1, (40, 40)), 1)
    for place in (np.s_[frames], np.s_[:, frames]):
        c2[place] = (noise + noise.T)[place]
    data = _data(c2)
    assert data.masked_pairs == _pairs(40, len(frames))
    assert data.provenance.doubts == ()
    assert not data.provenance.baseline_guessed


def test_maps_without_their_baseline_that_end_at_zero_keep_all_frames():
    """A sample that is liquid first and frozen then, stored as c2 − 1."""
    lag = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    first = np.minimum.outer(np.arange(40), np.arange(40)) < 15
    for contrast in (0.2, 0.9):
        c2 = contrast * np.exp(-np.where(first, 3.0, 0.002) * lag)
        noise = np.triu(np.random.default_rng(3).normal(0, 0.01, (40, 40)), 1)
        assert _data(c2 + noise + noise.T).masked_pairs == 0


@pytest.mark.parametrize("rate", [0.0045, 0.0084, 0.012])
def test_maps_of_which_the_baseline_is_open_keep_their_frames(rate):
    """c2 − 1 of a high contrast that hardly decays may be c2 as well, of any normalisation."""
    for n in (30, 60):
        c2 = _map(n, rate, 4e-4, contrast=0.9) - 1
        for fill in (None, -999.0):
            if fill is not None:
                c2[21:27] = c2[:, 21:27] = fill
            data = _data(c2)
            assert data.masked_pairs == (0 if fill is None else _pairs(n, 6)), _notes(data)


def test_huge_values_of_one_frame_do_not_hide_others():
    c2 = _map(frames=[3], fill=1e9)
    c2[20] = c2[:, 20] = 0.0
    c2[21] = c2[:, 21] = np.random.default_rng(0).normal(40.0, 3.0, 40)
    data = _data(c2)
    assert data.masked_pairs == _pairs(40, 3)


REPEATS = {
    "one": ([17], "18"),
    "first": ([1], "2"),
    "last": ([39], "40"),
    "frozen": ([20, 21, 22, 23, 24], "21–25"),
    "to the end": (list(range(30, 40)), "31–40"),
    "every other": (list(range(1, 40, 2)), "2, 4, 6"),
}


@pytest.mark.parametrize("place", REPEATS)
def test_a_frame_that_was_read_once_more_is_masked(place):
    frames, said = REPEATS[place]
    order = np.arange(40)
    for frame in frames:
        order[frame] = order[frame - 1]
    for dtype in (np.float64, np.float32):
        whole = _map()
        np.fill_diagonal(whole, 1.7)
        data = _data(_map(seed=1).astype(dtype), whole[np.ix_(order, order)].astype(dtype))
        assert data.masked_pairs == 2 * _pairs(40, len(frames))
        assert f"All pairs of frame {said}" in _notes(data)
        assert "read once more: masked" in _notes(data)


def test_a_frame_that_was_read_once_more_is_found_between_strips(monkeypatch):
    monkeypatch.setattr(survey, "_STRIP", 400)
    order = np.arange(40)
    order[[10, 11, 20]] = [9, 9, 19]
    data = _data(_map()[np.ix_(order, order)])
    assert data.masked_pairs == _pairs(40, 3)
    assert "All pairs of frame 11–12, 21 hold" in _notes(data)


def test_what_is_unusual_is_said_and_kept():
    c2 = _map(noise=0.002)
    c2[15] += 0.06
    c2[:, 15] += 0.06
    data = _data(c2)
    assert data.masked_pairs == 0
    assert "Frame 16 differs from its neighbours by up to 0.0" in _notes(data)
    assert "was kept" in _notes(data)


UNUSUAL = {
    "first": ([0], "1"),
    "last": ([59], "60"),
    "second": ([1], "2"),
    "two": ([15, 16], "16–17"),
    "four": ([15, 16, 17, 18], "16–19"),
    "first two": ([0, 1], "1–2"),
    "last two": ([58, 59], "59–60"),
    "one between": ([15, 17], "16, 18"),
    "two between": ([15, 18], "16, 19"),
    "several": ([3, 15, 16, 40], "4, 16–17, 41"),
}


@pytest.mark.parametrize("rate", [0.01, 1.0])
@pytest.mark.parametrize("place", UNUSUAL)
def test_unusual_frames_are_named_and_no_others(place, rate):
    frames, said = UNUSUAL[place]
    for shift in (0.06, -0.05):
        c2 = _map(60, rate, 0.002)
        c2[frames] += shift
        c2[:, frames] += shift
        data = _data(c2)
        assert data.masked_pairs == 0
        assert f"Frame {said} differs from its neighbours" in _notes(data)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("fill", [0.0, 1e30, np.nan])
def test_the_diagonal_of_masked_frames_is_not_measured_either(tmp_path, fill, stored):
    """Its mean says how large the shot noise is, which errors follow."""
    import h5py

    path, t, masked = tmp_path / "map.hdf", np.arange(40.0), np.isin(np.arange(40), (3, 4))
    one = _map(frames=(3, 4), fill=fill)
    np.fill_diagonal(one, np.where(masked, fill, 2.0))
    diagonal = {"diagonal": np.diagonal(one)[None].copy()} if stored else {}
    held = xe.data.from_dict(
        {"phi": [0.0], "g2": one[None], "t1": t, "t2": t, "q": 0.005} | diagonal
    )
    xe.data.write_own(path, held)
    with h5py.File(path, "a") as file:
        file["c2"][0] = one
        if stored:
            file["diagonal"][:] = diagonal["diagonal"]
        else:
            del file["diagonal"]
    for data in (held, xe.load(path), xe.data.open_stored(path)):
        np.testing.assert_array_equal(data.diagonal, [np.where(masked, np.nan, 2.0)])


def test_off_and_a_list_mask_what_they_say_and_name_the_rest():
    c2 = _map(frames=[5, 6])
    off = _data(c2, bad_frames="off")
    assert off.masked_pairs == 0
    assert "frame 6–7 hold 0: not measured, kept" in _notes(off)
    listed = _data(c2, bad_frames=np.array([6]))
    assert listed.masked_pairs == _pairs(40, 1)
    assert "frame 7 hold 0" in _notes(listed)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ((200,), "bad frame 200 does not exist; rows of the map count from 1 to 40"),
        ((0,), "bad frame 0"),
        ((-3,), "bad frame -3"),
        ("all", "give 'auto', 'off' or a list"),
        ((1.5,), "give 'auto', 'off' or a list"),
        (np.zeros((2, 2), int), "give 'auto', 'off' or a list"),
        ((True, False), "give 'auto', 'off' or a list"),
    ],
)
def test_frames_that_are_none_are_refused(frames, words):
    with pytest.raises(xe.DataError, match=words):
        _data(_map(), bad_frames=frames)


@pytest.mark.parametrize("noise", [0.0, 1e-4, 0.01, 0.3, 3.0])
@pytest.mark.parametrize("ageing", [-0.9, 0.0, 2.0])
@pytest.mark.parametrize("rate", [1e-3, 0.05, 5.0])
def test_measured_frames_are_kept(rate, ageing, noise):
    """Slow and fast, ageing either way, with and without noise, in three precisions."""
    n = 60
    area = np.cumsum(rate * ((np.arange(n) + 1) / n) ** ageing)
    for contrast in (0.02, 0.9):
        drawn = np.triu(np.random.default_rng(1).normal(0, noise, (n, n)), 1)
        c2 = 1 + contrast * np.exp(-np.abs(area[:, None] - area)) + drawn + drawn.T
        for dtype in (np.float64, np.float32, np.float16):
            data = _data(c2.astype(dtype))
            assert data.masked_pairs == 0, data.provenance.notes
            assert "differs" not in _notes(data)


def test_speckle_frames_are_kept():
    """With photon counts so low that maps are mostly noise, and with many."""
    t, geometry = 0.1 * np.arange(60), xe.Geometry(q=0.0054, phi=[0.0])
    model = xe.Static(xe.PowerLawRate(1.5e4, 0.0, 0.0))
    for counts in (0.05, 0.5, 50.0):
        data = xe.simulate_speckle(
            model, t, geometry, 0.3, n_pixels=2000, mean_counts=counts, key=jax.random.key(1)
        )
        again = _data(*np.asarray(data.c2))
        assert again.masked_pairs == 0, again.provenance.notes


def test_a_frame_that_no_other_remembers_is_kept_without_noise():
    """The first frame of an ageing sample can be uncorrelated with all others exactly."""
    c2 = _map(noise=0.0, rate=0.05)
    c2[0] = c2[:, 0] = 1.0
    far = _map(noise=0.0, rate=2.0)
    far[0] = far[:, 0] = 1.0
    assert _data(np.where(far > 1 + 1e-9, far, 1.0)).masked_pairs == 0


def test_a_map_of_one_value_is_named_and_costs_the_others_nothing():
    data = _data(_map(), np.full((40, 40), 1.1))
    assert data.masked_pairs == 0
    assert "g2[1] holds 1.1 throughout" in _notes(data)


@pytest.mark.parametrize("layout", ["aps-u", "aps-old"])
@pytest.mark.parametrize("stored", ["rows", "frames", "pair"])
def test_stored_intensities_name_dark_frames(tmp_path, layout, stored):
    """The maps alone could not tell: the correlator wrote noise for the frame without photons."""
    write = {"aps-u": xe.data.write_aps_u, "aps-old": xe.data.write_aps_old}[layout]
    key = {"aps-u": "xpcs/spatial_mean/intensity_vs_time", "aps-old": "exchange/frameSum"}[layout]
    path, intensity = tmp_path / "map.hdf", np.full(40, 3.0)
    intensity[12], intensity[30] = 0.0, 9.0
    write(path, _data(_map()), stride=2 if stored == "frames" else 1)
    if stored == "frames":
        intensity = np.repeat(intensity, 2)
    if stored == "pair":
        intensity = np.stack([np.arange(40.0), intensity])
    import h5py

    with h5py.File(path, "a") as file:
        file[key] = intensity
    data = xe.load(path)
    assert data.masked_pairs == _pairs(40, 1)
    assert f"Frame 13 has no intensity in {key}: not measured, masked." in data.provenance.notes
    assert f"Frame 31 has an unusual intensity in {key} and was kept." in data.provenance.notes
    kept = xe.load(path, selection=xe.Selection(bad_frames="off"))
    assert kept.masked_pairs == 0
    assert "Frame 13 has no intensity" in _notes(kept)
    dark = np.where(np.arange(intensity.shape[-1]) < 0.7 * intensity.shape[-1], 0.0, 3.0)
    for values, said in ((dark, True), (intensity, False)):
        with h5py.File(path, "a") as file:
            del file[key]
            file[key] = values
        most = f"most of all, have no intensity in {key}" in _notes(xe.load(path))
        assert most == said
    # As they are, at the times of the rows that are taken.
    found = xe.data.frame_intensities(path, selection=xe.Selection(start_frame=11))
    taken = xe.load(path, selection=xe.Selection(start_frame=11))
    np.testing.assert_allclose(found.t, taken.t)
    assert found.name == key
    wanted = np.full(40, 3.0)
    wanted[12], wanted[30] = 0.0, 9.0
    np.testing.assert_allclose(found.values, wanted[10:])
