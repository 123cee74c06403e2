"""``wheeltapper detector eval`` and ``simulate`` as people and programs call them."""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.detector.bodies import alarm_model, detector_model, event, set_timer, set_variable, sns, state
from wheeltapper.cli import main

MODEL = detector_model(
    state(
        "Normal",
        enter=[event("start", None, set_timer("awake", 300), set_variable("n", "1"))],
        transitions=[event("silent", 'timeout("awake")', to="Offline")],
        events=[event("beat", "currentInput('In') && $input.In.v > 0")],
    ),
    state("Offline", enter=[event("tell", None, sns("ops"))]),
)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A model and a recording of two messages, ten seconds apart."""
    model, messages = tmp_path / "model.json", tmp_path / "messages.jsonl"
    model.write_text(json.dumps(MODEL))
    lines = [
        {"inputName": "In", "timestamp": 1000 * t, "payload": {"id": "k", "v": 1}, "messageId": "m"} for t in (5, 15)
    ]
    messages.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(model), str(messages)


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def answers(capfdbinary: pytest.CaptureFixture[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]


def test_eval_answers_each_line_in_order(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    feed(monkeypatch, '{"id": 1, "expr": "1 + 1"}\n\n{"id": "x", "expr": "1 +"}\n{"id": 3, "expr": "$variable.v"}\n')

    assert main(["detector", "eval"]) == 0

    one, two, three = answers(capfdbinary)
    assert one == {"id": 1, "result": 2}
    assert two["id"] == "x" and "expected a value" in two["result"]["$error"]
    assert three == {"id": 3, "result": {"$undefined": True}}


@pytest.mark.parametrize("line", ["not json", "[1]", '{"id": 1}', '{"expr": "1", "trigger": 5}'])
def test_a_line_that_is_no_request_is_answered_in_its_place_and_told_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], line: str
) -> None:
    feed(monkeypatch, '{"id": 1, "expr": "1"}\n' + line + '\n{"id": 3, "expr": "3"}\n')

    assert main(["detector", "eval"]) == 1

    printed = capfdbinary.readouterr()
    first, refused, last = (json.loads(text) for text in printed.out.splitlines())
    assert (first["result"], last["result"]) == (1, 3)
    assert refused["result"]["$error"]
    assert b"standard input, line 2: " in printed.err


@pytest.mark.parametrize("payload", ['{"v": 1e400}', '{"v": "\\ud800"}', "[]"])
def test_a_case_that_cannot_be_run_is_answered_under_its_id(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], payload: str
) -> None:
    feed(monkeypatch, '{"id": "x", "model": {}, "steps": [{"t": 0, "put": ' + payload + "}]}\n")

    main(["detector", "simulate"])

    answer = json.loads(capfdbinary.readouterr().out)
    assert answer["id"] == "x" and answer["$error"]


def test_simulate_without_a_model_answers_cases_and_names_what_it_refused(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    steps = [
        {"t": 0, "put": {"inputName": "In", "payload": {"id": "k", "v": 80}}},
        {"t": 1, "op": "enable", "keyValue": "k"},
        {"t": 2, "put": {"inputName": "In", "payload": [1]}},
        {"t": 3, "op": "snooze", "snoozeDuration": 10},
        {"t": 13},
    ]
    faulty = {"id": "b", "model": {"detectorModelDefinition": {}}, "steps": []}
    feed(
        monkeypatch, json.dumps({"id": "a", "model": alarm_model(), "steps": steps}) + "\n" + json.dumps(faulty) + "\n"
    )

    assert main(["detector", "simulate"]) == 0

    first, second = answers(capfdbinary)
    assert [entry["alarms"]["k"]["stateName"] for entry in first["trace"]] == [
        "ACTIVE",
        "ACTIVE",
        "ACTIVE",
        "SNOOZE_DISABLED",
        "NORMAL",
    ]
    assert "not possible while the alarm is ACTIVE" in first["trace"][1]["error"]
    assert "payload" in first["trace"][2]["error"]
    assert "states" in second["$error"]


def test_simulate_prints_a_table_of_passes(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    model, messages = files

    assert main(["detector", "simulate", model, "--messages", messages, "--after", "400"]) == 0

    shown = capsys.readouterr().out
    assert "(new) → Normal" in shown
    assert "Normal → Offline (silent)" in shown
    assert "sns ops" in shown
    assert "3 passes, 1 actions; 1 in Offline" in shown


def test_simulate_prints_why(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    model, messages = files

    assert main(["detector", "simulate", model, "--messages", messages, "--after", "400", "--trace"]) == 0

    shown = capsys.readouterr().out
    assert '└─ timeout("awake") = true' in shown
    assert "└─ state Normal → Offline" in shown


def test_simulate_prints_json_lines(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    model, messages = files

    assert main(["detector", "simulate", model, "--messages", messages, "--after", "400", "--json"]) == 0

    passes = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["created"], each["state"], each["time_ms"]) for each in passes] == [
        (True, "Normal", 5000),
        (False, "Normal", 5000),
        (False, "Offline", 305_000),
    ]
    assert passes[-1]["trace"]["variables"] == {"n": 1}


def test_simulate_runs_what_was_kept_to_be_sent_by_the_aws_cli(files, tmp_path, capsys):
    model, messages = files
    lines = [json.loads(line) for line in Path(messages).read_text().splitlines()]
    texts = [json.dumps(line["payload"]) for line in lines]
    forms = [texts, [base64.encodebytes(text.encode()).decode() for text in texts], [line["payload"] for line in lines]]
    printed = []
    for payloads in forms:
        batch = [
            {"messageId": str(number), "inputName": line["inputName"], "payload": payload}
            for number, (line, payload) in enumerate(zip(lines, payloads, strict=True))
        ]
        kept = tmp_path / "batch.json"
        kept.write_text(json.dumps({"messages": batch}, indent=2))

        assert main(["detector", "simulate", model, "--messages", str(kept)]) == 0
        printed.append(capsys.readouterr().out)

    assert printed[0] == printed[1] == printed[2]
    assert "  1.000 " in printed[0]


def test_a_batch_whose_payload_is_no_object_is_refused_by_its_number(files, tmp_path, capsys):
    kept = tmp_path / "batch.json"
    kept.write_text(json.dumps({"messages": [{"inputName": "Pump", "payload": "1"}]}))

    assert main(["detector", "simulate", files[0], "--messages", str(kept)]) == 1
    assert "batch.json, message 1: payload is not a JSON object" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["missing.json", "--messages", "MESSAGES"], "missing.json: cannot be read"),
        (["MODEL", "--messages", "missing.jsonl"], "missing.jsonl: cannot be read"),
        (["MODEL"], "--messages FILE is missing"),
        (["MODEL", "--messages", "MESSAGES", "--name", "other"], "choose one model with --name; it holds: m"),
        (["MODEL", "--messages", "MODEL"], "line 1: "),
    ],
)
def test_simulate_says_what_is_wrong_in_one_line(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    model, messages = files
    arguments = [{"MODEL": model, "MESSAGES": messages}.get(argument, argument) for argument in arguments]

    assert main(["detector", "simulate", *arguments]) in (1, 2)

    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_simulate_takes_a_model_as_the_console_or_describe_gives_it(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    configuration = {"detectorModelName": "m", "key": MODEL["key"], "evaluationMethod": "BATCH", "status": "ACTIVE"}
    described = {
        "detectorModelDefinition": MODEL["detectorModelDefinition"],
        "detectorModelConfiguration": configuration,
    }
    forms = [MODEL, described, {"detectorModel": described}, {"detectorModel": MODEL, "schemaVersion": "1.0"}]
    steps = [{"t": 0, "put": {"inputName": "In", "payload": {"id": "k", "v": 1}}}]
    feed(monkeypatch, "".join(json.dumps({"id": 0, "model": form, "steps": steps}) + "\n" for form in forms))

    assert main(["detector", "simulate"]) == 0

    lines = set(capfdbinary.readouterr().out.splitlines())
    assert len(lines) == 1 and "k" in json.loads(lines.pop())["trace"][0]["detectors"]
