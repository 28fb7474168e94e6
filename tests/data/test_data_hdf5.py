"""The same fit input whichever layout holds it, and a useful message for every bad file."""

import os
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from helpers_bad_data import BAD_CALLS, BAD_FILES
from helpers_data import assert_same_fit_input, loader_form, two_time

import xpcs_eqx as xe
from xpcs_eqx.data import (
    GenericLayout,
    Selection,
    checksum,
    from_dict,
    load,
    load_joint,
    write_aps_old,
    write_aps_u,
    write_npz,
    write_nxxpcs,
    write_own,
)
from xpcs_eqx.data.checksum import checksum_beside, checksum_of
from xpcs_eqx.data.layouts import aps_u as read_aps_u
from xpcs_eqx.data.layouts.maps import Layer
from xpcs_eqx.errors import DataError

NX = [
    {"storage_mode": mode, "populated_elements": part, "baseline_reference": base}
    for mode in ("one_array_q_first", "one_array_q_last", "data_exchange_keys")
    for part in ("all", "upper_half", "lower_half")
    for base in (0, 1)
]
WRITERS = [
    ("own", write_own, {}),
    ("own", write_own, {"chunk": 5, "compression": "gzip"}),
    ("npz", write_npz, {}),
    ("aps-u", write_aps_u, {}),
    ("aps-u", write_aps_u, {"half": True}),
    ("aps-u", write_aps_u, {"index_mapping": True}),
    ("aps-u", write_aps_u, {"half": True, "stride": 3, "average": 2}),
    ("aps-old", write_aps_old, {}),
    ("aps-old", write_aps_old, {"half": True}),
    ("aps-old", write_aps_old, {"stride": 2}),
    *(("nxxpcs", write_nxxpcs, options) for options in NX),
    ("nxxpcs", write_nxxpcs, {"time_origin_location": "lower_left"}),
    (
        "nxxpcs",
        write_nxxpcs,
        {"time_origin_location": "lower_left", "populated_elements": "upper_half"},
    ),
]
IDS = [f"{name}-{'-'.join(map(str, options.values())) or 'plain'}" for name, _, options in WRITERS]


