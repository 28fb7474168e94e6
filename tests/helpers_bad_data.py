"""Files that cannot be used, each with the words its message must contain.

`BAD_FILES` lists functions `make(folder) -> (path, fragments)`; `BAD_CALLS` lists functions
`make(folder) -> (path, keyword arguments of load, fragments)` for good files asked for the
impossible. Every message must contain all fragments, the path always among them.
"""

from dataclasses import replace

import h5py
import numpy as np
from helpers_data import loader_form, two_time

from xpcs_eqx.data import (
    Selection,
    write_aps_old,
    write_aps_u,
    write_npz,
    write_nxxpcs,
    write_own,
)

FIRST_MAP = "xpcs/twotime/correlation_map/c2_00001"


def _aps_u(folder, change=None, name="bad.hdf", **options):
    path = str(folder / name)
    write_aps_u(path, two_time(), **options)
    if change is not None:
        with h5py.File(path, "r+") as file:
            change(file)
    return path


def _replace(file, key, values):
    del file[key]
    file[key] = values


def missing_file(folder):
    path = str(folder / "nowhere.hdf")
    return path, (path, "no such file")


def a_folder(folder):
    return str(folder), (str(folder), "not a file")


def not_hdf5(folder):
    path = str(folder / "notes.hdf")
    with open(path, "w") as stream:
        stream.write("frames were taken at dawn\n" * 40)
    return path, (path, "not an HDF5 file")


def empty_file(folder):
    path = str(folder / "empty.hdf")
    open(path, "wb").close()
    return path, (path, "not an HDF5 file")


