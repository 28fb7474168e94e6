"""Trying again, and what is remembered of it."""

import jax
import numpy as np
import pytest

from xpcs_eqx.errors import DataError
from xpcs_eqx.hybrid.retry import Failure, Retry
from xpcs_eqx.hybrid.statistics import RING, BatchStatistics


def finite(value):
    return Failure.none if np.isfinite(value) else Failure.loss


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError("no such block"), Failure.read),
        (MemoryError("too much"), Failure.memory),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), Failure.memory),
    ],
)
@pytest.mark.parametrize("bad_attempts", [1, 3])
def test_what_passes_is_tried_again(error, kind, bad_attempts):
    def function(attempt):
        if attempt < bad_attempts:
            raise error
        return 7.0

    outcome = Retry().run(function, finite)
    assert outcome.success
    assert outcome.value == 7.0
    assert outcome.failures == (kind,) * bad_attempts
    assert outcome.error is None


def test_what_stays_is_returned_as_a_failure():
    def function(attempt):
        raise OSError(f"attempt {attempt}")

    outcome = Retry(attempts=3).run(function)
    assert not outcome.success
    assert outcome.failure is Failure.read
    assert len(outcome.failures) == 4
    assert str(outcome.error) == "attempt 3"
    assert outcome.value is None


def test_values_are_checked_and_the_last_is_kept():
    outcome = Retry(attempts=2).run(lambda attempt: np.nan, finite)
    assert outcome.failures == (Failure.loss,) * 3
    assert np.isnan(outcome.value)
    outcome = Retry().run(lambda attempt: np.inf if attempt == 0 else 1.0, finite)
    assert outcome.success
    assert outcome.failures == (Failure.loss,)


@pytest.mark.parametrize(
    "error", [DataError("y is inf"), KeyError("x"), jax.errors.JaxRuntimeError("INTERNAL: no")]
)
def test_mistakes_are_raised_at_once(error):
    calls = []

    def function(attempt):
        calls.append(attempt)
        raise error

    with pytest.raises(type(error)):
        Retry().run(function)
    assert calls == [0]


def test_the_ring_keeps_the_last_batches_in_order():
    statistics = BatchStatistics.empty()
    assert statistics.export()["batches"] == 0
    n = RING + 30
    for i in range(n):
        failures = (Failure.read, Failure.loss) if i % 10 == 0 else ()
        statistics = statistics.record(
            float(i), 2.0 * i, 0.5, success=i % 2 == 0, failures=failures
        )
    recent = statistics.recent()
    np.testing.assert_array_equal(recent["loss"], np.arange(30, n))
    np.testing.assert_array_equal(recent["gradient_norm"], 2.0 * np.arange(30, n))
    assert statistics.loss.shape == (RING,)
    exported = statistics.export()
    assert exported["batches"] == n
    assert exported["success_rate"] == 0.5
    assert exported["median_seconds"] == 0.5
    assert exported["failures"] == {
        "read": 13, "loss": 13, "gradient": 0, "parameters": 0, "memory": 0
    }  # fmt: skip


def test_recording_leaves_the_old_value_alone():
    before = BatchStatistics.empty().record(1.0, 1.0, 0.1)
    after = before.record(2.0, 2.0, 0.1)
    assert int(before.batches) == 1
    np.testing.assert_array_equal(before.recent()["loss"], [1.0])
    np.testing.assert_array_equal(after.recent()["loss"], [1.0, 2.0])
