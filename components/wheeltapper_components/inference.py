"""
The inference process: readings in, predictions out, each once, whatever is restarted in between.

A delivery is acknowledged when its prediction, what the model remembers of the thing and the reading's message id are on
disk in one transaction. One thread does all the work, in batches of what waits; with nothing waiting it sleeps until
something comes.
"""

import contextlib
import logging
import math
import threading
import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import MessageError, SettingsError, UnavailableError
from wheeltapper.messages import Reading, Value
from wheeltapper.outbox import Put
from wheeltapper.topics import filter_of, topic_of
from wheeltapper.transport import Delivery
from wheeltapper_components.drift import DriftWatch, Scored
from wheeltapper_components.health import Pulse
from wheeltapper_components.inbox import Arrival, Inbox
from wheeltapper_components.kept import ThingMemory
from wheeltapper_components.links import Links
from wheeltapper_components.pacing import Step
from wheeltapper_components.predictions import encode_prediction, prediction_of
from wheeltapper_components.readings import OrderBuffer, SeenIds, Verdict, read_reading
from wheeltapper_components.settings import GatewaySettings
from wheeltapper_components.swap import Seat, Shelf
from wheeltapper_components.triggers import answer
from wheeltapper_models.pace import LARGEST
from wheeltapper_models.serving import Judged, SensorRow

log = logging.getLogger(__name__)

PROCESS = "inference"
_PATIENCE_S = 0.5
_RETRY_S = 1.0
_UPKEEP_S = 1.0


class Item(NamedTuple):
    """
    A reading on its way to a model, or the row that it completed.

    ``timed``: it says itself when it was taken. ``told``: a prediction is to come of it; else a silent period's row.
    """

    reading: Reading
    reading_id: str
    key: str
    timed: bool = True
    told: bool = True


class Waiting(NamedTuple):
    """A reading and its deliveries, of which all but the first are repeats: all are acknowledged when it is on disk."""

    item: Item
    deliveries: list[Delivery]


class Counts(msgspec.Struct):
    """What became of readings since the start."""

    readings: int = 0
    scored: int = 0
    predictions: int = 0
    anomalies: int = 0
    warming: int = 0
    repeats: int = 0
    late: int = 0
    restarts: int = 0
    merged: int = 0
    slow: int = 0
    malformed: int = 0
    empty: int = 0
    unassigned: int = 0
    forgotten: int = 0
    failed: int = 0


