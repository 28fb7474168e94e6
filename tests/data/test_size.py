"""The size of maps before they are read, and what reading them takes."""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from helpers_data import loader_form, two_time

from xpcs_eqx.data import (
    LAYOUTS,
    GenericLayout,
    Selection,
    joint_sizes,
    load,
    load_joint,
    map_size,
    open_stored,
    open_stored_joint,
    write_aps_u,
    write_npz,
    write_own,
)
from xpcs_eqx.errors import DataError

N = 12


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "maps.h5")
    write_own(path, two_time(n=N))
    return path


CASES = (
    ({}, 1),
    ({"sigma": 0.1}, 2),
    ({"selection": Selection(start_frame=3, end_frame=9, phi_ranges=((-1.0, 50.0),))}, 1),
    ({"selection": Selection(bad_frames=(2,))}, 2),
)


@pytest.mark.parametrize(("keywords", "copies"), CASES)
def test_it_is_what_load_takes(path, keywords, copies):
    size, data = map_size(path, **keywords), load(path, **keywords)
    assert (size.n_entries, size.n_angles) == (data.c2.size, data.n_angles)
    held = data.c2.nbytes + (0 if data.root_weights is None else data.root_weights.nbytes)
    assert size.n_entries * size.itemsize == held == copies * data.c2.nbytes
    np.testing.assert_array_equal(size.t, open_stored(path, **keywords).t)
    assert size.in_parts


@pytest.mark.parametrize(
    "selection", [{}, {"q": (0.004, 0.006)}, {"q": (0.004, 0.006), "merge_q": True}]
)
@pytest.mark.parametrize("more", [{}, {"sigma": 0.1}, {"selection": {"min_lag": 3}}])
def test_of_several_q_it_is_that_of_each(tmp_path, selection, more):
    path = str(tmp_path / "all.hdf")
    write_aps_u(path, [two_time(n=N, q=q) for q in (0.004, 0.006, 0.008)])
    more = {**more, "selection": Selection(**selection, **more.get("selection", {}))}
    read, sizes = load_joint(path, **more), joint_sizes(path, **more)
    for data, size in zip(read, sizes, strict=True):
        held = data.c2.nbytes + (0 if data.root_weights is None else data.root_weights.nbytes)
        assert size.n_entries * size.itemsize == held
        assert (size.n_angles, size.in_parts) == (data.n_angles, True)
        np.testing.assert_array_equal(size.t, data.t)
    stored = open_stored_joint(path, **more)
    for data, one in zip(read, stored, strict=True):
        assert float(one.geometry.q) == float(data.geometry.q)
        np.testing.assert_array_equal(one.angle(1).c2[0], data.c2[1])


def test_files_of_numpy_tell_it_in_their_header(tmp_path):
    path, data = str(tmp_path / "maps.npz"), two_time(n=N)
    write_npz(path, data)
    np.save(tmp_path / "maps.npy", data.c2)
    # Packed to a fraction, it is as large in memory.
    np.savez_compressed(tmp_path / "packed.npz", **dict(np.load(path)))
    np.savez(tmp_path / "other.npz", names=np.array([{}]), maps=data.c2)
    named = {"other.npz": {"layout": GenericLayout("maps")}}
    for name in ("maps.npz", "maps.npy", "packed.npz", "other.npz"):
        size = map_size(str(tmp_path / name), **named.get(name, {}))
        assert not size.in_parts
        assert size.n_entries * size.itemsize == data.c2.nbytes
        assert joint_sizes(str(tmp_path / name), **named.get(name, {})) == (size,)


TYPES = ("u1", "i1", "i2", ">i4", "i8", "?", "f2", "f4", ">f4", "f8", ">f8")


def whole_numbers(dtype):
    """Maps whose numbers any of these types holds, up to the largest of the smallest."""
    data = two_time(n=N)
    c2 = np.round(120 * (data.c2 - data.c2.min()) / np.ptp(data.c2))
    return data, (c2 > 60 if dtype == "?" else c2).astype(dtype)


