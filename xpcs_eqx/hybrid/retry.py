"""A failing batch or iteration is tried again; what failed and how is a value."""

import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import equinox as eqx
import jax


class Failure(IntEnum):
    """Kinds of failure of a batch or an iteration."""

    none = 0
    read = 1
    loss = 2
    gradient = 3
    parameters = 4
    memory = 5

    @property
    def message(self) -> str:
        """What it means."""
        return _MESSAGES[self]


_MESSAGES = {
    Failure.none: "no failure",
    Failure.read: "the data could not be read",
    Failure.loss: "the loss is not finite",
    Failure.gradient: "the gradient is not finite",
    Failure.parameters: "the parameters are not finite",
    Failure.memory: "memory ran out",
}


class Outcome(eqx.Module):
    """What came of trying.

    - `value`: of the last attempt that returned one, else `None`.
    - `failure`: of the last attempt; `Failure.none` when it succeeded.
    - `failures`: of every attempt that failed, in order.
    - `error`: the last exception, else `None`.
    """

    value: Any
    failure: Failure = eqx.field(static=True)
    failures: tuple[Failure, ...] = eqx.field(static=True)
    error: Exception | None = eqx.field(static=True)

    @property
    def success(self) -> bool:
        """Whether the last attempt succeeded."""
        return self.failure is Failure.none


def no_failure(value: Any) -> Failure:
    """The check that accepts whatever was returned."""
    del value
    return Failure.none


def failure_of(error: Exception) -> Failure | None:
    """The kind of failure an exception stands for, `None` for a mistake that stays one."""
    if isinstance(error, MemoryError):
        return Failure.memory
    if isinstance(error, jax.errors.JaxRuntimeError):
        return Failure.memory if "RESOURCE_EXHAUSTED" in str(error) else None
    return Failure.read if isinstance(error, OSError) else None


class Retry(eqx.Module):
    """How often something that failed is tried again.

    - `attempts`: further attempts after the first.
    - `pause`: wait before the first of them [s], twice as long before each later one.
    """

    attempts: int = eqx.field(static=True, default=3)
    pause: float = eqx.field(static=True, default=0.0)

    def run(
        self, function: Callable[[int], Any], check: Callable[[Any], Failure] = no_failure
    ) -> Outcome:
        """Call `function(attempt)` for attempt 0, 1, … until `check` of its value finds no failure.

        **Raises:** what `function` raises, except read errors and want of memory, which count as
        failed attempts.
        """
        failures: list[Failure] = []
        value, last = None, None
        for attempt in range(self.attempts + 1):
            if attempt and self.pause:
                time.sleep(self.pause * 2 ** (attempt - 1))
            try:
                value = function(attempt)
                failure, last = check(value), None
            except Exception as error:
                kind = failure_of(error)
                if kind is None:
                    raise
                failure, last = kind, error
            if failure is Failure.none:
                return Outcome(value, failure, tuple(failures), None)
            failures.append(failure)
        return Outcome(value, failures[-1], tuple(failures), last)
