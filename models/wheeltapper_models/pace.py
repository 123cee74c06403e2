"""
The pace that a model was taught, and how a machine's readings fall into it: which reading completes a row.

A row is completed by the reading that is nearest to when the next row is due, at once: nobody waits for the reading after
it. What is due follows the readings, so that a machine that sends at the model's pace has every reading judged, whatever
its phase and its jitter (up to a fifth of a period either way). Of a faster one several readings make a row. Sensors that
come in messages of their own are waited for, once that has been seen, for half a period at the most.

Pure, and a function of nothing but times and of which sensors spoke: a stream and a table fall into the same rows.
"""

from itertools import accumulate
from typing import NamedTuple

import msgspec

from wheeltapper_models.card import Card
from wheeltapper_models.times import read_duration_ms

GAP = 10  # usual steps; after a longer silence a new window begins
SLOW = 1.5  # usual steps
FOLLOW = 0.1  # share of a reading's distance from what was due by which the next due time follows it
CALM = 0.65  # how soon a tolerance that one long step widened is forgotten, a reading
MOST_STRAIN = 8  # net slow steps until a machine counts as too slow, and steps in time until it no longer does
LARGEST = 1e30  # beyond, a float32 model overflows: such a value is taken for missing
BITS = 62  # for sensors; of more, every 62nd shares one, and counts as speaking when one of them does
MOST_MESSAGES = 64  # different sets of sensors in one message that are told apart


class Pace(msgspec.Struct, frozen=True):
    """
    How rows follow one another.

    Args:
        period_ms: from a row to the next.
        mean: a row holds each sensor's mean since the row before, or its last mean where there is none; else its last value.
        usual_ms: from a reading to the next in training, at least the period.
    """

    period_ms: int
    mean: bool = False
    usual_ms: int = 0

    @property
    def gap_ms(self) -> int:
        """A longer silence begins a new window."""
        return GAP * max(self.period_ms, self.usual_ms)

    @property
    def slow_ms(self) -> float:
        """Readings that are usually further apart make no rows."""
        return SLOW * max(self.period_ms, self.usual_ms)


def pace_of(card: Card, period_ms: int | None = None) -> Pace | None:
    """
    A model's pace; None where every reading is a row: no period was found in training, or the kind has no use for one.

    Args:
        period_ms: goes before the card's; 0 for none.
    """
    if card.kind == "failure":  # its rows are cycles or records, and a pause is part of a unit's history
        return None
    rate = str(card.settings.get("rate", ""))
    taught_ms = read_duration_ms(rate) if rate else card.period_ms
    period_ms = taught_ms if period_ms is None else period_ms
    usual_ms = int(card.settings.get("step_ms", 0)) * period_ms // taught_ms if taught_ms else 0
    return Pace(period_ms, bool(rate), usual_ms) if period_ms else None


def forgotten(card: Card) -> tuple[slice, ...]:
    """The parts of a model's state that a pause makes void: the rows before; what they say of the machine stands."""
    if not card.state:
        return (_forgotten_by_size(card),)
    ends = list(accumulate(part.size for part in card.state))
    return tuple(slice(end - part.size, end) for part, end in zip(card.state, ends, strict=True) if not part.kept)


def _forgotten_by_size(card: Card) -> slice:
    """For cards that do not say it: as the kinds lay their states out, or all of a state that is none of them."""
    sensors, lags = len(card.inputs), card.settings.get("lags")
    if card.kind == "anomaly" and isinstance(lags, int) and card.state_size == (lags + 3) * sensors:
        return slice(0, (lags + 1) * sensors)
    if card.kind == "forest" and (card.state_size - 5) % sensors == 0:
        return slice(3, None)  # the cutoff lies before
    return slice(None)


class Taken(NamedTuple):
    """
    What became of a reading.

    ``row``: it completes a row; else its values go into a later one, or nowhere if it is ``late`` or the machine too
    ``slow``. ``fresh``: a new window begins with it. ``silent``: rows before this one for which nothing was sent.
    """

    row: bool
    fresh: bool = False
    silent: int = 0
    late: bool = False
    slow: bool = False


_ROW, _PART, _LATE, _FRESH = Taken(True), Taken(False), Taken(False, late=True), Taken(True, fresh=True)
_SLOW = Taken(False, slow=True)


