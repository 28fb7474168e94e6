"""Files that are almost right: every layout, changed byte by byte or member by member.

`python helpers_fuzz.py FIRST LAST` tries them in a process of its own and prints what was wrong.
"""

import os
import random
import resource
import signal
import sys
import tempfile
import time
import zipfile

import h5py
import numpy as np
from helpers_data import loader_form, two_time

from xpcs_eqx.data import (
    GenericLayout,
    binned,
    joint_sizes,
    load,
    load_any,
    load_each,
    load_joint,
    map_size,
    open_stored,
    open_stored_joint,
    write_aps_old,
    write_aps_u,
    write_bins,
    write_npz,
    write_nxxpcs,
    write_own,
)
from xpcs_eqx.errors import DataError

# A file of some kB takes far less than this, whatever stands in it.
SECONDS = 5
MEMORY = 400 * 2**20


def _of_any_length(path, data):
    """The library's own layout with texts as other programs write them."""
    write_own(path, data)
    with h5py.File(path, "r+") as file:
        for name in ("format", "absolute_sigma", "provenance"):
            file.attrs[name] = file.attrs[name].decode()
        for key in ("t", "phi", "q", "gap"):
            file[key].attrs["units"] = file[key].attrs["units"].decode()


def _some_bins(path, data):
    write_aps_old(path, data)
    with h5py.File(path, "r+") as file:
        file["xpcs/qphi_bin_to_process"] = np.array([[1], [2], [3]])
        file["xpcs/output_data"] = "/exchange"


def _below(path, data):
    """Results that were copied into a group, as by a tool that collects those of several files."""
    write_aps_u(path, data)
    with h5py.File(path, "r+") as file:
        for name in list(file):
            file.move(name, f"scans/run_7/{name}")


def _grid(path, data):
    """Means over bins of age and lag as ID02 stores them."""
    bins = binned(data, 3)
    ages, lags = (0.5 * (edges[1:] + edges[:-1]) for edges in (bins.bins.ages, bins.bins.lags))
    values = np.full((bins.n_angles, ages.size, lags.size), np.nan)
    values[bins.angle, bins.bins.age, bins.bins.lag] = bins.values
    with h5py.File(path, "w") as file:
        place = file.create_group("entry_0000/correlations/full")
        for name, array in (("ttcf", values), ("age", ages), ("lag", lags)):
            place[f"twotime/{name}"] = array
        place["parameters/q"] = np.full(len(values), 0.054)


def _packed(path, data):
    np.savez_compressed(path, **loader_form(data))
    os.replace(f"{path}.npz", path)


def _bare(path, data):
    with open(path, "wb") as stream:
        np.save(stream, np.asarray(data.c2)[0])


GENERIC = {"layout": GenericLayout("c2", phi="phi", q=0.0054, t="t")}
LOADER = {"layout": GenericLayout("c2_exp", phi="phi_angles_list", q=0.0054, t="t1")}
GRID = {
    "layout": GenericLayout(
        "entry_0000/correlations/full/twotime/ttcf",
        axes="age_lag",
        ages="entry_0000/correlations/full/twotime/age",
        lags="entry_0000/correlations/full/twotime/lag",
        q=0.0054,
    ),
    "dt": 0.1,
}
# Name, how it is written, and what has to be said to read it.
KINDS = (
    ("own", lambda p, d: write_own(p, d, chunk=5, compression="gzip"), {}),
    ("own texts", _of_any_length, {}),
    ("aps-u", lambda p, d: write_aps_u(p, d, index_mapping=True), {}),
    ("aps-u below", _below, {}),
    ("aps-old", _some_bins, {}),
    ("nxxpcs", write_nxxpcs, {}),
    ("nxxpcs keys", lambda p, d: write_nxxpcs(p, d, storage_mode="data_exchange_keys"), {}),
    ("nxxpcs last", lambda p, d: write_nxxpcs(p, d, storage_mode="one_array_q_last"), {}),
    ("generic", write_own, GENERIC),
    ("npz", write_npz, {}),
    ("npz packed", _packed, {}),
    ("npz generic", write_npz, LOADER),
    ("npy", _bare, {}),
    ("npz bins", lambda p, d: write_bins(p, binned(d, 3)), {}),
    ("id02", _grid, {"dt": 0.1}),
    ("generic bins", _grid, GRID),
)
BINS = ("npz bins", "id02", "generic bins")
READ = (
    load,
    load_any,
    load_each,
    open_stored,
    load_joint,
    open_stored_joint,
    map_size,
    joint_sizes,
)


def originals(folder):
    """Bytes of a right file of every kind, and how it is read."""
    out = []
    for name, write, how in KINDS:
        path = os.path.join(folder, "right")
        write(path, two_time(n=12, sigma=0.02 if name == "own" else None))
        with open(path, "rb") as stream:
            out.append((name, stream.read(), how))
    return out


def _bytes(draw, content):
    """Some bytes of a file changed, cut away, doubled or swapped."""
    content = bytearray(content)
    n = len(content)
    how = draw.randrange(8)
    # Structure is at the start of a file more often than not.
    at = draw.randrange(n) if draw.random() < 0.5 else draw.randrange(min(n, 3000))
    if how == 0:
        return content[:at]
    if how == 1:
        return content[:at] + content[at + draw.randrange(1, 64) :]
    if how == 2:
        return content[:at] + draw.randbytes(draw.randrange(1, 64)) + content[at:]
    if how == 3:
        other, size = draw.randrange(n), draw.randrange(1, 64)
        content[at : at + size] = content[other : other + size]
    elif how == 4:
        content[at : at + 8] = draw.choice((b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7))
    else:
        for _ in range(draw.randrange(1, 6)):
            content[draw.randrange(n) if how == 5 else min(at + draw.randrange(16), n - 1)] = (
                draw.randrange(256)
            )
    return content[:n]


