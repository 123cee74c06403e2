"""
What is remembered of things, in memory and on disk: newest readings, rows in the making, models' states, last rows.

Decides nothing of a reading; says what is to be on disk, and goes on from there after a restart or a batch that failed.
"""

from collections.abc import Iterable

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.messages import Value
from wheeltapper.outbox import Outbox
from wheeltapper_components.forests import ForestFiles
from wheeltapper_components.pacing import Pacing
from wheeltapper_components.readings import Timeline
from wheeltapper_components.settings import GatewaySettings
from wheeltapper_components.swap import Shelf
from wheeltapper_models.serving import SensorRow
from wheeltapper_models.slot import Slot


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """A thing's newest reading, what which model remembers, and the row in the making; kept with every reading."""

    newest_ms: int
    sha256: str
    state: bytes
    window: bytes = b""


class KeptRow(msgspec.Struct, array_like=True, frozen=True):
    """One reading that a model was fed, kept to warm the next one."""

    values: dict[str, Value]
    time_ms: int | None


class ThingMemory:
    """
    All that is remembered of things, beside what the shelf's models do.

    Args:
        settings: treatment of readings, bounds, the data directory.
        shelf: which model serves a thing.
        outbox: where it is kept, as named states.
        clock: for what forests and paces need of time.
    """

    def __init__(self, settings: GatewaySettings, shelf: Shelf, outbox: Outbox, clock: Clock) -> None:
        self.timeline = Timeline(settings.order)
        self.pacing = Pacing(clock)
        self.forests = ForestFiles(settings.data_dir / "forests", settings.forest.save_s, clock)
        self._most = settings.max_things
        self._shelf = shelf
        self._outbox = outbox

    def states(self, things: Iterable[str]) -> dict[str, bytes]:
        """What is to be on disk of things after their readings."""
        states: dict[str, bytes] = {}
        for thing in things:
            slot, newest = self._slot(thing), self.timeline.newest(thing)
            if slot is not None and newest is not None:
                card, state = slot.state(thing)
                states[f"thing/{thing}"] = msgspec.msgpack.encode(
                    Kept(newest, card.sha256, state, self.pacing.state(thing))
                )
        return states

    def rows(self) -> dict[str, bytes]:
        """What is to be on disk at an orderly end: every thing's last rows."""
        rows: dict[str, bytes] = {}
        for thing in self.timeline.things():
            slot = self._slot(thing)
            if slot is not None:
                kept = [KeptRow(dict(row.values), row.time_ms) for row in slot.rows(thing)]
                rows[f"rows/{thing}"] = msgspec.msgpack.encode(kept)
        return rows

    def restore(self) -> None:
        """Go on after a restart with what is on disk."""
        rows = self._outbox.states("rows/")
        found = {name.removeprefix("thing/"): _kept(state) for name, state in self._outbox.states("thing/").items()}
        for thing, kept in sorted(found.items(), key=lambda pair: pair[1].newest_ms):
            slot = self._slot(thing)
            row_ms = self._resume(thing, kept)
            if slot is not None:
                _recall(slot, thing, rows.get(f"rows/{thing}"), row_ms)
                self.forests.restore(slot, thing)
                _restore(slot, thing, kept)

    def take_back(self, things: Iterable[str]) -> None:
        """Put things back to where the disk says that they were: readings that were not kept come again."""
        for thing in things:
            self.timeline.forget(thing)
            self.pacing.forget(thing)
            seat = self._shelf.seat_of(thing)
            if seat is not None:
                seat.forget(thing)
            state = self._outbox.state(f"thing/{thing}")
            if state:
                kept = _kept(state)
                self._resume(thing, kept)
                slot = self._slot(thing)
                if slot is not None:
                    _restore(slot, thing, kept)

    def drop_surplus(self) -> list[str]:
        """Forget the things that are too many, those unheard for the longest, and give their names."""
        surplus = self.timeline.surplus(self._most)
        for thing in surplus:
            for seat in self._shelf.seats:
                seat.drop(thing)
            self.pacing.drop(thing)
            self.forests.drop(thing)
        return surplus

    def _slot(self, thing: str) -> Slot | None:
        seat = self._shelf.seat_of(thing)
        return None if seat is None else seat.slot

    def _resume(self, thing: str, kept: Kept) -> int:
        """Restore a thing's time and its row in the making; gives the time of its last row."""
        self.timeline.restore(thing, kept.newest_ms)
        seat = self._shelf.seat_of(thing)
        row_ms = None if seat is None else self.pacing.restore(thing, seat, kept.window)
        return row_ms or kept.newest_ms


def _kept(state: bytes) -> Kept:
    return msgspec.msgpack.decode(state, type=Kept)


def _restore(slot: Slot, thing: str, kept: Kept) -> None:
    """Let the model that serves go on from what was kept, or from the last rows where another one kept it."""
    if slot.card.sha256 == kept.sha256:
        slot.restore(thing, kept.state)
    else:
        slot.rewarm(thing)


def _recall(slot: Slot, thing: str, rows: bytes | None, newest_ms: int) -> None:
    """Give a slot a thing's last rows, unless others came after they were kept, as where a kill did."""
    before = msgspec.msgpack.decode(rows, type=list[KeptRow]) if rows else []
    if before and before[-1].time_ms == newest_ms:
        slot.recall(thing, [SensorRow(thing, row.values, row.time_ms) for row in before])