class Inference:
    """
    Scores readings and answers triggers.

    Args:
        settings: models, topics, treatment of readings.
        links: where readings come from (the first) and predictions go to.
        clock: stamps and waits.
        inbox: where to go on taking from after a change of settings; one of its own otherwise.
    """

    def __init__(self, settings: GatewaySettings, links: Links, clock: Clock, inbox: Inbox | None = None) -> None:
        self.settings = settings
        self.counts = Counts()
        self.pulse = Pulse(settings, PROCESS, links, clock, self._condition)
        self._links = links
        self._clock = clock
        self._inbox = inbox or Inbox(clock)
        self._own_inbox = inbox is None
        self._stop = threading.Event()
        self._seen = SeenIds(settings.order.remember)
        self._buffer: OrderBuffer[Waiting] = OrderBuffer(settings.order.hold_ms, settings.order.late_ms)
        self._held: dict[str, list[Delivery]] = {}
        self._unkept = ""
        self._failures = 0
        outbox = links.first.outbox
        self.shelf = Shelf(
            settings.models,
            settings.watch,
            settings.shadow,
            self._report,
            kept=outbox.states("model/"),
            keep=lambda name, state: outbox.put((), states={name: state}),
            learners=settings.forest.max_things,
        )
        self._memory = ThingMemory(settings, self.shelf, outbox, clock)
        self.drift = DriftWatch(settings, links, clock)
        self._threads: list[threading.Thread] = []

    # --- life --------------------------------------------------------------------------------------------------------

    def open(self, *, wait_for_models: bool = False) -> None:
        """
        Load models and what was kept, and subscribe; nothing is scored before ``start`` or ``work``.

        Args:
            wait_for_models: go on without a model that is not there yet; it serves once it is found.

        Raises:
            ModelError: a model cannot be loaded.
        """
        if wait_for_models:
            self.shelf.look()
        else:
            self.shelf.load()
        self._memory.restore()
        self._seen.restore(self._links.first.outbox.states("seen/").values())
        topics, inbox, thing = self.settings.topics, self._inbox, self.settings.default_thing
        for link in self._links.all:
            if link.reads:
                link.transport.subscribe(filter_of(topics.reading), inbox.receiver("reading", topics.reading, thing))
            trigger = inbox.receiver("trigger", topics.trigger_infer, thing)
            link.transport.subscribe(filter_of(topics.trigger_infer), trigger)

    def start(self) -> None:
        """Begin to score, and to look for new models."""
        self._threads = [
            threading.Thread(target=self._run, name=PROCESS, daemon=True),
            threading.Thread(target=self.shelf.watch, args=(self._stop, self._clock), name="models", daemon=True),
            threading.Thread(target=self._keep_up, name="upkeep", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self.pulse.beat("ready")

    def close(self) -> None:
        """Stop taking work and keep each thing's last rows; what is not acknowledged comes again. Harmless when repeated."""
        self._stop.set()
        if self._own_inbox:
            self._inbox.close()
        self._inbox.wake()
        for thread in self._threads:
            thread.join(5.0)
        self._threads = []
        for seat in self.shelf.seats:
            if seat.slot is not None:
                self._memory.forests.save_all(seat.slot)
        with contextlib.suppress(UnavailableError):  # closed before, or a full disk: the next swap is a cold start
            self.drift.close()
            self._links.first.outbox.put((), states=self._memory.rows())

    def _drop_surplus(self) -> dict[str, bytes]:
        """Forget the things that are too many, and the states by which they are forgotten on disk."""
        states: dict[str, bytes] = {}
        for thing in self._memory.drop_surplus():
            log.warning("%s: forgotten, as the one unheard for the longest of more than max_things", thing)
            self.counts.forgotten += 1
            self.drift.drop(thing)
            states |= {f"{kind}/{thing}": b"" for kind in ("thing", "rows", "drift")}
        return states

    def _report(self, well: bool, detail: str) -> None:
        (log.info if well else log.error)("%s", detail)
        self.pulse.tell("ready" if well else "degraded", detail)

    def things(self) -> list[str]:
        """Every thing of which a reading was scored."""
        return self._memory.timeline.things()

    def _condition(self) -> tuple[bool, str]:
        troubles = [seat.refusal for seat in self.shelf.seats if seat.refusal]
        troubles += [f"{seat.label}: nothing is scored" for seat in self.shelf.seats if seat.slot is None]
        troubles += [f"batches that failed since the start: {self._failures}; see the log"] if self._failures else []
        troubles += [f"predictions wait in memory: {self._unkept}"] if self._unkept else []
        troubles += self._memory.pacing.troubles()
        troubles += self._links.troubles()
        known = msgspec.structs.asdict(self.counts) | {"drifts": self.drift.found, "unwatched": self.drift.unwatched}
        told = ", ".join(f"{name} {value}" for name, value in known.items() if value)
        models = ", ".join(seat.label for seat in self.shelf.seats)
        return not troubles, "; ".join([*troubles, models, told or "no readings yet", f"waiting {self._links.waiting}"])

    # --- work --------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.work(self._patience())
            except Exception:
                log.exception("a batch failed")
                self._failures += 1
            self.pulse.beat_when_due()

    def _keep_up(self) -> None:
        """What no prediction waits for, on a thread of its own."""
        while not self._clock.wait(self._stop, _UPKEEP_S):
            try:
                self.upkeep()
            except Exception:
                log.exception("upkeep failed")

    def upkeep(self) -> int:
        """Look for drift in what was scored, and keep what forests learnt; returns how many readings were looked at."""
        looked_at = self.drift.work()
        for seat in self.shelf.seats:
            if seat.slot is not None:
                self._memory.forests.save_one(seat.slot)
        return looked_at

    def _patience(self) -> float:
        due_ms = self._buffer.due_ms()
        if due_ms is None:
            return _PATIENCE_S
        return min(_PATIENCE_S, max(0.0, due_ms / 1000 - self._clock.monotonic()))

    def work(self, timeout_s: float = 0.0) -> int:
        """Handle what waits, at most a batch; returns how many messages that was. For tests and for the worker."""
        arrivals = self._inbox.take(self.settings.max_batch, timeout_s)
        readings = [arrival for arrival in arrivals if arrival.kind == "reading"]
        if readings or self._buffer.due_ms() is not None:
            self._handle_readings(readings)
        for arrival in arrivals:
            if arrival.kind == "trigger":
                self._handle_trigger(arrival)
        return len(arrivals)

    def _handle_readings(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            self._admit(arrival)
        ready = self._buffer.pop(int(self._clock.monotonic() * 1000))
        try:
            self._settle(ready)
        except Exception:
            if not self._settle_singly(ready):
                raise

    def _settle_singly(self, ready: Sequence[Waiting]) -> bool:
        """Settle the readings of a batch that failed one by one, so that none holds up the others; whether that was all."""
        if len(ready) < 2:
            return False
        log.exception("a batch failed; its %d readings are handled one by one", len(ready))
        failed = 0
        for one in ready:
            try:
                self._settle([one])
            except Exception:
                log.exception("a reading of %s is not acknowledged, and comes again", one.item.reading.thing)
                failed += 1
        return not failed

    def _settle(self, ready: Sequence[Waiting]) -> None:
        """Score readings, keep what came of it, then acknowledge them; after a failure all is as it was before."""
        ids = [item.key for item, _deliveries in ready if item.key]
        counts = msgspec.structs.replace(self.counts)
        try:
            puts, things = self._score_in_order([item for item, _deliveries in ready])
            states = {**self._memory.states(things), **self._seen.page(ids), **self._drop_surplus()}
            if not self._keep(puts, states):
                return
            self._seen.add(ids)
        except Exception:
            self.counts = msgspec.structs.replace(counts, forgotten=self.counts.forgotten)
            self._memory.take_back({item.reading.thing for item, _deliveries in ready})
            raise
        finally:  # after a failure too: what comes again is then no repeat
            for key in ids:
                self._held.pop(key, None)
        for _item, deliveries in ready:
            for delivery in deliveries:
                delivery.acknowledge()

    def _admit(self, arrival: Arrival) -> None:
        self.counts.readings += 1
        try:
            reading, timed = read_reading(arrival.delivery.payload, arrival.thing, arrival.time_ms)
            topic_of(self.settings.topics.prediction, reading.thing)
        except (MessageError, SettingsError) as error:
            self.counts.malformed += 1
            log.warning("%s: dropped: %s", arrival.delivery.topic, error)
            arrival.delivery.acknowledge()
            return
        key = f"{reading.thing} {reading.message_id}" if reading.message_id else ""
        if key in self._seen:
            self.counts.repeats += 1
            arrival.delivery.acknowledge()
            return
        if key in self._held:
            self.counts.repeats += 1
            self._held[key].append(arrival.delivery)
            return
        reading_id = reading.message_id or f"{reading.thing}-{reading.time_ms}-{uuid.uuid4().hex[:8]}"
        waiting = Waiting(Item(reading, reading_id, key, timed), [arrival.delivery])
        if key:
            self._held[key] = waiting.deliveries
        self._buffer.push(reading, waiting, int(self._clock.monotonic() * 1000), timed=timed)

    def _score_in_order(self, items: Sequence[Item]) -> tuple[list[Put], set[str]]:
        """Predictions of readings of any things, and whose newest time or window changed."""
        puts: list[Put] = []
        things: set[str] = set()
        segment: list[tuple[Seat, Item]] = []
        for item in items:
            seat = self._seat_for(item.reading)
            if seat is None:
                continue
            verdict = self._memory.timeline.place(item.reading.thing, item.reading.time_ms, timed=item.timed)
            if verdict is Verdict.LATE:
                self.counts.late += 1
                continue
            if verdict is Verdict.RESTART:
                self.counts.restarts += 1
                puts += self._score(segment)
                segment = []
                seat.forget(item.reading.thing)
                self._memory.pacing.forget(item.reading.thing)
            things.add(item.reading.thing)
            step = self._memory.pacing.take(seat, item.reading, timed=item.timed)
            if step.taken.fresh:
                self.counts.restarts += 1
                puts += self._score(segment)
                segment = []
                seat.pause(item.reading.thing)
            segment += [(seat, row) for row in self._rows_of(item, step)]
        puts += self._score(segment)
        return puts, things

    def _rows_of(self, item: Item, step: Step) -> list[Item]:
        """What is to be judged because of a reading; nothing where it waits for the rest of its row."""
        reading = item.reading
        if step.row is None:
            self.counts.slow += step.taken.slow
            self.counts.late += step.taken.late
            self.counts.merged += not (step.taken.slow or step.taken.late)
            return []
        if step.row is reading.values:
            return [item]
        told = [(values, False) for values in step.before] + [(step.row, True)]
        return [
            item._replace(reading=msgspec.structs.replace(reading, values=dict(values)), told=is_told)
            for values, is_told in told
        ]

    def _seat_for(self, reading: Reading) -> Seat | None:
        seat = self.shelf.seat_of(reading.thing)
        if seat is None or seat.slot is None:
            self.counts.unassigned += 1
            return None
        if not any(reading.values.get(sensor) is not None for sensor in seat.slot.session.sensors):
            self.counts.empty += 1
            return None
        return seat

    def _score(self, segment: Sequence[tuple[Seat, Item]]) -> list[Put]:
        by_seat: dict[int, list[Item]] = {}
        for seat, item in segment:
            by_seat.setdefault(id(seat), []).append(item)
        seats = {id(seat): seat for seat, _item in segment}
        return [put for place, items in by_seat.items() for put in self._score_by(seats[place], items)]

    def _score_by(self, seat: Seat, items: Sequence[Item]) -> list[Put]:
        rows = [SensorRow(item.reading.thing, usable(item.reading.values), item.reading.time_ms) for item in items]
        try:
            judged = seat.score(rows, self._clock.monotonic)
        except Exception as error:  # whatever it is, one reading must not hold up the others
            if len(items) > 1:
                return [put for item in items for put in self._score_by(seat, [item])]
            self.counts.failed += 1
            log.error("%s: a reading of %s was not scored: %s", seat.label, items[0].reading.thing, error)
            return []
        told = [trio for trio in zip(rows, items, judged, strict=True) if trio[1].told]
        for row, item, word in told:
            self.drift.note(Scored(row.thing, word.card, item.reading.time_ms, word.score, row.values))
        return self._predictions([(item, word) for _, item, word in told])

    def _predictions(self, judged: Iterable[tuple[Item, Judged]]) -> list[Put]:
        now = self._clock.time_ms()
        puts: list[Put] = []
        for item, word in judged:
            self.counts.scored += 1
            if not math.isfinite(word.score):
                self.counts.warming += 1
                continue
            put = self.put_of(item.reading, item.reading_id, word, now)
            if put is not None:
                self.counts.predictions += 1
                self.counts.anomalies += word.anomaly
                puts.append(put)
        return puts

    def put_of(self, reading: Reading, reading_id: str, word: Judged, now: int, request_id: str = "") -> Put | None:
        """The message for one prediction; None, and a log line, where it cannot be made."""
        prediction = prediction_of(reading, reading_id, word, now, request_id=request_id)
        try:
            payload = encode_prediction(prediction, reading, self.settings.output)
        except MessageError as error:
            self.counts.failed += 1
            log.error("%s", error)
            return None
        return Put(topic_of(self.settings.topics.prediction, reading.thing), payload)

    def _keep(self, puts: Sequence[Put], states: dict[str, bytes]) -> bool:
        """Write until it is on disk; False when told to stop before it was."""
        while True:
            try:
                self._links.put(puts, states)
                self._unkept = ""
                return True
            except UnavailableError as error:
                log.error("predictions wait in memory: %s", error)
                news, self._unkept = not self._unkept, str(error)
            if news:
                self.pulse.beat()
            else:
                self.pulse.beat_when_due()
            if self._clock.wait(self._stop, _RETRY_S):
                return False

    def _handle_trigger(self, arrival: Arrival) -> None:
        puts = answer(self, arrival.delivery.topic, arrival.delivery.payload, arrival.thing, self._clock.time_ms())
        if self._keep(puts, {}):
            arrival.delivery.acknowledge()


def usable(values: dict[str, Value]) -> dict[str, Value]:
    """A reading's values without numbers that a float32 model cannot bear."""
    return {
        name: None if isinstance(value, float | int) and not -LARGEST < value < LARGEST else value
        for name, value in values.items()
    }
