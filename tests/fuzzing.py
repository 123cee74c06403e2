"""Requests and messages that no client would send, and nearly right ones, for fuzzing the cloud companion over sockets."""

import base64
import http.client
import json
import random
import socket
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

from benchmarks.mqtt_raw import RawClient, publish
from tests.loopback import wait_until
from wheeltapper_cloud.rules import RuleSettings
from wheeltapper_cloud.wire import load_model

WORDS = (
    "", "a", "In", "m", "am", "k", "A", "B", "e", "$input.In.v > 1", "$variable.x + 1", "timeout('t')", "true", "1", "-1",
    "x" * 129, "\u0000", "\ud7ff", "é", "'", '"${', "((((", "arn:aws:iotevents:us-east-1:123456789012:input/In", "9" * 40,
    "currentInput('In')", "../..", "%", "%2F", "null", "GREATER", "BATCH", "JSON", "STRING", "\n", "In.In", "`a b`",
)  # fmt: skip
LISTS = (
    "ListInputs", "ListInputRoutings", "ListDetectorModels", "ListDetectorModelVersions", "ListAlarmModels",
    "ListAlarmModelVersions", "ListDetectors", "ListAlarms", "GetDetectorModelAnalysisResults",
)  # fmt: skip
# What is likely right for a shape, so that many requests get past the first check.
LIKELY: dict[str, tuple[str, ...]] = {
    "InputName": ("In", "In2"),
    "EphemeralInputName": ("In", "In2", "Nope"),
    "DetectorModelName": ("m", "m2", "m3"),
    "AlarmModelName": ("am", "am2", "m"),
    "StateName": ("A", "B"),
    "KeyValue": ("k", "1", "a:b"),
    "AttributeJsonPath": ("id", "v", "p.q", "`a b`.c"),
    "Condition": (
        "$input.In.v > 1",
        "true",
        "timeout('t')",
        "$variable.x > 1 && currentInput('In')",
        "$input.In2.id == 'k'",
    ),
    "VariableName": ("x", "y"),
    "VariableValue": ("1", "30.5", "'text'", "$variable.x + 1", "$input.In.v", "false"),
    "TimerName": ("t", "u"),
    "InputProperty": ("$input.In.v", "$input.In2.v"),
    "Threshold": ("1", "$input.In.v"),
    "ContentExpression": ("'${$input.In.v}'", "'{}'"),
    "NextToken": tuple(
        base64.urlsafe_b64encode(json.dumps([name, place]).encode()).decode()
        for name in LISTS
        for place in ("", "k", "1", "-1", "\u00b2", "\u0000", "\ud800", "9" * 40)
    ),
    "AmazonResourceName": ("arn:aws:iotevents:us-east-1:123456789012:input/In", "arn:aws:iam::123456789012:role/r"),
}
JUNK: tuple[Any, ...] = (None, True, False, 0, 1, -1, 2**31, 2**63, 2**80, 1.5, -0.0, 1e308, [], {}, [[]], {"": None})
_EVENT = {
    "eventName": "e",
    "condition": "$input.In.v > 1",
    "actions": [{"setTimer": {"timerName": "t", "seconds": 60}}],
}
_GO = {"eventName": "go", "condition": "$input.In.v > 2 || timeout('t')", "nextState": "B"}
_MODEL = {
    "initialStateName": "A",
    "states": [{"stateName": "A", "onInput": {"events": [_EVENT], "transitionEvents": [_GO]}}, {"stateName": "B"}],
}
_RULE = {"simpleRule": {"inputProperty": "$input.In.v", "comparisonOperator": "GREATER", "threshold": "1"}}
_ENABLED = {"initializationConfiguration": {"disabledOnInitialization": False}, "acknowledgeFlow": {"enabled": True}}
_ALARM = {"roleArn": "r", "alarmRule": _RULE, "alarmCapabilities": _ENABLED, "key": "id"}
# Requests that succeed, sent now and then so that the odd ones find something to work on.
SOUND: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("/inputs", {"inputName": n, "inputDefinition": {"attributes": [{"jsonPath": "v"}]}}) for n in ("In", "In2")),
    ("/detector-models", {"detectorModelName": "m", "roleArn": "r", "key": "id", "detectorModelDefinition": _MODEL}),
    ("/detector-models", {"detectorModelName": "m2", "roleArn": "r", "detectorModelDefinition": _MODEL}),
    *(("/alarm-models", {"alarmModelName": name, **_ALARM}) for name in ("am", "am2")),
)
HEADERS = (
    "authorization",
    "x-amz-date",
    "x-amz-content-sha256",
    "content-type",
    "accept",
    "x-wheeltapper-migrate",
    "expect",
)
_MODELS = [load_model(name) for name in ("iotevents", "iotevents-data")]
_OPERATIONS = [(model, operation) for model in _MODELS for operation in model["operations"].values()]


