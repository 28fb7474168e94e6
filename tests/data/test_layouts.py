"""Files as their writers leave them: several analyses, some bins, links, locks, or no layout."""

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers_data import assert_same_fit_input, loader_form, two_time

from xpcs_eqx.config import read_configuration
from xpcs_eqx.config.tables.data import read_data
from xpcs_eqx.data import (
    LAYOUTS,
    GenericLayout,
    Selection,
    layouts_page,
    load,
    load_joint,
    map_size,
    open_stored,
    write_aps_old,
    write_aps_u,
    write_npz,
    write_nxxpcs,
    write_own,
)
from xpcs_eqx.data.layouts import opened
from xpcs_eqx.data.layouts.opened import open_hdf5
from xpcs_eqx.errors import ConfigError, DataError

MAP = "xpcs/twotime/correlation_map/c2_00001"
SQRT = GenericLayout("scan/c2", q=0.0054, phi="scan/angles", t="scan/times")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "maps.hdf")


def refused(path, *fragments, function=load, **given):
    with pytest.raises(DataError) as caught:
        function(path, **given)
    for fragment in (path, *fragments):
        assert fragment in str(caught.value)
    return str(caught.value)


def some_bins(path, keys, bins, n_bins=4):
    """An older APS file in which three of some bins were correlated."""
    write_aps_old(path, two_time(phi=(10.0, 20.0, 30.0)))
    with h5py.File(path, "r+") as file:
        phi = np.full((1, n_bins), -1.0)
        if bins is not None:
            phi[0, np.asarray(bins) - 1] = (10.0, 20.0, 30.0)
            file["xpcs/qphi_bin_to_process"] = np.asarray(bins, np.uint64)[:, None]
        for key, values in (("dqlist", np.full((1, n_bins), 0.0054)), ("dphilist", phi)):
            del file[f"xpcs/{key}"]
            file[f"xpcs/{key}"] = values
        maps = file["exchange/C2T_all"]
        for old, new in zip(sorted(maps), keys, strict=True):
            maps.move(old, f"new_{new}")
        for new in keys:
            maps.move(f"new_{new}", new)


@pytest.mark.parametrize(
    "keys",
    [
        ("g2_00001", "g2_00002", "g2_00003"),
        ("g2_00001", "g2_00002", "g2_00004"),
        ("C1", "C2", "C4"),
    ],
    ids=str,
)
def test_bins_that_were_correlated(path, keys):
    some_bins(path, keys, [1, 2, 4])
    assert_same_fit_input(load(path), two_time(phi=(10.0, 20.0, 30.0)))


def test_bins_in_another_order_are_told_by_the_names(path):
    some_bins(path, ("g2_00002", "g2_00003", "g2_00004"), [4, 2, 3])
    np.testing.assert_array_equal(load(path).geometry.phi, [20.0, 30.0, 10.0])
    some_bins(path, ("g2_00001", "g2_00002", "g2_00003"), [3, 1, 2])
    refused(path, "qphi_bin_to_process", "not clear")


def test_bins_without_their_list_are_those_of_the_names(path):
    some_bins(path, ("g2_00002", "g2_00003", "g2_00004"), None)
    found = load(path)
    np.testing.assert_array_equal(found.geometry.phi, [-1.0, -1.0, -1.0])
    assert any("bins in their names" in note for note in found.provenance.notes)
    some_bins(path, ("g2_00001", "g2_00002", "g2_00003"), None)
    refused(path, "4 values", "3 maps")
    some_bins(path, ("g2_00001", "g2_00002", "g2_00003"), [1, 2, 9], n_bins=9)
    with h5py.File(path, "r+") as file:
        file["xpcs/qphi_bin_to_process"][2] = 10
    refused(path, "qphi_bin_to_process", "9 columns")


@pytest.mark.parametrize("kind", ["S", "O"])
@pytest.mark.parametrize("name", ["/results_of_today", "results_of_today/"])
def test_an_entry_names_the_results(path, kind, name):
    write_aps_old(path, two_time())
    with h5py.File(path, "r+") as file:
        file.move("exchange", "results_of_today")
        file["xpcs/output_data"] = np.bytes_(name) if kind == "S" else name
    assert_same_fit_input(load(path), two_time())


def test_results_that_no_analysis_names(path):
    write_aps_old(path, two_time())
    with h5py.File(path, "r+") as file:
        file.copy("exchange", "exchange_0001")
    found = load(path)
    assert_same_fit_input(found, two_time())
    assert any("maps in exchange_0001 as well" in note for note in found.provenance.notes)
    with h5py.File(path, "r+") as file:
        del file["exchange"]
    found = load(path)
    assert_same_fit_input(found, two_time())
    assert "exchange_0001/C2T_all/g2_00001" in found.provenance.keys


def test_texts_and_lists_among_the_maps_are_none(path):
    for write, folder in (
        (write_aps_u, "xpcs/twotime/correlation_map"),
        (write_aps_old, "exchange/C2T_all"),
    ):
        write(path, two_time())
        with h5py.File(path, "r+") as file:
            file[f"{folder}/readme"] = "made today"
            file[f"{folder}/delay_1"] = np.arange(5.0)
        found = load(path)
        assert_same_fit_input(found, two_time())
        assert any("readme, delay_1" in note for note in found.provenance.notes)
    with h5py.File(path, "r+") as file:
        file["exchange/C2T_all/copy"] = np.ones((4, 4))
    refused(path, "3 values", "4 maps")


