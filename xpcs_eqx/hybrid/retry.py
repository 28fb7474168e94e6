"""What could not be read is read again."""

import time
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx

T = TypeVar("T")


class Retry(eqx.Module):
    """How often a read that failed is tried again.

    - `attempts`: further attempts after the first.
    - `pause`: wait before the first of them [s], twice as long before each later one.
    """

    attempts: int = eqx.field(static=True, default=3)
    pause: float = eqx.field(static=True, default=0.0)

    def wait(self, failures: int) -> None:
        """Wait before the attempt that follows so many failures."""
        if self.pause:
            time.sleep(self.pause * 2 ** (failures - 1))

    def run(self, function: Callable[[], T]) -> T:
        """The value of `function()`, called again where it fails to read.

        **Raises:** the last `OSError` when no attempt succeeded, and at once whatever else
        `function` raises.
        """
        for failures in range(1, self.attempts + 1):
            try:
                return function()
            except OSError:
                self.wait(failures)
        return function()
