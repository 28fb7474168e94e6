"""Points of a curve in chunks, and what a curve makes of a chunk."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..errors import DataError, ModelError
from .losses import AbstractLoss

# What a function raises that wants numbers while it is traced.
_NOT_TRACEABLE = (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError)


class Chunk(eqx.Module):
    """Points of a curve, as many in every chunk of a source.

    The last chunk is filled up with copies of its last point at `root_weights` 0. `x` and `y` keep
    the precision they are stored in; arithmetic with them is in float64.

    - `root_weights`: 1/σ, the square roots of the weights.
    - `group`: the group a point belongs to, 0 where there are none.
    """

    x: Float[Array | np.ndarray, "point *coordinate"]
    y: Float[Array | np.ndarray, "point"]
    root_weights: Float[Array | np.ndarray, "point"]
    group: Int[Array | np.ndarray, "point"]


class CurveModel(eqx.Module):
    """A curve, its loss and the weights of groups: what a chunk is summed with."""

    function: Callable[..., Array]
    loss: AbstractLoss
    group_weights: Float[Array | np.ndarray, "group"] | None = None

    def root_weights(self, chunk: Chunk) -> Float[np.ndarray, "point"]:
        """Root weights of a chunk, those of its groups among them, as numbers."""
        root = np.asarray(chunk.root_weights, dtype=float)
        if self.group_weights is None:
            return root
        return root * np.sqrt(np.asarray(self.group_weights))[np.asarray(chunk.group)]

    def points(self, chunk: Chunk, dtype: Any) -> tuple[Array, Array, Array]:
        """x, y and root weights of a chunk in the precision of the sum."""
        x, y, root = (jnp.asarray(a, dtype) for a in (chunk.x, chunk.y, chunk.root_weights))
        if self.group_weights is not None:
            root = root * jnp.sqrt(jnp.asarray(self.group_weights, dtype)[chunk.group])
        # Where the weight is zero the model is evaluated at a point that counts: the derivative of
        # a model outside its domain is not finite, and zero times that is not zero.
        safe = x[jnp.argmax(root > 0)]
        inside = (root > 0).reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(inside, x, safe), y, root

    def residuals(
        self, chunk: Chunk, parameters: Float[Array, "parameter"]
    ) -> Callable[[Float[Array, "parameter"]], Float[Array, "point"]]:
        """Weighted residuals of a chunk as a function of parameters like these."""
        x, y, root = self.points(chunk, parameters.dtype)
        return lambda b: weighted_residuals(self.function, x, y, root, b)


class Survey(eqx.Module):
    """What one pass over points tells before any model is evaluated.

    - `count`: points that have a weight.
    - `spread`: ½ Σ w (y − ȳ)² about their weighted mean ȳ.
    """

    count: int = eqx.field(static=True)
    spread: float = eqx.field(static=True)


def survey_of(chunks: Iterable[Chunk], model: CurveModel) -> Survey:
    """Count and spread of the points of a model.

    **Raises:** `DataError` for points with a weight that are not finite or of a group without one,
    and for no point at all.
    """
    weight = total = square = 0.0
    count, shift = 0, None
    for number, chunk in enumerate(chunks):
        if model.group_weights is not None:
            check_groups(chunk, len(model.group_weights))
        root, y = model.root_weights(chunk), np.asarray(chunk.y, dtype=float)
        used = root > 0
        if not used.any():
            continue
        finite = np.isfinite(np.asarray(chunk.x, dtype=float)).reshape(y.size, -1).all(axis=1)
        bad = np.flatnonzero(used & ~(finite & np.isfinite(y) & np.isfinite(root)))
        if bad.size:
            raise DataError(
                f"chunk {number}, entry {bad[0]}: x, y and the weight must be finite; found "
                f"x {chunk.x[bad[0]]}, y {y[bad[0]]}. Leave such points out"
            )
        # About a value of the data, or the square of a large mean would swallow the variance.
        shift = y[used][0] if shift is None else shift
        w, difference = root[used] ** 2, y[used] - shift
        count += int(used.sum())
        weight += float(w.sum())
        total += float(w @ difference)
        square += float(w @ difference**2)
    if not count:
        raise DataError("no point of the source has a weight; there is nothing to fit")
    return Survey(count, max(square - total**2 / weight, 0.0) / 2)


def check_groups(chunk: Chunk, n_groups: int) -> None:
    """Make sure that every point belongs to one of `n_groups` groups.

    **Raises:** `DataError` naming the group that is none.
    """
    largest = int(np.max(chunk.group, initial=0))
    if largest >= n_groups:
        raise DataError(
            f"a point belongs to group {largest}, but there are weights for {n_groups} groups, "
            "counted from 0. Give a weight for every group."
        )


class AbstractPoints(eqx.Module):
    """Points of a curve in chunks of one shape, and how a sum over them is carried out."""

    @property
    @abstractmethod
    def traceable(self) -> bool:
        """Whether a sum may be compiled as a whole; else it loops in Python."""

    @abstractmethod
    def chunks(self) -> Iterator[Chunk]:
        """The chunks one after another, from the first."""

    @abstractmethod
    def total(
        self,
        function: Callable[..., PyTree],
        model: CurveModel,
        parameters: Float[Array, "parameter"],
        zero: PyTree,
        *rest: Any,
    ) -> PyTree:
        """`zero` + Σ `function(model, parameters, chunk, *rest)`; J of one chunk exists at a time.

        `function` is one of a module, so that it is compiled once.
        """

    @abstractmethod
    def count(self, model: CurveModel) -> int:
        """Number of points that have a weight, without a pass over them where it is known."""

    @abstractmethod
    def survey(self, model: CurveModel) -> Survey:
        """Count and spread of the points.

        **Raises:** `DataError` as `survey_of`.
        """


class ArrayPoints(AbstractPoints):
    """Points in memory, one compiled loop over their chunks."""

    x: Float[Array, "chunk point *coordinate"]
    y: Float[Array, "chunk point"]
    root_weights: Float[Array, "chunk point"]

    @property
    def traceable(self):
        return True

    def chunks(self):
        # Arrays of NumPy: each piece cut from those of JAX would be a compiled operation.
        columns = map(np.asarray, (self.x, self.y, self.root_weights))
        for one in zip(*columns, strict=True):
            yield self._chunk(*one)

    def _chunk(self, x, y, root):
        return Chunk(x, y, root, np.zeros(np.shape(y), np.int32))

    def total(self, function, model, parameters, zero, *rest):
        def body(total, columns):
            found = function(model, parameters, self._chunk(*columns), *rest)
            return jax.tree.map(jnp.add, total, found), None

        zero = jax.tree.map(jnp.asarray, zero)
        return jax.lax.scan(body, zero, (self.x, self.y, self.root_weights))[0]

    def count(self, model):
        weighed = (np.count_nonzero(model.root_weights(chunk)) for chunk in self.chunks())
        return int(sum(weighed))

    def survey(self, model):
        return survey_of(self.chunks(), model)


class VectorModel(eqx.Module):
    """A curve `function(x, parameters)` of one vector of parameters.

    For hundreds of them and more: compiling a function of as many scalars takes minutes.
    """

    function: Callable[[Array, Array], Array]

    def __call__(self, x: Float[Array, "point *coordinate"], parameters: Float[Array, "parameter"]):
        """Values at x."""
        return self.function(x, parameters)


def weighted_residuals(
    function: Callable[..., Array],
    x: Float[Array, "point *coordinate"],
    data: Float[Array, "point"],
    root: Float[Array, "point"],
    parameters: Float[Array, "parameter"],
) -> Float[Array, "point"]:
    """√w (function(x, *parameters) − data), exactly zero where the weight is.

    A `VectorModel` is given the parameters as one vector.

    **Raises:** `ModelError` for a model that is not written in `jax.numpy`, or whose values are not
    one for each point or one for all.
    """
    vector = isinstance(function, VectorModel)
    try:
        value = function(x, parameters) if vector else function(x, *parameters)
    except _NOT_TRACEABLE as error:
        raise ModelError(
            "the model asks for the numbers in its arguments, and cannot be differentiated; write "
            "it with jax.numpy instead of numpy or math, and with jnp.where instead of if"
        ) from error
    if jnp.shape(value) not in ((), data.shape):
        raise ModelError(
            f"the model gives values of shape {jnp.shape(value)} for x of shape {x.shape}; it must "
            f"give one for each point, {data.shape}. Of several coordinates x[:, k] is column k"
        )
    # Padding has weight zero; a model may be undefined there, so its value is not even multiplied.
    return jnp.where(root > 0, root * (value - data), 0.0)
