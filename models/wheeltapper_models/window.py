"""
A stream of readings brought to the rows that a model was taught: what ``resample`` does to a table, one reading at a time.

When a row is complete is for ``pace.Beat`` to say; here its values are gathered. Bounded: one row in the making.
"""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import msgspec

from wheeltapper.errors import ModelError
from wheeltapper.messages import UNREADABLE
from wheeltapper_models.card import CLOCK_INPUTS, Card
from wheeltapper_models.pace import BITS, LARGEST, Beat, BeatState, Pace, Taken

MOST_TEXTS = 64  # strings beside the sensors' values that a row keeps
_encode = msgspec.msgpack.Encoder().encode

Values = Mapping[str, Any]


class Row(NamedTuple):
    """What a reading completed; ``before`` are the rows of silent periods before it, oldest first."""

    taken: Taken
    values: Values | None = None
    before: tuple[Values, ...] = ()


class _Gathered(msgspec.Struct, array_like=True):
    """A row in the making: sums and counts, or last values, by sensor, strings that came with them, and the last means."""

    sums: dict[str, tuple[float, int]] = {}
    last: dict[str, Any] = {}
    texts: dict[str, str] = {}
    means: dict[str, float] = {}


class _State(msgspec.Struct, array_like=True):
    pace: Pace
    beat: BeatState | None
    gathered: _Gathered


class Window:
    """
    One machine's readings at a model's pace.

    Args:
        card: of the model; says which values count.
        pace: from ``pace_of``.

    A reading that alone makes a row goes through unchanged.
    """

    def __init__(self, card: Card, pace: Pace) -> None:
        self.pace = pace
        self._beat = Beat(pace)
        sensors = [item.name for item in card.inputs if item.name not in CLOCK_INPUTS]
        self._bits = {name: 1 << place % BITS for place, name in enumerate(sensors)}
        self._all = reduce(or_, self._bits.values(), 0)
        self._categories = {item.name: frozenset(item.categories) for item in card.inputs if item.categories}
        self._numbers = tuple(name for name in sensors if name not in self._categories)
        self._gathered = _Gathered()

    @property
    def row_ms(self) -> int | None:
        """The time of the last row; None before the first."""
        return self._beat.state.row_ms if self._beat.state is not None else None

    @property
    def newest_ms(self) -> int | None:
        """The time of the newest reading; None before the first."""
        return self._beat.state.newest_ms if self._beat.state is not None else None

    def add(self, time_ms: int, values: Values) -> Row:
        """Take a reading, none older than ten periods before the newest unless time itself was set back."""
        spoken = self._spoken(values)
        whole = len(spoken) == len(self._bits)
        taken = self._beat.take(time_ms, self._all if whole else reduce(or_, map(self._bits.__getitem__, spoken), 0))
        if taken.fresh or taken.slow:
            self._gathered = _Gathered()
        if taken.late or taken.slow:
            return Row(taken)
        if not taken.row:
            self._gather(spoken, values)
            return Row(taken)
        before = (self._complete({}),) * taken.silent if taken.silent and self.pace.mean else ()
        if not self.pace.mean and not self._gathered.last and not self._gathered.texts:
            return Row(taken, values)
        self._gather(spoken, values)
        return Row(taken, self._complete(values), before)

    def _spoken(self, values: Values) -> dict[str, Any]:
        """The values that count, by sensor."""
        spoken: dict[str, Any] = {
            name: value
            for name in self._numbers
            if isinstance(value := values.get(name), int | float) and -LARGEST < value < LARGEST
        }
        for name, known in self._categories.items():
            word = values.get(name)
            if isinstance(word, str) and word in known:
                spoken[name] = word
        return spoken

    def _gather(self, spoken: Values, values: Values) -> None:
        gathered = self._gathered
        for name, value in spoken.items():
            if self.pace.mean and name not in self._categories:
                total, number = gathered.sums.get(name, (0.0, 0))
                gathered.sums[name] = (total + value, number + 1)
            else:
                gathered.last[name] = value
        for name, value in values.items():
            if isinstance(value, str) and name not in self._bits and len(gathered.texts) < MOST_TEXTS:
                gathered.texts[name] = value

    def _complete(self, values: Values) -> Values:
        gathered = self._gathered
        means = {name: total / number for name, (total, number) in gathered.sums.items()}
        means = {**gathered.means, **means} if self.pace.mean else means
        self._gathered = _Gathered(means=means, last=gathered.last if self.pace.mean else {})
        return {**values, **gathered.texts, **gathered.last, **means}

    def state(self) -> bytes:
        """All that it remembers."""
        return _encode(_State(self.pace, self._beat.state, self._gathered))

    def restore(self, state: bytes) -> None:
        """
        Go on where ``state`` was taken; a state of another pace is left.

        Raises:
            ModelError: it is no such state.
        """
        try:
            found = msgspec.msgpack.decode(state, type=_State)
        except UNREADABLE as error:
            raise ModelError(f"window: its state cannot be read: {error}") from error
        if found.pace == self.pace:
            self._beat.state, self._gathered = found.beat, found.gathered
