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
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from wheeltapper.detector import expression as ex
from wheeltapper.detector.action import Message
from wheeltapper.detector.analysis_survey import timers_of
from wheeltapper.detector.backtest import Runner
from wheeltapper.detector.columns import Batch, Column, Mask, Path, Residual, UnsupportedError, holds, payload_of
from wheeltapper.detector.instance import PENDING, RUNNING, UNSET, Detector
from wheeltapper.detector.interpreter import remember
from wheeltapper.detector.plan import (
    ClearTimerPlan,
    EventPlan,
    InputPlan,
    ResetTimerPlan,
    SetTimerPlan,
    SetVariablePlan,
    input_name_of,
    key_text,
    payload_path,
)
from wheeltapper.detector.settings import DEFAULTS, EngineSettings
from wheeltapper.detector.values import BINARY, FUNCTIONS, UNARY, UNDEFINED, Operand, divider, is_absent

Rows = npt.NDArray[np.int64]

# Passes in a row after which looking ahead is not worth while, and how many rows are then taken one by one.
_PATIENCE = 6
_ONE_BY_ONE = 32
_MAX_CACHED = 50_000
# Rows searched at first, and different sets of restarting events followed over one batch.
_PIECE = 64
_WORTH_ALL = 32
_MAX_SOFT = 32


class _Constant(msgspec.Struct, frozen=True):
    """A value in a residual; equal only to the same value of the same type."""

    type: str
    value: Any


def _constant(value: Operand) -> Residual:
    return ("value", _Constant(type(value).__name__, value))


TRUE, FALSE = _constant(True), _constant(False)


class _Soft(NamedTuple):
    """An event that does nothing but start a running timer anew."""

    condition: Residual
    timer: str
    duration_s: int


class _Outlook(NamedTuple):
    """What can happen next to a detector: rows that need the engine, rows that only restart timers."""

    hard: tuple[Residual, ...]
    soft: tuple[_Soft, ...]


class _Watch:
    """
    What is to be watched of a state, for messages of one input.

    Everything an outlook depends on is read from a detector's slots in one go, so that outlooks can be remembered.
    """

    def __init__(self, runner: "ColumnRunner", state: int, index: int) -> None:
        plan = runner.plan.states[state]
        self.events = plan.input
        self.transitions = plan.transitions
        self.known: dict[Any, _Outlook | None] = {}
        detector_class = runner.engine.detector_class
        name = runner.plan.inputs[index].name
        trees = [event.condition for event in (*plan.input, *plan.transitions) if event.condition is not None]
        actions = [action for event in plan.input for action in event.actions]
        trees += [action.value for action in actions if isinstance(action, SetVariablePlan)]
        self.tested = tuple(dict.fromkeys(timer for tree in trees for timer in timers_of(tree)))
        references = [reference for tree in trees for reference in ex.references(tree)]
        variables = [reference.name for reference in references if reference.root == "variable"]
        variables += [action.name for action in actions if isinstance(action, SetVariablePlan)]
        timers = [
            *self.tested,
            *(a.name for a in actions if isinstance(a, ClearTimerPlan | ResetTimerPlan | SetTimerPlan)),
        ]
        slots = [detector_class.variable_slots[each] for each in variables if each in detector_class.variable_slots]
        slots += [
            detector_class.input_slots[each]
            for each in references
            if each in detector_class.input_slots and input_name_of(each) != name
        ]
        slots += [letter + detector_class.timer_slots[each] for each in timers for letter in "fd"]
        # Two at least, so that the getter gives a tuple.
        self.slots: Callable[[Any], tuple[Any, ...]] = attrgetter(*dict.fromkeys(("s", "key", *slots)))
        self.dynamic = any(
            isinstance(node, ex.Call) and node.function == "timeout" and not isinstance(node.arguments[0], ex.Literal)
            for tree in trees
            for node in ex.walk(tree)
        )


