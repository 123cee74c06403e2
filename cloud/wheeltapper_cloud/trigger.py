"""
``wheeltapper trigger``: ask a device to measure, or a gateway to score, and see what it did.

The request goes to the thing's trigger topic over a broker or AWS IoT Core, with an id that its replies repeat. Who may ask
is the broker's to say: publishing on ``…/trigger/#`` and hearing ``…/reply`` are rights of their own in its access list (see
``docker/acl.conf``) or in an AWS IoT policy (see ``cloud/greengrass.yaml``).
"""

import argparse
import json
import threading
import uuid
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper import topics
from wheeltapper.cli import Commands
from wheeltapper.clock import Clock, SystemClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.messages import UNREADABLE
from wheeltapper.transport import Delivery, Transport

_WILDCARDS = frozenset("+#\0")
_TOPIC_OF = {"ingest": topics.TRIGGER_INGEST, "infer": topics.TRIGGER_INFER}
# After the first reply, how long to wait for those of other things on the same topic.
_GRACE_S = 0.5
_SUBSCRIBED_S = 0.3
_LONGEST_S = 86_400


def register(commands: Commands) -> None:
    """Add ``trigger ingest`` and ``trigger infer``."""
    group = commands.group("trigger", help="ask a device or a gateway to do something now")
    _add(
        group,
        "ingest",
        "ask a device for readings, a recorded file's rows, or a simulated fault",
        "wheeltapper trigger ingest --thing motor-1 --payload '{\"rows\": 20}'\n"
        'wheeltapper trigger ingest --thing motor-1 --payload \'{"fault": "leak"}\' --broker mqtt://127.0.0.1:1883',
    )
    _add(
        group,
        "infer",
        "ask a gateway to score a thing's last window",
        "wheeltapper trigger infer --thing motor-1 --json\n"
        "wheeltapper trigger infer --topic pollution/data/infer/trigger --broker mqtt://127.0.0.1:1883",
    )


def _add(group: Commands, name: str, help_text: str, example: str) -> None:
    parser = group.add(name, _ask, help=help_text, example=example)
    parser.set_defaults(template=_TOPIC_OF[name])
    parser.add_argument("--thing", default="", help="whom to ask; not needed with a literal --topic")
    parser.add_argument(
        "--payload", default="{}", metavar="JSON", help="what to ask for (default: the thing's default)"
    )
    parser.add_argument(
        "--topic", default="", metavar="TEMPLATE", help="the trigger topic, with {thing} in it or literal"
    )
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="how long to wait for a reply (10)")
    parser.add_argument("--json", action="store_true", help="print each reply as a line of JSON")
    broker = parser.add_argument_group("broker")
    broker.add_argument("--broker", default="mqtt://127.0.0.1:1883", metavar="URL", help="mqtt:// or mqtts://host:port")
    broker.add_argument("--aws", action="store_true", help="the broker is AWS IoT Core, or another that speaks MQTT 5")
    for file, what in (
        ("ca", "the broker's authority"),
        ("certificate", "of this client"),
        ("key", "of --certificate"),
    ):
        broker.add_argument(f"--{file}", type=Path, metavar="PEM", help=what)


class Asker:
    """
    One request and the replies to it.

    Args:
        transport: not yet started; this asker starts and closes it.
        topic: the trigger topic; replies come on it with ``/reply`` behind.
        clock: measures the wait.
    """

    def __init__(self, transport: Transport, topic: str, clock: Clock) -> None:
        self._transport = transport
        self._topic = topic
        self._clock = clock
        self._request_id = ""
        self._replies: list[dict[str, Any]] = []
        self._answered = threading.Event()
        self._never = threading.Event()

    def ask(self, payload: dict[str, Any], timeout_s: float) -> list[dict[str, Any]]:
        """
        Send the request and give the replies, at least one.

        Raises:
            UnavailableError: the broker is away, does not take the request, or nobody replies in time.
        """
        self._request_id = str(payload.setdefault("request_id", uuid.uuid4().hex))
        self._transport.subscribe(self._topic + topics.REPLY_SUFFIX, self._take)
        self._transport.start()
        try:
            self._clock.wait(self._never, _SUBSCRIBED_S)
            self._send(msgspec.json.encode(payload), timeout_s)
            if not self._clock.wait(self._answered, timeout_s):
                raise UnavailableError(
                    f"{self._topic}: nobody replied within {timeout_s:g} s; is the thing's device or gateway connected, and "
                    "may you publish there?"
                )
            self._clock.wait(self._never, _GRACE_S)
        finally:
            self._transport.close()
        return self._replies

    def _send(self, payload: bytes, timeout_s: float) -> None:
        taken: list[bool] = []
        settled = threading.Event()

        def done(delivered: object) -> None:
            taken.append(bool(delivered))
            settled.set()

        self._transport.publish(self._topic, payload, done)
        self._clock.wait(settled, timeout_s)
        if taken != [True]:
            raise UnavailableError(f"{self._topic}: the broker did not take the request; may you publish there?")

    def _take(self, delivery: Delivery) -> None:
        delivery.acknowledge()
        try:
            reply = msgspec.json.decode(delivery.payload, type=dict[str, Any])
        except UNREADABLE:
            return
        if reply.get("request_id") == self._request_id:
            self._replies.append(reply)
            self._answered.set()


def _ask(options: argparse.Namespace) -> int:
    from wheeltapper.transport.settings import BrokerSettings, open_transport

    template = options.topic or options.template
    if "{thing}" in template and not options.thing:
        raise SettingsError(f"--thing: the topic {template} needs one")
    if not 0 < options.timeout <= _LONGEST_S:
        raise SettingsError(f"--timeout {options.timeout:g}: must be more than 0 seconds and at most {_LONGEST_S}")
    if not _WILDCARDS.isdisjoint(template):
        raise SettingsError(f"--topic {template}: nothing can be published on a topic with + or #; name one thing's")
    try:
        payload = msgspec.json.decode(options.payload, type=dict[str, Any])
    except UNREADABLE as error:
        raise SettingsError(f"--payload: not a JSON object: {error}") from error
    broker = BrokerSettings(
        url=options.broker,
        client="awscrt" if options.aws else "paho",
        ca=options.ca,
        certificate=options.certificate,
        key=options.key,
    )
    topic = topics.topic_of(template, options.thing) if options.thing else template
    replies = Asker(open_transport(broker), topic, SystemClock()).ask(payload, options.timeout)
    for reply in replies:
        print(json.dumps(reply) if options.json else _line_of(reply))
    return 1 if any(reply.get("status") == "refused" for reply in replies) else 0


def _line_of(reply: dict[str, Any]) -> str:
    facts = ", ".join(f"{name} {json.dumps(value)}" for name, value in (reply.get("result") or {}).items())
    return f"{reply.get('thing')}: {reply.get('status')}: {reply.get('detail')}" + (f" ({facts})" if facts else "")
