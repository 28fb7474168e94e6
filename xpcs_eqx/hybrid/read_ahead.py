"""The next items of an iterator made on a thread while the present one is used."""

from collections.abc import Callable, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")


class _Failed:
    """What the thread raised, on its way to the caller."""

    def __init__(self, error: BaseException):
        self.error = error


_END = object()


def read_ahead(items: Callable[[], Iterator[Item]], depth: int = 2) -> Iterator[Item]:
    """The items of `items()`, up to `depth` of them made in advance on a thread.

    What the iterator raises is raised here, after the items before it. The thread has ended when
    this iterator has, also when it is closed early.
    """
    queue: Queue = Queue(maxsize=depth)
    stop = Event()

    def work():
        last: object = _END
        try:
            for item in items():
                queue.put(item)
                if stop.is_set():
                    return
        except BaseException as error:
            last = _Failed(error)
        queue.put(last)

    thread = Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item  # pyright: ignore[reportReturnType]
    finally:
        stop.set()
        # The thread may sit in `put`: room is made until it has seen the sign.
        while thread.is_alive():
            _empty(queue)
            thread.join(0.01)


def _empty(queue: Queue) -> None:
    try:
        while True:
            queue.get_nowait()
    except Empty:
        return
