"""Messages that were set aside can be seen, sent again and given up, beside the process whose they are."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from wheeltapper import cli
from wheeltapper.clock import ManualClock
from wheeltapper.outbox import Outbox, Put


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """An outbox of three messages, of which the first two are set aside."""
    box = Outbox(tmp_path / "device" / "outbox.db", clock=ManualClock(1_795_000_000_000))
    box.put_and_wait([Put("wt/m/alarm", b"one"), Put("wt/m/state", b"two"), Put("wt/m/reading", b"three")])
    for entry in box.peek(2):
        box.set_aside(entry.id, "not authorized")
    box.put_and_wait([])
    yield box
    box.close()


def waiting(outbox: Outbox) -> list[bytes]:
    return [entry.payload for entry in outbox.peek(100)]


def test_what_was_set_aside_no_longer_waits_and_outlives_a_restart(outbox: Outbox, tmp_path: Path) -> None:
    assert (waiting(outbox), len(outbox), outbox.refused) == ([b"three"], 1, 2)
    outbox.close()

    again = Outbox(tmp_path / "device" / "outbox.db")

    assert (waiting(again), len(again), again.refused) == ([b"three"], 1, 2)
    again.close()


def test_show_tells_which_and_why(outbox: Outbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["outbox", "show", str(tmp_path), "--json"])

    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 0
    assert [(each["topic"], each["payload"], each["reason"]) for each in told] == [
        ("wt/m/alarm", "one", "not authorized"),
        ("wt/m/state", "two", "not authorized"),
    ]
    assert cli.main(["outbox", "show", str(tmp_path)]) == 0
    assert "not authorized" in capsys.readouterr().out


def test_requeue_sends_the_topics_named_again_and_the_running_process_counts_them(
    outbox: Outbox, tmp_path: Path
) -> None:
    status = cli.main(["outbox", "requeue", str(tmp_path), "--topic", "wt/+/alarm"])
    outbox.put_and_wait([])

    assert status == 0
    assert waiting(outbox) == [b"three", b"one"]
    assert (len(outbox), outbox.refused) == (2, 1)


def test_discard_deletes_for_good(outbox: Outbox, tmp_path: Path) -> None:
    cli.main(["outbox", "discard", str(tmp_path)])
    outbox.put_and_wait([])

    assert (waiting(outbox), outbox.refused) == ([b"three"], 0)


def test_a_filter_that_is_none_deletes_nothing(
    outbox: Outbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(["outbox", "discard", str(tmp_path), "--topic", "wt/#/alarm"])
    outbox.put_and_wait([])

    assert (status, outbox.refused) == (2, 2)
    assert (
        "topic filter 'wt/#/alarm': + stands for a whole level, # for all levels at the end" in capsys.readouterr().err
    )


def test_a_folder_without_an_outbox_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.db").write_bytes(b"no database")
    sqlite3.connect(tmp_path / "judge.db").execute("CREATE TABLE entry (id)")

    status = cli.main(["outbox", "show", str(tmp_path)])

    assert status == 2
    assert "holds no outbox" in capsys.readouterr().err


def test_what_was_set_aside_counts_for_the_bound_and_is_the_first_to_make_room(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", max_bytes=3, full="drop_oldest")
    outbox.put_and_wait([Put("t", b"1"), Put("t", b"2"), Put("t", b"3")])
    outbox.set_aside(outbox.peek(3)[1].id, "refused")

    outbox.put_and_wait([Put("t", b"4")])

    assert (waiting(outbox), outbox.refused, outbox.dropped) == ([b"1", b"3", b"4"], 0, 1)
    outbox.close()


def test_what_was_set_aside_is_dropped_and_counted_when_it_is_too_old(tmp_path: Path) -> None:
    clock = ManualClock(1_000_000)
    outbox = Outbox(tmp_path / "outbox.db", max_age_s=60, clock=clock)
    outbox.put_and_wait([Put("t", b"1")])
    outbox.set_aside(outbox.peek(1)[0].id, "refused")
    outbox.put_and_wait([])
    clock.advance(61)

    outbox.put_and_wait([])

    assert (outbox.refused, outbox.dropped) == (0, 1)
    outbox.close()


def test_setting_aside_needs_no_more_room_than_there_was(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put_and_wait([Put("t", bytes(100_000))])
    pages = outbox._writer.execute("PRAGMA page_count").fetchone()[0]
    outbox._writer.execute(f"PRAGMA max_page_count={pages}")

    outbox.set_aside(outbox.peek(1)[0].id, "refused")
    outbox.put_and_wait([])

    assert (len(outbox), outbox.refused) == (0, 1)
    outbox.close()
