"""
Journal, then apply, then tell: what the judge does, on one thread and in the order it is asked.

Nothing here waits, and nothing here reads a clock: ``now_ms`` comes in, goes into the journal, and a replay uses the one
that is written there. So what a restart decides is what was decided.
"""

import contextlib
import logging
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from wheeltapper.detector.settings import DEFAULTS, EngineSettings
from wheeltapper.errors import UnavailableError
from wheeltapper.journal import Journal, Row
from wheeltapper.judge import alarms, rows, shelf, takeover
from wheeltapper.judge.applier import Applier, surviving
from wheeltapper.judge.ledger import Ledger, read_action, strike_audit, write_actions, write_audit
from wheeltapper.judge.news import told_again
from wheeltapper.judge.recent import RecentIds
from wheeltapper.judge.settings import JudgeSettings
from wheeltapper.judge.snapshots import Base, Snapshots
from wheeltapper.judge.types import Action, AuditRecord, Done, Message, Refusal, Shelved

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
        self._settings = settings
        self._emit = emit
        self.journal = Journal(path, synchronous=settings.synchronous, max_page_count=settings.max_page_count)
        self.counters = Counters()
        with self.journal.transaction() as connection:
            Ledger.prepare(connection)
            Snapshots.prepare(connection)
            journal_id = self._identify()
        self.snapshots = Snapshots(self.journal)
        self.applier = Applier(settings, journal_id, engine)
        self.ledger, self.shard, self.models = self.applier.ledger, self.applier.shard, self.applier.models
        self._recent = RecentIds(settings.dedup_window_s * 1000)
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        self._last_round_ms = 0
        self._left: list[Action] = []

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
        base, applier = self.snapshots.base, self.applier
        applier.begin(base)
        later: dict[int, list[tuple[str, str, bytes | None]]] = {}
        for model, key, position, state in self.snapshots.saved():
            if position <= base.position:
                applier.place(model, key, state)
            else:
                later.setdefault(position, []).append((model, key, state))
                applier.saved_at[model, key] = position
        self.shard.take_touched()
        replayed = 0
        for row in self.journal.rows(base.position):
            with surviving():
                applier.apply(row)
            replayed += 1
            for model, key, state in later.pop(row.position, ()):
                applier.place(model, key, state)
            if self.ledger.waiting > _MOST_WAITING:
                self._keep_pending()
        applier.saved_at.clear()
        self._recall_ids()
        self._last_round_ms = now_ms
        log.info("judge: %d detectors stand, %d journal rows replayed", self.models.count(), replayed)
        try:
            self._take_back(self.ledger.shelf.due(now_ms), now_ms)  # told with all that is pending
            self._fire(now_ms, late=True)
        except UnavailableError as error:
            log.warning("judge: what fell due meanwhile waits: %s", error)
        self._keep_pending()
        self.ledger.load(self.journal.connection)
        for entry in takeover.laid_aside(self.journal.connection, self.shard, self.models, self.ledger.shelf):
            self.ledger.shelve(msgspec.structs.replace(entry, sequence=self._behind_all()))

    def _keep_pending(self) -> None:
        """Have what a replay brought up again found in the table, where what is known stands as well."""
        self.flush()
        emitted = self.applier.take_emitted()
        if self.ledger.waiting:
            known = self.journal.connection
            self._left += [action for action in emitted if read_action(known, action.id) is None]

    def pending(self) -> list[Action]:
        """After ``recover``: actions that wait and that the full disk keeps out of the ledger's table."""
        left, self._left = self._left, []
        return left

    def _recall_ids(self) -> None:
        if not self._settings.deduplicate:
            return
        since = self.applier.now_ms - self._settings.dedup_window_s * 1000
        first = self.journal.first_since(since)
        for row in self.journal.rows(first - 1) if first is not None else ():
            if row.kind == rows.MESSAGES:
                ids = [(each.input, each.message_id) for each in rows.decode_messages(row.entries) if each.message_id]
                self._recent.add(ids, row.now_ms)
            elif row.kind == rows.INPUTS:
                self._forget_ids(rows.decode_command(row.kind, row.entries))

    def _forget_ids(self, command: rows.Command) -> None:
        """An input that is made anew after a removal has had no message."""
        if isinstance(command, rows.Inputs):
            self._recent.keep(command.inputs)

    # --- messages ----------------------------------------------------------------------------------------------------

    def accept(self, batches: Sequence[Batch], now_ms: int) -> None:
        """Journal and apply batches in order and call each one's ``done``; a full disk refuses them all."""
        now_ms = max(now_ms, self.applier.now_ms)
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
            self.applier.apply_messages(row, taken.messages, taken.payloads)
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
        now_ms = max(now_ms, self.applier.now_ms)
        if isinstance(command, rows.Deploy):
            self.models.check(command.deployment, migrate=command.migrate)
        row = self._append(now_ms, rows.KIND_OF[type(command)], rows.encode_command(command), audit)
        refusals = self.applier.apply_command(row, command)
        self._forget_ids(command)
        self._tell()
        if isinstance(command, rows.Deploy | rows.Withdraw | rows.Inputs):
            self._checkpoint_all(None if isinstance(command, rows.Inputs) else command)
        return refusals

    def strike(self, records: Sequence[AuditRecord]) -> None:
        """Take acts off the record that were written with a command and refused."""
        if not records:
            return
        try:
            with self.journal.transaction() as connection:
                strike_audit(connection, records)
        except UnavailableError as error:
            log.warning("judge: %d acts that were refused stay on record: %s", len(records), error)

    def fire_timers(self, now_ms: int) -> None:
        """Journal and fire the timers that are due; none due, nothing written."""
        self._fire(now_ms, late=False)
        self._tell()

    def _fire(self, now_ms: int, *, late: bool) -> None:
        due_ms = self.applier.next_timer_ms()
        if due_ms is None or due_ms > now_ms:
            return
        command = rows.Timers(max(now_ms, self.applier.engine_ms), late)
        row = self._append(max(now_ms, self.applier.now_ms), rows.TIMERS, rows.encode_command(command))
        self.applier.apply_command(row, command)

    def _tell(self) -> None:
        if emitted := self.applier.take_emitted():
            self.hand_on(emitted)

    def hand_on(self, actions: list[Action]) -> None:
        """Have actions carried out that are durable."""
        try:
            self._emit(actions)
        except Exception:
            log.exception("judge: actions could not be handed on; they wait for the next start")

    # --- the shelf ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def beside(self) -> Iterator[sqlite3.Connection]:
        """
        A transaction for what operators do, beside the journal and behind all that it has caused; durable when it ends.

        Raises:
            UnavailableError: the disk cannot be written; nothing has changed.
        """
        with self.journal.transaction() as connection:
            self.ledger.flush(connection)
            yield connection
        self.ledger.committed()

    def shelve(self, entry: Shelved, audit: Sequence[AuditRecord]) -> None:
        """
        Keep alarms of a detector from operators; durable on return.

        Raises:
            UnavailableError: the disk cannot be written; nothing has changed.
        """
        entry = msgspec.structs.replace(entry, sequence=self._behind_all())
        with self.beside() as connection:
            shelf.write(connection, entry)
            write_audit(connection, audit)
        self.ledger.shelf.put(entry)

    def _behind_all(self) -> int:
        """The journal's place behind every outcome so far."""
        return ((self.journal.position + 1) << _SEQUENCE_BITS) - 1

    def unshelve(self, entries: Sequence[Shelved], now_ms: int, audit: Sequence[AuditRecord] = ()) -> None:
        """
        Give alarms back to operators, and tell of those that wait for somebody; durable on return.

        Raises:
            UnavailableError: the disk cannot be written; nothing has changed.
        """
        if again := self._take_back(entries, now_ms, audit):
            self.hand_on(again)

    def _take_back(self, entries: Sequence[Shelved], now_ms: int, audit: Sequence[AuditRecord] = ()) -> list[Action]:
        """Clear these from the shelf; gives what is to be told now, which is pending in the same transaction."""
        again: list[Action] = []
        if not entries:
            return again
        with self.beside() as connection:
            shelf.erase(connection, entries)
            if self._settings.publish_alarms:
                found = [record for entry in entries for record in alarms.waiting(connection, entry)]
                again = [told_again(record, self._settings.alarm_topic, now_ms) for record in found]
            write_actions(connection, again)
            write_audit(connection, audit)
        self.ledger.load(self.journal.connection)
        log.info("judge: %d entries are off the shelf, %d alarms are told again", len(entries), len(again))
        return again

    def end_shelving(self, now_ms: int) -> None:
        """Give back what was shelved until now; nothing due, nothing written."""
        if due := self.ledger.shelf.due(now_ms):
            self.unshelve(due, now_ms)

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
                self.applier.now_ms,
                self.applier.engine_ms,
                dict(self.models.inputs),
                self.models.deployments(),
            )
        )

    def _checkpoint_all(self, command: rows.Deploy | rows.Withdraw | None) -> None:
        """After a definition has changed: what was saved of its detectors is void."""
        if command is not None:
            self.snapshots.void(command.handle)
        self.checkpoint()

    def _save(self, limit: int | None) -> None:
        self.snapshots.note(self.shard.take_touched())
        try:
            with self.journal.transaction(soon=limit is not None) as connection:
                self.ledger.flush(connection)
                self.snapshots.write(self.shard, limit)
                keep = self._settings
                self.journal.prune(
                    before_ms=int(self.applier.now_ms - keep.keep_days * _DAY_MS),
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
        since = self.applier.now_ms - self._settings.dedup_window_s * 1000
        needed = self.journal.first_since(since) if self._settings.deduplicate else None
        limit = self.snapshots.base.position
        return limit if needed is None else min(limit, needed - 1)

    def close(self) -> None:
        """Save everything and release the file."""
        self.checkpoint()
        self.flush()
        self.journal.close()
