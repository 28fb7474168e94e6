"""Local fits from many starts."""

import dataclasses
from abc import abstractmethod
from concurrent.futures import Executor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ..arguments import Count, check_fields
from ..compiling import quick_jit
from ..errors import ModelError
from ..inherited import Inherited
from ..objective import AbstractObjective, HeldExecutor
from ..optimize import TrustRegion, iterate_compiled, iterate_host
from .population import padded

# Pairs up to which one start takes milliseconds, so that what surrounds a fit counts.
SMALL = 300_000
# Fits that share an accelerator: with SMALL pairs and ten parameters their Jacobians take 0.8 GB.
ACCELERATED = 32


class LocalFits(NamedTuple):
    """Where local fits ended, one row for each start.

    - `y`: solver coordinates; `x`: physical variables.
    - `cost`: infinite where a fit found no finite one; `hessian`: of the coordinates.
    - `status`: a `Status` as an integer; `evaluations`: of each fit.
    """

    y: Float[np.ndarray, "start variable"]
    x: Float[np.ndarray, "start variable"]
    cost: Float[np.ndarray, "start"]
    hessian: Float[np.ndarray, "start variable variable"]
    status: Int[np.ndarray, "start"]
    evaluations: Int[np.ndarray, "start"]

    def take(self, which: Any) -> "LocalFits":
        """Some of them, in the order asked for."""
        return LocalFits(*(part[which] for part in self))

    def put(self, which: Any, others: "LocalFits") -> "LocalFits":
        """These, with others in the rows `which`."""
        parts = [np.array(part) for part in self]
        for part, other in zip(parts, others, strict=True):
            part[which] = other
        return LocalFits(*parts)

    def spread(self, n: int, numbers: Int[np.ndarray, "start"]) -> "LocalFits":
        """As the rows `numbers` of `n`; in the others NaN, infinite costs and no evaluation."""
        blank = zip(self, (np.nan, np.nan, np.inf, np.nan, 0, 0), strict=True)
        rows = (np.full((n, *part.shape[1:]), nothing, part.dtype) for part, nothing in blank)
        return LocalFits(*rows).put(numbers, self)

    @property
    def converged(self) -> Bool[np.ndarray, "start"]:
        """Which of them ended at a minimum to the tolerances of their solver."""
        return self.status > 0


class AbstractLocalFits(eqx.Module):
    """How the local fits of a search are carried out; all of them end at the same points."""

    @abstractmethod
    def run(
        self,
        objective: AbstractObjective,
        starts: Float[np.ndarray, "start variable"],
        solver: TrustRegion,
    ) -> LocalFits:
        """Fit from each of the physical `starts`, without recovery and error bars."""


class OneCall(AbstractLocalFits):
    """All fits in one compiled call, for small data: nothing is left of Python.

    - `batch`: fits that advance together, under `vmap`; `local_fits_for` chooses it by the device.
        One on a processor, whose vector units the pairs of a map keep busy and where a batch
        waits for the slowest of its fits. On an accelerator one fit of small data leaves most of
        it idle.
    """

    batch: Count = eqx.field(static=True, default=1)

    __check_init__ = check_fields

    def run(self, objective, starts, solver):
        if not objective.traceable:
            raise ModelError(
                "fits in one compiled call need data in memory summed by Scan; give "
                "local=OverExecutor() for these"
            )
        n = len(starts)
        # Filled up with starts that end at once, so that the number of starts compiles nothing.
        points = padded(starts, least=8)
        solver = _with_history_of_one(solver)
        found = _run_all(objective, solver, points, np.arange(len(points)) < n, self.batch)
        return _finite(LocalFits(*(np.asarray(part)[:n] for part in found)))


def _held_or_none(executor: Any) -> HeldExecutor:
    return HeldExecutor() if executor is None else HeldExecutor.of(executor, "map")


class OverExecutor(AbstractLocalFits):
    """One fit after the other, or over any `concurrent.futures.Executor`, for large data.

    - `executor`: threads, processes, or machines through Dask; by default none. The caller opens
        and closes it.
    """

    executor: HeldExecutor = eqx.field(static=True, default=HeldExecutor(), converter=_held_or_none)

    def run(self, objective, starts, solver):
        solver = _with_history_of_one(solver)
        work = [Inherited(_run_one, objective, solver, one) for one in starts]
        held: Executor | None = self.executor.executor
        each = map if held is None else held.map
        rows = list(each(Inherited.__call__, work))
        return _finite(LocalFits(*(np.stack(part) for part in zip(*rows, strict=True))))


def _platform(objective: AbstractObjective) -> str:
    """Where the arrays of an objective are; the default device for arrays of NumPy."""
    arrays = (leaf for leaf in jax.tree.leaves(objective) if isinstance(leaf, jax.Array))
    platforms = {device.platform for one in arrays for device in one.devices()}
    return platforms.pop() if len(platforms) == 1 else jax.default_backend()


def local_fits_for(objective: AbstractObjective, n_pairs: int) -> AbstractLocalFits:
    """One compiled call for small data in memory, one fit after the other for everything else."""
    if objective.traceable and n_pairs <= SMALL:
        return OneCall(batch=1 if _platform(objective) == "cpu" else ACCELERATED)
    return OverExecutor()


def _with_history_of_one(solver: TrustRegion) -> TrustRegion:
    # Nobody sees the history of a fit among many.
    return dataclasses.replace(solver, recorded=1)


def _outcome(objective, state):
    y = state.y
    x = objective.variables.to_physical(y)
    equations = state.equations
    return y, x, equations.cost, equations.hessian, state.status, state.evaluations


@quick_jit
def _run_all(objective, solver, starts, wanted, batch):
    # What is not wanted begins outside of every domain, where a fit ends at its first evaluation.
    starts = jnp.where(wanted[:, None], starts, jnp.nan)

    def one(start):
        return _outcome(objective, iterate_compiled(solver, objective, start))

    return jax.lax.map(one, starts, batch_size=batch if batch > 1 else None)


_outcome_compiled = quick_jit(_outcome)


def _run_one(objective, solver, start):
    state = iterate_host(solver, objective, jnp.asarray(start))
    return tuple(np.asarray(part) for part in _outcome_compiled(objective, state))


def _finite(found: LocalFits) -> LocalFits:
    sound = np.isfinite(found.cost) & np.isfinite(found.x).all(axis=1) & (found.evaluations > 0)
    return found._replace(cost=np.where(sound, found.cost, np.inf))
