"""Stand-ins for the sampling of a shard, which spawned processes can import."""

import os
import signal
import time
from typing import NamedTuple

import numpy as np

from xpcs_eqx.bayes.failures import ShardFailure


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
            "mapped": np.asarray(isinstance(self.data, np.memmap)),
            "double": np.asarray(_double()),
        }


def _double() -> bool:
    import jax.numpy as jnp

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
