"""Sums of several arrays in one pass over what they are made of."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

# More of them than a processor has registers for take longer than by themselves.
_TOGETHER = 8

# `lax.reduce` takes several arrays, but JAX's derivative of it asks for the tangent of each of
# them, even of those that do not change. Sums are linear, and a primitive can say so.
_sums_together = Primitive("sums_together")
_sums_together.multiple_results = True


def sums(
    parts: Sequence[Float[Array, "*shape"]], axes: tuple[int, ...]
) -> list[Float[Array, "..."]]:
    """The sum of each of several arrays of one shape and type over the same axes.

    Their loops are one: on a CPU quicker than `jnp.sum` of each where the arrays are made on the
    way of few others, which are then read once.
    """
    out = []
    for low in range(0, len(parts), _TOGETHER):
        out.extend(_sums_together.bind(*parts[low : low + _TOGETHER], axes=axes))
    return out


def _reduced(*parts, axes):
    zero = jnp.zeros((), parts[0].dtype)

    def add(a, b):
        return tuple(map(jnp.add, a, b))

    return jax.lax.reduce(parts, (zero,) * len(parts), add, axes)


def _spread(cotangents, *parts, axes):
    def over(cotangent, part):
        if type(cotangent) is ad.Zero:
            return ad.Zero(part.aval)
        return jnp.broadcast_to(jnp.expand_dims(cotangent, axes), part.aval.shape)

    return list(map(over, cotangents, parts))


def _of_a_batch(parts, batched, *, axes):
    size = next(p.shape[b] for p, b in zip(parts, batched, strict=True) if b is not None)
    front = [batching.bdim_at_front(p, b, size) for p, b in zip(parts, batched, strict=True)]
    found = _sums_together.bind(*front, axes=tuple(axis + 1 for axis in axes))
    return found, [0] * len(found)


@_sums_together.def_abstract_eval
def _shapes(*parts, axes):
    left = [size for axis, size in enumerate(parts[0].shape) if axis not in axes]
    return [part.update(shape=tuple(left)) for part in parts]


_sums_together.def_impl(jax.jit(_reduced, static_argnames="axes"))
mlir.register_lowering(_sums_together, mlir.lower_fun(_reduced, multiple_results=True))
ad.deflinear2(_sums_together, _spread)
batching.primitive_batchers[_sums_together] = _of_a_batch
