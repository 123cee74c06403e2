import hashlib
import hmac
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.core.judging import MODEL, Bench, deployment
from tests.executing import action, run
from wheeltapper.clock import ManualClock, SystemClock
from wheeltapper.errors import MessageError, SettingsError, UnavailableError
from wheeltapper.judge.delivery import Delivery, DeliverySettings, Result
from wheeltapper.transport.memory import MemoryBroker
from wheeltapper_cloud.actions import Router
from wheeltapper_cloud.actions_aws import AwsExecutor, sitewise_entry
from wheeltapper_cloud.actions_local import CommandExecutor, FileExecutor, Mailer, WebhookExecutor
from wheeltapper_cloud.actions_settings import (
    ActionSettings,
    AwsAccount,
    CommandSettings,
    SmtpSettings,
    ToBroker,
    ToCommand,
    ToEmail,
    ToFile,
    ToInput,
    ToWebhook,
)
from wheeltapper_cloud.settings import load


class Scripted:
    """An executor that answers as told."""

    immediate = False

    def __init__(self, *answers):
        self.answers = list(answers)
        self.seen = []

    def execute(self, wanted, settled):
        self.seen.append(wanted.id)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        settled(answer)


def delivered_by(tmp_path, executor, **settings):
    """A judge whose actions go to one executor; news goes nowhere."""
    bench = Bench(tmp_path)
    reports = []
    delivery = Delivery(
        lambda wanted: executor if wanted.type != "publish" else Scripted(Result("delivered")),
        bench.clock, DeliverySettings(**settings), report=reports.append, jitter=lambda: 1.0,
    )  # fmt: skip
    delivery.attach(bench.judge)
    bench.deliver = delivery.take
    bench.with_models()
    return bench, delivery, reports


def statuses(bench, kind="sns"):
    return [(found.status, found.attempts) for found in bench.judge.actions() if found.action.type == kind]


def test_an_action_is_tried_again_until_it_is_delivered_under_one_id(tmp_path):
    executor = Scripted(UnavailableError("away"), Result("retry", "busy"), Result("delivered"))
    bench, delivery, reports = delivered_by(tmp_path, executor)
    bench.put(90.0)

    for _ in range(10):
        delivery.run_due()
        bench.clock.advance(1)

    assert len(set(executor.seen)) == 1
    assert len(executor.seen) == 3
    assert statuses(bench) == [("delivered", 3)]
    assert [(report.type, report.outcome, report.thing) for report in reports] == [("sns", "delivered", "m1")]


def test_pauses_double(tmp_path):
    executor = Scripted(*[Result("retry")] * 4, Result("delivered"))
    bench, delivery, _ = delivered_by(tmp_path, executor, first_delay_s=10)
    bench.put(90.0)

    tried_at = []
    for second in range(200):
        tried_at += [second] * delivery.run_due()
        bench.clock.advance(1)

    assert [second for second in tried_at if second] == [10, 30, 70, 150]


def test_after_too_many_attempts_it_is_parked_and_can_be_replayed(tmp_path):
    executor = Scripted(*[Result("retry", "no route")] * 3, Result("delivered"))
    bench, delivery, _ = delivered_by(tmp_path, executor, attempts=3)
    bench.put(90.0)
    for _ in range(20):
        delivery.run_due()
        bench.clock.advance(1)
    assert statuses(bench) == [("parked", 3)]
    assert bench.judge.statistics().actions_parked == 1

    parked = bench.judge.actions(["parked"])[0]
    assert bench.judge.replay_actions([parked.action.id], by="ada") == 1
    delivery.run_due()

    assert statuses(bench) == [("delivered", 1)]


def test_a_refusal_is_not_repeated(tmp_path):
    executor = Scripted(MessageError("no such topic"))
    bench, delivery, _ = delivered_by(tmp_path, executor)
    bench.put(90.0)
    delivery.run_due()

    found = bench.judge.actions(["failed"])[0]

    assert found.detail == "no such topic"


