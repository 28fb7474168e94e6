"""The way from one minimum to another: how far the cost rises on it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..objective import AbstractObjective, NormalEquations
from ..optimize import TrustRegion
from .local_fits import AbstractLocalFits, LocalFits
from .population import population_costs

# Points between two minima at which the cost is asked for.
POINTS = 7
# Places between two minima at which the rest is minimised, for a valley that is bent.
PLACES = np.array([0.2, 0.35, 0.5, 0.65, 0.8])
# Stiffness of the planes these places are held on, relative to the curvature of the cost along the
# way: enough to stay, little enough for the problem to remain as well conditioned as it was.
STIFFNESS = 1e3


class OnPlane(AbstractObjective):
    """An objective with its coordinates drawn to the plane through `place` across `direction`.

    Adds ½ κ (d·(y − y₀))². The minimum is that of the original cost on a plane, nearly.

    - `inner`: the objective; `direction`: d, `place`: y₀; `stiffness`: κ.
    """

    variables: object  # pyright: ignore[reportIncompatibleVariableOverride]
    inner: AbstractObjective
    direction: Float[Array, "variable"]
    place: Float[Array, "variable"]
    stiffness: Float[Array, ""]

    @property
    def traceable(self):
        return self.inner.traceable

    @property
    def start(self):
        return self.inner.start

    @property
    def names(self):
        return self.inner.names

    @property
    def memo(self):
        return self.inner.memo

    def _plane(self, y):
        distance = self.direction @ (y - self.place)
        slope = self.stiffness * self.direction
        return NormalEquations(
            0.5 * self.stiffness * distance**2,
            slope * distance,
            jnp.outer(slope, self.direction),
            jnp.zeros(()),
        )

    def evaluate(self, y, memo):
        equations, memo = self.inner.evaluate(y, memo)
        return equations + self._plane(y), memo

    def cost(self, y, memo):
        return self.inner.cost(y, memo) + self._plane(y).cost


@quick_jit
def _physical(variables, y):
    x = jax.vmap(variables.to_physical)(y)
    return jnp.clip(x, variables.lower, variables.upper)


def straight_costs(
    objective: AbstractObjective,
    pairs: list[tuple[Float[np.ndarray, "variable"], Float[np.ndarray, "variable"]]],
) -> Float[np.ndarray, "pair point"]:
    """Costs at evenly spaced points between pairs of coordinates, all in one batched call."""
    share = (np.arange(POINTS) + 1) / (POINTS + 1)
    lines = [a + share[:, None] * (b - a) for a, b in pairs]
    x = np.asarray(_physical(objective.variables, np.concatenate(lines)))
    return population_costs(objective, x).reshape(len(pairs), POINTS)


def relaxed_costs(
    objective: AbstractObjective,
    first: Float[np.ndarray, "variable"],
    last: Float[np.ndarray, "variable"],
    curvature: Float[np.ndarray, "variable variable"],
    local: AbstractLocalFits,
    solver: TrustRegion,
) -> tuple[Float[np.ndarray, "point"], LocalFits]:
    """Costs along a way that may bend: minima on planes across the straight line between two.

    **Returns:** costs at the minima on the planes, and the fits that found them.
    """
    # Normal to the planes in the metric of the curvature, so that a plane holds what the line
    # changes and not what it happens to be correlated with.
    step = last - first
    length = np.linalg.norm(step)
    direction = step / length
    along = float(direction @ curvature @ direction)
    largest = float(np.max(np.diagonal(curvature), initial=0.0))
    stiffness = STIFFNESS * max(along, 1e-6 * largest)
    found = []
    for share in PLACES:
        place = first + share * step
        held = OnPlane(
            objective.variables,
            objective,
            jnp.asarray(direction),
            jnp.asarray(place),
            jnp.asarray(stiffness),
        )
        start = np.asarray(_physical(objective.variables, place[None]))
        found.append(local.run(held, start, solver))
    fits = found[0]
    for more in found[1:]:
        fits = fits.joined(more)
    if not np.isfinite(fits.cost).all():
        return np.full(1, np.inf), fits
    # Not between the planes: the straight way from one to the next leaves a valley that is bent.
    return population_costs(objective, np.asarray(_physical(objective.variables, fits.y))), fits
