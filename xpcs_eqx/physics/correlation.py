"""The interface between a model and everything that fits it: features, kernel, degeneracies."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..arguments import check_fields, checked
from ..data import Geometry
from .leaves import ParameterInfo, model_text


class Circumstances(NamedTuple):
    """What a degeneracy may depend on.

    - `t`: frame times [s]; `geometry`: of the data.
    - `bounds`: (lower, upper) of every free parameter by name; fixed and tied ones are not in it.
    """

    t: Float[np.ndarray, "frame"]
    geometry: Geometry
    bounds: Mapping[str, tuple[float, float]]

    def all_free(self, *names: str) -> bool:
        """Whether all of these are free."""
        return all(name in self.bounds for name in names)

    def any_free(self, *names: str) -> bool:
        """Whether one of these is free."""
        return any(name in self.bounds for name in names)


class Degeneracy(NamedTuple):
    """Parameters that leave the correlation exactly as it is when they change together.

    - `name`: the parameters, as a short name: ``"f0 with f2"``.
    - `text`: what is not determined, and what to do.
    - `bites`: whether it is there, from the model at its values and the circumstances.
    - `continuous`: a whole line of solutions, which leaves no error bar; else a mirrored one.
    """

    name: str
    text: str
    bites: Callable[[Any, Circumstances], bool | Array]
    continuous: bool


class Features(eqx.Module):
    """What a model of your own says of each frame, split by how it enters a pair (t1, t2).

    - `increments`: functions of one time that enter only as f(t2) − f(t1); arrays (frame,).
    - `endpoints`: functions of one time that enter at both ends; arrays (frame,).
    - `scalars`: numbers that enter every pair; arrays () or (angle,).

    Each may be any pytree. Increments are cheapest: one derivative serves both ends.
    """

    increments: PyTree[Float[Array, "frame"]] = ()
    endpoints: PyTree[Float[Array, "frame"]] = ()
    scalars: PyTree[Float[Array, "*angle"]] = ()


class Pair(eqx.Module):
    """The features of pairs of frames with t2 > t1, in the structure the model returned them."""

    increments: Any
    first: Any
    second: Any
    scalars: Any


class AbstractCorrelation(eqx.Module):
    """How speckle decorrelates between two frames, |c1|²: the base of models of your own.

    The fields made with `parameter` are the parameters.

    A subclass gives `features` and `kernel`. The solvers differentiate the kernel with respect to
    the few features of each pair and the features with respect to the parameters at each frame, so
    nothing has to be differentiated by hand and the Jacobian is never stored. Everything that
    depends on a parameter must come through `features`: using a parameter in `kernel` raises.

    `names` maps the path of a field (``"transport.amplitude"``) to its public name (``"D0"``);
    a path that is not listed is its own name. `infos` gives unit, start
    and bounds by public name where the field itself does not. `positive_rates` names fields with
    rates that are unphysical below zero; a result says where one is. `degeneracies` lists what
    data may be unable to tell apart; a fit names those that bite.
    """

    names: ClassVar[dict[str, str]] = {}
    infos: ClassVar[dict[str, ParameterInfo]] = {}
    positive_rates: ClassVar[tuple[str, ...]] = ()
    degeneracies: ClassVar[tuple[Degeneracy, ...]] = ()

    __check_init__ = check_fields

    def __repr__(self) -> str:
        """What it is made of, and its parameters with their units."""
        return model_text(self)

    @abstractmethod
    def features(self, t: Float[Array, "frame"], geometry: Geometry) -> Features:
        """The features at the frame times `t` [s]."""

    def starts(self, half: Float[np.ndarray, "angle"], geometry: Geometry) -> dict[str, float]:
        """Start values by public name for data that lose half of their contrast in `half` [s].

        Others than these stay as they are; none unless a model says so. Most models start at the
        slowest angle.
        """
        del half, geometry
        return {}

    @abstractmethod
    def kernel(self, pair: Pair) -> Float[Array, "..."]:
        """|c1|² of pairs from their features, elementwise; one at zero delay."""


def degeneracies(
    model: AbstractCorrelation,
    t: Float[np.ndarray, "frame"],
    geometry: Geometry,
    bounds: Mapping[str, tuple[float, float]],
) -> tuple[Degeneracy, ...]:
    """The exact degeneracies of a model that bite at its values.

    **Arguments:**

    - `model`: at the values to look at; its class lists what it may have in `degeneracies`.
    - `t`, `geometry`: frame times [s] and geometry of the data.
    - `bounds`: of the free parameters by name.
    """
    here = Circumstances(np.asarray(t, dtype=float), geometry, dict(bounds))
    return tuple(one for one in model.degeneracies if bool(one.bites(model, here)))


@eqx.filter_jit
def correlation_rows(
    model: AbstractCorrelation,
    t: Float[Array, "frame"],
    geometry: Geometry,
    rows: Int[Array, "row"],
) -> Float[Array, "angle row frame"]:
    """|c1|² of some frames with all others, at all angles; 1 for a frame with itself.

    `t` in s; `rows` are numbers of frames from 0. Memory is that of what is returned.
    """
    features = model.features(jnp.asarray(t), geometry)
    n, n_angles = len(t), geometry.phi.shape[0]
    frames = jnp.arange(n)
    first = jnp.minimum(rows[:, None], frames[None, :])
    second = jnp.maximum(rows[:, None], frames[None, :])
    # A zero delay may have no finite derivative in a user's kernel: the widest delay stands in,
    # and the diagonal is set to one afterwards.
    same = first == second

    def at(scalars):
        def increment(row):
            return jnp.where(same, row[-1] - row[0], row[second] - row[first])

        pair = Pair(
            jax.tree.map(increment, features.increments),
            jax.tree.map(lambda row: row[first], features.endpoints),
            jax.tree.map(lambda row: row[second], features.endpoints),
            jax.tree.map(lambda value: jnp.broadcast_to(value, same.shape), scalars),
        )
        return jnp.where(same, 1.0, model.kernel(pair))

    by_angle = jax.tree.map(lambda v: jnp.broadcast_to(v, (n_angles,)), features.scalars)
    if not jax.tree.leaves(by_angle):
        return jnp.broadcast_to(at(features.scalars), (n_angles, *same.shape))
    return jax.lax.map(at, by_angle)


@checked()
def correlation_map(
    model: AbstractCorrelation, t: Float[Array, "frame"], geometry: Geometry
) -> Float[Array, "angle frame frame"]:
    """The maps of |c1|² that a model gives: all pairs of frames and angles, 1 on the diagonal.

    `t` in s. Memory is that of the maps; fits never form them.
    """
    return correlation_rows(model, t, geometry, jnp.arange(len(t)))
