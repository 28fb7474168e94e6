"""What became of the last batches: a ring of fixed size, a value like everything else."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from .retry import Failure

# Batches that are remembered.
RING = 100


class BatchStatistics(eqx.Module):
    """Results of the last `RING` batches and the number of failures of each kind.

    Arrays of fixed size, so that a checkpoint can hold it. Slots not yet used hold NaN.

    - `loss`, `gradient_norm`: of the batch; `seconds`: time it took [s].
    - `success`: whether it was used in the end.
    - `batches`: all batches so far; `failures`: failed attempts by `Failure`, of all batches.
    """

    loss: Float[np.ndarray, "slot"]
    gradient_norm: Float[np.ndarray, "slot"]
    seconds: Float[np.ndarray, "slot"]
    success: Bool[np.ndarray, "slot"]
    batches: Int[np.ndarray, ""]
    failures: Int[np.ndarray, "kind"]

    @classmethod
    def empty(cls) -> "BatchStatistics":
        """Before the first batch."""
        blank = np.full(RING, np.nan)
        return cls(
            blank, blank, blank, np.zeros(RING, bool), np.asarray(0), np.zeros(len(Failure), int)
        )

    def record(
        self,
        loss: float,
        gradient_norm: float,
        seconds: float,
        *,
        success: bool = True,
        failures: tuple[Failure, ...] = (),
    ) -> "BatchStatistics":
        """With one more batch, `failures` being those of its attempts."""
        slot = int(self.batches) % RING

        def put(ring, value):
            ring = ring.copy()
            ring[slot] = value
            return ring

        counted = self.failures + np.bincount(
            np.asarray(failures, dtype=int), minlength=self.failures.size
        )
        return BatchStatistics(
            put(self.loss, loss),
            put(self.gradient_norm, gradient_norm),
            put(self.seconds, seconds),
            put(self.success, success),
            np.asarray(self.batches + 1),
            counted,
        )

    def recent(self) -> dict[str, np.ndarray]:
        """The remembered batches, oldest first."""
        used = min(int(self.batches), RING)
        order = (int(self.batches) - used + np.arange(used)) % RING
        rings = {
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "seconds": self.seconds,
            "success": self.success,
        }
        return {name: ring[order] for name, ring in rings.items()}

    def export(self) -> dict[str, Any]:
        """Plain numbers: how many batches, share of success, median time [s], failures by kind."""
        recent = self.recent()
        some = recent["seconds"].size > 0
        return {
            "batches": int(self.batches),
            "success_rate": float(np.mean(recent["success"])) if some else 1.0,
            "median_seconds": float(np.median(recent["seconds"])) if some else 0.0,
            "failures": {kind.name: int(self.failures[kind]) for kind in Failure if kind},
        }
