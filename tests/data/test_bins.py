"""Bins of age and lag: which pairs they hold, files, dictionaries, and what is refused."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from xpcs_eqx.data import (
    GenericLayout,
    Geometry,
    PooledData,
    Selection,
    TwoTimeData,
    binned,
    from_dict,
    load,
    load_any,
    load_bins,
    load_joint,
    map_size,
    multi_tau,
    open_stored,
    write_bins,
    write_own,
)
from xpcs_eqx.data.layouts.id02 import edges_of as edges_of_id02
from xpcs_eqx.errors import DataError

DT = 0.1
PLACE = "entry_0000/correlations/full"


def maps_of(function, n=60, phi=(0.0, 45.0), weights=None):
    """Maps that are a function of both frames."""
    first, second = np.indices((n, n))
    c2 = function(np.minimum(first, second), np.maximum(first, second))
    return TwoTimeData(
        c2=np.stack([(1 + 0.1 * k) * c2 for k in range(len(phi))]),
        t=DT * np.arange(n),
        geometry=Geometry(0.0054, np.array(phi)),
        root_weights=weights,
        diagonal=np.full((len(phi), n), np.nan),
    )


def slow(first, second):
    return 1 + 0.2 * np.exp(-0.01 * (second - first) * (1 + 0.01 * first))


def mapping(bins):
    """The dictionary of bins."""
    shape = (bins.n_angles, bins.bins.ages.size - 1, bins.bins.lags.size - 1)
    values = np.full(shape, np.nan)
    values[bins.angle, bins.bins.age, bins.bins.lag] = bins.values
    edges = {"ages": bins.bins.ages, "lags": bins.bins.lags}
    return {"ttcf": values, **edges, "phi": bins.geometry.phi, "q": 0.0054, "t": bins.t}


def same(found, wanted):
    for name in ("values", "first", "second", "angle", "t", "root_weights"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-12)
    for name in ("point", "share", "age", "lag", "ages", "lags"):
        mine, other = (getattr(one.bins, name) for one in (found, wanted))
        np.testing.assert_allclose(mine, other, rtol=1e-12)
    np.testing.assert_allclose(found.geometry.q, wanted.geometry.q, rtol=1e-12)


@pytest.fixture
def bins():
    return binned(maps_of(slow), ages=4)


def test_a_bin_is_the_mean_over_its_pairs():
    data, n = maps_of(slow, n=30), 30
    ages, lags = np.array([0.0, 1.0, 2.05, 2.9]), np.array([0.1, 0.3, 0.7, 2.9])
    found = binned(data, ages, lags)
    i, j = np.triu_indices(n, 1)
    age, lag = (np.searchsorted(e, v + 1e-9, side="right") - 1 for e, v in
                ((ages, 0.05 * (i + j)), (lags, 0.1 * (j - i))))  # fmt: skip
    for k in range(found.n_pairs):
        mine = (np.minimum(age, 2) == found.bins.age[k]) & (np.minimum(lag, 2) == found.bins.lag[k])
        pairs = found.bins.point == k
        np.testing.assert_array_equal(
            np.sort(n * i[mine] + j[mine]), np.sort(n * found.first[pairs] + found.second[pairs])
        )
        wanted = data.c2[found.angle[k]][i[mine], j[mine]].mean()
        np.testing.assert_allclose(found.values[k], wanted, rtol=1e-13)
        np.testing.assert_allclose(found.root_weights[k], np.sqrt(mine.sum()))
    np.testing.assert_allclose(found.mean(np.ones(found.first.size)), 1.0)


# What is averaged, and how near the means of some pairs come to those of all.
FUNCTIONS = (
    (lambda i, j: np.exp(-2e-3 * (j - i)), 1e-8),
    (lambda i, j: np.exp(-0.3 * (j - i)), 1e-6),
    (lambda i, j: np.sinc(0.05 * (j - i)) ** 2 * np.exp(-1e-3 * (i + j)), 1e-4),
    # Aging that begins without limit in the first frames, from slow to fast.
    (lambda i, j: np.exp(-0.01 * (np.sqrt(j) - np.sqrt(i))), 3e-5),
    (lambda i, j: np.exp(-2.0 * (np.sqrt(j) - np.sqrt(i))), 2e-4),
)


@pytest.mark.parametrize("ages", [1, 3])
def test_some_pairs_stand_for_those_of_a_wide_bin(ages):
    maps = [maps_of(function, n=400, phi=(0.0,)) for function, _ in FUNCTIONS]
    found = binned(maps[0], ages)
    assert found.first.size < 0.8 * maps[0].n_pairs
    for (function, most), one in zip(FUNCTIONS, maps, strict=True):
        values = found.values if one is maps[0] else binned(one, ages).values
        fitted = found.mean(function(found.first, found.second))
        np.testing.assert_allclose(fitted, values, rtol=0, atol=most)


def test_few_of_very_many_pairs_are_looked_at(monkeypatch):
    import xpcs_eqx.data.bins as module

    data = maps_of(slow, n=300, phi=(0.0,))
    monkeypatch.setattr(module, "_ENOUGH", 5000)
    found = from_dict(mapping(binned(data, 5)))
    fitted = found.mean(slow(found.first, found.second))
    np.testing.assert_allclose(fitted, found.values, rtol=0, atol=1e-2)
    whole = binned(data, 5)
    np.testing.assert_allclose(
        np.sum(found.root_weights**2), np.sum(whole.root_weights**2), rtol=0.05
    )


def test_pairs_count_by_their_weights():
    n = 30
    weights = np.ones((2, n, n))
    weights[0, 7], weights[0, :, 7] = 0, 0
    weights[1] = 1 + np.arange(n)
    data = maps_of(slow, n, weights=weights)
    found = binned(data, 3)
    assert not np.any((found.first == 7) & (found.angle[found.bins.point] == 0))
    i, j = np.triu_indices(n, 1)
    total = np.sum(weights[1][i, j] ** 2)
    np.testing.assert_allclose(np.sum(found.root_weights[found.angle == 1] ** 2), total)
    np.testing.assert_allclose(found.mean(data.c2[0][found.first, found.second])[found.angle == 0],
                               found.values[found.angle == 0], rtol=1e-12)  # fmt: skip


def test_multi_tau_covers_every_lag_once():
    for n in (3, 17, 100, 1000):
        edges = multi_tau(n, 8)
        assert edges[0] == 0.5
        assert edges[-1] == n - 0.5
        assert np.all(np.diff(edges) > 0)


def test_written_bins_are_read(tmp_path, bins):
    path = str(tmp_path / "bins.npz")
    write_bins(path, bins)
    same(load_bins(path), bins)
    same(load_any(path), bins)
    assert map_size(path).binned
    same(from_dict(mapping(bins)), bins)
    known = replace(bins, absolute_sigma=True)
    write_bins(path, known)
    assert load_bins(path).absolute_sigma
    with pytest.raises(DataError, match="no bins"):
        write_bins(path, maps_of(slow))  # pyright: ignore[reportArgumentType]


def test_files_of_no_known_layout(tmp_path, bins):
    path, given = str(tmp_path / "bins.h5"), mapping(bins)
    with h5py.File(path, "w") as file:
        file["scan/c2"] = np.moveaxis(given["ttcf"], 0, -1).swapaxes(0, 1)
        file["scan/error"] = np.full_like(file["scan/c2"][()], 0.01)
        file["scan/ages"], file["scan/lags"] = given["ages"], 1e3 * given["lags"]
        file["scan/lags"].attrs["units"] = "ms"
    layout = GenericLayout(
        "scan/c2", "last", q=0.0054, phi=(0.0, 45.0), axes="lag_age", ages="scan/ages",
        lags="scan/lags",
    )  # fmt: skip
    found = load_bins(path, layout=layout, dt=DT)
    same(found, bins)
    assert any("60 frames of 0.1 s" in note for note in found.provenance.notes)
    found = load_bins(path, layout=replace(layout, sigma="scan/error"), dt=DT)
    np.testing.assert_allclose(found.root_weights, 100.0)
    assert found.absolute_sigma
    later = load_bins(path, layout=layout, dt=DT, time_origin=5.0, sigma=0.02)
    np.testing.assert_allclose(later.bins.ages, bins.bins.ages + 5.0)
    np.testing.assert_array_equal(later.first, bins.first)
    some = Selection(age_range=(2.0, 4.0), min_lag=3, phi_ranges=((40.0, 50.0),))
    few = load_bins(path, layout=layout, dt=DT, selection=some)
    assert set(few.bins.age.tolist()) == {1, 2}
    assert few.lag_frames.min() == 3
    assert few.n_angles == 1


def test_bins_that_are_not_taken_cost_nothing(tmp_path, bins):
    path, given = str(tmp_path / "bins.h5"), mapping(bins)
    with h5py.File(path, "w") as file:
        for name, one in zip(("phi0", "phi45"), given["ttcf"], strict=True):
            file[f"scan/{name}"] = one
        file["scan/phi90"] = h5py.ExternalLink("gone.h5", "/ttcf")
        file["scan/phi135"] = np.ones((2, 2))
    layout = GenericLayout(
        "scan", q=0.0054, phi=(0.0, 45.0, 90.0, 135.0), axes="age_lag",
        ages=given["ages"], lags=given["lags"],
    )  # fmt: skip
    first = Selection(phi_ranges=((0.0, 45.0),))
    same(load_bins(path, layout=layout, dt=DT, selection=first), bins)
    assert map_size(path, layout=layout, dt=DT, selection=first).n_angles == 2
    for angle, words in ((90.0, "gone.h5"), (135.0, r"phi135 has shape \(2, 2\)")):
        chosen = Selection(phi_ranges=((0.0, 0.0), (angle, angle)))
        with pytest.raises(DataError, match=words):
            load_bins(path, layout=layout, dt=DT, selection=chosen)


def test_edges_follow_from_centres():
    """As xpcs-correlator makes them: ages evenly, single lags, then lags in the logarithm."""
    n, lags = 400, np.concatenate([np.arange(10) - 0.5, np.geomspace(10, 399, 20)])
    ages = np.linspace(0, n - 1, 11)
    wanted = binned(maps_of(slow, n), DT * ages, DT * lags)
    centres = 0.5 * (lags[1:] + lags[:-1])
    centres[10:] = np.sqrt(lags[11:] * lags[10:-1])
    given = mapping(wanted) | {"ages": DT * 0.5 * (ages[1:] + ages[:-1]), "lags": DT * centres}
    # What a correlator makes of frames with themselves is not fitted.
    given["ttcf"][:, :, 0] = 1.7
    found = from_dict(given)
    assert found.n_pairs == wanted.n_pairs
    assert any("midway" in note for note in found.provenance.notes)
    off = np.abs(found.lag_frames - wanted.lag_frames)
    # All but those about the last single lag.
    assert np.mean(off < 0.05) > 0.9
    assert np.max(off) < 0.6
    np.testing.assert_allclose(edges_of_id02(DT * centres), DT * lags, rtol=1e-9, atol=1e-9)
    assert edges_of_id02(DT * np.arange(30.0)) is None
    assert edges_of_id02(DT * (0.5 + np.arange(30.0))) is None


@pytest.mark.parametrize("old", [False, True])
def test_results_of_id02(tmp_path, bins, old):
    path, given = str(tmp_path / "result.h5"), mapping(bins)
    middle = {k: 0.5 * (given[k][1:] + given[k][:-1]) for k in ("ages", "lags")}
    with h5py.File(path, "w") as file:
        if old:
            place = "entry_0000/dynamix/correlations/directions/d0"
            file[f"{place}/q_index"] = [2, 3]
            ranges = [[1, 0.03, 0.04], [2, 0.05, 0.058], [3, 0.05, 0.058]]
            file["entry_0000/dynamix/correlations/q_index_min_max"] = ranges
            results, lag = f"{place}/2times_correlation", "timeshift"
        else:
            file[f"{PLACE}/parameters/q"] = [0.054, 0.054]
            results, lag = f"{PLACE}/twotime", "lag"
        file[f"{results}/ttcf"] = given["ttcf"]
        file[f"{results}/age"], file[f"{results}/{lag}"] = middle["ages"], middle["lags"]
    found = load_bins(path, phi=[0.0, 45.0], dt=DT)
    np.testing.assert_allclose(found.values, bins.values)
    np.testing.assert_allclose(found.geometry.q, 0.0054)
    assert found.provenance.layout == "id02"
    with pytest.raises(DataError, match=r"first lags are 0\.1, 0\.2 s; give dt"):
        load_bins(path)
    for function in (load, load_joint, open_stored):
        with pytest.raises(DataError, match="load_bins"):
            function(path, dt=DT)


@pytest.mark.parametrize(("order", "unit"), [([7, 2], None), ([2, 7], "1/Å")])
def test_regions_of_id02_are_those_that_are_named(tmp_path, bins, order, unit):
    path, given = str(tmp_path / "result.h5"), mapping(bins)
    place = "entry_0000/dynamix/correlations/directions/d0"
    key = "entry_0000/dynamix/correlations/q_index_min_max"
    with h5py.File(path, "w") as file:
        file[f"{place}/q_index"] = order
        file[key] = [[2, 0.01, 0.03], [7, 0.05, 0.07]]
        if unit:
            file[key].attrs["units"] = unit
        results = f"{place}/2times_correlation"
        file[f"{results}/ttcf"] = given["ttcf"]
        for name, edges in (("age", given["ages"]), ("timeshift", given["lags"])):
            file[f"{results}/{name}"] = 0.5 * (edges[1:] + edges[:-1])
    wanted = {2: 0.02, 7: 0.06}[order[1]] * (1.0 if unit else 0.1)
    found = load_bins(path, phi=[0.0, 45.0], dt=DT, selection=Selection(q=wanted))
    assert float(found.geometry.q) == pytest.approx(wanted)
    np.testing.assert_allclose(found.values, bins.values[np.asarray(bins.angle) == 1])


def test_ages_of_an_unknown_unit_are_refused(tmp_path, bins):
    path, given = str(tmp_path / "grid.h5"), mapping(bins)
    with h5py.File(path, "w") as file:
        for key in ("ttcf", "ages", "lags"):
            file[key] = given[key]
        file["lags"].attrs["units"] = "furlong"
    how = {"axes": "age_lag", "q": 0.0054, "phi": [0.0, 45.0]}
    with pytest.raises(DataError, match=r"'furlong' is unknown.*Give the lags as numbers"):
        load_bins(path, layout=GenericLayout("ttcf", ages="ages", lags="lags", **how), dt=DT)
    layout = GenericLayout("ttcf", ages="ages", lags=given["lags"], **how)
    assert load_bins(path, layout=layout, dt=DT).n_pairs == bins.n_pairs


def test_what_bins_cannot_be_is_refused(tmp_path, bins):
    given = mapping(bins)
    for change, words in (
        ({"ttcf": given["ttcf"][:, :2]}, "ages has 5 values for 2 bins"),
        ({"lags": given["lags"][::-1]}, "lags must be .* increase"),
        ({"t": np.array([0.0, 0.1, 0.3])}, "0.1 to 0.2 s apart"),
        ({"t": DT * 10 * np.arange(60)}, "hold no pair of 60 frames"),
        ({"phi": [0.0, 1.0, 2.0]}, "phi lists 3 values"),
        ({"ttcf": np.full_like(given["ttcf"], np.nan)}, "no bin is left"),
        ({"absolute_sigma": [1, 0]}, r"absolute_sigma has shape \(2,\)"),
        ({"sigma": np.ones((4, 31))}, "sigma holds 1 maps, but ttcf 2"),
        ({"sigma": np.zeros_like(given["ttcf"])}, "not above zero"),
        ({"ttcf": given["ttcf"][0, 0]}, r"shape \(31,\); \(map, age, lag\) is needed"),
    ):
        with pytest.raises(DataError, match=words):
            from_dict(given | change)
    assert not from_dict({k: v for k, v in given.items() if k != "phi"}).provenance.azimuths
    without = {key: value for key, value in given.items() if key != "t"}
    with pytest.raises(DataError, match=r"no frame time .* give dt"):
        from_dict(without)
    for asked, words in (
        ({"selection": Selection(start_frame=3)}, "frames"),
        ({"selection": Selection(bad_frames=(3,))}, "bad_frames"),
        ({"selection": Selection(pair_mask=np.ones((60, 60)))}, "pair_mask"),
        ({"symmetrise": "mean"}, "symmetrise"),
        ({"sigma": "mad"}, "mad"),
    ):
        with pytest.raises(DataError, match=f"{words}.* is for maps of two times"):
            from_dict(given, **asked)
    for wrong, words in (
        ({"axes": "lag"}, "axes is 'lag'"),
        ({"axes": "age_lag", "ages": "a"}, "needs ages and lags"),
        ({"ages": "a"}, "is for bins"),
    ):
        with pytest.raises(DataError, match=words):
            GenericLayout("c2", **wrong)
    path = str(tmp_path / "maps.h5")
    write_own(path, maps_of(slow, 12))
    with pytest.raises(DataError, match=r"maps of two times.* data\.binned"):
        load_bins(path)
    assert isinstance(load_any(path), TwoTimeData)
    for data, words in (
        (bins, "PooledData was given"),
        (replace(maps_of(slow, 5), t=np.array([0.0, 0.1, 0.2, 0.3, 0.5])), "equally spaced"),
    ):
        with pytest.raises(DataError, match=words):
            binned(data)
    with pytest.raises(DataError, match="flat arrays of one length"):
        PooledData(*(np.ones(3),) * 4, bins.t, bins.geometry, bins=bins.bins)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("n_ages", [1, 4, 10])
def test_bins_without_their_baseline_get_it(n_ages):
    given = mapping(binned(maps_of(slow), ages=n_ages))
    whole, lowered = from_dict(given), from_dict(given | {"ttcf": given["ttcf"] - 1})
    assert not whole.provenance.baseline_guessed
    assert lowered.provenance.baseline_guessed
    np.testing.assert_allclose(lowered.values, whole.values)
    assert any("1 was added" in note for note in lowered.provenance.notes)
    kept = from_dict(given | {"ttcf": given["ttcf"] - 1}, baseline=1)
    np.testing.assert_allclose(kept.values, whole.values - 1)
    odd = from_dict(given | {"ttcf": given["ttcf"] - 3})
    assert odd.provenance.doubts == ("baseline",)


def test_q_and_azimuths_of_bins_can_be(bins):
    given = mapping(bins)
    for change, words in (
        ({"q": -0.005}, "q must be above zero"),
        ({"q": np.nan}, "no number|above zero"),
        ({"phi": np.full(bins.n_angles, 9e164)}, "finite azimuth"),
    ):
        with pytest.raises(DataError, match=words):
            from_dict(given | change)
    twice = from_dict(given | {"phi": np.full(bins.n_angles, 30.0)})
    assert any("count as separate measurements" in note for note in twice.provenance.notes)


def test_bins_by_a_clock_count_from_its_first_frame(bins):
    given, start = mapping(bins), 1.7e9
    found = from_dict(given | {"t": given["t"] + start, "ages": given["ages"] + start})
    np.testing.assert_allclose(found.t, given["t"] - given["t"][0], atol=1e-6)
    np.testing.assert_allclose(found.bins.ages, given["ages"] - given["t"][0], atol=1e-6)
    np.testing.assert_array_equal(found.bins.age, bins.bins.age)
    assert any("the time of a clock" in note for note in found.provenance.notes)
