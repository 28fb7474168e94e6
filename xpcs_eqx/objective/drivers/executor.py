"""Sums by the workers of an executor: threads, processes, or machines through Dask.

A worker is sent a share of the tiles with everything it needs, and sends back only their sum.
"""

import math
import os
import pickle
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ...compiling import zeros_like
from ...errors import ConfigError, FitError, ModelError, XPCSError
from ..kernel.tiles import AbstractTiles
from .loops import (
    AbstractDriver,
    AbstractPieces,
    TablePieces,
    add_parts,
    refuse_tracers,
    sum_pieces,
)


@dataclass(frozen=True)
class HeldExecutor:
    """An executor as a part of a value: equal to itself, left behind by a pickle.

    A copy made of a pickle holds none; a copy in this process holds the same.
    """

    executor: Executor | None = None

    def __reduce__(self):
        return HeldExecutor, ()

    def __copy__(self):
        return self

    def __deepcopy__(self, _: Any):
        return self

    def __repr__(self) -> str:
        return type(self.executor).__name__

    @classmethod
    def of(cls, executor: Any, needed: str = "submit") -> "HeldExecutor":
        """An executor as it is given to a field, held already or not.

        **Raises:** `ConfigError` for what has no such method.
        """
        if isinstance(executor, HeldExecutor):
            return executor
        if not callable(getattr(executor, needed, None)):
            raise ConfigError(
                f"executor is {type(executor).__name__}, which has no `{needed}`; give a "
                "ThreadPoolExecutor, a ProcessPoolExecutor or client.get_executor() of Dask"
            )
        return cls(executor)


def _processors(count: int | None) -> int:
    count = (os.cpu_count() or 1) if count is None else count
    if count < 1:
        raise ConfigError(f"workers = {count}: at least one has to work")
    return count


