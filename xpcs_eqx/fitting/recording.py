"""A fit under way as checkpoints and back, and as those see it who watch it."""

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

from ..checkpoint import Checkpoints, file_identity, identity, to_resume, understood
from ..data import MapSource
from ..errors import CheckpointError, DataError
from ..objective import AbstractDriver, AbstractObjective, MapTiles, PackedMaps, unpack_maps
from ..optimize import Status, TrustRegion, TrustRegionState, initial_state
from ..parameters.variables import physical_of
from .attempts import Ledger, Preparations, Underway

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
) -> Underway:
    """Where to go on, which is at the beginning without an earlier run.

    **Raises:** `CheckpointError` as `to_resume`.
    """
    found = to_resume(checkpoints, resume)
    if found is None:
        return Underway()
    blank = eqx.filter_eval_shape(initial_state, solver, objective, jnp.asarray(x))
    with understood(found.path):
        like = {name: blank if found.extra.get(name) else None for name in ("state", "best")}
        begun = preparations[: int(found.extra.get("prepared", 0))]
        ledger = Ledger.of(found.extra["ledger"])
    like["prepared"] = tuple(one.begin(objective, x) for one in begun)
    states = found.restore(like)
    with understood(found.path):
        for state in (states["state"], states["best"]):
            if state is not None:
                _make_sure(state)
    return Underway(ledger=ledger, **states)


def _make_sure(state: TrustRegionState) -> None:
    """**Raises:** `ValueError` for a state that no solver can have been in."""
    Status(int(state.status))
    counts = (state.evaluations, state.allowed, state.accepted, state.rejected, state.non_finite)
    if min(map(int, counts)) < 0:
        raise ValueError("evaluations cannot be negative")
    if not np.all(np.isfinite(np.asarray(state.y))):
        raise ValueError("parameters must be finite")


class Watch:
    """Sees a fit after every evaluation: logs it, asks a callback, writes checkpoints at times.

    It keeps what it saw last and when it wrote last, for one run of a fit.

    - `callback`: sees the state of the solver or of a preparation; a true value ends the fit.
    - `every`: how many evaluations lie between two checkpoints at least.
    """

    def __init__(
        self,
        objective: AbstractObjective,
        callback: Callable[[Any], Any] | None,
        checkpoints: Checkpoints | None,
        every: int,
    ):
        if every < 1:
            raise CheckpointError(
                f"every = {every}: a checkpoint can be written every 1, 2, … times"
            )
        self.objective, self.callback = objective, callback
        self.checkpoints, self.every = checkpoints, every
        self.last: Underway | None = None
        self.written, self.clock, self.failing = -1, time.monotonic(), False

    def step(self) -> int:
        """Grows with every evaluation and every phase, up to what was seen last."""
        if self.last is None or self.last.latest is None:
            return -1
        return self.last.evaluations + len(self.last.prepared)

    def __call__(self, underway: Underway) -> bool:
        """See the fit after an evaluation; true to end it."""
        before, self.last = self.last, underway
        # Written first of all, for the callback may raise.
        if before is not None and type(before.latest) is not type(underway.latest):
            self.write()
        interval = np.inf if self.checkpoints is None else self.checkpoints.interval
        if time.monotonic() - self.clock >= interval and self.step() % self.every == 0:
            self.write()
        if log.isEnabledFor(logging.INFO):
            log.info("%s", underway.latest.summary)
        ends = self.callback is not None and bool(self.callback(self._shown(underway.latest)))
        if ends:
            self.write()
        return ends

    def _shown(self, state: Any) -> Any:
        """The state, that of a trust region with its parameters in their own units."""
        if not isinstance(state, TrustRegionState):
            return state
        best = np.asarray(physical_of(self.objective.variables, state.y)).tolist()
        named = zip(self.objective.names, best, strict=True)
        return dataclasses.replace(state, physical=tuple(named))

    def write(self) -> None:
        """Write what was seen last, unless it is written already, or nothing is to be written.

        A full disk is no reason to lose the fit: what cannot be written is logged, once until
        something is written again.
        """
        if self.checkpoints is None or self.last is None or self.step() <= self.written:
            return
        last = self.last
        states = {"state": last.state, "best": last.best, "prepared": last.prepared}
        extra = {name: states[name] is not None for name in ("state", "best")}
        extra |= {"prepared": len(last.prepared), "ledger": last.ledger._asdict()}
        try:
            path = self.checkpoints.write(self.step(), states, extra)
        except OSError as error:
            level = logging.DEBUG if self.failing else logging.WARNING
            told = "%s: no checkpoint written: %s; the fit goes on, and tries it again"
            log.log(level, told, self.checkpoints.folder, error)
            self.failing = True
        else:
            log.debug("checkpoint written to %s", path)
            self.written, self.failing = self.step(), False
        self.clock = time.monotonic()

    def best_values(self) -> dict[str, float]:
        """Physical variables, by name, of the lowest cost that was seen."""
        assert self.last is not None
        states = [one for one in (self.last.state, self.last.best) if one is not None]
        if states:
            lowest = min(states, key=lambda state: float(state.equations.cost))
            x = np.asarray(self.objective.variables.to_physical(lowest.y))
        else:
            x = self.last.prepared[-1].best
        return dict(zip(self.objective.names, x.tolist(), strict=True))


@contextmanager
def watched(
    objective: AbstractObjective,
    callback: Callable[[Any], Any] | None,
    checkpoints: Checkpoints | None,
    every: int,
) -> Iterator[Watch]:
    """A `Watch` whose last state is written, whatever ends the fit early.

    So is the end of a fit with preparations.

    **Raises:** `CheckpointError` when `every` is not positive; `DataError` for data that cannot be
    read any more, with how far the fit had got.
    """
    watch = Watch(objective, callback, checkpoints, every)
    try:
        yield watch
    except BaseException as error:
        watch.write()
        if isinstance(error, DataError) and watch.last is not None:
            raise DataError(f"{error} The best parameters so far: {watch.best_values()}") from error
        raise
    if watch.last is not None and watch.last.prepared:
        # What took several phases is not repeated when it is resumed at its end.
        watch.write()
