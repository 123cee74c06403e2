"""
The detectors process: judges readings and predictions beside the machine, so that the alarm rings with the link down.

The judge of the core does the judging and the keeping; here are its definitions, what it hears and where its news go. A
delivery is acknowledged when the judge has it on disk.
"""

import contextlib
import hashlib
import logging
import threading
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.definition_files import read_definition_file, warn_of_unused
from wheeltapper.detector.handle import Kind
from wheeltapper.detector.readers import Definitions, attributes_of
from wheeltapper.errors import DefinitionError, MessageError, SettingsError, UnavailableError
from wheeltapper.judge import Action, Deployment, Judge, JudgeSettings, Message, Refusal
from wheeltapper.judge.delivery import Delivery as ActionDelivery
from wheeltapper.judge.delivery import Executor, Result, Settled
from wheeltapper.judge.executors import InputExecutor
from wheeltapper.messages import UNREADABLE, ActionReport, encode
from wheeltapper.outbox import Put
from wheeltapper.topics import filter_of, thing_of, topic_of
from wheeltapper.transport import Delivery
from wheeltapper_components.health import Pulse
from wheeltapper_components.links import Links
from wheeltapper_components.readings import checked_time, mended
from wheeltapper_components.settings import DetectorSettings, GatewaySettings

log = logging.getLogger(__name__)

PROCESS = "detectors"
_PARAMETERS = "detectors.parameters"
_TICK_S = 0.5


class Head(msgspec.Struct):
    """What is read of a message before it is judged."""

    message_id: str = ""
    thing: str = ""
    time_ms: float | None = None


class OutboxExecutor:
    """Publishes an action's payload durably, on every link."""

    immediate = True

    def __init__(self, links: Links) -> None:
        self._links = links

    def execute(self, action: Action, settled: Settled) -> None:
        """
        Delivered when the message is on disk.

        Raises:
            MessageError: the target is no topic.
        """
        if not action.target or set("+#\0") & set(action.target):
            raise MessageError(f"topic {action.target!r}: cannot be published on")

        def done(error: UnavailableError | None) -> None:
            settled(Result("delivered") if error is None else Result("away", str(error)))

        self._links.put_soon(Put(action.target, action.payload), done)


