"""Both dictionary forms, symmetric duplicates, half maps, selection and masks."""

import inspect
import subprocess
import sys
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers_data import assert_same_fit_input, loader_form, symmetric_maps, two_time

from xpcs_eqx.data import (
    GenericLayout,
    Geometry,
    PooledData,
    Provenance,
    Selection,
    TwoTimeData,
    from_dict,
    load,
)
from xpcs_eqx.errors import DataError


def test_loader_and_direct_form_mean_the_same():
    data = two_time()
    loader = loader_form(data)
    direct = {
        "phi": data.geometry.phi,
        "g2": data.c2,
        "t1": data.t,
        "t2": data.t,
        "q": 0.0054,
        "L": 2e6,
        "dt": 0.1,
    }
    assert_same_fit_input(from_dict(loader), data)
    assert_same_fit_input(from_dict(direct), data)


@pytest.mark.parametrize("indexing", ["ij", "xy"])
def test_meshgrids_are_times_too(indexing):
    data = two_time()
    t1, t2 = np.meshgrid(data.t, data.t, indexing=indexing)
    assert_same_fit_input(from_dict(loader_form(data) | {"t1": t1, "t2": t2}), data)


def test_times_in_memory_are_used_as_they_are():
    data = replace(two_time(), t=np.cumsum(np.linspace(0.1, 0.3, 12)) + 5)
    found = from_dict(loader_form(data), selection=Selection(start_frame=4))
    np.testing.assert_array_equal(found.t, data.t[3:])


def test_times_of_two_precisions_are_the_same_times():
    data, single = two_time(), two_time().t.astype(np.float32)
    for t1, t2 in ((single, data.t), (data.t, single)):
        found = from_dict(loader_form(data) | {"t1": t1, "t2": t2})
        np.testing.assert_array_equal(found.t, data.t)
    with pytest.raises(DataError, match="t1 and t2 differ"):
        from_dict(loader_form(data) | {"t1": single, "t2": data.t + 1e-5})


def test_times_that_count_frames_are_remarked():
    data = two_time()
    for first in (0, 1):
        frames = np.arange(12) + first
        notes = from_dict(loader_form(data) | {"t1": frames, "t2": frames}).provenance.notes
        assert any("as numbers of frames do" in note for note in notes)
    assert not any("frames do" in note for note in from_dict(loader_form(data)).provenance.notes)


def test_times_of_a_clock_count_from_the_first_frame(tmp_path):
    data = two_time()
    for start in (1.7e9, 9.1e8):
        given = loader_form(data) | {"t1": data.t + start, "t2": data.t + start}
        found = from_dict(given)
        np.testing.assert_allclose(found.t, data.t, atol=1e-6)
        assert any("the time of a clock" in note for note in found.provenance.notes)
        found = from_dict(given, selection=Selection(time_origin=3.0, start_frame=5))
        np.testing.assert_allclose(found.t, 3 + data.t[4:], atol=1e-6)
        path = tmp_path / "clock.npz"
        np.savez(path, **given)
        layout = GenericLayout("c2_exp", q=0.0054, phi="phi_angles_list", t="t1")
        for read in (load(path), load(path, layout=layout)):
            np.testing.assert_allclose(read.t, data.t, atol=1e-6)
    # Milliseconds, and what is no time at all.
    for start in (1.7e12, -1.7e9):
        with pytest.raises(DataError, match="nor that of a clock"):
            from_dict(loader_form(data) | {"t1": data.t + start, "t2": data.t + start})
    # Those of a clock that were saved in numbers too short for them.
    for start, coarse in ((1.7e9, "128"), (9.1e8, "64")):
        rounded = (data.t + start).astype(np.float32)
        with pytest.raises(DataError, match=f"32 bits, as these are, tell times .* {coarse} s"):
            from_dict(loader_form(data) | {"t1": rounded, "t2": rounded})
    twice = np.where(np.arange(12) == 5, data.t[4], data.t)
    with pytest.raises(DataError, match="Sort frames and maps"):
        from_dict(loader_form(data) | {"t1": twice, "t2": twice})
    late = from_dict(loader_form(data) | {"t1": data.t + 2e5, "t2": data.t + 2e5})
    np.testing.assert_array_equal(late.t, data.t + 2e5)
    assert "By t1 the first frame was 200000 s after the start." in late.provenance.notes


