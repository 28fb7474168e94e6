"""How often each layer of the optimiser's defence was asked and fired: a value, not a global."""

from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx

# Events kept; with one number for all, merging is associative.
EVENTS = 100


class Event(eqx.Module):
    """One firing: layer, iteration, and numbers that explain it."""

    layer: str = eqx.field(static=True)
    iteration: int = eqx.field(static=True)
    numbers: tuple[tuple[str, float], ...] = eqx.field(static=True)


class Telemetry(eqx.Module):
    """Counts by layer and the last events; `record` and `+` return new values.

    - `counts`: (layer, times asked, times fired), sorted by layer.
    - `events`: the last `EVENTS` of them, oldest first.
    """

    counts: tuple[tuple[str, int, int], ...] = eqx.field(static=True, default=())
    events: tuple[Event, ...] = eqx.field(static=True, default=())

    @classmethod
    def of(cls, layer: str, asked: int, events: Iterable[Event]) -> "Telemetry":
        """A layer that was asked so often and fired with these events."""
        found = tuple(events)
        return cls(((layer, int(asked), len(found)),), found[-EVENTS:])

    def record(
        self,
        layer: str,
        fired: bool | int = True,
        *,
        asked: int = 1,
        iteration: int = 0,
        **numbers: float,
    ) -> "Telemetry":
        """With a layer asked `asked` times that fired `fired` times; an event is kept if it did."""
        events = self.events
        if fired:
            plain = tuple((name, float(value)) for name, value in numbers.items())
            events = (*events, Event(layer, int(iteration), plain))
        one = Telemetry(((layer, int(asked), int(fired)),), ())
        return Telemetry((self + one).counts, events[-EVENTS:])

    def __add__(self, other: "Telemetry") -> "Telemetry":
        """Both together, the events of `other` after those of `self`."""
        total = {layer: (asked, fired) for layer, asked, fired in self.counts}
        for layer, asked, fired in other.counts:
            before = total.get(layer, (0, 0))
            total[layer] = (before[0] + asked, before[1] + fired)
        counts = tuple((layer, *total[layer]) for layer in sorted(total))
        return Telemetry(counts, (self.events + other.events)[-EVENTS:])

    def fired(self, layer: str) -> int:
        """How often a layer fired."""
        return sum(fired for name, _, fired in self.counts if name == layer)

    def asked(self, layer: str) -> int:
        """How often a layer was asked."""
        return sum(asked for name, asked, _ in self.counts if name == layer)

    def rate(self, layer: str) -> float:
        """Share of the times a layer was asked that it fired; 0 when it never was asked."""
        return self.fired(layer) / max(self.asked(layer), 1)

    def export(self) -> dict[str, Any]:
        """Plain numbers, lists and strings, fit for JSON."""
        return {
            "layers": {
                layer: {"asked": asked, "fired": fired, "rate": self.rate(layer)}
                for layer, asked, fired in self.counts
            },
            "events": [
                {"layer": e.layer, "iteration": e.iteration, **dict(e.numbers)} for e in self.events
            ],
        }

    @classmethod
    def from_export(cls, exported: Mapping[str, Any]) -> "Telemetry":
        """The value that `export` described."""
        counts = tuple(
            (layer, int(row["asked"]), int(row["fired"]))
            for layer, row in sorted(exported["layers"].items())
        )
        own = ("layer", "iteration")
        events = tuple(
            Event(
                row["layer"],
                int(row["iteration"]),
                tuple((name, float(value)) for name, value in row.items() if name not in own),
            )
            for row in exported["events"]
        )
        return cls(counts, events)
