"""What is done about a gradient collapse: one class a response."""

import dataclasses
from abc import abstractmethod
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..errors import ModelError
from ..objective import JointObjective, TwoTimeObjective
from .hierarchical import Hierarchical, variables_at
from .variation import AbstractRegularisation


class Situation(NamedTuple):
    """A fit in which gradients have collapsed, at the best point so far.

    - `x`: physical variables of the objective; `regularisation`: the one in force.
    """

    objective: TwoTimeObjective
    x: Float[np.ndarray, "variable"]
    regularisation: AbstractRegularisation | None
    hierarchical: Hierarchical | None


class Continuation(NamedTuple):
    """How a fit goes on: from where, with which regularisation, by which method."""

    x: Float[np.ndarray, "variable"]
    regularisation: AbstractRegularisation | None
    hierarchical: Hierarchical | None


class AbstractResponse(eqx.Module):
    """What is done about a collapse. `interrupts`: whether the fit under way is left for it."""

    interrupts: ClassVar[bool]

    @property
    @abstractmethod
    def name(self) -> str:
        """What it does, as a phrase."""

    @abstractmethod
    def after(self, situation: Situation) -> Continuation | None:
        """How to go on; None ends the fit at the best point so far."""


class Warn(AbstractResponse):
    """The fit goes on, and the report says so."""

    interrupts: ClassVar[bool] = False

    @property
    def name(self):
        return "warned, the fit went on"

    def after(self, situation):
        return Continuation(situation.x, situation.regularisation, situation.hierarchical)


class GoHierarchical(AbstractResponse):
    """The fit goes on with physical parameters and scaling in turn.

    - `method`: the alternation; one that is in force already is kept.
    """

    interrupts: ClassVar[bool] = True
    method: Hierarchical = Hierarchical()

    @property
    def name(self):
        return "went on with physical parameters and scaling in turn"

    def after(self, situation):
        method = situation.hierarchical or self.method
        return Continuation(situation.x, situation.regularisation, method)


class ResetScaling(AbstractResponse):
    """Contrast and offset go to their means over the angles, and λ of the regularisation grows.

    - `factor`: of λ. Without it the fit would only collapse again: `DefenceLayers` refuse a reset
        without regularisation.

    **Raises:** `ModelError` for a factor below one.
    """

    interrupts: ClassVar[bool] = True
    factor: float = 10.0

    def __check_init__(self):
        if not (np.isfinite(self.factor) and self.factor >= 1):
            raise ModelError(f"factor = {self.factor} of a reset; give a number from 1")

    @property
    def name(self):
        return f"reset the scaling to its mean, λ times {self.factor:g}"

    def after(self, situation):
        objective, chosen = situation.objective, situation.regularisation
        if chosen is not None:
            chosen = dataclasses.replace(chosen, factor=chosen.factor * self.factor)
        x = situation.x
        if isinstance(objective, JointObjective):
            scaling, p = objective.term.scaling, objective.term.parameters.n_free
            per_angle = np.asarray(scaling.per_angle(jnp.asarray(x[p:])))
            mean = np.broadcast_to(np.mean(per_angle, axis=0), per_angle.shape)
            x = variables_at(
                objective, x[:p], np.asarray(scaling.from_per_angle(jnp.asarray(mean)))
            )
        return Continuation(x, chosen, situation.hierarchical)


class Abort(AbstractResponse):
    """The fit ends with the best point so far, as not converged."""

    interrupts: ClassVar[bool] = True

    @property
    def name(self):
        return "ended the fit at the best point so far"

    def after(self, situation):
        return None
