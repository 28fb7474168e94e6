"""What noise alone would leave of an objective."""

import math

import numpy as np

from ..data import is_mask
from ..data.noise import maps_sigma
from ..errors import DataError
from ..objective import (
    AbstractObjective,
    AbstractPieces,
    CombinedObjective,
    JointObjective,
    Linear,
    MapTiles,
    TwoTimeObjective,
    on_one_device,
)


def count_pairs(objective: AbstractObjective) -> int:
    """Number of pairs or points that count, each once; a pass over data that are in a file."""
    if isinstance(objective, CombinedObjective):
        return sum(count_pairs(part) for part in objective.parts)
    if not isinstance(objective, TwoTimeObjective):
        y = objective.variables.to_coordinates(objective.start)
        return int(objective.evaluate(y, objective.memo)[0].count)
    term = objective.term
    tiles = on_one_device(term.tiles)
    if isinstance(tiles, MapTiles):
        # The pairs i < j of the angles that weigh anything; the other triangle repeats them.
        angles = np.flatnonzero(np.asarray(tiles.root_angle_weights) > 0)
        n = tiles.c2.shape[1]
        if tiles.root_weights is None:
            return angles.size * (n * (n - 1) // 2)
        return sum(int(np.count_nonzero(np.triu(tiles.root_weights[a], 1))) for a in angles)
    roots = getattr(tiles, "root_weights", None)
    if roots is not None and not isinstance(tiles, AbstractPieces):
        return int(np.count_nonzero(np.asarray(roots)))
    parameters = term.parameters
    y = parameters.to_coordinates(parameters.start)
    return int(np.sum(term.angle_cost(y, term.reference, Linear()).count))


def is_absolute(objective: AbstractObjective) -> bool:
    """Whether residuals are in units of a standard deviation that was given."""
    if isinstance(objective, CombinedObjective):
        return all(is_absolute(part) for part in objective.parts)
    term = getattr(objective, "term", None)
    return term is not None and term.absolute_sigma


def noise_variance(objective: AbstractObjective) -> float:
    """Variance of a weighted residual of the right model; NaN where it cannot be known.

    One where sigma is given. Of maps in memory without sigma from the median difference of
    neighbouring entries (`mad_sigma`). Not known for points, for data in a file, for several data
    sets without sigma and for robust losses, whose cost is no sum of squares.
    """
    parts = objective.parts if isinstance(objective, CombinedObjective) else (objective,)
    if any(isinstance(p, JointObjective) and not isinstance(p.loss, Linear) for p in parts):
        return math.nan
    if is_absolute(objective):
        return 1.0
    if not isinstance(objective, TwoTimeObjective):
        return math.nan
    tiles = on_one_device(objective.term.tiles)
    if not isinstance(tiles, MapTiles):
        return math.nan
    share = np.asarray(tiles.root_angle_weights, float) ** 2
    roots = tiles.root_weights
    if roots is not None and not is_mask(np.asarray(roots)):
        return float(np.mean(share))
    usable = None if roots is None else np.asarray(roots) > 0
    try:
        sigma = maps_sigma(np.asarray(tiles.c2), usable)
    except DataError:
        return math.nan
    return float(np.mean(share * sigma**2))
