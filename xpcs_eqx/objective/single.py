"""The objective of maps with the arithmetic of its tiles in single precision."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .drivers.mesh import PackedMaps, forms_maps
from .equations import AbstractObjective


def _narrow(tiles):
    """Tiles whose blocks are in single precision: they are in the type of these weights."""
    name = "root_tile_weights" if isinstance(tiles, PackedMaps) else "root_angle_weights"
    return eqx.tree_at(
        lambda t: getattr(t, name), tiles, replace_fn=lambda weights: weights.astype(np.float32)
    )


def replaced(tree: Any, chosen: Callable[[Any], bool], make: Callable[[Any], Any]) -> Any:
    """The tree with `make` of each node that is `chosen`; None without one."""
    if not any(map(chosen, jax.tree.leaves(tree, is_leaf=chosen))):
        return None
    return jax.tree.map(lambda node: make(node) if chosen(node) else node, tree, is_leaf=chosen)


def in_single_precision(objective: AbstractObjective) -> AbstractObjective | None:
    """The same sums over the same maps with each tile worked on in single precision.

    Features of the model are made in double precision and narrowed relative to a frame of the
    tile; sums over tiles, penalties and variables stay in double precision. Relative errors of
    JᵀJ and of the cost are some 1e-6. None where the data are no maps: points of a curve, bins.
    """
    return replaced(objective, forms_maps, _narrow)
