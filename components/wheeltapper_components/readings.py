"""
What becomes of a reading before a model sees it: kept in order, told apart from repeats, judged late or in time.

Pure: no I/O, and time only as it is handed in. The treatment of each irregularity is stated once, in ``Verdict``.
"""

import heapq
import json
import math
import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import count
from typing import Generic, TypeVar

import msgspec

from wheeltapper.errors import MessageError
from wheeltapper.messages import UNREADABLE, Reading, Value, decode_timed_reading
from wheeltapper_components.settings import OrderSettings

T = TypeVar("T")

_EARLIEST_MS = -62_135_596_800_000  # year 1
_LATEST_MS = 253_402_300_799_999  # year 9999
_LONGEST_ID = 256
_WIDEST = 1 << 63
_DIGITS = 19  # as many fit into 64 bits with their sign
# A string, which stands as it is, or what programs print for a value that is no number.
_NO_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*+"?|[-+]?\b(?:nan|inf(?:inity)?)\b', re.IGNORECASE | re.DOTALL)

_Place = tuple[int, int, int]

_strict = msgspec.json.Decoder().decode


def read_reading(payload: bytes, thing: str, arrival_ms: int) -> tuple[Reading, bool]:
    """
    Decode a reading; NaN and infinities, which are no JSON and yet common, count as null.

    Returns:
        The reading, and whether it says itself when it was taken.

    Raises:
        MessageError: not a reading even so, or its time or its id cannot be one.
    """
    try:
        reading, timed = decode_timed_reading(payload, thing=thing, arrival_ms=arrival_ms)
    except MessageError:
        again = mended(payload)
        if again is payload:
            raise
        reading, timed = decode_timed_reading(again, thing=thing, arrival_ms=arrival_ms)
    checked_time(reading.time_ms)
    if len(reading.message_id) > _LONGEST_ID:
        raise MessageError(
            f"reading: its message_id has {len(reading.message_id)} characters; {_LONGEST_ID} are allowed"
        )
    if any(type(value) is int and not -_WIDEST <= value < _WIDEST for value in reading.values.values()):
        values = {name: _narrow(value) for name, value in reading.values.items()}
        return Reading(reading.message_id, reading.thing, reading.time_ms, values), timed
    return reading, timed


def checked_time(time_ms: int) -> int:
    """
    A message's time as it is.

    Raises:
        MessageError: it lies before the year 1 or after 9999.
    """
    if not _EARLIEST_MS <= time_ms <= _LATEST_MS:
        raise MessageError(f"time_ms {time_ms} is no time; milliseconds since the epoch are wanted")
    return time_ms


def _narrow(value: Value) -> Value:
    """A whole number that no encoder takes, as the nearest one with a point; null beyond those too."""
    if type(value) is not int or -_WIDEST <= value < _WIDEST:
        return value
    try:
        return float(value)
    except OverflowError:
        return None


def mended(payload: bytes) -> bytes:
    """
    The same JSON with null for NaN, infinities and what is as large; as it was where it is sound, or cannot be mended.

    >>> mended(b'{"TT01": NaN, "TT02": -inf, "TT03": 1e999, "note": "nan"}')
    b'{"TT01":null,"TT02":null,"TT03":null,"note":"nan"}'
    """
    try:
        _strict(payload)
    except UNREADABLE:
        pass
    else:
        return payload
    try:
        plain = _NO_NUMBER.sub(lambda found: found[0] if found[0].startswith('"') else "null", payload.decode())
        return msgspec.json.encode(json.loads(plain, parse_float=_finite, parse_int=_whole))
    except (ValueError, RecursionError):
        return payload


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _whole(text: str) -> int | float | None:
    return int(text) if len(text) < _DIGITS else _finite(text)


class Verdict(Enum):
    """What is done with a reading."""

    SCORE = "scored"
    RESTART = "scored, as the first of a new window: the thing's clock was set back, or it paused for too long"
    REPEAT = "not scored: a reading with this message id was scored before"
    LATE = "not scored: a newer reading of its thing was scored before, and a causal model cannot go back"


class Timeline:
    """The newest time of every thing, by which lateness, set-back clocks and pauses are told; latest heard last."""

    def __init__(self, settings: OrderSettings) -> None:
        self._settings = settings
        self._newest: OrderedDict[str, int] = OrderedDict()

    def place(self, thing: str, time_ms: int, *, timed: bool = True) -> Verdict:
        """
        Say what a reading of this time is, and move the thing's newest time where it is to be scored.

        Args:
            timed: the thing says so; else it is when the reading arrived here, and none comes before those that came before.

        >>> line = Timeline(OrderSettings(late_ms=1_000, gap_ms=60_000))
        >>> [line.place("m", ms).name for ms in (5_000, 5_000, 4_500, 6_000, 100_000, 6_100)]
        ['SCORE', 'SCORE', 'LATE', 'SCORE', 'RESTART', 'RESTART']
        """
        newest = self._newest.get(thing)
        step_ms = 0 if newest is None else time_ms - newest
        verdict = self._compare(step_ms if timed else max(step_ms, 0))
        if verdict is not Verdict.LATE:
            self._newest[thing] = time_ms
        self._newest.move_to_end(thing)
        return verdict

    def _compare(self, step_ms: int) -> Verdict:
        settings = self._settings
        if step_ms < -settings.late_ms:
            return Verdict.RESTART
        if step_ms < 0:
            return Verdict.LATE
        if settings.gap_ms and step_ms > settings.gap_ms:
            return Verdict.RESTART
        return Verdict.SCORE

    def newest(self, thing: str) -> int | None:
        """The time of the newest reading that was scored."""
        return self._newest.get(thing)

    def things(self) -> list[str]:
        """Every thing that has a newest time."""
        return list(self._newest)

    def restore(self, thing: str, newest_ms: int) -> None:
        """Go on after a restart."""
        self._newest[thing] = newest_ms

    def forget(self, thing: str) -> None:
        """The thing's next reading is its first."""
        self._newest.pop(thing, None)

    def surplus(self, most: int) -> list[str]:
        """
        Forget the things that were heard of longest ago, beyond so many, and give their names.

        >>> line = Timeline(OrderSettings())
        >>> [line.place(thing, 1_000).name for thing in "abca"]
        ['SCORE', 'SCORE', 'SCORE', 'SCORE']
        >>> line.surplus(2), line.things()
        (['b'], ['c', 'a'])
        """
        return [self._newest.popitem(last=False)[0] for _ in range(len(self._newest) - most)]


