"""What noise alone would leave of an objective."""

import math

import numpy as np

from ..errors import DataError
from ..objective import (
    AbstractObjective,
    AbstractPieces,
    CombinedObjective,
    CurveObjective,
    Linear,
    MapTiles,
    TwoTimeObjective,
    noise_of,
    on_one_device,
)
from ..uncertainty import loss_of


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
    if isinstance(objective, CurveObjective):
        return objective.absolute_sigma
    if isinstance(objective, CombinedObjective):
        return all(is_absolute(part) for part in objective.parts)
    term = getattr(objective, "term", None)
    return term is not None and term.absolute_sigma


def noise_variance(objective: AbstractObjective) -> float:
    """Variance of a weighted residual of the right model; NaN where it cannot be known.

    One where sigma is given, else from the data themselves (`noise_of`). Not known for curves,
    for data in a file, and for robust losses, whose cost is no sum of squares.
    """
    if isinstance(objective, CurveObjective):
        return 1.0 if objective.absolute_sigma else math.nan
    every = objective.parts if isinstance(objective, CombinedObjective) else (objective,)
    parts = [part for part in every if isinstance(part, TwoTimeObjective)]
    if len(parts) < len(every):
        return math.nan
    if any(not isinstance(loss_of(part), Linear) for part in parts):
        return math.nan
    if is_absolute(objective):
        return 1.0
    tiles = on_one_device([part.term.tiles for part in parts])
    if any(isinstance(one, AbstractPieces) for one in tiles):
        return math.nan
    try:
        return float(np.mean(np.square([noise_of(one) for one in tiles])))
    except DataError:
        return math.nan