def test_what_nobody_carries_out_is_shown_as_undelivered(tmp_path):
    bench, _, reports = delivered_by(tmp_path, None)

    bench.put(90.0)

    assert statuses(bench) == [("undelivered", 1)]
    assert reports[0].outcome == "undelivered"


def test_a_target_that_is_away_uses_up_no_attempts(tmp_path):
    executor = Scripted(*[Result("away")] * 30, Result("delivered"))
    bench, delivery, _ = delivered_by(tmp_path, executor, attempts=2)
    bench.put(90.0)

    for _ in range(40):
        delivery.run_due()
        bench.clock.advance(1)

    assert statuses(bench) == [("delivered", 1)]


def test_more_than_memory_holds_waits_on_disk(tmp_path):
    executor = Scripted(*[Result("delivered")] * 100)
    bench, delivery, _ = delivered_by(tmp_path, executor, memory=5)
    for number in range(12):
        bench.put(90.0, key=f"m{number}")

    for _ in range(60):
        delivery.run_due()
        bench.clock.advance(1)

    assert {status for status, _ in statuses(bench)} == {"delivered"}
    assert len(set(executor.seen)) == 12


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


class Receiver(BaseHTTPRequestHandler):
    status = 200

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def webhook(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    server.received, server.status = [], 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123\n")
    secret.chmod(0o600)
    server.settings = ToWebhook(url=f"http://127.0.0.1:{server.server_port}/hook?x=1", secret_file=secret)
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_is_signed_and_carries_the_id(webhook):
    executor = WebhookExecutor(webhook.settings, ManualClock(5_000))

    result = run(executor, action())

    assert result.outcome == "delivered"
    path, headers, body = webhook.received[0]
    assert (path, body, headers["X-Wheeltapper-Action-Id"]) == ("/hook?x=1", b'{"a": 1}', "a1")
    expected = hmac.new(b"0123456789abcdef0123", b"5.a1." + body, hashlib.sha256).hexdigest()
    assert headers["X-Wheeltapper-Signature"] == f"sha256={expected}"


@pytest.mark.parametrize(("status", "outcome"), [(503, "retry"), (429, "retry"), (404, "failed"), (302, "failed")])
def test_a_webhooks_answer_decides(webhook, status, outcome):
    webhook.status = status

    assert run(WebhookExecutor(webhook.settings, ManualClock()), action()).outcome == outcome


def test_a_webhook_that_is_away_is_tried_again(webhook):
    webhook.shutdown()
    webhook.server_close()

    with pytest.raises(UnavailableError):
        run(WebhookExecutor(webhook.settings, ManualClock()), action())


def test_a_file_gets_one_whole_line_per_action(tmp_path):
    executor = FileExecutor(tmp_path / "sub" / "actions.jsonl")

    run(executor, action())
    run(executor, action(payload="not json ü".encode()))

    lines = [json.loads(line) for line in (tmp_path / "sub" / "actions.jsonl").read_text().splitlines()]
    assert [line["payload"] for line in lines] == [{"a": 1}, "not json ü"]


def test_a_disk_that_fills_up_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    path = tmp_path / "actions.jsonl"
    executor = FileExecutor(path)
    run(executor, action())
    before = path.read_bytes()

    with monkeypatch.context() as full:
        write = os.write
        full.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:5]))
        with pytest.raises(UnavailableError, match="No space"):
            run(executor, action())

    assert path.read_bytes() == before
    run(executor, action())
    assert path.read_bytes() == before * 2


def test_a_line_that_a_power_cut_left_unfinished_spoils_no_other(tmp_path):
    path = tmp_path / "actions.jsonl"
    path.write_bytes(b'{"id": "a')

    run(FileExecutor(path), action())

    assert json.loads(path.read_bytes().splitlines()[-1])["id"] == "a1"


