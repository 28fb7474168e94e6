"""Four defences of the warm-up: decisions as pure functions of a few numbers.

A defence is switched off by its number, which then never applies (see `presets.no_defences`).
"""

import equinox as eqx
import numpy as np


class WarmStart(eqx.Module):
    """A start that explains the data already needs no warm-up.

    - `threshold`: of loss / variance of the data; 0 never skips.
    """

    threshold: float = 0.01

    def skip(self, relative_loss: float) -> bool:
        """Whether to go on to the next phase at once."""
        return bool(relative_loss < self.threshold)


class FirstStep(eqx.Module):
    """The first step by how far the start is from the data.

    - `refinement`, `careful`, `exploration`: the step where loss / variance of the data is below
        `close`, below `far`, or above.
    """

    refinement: float = 1.0
    careful: float = 0.5
    exploration: float = 0.1
    close: float = 0.1
    far: float = 1.0

    def size(self, relative_loss: float) -> float:
        """Fraction of the first search direction."""
        if relative_loss < self.close:
            return self.refinement
        return self.careful if relative_loss < self.far else self.exploration


class CostGuard(eqx.Module):
    """Stops when the loss has grown: `ratio` to the first loss, infinite for never."""

    ratio: float = 1.05

    def exceeded(self, loss: float, first: float) -> bool:
        """Whether to stop and return the best point."""
        return bool(loss > self.ratio * first)


class StepClip(eqx.Module):
    """No step is longer than `norm` in normalised units; infinite for any length."""

    norm: float = 0.1

    def longest(self, direction: float) -> float:
        """The largest multiple of a direction of the given norm."""
        return float(self.norm / direction) if direction > 0 else np.inf


class Defences(eqx.Module):
    """The four of them."""

    warm_start: WarmStart = WarmStart()
    first_step: FirstStep = FirstStep()
    guard: CostGuard = CostGuard()
    clip: StepClip = StepClip()