class Fuzzer:
    """Makes requests from a seed; the same seed makes the same requests."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def request(self) -> tuple[str, str, bytes, dict[str, str]]:
        """Method, URI, body and headers."""
        pick = self._random
        model, operation = pick.choice(_OPERATIONS)
        shape = model["shapes"][operation["input"]["shape"]]
        uri, query, body = operation["http"]["requestUri"], [], {}
        for name, place in shape["members"].items():
            wanted = 0.97 if name in shape.get("required", []) else 0.3
            if pick.random() > wanted and place.get("location") != "uri":
                continue
            value = self._value(model["shapes"], place["shape"])
            if place.get("location") == "uri" and isinstance(value, str):
                uri = uri.replace("{" + place["locationName"] + "}", quote(value, safe="") or "x")
            elif place.get("location") == "querystring":
                query.append(f"{place['locationName']}={quote(value if isinstance(value, str) else json.dumps(value))}")
            else:
                body[name] = value
        if query:
            uri += "?" + "&".join(query)
        method = (
            operation["http"]["method"] if pick.random() < 0.97 else pick.choice(("PATCH", "HEAD", "OPTIONS", "DELETE"))
        )
        return method, uri, self._bytes(body), self._headers()

    def _value(self, shapes: dict[str, Any], name: str) -> Any:
        pick, shape = self._random, shapes[name]
        if pick.random() < 0.01:
            return pick.choice(JUNK)
        kind = shape["type"]
        if kind == "structure":
            required = shape.get("required", [])
            kept = [name for name in shape["members"] if pick.random() < (0.97 if name in required else 0.35)]
            return {name: self._value(shapes, shape["members"][name]["shape"]) for name in kept}
        if kind == "list":
            count = pick.choice((0, 1, 1, 1, 2, 2, 12)) if shape.get("min", 0) == 0 else pick.choice((1, 1, 2, 2, 12))
            return [self._value(shapes, shape["member"]["shape"]) for _ in range(count)]
        if kind in ("integer", "long"):
            return pick.choice((0, 1, 1, 60, 60, 250, 251, -1, 2**31 - 1, 2**40))
        if kind == "boolean":
            return pick.random() < 0.5
        if kind == "blob":
            return base64.b64encode(self._payload()).decode() if pick.random() < 0.9 else self._text()
        if "enum" in shape and pick.random() < 0.9:
            return pick.choice(shape["enum"])
        if name in LIKELY and pick.random() < 0.95:
            return pick.choice(LIKELY[name])
        if shape.get("pattern", "").startswith("^[a-zA-Z0-9") and pick.random() < 0.9:
            return f"id-{pick.randrange(10**6)}"
        return self._text()

    def _payload(self) -> bytes:
        pick = self._random
        if pick.random() < 0.2:
            return pick.randbytes(pick.randrange(40))
        key = pick.choice(("k", 1, self._text()))
        return json.dumps({"id": key, "v": pick.choice((*JUNK, 2, 3.5)), self._text(): [{"a": self._text()}]}).encode()

    def _text(self) -> str:
        return self._random.choice(WORDS)

    def _bytes(self, body: dict[str, Any]) -> bytes:
        pick = self._random
        text = json.dumps(body).encode()
        if pick.random() < 0.9 or not text:
            return text
        cut = bytearray(text[: pick.randrange(len(text) + 1)])
        for _ in range(pick.randrange(4)):
            if cut:
                cut[pick.randrange(len(cut))] = pick.randrange(256)
        return bytes(cut)

    def _headers(self) -> dict[str, str]:
        pick = self._random
        if pick.random() < 0.7:
            return {}
        printable = "".join(chr(pick.randrange(32, 127)) for _ in range(pick.randrange(60))).strip()
        return {name: printable for name in pick.sample(HEADERS, 2) if name != "expect"}

    def garbage(self) -> bytes:
        """Bytes that are hardly HTTP."""
        pick = self._random
        start = pick.choice(
            (b"", b"GET / HTTP/1.1\r\n", b"POST /inputs HTTP/1.1\r\nHost: localhost\r\nContent-Length: ")
        )
        return start + pick.randbytes(pick.randrange(200)) + pick.choice((b"", b"\r\n\r\n"))


def throw(port: int, rounds: int, seed: int) -> dict[int, int]:
    """
    Send so many requests, a few of them garbage; gives how often each status was answered.

    Raises:
        AssertionError: a status of 500, or no answer.
    """
    fuzzer, statuses = Fuzzer(seed), dict[int, int]()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for number in range(rounds):
        if number % 200 == 0:
            for uri, sound in SOUND:
                connection.request("POST", uri, json.dumps(sound))
                response = connection.getresponse()
                assert response.status in (200, 201, 400, 409), (uri, response.read())
                response.read()
        if number % 50 == 49:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as caller:
                caller.sendall(fuzzer.garbage())
            continue
        method, uri, body, headers = fuzzer.request()
        if method == "DELETE" and number % 10:
            continue
        try:
            connection.request(method, uri, body, headers)
            response = connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError):
            connection.close()  # the server hung up, as it may after a bad request; a new connection must work
            connection.connect()
            continue
        text = response.read()
        assert response.status != 500, (method, uri, body, text)
        statuses[response.status] = statuses.get(response.status, 0) + 1
    connection.close()
    return statuses


# Every sort of rule: as it comes, with expressions over whatever comes, with functions that want a type.
RULES = [
    RuleSettings(filter="plain/#", input="In", message_id="p.id", timestamp="v"),
    RuleSettings(
        sql="SELECT *, topic(2) AS id, v * 2 + p AS w, [v, p.q] AS l FROM 'sql/+/x'"
        " WHERE v > 1 OR isUndefined(v) OR p = 'é'",
        input="In",
    ),
    RuleSettings(
        sql="SELECT id, get(a, 0) AS v, upper(id) AS u, cast(v AS String) AS s, substring(id, v) AS b,"
        " encode(*, 'base64') AS e FROM 'fun/#' WHERE startswith(id, 'k') OR regexp_matches(id, '[a-z]+') OR v <= 2",
        input="In2",
        message_id="${id}-${v}",
    ),
]


class MessageFuzzer:
    """Makes topics and payloads from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def message(self) -> tuple[str, bytes]:
        """A topic that a rule hears, and what comes on it."""
        pick = self._random
        level = pick.choice(("m1", "", " ", "é", "$x", "a" * 2000, "-", "\u200b"))
        topic = pick.choice((f"plain/{level}", f"plain/{level}/{level}", f"sql/{level}/x", f"fun/{level}"))
        return topic, self._payload()

    def _payload(self) -> bytes:
        pick = self._random
        chance = pick.random()
        if chance < 0.1:
            return pick.randbytes(pick.randrange(60))
        if chance < 0.11:
            return b'{"id": "k", "v":' + b"[" * 50_000
        if chance < 0.12:
            return b'{"id": "k", "v": 3, "p": "' + b"x" * 150_000 + b'"}'
        document = {name: self._value(3) for name in ("id", "v", "p", "a") if pick.random() < 0.85}
        text = json.dumps(document).encode()
        if chance < 0.2:
            at = pick.randrange(len(text))
            text = text[:at] + bytes([pick.randrange(256)]) + text[at + pick.randrange(3) :]
        return text

    def _value(self, depth: int) -> Any:
        pick = self._random
        if depth and pick.random() < 0.2:
            return {pick.choice(("q", "id", *WORDS)): self._value(depth - 1) for _ in range(pick.randrange(3))}
        if depth and pick.random() < 0.1:
            return [self._value(depth - 1) for _ in range(pick.randrange(3))]
        return pick.choice((*JUNK, *WORDS, "k", "k", 1, 2, 3, 1_700_000_000_000, float("nan"), float("-inf")))


def throw_at_rules(port: int, rounds: int, seed: int, received: Callable[[], int]) -> None:
    """
    Publish so many messages through a broker, and wait until the companion has taken every one.

    Args:
        received: how many messages the companion has taken from the broker.

    Raises:
        TimeoutError: it has stopped taking them.
    """
    fuzzer, client = MessageFuzzer(seed), RawClient(port, f"fuzzer-{seed}")
    acknowledged = client.packets()
    wanted = received()
    for start in range(0, rounds, 500):
        messages = [fuzzer.message() for _ in range(min(500, rounds - start))]
        client.send(b"".join(publish(*message, number) for number, message in enumerate(messages)))
        for _ in messages:
            next(acknowledged)
        wanted += len(messages)
        wait_until(partial(_reached, received, wanted - 5_000))
    wait_until(partial(_reached, received, wanted))
    client.close()


def _reached(received: Callable[[], int], wanted: int) -> bool:
    return received() >= wanted
