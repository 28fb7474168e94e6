"""Sources of points: shapes, every origin, bad input, files that fail while they are read."""

import os
import pickle
import threading
import time

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from xpcs_eqx.errors import DataError
from xpcs_eqx.files import Retry
from xpcs_eqx.hybrid import aggressive
from xpcs_eqx.hybrid.sources import (
    ArraySource,
    FactorySource,
    HDF5Source,
    as_source,
    source_fingerprint,
    source_stored_as,
)
from xpcs_eqx.objective import Pull, read_ahead
from xpcs_eqx.objective.points import Chunk

RNG = np.random.default_rng(0)
N = 2345
X = RNG.normal(size=(N, 2)).astype(np.float32)
Y = RNG.normal(size=N).astype(np.float32)
SIGMA = RNG.uniform(0.5, 2.0, N)
GROUP = RNG.integers(0, 5, N)
FAST = Retry(pause=0.001)


def pieces(length=300):
    for start in range(0, N, length):
        here = slice(start, start + length)
        yield X[here], Y[here], SIGMA[here], GROUP[here]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "points.h5"
    with h5py.File(path, "w") as h:
        for name, values in (("x", X), ("y", Y), ("sigma", SIGMA), ("group", GROUP)):
            h.create_dataset(f"scan/{name}", data=values, chunks=(256, 2)[: values.ndim])
        h["first"], h["second"] = X[:, 0], X[:, 1]
    return path


def hdf5(path, **keywords):
    keywords = {"chunk": 100, "block": 400, "retry": FAST} | keywords
    return HDF5Source(path, "scan/x", "scan/y", "scan/sigma", "scan/group", **keywords)


def together(source):
    """All points with a weight, from chunks that must have one shape and one dtype."""
    chunks = list(source.chunks())
    assert len({tuple((a.shape, str(a.dtype)) for a in vars(c).values()) for c in chunks}) == 1
    return [
        np.concatenate([getattr(c, name)[np.asarray(c.root_weights) > 0] for c in chunks])
        for name in ("x", "y", "root_weights", "group")
    ]


@pytest.mark.parametrize("origin", ["arrays", "hdf5", "callable", "list", "chunks"])
def test_every_source_gives_the_same_points_twice(origin, file):
    source = {
        "arrays": lambda: as_source((X, Y, SIGMA), groups=GROUP, chunk=100),
        "hdf5": lambda: hdf5(file),
        "callable": lambda: as_source(pieces, chunk=100),
        "list": lambda: as_source(list(pieces(77)), chunk=100),
        "chunks": lambda: as_source(list(ArraySource(X, Y, SIGMA, GROUP, 64).chunks()), chunk=100),
    }[origin]()
    for _ in range(2):
        for found, wanted in zip(together(source), (X, Y, 1 / SIGMA, GROUP), strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert together(source)[1].dtype == np.float32
    first = ArraySource(X, Y, SIGMA, GROUP, 100)
    assert source_fingerprint(source) == source_fingerprint(first)
    other = ArraySource(X, Y, SIGMA, np.where(np.arange(N) == N - 1, 9, GROUP), 100)
    assert source_fingerprint(source) != source_fingerprint(other)


def test_padding_has_no_weight_and_repeats_the_last_point():
    last = list(ArraySource(X, Y, chunk=1000).chunks())[-1]
    assert last.y.shape == (1000,)
    np.testing.assert_array_equal(last.root_weights, np.arange(1000) < N - 2000)
    np.testing.assert_array_equal(last.x[N - 2000 :], np.broadcast_to(X[-1], (3000 - N, 2)))


def test_few_points_make_one_chunk_without_padding():
    (chunk,) = ArraySource(X[:7], Y[:7]).chunks()
    assert chunk.y.shape == (7,)
    assert chunk.root_weights.dtype == np.float64


def test_columns_from_several_datasets_and_default_names(file, tmp_path):
    source = HDF5Source(file, ("first", "second"), "scan/y", 2.0, chunk=500, retry=FAST)
    x, _, root, _ = together(source)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(root, 0.5)
    with h5py.File(tmp_path / "plain.h5", "w") as h:
        h["x"], h["y"], h["s"] = X[:, 0], Y, SIGMA
    x, y, root, _ = together(as_source(tmp_path / "plain.h5", sigma="s"))
    np.testing.assert_array_equal(x, X[:, 0])
    np.testing.assert_array_equal(root, 1 / SIGMA)
    _, again, _, _ = together(as_source((str(tmp_path / "plain.h5"), "x", "y", "s")))
    np.testing.assert_array_equal(again, y)


def test_sources_travel_to_other_processes(file):
    for source in (hdf5(file), ArraySource(X, Y, SIGMA), FactorySource(pieces)):
        copy = pickle.loads(pickle.dumps(source))
        assert source_fingerprint(copy) == source_fingerprint(source)


@pytest.mark.parametrize("once", [pieces(), iter([(X, Y)]), map(tuple, [(X, Y)])])
def test_what_can_be_consumed_only_once_is_refused(once):
    with pytest.raises(DataError, match=r"consumed only once.*Give a callable"):
        as_source(once)


def test_a_factory_that_returns_the_same_iterator_is_found_out():
    one = pieces()
    source = as_source(lambda: one)
    assert len(list(source.chunks())) == 1
    with pytest.raises(DataError, match="fresh iterator"):
        list(source.chunks())


def spoiled(array, value, index=1234):
    array = np.array(array, dtype=float)
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, spoiled(Y, np.inf)), "index 1234: y is inf"),
        ((spoiled(X, np.nan), Y), "index 1234: x is .*nan"),
        ((X, Y, spoiled(SIGMA, 0.0)), "index 1234: sigma is 0.0"),
        ((X, Y, spoiled(SIGMA, np.nan)), "index 1234: sigma is nan"),
        ((X, Y, SIGMA[:-1]), "sigma has shape"),
        ((X[:-1], Y), "x has shape"),
        ((X, Y[:, None]), "y \\(2345, 1\\)"),
        ((X, Y, None, spoiled(GROUP, 0.5)), "index 1234: group is 0.5"),
        ((X, Y, None, spoiled(GROUP, -1)), "index 1234: group is -1"),
        ((X, Y.astype(complex)), "y holds complex128"),
        ((X[:0], Y[:0]), "no point"),
    ],
)
def test_bad_arrays_are_named_with_their_index(arguments, message):
    with pytest.raises(DataError, match=message):
        ArraySource(*arguments)


