"""Every action that AWS carries out, from a definition through the judge to a service that a real boto3 talks to."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest

from tests.core.judging import Bench, deployment
from tests.executing import action, run
from tests.loopback import free_port
from wheeltapper.errors import MessageError, SettingsError, UnavailableError
from wheeltapper.judge import Message
from wheeltapper.judge.delivery import Delivery
from wheeltapper_cloud.actions import Router
from wheeltapper_cloud.actions_aws import AwsExecutor, region_of
from wheeltapper_cloud.actions_settings import ActionSettings, AwsAccount

REGION = "us-east-1"
SECRET = "do-not-tell-anybody"


@pytest.fixture
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def moto(credentials):
    with pytest.importorskip("moto").mock_aws():
        yield


class Service(BaseHTTPRequestHandler):
    """A service that answers as its server is told."""

    def do_POST(self):
        self.server.asked.append((self.path, self.rfile.read(int(self.headers["Content-Length"] or 0))))
        self.server.signed.append(self.headers["Authorization"])
        status, headers, body = self.server.answer
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.executor = AwsExecutor(AwsAccount(region=REGION, endpoint_url=server.url))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def service(server, credentials):
    server.asked, server.signed, server.answer = [], [], (200, {}, {})
    return server


def delivered(tmp_path, actions, endpoint_url=""):
    """What became of a definition's actions: a detector that does them on a message, with an AWS account."""
    body = {
        "detectorModelName": "Pump",
        "roleArn": "arn:aws:iam::123456789012:role/r",
        "key": "id",
        "detectorModelDefinition": {
            "initialStateName": "s",
            "states": [
                {
                    "stateName": "s",
                    "onInput": {
                        "events": [{"eventName": "tell", "condition": "$input.Reading.t > 80", "actions": actions}]
                    },
                }
            ],
        },
    }
    bench = Bench(tmp_path)
    account = AwsAccount(region=REGION, endpoint_url=endpoint_url)
    delivery = Delivery(Router(ActionSettings(aws=account), bench.judge, 8, bench.clock, None), bench.clock)
    delivery.attach(bench.judge)
    bench.deliver = delivery.take
    bench.judge.declare_inputs({"Reading": [], "Other": []})
    bench.judge.deploy(deployment(body))

    payload = b'{"id": "pump-1", "t": 90.5, "n": 7, "ok": false, "at": 1700000000, "word": "hot"}'
    assert bench.judge.put([Message("Reading", payload, "m-1", 1_699_999_999_500)]) == []
    delivery.run_due()

    found = [each for each in bench.judge.actions() if each.action.type != "publish"]
    return sorted((each.action.type, each.status, each.detail) for each in found)


def custom(expression, kind="JSON"):
    return {"payload": {"contentExpression": expression, "type": kind}}


def test_sns_sqs_and_the_topic_get_the_default_payload_or_the_definitions_own(moto, tmp_path):
    import boto3

    sns, sqs = boto3.client("sns", REGION), boto3.client("sqs", REGION)
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    queues = {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("fan", "plain", "coded")}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{REGION}:123456789012:fan")

    found = delivered(
        tmp_path,
        [
            {"sns": {"targetArn": topic}},
            {"sqs": {"queueUrl": queues["plain"], **custom("'Too hot: ${$input.Reading.t}'", "STRING")}},
            {"sqs": {"queueUrl": queues["coded"], "useBase64": True, **custom("'{\"t\": ${$input.Reading.t}}'")}},
            {"iotTopicPublish": {"mqttTopic": "'plant/' + $input.Reading.id + '/alarm'"}},
        ],
    )

    assert [(kind, status) for kind, status, _ in found] == [
        ("iotTopicPublish", "delivered"),
        ("sns", "delivered"),
        ("sqs", "delivered"),
        ("sqs", "delivered"),
    ]
    taken = {name: sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] for name, url in queues.items()}
    told = json.loads(json.loads(taken["fan"])["Message"])
    assert (told["eventName"], told["eventTime"]) == ("tell", 1_699_999_999_500)
    assert told["payload"]["detector"] == {
        "detectorModelName": "Pump",
        "detectorModelVersion": "1",
        "keyValue": "pump-1",
    }
    assert taken["plain"] == "Too hot: 90.5"
    assert taken["coded"] == "eyJ0IjogOTAuNX0="


