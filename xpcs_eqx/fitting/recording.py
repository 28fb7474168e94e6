"""A fit under way as checkpoints, and back."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..checkpoint import Checkpoints, file_identity, identity, to_resume
from ..data import MapSource
from ..errors import CheckpointError
from ..objective import AbstractDriver, AbstractObjective, MapTiles, PackedMaps, unpack_maps
from ..optimize import TrustRegion, initial_state
from .attempts import Ledger, Underway
from .prepare import Preparations, blanks
from .solution import RecoveryAction

log = logging.getLogger(__name__)


@identity.register
def _(driver: AbstractDriver) -> None:
    # Every driver gives the same number, so which one is no part of a problem.
    return None


@identity.register
def _(tiles: PackedMaps) -> MapTiles:
    # The form in which devices share maps, which are the same maps.
    return unpack_maps(tiles)


@identity.register
def _(source: MapSource) -> dict[str, Any]:
    # Maps that stay in their file are not read for this, and where the file lies does not matter.
    fields = dataclasses.fields(source)
    values = {field.name: getattr(source, field.name) for field in fields if field.name != "path"}
    if source.sha256:
        # Known by its content, a file may be copied back from elsewhere.
        return values
    return file_identity(source.path, **values)


def earlier(
    checkpoints: Checkpoints | None,
    resume: bool,
    solver: TrustRegion,
    objective: AbstractObjective,
    x: Float[np.ndarray, "variable"],
    preparations: Preparations = (),
) -> Underway | None:
    """Where to go on; None for the beginning.

    **Raises:** `CheckpointError` as `to_resume`.
    """
    found = to_resume(checkpoints, resume)
    if found is None:
        return None
    blank = eqx.filter_eval_shape(initial_state, solver, objective, jnp.asarray(x))
    like = {name: blank if found.extra.get(name) else None for name in ("state", "best")}
    like["prepared"] = blanks(objective, x, preparations, found.extra.get("prepared", 0))
    states = found.restore(like)
    ledger = Ledger(**found.extra["ledger"])
    actions = tuple(RecoveryAction(*action) for action in ledger.actions)
    return Underway(ledger=ledger._replace(actions=actions), **states)


class Recorder:
    """Writes a fit under way into checkpoints: now and then, and when it is asked to.

    It keeps what it saw last and when it wrote last, for one run of a fit.
    """

    def __init__(self, checkpoints: Checkpoints, every: int):
        self.checkpoints, self.every = checkpoints, every
        self.last: Underway | None = None
        self.written, self.clock = -1, time.monotonic()

    def step(self) -> int:
        """Grows with every evaluation and every phase, up to what was seen last."""
        if self.last is None or self.last.latest is None:
            return -1
        return self.last.evaluations + len(self.last.prepared)

    def __call__(self, underway: Underway) -> None:
        """See the fit after an evaluation; write it when it is time to, or a phase begins."""
        before, self.last = self.last, underway
        if before is not None and type(before.latest) is not type(underway.latest):
            self.write()
        waited = time.monotonic() - self.clock >= self.checkpoints.interval
        if waited and self.step() % self.every == 0:
            self.write()

    def write(self) -> None:
        """Write what was seen last, unless it is written already.

        A full disk is no reason to lose the fit: what cannot be written is logged.
        """
        if self.last is None or self.step() <= self.written:
            return
        last = self.last
        states = {"state": last.state, "best": last.best, "prepared": last.prepared}
        extra = {name: states[name] is not None for name in ("state", "best")}
        extra |= {"prepared": len(last.prepared), "ledger": last.ledger._asdict()}
        try:
            path = self.checkpoints.write(self.step(), states, extra)
        except OSError as error:
            log.warning("%s: no checkpoint written: %s", self.checkpoints.folder, error)
        else:
            log.debug("checkpoint written to %s", path)
            self.written = self.step()
        self.clock = time.monotonic()


@contextmanager
def recorded(
    checkpoints: Checkpoints | None,
    every: int,
    callback: Callable[[Any], Any] | None,
) -> Iterator[Callable[[Underway], bool]]:
    """A `watch` for `attempt_all` that asks `callback` whether to stop and writes checkpoints.

    Each state is logged in a line, at the level INFO.

    Whatever ends the fit early, an interrupt, an error or the callback, the last state is written
    first, and so is the end of a fit with preparations.

    **Raises:** `CheckpointError` when `every` is not positive.
    """
    if every < 1:
        raise CheckpointError(f"every = {every}: a checkpoint can be written every 1, 2, … times")
    recorder = None if checkpoints is None else Recorder(checkpoints, every)

    def watch(underway: Underway) -> bool:
        # First of all: the callback may raise.
        if recorder is not None:
            recorder(underway)
        if log.isEnabledFor(logging.INFO):
            log.info("%s", underway.latest.summary)
        ends = callback is not None and bool(callback(underway.latest))
        if ends and recorder is not None:
            recorder.write()
        return ends

    try:
        yield watch
    except BaseException:
        if recorder is not None:
            recorder.write()
        raise
    if recorder is not None and recorder.last is not None and recorder.last.prepared:
        # What took several phases is not repeated when it is resumed at its end.
        recorder.write()
