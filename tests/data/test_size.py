"""The size of maps before they are read."""

import numpy as np
import pytest
from helpers_data import two_time

from xpcs_eqx.data import (
    LAYOUTS,
    GenericLayout,
    Selection,
    load,
    map_size,
    open_stored,
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
