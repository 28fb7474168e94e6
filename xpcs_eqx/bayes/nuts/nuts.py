"""The No-U-Turn sampler: the only file that uses BlackJAX.

One compiled function advances all chains, in warm-up and afterwards; what differs between the two
is handed to it as values. Keys are derived from the number of a draw, so that results do not depend
on how a run is cut into pieces.
"""

import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.adaptation.window_adaptation import build_schedule
from blackjax.mcmc.metrics import default_metric
from blackjax.vi import pathfinder
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

from ...checkpoint import understood
from ...compiling import quick_jit
from ...errors import FitError
from ...inherited import Inherited
from ..density.log_posterior import LogPosterior
from ..workers.base import ResultStore
from .chains import AXIS, ChainSettings, Draws, SamplingProgress, placed

# Draws a call: often enough for a progress bar, rarely enough to cost nothing.
CHUNK = 100


class Chains(NamedTuple):
    """Where the chains stand: leading axis chain."""

    state: Any
    averaging: Any
    key: Any


def advance(
    density: LogPosterior,
    chain: Chains,
    step_size: Float[Array, ""],
    metric: Float[Array, "entry entry"],
    first: Int[Array, ""],
    count: Int[Array, ""],
    target: Float[Array, ""],
    adapting: Bool[Array, ""],
    max_depth: int = 10,
) -> tuple[Chains, Draws]:
    """`count` transitions of one chain, at most `CHUNK`; the draws fill the first `count` places.

    Under `vmap` a batch of chains, or of data sets, moves in lock-step.

    **Arguments:**

    - `step_size`: used as long as `adapting` is false; else that of dual averaging towards the
        acceptance `target`.
    - `first`: number of the first draw, from which its key follows.
    """
    kernel = blackjax.nuts.build_kernel()
    # A float by its annotation, which an array is as well to it.
    _, update, _ = dual_averaging_adaptation(target)  # pyright: ignore[reportArgumentType]
    mass = default_metric(metric)

    def step(i, carry):
        (state, averaging, key), kept = carry
        size = jnp.where(adapting, jnp.exp(averaging.log_step_size), step_size)
        state, info = kernel(
            jax.random.fold_in(key, first + i), state, lambda z: density(z), size, mass, max_depth
        )
        # A start far from the posterior may give NaN, which would spoil the average for good.
        rate = jnp.where(jnp.isfinite(info.acceptance_rate), info.acceptance_rate, 0.0)
        moved = update(averaging, rate)
        averaging = jax.tree.map(partial(jnp.where, adapting), moved, averaging)
        new = Draws(
            state.position,
            state.logdensity,
            info.is_divergent,
            info.energy,
            info.num_trajectory_expansions,
            info.num_integration_steps,
            info.acceptance_rate,
            state.logdensity_grad,
        )
        kept = jax.tree.map(lambda all, one: all.at[i].set(one), kept, new)
        return Chains(state, averaging, key), kept

    vector = jnp.zeros((CHUNK, chain.state.position.shape[0]))
    scalar, whole = jnp.zeros(CHUNK), jnp.zeros(CHUNK, int)
    empty = Draws(vector, scalar, jnp.zeros(CHUNK, bool), scalar, whole, whole, scalar, vector)
    return jax.lax.fori_loop(0, count, step, (chain, empty))


@quick_jit
def _advance(mesh, max_depth, density, chains, step_size, *rest):
    """All chains of a batch, whose devices do not wait for each other."""
    arrays, static = eqx.partition(density, eqx.is_array)

    def batch(arrays, rest, chains, step_size):
        density = eqx.combine(arrays, static)
        metric, first, count, target, adapting = rest

        def one(chain, size):
            limits = (first, count, target, adapting, max_depth)
            return advance(density, chain, size, metric, *limits)

        return jax.vmap(one)(chains, step_size)

    if mesh is not None:
        each = P(AXIS)
        # Without the check, which the loop of a trajectory would not pass.
        batch = jax.shard_map(
            batch, mesh=mesh, in_specs=(P(), P(), each, each), out_specs=each, check_vma=False
        )
    return batch(arrays, rest, chains, step_size)


@quick_jit
def _chains_at(density: LogPosterior, positions, keys) -> Chains:
    """Chains at unconstrained positions (chain, entry), each with its key."""
    state = jax.vmap(lambda z: blackjax.nuts.init(z, lambda u: density(u)))(positions)
    return Chains(state, averaging_from(jnp.ones(len(keys))), keys)


