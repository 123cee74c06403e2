"""
A place for one model that is replaced while machines keep sending.

The slot keeps each machine's state. A new model is loaded and verified beside the old one, which keeps serving; if it fails
it never takes over. The change happens between two batches, under the lock that scoring holds, so that every row is judged
once, by one model. The new model is warmed with each machine's last rows: a change is no cold start.
"""

import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wheeltapper_models.card import Card
from wheeltapper_models.forest_watch import ForestWatch
from wheeltapper_models.serving import Judged, SensorRow, Served
from wheeltapper_models.session import Session

__all__ = ["Judged", "SensorRow", "Slot"]

KEPT_ROWS = 64
_BREATH_S = 0.002


class Slot:
    """
    One model in service, and the states of the machines that it judges.

    Args:
        session: the first model.
        kept_rows: how many of a machine's last rows are kept to warm the next model.
    """

    def __init__(self, session: Served, *, kept_rows: int = KEPT_ROWS) -> None:
        self._lock = threading.Lock()
        self._session = session
        self._kept_rows = kept_rows
        self._states: dict[str, Any] = {}
        self._last: dict[str, deque[SensorRow]] = {}
        self._counts: dict[str, int] = {}

    @property
    def card(self) -> Card:
        """The card of the model in service."""
        return self._session.card

    @property
    def session(self) -> Served:
        """The model in service."""
        return self._session

    def score(self, rows: Sequence[SensorRow]) -> list[Judged]:
        """
        Judge rows of any machines, several at once where they belong to different machines.

        Returns:
            One answer per row, in the order given; rows of one machine are judged in that order.
        """
        found: list[Judged | None] = [None] * len(rows)
        with self._lock:
            for wave in _waves(rows):
                batch = [rows[place] for place in wave]
                for place, judged in zip(wave, self._session.judge(batch, self._states), strict=True):
                    found[place] = judged
                    self._keep(rows[place])
        return [judged for judged in found if judged is not None]

    def swap(self, path: Path | str) -> Card:
        """
        Put the model at ``path`` in service.

        Returns:
            The card of the model that now serves.

        Raises:
            ModelError: the new model cannot be loaded or verified; the old one keeps serving.
        """
        return self.take(Session.load(path))  # outside the lock: rows are judged meanwhile

    def take(self, session: Served, *, warm: bool = True) -> Card:
        """
        Put a loaded model in service.

        Args:
            warm: with each machine's last rows; False where it reads other rows than they are.

        Returns:
            Its card.
        """
        if not warm:
            with self._lock:
                self._session, self._states = session, {}
                self._last.clear()
            return session.card
        states, known = self._warmed(session)
        with self._lock:
            self._warm(session, self._news(known, states), states)
            self._session, self._states = session, states
        return session.card

    def beside(self, session: Served) -> "Slot":
        """A slot of the same machines for a candidate, warmed, that can run beside this one."""
        states, known = self._warmed(session)
        with self._lock:
            self._warm(session, self._news(known, states), states)
            other = Slot(session, kept_rows=self._kept_rows)
            other._states = states
            other._last = {thing: deque(rows, maxlen=self._kept_rows) for thing, rows in self._last.items()}
            other._counts = dict(self._counts)
        return other

    def rows(self, thing: str) -> list[SensorRow]:
        """A machine's last rows, oldest first."""
        with self._lock:
            return list(self._last.get(thing, ()))

    def recall(self, thing: str, rows: Sequence[SensorRow]) -> None:
        """Keep rows that were judged before a restart, oldest first, to warm the next model with; judges nothing."""
        with self._lock:
            self._last[thing] = deque(rows, maxlen=self._kept_rows)
            self._counts[thing] = len(self._last[thing])

    def rewarm(self, thing: str) -> None:
        """Work a machine's state out from its kept rows: for a model that first serves it after a restart."""
        with self._lock:
            self._states.pop(thing, None)
            self._warm(self._session, [list(self._last.get(thing, ()))], self._states)

    def state(self, thing: str) -> tuple[Card, bytes]:
        """What the model in service remembers of a machine, to be kept until ``restore``; empty where it is nothing."""
        with self._lock:
            return self._session.card, self._session.pack(self._states[thing]) if thing in self._states else b""

    def restore(self, thing: str, state: bytes) -> None:
        """Go on where ``state`` was taken; ignored where it is not this model's."""
        with self._lock:
            self._session.unpack(thing, state, self._states)

    def learners(self) -> list[str]:
        """The machines of which the model goes on learning more than a state holds."""
        with self._lock:
            return [thing for thing, state in self._states.items() if isinstance(state, ForestWatch)]

    def learnt(self, thing: str) -> tuple[Card, ForestWatch] | None:
        """A copy of what the model has learnt of a machine, to be kept until ``relearn``."""
        with self._lock:
            state = self._states.get(thing)
            watch = None if state is None else self._session.learnt(state)
            return None if watch is None else (self._session.card, watch)

    def relearn(self, thing: str, payload: bytes) -> None:
        """
        Go on with what was learnt, before ``restore``.

        Raises:
            ModelError: it is not this model's.
        """
        with self._lock:
            self._session.relearn(thing, payload, self._states)

    def forget(self, thing: str) -> None:
        """Begin a machine's window anew: its next row is its first."""
        with self._lock:
            self._session.restart(thing, self._states)
            self._forget_rows(thing)

    def drop(self, thing: str) -> None:
        """Keep nothing of a machine; should it come back, it begins as a new one."""
        with self._lock:
            for known in (self._states, self._last, self._counts):
                known.pop(thing, None)

    def pause(self, thing: str) -> None:
        """A pause came before a machine's next row: no row before it speaks any more, what they said stands."""
        with self._lock:
            self._session.pause(thing, self._states)
            self._forget_rows(thing)

    def _forget_rows(self, thing: str) -> None:
        """Warm no model with a machine's rows; one that warms up now has missed more than are kept."""
        if self._last.pop(thing, None) is not None:
            self._counts[thing] += self._kept_rows + 1

    def _warmed(self, session: Served) -> tuple[dict[str, Any], dict[str, int]]:
        """States after the rows kept now, worked out while rows go on being judged, and how far they reach."""
        states: dict[str, Any] = {}
        known: dict[str, int] = {}
        with self._lock:
            news = self._news(known, states)
        self._warm(session, news, states, pause_s=_BREATH_S)
        return states, known

    def _news(self, known: dict[str, int], states: dict[str, Any]) -> list[list[SensorRow]]:
        """Each machine's rows since ``known``, which moves up; one with more news than kept rows, or new, starts cold."""
        news = []
        for thing, rows in self._last.items():
            since = self._counts[thing] - known.get(thing, 0)
            if not 0 <= since <= len(rows):
                states.pop(thing, None)
                since = len(rows)
            if since:
                news.append(list(rows)[-since:])
            known[thing] = self._counts[thing]
        for thing in states.keys() - self._last.keys():
            del states[thing]
        return news

    def _warm(
        self, session: Served, news: list[list[SensorRow]], states: dict[str, Any], *, pause_s: float = 0.0
    ) -> None:
        """Feed rows that were judged before; a pause after each step leaves the interpreter to whoever judges."""
        for place in range(max(map(len, news), default=0)):
            session.judge([rows[place] for rows in news if place < len(rows)], states)
            if pause_s:
                threading.Event().wait(pause_s)

    def _keep(self, row: SensorRow) -> None:
        if self._kept_rows:
            self._last.setdefault(row.thing, deque(maxlen=self._kept_rows)).append(row)
            self._counts[row.thing] = self._counts.get(row.thing, 0) + 1


def _waves(rows: Sequence[SensorRow]) -> list[list[int]]:
    """The places of rows, in batches that hold each machine at most once and keep its rows in order."""
    waves: list[list[int]] = []
    seen: dict[str, int] = {}
    for place, row in enumerate(rows):
        turn = seen.get(row.thing, 0)
        seen[row.thing] = turn + 1
        if turn == len(waves):
            waves.append([])
        waves[turn].append(place)
    return waves