def test_several_analyses_are_asked_for(path):
    second = two_time(seed=7)
    write_aps_old(path, two_time())
    write_aps_old(f"{path}2", second)
    with h5py.File(path, "r+") as file, h5py.File(f"{path}2") as other:
        other.copy("xpcs", file, "xpcs_1")
        other.copy("exchange", file, "exchange_1")
    refused(path, "xpcs (results in exchange), xpcs_1 (results in exchange_1)", "data.analysis")
    for name in ("xpcs_1", "exchange_1", "/exchange_1"):
        assert_same_fit_input(load(path, analysis=name), second)
    assert_same_fit_input(open_stored(path, analysis="xpcs_1").angle(0), load_first(second))
    assert len(load_joint(path, analysis="xpcs")) == 1
    refused(path, "'xpcs_2'", "xpcs_1", analysis="xpcs_2")


def load_first(data):
    return replace(
        data,
        c2=data.c2[:1],
        geometry=replace(data.geometry, phi=data.geometry.phi[:1]),
        diagonal=data.diagonal[:1],
    )


def test_analyses_of_other_layouts(path):
    write_aps_u(path, two_time())
    with h5py.File(path, "r+") as file:
        file.move("xpcs", "xpcs_3")
    assert_same_fit_input(load(path), two_time())
    write_nxxpcs(path, two_time())
    with h5py.File(path, "r+") as file:
        file.copy("entry", "run 7")
    refused(path, "entry, run 7")
    assert_same_fit_input(load(path, analysis="run 7"), two_time())


@pytest.mark.parametrize("place", ["scan_1/entry", "run 7", "a/b/c/xpcs", "entry/analysis_2"])
def test_entries_below_other_groups(path, place):
    write_nxxpcs(path, two_time())
    with h5py.File(path, "r+") as file:
        file.move("entry", "kept")
        file.move("kept", place)
        # A group that leads to itself, and another name of the entry.
        file["around"] = h5py.SoftLink("/")
        file[f"{place}/itself"] = file[place]
        file["default"] = h5py.SoftLink(f"/{place}")
    found = load(path)
    assert_same_fit_input(found, two_time())
    assert found.provenance.keys[0] == f"{place}/twotime/two_time_corr_func"
    assert_same_fit_input(open_stored(path, checksum=True).angle(0), load_first(two_time()))
    with h5py.File(path, "r+") as file:
        file.copy(place, "other/entry")
    refused(path, "2 analyses", "other/entry", place, "data.analysis")
    refused(path, "'entry_9'", place, "other/entry", analysis="entry_9")
    for name in (place, f"/{place}/", "other/entry"):
        assert_same_fit_input(load(path, analysis=name), two_time())


def test_an_entry_within_another_has_what_stands_around_it(path):
    write_nxxpcs(path, two_time())
    with h5py.File(path, "r+") as file:
        file.move("entry/twotime", "entry/xpcs/twotime")
    found = load(path)
    assert_same_fit_input(found, two_time())
    notes = " ".join(found.provenance.notes)
    assert "entry/xpcs has no instrument/masks/dynamic_q_list; entry/instrument/masks/" in notes
    assert "entry/xpcs has no frame_time; entry/instrument/detector/frame_time, around" in notes
    # What it has itself goes first.
    with h5py.File(path, "r+") as file:
        file.copy("entry/instrument", "entry/xpcs/instrument")
        file["entry/instrument/detector/frame_time"][()] = 7.0
        file["entry/instrument/masks/dynamic_q_list"][()] = 7.0
    found = load(path)
    assert_same_fit_input(found, two_time())
    assert "around" not in " ".join(found.provenance.notes)


APS = {"aps-u": write_aps_u, "aps-old": write_aps_old}


def moved(path, place, *left):
    """Everything of a file in a group, but for the groups that are `left`."""
    with h5py.File(path, "r+") as file:
        for name in [one for one in file if one not in left]:
            file.move(name, f"kept/{name}")
        file.move("kept", place)


@pytest.mark.parametrize("place", ["entry", "run1", "a/b/c/run 7"])
@pytest.mark.parametrize("write", APS.values(), ids=APS)
def test_results_of_the_aps_below_other_groups(path, write, place):
    write(path, two_time(), stride=2)
    moved(path, place)
    found = load(path)
    assert_same_fit_input(found, two_time())
    assert all(key.startswith(f"{place}/") for key in found.provenance.keys)
    assert open_stored(path).t[1] == found.t[1]
    with h5py.File(path, "r+") as file:
        # Names of what is there already, of which some lead round in a circle.
        file["default"] = h5py.SoftLink(f"/{place}")
        file[f"{place}/up"] = file["/"]
    assert_same_fit_input(load(path), two_time())
    with h5py.File(path, "r+") as file:
        del file[f"{place}/up"]
        file.copy(place, "other")
        lists = [key for key in ("xpcs/dqlist", "xpcs/qmap/dynamic_v_list_dim0")
                 if f"other/{key}" in file]  # fmt: skip
        file[f"other/{lists[0]}"][...] *= 2
    refused(path, "2 analyses", f"{place}/xpcs", "other/xpcs", "data.analysis")
    refused(path, "'xpcs'", f"{place}/xpcs", "other/xpcs", analysis="xpcs")
    assert float(load(path, analysis="other/xpcs").geometry.q) == 2 * 0.0054
    assert float(load(path, analysis=f"/{place}/xpcs").geometry.q) == 0.0054


@pytest.mark.parametrize("write", APS.values(), ids=APS)
def test_the_frame_time_of_the_aps_stands_around_its_results(path, write):
    instrument = "entry" if write is write_aps_u else "measurement"
    write(path, two_time())
    moved(path, "scan/run1", instrument)
    found = load(path)
    assert_same_fit_input(found, two_time())
    assert any(f"scan/run1 has no {instrument}/" in note and "around it" in note
               for note in found.provenance.notes)  # fmt: skip
    # The innermost counts.
    with h5py.File(path, "r+") as file:
        file.copy(instrument, f"scan/{instrument}")
        time = {"entry": "detector_1/frame_time", "measurement": "detector/exposure_period"}
        file[f"{instrument}/instrument/{time[instrument]}"][...] = 7.0
    assert_same_fit_input(load(path), two_time())


