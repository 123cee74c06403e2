"""
Journal, then apply, then tell: what the judge does, on one thread and in the order it is asked.

Nothing here waits, and nothing here reads a clock: ``now_ms`` comes in, goes into the journal, and a replay uses the one
that is written there. So what a restart decides is what was decided.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from wheeltapper.detector import runtime
from wheeltapper.detector.settings import DEFAULTS, EngineSettings
from wheeltapper.errors import DefinitionError, UnavailableError
from wheeltapper.journal import Journal, Row
from wheeltapper.judge import rows
from wheeltapper.judge.ledger import Ledger, read_action, write_audit
from wheeltapper.judge.models import Models
from wheeltapper.judge.news import News, Payload, Reporter
from wheeltapper.judge.recent import RecentIds
from wheeltapper.judge.settings import JudgeSettings
from wheeltapper.judge.snapshots import Base, Snapshots
from wheeltapper.judge.types import Action, AuditRecord, Done, Message, Refusal

log = logging.getLogger(__name__)

_CHUNK = 250
_DAY_MS = 86_400_000
_SEQUENCE_BITS = 24
# So many writes may wait in memory while rows are written; more go with the next row, or keep it out.
_MOST_WAITING = 10_000


class Batch:
    """Messages handed over together and whom to tell, once."""

    __slots__ = ("_done", "messages")

    def __init__(self, messages: Sequence[Message], done: Done) -> None:
        self.messages = messages
        self._done: Done | None = done

    def finish(self, refusals: Sequence[Refusal]) -> None:
        """Tell, whatever the one who is told makes of it."""
        done, self._done = self._done, None
        if done is None:
            return
        try:
            done(refusals)
        except Exception:
            log.exception("judge: who handed over a batch failed to take its answer")

    def refuse(self, detail: str) -> None:
        """Tell that nothing of it was taken, and may be later, unless it is told already."""
        self.finish([Refusal(index, "unavailable", detail) for index in range(len(self.messages))])


class Counters(msgspec.Struct):
    """What has happened since the start."""

    accepted: int = 0
    repeated: int = 0
    refused: int = 0
    failed: int = 0
    last_commit_ms: int = 0
    writable: bool = True


class _Taken(NamedTuple):
    """The part of some batches that goes into one row."""

    messages: list[Message]
    payloads: list[dict[str, Any]]
    fresh_ids: set[tuple[str, str]]


class Core:
    """
    The durable engine.

    Args:
        emit: told of every action that is new or, after a start, still pending.
        engine: the engine's own settings; repeats are this host's business, never the engine's.
    """

    def __init__(
        self,
        path: Path,
        settings: JudgeSettings,
        emit: Callable[[list[Action]], None],
        engine: EngineSettings = DEFAULTS,
    ) -> None:
        self.settings = self._settings = settings
        self._emit = emit
        self.journal = Journal(path, synchronous=settings.synchronous, max_page_count=settings.max_page_count)
        self.counters = Counters()
        self.ledger = Ledger()
        with self.journal.transaction() as connection:
            Ledger.prepare(connection)
            Snapshots.prepare(connection)
            self._journal_id = self._identify()
        self.snapshots = Snapshots(self.journal)
        self.shard = runtime.Shard(msgspec.structs.replace(engine, dedup_window_s=0.0), track=True)
        self.models = Models(self.shard, settings)
        self._reporter = Reporter(settings, self._journal_id, self.shard.export)
        self._recent = RecentIds(settings.dedup_window_s * 1000)
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        self._now_ms = 0
        self._engine_ms = 0
        self._arrived_ms = 0
        self._last_round_ms = 0
        self._emitted: list[Action] = []
        self._saved_at: dict[tuple[str, str], int] = {}
        self.on_trace: Callable[[runtime.Outcome], None] | None = None

    def _identify(self) -> str:
        stored = self.journal.meta("id")
        if stored is None:
            stored = uuid.uuid4().hex.encode()
            self.journal.set_meta("id", stored)
        return stored.decode()

    # --- recovery ----------------------------------------------------------------------------------------------------

    def recover(self, now_ms: int) -> None:
        """Load the last snapshot, replay what follows it, fire what fell due meanwhile."""
        self.ledger.load(self.journal.connection)
        base = self.snapshots.base
        self._now_ms = self._arrived_ms = base.now_ms
        self._engine_ms = base.engine_ms
        self.models.declare(base.inputs)
        for deployment in base.deployments:
            self._survive(partial(self.models.load, deployment))
        later: dict[int, list[tuple[str, str, bytes | None]]] = {}
        for model, key, position, state in self.snapshots.saved():
            if position <= base.position:
                self._place(model, key, state)
            else:
                later.setdefault(position, []).append((model, key, state))
                self._saved_at[model, key] = position
        self.shard.take_touched()
        replayed = 0
        for row in self.journal.rows(base.position):
            self._survive(partial(self._apply, row))
            replayed += 1
            for model, key, state in later.pop(row.position, ()):
                self._place(model, key, state)
            self._flush_early()
        self._saved_at.clear()
        self._recall_ids()
        self._last_round_ms = now_ms
        log.info("judge: %d detectors stand, %d journal rows replayed", self.models.count(), replayed)
        try:
            self._fire(now_ms, late=True)
        except UnavailableError as error:
            log.warning("judge: timers that fell due meanwhile wait: %s", error)
        self._flush_early(at_most=0)
        self._emitted = self._unknown(self._emitted)
        self.ledger.load(self.journal.connection)

    def _flush_early(self, at_most: int = _MOST_WAITING) -> None:
        """Keep what a replay makes again from filling the memory; what is in the table is found there."""
        if self.ledger.waiting > at_most:
            self.flush()
            if not self.ledger.waiting:
                self._emitted.clear()

    def pending(self) -> list[Action]:
        """After ``recover``: actions that wait and that the full disk keeps out of the ledger's table."""
        emitted, self._emitted = self._emitted, []
        return emitted

    def _unknown(self, actions: Sequence[Action]) -> list[Action]:
        return [action for action in actions if read_action(self.journal.connection, action.id) is None]

    def _place(self, model: str, key: str, state: bytes | None) -> None:
        if self.models.get(model) is None:
            return
        if state is None:
            self.shard.delete_detector(model, key)
        else:
            self._survive(partial(self.shard.insert, state))

    @staticmethod
    def _survive(act: Callable[[], object]) -> None:
        """What an earlier release wrote and this one refuses must not keep everything else from starting."""
        try:
            act()
        except DefinitionError as error:
            log.error("judge: left out: %s", error)

    def _recall_ids(self) -> None:
        if not self._settings.deduplicate:
            return
        since = self._now_ms - self._settings.dedup_window_s * 1000
        first = self.journal.first_since(since)
        for row in self.journal.rows(first - 1) if first is not None else ():
            if row.kind == rows.MESSAGES:
                ids = [(each.input, each.message_id) for each in rows.decode_messages(row.entries) if each.message_id]
                self._recent.add(ids, row.now_ms)

    # --- messages ----------------------------------------------------------------------------------------------------

    def accept(self, batches: Sequence[Batch], now_ms: int) -> None:
        """Journal and apply batches in order and call each one's ``done``; a full disk refuses them all."""
        now_ms = max(now_ms, self._now_ms)
        taken = _Taken([], [], set())
        refusals = [self._take(batch.messages, taken, now_ms) for batch in batches]
        if taken.messages:
            try:
                row = self._append(now_ms, rows.MESSAGES, rows.encode_messages(taken.messages))
            except UnavailableError as error:
                self.counters.writable = False
                for batch in batches:
                    batch.refuse(str(error))
                return
            self._recent.add(taken.fresh_ids, now_ms)
            self.counters.accepted += len(taken.messages)
            self._apply_messages(row, taken.messages, taken.payloads)
            self._tell()
        for batch, refused in zip(batches, refusals, strict=True):
            self.counters.refused += len(refused)
            batch.finish(refused)

    def _take(self, messages: Sequence[Message], taken: _Taken, now_ms: int) -> list[Refusal]:
        """Sort out one batch: what can be judged joins the row, repeats vanish, the rest is refused."""
        refused: list[Refusal] = []
        inputs, decode = self.models.inputs, self._decode
        for index, message in enumerate(messages):
            if message.input not in inputs:
                refused.append(Refusal(index, "unknown input", f"input {message.input!r}: does not exist"))
                continue
            try:
                payload = decode(message.payload)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                refused.append(Refusal(index, "invalid", f"payload is not a JSON object: {error}"))
                continue
            if message.message_id and self._settings.deduplicate:
                name = (message.input, message.message_id)
                if name in taken.fresh_ids or self._recent.has(*name, now_ms):
                    self.counters.repeated += 1
                    continue
                taken.fresh_ids.add(name)
            taken.messages.append(message)
            taken.payloads.append(payload)
        return refused

    # --- commands ----------------------------------------------------------------------------------------------------

    def command(self, command: rows.Command, now_ms: int, audit: Sequence[AuditRecord] = ()) -> list[Refusal]:
        """
        Check, journal and apply one command.

        Raises:
            DefinitionError: a definition that is not valid; nothing was journaled.
            UnavailableError: the journal cannot be written; nothing has changed.
        """
        now_ms = max(now_ms, self._now_ms)
        if isinstance(command, rows.Deploy):
            self.models.check(command.deployment, migrate=command.migrate)
        row = self._append(now_ms, rows.KIND_OF[type(command)], rows.encode_command(command), audit)
        refusals = self._apply_command(row, command)
        self._tell()
        if isinstance(command, rows.Deploy | rows.Withdraw | rows.Inputs):
            self._checkpoint_all(None if isinstance(command, rows.Inputs) else command)
        return refusals

    def fire_timers(self, now_ms: int) -> None:
        """Journal and fire the timers that are due; none due, nothing written."""
        self._fire(now_ms, late=False)
        self._tell()

    def _fire(self, now_ms: int, *, late: bool) -> None:
        due_ms = self.next_timer_ms()
        if due_ms is None or due_ms > now_ms:
            return
        command = rows.Timers(max(now_ms, self._engine_ms), late)
        row = self._append(max(now_ms, self._now_ms), rows.TIMERS, rows.encode_command(command))
        self._apply_command(row, command)

    def next_timer_ms(self) -> float | None:
        """When ``fire_timers`` should next be called, on the host's clock."""
        due = self.shard.next_timer()
        if due is None:
            return None
        if self._settings.clock == "arrival":
            return due * 1000
        return max(due * 1000, self._arrived_ms + self._settings.patience_s * 1000)

    # --- journal -----------------------------------------------------------------------------------------------------

    def _append(self, now_ms: int, kind: str, entries: bytes, audit: Sequence[AuditRecord] = ()) -> Row:
        """Write a row; what waits beside it goes along only when there is too much of it."""
        overdue = self.ledger.waiting > _MOST_WAITING
        try:
            if overdue or audit:
                with self.journal.transaction() as connection:
                    row = self.journal.append(now_ms, kind, entries)
                    if overdue:
                        self.ledger.flush(connection)
                    write_audit(connection, audit)
            else:
                row = self.journal.append(now_ms, kind, entries)
        except UnavailableError:
            if self._make_room(now_ms):
                return self._append(now_ms, kind, entries, audit)
            raise
        if overdue:
            self.ledger.committed()
        self.counters.last_commit_ms = now_ms
        self.counters.writable = True
        return row

    def flush(self) -> None:
        """Write what waits beside the journal, of which a replay would make all again; a full disk keeps it waiting."""
        if not self.ledger.waiting:
            return
        try:
            with self.journal.transaction(soon=True) as connection:
                self.ledger.flush(connection)
        except UnavailableError as error:
            self.counters.writable = False
            log.warning("%s", error)
            return
        self.ledger.committed()

    def _make_room(self, now_ms: int) -> bool:
        """Free pages by pruning what a restart does not need; False when there is nothing to prune."""
        try:
            with self.journal.transaction():
                return self.journal.prune(before_ms=now_ms, keep_bytes=0, up_to=self._prunable()) > 0
        except UnavailableError:
            return False

    def maintain(self, now_ms: int) -> bool:
        """A little upkeep: save some detectors, prune a little; True when more of it waits."""
        interval_ms = self._settings.snapshot_interval_s * 1000
        if not self.snapshots.in_round:
            behind = self.journal.position > self.snapshots.base.position
            if not behind or now_ms - self._last_round_ms < interval_ms:
                return False
            self._begin_round()
            self._last_round_ms = now_ms
            self.ledger.prune(int(now_ms - self._settings.keep_days * _DAY_MS), self.snapshots.base.position)
        self._save(_CHUNK)
        return self.snapshots.in_round

    def checkpoint(self) -> None:
        """Save everything, so that a start has nothing to replay."""
        self._begin_round()
        self._save(None)

    def _begin_round(self) -> None:
        self.snapshots.note(self.shard.take_touched())
        self.snapshots.begin(
            Base(
                self.journal.position,
                self._now_ms,
                self._engine_ms,
                dict(self.models.inputs),
                self.models.deployments(),
            )
        )

    def _checkpoint_all(self, command: rows.Deploy | rows.Withdraw | None) -> None:
        """After a definition has changed: what was saved of its detectors is void."""
        if command is not None:
            self.snapshots.void(command.deployment.name if isinstance(command, rows.Deploy) else command.name)
        self.checkpoint()

    def _save(self, limit: int | None) -> None:
        self.snapshots.note(self.shard.take_touched())
        try:
            with self.journal.transaction(soon=limit is not None) as connection:
                self.ledger.flush(connection)
                self.snapshots.write(self.shard, limit)
                keep = self._settings
                self.journal.prune(
                    before_ms=int(self._now_ms - keep.keep_days * _DAY_MS),
                    keep_bytes=keep.keep_bytes,
                    up_to=self._prunable(),
                )
        except UnavailableError as error:
            self.snapshots.undone()
            self.counters.writable = False
            log.warning("judge: snapshot put off: %s", error)
            return
        self.ledger.committed()
        self.snapshots.committed()

    def _prunable(self) -> int:
        """The last position that neither a restart nor the recognition of repeats needs."""
        since = self._now_ms - self._settings.dedup_window_s * 1000
        needed = self.journal.first_since(since) if self._settings.deduplicate else None
        limit = self.snapshots.base.position
        return limit if needed is None else min(limit, needed - 1)

    # --- applying ----------------------------------------------------------------------------------------------------

    def _apply(self, row: Row) -> None:
        """Apply a row of the journal again."""
        if row.kind == rows.MESSAGES:
            messages = rows.decode_messages(row.entries)
            self._apply_messages(row, messages, [self._decode(message.payload) for message in messages])
        else:
            self._apply_command(row, rows.decode_command(row.kind, row.entries))

    def _apply_messages(self, row: Row, messages: Sequence[Message], payloads: Sequence[dict[str, Any]]) -> None:
        self._now_ms = self._arrived_ms = row.now_ms
        put, by_event = self.shard.put, self._settings.clock == "event"
        engine_ms = self._engine_ms if by_event else max(row.now_ms, self._engine_ms)
        sequence = row.position << _SEQUENCE_BITS
        for message, payload in zip(messages, payloads, strict=True):
            if by_event:
                stamp = row.now_ms if message.time_ms is None else min(message.time_ms, row.now_ms)
                engine_ms = max(engine_ms, stamp)
            given = runtime.Message(message.input, payload, message.message_id, message.time_ms)
            try:
                outcomes = put(given, engine_ms / 1000, trace=self.on_trace is not None)
            except Exception:
                self.counters.failed += 1
                log.exception("judge: message %r of input %s failed", message.message_id, message.input)
                continue
            if outcomes:
                sequence = self._take_in(outcomes, payload, sequence, message)
        self._engine_ms = engine_ms

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
            model = self.models.get(outcome.model)
            if model is None:
                continue
            if self._saved_at.get((outcome.model, outcome.key), 0) >= sequence >> _SEQUENCE_BITS:
                continue
            self._record(
                self._reporter.report(model, outcome, payload, sequence, message.hops if message else 0),
                outcome,
                sequence,
            )
        return sequence

    def _record(self, news: News, outcome: runtime.Outcome, sequence: int) -> None:
        if news.moved:
            self.ledger.move_alarm(outcome.model, outcome.key, outcome.state, sequence)
        if news.cleared:
            self.ledger.clear_alarms(outcome.model, outcome.key, sequence, outcome.time_ms)
        if news.raised is not None:
            self.ledger.raise_alarm(news.raised)
        for action in news.actions:
            self.ledger.add_action(action, sequence >> _SEQUENCE_BITS)
            self._emitted.append(action)

    def _tell(self) -> None:
        if self._emitted:
            emitted, self._emitted = self._emitted, []
            try:
                self._emit(emitted)
            except Exception:
                log.exception("judge: actions could not be handed on; they wait for the next start")

    def _apply_command(self, row: Row, command: rows.Command) -> list[Refusal]:
        self._now_ms = row.now_ms
        if self._settings.clock == "arrival":
            self._engine_ms = max(self._engine_ms, row.now_ms)
        sequence = row.position << _SEQUENCE_BITS
        match command:
            case rows.Timers(until_ms, late):
                self._engine_ms = until_ms
                self._take_in(
                    self.shard.advance(until_ms / 1000, late=late, trace=self.on_trace is not None), None, sequence
                )
            case rows.Inputs(inputs):
                self.models.declare(inputs)
            case rows.Deploy(deployment, migrate):
                self.models.load(deployment, migrate=migrate)
                if not migrate:
                    self.ledger.clear_alarms(deployment.name, None, sequence, row.now_ms)
            case rows.Withdraw(name):
                self.models.unload(name)
                self.ledger.clear_alarms(name, None, sequence, row.now_ms)
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

    def _update(self, update: Any, sequence: int) -> None:
        if self.models.get(update.model) is None:
            raise LookupError(f"detector model {update.model!r}: does not exist")
        self.shard.update_detector(
            update.model, update.key, update.state, update.variables, update.timers, self._engine_ms / 1000
        )
        self.snapshots.note([(update.model, update.key)])
        self.ledger.clear_alarms(update.model, update.key, sequence, self._now_ms)

    def _delete(self, target: tuple[str, str], sequence: int) -> None:
        model, key = target
        if not self.shard.delete_detector(model, key):
            raise LookupError(f"detector {model}/{key}: does not exist")
        self.snapshots.note([target])
        self.ledger.clear_alarms(model, key, sequence, self._now_ms)

    def _operate(self, operations: Sequence[Any], sequence: int) -> list[Refusal]:
        numbers = iter(range(sequence, sequence + len(operations) + 1))

        def operate(operation: Any) -> None:
            number = next(numbers)
            if self.shard.export(operation.model, operation.key) is None:
                raise LookupError(f"alarm {operation.model}/{operation.key}: does not exist")
            outcome = self.shard.operate_alarm(
                operation.model, operation.key, operation.operation, self._engine_ms / 1000,
                note=operation.note, snooze_s=operation.snooze_s or 0,
            )  # fmt: skip
            self.snapshots.note([(operation.model, operation.key)])
            if operation.operation == "acknowledge":
                self.ledger.acknowledge_alarms(
                    operation.model, operation.key, operation.by, operation.note, number + 1, self._now_ms
                )
            self._take_in([outcome], None, number)

        return self._each(operations, operate)

    def close(self) -> None:
        """Save everything and release the file."""
        self.checkpoint()
        self.flush()
        self.journal.close()


def _is_trace_only(outcome: runtime.Outcome) -> bool:
    """Whether there would be no outcome, had nobody asked for a trace."""
    return not (outcome.created or outcome.event or outcome.condition or outcome.actions or outcome.failures)