class ColumnRunner(Runner):
    """A ``Runner`` that also takes columns."""

    def __init__(
        self, body: Mapping[str, Any], *, only: str | None = None, settings: EngineSettings = DEFAULTS
    ) -> None:
        super().__init__(body, only=only, settings=settings)
        self.passes = 0
        """Rows and timers that went through the engine, of all that were fed as columns."""
        self._watches: dict[tuple[int, int], _Watch] = {}

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

    def watch(self, state: int, index: int) -> _Watch:
        """What is to be watched of a state, for messages of one input."""
        found = self._watches.get((state, index))
        if found is None:
            found = self._watches[state, index] = _Watch(self, state, index)
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
        self._engine = runner.engine
        self._index = index
        self._input: InputPlan = runner.plan.inputs[index]
        self._segments = self._sort(batch)
        self._hard: dict[tuple[Residual, ...], _Hard] = {}
        self._soft: dict[tuple[_Soft, ...], dict[str, _Restarts]] = {}
        self._cells = [(path, column.cells()) for path, column in sorted(self._batch.columns.items())]

    # -- rows in order

    def _sort(self, batch: Batch) -> list[tuple[str, int, int]]:
        """Bring the rows of each key together; gives (key, first row, row after the last)."""
        runner = self._runner
        keys, codes = self._codes(batch)
        self._keys = keys
        usable = codes >= 0
        runner.ledger.keyless += int(len(batch) - usable.sum())
        if runner.only is not None:
            usable &= codes == (keys.index(runner.only) if runner.only in keys else -1)
        order = np.flatnonzero(usable)
        order = order[np.argsort(codes[order], kind="stable")]
        sorted_codes = codes[order]
        starts = np.flatnonzero(np.diff(sorted_codes, prepend=-1)).tolist() if len(order) else []
        ends = [*starts[1:], len(order)] if starts else []
        wanted = [tuple(map(str, payload_path(reference))) for reference in self._input.references]
        needed = [path for path in batch.columns if any(_related(path, each) for each in wanted)]
        in_order = len(order) == len(batch) and bool(np.all(order[1:] > order[:-1]))
        columns = {path: batch.columns[path] if in_order else batch.columns[path].take(order) for path in needed}
        times = batch.times_ms if in_order else batch.times_ms[order]
        given = times
        self._event_times: list[int] = times.tolist()
        times = self._forward(times, sorted_codes, starts)
        self._batch = Batch(batch.input_name, times, columns)
        self._times: list[int] = self._event_times if times is given else times.tolist()
        self._segment_of: Rows = np.repeat(
            np.arange(len(starts)), np.diff([*starts, len(order)]) if starts else 0
        ).astype(np.int64)
        self._segment_ends = np.asarray(ends, dtype=np.int64)
        return [(keys[int(sorted_codes[start])], start, end) for start, end in zip(starts, ends, strict=True)]

    def _codes(self, batch: Batch) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Each row's key as a number; negative where it has none."""
        steps = self._runner.plan.key
        if steps is None:
            return [""], np.zeros(len(batch), dtype=np.int64)
        column = batch.columns.get(tuple(steps))
        if column is None:
            return [], np.full(len(batch), -1, dtype=np.int64)
        if column.kind == "text":
            values: list[Any] = list(column.texts)
            codes = column.data.astype(np.int64)
        elif column.kind == "object":
            values = column.cells()
            codes = np.arange(len(values), dtype=np.int64)
        else:
            different, codes = np.unique(column.data, return_inverse=True)
            values = different.tolist()
        names: dict[str, int] = {}
        table = [
            names.setdefault(name, len(names)) if (name := key_text(value)) is not None else -1 for value in values
        ]
        found = np.asarray([*table, -1], dtype=np.int64)[codes]
        if column.missing is not None:
            found = np.where(column.missing, -1, found)
        return list(names), found

    def _forward(self, times: npt.NDArray[np.int64], codes: Rows, starts: Sequence[int]) -> npt.NDArray[np.int64]:
        """Times that never go back within a detector; what was late is counted."""
        if not len(times):
            return times
        backwards = (np.diff(times) < 0) & (np.diff(codes) == 0)
        floors = {start: self._floor(int(codes[start])) for start in starts}
        late_heads = [start for start, floor in floors.items() if times[start] < floor]
        if not late_heads and not backwards.any():
            return times
        times = times.copy()
        ends = [*starts[1:], len(times)]
        for start, end in zip(starts, ends, strict=True):
            before = times[start:end].copy()
            np.maximum.accumulate(before, out=times[start:end])
            np.maximum(times[start:end], floors[start], out=times[start:end])
            self._runner.ledger.late += int((before < times[start:end]).sum())
        return times

    def _floor(self, code: int) -> int:
        """The last time of a detector that an earlier batch left behind, in ms."""
        detector = self._runner.detectors.get(self._keys[code])
        return -(2**62) if detector is None else round(detector.updated * 1000)

    # -- one detector

    def run(self) -> None:
        """Every detector's rows, one detector after the other."""
        for key, start, end in self._segments:
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
                row = self._one_by_one(detector, row, min(row + _ONE_BY_ONE, end))
                busy = 0
                continue
            outlook = self._outlook(detector)
            landed = row if outlook is None else self._skip(detector, outlook, row, end)
            busy = busy + 1 if landed <= row + 1 else 0
            if landed < end:
                self._land(detector, row, landed)
            else:
                self._arrive(detector, end - 1)
            row = landed + 1

    def _one_by_one(self, detector: Detector, row: int, end: int) -> int:
        for each in range(row, end):
            self._land(detector, each, each)
        return end

    def _land(self, detector: Detector, first: int, row: int) -> None:
        """A row that needs the engine, after the timers that are due before it."""
        runner = self._runner
        now = self._times[row] / 1000
        if any(due <= now for _, due in runner.running(detector)):
            if row > first:
                self._arrive(detector, row - 1)
            runner.run_timers(detector, now)
            runner.passes += 1
        runner.give(detector, self._index, self._message(row), now)
        runner.passes += 1

    def _arrive(self, detector: Detector, row: int) -> None:
        """Remember the last row that was skipped."""
        remember(detector, self._message(row))
        detector.updated = self._times[row] / 1000

    def _message(self, row: int) -> Message:
        return Message(self._batch.input_name, payload_of(self._cells, row), "", self._event_times[row])

    # -- looking ahead

    def _skip(self, detector: Detector, outlook: _Outlook, row: int, end: int) -> int:
        """The next row that needs the engine; ``end`` where none does. Timers restarted on the way are set."""
        landed = self._next_hard(outlook.hard, row, end)
        soft = self._restarts(outlook.soft) if outlook.soft else {}
        for name, due in self._runner.running(detector):
            restarts = soft.get(name)
            if restarts is None:
                landed = min(landed, self._row_at(due, row, landed))
            else:
                landed = restarts.until(self, due, row, landed)
        for name, restarts in soft.items():
            last = restarts.last_before(row, landed)
            if last >= 0:
                detector.set_timer(name, restarts.due_s(last), restarts.duration_s)
        return landed

    def _row_at(self, due: float, row: int, end: int) -> int:
        """The first row at or after a time."""
        return bisect_left(self._times, math.ceil(due * 1000), row, end)

    def _next_hard(self, conditions: tuple[Residual, ...], row: int, end: int) -> int:
        """The first row before ``end`` at which a condition holds: piece by piece, or all rows once if often asked."""
        if not conditions:
            return end
        found = self._hard.get(conditions)
        if found is None:
            found = self._hard[conditions] = _Hard(0, None)
        piece = _PIECE
        while found.rows is None and row < end:
            if found.searched > len(self._batch) // _WORTH_ALL:
                found.rows = np.flatnonzero(self._any(conditions, self._batch)).tolist()
                break
            until = min(row + piece, end)
            mask = self._any(conditions, _piece(self._batch, row, until))
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

    def _restarts(self, soft: tuple[_Soft, ...]) -> dict[str, "_Restarts"]:
        found = self._soft.get(soft)
        if found is None:
            found = self._soft[soft] = {}
            for timer in dict.fromkeys(each.timer for each in soft):
                mine = [each for each in soft if each.timer == timer]
                mask = self._any([each.condition for each in mine], self._batch)
                found[timer] = _Restarts.of(
                    np.flatnonzero(mask), mine[0].duration_s, self._batch.times_ms, self._segment_of, self._segment_ends
                )
        return found

    # -- what a detector could do

    def _outlook(self, detector: Detector) -> _Outlook | None:
        """What the next rows can do to a detector as it stands; None where the next row needs the engine anyway."""
        watch = self._runner.watch(detector.s, self._index)
        values = watch.slots(detector)[2:]
        key = (values, tuple(map(type, values)))
        try:
            outlook = watch.known[key]
        except KeyError:
            if len(watch.known) >= _MAX_CACHED:
                watch.known.clear()
            outlook = watch.known[key] = self._look(watch, detector)
        if outlook is not None and outlook.soft and outlook.soft not in self._soft and len(self._soft) >= _MAX_SOFT:
            return None
        return outlook

    def _look(self, watch: _Watch, detector: Detector) -> _Outlook | None:
        if watch.dynamic or any(detector.timer(name)[2] == PENDING for name in watch.tested):
            return None
        hard: list[Residual] = []
        soft: list[_Soft] = []
        for event in watch.transitions:
            residual = self._residual(event, detector)
            if residual == TRUE:
                return None
            if residual[0] != "value":
                hard.append(residual)
        for event in watch.events:
            residual = self._residual(event, detector)
            if residual != TRUE and residual[0] == "value":
                continue
            restarted = self._effects(event, detector)
            if restarted is None:
                if residual == TRUE:
                    return None
                hard.append(residual)
            else:
                soft.extend(_Soft(residual, timer, duration) for timer, duration in restarted)
        kept = tuple(dict.fromkeys(soft))
        if len({(each.timer, each.duration_s) for each in kept}) != len({each.timer for each in kept}):
            return None  # one timer restarted with two durations: the order of events decides
        return _Outlook(tuple(dict.fromkeys(hard)), kept)

    def _residual(self, event: EventPlan, detector: Detector) -> Residual:
        """The event's condition with all but the columns filled in."""
        return TRUE if event.condition is None else self._fold(event.condition, detector)

    def _effects(self, event: EventPlan, detector: Detector) -> list[tuple[str, int]] | None:
        """The running timers that the event's actions restart; None where they do anything else."""
        restarted: list[tuple[str, int]] = []
        whole = self._engine.settings.whole_second_timers
        for action in event.actions:
            match action:
                case SetVariablePlan(_, name, tree):
                    residual = self._fold(tree, detector)
                    if residual[0] != "value" or is_absent(residual[1].value):
                        return None
                    if residual != _constant(detector.variable(name)):
                        return None
                case ClearTimerPlan(_, name):
                    if detector.timer(name)[2] != UNSET:
                        return None
                case ResetTimerPlan(_, name):
                    _, duration_s, status = detector.timer(name)
                    if status != RUNNING or not whole:
                        return None
                    restarted.append((name, duration_s))
                case SetTimerPlan(_, name, ex.Literal(int() as seconds)):
                    legal = type(seconds) is int and self._engine.settings.minimum_timer_s <= seconds <= 31_622_400
                    if detector.timer(name)[2] != RUNNING or not whole or not legal:
                        return None
                    restarted.append((name, seconds))
                case _:
                    return None
        return restarted

    def _other(self, reference: ex.Reference, detector: Detector) -> Operand:
        slot = detector.input_slots.get(reference)
        return UNDEFINED if slot is None else getattr(detector, slot)

    def _fold(self, tree: ex.Expression, detector: Detector) -> Residual:
        match tree:
            case ex.Literal(value):
                return _constant(value)
            case ex.Reference("variable", name, path):
                return _constant(UNDEFINED if path else detector.variable(name))
            case ex.Reference():
                if input_name_of(tree) != self._batch.input_name:
                    return _constant(self._other(tree, detector))
                if any(isinstance(step, int) for step in payload_path(tree)):
                    return ("unsupported",)
                return ("column", tuple(str(step) for step in payload_path(tree)))
            case ex.Unary(operator, operand):
                inner = self._fold(operand, detector)
                if inner[0] == "value":
                    return _constant(UNARY[operator](inner[1].value))
                return ("negate" if operator == "-" else operator, inner)
            case ex.Binary(operator, left, right):
                return self._binary(operator, self._fold(left, detector), self._fold(right, detector))
            case ex.Call(function, arguments):
                return self._call(function, [self._fold(each, detector) for each in arguments])
        return ("unsupported",)

    def _binary(self, operator: str, left: Residual, right: Residual) -> Residual:
        if operator == "&&" and FALSE in (left, right):
            return FALSE
        if operator == "||" and TRUE in (left, right):
            return TRUE
        if left[0] != "value" or right[0] != "value":
            return (operator, left, right)
        a, b = left[1].value, right[1].value
        if operator == "&&":
            return TRUE if a is True and b is True else _constant(UNDEFINED)
        if operator == "||":
            return FALSE
        if operator == "/":
            return _constant(divider(self._engine.settings.integer_division)(a, b))
        return _constant(BINARY[operator](a, b))

    def _call(self, function: str, arguments: list[Residual]) -> Residual:
        constants = [each[1].value for each in arguments if each[0] == "value"]
        if function in FUNCTIONS:
            if len(constants) == len(arguments):
                return _constant(FUNCTIONS[function](*constants))
            return (function, *arguments)
        if len(constants) != 1 or type(constants[0]) is not str:
            return _constant(UNDEFINED) if len(constants) == 1 else ("unsupported",)
        if function == "timeout":
            return FALSE  # a pending expiry would have stopped the look ahead
        if function == "triggerType":
            return _constant(constants[0].lower() == "message")
        return _constant(constants[0] == self._batch.input_name)