def test_analyses_that_were_moved_into_the_entry_of_their_detector(path):
    write_aps_u(path, two_time())
    for place in ("entry", "scan_3"):
        with h5py.File(path, "r+") as file:
            if place != "entry":
                file.move("entry", place)
            else:
                file.move("xpcs", "entry/xpcs")
        found = load(path)
        assert_same_fit_input(found, two_time())
        assert not any("around" in note for note in found.provenance.notes)


def test_results_that_an_entry_names_are_first_looked_for_around_it(path):
    write_aps_old(path, two_time())
    with h5py.File(path, "r+") as file:
        file["xpcs/output_data"] = "/exchange"
    moved(path, "run1")
    write_aps_old(f"{path}2", two_time(seed=7))
    with h5py.File(path, "r+") as file, h5py.File(f"{path}2") as other:
        other.copy("xpcs", file, "xpcs")
        other.copy("exchange", file, "exchange")
    said = "xpcs (results in exchange), run1/xpcs (results in run1/exchange)"
    refused(path, said.partition(",")[0], said.partition(", ")[2])
    assert_same_fit_input(load(path, analysis="run1/exchange"), two_time())
    with h5py.File(path, "r+") as file:
        del file["xpcs"]
    found = load(path)
    assert_same_fit_input(found, two_time())
    assert any("maps in exchange as well" in note for note in found.provenance.notes)


def test_results_in_two_layouts_are_asked_for(path):
    write_aps_u(path, two_time())
    write_nxxpcs(f"{path}2", two_time(seed=7))
    with h5py.File(path, "r+") as file, h5py.File(f"{path}2") as other:
        other.copy("entry", file, "scan_2")
    refused(path, "2 analyses", "xpcs (aps-u)", "scan_2 (nxxpcs)", "layout=")
    refused(path, "'entry'", "xpcs (aps-u)", analysis="entry")
    for given in ({"analysis": "scan_2"}, {"layout": "nxxpcs"}):
        assert_same_fit_input(load(path, **given), two_time(seed=7))
    assert_same_fit_input(open_stored(path, analysis="xpcs").angle(0), load_first(two_time()))


def test_what_cannot_be_looked_into_hides_no_results(path):
    write_aps_u(path, two_time())
    moved(path, "scan")
    with h5py.File(path, "r+") as file:
        file["scan/gone"] = h5py.ExternalLink("nowhere.h5", "/")
        file["more"] = h5py.SoftLink("/nowhere")
        h5py.h5g.create(file.create_group("first").id, b"\xff no UTF-8")
    assert_same_fit_input(load(path), two_time())


def test_part_of_a_layout_below_a_group_is_told(path):
    write_aps_u(path, two_time())
    with h5py.File(path, "r+") as file:
        del file["xpcs/twotime/correlation_map"]
        file["xpcs/multitau/normalized_g2"] = np.ones((5, 3))
    moved(path, "scan")
    refused(path, "comes closest to aps-u (scan/xpcs/qmap/dynamic_v_list_dim0 is there",
            "scan/xpcs/twotime/correlation_map is missing", "multi-tau")  # fmt: skip


def test_files_of_frames_are_not_opened_in_search_of_entries(path, tmp_path):
    write_nxxpcs(path, two_time())
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        write_nxxpcs(str(tmp_path / "frames.h5"), two_time())
    with h5py.File(path, "r+") as file:
        file["entry/data/frames"] = h5py.ExternalLink("frames.h5", "/")
        file["entry/data/same"] = h5py.SoftLink("/entry/data/frames")
    found = load(path)
    assert_same_fit_input(found, two_time())
    assert not any("frames.h5" in note for note in found.provenance.notes)


def test_an_entry_without_maps_of_two_times_is_told_from_none(path):
    write_nxxpcs(path, two_time())
    with h5py.File(path, "r+") as file:
        del file["entry/twotime"]
        file["entry/data/g2"] = np.ones((5, 3))
        file.move("entry", "scan_1/entry")
    refused(path, "no known layout", "g2 of one time (multi-tau)", "scan_1/entry/data/g2 (5, 3)")


@pytest.mark.parametrize("word", ["other", "One_Map_Each", "7"])
def test_unknown_ways_of_storage_say_what_was_found(path, word):
    for mode, shape in (("one_array_q_first", "(3, 12, 12)"), ("data_exchange_keys", "a group")):
        write_nxxpcs(path, two_time(), storage_mode=mode)
        with h5py.File(path, "r+") as file:
            file["entry/twotime/two_time_corr_func"].attrs["storage_mode"] = word
        refused(path, "storage_mode", repr(word.casefold()), shape, mode, 'layout = "generic"')


def test_a_storage_mode_that_the_maps_contradict_is_said(path):
    for mode, said in (
        ("one_array_q_first", "data_exchange_keys"),
        ("one_array_q_last", "data_exchange_keys"),
        ("data_exchange_keys", "one_array_q_first"),
    ):
        write_nxxpcs(path, two_time(), storage_mode=mode)
        with h5py.File(path, "r+") as file:
            file["entry/twotime/two_time_corr_func"].attrs["storage_mode"] = said
        found = load(path)
        assert_same_fit_input(found, two_time())
        assert any(f"storage_mode of entry/twotime/two_time_corr_func is {said!r}, but" in note
                   for note in found.provenance.notes)  # fmt: skip