def test_a_text_message_names_its_sender_and_no_error_names_its_whole_number(moto, credentials):
    from moto.backends import get_backend

    executor = AwsExecutor(AwsAccount(region=REGION))

    executor.send_text("+4915112345678", "Hot!", "Plant")
    with pytest.raises(MessageError) as refused:
        executor.send_text("no number at all", "Hot!", "")

    sent = get_backend("sns")["123456789012"][REGION].sms_messages
    assert list(sent.values()) == [("+4915112345678", "Hot!")]
    assert "SMS to no n…" in str(refused.value)


def test_lambda_is_invoked_asynchronously_with_the_payload_as_its_event(service, tmp_path):
    service.answer = (202, {}, {})
    function = f"arn:aws:lambda:{REGION}:123456789012:function:notify"

    found = delivered(
        tmp_path,
        [
            {"lambda": {"functionArn": function, **custom("'{\"t\": ${$input.Reading.t}}'")}},
            {"lambda": {"functionArn": function, **custom("$input.Reading.t > 80", "STRING")}},
        ],
        service.url,
    )

    assert found == [("lambda", "delivered", "")] * 2
    assert {path for path, _ in service.asked} == {f"/2015-03-31/functions/{quote(function, safe='')}/invocations"}
    assert sorted(body for _, body in service.asked) == [b'"true"', b'{"t": 90.5}']


def test_a_function_that_does_not_exist_is_failed(moto, tmp_path):
    function = f"arn:aws:lambda:{REGION}:123456789012:function:missing"

    kind, status, detail = delivered(tmp_path, [{"lambda": {"functionArn": function}}])[0]

    assert (kind, status) == ("lambda", "failed")
    assert "ResourceNotFoundException" in detail


def test_firehose_records_end_with_the_separator(moto, tmp_path):
    import boto3

    boto3.client("s3", REGION).create_bucket(Bucket="bucket")
    boto3.client("firehose", REGION).create_delivery_stream(
        DeliveryStreamName="lake",
        ExtendedS3DestinationConfiguration={
            "RoleARN": "arn:aws:iam::123456789012:role/r",
            "BucketARN": "arn:aws:s3:::bucket",
        },
    )
    record = custom("'{\"t\": ${$input.Reading.t}}'")

    found = delivered(
        tmp_path,
        [
            {"firehose": {"deliveryStreamName": "lake", "separator": each, **record}}
            for each in ("\n", "\r\n", ",", "\t")
        ],
    )

    assert {status for _, status, _ in found} == {"delivered"}
    s3 = boto3.client("s3", REGION)
    stored = [
        s3.get_object(Bucket="bucket", Key=each["Key"])["Body"].read()
        for each in s3.list_objects_v2(Bucket="bucket")["Contents"]
    ]
    assert sorted(stored) == [b'{"t": 90.5}\t', b'{"t": 90.5}\n', b'{"t": 90.5}\r\n', b'{"t": 90.5},']


def dynamo_table(range_type=""):
    import boto3

    client = boto3.client("dynamodb", REGION)
    keys = [("k", "HASH", "S")] + ([("r", "RANGE", range_type)] if range_type else [])
    client.create_table(
        TableName="T", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind, _ in keys],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": of} for name, _, of in keys],
    )  # fmt: skip
    return client


def test_dynamodb_keys_have_the_types_that_the_definition_says(moto, tmp_path):
    client = dynamo_table("N")
    keys = {
        "tableName": "'T'",
        "hashKeyField": "'k'",
        "hashKeyValue": "$input.Reading.ok",
        "rangeKeyField": "'r'",
        "rangeKeyType": "'NUMBER'",
        "rangeKeyValue": "'${$input.Reading.at}'",
    }

    found = delivered(
        tmp_path,
        [
            {"dynamoDB": keys},
            {"dynamoDB": {**keys, "operation": "'UPDATE'", "payloadField": "'note'", **custom("'hot'", "STRING")}},
            {"dynamoDB": {**keys, "rangeKeyValue": "$input.Reading.t", **custom("'{\"t\": ${$input.Reading.t}}'")}},
        ],
    )

    assert {status for _, status, _ in found} == {"delivered"}
    items = {item["r"]["N"]: item for item in client.scan(TableName="T")["Items"]}
    assert {item["k"]["S"] for item in items.values()} == {"false"}
    assert items["90.5"]["payload"] == {"M": {"t": {"N": "90.5"}}}
    assert items["1700000000"]["note_raw"] == {"B": b"hot"}
    assert items["1700000000"]["payload"]["M"]["eventName"] == {"S": "tell"}


