"""Repeated message ids: which of them AWS IoT Events would ignore."""

from collections import deque


class RecentIds:
    """
    The ids accepted in the last five minutes; memory is bounded by the window and by ``limit``.

    An id that repeats is ignored until the window has passed since it was *accepted*: a repeat does not prolong it.

    >>> recent = RecentIds(window_s=300.0)
    >>> recent.accept("Pump", "m1", 0.0), recent.accept("Pump", "m1", 299.0), recent.accept("Pump", "m1", 300.0)
    (True, False, True)
    """

    def __init__(self, window_s: float = 300.0, limit: int = 1_000_000) -> None:
        self._window_s = window_s
        self._limit = limit
        self._accepted: dict[tuple[str, str], float] = {}
        self._order: deque[tuple[float, tuple[str, str]]] = deque()

    def accept(self, scope: str, message_id: str, now: float) -> bool:
        """
        True for a new id, which is then remembered; a message without an id is never a repeat.

        Args:
            scope: the input's name, or one name for all where ids are compared over all inputs.
            message_id: as the sender gave it.
            now: seconds since the epoch.
        """
        if not message_id:
            return True
        self._forget(now)
        name = (scope, message_id)
        accepted = self._accepted.get(name)
        if accepted is not None and now - accepted < self._window_s:
            return False
        self._accepted[name] = now
        self._order.append((now, name))
        return True

    def export(self) -> list[tuple[str, str, float]]:
        """What is remembered, oldest first, for ``restore``."""
        return [(scope, message_id, when) for (scope, message_id), when in self._accepted.items()]

    def restore(self, exported: list[tuple[str, str, float]]) -> None:
        """Remember what ``export`` gave."""
        for scope, message_id, when in exported:
            self._accepted[(scope, message_id)] = when
            self._order.append((when, (scope, message_id)))

    def _forget(self, now: float) -> None:
        while self._order and (now - self._order[0][0] >= self._window_s or len(self._order) > self._limit):
            when, name = self._order.popleft()
            if self._accepted.get(name) == when:
                del self._accepted[name]
