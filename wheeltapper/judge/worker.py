"""Who does the judge's work: one thread, for whom everything queues, in the order in which it is handed over."""

import logging
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from wheeltapper.errors import UnavailableError
from wheeltapper.judge.calls import Call, Source
from wheeltapper.judge.core import Batch
from wheeltapper.judge.types import Done, Message

log = logging.getLogger(__name__)

_BATCH_MESSAGES = 20_000

T = TypeVar("T")
Work = Sequence[Batch | Call[Any]]
Item = Batch | Source | Call[Any]


class Worker:
    """
    The queue and the thread that empties it.

    Args:
        work: does what was handed over, or, given nothing, what is due.
        patience_s: for how long nothing will be due.
    """

    def __init__(self, work: Callable[[Work], None], patience_s: Callable[[], float]) -> None:
        self._work = work
        self._patience_s = patience_s
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._open = False
        self._thread: threading.Thread | None = None

    def start(self, *, thread: bool) -> None:
        """Take work; without a thread everything is done before a call returns."""
        self._open = True
        if thread:
            self._thread = threading.Thread(target=self._run, name="judge", daemon=True)
            self._thread.start()

    def close(self) -> bool:
        """Do what was handed over and take no more; False when this was asked before."""
        with self._lock:
            was_open, self._open = self._open, False
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        return was_open

    @property
    def threaded(self) -> bool:
        """Whether work waits for a thread of its own."""
        return self._thread is not None

    @property
    def depth(self) -> int:
        """How much waits."""
        return self._queue.qsize()

    def submit(self, batch: Batch) -> None:
        """Have a batch judged; refused when closed."""
        with self._lock:
            if self._open and self._thread is not None:
                self._queue.put(batch)
                return
            closed = not self._open
        if closed:
            batch.refuse("judge: closed")
        else:
            self._do([batch])

    def submit_from(self, pull: Callable[[], tuple[Sequence[Message], Done]]) -> None:
        """Have judged what ``pull`` gives when its turn comes."""
        source = Source(pull)
        with self._lock:
            if self._open and self._thread is not None:
                self._queue.put(source)
                return
        self.submit(source.gather())

    def ask(self, function: Callable[[], T]) -> T:
        """
        The answer to a question that is put after everything handed over before it.

        Raises:
            UnavailableError: closed.
        """
        call = Call(function)
        if threading.current_thread() is self._thread:
            call.run()
            return call.answer()
        with self._lock:
            if not self._open:
                raise UnavailableError("judge: closed")
            queued = self._thread is not None
            if queued:
                self._queue.put(call)
        if not queued:
            call.run()
        return call.answer()

    def tick(self) -> None:
        """Do what is due; for those without a thread."""
        self._do([])

    def _do(self, work: Work) -> None:
        try:
            self._work(work)
        except Exception as error:
            log.exception("judge: failed; going on")
            for item in work:
                item.refuse(f"judge: failed: {error}")

    def _run(self) -> None:
        while (work := self._next_work()) is not None:
            self._do(work)

    def _next_work(self) -> Work | None:
        """What has been handed over, as soon as there is something or anything is due; None when closed and done."""
        try:
            item = self._queue.get(timeout=self._patience_s() if self._open else 0.0)
        except Empty:
            return [] if self._open else None
        work: list[Batch | Call[Any]] = []
        count = 0
        while True:
            if isinstance(item, Source):
                item = item.gather()
            if item is not None:
                work.append(item)
                count += len(item.messages) if isinstance(item, Batch) else 1
            if count >= _BATCH_MESSAGES or self._queue.empty():
                return work
            item = self._queue.get()
