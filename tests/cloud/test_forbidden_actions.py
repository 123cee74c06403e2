"""An action on which the broker hangs up, beside others: it is found out and parked, and everything else goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.companion import serving
from tests.core.judging import deployment
from tests.hanging_up import HangingUp, hanging_up
from tests.loopback import wait_until
from wheeltapper import inquiry
from wheeltapper.cli import main
from wheeltapper.judge import JudgeSettings, Message
from wheeltapper.transport.settings import BrokerSettings, Client, open_transport
from wheeltapper_cloud.settings import CloudSettings

MODEL: dict[str, Any] = {
    "detectorModelName": "Motor",
    "roleArn": "arn:aws:iam::123456789012:role/r",
    "key": "id",
    "detectorModelDefinition": {
        "initialStateName": "s",
        "states": [
            {
                "stateName": "s",
                "onInput": {
                    "events": [
                        {
                            "eventName": topic,
                            "condition": "$input.Reading.t > 80",
                            "actions": [
                                {
                                    "iotTopicPublish": {
                                        "mqttTopic": f"'{topic}'",
                                        "payload": {"contentExpression": "$input.Reading.id", "type": "STRING"},
                                    }
                                }
                            ],
                        }
                        for topic in ("allowed", "forbidden")
                    ]
                },
            }
        ],
    },
}


@pytest.fixture
def broker() -> Iterator[HangingUp]:
    with hanging_up() as server:
        yield server


@pytest.mark.parametrize("client", ["bulk", "paho"])
def test_an_action_that_the_broker_forbids_is_parked_and_the_others_arrive(
    broker: HangingUp,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(inquiry, "CALM_S", 0.3)
    url = f"mqtt://127.0.0.1:{broker.server_address[1]}"
    settings = CloudSettings(health_s=0.5, judge=JudgeSettings(publish_states=False, publish_actions=False))
    transport = open_transport(BrokerSettings(url=url, client=client), "companion")
    with serving(tmp_path, settings, transport=transport) as served:
        judge = served.companion.judge
        judge.declare_inputs({"Reading": ["id", "t"]})
        judge.deploy(deployment(MODEL))

        def put(*keys: str) -> None:
            judge.put([Message("Reading", json.dumps({"id": key, "t": 90}).encode()) for key in keys])

        put("m1", "m2")
        wait_until(lambda: len(judge.actions(["parked"])) == 2)
        put("m3", "m4")
        wait_until(lambda: len(judge.actions(["parked"])) == 4)
        wait_until(lambda: len(judge.actions(["delivered"])) == 4)
        main(["actions", "parked", "--json", "--server", served.url])
        parked = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]

        assert {"m1", "m2", "m3", "m4"} <= set(broker.heard)
        assert {action.action.target for action in judge.actions(["parked"])} == {"forbidden"}
        assert len(parked) == 4
        assert all("hangs up on it" in action["detail"] for action in parked)
