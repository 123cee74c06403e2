"""
The device agent: source → durable outbox → broker, losing nothing and numbering everything.

A reading and the place in the source after it are kept in one transaction. So an agent that is killed at any moment goes on
with the next reading, under the next id: none is skipped, and none is made twice under two ids.
"""

import logging
import queue
import secrets
import threading
from typing import Any, NamedTuple

import msgspec

from wheeltapper import topics
from wheeltapper.clock import Clock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.messages import UNREADABLE, FaultBegun, Reading, TriggerReply, encode
from wheeltapper.outbox import Outbox, Put
from wheeltapper.transport import Delivery
from wheeltapper_device.settings import DeviceSettings
from wheeltapper_device.sources import Source, Step
from wheeltapper_device.triggers import answer_trigger

log = logging.getLogger(__name__)

_STATE = "device"
_BATCH = 500
_BEHIND_S = 1.0
_RETRY_S = 1.0
_IDLE_S = 0.5
_CLOCK_JUMP_MS = 2_000
_REMEMBERED_REQUESTS = 64


class Progress(msgspec.Struct, frozen=True):
    """
    What outlives the process, kept with every batch of readings.

    Args:
        store: names this outbox in message ids, so that a device that lost its disk never repeats an id.
        sequence: the last number used in an id.
        source: the source's identity.
        position: the place in it.
        answered: the latest triggers that were answered, by request id.
    """

    store: str
    sequence: int = 0
    source: str = ""
    position: bytes = b""
    answered: tuple[str, ...] = ()