@pytest.mark.parametrize("origin", ["hdf5", "callable"])
def test_bad_values_are_found_with_their_chunk(origin, tmp_path):
    bad = spoiled(Y, np.inf)
    with h5py.File(tmp_path / "bad.h5", "w") as h:
        h["x"], h["y"] = X, bad
    if origin == "hdf5":
        source = HDF5Source(tmp_path / "bad.h5", chunk=100, block=500)
        message = r"bad.h5, chunk from point 1000, index 1234: y is inf"
    else:
        source = as_source(lambda: ((X[i : i + 500], bad[i : i + 500]) for i in (0, 500, 1000)))
        message = "chunk 2, index 234: y is inf"
    with pytest.raises(DataError, match=message):
        list(source.chunks())
    assert_no_reading_thread()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3.0, "type float"),
        (X, "type ndarray"),
        ([X, Y], "found ndarray"),
        ([(X, Y), (X[:, 0], Y)], "same coordinates"),
        ([Chunk(X, Y, np.full(N, -1.0), GROUP)], "root_weights is -1"),
        (("file.h5", "x"), "1 names of datasets"),
    ],
)
def test_what_is_no_source(source, message):
    with pytest.raises(DataError, match=message):
        list(as_source(source).chunks())


def test_sigma_has_one_origin(file):
    with pytest.raises(DataError, match="given twice"):
        as_source((X, Y, SIGMA), sigma=SIGMA)
    with pytest.raises(DataError, match="bring their own"):
        as_source(pieces, sigma=SIGMA)
    with pytest.raises(DataError, match="brings its own"):
        as_source(hdf5(file), sigma=1.0)


def test_points_without_weight_are_left_out_whatever_they_hold():
    y = np.where(np.arange(N) < 500, np.nan, Y)
    root = np.where(np.arange(N) < 500, 0.0, 1.0)
    found = together(as_source([Chunk(X, y, root, GROUP)], chunk=100))
    np.testing.assert_array_equal(found[1], Y[500:])


def assert_no_reading_thread():
    assert "read-ahead" not in [t.name for t in threading.enumerate()]


def test_an_iteration_given_up_ends_its_thread(file):
    chunks = hdf5(file).chunks()
    next(chunks)
    chunks.close()
    assert_no_reading_thread()