def test_arrays_that_are_not_read_are_named(tmp_path):
    data = two_time()
    sigma = np.full(data.c2.shape, 0.01)
    given = loader_form(data) | {"Sigma": sigma, "weights": sigma, "DT": 0.1}
    np.savez(tmp_path / "maps.npz", **given)
    said = "Not read: 'Sigma' (did you mean 'sigma'?), 'weights', 'DT' (did you mean 'dt'?)."
    for found in (from_dict(given), load(tmp_path / "maps.npz")):
        assert said in found.provenance.notes
    assert not any("Not read" in note for note in from_dict(loader_form(data)).provenance.notes)
    np.savez(tmp_path / "other.npz", corr=data.c2, times=data.t)
    with pytest.raises(DataError, match=r"holds 'corr' \(3, 12, 12\), 'times'") as caught:
        load(tmp_path / "other.npz")
    for word in ("c2_exp", "g2", "ttcf", "generic", "age_lag"):
        assert word in str(caught.value)


def test_a_bare_map_without_its_azimuth_has_none(tmp_path):
    np.save(tmp_path / "map.npy", two_time().c2[0])
    bare = load(tmp_path / "map.npy", q=0.0054, dt=0.1)
    assert not bare.provenance.azimuths
    assert any("No azimuths are known" in note for note in bare.provenance.notes)
    assert load(tmp_path / "map.npy", q=0.0054, dt=0.1, phi=0.0).provenance.azimuths


def test_permuting_maps_and_angles_together_changes_nothing():
    data = two_time(phi=(-40.0, 0.0, 0.0, 25.0))
    order = np.array([2, 0, 3, 1])
    mapping = loader_form(data)
    mapping["c2_exp"], mapping["phi_angles_list"] = data.c2[order], data.geometry.phi[order]
    selection = Selection(phi_ranges=((-1, 30),))
    found, wanted = from_dict(mapping, selection=selection), from_dict(loader_form(data))
    for angle, phi in enumerate(found.geometry.phi):
        partner = {0: 2, 1: 3, 2: 1}[angle]
        assert phi == wanted.geometry.phi[partner]
        np.testing.assert_array_equal(found.c2[angle], wanted.c2[partner])


def test_half_maps_are_completed_and_full_ones_counted_once():
    data = two_time(n=300, phi=(0.0, 1.0, 2.0, 3.0))
    c2 = np.array(data.c2)
    c2[1] = np.triu(c2[1])
    c2[2] = np.tril(c2[2])
    c2[3][np.tril_indices(300, -1)] = np.nan
    before = c2.copy()
    found = from_dict(loader_form(data) | {"c2_exp": c2})
    assert_same_fit_input(found, data)
    np.testing.assert_array_equal(c2, before)  # the caller's array is not touched
    assert found.n_pairs == 4 * 300 * 299 // 2


def test_rounding_is_no_asymmetry_but_more_is():
    data = two_time(n=200)
    c2 = np.array(data.c2, np.float32)
    c2[0, 7, 190] *= 1 + 3e-7
    from_dict(loader_form(data) | {"c2_exp": c2})
    c2[0, 7, 190] *= 1.001
    with pytest.raises(DataError, match=r"c2_exp\[0\].*asymmetry.*\(8, 191\)"):
        from_dict(loader_form(data) | {"c2_exp": c2})


def test_full_arrays_are_taken_over_without_a_copy():
    data = two_time()
    assert np.shares_memory(from_dict(loader_form(data)).c2, data.c2)


def test_diagonal_never_counts_and_is_kept_apart():
    data = two_time()
    c2 = np.array(data.c2)
    i = np.arange(12)
    c2[:, i, i] = 7.0
    c2[1, 3, 3] = np.nan
    found = from_dict(loader_form(data) | {"c2_exp": c2})
    assert found.n_pairs == 3 * 66
    assert found.root_weights is None
    assert np.isnan(found.diagonal[1, 3])
    assert np.nansum(found.diagonal) == 7 * 35
    c2[:, i, i] = 0
    assert np.all(np.isnan(from_dict(loader_form(data) | {"c2_exp": c2}).diagonal))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f8", np.int32])
def test_precision_is_kept_and_odd_types_are_widened(dtype):
    c2 = (100 * symmetric_maps(1, 8)).astype(dtype)
    found = from_dict(loader_form(two_time(phi=(0.0,), n=8)) | {"c2_exp": c2})
    wide = np.float32 if np.dtype(dtype) in (np.float16, np.float32) else np.float64
    assert found.c2.dtype == wide
    np.testing.assert_array_equal(found.c2, c2.astype(wide))


