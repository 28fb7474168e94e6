"""Diagonal for display, robust noise, memory of a large load."""

import tracemalloc

import numpy as np
import pytest
from helpers_data import loader_form, symmetric_maps, two_time

from xpcs_eqx.data import (
    Basic,
    Interpolation,
    Statistical,
    TrimmedMean,
    correct_diagonal,
    from_dict,
    load,
    mad_sigma,
    write_aps_u,
    write_own,
)
from xpcs_eqx.data.diagonal import mean, median
from xpcs_eqx.errors import DataError

METHODS = (
    Basic(),
    Statistical(1, mean),
    Statistical(3, median),
    Statistical(5, TrimmedMean(0.2)),
    Statistical(40, TrimmedMean()),
    Interpolation(),
)


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("n", [2, 3, 4, 5, 12])
def test_only_the_diagonal_changes(method, n):
    c2 = symmetric_maps(2, n)
    before = c2.copy()
    shown = correct_diagonal(c2, method)
    np.testing.assert_array_equal(c2, before)
    off = ~np.eye(n, dtype=bool)
    np.testing.assert_array_equal(shown[:, off], c2[:, off])
    i = np.arange(n)
    assert np.all(shown[:, i, i] >= c2[:, off].min())
    assert np.all(shown[:, i, i] <= c2[:, off].max() + 0.05)
    # what stood there does not matter
    c2[:, i, i] = np.nan
    np.testing.assert_array_equal(correct_diagonal(c2, method), shown)


def test_basic_is_the_mean_of_the_side_band():
    c2 = symmetric_maps(1, 6)[0]
    shown = np.diagonal(correct_diagonal(c2, Basic()))
    np.testing.assert_allclose(shown[2], (c2[2, 1] + c2[2, 3]) / 2)
    np.testing.assert_allclose(shown[[0, 5]], [c2[0, 1], c2[4, 5]])
    np.testing.assert_allclose(shown, np.diagonal(correct_diagonal(c2, Statistical(1, mean))))


def test_interpolation_follows_a_cubic_along_the_row():
    i = np.arange(9.0)
    c2 = 1 + (i[:, None] - i[None, :]) ** 2 * 0.1
    shown = correct_diagonal(c2, Interpolation())
    np.testing.assert_allclose(np.diagonal(shown)[2:-2], 1)


def test_statistical_resists_an_outlier():
    c2 = np.ones((9, 9))
    c2[4, 5] = c2[5, 4] = 100
    assert np.diagonal(correct_diagonal(c2, Statistical(3, median)))[4] == 1
    assert np.diagonal(correct_diagonal(c2, Statistical(3, TrimmedMean(0.2))))[4] == 1
    assert np.diagonal(correct_diagonal(c2, Statistical(3, mean)))[4] > 1


def test_display_options_are_checked():
    with pytest.raises(DataError, match="window"):
        Statistical(0)
    with pytest.raises(DataError, match="fraction"):
        TrimmedMean(0.5)
    with pytest.raises(DataError, match="square"):
        correct_diagonal(np.ones((3, 4)), Basic())


@pytest.mark.parametrize("n", [60, 300, 1200])
@pytest.mark.parametrize("sigma", [1e-3, 0.1])
def test_noise_estimate_ignores_signal_and_outliers(n, sigma):
    c2 = symmetric_maps(1, n, seed=n, noise=sigma)[0]
    assert mad_sigma(c2) == pytest.approx(sigma, rel=0.1 if n < 100 else 0.02)
    rng = np.random.default_rng(1)
    for i, j in rng.integers(0, n, (n // 3, 2)):
        c2[i, j] = c2[j, i] = 50
    c2[3] = np.nan
    assert mad_sigma(c2) == pytest.approx(sigma, rel=0.2 if n < 100 else 0.05)


def test_noise_estimate_of_every_other_frame():
    noise = np.random.default_rng(2).normal(0, 0.03, (80, 80))
    used = np.zeros((80, 80), bool)
    used[::2, ::2] = True
    smooth = 1 + 0.2 * np.exp(-0.02 * np.abs(np.subtract.outer(np.arange(80), np.arange(80))))
    assert mad_sigma(smooth + noise, used) == pytest.approx(0.03, rel=0.1)


def test_noise_estimate_needs_neighbours():
    with pytest.raises(DataError, match="cannot be estimated"):
        mad_sigma(np.ones((3, 3)))
    with pytest.raises(DataError, match="cannot be estimated"):
        mad_sigma(np.full((30, 30), np.nan))


@pytest.mark.parametrize(
    ("write", "options"), [(write_own, {}), (write_aps_u, {"half": True})], ids=["full", "half"]
)
@pytest.mark.parametrize("masked", [False, True])
def test_loading_needs_little_more_than_the_maps(tmp_path, write, options, masked):
    data = two_time(phi=tuple(range(23)), n=301, dtype=np.float32)
    if masked:
        c2 = np.array(data.c2)
        c2[4, 5, 60] = np.nan
        data = from_dict(loader_form(data) | {"c2_exp": c2})
    write(tmp_path / "maps.h5", data, **options)
    load(tmp_path / "maps.h5")
    tracemalloc.start()
    try:
        found = load(tmp_path / "maps.h5")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * found.c2.nbytes
