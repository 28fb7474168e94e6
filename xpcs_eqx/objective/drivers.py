"""Adding up what a function makes of each block, angle by angle."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .blocks import Block
from .normal_equations import NormalEquations
from .tiles import AbstractTiles

BlockFunction = Callable[[PyTree, Block], NormalEquations]


class AbstractDriver(eqx.Module):
    """How the sum over blocks is carried out; every driver gives the same number.

    `traceable` says whether the sum may be part of a larger compiled function; a Python loop must
    not, since tracing would unroll it.
    """

    traceable: ClassVar[bool]

    @abstractmethod
    def sum(
        self, function: BlockFunction, args: PyTree, tiles: AbstractTiles, zero: NormalEquations
    ) -> NormalEquations:
        """Σ function(args, block) with the results kept apart by angle (leading axis of `zero`)."""


def _add(total: NormalEquations, angle, part: NormalEquations) -> NormalEquations:
    return jax.tree.map(lambda whole, piece: whole.at[angle].add(piece), total, part)


class Scan(AbstractDriver):
    """One compiled loop over data in memory; works under `jit`, `vmap` and differentiation."""

    traceable: ClassVar[bool] = True

    def sum(self, function, args, tiles, zero):
        def body(total, row):
            block = tiles.block(row)
            return _add(total, block.angle, function(args, block)), None

        return jax.lax.scan(body, zero, jnp.asarray(tiles.table))[0]


class HostLoop(AbstractDriver):
    """A Python loop over compiled blocks, for sources that cannot be in memory at once."""

    traceable: ClassVar[bool] = False

    def sum(self, function, args, tiles, zero):
        total = zero
        for row in tiles.table:
            total = _host_step(function, args, total, tiles.block(jnp.asarray(row)))
        return total


@eqx.filter_jit
def _host_step(function, args, total, block):
    return _add(total, block.angle, function(args, block))
