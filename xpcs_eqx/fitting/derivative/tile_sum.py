"""A sum over tiles whose derivatives, forward and reverse, need no more memory than the sum.

Differentiating a loop over tiles in reverse stores what each tile left behind, and adds the
cotangent of the whole data once a tile. Here the reverse pass makes every tile anew and puts the
tile's own cotangent where it belongs.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ...errors import ModelError
from ...objective import AbstractTiles, Block
from ...objective.kernel.frame_table import dependence

BlockSum = Callable[[Any, Block], PyTree]


def linear_map(
    forward: Callable[[PyTree], PyTree], backward: Callable[[PyTree], PyTree], vector: PyTree
) -> PyTree:
    """`forward(vector)` for a linear function whose transpose is `backward`.

    The transpose is made known to JAX as that of the triangular system
    (a, b − forward(a)) = (vector, 0), because a linear solve is the only thing with a transpose of
    its own that works under `vmap` and in derivatives of derivatives as well.
    """
    shapes = jax.eval_shape(lambda: forward(vector))
    # JAX wants every right-hand side to depend on what is transposed, if only in form.
    smallest = min(jax.tree.leaves(vector), key=jnp.size)
    zero = jnp.where(False, jnp.ravel(smallest)[0], 0.0)
    nothing = jax.tree.map(lambda s: jnp.broadcast_to(zero, s.shape).astype(s.dtype), shapes)

    def minus(a, b):
        return jax.tree.map(jnp.subtract, a, b)

    def plus(a, b):
        return jax.tree.map(jnp.add, a, b)

    _, image = jax.lax.custom_linear_solve(
        lambda pair: (pair[0], minus(pair[1], forward(pair[0]))),
        (vector, nothing),
        lambda _, pair: (pair[0], plus(pair[1], forward(pair[0]))),
        lambda _, pair: (plus(pair[0], backward(pair[1])), pair[1]),
    )
    return image


def filled(zero: PyTree, tangent: PyTree) -> PyTree:
    """A tangent with zeros where `equinox.filter_jvp` says None."""
    return jax.tree.map(lambda z, t: z if t is None else t, zero, tangent)


def _scan(function, zero, tiles):
    def body(total, row):
        return jax.tree.map(jnp.add, total, function(row)), None

    return jax.lax.scan(body, zero, jnp.asarray(tiles.table))[0]


def _zero(function, args, tiles):
    row = jnp.asarray(tiles.table[0])
    shapes = eqx.filter_eval_shape(lambda a, t: function(a, t.block(row)), args, tiles)
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


@eqx.filter_custom_jvp
def _tile_sum(args, tiles, *, function):
    return _scan(lambda row: function(args, tiles.block(row)), _zero(function, args, tiles), tiles)


@_tile_sum.def_jvp
def _tile_sum_jvp(primals, tangents, *, function):
    args, tiles = primals
    zero = _zero(function, args, tiles)

    def forward(moving):
        def one(row):
            _, out = eqx.filter_jvp(lambda a, t: function(a, t.block(row)), primals, moving)
            return filled(zero, out)

        return _scan(one, zero, tiles)

    def backward(cotangent):
        return _transpose(function, args, tiles, tangents, cotangent)

    total = _tile_sum(args, tiles, function=function)
    return total, linear_map(forward, backward, tangents)


def _transpose(function, args, tiles, tangents, cotangent):
    """Cotangents of the perturbed leaves of (args, tiles), shaped like `tangents`."""

    def perturbed(tree, moving):
        return jax.tree.map(
            lambda t, leaf: None if t is None else leaf, moving, tree, is_leaf=lambda t: t is None
        )

    moving_args, moving_tiles = (
        perturbed(p, t) for p, t in zip((args, tiles), tangents, strict=True)
    )
    leaves, structure = jax.tree.flatten(moving_tiles)
    rows = jnp.asarray(tiles.table)

    def parts(leaves, row):
        block = eqx.combine(jax.tree.unflatten(structure, leaves), tiles).block(row)
        return [block.values, block.root_weights]

    # Only what the perturbed leaves can change gets a cotangent, which has the size of the data.
    used = [False, False]
    if leaves:
        table = dependence(lambda *leaves: parts(leaves, rows[0]), *leaves)
        used = [bool(row.any()) for row in table]

    def chosen(both):
        return [part for part, use in zip(both, used, strict=True) if use]

    def body(total, row):
        block = tiles.block(row)

        def of(moving, changing):
            rest = iter(changing)
            both = [
                next(rest) if use else part
                for part, use in zip((block.values, block.root_weights), used, strict=True)
            ]
            here = eqx.tree_at(lambda b: (b.values, b.root_weights), block, tuple(both))
            return function(eqx.combine(moving, args), here)

        _, pull = jax.vjp(of, moving_args, chosen((block.values, block.root_weights)))
        to_args, to_block = pull(cotangent)
        return jax.tree.map(jnp.add, total, to_args), to_block

    nothing = jax.tree.map(jnp.zeros_like, moving_args)
    to_args, to_blocks = jax.lax.scan(body, nothing, rows)
    if not leaves:
        return to_args, moving_tiles
    _, pull = jax.vjp(
        lambda leaves: chosen(jax.vmap(parts, in_axes=(None, 0))(leaves, rows)), leaves
    )
    return to_args, jax.tree.unflatten(structure, pull(to_blocks)[0])


def tile_sum(function: BlockSum, args: PyTree, tiles: Any) -> PyTree:
    """Σ function(args, block) over all blocks of `tiles`, differentiable in both modes.

    `function` returns arrays; derivatives reach every floating array of `args` and of `tiles`.
    Beside the data and its tangent or cotangent, memory is that of one tile.

    **Raises:** `ModelError` for data that are not in memory.
    """
    if not isinstance(tiles, AbstractTiles):
        raise ModelError(
            f"derivatives of a fit need data in memory, these are {type(tiles).__name__}; load "
            "the maps, or a selection of them"
        )
    return _tile_sum(args, tiles, function=function)
