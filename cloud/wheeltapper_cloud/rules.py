"""
Messages from a broker: rules say which topics feed which input, and nothing is acknowledged before it is durable.

A rule is a topic filter with a few settings, or the SQL text of an AWS IoT topic rule. What cannot be read is counted,
logged, acknowledged and dropped, so that it never blocks the queue behind it; what cannot be written because the disk is
full is kept and tried again, unacknowledged, until it can.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import MessageError, SettingsError
from wheeltapper.judge import Judge, Message, Refusal
from wheeltapper.transport import Delivery, Transport
from wheeltapper_cloud.iotsql import Context, Expression, Select, parse_statement, parse_template
from wheeltapper_cloud.iotsql_values import UNDEFINED, to_string

log = logging.getLogger(__name__)

_RETRY_S = 1.0
_MAX_ID = 128


class RuleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One rule.

    Attributes:
        input: the input that receives what the rule selects.
        filter: an MQTT topic filter; not with ``sql``, which names its own.
        sql: the statement of an AWS IoT topic rule.
        payload: dotted path of the object to pass on; empty is the whole payload.
        message_id: path of the id that makes repeats harmless, or a template such as ``${topic(2)}-${seq}``; where the
            message has none, it is never taken for a repeat.
        timestamp: path, or template, of the time it was measured, in ms since the epoch; where the message has none, its
            arrival counts.
        share: name of a shared subscription, so that several workers divide the messages.
    """

    input: str
    filter: str = ""
    sql: str = ""
    payload: str = ""
    message_id: str = "message_id"
    timestamp: str = "time_ms"
    share: str = ""


class Rule:
    """
    A rule, compiled.

    Raises:
        SettingsError: neither or both of filter and sql, or SQL that is not supported.
    """

    def __init__(self, settings: RuleSettings) -> None:
        if bool(settings.filter) == bool(settings.sql):
            raise SettingsError(f"rule for input {settings.input!r}: give either filter or sql")
        self.input = settings.input
        self._select: Select | None = parse_statement(settings.sql) if settings.sql else None
        self.filter = self._select.topic_filter if self._select else settings.filter
        self.subscription = f"$share/{settings.share}/{self.filter}" if settings.share else self.filter
        self._path = _members(settings.payload)
        self._id = _reader(settings.message_id)
        self._time = _reader(settings.timestamp)
        self._head = self._plain_head(settings)

    def _plain_head(self, settings: RuleSettings) -> "msgspec.json.Decoder[Any] | None":
        """Where the payload passes as it is, a decoder that reads the id and the time alone."""
        simple = all("$" not in path and "." not in path for path in (settings.message_id, settings.timestamp))
        select = self._select
        if self._path or not simple or (select is not None and not (select.everything and select.accepts is None)):
            return None
        fields = [("id", Any, msgspec.UNSET), ("time", Any, msgspec.UNSET)]
        names = {"id": settings.message_id or " ", "time": settings.timestamp or "  "}
        return msgspec.json.Decoder(msgspec.defstruct("Head", fields, rename=names))

    def read(self, topic: str, payload: bytes, now_ms: int) -> Message | None:
        """
        The message for the input; None where the WHERE clause does not hold.

        Raises:
            MessageError: the payload is not a JSON object, or the rule makes none of it.
        """
        if self._head is not None:
            try:
                head = self._head.decode(payload)
            except (msgspec.DecodeError, RecursionError) as error:
                raise MessageError(f"{topic}: not a JSON object: {error}") from error
            return Message(self.input, payload, _id_of(head.id), _time_of(head.time))
        return self._read_whole(topic, payload, now_ms)

    def _read_whole(self, topic: str, payload: bytes, now_ms: int) -> Message | None:
        try:
            document = msgspec.json.decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise MessageError(f"{topic}: not JSON: {error}") from error
        context = Context(document, topic, now_ms)
        content = document
        if self._select is not None:
            if self._select.accepts is not None and not self._select.accepts(context):
                return None
            content = self._select.project(context)
        for member in self._path:
            content = content.get(member) if isinstance(content, dict) else None
        if not isinstance(content, dict):
            raise MessageError(f"{topic}: the rule for input {self.input!r} makes no object of it")
        unchanged = content is document
        encoded = payload if unchanged else msgspec.json.encode(content)
        return Message(self.input, encoded, _id_of(self._id(context)), _time_of(self._time(context)))


