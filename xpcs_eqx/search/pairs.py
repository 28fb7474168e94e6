"""The pairs of an objective: how many count, what noise they have, and a sample of them."""

import math

import equinox as eqx
import jax
import numpy as np

from ..errors import DataError
from ..objective import (
    AbstractObjective,
    AbstractPieces,
    CombinedObjective,
    CurveObjective,
    Linear,
    MapTiles,
    Scan,
    TwoTimeObjective,
    noise_of,
)
from ..objective.combined import parts_of
from ..objective.kernel.tiles import PointTiles, point_runs
from ..objective.two_time import loss_of
from ..optimize import evaluated
from ..parameters.variables import coordinates_of

# Pairs of the sample for each angle. The costs of two minima that differ by one percent are then
# several standard deviations apart for a handful of angles, and the sums are a few times cheaper
# than those of a map of a hundred frames.
PAIRS = 1200


def count_pairs(objective: AbstractObjective) -> int:
    """Number of pairs or points that count, each once, by an evaluation at the start."""
    y = coordinates_of(objective.variables, jax.device_put(objective.start))
    return int(evaluated(objective, y, objective.memo)[0].count)


def is_absolute(objective: AbstractObjective) -> bool:
    """Whether residuals are in units of a standard deviation that was given."""
    if isinstance(objective, CurveObjective):
        return objective.absolute_sigma
    if isinstance(objective, CombinedObjective):
        return all(is_absolute(part) for part in objective.parts)
    return isinstance(objective, TwoTimeObjective) and objective.term.absolute_sigma


def noise_variance(objective: AbstractObjective) -> float:
    """Variance of a weighted residual of the right model; NaN where it cannot be known.

    One where sigma is given, else from the data themselves (`noise_of`). Not known for curves,
    for data in a file, and for robust losses, whose cost is no sum of squares.
    """
    if isinstance(objective, CurveObjective):
        return 1.0 if objective.absolute_sigma else math.nan
    if not isinstance(objective, TwoTimeObjective | CombinedObjective):
        return math.nan
    parts = parts_of(objective)
    if any(not isinstance(loss_of(part), Linear) for part in parts):
        return math.nan
    if is_absolute(objective):
        return 1.0
    tiles = [part.term.tiles for part in parts]
    if any(isinstance(one, AbstractPieces) for one in tiles):
        return math.nan
    try:
        return float(np.mean(np.square([noise_of(one) for one in tiles])))
    except DataError:
        return math.nan


def thinned(
    objective: AbstractObjective, seed: int = 0, pairs: int = PAIRS
) -> AbstractObjective | None:
    """The objective on evenly drawn pairs of each angle, weighted so that costs stay comparable.

    None where this would not be cheaper: data that are not maps in memory, several data sets, or
    hardly more pairs than the sample.
    """
    if not isinstance(objective, TwoTimeObjective):
        return None
    term = objective.term
    tiles = term.tiles
    if not isinstance(tiles, MapTiles) or not isinstance(term.driver, Scan):
        return None
    c2 = np.asarray(tiles.c2)
    n_angles, n, _ = c2.shape
    if n * (n - 1) // 2 < 2 * pairs:
        return None
    random = np.random.default_rng(seed)
    rows = [_drawn(tiles, a, n, pairs, random) for a in range(n_angles)]
    first, second, roots = (np.concatenate(part) for part in zip(*rows, strict=True))
    angle = np.repeat(np.arange(n_angles), [len(row[0]) for row in rows])
    if not angle.size:
        return None
    values = c2[angle, first, second].astype(float)
    runs, _ = point_runs(values, first, second, angle, roots, n_angles, pairs)
    points = PointTiles(*jax.device_put(runs))
    return eqx.tree_at(lambda o: o.term.tiles, objective, points)


def _drawn(tiles: MapTiles, angle: int, n: int, pairs: int, random: np.random.Generator):
    """Frames and root weights of a sample of the pairs of an angle that count."""
    total = n * (n - 1) // 2
    # More than needed, since some are masked; as numbers, since all pairs would take memory.
    number = random.permutation(np.unique(random.integers(total, size=4 * pairs)))
    # Pairs counted column by column: column j holds those with first < j.
    second = ((1 + np.sqrt(1 + 8.0 * number)) / 2).astype(int)
    second -= second * (second - 1) // 2 > number
    first = number - second * (second - 1) // 2
    roots = np.ones(number.size)
    if tiles.root_weights is not None:
        roots = np.asarray(tiles.root_weights[angle], float)[first, second]
    counting = np.flatnonzero(roots > 0)
    chosen = counting[:pairs]
    share = total * counting.size / max(number.size, 1) / max(chosen.size, 1)
    root = np.sqrt(share) * float(np.asarray(tiles.root_angle_weights)[angle])
    return first[chosen], second[chosen], roots[chosen] * root