class Agent:
    """
    Keeps a source's readings in an outbox, at their pace; one thread calls ``run`` or ``tick``.

    Args:
        settings: the device's.
        source: where readings come from; it is put to the place where the outbox says it was.
        outbox: where readings are kept.
        clock: paces and stamps.
    """

    def __init__(self, settings: DeviceSettings, source: Source, outbox: Outbox, clock: Clock) -> None:
        self._settings = settings
        self._source = source
        self._outbox = outbox
        self._clock = clock
        self._triggers: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._reading_topic = topics.topic_of(settings.topics.reading, settings.thing)
        self._fault_topic = topics.topic_of(settings.topics.fault, settings.thing)
        self._reply_topic = (
            topics.topic_of(settings.topics.trigger_ingest, settings.thing) + settings.topics.reply_suffix
        )
        self._progress = self._resume()
        self._sequence = self._progress.sequence
        self._unkept: _Batch | None = None
        self._due = clock.monotonic()
        self._clock_offset_ms = self._offset_ms()
        self.finished = False
        """The source has come to its end."""
        self.trouble = ""
        """Why readings cannot be kept at present; empty when they can."""
        self.fault = ""
        """The last fault that began, for the health report."""

    @property
    def sequence(self) -> int:
        """How many readings this outbox was ever given."""
        return self._progress.sequence

    def take_trigger(self, delivery: Delivery) -> None:
        """Queue a trigger; it is acknowledged when its effect is kept. Safe from any thread."""
        self._triggers.put(delivery)
        self._wake.set()

    def run(self, *, until_sent: bool = False) -> None:
        """Tick until stopped, or until the source has come to its end and nothing waits any more."""
        while not self._stop.is_set():
            pause_s = self.tick()
            if until_sent and self.finished and self._unkept is None and not len(self._outbox):
                return
            self._clock.wait(self._wake, pause_s)
            self._wake.clear()

    def stop(self) -> None:
        """Let ``run`` return."""
        self._stop.set()
        self._wake.set()

    def tick(self) -> float:
        """Keep what is due and answer what was asked; seconds until there is more to do."""
        self._watch_clock()
        if self._unkept is not None and not self._keep(self._unkept):
            return _RETRY_S
        if not self._answer_triggers() or not self._measure():
            return _RETRY_S
        return _IDLE_S if self.finished else max(0.0, self._due - self._clock.monotonic())

    def _measure(self) -> bool:
        """Keep the steps that are due; False when they must wait."""
        now = self._clock.monotonic()
        if now - self._due > _BEHIND_S:
            self._due = now
        puts: list[Put] = []
        steps = 0
        while self._due <= now and steps < _BATCH and (step := self._next()) is not None:
            puts += self._puts(step, now - self._due)
            self._due += step.pause_s
            steps += 1
        return not puts or self._keep(self._batch(puts))

    def _resume(self) -> Progress:
        kept = self._outbox.state(_STATE)
        try:
            progress = msgspec.json.decode(kept, type=Progress) if kept else Progress(store=secrets.token_hex(6))
        except UNREADABLE as error:
            raise SettingsError(f"data directory: its progress cannot be read ({error}); use another") from error
        if progress.source == self._source.identity:
            self._source.restore(progress.position)
            log.info("source: going on after reading %d", progress.sequence)
        elif progress.source:
            log.info("source: is another than before, beginning anew; ids go on after %d", progress.sequence)
        return progress

    def _next(self) -> Step | None:
        step = self._source.next()
        if step is None and not self.finished:
            log.info("source: came to its end after %d readings", self._sequence)
        self.finished = step is None
        return step

    def _puts(self, step: Step, age_s: float = 0.0) -> list[Put]:
        """A step's reading, after the faults that begin with it."""
        self._sequence += 1
        message_id = self._id(self._sequence)
        time_ms = step.time_ms if step.time_ms is not None else self._clock.time_ms() - round(age_s * 1000)
        thing = self._settings.thing
        puts = []
        for fault in step.begun:
            self.fault = f"fault {fault.name} began; it touches {', '.join(fault.sensors)}"
            log.info("machine: %s", self.fault)
            notice = FaultBegun(
                thing=thing,
                time_ms=time_ms,
                fault=fault.name,
                explanation=fault.explanation,
                sensors=list(fault.sensors),
                reading_id=message_id,
            )
            puts.append(Put(self._fault_topic, encode(notice)))
        puts.append(Put(self._reading_topic, encode(Reading(message_id, thing, time_ms, step.values))))
        return puts

    def _batch(
        self, puts: list[Put], answered: tuple[str, ...] | None = None, trigger: Delivery | None = None
    ) -> "_Batch":
        if answered is None:
            answered = self._progress.answered
        position = self._source.position()
        progress = Progress(self._progress.store, self._sequence, self._source.identity, position, answered)
        return _Batch(puts, progress, trigger)

    def _keep(self, batch: "_Batch") -> bool:
        """Keep a batch; one that could not be kept is tried again before anything else."""
        try:
            self._outbox.put_and_wait(batch.puts, states={_STATE: msgspec.json.encode(batch.progress)})
        except UnavailableError as error:
            log.warning("%s; the machine's readings wait", error)
            self._unkept, self.trouble = batch, str(error)
            return False
        self._unkept, self.trouble, self._progress = None, "", batch.progress
        if batch.trigger is not None:
            batch.trigger.acknowledge()
        return True

    def _answer_triggers(self) -> bool:
        """Answer every trigger that waits; False when an answer must wait."""
        while True:
            try:
                trigger = self._triggers.get_nowait()
            except queue.Empty:
                return True
            first = self._sequence + 1
            answer = answer_trigger(trigger.payload, self._settings, self._source, self._progress.answered)
            puts = [put for step in answer.steps for put in self._puts(step)]
            result: dict[str, Any] = {"readings": len(answer.steps)}
            if answer.steps:
                result |= {"first_id": self._id(first), "last_id": self._id(self._sequence)}
            reply = TriggerReply(
                request_id=answer.request_id,
                thing=self._settings.thing,
                time_ms=self._clock.time_ms(),
                status=answer.status,
                detail=answer.detail,
                result=result,
            )
            puts.append(Put(self._reply_topic, encode(reply)))
            if not self._keep(self._batch(puts, self._remembering(answer.request_id), trigger)):
                return False

    def _remembering(self, request_id: str) -> tuple[str, ...]:
        answered = self._progress.answered
        if not request_id or request_id in answered:
            return answered
        return (*answered, request_id)[-_REMEMBERED_REQUESTS:]

    def _id(self, sequence: int) -> str:
        return f"{self._progress.store}-{sequence}"

    def _offset_ms(self) -> float:
        return self._clock.time_ms() - self._clock.monotonic() * 1000.0

    def _watch_clock(self) -> None:
        """Say so when the wall clock was set; the pace is kept by the monotonic clock, stamps follow the wall."""
        offset_ms = self._offset_ms()
        moved_ms = offset_ms - self._clock_offset_ms
        self._clock_offset_ms = offset_ms
        if abs(moved_ms) > _CLOCK_JUMP_MS:
            log.warning("clock: was set by %+.1f s; stamps follow it", moved_ms / 1000.0)


class _Batch(NamedTuple):
    puts: list[Put]
    progress: Progress
    trigger: Delivery | None
