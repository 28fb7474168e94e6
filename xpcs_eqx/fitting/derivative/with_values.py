"""An objective with other numbers in it, also under `jit`, `grad` and `vmap`."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from ...errors import ModelError
from ...objective import (
    AbstractPenalty,
    JointObjective,
    MapTiles,
    TwoTimeObjective,
    check_one_data_set,
    on_one_device,
    with_penalties,
)
from ...parameters import ParameterMap, with_parameters


def _maps(objective) -> MapTiles:
    tiles = on_one_device(objective.term.tiles)
    if not isinstance(tiles, MapTiles):
        raise ModelError(
            f"c2, root_weights and angle_weights replace those of maps; the data are "
            f"{type(tiles).__name__}, whose points are sorted and cut: replace the leaves of "
            "`objective.term.tiles` with equinox.tree_at"
        )
    return tiles


def _same_shape(name: str, value: Any, wanted: tuple[int, ...]) -> Array:
    array = jnp.asarray(value)
    if array.shape != wanted:
        raise ModelError(f"{name} has shape {array.shape}, the objective needs {wanted}")
    return array


def _every_map(objective) -> list[ParameterMap]:
    """Each place where an objective keeps its parameters."""
    inside = objective.variables
    if isinstance(objective, JointObjective):
        inside = inside.parameters
    return [inside, objective.term.parameters]


def with_values(
    objective: TwoTimeObjective,
    *,
    c2: Float[Array, "angle frame frame"] | None = None,
    root_weights: Float[Array, "angle frame frame"] | None = None,
    angle_weights: Float[Array, "angle"] | None = None,
    t: Float[Array, "frame"] | None = None,
    q: ScalarLike | None = None,
    phi: Float[Array, "angle"] | None = None,
    gap: ScalarLike | None = None,
    fixed: Mapping[str, ScalarLike] | None = None,
    penalties: tuple[AbstractPenalty, ...] | None = None,
    noise: ScalarLike | None = None,
) -> TwoTimeObjective:
    """The objective with some of its numbers replaced, tracers included.

    An objective is built once from concrete data, since building looks at the numbers; this puts
    in those that a program differentiates by or maps over.

    **Arguments:**

    - `c2`, `root_weights`: maps and 1/sigma of their entries; each unordered pair i < j is read at
        `[angle, i, j]`.
    - `angle_weights`: weight of the squared residuals of each angle.
    - `t`: frame times [s]; `q` [1/Å]; `phi` [degrees]; `gap` [Å].
    - `fixed`: values of parameters that are not free, by name.
    - `penalties`: instead of those there are; `noise`: standard deviation of the weighted
        residuals, by which they are weighed. By default one where `root_weights` are given, else
        that of the data the objective was built from, whatever takes their place.

    Scaling, loss and coordinates are fields: `equinox.tree_at` replaces them.

    **Raises:** `ModelError` for an array of another shape, a free or unknown parameter, maps where
    the data are points, or an objective of several data sets.
    """
    check_one_data_set(objective, "with_values")
    if noise is None and root_weights is not None:
        noise = 1.0
    if penalties is not None or noise is not None:
        # Before anything is replaced: tracers have no noise that could be looked at.
        chosen = objective.penalties if penalties is None else tuple(penalties)
        objective = with_penalties(objective, chosen, noise)  # pyright: ignore[reportArgumentType]
    term = objective.term
    n_angles, n_frames = term.geometry.phi.shape[0], term.t.shape[0]
    stack = (n_angles, n_frames, n_frames)
    if not (c2 is None and root_weights is None and angle_weights is None):
        tiles = _maps(objective)
        root_angle = tiles.root_angle_weights
        if angle_weights is not None:
            root_angle = jnp.sqrt(_same_shape("angle_weights", angle_weights, (n_angles,)))
        tiles = MapTiles(
            tiles.c2 if c2 is None else _same_shape("c2", c2, stack),
            tiles.root_weights
            if root_weights is None
            else _same_shape("root_weights", root_weights, stack),
            root_angle,
            tiles.size,
        )
        objective = eqx.tree_at(lambda o: o.term.tiles, objective, tiles)
    given = {
        "t": (lambda o: o.term.t, t, (n_frames,)),
        "q": (lambda o: o.term.geometry.q, q, ()),
        "phi": (lambda o: o.term.geometry.phi, phi, (n_angles,)),
        "gap": (lambda o: o.term.geometry.gap, gap, ()),
    }
    for name, (where, value, shape) in given.items():
        if value is not None:
            # Precision as the objective has it: the loops over tiles carry sums of that type.
            array = _same_shape(name, value, shape).astype(term.t.dtype)
            objective = eqx.tree_at(where, objective, array)
    if fixed:
        free = [name for name in fixed if name in term.parameters.free_names]
        if free:
            raise ModelError(
                f"{free[0]} is fitted: give its value as the start of the fit, or fix it in the "
                "parameter map"
            )
        models = [with_parameters(m.model, fixed) for m in _every_map(objective)]
        objective = eqx.tree_at(lambda o: [m.model for m in _every_map(o)], objective, models)
    return objective
