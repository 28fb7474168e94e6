"""The No-U-Turn sampler: the only file that uses BlackJAX.

One compiled function advances all chains, in warm-up and afterwards; what differs between the two
is handed to it as values. Keys are derived from the number of a draw, so that results do not depend
on how a run is cut into pieces.
"""

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

from ...compiling import quick_jit
from ...errors import FitError
from ...inherited import Inherited
from ..density.log_posterior import LogPosterior
from ..workers.store import ResultStore
from .chains import AXIS, AbstractParallelChains, Draws, SamplingProgress, placed

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
    threshold: float = 1000.0,
) -> tuple[Chains, Draws]:
    """`count` transitions of one chain, at most `CHUNK`; the draws fill the first `count` places.

    Under `vmap` a batch of chains, or of data sets, moves in lock-step.

    **Arguments:**

    - `step_size`: used as long as `adapting` is false; else that of dual averaging towards the
        acceptance `target`.
    - `first`: number of the first draw, from which its key follows.
    """
    kernel = blackjax.nuts.build_kernel(divergence_threshold=int(threshold))
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

    size = chain.state.position.shape[0]
    empty = Draws(
        jnp.zeros((CHUNK, size)),
        jnp.zeros(CHUNK),
        jnp.zeros(CHUNK, bool),
        jnp.zeros(CHUNK),
        jnp.zeros(CHUNK, int),
        jnp.zeros(CHUNK, int),
        jnp.zeros(CHUNK),
        jnp.zeros((CHUNK, size)),
    )
    return jax.lax.fori_loop(0, count, step, (chain, empty))


@quick_jit
def _advance(mesh, settings, density, chains, step_size, *rest):
    """All chains of a batch, whose devices do not wait for each other."""
    arrays, static = eqx.partition(density, eqx.is_array)

    def batch(arrays, rest, chains, step_size):
        density = eqx.combine(arrays, static)
        return jax.vmap(lambda chain, size: advance(density, chain, size, *rest, *settings))(
            chains, step_size
        )

    if mesh is not None:
        each = P(AXIS)
        # Without the check, which the loop of a trajectory would not pass.
        batch = jax.shard_map(
            batch, mesh=mesh, in_specs=(P(), P(), each, each), out_specs=each, check_vma=False
        )
    return batch(arrays, rest, chains, step_size)


def chains_at(density: LogPosterior, positions, keys) -> Chains:
    """Chains at unconstrained positions (chain, entry), each with its key."""
    state = jax.vmap(lambda z: blackjax.nuts.init(z, lambda u: density(u)))(positions)
    return Chains(state, averaging_from(jnp.ones(len(keys))), keys)


def averaging_from(step_sizes: Float[Array, "chain"]) -> Any:
    """Dual averaging begun at given step sizes."""
    init, _, _ = dual_averaging_adaptation(0.8)
    # Of the types a transition returns, so that the first call is compiled like all others.
    return jax.tree.map(lambda a: jnp.asarray(a, a.dtype), jax.vmap(init)(jnp.asarray(step_sizes)))


_averaging = quick_jit(averaging_from)
_chains_at = quick_jit(chains_at)


def values_at(density: LogPosterior, positions: Float[np.ndarray, "chain entry"]):
    """Log density and its gradient at positions, by what is compiled for as many chains."""
    keys = jax.random.split(jax.random.key(0), len(positions))
    state = _chains_at(density, jnp.asarray(positions), keys).state
    return np.asarray(state.logdensity), np.asarray(state.logdensity_grad)