def test_a_command_gets_the_action_and_no_shell(tmp_path):
    out = tmp_path / "out"
    script = tmp_path / "siren"
    script.write_text(f"#!/bin/sh\ncat > {out}\necho $WHEELTAPPER_ACTION_ID >> {out}\n")
    script.chmod(0o700)

    result = run(CommandExecutor("siren", CommandSettings(run=[str(script)])), action(payload=b'"; rm -rf /"'))

    assert result.outcome == "delivered"
    assert out.read_text().endswith("a1\n")
    failing = CommandExecutor("false", CommandSettings(run=["/bin/sh", "-c", "echo no >&2; exit 3"]))
    assert run(failing, action()) == Result("retry", "command false: exit status 3: no")
    slow = CommandExecutor("slow", CommandSettings(run=["/bin/sleep", "20"], timeout_s=0.05))
    with pytest.raises(UnavailableError):
        run(slow, action())
    with pytest.raises(SettingsError):
        CommandExecutor("x", CommandSettings(run=["siren"]))


def test_mail_without_encryption_is_for_loopback():
    with pytest.raises(SettingsError, match="loopback"):
        Mailer(SmtpSettings(host="mail.example", security="none"))


@pytest.fixture
def aws(monkeypatch):
    moto = pytest.importorskip("moto")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        yield AwsExecutor(AwsAccount(region="us-east-1"))


def test_sns_and_sqs_carry_payload_and_id(aws):
    import boto3

    topic = boto3.client("sns", "us-east-1").create_topic(Name="t")["TopicArn"]
    sqs = boto3.client("sqs", "us-east-1")
    queue = sqs.create_queue(QueueName="q")["QueueUrl"]
    boto3.client("sns", "us-east-1").subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:123456789012:q"
    )

    run(aws, action("sns", topic))
    run(aws, action("sqs", queue, payload=b"plain"))
    run(aws, action("sqs", queue, payload=b"plain", parameters={"useBase64": True}))

    received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, MessageAttributeNames=["All"])["Messages"]
    bodies = [message["Body"] for message in received]
    assert json.loads(bodies[0])["Message"] == '{"a": 1}'
    assert bodies[1:] == ["plain", "cGxhaW4="]
    assert received[1]["MessageAttributes"]["wheeltapper-action-id"]["StringValue"] == "a1"


