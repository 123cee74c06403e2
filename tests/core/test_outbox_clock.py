"""What waits in an outbox grows old by time that goes by, not by a clock that is set."""

import sqlite3
from pathlib import Path

import pytest

from wheeltapper.clock import ManualClock
from wheeltapper.outbox import Outbox, Put

DAY_S = 86_400


def waiting(outbox: Outbox) -> list[bytes]:
    outbox.put_and_wait([])  # whatever is too old goes with a commit
    return [entry.payload for entry in outbox.peek(10)]


@pytest.mark.parametrize("to_ms", [1_767_225_600_000, -DAY_S * 1_000], ids=["from 1970 to now", "back"])
def test_a_clock_that_is_set_drops_nothing(tmp_path: Path, to_ms: int) -> None:
    clock = ManualClock(5_000)  # a board without a clock of its own, before it knows the time
    outbox = Outbox(tmp_path / "outbox.db", max_age_s=7 * DAY_S, clock=clock)
    outbox.put_and_wait([Put("t", b"before")])

    clock.set_time_ms(to_ms)
    clock.advance(DAY_S)
    outbox.put_and_wait([Put("t", b"after")])

    assert waiting(outbox) == [b"before", b"after"]
    assert outbox.dropped == 0
    outbox.close()


def test_what_is_too_old_goes_also_after_the_clock_was_set(tmp_path: Path) -> None:
    clock = ManualClock(5_000)
    outbox = Outbox(tmp_path / "outbox.db", max_age_s=7 * DAY_S, clock=clock)
    outbox.put_and_wait([Put("t", b"before")])
    clock.set_time_ms(1_767_225_600_000)
    at_once = waiting(outbox)
    clock.advance(4 * DAY_S)
    outbox.put_and_wait([Put("t", b"after")])

    clock.advance(4 * DAY_S)
    later = waiting(outbox)
    clock.advance(4 * DAY_S)

    assert (at_once, later) == ([b"before"], [b"after"])
    assert waiting(outbox) == []
    assert outbox.dropped == 2
    outbox.close()


def test_what_waits_outlives_a_restart_after_the_clock_was_set(tmp_path: Path) -> None:
    clock = ManualClock(5_000)
    outbox = Outbox(tmp_path / "outbox.db", max_age_s=7 * DAY_S, clock=clock)
    outbox.put_and_wait([Put("t", b"before")])
    clock.set_time_ms(1_767_225_600_000)
    outbox.put_and_wait([Put("t", b"after")])
    outbox.close()

    again = Outbox(tmp_path / "outbox.db", max_age_s=7 * DAY_S, clock=clock)
    at_once = waiting(again)
    clock.advance(6 * DAY_S)
    later = waiting(again)
    clock.advance(2 * DAY_S)

    assert (at_once, later, waiting(again)) == ([b"before", b"after"], [b"before", b"after"], [])
    again.close()


def test_what_was_put_before_a_board_knew_the_time_outlives_a_power_cut_after_which_it_does(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", max_age_s=7 * DAY_S, clock=ManualClock(5_000))
    outbox.put_and_wait([Put("t", b"before")])
    outbox.close()

    clock = ManualClock(1_767_225_600_000)
    for _ in range(2):
        outbox = Outbox(tmp_path / "outbox.db", max_age_s=7 * DAY_S, clock=clock)
        outbox.put_and_wait([Put("t", b"after")])
        assert waiting(outbox)[0] == b"before"
        outbox.close()
    clock.advance(8 * DAY_S)
    outbox = Outbox(tmp_path / "outbox.db", max_age_s=7 * DAY_S, clock=clock)

    assert waiting(outbox) == []
    outbox.close()


def test_a_clock_that_was_far_ahead_keeps_nothing_for_longer_than_the_limit(tmp_path: Path) -> None:
    clock = ManualClock(1_767_225_600_000)
    outbox = Outbox(tmp_path / "outbox.db", max_age_s=7 * DAY_S, clock=clock)
    outbox.put_and_wait([Put("t", b"before")])
    clock.set_time_ms(4_000_000_000_000)
    at_once = waiting(outbox)

    clock.set_time_ms(1_767_225_600_000)
    waiting(outbox)
    clock.advance(8 * DAY_S)

    assert (at_once, waiting(outbox)) == ([b"before"], [])
    outbox.close()


def test_an_outbox_of_an_earlier_release_is_opened_and_expires(tmp_path: Path) -> None:
    clock = ManualClock(1_767_225_600_000)
    earlier = sqlite3.connect(tmp_path / "outbox.db")
    earlier.executescript(
        "CREATE TABLE entry (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL,"
        " time_ms INTEGER NOT NULL);"
        "CREATE TABLE state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
        "INSERT INTO state VALUES ('position', x'37');"
    )
    stamps = [clock.time_ms() - days * DAY_S * 1_000 for days in (8, 1)]
    earlier.executemany("INSERT INTO entry (topic, payload, time_ms) VALUES ('t', x'31', ?)", [(ms,) for ms in stamps])
    earlier.commit()
    earlier.close()

    outbox = Outbox(tmp_path / "outbox.db", max_age_s=7 * DAY_S, clock=clock)

    assert (waiting(outbox), outbox.dropped) == ([b"1"], 1)
    assert outbox.states() == {"position": b"7"}
    outbox.close()