def _related(path: Path, wanted: Path) -> bool:
    """Whether a column is, holds or lies within what a reference reads."""
    return path[: len(wanted)] == wanted or wanted[: len(path)] == path


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
    def of(
        cls, rows: Rows, duration_s: int, times: npt.NDArray[np.int64], segment_of: Rows, segment_ends: Rows
    ) -> "_Restarts":
        due = (times[rows] // 1000 + duration_s) * 1000
        if not len(rows):
            return cls(duration_s, [], [], [], [])
        segments = segment_of[rows]
        # One ascending line of all segments' times, so that one search serves them all.
        span = int(times.max()) - int(times.min()) + duration_s * 1000 + 2_000
        base = int(times.min())
        line = segment_of * span + (times - base)
        found = np.searchsorted(line, segments * span + (due - base), side="left")
        following = np.append(rows[1:], len(times))
        last = np.minimum(following, segment_ends[segments] - 1)
        expires = (found <= last) & (found < segment_ends[segments])
        places = np.flatnonzero(expires)
        return cls(duration_s, rows.tolist(), due.tolist(), places.tolist(), found[places].tolist())

    def until(self, sweep: _Sweep, due: float, row: int, end: int) -> int:
        """The row before which the timer, due now at ``due``, ends; ``end`` where it does not before."""
        first = bisect_left(self.rows, row)
        restart = self.rows[first] if first < len(self.rows) else end
        ends = sweep._row_at(due, row, end)
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


def column_of(cells: Sequence[Any]) -> Column:
    """
    A column from the engine's values; UNDEFINED and None are missing.

    >>> column_of([1, 2]).kind, column_of([1, 2.5]).kind, column_of(["a", UNDEFINED]).texts
    ('integer', 'object', ('a',))
    """
    missing = np.asarray([cell is UNDEFINED or cell is None for cell in cells], dtype=bool)
    kinds = {type(cell) for cell, absent in zip(cells, missing.tolist(), strict=True) if not absent}
    mask = missing if missing.any() else None
    if kinds == {str}:
        places: dict[str, int] = {}
        codes = [
            -1 if absent else places.setdefault(cell, len(places)) for cell, absent in zip(cells, missing, strict=True)
        ]
        return Column("text", np.asarray(codes, dtype=np.int32), mask, tuple(places))
    for kind, name, dtype in ((int, "integer", np.int64), (float, "decimal", np.float64), (bool, "boolean", np.bool_)):
        if kinds == {kind}:
            filled = [kind() if absent else cell for cell, absent in zip(cells, missing, strict=True)]
            return Column(name, np.asarray(filled, dtype=dtype), mask)  # type: ignore[arg-type]
    data = np.empty(len(cells), dtype=object)
    data[:] = [UNDEFINED if absent else cell for cell, absent in zip(cells, missing, strict=True)]
    return Column("object", data, mask)
