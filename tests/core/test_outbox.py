"""The outbox keeps, in order, what is not acknowledged: through restarts, full disks and lost acknowledgements."""

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wheeltapper.clock import ManualClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.outbox import Outbox, Put
from wheeltapper.sender import Sender
from wheeltapper.transport.memory import MemoryBroker


def numbered(*numbers: int) -> list[Put]:
    return [Put("t", str(number).encode()) for number in numbers]


def payloads(outbox: Outbox) -> list[bytes]:
    return [entry.payload for entry in outbox.peek(1_000_000)]


def pump(sender: Sender, broker: MemoryBroker) -> None:
    while sender.send_waiting() or broker.deliver():
        pass


def settle(outbox: Outbox) -> None:
    """Return when everything asked of the writer so far is on disk."""
    outbox.put_and_wait([])


def test_what_waits_is_its_owners_to_read(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put_and_wait(numbered(1))

    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}

    outbox.close()
    assert modes["outbox.db"] == 0o600
    assert set(modes.values()) == {0o600}


def test_entries_survive_closing_and_keep_their_order(tmp_path: Path) -> None:
    first = Outbox(tmp_path / "outbox.db")
    first.put_and_wait(numbered(1, 2, 3))
    first.close()

    second = Outbox(tmp_path / "outbox.db")

    assert payloads(second) == [b"1", b"2", b"3"]
    assert len(second) == 3
    second.close()


