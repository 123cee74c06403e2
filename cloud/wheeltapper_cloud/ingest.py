"""
Messages from a broker to the judge: nothing is acknowledged before it is durable.

What cannot be read is counted, logged, acknowledged and dropped, so that it never blocks the queue behind it; what cannot be
written because the disk is full is kept and tried again, unacknowledged, until it can.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

from wheeltapper.clock import Clock
from wheeltapper.errors import MessageError, SettingsError
from wheeltapper.judge import Judge, Message, Refusal
from wheeltapper.topics import filters_overlap, matches
from wheeltapper.transport import Delivery, Transport
from wheeltapper_cloud.rules import Rule, RuleSettings

log = logging.getLogger(__name__)

_RETRY_S = 1.0


class Ingest:
    """
    Subscribes, applies the rules, hands over to the judge, acknowledges.

    Args:
        transport: not yet started.
        most_bytes: of the payload that an input receives; longer ones are dropped; 0 is no limit.
        account: what accountid() gives.

    Attributes:
        received, malformed, passed_over: messages that have come, were dropped, and were passed over by a WHERE clause.

    Raises:
        SettingsError: a rule is not valid, or two filters overlap so that a broker may deliver a message twice.
    """

    def __init__(
        self,
        transport: Transport,
        judge: Judge,
        rules: Sequence[RuleSettings],
        clock: Clock,
        most_bytes: int = 0,
        account: str = "",
    ) -> None:
        self._transport = transport
        self._most_bytes = most_bytes
        self._judge = judge
        self._clock = clock
        self._arrived: deque[tuple[Delivery, Sequence[Rule]]] = deque()
        self._asked = False
        self._stop = threading.Event()
        self._by_subscription = _subscriptions([Rule(settings, account) for settings in rules])
        self.received = 0
        self.malformed = 0
        self.passed_over = 0

    def start(self) -> None:
        """Subscribe, or subscribe anew; deliveries come as soon as the transport is connected."""
        for subscription, rules in self._by_subscription.items():
            self._transport.subscribe(subscription, partial(self._receive, rules))

    def close(self) -> None:
        """Take no more; what was not acknowledged comes again to whoever continues the session."""
        self._stop.set()

    def _receive(self, rules: "_Rules", delivery: Delivery) -> None:
        if self._stop.is_set():
            return
        self.received += 1
        self._arrived.append((delivery, rules.of(delivery.topic)))
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
        deliveries: list[tuple[Delivery, Sequence[Rule]]] = []
        owners: list[int] = []
        for _ in range(len(arrived)):
            delivery, rules = arrived.popleft()
            first = len(messages)
            for rule in rules:
                messages += self._read(rule, delivery, now_ms)
            if len(rules) > 1:
                _tell_apart(messages[first:])
            owners += [len(deliveries)] * (len(messages) - first)
            deliveries.append((delivery, rules))
        return messages, partial(self._settle, deliveries, owners)

    def _read(self, rule: Rule, delivery: Delivery, now_ms: int) -> Sequence[Message]:
        try:
            messages = rule.read(delivery.topic, delivery.payload, now_ms)
            for message in messages if self._most_bytes else ():
                if len(message.payload) > self._most_bytes:
                    raise MessageError(
                        f"{delivery.topic}: {len(message.payload)} bytes; {self._most_bytes} are allowed"
                    )
        except MessageError as error:
            self.malformed += 1
            log.warning("message dropped: %s", error)
            return ()
        except Exception:  # what one message breaks must not hold up those that came with it
            self.malformed += 1
            log.exception("message dropped: %s: the rule for input %r failed", delivery.topic, rule.input)
            return ()
        self.passed_over += not messages
        return messages

    def _settle(
        self, deliveries: list[tuple[Delivery, Sequence[Rule]]], owners: list[int], refusals: Sequence[Refusal]
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

    def _retry_later(self, deliveries: list[tuple[Delivery, Sequence[Rule]]]) -> None:
        threading.Thread(target=self._retry, args=(deliveries,), name="ingest-retry", daemon=True).start()

    def _retry(self, deliveries: list[tuple[Delivery, Sequence[Rule]]]) -> None:
        """Put back, in front and in order, what the full disk refused."""
        log.warning("ingest: %d messages wait for the journal", len(deliveries))
        if self._clock.wait(self._stop, _RETRY_S):
            return
        self._arrived.extendleft(reversed(deliveries))
        self._ask()


def _tell_apart(messages: Sequence[Message]) -> None:
    """Give what two rules make of one message for one input two ids, or the second would pass for a repeat of the first."""
    seen: set[tuple[str, str]] = set()
    for number, message in enumerate(messages):
        if message.message_id and (message.input, message.message_id) in seen:
            message.message_id += f"-{number}"
        seen.add((message.input, message.message_id))


class _Rules:
    """The rules that one subscription feeds: those of its own filter, and those of filters that it covers."""

    def __init__(self, own: list[Rule]) -> None:
        self._own = own
        self._narrower: list[tuple[str, Rule]] = []

    def add(self, topic_filter: str, rules: Sequence[Rule]) -> None:
        """Let rules of a narrower filter have what passes it."""
        self._narrower += [(topic_filter, rule) for rule in rules]

    def of(self, topic: str) -> Sequence[Rule]:
        """The rules for a message on a topic."""
        if not self._narrower:
            return self._own
        return [*self._own, *(rule for name, rule in self._narrower if matches(name, topic))]


def _subscriptions(rules: Sequence[Rule]) -> dict[str, _Rules]:
    """
    What to subscribe to: no two with a topic in common, because a broker may deliver its messages to both.

    Raises:
        SettingsError: two filters overlap, and neither covers the other.
    """
    wanted: dict[tuple[str, str], list[Rule]] = {}
    for rule in rules:
        for topic_filter in rule.filters:
            wanted.setdefault((rule.share, topic_filter), []).append(rule)
    widest = [key for key in wanted if not any(_covers(other, key) for other in wanted if other != key)]
    for first, second in combinations(widest, 2):
        if filters_overlap(first[1], second[1]):
            raise SettingsError(
                f"rules: filters {_subscription(*first)!r} and {_subscription(*second)!r} overlap, and a broker may deliver "
                "a message to both; write them as one filter, with a WHERE clause where they differ"
            )
    found = {key: _Rules(wanted[key]) for key in widest}
    for key in (key for key in wanted if key not in found):
        wide = next(other for other in widest if _covers(other, key))
        found[wide].add(key[1], wanted[key])
    return {_subscription(*key): held for key, held in found.items()}


def _covers(wide: tuple[str, str], narrow: tuple[str, str]) -> bool:
    return wide[0] == narrow[0] and matches(wide[1], narrow[1])


def _subscription(share: str, topic_filter: str) -> str:
    return f"$share/{share}/{topic_filter}" if share else topic_filter
