"""A part of large maps, whose sums cost little: where a fit from far away begins."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from .combined import CombinedObjective
from .drivers.loops import HostLoop, Scan, SomeTiles
from .drivers.stored import StoredTiles
from .equations import AbstractObjective
from .kernel.tiles import MapTiles
from .single import replaced
from .two_time import JointObjective, ProjectedObjective, TwoTimeTerm

# Pairs of all maps from which on a sample saves more than it costs, with room to spare.
_LARGE = 4_000_000
# Rows of tiles that are drawn of all maps together, at least one of each, and the tiles of a row:
# so far from the diagonal, and the last.
_ROWS, _STEPS = 8, (0, 1, 3, 7, 15, 31, 63)
# Tiles along the side of a map below which a few of them are no small part of all.
_LEAST_SIDE = 6
# Its multiples, less their whole parts, fill the interval from 0 to 1 evenly, however many.
_GOLDEN = 0.5 * (5**0.5 - 1)


def drawn_tiles(maps: int, side: int) -> Int[np.ndarray, "tile 3"]:
    """Map, tile row and tile column of a few tiles of each of the maps, `side` tiles a side.

    Of a row of tiles those near the diagonal, where most decays are, and ever fewer up to its end;
    rows lie evenly over all ages, others in each map.
    """
    rows = min(-(-_ROWS // maps), side)
    found = set()
    for number in range(maps * rows):
        i = int(side * ((0.5 + number * _GOLDEN) % 1))
        found |= {(number // rows, i, min(i + step, side - 1)) for step in _STEPS}
    return np.array(sorted(found), np.int32)


def in_sample(objective: AbstractObjective) -> AbstractObjective | None:
    """The same sums over a few tiles of each large map, weighed so that costs stay comparable.

    Nothing is compiled for it: tiles are of the same shape. None where it would hardly be cheaper,
    and for data that are no maps in memory or in a file of this machine.
    """
    if not isinstance(objective, ProjectedObjective | JointObjective | CombinedObjective):
        return None
    return replaced(objective, _is_large, _sampled)


def _is_large(node: Any) -> bool:
    if not isinstance(node, TwoTimeTerm):
        return False
    tiles, driver, n = node.tiles, node.driver, node.t.shape[0]
    if not isinstance(tiles, MapTiles | StoredTiles):
        return False
    kind = Scan if isinstance(tiles, MapTiles) else HostLoop
    if not (isinstance(driver, kind) and driver.in_parts(tiles)):
        return False
    large = node.reference.shape[0] * n * (n - 1) // 2 >= _LARGE
    return large and -(-n // tiles.size) >= _LEAST_SIDE


def _sampled(term: TwoTimeTerm) -> TwoTimeTerm:
    tiles, maps, n = term.tiles, term.reference.shape[0], term.t.shape[0]
    assert isinstance(tiles, MapTiles | StoredTiles)
    drawn = drawn_tiles(maps, -(-n // tiles.size))
    share = _pairs(drawn, maps, n, tiles.size) / (n * (n - 1) / 2)
    roots = np.asarray(tiles.root_angle_weights)
    roots = jax.device_put((roots / np.sqrt(share)).astype(roots.dtype))
    tiles = eqx.tree_at(lambda one: one.root_angle_weights, tiles, roots)
    if isinstance(tiles, StoredTiles):
        return eqx.tree_at(lambda one: one.tiles, term, tiles.held(drawn))
    places = {tuple(row): k for k, row in enumerate(tiles.table.tolist())}
    some = SomeTiles(tiles, tuple(places[tuple(row)] for row in drawn.tolist()))
    return eqx.tree_at(lambda one: one.tiles, term, some)


def _pairs(
    drawn: Int[np.ndarray, "tile 3"], maps: int, n: int, size: int
) -> Float[np.ndarray, "map"]:
    """How many pairs of each map lie in the tiles drawn."""
    length = np.minimum(size, n - size * drawn[:, 1:])
    inside = np.where(
        drawn[:, 1] == drawn[:, 2], length[:, 0] * (length[:, 0] - 1) // 2, length.prod(axis=1)
    )
    return np.bincount(drawn[:, 0], inside, maps)
