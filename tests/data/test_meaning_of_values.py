"""What the values of maps are: c2 or c2 − 1, and maps that are not symmetric."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from helpers_data import assert_same_fit_input, loader_form, symmetric_maps, two_time

import xpcs_eqx as xe
from xpcs_eqx.data import (
    Selection,
    from_dict,
    load,
    load_joint,
    map_of,
    map_size,
    open_stored,
    write_aps_old,
    write_aps_u,
    write_npz,
    write_nxxpcs,
    write_own,
)
from xpcs_eqx.errors import DataError
from xpcs_eqx.fitting.quality import conditions_of

N = 40
WRITERS = {
    "own": (write_own, {}),
    "npz": (write_npz, {}),
    "aps-u": (write_aps_u, {"half": True}),
    "aps-old": (write_aps_old, {}),
    "nxxpcs": (write_nxxpcs, {"populated_elements": "lower_half"}),
}


def decaying(level=0.0, contrast=0.2, rate=0.1, noise=0.003, phi=(0.0, 40.0), n=N):
    """Maps that decay from `level` + `contrast` to `level`."""
    data = two_time(phi=phi, n=n)
    lag = np.abs(np.arange(n)[:, None] - np.arange(n))
    drawn = symmetric_maps(len(phi), n, noise=noise) - symmetric_maps(len(phi), n, noise=0.0)
    c2 = level + contrast * np.exp(-rate * lag) + drawn
    return replace(data, c2=c2, diagonal=np.diagonal(c2, axis1=1, axis2=2))


def write(tmp_path, layout, data):
    writer, options = WRITERS[layout]
    path = tmp_path / f"{layout}.file"
    writer(path, data, **options)
    if layout == "nxxpcs":
        with h5py.File(path, "r+") as file:
            del file["entry/twotime/two_time_corr_func"].attrs["baseline_reference"]
    return path


def said_of(data):
    return [note for note in data.provenance.notes if "baseline" in note]


@pytest.mark.parametrize("layout", WRITERS)
def test_maps_without_their_baseline_get_it(tmp_path, layout):
    path = write(tmp_path, layout, decaying(0.0))
    wanted = decaying(1.0)
    for read in (load, *([] if layout == "npz" else [open_stored])):
        found = read(path)
        notes = said_of(found)
        assert any("1 was added" in note and "baseline = 1" in note for note in notes)
        assert found.provenance.baseline_guessed
        as_they_are = read(path, baseline=1)
        assert not as_they_are.provenance.baseline_guessed
        declared = read(path, baseline=0)
        assert not declared.provenance.baseline_guessed
        for one, c2 in ((found, wanted.c2), (declared, wanted.c2), (as_they_are, wanted.c2 - 1)):
            whole = one.c2 if read is load else [map_of(one.source, one.rule, k)[0] for k in (0, 1)]
            i, j = np.triu_indices(N, 1)
            np.testing.assert_allclose(np.array(whole)[:, i, j], c2[:, i, j], rtol=1e-9)
    np.testing.assert_allclose(load(path).diagonal, wanted.diagonal)


def test_dictionaries_too():
    mapping = loader_form(decaying(0.0))
    before = mapping["c2_exp"].copy()
    found = from_dict(mapping)
    assert found.provenance.baseline_guessed
    np.testing.assert_allclose(found.c2, decaying(1.0).c2)
    np.testing.assert_array_equal(mapping["c2_exp"], before)
    np.testing.assert_array_equal(from_dict(mapping, baseline=1).c2, before)
    pooled = {"data": [0.1, 0.2], "t1": [0.0, 0.0], "t2": [1.0, 2.0], "phi": [0.0, 0.0]}
    np.testing.assert_allclose(from_dict(pooled, baseline=0).values, [1.1, 1.2])
    np.testing.assert_allclose(from_dict(pooled).values, [0.1, 0.2])


@pytest.mark.parametrize(
    "data",
    [
        decaying(1.0),
        decaying(1.02, contrast=0.9),
        decaying(1.0, rate=0.0),
        decaying(1.0, rate=50.0),
        decaying(0.95, noise=0.05),
    ],
    ids=["decays", "contrast", "frozen", "gone", "noisy"],
)
def test_maps_with_their_baseline_stay(data):
    found = from_dict(loader_form(data))
    np.testing.assert_array_equal(found.c2, data.c2)
    assert said_of(found) == []


@pytest.mark.parametrize(
    "data",
    [
        decaying(0.0, rate=0.0),
        decaying(0.0, contrast=0.02, noise=0.003),
        decaying(0.05, 0.5),
        decaying(0.0, rate=50.0, noise=0.1),
    ],
    ids=["frozen", "weak", "half decayed", "gone"],
)
def test_what_lies_near_zero_is_without(data):
    assert from_dict(loader_form(data)).provenance.baseline_guessed


@pytest.mark.parametrize(
    "data",
    [
        decaying(0.0, contrast=0.0, noise=2.0),
        decaying(0.2, contrast=-0.2),
        decaying(0.5),
        decaying(-0.5),
        decaying(40.0, 8.0),
        decaying(2.0),
        decaying(1e-6, 1e-7, noise=1e-8),
        decaying(0.0, 1.4),
        decaying(0.0, 0.8, rate=0.0),
    ],
    ids=["noise", "rising", "between", "below", "counts", "twice", "tiny", "steep", "frozen"],
)
def test_what_is_not_certain_stays_and_is_remarked(data):
    found = from_dict(loader_form(data))
    np.testing.assert_array_equal(found.c2, data.c2)
    (note,) = said_of(found)
    assert "not certain" in note
    assert "baseline = 0 or 1" in note
    assert ("has to be undone" in note) == (not -0.3 < np.median(data.c2) < 2.3)
    assert not found.provenance.baseline_guessed


def test_maps_that_contradict_each_other_stay():
    c2 = np.stack([decaying(1.0).c2[0], decaying(0.0).c2[1]])
    found = from_dict(loader_form(replace(decaying(), c2=c2)))
    np.testing.assert_array_equal(found.c2, c2)
    assert "not certain" in said_of(found)[0]


def test_maps_of_noise_are_like_those_beside_them():
    gone = decaying(0.0, contrast=0.0, noise=0.01)
    c2 = np.stack([decaying(0.0).c2[0], gone.c2[1]])
    assert from_dict(loader_form(replace(decaying(), c2=c2))).provenance.baseline_guessed


def test_frames_that_were_not_measured_say_nothing():
    for level in (0.0, 1.0):
        data = decaying(level)
        c2 = np.array(data.c2)
        c2[:, 24:] = c2[:, :, 24:] = 0.0
        found = from_dict(loader_form(replace(data, c2=c2)), selection=Selection(bad_frames="off"))
        assert found.provenance.baseline_guessed == (level == 0.0)
        c2 = np.array(data.c2)
        c2[:, [3, 30]] = 0.0
        c2[:, :, [3, 30]] = 0.0
        found = from_dict(loader_form(replace(data, c2=c2)))
        assert found.provenance.baseline_guessed == (level == 0.0)
        assert found.masked_pairs == 2 * (2 * N - 3)
    blank = replace(data, c2=np.zeros_like(data.c2))
    assert not from_dict(loader_form(blank)).provenance.baseline_guessed


def test_what_a_file_says_wins_over_what_it_looks_like(tmp_path):
    path = tmp_path / "maps.hdf"
    write_nxxpcs(path, decaying(1.0), baseline_reference=0)
    assert not load(path).provenance.baseline_guessed
    np.testing.assert_allclose(load(path).c2, decaying(1.0).c2)
    write_nxxpcs(path, decaying(0.0))
    found = load(path)
    np.testing.assert_allclose(found.c2, decaying(0.0).c2)
    assert any("near 0" in note and "baseline = 0" in note for note in said_of(found))
    found = load(path, baseline=0)
    np.testing.assert_allclose(found.c2, decaying(1.0).c2)
    assert any("The file says otherwise" in note for note in said_of(found))


def test_sizes_and_joint_data(tmp_path):
    path = write(tmp_path, "own", decaying(0.0))
    plain, declared = map_size(path), map_size(path, baseline=0, symmetrise="mean")
    assert plain[:3] == declared[:3]
    for name in ("baseline", "symmetrise"):
        with pytest.raises(DataError, match=name):
            map_size(path, **{name: 2})
    (one,) = load_joint(path)
    assert one.provenance.baseline_guessed
    (one,) = load_joint(path, baseline=1)
    np.testing.assert_array_equal(one.c2, decaying(0.0).c2)


def test_a_fit_says_what_was_guessed():
    mapping = loader_form(decaying(0.0, phi=(0.0,)))
    for baseline in ("auto", 0, 1):
        data = from_dict(mapping, baseline=baseline)
        parameters = xe.parameter_map(xe.Static(), data.t, fixed=("alpha", "D_offset"))
        term = xe.projected_objective(parameters, data).term
        assert term.baseline_guessed == (baseline == "auto")
    (said,) = conditions_of((), (), True)
    assert "without their baseline" in said
    assert conditions_of((), (), False) == ()


def lopsided(size=0.02, phi=(0.0, 40.0), n=12):
    data = two_time(phi=phi, n=n)
    c2 = np.array(data.c2)
    c2[0] += size * np.tril(np.ones((n, n)), -1)
    return replace(data, c2=c2), data


def write_lopsided(tmp_path, layout):
    path = tmp_path / layout
    data, plain = lopsided()
    WRITERS[layout][0](path, data)
    return path, plain


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize(("word", "share"), [("upper", 0.0), ("lower", 1.0), ("mean", 0.5)])
def test_maps_that_are_not_symmetric(tmp_path, layout, word, share):
    path, plain = write_lopsided(tmp_path, layout)
    c2 = np.array(plain.c2)
    c2[0] += share * 0.02 * (1 - np.eye(12))
    wanted = replace(plain, c2=c2)
    for read in (load, *([] if layout == "npz" else [open_stored])):
        for refused in ({}, {"symmetrise": None}):
            with pytest.raises(
                DataError, match=r"asymmetry is 0\.02 .*symmetrise = .mean., .upper. or"
            ):
                read(path, **refused)
        found = read(path, symmetrise=word)
        assert any(
            "1 of 2 maps are not symmetric" in note and word in note and "0.02" in note
            for note in found.provenance.notes
        )
        whole = found if read is load else [found.angle(k) for k in (0, 1)]
        if read is load:
            assert_same_fit_input(whole, wanted, rtol=1e-12)
        else:
            for k, one in enumerate(whole):
                i, j = np.triu_indices(12, 1)
                np.testing.assert_allclose(one.c2[0, i, j], wanted.c2[k, i, j], rtol=1e-12)


def test_what_is_symmetric_or_half_needs_nothing(tmp_path):
    data = two_time(phi=(0.0, 40.0))
    mapping = loader_form(data)
    for word in ("mean", "upper", "lower"):
        found = from_dict(mapping, symmetrise=word)
        assert found.c2 is mapping["c2_exp"] or np.shares_memory(found.c2, mapping["c2_exp"])
        assert not any("symmetric" in note for note in found.provenance.notes)
        half = loader_form(replace(data, c2=np.triu(data.c2)))
        assert_same_fit_input(from_dict(half, symmetrise=word), data)
    before, _ = lopsided()
    kept = np.array(before.c2)
    from_dict(loader_form(before), symmetrise="mean")
    np.testing.assert_array_equal(before.c2, kept)


def test_pairs_that_only_one_triangle_has():
    data, _ = lopsided()
    c2 = np.array(data.c2)
    c2[0, 2, 5] = np.nan
    mapping = loader_form(replace(data, c2=c2))
    assert from_dict(mapping, symmetrise="mean").masked_pairs == 1
    assert from_dict(mapping, symmetrise="upper").masked_pairs == 1
    assert from_dict(mapping, symmetrise="lower").masked_pairs == 0


def test_sigma_of_both_triangles(tmp_path):
    data, _ = lopsided(phi=(0.0,))
    sigma = np.where(np.tri(12, dtype=bool), 0.03, 0.01)[None]
    mapping = loader_form(data) | {"sigma": sigma}
    for word, value in (("upper", 0.01), ("lower", 0.03), ("mean", 0.02)):
        found = from_dict(mapping, symmetrise=word)
        assert found.root_weights[0, 2, 5] == pytest.approx(1 / value)
