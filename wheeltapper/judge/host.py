"""
The judge: a durable host around the pure detector engine, for the cloud and the gateway alike.

Everything that can change a detector (messages, deployments, operators' commands, the clock reading at which timers fire)
is written to the journal and synced before it is applied, and applied in the order written. So a restart, however
sudden, loads the last snapshot, replays the rest and stands exactly where it stood. One thread owns the engine and the
journal; every method may be called from any thread.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from wheeltapper.clock import Clock
from wheeltapper.detector.handle import Kind, handle_of
from wheeltapper.detector.runtime import Outcome
from wheeltapper.detector.settings import DEFAULTS, EngineSettings
from wheeltapper.errors import UnavailableError
from wheeltapper.judge import acts, alarms, ledger, rows, shelf, shelving, views
from wheeltapper.judge.acts import recorded
from wheeltapper.judge.core import Batch, Core
from wheeltapper.judge.settings import JudgeSettings
from wheeltapper.judge.types import (
    Action,
    ActionRecord,
    ActionStatus,
    AlarmOperation,
    AlarmRecord,
    AlarmView,
    AuditRecord,
    Deployment,
    DetectorUpdate,
    DetectorView,
    Done,
    Message,
    Refusal,
    ShelfOperation,
    Shelved,
    Statistics,
)
from wheeltapper.judge.worker import Work, Worker

log = logging.getLogger(__name__)

DATABASE = "judge.db"

_IDLE_S = 1.0
# So long may wait in memory what stands beside the journal: a crash then has it made again by the replay.
_LINGER_S = 0.02
_CHECKPOINT_S = 1.0
_MEASURE_S = 2.0

T = TypeVar("T")


class Judge:
    """
    Detectors that survive anything.

    >>> judge = Judge(Path("/var/lib/wheeltapper"), clock, JudgeSettings())  # doctest: +SKIP
    >>> judge.start(); judge.declare_inputs({"Reading": ["TT01"]}); judge.deploy(deployment)  # doctest: +SKIP
    >>> judge.put([Message("Reading", b'{"TT01": 71.5}')])  # doctest: +SKIP
    []
    """

    def __init__(
        self,
        data_dir: Path,
        clock: Clock,
        settings: JudgeSettings | None = None,
        *,
        on_actions: Callable[[list[Action]], None] | None = None,
        engine: EngineSettings = DEFAULTS,
    ) -> None:
        """
        Args:
            data_dir: holds ``judge.db``; made if missing; one process at a time.
            on_actions: called on the judge's thread with actions that are durable and to be carried out; must not block.
                Whoever carries them out says so with ``settle``.
        """
        self._path = data_dir / DATABASE
        self._clock = clock
        self._settings = settings or JudgeSettings()
        self._engine = engine
        self._on_actions = on_actions or (lambda _actions: None)
        self._worker = Worker(self._work, self._patience_s)
        self._settled: deque[tuple[str, ActionStatus, int, int, str]] = deque()
        self._core: Core | None = None
        self._keeper: threading.Thread | None = None
        self._stop = threading.Event()
        self._overgrown = False
        self._detectors = 0
        self._journal_bytes = 0
        self._measured_at = self._flushed_at = float("-inf")

    def start(self, *, thread: bool = True) -> None:
        """
        Recover and begin to judge.

        Args:
            thread: without one, every call does its work before it returns, and ``tick`` fires timers: for tests in
                virtual time and for hosts that have a loop of their own.

        Raises:
            UnavailableError: the data directory cannot be written, or another process holds it.
        """
        core = Core(self._path, self._settings, self._on_actions, self._engine)
        try:
            core.recover(self._clock.time_ms())
        except BaseException:
            core.journal.close()
            raise
        self._core = core
        self._measure(core)
        self._worker.start(thread=False)
        self._emit_pending()
        if thread:
            self._worker.start(thread=True)
            self._keeper = threading.Thread(target=self._keep, name="judge-keeper", daemon=True)
            self._keeper.start()

    def close(self) -> None:
        """Apply what was handed over, take a snapshot, stop; harmless when repeated."""
        if not self._worker.close() or self._core is None:
            return
        self._stop.set()
        if self._keeper is not None:
            self._keeper.join()
        self._take_settled()
        self._core.close()

    # --- definitions -------------------------------------------------------------------------------------------------

    def declare_inputs(self, inputs: Mapping[str, Sequence[str]]) -> None:
        """Replace the set of inputs (name → attribute paths) that messages may name; durable."""
        command = rows.Inputs({name: list(paths) for name, paths in inputs.items()})

        def declare(core: Core) -> None:
            if core.models.inputs != command.inputs:
                core.command(command, self._now())

        self._ask(declare)

    def deploy(self, deployment: Deployment, *, migrate: bool = False, by: str = "") -> None:
        """
        Put a definition in force, replacing any version of the same kind and name; durable when this returns.

        Its detectors are deleted, as AWS does, or with ``migrate`` keep state, variables and timers whose names still
        exist. Deploying what is in force already changes nothing.

        Raises:
            DefinitionError: the definition is not valid, or cannot take over the detectors.
            UnavailableError: the journal cannot be written.
        """
        command = rows.Deploy(deployment, migrate)

        def deploy_new(core: Core) -> None:
            if deployment not in core.models.deployments():
                record = recorded(
                    self._now(), by, "deploy", deployment.name, note=deployment.version, kind=deployment.kind
                )
                core.command(command, self._now(), record)

        self._ask(deploy_new)

    def withdraw(self, name: str, *, kind: Kind = "detector", by: str = "") -> None:
        """Take a model and its detectors out of force; harmless when it is not in force."""

        def withdraw(core: Core) -> None:
            if core.models.get(handle_of(kind, name)) is not None:
                core.command(
                    rows.Withdraw(name, kind), self._now(), recorded(self._now(), by, "withdraw", name, kind=kind)
                )

        self._ask(withdraw)

    def deployments(self) -> list[Deployment]:
        """What is in force."""
        return self._ask(lambda core: core.models.deployments())

    # --- messages ----------------------------------------------------------------------------------------------------

    def submit(self, messages: Sequence[Message], done: Done) -> None:
        """Hand over a batch without waiting; ``done`` is called when it is durable and applied, or refused."""
        self._worker.submit(Batch(messages, done))

    def submit_from(self, pull: Callable[[], tuple[Sequence[Message], Done]]) -> None:
        """
        Hand over whatever a source has gathered by the time the judge gets to it.

        Args:
            pull: called once, when its turn comes; gives a batch and its ``done``, as ``submit`` takes them.
        """
        self._worker.submit_from(pull)

    def put(self, messages: Sequence[Message]) -> list[Refusal]:
        """
        Hand over a batch and wait until it is durable and applied.

        Raises:
            UnavailableError: nothing of it could be written (disk full, closing); send it again later.
        """
        finished = threading.Event()
        refusals: list[Refusal] = []

        def done(refused: Sequence[Refusal]) -> None:
            refusals.extend(refused)
            finished.set()

        self.submit(messages, done)
        finished.wait()
        if any(refusal.reason == "unavailable" for refusal in refusals):
            raise UnavailableError(refusals[0].detail)
        return refusals

    # --- operators ---------------------------------------------------------------------------------------------------

    def update_detectors(self, updates: Sequence[DetectorUpdate], *, by: str = "") -> list[Refusal]:
        """BatchUpdateDetector: durable and applied on return; creates a detector that is not there."""
        records = [recorded(self._now(), by, "update", each.model, each.key, each.state) for each in updates]
        return self._act(rows.Update(list(updates)), records)

    def delete_detectors(self, targets: Sequence[tuple[str, str]], *, by: str = "") -> list[Refusal]:
        """BatchDeleteDetector: (model, key) pairs; durable and applied on return."""
        records = [recorded(self._now(), by, "delete", model, key) for model, key in targets]
        return self._act(rows.Delete(list(targets)), records)

    def operate_alarms(self, operations: Sequence[AlarmOperation]) -> list[Refusal]:
        """Alarms of alarm models: acknowledge, disable, enable, reset, snooze; durable and applied on return."""
        records = [
            recorded(
                self._now(), each.by, each.operation, each.model, each.key, each.note, kind="alarm", for_s=each.snooze_s
            )
            for each in operations
        ]
        return self._act(rows.Operate(list(operations)), records)

    def _act(self, command: rows.Command, records: Sequence[list[AuditRecord]]) -> list[Refusal]:
        """Do a batch; the records of what of it is refused do not stay in the audit trail."""

        def act(core: Core) -> list[Refusal]:
            refused = core.command(command, self._now(), [record for each in records for record in each])
            core.strike([record for each in refused for record in records[each.index]])
            return refused

        return self._ask(act)

    def acknowledge(self, alarm_id: str, *, by: str, note: str = "") -> AlarmRecord | None:
        """
        Note who has taken up an alarm of a detector model; the detector itself is not told.

        Returns:
            The alarm, None where there is none of this id.
        """
        return self._ask(lambda core: acts.acknowledge(core, alarm_id, self._now(), by, note))

    def shelve(self, operation: ShelfOperation) -> Refusal | None:
        """
        Spare operators the alarms of a detector, or give them back; durable on return. The detector goes on as it was.

        Returns:
            Why it cannot be done; None where it is.
        """
        for_s = operation.for_s if operation.operation == "shelve" else None
        named = (operation.by, operation.operation, operation.model, operation.key, operation.note)
        audit = recorded(self._now(), *named, for_s=for_s)
        return self._ask(lambda core: shelving.operate(core, operation, self._now(), audit))

    def shelf(self) -> list[Shelved]:
        """All that operators have shelved or taken out of service; what comes back soonest first."""
        return self._read(shelf.read_shelf)

    # --- actions -----------------------------------------------------------------------------------------------------

    def settle(self, action_id: str, status: ActionStatus, *, attempts: int = 1, detail: str = "") -> None:
        """Say what became of an action, or how often it was tried (``pending``); on disk soon, a repeat is harmless."""
        self._running()
        self._settled.append((action_id, status, attempts, self._now(), detail))
        if not self._worker.threaded:
            self._take_settled()

    def order(self, actions: Sequence[Action]) -> int:
        """Have further actions carried out, durably; those whose id is known are left alone. Gives how many were new."""
        return self._ask(lambda core: acts.order(core, actions))

    def replay_actions(self, action_ids: Sequence[str], *, by: str = "") -> int:
        """Try again what was parked, failed or undelivered; returns how many there were."""
        return self._ask(lambda core: acts.replay(core, action_ids, self._now(), by))

    def pending_actions(self, after: tuple[int, str] = (0, ""), limit: int = 1000) -> list[Action]:
        """The oldest actions that wait, behind a (time_ms, id)."""
        return self._read(lambda connection: ledger.read_pending(connection, after, limit))

    def attempts(self) -> dict[str, int]:
        """How often each action that waits was tried, of those that were."""
        return self._read(ledger.read_attempts)

    def actions(self, statuses: Sequence[ActionStatus] = (), *, limit: int = 1000) -> list[ActionRecord]:
        """What became of the newest actions."""
        return self._read(lambda connection: ledger.read_actions(connection, statuses, limit=limit))

    # --- queries, consistent with what is applied --------------------------------------------------------------------

    def detector(self, model: str, key: str = "") -> DetectorView | None:
        """One detector of a detector model."""
        return self._ask(lambda core: views.detector(core.shard, model, key))

    def detectors(
        self, model: str, *, state: str | None = None, after: str | None = None, limit: int = 250
    ) -> list[DetectorView]:
        """A page of a model's detectors in order of their keys, beginning after the key ``after``."""
        return self._ask(lambda core: views.detectors(core.shard, model, state, after, limit))

    def alarm(self, model: str, key: str = "") -> AlarmView | None:
        """One alarm of an alarm model."""
        handle = handle_of("alarm", model)
        return self._ask(lambda core: views.alarm(core.shard, core.ledger.shelf, core.models.get(handle), key))

    def alarms(self, model: str, *, after: str | None = None, limit: int = 250) -> list[AlarmView]:
        """A page of an alarm model's alarms in order of their keys."""
        handle = handle_of("alarm", model)
        return self._ask(
            lambda core: views.alarms(core.shard, core.ledger.shelf, core.models.get(handle), after, limit)
        )

    def raised_alarms(self, *, closed: bool = False, limit: int = 1000) -> list[AlarmRecord]:
        """Alarms that stand open (or, with ``closed``, those that are over too), of detector and alarm models alike."""
        return self._read(lambda connection: alarms.read_alarms(connection, closed=closed, limit=limit))

    def raised_alarm(self, alarm_id: str) -> AlarmRecord | None:
        """One of them."""
        return self._read(lambda connection: alarms.read_alarm(connection, alarm_id))

    def audit_trail(self, *, limit: int = 1000) -> list[AuditRecord]:
        """Who did what, oldest first."""
        return self._read(lambda connection: ledger.read_audit(connection, limit=limit))

    def statistics(self) -> Statistics:
        """Counters and depths; does not wait for the judge's thread."""
        core = self._running()
        counters = core.counters
        return Statistics(
            accepted=counters.accepted,
            repeated=counters.repeated,
            refused=counters.refused,
            failed=core.applier.failed,
            dropped=core.shard.without_key,
            applied_position=core.journal.position,
            snapshot_position=core.snapshots.base.position,
            queue_depth=self._worker.depth,
            detectors=self._detectors,
            actions_pending=core.ledger.count("pending"),
            actions_parked=core.ledger.count("parked"),
            last_commit_ms=counters.last_commit_ms,
            journal_bytes=self._journal_bytes,
            writable=counters.writable,
        )

    def watch(self, on_trace: Callable[[Outcome], None] | None) -> None:
        """Have every pass traced and its outcome given to ``on_trace``, on the judge's thread; None ends it."""

        def set_watch(core: Core) -> None:
            core.applier.on_trace = on_trace

        self._ask(set_watch)

    # --- the judge's thread ------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Fire due timers and do a little upkeep; only where ``start`` made no thread."""
        self._worker.tick()

    def _now(self) -> int:
        return self._clock.time_ms()

    def _running(self) -> Core:
        if self._core is None:
            raise UnavailableError("judge: not started")
        return self._core

    def _ask(self, function: Callable[[Core], T]) -> T:
        core = self._running()
        return self._worker.ask(lambda: function(core))

    def _read(self, function: Callable[[Any], T]) -> T:
        """Read the tables on the caller's thread, after everything settled so far is in them."""
        core = self._running()
        self._ask(lambda core: core.flush())
        connection = core.journal.reader()
        try:
            return function(connection)
        finally:
            connection.close()

    def _patience_s(self) -> float:
        core = self._running()
        if core.snapshots.in_round:
            return 0.0
        idle_s = _LINGER_S if core.ledger.waiting else _IDLE_S
        due = [ms for ms in (core.applier.next_timer_ms(), core.ledger.shelf.next_ms) if ms is not None]
        return min(max((min(due) - self._now()) / 1000, 0.0), idle_s) if due else idle_s

    def _work(self, work: Work) -> None:
        """What is back from the shelf, then what was handed over, in order, then timers that are due, then upkeep."""
        core = self._running()
        self._take_settled()
        now_ms = self._now()
        self._end(core.end_shelving, now_ms)
        batches: list[Batch] = []
        for item in work:
            if isinstance(item, Batch):
                batches.append(item)
                continue
            if batches:
                core.accept(batches, now_ms)
                batches = []
            item.run()
        if batches:
            core.accept(batches, now_ms)
        self._end(core.fire_timers, now_ms)
        self._upkeep(core, now_ms, idle=not work)

    def _take_settled(self) -> None:
        """What became of actions, as it was left here without waking the judge's thread."""
        record = self._running().ledger.settle_action
        while self._settled:
            record(*self._settled.popleft())

    def _end(self, what: Callable[[int], None], now_ms: int) -> None:
        """End timers or shelvings whose time is over."""
        try:
            what(now_ms)
        except UnavailableError as error:
            log.warning("judge: what is due waits: %s", error)
            self._stop.wait(0.1)

    def _upkeep(self, core: Core, now_ms: int, *, idle: bool) -> None:
        monotonic = self._clock.monotonic()
        if core.ledger.waiting and (idle or monotonic - self._flushed_at >= _LINGER_S):
            core.flush()
            self._flushed_at = monotonic
        core.maintain(now_ms)
        if monotonic - self._measured_at >= _MEASURE_S:
            self._measure(core)
        if self._overgrown:
            self._overgrown = False
            core.journal.restart()

    def _measure(self, core: Core) -> None:
        """What statistics tell and is too dear to be looked up at every scrape."""
        self._measured_at = self._clock.monotonic()
        self._detectors = core.models.count()
        self._journal_bytes = core.journal.size()

    def _keep(self) -> None:
        """Checkpoint beside the writer, so that no commit has to."""
        core = self._running()
        while not self._stop.wait(_CHECKPOINT_S):
            self._overgrown = core.journal.checkpoint() or self._overgrown

    def _emit_pending(self) -> None:
        if unsaved := self._running().pending():
            self._on_actions(unsaved)
        after = (0, "")
        while pending := self.pending_actions(after):
            self._on_actions(pending)
            after = (pending[-1].time_ms, pending[-1].id)
