"""What noise alone would leave of an objective."""

import math

import numpy as np

from ..data import is_mask
from ..data.noise import maps_sigma
from ..errors import DataError
from ..objective import JointObjective, Linear, MapTiles, ProjectedObjective, on_one_device


def noise_variance(objective: ProjectedObjective | JointObjective) -> float:
    """Variance of a weighted residual of the right model; NaN where it cannot be known.

    One where sigma is given. Of maps in memory without sigma from the median difference of
    neighbouring entries (`mad_sigma`). Not known for points, for data in a file and for robust
    losses, whose cost is no sum of squares.
    """
    if isinstance(objective, JointObjective) and not isinstance(objective.loss, Linear):
        return math.nan
    if objective.term.absolute_sigma:
        return 1.0
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
