"""The monitor as a state machine: scripted gradients in, alarms out."""

import copy

import numpy as np
import pytest

from xpcs_eqx.defences import Alarm, GradientMonitor
from xpcs_eqx.errors import ModelError

ONE = np.array([1.0])


def alarms(monitor, ratios, state=None):
    """What the monitor says to gradients whose norms have the given ratios."""
    state = monitor.start() if state is None else state
    out = []
    for ratio in ratios:
        state, alarm = monitor.update(state, np.array([0.6 * ratio, 0.8 * ratio]), ONE)
        out.append(alarm)
    return out, state


def test_five_low_ratios_in_a_row_are_a_collapse():
    found, state = alarms(GradientMonitor(), [1, 0.009, 0.009, 0.009, 0.009, 0.009, 0.5])
    low = [Alarm.low] * 4
    assert found == [Alarm.healthy, *low, Alarm.collapse, Alarm.healthy]
    assert int(state.collapses) == 1
    assert int(state.checks) == 7
    assert float(state.smallest) == pytest.approx(0.009)


def test_one_good_check_starts_the_count_again():
    script = [0.001] * 4 + [0.02] + [0.001] * 4
    found, state = alarms(GradientMonitor(), script)
    assert Alarm.collapse not in found
    assert int(state.low) == 4
    assert alarms(GradientMonitor(), [0.001], state)[0] == [Alarm.collapse]


def test_after_a_collapse_the_count_begins_anew():
    found, state = alarms(GradientMonitor(consecutive=2), [0.001] * 5)
    assert found == [Alarm.low, Alarm.collapse, Alarm.low, Alarm.collapse, Alarm.low]
    assert int(state.collapses) == 2


def test_the_threshold_itself_is_healthy():
    monitor = GradientMonitor(ratio=0.5, consecutive=1)
    state, alarm = monitor.update(monitor.start(), np.array([0.5]), ONE)
    assert alarm is Alarm.healthy
    assert monitor.update(state, np.array([0.4999]), ONE)[1] is Alarm.collapse


@pytest.mark.parametrize("scaling", [np.zeros(0), np.zeros(2)], ids=["eliminated", "vanishing"])
def test_a_scaling_without_gradient_cannot_win(scaling):
    monitor = GradientMonitor(consecutive=1)
    state, alarm = monitor.update(monitor.start(), np.zeros(2), scaling)
    assert alarm is Alarm.healthy
    assert np.isinf(state.history[-1])


def test_a_gradient_that_is_not_finite_is_no_check():
    monitor = GradientMonitor()
    start = monitor.start()
    state, alarm = monitor.update(start, np.array([np.nan]), ONE)
    assert alarm is Alarm.healthy
    assert int(state.checks) == 0


def test_watched_parameters_are_looked_at_after_the_first_checks():
    monitor = GradientMonitor(watched=(1,))
    state, found = monitor.start(), []
    for _ in range(12):
        state, alarm = monitor.update(state, np.array([1.0, 1e-9]), ONE)
        found.append(alarm)
    # Checks 6, 7 and 8 are the first three that count, then 9, 10 and 11.
    assert [i + 1 for i, alarm in enumerate(found) if alarm is Alarm.flat] == [8, 11]
    state, alarm = monitor.update(state, np.array([1.0, 1.0]), ONE)
    assert alarm is Alarm.healthy
    assert not state.named.any()


def test_a_watched_parameter_that_moves_now_and_then_is_healthy():
    monitor, found = GradientMonitor(watched=(0,), after=0), []
    state = monitor.start()
    for g in (0.0, 0.0, 1e-7, 0.0, 0.0):
        state, alarm = monitor.update(state, np.array([g, 1.0]), ONE)
        found.append(alarm)
    assert set(found) == {Alarm.healthy}


def test_the_history_is_capped_and_in_order():
    found, state = alarms(GradientMonitor(recorded=3), [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(state.history, [2.0, 3.0, 4.0])
    assert GradientMonitor().recorded == 1000
    assert len(found) == 4


def test_a_state_is_never_changed():
    monitor = GradientMonitor(watched=(0,))
    _, state = alarms(monitor, [0.001, 1.0])
    before = copy.deepcopy(state)
    once, again = (monitor.update(state, np.array([1e-9, 0.0]), ONE) for _ in range(2))
    assert once[1] is again[1]
    for name in ("checks", "low", "flat", "history"):
        np.testing.assert_array_equal(getattr(state, name), getattr(before, name))
        np.testing.assert_array_equal(getattr(once[0], name), getattr(again[0], name))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ratio": 0.0}, "ratio is 0.0; give a number between 0 and 1"),
        ({"ratio": 1.5}, "ratio"),
        ({"consecutive": 0}, "consecutive is 0"),
        ({"flat": -1.0}, "flat"),
        ({"flat_checks": 0}, "flat_checks"),
        ({"recorded": 0}, "recorded"),
        ({"after": -1}, "after is -1"),
    ],
)
def test_wrong_numbers_are_refused(fields, message):
    with pytest.raises(ModelError, match=message):
        GradientMonitor(**fields)
