"""What worker processes import: sums and executors for the tests of drivers."""

import os
import signal
from concurrent.futures import Executor, Future

import jax.numpy as jnp

import xpcs_eqx as xe

TRACED = []


def counted(args, block):
    """The weighted sum of a block; says when it is compiled."""
    TRACED.append(os.getpid())
    return jnp.sum(block.values * block.root_weights**2) * args


def compilations(_):
    """Which process this is, how often it compiled `counted`, and its precision."""
    return os.getpid(), len(TRACED), str(jnp.ones(1).dtype)


def wrong(args, block):
    raise xe.ModelError("the model has no sense of time")


def deadly(args, block):
    os.kill(os.getpid(), signal.SIGKILL)


class Backwards(Executor):
    """Work is done in this process, the last thing asked for first, and fails as it is told."""

    def __init__(self, failures=()):
        self.failures = list(failures)
        self.waiting = []
        self.asked = []

    def submit(self, function, /, *arguments):
        future = Late(self)
        self.asked.append(arguments)
        self.waiting.append((future, function, arguments))
        return future

    def work(self):
        while self.waiting:
            future, function, arguments = self.waiting.pop()
            try:
                if self.failures:
                    raise self.failures.pop()
                future.set_result(function(*arguments))
            except Exception as error:
                future.set_exception(error)


class Late(Future):
    def __init__(self, executor):
        super().__init__()
        self.executor = executor

    def result(self, timeout=None):
        self.executor.work()
        return super().result(timeout)