def averaging_from(step_sizes: Float[Array, "chain"]) -> Any:
    """Dual averaging begun at given step sizes."""
    init, _, _ = dual_averaging_adaptation(0.8)
    # Of the types a transition returns, so that the first call is compiled like all others.
    return jax.tree.map(lambda a: jnp.asarray(a, a.dtype), jax.vmap(init)(jnp.asarray(step_sizes)))


_averaging = quick_jit(averaging_from)


def values_at(density: LogPosterior, positions: Float[np.ndarray, "chain entry"]):
    """Log density and its gradient at positions, by what is compiled for as many chains."""
    keys = jax.random.split(jax.random.key(0), len(positions))
    state = _chains_at(density, jnp.asarray(positions), keys).state
    return np.asarray(state.logdensity), np.asarray(state.logdensity_grad)


class Runner:
    """Advances chains in pieces; holds what stays the same between the pieces.

    The settings of the sampler say which chains move together, on which devices. Pieces that
    `store` has are read from it; as each follows from the one before, and nothing else is random, a
    run is then the same as if it had not been interrupted.
    """

    def __init__(
        self,
        density: Any,
        settings: ChainSettings,
        callback: Callable[[SamplingProgress], Any] | None = None,
        store: ResultStore | None = None,
    ):
        sampler = settings.sampler
        self.mesh = sampler.parallel.mesh(sampler.chains)
        self.density = placed(density, self.mesh, P())
        self.keys = jax.random.split(settings.key, sampler.chains)
        self.target = np.asarray(settings.target)
        self.max_depth = sampler.max_depth
        self.batches = sampler.parallel.batches(sampler.chains)
        self.callback = callback
        self.store = store
        self.count = self.pieces = 0

    def begin(self, positions: Float[np.ndarray, "chain entry"]) -> Chains:
        """Chains at the given positions, drawn in towards zero where the density has no value.

        Each time to half the distance on the other side of zero: where zero lies close to an edge
        of the support, one side alone has a density.

        **Raises:** `FitError` when a chain finds no finite log density even near zero.
        """
        positions = np.array(positions)
        bad = np.zeros(len(positions), bool)
        for _ in range(14):
            whole = _chains_at(self.density, jnp.asarray(positions), self.keys)
            gradient = np.asarray(whole.state.logdensity_grad)
            bad = ~(np.isfinite(whole.state.logdensity) & np.isfinite(gradient).all(axis=1))
            if not np.any(bad):
                return jax.tree.map(np.asarray, whole._replace(key=None))
            positions[bad] /= -2
        raise FitError(
            f"the log density is not finite at the start of chains {np.flatnonzero(bad)}; "
            "check priors and start values"
        )

    def with_step_size(self, chains: Chains, step_size: float) -> Chains:
        """Dual averaging begun anew at a step size."""
        averaging = _averaging(np.full(len(self.keys), step_size))
        return chains._replace(averaging=jax.tree.map(np.asarray, averaging))

    def run(
        self,
        chains: Chains,
        begin: int,
        end: int,
        total: int,
        step_size: float,
        metric: Float[np.ndarray, "entry entry"],
        adapting: bool,
    ) -> tuple[Chains, Draws]:
        """Transitions `begin` to `end` of `total`, of a warm-up where `adapting`; and their draws.

        **Raises:** `CheckpointError` for a stored piece that is damaged or of another run.
        """
        pieces = []
        for done in range(begin, end, CHUNK):
            now = min(end - done, CHUNK)
            kept = None if self.store is None else self.store.load(self.pieces)
            if kept is None:
                chains, draws = self._moved(chains, now, step_size, metric, adapting)
                if self.store is not None:
                    self.store.save(self.pieces, _packed(chains, draws))
            else:
                assert self.store is not None
                with understood(self.store.path(self.pieces)):
                    chains, draws = _unpacked(chains, kept, now)
            self.pieces += 1
            self.count += now
            pieces.append(draws)
            if self.callback is not None:
                self.callback(
                    SamplingProgress(
                        "warm-up" if adapting else "sampling",
                        done + now,
                        total,
                        int(np.sum(draws.divergent)),
                        _mean(chains.averaging.log_step_size) if adapting else float(step_size),
                        float(np.mean(draws.steps)),
                    )
                )
        return chains, jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *pieces)

    def _moved(self, chains: Chains, now: int, step_size, metric, adapting):
        """The chains after `now` transitions, each batch on a thread, and their draws."""
        numbers = (np.asarray(self.count), np.asarray(now), self.target, np.asarray(adapting))

        def one(batch):
            group = jax.tree.map(lambda leaf: leaf[batch], chains._replace(key=self.keys))
            group = placed(group, self.mesh, P(AXIS))
            sizes = np.full(len(batch), step_size)
            moved, draws = _advance(
                self.mesh, self.max_depth, self.density, group, sizes, np.asarray(metric), *numbers
            )
            return jax.tree.map(np.asarray, (moved._replace(key=None), draws))

        if len(self.batches) == 1:
            results = [one(self.batches[0])]
        else:
            with ThreadPoolExecutor(len(self.batches)) as pool:
                results = list(pool.map(Inherited(one), self.batches))
        moved, draws = jax.tree.map(lambda *parts: np.concatenate(parts), *results)
        return moved, jax.tree.map(lambda leaf: leaf[:, :now], draws)


