"""A sampler under way as bars on a terminal or in a notebook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..progress import console
from .nuts.chains import SamplingProgress
from .workers.base import Outcome


@contextmanager
def in_bars(
    wanted: bool,
    callback: Callable[[Any], Any] | None = None,
    n_shards: int | None = None,
) -> Iterator[Callable[[Any], Any] | None]:
    """A callback of `sample` and `consensus` that shows bars where they are `wanted`.

    It hands on what `callback` says; `n_shards` is None for one run.

    **Raises:** `ModelError` when Rich is missing.
    """
    if not wanted:
        yield callback
        return
    screen = console()
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
    with Bars(*columns, console=screen, transient=True) as bars:
        tasks: dict[str, Any] = {}
        first = "warm-up" if n_shards is None else "shards"
        tasks[first] = bars.add_task(first, total=n_shards, said="preparing")

        def shown(seen: SamplingProgress | Outcome) -> Any:
            if isinstance(seen, Outcome):
                bars.update(tasks["shards"], advance=1, said=seen.summary)
            else:
                if seen.phase not in tasks:
                    tasks[seen.phase] = bars.add_task(seen.phase, total=seen.total, said="")
                said = seen.summary.partition(": ")[2]
                bars.update(tasks[seen.phase], completed=seen.done, total=seen.total, said=said)
            return None if callback is None else callback(seen)

        yield shown
