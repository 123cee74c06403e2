"""What waits in an outbox grows old by time that goes by, not by a clock that is set."""

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
