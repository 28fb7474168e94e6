"""The sampling of one shard, as it happens in whichever process."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, ScalarLike

from ...errors import FitError
from ...objective import PointTiles
from ...objective.kernel.tiles import CHUNK, point_runs
from ..density.log_posterior import LogPosterior
from ..diagnostics import diagnose_chains, why_unusable
from ..nuts.chains import ChainSettings, Draws
from ..nuts.sample import ChainRun, run_chains
from ..workers.base import ShardFailure, Task
from .anchors import site_of
from .division import AnyPairs, Pairs, Points, Shards


class ShardDensity(eqx.Module):
    """ln likelihood of a shard + `power`·(ln prior + ln |det dθ/dz|) − ½ zᵀ·anchor·z.

    With `power` 1/K the sum over K shards is the log density of all data in the coordinates z, so
    that the product of the densities of the shards in z is that of the whole posterior. The volume
    is tempered with the prior: together they are the prior of z. The anchor, if there is one, is on
    top of that.
    """

    density: LogPosterior
    power: ScalarLike
    anchor: Float[Array | np.ndarray, "entry entry"]

    def __call__(self, z: Float[Array, "entry"]) -> Float[Array, ""]:
        """The log density of z; −∞ where the model has no value."""
        density = self.density
        theta = density.coordinates.to_physical(z)
        prior = density.log_prior(theta) + density.coordinates.log_det(z)
        value = density.likelihood_at(z) + self.power * prior - 0.5 * z @ self.anchor @ z
        return jnp.where(jnp.isnan(value), -jnp.inf, value)


class Layout(NamedTuple):
    """The one shape all shards are padded to, so that nothing is compiled twice.

    - `rows`: runs of points of one angle, of each data set; `points`: in a run.
    """

    rows: tuple[int, ...]
    points: int


def layout_of(
    by_angle: Int[np.ndarray, "part angle"], n_angles: Sequence[int] | None = None
) -> Layout:
    """Runs of points of one angle that hold any of the parts with little padding.

    `by_angle`: points of each angle in each part; `n_angles`: angles of each of several data sets.
    """
    points = min(CHUNK, max(int(by_angle.max()), 1))
    runs = np.split(-(-by_angle // points), np.cumsum(n_angles or ())[:-1].astype(int), axis=1)
    return Layout(tuple(max(int(np.max(np.sum(own, axis=1))), 1) for own in runs), points)


def without_data(density: LogPosterior) -> LogPosterior:
    """The density of no data at all, small enough to be sent to any process."""
    whole = np.zeros(0, int)
    nothing = Points(np.zeros(0), whole, whole, whole, np.zeros(0))
    return shard_density(density, nothing, Layout((1,) * len(density.parts), 1), 1.0).density


def _tiles(points: Points, n_angles: int, length: int, rows: int) -> PointTiles:
    runs, _ = point_runs(*points, n_angles, length, rows)
    return PointTiles(*(np.asarray(one) for one in runs))  # pyright: ignore[reportArgumentType]


def shard_density(
    density: LogPosterior,
    points: Points,
    layout: Layout,
    power: ScalarLike,
    anchor: Float[np.ndarray, "entry entry"] | None = None,
) -> ShardDensity:
    """The density of a shard, from that of any other data of the same angles and frames.

    Angles of several data sets are numbered one set after the other.
    """
    tiles, counts, low = [], [], 0
    for part, rows in zip(density.parts, layout.rows, strict=True):
        n_angles = part.term.reference.shape[0]
        here = (points.angle >= low) & (points.angle < low + n_angles)
        own = Points(*(column[here] for column in points))
        own = own._replace(angle=own.angle - low)
        tiles.append(_tiles(own, n_angles, layout.points, rows))
        counts.append(np.count_nonzero(own.root_weights))
        low += n_angles
    density = density.with_data(tiles, counts)
    if anchor is None:
        anchor = np.zeros((len(density.names), len(density.names)))
    return ShardDensity(density, np.asarray(float(power)), anchor)  # pyright: ignore[reportArgumentType]


# Pairs of data in a file that stand for all of them where chains begin.
_STAND_IN = 20_000


def stand_in(pairs: AnyPairs) -> list[PointTiles]:
    """Some pairs of each data set spread evenly over all of its own, read once."""
    return [_some(one) for one in pairs.parts]


def _some(pairs: Pairs) -> PointTiles:
    count = min(pairs.n_pairs, _STAND_IN)
    points = pairs.points(np.linspace(0, pairs.n_pairs - 1, count).round().astype(int))
    by_angle = np.bincount(points.angle, minlength=pairs.n_angles)
    layout = layout_of(by_angle[None])
    return _tiles(points, pairs.n_angles, layout.points, *layout.rows)


def standing_for(density: LogPosterior, pairs: AnyPairs) -> LogPosterior:
    """A density of some pairs with the weight of all: an unbiased estimate of theirs."""
    counts, every = [own.n_pairs for own in pairs.parts], []
    for part, count in zip(density.parts, counts, strict=True):
        tiles = part.term.tiles
        assert isinstance(tiles, PointTiles)
        roots = np.sqrt(count / np.asarray(part.n_pairs)) * np.asarray(tiles.root_weights)
        every.append(dataclasses.replace(tiles, root_weights=roots))
    return density.with_data(every, counts)


def for_attempt(first: ChainSettings, task: Task) -> ChainSettings:
    """The settings of an attempt at a shard, which has a key of its own, as has the attempt."""
    key = jax.random.fold_in(jax.random.fold_in(first.key, task.number), task.attempt)
    return first.eased(task.attempt)._replace(key=key)


class ShardWork(eqx.Module):
    """Samples a shard; what differs between shards and attempts is in the task.

    - `density`: of the whole posterior, without data; `pairs`, `shards`: the data and their parts.
    - `anchor`: precision about the place where chains begin.
    - `chains`: settings of a first attempt, with the raw bits of a key, which can be sent; what a
        further attempt is given instead says `for_attempt`.
    - `rhat`: largest that counts as converged.
    """

    density: LogPosterior
    pairs: AnyPairs
    shards: Shards
    layout: Layout = eqx.field(static=True)
    power: float = eqx.field(static=True)
    anchor: Float[np.ndarray, "entry entry"]
    chains: ChainSettings
    rhat: float = eqx.field(static=True)

    def __call__(self, task: Any, beat: Any) -> dict[str, np.ndarray]:
        """Draws u = centre + scale·z, which mean the same whatever the start, and statistics."""
        points = self.pairs.points(self.shards.members(task.number))
        density = shard_density(self.density, points, self.layout, self.power, self.anchor)
        key = jax.random.wrap_key_data(jnp.asarray(self.chains.key))
        settings = for_attempt(self.chains._replace(key=key), task)
        try:
            run = run_chains(density, settings, lambda progress: beat())
        except ShardFailure:
            # Raised by `beat`, with a category of its own.
            raise
        except FitError as error:
            raise ShardFailure("non_finite", str(error)) from error
        return self._result(run)

    def _result(self, run: ChainRun) -> dict[str, np.ndarray]:
        draws = Draws(*map(np.asarray, run.draws))
        position, gradient = draws.position, draws.gradient
        if not np.all(np.isfinite(position)):
            raise ShardFailure("non_finite", "a chain has left for a place that is not finite")
        if not np.all(np.isfinite(gradient)):
            raise ShardFailure("non_finite", "the gradient of the log density is not finite")
        names = self.density.names
        found = diagnose_chains(names, position, draws, self.chains.sampler.max_depth)
        if reason := why_unusable(found, position, self.rhat):
            raise ShardFailure("not_converged", reason)
        coordinates = self.density.coordinates
        scale = np.asarray(coordinates.scale)
        flat = position.reshape(-1, len(names))
        site = site_of(
            flat,
            gradient.reshape(flat.shape) + flat @ self.anchor,
            min(1.0, float(np.min(found.ess_bulk)) / len(flat)),
        )
        kept = draws._replace(gradient=gradient / scale)._asdict()
        del kept["position"]
        return {
            "draws": np.asarray(coordinates.centre) + scale * position,
            **kept,
            **{f"site_{name}": value for name, value in site._asdict().items()},
            **{name: getattr(found, name) for name in ("rhat", "ess_bulk", "ess_tail", "bfmi")},
            "step_size": np.asarray(run.step_size),
        }
