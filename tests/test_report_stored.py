"""Results of maps that stay in their file: what is shown and written is what memory would hold."""

import dataclasses

import h5py
import numpy as np
import pytest
from helpers_data import two_time

from xpcs_eqx.data import BandReader, Selection, load, open_stored, write_own
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import two_time_objective
from xpcs_eqx.parameters import parameter_map
from xpcs_eqx.physics import PowerLawRate, Static
from xpcs_eqx.report import (
    fitted_bands,
    fitted_maps,
    is_stored,
    maps,
    shown_maps,
    write_fitted_data,
)
from xpcs_eqx.report.method import sigma_text
from xpcs_eqx.report.plots import write_plots
from xpcs_eqx.report.plots.surfaces import ordinal

N = 37
FIELDS = ("c2", "fitted", "residual", "used", "root_weights")
SELECTIONS = {
    "plain": {},
    "rule": {"selection": Selection(bad_frames=(5,), min_lag=2, phi_ranges=((-10.0, 50.0),))},
    "mask": {"selection": Selection(pair_mask=np.random.default_rng(1).random((N, N)) > 0.1)},
    "sigma": {"sigma": 0.02},
    "mad": {"sigma": "mad"},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("stored") / "maps.h5")
    data = two_time(n=N)
    c2 = np.array(data.c2)
    c2[0, 3, 9] = c2[0, 9, 3] = np.nan
    write_own(path, dataclasses.replace(data, c2=c2))
    return path


@pytest.fixture(scope="module")
def fitted(path):
    data = load(path)
    model = Static(PowerLawRate(1.2 / (0.4 * 0.0054**2), 0.0, 0.0))
    parameters = parameter_map(model, data.t, fixed=("D_offset",))
    return least_squares(two_time_objective(parameters, data))


def both(path, fitted, **keywords):
    """The same fit with the maps in memory and in their file."""
    out = []
    for data in (load(path, **keywords), open_stored(path, **keywords)):
        objective = two_time_objective(fitted.objective.term.parameters, data)
        n = data.n_angles
        surface = dataclasses.replace(
            fitted.fitted, contrast=fitted.contrast[:n], offset=fitted.offset[:n]
        )
        out.append(dataclasses.replace(fitted, objective=objective, fitted=surface))
    return out


@pytest.fixture(params=[N * N, 5 * N], ids=["whole", "bands"])
def band(request, monkeypatch):
    monkeypatch.setattr(maps, "_BAND", request.param)


@pytest.mark.parametrize("name", SELECTIONS)
def test_maps_are_those_of_memory(path, fitted, band, name):
    memory, stored = both(path, fitted, **SELECTIONS[name])
    assert is_stored(stored)
    assert not is_stored(memory)
    wanted = fitted_maps(memory)
    n_angles = len(wanted.phi)
    found = fitted_maps(stored)
    off = ~np.eye(N, dtype=bool)
    for field in FIELDS:
        here, there = getattr(found, field), getattr(wanted, field)
        if there is None:
            assert here is None, field
            continue
        # Where nothing counts, and on the diagonal, it means nothing.
        keep = wanted.used if field == "root_weights" else off
        np.testing.assert_allclose(
            np.where(keep, here, 0), np.where(keep, there, 0), rtol=1e-6, atol=1e-12, err_msg=field
        )
    thin = fitted_maps(stored, [n_angles - 1], slice(1, N, 3))
    np.testing.assert_array_equal(thin.t, wanted.t[1::3])
    np.testing.assert_allclose(thin.fitted[0], wanted.fitted[-1][1::3, 1::3], rtol=1e-6)
    np.testing.assert_array_equal(thin.used[0], wanted.used[-1][1::3, 1::3])
    assert (thin.step, thin.n_angles) == (3, n_angles)


def test_fitted_data_is_written_band_by_band(tmp_path, path, fitted, band):
    memory, stored = both(path, fitted, sigma="mad")
    target = str(tmp_path / "fitted.h5")
    write_fitted_data(target, stored)
    wanted = fitted_maps(memory)
    off = ~np.eye(N, dtype=bool)
    with h5py.File(target) as file:
        assert file["c2"].chunks == (1, N, N)
        for field in ("t", "phi", "q", "gap"):
            np.testing.assert_allclose(file[field][()], getattr(wanted, field))
        for field in FIELDS:
            keep = wanted.used if field == "root_weights" else off
            found, expected = (
                np.where(keep, a, 0) for a in (file[field][()], wanted.__dict__[field])
            )
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12, err_msg=field)


def test_no_more_than_a_band_is_read_at_once(path, fitted, monkeypatch):
    _, stored = both(path, fitted)
    monkeypatch.setattr(maps, "_BAND", 4 * N)
    heights, read = [], BandReader.band

    def counted(self, angle, rows):
        heights.append(rows.stop - rows.start)
        return read(self, angle, rows)

    monkeypatch.setattr(BandReader, "band", counted)
    shapes = {band.c2.shape for band in fitted_bands(stored, 0)}
    assert max(heights) == 4
    assert sum(heights) == N
    assert shapes == {(4, N), (1, N)}


def test_what_is_shown_does_not_grow_with_the_maps(tmp_path, path, fitted, monkeypatch):
    _, stored = both(path, fitted)
    monkeypatch.setattr(maps, "FRAMES", 10)
    monkeypatch.setattr(maps, "MIDDLE", 12)
    thin, middle = shown_maps(stored)
    assert (thin.c2.shape, thin.step) == ((3, 10, 10), 4)
    np.testing.assert_array_equal(middle.t, stored.objective.term.t[12:24])
    names = write_plots(str(tmp_path), stored)
    assert {"maps.png", "c2_against_lag.png", "residuals.png"} <= set(names)
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)


@pytest.mark.parametrize("name", SELECTIONS)
def test_fitted_data_of_maps_in_memory_become_an_archive(tmp_path, path, fitted, band, name):
    memory, _ = both(path, fitted, **SELECTIONS[name])
    target = str(tmp_path / "fitted.npz")
    write_fitted_data(target, memory)
    wanted = fitted_maps(memory)
    with np.load(target, allow_pickle=False) as file:
        names = {*FIELDS, "t", "phi", "q", "gap"}
        assert set(file) == names - ({"root_weights"} if wanted.root_weights is None else set())
        for field in file:
            np.testing.assert_array_equal(file[field], getattr(wanted, field), err_msg=field)


def test_numbers_as_they_count():
    assert [ordinal(k) for k in (2, 3, 4, 11, 21, 112)] == [
        "2nd", "3rd", "4th", "11th", "21st", "112th"
    ]  # fmt: skip


@pytest.mark.parametrize("name", SELECTIONS)
def test_what_is_known_of_sigma_is_said_alike(path, fitted, name):
    memory, stored = both(path, fitted, **SELECTIONS[name])
    assert sigma_text(stored) == sigma_text(memory)
    said = {"sigma": "given", "mad": "relative or estimated"}.get(name, "not given")
    assert sigma_text(stored).startswith(said)