@pytest.mark.parametrize(("layout", "write", "options"), WRITERS, ids=IDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_layout_gives_the_same_fit_input(tmp_path, layout, write, options, dtype):
    data = two_time(dtype=dtype)
    path = tmp_path / "maps.hdf"
    write(path, data, **options)
    found = load(path)
    # taking the baseline off and putting it back costs one rounding
    rtol = 3e-7 if options.get("baseline_reference") == 0 and dtype == np.float32 else 1e-12
    assert_same_fit_input(found, data, rtol=rtol)
    assert found.provenance.layout == layout
    assert len(found.provenance.sha256) == 64
    assert os.listdir(tmp_path) == ["maps.hdf"]
    assert_same_fit_input(load(path, layout=layout), data, rtol=rtol)


def test_a_file_of_several_data_sets_is_summed_once(tmp_path, monkeypatch):
    sums = []
    loading = sys.modules["xpcs_eqx.data.load"]
    monkeypatch.setattr(loading, "checksum_of", lambda *a: sums.append(a) or checksum_of(*a))
    np.save(tmp_path / "maps.npy", np.moveaxis(two_time().c2, 0, -1))
    layout = GenericLayout("any name", "last", q=(0.004, 0.005, 0.006), phi=0.0)
    found = load_joint(tmp_path / "maps.npy", layout=layout, dt=0.1)
    assert len({one.provenance.sha256 for one in found}) == 1
    assert len(found) == 3
    assert len(sums) == 1


def test_a_checksum_that_nobody_waits_for_is_given_up(tmp_path, monkeypatch):
    path = tmp_path / "maps.h5"
    path.write_bytes(bytes(3_000_000))
    with checksum_beside(str(path)) as found:
        assert found() == checksum_of(str(path))
    monkeypatch.setattr(checksum, "_BLOCK", 1)
    with pytest.raises(KeyboardInterrupt), checksum_beside(str(path)) as found:
        raise KeyboardInterrupt
    assert found() == ""


@pytest.mark.parametrize(("layout", "write", "options"), WRITERS, ids=IDS)
def test_masked_pairs_and_frame_ranges_survive(tmp_path, layout, write, options):
    c2 = np.array(two_time().c2)
    c2[1, 2, 6] = c2[1, 6, 2] = np.nan
    c2[2, 4, 5] = np.inf  # one triangle is enough
    mapping = loader_form(two_time()) | {"c2_exp": c2}
    wanted = from_dict(mapping)
    assert wanted.masked_pairs == 2
    assert np.all(np.isfinite(wanted.c2))
    path = tmp_path / "maps.hdf"
    write(path, wanted, **options)
    found = load(path)
    assert_same_fit_input(found, wanted)
    assert any("2 of 198 pairs are masked" in note for note in found.provenance.notes)
    cut = Selection(start_frame=3, end_frame=8, phi_ranges=((29.0, 31.0),))
    part = load(path, selection=cut)
    assert_same_fit_input(part, from_dict(mapping, selection=cut))
    assert part.t[0] == pytest.approx(0.2)  # absolute time is kept
    assert part.provenance.frames == (3, 8)


@pytest.mark.parametrize("write", [write_own, write_npz])
@pytest.mark.parametrize("absolute", [True, False])
def test_sigma_survives_where_it_has_a_place(tmp_path, write, absolute):
    data = replace(two_time(sigma=0.03), absolute_sigma=absolute)
    write(tmp_path / "maps", data)
    found = load(tmp_path / "maps")
    assert_same_fit_input(found, data)
    assert found.absolute_sigma is absolute


def test_a_stored_sigma_is_read_once(tmp_path, monkeypatch):
    data = replace(two_time(sigma=0.03), absolute_sigma=True)
    write_own(tmp_path / "own.h5", data)
    entries, read = [], Layer.__getitem__

    def counted(layer, block):
        found = read(layer, block)
        entries.append(np.size(found) if "sigma" in layer.stack.name else 0)
        return found

    monkeypatch.setattr(Layer, "__getitem__", counted)
    assert_same_fit_input(load(tmp_path / "own.h5"), data)
    assert sum(entries) == np.size(data.c2)


def test_uneven_times_and_unknown_diagonal_survive_in_own(tmp_path):
    data = two_time()
    data = replace(data, t=data.t**1.5 + 7, diagonal=np.full((3, 12), np.nan))
    write_own(tmp_path / "own.h5", data)
    assert_same_fit_input(load(tmp_path / "own.h5"), data)
    for write in (write_aps_u, write_aps_old, write_nxxpcs):
        with pytest.raises(DataError, match="write_own"):
            write(tmp_path / "other.h5", data)
    assert os.listdir(tmp_path) == ["own.h5"]


def test_own_layout_keeps_where_data_came_from(tmp_path):
    write_aps_u(tmp_path / "a.h5", two_time(), half=True)
    first = load(tmp_path / "a.h5")
    write_own(tmp_path / "b.h5", first)
    notes = " ".join(load(tmp_path / "b.h5").provenance.notes)
    assert first.provenance.sha256 in notes
    assert "stored as one half" in notes


@pytest.mark.parametrize("index_mapping", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_several_q_with_a_sparse_grid(tmp_path, index_mapping, half):
    sets = [
        two_time(phi=(0.0, 40.0), q=0.004, seed=1),
        two_time(phi=(40.0, 80.0, 0.0), q=0.006, seed=2),
        two_time(phi=(80.0,), q=0.009, seed=3),
    ]
    path = tmp_path / "maps.h5"
    write_aps_u(path, sets, index_mapping=index_mapping, half=half)
    joint = load_joint(path)
    assert [float(one.geometry.q) for one in joint] == [0.004, 0.006, 0.009]
    for found, wanted in zip(joint, sets, strict=True):
        order = np.argsort(wanted.geometry.phi)
        np.testing.assert_array_equal(np.sort(found.geometry.phi), wanted.geometry.phi[order])
        for angle, phi in enumerate(found.geometry.phi):
            partner = int(np.flatnonzero(wanted.geometry.phi == phi)[0])
            np.testing.assert_allclose(found.c2[angle], wanted.c2[partner], rtol=1e-12)
    one = load(path, selection=Selection(q=0.0063))
    assert float(one.geometry.q) == 0.006
    assert float(load(path, q=0.009).geometry.q) == 0.009
    assert len(load_joint(path, selection=Selection(q=0.005, q_tolerance=0.0011))) == 2
    assert len(load_joint(path, selection=Selection(q=(0.009, 0.004)))) == 2
    with pytest.raises(DataError, match="several q"):
        load(path, selection=Selection(q=0.005, q_tolerance=0.0011))
    with pytest.raises(DataError, match=r"no q bin at 0\.005"):
        load(path, selection=Selection(q=(0.005,)))


def test_units_in_attributes_are_converted(tmp_path):
    path = tmp_path / "maps.h5"
    write_nxxpcs(path, two_time())
    with h5py.File(path, "r+") as file:
        for key, factor, unit in (
            ("entry/instrument/masks/dynamic_q_list", 10, "nm^-1"),
            ("entry/instrument/masks/dynamic_phi_list", np.pi / 180, "rad"),
            ("entry/instrument/detector/frame_time", 1000, "ms"),
        ):
            file[key][()] = file[key][()] * factor
            file[key].attrs["units"] = unit
    assert_same_fit_input(load(path), two_time())


def test_frame_time_wins_over_a_close_dt(tmp_path):
    write_aps_u(tmp_path / "maps.h5", two_time(), stride=4)
    found = load(tmp_path / "maps.h5", dt=0.0251, time_origin=2.0)
    np.testing.assert_allclose(found.t, 2.0 + two_time().t)
    assert found.provenance.dt == pytest.approx(0.1)


def test_maps_without_zero_padded_names_keep_their_order(tmp_path):
    data = two_time(phi=tuple(range(0, 120, 10)))
    path = tmp_path / "maps.h5"
    write_aps_u(path, data)
    with h5py.File(path, "r+") as file:
        maps = file["xpcs/twotime/correlation_map"]
        for key in list(maps):
            maps.move(key, f"c2_{int(key[3:])}")
    assert_same_fit_input(load(path), data)


@pytest.mark.parametrize("make", BAD_FILES, ids=lambda make: make.__name__)
def test_bad_files_are_explained(tmp_path, make):
    path, fragments = make(tmp_path)
    with pytest.raises(DataError) as caught:
        load(path)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("make", BAD_CALLS, ids=lambda make: make.__name__)
def test_impossible_requests_are_explained(tmp_path, make):
    path, options, fragments = make(tmp_path)
    with pytest.raises(DataError) as caught:
        load(path, **options)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("fraction", [0.02, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("write", [write_own, write_aps_u, write_npz])
def test_truncation_anywhere_is_a_data_error(tmp_path, write, fraction):
    path = tmp_path / "maps"
    write(path, two_time())
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(DataError, match="maps"):
        load(path)


def test_damaged_chunk_is_a_data_error(tmp_path):
    path = tmp_path / "own.h5"
    write_own(path, two_time(n=64), compression="gzip")
    with h5py.File(path, "r") as file:
        info = file["c2"].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[info.byte_offset : info.byte_offset + info.size] = b"\0" * info.size
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged"):
        load(path)


def test_writing_replaces_whole_or_not_at_all(tmp_path):
    path = tmp_path / "own.h5"
    write_own(path, two_time(seed=1))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Compression"):
        write_own(path, two_time(seed=2), compression="nonsense")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["own.h5"]
    with pytest.raises(DataError, match="folder"):
        write_own(tmp_path / "nowhere" / "own.h5", two_time())


@pytest.mark.parametrize("unit", ["", "1", "bins", "s"])
@pytest.mark.parametrize("options", [{}, {"index_mapping": True}], ids=["bins", "mapping"])
def test_numbers_without_a_unit_may_carry_one(tmp_path, unit, options):
    path, plain = tmp_path / "maps.hdf", tmp_path / "plain.hdf"
    for one in (path, plain):
        write_aps_u(one, two_time(), **options)
    with h5py.File(path, "a") as file:
        lists = [read_aps_u.BINS, *read_aps_u.STEPS]
        if options:
            lists.append(read_aps_u.INDEX_MAPPING)
        for name in lists:
            if name in file:
                file[name].attrs["units"] = unit
    assert_same_fit_input(load(path), load(plain))


def test_an_npz_file_holds_what_was_written_and_nothing_else(tmp_path):
    data = two_time()
    write_npz(tmp_path / "maps.npz", data)
    wanted = {"c2_exp", "phi_angles_list", "t1", "t2", "wavevector_q_list", "L", "diagonal"}
    with np.load(tmp_path / "maps.npz") as archive:
        assert set(archive.files) == wanted


def _tiles_of(data):
    start = xe.parameter_map(xe.Static(), data.t, fixed=("D_offset",))
    return np.asarray(xe.projected_objective(start, data).term.tiles.c2)


def test_maps_of_a_file_are_in_memory_once_and_nobody_writes_into_them(tmp_path):
    write_own(tmp_path / "own.h5", two_time())
    found = load(tmp_path / "own.h5")
    assert np.shares_memory(_tiles_of(found), found.c2)
    for array in (found.c2, found.c2[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_maps_of_a_caller_are_copied_for_a_fit():
    c2 = np.array(two_time().c2)
    found = from_dict(loader_form(two_time()) | {"c2_exp": c2})
    # Nor is it enough that they, or a view of them, are not for writing: that can be taken back.
    view, held = found.c2.view(), found.c2[...]
    view.flags.writeable = False
    c2.flags.writeable = False
    for data in (found, replace(found, c2=view)):
        tiles = _tiles_of(data)
        assert np.shares_memory(data.c2, c2)
        assert not np.shares_memory(tiles, c2)
    held[...] = 0
    assert tiles.min() > 0
