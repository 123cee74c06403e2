"""An operator's trigger: sent once, answered by its own replies, refused or unheard in one line."""

import json
import threading
from typing import Any

import pytest

from wheeltapper import cli, topics
from wheeltapper.clock import SystemClock
from wheeltapper.errors import UnavailableError
from wheeltapper.transport import Delivery
from wheeltapper.transport.memory import MemoryBroker, MemoryTransport
from wheeltapper_cloud.trigger import Asker

TOPIC = topics.topic_of(topics.TRIGGER_INFER, "motor-1")


class LiveBroker(MemoryBroker):
    """Delivers at once, on the publisher's thread."""

    def accept(self, topic: str, payload: bytes, done: Any) -> None:
        super().accept(topic, payload, done)
        self.deliver()


@pytest.mark.parametrize("noise", [b"{", b'{"\xff": 1}', b"[" * 100_000, b"[]"])
def test_what_is_no_reply_is_passed_over(noise: bytes) -> None:
    broker = LiveBroker()
    transport: MemoryTransport = broker.transport()
    transport.subscribe(TOPIC, lambda delivery: transport.publish(delivery.topic + "/reply", noise))
    gateway(broker, "done")
    transport.start()

    assert [reply["status"] for reply in Asker(broker.transport(), TOPIC, SystemClock()).ask({}, 5.0)] == ["done"]


def gateway(broker: MemoryBroker, *statuses: str, request_id: str | None = None) -> None:
    transport: MemoryTransport = broker.transport()

    def answer(delivery: Delivery) -> None:
        asked = json.loads(delivery.payload)
        for status in statuses:
            reply = {
                "request_id": request_id or asked["request_id"],
                "thing": "motor-1",
                "status": status,
                "detail": "…",
            }
            transport.publish(delivery.topic + "/reply", json.dumps(reply).encode())

    transport.subscribe(TOPIC, answer)
    transport.start()


def test_every_reply_to_the_request_is_given() -> None:
    broker = LiveBroker()
    gateway(broker, "accepted", "done")

    replies = Asker(broker.transport(), TOPIC, SystemClock()).ask({"rows": 3}, 5.0)

    assert [reply["status"] for reply in replies] == ["accepted", "done"]
    asked = json.loads(next(payload for topic, payload in broker.published if topic == TOPIC))
    assert asked["rows"] == 3


def test_replies_to_others_are_not_ours_and_silence_is_told_with_the_remedy() -> None:
    broker = LiveBroker()
    gateway(broker, "done", request_id="somebody-else's")

    with pytest.raises(UnavailableError, match="nobody replied within"):
        Asker(broker.transport(), TOPIC, SystemClock()).ask({}, 0.3)


def test_a_request_that_the_broker_may_have_lost_is_said_to_be() -> None:
    broker = LiveBroker()
    broker.lose_acknowledgements = 1

    with pytest.raises(UnavailableError, match="did not take the request"):
        Asker(broker.transport(), TOPIC, SystemClock()).ask({}, 5.0)


def test_the_command_asks_over_a_real_broker_and_prints_json(
    mosquitto: int, capsys: pytest.CaptureFixture[str]
) -> None:
    from wheeltapper.transport.settings import BrokerSettings, open_transport

    url = f"mqtt://127.0.0.1:{mosquitto}"
    thing = open_transport(BrokerSettings(url=url), "the-gateway")
    heard = threading.Event()

    def answer(delivery: Delivery) -> None:
        asked = json.loads(delivery.payload)
        delivery.acknowledge()
        reply = {"request_id": asked["request_id"], "thing": "motor-1", "status": "refused", "detail": "no model"}
        thing.publish(delivery.topic + "/reply", json.dumps(reply).encode())
        heard.set()

    thing.subscribe(TOPIC, answer)
    thing.start()

    status = cli.main(["trigger", "infer", "--thing", "motor-1", "--broker", url, "--json", "--timeout", "30"])

    assert heard.is_set()
    assert status == 1
    assert json.loads(capsys.readouterr().out)["detail"] == "no model"
    thing.close()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--thing"),
        (("--thing", "m", "--payload", "[1]"), "not a JSON object"),
        (("--thing", "a/b"), "must be 1 to 128"),
        (("--thing", "m", "--timeout", "0"), "--timeout 0"),
        (("--thing", "m", "--timeout", "nan"), "--timeout nan"),
        (("--thing", "m", "--timeout", "inf"), "at most 86400"),
        (("--topic", "plant/+/trigger"), "--topic plant/+/trigger"),
        (("--topic", "plant/#"), "--topic plant/#"),
    ],
    ids=["no thing", "no object", "no name", "no time", "no number", "no end", "any thing's", "every topic"],
)
def test_wrong_arguments_are_one_line(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(["trigger", "infer", *arguments])

    assert status == 2
    assert told in capsys.readouterr().err
