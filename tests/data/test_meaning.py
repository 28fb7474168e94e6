"""What the numbers of a file mean: units, names of dimensions, times of a series."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from helpers_data import loader_form, two_time

import xpcs_eqx as xe
from xpcs_eqx.config import read_configuration
from xpcs_eqx.config.tables.data import read_data
from xpcs_eqx.data import (
    Selection,
    from_dict,
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
from xpcs_eqx.data.layouts.units import factor_to, unit_of
from xpcs_eqx.errors import ConfigError, DataError

Q, PHI = "xpcs/qmap/dynamic_v_list_dim0", "xpcs/qmap/dynamic_v_list_dim1"
FRAME, COUNT = (f"entry/instrument/detector_1/{name}_time" for name in ("frame", "count"))


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "maps.hdf")


def aps_u(path, change=None, data=None, **options):
    write_aps_u(path, two_time() if data is None else data, **options)
    with h5py.File(path, "r+") as file:
        if change is not None:
            change(file)
    return path


def replaced(file, key, values):
    if key in file:
        del file[key]
    file[key] = values


def raises(fragments, function, *args, **kwargs):
    with pytest.raises(DataError) as caught:
        function(*args, **kwargs)
    for fragment in fragments:
        assert fragment in str(caught.value)


INVERSE_LENGTHS = {
    1.0: "1/Å|Å^-1|Å⁻¹|\u212b⁻¹|A-1|1/A|A^{-1}|1/angstrom|ANGSTROM^-1|Angstroms^-1|ångström^-1|"
    "inverse Angstroms|per Å|/Å|reciprocal angstrom|inv. A|\\AA^{-1}|\\AA$^{-1}$|A°^-1|A\u030a^-1|"
    "inverse-angstrom|inv_angstrom|Å^(−1)|Å**(-1)|1/Ångström|(Å⁻¹)|$\\mathrm{\\AA}^{-1}$|A**-1|1./Å",
    0.1: "nm^-1|nm^{-1}|1/nm|1 / nm|nm-1|nm⁻¹|nm−1|nm^−1|inverse nm|nanometer^-1|nanometre-1|"
    "1/nanometers|NM^-1|(1/nm)|[nm^-1]|nm^(-1)| 1/nm ",
    1e-4: "1/um|um^-1|µm⁻¹|μm^-1|1/µm|micron^-1|inverse microns|1/micrometers|\\mu m^{-1}",
    1e-7: "1/mm|mm^-1",
    100.0: "1/pm|pm-1",
    1e-10: "1/m|m^-1",
    1e-8: "cm^-1",
}
TIMES = {
    1.0: "s|S|sec|Seconds|s.",
    1e-3: "ms|msec|MS|millisecond|m s",
    1e-6: "us|µs|μs|usec|microseconds|micro-seconds|\\textmu s|\\mu s",
    1e-9: "ns|nanoseconds",
    1e-15: "fs",
    60.0: "min|minutes",
    # Case tells prefixes apart.
    1e6: "Ms",
    86400.0: "day|days",
}
ANGLES = {1.0: "deg|°|º|Degrees|DEG", 180 / np.pi: "rad|radian|Radians", 0.18 / np.pi: "mrad"}
LENGTHS = {1.0: "Å|A|angstrom|ångström", 10.0: "nm", 1e4: "um|µm|μm|micron", 1e7: "mm", 1e-2: "pm"}


@pytest.mark.parametrize(
    ("unit", "words"),
    [("1/Å", INVERSE_LENGTHS), ("s", TIMES), ("deg", ANGLES), ("Å", LENGTHS)],
    ids=["q", "time", "angle", "gap"],
)
def test_what_people_write(unit, words):
    for factor, spellings in words.items():
        for word in spellings.split("|"):
            assert factor_to(unit, word) == pytest.approx(factor, rel=1e-12), word


def test_case_tells_prefixes_apart():
    for word, power in (("MeV", 6), ("meV", -3), ("keV", 3), ("KEV", 3), ("MHz", 6), ("mHz", -3)):
        found = unit_of(word)
        assert found is not None, word
        assert found.power == power, word
    assert factor_to("Å", "Mm") == pytest.approx(1e16)
    # What may be either.
    for word in ("mev", "MEV", "mhz", "MHZ", "Msec", "Mrad", "Pseconds"):
        assert unit_of(word) is None, word


def test_what_is_no_unit_or_another():
    for word in [
        "furlong",
        "1",
        "a.u.",
        "nm^-2",
        "2/nm",
        "1/10 nm",
        "as",
        "mA",
        "ss",
        "nm^-1 rad",
        "1e-9 m",
        "/",
        "^-1",
        "",
    ]:
        assert unit_of(word) is None, word
    for unit, word, kind in (
        ("1/Å", "pixel", "a number of pixels"),
        ("1/Å", "nm", "a length"),
        ("1/Å", "1/s", "an inverse time"),
        ("deg", "mm", "a length"),
        ("s", "Hz", "a frequency"),
        ("s", "frames", "a number of frames"),
        ("Å", "1/nm", "an inverse length"),
    ):
        assert f"the unit '{word}' is {kind}, but" in str(factor_to(unit, word))


@pytest.mark.parametrize("name", ["unit_name", "Q_unit", "physical units"])
def test_attributes_with_a_unit_in_their_names_are_read_where_they_hold_one(path, name):
    def change(file, word="1/nm"):
        file[Q].attrs["unit_cell"] = [1.0, 2.0]
        file[Q].attrs[name] = word

    assert load(aps_u(path, change)).geometry.q == pytest.approx(0.1 * 0.0054)
    assert load(aps_u(path, lambda file: change(file, "as usual"))).geometry.q == 0.0054
    with h5py.File(path, "r+") as file:
        # What is the unit goes first.
        file[Q].attrs["units"], file[Q].attrs[name] = "1/angstrom", "1/nm"
    assert load(path).geometry.q == 0.0054


@pytest.mark.parametrize("name", ["unit", "units", "Units"])
@pytest.mark.parametrize(
    "kind",
    [str, bytes, "latin-1", "raw", np.array],
    ids=["text", "bytes", "latin", "raw", "array"],
)
def test_attributes_of_any_kind(path, name, kind):
    def change(file):
        replaced(file, Q, [54.0])
        replaced(file, FRAME, 100.0)
        for key, word in ((Q, "1/µm"), (FRAME, "ms")):
            if kind == "latin-1":
                value = np.bytes_(word.encode("latin-1"))
            elif kind == "raw":
                value = word.encode("latin-1")
            elif kind is np.array:
                value = np.array([word.encode()])
            else:
                value = np.bytes_(word.encode()) if kind is bytes else word
            file[key].attrs[name] = value

    found = load(aps_u(path, change))
    assert float(found.geometry.q) == pytest.approx(0.0054)
    assert found.t[1] == pytest.approx(0.1)


def test_units_that_say_nothing_are_no_units(path):
    def change(file):
        file[Q].attrs["units"] = ""
        file[PHI].attrs["unit"] = " "
        file[FRAME].attrs["units"] = h5py.Empty("S4")

    assert float(load(aps_u(path, change)).geometry.q) == 0.0054


def said(key, word, attribute="units"):
    return lambda file: file[key].attrs.__setitem__(attribute, word)


@pytest.mark.parametrize(
    ("key", "word", "fragments"),
    [
        (Q, "furlong", ("'furlong' is unknown", "1/Å, Å^-1", "give q")),
        (Q, "pixel", ("'pixel' is a number of pixels", "inverse length")),
        (Q, "nm", ("'nm' is a length",)),
        (PHI, "mm", ("'mm' is a length", "an angle", "give phi")),
        (PHI, "1/nm", ("an inverse length",)),
        (FRAME, "Hz", ("'Hz' is a frequency", "give dt")),
        (FRAME, "fortnight", ("'fortnight' is unknown", "give dt")),
    ],
)
@pytest.mark.parametrize("read", [load, open_stored, map_size])
def test_units_that_cannot_be_are_refused(path, key, word, fragments, read):
    aps_u(path, said(key, word, "unit"))
    raises((path, key, *fragments), read, path)


def test_what_is_given_takes_the_place_of_what_means_nothing(path):
    for key, word, given in (
        (Q, "furlong", {"q": 0.007}),
        (PHI, "gon", {"phi": [1.0, 2.0, 3.0]}),
        (FRAME, "jiffy", {"dt": 0.5}),
    ):
        aps_u(path, said(key, word))
        for read in (load, open_stored):
            found = read(path, **given)
            assert any(word in note and "was not used" in note for note in found.provenance.notes)
        assert float(found.geometry.q) == given.get("q", 0.0054)
        assert found.geometry.phi.tolist() == given.get("phi", [-12.5, 30.0, 30.0])
        assert found.t[1] == pytest.approx(given.get("dt", 0.1))
    write_own(path, two_time())
    with h5py.File(path, "r+") as file:
        file["gap"].attrs["units"] = "hands"
    raises((path, "gap", "'hands' is unknown", "give gap"), load, path)
    assert float(load(path, gap=5e5).geometry.gap) == 5e5
    # One q cannot stand for several.
    aps_u(path, said(Q, "furlong"), [two_time(), two_time(q=0.009)])
    raises(("furlong",), load, path, q=0.0054)


def test_the_gap_has_a_unit_too(path):
    write_own(path, two_time())
    with h5py.File(path, "r+") as file:
        file["gap"][()] = 0.2
        file["gap"].attrs["units"] = "mm"
    assert float(load(path).geometry.gap) == pytest.approx(2e6)


def test_two_units_of_one_list(path):
    def change(file):
        file[Q].attrs["units"] = "1/angstrom"
        file[Q].attrs["unit"] = "1/nm"

    raises((Q, "differ", "1/nm"), load, aps_u(path, change))
    # The same twice is fine, and a list of units stands in for attributes.
    assert load(aps_u(path, said(Q, "Å⁻¹", "unit"))).n_angles == 3
    listed = np.array([b"nm^-1", b"rad"])
    found = load(aps_u(path, lambda file: replaced(file, "xpcs/qmap/map_units", listed)))
    assert float(found.geometry.q) == pytest.approx(0.00054)
    np.testing.assert_allclose(found.geometry.phi, np.rad2deg(two_time().geometry.phi))


def named(*names):
    return lambda file: replaced(file, "xpcs/qmap/map_names", np.array(names, "S8"))


@pytest.mark.parametrize(
    "names", [("x", "y"), ("qx", "qy"), ("q", "x"), ("TTH", "phi"), ("phi", "phi"), ("q", "q")]
)
def test_maps_of_anything_but_q_and_phi_are_refused(path, names):
    aps_u(path, named(*names))
    raises((path, "called", repr(names[0]), "q and phi are needed"), load, path)

    def change(file):
        for key, name in zip((Q, PHI), names, strict=True):
            file[key].attrs["name"] = name

    raises((path, "called", "q and phi are needed"), load, aps_u(path, change))


@pytest.mark.parametrize("names", [("q", "phi"), ("Q", "φ"), ("|q|", "azimuth"), ("", "")])
def test_names_of_q_and_phi(path, names):
    listed = np.array([name.encode() for name in names])
    aps_u(path, lambda file: replaced(file, "xpcs/qmap/map_names", listed))
    assert float(load(path).geometry.q) == 0.0054


def test_phi_may_come_first(path):
    sets = [two_time(phi=(0.0, 40.0, 80.0), q=q, seed=k) for k, q in enumerate((0.004, 0.006))]
    aps_u(path, None, sets)
    plain = load_joint(path)

    def change(file):
        q, phi = file[Q][()], file[PHI][()]
        replaced(file, Q, phi)
        replaced(file, PHI, q)
        file[Q].attrs["name"], file[PHI].attrs["name"] = "phi", "q"
        maps = file["xpcs/twotime/correlation_map"]
        stored = [maps[f"c2_{k:05d}"][()] for k in range(1, 7)]
        for new, old in enumerate((0, 3, 1, 4, 2, 5)):
            maps[f"c2_{new + 1:05d}"][...] = stored[old]

    for found, wanted in zip(load_joint(aps_u(path, change, sets)), plain, strict=True):
        assert float(found.geometry.q) == float(wanted.geometry.q)
        np.testing.assert_array_equal(found.geometry.phi, wanted.geometry.phi)
        np.testing.assert_array_equal(found.c2, wanted.c2)


def test_names_that_contradict_each_other(path):
    def change(file):
        named("q", "phi")(file)
        file[Q].attrs["name"] = "qx"

    raises((Q, "contradict", "map_names"), load, aps_u(path, change))


LAYOUTS = {
    "aps-u": (write_aps_u, FRAME, COUNT),
    "aps-old": (
        write_aps_old,
        *(f"measurement/instrument/detector/exposure_{w}" for w in ("period", "time")),
    ),
    "nxxpcs": (write_nxxpcs, *(f"entry/instrument/detector/{w}_time" for w in ("frame", "count"))),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_cannot_be_exposed_for_longer_than_they_take(path, layout):
    write, period, exposure = LAYOUTS[layout]
    write(path, two_time())
    with h5py.File(path, "r+") as file:
        replaced(file, exposure, 0.09)
    assert not any(exposure in note for note in load(path).provenance.notes)
    with h5py.File(path, "r+") as file:
        replaced(file, exposure, 2000.0)
        file[exposure].attrs["units"] = "ms"
    for read in (load, open_stored):
        found = read(path)
        assert any(period in n and exposure in n and "Give dt" in n for n in found.provenance.notes)
    # Either may be right, and nothing else.
    assert load(path, dt=2.0).t[1] == pytest.approx(2.0)
    assert load(path, dt=0.1).t[1] == pytest.approx(0.1)
    raises(("1 %",), load, path, dt=0.5)


BEGIN = "xpcs/twotime/config/begin_frame"


def with_numbers(**numbers):
    def change(file):
        for name, value in numbers.items():
            replaced(file, f"xpcs/twotime/config/{name}", value)

    return change


def test_a_frame_time_that_fits_the_exposure_in_another_unit_is_remarked(path):
    def notes(period, exposure, unit=None):
        def change(file):
            replaced(file, FRAME, period)
            replaced(file, COUNT, exposure)
            if unit is not None:
                file[FRAME].attrs["units"] = unit

        return load(aps_u(path, change)).provenance.notes

    for period, exposure, unit in ((100.0, 0.099, "ms"), (2e4, 0.015, "µs")):
        assert any(f"If it is {unit}, all rates" in note for note in notes(period, exposure))
        for dt in (period, period * {"ms": 1e-3, "µs": 1e-6}[unit]):
            found = load(path, dt=dt)
            assert found.t[1] == pytest.approx(dt)
            assert found.provenance.doubts == ()
        assert load(path).t[1] == period
        assert load(path).provenance.doubts == ("times",)
        with pytest.raises(DataError, match="differs by more than 1 %"):
            load(path, dt=0.37 * period)
        assert not any("give dt" in note for note in notes(period, exposure, "s"))
    for period, exposure in ((0.1, 0.099), (100.0, 1.0), (1.0, 0.01), (100.0, 0.01)):
        assert not any("give dt" in note for note in notes(period, exposure))


@pytest.mark.parametrize("layout", ["aps-u", "aps-old", "nxxpcs"])
def test_one_time_for_all_frames_may_be_stored_for_each(path, layout):
    write, keys = {
        "aps-u": (write_aps_u, [FRAME]),
        "aps-old": (write_aps_old, ["measurement/instrument/detector/exposure_period"]),
        "nxxpcs": (write_nxxpcs, ["entry/instrument/detector/frame_time"]),
    }[layout]
    write(path, two_time())
    with h5py.File(path, "r+") as file:
        replaced(file, keys[0], np.full((1, 12), 0.1))
    assert load(path).t[1] == pytest.approx(0.1)
    with h5py.File(path, "r+") as file:
        file[keys[0]][0, 5] = 0.2
    with pytest.raises(DataError, match=r"12 values from 0\.1 to 0\.2 s"):
        load(path)


@pytest.mark.parametrize("names", [("Scattering vector", "χ"), ("q", "chi")])
def test_dimensions_have_several_names(path, names):
    def change(file):
        replaced(file, "xpcs/qmap/map_names", [name.encode() for name in names])

    assert load(aps_u(path, change)).provenance.doubts == ()


def test_time_begins_with_the_series(path):
    for stride in (1, 3):
        aps_u(path, with_numbers(begin_frame=100, end_frame=-1), stride=stride)
        for read in (load, open_stored):
            found = read(path)
            assert found.t[0] == pytest.approx(100 * 0.1 / stride)
            assert np.diff(found.t) == pytest.approx(0.1)
            assert any("begin_frame is 100" in note for note in found.provenance.notes)
            assert read(path, time_origin=7.0).t[0] == 7.0
            assert read(path, time_origin=0.0).t[0] == 0.0
            later = read(path, selection=Selection(start_frame=4))
            assert later.t[0] == pytest.approx(found.t[3])
    aps_u(path, with_numbers(begin_frame=0))
    assert load(path).t[0] == 0
    assert not any("begin_frame" in note for note in load(path).provenance.notes)


def test_a_beginning_that_says_nothing(path):
    aps_u(path, with_numbers(begin_frame=-12))
    raises((BEGIN, "-12", "time_origin"), load, path)
    assert load(path, time_origin=3.0).t[0] == 3.0
    for wrong in (1.5, np.nan):
        aps_u(path, with_numbers(begin_frame=wrong))
        raises((BEGIN, "number of a frame", "time_origin"), load, path)
        assert load(path, time_origin=3.0).t[0] == 3.0


NO_TIMES = (0.0, -0.1, np.nan, "0.1", np.zeros(0), h5py.Empty("f8"), np.linspace(0.1, 0.2, 12))


@pytest.mark.parametrize("wrong", NO_TIMES, ids=lambda one: str(one)[:9])
def test_what_is_given_takes_the_place_of_numbers_that_are_none(path, wrong):
    """A user cannot correct every file, and must not have to where a key says what is right."""
    aps_u(path, lambda file: replaced(file, FRAME, wrong))
    raises((FRAME, "give dt [s]"), load, path)
    found = load(path, dt=0.1)
    assert found.t[1] == pytest.approx(0.1)
    assert any(FRAME in note and "not used" in note for note in found.provenance.notes)
    # What the frame time is only compared with stops nobody.
    beside = "xpcs/spatial_mean/intensity_vs_time", "xpcs/twotime/config/end_frame", COUNT
    aps_u(path, with_numbers(begin_frame=0))
    with h5py.File(path, "r+") as file:
        for key in beside:
            replaced(file, key, "0.1")
    found = load(path)
    assert found.provenance.doubts == ()
    for key in beside:
        assert any(key in note and "not used" in note for note in found.provenance.notes)


@pytest.mark.parametrize("wrong", [0.0, np.nan])
def test_q_and_azimuths_may_be_given_where_they_are_no_numbers(path, wrong):
    aps_u(path, lambda file: replaced(file, Q, [wrong]))
    raises((Q, "above zero", "give q [1/Å]"), load, path)
    found = load(path, q=0.005)
    assert float(found.geometry.q) == 0.005
    assert any(Q in note and "not used" in note for note in found.provenance.notes)
    aps_u(path, replace_phi(np.nan))
    assert load(path, phi=[0, 30, 60]).geometry.phi.tolist() == [0, 30, 60]
    raises((PHI, "leave it out"), load, aps_u(path), phi=[0, 30, 60])


def test_the_older_layout_counts_from_one(path):
    for first, begin, wanted in ((None, 101, 10.0), (1, 101, 10.0), (21, 41, 2.0), (1, 1, 0.0)):
        write_aps_old(path, two_time())
        with h5py.File(path, "r+") as file:
            file["xpcs/data_begin_todo"] = np.full((1, 1), begin, np.uint64)
            if first is not None:
                file["xpcs/data_begin"] = np.full((1, 1), first, np.uint64)
        assert load(path).t[0] == pytest.approx(wanted)


def test_rows_and_frames_belong_together(path):
    def notes(**numbers):
        return [
            n for n in load(aps_u(path, with_numbers(**numbers))).provenance.notes if "rows" in n
        ]

    assert not notes(begin_frame=0, end_frame=12)
    assert not notes(begin_frame=0, end_frame=-1)
    assert not notes(begin_frame=4, end_frame=40, stride_frame=3)
    (note,) = notes(begin_frame=0, end_frame=120)
    assert "120 frames" in note
    assert "12 rows" in note
    (note,) = notes(begin_frame=0, end_frame=12, avg_frame=4)
    assert "3 rows of 4 frames" in note
    aps_u(
        path, lambda file: replaced(file, "xpcs/spatial_mean/intensity_vs_time", np.ones((2, 50)))
    )
    assert any("50 frames" in note for note in load(path).provenance.notes)


def test_only_maps_that_are_taken_are_looked_at(path):
    sets = [two_time(q=q, seed=k) for k, q in enumerate((0.004, 0.006))]
    for wrong in (0.0, np.nan, -1.0, np.inf):
        aps_u(path, lambda file, wrong=wrong: replaced(file, Q, [wrong, 0.006]), sets)
        for how in (
            {"q": 0.006},
            {"selection": Selection(q=0.006)},
            {"selection": Selection(q=(0.006,))},
        ):
            assert float(load(path, **how).geometry.q) == 0.006
        raises((Q, "above zero", "Select"), load_joint, path)
    first = "xpcs/twotime/correlation_map/c2_00001"
    for wrong in (np.ones((5, 5)), np.ones((12, 7)), np.ones((12, 12), complex)):
        aps_u(path, lambda file, wrong=wrong: replaced(file, first, wrong), sets)
        for read in (load, open_stored):
            assert read(path, q=0.006).n_frames == 12
    turned = replace_phi(np.nan)
    aps_u(path, turned)
    assert load(path, selection=Selection(phi_ranges=((29.0, 31.0),))).n_angles == 1


def replace_phi(value):
    return lambda file: replaced(file, PHI, [value, 30.0, 900.0])


def test_a_bin_counts_once(path):
    bins = "xpcs/twotime/processed_bins"
    aps_u(path, lambda file: replaced(file, bins, [1, 2, 2]))
    raises((bins, "bin 2", "2 times"), load, path)
    mapping = "xpcs/qmap/dynamic_index_mapping"
    aps_u(path, lambda file: replaced(file, mapping, [0, 2, 2]), index_mapping=True)
    raises((mapping, "bin 3", "2 times"), load, path)
    write_nxxpcs(path, two_time(), storage_mode="data_exchange_keys")
    with h5py.File(path, "r+") as file:
        file.move("entry/twotime/two_time_corr_func/00002", "entry/twotime/two_time_corr_func/1")
        for name in ("q", "phi"):
            key = f"entry/instrument/masks/dynamic_{name}_list"
            replaced(file, key, np.append(file[key][()], 1.0))
    raises(("two_time_corr_func", "bin 1", "2 times"), load, path)


def test_maps_at_one_place_are_remarked(path):
    write_own(path, two_time(phi=(0.0, 30.0, 390.0)))
    assert any("c2[1], c2[2] are all at q = 0.0054" in n for n in load(path).provenance.notes)
    for near in (1e-9, -1e-6, 360.0):
        write_own(path, two_time(phi=(0.0, near, 30.0)))
        assert any("c2[0], c2[1] are all at" in note for note in load(path).provenance.notes)
    write_own(path, two_time(phi=(0.0, 30.0, 210.0)))
    assert not any("are all at" in note for note in load(path).provenance.notes)


@pytest.mark.parametrize("phi", [9e164, -2e4, np.inf])
def test_angles_are_bounded(path, phi):
    raises((PHI, "10000"), load, aps_u(path, replace_phi(phi)))
    raises(("phi", "10000"), from_dict, loader_form(two_time(phi=(0.0, 1.0, phi))))


WITHOUT = {
    "aps-u": (write_aps_u, PHI),
    "aps-old": (write_aps_old, "xpcs/dphilist"),
    "nxxpcs": (write_nxxpcs, "entry/instrument/masks/dynamic_phi_list"),
}


@pytest.mark.parametrize("layout", WITHOUT)
def test_files_without_azimuths(path, tmp_path, layout):
    write, key = WITHOUT[layout]
    write(path, two_time(phi=(0.0,), n=20))
    with h5py.File(path, "r+") as file:
        del file[key]
    for read in (load, open_stored):
        found = read(path)
        assert found.geometry.phi.tolist() == [0.0]
        assert not found.provenance.azimuths
        assert any(key in note and "phi" in note for note in found.provenance.notes)
        laminar = xe.parameter_map(xe.LaminarFlow(), found.t, fixed=("phi0",))
        with pytest.raises(DataError, match="no azimuths"):
            xe.two_time_objective(laminar, found)
        still = xe.parameter_map(xe.Static(), found.t, fixed=("alpha", "D_offset"))
        xe.two_time_objective(still, found)
        given = read(path, phi=20.0)
        assert given.geometry.phi.tolist() == [20.0]
        xe.two_time_objective(laminar, given)
    # What is written again does not know them either.
    write_own(tmp_path / "again.h5", load(path))
    assert not load(tmp_path / "again.h5").provenance.azimuths
    raises(("phi", "(2,)"), load, path, phi=[1.0, 2.0])


def test_a_q_for_each_map(tmp_path):
    path = str(tmp_path / "maps.npz")
    data = two_time(phi=(0.0, 40.0, 0.0, 40.0))
    mapping = loader_form(data) | {"wavevector_q_list": np.array([0.004, 0.004, 0.006, 0.006])}
    np.savez(path, **mapping)
    joint = load_joint(path)
    assert [float(one.geometry.q) for one in joint] == [0.004, 0.006]
    np.testing.assert_array_equal(joint[1].c2, data.c2[2:])
    np.testing.assert_array_equal(load(path, q=0.004).c2, data.c2[:2])
    found = from_dict(mapping, selection=Selection(q=0.006))
    np.testing.assert_array_equal(found.c2, data.c2[2:])
    raises(("several q", "wavevector_q_list", "Selection(q="), from_dict, mapping)
    direct = {"g2": data.c2, "phi": data.geometry.phi, "t1": data.t, "t2": data.t}
    direct["q"] = mapping["wavevector_q_list"]
    assert from_dict(direct, selection=Selection(q=0.004)).n_angles == 2
    raises(("2 values", "4 maps"), from_dict, direct | {"q": [0.004, 0.006]})


def test_neighbouring_bins_are_merged_on_request(path):
    sets = [two_time(q=q, seed=k) for k, q in enumerate((0.004, 0.005, 0.009))]
    aps_u(path, None, sets)
    near = {"q": 0.0045, "q_tolerance": 0.001}
    raises(("several q", "merge_q"), load, path, selection=Selection(**near))
    for chosen in (Selection(merge_q=True, **near), Selection(merge_q=True, q=[0.004, 0.005])):
        for read in (load, open_stored):
            found = read(path, selection=chosen)
            assert float(found.geometry.q) == pytest.approx(0.0045)
            assert found.n_angles == 6
            assert any("2 q bins from 0.004 to 0.005" in note for note in found.provenance.notes)
        (one,) = load_joint(path, selection=chosen)
        assert one.n_angles == 6
    raises(("merge_q", "q_tolerance"), Selection, merge_q=True, q=0.004)
    raises(("merge_q",), Selection, merge_q=True)


WRONG = {
    "q": ([0.005], "0.005", b"0.005", True, {}, 1j),
    "dt": ("0.1", [0.1], np.array([0.1, 0.2]), object(), False),
    "gap": ("1", [1.0], (2e6,)),
    "sigma": (np.ones((12, 12)), [0.1], "iqr", b"mad"),
    "time_origin": ("0", [0.0]),
    "phi": ("30", [[1.0], [1.0, 2.0]], object()),
    "layout": (3, ["aps-u"]),
    "selection": (None, {"q": 1.0}, 0.005),
    "baseline": ("one", 2, 0.5, None, [1], True),
    "symmetrise": ("both", True, 1),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("layout", ["aps-u", "npz", "npy"])
def test_wrong_types_at_the_door(tmp_path, name, layout):
    path = str(tmp_path / "maps")
    if layout == "npy":
        np.save(path + ".npy", two_time(phi=(0.0,)).c2)
        path += ".npy"
    else:
        {"aps-u": write_aps_u, "npz": write_npz}[layout](path, two_time())
    for value in WRONG[name]:
        raises((name,), load, path, **{name: value})
    if layout == "aps-u":
        for value in WRONG[name]:
            raises((name,), open_stored, path, **{name: value})


def test_wrong_types_of_other_entries(path):
    for wrong in (None, 3.5, ["a"]):
        raises(("path",), load, wrong)
        raises(("path",), open_stored, wrong)
    raises(("dictionary",), from_dict, [1, 2])
    raises(("selection",), from_dict, loader_form(two_time()), selection=3)
    for key, wrong in (
        ("c2_exp", [[1.0], [1.0, 2.0]]),
        ("c2_exp", "text"),
        ("t1", "text"),
        ("wavevector_q_list", ["0.1"]),
        ("L", "2e6"),
        ("sigma", [[1.0], [1.0, 2.0]]),
        ("dt", [0.1, 0.2]),
    ):
        raises((key,), from_dict, loader_form(two_time()) | {key: wrong})
    for name, wrong in (
        ("q", "0.1"),
        ("q", [[0.1], [0.2, 0.3]]),
        ("q", []),
        ("start_frame", 1.5),
        ("end_frame", "9"),
        ("min_lag", [1]),
        ("time_origin", "0"),
        ("q_tolerance", [0.1]),
        ("phi_ranges", (1.0, 2.0)),
        ("phi_ranges", "all"),
        ("age_range", 3.0),
        ("age_range", (1.0, 2.0, 3.0)),
    ):
        raises((name,), Selection, **{name: wrong})


def test_numbers_of_numpy_are_numbers(path):
    aps_u(path, None, [two_time(), two_time(q=0.009)])
    chosen = Selection(
        start_frame=np.int64(2),
        end_frame=np.array(9),
        q=np.float32(0.0054),
        phi_ranges=np.array([[-20.0, 40.0]]),
        min_lag=np.uint8(2),
        age_range=np.array([0.0, 5.0]),
    )
    found = load(
        path, selection=chosen, dt=np.float64(0.1), gap=np.float32(2e6), sigma=np.array(0.1)
    )
    assert found.n_frames == 8
    assert found.absolute_sigma
    assert load(path, q=np.array(0.009), time_origin=np.int32(3)).t[0] == 3.0
    assert len(load_joint(path, selection=Selection(q=np.array([0.0054, 0.009])))) == 2


def test_keys_of_the_configuration(path, tmp_path):
    def read(text, stored=False):
        (tmp_path / "fit.toml").write_text(f"[data]\npath = '{path}'\n{text}\n")
        return read_data(read_configuration(str(tmp_path / "fit.toml")), stored)

    data = two_time(phi=(0.0,), n=40)
    c2 = np.array(data.c2) - 1
    c2[0] += 0.1 * np.tril(np.ones((40, 40)), -1)
    aps_u(path, lambda file: file.__delitem__(PHI), replace(data, c2=c2))
    for stored in (False, True):
        found = read('symmetrise = "mean"\nbaseline = 1\nphi = 7.0', stored)
        assert found.geometry.phi.tolist() == [7.0]
        assert found.provenance.azimuths
        assert not found.provenance.baseline_guessed
        assert read('symmetrise = "lower"', stored).provenance.baseline_guessed
    aps_u(path, None, [two_time(), two_time(q=0.0056)])
    near = "q = 0.0055\nq_tolerance = 2e-4\n"
    assert float(read(near + "merge_q = true").geometry.q) == pytest.approx(0.0055)
    raises(("several q", "merge_q"), read, near)
    for wrong in ("baseline = true", "baseline = 2", "symmetrise = true", "merge_q = 1"):
        with pytest.raises(ConfigError, match=wrong.split()[0]):
            read(wrong)


def test_dictionaries_and_npz_without_azimuths(tmp_path):
    mapping = loader_form(two_time(phi=(0.0,), n=20))
    del mapping["phi_angles_list"]
    path = str(tmp_path / "maps.npz")
    np.savez(path, **mapping)
    direct = {"g2": mapping["c2_exp"], "t1": mapping["t1"], "t2": mapping["t2"], "q": 0.0054}
    i, j = np.triu_indices(20, 1)
    points = {"data": mapping["c2_exp"][0, i, j], "q": 0.0054}
    points |= {"t1": mapping["t1"][i], "t2": mapping["t1"][j]}
    still = xe.parameter_map(xe.Static(), mapping["t1"], fixed=("alpha", "D_offset"))
    laminar = xe.parameter_map(xe.LaminarFlow(), mapping["t1"], fixed=("phi0",))
    for found in (load(path), xe.from_dict(mapping), xe.from_dict(direct), xe.from_dict(points)):
        assert found.geometry.phi.tolist() == [0.0]
        assert not found.provenance.azimuths
        assert any("No azimuths are known" in note for note in found.provenance.notes)
        xe.two_time_objective(still, found)
        with pytest.raises(DataError, match="no azimuths"):
            xe.two_time_objective(laminar, found)
    assert load(path, phi=20.0).geometry.phi.tolist() == [20.0]
    # What is almost right is a slip.
    raises(("'phi_angles_list' is missing", "phi_angle_list"), xe.from_dict,
           mapping | {"phi_angle_list": [0.0]})  # fmt: skip
    raises(("'phi' is missing", "'Phi'"), xe.from_dict, direct | {"Phi": [0.0]})


TIMES = {
    "aps-u": (
        write_aps_u,
        "xpcs/spatial_mean/intensity_vs_time",
        "xpcs/twotime/config/begin_frame",
    ),
    "aps-old": (write_aps_old, "exchange/frameSum", "xpcs/data_begin_todo"),
}


@pytest.mark.parametrize("layout", TIMES)
def test_stored_times_of_frames(path, layout):
    """Rows are 0.1 s apart by the frame time."""
    write, key, begin = TIMES[layout]
    rows, bright = np.arange(12), np.full(12, 3.0)

    def read(times, first=None, **given):
        write(path, two_time())
        with h5py.File(path, "r+") as file:
            file[key] = np.stack([times, bright])
            if first is not None:
                file[begin] = first
        return load(path, **given)

    for times in (rows, rows + 1, 0.1 * rows, 0.1 * (rows + 1), 1e9 + 0.1 * rows):
        found = read(times)
        assert found.t[0] == 0
        assert found.provenance.doubts == ()
    # Counted on from the start of the series, in frames that are not there any more.
    found = read(0.1 * (rows + 100))
    np.testing.assert_allclose(found.t, 0.1 * (rows + 100))
    assert any(key in note and "10 s" in note for note in found.provenance.notes)
    assert read(0.1 * (rows + 100), time_origin=2.0).t[0] == 2.0
    # What the file says of its first frame wins.
    assert read(0.1 * (rows + 100), first=51 if layout == "aps-old" else 50).t[0] == 5.0
    late = np.where(rows > 5, 3.0, 0.0)
    for times in (0.2 * rows, 0.1 * rows + late, 0.1 * rows - late, rows[::-1]):
        found = read(times)
        assert found.provenance.doubts == ("times",)
        assert any(key in note and "0.1 s" in note for note in found.provenance.notes)
        assert read(times, dt=0.1).provenance.doubts == ()


def rings(radius, count=3, side=128):
    y, x = np.indices((side, side)) - side / 2
    ring = np.abs(np.hypot(x, y) - radius) < 3
    return np.where(ring, 1 + (np.degrees(np.arctan2(y, x)) % 180 * count / 181).astype(int), 0)


# Where energy, distance, sides of a pixel, centre and regions are; what q follows from them.
OPTICS = {
    "aps-u": (
        write_aps_u,
        "xpcs/qmap/energy xpcs/qmap/detector_distance xpcs/qmap/pixel_size xpcs/qmap/pixel_size "
        "xpcs/qmap/beam_center_x xpcs/qmap/beam_center_y xpcs/qmap/dynamic_roi_map",
    ),
    "aps-old": (
        write_aps_old,
        "measurement/instrument/source_begin/energy measurement/instrument/detector/distance "
        "measurement/instrument/detector/x_pixel_size measurement/instrument/detector/y_pixel_size "
        "measurement/instrument/acquisition/beam_center_x "
        "measurement/instrument/acquisition/beam_center_y xpcs/dqmap",
    ),
    "nxxpcs": (
        write_nxxpcs,
        "entry/instrument/incident_beam/incident_energy entry/instrument/detector/distance "
        "entry/instrument/detector/x_pixel_size entry/instrument/detector/y_pixel_size "
        "entry/instrument/detector/beam_center_x entry/instrument/detector/beam_center_y "
        "entry/instrument/masks/dynamic_roi_map",
    ),
}


@pytest.mark.parametrize("layout", OPTICS)
def test_q_is_compared_with_energy_distance_and_pixels(path, layout):
    write, keys = OPTICS[layout]
    names = keys.split()

    def read(stored, values, units=(), **given):
        write(path, two_time(q=stored))
        with h5py.File(path, "r+") as file:
            for name, value in zip(names, (*values, 64.0, 64.0, rings(40)), strict=True):
                if name in file:
                    del file[name]
                file[name] = value
            for name, unit in zip(names, units, strict=False):
                file[name].attrs["units"] = unit
        return load(path, **given)

    # q = 4.054 · 40 · 75e-6 / 2.25 = 0.0054 [1/Å]
    metres, said = (8.0, 2.25, 75e-6, 75e-6), ("eV", "cm", "um", "um")
    for values, units in (
        (metres, ()),
        ((8000.0, 2250.0, 0.075, 0.075), ()),
        ((8000.0, 225.0, 75.0, 75.0), said),
    ):
        assert read(0.0054, values, units).provenance.doubts == ()
        found = read(0.054, values, units)
        assert found.provenance.doubts == ("q",)
        assert float(found.geometry.q) == 0.054
        assert any("energy" in note and "give q" in note for note in found.provenance.notes)
        assert read(0.054, values, units, q=0.054).provenance.doubts == ()
    # What is in no unit of its kind, or is no number, says nothing.
    assert read(0.054, metres, ("furlong",)).provenance.doubts == ()
    assert read(0.054, (np.nan, *metres[1:])).provenance.doubts == ()
    assert read(0.054, (b"8 keV", *metres[1:])).provenance.doubts == ()
    # Nor does a centre in pixels with the unit of a length, which lies beyond all detectors.
    with h5py.File(path, "r+") as file:
        del file[names[0]]
        file[names[0]] = 8.0
        file[names[4]].attrs["units"] = "m"
    assert load(path).provenance.doubts == ()


def test_a_detector_that_was_moved_says_nothing_of_q(path):
    write, keys = OPTICS["aps-old"]
    for moved in (False, True):
        write(path, two_time(q=0.054))
        with h5py.File(path, "r+") as file:
            values = (8.0, 2.25, 75e-6, 75e-6, 64.0, 64.0, rings(40))
            for name, value in zip(keys.split(), values, strict=True):
                file[name] = value
            for name, value in (("stage_x", 3.0), ("stage_zero_x", 3.0 + moved)):
                file[f"measurement/instrument/acquisition/{name}"] = value
        assert load(path).provenance.doubts == (() if moved else ("q",))


def test_what_a_file_contradicts_itself_about_is_in_the_verdict(path, tmp_path):
    write_aps_u(path, two_time(phi=(0.0,), n=40))
    parameters = xe.parameter_map(xe.Static(), 0.1 * np.arange(40), fixed=("alpha", "D_offset"))

    def verdict(**given):
        fit = xe.least_squares(xe.projected_objective(parameters, load(path, **given)))
        return fit.quality.flag, " ".join(fit.quality.findings)

    assert verdict()[0] == "good"
    with h5py.File(path, "r+") as file:
        file["entry/instrument/detector_1/count_time"][()] = 1.0
    flag, said = verdict()
    assert flag == "marginal"
    assert "give dt" in said
    assert verdict(dt=0.1)[0] == "good"
    write_own(tmp_path / "again.h5", load(path))
    assert load(tmp_path / "again.h5").provenance.doubts == ("times",)
    with h5py.File(path, "r+") as file:
        file["entry/instrument/detector_1/count_time"][()] = 0.1
        file["xpcs/twotime/config/begin_frame"] = 0
        file["xpcs/twotime/config/end_frame"] = 80
    assert load(path).provenance.doubts == ("times",)
    with h5py.File(path, "r+") as file:
        # Frames after those that were correlated.
        file["xpcs/twotime/config/end_frame"][()] = 40
        file["xpcs/spatial_mean/intensity_vs_time"] = np.full(100, 3.0)
    assert load(path).provenance.doubts == ()


def test_numbers_that_another_unit_would_explain_are_remarked(path):
    def said(at_q, phi, **given):
        write_aps_u(path, two_time(phi=phi, q=at_q))
        return load(path, **given).provenance

    for turns in (np.arange(8) / 8, (0, 1 / 8, 1 / 4), (-1 / 16, 0, 1 / 16), (0.0125, 0.0375)):
        radians = tuple(2 * np.pi * np.asarray(turns))
        assert any("If they are radians" in note for note in said(0.0054, radians).notes)
    for phi in ((0.0, 45.0, 90.0), (0.0, 1.0, 2.0), (-4.0, 0.0, 4.0), (0.5, 1.5, 2.5), (-1.2, 1.3)):
        assert not any("radians" in note for note in said(0.0054, phi).notes)
    for q in (512.0, 5e7, 1e-12):
        found = said(q, (0.0, 45.0))
        assert found.doubts == ("q",)
        assert any("no experiment reaches" in note for note in found.notes)
        assert said(q, (0.0, 45.0), q=q).doubts == ()
    assert said(0.0054, (0.0, 45.0)).doubts == ()
