"""A share of a sum as a worker sees it: everything it needs comes in, only a sum goes out."""

import pickle
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .pieces import AbstractPieces, sum_pieces


class _Slot(NamedTuple):
    """Stands for an array that is sent beside the parcel."""

    number: int


class _InDouble(AbstractPieces):
    """A source whose pieces are made in double precision, on whichever thread that happens."""

    waits = True
    source: AbstractPieces

    @property
    def n_pieces(self):
        return self.source.n_pieces

    def stream(self, pieces: Sequence[int] | None = None):
        stream = self.source.stream(pieces)
        while True:
            # Never across a `yield`: the setting belongs to a thread, and others run on it.
            with jax.enable_x64(True):
                piece = next(stream, None)
            if piece is None:
                return
            yield piece


def sum_share(
    function: Callable, args: PyTree, source: AbstractPieces, zero: PyTree, pieces: range
) -> PyTree:
    """`zero` plus the sum over some pieces, as NumPy arrays.

    In double precision, whatever the worker does otherwise: its settings are left alone.
    """
    with jax.enable_x64(True):
        inside = _InDouble(source) if source.waits else source
        args, zero = (jax.tree.map(_on_device, tree) for tree in (args, zero))
        return jax.device_get(sum_pieces(function, args, inside, zero, pieces))


def _on_device(leaf: Any) -> Any:
    return jnp.asarray(leaf) if eqx.is_array(leaf) else leaf


def packed_share(
    function: Callable, args: PyTree, source: AbstractPieces, zero: PyTree
) -> tuple[bytes, list[np.ndarray]]:
    """What stays the same from one evaluation to the next, pickled, and the arrays of `args`."""
    values: list[np.ndarray] = []

    def slot(leaf):
        if not eqx.is_array(leaf):
            return leaf
        values.append(np.asarray(leaf))
        return _Slot(len(values) - 1)

    skeleton = jax.tree.map(slot, args)
    return pickle.dumps((function, skeleton, source, zero)), values


@lru_cache(maxsize=16)
def _opened(parcel: bytes) -> Any:
    # Kept, since functions that are equal but not the same would be compiled again.
    with jax.enable_x64(True):
        return pickle.loads(parcel)


def share_of_parcel(parcel: bytes, values: list[np.ndarray], pieces: range) -> PyTree:
    """As `sum_share` for what `packed_share` packed."""
    function, skeleton, source, zero = _opened(parcel)

    def filled(leaf):
        return values[leaf.number] if isinstance(leaf, _Slot) else leaf

    args = jax.tree.map(filled, skeleton, is_leaf=lambda leaf: isinstance(leaf, _Slot))
    return sum_share(function, args, source, zero, pieces)