def test_a_state_is_kept_together_with_its_entries(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", max_bytes=3)
    outbox.put_and_wait(numbered(1), states={"position": b"one"})

    with pytest.raises(UnavailableError, match="full"):
        outbox.put_and_wait([Put("t", b"four")], states={"position": b"two"})

    assert outbox.state("position") == b"one"
    assert outbox.states("pos") == {"position": b"one"}
    outbox.close()


def test_an_empty_state_forgets_its_name(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put_and_wait([], states={"a": b"1", "b": b"2"})

    outbox.put_and_wait([], states={"a": b""})

    assert outbox.state("a") is None
    assert outbox.states() == {"b": b"2"}
    outbox.close()


def test_a_full_outbox_that_drops_makes_room_by_forgetting_the_oldest(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", max_bytes=3, full="drop_oldest")
    outbox.put_and_wait(numbered(1, 2, 3))

    outbox.put_and_wait(numbered(4, 5))

    assert payloads(outbox) == [b"3", b"4", b"5"]
    assert outbox.dropped == 2
    outbox.close()


def test_entries_older_than_the_limit_are_dropped_and_counted(tmp_path: Path) -> None:
    clock = ManualClock(1_000_000)
    outbox = Outbox(tmp_path / "outbox.db", max_age_s=60, clock=clock)
    outbox.put_and_wait(numbered(1))
    clock.advance(61)

    outbox.put_and_wait(numbered(2))

    assert payloads(outbox) == [b"2"]
    assert outbox.dropped == 1
    outbox.close()


def test_a_full_disk_fails_the_put_and_keeps_what_was_there(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put_and_wait(numbered(1))
    pages = outbox._writer.execute("PRAGMA page_count").fetchone()[0]
    outbox._writer.execute(f"PRAGMA max_page_count={pages}")

    with pytest.raises(UnavailableError, match="full"):
        outbox.put_and_wait([Put("t", bytes(100_000))])

    assert payloads(outbox) == [b"1"]
    assert len(outbox) == 1
    outbox._writer.execute("PRAGMA max_page_count=1000000")
    outbox.put_and_wait(numbered(2))
    assert payloads(outbox) == [b"1", b"2"]
    outbox.close()


def test_what_was_acknowledged_is_removed_although_what_is_put_beside_it_finds_no_room(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put_and_wait(numbered(1, 2))
    pages = outbox._writer.execute("PRAGMA page_count").fetchone()[0]
    outbox._writer.execute(f"PRAGMA max_page_count={pages}")

    outbox.remove([outbox.peek(1)[0].id])
    with pytest.raises(UnavailableError, match="full"):
        outbox.put_and_wait([Put("t", bytes(100_000))])

    assert payloads(outbox) == [b"2"]
    outbox.close()
    again = Outbox(tmp_path / "outbox.db")
    assert payloads(again) == [b"2"]
    again.close()


def test_what_was_acknowledged_is_not_sent_again_while_its_removal_cannot_be_written(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put_and_wait(numbered(1, 2))
    blocker = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    outbox._writer.execute("PRAGMA busy_timeout=0")
    blocker.execute("BEGIN IMMEDIATE")

    outbox.remove([outbox.peek(1)[0].id])
    with pytest.raises(UnavailableError, match="nothing could be kept"):
        outbox.put_and_wait(numbered(3))

    assert payloads(outbox) == [b"2"]
    blocker.execute("ROLLBACK")
    blocker.close()
    outbox.put_and_wait(numbered(4))
    assert (payloads(outbox), len(outbox)) == ([b"2", b"4"], 2)
    assert outbox._removing == set()
    outbox.close()


def test_a_file_that_is_no_outbox_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"not a database" * 100)

    with pytest.raises(SettingsError, match=r"outbox\.db"):
        Outbox(path)


def test_the_sender_empties_the_outbox_in_order(tmp_path: Path) -> None:
    broker = MemoryBroker()
    outbox = Outbox(tmp_path / "outbox.db")
    transport = broker.transport()
    transport.start()
    sender = Sender(outbox, transport, window=2)
    outbox.put_and_wait(numbered(1, 2, 3, 4, 5))

    pump(sender, broker)
    sender.close()
    settle(outbox)

    assert [payload for _, payload in broker.published] == [b"1", b"2", b"3", b"4", b"5"]
    assert len(outbox) == 0
    outbox.close()


def test_a_lost_acknowledgement_sends_again_and_loses_nothing(tmp_path: Path) -> None:
    broker = MemoryBroker()
    outbox = Outbox(tmp_path / "outbox.db")
    transport = broker.transport()
    transport.start()
    sender = Sender(outbox, transport)
    broker.lose_acknowledgements = 1
    outbox.put_and_wait(numbered(1, 2, 3))

    pump(sender, broker)
    sender.close()
    settle(outbox)

    assert {payload for _, payload in broker.published} == {b"1", b"2", b"3"}
    assert len(outbox) == 0
    outbox.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["put", "pump", "away", "back", "lose", "restart"]), max_size=40))
def test_whatever_happens_every_entry_arrives_and_first_arrivals_are_in_order(events: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        broker = MemoryBroker()
        transport = broker.transport()
        transport.start()
        outbox = Outbox(Path(folder) / "outbox.db", flush=False)
        sender = Sender(outbox, transport, window=3)
        count = 0
        for event in [*events, "back", "pump"]:
            if event == "put":
                count += 1
                outbox.put_and_wait(numbered(count))
            elif event == "pump":
                pump(sender, broker)
            elif event == "away":
                broker.go_away()
            elif event == "back":
                broker.come_back()
            elif event == "lose":
                broker.lose_acknowledgements = 2
            else:
                broker.go_away()
                outbox.close()
                broker.come_back()
                outbox = Outbox(Path(folder) / "outbox.db", flush=False)
                sender = Sender(outbox, transport, window=3)
        sender.close()
        settle(outbox)
        kept = len(outbox)
        outbox.close()

    first_arrivals = list(dict.fromkeys(int(payload) for _, payload in broker.published))
    assert first_arrivals == list(range(1, count + 1))
    assert kept == 0


def _fill_until_killed(path: Path, acknowledged: Path) -> None:
    outbox = Outbox(path)
    with acknowledged.open("ab", buffering=0) as told:
        for number in range(1_000_000):
            outbox.put_and_wait([Put("t", str(number).encode())])
            told.write(f"{number}\n".encode())


def test_kill_minus_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "outbox.db", tmp_path / "told"
    process = multiprocessing.get_context("spawn").Process(target=_fill_until_killed, args=(path, acknowledged))
    process.start()
    deadline = time.monotonic() + 90
    while not (acknowledged.exists() and acknowledged.stat().st_size > 200) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()

    outbox = Outbox(path)

    told = acknowledged.read_bytes().split(b"\n")[:-1]
    assert told
    assert payloads(outbox)[: len(told)] == told
    outbox.close()


def test_the_outbox_can_be_read_by_plain_sqlite(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put_and_wait(numbered(7))

    with sqlite3.connect(tmp_path / "outbox.db") as reader:
        rows = reader.execute("SELECT topic, payload FROM entry").fetchall()

    assert rows == [("t", b"7")]
    outbox.close()


def test_what_was_acknowledged_is_not_given_again_before_its_removal_is_on_disk(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put_and_wait([Put("t", b"1"), Put("t", b"2")])
    first, second = outbox.peek(10)

    outbox.remove([first.id])

    assert outbox.peek(10) == [second]
    assert len(outbox) == 1
    outbox.close()
    again = Outbox(tmp_path / "outbox.db")
    assert again.peek(10) == [second]
    again.close()


def test_what_waits_is_never_told_to_be_less_while_removals_are_written(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    told: list[int] = []
    for _ in range(20):
        outbox.put_and_wait([Put("a", b"x")] * 100)
        outbox.remove([entry.id for entry in outbox.peek(50)])
        written = threading.Event()
        outbox.put([], done=lambda _error, written=written: written.set())
        while not written.is_set():
            told.append(len(outbox))
        outbox.remove([entry.id for entry in outbox.peek(50)])
        outbox.put_and_wait([])

    assert min(told) == 50
    outbox.close()