class BeatState(msgspec.Struct, array_like=True):
    """
    All that a beat remembers.

    ``heard``: the latest time of each set of sensors that spoke together; ``apart``: the sensors that come by themselves.
    """

    newest_ms: int = 0
    row_ms: int = 0
    due_ms: float = 0.0
    step_ms: float = 0.0
    strain: int = MOST_STRAIN // 2
    slow: bool = False
    apart: int = 0
    heard: dict[int, int] = {}


class Beat:
    """
    One machine's readings against a pace.

    >>> beat = Beat(Pace(1000))
    >>> [beat.take(ms, 1).row for ms in (0, 1100, 1900, 3050)], [beat.take(ms, 1).row for ms in (3300, 3600, 4000)]
    ([True, True, True, True], [False, False, True])
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.state: BeatState | None = None

    def take(self, time_ms: int, spoke: int) -> Taken:
        """
        Place a reading.

        Args:
            time_ms: when it was taken.
            spoke: the bits of the sensors that it has a value of, of ``BITS``.
        """
        state, period = self.state, self.pace.period_ms
        if state is None:
            self._begin(time_ms, spoke)
            return _ROW
        step = time_ms - state.newest_ms
        if abs(step) > self.pace.gap_ms:
            self._begin(time_ms, spoke, slow=state.slow, strain=state.strain + (step > 0))
            return self._verdict(_FRESH)
        if step < 0:
            return _LATE
        before = state.heard.pop(spoke, state.newest_ms)
        state.newest_ms = state.heard[spoke] = time_ms
        if len(state.heard) > MOST_MESSAGES:
            del state.heard[next(iter(state.heard))]
        was_slow = state.slow
        self._strain(state, step)
        if state.slow:
            return _SLOW
        if was_slow:
            self._begin(time_ms, spoke, strain=0)
            return _FRESH
        step = time_ms - before
        state.step_ms = max(period if 2 * step > period else step, CALM * state.step_ms)
        return self._place(state, time_ms, spoke)

    def _begin(self, time_ms: int, spoke: int, *, slow: bool = False, strain: int = MOST_STRAIN // 2) -> None:
        """A first row."""
        period = self.pace.period_ms
        strain = min(strain, MOST_STRAIN)
        apart = self.state.apart if self.state else 0
        self.state = BeatState(
            time_ms,
            time_ms,
            time_ms + period,
            period / CALM,
            strain,
            slow or strain >= MOST_STRAIN,
            apart,
            heard={spoke: time_ms},
        )

    def _verdict(self, taken: Taken) -> Taken:
        return _SLOW if self.state is not None and self.state.slow else taken

    def _strain(self, state: BeatState, step: int) -> None:
        """Too slow is who sends too late more often than not; a lost reading now and then is not."""
        if step > self.pace.slow_ms:
            state.strain = min(state.strain + 1, MOST_STRAIN)
            state.slow = state.slow or state.strain == MOST_STRAIN
        elif state.strain:
            state.strain -= 1
            state.slow = state.slow and state.strain > 0

    def _place(self, state: BeatState, time_ms: int, spoke: int) -> Taken:
        period, off = self.pace.period_ms, time_ms - state.due_ms
        half = period / 2
        if off <= -state.step_ms / 2:
            if time_ms - state.row_ms < half:
                self._learn_apart(state, time_ms, spoke)
            return _PART
        missing = state.apart & ~self._fresh(state, time_ms - half) if state.apart else 0
        if missing:
            if off < half:
                return _PART
            state.apart &= ~missing
        silent = round(off / period) if off > half else 0
        state.due_ms += (silent + 1) * period + FOLLOW * (off - silent * period)
        state.row_ms = time_ms
        return Taken(True, silent=silent) if silent else _ROW

    def _learn_apart(self, state: BeatState, time_ms: int, spoke: int) -> None:
        """Sensors that speak soon after a row, and had not spoken shortly before it, come in messages of their own."""
        told = 0
        for sensors, heard_ms in state.heard.items():
            if state.row_ms - self.pace.period_ms / 2 < heard_ms <= state.row_ms and sensors != spoke:
                told |= sensors
        if told:
            state.apart |= spoke & ~told

    def _fresh(self, state: BeatState, since_ms: float) -> int:
        fresh = 0
        for sensors, heard_ms in state.heard.items():
            if heard_ms > since_ms:
                fresh |= sensors
        return fresh
