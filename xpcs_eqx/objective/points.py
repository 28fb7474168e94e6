"""Points of a curve: their checks, chunks of one shape, and what a curve makes of a chunk."""

import dataclasses
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


def _real(values: Any, name: str, where: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where}: {name} holds {array.dtype} values; give real numbers.")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _check_each(good: np.ndarray, values: np.ndarray, name: str, where: str, first: int, rule: str):
    """Name the first value that is not good, with its index."""
    if not good.all():
        index = int(np.argmin(good))
        raise DataError(f"{where}, index {first + index}: {name} is {values[index]}; {rule}.")


def check_points(
    x: Any, y: Any, sigma: Any = None, group: Any = None, *, where: str, first: int = 0
) -> Chunk:
    """Points from arrays, any number of them, with 1/σ as root weights.

    `where` names their origin in messages, `first` the index of the first of them there.

    **Raises:** `DataError` for arrays that do not belong together, values that are not finite,
    σ ≤ 0 or groups that are not whole numbers ≥ 0.
    """
    x, y = _real(x, "x", where), _real(y, "y", where)
    if y.ndim != 1 or x.ndim not in (1, 2) or x.shape[0] != y.shape[0]:
        raise DataError(
            f"{where}: x has shape {x.shape} and y {y.shape}; give one entry a point, y as (n,) "
            "and x as (n,) or (n, k)."
        )
    for name, values in (("x", x), ("y", y)):
        good = np.isfinite(values)
        good = good if good.ndim == 1 else good.all(axis=1)
        rule = "it must be finite: leave out the points that are not"
        _check_each(good, values, name, where, first, rule)
    root = np.broadcast_to(1.0, y.shape)
    if sigma is not None:
        spread = _real(sigma, "sigma", where).astype(np.float64)
        if spread.shape not in ((), y.shape):
            raise DataError(
                f"{where}: sigma has shape {spread.shape} for {y.shape[0]} points; give one for "
                "each point or one for all."
            )
        spread = np.broadcast_to(spread, y.shape)
        rule = "sigma must be finite and positive at every point"
        _check_each(np.isfinite(spread) & (spread > 0), spread, "sigma", where, first, rule)
        root = 1.0 / spread
    return Chunk(x, y, root, _groups(group, y.shape, where, first))


def _groups(group: Any, shape: tuple[int, ...], where: str, first: int) -> np.ndarray:
    if group is None:
        return np.broadcast_to(np.int32(0), shape)
    found = _real(group, "group", where)
    if found.shape != shape:
        raise DataError(
            f"{where}: group has shape {found.shape} for {shape[0]} points; give one for each."
        )
    good = (found >= 0) & (found == np.floor(found)) & (found < 2**31)
    _check_each(good, found, "group", where, first, "groups are whole numbers from 0")
    return found.astype(np.int32)


def points_with_weight(chunk: Chunk, where: str) -> Chunk:
    """The points of a chunk that have a weight.

    **Raises:** `DataError` as `check_points`, and for weights that are negative or not finite.
    """
    root = _real(chunk.root_weights, "root_weights", where).astype(np.float64)
    x, y, group = (np.asarray(a) for a in (chunk.x, chunk.y, chunk.group))
    if not root.shape == y.shape == x.shape[:1]:
        raise DataError(
            f"{where}: x {x.shape}, y {y.shape} and root_weights {root.shape} must have one entry "
            "a point."
        )
    rule = "it must be finite and not below zero"
    _check_each(np.isfinite(root) & (root >= 0), root, "root_weights", where, 0, rule)
    keep = root > 0
    found = check_points(x[keep], y[keep], None, group[keep], where=where)
    return dataclasses.replace(found, root_weights=root[keep])


def _part(points: Chunk, low: int, high: int | None = None) -> Chunk:
    return jax.tree.map(lambda part: part[low:high], points)


