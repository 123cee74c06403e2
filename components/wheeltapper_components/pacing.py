"""
Readings brought to the pace of the model that judges them, thing by thing, and who does not fit it.

When readings make a row is for ``wheeltapper_models.window`` to say, as it is for recordings. Only a reading's own time
counts: those that carry none are judged one by one as they arrive, since a backlog would arrive all at once. Where every
reading is a row by default, it is told who keeps another pace than the model was taught, for as long as it is heard of.
"""

from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from wheeltapper.clock import Clock
from wheeltapper.messages import Reading, Value
from wheeltapper_components.swap import Seat
from wheeltapper_models.card import Card
from wheeltapper_models.pace import GAP, SLOW, Pace, Taken
from wheeltapper_models.window import Window

_ROUND = 30  # periods over which arrivals are counted
_ROUNDS = 2  # that must not fit before it is told
_TOLD = 3  # things that health names
_TIMES = 5  # readings by whose times a slow thing's step is told
_SILENT_MS = 60_000  # at the least


class Step(NamedTuple):
    """What a reading completed: its row, and those of silent periods before it."""

    taken: Taken
    row: Mapping[str, Value] | None
    before: tuple[Mapping[str, Value], ...] = ()


class _Misfit(NamedTuple):
    """What is to be told of a thing, for as long as this model serves it and it is not silent."""

    told: str
    seat: Seat
    card: Card | None
    until_s: float

    def stands(self, now_s: float) -> bool:
        return now_s <= self.until_s and self.seat.slot is not None and self.seat.slot.card is self.card


class _Arrivals:
    """How often readings come, by their count in a number of periods; neither silence nor a clock that is set counts."""

    def __init__(self, pace: Pace, time_ms: int) -> None:
        self.pace = pace
        self.step_ms = 0.0
        self._newest_ms = time_ms
        self._last_step_ms = 0
        self._strikes = 0
        self._begin()

    def _begin(self) -> None:
        self._elapsed_ms = self._count = 0

    def take(self, time_ms: int) -> bool:
        """Count one; whether they do not fit the pace."""
        step, before = time_ms - self._newest_ms, self._last_step_ms
        self._newest_ms, self._last_step_ms = time_ms, step
        if step >= 0 and (not before or step <= silence_ms(self.pace, before)):
            self._count += 1
            self._elapsed_ms += step
        if self._elapsed_ms >= _ROUND * self.pace.period_ms:
            self.step_ms = self._elapsed_ms / self._count
            fits = self.pace.period_ms / SLOW <= self.step_ms <= self.pace.slow_ms
            self._strikes = 0 if fits else self._strikes + 1
            self._begin()
        return self._strikes >= _ROUNDS

    def resume(self) -> None:
        """Ask for one more round that does not fit, before it is told again."""
        self._strikes = min(self._strikes, _ROUNDS - 1)
        self._begin()


class Pacing:
    """The rows in the making of all things; one for each, and nothing of things whose model has no pace."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: dict[str, tuple[Card, Window]] = {}
        self._arrivals: dict[str, _Arrivals] = {}
        self._times: dict[str, deque[int]] = {}
        self._misfits: dict[str, _Misfit] = {}

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
        window = self._window(reading.thing, seat.slot.card, pace)
        times = self._times_of(reading.thing, window)
        times.append(reading.time_ms)
        row = window.add(reading.time_ms, reading.values)
        if row.taken.slow:
            self._tell_slow(seat, pace, reading.thing, times)
        elif self._misfits:
            self._misfits.pop(reading.thing, None)
        return Step(row.taken, row.values, row.before)

    def _times_of(self, thing: str, window: Window) -> deque[int]:
        """The times of its last readings; after a restart, of the last one before it."""
        times = self._times.get(thing)
        if times is None:
            before = [] if window.newest_ms is None else [window.newest_ms]
            times = self._times[thing] = deque(before, _TIMES)
        return times

    def _tell_slow(self, seat: Seat, pace: Pace, thing: str, times: deque[int]) -> None:
        steps = sorted(after - before for before, after in pairwise(times))
        step_ms = steps[len(steps) // 2] if len(steps) > 1 else 0
        period = _span(pace.period_ms)
        if step_ms > pace.slow_ms:
            told = (
                f"{thing} is not scored: it sends every {_span(step_ms)} and {seat.label} judges a reading every {period}: "
                "send as often, or give it a model trained at its pace"
            )
        else:
            told = (
                f"{thing} is not scored: it was too slow for {seat.label}, which judges a reading every {period}, and has "
                "to keep that pace for a few readings first"
            )
        self._tell(seat, pace, thing, told, step_ms)

    def _tell(self, seat: Seat, pace: Pace, thing: str, told: str, step_ms: float) -> None:
        card = seat.slot.card if seat.slot is not None else None
        until_s = self._clock.monotonic() + silence_ms(pace, step_ms) / 1000
        self._misfits[thing] = _Misfit(told, seat, card, until_s)

    def _count(self, seat: Seat, pace: Pace, reading: Reading, *, told: bool) -> None:
        thing = reading.thing
        arrivals = self._arrivals.get(thing)
        if arrivals is None or (arrivals.pace is not pace and arrivals.pace != pace):
            arrivals = self._arrivals[thing] = _Arrivals(pace, reading.time_ms)
        known = self._misfits.get(thing)
        if known is not None and self._clock.monotonic() > known.until_s:
            arrivals.resume()
        if not arrivals.take(reading.time_ms):
            self._misfits.pop(thing, None)
            return
        span = _span(pace.period_ms)
        if not told:
            remedy = "let readings carry time_ms, or train at this pace"
        elif arrivals.step_ms < pace.period_ms:
            remedy = f'set period_s = "card" under [[models]] to judge one each {span}, or train at this pace'
        else:
            remedy = "send as often, or train at this pace"
        comes = "comes" if told else "arrives without time_ms"
        found = f"{thing} is scored at the wrong pace: every {arrivals.step_ms / 1000:.3g} s a reading {comes}"
        reason = f"{found}, and {seat.label} was taught one every {span}: {remedy}"
        self._tell(seat, pace, thing, reason, arrivals.step_ms)

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
        self._times.pop(thing, None)

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
        """Which things do not fit their models at present, and what to do."""
        now_s = self._clock.monotonic()
        told = [misfit.told for misfit in list(self._misfits.values()) if misfit.stands(now_s)]
        more = [f"{len(told) - _TOLD} more things do not keep their models' pace"] if len(told) > _TOLD else []
        return told[:_TOLD] + more


def silence_ms(pace: Pace, step_ms: float) -> float:
    """
    How long a thing may be unheard that sends every ``step_ms``, until nothing can be said of its pace any more.

    >>> silence_ms(Pace(1000), 100), silence_ms(Pace(1000), 30_000), silence_ms(Pace(3_600_000), 0)
    (60000, 300000, 36000000)
    """
    return max(_SILENT_MS, pace.gap_ms, GAP * step_ms)


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