class Detectors:
    """
    Detector and alarm models at the edge.

    Args:
        settings: models, inputs, topics.
        links: where readings and predictions come from and news go to.
    """

    def __init__(self, settings: GatewaySettings, links: Links, clock: Clock) -> None:
        self.settings = settings
        self.pulse = Pulse(settings, PROCESS, links, clock, self._condition)
        self._links = links
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._unkept: deque[tuple[str, Delivery]] = deque()
        self._malformed = 0
        judge = JudgeSettings(
            state_topic=settings.topics.state,
            alarm_topic=settings.topics.alarm,
            synchronous="FULL" if settings.store.flush else "NORMAL",
        )
        self._delivery = ActionDelivery(self._route, clock, report=self._report)
        self.judge = Judge(settings.data_dir / PROCESS, clock, judge, on_actions=self._delivery.take)
        self._delivery.attach(self.judge)
        self._outbox = OutboxExecutor(links)
        self._inputs = InputExecutor(self.judge, judge.hop_limit)

    def open(self, *, thread: bool = True) -> None:
        """
        Recover, put the definitions in force and subscribe.

        Args:
            thread: False lets every call do its work before it returns, for tests in virtual time.

        Raises:
            SettingsError: a file cannot be read or defines nothing.
            DefinitionError: a definition is not valid.
            UnavailableError: the data directory cannot be written.
        """
        found = read_definitions(self.settings.detectors)
        self.judge.start(thread=thread)
        self._deploy(found)
        if thread:
            self._delivery.start()
        self._subscribe()

    def start(self) -> None:
        """Begin to tell of one's health."""
        self._thread = threading.Thread(target=self._run, name=PROCESS, daemon=True)
        self._thread.start()
        self.pulse.beat("ready")

    def close(self) -> None:
        """Stop taking work, keep everything; harmless when repeated."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)
        self._delivery.close()
        self.judge.close()

    def _deploy(self, found: Sequence[Definitions]) -> None:
        attributes: dict[str, list[str]] = {name: [] for name in self._templates()}
        for definitions in found:
            for body in definitions.inputs:
                attributes[body["inputName"]] = attributes_of(body)
        self.judge.declare_inputs(attributes)
        wanted = [one for definitions in found for one in deployments_of(definitions)]
        present = {(one.kind, one.name): one.version for one in self.judge.deployments()}
        for kind, name in present.keys() - {(one.kind, one.name) for one in wanted}:
            self.judge.withdraw(name, kind=kind)
        for one in wanted:
            if present.get((one.kind, one.name)) != one.version:
                self._put_in_force(one)

    def _put_in_force(self, deployment: Deployment) -> None:
        try:
            self.judge.deploy(deployment, migrate=True)
        except DefinitionError as error:
            log.warning("%s: its detectors start anew: %s", deployment.name, error)
            self.judge.deploy(deployment)
        log.info("%s model %s %s is in force", deployment.kind, deployment.name, deployment.version)

    def _templates(self) -> dict[str, str]:
        topics = self.settings.topics
        return {"Reading": topics.reading, "Prediction": topics.prediction} | self.settings.detectors.inputs

    def _subscribe(self) -> None:
        by_template: dict[str, list[str]] = {}
        for name, template in self._templates().items():
            by_template.setdefault(template, []).append(name)
        for link in self._links.all:
            if link.reads:
                for template, names in by_template.items():
                    link.transport.subscribe(filter_of(template), partial(self._receive, template, names))

    def _receive(self, template: str, names: Sequence[str], delivery: Delivery) -> None:
        if self._stop.is_set():
            return
        for name in names:
            self._submit(name, delivery, thing_of(template, delivery.topic) or "")

    def _submit(self, name: str, delivery: Delivery, thing: str) -> None:
        payload = mended(delivery.payload)
        try:
            head = msgspec.json.decode(payload, type=Head)
            time_ms = None if head.time_ms is None else checked_time(int(head.time_ms))
            if thing and not head.thing:
                payload = _with_thing(payload, thing)
        except (*UNREADABLE, MessageError) as error:
            self._malformed += 1
            log.warning("%s: dropped: %s", delivery.topic, error)
            delivery.acknowledge()
            return
        message = Message(name, payload, head.message_id, time_ms)
        self.judge.submit([message], partial(self._settle, name, delivery))

    def _settle(self, name: str, delivery: Delivery, refusals: Sequence[Refusal]) -> None:
        if any(refusal.reason == "unavailable" for refusal in refusals):
            self._unkept.append((name, delivery))
            return
        for refusal in refusals:
            self._malformed += 1
            log.warning("%s: dropped: %s", delivery.topic, refusal.detail)
        delivery.acknowledge()

    def _run(self) -> None:
        while not self._clock.wait(self._stop, _TICK_S):
            for _ in range(len(self._unkept)):
                name, delivery = self._unkept.popleft()
                self._submit(name, delivery, thing_of(self._templates()[name], delivery.topic) or "")
            self.pulse.beat_when_due()

    def _route(self, action: Action) -> Executor | None:
        if action.type in ("publish", "iotTopicPublish"):
            return self._outbox
        return self._inputs if action.type == "iotEvents" else None

    def _report(self, report: ActionReport) -> None:
        try:
            topic = topic_of(self.settings.topics.action, report.thing)
        except SettingsError:
            return  # a detector of no thing
        with contextlib.suppress(UnavailableError):  # closing: the judge keeps the report's substance
            self._links.put_soon(Put(topic, encode(report)))

    def _condition(self) -> tuple[bool, str]:
        known = self.judge.statistics()
        troubles = [] if known.writable else ["the journal cannot be written"]
        troubles += self._links.troubles()
        told = (
            f"detectors {known.detectors}, judged {known.accepted}, repeats {known.repeated}, "
            f"malformed {self._malformed}, waiting {self._links.waiting}"
        )
        return not troubles, "; ".join([*troubles, told])


def read_definitions(settings: DetectorSettings) -> list[Definitions]:
    """
    The definitions in every file.

    Raises:
        SettingsError: one cannot be read or understood, or defines no model.
    """
    found = []
    for path in settings.models:
        definitions = read_definition_file(path, settings.parameters, _PARAMETERS)
        if not (definitions.detector_models or definitions.alarm_models):
            raise SettingsError(f"detectors.models {path}: defines no detector model and no alarm model")
        found.append(definitions)
    warn_of_unused(settings.parameters, found, _PARAMETERS)
    return found


def deployments_of(found: Definitions) -> list[Deployment]:
    """The definitions as the judge takes them, versions made from their content."""
    kinds: list[tuple[Kind, str, Sequence[Any]]] = [
        ("detector", "detectorModelName", found.detector_models),
        ("alarm", "alarmModelName", found.alarm_models),
    ]
    deployments = []
    for kind, member, bodies in kinds:
        for body in bodies:
            raw = msgspec.json.encode(body, order="sorted")
            version = hashlib.sha256(raw).hexdigest()[:12]
            deployments.append(Deployment(name=body[member], version=version, kind=kind, body=msgspec.Raw(raw)))
    return deployments


def _with_thing(payload: bytes, thing: str) -> bytes:
    """The payload with its thing in it, which a reading may leave to its topic."""
    members: dict[str, msgspec.Raw] = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({**members, "thing": thing})
