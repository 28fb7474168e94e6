"""Arrays that nobody can write into, which JAX can take over without a copy."""

import numpy as np

# Bytes of which the beginning of an array is a multiple for JAX to take it over as it is.
_LINE = 64


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to be filled, at a place in memory from which JAX takes it over."""
    size = int(np.prod(shape)) * dtype.itemsize
    whole = np.empty(size + _LINE, np.uint8)
    start = -whole.ctypes.data % _LINE
    return whole[start : start + size].view(dtype).reshape(shape)


def freeze(array: np.ndarray) -> None:
    """Nobody can write into an array any more, nor into what it is a view of."""
    part = array
    while isinstance(part, np.ndarray):
        part.flags.writeable = False
        part = part.base


def is_frozen(array: np.ndarray) -> bool:
    """Whether nobody can write into an array, nor into what it is a view of."""
    part = array
    while isinstance(part, np.ndarray):
        if part.flags.writeable:
            return False
        part = part.base
    return part is None
