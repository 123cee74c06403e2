"""
Waiting for what cannot be told to stop: the system's look-up of a name, a write to a disk that is away, a client library.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_GIVEN_UP = 8


class Patience:
    """
    Waits so long, and no longer, for what nothing can interrupt.

    What is given up goes on in a thread of its own; while too much of it still hangs, nothing more is begun.

    Args:
        given_up: how much may hang.
    """

    def __init__(self, given_up: int = _GIVEN_UP) -> None:
        self._room = given_up
        self._given_up: list[Future[Any]] = []
        self._lock = threading.Lock()

    def wait(self, seconds: float, work: Callable[[], T]) -> T:
        """
        What comes of the work.

        Raises:
            TimeoutError: it is not done by then, or too much of earlier work hangs.
        """
        with self._lock:
            self._given_up = [future for future in self._given_up if not future.done()]
            if len(self._given_up) >= self._room:
                raise TimeoutError(f"{len(self._given_up)} earlier attempts still hang")
        future: Future[T] = Future()
        threading.Thread(target=_fulfil, args=(future, work), name="patience", daemon=True).start()
        try:
            return future.result(max(seconds, 0.0))
        except TimeoutError:
            if future.done():
                return future.result()
            with self._lock:
                self._given_up.append(future)
            raise TimeoutError(f"took longer than {seconds:g} s") from None


def _fulfil(future: "Future[T]", work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