def test_a_range_key_without_a_value_is_refused_rather_than_made_up(moto):
    dynamo_table("S")
    given = {"tableName": "T", "hashKeyField": "k", "hashKeyValue": "m1", "rangeKeyField": "r"}
    executor = AwsExecutor(AwsAccount(region=REGION))

    with pytest.raises(MessageError, match="rangeKeyValue"):
        run(executor, action("dynamoDB", "T", parameters=given))


def test_a_number_that_dynamodb_cannot_hold_is_refused_at_once(moto):
    dynamo_table()
    payload = b'{"k": "m1", "x": 1.0000000000000000000000000000000000000000001}'
    executor = AwsExecutor(AwsAccount(region=REGION))

    with pytest.raises(MessageError):
        run(executor, action("dynamoDBv2", "T", payload=payload, parameters={"tableName": "T"}))


def test_dynamodb_v2_has_a_column_per_member(moto, tmp_path):
    client = dynamo_table()
    content = '\'{"k": "${$input.Reading.id}", "n": ${$input.Reading.n}, "ok": ${$input.Reading.ok}}\''

    found = delivered(tmp_path, [{"dynamoDBv2": {"tableName": "'T'", **custom(content)}}])

    assert found == [("dynamoDBv2", "delivered", "")]
    assert client.scan(TableName="T")["Items"] == [{"k": {"S": "pump-1"}, "n": {"N": "7"}, "ok": {"BOOL": False}}]


def sitewise_parameters(**value):
    return {"assetId": "a" * 36, "propertyId": "p" * 36, "propertyValue": {"value": value}}


def test_sitewise_gets_typed_values_with_time_and_quality(service, tmp_path):
    service.answer = (200, {}, {"errorEntries": []})
    asset = {"assetId": f"'{'a' * 36}'", "propertyId": f"'{'p' * 36}'"}
    stamp = {"timeInSeconds": "'${$input.Reading.at}'", "offsetInNanos": "'5'"}

    found = delivered(
        tmp_path,
        [
            {"iotSiteWise": {**asset, "entryId": "'whole'", "propertyValue": {"value": {"integerValue": "'7'"}}}},
            {"iotSiteWise": {"propertyAlias": "'/plant/' + $input.Reading.id", "entryId": "'decimal'", "propertyValue": {
                "value": {"doubleValue": "$input.Reading.t"}, "timestamp": stamp, "quality": "'UNCERTAIN'"}}},
            {"iotSiteWise": {**asset, "entryId": "'truth'", "propertyValue": {
                "value": {"booleanValue": "$input.Reading.ok"}}}},
            {"iotSiteWise": {**asset, "entryId": "'shouted'", "propertyValue": {"value": {"booleanValue": "'TRUE'"}}}},
            {"iotSiteWise": {**asset, "entryId": "'text'", "propertyValue": {
                "value": {"stringValue": "$input.Reading.word"}}}},
        ],
        service.url,
    )  # fmt: skip

    assert [(kind, status) for kind, status, _ in found] == [("iotSiteWise", "delivered")] * 5
    assert {path for path, _ in service.asked} == {"/properties"}
    entries = {entry["entryId"]: entry for _, body in service.asked for entry in json.loads(body)["entries"]}
    event_time = {"timeInSeconds": 1_699_999_999, "offsetInNanos": 500_000_000}
    assert entries["whole"]["propertyValues"] == [{"value": {"integerValue": 7}, "timestamp": event_time}]
    assert (entries["whole"]["assetId"], entries["whole"]["propertyId"]) == ("a" * 36, "p" * 36)
    assert entries["decimal"]["propertyAlias"] == "/plant/pump-1"
    assert entries["decimal"]["propertyValues"] == [
        {
            "value": {"doubleValue": 90.5},
            "timestamp": {"timeInSeconds": 1_700_000_000, "offsetInNanos": 5},
            "quality": "UNCERTAIN",
        }
    ]
    assert entries["truth"]["propertyValues"][0]["value"] == {"booleanValue": False}
    assert entries["shouted"]["propertyValues"][0]["value"] == {"booleanValue": True}
    assert entries["text"]["propertyValues"][0]["value"] == {"stringValue": "hot"}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ResourceNotFoundException", MessageError),
        ("AccessDeniedException", MessageError),
        ("TimestampOutOfRangeException", MessageError),
        ("ThrottlingException", UnavailableError),
        ("ServiceUnavailableException", UnavailableError),
        ("ConflictingOperationException", UnavailableError),
    ],
)
def test_a_value_that_sitewise_refuses_in_its_answer_is_not_delivered(service, code, kind):
    error = {"errorCode": code, "errorMessage": "no such asset", "timestamps": []}
    service.answer = (200, {}, {"errorEntries": [{"entryId": "a1", "errors": [error]}]})

    with pytest.raises(kind, match=f"{code}.*no such asset"):
        run(service.executor, action("iotSiteWise", "a/p", parameters=sitewise_parameters(integerValue=1)))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "ThrottlingException", UnavailableError),
        (400, "RequestThrottled", UnavailableError),
        (400, "ProvisionedThroughputExceededException", UnavailableError),
        (400, "ReplicatedWriteConflictException", UnavailableError),
        (400, "KmsThrottled", UnavailableError),
        (400, "ExpiredTokenException", UnavailableError),
        (429, "SomethingNew", UnavailableError),
        (408, "SomethingNew", UnavailableError),
        (500, "InternalServerError", UnavailableError),
        (503, "ServiceUnavailable", UnavailableError),
        (400, "AccessDeniedException", MessageError),
        (403, "AccessDenied", MessageError),
        (400, "UnrecognizedClientException", UnavailableError),
        (400, "ResourceNotFoundException", MessageError),
        (400, "ValidationException", MessageError),
    ],
)
def test_what_a_service_says_decides_between_another_attempt_and_failure(service, status, code, kind):
    service.answer = (status, {"x-amzn-ErrorType": code}, {"__type": code, "message": "why"})

    with pytest.raises(kind, match="why"):
        run(service.executor, action("dynamoDBv2", "T", parameters={"tableName": "T"}))


