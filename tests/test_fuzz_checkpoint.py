"""Checkpoints changed at random behind a right checksum: each is read, or refused by its name."""

import json
import random
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import frame_times, make_data

import xpcs_eqx as xe
from xpcs_eqx.checkpoint import stored
from xpcs_eqx.physics import PowerLawRate, Static

NUMBERS = (0, -1, 1, 99, 2**31, 2**63, -(2**63), 1e308, -1e308, float("nan"), float("inf"), 0.5)
PLAIN = (None, True, "x", "", [], {}, [1], ["x", "y", "z"], {"tried": "x"}, "array", *NUMBERS)
ARRAYS = (
    lambda a: np.zeros((0,)),
    lambda a: np.full(np.shape(a), b"x"),
    lambda a: np.asarray(a).astype(np.float16),
    lambda a: np.asarray(a)[..., None],
    lambda a: np.zeros((3, 5)),
    lambda a: np.array([1 + 2j]),
    *(
        lambda a, x=x: np.full(np.shape(a), np.float64(x)).astype(np.asarray(a).dtype)
        for x in NUMBERS
    ),
)


def forged(path, change):
    """Change a checkpoint, and give it the checksum of what it is now."""
    body = Path(path).read_bytes()[512:]
    writable = h5py.h5f.FILE_IMAGE_OPEN_RW
    with h5py.File(h5py.h5f.open_file_image(body, flags=writable)) as file:
        change(file)
        file.flush()
        body = file.id.get_file_image()
    Path(path).write_bytes(stored._header(body) + body)


def anywhere(node, rng):
    """A container inside plain values and a place in it."""
    while True:
        places = list(node) if isinstance(node, dict) else range(len(node))
        at = rng.choice(list(places))
        if not (isinstance(node[at], dict | list) and node[at] and rng.random() < 0.9):
            return node, at
        node = node[at]


def change_document(file, rng):
    document = json.loads(file["document"][()])
    node, at = anywhere(document, rng)
    if rng.random() < 0.2:
        del node[at]
    else:
        node[at] = rng.choice(PLAIN)
    del file["document"]
    file["document"] = json.dumps(document)


def change_array(file, rng):
    name = rng.choice(list(file["state"]))
    before = file["state"][name][()]
    del file["state"][name]
    if rng.random() < 0.9:
        with np.errstate(all="ignore"):
            file["state"][name] = rng.choice(ARRAYS)(before)


def change_rest(file, rng):
    kind = rng.randrange(7)
    name = rng.choice(list(file["state"]))
    if kind == 0:
        file.attrs["step"] = rng.choice(["x", [1, 2], 1.5, -1])
    elif kind == 1:
        del file.attrs[rng.choice(["kind", "fingerprint", "step"])]
    elif kind == 2:
        del file[rng.choice(["document", "state"])]
    elif kind == 3:
        file["state"].create_dataset("9999 huge", (10**12,), "f8", chunks=(10**6,))
    elif kind == 4:
        del file["state"][name]
        file["state"].create_dataset(name, (3,), "f8", external=[("/etc/hostname", 0, 24)])
    elif kind == 5:
        del file["state"][name]
        file["state"][name] = h5py.ExternalLink("/tmp/other.h5", "x")
    else:
        file["state"]["strange name"] = 1


CHANGES = (change_document, change_document, change_array, change_rest)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A fit, its checkpoints, and the bytes of the last one."""
    data = make_data(Static(PowerLawRate(5e4, -0.3, 20.0)), t=frame_times(9), noise=0.003)
    pm = xe.parameter_map(Static(PowerLawRate(1e4, 0.0, 20.0)), data.t, fixed=("D_offset",))
    problem = xe.projected_objective(pm, data)
    checkpoints = xe.Checkpoints(str(tmp_path_factory.mktemp("forged")), keep=1)
    with pytest.raises(KeyboardInterrupt):
        xe.least_squares(problem, checkpoints=checkpoints, callback=stop_at(3))
    (path,) = checkpoints.paths()
    return problem, checkpoints, Path(path), Path(path).read_bytes()


def stop_at(evaluation):
    def callback(state):
        if int(state.evaluations) >= evaluation:
            raise KeyboardInterrupt

    return callback


def tried(interrupted, seeds):
    problem, checkpoints, path, content = interrupted
    found = {"refused": 0, "gone on": 0}
    for seed in seeds:
        rng = random.Random(seed)
        path.write_bytes(content)
        change = rng.choice(CHANGES)
        forged(path, lambda file, change=change, rng=rng: change(file, rng))
        try:
            xe.least_squares(problem, checkpoints=checkpoints, resume=True, callback=lambda s: True)
            found["gone on"] += 1
        except xe.CheckpointError as error:
            found["refused"] += str(path) in str(error)
        except xe.FitError:
            # Numbers that a state can have, but of no fit.
            found["gone on"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, {change.__name__}") from error
        for other in set(checkpoints.paths()) - {str(path)}:
            Path(other).unlink()
    return found


def test_forged_checkpoints_are_refused_or_gone_on_with(interrupted):
    found = tried(interrupted, range(40))
    assert found["refused"] > 10


@pytest.mark.long
def test_thousands_of_forged_checkpoints(interrupted):
    found = tried(interrupted, range(40, 2000))
    assert found["refused"] > 1000
    assert found["gone on"] > 100


def test_what_lies_in_another_file_is_not_read(interrupted, tmp_path):
    problem, checkpoints, path, content = interrupted
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(8 * 100))
    for kind in ("external", "link", "virtual"):
        path.write_bytes(content)

        def change(file, kind=kind):
            group = file["state"]
            name, shape = next((n, group[n].shape) for n in group if group[n].shape)
            del group[name]
            if kind == "external":
                group.create_dataset(name, shape, "f8", external=[(str(secret), 0, 800)])
            elif kind == "link":
                group[name] = h5py.ExternalLink(str(secret), "x")
            else:
                layout = h5py.VirtualLayout(shape, "f8")
                layout[:] = h5py.VirtualSource(str(secret), "x", shape=shape)
                group.create_virtual_dataset(name, layout)

        forged(path, change)
        with pytest.raises(xe.CheckpointError, match=str(path)):
            xe.least_squares(problem, checkpoints=checkpoints, resume=True)
