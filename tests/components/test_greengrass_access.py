"""What accessControl forbids is named for what it is, and neither breaks the link nor passes for one that is away."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.components.nucleus import MQTT, PUBSUB
from tests.components.nucleus import Nucleus as StandIn
from tests.loopback import wait_until
from wheeltapper.clock import ManualClock
from wheeltapper.errors import SettingsError
from wheeltapper.transport import Delivery, Refused
from wheeltapper.transport.greengrass import Nucleus
from wheeltapper_components.heartbeat import Heartbeat


def allowing(**operations: str) -> dict[str, Any]:
    """A recipe that allows local operations on the topics given for each."""
    policies = {
        f"com.example.Pump:pubsub:{number}": {"operations": [f"aws.greengrass#{name}"], "resources": [topic]}
        for number, (name, topic) in enumerate(operations.items())
    }
    access = {PUBSUB: policies, MQTT: {}}
    return {
        "ComponentName": "com.example.Pump",
        "ComponentConfiguration": {"DefaultConfiguration": {"accessControl": access}},
    }


Connect = Callable[[dict[str, Any]], Nucleus]


@pytest.fixture(params=["classic", "lite"])
def stand_in(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(tmp_path, request.param) as running:
        yield running


@pytest.fixture
def connect(stand_in: StandIn) -> Iterator[Connect]:
    made: list[Nucleus] = []

    def start(recipe: dict[str, Any]) -> Nucleus:
        token = stand_in.install(recipe).token
        made.append(Nucleus(socket_path=str(stand_in.socket_path), token=token))
        made[-1].start()
        return made[-1]

    yield start
    for nucleus in made:
        nucleus.close()


def published(nucleus: Nucleus, topic: str) -> bool | Refused:
    outcomes: list[bool | Refused] = []
    nucleus.local.publish(topic, b"1", outcomes.append)
    wait_until(lambda: bool(outcomes))
    return outcomes[0]


def ignore(_delivery: Delivery) -> None:
    pass


def test_a_message_that_may_not_be_published_is_refused_and_the_link_stays(connect: Connect) -> None:
    nucleus = connect(allowing(PublishToTopic="wt/*"))

    outcome = published(nucleus, "secret")

    assert isinstance(outcome, Refused)
    assert nucleus.local.connected
    assert nucleus.local.trouble == "greengrass local: the recipe's accessControl does not allow publishing on secret"
    assert published(nucleus, "wt/a") is True


def test_what_the_recipe_allows_again_is_no_trouble_any_more(connect: Connect, stand_in: StandIn) -> None:
    nucleus = connect(allowing(PublishToTopic="wt/*"))
    published(nucleus, "other")

    stand_in.components["com.example.Pump"].access[PUBSUB]["more"] = {"operations": ["*"], "resources": ["other"]}

    assert published(nucleus, "other") is True
    assert nucleus.local.trouble == ""


def test_a_heartbeat_that_may_not_be_sent_is_told_and_never_taken_for_a_deaf_stream(connect: Connect) -> None:
    nucleus, clock, gave_up = connect(allowing(SubscribeToTopic="wt/*")), ManualClock(), list[str]()
    beat = Heartbeat(nucleus.local, "wt/core-1/heartbeat/x", 60.0, gave_up.append, clock)
    beat.start()

    for _ in range(20):
        beat.beat()
        wait_until(lambda: nucleus.local.trouble != "")
        clock.advance(50)

    assert nucleus.local.trouble.endswith("does not allow publishing on wt/core-1/heartbeat/x")
    assert gave_up == []
    assert nucleus.local.connected


def test_a_subscription_that_is_forbidden_meanwhile_keeps_no_other_from_coming_back(
    connect: Connect, stand_in: StandIn
) -> None:
    nucleus = connect(allowing(SubscribeToTopic="*", PublishToTopic="*"))
    clock, gave_up, heard = ManualClock(), list[str](), list[str]()
    beat = Heartbeat(nucleus.local, "secret/heartbeat", 60.0, gave_up.append, clock)
    beat.start()
    nucleus.local.subscribe("wt/a", lambda delivery: heard.append(delivery.topic))
    stand_in.components["com.example.Pump"].access[PUBSUB] = allowing(SubscribeToTopic="wt/*", PublishToTopic="*")[
        "ComponentConfiguration"
    ]["DefaultConfiguration"]["accessControl"][PUBSUB]

    before = stand_in.connections
    stand_in.drop_connections()
    wait_until(lambda: stand_in.connections > before and "secret/heartbeat" in nucleus.local.trouble)
    wait_until(lambda: (stand_in.publish_local("wt/a", b"1"), bool(heard))[1])  # type: ignore[func-returns-value]
    for _ in range(20):
        beat.beat()
        clock.advance(50)

    assert nucleus.local.trouble.endswith("does not allow subscribing to secret/heartbeat")
    assert gave_up == []
    assert stand_in.connections == before + 1


def test_a_subscription_that_is_forbidden_from_the_start_is_told_to_whoever_asks_for_it(connect: Connect) -> None:
    nucleus = connect(allowing(SubscribeToTopic="wt/*"))

    with pytest.raises(SettingsError, match="accessControl does not allow subscribing to secret"):
        nucleus.local.subscribe("secret", ignore)
    nucleus.local.subscribe("wt/a", ignore)

    assert nucleus.local.trouble.endswith("subscribing to secret")
