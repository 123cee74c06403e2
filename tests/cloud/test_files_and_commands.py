"""Actions that end in a file or in a program of the operator's."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.executing import action, run
from tests.loopback import wait_until
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.judge.delivery import Result
from wheeltapper_cloud import actions_program
from wheeltapper_cloud.actions_command import CommandExecutor
from wheeltapper_cloud.actions_file import FileExecutor
from wheeltapper_cloud.actions_settings import CommandSettings


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


def shell(script, **settings):
    return CommandExecutor("siren", CommandSettings(run=["/bin/sh", "-c", script], **settings))


def test_a_command_that_never_stops_talking_fills_no_memory():
    import tracemalloc

    tracemalloc.start()
    try:
        result = run(
            shell("head -c 50000000 /dev/zero; head -c 50000000 /dev/zero >&2; echo last words >&2; exit 3"), action()
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (result.outcome, result.detail[-10:]) == ("retry", "last words")
    assert peak < 5_000_000


def test_a_command_may_leave_something_running_and_is_not_waited_for():
    assert run(shell("sleep 30 & exit 0", timeout_s=20), action()).outcome == "delivered"


def runs(process_id):
    """Whether a process runs; one that has ended may still wait for its parent to ask."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    note = tmp_path / "note"

    with pytest.raises(UnavailableError, match="longer than"):
        run(shell(f"sleep 600 & echo $! > {note}; sleep 600", timeout_s=2), action())

    wait_until(lambda: not runs(int(note.read_text())))


def test_a_command_that_cannot_even_be_killed_is_given_up(monkeypatch):
    spared, kill = [], os.killpg
    monkeypatch.setattr(actions_program, "_LAST_S", 0.1)
    monkeypatch.setattr(os, "killpg", lambda group, _signal: spared.append(group))

    with pytest.raises(UnavailableError, match="longer than"):
        run(shell("sleep 600", timeout_s=0.2), action())

    kill(spared[0], signal.SIGKILL)


def test_a_command_need_not_read_what_it_is_given():
    assert run(shell("exit 0"), action(payload=b"x" * 1_000_000)).outcome == "delivered"


def test_a_command_sees_nothing_of_our_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    out = tmp_path / "out"

    run(shell(f"env > {out}"), action())

    assert "do-not-tell" not in out.read_text()


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b'"\\ud800"', "\ud800"),
        (b'{"x": NaN}', '{"x": NaN}'),
        (b"[" * 100_000, "[" * 100_000),
        (b"\xff", "\ufffd"),
    ],
)
def test_every_payload_becomes_a_line_of_valid_json(tmp_path, payload, told):
    path = tmp_path / "actions.jsonl"

    assert run(FileExecutor(path), action(payload=payload)).outcome == "delivered"

    line = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert line["payload"] == told