def test_a_service_that_nobody_reaches_is_tried_again(credentials):
    executor = AwsExecutor(AwsAccount(endpoint_url=f"http://127.0.0.1:{free_port()}"))

    with pytest.raises(UnavailableError, match="dynamoDBv2 T"):
        run(executor, action("dynamoDBv2", "T", parameters={"tableName": "T"}))


def test_without_credentials_an_action_waits_for_them(service, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    executor = AwsExecutor(AwsAccount(endpoint_url=service.url))
    wanted = action("dynamoDBv2", "T", parameters={"tableName": "T"})
    with pytest.raises(UnavailableError, match="credentials"):
        run(executor, wanted)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    assert run(executor, wanted).outcome == "delivered"


def test_credentials_that_have_expired_are_looked_up_again(service, monkeypatch):
    executor = AwsExecutor(AwsAccount(endpoint_url=service.url))
    wanted = action("dynamoDBv2", "T", parameters={"tableName": "T"})
    service.answer = (400, {}, {"__type": "ExpiredTokenException", "message": "too old"})
    with pytest.raises(UnavailableError):
        run(executor, wanted)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDROTATED")
    service.answer = (200, {}, {})

    assert run(executor, wanted).outcome == "delivered"
    assert ["AKIDEXAMPLE" in service.signed[0], "AKIDROTATED" in service.signed[1]] == [True, True]


def test_a_profile_that_does_not_exist_is_refused_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))

    with pytest.raises(SettingsError, match=r"actions\.aws\.profile.*plant"):
        AwsExecutor(AwsAccount(profile="plant"))


def test_credentials_are_told_to_no_log_whatever_its_level(service, monkeypatch, caplog):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-the-session")
    service.answer = (403, {}, {"__type": "AccessDeniedException", "message": "no"})
    executor = AwsExecutor(AwsAccount(endpoint_url=service.url))

    with caplog.at_level(logging.DEBUG), pytest.raises(MessageError) as refused:
        run(executor, action("dynamoDBv2", "T", parameters={"tableName": "T"}))

    said = caplog.text + str(refused.value)
    assert SECRET not in said
    assert "token-of-the-session" not in said


def test_a_target_is_called_in_the_region_that_it_names():
    named = {
        "arn:aws:sns:eu-west-1:1:t": "eu-west-1",
        "arn:aws-us-gov:lambda:us-gov-west-1:1:function:f": "us-gov-west-1",
        "https://sqs.eu-central-1.amazonaws.com/1/q": "eu-central-1",
        "https://eu-central-1.queue.amazonaws.com/1/q": "eu-central-1",
        "https://sqs-fips.us-west-2.amazonaws.com/1/q": "us-west-2",
        "https://vpce-0a-1b.sqs.ap-southeast-2.vpce.amazonaws.com/1/q": "ap-southeast-2",
        "http://127.0.0.1:4566/1/q": "",
        "https://queue.amazonaws.com/1/q": "",
        "T": "",
    }

    assert {target: region_of(target) for target in named} == named
