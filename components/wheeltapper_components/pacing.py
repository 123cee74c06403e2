"""
Readings brought to the pace of the model that judges them, thing by thing, and who does not fit it.

When readings make a row is for ``wheeltapper_models.window`` to say, as it is for recordings. Only a reading's own time
counts: those that carry none are judged one by one as they arrive, since a backlog would arrive all at once. Where every
reading is a row by default, it is told who keeps another pace than the model was taught.
"""

from collections.abc import Mapping
from typing import NamedTuple

from wheeltapper.messages import Reading, Value
from wheeltapper_components.swap import Seat
from wheeltapper_models.card import Card
from wheeltapper_models.pace import SLOW, Pace, Taken
from wheeltapper_models.window import Window

_ROUND = 30  # periods over which arrivals are counted
_ROUNDS = 2  # that must not fit before it is told
_TOLD = 3  # things that health names


class Step(NamedTuple):
    """What a reading completed: its row, and those of silent periods before it."""

    taken: Taken
    row: Mapping[str, Value] | None
    before: tuple[Mapping[str, Value], ...] = ()


class _Arrivals:
    """How often readings come, by the count of them in a number of periods."""

    def __init__(self, time_ms: int) -> None:
        self.step_s = 0.0
        self._since_ms = time_ms
        self._count = 0
        self._strikes = 0

    def take(self, time_ms: int, pace: Pace) -> bool:
        """Count one; whether they do not fit the pace."""
        self._count += 1
        elapsed = time_ms - self._since_ms
        if elapsed >= _ROUND * pace.period_ms:
            step = elapsed / self._count
            self.step_s = step / 1000
            fits = pace.period_ms / SLOW <= step <= pace.slow_ms
            self._strikes = 0 if fits else self._strikes + 1
            self._since_ms, self._count = time_ms, 0
        return self._strikes >= _ROUNDS


class Pacing:
    """The rows in the making of all things; one for each, and nothing of things whose model has no pace."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[Card, Window]] = {}
        self._arrivals: dict[str, _Arrivals] = {}
        self._newest: dict[str, int] = {}
        self._misfits: dict[str, str] = {}

    def take(self, seat: Seat, reading: Reading, *, timed: bool) -> Step:
        """
        Place a reading of a thing that a model serves.

        Args:
            timed: it says itself when it was taken.
        """
        pace = seat.pace
        if pace is None or seat.slot is None or not timed:
            if seat.rhythm is not None:
                self._count(seat, seat.rhythm, reading, told=pace is None)
            elif self._misfits:  # it may have misfitted the version before
                self._misfits.pop(reading.thing, None)
            return Step(Taken(True), reading.values)
        row = self._window(reading.thing, seat.slot.card, pace).add(reading.time_ms, reading.values)
        before_ms = self._newest.get(reading.thing, reading.time_ms)
        self._newest[reading.thing] = reading.time_ms
        if row.taken.slow:
            self._misfits[reading.thing] = (
                f"{reading.thing} is not scored: it sends every {_span(reading.time_ms - before_ms)} and {seat.label} "
                f"judges a reading every {_span(pace.period_ms)}: send as often, or give it a model trained at its pace"
            )
        elif self._misfits:
            self._misfits.pop(reading.thing, None)
        return Step(row.taken, row.values, row.before)

    def _count(self, seat: Seat, pace: Pace, reading: Reading, *, told: bool) -> None:
        thing = reading.thing
        arrivals = self._arrivals.get(thing)
        if arrivals is None:
            arrivals = self._arrivals[thing] = _Arrivals(reading.time_ms)
        if not arrivals.take(reading.time_ms, pace):
            self._misfits.pop(thing, None)
            return
        span = _span(pace.period_ms)
        if not told:
            remedy = "let readings carry time_ms, or train at this pace"
        elif arrivals.step_s * 1000 < pace.period_ms:
            remedy = f'set period_s = "card" under [[models]] to judge one each {span}, or train at this pace'
        else:
            remedy = "send as often, or train at this pace"
        comes = "comes" if told else "arrives without time_ms"
        self._misfits[thing] = (
            f"{thing} is scored at the wrong pace: every {arrivals.step_s:.3g} s a reading {comes}, and {seat.label} was "
            f"taught one every {span}: {remedy}"
        )

    def _window(self, thing: str, card: Card, pace: Pace) -> Window:
        known = self._windows.get(thing)
        if known is not None and known[0] is card and known[1].pace is pace:
            return known[1]
        window = Window(card, pace)
        if known is not None and known[0].sensors == card.sensors:
            window.restore(known[1].state())
        self._windows[thing] = card, window
        return window

    def forget(self, thing: str) -> None:
        """The thing's next reading is its first."""
        self._windows.pop(thing, None)
        self._newest.pop(thing, None)

    def drop(self, thing: str) -> None:
        """Keep nothing of a thing."""
        self.forget(thing)
        self._arrivals.pop(thing, None)
        self._misfits.pop(thing, None)

    def state(self, thing: str) -> bytes:
        """What is to be kept until ``restore``; empty where it is nothing."""
        known = self._windows.get(thing)
        return known[1].state() if known is not None else b""

    def restore(self, thing: str, seat: Seat, state: bytes) -> int | None:
        """
        Go on where ``state`` was taken.

        Returns:
            The time of the thing's last row; None where its readings are rows.
        """
        pace = seat.pace
        if not state or pace is None or seat.slot is None:
            return None
        window = self._window(thing, seat.slot.card, pace)
        window.restore(state)
        return window.row_ms

    def troubles(self) -> list[str]:
        """Which things do not fit their models, and what to do."""
        told = list(self._misfits.values())
        more = [f"{len(told) - _TOLD} more things do not keep their models' pace"] if len(told) > _TOLD else []
        return told[:_TOLD] + more


def _span(period_ms: int) -> str:
    """
    A period for people.

    >>> _span(250), _span(1000), _span(3_600_000)
    ('0.25 s', '1 s', '1 h')
    """
    for unit_ms, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min")):
        if period_ms >= unit_ms:
            return f"{period_ms / unit_ms:.3g} {unit}"
    return f"{period_ms / 1000:.3g} s"
