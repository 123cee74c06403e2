"""What the journal remembers goes into a back-test."""

import json

from tests.core.judging import MODEL, START_MS, Bench
from wheeltapper.cli import main
from wheeltapper.judge import Message


def test_what_was_judged_can_be_judged_again_by_another_model(tmp_path, capsys):
    bench = Bench(tmp_path / "data").with_models()
    for step, value in enumerate((20, 75, 20, 78)):
        bench.judge.put([Message("Reading", json.dumps({"id": "m1", "t": value, "n": 1}).encode(), f"s{step}")])
        bench.clock.advance(120)
    bench.judge.tick()
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(MODEL))
    new.write_text(json.dumps(MODEL).replace("> 80", "> 70"))

    assert main(["cloud", "messages", "--data-dir", str(tmp_path / "data")]) == 0
    history = tmp_path / "messages.jsonl"
    history.write_text(capsys.readouterr().out)
    assert main(["detector", "backtest", str(new), "--against", str(old), "--messages", str(history), "--json"]) == 0

    report = capsys.readouterr().out
    assert len(history.read_text().splitlines()) == 4
    assert json.loads(history.read_text().splitlines()[1]) == {
        "inputName": "Reading",
        "timestamp": START_MS + 120_000,
        "payload": {"id": "m1", "t": 75, "n": 1},
        "messageId": "s1",
    }
    assert report.count('"gained"') >= 1


def test_messages_are_chosen_by_input_time_and_whose_time(tmp_path, capsys):
    bench = Bench(tmp_path).with_models()
    bench.put(20, message_id="a", time_ms=START_MS - 5_000)
    folder = ["cloud", "messages", "--data-dir", str(tmp_path)]

    def times(*more):
        assert main([*folder, *more]) == 0
        return [json.loads(line)["timestamp"] for line in capsys.readouterr().out.splitlines()]

    assert times() == [START_MS - 5_000]
    assert times("--arrival") == [START_MS]
    assert times("--input", "Other") == []
    assert times("--since", "1h") == []
    assert main(["cloud", "messages", "--data-dir", str(tmp_path / "none")]) == 1
    assert "no such file" in capsys.readouterr().err
