"""The server around the operations: who may call, what is no operation, health, metrics, limits of a request."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.companion import Served, logging_kept, serving
from tests.loopback import wait_for_port
from wheeltapper import topics
from wheeltapper.cli import main
from wheeltapper.clock import ManualClock, SystemClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.transport.memory import MemoryBroker
from wheeltapper_cloud.guard import Guard
from wheeltapper_cloud.keys import KeyStore
from wheeltapper_cloud.rules import RuleSettings
from wheeltapper_cloud.serve import Companion, http_server, listen
from wheeltapper_cloud.settings import CloudSettings, ServerSettings, load
from wheeltapper_cloud.signature import SignedRequest
from wheeltapper_cloud.wire import ServiceError


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A companion that holds nothing, for requests that change nothing."""
    with serving(tmp_path_factory.mktemp("empty")) as cloud:
        yield cloud


@pytest.mark.parametrize(
    ("method", "uri", "body", "status", "code"),
    [
        ("GET", "/", None, 404, "UnknownOperationException"),
        ("PATCH", "/inputs", None, 404, "UnknownOperationException"),
        ("POST", "/inputs", b"{", 400, "SerializationException"),
        ("POST", "/inputs", b"[]", 400, "SerializationException"),
        ("POST", "/inputs", {}, 400, "InvalidRequestException"),
        ("GET", "/inputs/Nope", None, 404, "ResourceNotFoundException"),
        ("GET", "/inputs/%FF%00", None, 400, "InvalidRequestException"),
    ],
)
def test_every_error_has_its_code_its_status_and_a_message(empty, method, uri, body, status, code):
    answer = empty.call(method, uri, body)

    assert (answer[0], answer[2]["x-amzn-errortype"]) == (status, code)
    assert answer[1]["message"]
    assert len(answer[2]["x-amzn-requestid"]) == 36


def test_an_unknown_resource_is_named_as_aws_names_it(empty):
    answer = empty.call("GET", "/inputs/NoSuchInput")[1]

    assert answer == {"message": "Input of name: NoSuchInput not found"}


def test_health_and_metrics_can_be_asked_for(tmp_path):
    with serving(tmp_path) as cloud:
        cloud.call("GET", "/inputs")
        live, ready = cloud.call("GET", "/health/live"), cloud.call("GET", "/health/ready")
        metrics = cloud.call("GET", "/metrics")

    assert (live[0], ready[0]) == (200, 200)
    assert b'wheeltapper_requests_total{operation="ListInputs",status="200"} 1.0' in metrics[1]
    assert b"wheeltapper_writable 1.0" in metrics[1]


def test_a_body_beyond_the_limit_is_refused_and_the_next_request_served(tmp_path):
    settings = CloudSettings(server=ServerSettings(body_limit=1000))
    with serving(tmp_path, settings) as cloud:
        refused = cloud.call("POST", "/inputs", b"x" * 1001)
        served = cloud.call("GET", "/inputs")

    assert (refused[0], refused[2]["x-amzn-errortype"]) == (413, "RequestEntityTooLargeException")
    assert served[0] == 200


def test_an_operators_body_beyond_the_limit_is_refused_as_any_other(empty):
    refused = empty.call("POST", "/wheeltapper/actions/replay", b"x" * 70_000)

    assert refused[0] == 413
    assert "exceeds" in refused[1]["message"]


@pytest.mark.parametrize("path", ["/inputs", "/wheeltapper/actions/replay"])
def test_a_caller_that_goes_away_is_no_failure(empty, path):
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }

    async def receive():
        return {"type": "http.disconnect"}

    async def send(_message):
        pass

    asyncio.run(empty.companion.application()(scope, receive, send))