def _mean(log_step_sizes: Float[np.ndarray, "chain"]) -> float:
    """Geometric mean of the step sizes of all chains."""
    return float(np.exp(np.mean(log_step_sizes)))


def _packed(chains: Chains, draws: Draws) -> dict[str, np.ndarray]:
    """Chains and their draws as named arrays; their keys are those of the run."""
    leaves = {f"chains_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(chains))}
    return {**draws._asdict(), **leaves}


def _unpacked(chains: Chains, kept: Mapping[str, np.ndarray], now: int) -> tuple[Chains, Draws]:
    """Chains and `now` draws of a stored piece; `chains` are those where it began.

    **Raises:** `ValueError` or `KeyError` for a piece that is none of these chains.
    """
    before, structure = jax.tree.flatten(chains)
    leaves = [kept[f"chains_{i}"] for i in range(structure.num_leaves)]
    draws = Draws(*(kept[name] for name in Draws._fields))
    shapes = list(map(np.shape, before))
    sizes = {np.shape(one)[:2] for one in draws}
    if list(map(np.shape, leaves)) != shapes or sizes != {(shapes[0][0], now)}:
        raise ValueError("the chains are not these, or their draws are not as many")
    return jax.tree.unflatten(structure, leaves), draws


def warm_up(
    runner: Runner,
    chains: Chains,
    count: int,
    step_size: float,
    metric: Float[np.ndarray, "entry entry"],
) -> tuple[Chains, float, Float[np.ndarray, "entry entry"]]:
    """Chains, step size and metric after `count` transitions in the windows of Stan.

    The metric is learnt from all chains together, at the end of each window, and shrunk to the one
    before it: the Laplace metric is good from the start and is only improved upon.
    """
    if count == 0:
        return chains, step_size, metric
    schedule = np.asarray(build_schedule(count))
    slow, ends = schedule[:, 0].astype(bool), np.flatnonzero(schedule[:, 1])
    edges = sorted({*(int(e) + 1 for e in ends), count})
    chains = runner.with_step_size(chains, step_size)
    for begin, edge in itertools.pairwise([0, *edges]):
        chains, draws = runner.run(chains, begin, edge, count, step_size, metric, True)
        step_size = _mean(chains.averaging.log_step_size_avg)
        window = slow[begin:edge]
        if window.any() and (edge - 1) in ends:
            metric = _learnt(draws.position[:, window], metric)
            chains = runner.with_step_size(chains, step_size)
    return chains, step_size, metric


def _learnt(positions: Float[np.ndarray, "chain draw entry"], before: np.ndarray) -> np.ndarray:
    chains, n, size = positions.shape
    centred = positions - positions.mean(axis=1, keepdims=True)
    found = np.einsum("cni,cnj->ij", centred, centred) / max(chains * (n - 1), 1)
    # What is kept of the earlier metric are its correlations: of the scales a window knows enough.
    old = np.sqrt(np.diagonal(before))
    scale = np.sqrt(np.diagonal(found)) / old
    kept = before * np.outer(scale, scale)
    # Draws of a window are correlated, and a metric has size·(size + 1)/2 entries.
    weight = chains * n / (chains * n + 2.0 * size)
    return weight * found + (1 - weight) * kept


@eqx.filter_jit
def pathfinder_draws(
    density: LogPosterior, position: Float[Array, "entry"], count: int, key: Key[Array, ""]
):
    """Draws from the best Gaussian along an L-BFGS path (Zhang et al., JMLR 23, 306 (2022))."""
    first, second = jax.random.split(key)
    state, _ = pathfinder.approximate(first, lambda z: density(z), position, num_samples=200)
    samples, _ = pathfinder.sample(second, state, count)
    return samples
