"""Settings of the No-U-Turn sampler, how its chains go side by side, and what they leave."""

import dataclasses
from abc import abstractmethod
from typing import Annotated, Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key

from ...arguments import Count, Fraction, Whole, Within, check_fields, plain
from ...errors import ModelError
from ...objective.drivers.mesh import chosen_devices

AXIS = "chain"

T = TypeVar("T")


class AbstractParallelChains(eqx.Module):
    """Which chains move together, and on which devices.

    But for rounding the draws do not depend on it.
    """

    __check_init__ = check_fields

    @abstractmethod
    def batches(self, chains: int) -> list[Int[np.ndarray, "batch"]]:
        """Numbers of the chains of each batch.

        Every batch has a thread of its own; the chains of a batch on a device move in lock-step.

        **Raises:** `ModelError` for a number of chains that cannot be, saying which can.
        """

    @abstractmethod
    def mesh(self, chains: int) -> Mesh | None:
        """Devices that share each batch equally; None for JAX's default device.

        **Raises:** `ConfigError` when there are not as many devices as were asked for.
        """


class LockStepChains(AbstractParallelChains):
    """All chains as one vectorised batch: each waits for the longest trajectory of the others.

    For accelerators, on which a batch costs little more than a chain.
    """

    def batches(self, chains):
        return [np.arange(chains)]

    def mesh(self, chains):
        return None


class ThreadedChains(AbstractParallelChains):
    """Batches on threads of one device, `count` of them; by default each chain has its own.

    With a thread each no chain waits for the longest trajectory of the others, which halves the
    work of a laminar run on a processor.

    **Raises:** `ModelError` for a count below 1.
    """

    count: Count | None = eqx.field(static=True, default=None)

    def batches(self, chains):
        count = chains if self.count is None else min(self.count, chains)
        return np.array_split(np.arange(chains), count)

    def mesh(self, chains):
        return None


class ChainsOnDevices(AbstractParallelChains):
    """Chains shared equally over a mesh of devices, each of which has all data.

    Devices do not wait for each other; the chains of one move in lock-step.

    - `count`: number of devices, the first ones; by default as many of this process as share the
        chains equally.
    - `platform`: `"cpu"`, `"gpu"`, `"tpu"`; `None` for JAX's default.

    **Raises:** `ModelError` for a count that does not share the chains equally; `ConfigError` at
    the start of a run when there are fewer devices.
    """

    count: int | None = eqx.field(static=True, default=None)
    platform: str | None = eqx.field(static=True, default=None)

    def batches(self, chains):
        if self.count is not None and (self.count < 1 or chains % self.count):
            shared = [str(n) for n in range(1, chains + 1) if chains % n == 0]
            raise ModelError(
                f"{chains} chains cannot be shared equally by {self.count} devices; take "
                f"{' or '.join(shared)} devices, or another number of chains"
            )
        return [np.arange(chains)]

    def mesh(self, chains):
        devices = chosen_devices(self.count, self.platform)
        count = max(n for n in range(1, len(devices) + 1) if chains % n == 0)
        return Mesh(np.array(devices[:count]), (AXIS,))


_Chains = Annotated[int, Within(ge=2, why=": R-hat compares chains")]


class Nuts(eqx.Module):
    """How a posterior is sampled (No-U-Turn sampler): chains, draws, warm-up.

    - `chains`, `warmup`, `draws`: number of chains, two or more, and of transitions of each.
    - `target_acceptance`: of the step size adaptation; by default 0.9 for laminar flow, else 0.85.
    - `max_depth`: doublings of a trajectory at most.
    - `retries`: further attempts of a run whose chains disagree, diverge or find no finite density:
        each with another key, half the step size and distance from the start, and a longer warm-up.
        What a shard is given in its place are `Limits.retries`.
    - `parallel`: how chains go side by side: `ThreadedChains()` (default), `LockStepChains()` or
        `ChainsOnDevices()`. The draws are the same but for rounding, which long runs amplify.

    **Raises:** `ModelError` for settings that cannot be.
    """

    chains: _Chains = eqx.field(static=True, default=4, converter=plain)
    warmup: Whole = eqx.field(static=True, default=500, converter=plain)
    draws: Annotated[int, Within(ge=4)] = eqx.field(static=True, default=1500, converter=plain)
    target_acceptance: Fraction | None = eqx.field(static=True, default=None, converter=plain)
    max_depth: Count = eqx.field(static=True, default=10, converter=plain)
    parallel: AbstractParallelChains = ThreadedChains()
    retries: Whole = eqx.field(static=True, default=0, converter=plain)

    def __check_init__(self):
        check_fields(self)
        self.parallel.batches(self.chains)

    def target(self, laminar: bool) -> float:
        """The acceptance to aim at, where a model has flow or none has."""
        if self.target_acceptance is not None:
            return self.target_acceptance
        return 0.9 if laminar else 0.85


class ChainSettings(NamedTuple):
    """What the chains of an attempt are given: where they begin, and how they move."""

    positions: Float[np.ndarray, "chain entry"]
    step_size: float
    metric: Float[np.ndarray, "entry entry"]
    target: float
    sampler: Nuts
    key: Key[Array, ""]

    def eased(self, attempt: int) -> "ChainSettings":
        """The settings of a further attempt (1, 2, …), from those of the first; the key stays.

        Each time the step size, the distance of the chains from the start and that of the target
        acceptance from one are halved, and the warm-up is longer by as much as the first had.
        """
        easier = 2.0**-attempt
        warmup = self.sampler.warmup * (1 + attempt)
        return self._replace(
            positions=self.positions * easier,
            step_size=self.step_size * easier,
            target=1 - (1 - self.target) * easier,
            sampler=dataclasses.replace(self.sampler, warmup=warmup),
        )


def placed(tree: T, mesh: Mesh | None, spec: P) -> T:
    """The arrays of a tree on the devices of a mesh; as they are without one."""
    if mesh is None:
        return tree
    arrays, rest = eqx.partition(tree, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    return eqx.combine(jax.device_put(arrays, NamedSharding(mesh, spec)), rest)


class Draws(NamedTuple):
    """What is kept of each transition; leading axes (chain, draw).

    - `position`: unconstrained coordinates (…, entry); `log_density`: of the coordinates.
    - `gradient`: of the log density in these coordinates (…, entry).
    - `divergent`, `energy`, `acceptance`: of the trajectory; `depth`: its doublings; `steps`: its
        gradient evaluations.
    """

    position: Any
    log_density: Any
    divergent: Any
    energy: Any
    depth: Any
    steps: Any
    acceptance: Any
    gradient: Any

    def __repr__(self) -> str:
        shapes = (f"{name}={np.shape(value)}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({', '.join(shapes)})"


class SamplingProgress(NamedTuple):
    """What a callback sees: `phase` is warm-up or sampling.

    `done` of `total` transitions of each chain; `divergences` and `steps_per_draw` are those of the
    chains since the last call.
    """

    phase: str
    done: int
    total: int
    divergences: int
    step_size: float
    steps_per_draw: float

    @property
    def summary(self) -> str:
        """Where it is, in one line."""
        divergent = f", {self.divergences} divergent" if self.divergences else ""
        return (
            f"{self.phase} {self.done}/{self.total}: step size {self.step_size:.3g}, "
            f"{self.steps_per_draw:.1f} gradients a draw{divergent}"
        )
