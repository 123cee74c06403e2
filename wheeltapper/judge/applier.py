"""
What a row of the journal does: to detectors, to the tables that operators look at, and what is to be carried out for it.

The same row does the same, whenever it is applied: nothing here reads a clock or a disk. So a replay makes again what was.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from wheeltapper.detector import runtime
from wheeltapper.detector.handle import handle_of
from wheeltapper.detector.settings import EngineSettings
from wheeltapper.errors import DefinitionError
from wheeltapper.journal import Row
from wheeltapper.judge import rows
from wheeltapper.judge.ledger import Ledger
from wheeltapper.judge.models import Models
from wheeltapper.judge.news import News, Payload, Reporter
from wheeltapper.judge.settings import JudgeSettings
from wheeltapper.judge.snapshots import Base
from wheeltapper.judge.types import Action, AlarmOperation, DetectorUpdate, Message, Refusal, Shelved

log = logging.getLogger(__name__)

_SEQUENCE_BITS = 24
# What operators make of an alarm of an alarm model, and the states that they bring it into.
_LAID_ASIDE = {"snooze": "SNOOZE_DISABLED", "disable": "DISABLED"}


class Applier:
    """
    Detectors and what is told of them.

    Args:
        journal_id: makes the ids of what is told differ between hosts.
        engine: the engine's own settings; repeats are the host's business, never the engine's.

    Attributes:
        now_ms: the clock reading of the last row.
        engine_ms: what the detectors take for the time.
        failed: messages that the engine could not judge.
        saved_at: positions up to which (model, key) has been told about already; for a replay.
        on_trace: given every outcome, traced.
    """

    def __init__(self, settings: JudgeSettings, journal_id: str, engine: EngineSettings) -> None:
        self._settings = settings
        self.shard = runtime.Shard(msgspec.structs.replace(engine, dedup_window_s=0.0), track=True)
        self.models = Models(self.shard, settings)
        self.ledger = Ledger()
        self._reporter = Reporter(settings, journal_id, self.shard.export)
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        self.now_ms = self.engine_ms = self._arrived_ms = 0
        self.failed = 0
        self.saved_at: dict[tuple[str, str], int] = {}
        self.on_trace: Callable[[runtime.Outcome], None] | None = None
        self._emitted: list[Action] = []

    def begin(self, base: Base) -> None:
        """Take over what holds at the position from which a replay begins."""
        self.now_ms = self._arrived_ms = base.now_ms
        self.engine_ms = base.engine_ms
        self.models.declare(base.inputs)
        for deployment in base.deployments:
            with surviving():
                self.models.load(deployment)

    def place(self, model: str, key: str, state: bytes | None) -> None:
        """Put a saved detector in place of what is there; None is one that was deleted."""
        if self.models.get(model) is None:
            return
        if state is None:
            self.shard.delete_detector(model, key)
        else:
            with surviving():
                self.shard.insert(state)

    def take_emitted(self) -> list[Action]:
        """The actions that have come up since the last call."""
        emitted, self._emitted = self._emitted, []
        return emitted

    def next_timer_ms(self) -> float | None:
        """When timers should next be looked at, on the host's clock."""
        due = self.shard.next_timer()
        if due is None:
            return None
        if self._settings.clock == "arrival":
            return due * 1000
        return max(due * 1000, self._arrived_ms + self._settings.patience_s * 1000)

    def apply(self, row: Row) -> None:
        """Apply a row again."""
        if row.kind == rows.MESSAGES:
            messages = rows.decode_messages(row.entries)
            self.apply_messages(row, messages, [self._decode(message.payload) for message in messages])
        else:
            self.apply_command(row, rows.decode_command(row.kind, row.entries))

    def apply_messages(self, row: Row, messages: Sequence[Message], payloads: Sequence[dict[str, Any]]) -> None:
        """Apply a row of messages whose payloads are decoded."""
        self.now_ms = self._arrived_ms = row.now_ms
        put, by_event = self.shard.put, self._settings.clock == "event"
        engine_ms = self.engine_ms if by_event else max(row.now_ms, self.engine_ms)
        sequence = row.position << _SEQUENCE_BITS
        for message, payload in zip(messages, payloads, strict=True):
            if by_event:
                stamp = row.now_ms if message.time_ms is None else min(message.time_ms, row.now_ms)
                engine_ms = max(engine_ms, stamp)
            given = runtime.Message(message.input, payload, message.message_id, message.time_ms)
            try:
                outcomes = put(given, engine_ms / 1000, trace=self.on_trace is not None)
            except Exception:
                self.failed += 1
                log.exception("judge: message %r of input %s failed", message.message_id, message.input)
                continue
            if outcomes:
                sequence = self._take_in(outcomes, payload, sequence, message)
        self.engine_ms = engine_ms

    def _take_in(
        self,
        outcomes: Sequence[runtime.Outcome],
        payload: Payload | None,
        sequence: int,
        message: Message | None = None,
    ) -> int:
        """Turn outcomes into writes and actions; returns the next sequence number."""
        for outcome in outcomes:
            if self.on_trace is not None:
                self.on_trace(outcome)
            if outcome.trace is not None and _is_trace_only(outcome):
                continue  # a replay, which traces nothing, must count alike
            sequence += 1
            for failure in outcome.failures:
                log.warning("%s %s: %s", outcome.model, outcome.key, failure)
            handle = outcome.handle
            model = self.models.get(handle)
            if model is None:
                continue
            if self._was_told(handle, outcome.key, sequence):
                continue
            self._record(
                self._reporter.report(model, outcome, payload, sequence, message.hops if message else 0),
                outcome,
                sequence,
            )
        return sequence

    def _was_told(self, handle: str, key: str, sequence: int) -> bool:
        """Whether a replay has come across what a detector saved later knows already."""
        return self.saved_at.get((handle, key), 0) >= sequence >> _SEQUENCE_BITS

    def _record(self, news: News, outcome: runtime.Outcome, sequence: int) -> None:
        if (
            outcome.kind == "alarm"
            and outcome.from_state in _LAID_ASIDE.values()
            and outcome.state != outcome.from_state
        ):
            self.ledger.unshelve(outcome.handle, outcome.key, sequence)
        if news.moved:
            self.ledger.move_alarm(outcome.handle, outcome.key, outcome.state, sequence)
        if news.cleared:
            self.ledger.clear_alarms(outcome.handle, outcome.key, sequence, outcome.time_ms)
        if news.raised is not None:
            self.ledger.raise_alarm(news.raised)
        for action in news.actions:
            self.ledger.add_action(action, sequence >> _SEQUENCE_BITS)
            if news.raised is None or action.id != news.raised.id or not self._kept_back(outcome, action, sequence):
                self._emitted.append(action)

    def _kept_back(self, outcome: runtime.Outcome, action: Action, sequence: int) -> bool:
        """Whether operators are spared the news of a detector model's alarm, since it was on the shelf already."""
        if outcome.kind == "alarm":
            return False  # its state keeps it away, and one that rings is not laid aside, whatever the shelf says
        covering = self.ledger.shelf.covering(outcome.handle, outcome.key, outcome.state)
        if covering is None or covering.sequence > sequence:
            return False
        why = "out of service" if covering.until_ms is None else "shelved"
        self.ledger.settle_action(
            action.id, "delivered", 0, self.now_ms, f"not told: {why} by {covering.by}".removesuffix(" by ")
        )
        return True

    def apply_command(self, row: Row, command: rows.Command) -> list[Refusal]:
        """Apply a row that is no message; gives what of it could not be done."""
        self.now_ms = row.now_ms
        if self._settings.clock == "arrival":
            self.engine_ms = max(self.engine_ms, row.now_ms)
        sequence = row.position << _SEQUENCE_BITS
        match command:
            case rows.Timers(until_ms, late):
                self.engine_ms = until_ms
                self._take_in(
                    self.shard.advance(until_ms / 1000, late=late, trace=self.on_trace is not None), None, sequence
                )
            case rows.Inputs(inputs):
                self.models.declare(inputs)
            case rows.Deploy(deployment, migrate):
                self.models.load(deployment, migrate=migrate)
                if not migrate:
                    self.ledger.clear_alarms(deployment.handle, None, sequence, row.now_ms)
                    if deployment.kind == "alarm":
                        self.ledger.unshelve(deployment.handle, None, sequence)
            case rows.Withdraw():
                self.models.unload(command.handle)
                self.ledger.clear_alarms(command.handle, None, sequence, row.now_ms)
                self.ledger.unshelve(command.handle, None, sequence)
            case rows.Update(updates):
                return self._each(updates, lambda update: self._update(update, sequence))
            case rows.Delete(targets):
                return self._each(targets, lambda target: self._delete(target, sequence))
            case rows.Operate(operations):
                return self._operate(operations, sequence)
        return []

    def _each(self, items: Sequence[Any], act: Callable[[Any], None]) -> list[Refusal]:
        refused = []
        for index, item in enumerate(items):
            try:
                act(item)
            except LookupError as error:
                refused.append(Refusal(index, "not found", str(error.args[0])))
            except DefinitionError as error:
                refused.append(Refusal(index, "invalid", str(error)))
        return refused

    def _update(self, update: DetectorUpdate, sequence: int) -> None:
        if self.models.get(update.model) is None:
            raise LookupError(f"detector model {update.model!r}: does not exist")
        self.shard.update_detector(
            update.model, update.key, update.state, update.variables, update.timers, self.engine_ms / 1000
        )
        self.ledger.clear_alarms(update.model, update.key, sequence, self.now_ms)

    def _delete(self, target: tuple[str, str], sequence: int) -> None:
        model, key = target
        if not self.shard.delete_detector(model, key):
            raise LookupError(f"detector {model}/{key}: does not exist")
        self.ledger.clear_alarms(model, key, sequence, self.now_ms)

    def _operate(self, operations: Sequence[AlarmOperation], sequence: int) -> list[Refusal]:
        numbers = iter(range(sequence, sequence + len(operations) + 1))

        def operate(operation: AlarmOperation) -> None:
            number, handle = next(numbers), handle_of("alarm", operation.model)
            if self.shard.export(handle, operation.key) is None:
                raise LookupError(f"alarm {operation.model}/{operation.key}: does not exist")
            outcome = self.shard.operate_alarm(
                handle, operation.key, operation.operation, self.engine_ms / 1000,
                note=operation.note, snooze_s=operation.snooze_s or 0,
            )  # fmt: skip
            if operation.operation == "acknowledge":
                self.ledger.acknowledge_alarms(
                    handle, operation.key, operation.by, operation.note, number + 1, self.now_ms
                )
            self._take_in([outcome], None, number)
            if operation.operation in _LAID_ASIDE and not self._was_told(handle, operation.key, number):
                self.ledger.shelve(self._shelved(operation, number + 1))

        return self._each(operations, operate)

    def _shelved(self, operation: AlarmOperation, sequence: int) -> Shelved:
        """What an alarm of an alarm model says of itself after it was snoozed or disabled."""
        alarm = self.shard.export(handle_of("alarm", operation.model), operation.key)
        until = getattr(alarm, "snoozed_until", None)
        return Shelved(
            kind="alarm", model=operation.model, key=operation.key, since_ms=self.now_ms,
            until_ms=None if until is None else int(until * 1000), by=operation.by, note=operation.note,
            sequence=sequence,
        )  # fmt: skip


@contextlib.contextmanager
def surviving() -> Iterator[None]:
    """What an earlier release wrote and this one refuses must not keep everything else from starting."""
    try:
        yield
    except DefinitionError as error:
        log.error("judge: left out: %s", error)


def _is_trace_only(outcome: runtime.Outcome) -> bool:
    """Whether there would be no outcome, had nobody asked for a trace."""
    return not (outcome.created or outcome.event or outcome.condition or outcome.actions or outcome.failures)
