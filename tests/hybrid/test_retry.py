"""What could not be read is read again, and where it cannot be, nothing is hidden."""

import numpy as np
import pytest

from xpcs_eqx.errors import DataError
from xpcs_eqx.hybrid import FactorySource, Retry, StreamedPoints

X = np.arange(10.0)


@pytest.mark.parametrize("bad_attempts", [1, 3])
def test_what_passes_is_tried_again(bad_attempts):
    calls = []

    def function():
        calls.append(1)
        if len(calls) <= bad_attempts:
            raise OSError("no such block")
        return 7.0

    assert Retry().run(function) == 7.0
    assert len(calls) == bad_attempts + 1


def test_what_stays_is_raised():
    calls = []

    def function():
        calls.append(1)
        raise OSError(f"attempt {len(calls)}")

    with pytest.raises(OSError, match="attempt 4"):
        Retry(attempts=3).run(function)


@pytest.mark.parametrize("error", [DataError("y is inf"), KeyError("x"), MemoryError("too much")])
def test_mistakes_are_raised_at_once(error):
    calls = []

    def function():
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        Retry().run(function)
    assert calls == [1]


def flaky(failing, message="the disk is away"):
    """A source of pieces of two points that fails before a piece, so many times each."""
    left = dict(failing)

    def pieces():
        for k in range(0, 10, 2):
            if left.get(k, 0):
                left[k] -= 1
                raise OSError(message)
            yield X[k : k + 2], -X[k : k + 2]

    return FactorySource(pieces, chunk=2)


def test_a_chunk_that_failed_is_read_again_and_none_is_given_twice():
    heard = []
    source = flaky({0: 1, 4: 2})
    points = StreamedPoints(source, retry=Retry(attempts=3), report=heard.append)
    found = np.concatenate([np.asarray(chunk.y) for chunk in points.chunks()])
    np.testing.assert_array_equal(found, -X)
    assert [str(error) for error in heard] == ["the disk is away"] * 3


def test_a_pass_ends_where_attempts_do():
    heard = []
    points = StreamedPoints(flaky({4: 9}), retry=Retry(attempts=2), report=heard.append)
    seen = []
    with pytest.raises(DataError, match=r"in 3 attempts \(the disk is away\)"):
        seen.extend(chunk.y[0] for chunk in points.chunks())
    assert seen == [0.0, -2.0]
    assert len(heard) == 3