def test_as_many_maps_as_frames(path):
    data = two_time(phi=tuple(range(0, 120, 10)))
    for mode in ("one_array_q_first", "one_array_q_last"):
        write_nxxpcs(path, data, storage_mode=mode)
        assert_same_fit_input(load(path), data)
        with h5py.File(path, "r+") as file:
            del file["entry/twotime/two_time_corr_func"].attrs["storage_mode"]
        if mode == "one_array_q_first":
            found = load(path)
            assert_same_fit_input(found, data)
            assert any("along either end" in note for note in found.provenance.notes)
        else:
            refused(path, "asymmetry")


@pytest.mark.parametrize("name", ["eiger4m", "detector_1", "Lambda 750k"])
@pytest.mark.parametrize("time", ["frame_time", "count_time"])
def test_detectors_of_any_name(path, name, time):
    write_nxxpcs(path, two_time())
    with h5py.File(path, "r+") as file:
        file.move("entry/instrument/detector", f"entry/instrument/{name}")
        file.move(f"entry/instrument/{name}/frame_time", f"entry/instrument/{name}/{time}")
        file["entry/instrument/beam/energy"] = 8.0
    assert_same_fit_input(load(path), two_time())
    with h5py.File(path, "r+") as file:
        file[f"entry/instrument/another/{time}"] = 0.7
    refused(path, f"{name}/{time}", "another", "0.7")


def test_azimuths_may_be_given(path):
    write_nxxpcs(path, two_time())
    with h5py.File(path, "r+") as file:
        del file["entry/instrument/masks/dynamic_phi_list"]
    found = load(path)
    np.testing.assert_array_equal(found.geometry.phi, np.zeros(3))
    assert any("azimuths" in note for note in found.provenance.notes)
    for function in (load, open_stored):
        given = function(path, phi=two_time().geometry.phi)
        np.testing.assert_array_equal(given.geometry.phi, two_time().geometry.phi)
    refused(path, "phi", "3 maps", phi=[1.0, 2.0])


def described(path, last=False):
    data = two_time()
    with h5py.File(path, "w") as file:
        file["scan/c2"] = np.moveaxis(data.c2, 0, -1) if last else data.c2
        file["scan/angles"] = np.deg2rad(data.geometry.phi)
        file["scan/angles"].attrs["units"] = "rad"
        file["scan/times"] = data.t
        file["scan/dt"] = 0.1
        for k, one in enumerate(data.c2):
            file[f"scan/each/map{k}"] = one


def test_maps_that_the_user_describes(path):
    described(path)
    assert_same_fit_input(load(path, layout=SQRT), two_time())
    phi = two_time().geometry.phi
    own = GenericLayout("scan/each", phi=phi, frame_time="scan/dt")
    assert_same_fit_input(load(path, layout=own, q=0.0054), two_time())
    plain = GenericLayout("scan/c2")
    assert_same_fit_input(load(path, layout=plain, q=0.0054, phi=phi, dt=0.1), two_time())
    assert any("No q" in note for note in load(path, layout=plain, dt=1.0).provenance.notes)
    stored = open_stored(path, layout=SQRT)
    np.testing.assert_array_equal(stored.angle(2).c2[0], load(path, layout=SQRT).c2[2])
    described(path, last=True)
    assert_same_fit_input(load(path, layout=replace(SQRT, axis="last")), two_time())
    refused(path, "(12, 12, 3)", "square", 'say axis = "last"', layout=SQRT)
    for wrong in (GenericLayout("scan/nowhere"), GenericLayout("scan/each", q="scan/nowhere")):
        refused(path, "'nowhere'", "Correct the path that was given", layout=wrong)
    several = GenericLayout("scan/c2", "last", q=(0.004, 0.005, 0.005), t="scan/times")
    assert [one.n_angles for one in load_joint(path, layout=several)] == [1, 2]
    refused(path, "GenericLayout", "data.generic", layout="generic")
    for wrong, words in (
        ({"axis": 0}, "'first' or 'last'"),
        ({"maps": 3}, "maps is 3"),
        ({"t": 0.1}, "t is 0.1"),
        ({"q": [None]}, "real numbers"),
    ):
        with pytest.raises(DataError, match=words):
            GenericLayout(**{"maps": "c2"} | wrong)


@pytest.mark.parametrize("name", ["c2", "data"])
def test_arrays_of_other_programs(tmp_path, name):
    path, data = str(tmp_path / "maps.npz"), two_time()
    arrays = {name: np.moveaxis(data.c2, 0, -1), "angles": data.geometry.phi, "dt": 0.1}
    np.savez_compressed(path, comment=np.array([{"a": 1}]), **arrays)
    layout = GenericLayout(name, axis="last", q=0.0054, phi="angles", frame_time="dt")
    assert_same_fit_input(load(path, layout=layout), data)
    refused(path, "'c3'", f"'{name}'", layout=GenericLayout("c3"))
    refused(path, "parts", function=open_stored, layout=layout)


def test_an_unknown_file_says_what_it_holds_and_what_is_needed(path):
    described(path)
    with h5py.File(path, "r+") as file:
        file["raw"] = h5py.ExternalLink("/nowhere/raw.h5", "/entry")
    text = refused(path, "scan/c2 (3, 12, 12) float64", "scan/times", "data.generic", "raw.h5")
    for layout in ("own", "aps-u", "aps-old", "nxxpcs"):
        assert f"  {layout}: " in text
    assert "xpcs/qmap/dynamic_v_list_dim0" in text
    assert "…" not in text.split("The layouts need")[0]


