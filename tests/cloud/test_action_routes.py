"""Which executor carries out which action, and what settings are refused because they would reach nobody."""

import json
import re
from pathlib import Path

import pytest

from tests.core.judging import MODEL, Bench, deployment
from tests.executing import action
from wheeltapper.clock import ManualClock
from wheeltapper.errors import SettingsError
from wheeltapper.judge.delivery import Delivery
from wheeltapper.transport.memory import MemoryBroker
from wheeltapper_cloud.actions import Router
from wheeltapper_cloud.actions_settings import (
    ActionSettings,
    ToBroker,
    ToCommand,
    ToEmail,
    ToFile,
    ToInput,
    ToWebhook,
)
from wheeltapper_cloud.settings import load


def test_mappings_come_first_and_nothing_mapped_is_nobody(tmp_path):
    bench = Bench(tmp_path)
    broker = MemoryBroker()
    settings = ActionSettings(
        map=[
            ToFile(target="arn:aws:sns:*:alarms", path=tmp_path / "a.jsonl"),
            ToInput(target="*", type="sqs", input="Reading"),
            ToBroker(target="arn:aws:lambda:*", topic="lambda/{thing}"),
        ]
    )
    router = Router(settings, bench.judge, 8, bench.clock, broker.transport())

    kinds = {
        (kind, target): type(router(action(kind, target))).__name__
        for kind, target in [
            ("sns", "arn:aws:sns:eu-west-1:1:alarms"),
            ("sns", "arn:aws:sns:eu-west-1:1:other"),
            ("sqs", "https://sqs/x"),
            ("lambda", "arn:aws:lambda:x"),
            ("iotTopicPublish", "a/b"),
            ("iotEvents", "Reading"),
            ("publish", "wt/m1/state"),
            ("notification", ""),
        ]
    }

    assert list(kinds.values()) == [
        "FileExecutor", "NoneType", "InputExecutor", "BrokerExecutor", "BrokerExecutor", "InputExecutor",
        "BrokerExecutor", "NotificationExecutor",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "mapping",
    [
        ToCommand(name="missing"),
        ToBroker(topic="x"),
        ToEmail(sender="a@b", recipients=["c@d"]),
        ToWebhook(url="http://example.com/x", secret_file=Path("/dev/null")),
        ToWebhook(url="https://example.com/x", secret_file=Path("/nonexistent")),
        ToWebhook(url="ftp://127.0.0.1/x", secret_file=Path("/dev/null")),
    ],
)
def test_a_mapping_that_cannot_work_is_refused(tmp_path, mapping):
    bench = Bench(tmp_path)

    with pytest.raises(SettingsError):
        Router(ActionSettings(map=[mapping]), bench.judge, 8, bench.clock, None)


def test_a_loop_of_events_ends_at_the_hop_limit(tmp_path):
    body = json.loads(json.dumps(MODEL))
    body["detectorModelDefinition"] = {
        "initialStateName": "s",
        "states": [
            {
                "stateName": "s",
                "onInput": {
                    "events": [
                        {
                            "eventName": "again",
                            "condition": "$input.Reading.t > 0",
                            "actions": [
                                {
                                    "iotEvents": {
                                        "inputName": "Reading",
                                        "payload": {"contentExpression": '\'{"id": "m1", "t": 1}\'', "type": "JSON"},
                                    }
                                }
                            ],
                        }
                    ]
                },
            }
        ],
    }
    bench = Bench(tmp_path)
    router = Router(ActionSettings(), bench.judge, 8, bench.clock, None)
    delivery = Delivery(router, bench.clock)
    delivery.attach(bench.judge)
    bench.deliver = delivery.take
    bench.judge.declare_inputs({"Reading": []})
    bench.judge.deploy(deployment(body))

    bench.put(1.0)

    found = bench.judge.actions()
    assert [record.status for record in found if record.action.type == "iotEvents"].count("failed") == 1
    assert bench.judge.statistics().accepted == 9


@pytest.mark.parametrize(
    "wrong",
    [
        "delivery = { threads = 0 }",
        "delivery = { attempts = 0 }",
        "delivery = { memory = 0 }",
        "delivery = { first_delay_s = -1 }",
        "smtp = { timeout_s = 0 }",
        'commands = { siren = { run = ["/bin/true"], timeout_s = -1 } }',
        'map = [{ to = "webhook", url = "https://x.example/", secret_file = "s", timeout_s = 0 }]',
    ],
)
def test_numbers_with_which_nothing_would_be_delivered_are_refused(tmp_path, wrong):
    path = tmp_path / "cloud.toml"
    path.write_text(f"[actions]\n{wrong}\n")

    with pytest.raises(SettingsError):
        load(path)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ('map = [{to = "email", sender = "p@x.example", recipients = []}]', "recipients"),
        ("smtp = {port = 99999}", "port"),
        ("commands = {siren = {run = []}}", "run"),
    ],
)
def test_settings_that_would_reach_nobody_are_refused_by_their_name(tmp_path, wrong, named):
    path = tmp_path / "cloud.toml"
    path.write_text(f"[actions]\n{wrong}\n")

    with pytest.raises(SettingsError, match=named):
        load(path)


def test_the_documents_settings_are_read(tmp_path):
    document = (Path(__file__).resolve().parents[2] / "docs" / "actions.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    path = tmp_path / "cloud.toml"
    path.write_text("\n".join(blocks))

    found = load(path)

    assert len(found.rules) >= 2
    assert [type(mapping).__name__ for mapping in found.actions.map] == [
        "ToWebhook", "ToCommand", "ToEmail", "ToCommand",
    ]  # fmt: skip
    assert found.actions.notifications.escalate_after_s == [900, 3600]


def router(tmp_path, *mappings):
    return Router(ActionSettings(map=list(mappings)), None, 8, ManualClock(), None)


def test_only_stars_and_question_marks_are_patterns(tmp_path):
    route = router(tmp_path, ToFile(target="/line[1]/temp*", path=tmp_path / "a"))

    assert route(action("iotSiteWise", target="/line[1]/temperature")) is not None
    assert route(action("iotSiteWise", target="/line1/temperature")) is None


def test_a_mapping_of_a_type_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"'SNS'.*sns"):
        router(tmp_path, ToFile(type="SNS", path=tmp_path / "a"))
