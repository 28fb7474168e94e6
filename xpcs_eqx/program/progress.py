"""A solver or sampler under way: a line or bars on a terminal, entries of the log elsewhere."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from ..bayes.nuts.chains import SamplingProgress
from ..bayes.workers.base import Outcome
from ..defences import OuterIteration
from ..search import CmaProgress, SearchProgress

log = logging.getLogger("xpcs_eqx.fit")


def progress_text(state: Any) -> str:
    """What a state of a solver says of its progress."""
    if isinstance(state, OuterIteration):
        return (
            f"outer iteration {state.number}: cost {state.cost_scaling:.8g}, "
            f"change {state.change:.2e}"
        )
    if isinstance(state, SearchProgress):
        return f"multi-start, {state.phase}: {state.evaluations} evaluations, cost {state.cost:.8g}"
    if isinstance(state, CmaProgress):
        return (
            f"CMA-ES, {state.phase}, run {state.run}, generation {state.generation}: "
            f"{state.evaluations} evaluations, cost {state.cost:.8g}"
        )
    return state.summary


def sampling_text(seen: SamplingProgress | Outcome) -> str:
    """What a report of a sampler says, in one line."""
    if isinstance(seen, SamplingProgress):
        divergent = f", {seen.divergences} divergent" if seen.divergences else ""
        return (
            f"{seen.phase} {seen.done}/{seen.total}: step size {seen.step_size:.3g}, "
            f"{seen.steps_per_draw:.1f} gradients a draw{divergent}"
        )
    if seen.result is None:
        return f"shard {seen.number} dropped after {len(seen.failures)} attempts: {seen.reason}"
    how = "read from an earlier run" if seen.resumed else f"done in {seen.seconds:.1f} s"
    again = f", at attempt {len(seen.failures) + 1} ({seen.reason})" if seen.failures else ""
    return f"shard {seen.number} {how}{again}"


@contextlib.contextmanager
def sampling_progress(
    on_terminal: bool, n_shards: int
) -> Iterator[Callable[[SamplingProgress | Outcome], None]]:
    """A callback for `infer`; `n_shards` is 0 for one run."""
    if not on_terminal:

        def logged(seen: SamplingProgress | Outcome) -> None:
            log.debug("%s", sampling_text(seen))

        yield logged
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=16),
        # Where a terminal is narrow, what is said gives way, not the numbers.
        MofNCompleteColumn(table_column=Column(min_width=11)),
        TimeRemainingColumn(table_column=Column(min_width=8)),
        TextColumn("{task.fields[said]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}
        first = "shards" if n_shards else "warm-up"
        tasks[first] = bars.add_task(first, total=n_shards or None, said="preparing")

        def shown(seen: SamplingProgress | Outcome) -> None:
            said = sampling_text(seen).partition(": ")[2]
            if isinstance(seen, Outcome):
                bars.update(tasks["shards"], advance=1, said=sampling_text(seen))
                return
            if seen.phase not in tasks:
                tasks[seen.phase] = bars.add_task(seen.phase, total=seen.total, said="")
            bars.update(tasks[seen.phase], completed=seen.done, total=seen.total, said=said)

        yield shown