def test_an_unknown_file_says_what_its_maps_may_be(path):
    with h5py.File(path, "w") as file:
        file["ttc"], file["more/g12b"], file["mask"] = (
            np.ones(shape) for shape in ((2, 9, 9), (9, 9, 4), (5, 6))
        )
        file["xpcs/multitau/normalized_g2"] = np.ones((40, 3))
    refused(path, 'maps are: more/g12b (with axis = "last"), ttc.', "multi-tau")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08" + bytes(90), "gzip: unpack it first"),
        (b"1.0 1.1\n1.1 1.0\n", "numpy.save"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"MATLAB 5.0 MAT-file" + bytes(90), "-v7.3"),
        (bytes(90), "signature not found"),
    ],
)
def test_what_is_no_hdf5_file_is_said_to_be(path, content, words):
    Path(path).write_bytes(content)
    refused(path, "not an HDF5 file", words)


def test_a_grid_of_age_and_lag_is_no_map(path):
    for lag in ("lag", "timeshift"):
        with h5py.File(path, "w") as file:
            for name, shape in (("ttcf", (2, 5, 9)), ("age", (5,)), (lag, (9,))):
                file[f"results/all/{name}"] = np.ones(shape)
        words = 'maps = "results/all/ttcf", axes = "age_lag"', f'lags = "results/all/{lag}"'
        refused(path, "age and lag", "load_bins", *words)


def test_a_single_array_is_a_bare_map(tmp_path):
    path, c2 = str(tmp_path / "event_trc.npz"), two_time().c2
    np.savez_compressed(path, data=c2[0])
    found = load(path, dt=0.1, q=0.0054)
    np.testing.assert_array_equal(found.c2[0], c2[0])
    np.testing.assert_allclose(found.t, 0.1 * np.arange(12))
    assert map_size(path, dt=0.1).n_entries == 144
    np.savez(path, c2_exp=c2)
    refused(path, "'t1' is missing")


def test_maps_along_the_last_axis_are_known_by_their_shape(tmp_path):
    data, phi = two_time(), two_time().geometry.phi
    last, remark = np.moveaxis(data.c2, 0, -1), "maps were taken along its last axis"
    np.save(tmp_path / "g12b.npy", last)
    np.savez(tmp_path / "lone.npz", g12b=last)
    np.savez(
        tmp_path / "whole.npz", **(loader_form(data) | {"c2_exp": last, "sigma": 0 * last + 1})
    )
    for name in ("g12b.npy", "lone.npz"):
        found = load(str(tmp_path / name), dt=0.1, q=0.0054, phi=phi)
        assert_same_fit_input(found, data)
        assert any(remark in note for note in found.provenance.notes)
    whole = load(str(tmp_path / "whole.npz"))
    np.testing.assert_array_equal(np.triu(whole.c2[2], 1), np.triu(data.c2[2], 1))
    assert any(remark in note for note in whole.provenance.notes)
    assert whole.absolute_sigma


def test_a_bare_array_of_several_q_is_described(tmp_path):
    path, data = str(tmp_path / "g12b.npy"), two_time()
    np.save(path, np.moveaxis(data.c2, 0, -1))
    layout = GenericLayout("any name", "last", q=(0.004, 0.005, 0.006), phi=0.0)
    assert [one.n_angles for one in load_joint(path, layout=layout, dt=0.1)] == [1, 1, 1]
    found = load(path, layout=layout, dt=0.1, q=0.005)
    np.testing.assert_array_equal(np.triu(found.c2[0], 1), np.triu(data.c2[1], 1))
    assert map_size(path, layout=layout, dt=0.1).n_entries == data.c2.size
    refused(path, "no array 't'", layout=replace(layout, t="t"))


def test_numbers_of_an_unsaid_unit_are_remarked(path, tmp_path):
    described(path)
    with h5py.File(path, "r+") as file:
        file["scan/q"] = np.full(3, 0.0054)
    layout = GenericLayout("scan/c2", q="scan/q", phi="scan/angles", frame_time="scan/dt")
    notes = load(path, layout=layout).provenance.notes
    assert [note.split(";")[0] for note in notes if "no unit" in note] == [
        "scan/dt has no unit and was taken as s",
        "scan/q has no unit and was taken as 1/Å",
    ]
    np.savez(tmp_path / "a.npz", c2=two_time().c2, q=0.0054)
    bare = load(str(tmp_path / "a.npz"), layout=GenericLayout("c2", q="q", phi=0.0), dt=0.1)
    assert any("q has no unit" in note for note in bare.provenance.notes)
    write_nxxpcs(path, two_time())
    assert not any("no unit" in note for note in load(path).provenance.notes)
    with h5py.File(path, "r+") as file:
        del file["entry/instrument/masks/dynamic_q_list"].attrs["units"]
    assert any("dynamic_q_list has no unit" in note for note in load(path).provenance.notes)


def test_azimuths_in_the_unit_that_nxxpcs_demands_are_degrees(path):
    """Its definition gives them the unit of q, and there are programs that write it."""
    write_nxxpcs(path, two_time())
    key = "entry/instrument/masks/dynamic_phi_list"
    for unit in ("1/Å", "nm^-1"):
        with h5py.File(path, "r+") as file:
            file[key].attrs["units"] = unit
        found = load(path)
        np.testing.assert_array_equal(found.geometry.phi, two_time().geometry.phi)
        assert any(repr(unit) in note and "degrees" in note for note in found.provenance.notes)
    with h5py.File(path, "r+") as file:
        file[key].attrs["units"] = "mm"
    refused(path, key, "'mm' is a length")
    with h5py.File(path, "r+") as file:
        file[key].attrs["units"] = "deg"
        file["entry/twotime/two_time_corr_func"].attrs["populated_elements"] = "All "
    assert_same_fit_input(load(path), two_time())


