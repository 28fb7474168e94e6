"""What to do when a local fit fails or is stuck."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from ..arguments import check_fields, plain
from ..compiling import plain_jit
from ..parameters import AbstractVariables, snap
from ..parameters.variables import coordinates_of
from .convergence import Status
from .trust_region import TrustRegion, TrustRegionState


class Attempt(eqx.Module):
    """A new start after a failure: what was wrong, what is done about it."""

    cause: str = eqx.field(static=True)
    action: str = eqx.field(static=True)
    x: Float[Array, "p"]
    solver: TrustRegion


class Recovery(eqx.Module):
    """Rules for new attempts; at most `attempts` of them.

    - `perturbations`: relative size of the perturbation by attempt.
    - `seed`: of the perturbations, so that a fit can be repeated.
    """

    attempts: int = eqx.field(static=True, default=3, converter=plain)
    perturbations: tuple[float, ...] = eqx.field(static=True, default=(0.05, 0.10, 0.20))
    seed: int = eqx.field(static=True, default=0, converter=plain)

    __check_init__ = check_fields

    def diagnose(
        self,
        variables: AbstractVariables,
        start: Float[Array | np.ndarray, "p"],
        state: TrustRegionState,
    ) -> str | None:
        """The cause of a failure in one word, or None when there is none."""
        status = Status(int(state.status))
        if status == Status.non_finite or not np.isfinite(float(state.equations.cost)):
            return "non-finite"
        x = np.asarray(_located(variables, state.y))
        if not status.converged:
            if np.allclose(x, np.asarray(start), rtol=1e-12, atol=0):
                return "not moved"
            if np.any(_vanished(state)):
                return "singular"
        if np.any(at_bound(variables, x)):
            return "at bounds"
        return None if status.converged else "not converged"

    def plan(
        self,
        cause: str,
        attempt: int,
        variables: AbstractVariables,
        start: Float[Array | np.ndarray, "p"],
        state: TrustRegionState,
        solver: TrustRegion,
    ) -> Attempt:
        """The next attempt for a cause; `attempt` counts from zero."""
        size = self.perturbations[min(attempt, len(self.perturbations) - 1)]
        random = np.random.default_rng((self.seed, attempt))
        lower, upper = np.asarray(variables.lower), np.asarray(variables.upper)
        best = np.asarray(_located(variables, state.y))
        best = np.where(np.isfinite(best), best, np.asarray(start))
        natural = np.maximum(np.abs(best), 1e-3 * np.asarray(variables.coordinate_scale))
        kick = size * natural * random.choice([-1.0, 1.0], best.shape)
        careful = eqx.tree_at(lambda s: s.damping, solver, 100.0 * solver.damping)
        if cause == "non-finite":
            # The middle of a box that is there only because a box was asked for is far away.
            reach = 10 * np.maximum(np.abs(start), np.asarray(variables.coordinate_scale))
            middle = _middle(lower, upper, np.asarray(start))
            x = np.asarray(start) + size * np.clip(middle - np.asarray(start), -reach, reach)
            chosen = careful
            action = f"start moved {size:.0%} towards the middle of the bounds, damping × 100"
        elif cause == "not moved":
            x, chosen = best + kick, solver
            action = f"start perturbed by {size:.0%}"
        elif cause == "singular":
            x, chosen = best, careful
            action = "ridge: damping × 100, undetermined directions left alone"
            lost = lost_variables(state)
            if np.any(lost):
                # Where the model no longer depends on a variable, nothing leads back.
                again = np.asarray(start) * (1.0 + (size if attempt else 0.0) * np.sign(kick))
                x = np.where(lost, again, best)
                action = (
                    "ridge: damping × 100, what the model no longer depends on put back to its "
                    "start"
                )
        elif cause == "at bounds":
            room = np.minimum(upper - lower, np.maximum(natural, np.abs(start)))
            # A tenth of the box may be far from everything the data allow: half-way back to the
            # start is inside as well, and on the known side.
            inner = np.clip(
                0.5 * (best + np.asarray(start)), lower + 1e-3 * room, upper - 1e-3 * room
            )
            stuck, begun = at_bound(variables, best), at_bound(variables, start)
            x = np.where(stuck, inner, best + kick)
            action = "restarted from inside the bounds"
            if np.any(stuck & begun):
                # What began on a bound and is still there has never seen the inside, and the rest
                # has been fitted to that.
                x = np.where(stuck | begun, _middle(lower, upper, np.asarray(start)), start)
                action = "restarted from the middle of the bounds"
            chosen = solver
        else:
            x, chosen = best, careful
            action = "continued from the best point, damping × 100"
        x = np.clip(x, lower, upper)
        # Coordinates may not exist everywhere in the box; they do at the start.
        for _ in range(10):
            if np.all(np.isfinite(coordinates_of(variables, x))):
                break
            x = 0.5 * (x + np.asarray(start))
        return Attempt(cause, action, jax.device_put(x), chosen)


def lost_variables(state: TrustRegionState) -> np.ndarray:
    """Which variables the model depended on once, but does not at the end of a run.

    One that ran to where an exponential vanishes, say: its gradient is zero, but the cost has no
    minimum there.
    """
    return _vanished(state) & (np.asarray(state.largest) > 0)


def _vanished(state: TrustRegionState) -> np.ndarray:
    """Which variables leave nothing of their column but what rounding leaves of its largest."""
    least = np.finfo(float).eps ** 2 * np.maximum(np.asarray(state.largest), 0.0)
    return np.asarray(state.equations.diagonal) <= least


@plain_jit
def _snapped(variables, x):
    return snap(variables, x)


@plain_jit
def _located(variables, y):
    return snap(variables, variables.to_physical(y))


def _middle(lower, upper, start):
    """Middle of each interval, on a logarithmic scale where it spans decades of one sign."""
    infinite = np.isinf(lower) | np.isinf(upper)
    low, high = np.where(infinite, start, lower), np.where(infinite, start, upper)
    decades = (low > 0) & (high > 100 * low)
    roots = np.sqrt(np.where(decades, low, 1.0)), np.sqrt(np.where(decades, high, 1.0))
    return np.where(decades, roots[0] * roots[1], 0.5 * low + 0.5 * high)


def at_bound(variables: AbstractVariables, x: Float[Array | np.ndarray, "p"]) -> np.ndarray:
    """Which physical variables lie on a bound."""
    x = np.asarray(_snapped(variables, x))
    return (x <= np.asarray(variables.lower)) | (x >= np.asarray(variables.upper))