def stored_as(folder, name, dtype):
    """A file of these maps and the keywords by which it is read."""
    data, c2 = whole_numbers(dtype)
    path, how = str(folder / name), {"baseline": 1}
    if name == "own.h5":
        write_own(path, data)
        with h5py.File(path, "r+") as file:
            del file["c2"]
            file["c2"] = c2
    elif name == "maps.npy":
        np.save(path, c2)
        how |= {"phi": data.geometry.phi, "q": 0.0054, "dt": 0.1}
    elif name == "loader.npz":
        np.savez(path, **loader_form(data) | {"c2_exp": c2})
    else:
        np.savez(path, maps=np.moveaxis(c2, 0, -1))
        layout = GenericLayout("maps", axis="last", q=0.0054, phi=data.geometry.phi)
        how |= {"layout": layout, "dt": 0.1}
    return path, how


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["own.h5", "maps.npy", "loader.npz", "described.npz"])
def test_it_is_that_of_the_numbers_as_they_are_worked_on(tmp_path, name, dtype):
    path, how = stored_as(tmp_path, name, dtype)
    data, size = load(path, **how), map_size(path, **how)
    assert size.n_entries * size.itemsize == data.c2.nbytes
    assert data.c2.dtype == (np.float32 if dtype in ("f2", "f4", ">f4") else np.float64)
    np.testing.assert_array_equal(data.c2, whole_numbers(dtype)[1].astype(float))
    weighed = load(path, sigma=0.1, **how)
    size = map_size(path, sigma=0.1, **how)
    assert size.n_entries * size.itemsize == weighed.c2.nbytes + weighed.root_weights.nbytes
    limits = Selection(min_lag=3)
    assert map_size(path, selection=limits, **how).itemsize == 2 * data.c2.itemsize


def test_a_sigma_in_the_file_counts(tmp_path):
    path = str(tmp_path / "maps.npz")
    write_npz(path, two_time(n=N, sigma=0.02))
    size, data = map_size(path), load(path)
    assert size.n_entries * size.itemsize == data.c2.nbytes + data.root_weights.nbytes


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("symmetrise", ["mean", "upper", None])
def test_maps_that_stay_in_their_file_are_those_of_load(tmp_path, dtype, symmetrise):
    """Sums and differences of small integers are none of them."""
    path, how = stored_as(tmp_path, "own.h5", dtype)
    if symmetrise is not None:
        with h5py.File(path, "r+") as file:
            file["c2"][:, 7, 3] = file["c2"][:, 3, 7] + (1 if dtype != "?" else 0)
        how["symmetrise"] = symmetrise
    data, stored = load(path, **how), open_stored(path, **how)
    for angle in range(data.n_angles):
        np.testing.assert_array_equal(stored.angle(angle).c2[0], data.c2[angle])
    assert stored.provenance.notes == data.provenance.notes


# What reading takes at its peak over what is said of it, for files of one kind after another.
MEASURED = """
import json, sys
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np
from xpcs_eqx.data import GenericLayout, load, map_size

def memory(name):
    with open("/proc/self/status") as status:
        return 1024 * int(next(line for line in status if line.startswith(name)).split()[1])

folder, n = sys.argv[1], 1000
t = 0.1 * np.arange(n)
c2 = np.round(100 + 20 * np.exp(-np.abs(t[:, None] - t) / 30))

def measured(kind, dtype, angles):
    path, how = f"{folder}/{kind}", {"dt": 0.1, "baseline": 0}
    phi, many = np.linspace(0, 90, angles), np.broadcast_to(c2.astype(dtype), (angles, n, n))
    with open(path, "wb") as stream:
        if kind == "npy":
            np.save(stream, many)
            how |= {"phi": phi, "q": 0.0054}
        elif kind == "npz":
            np.savez(stream, c2_exp=many, phi_angles_list=phi, t1=t, t2=t,
                     wavevector_q_list=[0.0054])
        else:
            np.savez(stream, c2=many)
            how["layout"] = GenericLayout("c2", q=0.0054, phi=0.0)
    size = map_size(path, **how)
    before = memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    data = load(path, **how)
    said = size.n_entries * size.itemsize
    return (memory("VmHWM") - before) / said, data.c2.nbytes / said

found = {}
for kind, dtype in (("npy", ">f8"), ("npz", "i8"), ("npz", "u1"), ("described", "f8")):
    # Once for what is imported, and once to be measured.
    measured(kind, dtype, 1)
    found[f"{kind} {dtype}"] = measured(kind, dtype, 12)
print(json.dumps(found))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")
def test_reading_holds_no_two_copies(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 4
    for kind, (peak, kept) in found.items():
        assert kept == 1, kind
        assert peak < 2, (kind, found)
    assert max(peak for peak, _ in found.values()) > 1


def test_mistakes_beside_the_maps_are_those_of_load(path):
    for wrong in ({"dt": 7.0}, {"selection": Selection(end_frame=99)}, {"q": 0.1}):
        with pytest.raises(DataError) as expected:
            load(path, **wrong)
        with pytest.raises(DataError) as found:
            map_size(path, **wrong)
        assert str(found.value) == str(expected.value)
    for layout in (None, *LAYOUTS):
        with pytest.raises(DataError, match="there is no such file"):
            map_size(path + "x", layout=layout)
