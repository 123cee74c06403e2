"""Message ids of the last minutes, so that a repeat changes nothing."""

from collections import deque
from collections.abc import Container, Iterable


class RecentIds:
    """
    Ids per input with the time at which they were accepted.

    >>> recent = RecentIds(window_ms=300_000)
    >>> recent.add([("Reading", "m1")], 0)
    >>> recent.has("Reading", "m1", 299_999), recent.has("Reading", "m1", 300_000), recent.has("Other", "m1", 1)
    (True, False, False)
    """

    def __init__(self, window_ms: int) -> None:
        self._window_ms = window_ms
        self._times: dict[tuple[str, str], int] = {}
        self._order: deque[tuple[str, str]] = deque()

    def has(self, input_name: str, message_id: str, now_ms: int) -> bool:
        """Whether the id was accepted within the window before now."""
        accepted = self._times.get((input_name, message_id))
        return accepted is not None and now_ms - accepted < self._window_ms

    def add(self, ids: Iterable[tuple[str, str]], now_ms: int) -> None:
        """Note what was accepted now, and forget what was accepted too long ago."""
        times, order = self._times, self._order
        limit = now_ms - self._window_ms
        while order and times[order[0]] <= limit:
            del times[order.popleft()]
        for name in ids:
            if name not in times:
                order.append(name)
            times[name] = now_ms

    def keep(self, inputs: Container[str]) -> None:
        """Forget the ids of every other input."""
        if all(name[0] in inputs for name in self._times):
            return  # as nearly always, in a tenth of the time
        self._times = {name: time_ms for name, time_ms in self._times.items() if name[0] in inputs}
        self._order = deque(name for name in self._order if name in self._times)

    def __len__(self) -> int:
        return len(self._times)
