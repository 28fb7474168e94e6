"""Telemetry is a value: counts, rates, bounded events, a sum."""

import json

from xpcs_eqx.optimize.preparation import EVENTS, Event, Telemetry


def series(layer, n, fired=True):
    events = [Event(layer, i, (("loss", 0.5 * i),)) for i in range(n)]
    return Telemetry.of(layer, n, events if fired else ())


def test_counts_and_rates():
    telemetry = series("clip", 3) + series("clip", 1, False) + series("cost_guard", 1, False)
    assert (telemetry.asked("clip"), telemetry.fired("clip")) == (4, 3)
    assert telemetry.rate("clip") == 0.75
    assert telemetry.rate("cost_guard") == 0.0
    assert telemetry.rate("never asked") == 0.0
    several = telemetry + Telemetry((("clip", 16, 10),))
    assert (several.asked("clip"), several.fired("clip")) == (20, 13)
    # The value it was made from is as before.
    assert telemetry.fired("clip") == 3


def test_what_did_not_fire_leaves_no_event():
    telemetry = series("clip", 2) + series("clip", 7, fired=False)
    assert [event.iteration for event in telemetry.events] == [0, 1]
    assert telemetry.events[1].numbers == (("loss", 0.5),)


def test_events_are_bounded():
    telemetry = series("clip", EVENTS + 20)
    assert len(telemetry.events) == EVENTS
    assert telemetry.events[-1].iteration == EVENTS + 19
    assert telemetry.fired("clip") == EVENTS + 20


def test_merging_is_associative_and_has_a_neutral_element():
    a, b, c = series("clip", 60), series("warm_start", 70), series("clip", 30, fired=False)
    assert (a + b) + c == a + (b + c)
    assert a + Telemetry() == a == Telemetry() + a
    assert (a + b + c).asked("clip") == 90
    assert len((a + b).events) == EVENTS


def test_export_is_plain():
    telemetry = series("clip", 3) + series("cost_guard", 2, fired=False)
    exported = json.loads(json.dumps(telemetry.export()))
    assert exported["layers"]["clip"] == {"asked": 3, "fired": 3, "rate": 1.0}
    assert exported["events"][2]["loss"] == 1.0
    assert exported["layers"]["cost_guard"] == {"asked": 2, "fired": 0, "rate": 0.0}
    assert [event["iteration"] for event in exported["events"]] == [0, 1, 2]
