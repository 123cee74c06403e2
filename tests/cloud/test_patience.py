"""What hangs and cannot be told to stop is given up in time, and not piled up."""

import os
import threading

import pytest

from tests.executing import action, run
from tests.loopback import wait_until
from wheeltapper.errors import UnavailableError
from wheeltapper_cloud import actions_aws, actions_file
from wheeltapper_cloud.actions_aws import AwsExecutor
from wheeltapper_cloud.actions_file import FileExecutor
from wheeltapper_cloud.actions_patience import Patience
from wheeltapper_cloud.actions_settings import AwsAccount


@pytest.fixture
def over():
    """Set at the latest when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_what_is_done_in_time_is_had_and_what_fails_fails():
    patience = Patience()

    def fail():
        raise KeyError("x")

    assert patience.wait(60, lambda: 7) == 7
    with pytest.raises(KeyError):
        patience.wait(60, fail)


def test_while_too_much_hangs_nothing_more_is_begun(over):
    patience = Patience(2)
    begun = []

    def hang():
        begun.append(1)
        over.wait()

    for _ in range(2):
        with pytest.raises(TimeoutError, match="took longer"):
            patience.wait(0.1, hang)
    wait_until(lambda: len(begun) == 2)
    with pytest.raises(TimeoutError, match="2 earlier attempts still hang"):
        patience.wait(60, hang)
    over.set()

    wait_until(lambda: not [one for one in threading.enumerate() if one.name == "patience"])
    assert patience.wait(60, lambda: "again") == "again"
    assert len(begun) == 2


def test_a_file_on_a_disk_that_is_away_is_given_up_in_time(tmp_path, monkeypatch, over):
    monkeypatch.setattr(actions_file, "_TIMEOUT_S", 0.1)
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: over.wait())
    executor = FileExecutor(tmp_path / "actions.jsonl")

    for reason in ("longer than", "still hang"):
        with pytest.raises(UnavailableError, match=reason):
            run(executor, action())


def test_a_call_to_aws_that_never_ends_is_given_up_in_time(monkeypatch, over):
    monkeypatch.setattr(actions_aws, "_TIMEOUT_S", 0.1)
    executor = AwsExecutor(AwsAccount())
    monkeypatch.setitem(executor._calls, "sns", lambda _action: over.wait())
    monkeypatch.setattr(executor, "_client", lambda *_: over.wait())

    with pytest.raises(UnavailableError, match=r"sns arn:.*longer than"):
        run(executor, action())
    with pytest.raises(UnavailableError, match=r"SMS.*longer than"):
        executor.send_text("+49", "hot", "")
