"""What a search under way has used and decided."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Spending(NamedTuple):
    """Evaluations of costs or normal equations, and what for."""

    what: str
    evaluations: int


class Log:
    """Evaluations, decisions and the lowest cost so far; it lives as long as a search.

    - `spent`: evaluations by what they were for; `decisions`: in sentences.
    - `ended`: whether the callback has asked for the end.
    """

    def __init__(self, callback: Callable[[Any], Any] | None = None):
        self.callback = callback
        self.spent: list[Spending] = []
        self.decisions: list[str] = []
        self.lowest = np.inf
        self.ended = False

    @property
    def used(self) -> int:
        """Evaluations so far."""
        return sum(one.evaluations for one in self.spent)

    def say(self, text: str) -> None:
        """Note a decision."""
        self.decisions.append(text)

    def spend(self, what: str, evaluations: int, cost: float = np.inf) -> None:
        """Note evaluations and the lowest cost among them."""
        self.spent.append(Spending(what, evaluations))
        self.lowest = min(self.lowest, cost)

    def show(self, seen: Any, said: str) -> bool:
        """Show the callback where the search is; whether it asks, or has asked, for the end.

        `said` is noted when it asks for the first time.
        """
        if self.callback is not None and bool(self.callback(seen)) and not self.ended:
            self.ended = True
            self.say(said)
        return self.ended