def chunked(pieces: Iterable[Chunk], size: int, where: str) -> Iterator[Chunk]:
    """Chunks of `size` points from pieces of any length, the last one filled up.

    **Raises:** `DataError` when the pieces differ in the shape of x or there is no point at all.
    """
    waiting: list[Chunk] = []
    have, coordinates, some = 0, None, False
    for piece in pieces:
        if coordinates is None:
            coordinates = piece.x.shape[1:]
        elif coordinates != piece.x.shape[1:]:
            raise DataError(
                f"{where}: x has shape {piece.x.shape} after pieces of shape (n, "
                f"{', '.join(map(str, coordinates))}); all must have the same coordinates."
            )
        waiting.append(piece)
        have += piece.y.shape[0]
        if have < size:
            continue
        joined = _join(waiting)
        whole = have - have % size
        for start in range(0, whole, size):
            some = True
            yield _part(joined, start, start + size)
        have -= whole
        waiting = [_part(joined, whole)]
    if have:
        yield filled_up(_join(waiting), size)
    elif not some:
        raise DataError(
            f"{where}: there is no point with a weight. A callable must return a fresh iterator "
            "at every call."
        )


def _join(pieces: list[Chunk]) -> Chunk:
    one = len(pieces) == 1
    return pieces[0] if one else jax.tree.map(lambda *parts: np.concatenate(parts), *pieces)


def filled_up(points: Chunk, size: int) -> Chunk:
    """One chunk of `size` points; the last point is repeated at weight zero.

    There a model is defined if it is anywhere.
    """
    missing = size - points.y.shape[0]
    if not missing:
        return points

    def repeated(part):
        return np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])

    whole = jax.tree.map(repeated, points)
    whole.root_weights[-missing:] = 0.0
    return whole


class VectorModel(eqx.Module):
    """A curve `function(x, parameters)` of one vector of parameters.

    For hundreds of them and more: compiling a function of as many scalars takes minutes.
    """

    function: Callable[[Array, Array], Array]

    def __call__(self, x: Float[Array, "point *coordinate"], parameters: Float[Array, "parameter"]):
        """Values at x."""
        return self.function(x, parameters)


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

    def values(
        self, x: Float[Array, "point *coordinate"], parameters: Float[Array, "parameter"]
    ) -> Float[Array, "*point"]:
        """function(x, *parameters); a `VectorModel` is given the parameters as one vector.

        **Raises:** `ModelError` for a model that is not written in `jax.numpy`, or whose values are
        not one for each point or one for all.
        """
        vector = isinstance(self.function, VectorModel)
        try:
            value = self.function(x, parameters) if vector else self.function(x, *parameters)
        except _NOT_TRACEABLE as error:
            raise ModelError(
                "the model asks for the numbers in its arguments, and cannot be differentiated; "
                "write it with jax.numpy instead of numpy or math, and with jnp.where instead of if"
            ) from error
        if jnp.shape(value) not in ((), x.shape[:1]):
            raise ModelError(
                f"the model gives values of shape {jnp.shape(value)} for x of shape {x.shape}; it "
                f"must give one for each point, {x.shape[:1]}. Of several coordinates x[:, k] is "
                "column k"
            )
        return value

    def residuals(
        self, chunk: Chunk, parameters: Float[Array, "parameter"]
    ) -> Callable[[Float[Array, "parameter"]], Float[Array, "point"]]:
        """√w (function(x, *parameters) − y) as a function of parameters like these.

        Exactly zero where the weight is. **Raises:** as `values`.
        """
        x, y, root = self.points(chunk, parameters.dtype)

        def residuals(b):
            value = self.values(x, b)
            # Padding has weight zero; a model may be undefined there, so its value is not even
            # multiplied.
            return jnp.where(root > 0, root * (value - y), 0.0)

        return residuals


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
    def survey(self, model: CurveModel) -> Survey:
        """Count and spread of the points, without a pass over them where they are known.

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
            yield self.chunk(*one)

    @staticmethod
    def chunk(x: Array, y: Array, root_weights: Array) -> Chunk:
        """One of the chunks, from its row of each array."""
        return Chunk(x, y, root_weights, np.zeros(np.shape(y), np.int32))

    def total(self, function, model, parameters, zero, *rest):
        def body(total, columns):
            found = function(model, parameters, self.chunk(*columns), *rest)
            return jax.tree.map(jnp.add, total, found), None

        zero = jax.tree.map(jnp.asarray, zero)
        return jax.lax.scan(body, zero, (self.x, self.y, self.root_weights))[0]

    def survey(self, model):
        return survey_of(self.chunks(), model)
