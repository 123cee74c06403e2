"""What waits for the judge's thread beside batches: questions, and sources that gather a batch when their turn comes."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from wheeltapper.errors import UnavailableError
from wheeltapper.judge.core import Batch
from wheeltapper.judge.types import Done, Message

log = logging.getLogger(__name__)

T = TypeVar("T")


class Call(Generic[T]):
    """
    A question to the judge's thread, answered after everything handed over before it.

    Args:
        function: run there.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._answered = threading.Event()
        self._answer: T
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._answer = self._function()
        except BaseException as error:
            self._error = error
        self._answered.set()

    def refuse(self, detail: str) -> None:
        if not self._answered.is_set():
            self._error = UnavailableError(detail)
            self._answered.set()

    def answer(self) -> T:
        self._answered.wait()
        if self._error is not None:
            raise self._error
        return self._answer


class Source(NamedTuple):
    """A batch that is gathered when its turn comes."""

    pull: Callable[[], tuple[Sequence[Message], Done]]

    def gather(self) -> Batch:
        """What has been gathered; nothing where the source fails."""
        try:
            return Batch(*self.pull())
        except Exception:
            log.exception("judge: a source failed")
            return Batch((), lambda _refusals: None)
