"""The first evaluations of a fit of maps in single precision, the last ones in double."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..errors import ModelError
from ..objective import AbstractObjective, in_single_precision
from ..parameters.variables import physical_of
from .convergence import Status
from .loops import advance, evaluated, initial_state
from .preparation import AbstractPreparation, AbstractPreparationState, Telemetry
from .trust_region import LEAST_DAMPING, TrustRegion, TrustRegionState

# Costs in single precision that differ by less than this part of them may be the same.
_ROUNDING = 1e-6


class SinglePrecisionState(AbstractPreparationState):
    """A fit in single precision between two evaluations.

    - `inner`: the state of its trust region; `first`: the damping that it began with.
    """

    inner: TrustRegionState
    best: Float[np.ndarray, "variable"]
    evaluations: Int[np.ndarray, ""]
    first: Float[np.ndarray, ""]

    phase: ClassVar[str] = "single precision"

    @property
    def status(self) -> Status:
        """How it ended."""
        return Status(int(self.inner.status))

    @property
    def running(self):
        return self.status is Status.running

    @property
    def summary(self):
        return f"single precision, {self.inner.summary}"

    @property
    def telemetry(self):
        return Telemetry()

    @property
    def damping(self):
        if int(self.status) <= 0:
            return None
        return max(float(self.first / self.inner.step_size), LEAST_DAMPING)


class SinglePrecision(AbstractPreparation):
    """The trust region on maps whose tiles are worked on in single precision.

    Sums over tiles stay in double precision: a step is off by some 1e-4 of a standard error. The
    fit that follows is in double precision throughout, begins with the damping reached here, and
    ends where it would have ended alone, to its tolerances; it has two or three evaluations left
    to make. It pays where double precision takes more than twice as long, as on many devices.

    - `solver`: tolerances that double precision need not follow up from far away.

    `begin` raises `ModelError` as `check`.
    """

    solver: TrustRegion = eqx.field(
        default_factory=lambda: TrustRegion(cost_tol=1e-8, max_evaluations=50)
    )

    def check(self, objective: AbstractObjective) -> None:
        """Refuse data that are no maps.

        **Raises:** `ModelError`.
        """
        if in_single_precision(objective) is None:
            raise ModelError(
                "SinglePrecision is for maps of two times, and the data of this fit are points; "
                "leave it out"
            )

    def begin(self, objective, x):
        self.check(objective)
        return SinglePrecisionState(
            inner=initial_state(self.solver, objective, jnp.asarray(x)),
            best=np.array(x, dtype=float),
            evaluations=np.asarray(0),
            first=np.asarray(self.solver.damping),
        )

    def machine(self, objective):
        single, variables = in_single_precision(objective), objective.variables
        assert single is not None

        def step(state):
            assert isinstance(state, SinglePrecisionState)
            equations, memo = evaluated(single, state.inner.trial, state.inner.memo)
            before = float(state.inner.equations.cost)
            inner = advance(self.solver, variables, state.inner, equations, memo)
            same = abs(float(equations.cost) - before) <= _ROUNDING * before
            if same and int(inner.rejected) > int(state.inner.rejected):
                # Rounding refused the step; to look for a smaller one is left to double precision.
                ended = jnp.asarray(int(Status.cost), inner.status.dtype)
                inner = eqx.tree_at(lambda one: one.status, inner, ended)
            best, passes = physical_of(variables, inner.y), state.evaluations + 1
            best, passes = np.asarray(best), np.asarray(passes)
            return dataclasses.replace(state, inner=inner, best=best, evaluations=passes)

        return step