class Runner:
    """Advances chains in pieces; holds what stays the same between the pieces.

    `parallel` says which chains move together, on which devices. Pieces that `store` has are read
    from it; as each follows from the one before, and nothing else is random, a run is then the same
    as if it had not been interrupted.
    """

    def __init__(
        self,
        density: Any,
        key: Key[Array, ""],
        chains: int,
        target: float,
        max_depth: int,
        threshold: float,
        parallel: AbstractParallelChains,
        callback: Callable[[SamplingProgress], Any] | None,
        store: ResultStore | None = None,
    ):
        self.mesh = parallel.mesh(chains)
        self.density = placed(density, self.mesh, P())
        self.keys = jax.random.split(key, chains)
        self.target = np.asarray(target)
        self.settings = (max_depth, float(threshold))
        self.slices = parallel.batches(chains)
        self.callback = callback
        self.store = store
        self.count = self.pieces = 0

    def begin(self, positions) -> list[Chains]:
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
                groups = [jax.tree.map(lambda leaf, s=s: leaf[s], whole) for s in self.slices]
                return [placed(group, self.mesh, P(AXIS)) for group in groups]
            positions[bad] /= -2
        raise FitError(
            f"the log density is not finite at the start of chains {np.flatnonzero(bad)}; "
            "check priors and start values"
        )

    def with_step_size(self, groups: list[Chains], step_size: float) -> list[Chains]:
        """Dual averaging begun anew at a step size."""
        return [
            group._replace(
                averaging=placed(_averaging(np.full(len(s), step_size)), self.mesh, P(AXIS))
            )
            for group, s in zip(groups, self.slices, strict=True)
        ]

    def run(self, groups, count, step_size, metric, adapting, phase, done, total):
        """`count` transitions of every chain; returns the chains and their draws.

        **Raises:** `CheckpointError` for a stored piece that is damaged or of another run.
        """
        pieces = []
        while count > 0:
            now = min(count, CHUNK)
            arguments = (
                np.asarray(metric),
                np.asarray(self.count),
                np.asarray(now),
                self.target,
                np.asarray(adapting),
            )

            def one(group, arguments=arguments):
                sizes = np.full(group.key.shape[0], step_size)
                return jax.block_until_ready(
                    _advance(self.mesh, self.settings, self.density, group, sizes, *arguments)
                )

            kept = None if self.store is None else self.store.load(self.pieces)
            if kept is None:
                groups, draws = self._moved(one, groups, now)
                if self.store is not None:
                    self.store.save(self.pieces, _packed(groups, draws))
            else:
                groups, draws = self._unpacked(groups, kept)
            self.pieces += 1
            pieces.append(draws)
            count, self.count, done = count - now, self.count + now, done + now
            if self.callback is not None:
                self.callback(
                    SamplingProgress(
                        phase,
                        done,
                        total,
                        int(np.sum(draws.divergent)),
                        float(step_size) if not adapting else self.step_size(groups, last=True),
                        float(np.mean(draws.steps)),
                    )
                )
        return groups, jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *pieces)

    def _moved(self, one: Callable[[Chains], Any], groups: list[Chains], now: int):
        """The chains after `now` transitions, each batch on a thread, and their draws."""
        if len(groups) == 1:
            results = [one(groups[0])]
        else:
            with ThreadPoolExecutor(len(groups)) as pool:
                results = list(pool.map(Inherited(one), groups))
        draws = jax.tree.map(
            lambda *parts: np.concatenate([np.asarray(p) for p in parts])[:, :now],
            *(result[1] for result in results),
        )
        return [result[0] for result in results], draws

    def _unpacked(self, groups: list[Chains], kept: Mapping[str, np.ndarray]):
        """Chains and draws of a stored piece, the chains where those before it are."""
        found = []
        for g, group in enumerate(groups):
            leaves, structure = jax.tree.flatten(group._replace(key=None))
            stored = [jnp.asarray(kept[f"chains_{g}_{i}"]) for i in range(len(leaves))]
            chains = jax.tree.unflatten(structure, placed(stored, self.mesh, P(AXIS)))
            found.append(chains._replace(key=group.key))
        return found, Draws(*(kept[name] for name in Draws._fields))

    @staticmethod
    def step_size(groups: list[Chains], last: bool = False) -> float:
        """Geometric mean over the chains of the averaged (or the last) step size."""
        field = "log_step_size" if last else "log_step_size_avg"
        logs = [np.asarray(getattr(group.averaging, field)) for group in groups]
        return float(np.exp(np.mean(np.concatenate(logs))))


def _packed(groups: list[Chains], draws: Draws) -> dict[str, np.ndarray]:
    """Chains and their draws as named arrays; their keys are those of the run."""
    return {
        **{name: np.asarray(value) for name, value in draws._asdict().items()},
        **{
            f"chains_{g}_{i}": np.asarray(leaf)
            for g, group in enumerate(groups)
            for i, leaf in enumerate(jax.tree.leaves(group._replace(key=None)))
        },
    }


def warm_up(
    runner: Runner,
    groups: list[Chains],
    count: int,
    step_size: float,
    metric: Float[np.ndarray, "entry entry"],
):
    """Adapt step size and metric over `count` transitions in the windows of Stan.

    The metric is learnt from all chains together, at the end of each window, and shrunk to the one
    before it: the Laplace metric is good from the start and is only improved upon.
    Returns the chains, the step size and the metric.
    """
    if count == 0:
        return groups, step_size, metric
    schedule = np.asarray(build_schedule(count))
    slow, ends = schedule[:, 0].astype(bool), np.flatnonzero(schedule[:, 1])
    edges = sorted({*(int(e) + 1 for e in ends), count})
    groups = runner.with_step_size(groups, step_size)
    begin = 0
    for edge in edges:
        groups, draws = runner.run(
            groups, edge - begin, step_size, metric, True, "warm-up", begin, count
        )
        step_size = runner.step_size(groups)
        window = slow[begin:edge]
        if window.any() and (edge - 1) in ends:
            metric = _learnt(draws.position[:, window], metric)
            groups = runner.with_step_size(groups, step_size)
        begin = edge
    return groups, step_size, metric


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


def pathfinder_draws(
    density: LogPosterior, position: Float[Array, "entry"], count: int, key: Key[Array, ""]
):
    """Draws from the best Gaussian along an L-BFGS path (Zhang et al., JMLR 23, 306 (2022))."""
    return _pathfinder(density, position, key, count)


@eqx.filter_jit
def _pathfinder(density, position, key, count: int):
    first, second = jax.random.split(key)
    state, _ = pathfinder.approximate(first, lambda z: density(z), position, num_samples=200)
    samples, _ = pathfinder.sample(second, state, count)
    return samples
