"""
History in columns: only the rows at which a detector could do something go through the engine.

For a detector in a given state, what its conditions say of a row is computed over whole columns at once. Rows at which no
condition holds, or only ones whose actions change nothing (a variable set to what it is, a timer cleared that is not set),
are skipped; timers that are restarted by such rows (heartbeats) are followed in columns as well. Everything else, and
everything that ``columns`` cannot guarantee, is a pass of the engine. The results are those of ``backtest.Runner``, row by
row; a property test holds both against each other.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from wheeltapper.detector.action import Message
from wheeltapper.detector.backtest import Runner
from wheeltapper.detector.backtest_outlook import Conditions, Outlook, Soft, Watch
from wheeltapper.detector.backtest_segments import Rows, Segments
from wheeltapper.detector.columns import Batch, Column, Mask, Residual, UnsupportedError, holds, payload_of
from wheeltapper.detector.instance import Detector
from wheeltapper.detector.interpreter import remember
from wheeltapper.detector.plan import payload_path
from wheeltapper.detector.settings import DEFAULTS, EngineSettings
from wheeltapper.detector.values import UNDEFINED

# Passes in a row after which looking ahead is not worth while, and how many rows are then taken one by one.
_PATIENCE = 6
_ONE_BY_ONE = 32
# Rows searched at first, and different sets of restarting events followed over one batch.
_PIECE = 64
_WORTH_ALL = 32
_MAX_SOFT = 32


class ColumnRunner(Runner):
    """A ``Runner`` that also takes columns."""

    def __init__(
        self, body: Mapping[str, Any], *, only: str | None = None, settings: EngineSettings = DEFAULTS
    ) -> None:
        super().__init__(body, only=only, settings=settings)
        self.passes = 0
        """Rows and timers that went through the engine, of all that were fed as columns."""
        self._watches: dict[tuple[int, int], Watch] = {}

    def feed_columns(self, batch: Batch) -> None:
        """Messages of one input, in order."""
        if not len(batch):
            return
        ledger = self.ledger
        ledger.last_ms = max(ledger.last_ms, int(batch.times_ms.max()))
        index = self._indexes.get(batch.input_name)
        if index is None:
            ledger.other += len(batch)
            return
        ledger.messages += len(batch)
        _Sweep(self, batch, index).run()

    def watch(self, state: int, index: int) -> Watch:
        """What is to be watched of a state, for messages of one input."""
        found = self._watches.get((state, index))
        if found is None:
            found = self._watches[state, index] = Watch(self.engine, state, index)
        return found


class _Hard(msgspec.Struct):
    """Rows at which some condition holds; None until so many were searched that all of them are worth it."""

    searched: int
    rows: list[int] | None


def _piece(batch: Batch, start: int, end: int) -> Batch:
    """Some rows of a batch, not copied."""
    columns = {
        path: Column(
            column.kind,
            column.data[start:end],
            None if column.missing is None else column.missing[start:end],
            column.texts,
        )
        for path, column in batch.columns.items()
    }
    return Batch(batch.input_name, batch.times_ms[start:end], columns)


class _Sweep:
    """One batch through one runner."""

    def __init__(self, runner: ColumnRunner, batch: Batch, index: int) -> None:
        self._runner = runner
        self._index = index
        self._segments = Segments(runner, batch, index)
        self._batch = self._segments.batch
        self._times = self._segments.times
        self._hard: dict[Conditions, _Hard] = {}
        self._soft: dict[tuple[Soft, ...], dict[str, _Restarts]] = {}
        self._cells = [(path, column.cells()) for path, column in sorted(self._batch.columns.items())]
        self._slots = self._simple_slots()

    def _simple_slots(self) -> list[tuple[str, list[Any] | None]] | None:
        """For each remembered reference its slot and its column (None: never there); None where it is not that simple."""
        cells, found = dict(self._cells), []
        for reference in self._runner.plan.inputs[self._index].references:
            path = payload_path(reference)
            alone = len(path) == 1 and isinstance(path[0], str) and all(len(each) == 1 for each in cells)
            column = self._batch.columns.get((str(path[0]),)) if alone else None
            if not alone or (column is not None and column.kind == "object"):
                return None
            slot = self._runner.engine.detector_class.input_slots[reference]
            found.append((slot, cells[str(path[0]),] if column is not None else None))
        return found

    # -- one detector

    def run(self) -> None:
        """Every detector's rows, one detector after the other."""
        for key, start, end in self._segments.spans:
            self._segment(key, start, end)

    def _segment(self, key: str, row: int, end: int) -> None:
        runner = self._runner
        detector = runner.detectors.get(key)
        if detector is None:
            message = self._message(row)
            now = self._times[row] / 1000
            detector = runner.create(key, message, now)
            runner.give(detector, self._index, message, now)
            runner.passes += 2
            row += 1
        busy = 0
        while row < end:
            if busy >= _PATIENCE:
                until = min(row + _ONE_BY_ONE, end)
                for each in range(row, until):
                    self._land(detector, each, each)
                row, busy = until, 0
                continue
            outlook = self._outlook(detector)
            landed = row if outlook is None else self._skip(detector, outlook, row, end)
            busy = busy + 1 if landed <= row + 1 else 0
            if landed == end:
                self._arrive(detector, end - 1)
            elif self._land(detector, row, landed, look_again=outlook is not None):
                row = landed  # its timers have run; the row itself may have become one to skip
                continue
            row = landed + 1

    def _land(self, detector: Detector, first: int, row: int, *, look_again: bool = False) -> bool:
        """
        A row that needs the engine, after the timers that are due before it.

        With ``look_again`` it ends where timers have run, and is True then: the row is still to be dealt with.
        """
        runner = self._runner
        now = self._times[row] / 1000
        if row > first:
            self._arrive(detector, row - 1)
        if runner.run_timers(detector, now):
            runner.passes += 1
            if look_again:
                return True
        runner.give(detector, self._index, self._message(row), now)
        runner.passes += 1
        return False

    def _arrive(self, detector: Detector, row: int) -> None:
        """Remember the last row that was skipped."""
        if self._slots is None:
            remember(detector, self._message(row))
        else:
            for slot, cells in self._slots:
                setattr(detector, slot, UNDEFINED if cells is None else cells[row])
        detector.updated = self._times[row] / 1000

    def _outlook(self, detector: Detector) -> Outlook | None:
        outlook = self._runner.watch(detector.s, self._index).outlook(detector)
        if outlook is not None and outlook.soft and outlook.soft not in self._soft and len(self._soft) >= _MAX_SOFT:
            return None
        return outlook

    def _message(self, row: int) -> Message:
        return Message(self._batch.input_name, payload_of(self._cells, row), "", self._segments.event_times[row])

    # -- looking ahead

    def _skip(self, detector: Detector, outlook: Outlook, row: int, end: int) -> int:
        """The next row that needs the engine; ``end`` where none does. Timers restarted on the way are set."""
        landed = self._next_hard(outlook.hard, row, end)
        soft = self._restarts(outlook.soft) if outlook.soft else {}
        for name, due in self._runner.running(detector):
            restarts = soft.get(name)
            if restarts is None:
                landed = min(landed, self.row_at(due, row, landed))
            else:
                landed = restarts.until(self, due, row, landed)
        for name, restarts in soft.items():
            last = restarts.last_before(row, landed)
            if last >= 0:
                detector.set_timer(name, restarts.due_s(last), restarts.duration_s)
        return landed

    def row_at(self, due: float, row: int, end: int) -> int:
        """The first row at or after a time."""
        return bisect_left(self._times, math.ceil(due * 1000), row, end)

    def _next_hard(self, conditions: Conditions, row: int, end: int) -> int:
        """The first row before ``end`` at which a condition holds: piece by piece, or all rows once if often asked."""
        if not conditions.residuals:
            return end
        found = self._hard.get(conditions)
        if found is None:
            found = self._hard[conditions] = _Hard(0, None)
        piece = _PIECE
        while found.rows is None and row < end:
            if found.searched > len(self._batch) // _WORTH_ALL:
                found.rows = np.flatnonzero(self._any(conditions.residuals, self._batch)).tolist()
                break
            until = min(row + piece, end)
            mask = self._any(conditions.residuals, _piece(self._batch, row, until))
            found.searched += until - row
            first = int(mask.argmax())
            if mask[first]:
                return row + first
            row, piece = until, piece * 4
        if found.rows is None:
            return end
        place = bisect_left(found.rows, row)
        return min(found.rows[place], end) if place < len(found.rows) else end

    def _any(self, conditions: Iterable[Residual], batch: Batch) -> Mask:
        mask = np.zeros(len(batch), dtype=bool)
        for condition in conditions:
            try:
                mask |= holds(condition, batch)
            except UnsupportedError:
                return np.ones(len(batch), dtype=bool)
        return mask

    def _restarts(self, soft: tuple[Soft, ...]) -> dict[str, "_Restarts"]:
        found = self._soft.get(soft)
        if found is None:
            found = self._soft[soft] = {}
            for timer in dict.fromkeys(each.timer for each in soft):
                mine = [each for each in soft if each.timer == timer]
                mask = self._any([each.condition for each in mine], self._batch)
                rows = np.flatnonzero(mask)
                found[timer] = _Restarts.of(rows, mine[0].duration_s, self._segments)
        return found


