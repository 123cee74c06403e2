"""
Drift at the edge: every scored reading is fed to its thing's monitor, on a thread of its own, and what has drifted is told.

A finding is on disk together with the monitor's state, so that a restart neither repeats nor forgets it. Otherwise a state
is kept every ``save_s`` and at the end: a kill costs a monitor the readings since.
"""

import logging
import math
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import ModelError, UnavailableError
from wheeltapper.messages import UNREADABLE, ModelName, Value, encode
from wheeltapper.outbox import Put
from wheeltapper.topics import topic_of
from wheeltapper_components.links import Links
from wheeltapper_components.settings import GatewaySettings
from wheeltapper_models.card import CLOCK_INPUTS, Card
from wheeltapper_models.drift import DriftMonitor, DriftSettings, Finding

log = logging.getLogger(__name__)

_WAITING = 50_000  # readings; older ones are passed over when the thread cannot follow
_UNSENT = 1_000
_SAVED_AT_ONCE = 16


class Scored(NamedTuple):
    """A reading that a model has judged."""

    thing: str
    card: Card
    time_ms: int
    score: float
    values: Mapping[str, Value]


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """What a restart must know: the model that was watched, and all that the monitor knew."""

    sha256: str
    monitor: bytes


class Watched:
    """One thing's monitor, for as long as one model serves it."""

    def __init__(self, card: Card, settings: DriftSettings, kept: Kept | None, due: float) -> None:
        self.card = card
        self.due = due
        self.dirty = False
        self._forecast = math.nan
        sensors = [item.name for item in card.inputs if item.name not in CLOCK_INPUTS and not item.categories]
        self._monitor = DriftMonitor(sensors, settings, reports=1)
        if kept is not None and kept.sha256 == card.sha256:
            try:
                self._monitor = DriftMonitor.from_bytes(kept.monitor, sensors, settings, reports=1)
            except ModelError as error:
                log.info("%s: learnt anew: %s", card.name, error)

    def take(self, row: Scored) -> list[Finding]:
        """Feed one reading."""
        self.dirty = True
        values = [_number(row.values.get(sensor)) for sensor in self._monitor.sensors]
        return self._monitor.update(row.time_ms, self._watched_score(row), values)

    def _watched_score(self, row: Scored) -> float:
        """The score; of a forecast, how far the one before was from what came."""
        if self.card.kind != "forecast":
            return row.score
        error = abs(self._forecast - _number(row.values.get(self.card.target)))
        self._forecast = row.score
        return error

    def state(self) -> bytes:
        """What a restart must know."""
        return msgspec.msgpack.encode(Kept(self.card.sha256, self._monitor.to_bytes()))


class DriftWatch:
    """
    The monitors of all things.

    ``note`` is for the thread that scores and costs it next to nothing; everything else is for one other thread.

    Args:
        settings: ``[drift]`` and topics.
        links: where findings go; the first keeps the monitors' states.
        clock: paces how often states are kept.
    """

    def __init__(self, settings: GatewaySettings, links: Links, clock: Clock) -> None:
        own = settings.drift
        self.found = 0
        self.unwatched = 0
        self._enabled = own.enabled
        self._settings = DriftSettings(
            period_ms=int(own.period_s * 1000),
            learn_periods=own.learn,
            k=own.k,
            band=own.band,
            thin=own.thin,
            delta=own.delta,
        )
        self._save_s = own.save_s
        self._max_things = own.max_things
        self._topic = settings.topics.drift
        self._links = links
        self._clock = clock
        self._rows: deque[Scored] = deque(maxlen=_WAITING)
        self._things: dict[str, Watched] = {}
        self._leaving: deque[str] = deque()
        self._unsent: deque[Put] = deque(maxlen=_UNSENT)

    def note(self, row: Scored) -> None:
        """Leave a scored reading to be looked at soon."""
        if self._enabled:
            self._rows.append(row)

    def drop(self, thing: str) -> None:
        """Keep nothing of a thing, soon; for the thread that scores."""
        self._leaving.append(thing)

    def work(self) -> int:
        """Look at what was noted, tell what has drifted, keep states that are due; returns how many readings that was."""
        leaving = len(self._leaving)  # what was noted of these is among the rows that wait now
        rows = [self._rows.popleft() for _ in range(len(self._rows))]
        drifted: list[str] = []
        for row in rows:
            found = self._take(row)
            if found:
                drifted.append(row.thing)
        for _ in range(leaving):
            self._things.pop(self._leaving.popleft(), None)
        now = self._clock.monotonic()
        due = [thing for thing, watched in self._things.items() if watched.dirty and watched.due <= now]
        self._save(list(dict.fromkeys([*filter(self._things.__contains__, drifted), *due[:_SAVED_AT_ONCE]])))
        return len(rows)

    def close(self) -> None:
        """
        Look at what is left and keep every state.

        Raises:
            UnavailableError: the disk is full, or the outbox closed before.
        """
        self.work()
        dirty = [thing for thing, watched in self._things.items() if watched.dirty]
        for place in range(0, len(dirty), _SAVED_AT_ONCE):
            self._write(dirty[place : place + _SAVED_AT_ONCE])

    def _take(self, row: Scored) -> list[Finding]:
        watched = self._things.get(row.thing)
        if watched is None or watched.card.sha256 != row.card.sha256:
            if watched is None and len(self._things) >= self._max_things:
                self.unwatched += 1
                return []
            watched = self._things[row.thing] = self._watch(row)
        found = watched.take(row)
        for finding in found:
            self.found += 1
            log.warning("%s: drift: %s (%s)", row.thing, finding.detail, finding.method)
            self._unsent.append(self._put_of(row, finding))
        return found

    def _watch(self, row: Scored) -> Watched:
        state = self._links.first.outbox.state(f"drift/{row.thing}")
        try:
            kept = msgspec.msgpack.decode(state, type=Kept) if state else None
        except UNREADABLE:
            kept = None
        return Watched(row.card, self._settings, kept, self._clock.monotonic() + self._save_s)

    def _put_of(self, row: Scored, finding: Finding) -> Put:
        """A finding's message; its id depends on nothing but what was found, so that a repeat is known."""
        card, sensor = row.card, f"-{finding.sensor}" if finding.sensor else ""
        message_id = f"{row.thing}-{finding.time_ms}-{finding.method}{sensor}@{card.name}-{card.version}"
        message = finding.to_message(message_id, row.thing, ModelName(card.name, card.version))
        return Put(topic_of(self._topic, row.thing), encode(message))

    def _save(self, things: list[str]) -> None:
        if not things and not self._unsent:
            return
        try:
            self._write(things)
        except UnavailableError as error:
            log.error("drift: kept in memory: %s", error)

    def _write(self, things: list[str]) -> None:
        puts = list(self._unsent)
        self._links.put(puts, {f"drift/{thing}": self._things[thing].state() for thing in things})
        self._unsent.clear()
        for thing in things:
            watched = self._things[thing]
            watched.dirty = False
            watched.due = self._clock.monotonic() + self._save_s


def _number(value: Value) -> float:
    return float(value) if isinstance(value, float | int) else math.nan