def share_out(n: int, workers: int) -> list[range]:
    """0 … n − 1 as ranges of falling length, several for each worker.

    The long ones first: when the last ones are handed out, no worker has much left to do.
    """
    least, low, shares = max(1, n // (16 * workers)), 0, []
    while low < n:
        length = max(least, math.ceil((n - low) / (2 * workers)))
        shares.append(range(low, min(low + length, n)))
        low += length
    return shares


class ExecutorSum(AbstractDriver):
    """Pieces of data shared out over the workers of a `concurrent.futures.Executor`.

    Every worker reads its pieces itself, so that the file must be where each of them finds it; what
    travels is the table of the model, contrast and offset, and back come normal equations. These
    are added in the order of the pieces, whoever finishes first: a sum repeated is the same to the
    last digit. Workers keep what they compiled.

    - Threads (`ThreadPoolExecutor`) take data in memory as well.
    - Processes (`ProcessPoolExecutor`, with `multiprocessing.get_context("spawn")`, since JAX does
      not survive a fork) and Dask (`Client(...).get_executor()`) take data in a file, from
      `open_stored`, and models, ties and losses that can be pickled.

    The executor belongs to the caller, who shuts it down; it does not travel with a pickle of an
    objective or a fit. There, the sum is carried out in the process that unpickled it. What is
    not such a sum, like error bars, is always computed in the calling process.

    - `executor`: anything with `submit(function, *arguments)` returning a future.
    - `workers`: how many of them work at a time; by default as many as this machine has
        processors. It decides into how many shares the pieces are cut.

    **Raises:** `ConfigError` for something else than an executor. In a sum: the error of a worker,
    with the pieces it had; `FitError` when workers die, or fail twice at the same share;
    `ModelError` for data in memory that would have to be sent to other processes, for what cannot
    be pickled, and inside `jit` or `grad`.
    """

    traceable: ClassVar[bool] = False
    executor: HeldExecutor = eqx.field(static=True, converter=HeldExecutor.of)
    workers: int = eqx.field(static=True, default=None, converter=_processors)  # pyright: ignore[reportArgumentType]

    @property
    def shares_memory(self) -> bool:
        """Whether workers see the memory of this process."""
        held = self.executor.executor
        return held is None or isinstance(held, ThreadPoolExecutor)

    def place(self, tiles, small):
        if isinstance(tiles, AbstractTiles) and not self.shares_memory:
            raise ModelError(
                f"{self.executor!r}: its workers do not see the memory of this process. Write the "
                "data to HDF5 once with write_own and open them with open_stored: every worker "
                "reads its part of the file. Or take a ThreadPoolExecutor, or DeviceMesh"
            )
        return tiles, small

    def sum(self, function, args, tiles, zero):
        refuse_tracers((args, tiles))
        if isinstance(tiles, AbstractTiles):
            self.place(tiles, None)
            source: AbstractPieces = TablePieces(tiles, 16 * self.workers)
        else:
            source = tiles
        shares = share_out(source.n_pieces, self.workers)
        ask = self._asking(function, args, source, zero)
        futures: list[Future] = []
        try:
            futures.extend(self._submit(ask, share, source) for share in shares)
            each = zip(futures, shares, strict=True)
            return add_parts(zero, (self._result(ask, *one, source) for one in each))
        finally:
            # After a failure or an interrupt nobody waits for the rest.
            for future in futures:
                future.cancel()

    def _asking(self, function, args, source, zero) -> Callable[[range], Future]:
        """How one share is asked for."""
        # One that stayed behind is replaced by a thread: the same shares give the same digits.
        held: Any = self.executor.executor or ThreadPoolExecutor(1)
        nothing = zeros_like(zero)
        if self.shares_memory:
            return lambda share: held.submit(sum_share, function, args, source, nothing, share)
        try:
            parcel, values = packed_share(function, args, source, nothing)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ModelError(
                f"model or data cannot be sent to the workers of {self.executor!r}: {error}. "
                "Functions and classes must be defined at the top of a module that the workers "
                "can import; lambdas cannot be sent"
            ) from error
        return lambda share: held.submit(share_of_parcel, parcel, values, share)

    def _submit(self, ask, share: range, source) -> Future:
        try:
            return ask(share)
        except BrokenExecutor as error:
            raise self._broken(share, source) from error
        except RuntimeError as error:
            raise FitError(
                f"{self.executor!r} takes no work: {error}. Build the objective with a driver that "
                "has an executor that is running"
            ) from error

    def _broken(self, share: range, source) -> FitError:
        return FitError(
            f"{_where(source, share)}: a worker of {self.executor!r} died, killed or out of "
            "memory, and the executor with it. Start a new executor, with fewer workers if memory "
            "is short, build the objective with it and go on from the checkpoints with resume"
        )

    def _result(self, ask, future: Future, share: range, source, again: bool = True) -> PyTree:
        try:
            return future.result()
        except BrokenExecutor as error:
            raise self._broken(share, source) from error
        except XPCSError as error:
            raise type(error)(f"{_where(source, share)}: {error}") from error
        except Exception as error:
            if again:
                # Another worker may have more luck, but for a mistake that is in the program.
                future = self._submit(ask, share, source)
                return self._result(ask, future, share, source, again=False)
            raise FitError(
                f"{_where(source, share)}: workers of {self.executor!r} failed twice "
                f"({type(error).__name__}: {error})"
            ) from error


def _where(source: AbstractPieces, share: range) -> str:
    path = getattr(getattr(source, "source", None), "path", type(source).__name__)
    return f"{path}, pieces {share.start + 1} … {share.stop} of {source.n_pieces}"


def sum_share(
    function: Callable, args: PyTree, source: AbstractPieces, zero: PyTree, pieces: range
) -> PyTree:
    """`zero` plus the sum over some pieces, as NumPy arrays.

    In double precision, whatever the worker does otherwise: its settings are left alone.
    """
    with jax.enable_x64(True):
        arrays, rest = eqx.partition((args, zero), eqx.is_array)
        args, zero = eqx.combine(jax.tree.map(jnp.asarray, arrays), rest)
        return jax.device_get(sum_pieces(function, args, source, zero, pieces))


def packed_share(
    function: Callable, args: PyTree, source: AbstractPieces, zero: PyTree
) -> tuple[bytes, list[np.ndarray]]:
    """What stays the same from one evaluation to the next, pickled, and the arrays of `args`."""
    arrays, rest = eqx.partition(args, eqx.is_array)
    # A number holds the place of each array that is sent beside the parcel.
    places = jax.tree.map(lambda _: 0, arrays)
    values = [np.asarray(array) for array in jax.tree.leaves(arrays)]
    return pickle.dumps((function, places, rest, source, zero)), values


@lru_cache(maxsize=16)
def _opened(parcel: bytes) -> Any:
    # Kept, since functions that are equal but not the same would be compiled again.
    with jax.enable_x64(True):
        return pickle.loads(parcel)


def share_of_parcel(parcel: bytes, values: list[np.ndarray], pieces: range) -> PyTree:
    """As `sum_share` for what `packed_share` packed."""
    function, places, rest, source, zero = _opened(parcel)
    arrays = jax.tree.unflatten(jax.tree.structure(places), values)
    return sum_share(function, eqx.combine(arrays, rest), source, zero, pieces)