def test_what_nobody_foresaw_is_an_answer_of_operators_commands_too(empty, monkeypatch):
    def broken(**_arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(empty.companion.judge, "audit_trail", broken)

    answer = empty.call("GET", "/wheeltapper/audit")

    assert answer[0] == 500
    assert "internal failure" in answer[1]["message"]


def test_a_body_that_does_not_say_its_length_is_measured(tmp_path):
    settings = CloudSettings(server=ServerSettings(body_limit=1000))
    with (
        serving(tmp_path, settings) as cloud,
        socket.create_connection(("127.0.0.1", cloud.port), timeout=30) as caller,
    ):
        caller.sendall(b"POST /inputs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        caller.sendall(b"400\r\n" + b"x" * 0x400 + b"\r\n0\r\n\r\n")
        answer = caller.recv(65536)

    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("method", "uri", "body"),
    [
        ("POST", "/inputs/messages", {"messages": [{"messageId": "1", "inputName": "In", "payload": "e30="}]}),
        ("POST", "/inputs", {"inputName": "In", "inputDefinition": {"attributes": [{"jsonPath": "v"}]}}),
    ],
)
def test_who_waits_too_long_for_the_judge_is_told_to_come_again(tmp_path, method, uri, body):
    busy = threading.Event()
    with serving(tmp_path, CloudSettings(server=ServerSettings(timeout_s=0.2))) as cloud:
        holder = threading.Thread(target=cloud.companion.judge._ask, args=(lambda core: busy.wait(20),))
        holder.start()
        status, answer, headers = cloud.call(method, uri, body)
        busy.set()
        holder.join()

    assert (status, headers["x-amzn-errortype"]) == (503, "ServiceUnavailableException")
    assert "in time" in answer["message"]


def test_a_request_whose_sender_leaves_is_not_carried_out(tmp_path):
    body = json.dumps({"inputName": "In", "inputDefinition": {"attributes": [{"jsonPath": "v"}]}}).encode()
    with serving(tmp_path) as cloud:
        with socket.create_connection(("127.0.0.1", cloud.port), timeout=30) as caller:
            head = f"POST /inputs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body) + 1}\r\n\r\n"
            caller.sendall(head.encode() + body)
        listed = cloud.call("GET", "/inputs")[1]

    assert listed == {"inputSummaries": []}


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example:8600"}])
def test_without_keys_a_web_page_may_not_call(empty, headers):
    status, _, answered = empty.call("GET", "/inputs", None, headers)

    assert (status, answered["x-amzn-errortype"]) == (403, "AccessDeniedException")


def test_once_there_is_a_key_loopback_asks_for_signatures_too(tmp_path):
    with serving(tmp_path) as cloud:
        before = cloud.call("GET", "/inputs")[0]
        KeyStore(tmp_path, SystemClock()).create()
        status, _, headers = cloud.call("GET", "/inputs")

    assert before == 200
    assert (status, headers["x-amzn-errortype"]) == (403, "MissingAuthenticationTokenException")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "plant.example", "::"])  # noqa: S104
def test_another_address_never_admits_without_a_signature(tmp_path, host):
    keys = KeyStore(tmp_path, ManualClock())
    with pytest.raises(SettingsError, match="cloud keys create"):
        Guard(host, keys, ManualClock())
    made = keys.create()
    guard = Guard(host, keys, ManualClock())
    keys.revoke(made.access_key_id)

    with pytest.raises(ServiceError) as caught:
        guard.admit(SignedRequest("GET", "/inputs", "", [(b"host", b"localhost")], b""), "iotevents")
    assert caught.value.code == "MissingAuthenticationTokenException"


def test_two_processes_may_not_share_a_data_directory(tmp_path):
    with serving(tmp_path), pytest.raises(UnavailableError, match="another process"), serving(tmp_path):
        pass


def test_rules_without_a_broker_are_refused(tmp_path):
    (tmp_path / "cloud.toml").write_text('[[rules]]\nfilter = "a/b"\ninput = "In"\n')
    settings = load(tmp_path / "cloud.toml")

    with pytest.raises(SettingsError, match="broker"), serving(tmp_path / "data", settings):
        pass


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 1", "port"),
        ("[server]\nhots = 'x'", "hots"),
        ("[server]\nport = 'x'", "server.port"),
        ("[[inputs]]\nname = 'a'", "attributes"),
        ("[", "not TOML"),
        ("models = ['nowhere.json']", "nowhere.json"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(tmp_path, text, said):
    (tmp_path / "cloud.toml").write_text(text)

    with pytest.raises(SettingsError, match=said), serving(tmp_path / "data", load(tmp_path / "cloud.toml")):
        pass


def test_the_settings_in_the_document_are_settings(tmp_path):
    document = (Path(__file__).parents[2] / "docs" / "cloud.md").read_text()
    (tmp_path / "cloud.toml").write_text(document.split("```toml\n")[1].split("```")[0])

    assert load(tmp_path / "cloud.toml").rules[0].input == "Reading"


@pytest.mark.parametrize("text", ["certificate = 'c.pem'", "certificate = 'c.pem'\nprivate_key = 'k.pem'"])
def test_a_certificate_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, capsys):
    (tmp_path / "cloud.toml").write_text(f"[server]\n{text}\n")

    with logging_kept():
        status = main(
            ["cloud", "serve", "--config", str(tmp_path / "cloud.toml"), "--data-dir", str(tmp_path / "data")]
        )

    assert status == 2
    assert "server: " in capsys.readouterr().err