class Ingest:
    """
    Subscribes, applies the rules, hands over to the judge, acknowledges.

    Args:
        transport: not yet started.

    Raises:
        SettingsError: a rule is not valid, or two filters overlap so that a broker may deliver a message twice.
    """

    def __init__(self, transport: Transport, judge: Judge, rules: Sequence[RuleSettings], clock: Clock) -> None:
        self._transport = transport
        self._judge = judge
        self._clock = clock
        self._arrived: deque[tuple[Delivery, list[Rule]]] = deque()
        self._asked = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._by_subscription: dict[str, list[Rule]] = {}
        for settings in rules:
            rule = Rule(settings)
            self._by_subscription.setdefault(rule.subscription, []).append(rule)
        _refuse_overlaps([found[0] for found in self._by_subscription.values()])
        self.received = 0
        self.malformed = 0
        self.passed_over = 0

    def start(self) -> None:
        """Subscribe; deliveries come as soon as the transport is connected."""
        for subscription, rules in self._by_subscription.items():
            self._transport.subscribe(subscription, partial(self._receive, rules))

    def close(self) -> None:
        """Take no more; what was not acknowledged comes again to whoever continues the session."""
        self._stop.set()

    def _receive(self, rules: list[Rule], delivery: Delivery) -> None:
        if self._stop.is_set():
            return
        self._arrived.append((delivery, rules))
        if not self._asked:
            self._ask()

    def _ask(self) -> None:
        self._asked = True
        self._judge.submit_from(self._pull)

    def _pull(self) -> tuple[Sequence[Message], Callable[[Sequence[Refusal]], None]]:
        """Everything that has arrived, as one batch; on the judge's thread."""
        self._asked = False
        arrived = self._arrived
        now_ms = self._clock.time_ms()
        messages: list[Message] = []
        deliveries: list[tuple[Delivery, list[Rule]]] = []
        owners: list[int] = []
        for _ in range(len(arrived)):
            delivery, rules = arrived.popleft()
            self.received += 1
            for rule in rules:
                message = self._read(rule, delivery, now_ms)
                if message is not None:
                    messages.append(message)
                    owners.append(len(deliveries))
            deliveries.append((delivery, rules))
        return messages, partial(self._settle, deliveries, owners)

    def _read(self, rule: Rule, delivery: Delivery, now_ms: int) -> Message | None:
        try:
            message = rule.read(delivery.topic, delivery.payload, now_ms)
        except MessageError as error:
            self.malformed += 1
            log.warning("message dropped: %s", error)
            return None
        self.passed_over += message is None
        return message

    def _settle(
        self, deliveries: list[tuple[Delivery, list[Rule]]], owners: list[int], refusals: Sequence[Refusal]
    ) -> None:
        """Acknowledge what is durable or worthless; keep what could not be written."""
        kept: set[int] = set()
        for refusal in refusals:
            if refusal.reason == "unavailable":
                kept.add(owners[refusal.index])
                continue
            self.malformed += 1
            log.warning("message dropped: %s: %s", deliveries[owners[refusal.index]][0].topic, refusal.detail)
        if not kept:
            for delivery, _rules in deliveries:
                delivery.acknowledge()
            return
        for number, (delivery, _rules) in enumerate(deliveries):
            if number not in kept:
                delivery.acknowledge()
        again = [pair for number, pair in enumerate(deliveries) if number in kept]
        self._retry_later(again)

    def _retry_later(self, deliveries: list[tuple[Delivery, list[Rule]]]) -> None:
        threading.Thread(target=self._retry, args=(deliveries,), name="ingest-retry", daemon=True).start()

    def _retry(self, deliveries: list[tuple[Delivery, list[Rule]]]) -> None:
        """Put back, in front and in order, what the full disk refused."""
        log.warning("ingest: %d messages wait for the journal", len(deliveries))
        if self._clock.wait(self._stop, _RETRY_S):
            return
        self._arrived.extendleft(reversed(deliveries))
        self._ask()


def _refuse_overlaps(rules: Sequence[Rule]) -> None:
    for first, second in combinations(rules, 2):
        if filters_overlap(first.filter, second.filter):
            raise SettingsError(
                f"rules: filters {first.subscription!r} and {second.subscription!r} overlap, and a broker may deliver a "
                "message to both; write them as one filter, with a WHERE clause where they differ"
            )


def filters_overlap(first: str, second: str) -> bool:
    """
    Whether some topic passes both MQTT topic filters.

    >>> filters_overlap("dt/+/data", "dt/m1/#"), filters_overlap("dt/+/data", "dt/+/action")
    (True, False)
    """
    left, right = first.split("/"), second.split("/")
    for place in range(max(len(left), len(right))):
        a = left[place] if place < len(left) else None
        b = right[place] if place < len(right) else None
        if a == "#" or b == "#":
            return True
        if a is None or b is None:
            return False
        if a != b and "+" not in (a, b):
            return False
    return True


def _members(path: str) -> list[str]:
    return path.split(".") if path else []


def _reader(path: str) -> Expression:
    """What finds an id or a time: a template where the text has ``${``, else a dotted path."""
    if "${" in path:
        return parse_template(path)
    members = _members(path)

    def read(context: Context) -> Any:
        value = context.payload if members else UNDEFINED
        for member in members:
            value = value.get(member, UNDEFINED) if isinstance(value, dict) else UNDEFINED
        return value

    return read


def _id_of(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    text: str = to_string(value)
    return text if len(text) <= _MAX_ID else ""


def _time_of(value: Any) -> int | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 1e15 else None
