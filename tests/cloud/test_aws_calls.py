"""What each action becomes at AWS, against stand-ins for its services."""

import json

import pytest

from tests.executing import action, run
from wheeltapper.errors import MessageError, UnavailableError
from wheeltapper_cloud.actions_aws import AwsExecutor, sitewise_entry
from wheeltapper_cloud.actions_settings import AwsAccount


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


@pytest.mark.parametrize("sender_id", ["PLANT", ""])
def test_an_alarms_text_message_is_sent_as_one_that_matters(aws, monkeypatch, sender_id):
    sent = []

    class Sns:
        def publish(self, **given):
            sent.append(given)

    monkeypatch.setattr(aws, "_client", lambda *_: Sns())

    aws.send_text("+4915112345678", "hot", sender_id)

    values = {name: attribute["StringValue"] for name, attribute in sent[0]["MessageAttributes"].items()}
    assert (sent[0]["PhoneNumber"], sent[0]["Message"]) == ("+4915112345678", "hot")
    assert values["AWS.SNS.SMS.SMSType"] == "Transactional"
    assert values.get("AWS.SNS.SMS.SenderID", "") == sender_id


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
