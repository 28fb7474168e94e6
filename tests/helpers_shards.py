"""Stand-ins for the sampling of a shard, which spawned processes can import."""

import os
import signal
import time
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from helpers import make_data

from xpcs_eqx.bayes.workers.base import ShardFailure
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.parameters import parameter_map
from xpcs_eqx.physics import AbstractCorrelation, Features, parameter
from xpcs_eqx.scaling import Fixed


class Scripted(NamedTuple):
    """Does with each shard what `script` says (by number), up to the attempt given with it.

    Leaves a file for each attempt in `folder`.
    """

    folder: str
    script: dict
    data: np.ndarray

    def __call__(self, task, beat):
        with open(os.path.join(self.folder, f"ran-{task.number}-{task.attempt}"), "w") as stream:
            stream.write(str(os.getpid()))
        kind, until = self.script.get(task.number, ("", -1))
        if task.attempt <= until:
            DEEDS[kind](beat)
        return {
            "draws": np.full(3, float(task.number)),
            "attempt": np.asarray(task.attempt),
            "sum": np.asarray(self.data.sum()),
            "mapped": np.asarray(is_mapped(self.data)),
            "double": np.asarray(_double()),
        }


def is_mapped(array) -> bool:
    """Whether an array is a part of a file, and no copy of it."""
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


def _double() -> bool:
    return jnp.zeros(1).dtype == jnp.float64


def _hang(beat):
    time.sleep(600)


def _crawl(beat):
    while True:
        time.sleep(0.05)
        beat()


def _slow(beat):
    time.sleep(1.5)


def _killed(beat):
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(beat):
    os._exit(7)


def _crash(beat):
    raise ValueError("a planted error")


def _not_converged(beat):
    raise ShardFailure("not_converged", "R-hat above 1.05: D0 (1.4)")


def _non_finite(beat):
    raise ShardFailure("non_finite", "the log density is not finite at the start")


DEEDS = {
    "hang": _hang,
    "crawl": _crawl,
    "slow": _slow,
    "killed": _killed,
    "exit": _exit,
    "crash": _crash,
    "not_converged": _not_converged,
    "non_finite": _non_finite,
}


class Unreadable:
    """Cannot be read again in another process."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ImportError("no module named 'notebook'")


class Bent(AbstractCorrelation):
    """c2 linear in its parameters, so that the posterior is a Gaussian in closed form."""

    slope: Any = parameter(start=0.1, bounds=(-1e3, 1e3))
    bend: Any = parameter(start=0.1, bounds=(-1e3, 1e3))

    def features(self, t, geometry):
        return Features(increments=self.slope * t + self.bend * t**2)

    def kernel(self, pair):
        return pair.increments


class Signed(AbstractCorrelation):
    """The sign of the slope is unknown to pairs that begin early."""

    slope: Any = parameter(start=0.5, bounds=(-1e3, 1e3))

    def features(self, t, geometry):
        return Features(endpoints=jnp.where(t < EARLY, 0.0, 1.0), scalars=self.slope)

    def kernel(self, pair):
        slope = pair.scalars
        return slope**2 + pair.first * slope


EARLY = 1.1


def bent_problem(n=31, priors=None, seed=0, noise=0.5):
    """Objective, exact mean and covariance of the posterior of `Bent` under Normal priors."""
    data = make_data(
        Bent(slope=0.5, bend=-0.05), n=n, phi=[0.0], contrast=1.0, noise=noise, seed=seed
    )
    one = np.ones(1)
    objective = projected_objective(parameter_map(Bent(), data.t), data, Fixed(one, one))
    i, j = np.triu_indices(n, 1)
    columns = np.stack([data.t[j] - data.t[i], data.t[j] ** 2 - data.t[i] ** 2], axis=1)
    values = data.c2[0][i, j] - 1.0
    means = np.array([float(p.mean) for p in priors.values()])
    sds = np.array([float(p.sd) for p in priors.values()])
    covariance = np.linalg.inv(columns.T @ columns / noise**2 + np.diag(sds**-2.0))
    mean = covariance @ (columns.T @ values / noise**2 + means / sds**2)
    return objective, mean, covariance