class _Restarts(msgspec.Struct):
    """
    The rows that restart one timer.

    Attributes:
        rows: ascending, over the whole batch.
        due_ms: when the timer would end if no other row followed.
        expiring: places in ``rows`` after which the timer does end before the next restart, and the row that finds it so.
    """

    duration_s: int
    rows: list[int]
    due_ms: list[int]
    expiring: list[int]
    found_at: list[int]

    @classmethod
    def of(cls, rows: Rows, duration_s: int, segments: Segments) -> "_Restarts":
        """The restarts at some rows of a batch."""
        times = segments.batch.times_ms
        due = (times[rows] // 1000 + duration_s) * 1000
        if not len(rows):
            return cls(duration_s, [], [], [], [])
        segment = segments.segment_of[rows]
        # One ascending line of all segments' times, so that one search serves them all.
        span = int(times.max()) - int(times.min()) + duration_s * 1000 + 2_000
        base = int(times.min())
        line = segments.segment_of * span + (times - base)
        found = np.searchsorted(line, segment * span + (due - base), side="left")
        following = np.append(rows[1:], len(times))
        last = np.minimum(following, segments.segment_ends[segment] - 1)
        expires = (found <= last) & (found < segments.segment_ends[segment])
        places = np.flatnonzero(expires)
        return cls(duration_s, rows.tolist(), due.tolist(), places.tolist(), found[places].tolist())

    def until(self, sweep: _Sweep, due: float, row: int, end: int) -> int:
        """The row before which the timer, due now at ``due``, ends; ``end`` where it does not before."""
        first = bisect_left(self.rows, row)
        restart = self.rows[first] if first < len(self.rows) else end
        ends = sweep.row_at(due, row, end)
        if ends <= restart:
            return min(ends, end)
        place = bisect_left(self.expiring, first)
        return min(self.found_at[place], end) if place < len(self.expiring) else end

    def last_before(self, row: int, end: int) -> int:
        """The place of the last restart from ``row`` to before ``end``; -1 where there is none."""
        place = bisect_left(self.rows, end) - 1
        return place if place >= 0 and self.rows[place] >= row else -1

    def due_s(self, place: int) -> float:
        """When the timer ends after a restart, in seconds."""
        return self.due_ms[place] / 1000
