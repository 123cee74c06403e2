"""The eight actions that AWS services carry out, through boto3."""

import base64
import contextlib
import decimal
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

from wheeltapper.detector.values import text_of
from wheeltapper.errors import MessageError, SettingsError, UnavailableError
from wheeltapper.judge import Action
from wheeltapper.judge.delivery import Result, Settled
from wheeltapper_cloud.actions_patience import Patience
from wheeltapper_cloud.actions_settings import AwsAccount

# Finding credentials has no end of its own, and a socket's patience begins anew with every byte.
_TIMEOUT_S = 30.0
_ID_ATTRIBUTE = "wheeltapper-action-id"
_REGION = re.compile(r"(?:^|\.)([a-z]{2}(?:-[a-z]+)+-[0-9])\.")
# Codes that the same call may not meet again: throttling, conflicts of writers, functions under change, clocks.
_TRANSIENT = {
    *("Throttling", "ThrottlingException", "Throttled", "ThrottledException", "TooManyRequestsException", "SlowDown"),
    *("RequestThrottled", "RequestThrottledException", "RequestLimitExceeded", "LimitExceededException"),
    *("ProvisionedThroughputExceededException", "BandwidthLimitExceeded", "KMSThrottling", "KmsThrottled"),
    *("TransactionConflictException", "TransactionInProgressException", "ReplicatedWriteConflictException"),
    *("ConflictingOperationException", "ResourceConflictException", "SnapStartNotReadyException"),
    *("RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete", "OverLimit"),
    *("ServiceUnavailable", "ServiceUnavailableException"),
    *("InternalError", "InternalFailure", "InternalFailureException", "InternalServerError"),
    *("RequestExpired", "RequestTimeTooSkewed"),
}
# Credentials that were good once: whoever rotates them has put others in their place, or soon will.
_CREDENTIALS = {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
_TRANSIENT_STATUS = {408, 429}
# What these say at DEBUG holds session tokens.
_TALKATIVE = ("boto3", "botocore")


class AwsExecutor:
    """
    Calls the service that an action's type names; the action's id travels along where the service has a place for it.

    Raises:
        SettingsError: the account's profile does not exist.
    """

    immediate = False

    def __init__(self, account: AwsAccount) -> None:
        self._account = account
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        self._patience = Patience()
        self._calls: dict[str, Callable[[Action], None]] = {
            "sns": self._sns,
            "sqs": self._sqs,
            "lambda": self._lambda,
            "firehose": self._firehose,
            "iotTopicPublish": self._publish,
            "dynamoDB": self._dynamodb,
            "dynamoDBv2": self._dynamodb_v2,
            "iotSiteWise": self._sitewise,
        }
        if account.profile:
            self._session(account.region)

    def carries_out(self, action_type: str) -> bool:
        """Whether it is one of the eight."""
        return action_type in self._calls

    def execute(self, action: Action, settled: Settled) -> None:
        """
        Call the service.

        Raises:
            UnavailableError: it is away, takes too long, throttles, or the credentials have expired.
            MessageError: it refuses.
        """
        with self._translated(f"{action.type} {action.target}"):
            self._patience.wait(_TIMEOUT_S, lambda: self._calls[action.type](action))
        settled(Result("delivered"))

    def send_text(self, number: str, text: str, sender_id: str) -> None:
        """
        Send a text message through SNS.

        Raises:
            UnavailableError: the service is away, takes too long or throttles.
            MessageError: it refuses.
        """
        named = {"AWS.SNS.SMS.SMSType": "Transactional"}  # the others are sent cheaply, not surely, and not at night
        if sender_id:
            named["AWS.SNS.SMS.SenderID"] = sender_id
        attributes = {name: {"DataType": "String", "StringValue": value} for name, value in named.items()}
        with self._translated(f"SMS to {number[:4]}…"):
            self._patience.wait(
                _TIMEOUT_S,
                lambda: self._client("sns").publish(PhoneNumber=number, Message=text, MessageAttributes=attributes),
            )

    @contextlib.contextmanager
    def _translated(self, where: str) -> Iterator[None]:
        """boto3's errors as the reaction that each asks for."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in _CREDENTIALS:
                self._forget_credentials()
            raise _reaction(code, status)(f"{where}: {error}") from error
        except (
            ParamValidationError,
            ValueError,
            TypeError,
            KeyError,
            RecursionError,
            decimal.DecimalException,
        ) as error:
            raise MessageError(f"{where}: {_said(error)}") from error
        except BotoCoreError as error:
            if isinstance(error, NoCredentialsError):
                self._forget_credentials()
            raise UnavailableError(f"{where}: {error}") from error
        except TimeoutError as error:
            raise UnavailableError(f"{where}: {error}") from error
        except (MessageError, UnavailableError) as error:
            raise type(error)(f"{where}: {error}") from error

    def _forget_credentials(self) -> None:
        """Have the next attempt look for credentials again: a client keeps for ever those that it was made with."""
        with self._lock:
            self._clients.clear()

    def _client(self, service: str, target: str = "") -> Any:
        region = region_of(target) or self._account.region
        with self._lock:
            client = self._clients.get((service, region))
            if client is None:
                client = self._clients[service, region] = self._make_client(service, region)
            return client

    def _make_client(self, service: str, region: str) -> Any:
        from botocore.config import Config

        for name in _TALKATIVE:
            logger = logging.getLogger(name)
            logger.setLevel(max(logger.level, logging.INFO))
        address = self._account.endpoint_url or None
        config = Config(
            connect_timeout=5,
            read_timeout=15,
            retries={"total_max_attempts": 1},
            inject_host_prefix=address is None,  # an emulator's address has no such subdomains
        )
        return self._session(region).client(service, endpoint_url=address, config=config)

    def _session(self, region: str) -> Any:
        import boto3
        from botocore.exceptions import ProfileNotFound

        try:
            return boto3.session.Session(profile_name=self._account.profile or None, region_name=region)
        except ProfileNotFound as error:
            raise SettingsError(f"actions.aws.profile: {error}") from error

    def _sns(self, action: Action) -> None:
        target = "TargetArn" if ":endpoint/" in action.target else "TopicArn"
        self._client("sns", action.target).publish(
            **{target: action.target}, Message=action.payload.decode(), MessageAttributes=_id_attribute(action)
        )

    def _sqs(self, action: Action) -> None:
        encoded = action.parameters.get("useBase64") is True
        body = base64.b64encode(action.payload).decode() if encoded else action.payload.decode()
        self._client("sqs", action.target).send_message(
            QueueUrl=action.target, MessageBody=body, MessageAttributes=_id_attribute(action)
        )

    def _lambda(self, action: Action) -> None:
        payload = action.payload
        if action.parameters.get("payloadType") == "STRING":
            payload = json.dumps(payload.decode()).encode()
        self._client("lambda", action.target).invoke(
            FunctionName=action.target, InvocationType="Event", Payload=payload
        )

    def _firehose(self, action: Action) -> None:
        separator = str(action.parameters.get("separator") or "").encode()
        self._client("firehose").put_record(
            DeliveryStreamName=action.target, Record={"Data": action.payload + separator}
        )

    def _publish(self, action: Action) -> None:
        self._client("iot-data").publish(topic=action.target, qos=1, payload=action.payload)

    def _dynamodb(self, action: Action) -> None:
        given = action.parameters
        client, table = self._client("dynamodb"), given["tableName"]
        key = {given["hashKeyField"]: _key_value(given["hashKeyValue"], given.get("hashKeyType"))}
        if given.get("rangeKeyField"):
            if "rangeKeyValue" not in given:
                raise ValueError("rangeKeyField needs a rangeKeyValue")
            key[given["rangeKeyField"]] = _key_value(given["rangeKeyValue"], given.get("rangeKeyType"))
        operation = str(given.get("operation") or "INSERT").upper()
        if operation == "DELETE":
            client.delete_item(TableName=table, Key=key)
            return
        field, value = _payload_column(action)
        if operation == "INSERT":
            client.put_item(TableName=table, Item={**key, field: value})
        elif operation == "UPDATE":
            client.update_item(
                TableName=table,
                Key=key,
                UpdateExpression="SET #payload = :payload",
                ExpressionAttributeNames={"#payload": field},
                ExpressionAttributeValues={":payload": value},
            )
        else:
            raise ValueError(f"operation {operation!r} is none of INSERT, UPDATE, DELETE")

    def _dynamodb_v2(self, action: Action) -> None:
        members = json.loads(action.payload, parse_float=decimal.Decimal)
        if not isinstance(members, dict):
            raise ValueError("the payload must be a JSON object, one member per column")
        self._client("dynamodb").put_item(
            TableName=action.parameters["tableName"], Item={name: _attribute(value) for name, value in members.items()}
        )

    def _sitewise(self, action: Action) -> None:
        answer = self._client("iotsitewise").batch_put_asset_property_value(entries=[sitewise_entry(action)])
        for entry in answer.get("errorEntries") or ():
            for error in entry.get("errors") or ():
                raise _reaction(error["errorCode"])(f"{error['errorCode']}: {error['errorMessage']}")


def _reaction(code: str, status: int = 0) -> type[MessageError] | type[UnavailableError]:
    """What to do about an error code: try again, or give up."""
    transient = code in _TRANSIENT or code in _CREDENTIALS or status in _TRANSIENT_STATUS or status >= 500
    return UnavailableError if transient else MessageError


def _said(error: Exception) -> str:
    """An exception in words; those of decimal numbers and of missing members hold none."""
    return str(error) if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {error}"


def sitewise_entry(action: Action) -> dict[str, Any]:
    """
    The entry for BatchPutAssetPropertyValue.

    Its time is the action's where the definition gives none; without a value, as alarms write it, the value is the payload.
    """
    given = action.parameters
    value = dict(given.get("propertyValue") or {})
    if not value.get("value"):
        value["value"] = {"stringValue": action.payload.decode()}
    if not value.get("timestamp"):
        value["timestamp"] = {
            "timeInSeconds": action.time_ms // 1000,
            "offsetInNanos": action.time_ms % 1000 * 1_000_000,
        }
    entry: dict[str, Any] = {"entryId": given.get("entryId") or action.id[:64], "propertyValues": [value]}
    for name in ("propertyAlias", "assetId", "propertyId"):
        if given.get(name):
            entry[name] = given[name]
    return entry


def _id_attribute(action: Action) -> dict[str, Any]:
    return {_ID_ATTRIBUTE: {"DataType": "String", "StringValue": action.id}}


def region_of(target: str) -> str:
    """The region that an ARN or a queue's URL names; empty where it names none."""
    if target.startswith("arn:"):
        parts = target.split(":")
        return parts[3] if len(parts) > 3 else ""
    found = _REGION.search(target.split("//")[-1].split("/")[0])
    return found[1] if found else ""


def _key_value(value: Any, kind: Any) -> dict[str, str]:
    text = text_of(value)
    if not isinstance(text, str):
        raise ValueError(f"a key must be a text, a number or a Boolean, not {value!r}")
    if str(kind or "STRING").upper() == "NUMBER":
        return {"N": str(decimal.Decimal(text))}
    return {"S": text}


def _payload_column(action: Action) -> tuple[str, dict[str, Any]]:
    """Column and value: a text payload is kept as binary in ``<payloadField>_raw``."""
    field = str(action.parameters.get("payloadField") or "payload")
    if action.parameters.get("payloadType") == "STRING":
        return f"{field}_raw", {"B": action.payload}
    return field, _attribute(json.loads(action.payload, parse_float=decimal.Decimal))


def _attribute(value: Any) -> dict[str, Any]:
    from boto3.dynamodb.types import TypeSerializer

    serialized: dict[str, Any] = TypeSerializer().serialize(value)
    return serialized