def test_an_installed_plugin_is_found(path, monkeypatch):
    write_own(path, two_time(), compression="gzip")
    seen, tried = [], []
    monkeypatch.setattr(
        h5py.h5z, "filter_avail", lambda number: bool(seen.append(number)) or bool(tried)
    )
    monkeypatch.setattr(opened, "import_module", tried.append)
    with open_hdf5(path) as file:
        found = file["c2"]
        whole, first = found._found, [OSError("filter")]

        class Failing:
            id = whole.id

            def __getitem__(self, block):
                if first:
                    raise first.pop()
                return whole[block]

        found._found = Failing()
        np.testing.assert_array_equal(found[0], two_time().c2[0])
    assert tried == ["hdf5plugin"]


def test_the_configuration_says_all_of_this(tmp_path):
    described(str(tmp_path / "maps.h5"))
    text = "[data]\npath = 'maps.h5'\nq = 0.0054\nlayout = 'generic'\n"
    table = "generic = {maps = 'scan/c2', phi = 'scan/angles', frame_time = 'scan/dt'}\n"
    (tmp_path / "fit.toml").write_text(f"{text}{table}linked_files = true\nlocking = false\n")
    configuration = read_configuration(str(tmp_path / "fit.toml"))
    for stored in (False, True):
        data = read_data(configuration, stored)
        assert data.n_angles == 3
        assert data.provenance.layout == "generic"
    assert data.source.place.access == opened.Access(linked_files=True, locking=False)
    for wrong in (text, f"[data]\npath = 'maps.h5'\n{table}", f"{text}{table}analysis = 3\n"):
        (tmp_path / "fit.toml").write_text(wrong)
        with pytest.raises(ConfigError, match=r"generic|analysis"):
            read_configuration(str(tmp_path / "fit.toml"))


def test_the_page_has_every_layout():
    page = layouts_page()
    for layout in LAYOUTS:
        assert f"## {layout}\n" in page
        assert "- required: " in page.split(f"## {layout}\n")[1].split("##")[0]


# What is not in the file itself.


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with h5py.File(folder / "other.h5", "w") as file:
        file["maps/c2"] = two_time().c2[0]
    np.asarray(two_time().c2[0]).tofile(folder / "other.raw")
    return folder


def led_away(path, how, name, target="/maps/c2"):
    """The first map replaced by one in another file."""
    with h5py.File(path, "r+") as file:
        del file[MAP]
        if how == "link":
            file[MAP] = h5py.ExternalLink(name, target)
        elif how == "folder":
            maps = "xpcs/twotime/correlation_map"
            file.move(maps, "kept")
            file[maps] = h5py.ExternalLink(name, "/maps")
        elif how == "soft":
            file["away"] = h5py.ExternalLink(name, "/maps")
            file[MAP] = h5py.SoftLink("/away/c2")
        elif how == "raw":
            file.create_dataset(MAP, (12, 12), "f8", external=[(name, 0, 12 * 12 * 8)])
        else:
            layout = h5py.VirtualLayout((12, 12), "f8")
            layout[:] = h5py.VirtualSource(name, target, (12, 12))
            file.create_virtual_dataset(MAP, layout)


WAYS = ("link", "soft", "raw", "virtual")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("absolute", [True, False])
def test_other_folders_are_read_with_consent_only(tmp_path, elsewhere, how, absolute):
    (tmp_path / "here").mkdir()
    path = str(tmp_path / "here" / "maps.h5")
    write_aps_u(path, two_time())
    name = "other.raw" if how == "raw" else "other.h5"
    led_away(path, how, str(elsewhere / name) if absolute else f"../elsewhere/{name}")
    refused(path, name, "data.linked_files = true")
    refused(path, name, "data.linked_files = true", function=open_stored)
    found = load(path, linked_files=True)
    assert_same_fit_input(found, two_time())
    assert any(str(elsewhere / name) in note for note in found.provenance.notes)
    with open(elsewhere / name, "r+b") as stream:
        stream.seek(0, os.SEEK_END)
        stream.write(b"\0" * 8)
    changed = load(path, linked_files=True)
    assert changed.provenance.sha256 != found.provenance.sha256


@pytest.mark.parametrize("how", WAYS)
def test_files_beside_it_belong_to_a_file(tmp_path, elsewhere, how, monkeypatch):
    path, name = str(tmp_path / "maps.h5"), "other.raw" if how == "raw" else "other.h5"
    write_aps_u(path, two_time())
    led_away(path, how, f"elsewhere/{name}")
    # Not from the folder where the program runs.
    monkeypatch.chdir("/")
    assert_same_fit_input(load(path), two_time())
    with open_stored(path).source.reader() as reader:
        np.testing.assert_array_equal(reader.band(0, slice(0, 12)), two_time().c2[0])
    os.unlink(elsewhere / name)
    refused(path, name, "not there")


def test_a_symbolic_link_leads_out_as_well(tmp_path, elsewhere):
    (tmp_path / "here").mkdir()
    path = str(tmp_path / "here" / "maps.h5")
    write_aps_u(path, two_time())
    os.symlink(elsewhere / "other.h5", tmp_path / "here" / "other.h5")
    led_away(path, "link", "other.h5")
    refused(path, "data.linked_files = true")
    # A linked file may itself lead on.
    (tmp_path / "here" / "other.h5").unlink()
    with h5py.File(tmp_path / "here" / "other.h5", "w") as file:
        file["maps"] = h5py.ExternalLink("../elsewhere/other.h5", "/maps")
    refused(path, "data.linked_files = true")
    assert_same_fit_input(load(path, linked_files=True), two_time())


