"""Which of many local fits ended in the same basin, and how far the cost rises between two."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..compiling import quick_jit
from ..objective import AbstractObjective, NormalEquations
from ..optimize import TrustRegion
from .local_fits import AbstractLocalFits, LocalFits
from .population import population_costs
from .space import NormalisedSpace

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
        plane = (jnp.asarray(part) for part in (direction, place, stiffness))
        start = np.asarray(_physical(objective.variables, place[None]))
        found.append(local.run(OnPlane(objective.variables, objective, *plane), start, solver))
    fits = LocalFits(*(np.concatenate(part) for part in zip(*found, strict=True)))
    if not np.isfinite(fits.cost).all():
        return np.full(1, np.inf), fits
    # Not between the planes: the straight way from one to the next leaves a valley that is bent.
    return population_costs(objective, np.asarray(_physical(objective.variables, fits.y))), fits


# Distance in standard deviations, by the curvature of the lower of two, below which they are the
# same minimum reached to different tolerances.
NEAR = 1.0
# And the same in the unit cube, along any axis.
NEIGHBOURHOOD = 0.05
# Rise of twice the cost, in units of the residual variance, that noise alone makes: three standard
# deviations along one direction.
NOISE = 9.0
# Distance in the unit cube and in standard deviations from which two ends of a refined fit are not
# the tolerance of the solver.
APART = 1e-3


class Basin(NamedTuple):
    """A minimum, and the starts that led to it. Defaults are those of a fit with nothing free.

    - `cost`; `chi2`: twice the cost, relative to the best basin in `excess`.
    - `values`: physical variables of its lowest point.
    - `members`: numbers of the starts; `refined`: whether one of them was fitted to tolerance.
    - `distance`: from the best basin, in its standard deviations; `in_cube`: in the unit cube.
    - `curvature`: smallest and largest eigenvalue of the normal matrix in scaled coordinates.
    - `barrier`: rise of the cost above this minimum on the way to the best basin, NaN where no way
        was looked at.
    - `degenerate`: whether refined fits ended at different points of it with no rise between them,
        a flat valley; `extent`: the largest range of each variable among these.
    """

    cost: float
    chi2: float
    excess: float = 0.0
    values: tuple[float, ...] = ()
    members: tuple[int, ...] = (0,)
    refined: bool = True
    distance: float = 0.0
    in_cube: float = 0.0
    curvature: tuple[float, float] = (np.nan, np.nan)
    barrier: float = 0.0
    degenerate: bool = False
    extent: tuple[tuple[float, float], ...] = ()


class Ends(NamedTuple):
    """Where local fits have arrived, and what it takes to tell their minima apart.

    - `fits`: those that have arrived; `starts`: the numbers of their starts.
    - `refined`: which of them were carried to their tolerance.
    - `space`: of the variables; `variance`: of one residual.
    - `threshold`: rise of the cost that counts as none.
    """

    fits: LocalFits
    starts: Int[np.ndarray, "fit"]
    refined: list[int]
    space: NormalisedSpace
    variance: float
    threshold: float


def variance_of(cost: float, n_pairs: int, absolute: bool) -> float:
    """Variance of one residual: one where sigma is given, else from the cost."""
    return 1.0 if absolute else 2 * cost / max(n_pairs, 1)


def threshold_of(variance: float, typical: float) -> float:
    """Rise of the cost that counts as none: noise, or rounding for data without noise.

    `typical` is a cost far from any minimum.
    """
    return max(0.5 * NOISE * variance, 1e-9 * typical)


def distance_between(a: int, b: int, fits: LocalFits, variance: float) -> float:
    """Standard deviations between two fits, by the curvature at the first."""
    step = fits.y[b] - fits.y[a]
    square = float(step @ fits.hessian[a] @ step)
    return float(np.sqrt(max(square, 0.0) / max(variance, 1e-300)))


def near_groups(space: NormalisedSpace, fits: LocalFits, variance: float) -> list[list[int]]:
    """Fits grouped by curvature-aware distance alone, the lowest cost first; costs nothing."""
    cube = space.to_unit(fits.x)
    variance = max(variance, 1e-300)
    groups: list[list[int]] = []
    for k in np.argsort(fits.cost, kind="stable").tolist():
        if not np.isfinite(fits.cost[k]):
            continue
        for group in groups:
            best = group[0]
            # A fit that has not arrived is farther by what it still has to descend.
            reach = NEAR + np.sqrt(2 * max(fits.cost[k] - fits.cost[best], 0.0) / variance)
            close = distance_between(best, k, fits, variance) <= 2 * reach
            # Where there is no curvature everything is near: only the cost on the way can tell.
            close &= np.max(np.abs(cube[k] - cube[best])) <= NEIGHBOURHOOD
            if close:
                group.append(k)
                break
        else:
            groups.append([k])
    return groups


def told_apart(
    objective: AbstractObjective, ends: Ends, local: AbstractLocalFits, solver: TrustRegion
) -> tuple[list[list[int]], list[float], int]:
    """Fits grouped by whether the cost rises between them.

    Fits near each other by the curvature are one; of the rest, two are one basin when the cost on
    the straight way between them does not rise above the higher of them by more than noise, or,
    for minima of equal cost, on a way that follows a bent valley.

    **Returns:** numbers of the fits of each group, lowest first; the rise from each group on the
    way to the first; evaluations of costs and equations on the ways.
    """
    fits, threshold, used = ends.fits, ends.threshold, 0
    groups: list[list[int]] = []
    barriers: list[float] = []
    for group in near_groups(ends.space, fits, ends.variance):
        lead = group[0]
        heads = [one[0] for one in groups]
        if lead not in ends.refined:
            # What was left where it was only asks whether it is the best one after all.
            heads = heads[:1]
        rises: list[float] = []
        if heads:
            lines = straight_costs(objective, [(fits.y[h], fits.y[lead]) for h in heads])
            used += POINTS * len(heads)
            rises = (np.max(lines, axis=1) - fits.cost[lead]).tolist()
        for i, head in enumerate(heads):
            equal = fits.cost[lead] - fits.cost[head] <= threshold
            if rises[i] > threshold and equal:
                bent, ways = relaxed_costs(
                    objective, fits.y[head], fits.y[lead], fits.hessian[head], local, solver
                )
                used += int(np.sum(ways.evaluations)) + bent.size
                rises[i] = min(rises[i], float(np.max(bent)) - float(fits.cost[lead]))
        joins = [i for i, rise in enumerate(rises) if rise <= threshold]
        if joins:
            groups[joins[0]] += group
        else:
            barriers.append(rises[0] if rises else 0.0)
            groups.append(list(group))
    return groups, barriers, used


def basins_of(
    objective: AbstractObjective, ends: Ends, local: AbstractLocalFits, solver: TrustRegion
) -> tuple[tuple[Basin, ...], int]:
    """The table of basins, and evaluations on the ways between them; arguments of `told_apart`."""
    fits, scale = ends.fits, np.asarray(objective.variables.coordinate_scale)
    groups, barriers, used = told_apart(objective, ends, local, solver)
    table, best = [], groups[0][0]
    for group, barrier in zip(groups, barriers, strict=True):
        lead = group[0]
        cost = float(fits.cost[lead])
        scaled = fits.hessian[lead] * np.outer(scale, scale)
        eigenvalues = np.linalg.eigvalsh(0.5 * (scaled + scaled.T))
        # Converged, refined members that are as low as the lowest.
        low = fits.converged & (fits.cost - cost <= ends.threshold)
        x = fits.x[[k for k in group if k in ends.refined and low[k]] or [lead]]
        cube = ends.space.to_unit(fits.x[[best, lead]])
        table.append(
            Basin(
                cost=cost,
                chi2=2 * cost,
                excess=2 * (cost - float(fits.cost[best])),
                values=tuple(fits.x[lead].tolist()),
                members=tuple(sorted({int(ends.starts[k]) for k in group})),
                refined=any(k in ends.refined for k in group),
                distance=distance_between(best, lead, fits, ends.variance),
                in_cube=float(np.linalg.norm(cube[1] - cube[0])),
                curvature=(float(eigenvalues[0]), float(eigenvalues[-1])),
                barrier=barrier,
                degenerate=float(np.max(np.ptp(ends.space.to_unit(x), axis=0))) > APART,
                extent=tuple(zip(x.min(axis=0).tolist(), x.max(axis=0).tolist(), strict=True)),
            )
        )
    return tuple(table), used
