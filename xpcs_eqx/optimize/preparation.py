"""What improves a start before the trust region, as a machine of states."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import numpy as np
from equinox import AbstractVar
from jaxtyping import Float, Int

from ..objective import AbstractObjective
from .telemetry import Telemetry


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


class AbstractPreparation(eqx.Module):
    """What improves the start of a fit before the trust region: a machine of states."""

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