def _values(draw):
    """What nobody expects in a dataset."""
    huge = draw.choice((1e300, -1e300, 5e-324, 2.0**63, -1.0, 0.0, np.nan, np.inf, 1e10, 2.5))
    shape = draw.choice(
        ((), (1,), (3,), (1, 1), (0,), (0, 0), (3, 12, 12), (12, 12), (3, 0, 0), (2, 3, 4, 5))
    )
    return draw.choice(
        (
            np.full(shape, huge),
            np.full(shape, 1e30, np.float32),
            np.full(shape, b"text"),
            np.ones(shape, complex),
            np.ones(shape, bool),
            np.full(shape, -7, np.int8),
            np.full(shape, 2**63, np.uint64),
            np.zeros(shape, [("a", float), ("b", int)]),
            np.full(shape, np.nan, np.float16),
            "a text",
            h5py.Empty("f8"),
            ["a", "b"],
        )
    )


def _members(draw, path, outside):
    """Something of an HDF5 file deleted, replaced or led elsewhere."""
    with h5py.File(path, "r+") as file:
        keys = []
        file.visit(keys.append)
        key = draw.choice(keys)
        how = draw.randrange(13)
        if how in (0, 1, 2):
            owner = draw.choice((file, *(file[one] for one in keys)))
            names = list(owner.attrs) or [draw.choice(("units", "unit", "format", "storage_mode"))]
            owner.attrs[draw.choice(names)] = _values(draw)
            return
        shape = file[key].shape if isinstance(file[key], h5py.Dataset) else (3,)
        del file[key]
        if how in (3, 4, 5, 6):
            file[key] = _values(draw)
        elif how == 7:
            file.create_group(key)
        elif how == 8:
            file[key] = h5py.SoftLink(draw.choice(("/nowhere", f"/{key}", "/", keys[0], "..")))
        elif how == 9:
            file[key] = h5py.ExternalLink(draw.choice((outside, "gone.h5", path, ".")), f"/{key}")
        elif how == 10:
            external = [(draw.choice((outside, "gone.raw")), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset(key, shape, "f8", external=external)
        elif how == 11:
            layout = h5py.VirtualLayout(shape or (1,), "f8")
            source = draw.choice((outside, "gone.h5", "."))
            layout[:] = h5py.VirtualSource(source, draw.choice((key, "t")), shape or (1,))
            file.create_virtual_dataset(key, layout)
        else:
            big = draw.choice(((10**6, 10**6), (3, 10**5, 10**5), (2**40,), (10**9, 1, 1)))
            file.create_dataset(key, big, "f8", chunks=draw.choice((True, None)))


def _arrays(draw, path):
    """An NPZ file with an array left out or replaced, or with a further one."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    key = draw.choice((*arrays, "more"))
    arrays.pop(key, None)
    if draw.random() < 0.8:
        found = _values(draw)
        arrays[key] = np.zeros(2, object) if isinstance(found, h5py.Empty) else found
    with open(path, "wb") as stream:
        np.savez(stream, **arrays)
    if draw.random() < 0.2:
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{key}2.npy", b"\x93NUMPY\x01\x00" + draw.randbytes(60))


def changed(draw, kind, path, outside):
    """Write a file of a `kind`, one of the `originals`, with something changed."""
    name, content, _ = kind
    whole = name != "npy" and draw.random() < 0.5
    with open(path, "wb") as stream:
        stream.write(content if whole else _bytes(draw, content))
    if whole:
        _arrays(draw, path) if name.startswith("npz") else _members(draw, path, outside)


def attempt(seed, folder, right, outside):
    """What went wrong with the file of a seed; `None` where it gave data or a `DataError`."""
    draw = random.Random(seed)
    kind = right[seed % len(right)]
    path = os.path.join(folder, "changed")
    changed(draw, kind, path, outside)
    read = draw.choice(READ)
    given = dict(kind[2])
    if read is load and draw.random() < 0.3:
        given["q"] = 0.0054
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = None
    try:
        read(path, **given)
    except DataError as error:
        try:
            str(error).encode()
        except UnicodeError:
            wrong = "a message that cannot be printed"
    except BaseException as error:
        wrong = repr(error)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if time.monotonic() - begun > SECONDS or grown > MEMORY:
        wrong = f"{time.monotonic() - begun:.1f} s, {grown >> 20} MB"
    return None if wrong is None else f"{seed} ({kind[0]}, {read.__name__}): {wrong}"


def secret(folder):
    """A file of the same machine that nobody asked for: maps and lists that would do."""
    other = os.path.join(folder, "elsewhere")
    os.makedirs(other, exist_ok=True)
    path = os.path.join(other, "secret.h5")
    write_own(path, two_time(n=12))
    return path


def main(first, last):
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
    with tempfile.TemporaryDirectory() as top:
        folder = os.path.join(top, "here")
        os.makedirs(folder)
        right, outside = originals(folder), secret(top)
        for seed in range(first, last):
            print("at", seed, flush=True)
            signal.alarm(20)
            wrong = attempt(seed, folder, right, outside)
            if wrong:
                print("wrong", wrong, flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