def test_reading_ahead_is_bounded_and_passes_errors_on_in_order():
    made = []

    def items():
        for i in range(10):
            made.append(i)
            if i == 6:
                raise ValueError("the seventh")
            yield i

    got = []
    ahead = read_ahead(items(), 2)
    got.append(next(ahead))
    time.sleep(0.05)
    # One was taken, two wait, one is in the hands of the thread.
    assert len(made) <= 4
    with pytest.raises(ValueError, match="the seventh"):
        got.extend(ahead)
    assert len(made) == 7
    assert_no_reading_thread()


def test_a_file_deleted_while_it_is_read(file):
    chunks = hdf5(file, depth=1).chunks()
    next(chunks)
    os.remove(file)
    with pytest.raises(DataError, match=r"could not be read in 4 attempts.*restore it"):
        list(chunks)
    assert_no_reading_thread()


def test_a_file_truncated_while_it_is_read(file):
    chunks = hdf5(file, depth=1).chunks()
    next(chunks)
    os.truncate(file, os.path.getsize(file) // 2)
    with pytest.raises(DataError, match=r"points .* could not be read in 4 attempts"):
        list(chunks)


def test_a_file_that_comes_back_is_read_on(file):
    hidden = file.with_suffix(".away")
    source = hdf5(file, depth=1, block=100, retry=Retry(attempts=6, pause=0.02))
    chunks = source.chunks()
    got = [next(chunks)]
    os.rename(file, hidden)
    threading.Timer(0.1, os.rename, (hidden, file)).start()
    got.extend(chunks)
    assert sum((c.root_weights > 0).sum() for c in got) == N


def test_datasets_missing_or_of_other_lengths(file):
    with pytest.raises(DataError, match=r"scan/z is missing.*Name the datasets of the points"):
        list(HDF5Source(file, "scan/z", "scan/y", retry=FAST).chunks())
    with h5py.File(file, "a") as h:
        h["short"] = Y[:-1]
    with pytest.raises(DataError, match="differ in length"):
        list(HDF5Source(file, "scan/x", "short", retry=FAST).chunks())


def test_a_source_that_changes_between_passes_is_noticed():
    x = np.linspace(0.0, 5.0, 400)
    y = 2.0 * np.exp(-0.7 * x) + 0.01 * np.sin(50 * x)

    def changing(later):
        passes = []

        def source():
            passes.append(0)
            n = 400 if len(passes) < 3 else later
            yield from ((x[k : min(k + 100, n)], y[k : min(k + 100, n)]) for k in range(0, n, 100))

        return source

    def model(x, a, b):
        return a * jnp.exp(-b * x)

    optimiser = aggressive()
    assert optimiser.fit(changing(400), model, [1.0, 1.0]).success
    pull = (Pull(lambda p: p["p0"], 2.0, 0.1),)
    for later in (300, 350):
        for penalties in ((), pull):
            with pytest.raises(DataError, match=f"gave {later} points .* and 400 in the first"):
                optimiser.fit(changing(later), model, [1.0, 1.0], penalties=penalties)
    # Points without a weight do not count, whoever took it.
    weighted = optimiser.fit(
        (x, y), model, [1.0, 1.0], groups=np.arange(400) % 2, group_weights=np.array([1.0, 0.0])
    )
    assert weighted.success
    assert weighted.n_pairs == 200


def test_points_are_kept_in_the_type_that_was_asked_for(file):
    x, y = np.linspace(0, 1, 50), np.linspace(1, 2, 50)
    sources = [(x, y), (list(x), list(y)), (jnp.asarray(x), jnp.asarray(y)), [(x, y)]]
    sources += [lambda: iter([(x, y)]), (x, y, 0.1 + x), ArraySource(x, y)]
    for given in sources:
        source = source_stored_as(as_source(given, chunk=20), "float32")
        for chunk in source.chunks():
            assert chunk.x.dtype == chunk.y.dtype == np.float32
        np.testing.assert_allclose(together(source)[1], y, rtol=1e-7)
    with h5py.File(file, "a") as h:
        h["a"], h["b"] = x, y
    for chunk in source_stored_as(as_source((file, "a", "b")), "float32").chunks():
        assert chunk.x.dtype == chunk.y.dtype == np.float32
    for given in ((x, y * 1e300), [(x, y * 1e300)]):
        with pytest.raises(DataError, match="too large for float32"):
            list(source_stored_as(as_source(given), "float32").chunks())
