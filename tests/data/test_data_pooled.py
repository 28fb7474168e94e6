"""Unstructured points: indices instead of times, every unordered pair once."""

import numpy as np
import pytest
from helpers_data import two_time

from xpcs_eqx.data import PooledData, Selection, from_dict
from xpcs_eqx.errors import DataError


def points(data, both=True, shuffle=None):
    """Flat points of all maps: both triangles and the diagonal, or the upper triangle only."""
    n = data.n_frames
    a, i, j = (x.reshape(-1) for x in np.indices((data.n_angles, n, n)))
    keep = np.ones(a.size, bool) if both else i < j
    order = np.flatnonzero(keep)
    if shuffle is not None:
        order = np.random.default_rng(shuffle).permutation(order)
    a, i, j = a[order], i[order], j[order]
    return {
        "data": data.c2[a, i, j],
        "t1": data.t[i],
        "t2": data.t[j],
        "phi": data.geometry.phi[a],
        "q": 0.0054,
    }


def same(found, wanted):
    for name in ("values", "first", "second", "angle", "t"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


@pytest.fixture
def data():
    return two_time(phi=(-10.0, 20.0, 35.0))


def test_points_agree_with_maps(data):
    found = from_dict(points(data))
    assert isinstance(found, PooledData)
    assert np.all(found.first < found.second)
    assert found.n_pairs == data.n_pairs == found.values.size
    np.testing.assert_array_equal(found.values, data.c2[found.angle, found.first, found.second])
    np.testing.assert_array_equal(found.t, data.t)
    assert found.root_weights is None
    assert any(note.startswith("36 points") for note in found.provenance.notes)
    assert any(note.startswith("198 points repeated") for note in found.provenance.notes)


def test_order_and_duplicates_change_nothing(data):
    wanted = from_dict(points(data, both=False))
    same(from_dict(points(data, shuffle=1)), wanted)
    same(from_dict(points(data, both=False, shuffle=2)), wanted)
    swapped = points(data, both=False)
    swapped["t1"], swapped["t2"] = swapped["t2"], swapped["t1"]
    same(from_dict(swapped), wanted)


def test_times_equal_to_rounding_are_one_frame():
    mapping = {
        "data": [1.1, 1.2, 1.3],
        "t1": [0.1, 0.1, 0.1 + 0.2],
        "t2": [0.3, 0.7, 0.7],
        "phi": [0.0, 0.0, 0.0],
    }
    found = from_dict(mapping)
    assert found.n_frames == 3
    assert found.second.tolist() == [1, 2, 2]


def test_frame_index_is_exact_on_a_long_fine_grid():
    # searching a float grid with floor(t / dt) misses many of these by one
    n, dt = 4000, 0.1
    i = np.arange(n - 1)
    found = from_dict(
        {"data": np.ones(n - 1), "t1": i * dt, "t2": (i + 1) * dt, "phi": np.zeros(n - 1)}
    )
    np.testing.assert_array_equal(found.first, i)
    np.testing.assert_array_equal(found.second, i + 1)


def test_disagreeing_duplicates_are_an_error(data):
    mapping = points(data)
    values = mapping["data"].copy()
    values[1] += 0.1
    with pytest.raises(DataError, match="more than once"):
        from_dict(mapping | {"data": values})


def test_masks_and_sigma(data):
    mapping = points(data, both=False)
    values = mapping["data"].copy()
    values[:5] = np.nan
    sigma = np.full(values.size, 0.02)
    sigma[0] = np.nan  # masked anyway
    found = from_dict(mapping | {"data": values, "sigma": sigma})
    assert found.masked_pairs == 5
    assert found.absolute_sigma
    assert np.all(found.values[found.root_weights == 0] == 0)
    np.testing.assert_allclose(found.root_weights[found.root_weights > 0], 50)
    selection = Selection(
        start_frame=2, end_frame=9, min_lag=2, bad_frames=(3,), phi_ranges=((0, 30),)
    )
    cut = from_dict(mapping, selection=selection)
    assert cut.geometry.phi.tolist() == [20.0]
    assert cut.t[0] == pytest.approx(0.1)
    assert cut.values.size == 28
    assert cut.n_pairs == 28 - 7 - 7 + 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phi": [0.0]}, "phi has 1 values"),
        ({"data": np.ones((3, 3))}, "flat list"),
        ({"data": []}, "flat list"),
        ({"t1": None}, "'t1' is missing"),
        ({"phi": [0.0, np.nan, 0.0]}, "map 2 is nan"),
        ({"t1": [0.0, np.inf, 0.1]}, "t1 holds values"),
        ({"sigma": [1.0, 0.0, 1.0]}, "above zero"),
        ({"sigma": [1.0]}, "sigma has shape"),
        ({"q": -1.0}, "q is -1"),
        ({"L": 0.0}, "L is 0"),
        ({"dt": 3.0}, "1 %"),
        ({"data": [np.nan] * 3}, "no finite pair"),
        ({"t2": [0.0, 0.0, 0.1]}, "two|empty"),
    ],
)
def test_bad_points_are_explained(change, words):
    mapping = {
        "data": [1.1, 1.2, 1.3],
        "t1": [0.0, 0.0, 0.1],
        "t2": [0.1, 0.2, 0.2],
        "phi": [0.0, 0.0, 0.0],
    } | change
    with pytest.raises(DataError, match=words):
        from_dict({key: value for key, value in mapping.items() if value is not None})


def test_points_without_their_baseline_get_it():
    data = two_time(phi=(-10.0, 20.0), n=40)
    whole = from_dict(points(data))
    lowered = points(data)
    lowered["data"] = lowered["data"] - 1
    found = from_dict(lowered)
    assert found.provenance.baseline_guessed
    assert not whole.provenance.baseline_guessed
    np.testing.assert_allclose(found.values, whole.values)
    np.testing.assert_allclose(from_dict(lowered, baseline=1).values, whole.values - 1)
    np.testing.assert_allclose(from_dict(lowered, baseline=0).values, whole.values)


def test_points_by_a_clock_count_from_its_first_frame(data):
    given, wanted = points(data), from_dict(points(data))
    moved = {key: given[key] + 1.7e9 for key in ("t1", "t2")}
    found = from_dict(given | moved)
    np.testing.assert_allclose(found.t, wanted.t - wanted.t[0], atol=1e-6)
    np.testing.assert_array_equal(found.values, wanted.values)
    late = from_dict(given | moved, selection=Selection(time_origin=5.0))
    np.testing.assert_allclose(late.t, 5 + wanted.t - wanted.t[0], atol=1e-6)
