"""Arrays that nobody can write into, which JAX can take over without a copy."""

import numpy as np

# Bytes of which the beginning of an array is a multiple for JAX to take it over as it is.
_LINE = 64


class _Frozen:
    """Memory of an array that nobody else has, for reading."""

    def __init__(self, array: np.ndarray):
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, True)}
        # It lives as long as this.
        self._array = array


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to be filled, at a place in memory from which JAX takes it over."""
    size = int(np.prod(shape)) * dtype.itemsize
    whole = np.empty(size + _LINE, np.uint8)
    start = -whole.ctypes.data % _LINE
    return whole[start : start + size].view(dtype).reshape(shape)


def frozen(array: np.ndarray) -> np.ndarray:
    """An array into which nobody can write any more, in the same memory.

    Whoever asks for it has made the array, and lets go of it.
    """
    return np.asarray(_Frozen(array))


def frozen_copy(array: np.ndarray) -> np.ndarray:
    """A copy of an array into which nobody can write."""
    copy = aligned(array.shape, array.dtype)
    copy[...] = array
    return frozen(copy)


def is_frozen(array: np.ndarray) -> bool:
    """Whether an array is one of `frozen`, or a part of it."""
    part = array
    while isinstance(part, np.ndarray):
        part = part.base
    return isinstance(part, _Frozen)
