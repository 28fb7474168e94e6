"""What improves a start before the trust region, in steps, and what its defences did."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from equinox import AbstractVar
from jaxtyping import Float, Int

from ..arguments import check_fields
from ..objective import AbstractObjective

# Events kept; with one number for all, merging is associative.
EVENTS = 100


class Event(eqx.Module):
    """One firing: layer, iteration, and numbers that explain it."""

    layer: str = eqx.field(static=True)
    iteration: int = eqx.field(static=True)
    numbers: tuple[tuple[str, float], ...] = eqx.field(static=True)


class Telemetry(eqx.Module):
    """Counts by layer and the last events, added by `+`.

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


class AbstractPreparationState(eqx.Module):
    """Everything of a preparation between two of its steps, as arrays.

    - `best`: the lowest physical variables so far; `evaluations`: passes over the data.
    - `phase`: what a preparation is called.
    """

    best: AbstractVar[Float[np.ndarray, "variable"]]
    evaluations: AbstractVar[Int[np.ndarray, ""]]
    phase: ClassVar[str]

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether a further step follows."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """Where it is, in one line."""

    @property
    @abstractmethod
    def telemetry(self) -> Telemetry:
        """How often each of its defences was asked and fired."""

    @property
    def damping(self) -> float | None:
        """The damping that the trust region should begin with, where this knows better."""
        return None


class AbstractPreparation(eqx.Module):
    """What improves the start of a fit before the trust region: a machine of states."""

    __check_init__ = check_fields

    @abstractmethod
    def begin(
        self, objective: AbstractObjective, x: Float[np.ndarray, "variable"]
    ) -> AbstractPreparationState:
        """The state before the first pass over the data, at physical variables `x`."""

    @abstractmethod
    def machine(
        self, objective: AbstractObjective
    ) -> Callable[[AbstractPreparationState], AbstractPreparationState]:
        """The step from a state to the next one; what it needs of the data is looked up once."""