def test_given_sigma_is_absolute_and_checked():
    data = two_time()
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.01, 0.02, data.c2.shape)
    sigma = np.triu(sigma) + np.swapaxes(np.triu(sigma, 1), 1, 2)
    found = from_dict(loader_form(data) | {"sigma": sigma})
    i, j = np.triu_indices(12, 1)
    np.testing.assert_allclose(found.root_weights[:, i, j], 1 / sigma[:, i, j])
    assert found.absolute_sigma
    sigma[:, np.arange(12), np.arange(12)] = 0  # the diagonal is no pair
    from_dict(loader_form(data) | {"sigma": sigma})
    for bad in (0.0, -1.0, np.nan):
        sigma[2, 4, 5] = sigma[2, 5, 4] = bad
        with pytest.raises(DataError, match=r"sigma of c2_exp\[2\]"):
            from_dict(loader_form(data) | {"sigma": sigma})
    c2 = np.array(data.c2)
    c2[2, 4, 5] = np.nan  # a masked pair needs no sigma
    assert from_dict(loader_form(data) | {"sigma": sigma, "c2_exp": c2}).n_pairs == 3 * 66 - 1


def test_constant_and_estimated_sigma():
    data = two_time(n=80)
    given = from_dict(loader_form(data), sigma=0.02)
    assert given.absolute_sigma
    assert np.all(given.root_weights == 50)
    estimated = from_dict(loader_form(data), sigma="mad")
    assert not estimated.absolute_sigma
    np.testing.assert_allclose(estimated.root_weights[:, 0, 1], 100, rtol=0.05)
    with pytest.raises(DataError, match="too smooth"):
        from_dict(loader_form(data) | {"c2_exp": np.ones((3, 80, 80))}, sigma="mad")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"c2_exp": None}, "no maps found.*phi_angles_list|no maps found"),
        ({"t1": None}, "'t1' is missing"),
        ({"t1": np.arange(11.0)}, "t1 has 11 times but the maps have 12"),
        ({"t2": np.arange(12) + 0.5}, "t1 and t2 differ"),
        ({"t1": np.arange(12.0)[::-1], "t2": np.arange(12.0)[::-1]}, "do not increase"),
        ({"t1": np.full(12, np.nan), "t2": np.full(12, np.nan)}, "finite"),
        ({"phi_angles_list": [1.0, 2.0]}, "lists 2 values but there are 3 maps"),
        ({"phi_angles_list": [1.0, np.nan, 2.0]}, "angle phi_angles_list of map 2 is nan"),
        ({"wavevector_q_list": [0.005, 0.006, 0.005]}, "one q"),
        ({"wavevector_q_list": [-0.005]}, "q must be above zero"),
        ({"wavevector_q_list": []}, "one q"),
        ({"L": 0.0}, "L is 0"),
        ({"dt": 0.0}, "dt is 0"),
        ({"dt": 1.0}, "differs by more than 1 %"),
        ({"c2_exp": np.ones((3, 12, 11))}, "square"),
        ({"c2_exp": np.ones((1, 3, 12, 12))}, "needed"),
        ({"c2_exp": np.full((3, 12, 12), np.inf)}, "no finite pair"),
        ({"sigma": np.ones((3, 12, 11))}, "sigma has shape"),
        ({"g2": 1}, "several forms"),
    ],
)
def test_bad_dictionaries_are_explained(change, words):
    mapping = loader_form(two_time()) | change
    mapping = {key: value for key, value in mapping.items() if value is not None}
    with pytest.raises(DataError, match=words):
        from_dict(mapping)


def test_near_misses_are_named():
    mapping = loader_form(two_time())
    mapping["wavevector_q"] = mapping.pop("wavevector_q_list")
    with pytest.raises(DataError, match="Did you mean 'wavevector_q'"):
        from_dict(mapping)
    mapping["c2exp"] = mapping.pop("c2_exp")
    with pytest.raises(DataError, match="Did you mean 'c2exp'"):
        from_dict(mapping)


@pytest.mark.parametrize(
    ("ranges", "kept"),
    [
        ((), [-170.0, -90.0, 0.0, 10.0, 175.0, 359.0]),
        (((-10, 10),), [0.0, 10.0, 359.0]),
        (((170, -170),), [-170.0, 175.0]),
        (((350, 5), (-95, -85)), [-90.0, 0.0, 359.0]),
        (((-180, 180),), [-170.0, -90.0, 0.0, 10.0, 175.0, 359.0]),
        (((10, 10),), [10.0]),
    ],
)
def test_phi_ranges_go_around_the_circle(ranges, kept):
    data = two_time(phi=(-170.0, -90.0, 0.0, 10.0, 175.0, 359.0))
    found = from_dict(loader_form(data), selection=Selection(phi_ranges=ranges))
    assert found.geometry.phi.tolist() == kept


