"""When the warm-up has done its part: any subset of these."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float


class Progress(NamedTuple):
    """What a criterion may look at.

    - `losses`: by iteration, the present one last.
    - `gradient`: norm of the gradient of the loss along directions that the bounds allow.
    """

    iteration: int
    losses: Float[np.ndarray, "iteration"]
    gradient: float


class AbstractCriterion(eqx.Module):
    """One reason to go on to the next phase."""

    @abstractmethod
    def met(self, progress: Progress) -> bool:
        """Whether it applies now."""

    @property
    @abstractmethod
    def reason(self) -> str:
        """The reason as a phrase."""


class Plateau(AbstractCriterion):
    """The loss fell by less than `relative` of itself over the last `window` iterations."""

    relative: float = 1e-4
    window: int = 5

    def met(self, progress):
        if len(progress.losses) <= self.window:
            return False
        before, now = progress.losses[-1 - self.window], progress.losses[-1]
        return bool(before - now <= self.relative * before)

    @property
    def reason(self):
        return "the loss no longer falls"


class SmallGradient(AbstractCriterion):
    """The gradient of the relative loss in normalised units is below `norm`."""

    norm: float = 1e-3

    def met(self, progress):
        return progress.gradient <= self.norm

    @property
    def reason(self):
        return "the gradient is small"


class MaxIterations(AbstractCriterion):
    """The iterations are used up."""

    iterations: int = 500

    def met(self, progress):
        return progress.iteration >= self.iterations

    @property
    def reason(self):
        return "the iterations are used up"