def test_links_that_lead_nowhere_say_so(path, elsewhere):
    write_aps_u(path, two_time())
    led_away(path, "link", "elsewhere/other.h5", "/maps/gone")
    refused(path, "link", "/maps/gone", "other.h5")
    for target, words in (("/gone", "nothing is"), (f"/{MAP}", "circle")):
        with h5py.File(path, "r+") as file:
            del file[MAP]
            file[MAP] = h5py.SoftLink(target)
        refused(path, MAP, words)
    with h5py.File(path, "r+") as file:
        del file[MAP]
    led_away_again = h5py.VirtualLayout((12, 12), "f8")
    led_away_again[:] = h5py.VirtualSource("elsewhere/other.h5", "/maps/gone", (12, 12))
    with h5py.File(path, "r+") as file:
        file.create_virtual_dataset(MAP, led_away_again)
    refused(path, "/maps/gone", "not there")


@pytest.mark.parametrize("write", [write_aps_u, write_aps_old, write_nxxpcs])
def test_a_broken_link_of_a_map_that_is_not_taken_costs_nothing(path, elsewhere, write):
    keys = {"storage_mode": "data_exchange_keys"} if write is write_nxxpcs else {}
    write(path, two_time(), **keys)
    folder = {write_aps_u: "xpcs/twotime/correlation_map", write_aps_old: "exchange/C2T_all"}
    folder = folder.get(write, "entry/twotime/two_time_corr_func")
    phi = np.asarray(two_time().geometry.phi)
    with h5py.File(path, "r+") as file:
        first = f"{folder}/{sorted(file[folder])[0]}"
        del file[first]
        file[first] = h5py.ExternalLink("elsewhere/gone.h5", "/maps")
    rest = Selection(phi_ranges=tuple((one, one) for one in phi[1:]))
    for read in (load, open_stored):
        np.testing.assert_array_equal(read(path, selection=rest).geometry.phi, phi[1:])
        with pytest.raises(DataError, match=re.escape(first)):
            read(path)


# What cannot be read, and why.


def test_a_missing_compression_is_named(path):
    write_aps_u(path, two_time())
    with h5py.File(path, "r+") as file:
        folder, name = file["xpcs/twotime/correlation_map"], "c2_00001"
        del folder[name]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((12, 12))
        how.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (0, 2))
        space = h5py.h5s.create_simple((12, 12))
        made = h5py.h5d.create(folder.id, name.encode(), h5py.h5t.IEEE_F64LE, space, how)
        made.write_direct_chunk((0, 0), b"\0" * 100, 0)
    if h5py.h5z.filter_avail(32015):
        pytest.skip("the plugin is installed here")
    text = refused(path, MAP, "32015 (Zstandard)", "hdf5plugin")
    assert "Copy it again" not in text


def test_a_file_that_is_being_written_can_be_read_beside_its_writer(path):
    write_own(path, two_time())
    code = (
        "import h5py, sys\n"
        f"file = h5py.File({path!r}, 'r+')\n"
        "print('open', flush=True)\nsys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as writer:
        assert writer.stdout.readline() == "open\n"
        text = refused(path, "locked", "data.locking = false")
        assert "Copy it again" not in text
        assert_same_fit_input(load(path, locking=False), two_time())
        writer.stdin.close()
        writer.wait()


@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**20, 2**20)])
@pytest.mark.parametrize("chunks", [None, (1024, 1024)])
def test_sizes_are_checked_before_anything_is_read(path, shape, chunks):
    write_aps_u(path, two_time())
    with h5py.File(path, "r+") as file:
        del file[MAP]
        made = file.create_dataset(MAP, shape, "f8", chunks=chunks)
        if chunks:
            made[0, 0] = 1.0
    refused(path, MAP, "claims", "truncated or damaged")


def test_stacks_of_nothing_are_no_maps(path):
    for shape in ((10**9, 0, 0), (3, 1, 1), (0, 12, 12)):
        write_own(path, two_time())
        with h5py.File(path, "r+") as file:
            del file["c2"]
            file.create_dataset("c2", shape, "f8")
        refused(path, "map")


