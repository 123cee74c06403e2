"""
Who does the judge's work: one at a time, in the order it is handed over.

That is a thread of its own, for whom everything queues. Only a source that has something after a moment of quiet has it
done at once, on its own thread: to wake another takes longer than to judge a message.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from wheeltapper.clock import Clock
from wheeltapper.errors import UnavailableError
from wheeltapper.judge.calls import Call, Source
from wheeltapper.judge.core import Batch
from wheeltapper.judge.types import Done, Message

log = logging.getLogger(__name__)

_BATCH_MESSAGES = 20_000
# After so long without work, whoever brings some does it; under load the queue gathers what one write makes durable.
_QUIET_S = 0.0001

T = TypeVar("T")
Work = Sequence[Batch | Call[Any]]
Item = Batch | Source | Call[Any]


class Worker:
    """
    The queue and whose turn it is.

    Args:
        work: does what was handed over, or, given nothing, what is due; never called by two at once.
        patience_s: for how long nothing will be due.
    """

    def __init__(self, work: Callable[[Work], None], patience_s: Callable[[], float], clock: Clock) -> None:
        self._work = work
        self._patience_s = patience_s
        self._clock = clock
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._owner = 0
        # More was handed over than done while anything waits, also what the thread has taken from the queue before its turn.
        self._handed_over = self._done = 0
        self._rested_at = self._looks_at = float("-inf")
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
        with self._turn:  # nobody is at it any more
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
            closed = not self._open
            self._handed_over += not closed
            if not closed and self._thread is not None:
                self._queue.put(batch)
                return
        if closed:
            batch.refuse("judge: closed")
        else:
            self._do(batch)

    def submit_from(self, pull: Callable[[], tuple[Sequence[Message], Done]]) -> None:
        """Have judged what ``pull`` gives when its turn comes."""
        source = Source(pull)
        with self._lock:
            threaded = self._open and self._thread is not None
            mine = threaded and self._is_quiet() and self._turn.acquire(blocking=False)
            self._handed_over += threaded
            if threaded and not mine:
                self._queue.put(source)
                return
        if mine:
            self._do_and_release(source)
        else:
            self.submit(source.gather())

    def ask(self, function: Callable[[], T]) -> T:
        """
        The answer to a question that is put after everything handed over before it.

        Raises:
            UnavailableError: closed.
        """
        call = Call(function)
        if self._owner == threading.get_ident():
            call.run()
            return call.answer()
        with self._lock:
            if not self._open:
                raise UnavailableError("judge: closed")
            queued = self._thread is not None
            if queued:
                self._handed_over += 1
                self._queue.put(call)
        if not queued:
            call.run()
        return call.answer()

    def tick(self) -> None:
        """Do what is due; for those without a thread."""
        self._do(None)

    def _is_quiet(self) -> bool:
        return self._handed_over == self._done and self._clock.monotonic() - self._rested_at >= _QUIET_S

    def _do(self, item: Item | None) -> None:
        if self._owner == threading.get_ident():  # what work itself hands over, where there is no thread
            work = self._gather(item)
            self._work(work)
            self._done += len(work)
            return
        self._turn.acquire()
        self._do_and_release(item)

    def _do_and_release(self, item: Item | None) -> None:
        """Do the work whose turn it is, with all that waits behind it, and give the turn back."""
        self._owner = threading.get_ident()
        work: Work = []
        try:
            work = self._gather(item)
            self._work(work)
        except Exception as error:
            log.exception("judge: failed; going on")
            for each in work:
                each.refuse(f"judge: failed: {error}")
        finally:
            self._owner = 0
            self._done += len(work)
            self._rested_at = self._clock.monotonic()
            overslept = self._thread is not None and self._rested_at + self._patience_s() < self._looks_at
            self._turn.release()
        if overslept:
            self._queue.put(None)

    def _gather(self, item: Item | None) -> Work:
        work: list[Batch | Call[Any]] = []
        count = 0
        while True:
            if isinstance(item, Source):
                item = item.gather()
            if item is not None:
                work.append(item)
                count += len(item.messages) if isinstance(item, Batch) else 1
            if count >= _BATCH_MESSAGES:
                return work
            try:
                item = self._queue.get_nowait()
            except Empty:
                return work

    def _run(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=self._look_again_in_s())
            except Empty:
                if not self._open:
                    return
                self._do(None)
                continue
            self._looks_at = float("-inf")
            if item is not None:  # nothing only asks to look again
                self._do(item)

    def _look_again_in_s(self) -> float:
        with self._turn:
            patience_s = self._patience_s() if self._open else 0.0
            self._looks_at = self._clock.monotonic() + patience_s
            return patience_s
