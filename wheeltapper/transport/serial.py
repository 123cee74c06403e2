"""One worker for callbacks that must keep their order: the executor given to clients whose own would re-order them."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

log = logging.getLogger(__name__)


class SerialExecutor(Executor):
    """One worker with a bounded queue; what does not fit is dropped and counted."""

    def __init__(self, size: int = 10_000) -> None:
        self.dropped = 0
        self._queue: queue.Queue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = queue.Queue(size)
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_kwargs: Any) -> Future[Any]:
        try:
            self._queue.put_nowait((fn, args))
        except queue.Full:
            self.dropped += 1
            log.error("an event was dropped: the worker is behind")
        return Future()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: the executor outlives each client that it serves; see ``stop``."""

    def stop(self) -> None:
        """End the worker after what it is doing."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)

    def _run(self) -> None:
        while (task := self._queue.get()) is not None:
            fn, args = task
            try:
                fn(*args)
            except Exception:
                log.exception("a handler failed")