def truncated_hdf5(folder):
    path = _aps_u(folder)
    with open(path, "rb") as stream:
        content = stream.read()
    with open(path, "wb") as stream:
        stream.write(content[: len(content) // 2])
    return path, (path, "truncated")


def truncated_npz(folder):
    path = str(folder / "bad.npz")
    write_npz(path, two_time())
    with open(path, "rb") as stream:
        content = stream.read()
    with open(path, "wb") as stream:
        stream.write(content[: len(content) // 2])
    return path, (path, "NPZ", "truncated")


def npz_near_miss(folder):
    path = str(folder / "bad.npz")
    mapping = loader_form(two_time())
    mapping["phi_angle_list"] = mapping.pop("phi_angles_list")
    np.savez(path, **mapping)
    return path, (path, "'phi_angles_list' is missing", "Did you mean 'phi_angle_list'")


def foreign_hdf5(folder):
    path = str(folder / "bad.hdf")
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((2, 3))
    return path, (path, "no known layout", "images")


def half_recognised(folder):
    def change(file):
        del file["xpcs/twotime/correlation_map"]

    path = _aps_u(folder, change)
    return path, (path, "aps-u", "xpcs/twotime/correlation_map", "missing")


def missing_dataset(folder):
    def change(file):
        file.move("xpcs/twotime/processed_bins", "xpcs/twotime/processed_bin")

    path = _aps_u(folder, change)
    return path, (path, "xpcs/twotime/processed_bins", "missing", "'processed_bin'")


def missing_old_list(folder):
    path = str(folder / "bad.hdf")
    write_aps_old(path, two_time())
    with h5py.File(path, "r+") as file:
        del file["xpcs/dqlist"]
    return path, (path, "aps-old", "xpcs/dqlist", "missing")


def missing_nx_list(folder):
    path = str(folder / "bad.hdf")
    write_nxxpcs(path, two_time())
    with h5py.File(path, "r+") as file:
        del file["entry/instrument/masks/dynamic_q_list"]
    return path, (path, "entry/instrument/masks/dynamic_q_list", "missing")


def unknown_nx_attribute(folder):
    path = str(folder / "bad.hdf")
    write_nxxpcs(path, two_time())
    with h5py.File(path, "r+") as file:
        file["entry/twotime/two_time_corr_func"].attrs["storage_mode"] = "other"
    return path, (path, "storage_mode", "'other'", "one_array_q_first")


def missing_own_times(folder):
    path = str(folder / "bad.hdf")
    write_own(path, two_time())
    with h5py.File(path, "r+") as file:
        del file["t"]
    return path, (path, "dataset t is missing")


def no_maps(folder):
    def change(file):
        del file["xpcs/twotime/correlation_map"]
        file.create_group("xpcs/twotime/correlation_map")
        _replace(file, "xpcs/twotime/processed_bins", np.zeros(0, int))

    path = _aps_u(folder, change)
    return path, (path, "no two-time map")


def bins_of_other_length(folder):
    path = _aps_u(folder, lambda file: _replace(file, "xpcs/twotime/processed_bins", [1, 2]))
    return path, (path, "xpcs/twotime/processed_bins", "lists 2 values", "3 maps")


def bins_beyond_the_grid(folder):
    path = _aps_u(folder, lambda file: _replace(file, "xpcs/twotime/processed_bins", [1, 2, 9]))
    return path, (path, "xpcs/twotime/processed_bins", "bin 9", "3 bins")


def bins_in_other_order(folder):
    path = _aps_u(folder, lambda file: _replace(file, "xpcs/twotime/processed_bins", [2, 1, 3]))
    return path, (path, "xpcs/twotime/processed_bins", "order")


def columns_of_other_length(folder):
    path = str(folder / "bad.hdf")
    write_aps_old(path, two_time())
    with h5py.File(path, "r+") as file:
        _replace(file, "xpcs/dphilist", np.zeros((1, 5)))
    return path, (path, "xpcs/dphilist", "5 values", "3 maps")


def maps_of_different_size(folder):
    path = _aps_u(folder, lambda file: _replace(file, FIRST_MAP, np.ones((5, 5))))
    return path, (path, "c2_00002", "(12, 12)", "(5, 5)", "one size")


def non_square_map(folder):
    path = _aps_u(folder, lambda file: _replace(file, FIRST_MAP, np.ones((12, 7))))
    return path, (path, FIRST_MAP, "(12, 7)", "square")


def asymmetric_map(folder):
    def change(file):
        file[FIRST_MAP][2, 7] += 0.25

    path = _aps_u(folder, change)
    return path, (path, FIRST_MAP, "asymmetry is 0.25", "(3, 8)")


def complex_maps(folder):
    path = _aps_u(folder, lambda file: _replace(file, FIRST_MAP, np.ones((12, 12), complex)))
    return path, (path, FIRST_MAP, "complex128")


def no_finite_pair(folder):
    path = _aps_u(folder, lambda file: _replace(file, FIRST_MAP, np.full((12, 12), np.nan)))
    return path, (path, FIRST_MAP, "no finite pair")


def time_not_increasing(folder):
    path = str(folder / "bad.hdf")
    data = two_time()
    t = np.array(data.t)
    t[5] = t[4]
    write_own(path, replace(data, t=t))
    return path, (path, "frame 5", "frame 6", "do not increase")


def zero_frame_time(folder):
    key = "entry/instrument/detector_1/frame_time"
    path = _aps_u(folder, lambda file: _replace(file, key, np.zeros((1, 1))))
    return path, (path, key, "above zero")


def several_frame_times(folder):
    key = "entry/instrument/detector_1/frame_time"
    path = _aps_u(folder, lambda file: _replace(file, key, np.linspace(0.1, 0.2, 4)))
    return path, (path, key, "4 values from 0.1 to 0.2 s", "one time for all frames")


def fractional_stride(folder):
    key = "xpcs/twotime/config/stride_frame"
    path = _aps_u(folder, lambda file: _replace(file, key, 1.5))
    return path, (path, key, "1.5", "whole")


def negative_q(folder):
    key = "xpcs/qmap/dynamic_v_list_dim0"
    path = _aps_u(folder, lambda file: _replace(file, key, [-0.0054]))
    return path, (path, key, "-0.0054", "above zero")


def zero_gap(folder):
    path = str(folder / "bad.hdf")
    write_own(path, two_time())
    with h5py.File(path, "r+") as file:
        file["gap"][()] = 0.0
    return path, (path, "gap is 0", "above zero")


def angle_nan(folder):
    key = "xpcs/qmap/dynamic_v_list_dim1"
    path = _aps_u(folder, lambda file: _replace(file, key, [0.0, np.nan, 30.0]))
    return path, (path, key, "map 2", "nan")


def sigma_zero(folder):
    path = str(folder / "bad.hdf")
    write_own(path, two_time(sigma=0.02))
    with h5py.File(path, "r+") as file:
        file["sigma"][1, 3, 4] = 0.0
        file["sigma"][1, 4, 3] = 0.0
    return path, (path, "sigma of c2[1]", "above zero")


def sigma_nan(folder):
    path = str(folder / "bad.npz")
    mapping = loader_form(two_time())
    sigma = np.full((3, 12, 12), 0.02)
    sigma[2, 0, 3] = sigma[2, 3, 0] = np.nan
    np.savez(path, **mapping, sigma=sigma)
    return path, (path, "sigma of c2_exp[2]", "nan")


def several_q_in_npz(folder):
    path = str(folder / "bad.npz")
    mapping = loader_form(two_time())
    mapping["wavevector_q_list"] = np.array([0.005, 0.005, 0.006])
    np.savez(path, **mapping)
    return path, (path, "wavevector_q_list", "0.005", "0.006")


def axes_differ(folder):
    path = str(folder / "bad.npz")
    mapping = loader_form(two_time())
    mapping["t2"] = mapping["t2"] + 0.05
    np.savez(path, **mapping)
    return path, (path, "t1 and t2 differ")


def several_q_unasked(folder):
    path = str(folder / "bad.hdf")
    write_aps_u(path, [two_time(), two_time(q=0.0081)])
    return path, (path, "several q", "0.0054", "0.0081", "load_joint")


BAD_FILES = (
    missing_file,
    a_folder,
    not_hdf5,
    empty_file,
    truncated_hdf5,
    truncated_npz,
    npz_near_miss,
    foreign_hdf5,
    half_recognised,
    missing_dataset,
    missing_old_list,
    missing_nx_list,
    unknown_nx_attribute,
    missing_own_times,
    no_maps,
    bins_of_other_length,
    bins_beyond_the_grid,
    bins_in_other_order,
    columns_of_other_length,
    maps_of_different_size,
    non_square_map,
    asymmetric_map,
    complex_maps,
    no_finite_pair,
    time_not_increasing,
    zero_frame_time,
    several_frame_times,
    fractional_stride,
    negative_q,
    zero_gap,
    angle_nan,
    sigma_zero,
    sigma_nan,
    several_q_in_npz,
    axes_differ,
    several_q_unasked,
)


def dt_disagrees(folder):
    path = _aps_u(folder)
    return path, {"dt": 0.102}, (path, "frame_time", "0.1 ", "0.102", "1 %")


def dt_zero(folder):
    path = _aps_u(folder)
    return path, {"dt": 0.0}, (path, "dt is 0", "above zero")


def no_dt(folder):
    path = _aps_u(folder)
    with h5py.File(path, "r+") as file:
        del file["entry"]
    return path, {}, (path, "entry/instrument/detector_1/frame_time", "give dt")


def gap_negative(folder):
    path = _aps_u(folder)
    return path, {"gap": -1.0}, (path, "gap is -1", "above zero")


def sigma_negative(folder):
    path = _aps_u(folder)
    return path, {"sigma": -0.1}, (path, "sigma is -0.1", "above zero")


def sigma_unknown_word(folder):
    path = _aps_u(folder)
    return path, {"sigma": "iqr"}, (path, "'iqr'", "'mad'")


def q_not_in_file(folder):
    path = _aps_u(folder)
    return path, {"q": 0.02}, (path, "dynamic_v_list_dim0", "0.0054", "0.02")


def empty_q(folder):
    path = _aps_u(folder)
    selection = Selection(q=0.02, q_tolerance=1e-3)
    return path, {"selection": selection}, (path, "empty", "0.0054")


def empty_phi(folder):
    path = _aps_u(folder)
    selection = Selection(phi_ranges=((80.0, 100.0),))
    return path, {"selection": selection}, (path, "empty", "80 … 100", "30")


def frames_beyond(folder):
    path = _aps_u(folder)
    return path, {"selection": Selection(end_frame=13)}, (path, "1 … 13", "12 frames")


def nothing_left(folder):
    path = _aps_u(folder)
    return path, {"selection": Selection(min_lag=12)}, (path, "empty", "12 frames")


def origin_with_times(folder):
    path = str(folder / "good.hdf")
    write_own(path, two_time())
    return path, {"time_origin": 3.0}, (path, "time_origin", "explicitly")


def unknown_layout(folder):
    path = _aps_u(folder)
    return path, {"layout": "esrf"}, (path, "'esrf'", "aps-u")


def wrong_layout(folder):
    path = _aps_u(folder)
    return path, {"layout": "aps-old"}, (path, "xpcs/dqlist", "missing")


BAD_CALLS = (
    dt_disagrees,
    dt_zero,
    no_dt,
    gap_negative,
    sigma_negative,
    sigma_unknown_word,
    q_not_in_file,
    empty_q,
    empty_phi,
    frames_beyond,
    nothing_left,
    origin_with_times,
    unknown_layout,
    wrong_layout,
)