def test_what_aws_refuses_is_failed_and_what_it_throttles_is_tried_again(aws, monkeypatch):
    from botocore.exceptions import ClientError

    with pytest.raises(MessageError):
        run(aws, action("sns", "arn:aws:sns:us-east-1:123456789012:missing"))

    def throttle(_action):
        raise ClientError({"Error": {"Code": "ThrottlingException"}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "x")

    monkeypatch.setitem(aws._calls, "sns", throttle)
    with pytest.raises(UnavailableError):
        run(aws, action("sns"))


def test_dynamodb_writes_one_column_or_one_per_member(aws):
    import boto3

    client = boto3.client("dynamodb", "us-east-1")
    client.create_table(
        TableName="T", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
    )  # fmt: skip
    named = {"tableName": "T", "hashKeyField": "k", "hashKeyValue": "m1"}

    run(aws, action("dynamoDB", "T", payload=b'{"t": 1.5}', parameters=named))
    run(aws, action("dynamoDB", "T", payload=b"text", parameters={**named, "operation": "UPDATE", "payloadField": "p",
                                                                  "payloadType": "STRING"}))  # fmt: skip
    run(aws, action("dynamoDBv2", "T", payload=b'{"k": "m2", "n": 2, "o": {"x": [1]}}', parameters={"tableName": "T"}))

    items = {item["k"]["S"]: item for item in client.scan(TableName="T")["Items"]}
    assert items["m1"]["payload"] == {"M": {"t": {"N": "1.5"}}}
    assert items["m1"]["p_raw"] == {"B": b"text"}
    assert items["m2"]["o"] == {"M": {"x": {"L": [{"N": "1"}]}}}
    run(aws, action("dynamoDB", "T", parameters={**named, "operation": "DELETE"}))
    assert [item["k"]["S"] for item in client.scan(TableName="T")["Items"]] == ["m2"]
    with pytest.raises(MessageError):
        run(aws, action("dynamoDBv2", "T", payload=b"[1]", parameters={"tableName": "T"}))


def test_firehose_appends_the_separator(aws):
    import boto3

    boto3.client("s3", "us-east-1").create_bucket(Bucket="bucket")
    boto3.client("firehose", "us-east-1").create_delivery_stream(
        DeliveryStreamName="f",
        ExtendedS3DestinationConfiguration={
            "RoleARN": "arn:aws:iam::123456789012:role/r",
            "BucketARN": "arn:aws:s3:::bucket",
        },
    )

    assert run(aws, action("firehose", "f", parameters={"separator": "\n"})).outcome == "delivered"


def test_publish_through_iot_data(aws):
    assert run(aws, action("iotTopicPublish", "a/b")).outcome == "delivered"


def test_sitewise_gets_the_event_time_and_alarm_json_where_nothing_is_given():
    given = action("iotSiteWise", "", parameters={"assetId": "a", "propertyId": "p"})
    full = action(
        "iotSiteWise",
        "",
        parameters={
            "propertyAlias": "/x",
            "entryId": "e",
            "propertyValue": {"value": {"doubleValue": 1.5}, "timestamp": {"timeInSeconds": 7}, "quality": "GOOD"},
        },
    )

    entry = sitewise_entry(given)

    assert entry["propertyValues"][0]["timestamp"] == {"timeInSeconds": 1_700_000_000, "offsetInNanos": 123_000_000}
    assert entry["propertyValues"][0]["value"] == {"stringValue": '{"a": 1}'}
    assert sitewise_entry(full)["propertyValues"] == [full.parameters["propertyValue"]]


def test_sitewise_and_lambda_are_called_as_the_service_models_want(monkeypatch):
    import boto3
    from botocore.stub import Stubber

    executor = AwsExecutor(AwsAccount())
    session = boto3.session.Session("x", "y", region_name="us-east-1")
    clients = {name: session.client(name) for name in ("iotsitewise", "lambda")}
    monkeypatch.setattr(executor, "_client", lambda service, target="": clients[service])
    wanted = action(
        "iotSiteWise",
        "",
        parameters={"assetId": "a" * 36, "propertyId": "p" * 36, "propertyValue": {"value": {"integerValue": 1}}},
    )
    with Stubber(clients["iotsitewise"]) as sitewise, Stubber(clients["lambda"]) as function:
        sitewise.add_response(
            "batch_put_asset_property_value", {"errorEntries": []}, {"entries": [sitewise_entry(wanted)]}
        )
        function.add_response(
            "invoke", {"StatusCode": 202}, {"FunctionName": "arn:f", "InvocationType": "Event", "Payload": b'"text"'}
        )

        run(executor, wanted)
        run(executor, action("lambda", "arn:f", payload=b"text", parameters={"payloadType": "STRING"}))

        sitewise.assert_no_pending_responses()
        function.assert_no_pending_responses()


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


def test_the_documents_receiver_tells_genuine_webhooks_from_others(webhook):
    document = (Path(__file__).resolve().parents[2] / "docs" / "actions.md").read_text()
    receiver = {}
    exec(re.search(r"```python\n(.*?)```", document, re.DOTALL)[1], receiver)  # noqa: S102 - our own document
    genuine, secret = receiver["genuine"], b"0123456789abcdef0123"

    run(WebhookExecutor(webhook.settings, SystemClock()), action())
    run(WebhookExecutor(webhook.settings, ManualClock(5_000)), action())

    (_, headers, body), (_, old, _) = webhook.received
    assert genuine(secret, headers, body)
    assert not genuine(secret, headers, body + b" ")
    assert not genuine(b"another secret!!", headers, body)
    assert not genuine(secret, {**headers, "X-Wheeltapper-Action-Id": "a2"}, body)
    assert not genuine(secret, {**headers, "X-Wheeltapper-Time": old["X-Wheeltapper-Time"]}, body)
    assert not genuine(secret, old, body)
