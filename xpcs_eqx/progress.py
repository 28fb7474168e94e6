"""A fit under way as one line on a terminal or in a notebook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import ModelError, how_to_install


def console() -> Any:
    """Where progress is shown: beside what is printed.

    **Raises:** `ModelError` with what to install when Rich is missing.
    """
    try:
        from rich.console import Console
    except ImportError as error:
        raise ModelError(
            f"showing progress needs Rich; install it with: {how_to_install('program')}"
        ) from error
    return Console(stderr=True)


@contextmanager
def in_one_line(
    wanted: bool, callback: Callable[[Any], Any] | None = None
) -> Iterator[Callable[[Any], Any] | None]:
    """A callback that shows the `summary` of each state where that is `wanted`.

    It hands on what `callback` says of the state.

    **Raises:** `ModelError` as `console`.
    """
    if not wanted:
        yield callback
        return
    with console().status("compiling") as line:

        def shown(state: Any) -> Any:
            line.update(state.summary)
            return None if callback is None else callback(state)

        yield shown
