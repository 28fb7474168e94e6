"""Adding up what a function makes of each block, angle by angle."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import PyTree

from ...errors import ModelError
from ..equations import NormalEquations
from ..kernel.blocks import Block
from ..kernel.tiles import AbstractTiles
from .pieces import AbstractPieces, add_block, pieces_of, sum_pieces

BlockFunction = Callable[[PyTree, Block], NormalEquations]


def refuse_tracers(args: PyTree) -> None:
    """Refuse a sum carried out in Python inside a compiled or differentiated function.

    **Raises:** `ModelError`.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args)):
        raise ModelError(
            "data that are read piece by piece cannot be part of a compiled or differentiated "
            "function; call the objective without jax.jit, vmap or grad, or load the data"
        )


class AbstractDriver(eqx.Module):
    """How the sum over blocks is carried out; every driver gives the same number.

    `traceable` says whether the sum may be part of a larger compiled function; a Python loop must
    not, since tracing would unroll it.
    """

    traceable: ClassVar[bool]

    def place(
        self, tiles: AbstractTiles | AbstractPieces, small: PyTree
    ) -> tuple[AbstractTiles | AbstractPieces, PyTree]:
        """Data, and small arrays, where this driver wants to find them; by default as they are.

        Asked once, when an objective is built.
        """
        return tiles, small

    @abstractmethod
    def sum(
        self,
        function: BlockFunction,
        args: PyTree,
        tiles: AbstractTiles | AbstractPieces,
        zero: NormalEquations,
    ) -> NormalEquations:
        """Σ function(args, block) with the results kept apart by angle (leading axis of `zero`)."""


class Scan(AbstractDriver):
    """One compiled loop over data in memory; works under `jit`, `vmap` and differentiation."""

    traceable: ClassVar[bool] = True

    def sum(self, function, args, tiles, zero):
        if isinstance(tiles, AbstractPieces):
            raise ModelError(
                "Scan sums data in memory, but these are read piece by piece; leave driver out, or "
                "take HostLoop"
            )

        def body(total, row):
            return add_block(function, args, total, tiles.block(row)), None

        return jax.lax.scan(body, zero, jnp.asarray(tiles.table))[0]


class HostLoop(AbstractDriver):
    """A Python loop over pieces, for data that cannot be in memory at once.

    - `ahead`: pieces read on a thread while one is summed.
    """

    traceable: ClassVar[bool] = False
    ahead: int = eqx.field(static=True, default=1)

    def sum(self, function, args, tiles, zero):
        source = pieces_of(tiles)
        if source.waits:
            refuse_tracers(args)
        return sum_pieces(function, args, source, zero, ahead=self.ahead)