def test_masks_of_lags_ages_frames_and_pairs():
    data = two_time()
    user = np.ones((12, 12), bool)
    user[0, 5] = False  # only i < j is looked at
    user[9, 1] = False
    selection = Selection(
        min_lag=2, max_lag=6, age_range=(0.2, 0.9), bad_frames=(4,), pair_mask=user
    )
    found = from_dict(loader_form(data), selection=selection)
    i, j = np.triu_indices(12, 1)
    age = 0.1 * (i + j) / 2
    keep = (j - i >= 2) & (j - i <= 6) & (age >= 0.2 - 1e-12) & (age <= 0.9 + 1e-12)
    keep &= (i != 3) & (j != 3) & ~((i == 0) & (j == 5))
    np.testing.assert_array_equal(found.root_weights[:, i, j], np.tile(keep, (3, 1)))
    np.testing.assert_array_equal(found.root_weights, np.swapaxes(found.root_weights, 1, 2))
    assert found.n_pairs == 3 * keep.sum()
    np.testing.assert_array_equal(found.c2[:, i, j], data.c2[:, i, j] * keep)
    diagonal = np.where(np.arange(12) == 3, np.nan, data.diagonal)
    np.testing.assert_array_equal(found.diagonal, diagonal)
    cut = Selection(start_frame=3, bad_frames=(1, 4), pair_mask=user)
    assert from_dict(loader_form(data), selection=cut).n_pairs == 3 * 36


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start_frame": 0}, "counted from 1"),
        ({"start_frame": 5, "end_frame": 5}, "at least"),
        ({"min_lag": 0}, "lags start at 1"),
        ({"min_lag": 4, "max_lag": 3}, "No lag"),
        ({"q_tolerance": 0.1}, "single q"),
        ({"phi_ranges": ((0, np.nan),)}, "not finite"),
        ({"age_range": (2.0, 1.0)}, "empty"),
        ({"time_origin": np.inf}, "finite"),
    ],
)
def test_impossible_selections_are_refused(options, words):
    with pytest.raises(DataError, match=words):
        Selection(**options)


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection(start_frame=12), "at least two"),
        (Selection(bad_frames=(0,)), "bad frame 0"),
        (Selection(pair_mask=np.ones((5, 5))), "pair_mask has shape"),
        (Selection(pair_mask=np.zeros((12, 12))), "no finite pair"),
        (Selection(age_range=(5.0, 6.0)), "empty"),
        (Selection(time_origin=1.0), "explicitly"),
    ],
)
def test_selections_that_leave_nothing_are_explained(selection, words):
    with pytest.raises(DataError, match=words):
        from_dict(loader_form(two_time()), selection=selection)


def test_real_map(bnl_map):
    data = load(bnl_map, dt=1.0, time_origin=1.0)
    assert data.n_pairs == 61_075
    np.testing.assert_array_equal(data.t, np.arange(1, 351))
    np.testing.assert_array_equal(load(bnl_map).t, data.t)
    np.testing.assert_array_equal(load(bnl_map, dt=0.5).t, 0.5 * np.arange(350))
    part = load(bnl_map, dt=1.0, time_origin=1.0, selection=Selection(start_frame=101))
    assert part.t[0] == 101
    sigma = 1 / load(bnl_map, sigma="mad").root_weights[0, 0, 1]
    # residuals of the reference fit: sqrt(315.539 / 61075) = 0.0719
    assert sigma == pytest.approx(0.0719, rel=0.05)


def test_modules_pass_through_transformations():
    data = two_time()

    @eqx.filter_jit
    def total(data):
        return jnp.sum(data.c2) * data.geometry.q + data.dt

    assert float(total(data)) == pytest.approx(float(data.c2.sum() * 0.0054 + 0.1))
    gradient = jax.grad(lambda g: jnp.sum(jnp.cos(g.phi)) * g.q * g.gap)(data.geometry)
    assert gradient.phi.shape == (3,)
    assert float(gradient.gap) != 0
    assert hash(data.provenance) == hash(Provenance())
    built = jax.jit(lambda q: Geometry(q=q, phi=jnp.zeros(2)))(0.1)
    assert built.n_angles == 2
    assert jax.tree.structure(data) == jax.tree.structure(two_time(seed=5))


def test_shapes_are_checked_on_construction():
    data = two_time()
    for change in (
        {"t": np.arange(5.0)},
        {"diagonal": np.ones((3, 4))},
        {"root_weights": np.ones((2, 12, 12))},
        {"geometry": Geometry(q=0.1, phi=[0.0])},
        {"c2": np.ones((3, 12, 11))},
    ):
        with pytest.raises(DataError, match="shape"):
            replace(data, **change)
    with pytest.raises(ValueError, match="phi has shape"):
        Geometry(q=0.1, phi=0.0)


def test_concrete_classes_are_final():
    for one in (Geometry, Provenance, TwoTimeData, PooledData, Selection):
        assert not inspect.isabstract(one)
        assert not one.__subclasses__()


def test_import_is_light():
    code = (
        "import sys, xpcs_eqx.data; "
        "print([m for m in ('h5py', 'scipy', 'matplotlib', 'pydantic') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