def test_messages_from_the_broker_are_judged_and_the_news_published(tmp_path):
    broker = MemoryBroker()
    wanted = {"wt/m1/state", "wt/m1/alarm", "wt/m1/action", "wt/cloud/health"}
    hot = {
        "stateName": "Hot",
        "onEnter": {"events": [{"eventName": "tell", "actions": [{"sns": {"targetArn": "arn:x"}}]}]},
    }
    warm = {"eventName": "warm", "condition": "$input.Reading.t > 50", "nextState": "Hot"}
    model = {
        "detectorModelName": "motor",
        "key": "thing",
        "detectorModelDefinition": {
            "initialStateName": "Cold",
            "states": [{"stateName": "Cold", "onInput": {"transitionEvents": [warm]}}, hot],
        },
    }
    (tmp_path / "motor.json").write_text(json.dumps(model))
    (tmp_path / "cloud.toml").write_text(
        'health_s = 0.05\nmodels = ["motor.json"]\n[[inputs]]\nname = "Reading"\nattributes = ["thing", "t"]\n'
        '[[rules]]\nfilter = "wt/+/reading"\ninput = "Reading"\n'
    )
    with serving(tmp_path / "data", load(tmp_path / "cloud.toml"), transport=broker.transport()):
        publisher = broker.transport()
        publisher.start()
        publisher.publish(topics.topic_of(topics.READING, "m1"), b'{"message_id": "a", "thing": "m1", "t": 80}')
        deadline = time.monotonic() + 90
        while not wanted <= {topic for topic, _ in broker.published} and time.monotonic() < deadline:
            broker.deliver()
            time.sleep(0.01)

    said = {topic: json.loads(payload) for topic, payload in broker.published}
    assert wanted <= set(said)
    assert said["wt/m1/alarm"]["values"] == {"$input.Reading.t": 80}
    assert said["wt/m1/action"]["outcome"] == "undelivered"
    assert said["wt/cloud/health"]["process"] == "cloud"


def test_a_subscription_that_the_broker_refuses_is_told_by_every_health_check(tmp_path):
    broker, broker_said = MemoryBroker(), "broker memory:0: refused to subscribe to wt/+/reading; see its access rules"
    broker.refused_filters.add("wt/+/reading")
    settings = CloudSettings(rules=[RuleSettings(filter="wt/+/reading", input="Reading")], health_s=0.05)
    transport, asked = broker.transport(), []
    subscribe = transport.subscribe
    transport.subscribe = lambda name, handler: (asked.append(name), subscribe(name, handler))
    with serving(tmp_path / "data", settings, transport=transport) as cloud:
        deadline = time.monotonic() + 90
        while not (broker.published and len(asked) > 1) and time.monotonic() < deadline:
            broker.deliver()
            time.sleep(0.01)
        refused = cloud.call("GET", "/health/ready")
        counted = cloud.call("GET", "/metrics")[1]
        broker.refused_filters.clear()
        granted = cloud.call("GET", "/health/ready")

    said = json.loads(broker.published[0][1])
    assert (said["status"], said["detail"]) == ("degraded", broker_said)
    assert len(asked) > 1  # again and again, for it may be granted
    assert (refused[0], broker_said in str(refused[1])) == (503, True)
    assert b"wheeltapper_ready 0.0" in counted
    assert b"wheeltapper_ingest_malformed_total 0.0" in counted
    assert granted[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop_and_ends_well(tmp_path, number):
    command = [sys.executable, "-m", "wheeltapper.cli", "cloud", "serve", "--port", "0", "--data-dir", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        wait_for_port(int(said.rsplit(":", 1)[1]))
        process.send_signal(number)
        status = process.wait(30)
    finally:
        process.kill()
        process.wait()

    assert said.startswith("listening on http://127.0.0.1:")
    assert status == 0


def test_loopback_of_ipv6_is_served_as_the_other_is(tmp_path, monkeypatch, capsys):
    try:
        listener = listen("::1", 0)
    except SettingsError:
        pytest.skip("this machine has no IPv6")
    settings = CloudSettings(server=ServerSettings(host="::1"))
    companion = Companion(settings, tmp_path, SystemClock())
    companion.start()
    server = http_server(companion, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        status = main(["alarms", "--server", f"http://[::1]:{listener.getsockname()[1]}"])
    finally:
        server.should_exit = True
        thread.join(20)
        companion.close()

    assert (status, "no alarm is open" in capsys.readouterr().out) == (0, True)