def test_arrays_that_claim_more_than_there_is(tmp_path):
    path = str(tmp_path / "maps.npz")
    mapping = loader_form(two_time())
    maps = mapping.pop("c2_exp")

    def member(content):
        np.savez(path, **mapping)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("c2_exp.npy", content)

    head = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': %s, }"
    for shape, more in ((b"(3, 90000, 90000)", b""), (b"(3, 12, 12)", b"\0" * 2**28)):
        member((head % shape).ljust(127) + b"\n" + np.asarray(maps).tobytes() + more)
        refused(path, "'c2_exp'", "claims")
    os.truncate(path, os.path.getsize(path) // 2)
    refused(path, "truncated")
    bare = tmp_path / "maps.npy"
    bare.write_bytes((head % b"(3, 90000, 90000)").ljust(127) + b"\n" + b"\0" * 80)
    refused(str(bare), "claims")


def test_an_encrypted_archive_says_so(tmp_path):
    path = str(tmp_path / "maps.npz")
    write_npz(path, two_time())
    content = bytearray((tmp_path / "maps.npz").read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + place] |= 1
            at = content.find(mark, at + 1)
    (tmp_path / "maps.npz").write_bytes(content)
    refused(path, "encrypted")


def test_python_objects_beside_the_maps_are_left_alone(tmp_path):
    path, mapping = str(tmp_path / "maps.npz"), loader_form(two_time())
    np.savez(path, names=np.array(["a", {}], object), **mapping)
    assert_same_fit_input(load(path), two_time())
    np.savez(path, **mapping | {"t1": np.array([None] * 12)})
    refused(path, "'t1'", "Python objects")


def test_texts_are_written_at_fixed_length_and_damaged_ones_are_seen(path):
    write_own(path, replace(two_time(), provenance=load_noted(2000)))
    assert b"GCOL" not in Path(path).read_bytes()
    assert any("remark 3" in note for note in load(path).provenance.notes)
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = "xpcs-eqx"
    assert_same_fit_input(load(path), two_time())
    content = bytearray(Path(path).read_bytes())
    heap = content.find(b"GCOL")
    for place, value in ((heap + 16 + 8 + 3, 0xFF), (heap + 9, 0)):
        changed = bytearray(content)
        changed[place] = value
        Path(path).write_bytes(changed)
        refused(path, "damaged")


def load_noted(n):
    return replace(two_time().provenance, notes=tuple(f"remark {k} " + "x" * 40 for k in range(n)))


@pytest.mark.parametrize(
    "names",
    [
        ("phi_0", "phi_22.5", "phi_45", "phi_67.5"),
        ("phi_-45", "phi_-0.5", "phi_0", "phi_45"),
        ("q0.005", "q0.01", "q0.02", "q0.1"),
        ("c2.8", "c2.9", "c2.10", "c2.11"),
        ("map-2", "map-3", "map-10", "map-20"),
        ("c2_00009", "c2_00010", "c2_00100", "c2_01000"),
    ],
)
def test_maps_in_a_group_stand_in_the_order_of_their_numbers(path, names):
    (first, *_), t = np.asarray(two_time().c2), np.asarray(two_time().t)
    with h5py.File(path, "w") as file:
        for k in (2, 0, 3, 1):
            file[f"scan/{names[k]}"] = 1 + (k + 1) * (first - 1)
        file["t"] = t
    phi = [0.0, 10.0, 20.0, 30.0]
    found = load(path, layout=GenericLayout("scan", q=0.0054, phi=phi, t="t"), baseline=1)
    size = np.asarray(found.c2 - 1)[:, 0, 1]
    np.testing.assert_allclose(size / size[0], [1.0, 2.0, 3.0, 4.0])


def test_maps_without_numbers_in_their_names_are_taken_in_an_order_that_is_said(path):
    with h5py.File(path, "w") as file:
        for name, one in zip(("inner", "middle", "a far one"), two_time().c2, strict=True):
            file[f"rings/{name}"] = one
    layout = GenericLayout("rings", q=0.0054, phi=[0.0, 30.0, 60.0])
    said = "inner, middle end in no number: maps were taken in the order a far one, inner, middle"
    notes = load(path, layout=layout, dt=0.1).provenance.notes
    assert any(said.partition(" end")[2] in note for note in notes)
    with h5py.File(path, "r+") as file:
        for k, name in enumerate(("inner", "middle", "a far one")):
            file.move(f"rings/{name}", f"rings/ring_{k}")
    notes = load(path, layout=layout, dt=0.1).provenance.notes
    assert not any("end in no number" in note for note in notes)


def test_a_frame_time_beside_times_agrees_with_them(tmp_path):
    (first, *_), path = np.asarray(two_time().c2), tmp_path / "maps.npz"
    given = {
        "c2_exp": first[None],
        "phi_angles_list": [0.0],
        "wavevector_q_list": [0.0054],
        "t1": np.asarray(two_time().t),
        "t2": np.asarray(two_time().t),
    }
    spacing = float(given["t1"][1] - given["t1"][0])
    np.savez(path, **given, dt=spacing)
    np.testing.assert_allclose(load(str(path)).t, given["t1"])
    np.savez(path, **given, dt=1e-3 * spacing)
    with pytest.raises(DataError, match="mean spacing of t1"):
        load(str(path))


def test_names_that_are_no_text_are_printable(path):
    write_nxxpcs(path, two_time())
    with h5py.File(path, "r+") as file:
        h5py.h5g.create(file.id, b"bad\xff")
    refused(path, "not UTF-8").encode()
    # Nobody looks for an attribute of such a name.
    write_own(path, two_time())
    with h5py.File(path, "r+") as file:
        attribute = h5py.h5a.create(
            file["t"].id, b"\xb5nit", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create(h5py.h5s.SCALAR)
        )
        attribute.write(np.array(1.0))
    assert_same_fit_input(load(path), two_time())


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_maps_of_any_size_are_judged(path, size):
    maps = two_time()
    write_npz(path, replace(maps, c2=size * np.asarray(maps.c2)))
    with np.errstate(all="ignore"):
        found = load(path, layout="npz")
    assert found.n_angles == maps.n_angles


def test_impossible_numbers_beside_the_maps(path):
    for key, value, words in (
        ("xpcs/twotime/config/stride_frame", np.inf, "whole numbers"),
        ("xpcs/twotime/config/stride_frame", 1e300, "whole numbers"),
        ("xpcs/twotime/processed_bins", [1.0, np.nan, 3.0], "whole numbers"),
        ("xpcs/twotime/processed_bins", [1.0, 2.5, 3.0], "whole numbers"),
        ("entry/instrument/detector_1/frame_time", 5e-324, "frame_time"),
        ("entry/instrument/detector_1/frame_time", 1e308, "frame_time"),
        ("xpcs/twotime/processed_bins", h5py.Empty("i8"), "null dataspace"),
        (MAP, np.zeros((12, 12), [("a", float)]), "real numbers"),
    ):
        write_aps_u(path, two_time())
        with h5py.File(path, "r+") as file:
            del file[key]
            file[key] = value
        refused(path, key, words)