class SeenIds:
    """
    The message ids seen last, bounded, kept as numbered pages so that a commit writes only the ids that are new.

    Args:
        remember: ids kept at the least where pages allow it, and roughly at the most.
        pages: named states used for them.
    """

    def __init__(self, remember: int, pages: int = 4_096) -> None:
        self._remember = remember
        self._slots = pages
        self._ids: set[str] = set()
        self._pages: OrderedDict[int, list[str]] = OrderedDict()
        self._number = 0

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def page(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The named states that keep these ids; they count as seen when ``add`` says that the states are on disk."""
        if not ids:
            return {}
        slot, leaving = self._turn(ids)
        states = {_page_name(each): b"" for each in leaving}
        states[_page_name(slot)] = msgspec.msgpack.encode((self._number, list(ids)))
        return states

    def add(self, ids: Sequence[str]) -> None:
        """
        Remember ids; forgets the oldest pages.

        >>> seen = SeenIds(remember=2)
        >>> seen.add(["a", "b"]); seen.add(["c"])
        >>> "a" in seen, "c" in seen
        (False, True)
        """
        if not ids:
            return
        slot, leaving = self._turn(ids)
        for each in (slot, *leaving):
            self._forget(each)
        self._pages[slot] = list(ids)
        self._ids.update(ids)
        self._number += 1

    def _turn(self, ids: Sequence[str]) -> tuple[int, list[int]]:
        """The page that takes these ids, and the further pages that give way to it."""
        slot = self._number % self._slots
        count = len(self._ids) - len(self._pages.get(slot, ())) + len(ids)
        leaving: list[int] = []
        for each, kept in self._pages.items():
            if count <= self._remember:
                break
            if each != slot:
                leaving.append(each)
                count -= len(kept)
        return slot, leaving

    def restore(self, states: Iterable[bytes]) -> None:
        """Remember what was kept before a restart."""
        decoder = msgspec.msgpack.Decoder(tuple[int, list[str]])
        pages = sorted(decoder.decode(state) for state in states if state)
        for number, ids in pages:
            slot = number % self._slots
            self._forget(slot)
            self._pages[slot] = ids
            self._ids.update(ids)
            self._number = number + 1

    def _forget(self, slot: int) -> None:
        self._ids.difference_update(self._pages.pop(slot, ()))


def _page_name(slot: int) -> str:
    return f"seen/{slot}"


class _Waiting(Generic[T]):
    """One thing's readings, by the clock that they were taken by, then by its time, then by arrival."""

    def __init__(self, clock: int, newest_ms: int) -> None:
        self.heap: list[tuple[_Place, T]] = []
        self.clock = clock
        self.newest_ms = newest_ms


class OrderBuffer(Generic[T]):
    """
    Holds readings for a moment and gives each thing's in order of time.

    Args:
        hold_ms: how long a reading waits for earlier ones; with 0 only what is pushed together is put in order.
        late_ms: one that is older than the newest by more than this, and by more than is held, was taken after the thing's
            clock was set back, and comes after what was taken before that.
    """

    def __init__(self, hold_ms: int, late_ms: int = 60_000) -> None:
        self._hold_ms = hold_ms
        self._set_back_ms = max(hold_ms, late_ms)
        self._waiting: dict[str, _Waiting[T]] = {}
        self._arrivals: deque[tuple[int, str, _Place]] = deque()
        self._clock = count()
        self._number = count()

    def push(self, reading: Reading, item: T, now_ms: int, *, timed: bool = True) -> None:
        """
        Take a reading, and what belongs to it, that arrived now.

        Args:
            timed: it says itself when it was taken; else it comes after all that came before, and moves no clock.
        """
        time_ms = reading.time_ms
        waiting = self._waiting.get(reading.thing)
        if waiting is None:
            waiting = self._waiting[reading.thing] = _Waiting(next(self._clock), time_ms)
        elif not timed:
            time_ms = max(time_ms, waiting.newest_ms)
        elif time_ms < waiting.newest_ms - self._set_back_ms:
            waiting.clock, waiting.newest_ms = next(self._clock), time_ms
        waiting.newest_ms = max(waiting.newest_ms, time_ms)
        place = (waiting.clock, time_ms, next(self._number))
        heapq.heappush(waiting.heap, (place, item))
        self._arrivals.append((now_ms + self._hold_ms, reading.thing, place))

    def pop(self, now_ms: int) -> list[T]:
        """What has waited long enough, with everything of the same thing that was taken before it."""
        ready: list[T] = []
        while self._arrivals and self._arrivals[0][0] <= now_ms:
            _due, thing, place = self._arrivals.popleft()
            waiting = self._waiting.get(thing)
            if waiting is None:
                continue
            while waiting.heap and waiting.heap[0][0] <= place:
                ready.append(heapq.heappop(waiting.heap)[1])
            if not waiting.heap:
                del self._waiting[thing]
        return ready

    def due_ms(self) -> int | None:
        """When the next reading is to be popped; None when nothing waits."""
        return self._arrivals[0][0] if self._arrivals else None
